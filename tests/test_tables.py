"""The tables that compare the networks, made from records in which every number is another one."""

import numpy as np
import pytest
from helpers import make_runs
from scipy import stats

from model import CustomMLP, LeNet5
from support.report.stats import crossed_bootstrap
from support.report.tables import (
    confusions_table,
    count_multiply_adds,
    differences_table,
    epochs_table,
    hard_images_text,
    headline_table,
    known_table,
    models_table,
    seeds_and_epochs,
    signed,
    spread,
)

MINUS = "\N{MINUS SIGN}"


@pytest.fixture
def records():
    """Numbers of which no two are equal, nor are means and deviations of any two rows."""
    lenet5_errors = ({"1": [0, 3], "2": [0, 3]}, {"1": [0, 3]}, {"1": [0, 4], "7": [9, 8]})
    mlp_errors = (
        {str(index): [4, 9] for index in range(1, 9)},
        {str(index): [9, 4] for index in range(20, 29)},
        {str(index): [7, 2] for index in range(30, 40)},
    )
    recipe_errors = ({"1": [8, 1]}, {"5": [8, 1]}, {})
    return {
        "lenet5": make_runs(
            (99.1, 0.1), (0.0333, 0.0011), (99.81, 0.02), 12, (90, 60, 66), lenet5_errors,
            parameters=5678,
        ),
        "mlp": make_runs(
            (98.03, 0.07), (0.0777, 0.0022), (99.71, 0.03), 12, (30, 18, 12), mlp_errors,
            parameters=1234,
        ),
        "recipe": make_runs(
            (99.62, 0.04), (0.0123, 0.0007), (99.93, 0.01), 40, (600, 960, 666), recipe_errors,
            parameters=9012,
        ),
        "lenet5-long": make_runs((99.15, 0.09), misclassified=({"50": [1, 2]}, {}, {})),
        "lenet5+augment": make_runs((99.48, 0.06)),
    }  # fmt: skip


def test_the_headline_has_each_networks_own_numbers_and_command(records):
    assert headline_table(records).splitlines() == [
        "| network | parameters | epochs | test accuracy (%) | minutes on one thread | command |",
        "|---|---:|---:|---:|---:|---|",
        "| MLP | 1,234 | 12 | 98.03 ± 0.07 | 0.3 | `python main.py --model mlp --epochs 12` |",
        "| LeNet-5 | 5,678 | 12 | 99.10 ± 0.10 | 1.1 "
        "| `python main.py --model lenet5 --epochs 12` |",
        "| **LeNet-5, regularized** | 9,012 | 40 | 99.62 ± 0.04 | 11.1 "
        "| `python main.py --regularize --epochs 40` |",
    ]


def test_a_multiply_add_is_counted_for_each_weight_and_each_place_it_is_used_at():
    convolutions = 6 * 28 * 28 * 25 + 16 * 10 * 10 * 6 * 25
    assert count_multiply_adds(LeNet5()) == convolutions + 400 * 120 + 120 * 84 + 84 * 10
    assert count_multiply_adds(CustomMLP()) == 62_170 - 250  # all but the biases


def test_the_networks_stand_side_by_side_each_with_its_own_numbers(records):
    # By one network only, by seed: 0 against 6, 1 against 9, 2 against 10. The largest p is that of
    # the last, of at most 2 heads in 12 throws: 2 * (1 + 12 + 66) / 4096.
    assert models_table(records).splitlines() == [
        "| 3 seeds, 12 epochs | LeNet-5 | MLP |",
        "|---|---:|---:|",
        "| parameters | 5,678 | 1,234 |",
        "| multiply-adds per image | 416,520 | 61,920 |",
        "| training accuracy (%) | 99.81 ± 0.02 | 99.71 ± 0.03 |",
        "| test accuracy (%) | 99.10 ± 0.10 | 98.03 ± 0.07 |",
        "| test loss | 0.0333 ± 0.0011 | 0.0777 ± 0.0022 |",
        "| errors in 10,000 | 90.0 | 197.0 |",
        "| misclassified by this network only, mean over seeds (McNemar's test: largest p of the "
        "seeds 0.04) | 1.0 | 8.3 |",
    ]


