"""The tables on regularization: each row's own numbers, what is tested together, what counts."""

import math

import pytest
from helpers import make_runs

from support.report import regularization
from support.report.plan import CHOICES, LONG_CHOICES, ROWS, TECHNIQUES
from support.report.regularization import (
    ablation_table,
    choices_table,
    control_table,
    effects_of,
    recipe_table,
    verdict,
)

MINUS = "\N{MINUS SIGN}"
# Three seeds: the 97.5% quantile of Student's distribution with 2 degrees of freedom, 4.3027, by
# sqrt(3).
HALF_WIDTH = 4.30265 / math.sqrt(3)


def difference_cell(first, second):
    """By how much the first (mean, deviation) is above the second, and its 95% interval, if the
    values of both grow with the seed: the deviation of differences is that of deviations."""
    half = HALF_WIDTH * abs(first[1] - second[1])
    return f"{first[0] - second[0]:+.3f} ± {half:.3f}".replace("-", MINUS)


def p_value(first, second):
    """That of the paired t-test: with 2 degrees of freedom it is a formula."""
    t = abs(first[0] - second[0]) / (abs(first[1] - second[1]) / math.sqrt(3))
    return 1 - t / math.sqrt(2 + t * t)


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
    records = {row: make_runs(*numbers, epochs=20) for row, numbers in ablation.items()}
    for row in ("lenet5+label-smoothing", "lenet5+all"):
        for run in records[row]:
            run["config"]["label_smoothing"] = 0.05
    return records


def test_tests_are_compared_pair_by_pair_and_read_together():
    values = [((99.6, 0.02), (99.3, 0.021)), ((99.6, 0.02), (99.61, 0.05))]
    pairs = [(make_runs(first), make_runs(second)) for first, second in values]
    clear, unclear = regularization.tested_together(pairs)
    assert clear["difference"] == pytest.approx(0.3)
    assert clear["differences"] == pytest.approx([0.301, 0.3, 0.299])
    assert clear["half_width"] == pytest.approx(HALF_WIDTH * 0.001, rel=1e-5)
    assert clear["adjusted"] == pytest.approx(2 * p_value(*values[0]))
    assert unclear["difference"] == pytest.approx(-0.01)
    assert unclear["adjusted"] == pytest.approx(p_value(*values[1]))
    assert (clear["significant"], unclear["significant"]) == (True, False)


@pytest.mark.parametrize(("p", "significant"), [(0.049, True), (0.051, False)])
def test_an_effect_counts_below_5_percent(p, significant):
    ratio = (1 - p) / math.sqrt(1 - (1 - p) ** 2)  # difference / deviation: p_value, solved for it
    difference = ratio * math.sqrt(2) * 0.01 / math.sqrt(3)
    [effect] = regularization.tested_together(
        [(make_runs((90 + difference, 0.02)), make_runs((90, 0.01)))]
    )
    assert effect["adjusted"] == pytest.approx(p)
    assert effect["significant"] == significant


def test_each_technique_is_tested_alone_and_with_the_others(records, ablation):
    effects = {(effect["name"], effect["context"]): effect for effect in effects_of(records)}
    assert list(effects) == [
        (name, context) for name in TECHNIQUES for context in ("alone", "with the others")
    ]
    test = {row: numbers[0] for row, numbers in ablation.items()}
    for name in TECHNIQUES:
        alone, together = effects[name, "alone"], effects[name, "with the others"]
        assert (alone["row"], together["row"]) == (f"lenet5+{name}", f"lenet5+all-{name}")
        gain = test[f"lenet5+{name}"][0] - test["lenet5"][0]
        assert alone["difference"] == pytest.approx(gain)
        gain = test["lenet5+all"][0] - test[f"lenet5+all-{name}"][0]
        assert together["difference"] == pytest.approx(gain)


@pytest.mark.parametrize(
    ("difference", "significant", "said"),
    [(0.2, True, "**helps**"), (-0.2, True, "hurts"), (0.2, False, "not shown")],
)
def test_what_does_not_help_is_said_not_to(difference, significant, said):
    assert verdict(difference, significant) == said


def test_every_row_of_the_ablation_has_its_own_numbers(records, ablation):
    lines = ablation_table(records).splitlines()
    assert lines[:2] == [
        "| 3 seeds, 20 epochs | training accuracy (%) | test accuracy (%) | test loss "
        "| difference, 95% interval | adjusted p | the technique |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    titles = (
        *("LeNet-5, plain", "MLP, plain", "with augmentation", "with dropout"),
        *("with weight decay", "with label smoothing", "with averaged weights (EMA)", "all five"),
        *("all but augmentation", "all but dropout", "all but weight decay"),
        *("all but label smoothing", "all but averaged weights (EMA)"),
    )
    for line, title, row in zip(lines[2:], titles, ROWS, strict=True):
        test, loss, train = ablation[row]
        mark = " †" if row in ("lenet5+label-smoothing", "lenet5+all") else ""
        assert cells_of(line)[:4] == [
            title,
            f"{train[0]:.2f} ± {train[1]:.2f}",
            f"{test[0]:.2f} ± {test[1]:.2f}",
            f"{loss[0]:.4f} ± {loss[1]:.4f}{mark}",
        ]


