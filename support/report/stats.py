"""Confidence intervals for the report.

One rule for all of them: the 95% intervals of differences that are tested together are simultaneous
(Bonferroni), that is, the chance that any of them misses the true value is at most 5%. An effect
counts when its interval over seeds excludes 0.

Two sources of chance are kept apart. Over seeds: another run of the same training, tested on the
same images (paired t). Over seeds and images: another run, tested on other images of the same kind
(two-way variance components), which is shown beside it and decides nothing.
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


def crossed_difference(differences: np.ndarray, tests: int = 1) -> tuple[float, float]:
    """Return the mean of `differences`, and how far its 95% confidence interval reaches to either
    side if both the seeds and the images are random samples.

    The variance of the mean, seeds / S + images / I + rest / (S * I), is estimated from the mean
    squares of a two-way analysis of variance without replication, a negative component counted as 0
    (Searle, Casella, McCulloch 1992); the degrees of freedom are those of Satterthwaite (1946).

    Args:
        differences: [seeds S, images I].
        tests: how many such means are tested together, this one included.
    """
    seeds, images = differences.shape
    freedom = np.array([seeds - 1, images - 1, (seeds - 1) * (images - 1)])
    of_seeds = images * differences.mean(axis=1).var(ddof=1)
    of_images = seeds * differences.mean(axis=0).var(ddof=1)
    both = freedom[0] * of_seeds + freedom[1] * of_images
    rest = (differences.size * differences.var() - both) / freedom[2]
    # The last three are what the first becomes where a component is negative.
    total = max(of_seeds + of_images - rest, of_seeds, of_images, rest)
    if total == 0:
        return differences.mean(), 0.0
    squares = np.array([of_seeds, of_images, rest])
    quantile = stats.t.ppf(1 - 0.05 / (2 * tests), total**2 / (squares**2 / freedom).sum())
    return differences.mean(), quantile * math.sqrt(total / (seeds * images))


def rate_difference(first: float, second: float, images: int) -> tuple[float, float]:
    """Return the difference of two shares, such as the accuracies of two networks, each on `images`
    of its own, and how far its 95% confidence interval reaches to either side (Wald's)."""
    rates = np.array([first, second])
    deviation = math.sqrt((rates * (1 - rates)).sum() / images)
    return first - second, stats.norm.ppf(0.975) * deviation
