"""The tables on regularization: each row's own numbers, what is tested together, what counts."""

import math

import numpy as np
import pytest
from helpers import make_runs

from support.report import regularization
from support.report.plan import CHOICES, ROWS, TECHNIQUES
from support.report.regularization import (
    ablation_table,
    choices_table,
    effects_of,
    learning_rates_table,
    recipe_table,
)
from support.report.tables import difference_over_images, interval

MINUS = "\N{MINUS SIGN}"
NBSP = "\N{NO-BREAK SPACE}"


def half_width(first, second, tests):
    """That of the interval of the difference of two (mean, deviation) of three seeds, if the values
    of both grow with the seed: the deviation of differences is that of deviations."""
    level = 1 - 0.05 / tests
    # With 2 degrees of freedom, the quantile of Student's distribution is a formula.
    quantile = level * math.sqrt(2 / (1 - level**2))
    return quantile * abs(first[1] - second[1]) / math.sqrt(3)


def spread_cell(mean, deviation, digits=2):
    return f"{mean:.{digits}f}{NBSP}±{NBSP}{deviation:.{digits}f}"


def difference_cell(first, second, tests):
    """By how much the first (mean, deviation) is above the second, and its interval."""
    half, difference = half_width(first, second, tests), first[0] - second[0]
    bounds = f"{difference - half:+.2f}{NBSP}to{NBSP}{difference + half:+.2f}"
    return f"{difference:+.2f}{NBSP}({bounds})".replace("-", MINUS)


