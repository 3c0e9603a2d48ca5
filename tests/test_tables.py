"""What the tables of the report say, and when."""

import pytest

from model import CustomMLP, LeNet5
from support.ablation import verdict
from support.tables import count_multiply_adds


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
