"""The statistics: against published examples and by simulation."""

import numpy as np
import pytest

from support.report.stats import (
    crossed_bootstrap,
    error_difference,
    fisher,
    holm,
    mcnemar,
    paired_difference,
    paired_p_value,
)


def test_paired_difference():
    # Student 1908, the two soporifics: mean 1.58, standard deviation 1.23, t = 4.06, n = 10.
    first = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])
    second = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
    difference, half_width = paired_difference(first, second)
    assert difference == pytest.approx(1.58)
    assert (difference - half_width, difference + half_width) == pytest.approx(
        (0.70, 2.46), abs=0.005
    )


def test_the_interval_covers_the_true_difference_95_times_in_100():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(4000):
        difference, half_width = paired_difference(rng.normal(0.3, 1, 5), np.zeros(5))
        covered += abs(difference - 0.3) <= half_width
    assert covered / 4000 == pytest.approx(0.95, abs=0.012)


def test_mcnemar():
    # 1 against 8: twice the probability of at most 1 head in 9 throws, 2 * (1 + 9) / 512.
    first, second = {0, 1, 50}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 50}
    only_first, only_second, probability = mcnemar(first, second)
    assert (only_first, only_second) == (1, 8)
    assert probability == pytest.approx(20 / 512)
    assert mcnemar(first, first) == (0, 0, 1.0)


def test_paired_p_value():
    # Student's soporifics again: t = 4.06 with 9 degrees of freedom.
    first = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])
    second = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
    assert paired_p_value(first, second) == pytest.approx(0.00283, abs=5e-5)


def test_holm():
    # The smallest of 4 is multiplied by 4, the next by 3, ...; none is below the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]


def test_holm_keeps_the_chance_of_any_false_verdict_at_5_percent():
    rng = np.random.default_rng(0)
    wrong = [min(holm(rng.uniform(size=10).tolist())) < 0.05 for _ in range(4000)]
    assert np.mean(wrong) == pytest.approx(0.05, abs=0.011)


def test_crossed_bootstrap_is_wider_where_images_differ_than_over_seeds_alone():
    rng = np.random.default_rng(0)
    differences = np.zeros((10, 1000), int)
    differences[:, :50] = 1  # every seed gains on the same 50 images: over seeds there is no chance
    low, high = crossed_bootstrap(differences)
    # As that of a share of 5% of 1,000 images: 0.05 +- 1.96 * sqrt(0.05 * 0.95 / 1000).
    assert (low, high) == pytest.approx((0.0365, 0.0635), abs=0.002)
    noisy = rng.integers(-1, 2, (10, 1000))
    low, high = crossed_bootstrap(noisy)
    assert low < noisy.mean() < high


def test_fisher():
    # The lady tasting tea: 3 of 4 cups right, two-sided.
    assert fisher(3, 1, 4) == pytest.approx(0.486, abs=0.001)


def test_error_difference_covers_the_true_one_95_times_in_100():
    rng = np.random.default_rng(0)
    covered = 0
    for first, second in rng.binomial(10_000, [0.008, 0.0095], (4000, 2)):
        difference, half_width = error_difference(first, second, 10_000)
        covered += abs(difference + 0.0015) <= half_width
    assert covered / 4000 == pytest.approx(0.95, abs=0.012)
