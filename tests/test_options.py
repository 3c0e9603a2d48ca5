"""The command line: wrong usage is refused in one line, and --help tells all."""

import re
from argparse import SUPPRESS

import pytest
from helpers import assert_one_line

from support.options import RECIPE, Settings, changed_settings, make_parser, parse_arguments


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


def settings_of(*arguments):
    return parse_arguments([*arguments])[1]


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
    for action in make_parser({})._actions:
        option = action.option_strings[-1]
        [shown] = re.findall(rf"^  (?:-h, )?{option}\b(?:.|\n(?!  -))*", out, re.MULTILINE)
        if "%(default)s" in action.help or action.default not in (None, False, 0, SUPPRESS):
            assert f"({action.default})" in " ".join(shown.split())


def test_a_run_is_called_after_its_model_unless_it_is_named():
    assert settings_of("--model", "mlp").name == "mlp"
    assert settings_of("--model", "mlp", "--name", "mine").name == "mine"
    assert settings_of("--regularize").name == "lenet5-regularized"
    assert settings_of("--regularize", "--name", "mine").name == "mine"
    assert Settings(model="mlp").name == "mlp"


def test_regularize_sets_the_recipe_and_options_override_it():
    settings = settings_of("--regularize")
    assert settings == Settings(**RECIPE, regularize=True)
    settings = settings_of("--regularize", "--weight-decay", "0.01", "--epochs", "9")
    assert settings == Settings(**RECIPE | {"weight_decay": 0.01, "epochs": 9}, regularize=True)


@pytest.mark.parametrize(("epochs", "no_aug_epochs"), [(1, 0), (3, 2), (100, 3)])
def test_the_recipe_may_be_short_and_still_augments(epochs, no_aug_epochs):
    settings = settings_of("--regularize", "--epochs", str(epochs))
    assert settings.augment
    assert settings.no_aug_epochs == no_aug_epochs


def test_changed_settings_come_in_the_order_of_the_options():
    plain = Settings().plain()
    changed = list(changed_settings(dict.fromkeys(plain, "another"), Settings()))
    assert changed[0] == "model"
    assert changed == [name for name in plain if name in changed]


def test_only_settings_that_change_what_is_learned_count_as_changed():
    before = settings_of("--seed", "3", "--lr", "0.01").plain()
    arguments = ["--seed", "3", "--lr", "0.02", "--name", "x", "--threads", "2", "--epochs", "99"]
    assert changed_settings(before, settings_of(*arguments, "--resume")) == {"lr": 0.01}


def test_a_setting_that_was_not_yet_saved_counts_as_its_default():
    before = Settings(lr=0.01).plain()
    del before["ema"], before["seed"]
    assert changed_settings(before, Settings(lr=0.01)) == {}
    assert changed_settings(before, Settings(lr=0.01, seed=1)) == {"seed": 0}


def test_augmentation_saved_as_yes_or_no_is_todays_only_one():
    for saved, today, other in ((True, "deform", None), (False, None, "deform")):
        before = Settings().plain() | {"augment": saved}
        assert changed_settings(before, Settings(augment=today)) == {}
        assert changed_settings(before, Settings(augment=other)) == {"augment": today}


def test_what_is_watched_is_the_test_set_unless_images_are_held_out():
    assert settings_of().watched == "test"
    assert settings_of("--validation", "9").watched == "val"


def test_settings_are_saved_as_plain_values_under_the_names_of_the_options():
    plain = settings_of("--data-dir", "a/b", "--epochs", "7", "--augment").plain()
    assert (plain["data_dir"], plain["results_dir"]) == ("a/b", "results")
    assert (plain["epochs"], plain["augment"], plain["threads"]) == (7, "deform", None)
