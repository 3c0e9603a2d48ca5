"""README's Python runs as it stands there, and its log is that of a run."""

import json
import re
import sys

import numpy as np
import pytest
import torch
from helpers import ROOT, make_digits
from PIL import Image

import dataset
from model import MODELS

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall("```python\n(.*?)```", README, re.DOTALL)


def block_with(part):
    [block] = [block for block in BLOCKS if part in block]
    return block


def run_block(part, **names):
    exec(block_with(part), names)
    return names


@pytest.fixture
def here(tmp_path, data_dir, monkeypatch):
    """A working folder; MNIST, for what reads it, is tiny."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dataset, "DEFAULT_DATA_DIR", data_dir)
    return tmp_path


def test_the_network_of_ones_own_trains(here, data_dir, monkeypatch):
    arguments = ["--model", "mynet", "--epochs", "1", "--device", "cpu", "--dropout", "0.1"]
    monkeypatch.setattr(sys, "argv", ["mine.py", *arguments])
    try:
        run_block("class MyNet")
    finally:
        MODELS.pop("mynet", None)
    assert (here / "results/checkpoints/mynet.pt").exists()


def test_five_lines_make_a_folder_of_any_pairs_of_image_and_label(here):
    images, labels = make_digits(20, seed=0)
    pairs = [
        (Image.fromarray(image).convert("RGB"), label)
        for image, label in zip(images, labels, strict=True)
    ]
    run_block("in enumerate(pairs)", pairs=pairs)
    read = dataset.MNIST("mydata/train")
    assert np.array_equal(read.images[:, 0].numpy(), images)
    assert np.array_equal(read.labels.numpy(), labels)


def test_train_and_test_take_ones_own_loader_and_optimizer(here, capsys):
    run_block("torch.optim.Adam")
    numbers = re.findall(r"\d\.\d+", capsys.readouterr().out)
    assert len(numbers) == 8  # loss and accuracy, in training and testing, of two epochs


def test_the_metrics_of_a_search_are_one_table(here):
    table = run_block("import pandas")["table"]
    assert sorted(set(table["lr"])) == [0.02, 0.05]
    assert list(table["epoch"]) == [1, 2, 1, 2]
    line = re.search(r"`(pandas\.DataFrame\(.*)`;", README)[1].replace("lenet5", "mlp-0.02")
    import pandas

    history = eval(line, {"json": json, "pandas": pandas})
    assert list(history["epoch"]) == [1, 2]
    assert "val_accuracy" in history


@pytest.mark.slow
def test_the_weights_of_a_checkpoint_can_be_read_and_exported(here, start):
    start("--epochs", 1, results="results")
    names = run_block("torch.onnx.export")
    assert names["weights"]["conv1.weight"].shape == (6, 1, 5, 5)
    import onnx
    from onnx.reference import ReferenceEvaluator

    session = ReferenceEvaluator(onnx.load("lenet5.onnx"))
    [logits] = session.run(None, {session.input_names[0]: np.ones((1, 1, 28, 28), np.float32)})
    with torch.no_grad():
        expected = names["model"](torch.ones(1, 1, 28, 28))
    torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-4, atol=1e-5)


def test_the_lines_shown_are_those_of_the_reports_first_run():
    path = ROOT / "results/report/runs/lenet5-20-epochs-seed-0.json"
    history = json.loads(path.read_text(encoding="utf-8"))["history"]
    for entry in (history[0], history[-1]):
        line = (
            f"    epoch {entry['epoch']:2}/20"
            f"  train loss {entry['train_loss']:.4f}, accuracy {entry['train_accuracy']:.2%}"
            f"  test loss {entry['test_loss']:.4f}, accuracy {entry['test_accuracy']:.2%}"
            f"  {entry['seconds']:.1f} s\n"
        )
        assert line in README
