"""The tables that compare the networks, made from records in which every number is another one."""

import numpy as np
import pytest
from helpers import make_runs

from model import CustomMLP, LeNet5
from support.report.stats import crossed_bootstrap
from support.report.tables import (
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
NBSP = "\N{NO-BREAK SPACE}"


def bound(text):
    """A table as it is written down here, with the spaces that must not wrap."""
    return text.replace(" ± ", f"{NBSP}±{NBSP}").replace(" to ", f"{NBSP}to{NBSP}")


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


def test_the_headline_has_each_networks_own_numbers(records):
    assert headline_table(records).splitlines() == [
        "| network | parameters | epochs | test accuracy (%) | minutes on one thread |",
        "|---|---:|---:|---:|---:|",
        bound("| MLP | 1,234 | 12 | 98.03 ± 0.07 | 0.3 |"),
        bound("| LeNet-5 | 5,678 | 12 | 99.10 ± 0.10 | 1.1 |"),
        bound("| **LeNet-5, regularized** | 9,012 | 40 | 99.62 ± 0.04 | 11.1 |"),
    ]


def test_a_multiply_add_is_counted_for_each_weight_and_each_place_it_is_used_at():
    convolutions = 6 * 28 * 28 * 25 + 16 * 10 * 10 * 6 * 25
    assert count_multiply_adds(LeNet5()) == convolutions + 400 * 120 + 120 * 84 + 84 * 10
    assert count_multiply_adds(CustomMLP()) == 62_170 - 250  # all but the biases


def test_the_networks_stand_side_by_side_each_with_its_own_numbers(records):
    # Errors of one network only, by seed: 0 against 6, 1 against 9, 2 against 10.
    assert models_table(records).splitlines() == [
        "| 3 seeds, 12 epochs | LeNet-5 | MLP |",
        "|---|---:|---:|",
        "| parameters | 5,678 | 1,234 |",
        "| multiply-adds per image | 416,520 | 61,920 |",
        bound("| training accuracy (%) | 99.81 ± 0.02 | 99.71 ± 0.03 |"),
        bound("| test accuracy (%) | 99.10 ± 0.10 | 98.03 ± 0.07 |"),
        bound("| test loss | 0.0333 ± 0.0011 | 0.0777 ± 0.0022 |"),
        "| errors in 10,000 | 90.0 | 197.0 |",
        "| of these, errors of this network only | 1.0 | 8.3 |",
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


def known_text(records, accuracy):
    """What is said below the table if plain LeNet-5 has this accuracy in the mean."""
    records["lenet5"] = make_runs((accuracy, 0.1))
    return known_table(records).splitlines()[-1]


def walds_half_width(accuracy):
    """That of the difference to 99.05%, each in 10,000 images, in points."""
    shares = accuracy / 100, 0.9905
    return 1.959964 * sum(share * (1 - share) for share in shares) ** 0.5


def test_ours_stands_beside_1998s_with_the_difference_and_its_interval(records):
    half = walds_half_width(99.1)
    assert f"{0.05 - half:.2f} {0.05 + half:.2f}" == "-0.22 0.32"
    assert known_table(records).splitlines() == [
        "| network | test accuracy (%) |",
        "|---|---:|",
        "| LeNet-5, 1998 | 99.05 |",
        bound("| **LeNet-5, here, plain** | 99.10 ± 0.10 |"),
        "| LeNet-5, 1998, with distortions | 99.2 |",
        "| LeNet-4, 1998, boosted: the best of the paper | 99.3 |",
        bound("| LeNet-5, here, with augmentation, 20 epochs | 99.48 ± 0.06 |"),
        bound("| **LeNet-5, here, regularized** | 99.62 ± 0.04 |"),
        "",
        "Plain LeNet-5 differs from that of 1998 by +0.05 points, with a 95% interval from "
        + bound(f"{MINUS}0.22 to +0.32. ")
        + f"It does not lie above {MINUS}0.1, the planned margin: ours may be worse by as much.",
    ]


@pytest.mark.parametrize("above", [True, False])
def test_ours_reaches_1998s_only_if_the_whole_interval_lies_above_the_margin(records, above):
    accuracy = 99.05 - 0.1 + walds_half_width(99.2) + (0.01 if above else -0.01)
    assert abs(walds_half_width(accuracy) - walds_half_width(99.2)) < 0.01
    said = f"All of it lies above {MINUS}0.1, the planned margin: ours is not worse by as much."
    assert known_text(records, accuracy).endswith(said) == above


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
    # Over 3 seeds, of two tested together: 6.2053 * deviation / sqrt(3); the deviations of the rows
    # here are 0.03 and 0.05 apart, and all grow with the seed: 0.1075, 0.1791.
    for line, start, gains in zip(
        lines[2:],
        (
            "| LeNet-5 minus MLP, both plain | +1.07 | +0.96 to +1.18 ",
            "| LeNet-5 regularized minus plain, equally long | +0.47 | +0.29 to +0.65 ",
        ),
        (mlp - lenet5, long - recipe),
        strict=True,
    ):
        low, high = crossed_bootstrap(gains, tests=2)
        expected = f"| {100 * low:+.2f} to {100 * high:+.2f} |".replace("-", MINUS)
        assert line == bound(start) + bound(expected)


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
    assert spread(np.array([1.0, 2.0, 6.0])) == bound("3.00 ± 2.65")  # sqrt((4 + 1 + 9) / 2)
    assert spread(np.array([1.0, 2.0, 6.0]), 4) == bound("3.0000 ± 2.6458")


@pytest.mark.parametrize(
    ("difference", "text"), [(0.12345, "+0.12"), (-0.5, f"{MINUS}0.50"), (-0.001, "+0.00")]
)
def test_a_difference_has_a_sign_a_minus_that_is_one_and_no_negative_zero(difference, text):
    assert signed(difference) == text


def test_a_title_counts_seeds_and_epochs():
    assert seeds_and_epochs(make_runs(epochs=4)) == "3 seeds, 4 epochs"
