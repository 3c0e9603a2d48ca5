"""The statistics: against published examples, scipy by another way, and simulation."""

import math
import statistics

import numpy as np
import pytest
from scipy import stats

from support.report.stats import (
    crossed_bootstrap,
    error_difference,
    fisher,
    holm,
    mcnemar,
    paired_difference,
    paired_p_value,
)

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


def test_students_own_example_is_significant_whichever_comes_first():
    # The two tails beyond t = 4.06 with 9 degrees of freedom.
    assert paired_p_value(FIRST, SECOND) == pytest.approx(0.00283, abs=5e-6)
    assert paired_p_value(SECOND, FIRST) == paired_p_value(FIRST, SECOND)


def test_pairs_are_tested_as_pairs():
    base = np.array([0.0, 10.0, 20.0, 30.0])
    raised = np.array([1.0, 11.1, 20.9, 31.0])
    assert paired_p_value(raised, base) < 0.001  # as two groups: p = 0.9


def test_an_interval_excludes_0_just_where_the_test_is_significant():
    rng = np.random.default_rng(0)
    for _ in range(200):
        first, second = rng.normal(0.8, 1, 6), rng.normal(0, 1, 6)
        difference, half_width = paired_difference(first, second)
        assert (abs(difference) > half_width) == (paired_p_value(first, second) < 0.05)


def test_of_4_tests_the_smallest_p_is_multiplied_by_4_the_next_by_3_and_none_is_passed_by():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.3]) == [0.3]


def test_holm_keeps_the_chance_of_any_false_verdict_at_5_percent():
    rng = np.random.default_rng(0)
    wrong = [min(holm(rng.uniform(size=10).tolist())) < 0.05 for _ in range(4000)]
    assert np.mean(wrong) == pytest.approx(0.05, abs=0.011)


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


def test_one_error_against_eight_is_a_coin_that_fell_on_one_side_once_in_nine():
    # Twice the probability of at most 1 head in 9 throws, 2 * (1 + 9) / 512.
    first, second = {0, 1, 50}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 50}
    assert mcnemar(first, second) == (1, 8, pytest.approx(20 / 512))
    assert mcnemar(second, first) == (8, 1, pytest.approx(20 / 512))


def test_networks_with_the_same_errors_do_not_differ():
    assert mcnemar({1, 2}, {1, 2}) == (0, 0, 1.0)
    assert mcnemar(set(), {7}) == (0, 1, 1.0)  # one image proves nothing


def test_the_lady_tasting_tea_had_3_of_4_cups_right():
    # Fisher 1935, two-sided: (16 + 1) of 70 ways on each side.
    assert fisher(3, 1, 4) == pytest.approx(2 * 17 / 70)


def test_error_counts_are_compared_by_the_hypergeometric_distribution():
    first, second, images = 77, 95, 10_000
    ways = stats.hypergeom(2 * images, first + second, images)
    as_far = [ways.pmf(k) for k in range(first + second + 1)]
    expected = sum(p for p in as_far if p <= as_far[first] * (1 + 1e-9))
    assert fisher(first, second, images) == pytest.approx(expected)


def test_the_difference_of_two_error_rates_has_walds_interval():
    difference, half_width = error_difference(30, 10, 100)
    assert difference == pytest.approx(0.2)
    # sqrt(0.3 * 0.7 / 100 + 0.1 * 0.9 / 100) = sqrt(0.003)
    assert half_width == pytest.approx(1.959964 * math.sqrt(0.003))


def test_walds_interval_covers_the_true_difference_95_times_in_100():
    rng = np.random.default_rng(0)
    covered = 0
    for first, second in rng.binomial(10_000, [0.008, 0.0095], (4000, 2)):
        difference, half_width = error_difference(first, second, 10_000)
        covered += abs(difference + 0.0015) <= half_width
    assert covered / 4000 == pytest.approx(0.95, abs=0.012)
