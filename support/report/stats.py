"""Confidence intervals and significance tests for the report.

Two sources of chance are kept apart. Over seeds: another run of the same training, tested on the
same images (paired t). Over seeds and images: another run, tested on other images of the same kind
(the bootstrap).
"""

import math

import numpy as np
from scipy import stats


def paired_difference(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Return the mean of first - second, pair by pair, and how far its 95% confidence interval
    reaches to either side (Student 1908)."""
    differences = first - second
    runs = len(differences)
    quantile = stats.t.ppf(0.975, runs - 1)
    return differences.mean(), quantile * differences.std(ddof=1) / math.sqrt(runs)


def paired_p_value(first: np.ndarray, second: np.ndarray) -> float:
    """Return the two-sided p-value of the paired t-test."""
    return stats.ttest_rel(first, second).pvalue


def holm(p_values: list[float]) -> list[float]:
    """Adjust the p-values of tests that are read together (Holm 1979).

    Calling significant what is then below 0.05 keeps the chance of even one false positive among
    all these tests at or below 5%.
    """
    order = np.argsort(p_values)
    tests_left = len(p_values) - np.arange(len(p_values))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.maximum.accumulate(tests_left * np.asarray(p_values)[order])
    return np.minimum(adjusted, 1).tolist()


def crossed_bootstrap(differences: np.ndarray, repeats: int = 10_000) -> tuple[float, float]:
    """Return the 95% interval of the mean of `differences`, drawing both rows (seeds) and columns
    (images) anew with replacement (Owen 2007: the pigeonhole bootstrap).

    Args:
        differences: [seeds, images], mostly 0.
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
    low, high = np.quantile(means, [0.025, 0.975])
    return low, high


def mcnemar(first: set, second: set) -> tuple[int, int, float]:
    """Return how many images only the first of two networks misclassifies, how many only the
    second, and the probability of so uneven a split if both were equally good (McNemar 1947,
    exact).

    Args:
        first, second: the images that each network misclassifies.
    """
    only_first, only_second = len(first - second), len(second - first)
    either = only_first + only_second
    p_value = stats.binomtest(only_first, either).pvalue if either else 1.0
    return only_first, only_second, p_value


def fisher(first: int, second: int, images: int) -> float:
    """Return the p-value of Fisher's exact test: of error counts of two networks, each on `images`
    of its own, that differ at least as much, if both were equally good."""
    return stats.fisher_exact([[first, images - first], [second, images - second]]).pvalue


def error_difference(first: int, second: int, images: int) -> tuple[float, float]:
    """Return the difference of the error rates of two networks, each on `images` of its own, and
    how far its 95% confidence interval reaches to either side (Wald's)."""
    rates = np.array([first, second]) / images
    deviation = math.sqrt((rates * (1 - rates)).sum() / images)
    return rates[0] - rates[1], stats.norm.ppf(0.975) * deviation
