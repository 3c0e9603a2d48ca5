"""Confidence intervals for the report.

One rule for all of them: the 95% intervals of differences that are tested together are simultaneous
(Bonferroni), that is, the chance that any of them misses the true value is at most 5%. An effect
counts when its interval excludes 0.

Two sources of chance are kept apart. Over seeds: another run of the same training, tested on the
same images (paired t). Over seeds and images: another run, tested on other images of the same kind
(the bootstrap).
"""

import math

import numpy as np
from scipy import stats


def paired_difference(first: np.ndarray, second: np.ndarray, tests: int = 1) -> tuple[float, float]:
    """Return the mean of first - second, pair by pair, and how far its 95% confidence interval
    (Student 1908) reaches to either side.

    Args:
        tests: how many differences are tested together, this one included.
    """
    differences = first - second
    runs = len(differences)
    quantile = stats.t.ppf(1 - 0.05 / (2 * tests), runs - 1)
    return differences.mean(), quantile * differences.std(ddof=1) / math.sqrt(runs)


def crossed_bootstrap(
    differences: np.ndarray, tests: int = 1, repeats: int = 10_000
) -> tuple[float, float]:
    """Return the 95% interval of the mean of `differences`, drawing both rows (seeds) and columns
    (images) anew with replacement (Owen 2007: the pigeonhole bootstrap).

    Args:
        differences: [seeds, images], mostly 0.
        tests: how many such means are tested together, this one included.
    """
    rng = np.random.default_rng(0)
    seeds, images = differences.shape
    # Columns of zeros add nothing, so all of them are drawn as one.
    columns = differences[:, differences.any(axis=0)]
    shares = np.full(columns.shape[1] + 1, 1 / images)
    shares[-1] = 1 - columns.shape[1] / images
    drawn_images = rng.multinomial(images, shares, size=repeats)[:, :-1]
    drawn_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=repeats)
    means = ((drawn_seeds @ columns) * drawn_images).sum(axis=1) / (seeds * images)
    tail = 0.05 / (2 * tests)
    low, high = np.quantile(means, [tail, 1 - tail])
    return low, high


def rate_difference(first: float, second: float, images: int) -> tuple[float, float]:
    """Return the difference of two shares, such as the accuracies of two networks, each on `images`
    of its own, and how far its 95% confidence interval reaches to either side (Wald's)."""
    rates = np.array([first, second])
    deviation = math.sqrt((rates * (1 - rates)).sum() / images)
    return first - second, stats.norm.ppf(0.975) * deviation