def test_every_row_of_the_ablation_has_its_difference_its_adjusted_p_and_a_verdict(
    records, ablation
):
    test = {row: numbers[0] for row, numbers in ablation.items()}
    pairs = {f"lenet5+{name}": (f"lenet5+{name}", "lenet5") for name in TECHNIQUES}
    pairs |= {f"lenet5+all-{name}": ("lenet5+all", f"lenet5+all-{name}") for name in TECHNIQUES}
    raw = {row: p_value(test[first], test[second]) for row, (first, second) in pairs.items()}
    adjusted, largest = {}, 0
    for place, row in enumerate(sorted(raw, key=raw.get)):  # Holm's method
        largest = adjusted[row] = min(1, max(largest, (len(raw) - place) * raw[row]))
    verdicts = {"lenet5+augment": "**helps**", "lenet5+dropout": "hurts"}
    for line, row in zip(ablation_table(records).splitlines()[2:], ROWS, strict=True):
        if row in pairs:
            first, second = pairs[row]
            p = f"{adjusted[row]:.3f}" if adjusted[row] >= 0.001 else "< 0.001"
            expected = [difference_cell(test[first], test[second]), p]
            expected.append(verdicts.get(row, "not shown"))
        elif row == "lenet5+all":
            expected = [difference_cell(test[row], test["lenet5"]), "", ""]
        else:
            expected = ["", "", ""]
        assert cells_of(line)[4:] == expected, row


def test_the_control_tables_margins_are_differences_and_its_corner_the_interaction():
    short, long = (99.0, 0.03), (99.1, 0.05)
    short_regularized, long_regularized = (99.3, 0.1), (99.7, 0.16)
    records = {
        "lenet5": make_runs(short, epochs=20),
        "lenet5-long": make_runs(long, epochs=100),
        "recipe-short": make_runs(short_regularized, epochs=20),
        "recipe-all-augmented": make_runs(long_regularized, epochs=100),
    }
    assert control_table(records).splitlines() == [
        "| test accuracy (%), 3 seeds | 20 epochs | 100 epochs | longer minus shorter |",
        "|---|---:|---:|---:|",
        f"| plain | 99.000 ± 0.030 | 99.100 ± 0.050 | {difference_cell(long, short)} |",
        "| augmentation and weight decay | 99.300 ± 0.100 | 99.700 ± 0.160 "
        f"| {difference_cell(long_regularized, short_regularized)} |",
        f"| regularized minus plain | {difference_cell(short_regularized, short)} "
        f"| {difference_cell(long_regularized, long)} "
        f"| {difference_cell((0.4, 0.06), (0.1, 0.02))} |",  # of what length adds
    ]


def test_what_was_tried_on_held_out_images_stands_with_its_options_and_own_numbers():
    rows = CHOICES | LONG_CHOICES
    records = {
        row: make_runs(
            (98 + place / 10, (1 + place) / 100),
            (0.02 + place / 1000, 0.001),
            watched="val",
            epochs=30 + place,
            label_smoothing=0.05 * ("smoothing" in row),
        )[: 2 + place % 2]
        for place, row in enumerate(rows)
    }
    lines = choices_table(records).splitlines()
    assert lines[:2] == [
        "| on 10,000 held-out images | epochs | seeds | accuracy (%) | loss |",
        "|---|---:|---:|---:|---:|",
    ]
    assert lines[8].endswith("| 0.0255 † |")
    for place, (line, options) in enumerate(zip(lines[2:], rows.values(), strict=True)):
        mean, deviation, loss = 98 + place / 10, (1 + place) / 100, 0.02 + place / 1000
        if place % 2 == 0:  # without the third seed
            mean, deviation, loss = mean - deviation / 2, deviation / math.sqrt(2), loss - 0.0005
        mark = " †" if "smoothing" in options else ""
        cells = cells_of(line)
        assert cells[:3] == [f"`{options}`", str(30 + place), str(2 + place % 2)]
        assert [float(cell) for cell in cells[3].split(" ± ")] == pytest.approx(
            [mean, deviation], abs=0.0006
        )
        assert float(cells[4].removesuffix(mark)) == pytest.approx(loss, abs=0.00006)


def test_each_part_of_the_recipe_has_its_own_numbers_and_the_parts_are_tested_together():
    recipe = (99.6, 0.03)
    parts = {
        "recipe-augment": (99.3, 0.031),  # clearly worse
        "recipe-weight-decay": (99.57, 0.04),  # a little worse
        "recipe-all-augmented": (99.61, 0.05),  # hardly better
    }
    raw = [p_value(recipe, part) for part in parts.values()]
    assert 3 * raw[0] < 0.001 < raw[1] < 0.05 < 2 * raw[1] < raw[2]
    records = {
        row: make_runs(part, (0.01 + place / 100, (1 + place) / 1000), epochs=100)
        for place, (row, part) in enumerate({"recipe": recipe, **parts}.items())
    }
    assert recipe_table(records).splitlines() == [
        "| 3 seeds, 100 epochs | test accuracy (%) | test loss | `--regularize` minus this, "
        "95% interval | adjusted p | the part |",
        "|---|---:|---:|---:|---:|---|",
        "| `--regularize` | 99.600 ± 0.030 | 0.0100 ± 0.0010 | | | |",
        "| without augmentation | 99.300 ± 0.031 | 0.0200 ± 0.0020 "
        f"| {difference_cell(recipe, (99.3, 0.031))} | < 0.001 | **helps** |",
        "| without weight decay | 99.570 ± 0.040 | 0.0300 ± 0.0030 "
        f"| {difference_cell(recipe, (99.57, 0.04))} | {2 * raw[1]:.3f} | not shown |",
        "| augmented in the last epochs, too | 99.610 ± 0.050 | 0.0400 ± 0.0040 "
        f"| {difference_cell(recipe, (99.61, 0.05))} | {raw[2]:.3f} | not shown |",
    ]
