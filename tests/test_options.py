"""The command line: wrong usage is refused in one line, and --help tells all."""

import re

import pytest
from helpers import assert_one_line, run_main

import main
from support.options import changed_settings, config_of, parse_arguments


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--model", "resnet"], "lenet5"),
        (["--epochs", "-1"], "--epochs"),
        (["--epochs", "0"], "--epochs"),
        (["--epochs", "1.5"], "--epochs"),
        (["--batch-size", "0"], "--batch-size"),
        (["--lr", "nan"], "--lr"),
        (["--lr", "0"], "--lr"),
        (["--momentum", "1"], "--momentum"),
        (["--seed", "-1"], "--seed"),
        (["--threads", "0"], "--threads"),
        (["--device", "tpu"], "--device"),
        (["--no-aug-epochs", "1"], "--augment"),
        (["--name", "../../etc/x"], "--name"),
        (["--name", "x" * 250], "--name"),
        (["--threads", "999999999"], "--threads"),
        (["--results-dir="], "--results-dir"),
        (["--data-dir="], "--data-dir"),
        (["--lr", "1_0"], "--lr"),
        (["--augment", "--epochs", "2", "--no-aug-epochs", "3"], "--no-aug-epochs"),
        (["--nam", "x"], "--nam"),
        (["lenet5"], "lenet5"),
    ],
)
def test_wrong_usage(tmp_path, monkeypatch, main_here, arguments, part):
    monkeypatch.chdir(tmp_path)
    assert_one_line(main_here(*arguments), part, code=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--evaluate", "a.pt", "--predict", "b.png"],
        ["--json"],
        ["--checkpoint", "a.pt"],
        ["--save-inputs", "folder"],
        ["--predict"],
    ],
)
def test_commands_that_make_no_sense(capsys, arguments):
    with pytest.raises(SystemExit) as exit_:
        main.main(arguments)
    assert exit_.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_help_shows_an_example_of_each_command(capsys):
    with pytest.raises(SystemExit) as exit_:
        main.main(["--help"])
    assert exit_.value.code == 0
    out = capsys.readouterr().out
    examples = re.findall(r"^  python (main\.py .*?)   ", out, re.MULTILINE)
    assert len(examples) == 5
    for example in examples:
        parse_arguments(example.split()[1:])
    assert "None" not in out


def test_help_shows_every_option_with_its_default():
    process = run_main("--help")
    assert process.returncode == 0
    for text in ("--model {lenet5,mlp}", "--epochs", "(10)", "--augment", "(0.9)"):
        assert text in process.stdout


def test_changed_settings_come_in_the_order_of_the_options():
    config = config_of(parse_arguments([]))
    changed = list(changed_settings(dict.fromkeys(config, "another"), config))
    assert changed[0] == "model"
    assert changed == [name for name in config if name in changed]


@pytest.mark.parametrize(("epochs", "no_aug_epochs"), [(1, 0), (3, 2), (100, 3)])
def test_the_recipe_may_be_short_and_still_augments(epochs, no_aug_epochs):
    args = parse_arguments(["--regularize", "--epochs", str(epochs)])
    assert args.augment
    assert args.no_aug_epochs == no_aug_epochs