def cells_of(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.fixture
def ablation():
    """(mean, deviation) of test accuracy, of loss and of training accuracy, by row."""
    numbers = {}
    for place, row in enumerate(ROWS):
        test = (99 + place / 50, (3 + place) / 100)
        numbers[row] = (test, (0.05 - place / 1000, (3 + place) / 10_000), (97 + place / 7, 1 / 8))
    plain = numbers["lenet5"][0]  # (99, 0.03)
    numbers["lenet5+augment"] = ((plain[0] + 0.5, 0.031), *numbers["lenet5+augment"][1:])
    numbers["lenet5+dropout"] = ((plain[0] - 0.9, 0.029), *numbers["lenet5+dropout"][1:])
    return numbers


@pytest.fixture
def records(ablation):
    records = {
        row: make_runs(
            *numbers,
            epochs=20,
            misclassified=[{str(index): [1, 2] for index in range(7 * place)}] * 3,
        )
        for place, (row, numbers) in enumerate(ablation.items())
    }
    for row in ("lenet5+label-smoothing", "lenet5+all"):
        for run in records[row]:
            run["config"]["label_smoothing"] = 0.05
    return records


@pytest.mark.parametrize(("difference", "significant"), [(0.02, True), (-0.02, True), (0.0, False)])
def test_an_effect_counts_when_its_interval_excludes_0(difference, significant):
    pair = make_runs((90 + difference, 0.02)), make_runs((90, 0.015))
    assert 0.012 < half_width((90, 0.02), (90, 0.015), tests=1) < 0.02
    [effect] = regularization.tested_together([pair])
    assert effect["significant"] == significant
    assert effect["differences"] == pytest.approx(difference + np.array([-0.005, 0, 0.005]))


def test_an_effect_that_counts_alone_may_not_count_among_ten():
    pair = make_runs((90.02, 0.02)), make_runs((90, 0.015))
    assert not any(effect["significant"] for effect in regularization.tested_together([pair] * 10))


def test_every_row_of_the_ablation_has_its_numbers_its_difference_among_ten_and_a_verdict(
    records, ablation
):
    effects = effects_of(records)
    assert [(effect["name"], effect["context"]) for effect in effects] == [
        (name, context) for name in TECHNIQUES for context in ("alone", "with the others")
    ]
    pairs = {f"lenet5+{name}": (f"lenet5+{name}", "lenet5") for name in TECHNIQUES}
    pairs |= {f"lenet5+all-{name}": ("lenet5+all", f"lenet5+all-{name}") for name in TECHNIQUES}
    verdicts = {"lenet5+augment": "**helps**", "lenet5+dropout": "hurts"}
    lines = ablation_table(records, effects).splitlines()
    assert lines[:2] == [
        "| 3 seeds, 20 epochs | training accuracy (%) | test accuracy (%) | test loss "
        "| difference (points), 95% interval over seeds | over seeds and images | the technique |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    titles = (
        *("LeNet-5, plain", "with augmentation", "with dropout"),
        *("with weight decay", "with label smoothing", "with averaged weights (EMA)", "all five"),
        *("all but augmentation", "all but dropout", "all but weight decay"),
        *("all but label smoothing", "all but averaged weights (EMA)"),
    )
    for line, title, row in zip(lines[2:], titles, ROWS, strict=True):
        test, loss, train = ablation[row]
        mark = f"{NBSP}†" if row in ("lenet5+label-smoothing", "lenet5+all") else ""
        expected = [title, spread_cell(*train), spread_cell(*test), spread_cell(*loss, 4) + mark]
        if row in pairs:
            first, second = pairs[row]
            bounds = difference_over_images(records[first], records[second], tests=10)
            expected.append(difference_cell(ablation[first][0], ablation[second][0], tests=10))
            expected += [interval(*bounds), verdicts.get(row, "unclear")]
        else:
            expected += ["", "", ""]
        assert cells_of(line) == expected


def test_both_networks_stand_side_by_side_at_each_learning_rate():
    records, rates = {}, (0.0125, 0.025, 0.05, 0.1, 0.2)
    for place, lr in enumerate(rates):
        records[f"lenet5-lr-{lr}"] = make_runs((98 + place / 10, 0.1), watched="val")
        records[f"mlp-lr-{lr}"] = make_runs((97 + place / 10, 0.2), watched="val")
    lines = learning_rates_table(records).splitlines()
    assert lines[:2] == [
        "| accuracy (%) on 10,000 held-out images, 3 seeds | LeNet-5 | MLP |",
        "|---|---:|---:|",
    ]
    for place, (line, lr) in enumerate(zip(lines[2:], rates, strict=True)):
        assert cells_of(line) == [
            f"peak learning rate {lr}",
            spread_cell(98 + place / 10, 0.1),
            spread_cell(97 + place / 10, 0.2),
        ]


def test_what_was_tried_on_held_out_images_stands_with_its_settings_and_own_numbers():
    records = {
        row: make_runs(
            (98 + place / 10, 0.01),
            (0.02 + place / 1000, 0.001),
            watched="val",
            epochs=30 + place,
            label_smoothing=0.05 * ("smoothing" in row),
        )
        for place, row in enumerate(CHOICES)
    }
    lines = choices_table(records).splitlines()
    assert lines[:2] == [
        "| on 10,000 held-out images | epochs | seeds | accuracy (%) | loss |",
        "|---|---:|---:|---:|---:|",
    ]
    settings = [
        *("augment, weight-decay 5e-4, ema 0.999", "weight-decay 5e-4, ema 0.999"),
        *("augment, ema 0.999", "augment, weight-decay 5e-4"),
        "augment, weight-decay 5e-4, ema 0.999, lr 0.1",
        "augment, weight-decay 2e-4, ema 0.999",
        "augment, weight-decay 5e-4, ema 0.999, label-smoothing 0.05",
        "augment, weight-decay 5e-4, ema 0.999, dropout 0.1",
        *("augment, weight-decay 5e-4", "augment, weight-decay 2e-4", "augment, weight-decay 1e-3"),
        "augment, no-aug-epochs 3, weight-decay 5e-4",
    ]
    for place, (line, named) in enumerate(zip(lines[2:], settings, strict=True)):
        mark = f"{NBSP}†" if "smoothing" in named else ""
        words = named.replace("-", "\N{NON-BREAKING HYPHEN}").replace(" ", NBSP)
        assert cells_of(line) == [
            words.replace(f",{NBSP}", ", "),  # between two settings it may wrap
            f"{30 + place}",
            "3",
            spread_cell(98 + place / 10, 0.01),
            f"{0.02 + place / 1000:.4f}{mark}",
        ]


def test_each_part_of_the_recipe_has_its_own_numbers_and_the_parts_are_tested_together():
    recipe = (99.6, 0.03)
    parts = {
        "recipe-augment": (99.3, 0.031),  # clearly worse
        "recipe-weight-decay": (99.57, 0.04),  # a little worse
        "recipe-all-augmented": (99.61, 0.05),  # hardly better
    }
    assert half_width(recipe, parts["recipe-weight-decay"], tests=3) > 0.03
    records = {
        row: make_runs(
            part,
            (0.01 + place / 100, (1 + place) / 1000),
            epochs=100,
            misclassified=[{str(index): [1, 2] for index in range(place * 9)}] * 3,
        )
        for place, (row, part) in enumerate({"recipe": recipe, **parts}.items())
    }

    def cells(mean, deviation, loss):
        return f"{spread_cell(mean, deviation)} | {spread_cell(loss, loss / 10, digits=4)}"

    differences = [
        f"{difference_cell(recipe, part, tests=3)} | "
        f"{interval(*difference_over_images(records['recipe'], records[row], tests=3))}"
        for row, part in parts.items()
    ]
    assert recipe_table(records).splitlines() == [
        "| 3 seeds, 100 epochs | test accuracy (%) | test loss "
        "| the recipe minus this (points), 95% interval over seeds | over seeds and images "
        "| the part |",
        "|---|---:|---:|---:|---:|---|",
        f"| the recipe | {cells(99.6, 0.03, 0.01)} |  |  |  |",
        f"| without augmentation | {cells(99.3, 0.031, 0.02)} | {differences[0]} | **helps** |",
        f"| without weight decay | {cells(99.57, 0.04, 0.03)} | {differences[1]} | unclear |",
        f"| augmented in the last epochs, too | {cells(99.61, 0.05, 0.04)} | {differences[2]} "
        "| unclear |",
    ]
