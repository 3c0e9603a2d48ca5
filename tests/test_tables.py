"""The tables that compare the networks, made from records in which every number is another one."""

import re

import numpy as np
import pytest
from helpers import make_runs

from model import CustomMLP, LeNet5
from support.report.plan import Question
from support.report.records import error_matrix
from support.report.stats import crossed_difference
from support.report.tables import (
    answer,
    count_multiply_adds,
    difference,
    epochs_table,
    hard_images_table,
    headline_table,
    interval,
    known_gap,
    markdown_table,
    models_table,
    questions_table,
    seeds_and_epochs,
    signed,
    spread,
)

MINUS = "\N{MINUS SIGN}"
HYPHEN = "\N{NON-BREAKING HYPHEN}"
NBSP = "\N{NO-BREAK SPACE}"


def bound(text):
    """A table as it is written down here, with the spaces that must not wrap."""
    text = re.sub(r"(\d) \((?=[+-])", rf"\1{NBSP}(", text)
    return text.replace(" ± ", f"{NBSP}±{NBSP}").replace(" to ", f"{NBSP}to{NBSP}")


def in_words(text):
    """Numbers, as they are written down here, with a minus that is one."""
    return re.sub(r"(?<!\w)-(?=\d)", MINUS, bound(text))


@pytest.fixture
def records():
    """Numbers of which no two are equal, nor are means and deviations of any two rows."""
    lenet5_errors = ({"1": [0, 3], "2": [0, 3]}, {"1": [0, 3]}, {"1": [0, 4], "7": [9, 8]})
    mlp_errors = (
        {str(index): [4, 9] for index in range(1, 9)},
        {str(index): [9, 4] for index in range(20, 29)},
        {str(index): [7, 2] for index in range(30, 40)},
    )
    recipe_errors = ({"1": [8, 1]}, {"1": [8, 1], "5": [8, 1]}, {})
    long_errors = ({"50": [1, 2]}, {}, {})
    mlp_recipe_errors = ({}, {"60": [1, 2], "61": [1, 2]}, {"60": [1, 2]})
    return {
        "fresh lenet5": make_runs(
            (99.1, 0.1), (0.0333, 0.0011), (99.81, 0.02), 12, (180, 60, 6000), lenet5_errors
        ),
        "fresh mlp": make_runs(
            (98.03, 0.07), (0.0777, 0.0022), (99.71, 0.03), 12, (66, 6, 78), mlp_errors
        ),
        "fresh recipe": make_runs(
            (99.62, 0.04), (0.0123, 0.0007), (99.93, 0.01), 40, misclassified=recipe_errors
        ),
        "fresh lenet5-long": make_runs(
            (99.15, 0.09), (0.0555, 0.0033), (99.99, 0.005), 50, misclassified=long_errors
        ),
        "fresh mlp-recipe": make_runs((99.06, 0.08), epochs=60, misclassified=mlp_recipe_errors),
    }


