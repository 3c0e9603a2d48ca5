"""What a trained network makes of the test set, told and drawn."""

import json
import math
import re

import numpy as np
import pytest
from helpers import ROOT, make_members, write_data, write_tar
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from torch import nn

from model import MODELS
from support.checkpoint import load_checkpoint, write_checkpoint

# A true digit and what it is read as: a 3 is often read as 5, nothing is read as 8, and of 9 there
# is none.
PAIRS = [*((digit, digit) for digit in range(8)), (0, 0), (3, 5), (3, 5), (7, 2), (8, 0)]


class BrightnessReader(nn.Module):
    """Reads an image whose pixels are all 25 times a digit as this digit."""

    def forward(self, images):
        pixels = (images[:, 0, 0, 0] * 0.3081 + 0.1307) * 255
        return 3 * nn.functional.one_hot((pixels / 25).round().long(), 10).float()


@pytest.fixture
def reader(data_dir, tmp_path, monkeypatch):
    """Writes a checkpoint of a network that reads the test images as PAIRS says."""
    images = [np.full((28, 28), 25 * digit, np.uint8) for _, digit in PAIRS]
    labels = [label for label, _ in PAIRS]
    write_tar(data_dir / "test.tar", make_members(images, labels, "test"))
    monkeypatch.setitem(MODELS, "reader", BrightnessReader)

    def reader(path):
        write_checkpoint(path, {"model": "reader", "weights": {}, "ema": None})
        return path

    return reader


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn, into files that stay empty."""
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    return drawn


def test_loss_accuracy_and_confusions_are_told_and_drawn(start, results, reader, figures, data_dir):
    path = reader(results / "checkpoints/mine.pt")
    told, table, files = start("--evaluate", path).stdout.split("\n\n")
    loss = math.log(math.e**3 + 9) - 3 * 9 / 13  # of the softmax, 9 of 13 right
    assert told == (
        f"{path}, on 13 test images of {data_dir / 'test.tar'}:\n"
        f"loss {loss:.4f}, accuracy 69.23% (4 misclassified)"
    )
    plots = results / "plots/evaluation"
    assert files.splitlines() == [
        str(plots / f"mine_{n}.png") for n in ("confusion", "misclassified")
    ]

    rows = {first: rest for first, *rest in map(str.split, table.splitlines())}
    assert rows["true"] == ["\\", "predicted", *"0123456789", "recall"]
    counts = [[PAIRS.count((label, digit)) for digit in range(10)] for label in range(10)]
    recalls = ["100.00%"] * 3 + ["33.33%"] + ["100.00%"] * 3 + ["50.00%", "0.00%", "-"]
    for label, (row, recall) in enumerate(zip(counts, recalls, strict=True)):
        assert rows[str(label)] == [*(str(count or ".") for count in row), recall]
    assert rows["precision"] == [
        *("66.67%", "100.00%", "50.00%", "100.00%", "100.00%"),
        *("33.33%", "100.00%", "100.00%", "-", "-"),
    ]
    ends = [[cell.end() for cell in re.finditer(r"\S+", line[16:])] for line in table.splitlines()]
    assert ends[0] == [*range(8, 96, 8)]
    assert all(row == ends[0][: len(row)] for row in ends)

    confusion, misclassified = figures
    assert confusion.get_suptitle() == "mine.pt: 69.23% of the test set"
    assert misclassified.get_suptitle().startswith("mine.pt: 4 of 4 misclassified")
    drawn = {text.get_position()[::-1]: int(text.get_text()) for text in confusion.axes[0].texts}
    assert drawn == {pair: PAIRS.count(pair) for pair in PAIRS}
    certain = f"\n{math.e**3 / (math.e**3 + 9):.0%}"
    texts = [text.get_text() for text in misclassified.axes[0].texts]
    assert sorted(texts) == [f"{pair}{certain}" for pair in ("3→5", "3→5", "7→2", "8→0")]


@pytest.mark.parametrize("options", [(), ("--ema", "0.9")])
def test_evaluate_gives_the_numbers_of_the_last_epoch_from_the_test_images_alone(
    start, results, data_dir, in_float64, options
):
    # With --ema, these are the numbers of the averaged weights.
    start("--epochs", 2, "--lr", 0.05, "--batch-size", 16, *options)
    (data_dir / "train.tar").unlink()
    checkpoint = results / "checkpoints/lenet5.pt"
    entry = load_checkpoint(checkpoint)["history"][-1]
    out = start("--evaluate", checkpoint).stdout
    assert f"loss {entry['test_loss']:.4f}, accuracy {entry['test_accuracy']:.2%}" in out
    for path in out.splitlines()[-2:]:
        with Image.open(path) as image:
            assert image.format == "PNG"
    [line] = start("--evaluate", checkpoint, "--json").stdout.splitlines()
    result = json.loads(line)
    assert result["checkpoint"] == str(checkpoint)
    assert result["loss"] == pytest.approx(entry["test_loss"], rel=1e-9)
    assert result["accuracy"] == entry["test_accuracy"]
    assert sum(map(sum, result["confusion"])) == 50
    assert sum(result["confusion"][digit][digit] for digit in range(10)) / 50 == result["accuracy"]


def test_evaluate_tells_where_the_test_images_are_other_ones(
    start, results, data_dir, tmp_path, without_plots
):
    start("--epochs", 1)
    path = results / "checkpoints/lenet5.pt"
    other = write_data(tmp_path / "other", test=40)
    for data, note in ((data_dir, ""), (other, " (not those that were tested while it trained)")):
        first, *_ = start("--evaluate", path, data=data).stdout.splitlines()
        count = 50 if data == data_dir else 40
        assert first == f"{path}, on {count} test images of {data / 'test.tar'}{note}:"
        result = json.loads(start("--evaluate", path, "--json", data=data).stdout)
        assert result["tested_in_training"] is (data == data_dir)


def test_pictures_of_networks_of_one_name_lie_beside_each_other_and_those_of_a_run(
    start, results, tmp_path, reader, without_plots
):
    start("--epochs", 1)
    plots = results / "plots"
    run_plot = (plots / "lenet5.png").read_bytes()
    checkpoints = [
        reader(folder / "lenet5.pt")
        for folder in (tmp_path / "a", tmp_path / "b", results / "checkpoints")
    ]
    for path in 2 * checkpoints:
        start("--evaluate", path)
    assert (plots / "lenet5.png").read_bytes() == run_plot
    assert len(list(plots.rglob("*_confusion.png"))) == 3
    assert len(list(plots.rglob("*.png"))) == 7


def test_an_escape_sequence_in_a_name_is_printed_as_its_code(
    start, tmp_path, reader, without_plots
):
    out = start("--evaluate", reader(tmp_path / "\x1b[31m" / "red\x1b.pt")).stdout
    assert "\x1b" not in out
    assert f"{tmp_path}/\\x1b[31m/red\\x1b.pt, on 13 test images" in out


def draw_seven(path):
    image = Image.new("L", (200, 300), 255)
    ImageDraw.Draw(image).line([(60, 80), (140, 80), (100, 220)], fill=0, width=14, joint="curve")
    image.save(path)
    return path


@pytest.mark.parametrize("command", ["--evaluate", "--predict"])
def test_under_torchrun_only_the_first_process_tells(
    start, tmp_path, monkeypatch, under_torchrun, without_plots, command
):
    if command == "--evaluate":
        path = ROOT / "results/report/lenet5.pt"
    else:
        path = draw_seven(tmp_path / "photo.png")
    assert not start(command, path).stdout
    monkeypatch.setenv("RANK", "0")
    assert start(command, path).stdout


def test_the_lines_of_readme_read_a_digit_from_python(tmp_path):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall("```python\n(.*?)```", readme, re.DOTALL)
    [block] = [block for block in blocks if "read_digit" in block]
    names = {}
    exec(block.replace("photo.png", str(draw_seven(tmp_path / "photo.png"))), names)
    assert names["probabilities"].shape == (1, 10)
    assert names["probabilities"].argmax() == 7
