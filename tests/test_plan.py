"""Which runs the report is made of: what its rows compare, and under which names."""

import json
import shutil
from pathlib import Path

import pytest
from helpers import ROOT

from support.options import Settings
from support.report.plan import (
    CHOICES,
    FRESH,
    FRESH_ROWS,
    FRESH_SEEDS,
    FRESH_TITLES,
    LEARNING_RATES,
    LONG_CHOICES,
    PART_TITLES,
    QUESTIONS,
    RECIPE_WITHOUT,
    ROW_TITLES,
    ROWS,
    SEEDS,
    TECHNIQUE_TITLES,
    TECHNIQUES,
    planned_runs,
)
from support.report.records import find_record


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
    own = {"name", "seed", "regularize"}
    return {name for name in first if first[name] != second[name]} - own


def test_a_run_is_called_after_its_row_its_epochs_and_its_seed(plan):
    for row, settings in plan:
        row = row.removeprefix("fresh ")
        assert settings.name == f"{row}-{settings.epochs}-epochs-seed-{settings.seed}"


def test_no_two_runs_write_the_same_files(plan):
    names = [settings.name for _, settings in plan]
    assert len(set(names)) == len(names)


def test_every_run_resumes_on_one_thread_where_it_is_told_to_read_and_write():
    for _, settings in planned_runs(2, None, Path("pixels"), Path("elsewhere")):
        assert (settings.resume, settings.threads) == (True, 1)
        assert (settings.data_dir, settings.results_dir) == (Path("pixels"), Path("elsewhere"))


def test_plain_runs_are_those_of_the_defaults(rows):
    assert different(rows["lenet5"], Settings()) == {"resume", "threads"}
    assert different(rows["fresh lenet5"], rows["lenet5"]) == set()
    assert different(rows["fresh mlp"], rows["lenet5"]) == {"model"}
    assert different(rows["fresh lenet5-long"], rows["lenet5"]) == {"epochs"}


def test_every_row_of_the_ablation_differs_in_its_technique_alone(rows):
    for name in TECHNIQUES:
        setting = {name.replace("-", "_")}
        assert different(rows[f"lenet5+{name}"], rows["lenet5"]) == setting
        assert different(rows[f"lenet5+all-{name}"], rows["lenet5+all"]) == setting
    assert len(different(rows["lenet5+all"], rows["lenet5"])) == len(TECHNIQUES)


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ("recipe-augment", {"augment", "no_aug_epochs"}),
        ("recipe-weight-decay", {"weight_decay"}),
        ("recipe-all-augmented", {"no_aug_epochs"}),
        ("fresh recipe", set()),
        ("fresh mlp-recipe", {"model"}),
        ("fresh lenet5-long", {"augment", "no_aug_epochs", "weight_decay"}),
    ],
)
def test_a_control_differs_from_the_recipe_in_nothing_else(rows, row, parts):
    assert different(rows[row], rows["recipe"]) == parts


def test_both_networks_are_tried_with_the_same_learning_rates_on_held_out_images(rows):
    for model in ("lenet5", "mlp"):
        for lr in LEARNING_RATES:
            settings = rows[f"{model}-lr-{lr}"]
            assert (settings.model, settings.lr, settings.epochs) == (model, lr, 20)
            assert different(settings, rows[f"fresh {model}"]) <= {"lr", "validation"}


def test_what_is_chosen_is_chosen_on_held_out_images_and_nothing_else_is(plan):
    for row, settings in plan:
        chosen = row in CHOICES or row in LONG_CHOICES or "-lr-" in row
        assert settings.validation == (10_000 if chosen else 0)


def test_choices_have_two_seeds_explored_rows_ten_and_fresh_rows_twenty_others(plan):
    seeds = {}
    for row, settings in plan:
        seeds.setdefault(row, []).append(settings.seed)
    for row, of_row in seeds.items():
        if row.startswith("fresh "):
            assert of_row == list(range(10, 30))
        else:
            chosen = row in CHOICES or row in LONG_CHOICES or "-lr-" in row
            assert of_row == list(range(2 if chosen else 10))


def test_long_choices_are_as_long_as_the_recipe_and_short_ones_as_the_ablation(rows):
    for row in ("recipe", *RECIPE_WITHOUT, *LONG_CHOICES):
        assert rows[row].epochs == 100
    for row in (*ROWS, *CHOICES):
        assert rows[row].epochs == 20


def test_a_seed_of_the_ablation_is_finished_before_the_next_is_begun(plan):
    ablation = [(settings.seed, row) for row, settings in plan if row in ROWS]
    assert ablation == [(seed, row) for seed in range(SEEDS) for row in ROWS]


def test_a_fresh_seed_is_finished_before_the_next_is_begun_and_all_come_last(plan):
    fresh = [(settings.seed, row) for row, settings in plan[-len(FRESH_SEEDS) * len(FRESH_ROWS) :]]
    assert fresh == [(seed, f"fresh {row}") for seed in FRESH_SEEDS for row in FRESH_ROWS]


def test_every_question_is_on_two_fresh_rows():
    for question in QUESTIONS:
        assert question.first != question.second
        assert {question.first, question.second} <= FRESH_ROWS.keys()


def test_every_row_that_a_table_names_has_a_title(rows):
    assert ROW_TITLES.keys() == ROWS.keys()
    assert TECHNIQUE_TITLES.keys() == TECHNIQUES.keys()
    assert PART_TITLES.keys() == RECIPE_WITHOUT.keys()
    assert FRESH_TITLES.keys() == FRESH_ROWS.keys()
    titled = {*ROW_TITLES, *PART_TITLES, *(f"fresh {row}" for row in FRESH_TITLES)}
    assert {row for row, settings in rows.items() if not settings.validation} - titled == {"recipe"}


def test_a_quick_look_trains_all_but_the_choices_so_many_seeds_and_epochs_long():
    plan = planned_runs(3, epochs=2)
    fresh = {f"fresh {row}" for row in FRESH_ROWS}
    explored = {*ROWS, "recipe", *RECIPE_WITHOUT}
    assert {settings.epochs for _, settings in plan} == {2}
    assert len(plan) == 3 * (len(explored) + len(fresh))
    for rows, seeds in ((explored, {0, 1, 2}), (fresh, {10, 11, 12})):
        assert {(row, s.seed) for row, s in plan if row in rows} == {
            (row, seed) for row in rows for seed in seeds
        }


def test_fewer_seeds_are_fewer_fresh_ones_too():
    fresh = {settings.seed for row, settings in planned_runs(3) if row.startswith("fresh ")}
    assert fresh == {10, 11, 12}


def mixed_seeds(folder, plan):
    """The fresh seeds of which not all records were made alike."""
    made = {}
    for row, settings in plan:
        record = find_record(folder, settings) if row.startswith(FRESH) else None
        if record:
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
