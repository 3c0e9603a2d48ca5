"""The real 60,000 + 10,000 images, from where a user's first run takes them."""

import json

import pytest
from helpers import run_main

from dataset import MNIST, find_splits


@pytest.mark.slow
def test_one_epoch_of_lenet5_reads_97_percent(tmp_path):
    process = run_main("--model", "lenet5", "--epochs", 1, "--results-dir", tmp_path)
    assert process.returncode == 0, process.stderr
    [entry] = json.loads((tmp_path / "metrics/lenet5.json").read_text())["history"]
    assert entry["test_accuracy"] > 0.97
    assert entry["train_accuracy"] > 0.85


@pytest.mark.slow
def test_it_is_the_published_mnist():
    trn_set, tst_set = (MNIST(path) for path in find_splits())
    assert trn_set.labels.bincount().tolist() == [
        *(5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
    ]
    assert tst_set.labels.bincount().tolist() == [
        *(980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)
    ]
    pixels = trn_set.images.double() / 255
    assert pixels.mean().item() == pytest.approx(0.1307, abs=5e-5)
    assert pixels.std().item() == pytest.approx(0.3081, abs=5e-5)
