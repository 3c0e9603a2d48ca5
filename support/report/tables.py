"""The tables of README.md that compare the networks, and the numbers in its sentences, as Markdown,
made from records."""

import textwrap

import numpy as np
import torch
from torch import nn

from model import MODELS
from support.report.plan import FRESH, FRESH_TITLES, KNOWN_ACCURACY, QUESTIONS, Question
from support.report.records import (
    TEST_IMAGES,
    Records,
    accuracies,
    epochs_of,
    error_matrix,
    final_values,
    misclassified_images,
)
from support.report.stats import (
    crossed_bootstrap,
    paired_difference,
    rate_difference,
)

MINUS = "\N{MINUS SIGN}"
# Between parts of a cell that must not wrap.
NBSP = "\N{NO-BREAK SPACE}"
HYPHEN = "\N{NON-BREAKING HYPHEN}"


def spread(values: np.ndarray, digits: int = 2) -> str:
    """The mean of the values and their standard deviation."""
    return f"{values.mean():.{digits}f}{NBSP}±{NBSP}{values.std(ddof=1):.{digits}f}"


def signed(difference: float) -> str:
    return f"{difference:+z.2f}".replace("-", MINUS)


def interval(low: float, high: float) -> str:
    return f"{signed(low)}{NBSP}to{NBSP}{signed(high)}"


def with_interval(difference: float, half_width: float) -> str:
    """A difference, and its confidence interval."""
    bounds = interval(difference - half_width, difference + half_width)
    return f"{signed(difference)}{NBSP}({bounds})"


def fresh(records: Records, row: str) -> list[dict]:
    """The runs of a row on the fresh seeds."""
    return records[f"{FRESH}{row}"]


def headline_table(records: Records) -> str:
    """The networks on the fresh seeds, and the LeNet-5 of 1998."""
    lines = [
        "| network | epochs | test accuracy (%) |",
        "|---|---:|---:|",
    ]
    for row, title in FRESH_TITLES.items():
        runs = fresh(records, row)
        lines.append(f"| {title} | {epochs_of(runs)} | {spread(accuracies(runs))} |")
    lines.append(f"| LeNet-5 of 1998 (LeCun et al.) | 20 | {KNOWN_ACCURACY} |")
    return "\n".join(lines)


def difference(records: Records, question: Question) -> tuple[float, float]:
    """The mean difference (points) that a question asks for, and the half-width of its interval."""
    first, second = fresh(records, question.first), fresh(records, question.second)
    return paired_difference(accuracies(first), accuracies(second), tests=len(QUESTIONS))


def answer(records: Records, question: Question) -> str:
    """Say "yes" if the interval lies above 0 (with a margin: above minus the margin), "no" if it
    lies below, and else "unclear"."""
    mean, half_width = difference(records, question)
    bound = -(question.margin or 0)
    if mean - half_width > bound:
        return "yes"
    return "no" if mean + half_width < bound else "unclear"


def questions_table(records: Records) -> str:
    """The planned questions, tested together, each with two intervals."""
    lines = [
        "| planned question | answer | difference (points), 95% interval over seeds "
        "| interval over seeds and images |",
        "|---|---|---:|---:|",
    ]
    for question in QUESTIONS:
        rows = fresh(records, question.first), fresh(records, question.second)
        text = question.text.replace("--", 2 * HYPHEN)
        if question.margin:
            text += f" (margin: {question.margin} points)"
        lines.append(
            f"| {text} | {answer(records, question)} "
            f"| {with_interval(*difference(records, question))} "
            f"| {interval(*bounds_over_images(*rows, tests=len(QUESTIONS)))} |"
        )
    return "\n".join(lines)


def bounds_over_images(first: list[dict], second: list[dict], tests: int) -> tuple[float, float]:
    """The interval of how much more accurate the first runs are (points) that allows for the choice
    of test images, too."""
    low, high = crossed_bootstrap(error_matrix(second) - error_matrix(first), tests)
    return 100 * low, 100 * high


def known_gap(records: Records) -> tuple[float, float]:
    """By how much plain LeNet-5 is more accurate than that of 1998 (points), and the half-width of
    the interval."""
    accuracy = accuracies(fresh(records, "lenet5")).mean()
    gap, half_width = rate_difference(accuracy / 100, KNOWN_ACCURACY / 100, TEST_IMAGES)
    return 100 * gap, 100 * half_width


def numbers(records: Records) -> dict[str, str]:
    """The numbers in README's sentences on the fresh seeds, by their marker."""
    mlp, long = fresh(records, "mlp"), fresh(records, "lenet5-long")
    losses = np.mean([[entry["test_loss"] for entry in run["history"]] for run in mlp], axis=0)
    reached = bounds_over_images(fresh(records, "mlp-recipe"), long, tests=len(QUESTIONS))
    made = {
        "seeds": f"{len(mlp)}",
        "known": with_interval(*known_gap(records)),
        "reached-over-images": interval(*reached),
        "lowest-loss": f"{losses.min():.3f}",
        "lowest-epoch": f"{1 + losses.argmin()}",
        "last-loss": f"{losses[-1]:.3f}",
        "long-loss": f"{final_values(long, 'loss').mean():.3f}",
    }
    for question in QUESTIONS:
        name = f"{question.first}-minus-{question.second}"
        made[name] = with_interval(*difference(records, question))
    for row in ("lenet5", "mlp", "lenet5-long", "recipe"):
        runs = fresh(records, row)
        made[f"{row}-errors"] = f"{100 * (100 - accuracies(runs)).mean():.0f}"
        made[f"{row}-gap"] = f"{(accuracies(runs, 'train') - accuracies(runs)).mean():.2f}"
    _, hard, share = hard_images(records)
    made["hard-count"] = f"{hard.sum()}"
    made["hard-share"] = f"{share:.0%}"
    return made


