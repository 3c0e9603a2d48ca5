"""The records of finished runs, and the numbers in them.

A record is the metrics of a run (main.py's results/metrics/NAME.json) and two more: the accuracy of
the final network on the unaugmented training images ("train_accuracy"), and the test images that it
misclassifies ("misclassified": by index, the true and the predicted digit).
"""

import numpy as np

from support.options import watched_split

TEST_IMAGES = 10_000
Records = dict[str, list[dict]]  # by row of a table, one record per seed


def final_values(runs: list[dict], quantity: str) -> np.ndarray:
    """Return the final "loss" or "accuracy" of each run, on the set that it watched."""
    watched = watched_split(runs[0]["config"])
    return np.array([run["history"][-1][f"{watched}_{quantity}"] for run in runs])


def accuracies(runs: list[dict], split: str = "test") -> np.ndarray:
    """Return the accuracy of each run's final network, in percent: on the set that it watched, or,
    for the split "train", on the unaugmented training images."""
    if split == "train":
        return 100 * np.array([run["train_accuracy"] for run in runs])
    return 100 * final_values(runs, "accuracy")


def epochs_of(runs: list[dict]) -> int:
    return len(runs[0]["history"])


def misclassified_images(run: dict) -> set[str]:
    return set(run["misclassified"])


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