def test_epochs_are_means_over_seeds_of_both_sets_after_some_epochs(records):
    lines = epochs_table(records).splitlines()
    assert lines[:2] == [
        "| network | epoch | training loss | training accuracy (%) | test loss "
        "| test accuracy (%) |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    # After epoch 10, two before the last: 2 points less, 0.2 more.
    assert lines[2:7] == [
        "| LeNet-5 | 1 | 2.1333 | 83.10 | 1.1333 | 88.10 |",
        "| LeNet-5 | 2 | 2.0333 | 84.10 | 1.0333 | 89.10 |",
        "| LeNet-5 | 5 | 1.7333 | 87.10 | 0.7333 | 92.10 |",
        "| LeNet-5 | 10 | 1.2333 | 92.10 | 0.2333 | 97.10 |",
        "| LeNet-5 | 12 | 1.0333 | 94.10 | 0.0333 | 99.10 |",
    ]
    assert [line.split(" | ")[1] for line in lines[7:]] == ["1", "2", "5", "10", "12"]
    assert lines[-1] == "| MLP | 12 | 1.0777 | 93.03 | 0.0777 | 98.03 |"


def test_the_15th_epoch_is_shown_where_there_is_one():
    runs = make_runs(epochs=20)
    lines = epochs_table({"lenet5": runs, "mlp": runs}).splitlines()
    assert [line.split(" | ")[1] for line in lines[2:8]] == ["1", "2", "5", "10", "15", "20"]


def test_ours_stands_beside_1998s_with_the_difference_and_its_test(records):
    # 90 errors against 95: Wald's interval and Fisher's test, by hand.
    half = 100 * 1.959964 * ((0.009 * 0.991 + 0.0095 * 0.9905) / 10_000) ** 0.5
    ways = stats.hypergeom(20_000, 185, 10_000)
    p_value = 2 * ways.cdf(90)
    assert f"{half - 0.05:.2f} {half + 0.05:.2f} {p_value:.2f}" == "0.22 0.32 0.77"
    assert known_table(records).splitlines() == [
        "| network | test error (%) |",
        "|---|---:|",
        "| LeNet-5, 1998 | 0.95 |",
        "| **LeNet-5, here, plain** | 0.90 ± 0.10 |",
        "| LeNet-5, 1998, with distortions | 0.8 |",
        "| LeNet-4, 1998, boosted: the best of the paper | 0.7 |",
        "| LeNet-5, here, with augmentation, 20 epochs | 0.52 ± 0.06 |",
        "| **LeNet-5, here, `--regularize`** | 0.38 ± 0.04 |",
        "",
        "Plain LeNet-5 makes 90.0 errors in 10,000 on average, and fewer than the 95 of 1998 in 2 "
        f"of 3 seeds. The difference between 90 and 95 is {MINUS}0.05 points, with a 95% interval "
        f"from {MINUS}0.32 to +0.22 (Fisher's exact test: p = 0.77).",
    ]


def test_95_errors_are_not_fewer_than_95(records):
    records["lenet5"] = make_runs((99.05, 0.1))
    assert "makes 95.0 errors in 10,000 on average" in known_table(records)
    assert "fewer than the 95 of 1998 in 1 of 3 seeds" in known_table(records)
    assert "between 95 and 95 is +0.00 points" in known_table(records)


def test_differences_are_those_of_the_named_rows_with_both_intervals(records):
    def errors(*wrong):
        matrix = np.zeros((3, 10_000))
        for row, indices in zip(matrix, wrong, strict=True):
            row[list(indices)] = 1
        return matrix

    lenet5 = errors({1, 2}, {1}, {1, 7})
    mlp = errors(range(1, 9), range(20, 29), range(30, 40))
    recipe, long = errors({1}, {5}, {}), errors({50}, {}, {})
    lines = differences_table(records).splitlines()
    assert lines[:2] == [
        "| difference in test accuracy (points) | mean | over seeds | over seeds and images |",
        "|---|---:|---:|---:|",
    ]
    # Over 3 seeds: 4.3027 * deviation / sqrt(3); the deviations of the rows here are 0.03 and 0.06
    # and 0.05 apart, and all grow with the seed: 0.0745, 0.1491, 0.1242.
    for line, start, gains in zip(
        lines[2:],
        (
            "| LeNet-5 minus MLP, both plain | +1.070 | +0.995 to +1.145 ",
            "| `--regularize` minus LeNet-5 plain | +0.520 | +0.371 to +0.669 ",
            "| `--regularize` minus LeNet-5 plain for as many epochs | +0.470 | +0.346 to +0.594 ",
        ),
        (mlp - lenet5, lenet5 - recipe, long - recipe),
        strict=True,
    ):
        low, high = crossed_bootstrap(gains)
        expected = f"| {100 * low:+.3f} to {100 * high:+.3f} |".replace("-", MINUS)
        assert line == start + expected


def test_the_six_most_frequent_confusions_come_first_each_network_in_its_column():
    def runs(counts):
        """In three runs, so many thirds of each (true, predicted) digit."""
        numbers = iter(range(1000))
        pairs = {str(next(numbers)): pair for pair, n in counts for _ in range(n)}
        return make_runs(misclassified=(pairs, {}, pairs))

    frequent = [([4, 9], 9), ([9, 4], 8), ([3, 5], 7), ([2, 7], 6), ([7, 2], 5), ([0, 6], 4)]
    rare = [([1, 8], 1)]
    records = {
        "lenet5": runs(rare + frequent),
        "mlp": runs([([5, 3], 12), *frequent]),
        "recipe": runs([*frequent[:5], ([6, 0], 1), ([6, 1], 1), ([5, 9], 1)]),
    }
    assert confusions_table(records).splitlines() == [
        "| LeNet-5 | MLP | LeNet-5, `--regularize` |",
        "|---|---|---|",
        "| 4 as 9: 6.0 | 5 as 3: 8.0 | 4 as 9: 6.0 |",
        "| 9 as 4: 5.3 | 4 as 9: 6.0 | 9 as 4: 5.3 |",
        "| 3 as 5: 4.7 | 9 as 4: 5.3 | 3 as 5: 4.7 |",
        "| 2 as 7: 4.0 | 3 as 5: 4.7 | 2 as 7: 4.0 |",
        "| 7 as 2: 3.3 | 2 as 7: 4.0 | 7 as 2: 3.3 |",
        "| 0 as 6: 2.7 | 7 as 2: 3.3 | 5 as 9: 0.7 |",
    ]


def test_hard_images_are_counted_and_their_doubtful_labels():
    # 947, 9729 and 2130 have doubtful labels: wrong in all four networks, in two, in one.
    wrong = [["947", "1", "9729", "2130"], ["947", "1"], ["947", "3", "9729"], ["947", "1"]]
    runs = [{"misclassified": {index: [8, 9] for index in indices}} for indices in wrong]
    assert hard_images_text({"recipe": runs}) == (
        "5 images are misclassified by at least one of the 4 networks of `--regularize`, 3 by at "
        "least half, and 1 by all. These 3 account for 82% of all their errors. Northcutt et al. "
        "(2021) had five people look at each of the test images whose label their method "
        "suspected; for 15, at most two confirmed the label. Of these, 2 are among the 3, and 1 "
        "among the 1."
    )


def test_a_spread_is_the_mean_and_the_deviation_of_a_sample():
    assert spread(np.array([1.0, 2.0, 6.0])) == "3.00 ± 2.65"  # sqrt((4 + 1 + 9) / 2)
    assert spread(np.array([1.0, 2.0, 6.0]), 4) == "3.0000 ± 2.6458"


@pytest.mark.parametrize(
    ("difference", "text"), [(0.12345, "+0.123"), (-0.5, f"{MINUS}0.500"), (-0.0001, "+0.000")]
)
def test_a_difference_has_a_sign_a_minus_that_is_one_and_no_negative_zero(difference, text):
    assert signed(difference) == text


def test_a_title_counts_seeds_and_epochs():
    assert seeds_and_epochs(make_runs(epochs=4)) == "3 seeds, 4 epochs"