def count_multiply_adds(model: nn.Module) -> int:
    """Return the multiplications, each with its addition, that one image costs."""
    total = 0

    def count(layer: nn.Module, inputs: tuple, outputs: torch.Tensor) -> None:
        nonlocal total
        total += outputs.numel() * layer.weight[0].numel()  # each output sums so many products

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    model(torch.zeros(1, 1, 28, 28))
    return total


def models_table(records: Records) -> str:
    """LeNet-5 and the MLP, trained alike, side by side."""
    lenet5, mlp = fresh(records, "lenet5"), fresh(records, "mlp")
    pairs = [
        (misclassified_images(first), misclassified_images(second))
        for first, second in zip(lenet5, mlp, strict=True)
    ]
    only_lenet5 = np.mean([len(first - second) for first, second in pairs])
    only_mlp = np.mean([len(second - first) for first, second in pairs])
    rows = {
        "test accuracy (%)": [spread(accuracies(runs)) for runs in (lenet5, mlp)],
        "training accuracy of the final network (%)": [
            spread(accuracies(runs, "train")) for runs in (lenet5, mlp)
        ],
        "test loss": [spread(final_values(runs, "loss"), 3) for runs in (lenet5, mlp)],
        "misread by this network only (mean)": [f"{only_lenet5:.0f}", f"{only_mlp:.0f}"],
        "multiply-adds per image": [
            f"{count_multiply_adds(MODELS[name]()):,}" for name in ("lenet5", "mlp")
        ],
    }
    lines = [f"| {seeds_and_epochs(lenet5)} | LeNet-5 | MLP |", "|---|---:|---:|"]
    lines += [f"| {name} | {first} | {second} |" for name, (first, second) in rows.items()]
    return "\n".join(lines)


def seeds_and_epochs(runs: list[dict]) -> str:
    return f"{len(runs)} seeds, {epochs_of(runs)} epochs"


def epochs_table(records: Records) -> str:
    """Loss and accuracy on both sets after some of the epochs, means over seeds."""
    lines = [
        "| network | epoch | training loss | training accuracy (%) | test loss "
        "| test accuracy (%) |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for title, row in (("LeNet-5", "lenet5"), ("MLP", "mlp")):
        histories = [run["history"] for run in fresh(records, row)]
        last = len(histories[0])
        for epoch in sorted({1, 2, 5, 10, 15, last} & set(range(1, last + 1))):
            entries = [history[epoch - 1] for history in histories]
            cells = []
            for split in ("train", "test"):
                losses = np.array([entry[f"{split}_loss"] for entry in entries])
                percents = 100 * np.array([entry[f"{split}_accuracy"] for entry in entries])
                cells += [f"{losses.mean():.4f}", f"{percents.mean():.2f}"]
            lines.append(f"| {title} | {epoch} | {' | '.join(cells)} |")
    return "\n".join(lines)


# Of the test images that were reviewed, those whose label fewer than 3 of 5 people confirmed
# (Northcutt et al. 2021, in the file mturk/mnist_mturk.json of their repository
# cleanlab/label-errors).
DOUBTFUL_LABELS = [
    *(947, 1621, 1901, 2130, 2462, 2597, 2654, 3520),
    *(3558, 5937, 6651, 6783, 8527, 9679, 9729),
]


def hard_images(records: Records) -> tuple[np.ndarray, np.ndarray, float]:
    """How many of the recipe's networks misclassify each test image, int64 [10,000]; which images
    at least half of them do, bool [10,000]; and these images' share of all errors."""
    runs = fresh(records, "recipe")
    times = error_matrix(runs).sum(axis=0)
    half = 2 * times >= len(runs)
    return times, half, times[half].sum() / times.sum()


def hard_images_text(records: Records) -> str:
    """How many test images are misclassified by how many of the recipe's networks, and how many of
    those have a doubtful label."""
    networks = len(fresh(records, "recipe"))
    times, half, share = hard_images(records)
    some, every = times > 0, times == networks
    text = (
        f"{some.sum()} images are misclassified by at least one of the {networks} networks of "
        f"`--regularize`, {half.sum()} by at least half, and {every.sum()} by all. These "
        f"{half.sum()} account for {share:.0%} of all their errors. "
        "Northcutt et al. (2021) had five people look at each of the test images whose label their "
        f"method suspected; for {len(DOUBTFUL_LABELS)}, at most two confirmed the label. Of these, "
        f"{half[DOUBTFUL_LABELS].sum()} are among the {half.sum()}, and "
        f"{every[DOUBTFUL_LABELS].sum()} among the {every.sum()}."
    )
    return textwrap.fill(text, 100)