def test_the_headline_has_each_networks_own_numbers(records):
    assert headline_table(records).splitlines() == [
        "| network | epochs | minutes | test accuracy (%) |",
        "|---|---:|---:|---:|",
        bound("| MLP | 12 | 1.1 | 98.03 ± 0.07 |"),
        bound("| MLP, regularized | 60 | 1.0 | 99.06 ± 0.08 |"),
        bound("| LeNet-5 | 12 | 3.0 | 99.10 ± 0.10 |"),
        bound("| LeNet-5, trained longer | 50 | 1.0 | 99.15 ± 0.09 |"),
        bound("| LeNet-5, regularized | 40 | 1.0 | 99.62 ± 0.04 |"),
        "| LeNet-5 of 1998 (LeCun et al.) | 20 |  | 99.05 |",
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
        bound("| test accuracy (%) | 99.10 ± 0.10 | 98.03 ± 0.07 |"),
        bound("| training accuracy of the final network (%) | 99.81 ± 0.02 | 99.71 ± 0.03 |"),
        bound("| test loss | 0.033 ± 0.001 | 0.078 ± 0.002 |"),
        "| images that only it misreads (mean) | 1 | 8 |",
        "| multiply-adds per image | 416,520 | 61,920 |",
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
    assert lines[-1] == "| MLP | 12 | 1.0777 | 93.03 | 0.0777 | 98.03 |"


@pytest.mark.parametrize(
    ("epochs", "shown"),
    [(1, ["1"]), (15, ["1", "2", "5", "10", "15"]), (20, ["1", "2", "5", "10", "15", "20"])],
)
def test_the_last_epoch_is_shown_and_some_before(epochs, shown):
    runs = make_runs(epochs=epochs)
    lines = epochs_table({"fresh lenet5": runs, "fresh mlp": runs}).splitlines()
    assert [line.split(" | ")[1] for line in lines[2:]] == 2 * shown


# Over 3 seeds, of four tested together: 8.8602 * deviation / sqrt(3). All rows here grow with the
# seed, so the deviation of a difference is that of deviations: 0.03, 0.05, 0.01, 0.01.
HALF_WIDTHS = [0.15, 0.26, 0.05, 0.05]


def test_each_question_has_its_answer_and_both_intervals_of_its_own_rows(records):
    lines = questions_table(records).splitlines()
    assert lines[:2] == [
        "| planned question | answer | difference (points), 95% interval over seeds "
        "| interval over seeds and images |",
        "|---|---|---:|---:|",
    ]
    for line, start, (first, second) in zip(
        lines[2:],
        (
            "| Is LeNet-5 more accurate than an MLP of its size? | yes | +1.07 (+0.92 to +1.22) |",
            "| Does --regularize help, at the same length? | yes | +0.47 (+0.21 to +0.73) |",
            "| Does longer training help by itself? | unclear | +0.05 (+0.00 to +0.10) |",
            "| Does the regularized MLP reach plain LeNet-5? (margin: 0.1 points) | unclear "
            "| -0.09 (-0.14 to -0.04) |",
        ),
        (
            ("lenet5", "mlp"),
            ("recipe", "lenet5-long"),
            ("lenet5-long", "lenet5"),
            ("mlp-recipe", "lenet5-long"),
        ),
        strict=True,
    ):
        gains = error_matrix(records[f"fresh {second}"]) - error_matrix(records[f"fresh {first}"])
        both = interval(*crossed_difference(100 * gains, tests=4))
        assert line == f"{in_words(start.replace('--', 2 * HYPHEN))} {both} |"


@pytest.mark.parametrize(
    ("gain", "margin", "said"),
    [
        (0.16, None, "yes"),
        (0.14, None, "unclear"),
        (-0.14, None, "unclear"),
        (-0.16, None, "no"),
        (0.06, 0.1, "yes"),
        (0.04, 0.1, "unclear"),
        (-0.24, 0.1, "unclear"),
        (-0.26, 0.1, "no"),
    ],
)
def test_an_answer_depends_on_the_side_of_the_bound_on_which_the_whole_interval_lies(
    gain, margin, said
):
    records = {
        "fresh first": make_runs((99 + gain, 0.07)),
        "fresh second": make_runs((99, 0.1)),
    }
    question = Question("Is it?", "first", "second", margin)
    assert difference(records, question) == pytest.approx((gain, HALF_WIDTHS[0]), abs=0.005)
    assert answer(records, question) == said


def test_the_difference_to_1998_has_the_interval_of_two_error_rates(records):
    shares = 0.991, 0.9905
    half = 100 * 1.959964 * sum(share * (1 - share) / 10_000 for share in shares) ** 0.5
    assert known_gap(records) == pytest.approx((0.05, half), abs=1e-6)


def test_hard_images_are_counted_and_their_doubtful_labels():
    # 947, 9729 and 2130 have doubtful labels: wrong in all four networks, in two, in one.
    wrong = [["947", "1", "9729", "2130"], ["947", "1"], ["947", "3", "9729"], ["947", "1"]]
    runs = [{"misclassified": {index: [8, 9] for index in indices}} for indices in wrong]
    assert hard_images_table({"fresh recipe": runs}).splitlines()[0] == (
        "| misclassified by, of 4 networks | images | share of all errors | with a doubtful label |"
    )
    assert hard_images_table({"fresh recipe": runs}).splitlines()[2:] == [
        "| at least one | 5 | 100% | 3 |",
        "| at least half | 3 | 82% | 2 |",
        "| all | 1 | 36% | 1 |",
    ]


def test_a_table_has_its_titles_its_alignments_and_its_rows():
    assert markdown_table("lr", ["a", "b"], [["x", "1"], ["", "2"]]) == (
        "| a | b |\n|---|---:|\n| x | 1 |\n|  | 2 |"
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
