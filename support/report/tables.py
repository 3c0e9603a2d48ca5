"""The tables of README.md that compare the networks, as Markdown, made from records."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import nn

from model import MODELS
from support.report.plan import FRESH, FRESH_ROWS, KNOWN_ACCURACY, QUESTIONS, Question
from support.report.records import (
    TEST_IMAGES,
    Records,
    accuracies,
    epochs_of,
    error_matrix,
    final_values,
    minutes_of,
)
from support.report.stats import crossed_difference, paired_difference, rate_difference

MINUS = "\N{MINUS SIGN}"
# Between parts of a cell that must not wrap.
NBSP = "\N{NO-BREAK SPACE}"
HYPHEN = "\N{NON-BREAKING HYPHEN}"


def markdown_table(align: str, titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table as Markdown.

    Args:
        align: a letter for each column, l (left) or r (right).
    """
    rule = ["---:" if side == "r" else "---" for side in align]
    cells = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([f"| {' | '.join(titles)} |", f"|{'|'.join(rule)}|", *cells])


def spread(values: np.ndarray, digits: int = 2) -> str:
    """The mean of the values and their standard deviation."""
    return f"{values.mean():.{digits}f}{NBSP}±{NBSP}{values.std(ddof=1):.{digits}f}"


def signed(difference: float) -> str:
    return f"{difference:+z.2f}".replace("-", MINUS)


def interval(difference: float, half_width: float) -> str:
    """The confidence interval of a difference."""
    return f"{signed(difference - half_width)}{NBSP}to{NBSP}{signed(difference + half_width)}"


def with_interval(difference: float, half_width: float) -> str:
    """A difference, and its confidence interval."""
    return f"{signed(difference)}{NBSP}({interval(difference, half_width)})"


def seeds_and_epochs(runs: list[dict]) -> str:
    return f"{len(runs)} seeds, {epochs_of(runs)} epochs"


def fresh(records: Records, row: str) -> list[dict]:
    """The runs of a row on the fresh seeds."""
    return records[f"{FRESH}{row}"]


# --- the networks -----------------------------------------------------------------------------


def headline_table(records: Records) -> str:
    """The networks on the fresh seeds, and the LeNet-5 of 1998."""
    rows = []
    for row, (title, _) in FRESH_ROWS.items():
        runs = fresh(records, row)
        minutes = f"{np.median(minutes_of(runs)):.1f}"
        rows.append([title, f"{epochs_of(runs)}", minutes, spread(accuracies(runs))])
    rows.append(["LeNet-5 of 1998 (LeCun et al.)", "20", "", f"{KNOWN_ACCURACY}"])
    titles = ["network", "epochs", "minutes", "test accuracy (%)"]
    return markdown_table("lrrr", titles, rows)


def count_multiply_adds(model: nn.Module) -> int:
    """Return the multiplications, each with its addition, that one image costs."""
    total = 0

    def count(layer: nn.Conv2d | nn.Linear, inputs: tuple, outputs: torch.Tensor) -> None:
        nonlocal total
        total += outputs.numel() * layer.weight[0].numel()  # each output sums so many products

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    model(torch.zeros(1, 1, 28, 28))
    return total


def models_table(records: Records) -> str:
    """LeNet-5 and the MLP, trained alike, side by side."""
    both = {name: fresh(records, name) for name in ("lenet5", "mlp")}
    wrong = {name: error_matrix(runs) for name, runs in both.items()}
    cells = []
    for (name, runs), other in zip(both.items(), reversed(wrong.values()), strict=True):
        alone = (wrong[name] > other).sum(axis=1)
        cells.append(
            {
                "test accuracy (%)": spread(accuracies(runs)),
                "training accuracy of the final network (%)": spread(accuracies(runs, "train")),
                "test loss": spread(final_values(runs, "loss"), 3),
                "images that only it misreads (mean)": f"{alone.mean():.0f}",
                "multiply-adds per image": f"{count_multiply_adds(MODELS[name]()):,}",
            }
        )
    rows = [[name, *(of_network[name] for of_network in cells)] for name in cells[0]]
    return markdown_table("lrr", [seeds_and_epochs(both["lenet5"]), "LeNet-5", "MLP"], rows)


