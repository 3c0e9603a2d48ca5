"""The statistics: against published examples, scipy by another way, and simulation."""

import math
import statistics

import numpy as np
import pytest
from scipy import stats

from support.report.stats import crossed_bootstrap, paired_difference, rate_difference

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


def test_the_interval_covers_the_true_difference_95_times_in_100():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(4000):
        difference, half_width = paired_difference(rng.normal(0.3, 1, 5), np.zeros(5))
        covered += abs(difference - 0.3) <= half_width
    assert covered / 4000 == pytest.approx(0.95, abs=0.012)


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


def test_ten_intervals_together_all_cover_their_true_differences_95_times_in_100():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        intervals = [paired_difference(rng.normal(size=10), np.zeros(10), 10) for _ in range(10)]
        covered += all(abs(difference) <= half_width for difference, half_width in intervals)
    assert covered / 1000 == pytest.approx(0.95, abs=0.02)


def test_the_bootstrap_over_images_has_the_width_of_a_share():
    differences = np.zeros((10, 1000), int)
    differences[:, :50] = 1  # every seed gains on the same 50 images: over seeds there is no chance
    # As that of a share of 5% of 1,000 images: 0.05 +- 1.96 * sqrt(0.05 * 0.95 / 1000).
    assert crossed_bootstrap(differences) == pytest.approx((0.0365, 0.0635), abs=0.0006)


def test_the_bootstrap_over_seeds_has_the_width_of_a_mean_of_seeds():
    # Seeds differ by as much on all images: over images there is no chance. Of so many seeds, the
    # interval is the normal one: mean +- 1.96 * deviation / sqrt(seeds).
    gains = np.arange(40) % 5
    low, high = crossed_bootstrap(np.tile(gains[:, None], (1, 3)))
    assert (low, high) == pytest.approx(
        (2 - 1.96 * math.sqrt(2 / 40), 2 + 1.96 * math.sqrt(2 / 40)), abs=0.03
    )


def test_as_many_images_again_on_which_nothing_differs_halve_the_bootstraps_interval():
    noisy = np.random.default_rng(1).integers(-1, 2, (10, 100))
    low, high = crossed_bootstrap(noisy)
    assert low < noisy.mean() < high
    # The sum over images keeps its mean and its deviation, and is divided by twice as many.
    diluted = crossed_bootstrap(np.hstack([noisy, np.zeros((10, 100), int)]))
    assert diluted == pytest.approx((low / 2, high / 2), abs=0.003)
    assert crossed_bootstrap(noisy) == (low, high)  # the same each time


def test_more_repeats_change_a_bootstrap_by_little_and_fewer_are_fewer():
    differences = np.zeros((10, 1000), int)
    differences[:, :50] = 1
    many, few = crossed_bootstrap(differences), crossed_bootstrap(differences, repeats=2)
    assert few[1] - few[0] < many[1] - many[0]


def test_bootstraps_of_five_tested_together_have_the_width_of_a_higher_level():
    gains = np.tile((np.arange(40) % 5)[:, None], (1, 3))
    low, high = crossed_bootstrap(gains, tests=5)
    # Each at 99%: the normal quantile is 2.576.
    assert (low, high) == pytest.approx(
        (2 - 2.576 * math.sqrt(2 / 40), 2 + 2.576 * math.sqrt(2 / 40)), abs=0.04
    )


def test_the_difference_of_two_shares_has_walds_interval():
    difference, half_width = rate_difference(0.3, 0.1, 100)
    assert difference == pytest.approx(0.2)
    # sqrt(0.3 * 0.7 / 100 + 0.1 * 0.9 / 100) = sqrt(0.003)
    assert half_width == pytest.approx(1.959964 * math.sqrt(0.003))


def test_walds_interval_covers_the_true_difference_95_times_in_100():
    rng = np.random.default_rng(0)
    covered = 0
    for first, second in rng.binomial(10_000, [0.9920, 0.9905], (4000, 2)):
        difference, half_width = rate_difference(first / 10_000, second / 10_000, 10_000)
        covered += abs(difference - 0.0015) <= half_width
    assert covered / 4000 == pytest.approx(0.95, abs=0.012)
