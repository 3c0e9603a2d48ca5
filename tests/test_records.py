"""Records of finished runs: found, checked, and the numbers in them."""

import numpy as np
import pytest
from helpers import make_runs

from support.errors import RunError
from support.report.records import (
    MNIST_FINGERPRINTS,
    accuracies,
    confusions,
    epochs_of,
    error_matrix,
    final_values,
    find_record,
    load_records,
    minutes_of,
    record_path,
    write_record,
)
from support.settings import Settings


def record_of(settings, **values):
    """A record as a run with these settings would leave it."""
    run = make_runs(epochs=settings.epochs, watched=settings.watched, **values)[1]
    return run | {"config": settings.plain()}


def finish(folder, *plan):
    """Write a record for each (row, settings), with an accuracy of its own."""
    for place, (_, settings) in enumerate(plan):
        write_record(folder, settings, record_of(settings, test=(90 + place, 0)))


def planned(row, *seeds, **values):
    name = row.replace(" ", "-")
    return [(row, Settings(name=f"{name}-seed-{seed}", seed=seed, **values)) for seed in seeds]


# --- files ------------------------------------------------------------------------------------


def test_a_record_is_found_as_it_was_written_and_none_before(tmp_path):
    settings = Settings(name="x", epochs=3)
    assert find_record(tmp_path, settings) is None
    record = record_of(settings, misclassified=({}, {"7": [1, 2]}, {}))
    write_record(tmp_path, settings, record)
    assert find_record(tmp_path, settings) == record
    assert record_path(tmp_path, settings) == tmp_path / "runs" / "x.json"
    text = (tmp_path / "runs" / "x.json").read_text(encoding="utf-8")
    assert '\n "config": {\n' in text  # a line a value, so that git shows changes


@pytest.mark.parametrize(
    "other", [{"epochs": 4}, {"lr": 0.1}, {"seed": 1}, {"augment": "deform"}, {"model": "mlp"}]
)
def test_a_record_of_other_settings_does_not_count(tmp_path, other):
    settings = Settings(name="x", epochs=3)
    write_record(tmp_path, settings, record_of(settings))
    assert find_record(tmp_path, Settings(**{"name": "x", "epochs": 3} | other)) is None


def test_a_record_counts_wherever_and_however_its_run_was_started(tmp_path):
    settings = Settings(name="x", epochs=3)
    write_record(tmp_path, settings, record_of(settings))
    elsewhere = {"data_dir": tmp_path, "results_dir": tmp_path, "resume": True, "threads": 1}
    assert find_record(tmp_path, Settings(name="x", epochs=3, **elsewhere))


@pytest.mark.parametrize(("saved", "augment"), [(True, "deform"), (False, None)])
def test_a_record_from_when_there_was_one_augmentation_counts(tmp_path, saved, augment):
    settings = Settings(name="x", epochs=3, augment=augment)
    record = record_of(settings)
    record["config"]["augment"] = saved
    write_record(tmp_path, settings, record)
    assert find_record(tmp_path, settings) == record
    other = Settings(name="x", epochs=3, augment=None if augment else "deform")
    assert find_record(tmp_path, other) is None


def without(name):
    return lambda record: record.pop(name)


@pytest.mark.parametrize(
    "damage",
    [
        *(without(name) for name in ("config", "history", "train_accuracy", "misclassified")),
        lambda record: record["config"].pop("epochs"),
        lambda record: record["history"].pop(),
        lambda record: record["history"][0].pop("test_loss"),
        lambda record: record.update(config=[]),
        lambda record: record.update(history=None),
        lambda record: record.update(train_accuracy=None),
        lambda record: record.update(misclassified=["7"]),
        lambda record: record.update(misclassified={"seven": [1, 2]}),
        lambda record: record.update(misclassified={"10000": [1, 2]}),
        lambda record: record.update(misclassified={"7": [1]}),
        lambda record: record.update(misclassified={"7": [1, 10]}),
    ],
)
def test_a_damaged_record_is_named_with_the_way_out(tmp_path, damage):
    settings = Settings(name="x", epochs=3)
    record = record_of(settings)
    damage(record)
    write_record(tmp_path, settings, record)
    with pytest.raises(RunError) as error:
        find_record(tmp_path, settings)
    assert str(error.value) == (
        f"{tmp_path / 'runs' / 'x.json'}: is damaged; remove it to train this run again, or git "
        "checkout brings it back"
    )


@pytest.mark.parametrize("content", [b"", b'{"config": ', b"[]", b'"x"', b"\xff\xfe", b"3"])
def test_a_file_that_is_no_record_is_named_as_damaged(tmp_path, content):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "x.json").write_bytes(content)
    with pytest.raises(RunError, match=r"x\.json: is damaged"):
        find_record(tmp_path, Settings(name="x"))


def test_a_record_of_held_out_images_has_no_misclassified_ones(tmp_path):
    settings = Settings(name="x", epochs=3, validation=10_000)
    record = record_of(settings)
    del record["train_accuracy"], record["misclassified"]
    write_record(tmp_path, settings, record)
    assert find_record(tmp_path, settings) == record


