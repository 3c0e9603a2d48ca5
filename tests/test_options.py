"""The command line: wrong usage is refused in one line, and --help tells all."""

import re
from dataclasses import fields

import pytest
from helpers import assert_one_line

from support.options import parse_arguments
from support.settings import RECIPE, Settings, option


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--model", "resnet"], "lenet5"),
        (["--augment", "blur"], "deform"),
        (["--device", "tpu"], "--device"),
        (["--epochs", "1.5"], "--epochs"),
        (["--epochs", "0"], "--epochs 0 is not an integer in [1, 1e9]"),
        (["--no-aug-epochs", "1"], "--augment"),
        (["--name", "../../etc/x"], "--name"),
        (["--results-dir="], "--results-dir"),
        (["--data-dir="], "--data-dir"),
        (["--nam", "x"], "--nam"),
        (["lenet5"], "lenet5"),
        (["--evaluate", "a.pt", "--predict", "b.png"], "--evaluate and --predict"),
        (["--json"], "--json"),
        (["--checkpoint", "a.pt"], "--checkpoint"),
        (["--save-inputs", "folder"], "--save-inputs"),
        (["--predict"], "--predict"),
    ],
)
def test_wrong_usage_is_refused_in_one_line(start, results, arguments, part):
    assert_one_line(start(*arguments, code=2), part, code=2)
    assert not results.exists()


def test_help_shows_an_example_of_each_command(start):
    out = start("--help").stdout
    examples = re.findall(r"^  python (main\.py .*?)   ", out, re.MULTILINE)
    assert len(examples) == 5
    for example in examples:
        parse_arguments(example.split()[1:])


def test_help_shows_every_setting_and_its_default(start):
    out = start("--help").stdout
    assert "None" not in out
    for one in fields(Settings):
        [shown] = re.findall(rf"^  {option(one.name)}\b(?:.|\n(?!  -))*", out, re.MULTILINE)
        assert not one.default or f"({one.default})" in " ".join(shown.split())


def test_an_option_that_is_left_out_keeps_its_default_or_the_recipes():
    for arguments, settings in (
        ("", Settings()),
        ("--augment", Settings(augment=RECIPE["augment"])),
        ("--seed 3 --resume", Settings(seed=3, resume=True)),
        ("--regularize", Settings(regularize=True)),
        ("--regularize --epochs 9", Settings(regularize=True, epochs=9)),
    ):
        assert parse_arguments(arguments.split())[1] == settings
