"""The tables of README.md that compare the networks, and what it says on single errors, as
Markdown, made from records."""

import numpy as np
import torch
from torch import nn

from model import MODELS
from support.report.plan import KNOWN_ACCURACY, KNOWN_MARGIN, LONG_PLAIN, RECIPE_ROW
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


def plus_minus(difference: float, half_width: float) -> str:
    """A difference, and the half-width of its confidence interval."""
    return f"{signed(difference)}{NBSP}±{NBSP}{half_width:.2f}"


def interval(low: float, high: float) -> str:
    return f"{signed(low)}{NBSP}to{NBSP}{signed(high)}"


def headline_table(records: Records) -> str:
    """The three networks."""
    lines = [
        "| network | parameters | epochs | test accuracy (%) | minutes on one thread |",
        "|---|---:|---:|---:|---:|",
    ]
    for network, row in (
        ("MLP", "mlp"),
        ("LeNet-5", "lenet5"),
        ("**LeNet-5, regularized**", RECIPE_ROW),
    ):
        runs = records[row]
        minutes = [sum(entry["seconds"] for entry in run["history"]) / 60 for run in runs]
        lines.append(
            f"| {network} | {runs[0]['parameters']:,} | {epochs_of(runs)} "
            f"| {spread(accuracies(runs))} | {np.median(minutes):.1f} |"
        )
    return "\n".join(lines)


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
    lenet5, mlp = records["lenet5"], records["mlp"]
    pairs = [
        (misclassified_images(first), misclassified_images(second))
        for first, second in zip(lenet5, mlp, strict=True)
    ]
    only_lenet5 = np.mean([len(first - second) for first, second in pairs])
    only_mlp = np.mean([len(second - first) for first, second in pairs])
    rows = {
        "parameters": [f"{runs[0]['parameters']:,}" for runs in (lenet5, mlp)],
        "multiply-adds per image": [
            f"{count_multiply_adds(MODELS[name]()):,}" for name in ("lenet5", "mlp")
        ],
        "training accuracy (%)": [spread(accuracies(runs, "train")) for runs in (lenet5, mlp)],
        "test accuracy (%)": [spread(accuracies(runs)) for runs in (lenet5, mlp)],
        "test loss": [spread(final_values(runs, "loss"), 4) for runs in (lenet5, mlp)],
        "errors in 10,000": [f"{100 * (100 - accuracies(r).mean()):.1f}" for r in (lenet5, mlp)],
        "of these, errors of this network only": [f"{only_lenet5:.1f}", f"{only_mlp:.1f}"],
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
        histories = [run["history"] for run in records[row]]
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


def known_table(records: Records) -> str:
    """Ours beside what LeCun et al. 1998 published, and whether plain LeNet-5 reaches it."""
    plain = accuracies(records["lenet5"])
    rows = [
        ("LeNet-5, 1998", f"{KNOWN_ACCURACY}"),
        ("**LeNet-5, here, plain**", spread(plain)),
        ("LeNet-5, 1998, with distortions", "99.2"),
        ("LeNet-4, 1998, boosted: the best of the paper", "99.3"),
        (
            "LeNet-5, here, with augmentation, 20 epochs",
            spread(accuracies(records["lenet5+augment"])),
        ),
        ("**LeNet-5, here, regularized**", spread(accuracies(records[RECIPE_ROW]))),
    ]
    gap, half = (
        100 * value
        for value in rate_difference(plain.mean() / 100, KNOWN_ACCURACY / 100, TEST_IMAGES)
    )
    lines = ["| network | test accuracy (%) |", "|---|---:|"]
    lines += [f"| {network} | {accuracy} |" for network, accuracy in rows]
    margin = f"{MINUS}{KNOWN_MARGIN}, the planned margin"
    test = (
        f"Plain LeNet-5 differs from that of 1998 by {signed(gap)} points, with a 95% interval "
        f"from {interval(gap - half, gap + half)}. "
    )
    if gap - half > -KNOWN_MARGIN:
        test += f"All of it lies above {margin}: ours is not worse by as much."
    else:
        test += f"It does not lie above {margin}: ours may be worse by as much."
    return "\n".join([*lines, "", test])


def differences_table(records: Records) -> str:
    """The headline differences, tested together, each with two intervals."""
    lines = [
        "| difference in test accuracy (points) | mean | over seeds | over seeds and images |",
        "|---|---:|---:|---:|",
    ]
    differences = (
        ("LeNet-5 minus MLP, both plain", "lenet5", "mlp"),
        ("LeNet-5 regularized minus plain, equally long", RECIPE_ROW, LONG_PLAIN),
    )
    tests = len(differences)
    for title, first, second in differences:
        mean, half = paired_difference(
            accuracies(records[first]), accuracies(records[second]), tests
        )
        errors = error_matrix(records[second]) - error_matrix(records[first])
        low, high = (100 * bound for bound in crossed_bootstrap(errors, tests))
        lines.append(
            f"| {title} | {signed(mean)} | {interval(mean - half, mean + half)} "
            f"| {interval(low, high)} |"
        )
    return "\n".join(lines)


# Of the test images that were reviewed, those whose label fewer than 3 of 5 people confirmed
# (Northcutt et al. 2021, in the file mturk/mnist_mturk.json of their repository
# cleanlab/label-errors).
DOUBTFUL_LABELS = [
    *(947, 1621, 1901, 2130, 2462, 2597, 2654, 3520),
    *(3558, 5937, 6651, 6783, 8527, 9679, 9729),
]


def hard_images_text(records: Records) -> str:
    """How many test images are misclassified by how many of the recipe's networks, and how many of
    those have a doubtful label."""
    runs = records[RECIPE_ROW]
    times = error_matrix(runs).sum(axis=0)
    some, half, every = (times > 0), (2 * times >= len(runs)), (times == len(runs))
    return (
        f"{some.sum()} images are misclassified by at least one of the {len(runs)} networks of "
        f"`--regularize`, {half.sum()} by at least half, and {every.sum()} by all. These "
        f"{half.sum()} account for {times[half].sum() / times.sum():.0%} of all their errors. "
        "Northcutt et al. (2021) had five people look at each of the test images whose label their "
        f"method suspected; for {len(DOUBTFUL_LABELS)}, at most two confirmed the label. Of these, "
        f"{half[DOUBTFUL_LABELS].sum()} are among the {half.sum()}, and "
        f"{every[DOUBTFUL_LABELS].sum()} among the {every.sum()}."
    )