@pytest.mark.parametrize("validation", [0, 10_000])
def test_a_record_of_other_images_is_not_used_and_one_without_fingerprints_is_of_mnist(
    tmp_path, validation
):
    settings = Settings(name="x", validation=validation)
    other = {0: {"training": 1, "test": 2}, 10_000: {"training": 3, "validation": 4}}
    for made_of, usable in ((MNIST_FINGERPRINTS, MNIST_FINGERPRINTS), (other, other)):
        record = record_of(settings) | {"data": made_of[validation]}
        write_record(tmp_path, settings, record)
        assert find_record(tmp_path, settings, usable) == record
        unusable = other if usable is MNIST_FINGERPRINTS else MNIST_FINGERPRINTS
        with pytest.raises(RunError, match=r"x\.json: belongs to other images; .*--results-dir"):
            find_record(tmp_path, settings, unusable)
    write_record(tmp_path, settings, record_of(settings))
    assert find_record(tmp_path, settings)
    with pytest.raises(RunError, match="belongs to other images"):
        find_record(tmp_path, settings, other)


def test_records_come_by_row_and_in_the_order_of_seeds(tmp_path):
    plan = [*planned("lenet5", 2, 0, 1), *planned("mlp", 1, 2, 0, model="mlp")]
    finish(tmp_path, *plan)
    records = load_records(tmp_path, plan)
    assert list(records) == ["lenet5", "mlp"]
    for row in records:
        assert [run["config"]["seed"] for run in records[row]] == [0, 1, 2]
    assert accuracies(records["lenet5"]) == pytest.approx([91, 92, 90])
    assert accuracies(records["mlp"]) == pytest.approx([95, 93, 94])


def test_explored_and_fresh_rows_are_each_cut_to_the_seeds_that_all_have_and_choices_are_not(
    tmp_path,
):
    finished = [
        *planned("lenet5", 0, 1, 2, 4),
        *planned("mlp", 1, 2, 3, 4),
        *planned("validation", 0, 5, validation=10_000),
        *planned("mlp-lr-0.1", 0, 1, validation=10_000),
        *planned("fresh lenet5", 10, 11, 12, 13),
        *planned("fresh mlp", 10, 11, 13),
    ]
    finish(tmp_path, *finished)
    unfinished = [*planned("lenet5", 3), *planned("mlp", 0), *planned("fresh mlp", 12)]
    records = load_records(tmp_path, finished + unfinished)
    seeds = {row: [run["config"]["seed"] for run in runs] for row, runs in records.items()}
    assert seeds == {
        "lenet5": [1, 2, 4],
        "mlp": [1, 2, 4],
        "validation": [0, 5],
        "mlp-lr-0.1": [0, 1],
        "fresh lenet5": [10, 11, 13],
        "fresh mlp": [10, 11, 13],
    }


def test_a_row_with_one_seed_stops_the_report(tmp_path):
    plan = [*planned("lenet5", 0, 1), *planned("mlp", 0, 1)]
    finish(tmp_path, *plan)
    assert load_records(tmp_path, plan)
    record_path(tmp_path, plan[0][1]).unlink()
    with pytest.raises(RunError) as error:
        load_records(tmp_path, plan)
    assert str(error.value) == (
        f"{tmp_path}: lenet5 has fewer than 2 seeds; run report.py to its end"
    )


# --- numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("watched", ["test", "val"])
def test_final_values_are_those_of_the_last_epoch_on_what_was_watched_minutes_of_all(watched):
    seconds, train = (60, 90, 30), (90, 1)
    runs = make_runs((95, 2), (0.5, 0.1), train, epochs=3, seconds=seconds, watched=watched)
    assert final_values(runs, "loss") == pytest.approx([0.4, 0.5, 0.6])
    assert final_values(runs, "accuracy") == pytest.approx([0.93, 0.95, 0.97])
    assert accuracies(runs) == pytest.approx([93, 95, 97])
    assert accuracies(runs, "train") == pytest.approx([89, 90, 91])  # of the final network
    assert epochs_of(runs) == 3
    assert minutes_of(runs) == pytest.approx([1, 1.5, 0.5])


def test_errors_are_a_row_for_each_run_and_a_column_for_each_test_image():
    runs = make_runs(misclassified=({"3": [1, 2]}, {}, {"0": [5, 6], "9999": [1, 7]}))
    errors = error_matrix(runs)
    assert errors.shape == (3, 10_000)
    assert np.argwhere(errors).tolist() == [[0, 3], [2, 0], [2, 9999]]
    assert errors.sum() == 3


def test_confusions_are_counted_by_true_and_predicted_digit_per_run():
    runs = make_runs(
        misclassified=({"3": [1, 2], "4": [1, 2]}, {"3": [1, 2]}, {"0": [2, 1], "5": [9, 0]})
    )
    counts = confusions(runs)
    assert counts.shape == (10, 10)
    assert counts[1, 2] == pytest.approx(1)
    assert counts[2, 1] == counts[9, 0] == pytest.approx(1 / 3)
    assert counts.sum() == pytest.approx(5 / 3)
