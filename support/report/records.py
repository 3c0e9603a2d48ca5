"""The records of finished runs, and the numbers in them.

A record is the metrics of a run (main.py's results/metrics/NAME.json) and two more: the accuracy of
the final network on the unaugmented training images ("train_accuracy"), and the test images that it
misclassifies ("misclassified": by index, the true and the predicted digit).
"""

import json
from pathlib import Path

import numpy as np

from support.errors import RunError
from support.files import atomic_write
from support.report.plan import CHOICES, FRESH, LR_CHOICES, Plan
from support.run_files import is_whole
from support.settings import Settings, changed_settings

TEST_IMAGES = 10_000
Records = dict[str, list[dict]]  # by row of a table, one record per seed
# Of what runs are trained and tested on, by the number of images held out: "data" in their metrics.
Fingerprints = dict[int, dict[str, int]]
MNIST_FINGERPRINTS: Fingerprints = {
    0: {"training": 640364275, "test": 3025728848},
    10_000: {"training": 3811839289, "validation": 4162714620},
}


# --- files ------------------------------------------------------------------------------------


def record_path(folder: Path, settings: Settings) -> Path:
    return folder / "runs" / f"{settings.name}.json"


def write_record(folder: Path, settings: Settings, record: dict) -> None:
    with atomic_write(record_path(folder, settings)) as file:
        file.write((json.dumps(record, indent=1) + "\n").encode())


def find_record(
    folder: Path, settings: Settings, data: Fingerprints = MNIST_FINGERPRINTS
) -> dict | None:
    """Return the record of this run, if it was finished before, with the same settings.

    Raises:
        RunError: the record is damaged, or belongs to other data.
    """
    path = record_path(folder, settings)
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        config = record["config"]
        if config["epochs"] != settings.epochs or changed_settings(config, settings):
            return None
        check_record(record, settings)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise RunError(
            f"{path}: is damaged; remove it to train this run again, or git checkout brings it back"
        ) from error
    # The oldest records have no fingerprints: they are of MNIST.
    held_out = settings.validation
    if record.get("data", MNIST_FINGERPRINTS.get(held_out)) != data[held_out]:
        raise RunError(f"{path}: belongs to other images; use those, or another --results-dir")
    return record


def check_record(record: dict, settings: Settings) -> None:
    """Raise ValueError, LookupError, TypeError or AttributeError unless all that is made from
    records can be made from this one."""
    if not is_whole(record["history"], settings.epochs, settings.watched):
        raise ValueError("epochs are missing")
    if settings.validation:
        return
    if not 0 <= record["train_accuracy"] <= 1:
        raise ValueError("no accuracy")
    for index, (label, digit) in record["misclassified"].items():
        if not (0 <= int(index) < TEST_IMAGES and 0 <= label <= 9 and 0 <= digit <= 9):
            raise ValueError("no test image, or no digit")


def load_records(folder: Path, runs: Plan, data: Fingerprints = MNIST_FINGERPRINTS) -> Records:
    """Return the records of those of `runs` that are finished, by row and then by seed.

    Rows that are compared seed by seed, those of the exploration and the fresh ones, are cut to the
    seeds that all of them have.

    Raises:
        RunError: too few runs are finished, or a record is damaged, or belongs to other data.
    """
    found: dict[str, dict[int, dict]] = {row: {} for row, _ in runs}
    for row, settings in runs:
        if record := find_record(folder, settings, data):
            found[row][settings.seed] = record
    fresh = {row for row in found if row.startswith(FRESH)}
    explored = found.keys() - fresh - LR_CHOICES.keys() - CHOICES.keys()
    for compared in (fresh, explored):
        shared = set.intersection(*(set(found[row]) for row in compared)) if compared else set()
        for row in compared:
            found[row] = {seed: found[row][seed] for seed in shared}
    for row, records in found.items():
        if len(records) < 2:
            raise RunError(f"{folder}: {row} has fewer than 2 seeds; run report.py to its end")
    return {row: [by_seed[seed] for seed in sorted(by_seed)] for row, by_seed in found.items()}


# --- numbers ----------------------------------------------------------------------------------


def final_values(runs: list[dict], quantity: str) -> np.ndarray:
    """Return the final "loss" or "accuracy" of each run, on the set that it watched."""
    watched = "val" if runs[0]["config"]["validation"] else "test"
    return np.array([run["history"][-1][f"{watched}_{quantity}"] for run in runs])


def accuracies(runs: list[dict], split: str = "test") -> np.ndarray:
    """Return the accuracy of each run's final network, in percent: on the set that it watched, or,
    for the split "train", on the unaugmented training images."""
    if split == "train":
        return 100 * np.array([run["train_accuracy"] for run in runs])
    return 100 * final_values(runs, "accuracy")


def epochs_of(runs: list[dict]) -> int:
    return len(runs[0]["history"])


def minutes_of(runs: list[dict]) -> np.ndarray:
    """Return how long each run trained and tested."""
    return np.array([sum(entry["seconds"] for entry in run["history"]) / 60 for run in runs])


def error_matrix(runs: list[dict]) -> np.ndarray:
    """Return which test image (column) each run (row) misclassifies: int64 [runs, 10,000]."""
    errors = np.zeros((len(runs), TEST_IMAGES), np.int64)
    for row, run in zip(errors, runs, strict=True):
        row[[int(index) for index in run["misclassified"]]] = 1
    return errors


def confusions(runs: list[dict]) -> np.ndarray:
    """Return how often, in the mean over runs, digit [row] of the test set was predicted as
    [column]: float64 [10, 10]."""
    counts = np.zeros((10, 10))
    for run in runs:
        for label, digit in run["misclassified"].values():
            counts[label, digit] += 1 / len(runs)
    return counts
