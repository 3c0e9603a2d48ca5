"""What the tables of the report say, and when."""

import numpy as np
import pytest

from model import CustomMLP, LeNet5
from support.report.error_tables import hard_images_text
from support.report.regularization import control_table, recipe_table, verdict
from support.report.stats import paired_p_value
from support.report.tables import count_multiply_adds


def runs_of(*percents, loss=0.1):
    """Records of one epoch each, with these test accuracies."""
    config = {"validation": 0}
    return [
        {"config": config, "history": [{"test_accuracy": p / 100, "test_loss": loss}]}
        for p in percents
    ]


@pytest.mark.parametrize(
    ("difference", "significant", "said"),
    [(0.2, True, "helps"), (-0.2, True, "hurts"), (0.2, False, "not shown")],
)
def test_what_does_not_help_is_said_not_to(difference, significant, said):
    assert said in verdict(difference, significant)


def test_multiply_adds():
    convolutions = 6 * 28 * 28 * 25 + 16 * 10 * 10 * 6 * 25
    assert count_multiply_adds(LeNet5()) == convolutions + 400 * 120 + 120 * 84 + 84 * 10
    assert count_multiply_adds(CustomMLP()) == 62_170 - 250  # all but the biases


def test_the_last_cell_of_the_control_table_is_the_interaction():
    records = {
        "lenet5": runs_of(99.0, 99.2),
        "lenet5-long": runs_of(99.1, 99.3),
        "recipe-short": runs_of(99.3, 99.5),
        "recipe-all-augmented": runs_of(99.7, 99.9),
    }
    *_, plain, regularized, differences = control_table(records).splitlines()
    assert plain.endswith("| 99.100 ± 0.141 | 99.200 ± 0.141 | +0.100 ± 0.000 |")
    assert regularized.endswith("| +0.400 ± 0.000 |")
    assert differences.endswith("| +0.300 ± 0.000 | +0.600 ± 0.000 | +0.300 ± 0.000 |")


def test_the_parts_of_the_recipe_are_tested_together():
    recipe = [99.60, 99.64, 99.62, 99.58]
    without = {
        "recipe-augment": [99.30, 99.33, 99.34, 99.27],  # clearly worse
        "recipe-weight-decay": [99.56, 99.59, 99.62, 99.55],  # a little worse
        "recipe-all-augmented": [99.62, 99.61, 99.63, 99.58],  # the same
    }
    records = {row: runs_of(*percents) for row, percents in without.items()}
    lines = recipe_table(records | {"recipe": runs_of(*recipe)}).splitlines()[3:]
    raw = [paired_p_value(np.array(recipe), np.array(percents)) for percents in without.values()]
    assert raw[0] < raw[1] < 0.1 < raw[2]
    augment, weight_decay, last_epochs = (line.strip("| ").split(" | ")[1:] for line in lines)
    assert augment[:3] == ["99.310 ± 0.032", "0.1000 ± 0.0000", "+0.300 ± 0.023"]
    assert augment[3:] == ["< 0.001", "**helps**"]
    assert weight_decay[3:] == [f"{2 * raw[1]:.3f}", "not shown"]
    assert last_epochs[3:] == [f"{raw[2]:.3f}", "not shown"]


def test_hard_images_are_counted():
    errors = [["947", "1", "2"], ["947", "1"], ["947", "3"]]  # 947 has a doubtful label
    runs = [{"misclassified": {index: [8, 9] for index in indices}} for indices in errors]
    text = hard_images_text({"recipe": runs})
    assert text.startswith("4 images are misclassified by at least one of the 3 networks")
    assert "2 by at least half, and 1 by all. These 2 account for 71% of all" in text
    assert text.endswith("Of these, 1 are among the 2, and 1 among the 1.")
