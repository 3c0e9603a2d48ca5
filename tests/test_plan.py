"""Which runs the report is made of: what its rows compare, and under which names."""

import json
import shutil
from pathlib import Path

import pytest
from helpers import ROOT

from support.report.plan import (
    CHOICES,
    FRESH,
    FRESH_ROWS,
    FRESH_SEEDS,
    LEARNING_RATES,
    QUESTIONS,
    RECIPE_ROWS,
    ROWS,
    SEEDS,
    TECHNIQUES,
    planned_runs,
)
from support.report.records import find_record
from support.settings import Settings


@pytest.fixture(scope="module")
def plan():
    return planned_runs(SEEDS)


@pytest.fixture(scope="module")
def rows(plan):
    """The settings of each row, all seeds alike."""
    return {row: settings for row, settings in plan if settings.seed in (0, FRESH_SEEDS[0])}


def different(first, second):
    """The settings, but for a run's own, in which two rows differ."""
    first, second = first.plain(), second.plain()
    return {name for name in first if first[name] != second[name]} - {"name", "seed", "regularize"}


def is_chosen(row):
    """Whether a row's runs chose a setting: on held-out images."""
    return row in CHOICES or "-lr-" in row


def test_a_run_has_the_name_of_its_row_its_epochs_and_its_seed_and_no_other_has_it(plan):
    for row, settings in plan:
        row = row.removeprefix("fresh ")
        assert settings.name == f"{row}-{settings.epochs}-epochs-seed-{settings.seed}"
    assert len({settings.name for _, settings in plan}) == len(plan)


def test_every_run_resumes_on_one_thread_where_it_is_told_to_read_and_write():
    for _, settings in planned_runs(2, None, Path("pixels"), Path("elsewhere")):
        assert (settings.resume, settings.threads) == (True, 1)
        assert (settings.data_dir, settings.results_dir) == (Path("pixels"), Path("elsewhere"))


@pytest.mark.parametrize(
    ("row", "other", "settings"),
    [
        ("fresh lenet5", "lenet5", set()),
        ("fresh mlp", "lenet5", {"model"}),
        ("fresh lenet5-long", "lenet5", {"epochs"}),
        *((f"lenet5+{name}", "lenet5", {name.replace("-", "_")}) for name in TECHNIQUES),
        *((f"lenet5+all-{name}", "lenet5+all", {name.replace("-", "_")}) for name in TECHNIQUES),
        ("lenet5+all", "lenet5", {name.replace("-", "_") for name in TECHNIQUES}),
        ("recipe-augment", "recipe", {"augment", "no_aug_epochs"}),
        ("recipe-weight-decay", "recipe", {"weight_decay"}),
        ("recipe-all-augmented", "recipe", {"no_aug_epochs"}),
        ("fresh recipe", "recipe", set()),
        ("fresh mlp-recipe", "recipe", {"model"}),
        ("fresh lenet5-long", "recipe", {"augment", "no_aug_epochs", "weight_decay"}),
        ("validation", "lenet5", {"validation", "augment", "weight_decay", "ema"}),
        ("validation+weight-decay", "validation", {"weight_decay"}),
        ("long+no-aug-epochs", "recipe", {"validation"}),
    ],
)
def test_two_rows_differ_in_what_they_compare_and_in_nothing_else(rows, row, other, settings):
    assert different(rows[row], rows[other]) == settings


def test_plain_runs_are_those_of_the_defaults(rows):
    assert different(rows["lenet5"], Settings()) == {"resume", "threads"}


def test_both_networks_are_tried_with_the_same_learning_rates(rows):
    for model in ("lenet5", "mlp"):
        for lr in LEARNING_RATES:
            settings = rows[f"{model}-lr-{lr}"]
            assert (settings.model, settings.lr) == (model, lr)
            assert different(settings, rows[f"fresh {model}"]) <= {"lr", "validation"}


def test_what_is_chosen_is_chosen_on_held_out_images_and_nothing_else_is(plan):
    for row, settings in plan:
        assert settings.validation == (10_000 if is_chosen(row) else 0)


def test_choices_have_two_seeds_explored_rows_ten_and_fresh_rows_twenty_others(plan):
    seeds = {}
    for row, settings in plan:
        seeds.setdefault(row, []).append(settings.seed)
    for row, of_row in seeds.items():
        explored = range(2 if is_chosen(row) else 10)
        assert of_row == list(range(10, 30) if row.startswith("fresh ") else explored)


def test_a_seed_is_finished_before_the_next_is_begun_and_fresh_ones_come_last(plan):
    ablation = [(settings.seed, row) for row, settings in plan if row in ROWS]
    assert ablation == [(seed, row) for seed in range(SEEDS) for row in ROWS]
    fresh = [(settings.seed, row) for row, settings in plan[-len(FRESH_SEEDS) * len(FRESH_ROWS) :]]
    assert fresh == [(seed, f"fresh {row}") for seed in FRESH_SEEDS for row in FRESH_ROWS]


def test_every_question_is_on_two_fresh_rows():
    for question in QUESTIONS:
        assert question.first != question.second
        assert {question.first, question.second} <= FRESH_ROWS.keys()


def test_a_quick_look_trains_all_but_the_choices_so_many_seeds_and_epochs_long():
    plan = planned_runs(3, epochs=2)
    explored = ROWS.keys() | RECIPE_ROWS.keys()
    assert {(row, settings.seed) for row, settings in plan} == {
        *((row, seed) for row in explored for seed in (0, 1, 2)),
        *((f"fresh {row}", seed) for row in FRESH_ROWS for seed in (10, 11, 12)),
    }
    assert {settings.epochs for _, settings in plan} == {2}
    # At least one of the epochs is augmented.
    assert {settings.no_aug_epochs for _, settings in plan if settings.augment} == {0, 1}


def test_fewer_seeds_are_fewer_fresh_ones_too():
    fresh = {settings.seed for row, settings in planned_runs(3) if row.startswith("fresh ")}
    assert fresh == {10, 11, 12}


def mixed_seeds(folder, plan):
    """The fresh seeds of which not all records were made alike."""
    made = {}
    for row, settings in plan:
        if not row.startswith(FRESH):
            continue
        if record := find_record(folder, settings):
            how = record["processor"], record["versions"]["torch"], record["data"]
            made.setdefault(settings.seed, []).append(how)
    return [seed for seed, ways in made.items() if any(way != ways[0] for way in ways)]


def test_all_rows_of_a_fresh_seed_were_trained_alike(plan, tmp_path):
    """On the same kind of processor, by the same torch, on the same data."""
    folder = ROOT / "results" / "report"
    assert mixed_seeds(folder, plan) == []
    shutil.copytree(folder / "runs", tmp_path / "runs")
    path = tmp_path / "runs" / "lenet5-20-epochs-seed-10.json"
    record = json.loads(path.read_text(encoding="utf-8")) | {"processor": "another"}
    path.write_text(json.dumps(record), encoding="utf-8")
    assert mixed_seeds(tmp_path, plan) == [10]
