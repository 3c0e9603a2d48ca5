"""The statistics: against published examples, scipy by another way, and simulation."""

import itertools
import math
import statistics

import numpy as np
import pytest
from scipy import stats

from support.report.stats import crossed_difference, paired_difference, rate_difference

# Student 1908, additional hours of sleep by two soporifics: mean difference 1.58, its standard
# deviation 1.23, t = 4.06, n = 10.
FIRST = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])
SECOND = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])


def test_students_own_example_gives_his_difference_and_its_interval():
    difference, half_width = paired_difference(FIRST, SECOND)
    assert difference == pytest.approx(1.58)
    assert (difference - half_width, difference + half_width) == pytest.approx(
        (0.70, 2.46), abs=0.005
    )
    assert paired_difference(SECOND, FIRST) == pytest.approx((-1.58, half_width))


def test_two_pairs_have_the_interval_of_cauchys_distribution():
    # With one degree of freedom, Student's distribution is Cauchy's: its quantile is a tangent.
    difference, half_width = paired_difference(np.array([1.0, 4.0]), np.array([0.0, 1.0]))
    assert difference == 2
    assert half_width == pytest.approx(
        math.tan(0.475 * math.pi) * statistics.stdev([1, 3]) / 2**0.5
    )


@pytest.mark.parametrize("tests", [1, 3, 10])
def test_each_of_several_intervals_is_as_wide_as_one_of_a_higher_level(tests):
    difference, half_width = paired_difference(FIRST, SECOND, tests)
    expected = stats.ttest_rel(FIRST, SECOND).confidence_interval(1 - 0.05 / tests)
    assert (difference - half_width, difference + half_width) == pytest.approx(tuple(expected))


def test_pairs_are_compared_as_pairs():
    base = np.array([0.0, 10.0, 20.0, 30.0])
    raised = np.array([1.0, 11.1, 20.9, 31.0])
    difference, half_width = paired_difference(raised, base)
    assert difference - half_width > 0.8  # as two groups: from -21 to 23


def variance_by_pairs(differences):
    """The variance of the mean by another way: components are mean products of pairs of cells, of
    the same seed, of the same image, of neither, less those of the mean."""
    seeds, images = differences.shape
    same = {"seed": [], "image": [], "neither": []}
    cells = list(np.ndindex(seeds, images))
    for first, second in itertools.permutations(cells, 2):
        kind = "seed" if first[0] == second[0] else "image" if first[1] == second[1] else "neither"
        same[kind].append(differences[first] * differences[second])
    apart = np.mean(same["neither"])
    of_seeds, of_images = (np.mean(same[kind]) - apart for kind in ("seed", "image"))
    rest = np.mean(differences**2) - apart - of_seeds - of_images
    return of_seeds / seeds + of_images / images + rest / (seeds * images)


def test_the_variance_over_seeds_and_images_is_that_of_its_components():
    rng = np.random.default_rng(0)
    by_seed, by_image = rng.normal(size=(4, 1)), rng.normal(size=(1, 6))
    differences = by_seed + by_image + rng.normal(size=(4, 6))
    mean, half_width = crossed_difference(differences)
    deviation = math.sqrt(variance_by_pairs(differences))
    assert mean == pytest.approx(differences.mean())
    # Between the quantiles of the normal distribution and of Student's for the fewest degrees.
    assert 1.96 < half_width / deviation < stats.t.ppf(0.975, 3)
    # As many times, as much wider as quantiles grow.
    assert crossed_difference(differences, tests=10)[1] > 1.3 * half_width


@pytest.mark.parametrize("axis", [0, 1])
def test_where_only_seeds_or_only_images_differ_the_interval_is_students(axis):
    values = np.random.default_rng(0).normal(size=12)
    shape = (12, 1) if axis == 0 else (1, 12)
    differences = np.broadcast_to(values.reshape(shape), (12, 12))
    expected = paired_difference(values, np.zeros(12), tests=3)
    assert crossed_difference(differences, tests=3) == pytest.approx(expected)


def test_no_difference_anywhere_has_an_interval_of_no_width():
    assert crossed_difference(np.zeros((3, 50))) == (0, 0)


def coverage(estimate, samples, true):
    """How often the interval of `estimate` covers the true value."""
    intervals = [estimate(sample) for sample in samples]
    return np.mean([abs(mean - true) <= half_width for mean, half_width in intervals])


def test_intervals_over_seeds_cover_the_true_difference_95_times_in_100():
    samples = np.random.default_rng(0).normal(0.3, 1, (3000, 5))
    covered = coverage(lambda sample: paired_difference(sample, np.zeros(5)), samples, 0.3)
    assert covered == pytest.approx(0.95, abs=0.012)


@pytest.mark.parametrize("of_seeds", [0.01, 0.1])
@pytest.mark.parametrize("of_images", [0.1, 1])
def test_intervals_over_seeds_and_images_cover_at_least_95_times_in_100(of_seeds, of_images):
    """A little more often where a component is so small that it may be found negative."""
    rng = np.random.default_rng(0)
    samples = (
        rng.normal(0.3, of_seeds, (10, 1))
        + rng.normal(0, of_images, (1, 300))
        + rng.normal(0, 1, (10, 300))
        for _ in range(700)
    )
    assert 0.935 < coverage(crossed_difference, samples, 0.3) < 0.985


def test_the_difference_of_two_shares_has_walds_interval():
    difference, half_width = rate_difference(0.3, 0.1, 100)
    assert difference == pytest.approx(0.2)
    # sqrt(0.3 * 0.7 / 100 + 0.1 * 0.9 / 100) = sqrt(0.003)
    assert half_width == pytest.approx(1.959964 * math.sqrt(0.003))


def test_walds_interval_covers_the_true_difference_95_times_in_100():
    pairs = np.random.default_rng(0).binomial(10_000, [0.9920, 0.9905], (3000, 2)) / 10_000
    covered = coverage(lambda pair: rate_difference(*pair, 10_000), pairs, 0.0015)
    assert covered == pytest.approx(0.95, abs=0.012)
