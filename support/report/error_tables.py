"""What README.md says on single errors, as Markdown, made from records: which digits are confused,
and which images are misclassified by many networks."""

import numpy as np

from support.report.plan import RECIPE_ROW
from support.report.records import Records, confusions, error_matrix

# Of the test images that were reviewed, those whose label fewer than 3 of 5 people confirmed
# (Northcutt et al. 2021, in the file mturk/mnist_mturk.json of their repository
# cleanlab/label-errors).
DOUBTFUL_LABELS = [
    *(947, 1621, 1901, 2130, 2462, 2597, 2654, 3520),
    *(3558, 5937, 6651, 6783, 8527, 9679, 9729),
]


def confusions_table(records: Records) -> str:
    """What each network most often takes a digit for."""
    columns = []
    for row in ("lenet5", "mlp", RECIPE_ROW):
        counts = confusions(records[row])
        most = np.argsort(-counts, axis=None, kind="stable")[:6]
        columns.append(
            [
                f"{label} as {digit}: {counts[label, digit]:.1f}"
                for label, digit in zip(*np.unravel_index(most, counts.shape), strict=True)
            ]
        )
    lines = ["| LeNet-5 | MLP | LeNet-5, `--regularize` |", "|---|---|---|"]
    return "\n".join(lines + [f"| {' | '.join(cells)} |" for cells in zip(*columns, strict=True)])


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
