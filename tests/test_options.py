"""The command line: wrong usage is refused in one line, and --help tells all."""

import re

import pytest
from helpers import assert_one_line

from support.options import (
    RECIPE,
    changed_settings,
    config_of,
    make_parser,
    parse_arguments,
    watched_split,
)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--model", "resnet"], "lenet5"),
        (["--epochs", "-1"], "--epochs"),
        (["--epochs", "0"], "--epochs"),
        (["--epochs", "1.5"], "--epochs"),
        (["--batch-size", "0"], "--batch-size"),
        (["--optimizer", "adam"], "muon"),
        (["--schedule", "cosine"], "onecycle"),
        (["--lr", "nan"], "--lr"),
        (["--lr", "0"], "--lr"),
        (["--lr", "1_0"], "--lr"),
        (["--momentum", "1"], "--momentum"),
        (["--dropout", "1"], "--dropout"),
        (["--weight-decay", "-1"], "--weight-decay"),
        (["--label-smoothing", "1"], "--label-smoothing"),
        (["--ema", "1"], "--ema"),
        (["--seed", "-1"], "--seed"),
        (["--validation", "-1"], "--validation"),
        (["--threads", "0"], "--threads"),
        (["--threads", "1025"], "--threads"),
        (["--device", "tpu"], "--device"),
        (["--no-aug-epochs", "1"], "--augment"),
        (["--augment", "--epochs", "2", "--no-aug-epochs", "3"], "--no-aug-epochs"),
        (["--name", "../../etc/x"], "--name"),
        (["--name", "x" * 250], "--name"),
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


def test_the_limits_themselves_are_allowed():
    arguments = [
        *("--epochs", "1", "--batch-size", "1", "--momentum", "0", "--dropout", "0"),
        *("--weight-decay", "0", "--label-smoothing", "0", "--ema", "0", "--seed", "0"),
        *("--validation", "0", "--threads", "1024", "--augment", "--no-aug-epochs", "1"),
    ]
    parse_arguments(arguments)


def test_help_shows_an_example_of_each_command(start):
    out = start("--help").stdout
    examples = re.findall(r"^  python (main\.py .*?)   ", out, re.MULTILINE)
    assert len(examples) == 5
    for example in examples:
        parse_arguments(example.split()[1:])


def test_help_shows_every_option_with_its_default(start):
    out = start("--help").stdout
    assert "None" not in out
    for action in make_parser()._actions:
        option = action.option_strings[-1]
        [shown] = re.findall(rf"^  (?:-h, )?{option}\b(?:.|\n(?!  -))*", out, re.MULTILINE)
        if "%(default)s" in action.help:
            assert f"({action.default})" in " ".join(shown.split())


def test_a_run_is_called_after_its_model_unless_it_is_named():
    assert parse_arguments(["--model", "mlp"]).name == "mlp"
    assert parse_arguments(["--model", "mlp", "--name", "mine"]).name == "mine"


def test_regularize_sets_the_recipe_and_options_override_it():
    args = parse_arguments(["--regularize"])
    assert {name: getattr(args, name) for name in RECIPE} == RECIPE
    args = parse_arguments(["--regularize", "--weight-decay", "0.01", "--epochs", "9"])
    changed = {**RECIPE, "weight_decay": 0.01, "epochs": 9}
    assert {name: getattr(args, name) for name in RECIPE} == changed


@pytest.mark.parametrize(("epochs", "no_aug_epochs"), [(1, 0), (3, 2), (100, 3)])
def test_the_recipe_may_be_short_and_still_augments(epochs, no_aug_epochs):
    args = parse_arguments(["--regularize", "--epochs", str(epochs)])
    assert args.augment
    assert args.no_aug_epochs == no_aug_epochs


def test_changed_settings_come_in_the_order_of_the_options():
    config = config_of(parse_arguments([]))
    changed = list(changed_settings(dict.fromkeys(config, "another"), config))
    assert changed[0] == "model"
    assert changed == [name for name in config if name in changed]


def test_only_settings_that_change_what_is_learned_count_as_changed():
    before = config_of(parse_arguments(["--seed", "3", "--lr", "0.01"]))
    arguments = ["--seed", "3", "--lr", "0.02", "--name", "x", "--threads", "2", "--epochs", "99"]
    changed = changed_settings(before, config_of(parse_arguments([*arguments, "--resume"])))
    assert changed == {"lr": 0.01}


def test_what_is_watched_is_the_test_set_unless_images_are_held_out():
    assert watched_split(config_of(parse_arguments([]))) == "test"
    assert watched_split(config_of(parse_arguments(["--validation", "9"]))) == "val"