def epochs_table(records: Records) -> str:
    """Loss and accuracy on both sets after some of the epochs, means over seeds."""
    quantities = {
        "train_loss": "training loss",
        "train_accuracy": "training accuracy (%)",
        "test_loss": "test loss",
        "test_accuracy": "test accuracy (%)",
    }
    rows = []
    for title, row in (("LeNet-5", "lenet5"), ("MLP", "mlp")):
        runs = fresh(records, row)
        last = epochs_of(runs)
        for epoch in [e for e in (1, 2, 5, 10, 15, 20) if e < last] + [last]:
            cells = [title, f"{epoch}"]
            for name in quantities:
                mean = np.mean([run["history"][epoch - 1][name] for run in runs])
                cells.append(f"{mean:.4f}" if name.endswith("loss") else f"{100 * mean:.2f}")
            rows.append(cells)
    return markdown_table("lrrrrr", ["network", "epoch", *quantities.values()], rows)


# --- the questions ----------------------------------------------------------------------------


def difference(records: Records, question: Question) -> tuple[float, float]:
    """The mean difference (points) that a question asks for, and the half-width of its interval."""
    first, second = fresh(records, question.first), fresh(records, question.second)
    return paired_difference(accuracies(first), accuracies(second), tests=len(QUESTIONS))


def difference_over_images(
    first: list[dict], second: list[dict], tests: int
) -> tuple[float, float]:
    """How much more accurate the first runs are (points), and the half-width of the interval that
    allows for the choice of test images, too."""
    saved = error_matrix(second) - error_matrix(first)
    return crossed_difference(100 * saved, tests)


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
    rows = []
    for question in QUESTIONS:
        runs = fresh(records, question.first), fresh(records, question.second)
        margin = f" (margin: {question.margin} points)" if question.margin else ""
        rows.append(
            [
                question.text.replace("--", 2 * HYPHEN) + margin,
                answer(records, question),
                with_interval(*difference(records, question)),
                interval(*difference_over_images(*runs, tests=len(QUESTIONS))),
            ]
        )
    titles = [
        *("planned question", "answer", "difference (points), 95% interval over seeds"),
        "interval over seeds and images",
    ]
    return markdown_table("llrr", titles, rows)


def known_gap(records: Records) -> tuple[float, float]:
    """By how much plain LeNet-5 is more accurate than that of 1998 (points), and the half-width of
    the interval."""
    accuracy = accuracies(fresh(records, "lenet5")).mean()
    gap, half_width = rate_difference(accuracy / 100, KNOWN_ACCURACY / 100, TEST_IMAGES)
    return 100 * gap, 100 * half_width


# --- the errors that remain -------------------------------------------------------------------

# Of the test images that were reviewed, those whose label fewer than 3 of 5 people confirmed
# (Northcutt et al. 2021, in the file mturk/mnist_mturk.json of their repository
# cleanlab/label-errors).
DOUBTFUL_LABELS = [
    *(947, 1621, 1901, 2130, 2462, 2597, 2654, 3520),
    *(3558, 5937, 6651, 6783, 8527, 9679, 9729),
]


def hard_images_table(records: Records) -> str:
    """How many test images are misclassified by how many of the recipe's networks, their share of
    all errors, and how many of them have a doubtful label."""
    runs = fresh(records, "recipe")
    times = error_matrix(runs).sum(axis=0)
    rows = []
    for title, least in (("at least one", 1), ("at least half", len(runs) / 2), ("all", len(runs))):
        hard = times >= least
        share = times[hard].sum() / times.sum()
        doubtful = hard[DOUBTFUL_LABELS].sum()
        rows.append([title, f"{hard.sum()}", f"{share:.0%}", f"{doubtful}"])
    title = f"misclassified by, of {len(runs)} networks"
    columns = [title, "images", "share of all errors", "with a doubtful label"]
    return markdown_table("lrrr", columns, rows)
