"""What a trained network makes of the test set, told and drawn."""

import json
import math
import re

import pytest
import torch
from helpers import ROOT, write_data
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from dataset import MNIST
from support.checkpoint import load_checkpoint, load_model
from support.evaluation import confusion_table, count_confusions, show_evaluation

# A true digit and what it was read as: a 3 is often read as 5, nothing is read as 8, and of 9 there
# is none.
PAIRS = [*((digit, digit) for digit in range(8)), (0, 0), (3, 5), (3, 5), (7, 2), (8, 0)]
LABELS, DIGITS = (torch.tensor(column) for column in zip(*PAIRS, strict=True))


def rows_of(text):
    """The rows of the table in a text, by their first word."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    return {first: rest for first, *rest in lines}


# --- the confusion matrix ---------------------------------------------------------------------


def test_confusions_are_counted_by_true_digit_and_by_what_it_was_read_as():
    counts = count_confusions(LABELS, DIGITS)
    assert counts.dtype == torch.int64
    assert counts.tolist() == [
        [PAIRS.count((label, digit)) for digit in range(10)] for label in range(10)
    ]


def test_the_table_shows_each_count_below_its_predicted_digit():
    rows = rows_of(confusion_table(count_confusions(LABELS, DIGITS)))
    assert rows["true"] == ["\\", "predicted", *"0123456789", "recall"]
    assert rows["3"][:10] == [".", ".", ".", "1", ".", "2", ".", ".", ".", "."]
    assert rows["0"][:10] == ["2", *"........."]
    assert rows["8"][:10] == ["1", *"........."]
    assert rows["9"][:10] == [*".........."]


def test_recall_is_the_share_of_a_row_and_precision_that_of_a_column():
    rows = rows_of(confusion_table(count_confusions(LABELS, DIGITS)))
    recall = [rows[str(digit)][10] for digit in range(10)]
    assert recall == [
        *("100.00%", "100.00%", "100.00%", "33.33%", "100.00%"),
        *("100.00%", "100.00%", "50.00%", "0.00%", "-"),
    ]
    assert rows["precision"] == [
        *("66.67%", "100.00%", "50.00%", "100.00%", "100.00%"),
        *("33.33%", "100.00%", "100.00%", "-", "-"),
    ]


def test_the_columns_of_the_table_stand_below_each_other():
    lines = confusion_table(10_000 * count_confusions(LABELS, DIGITS)).splitlines()
    assert len(lines) == 12
    ends = [[found.end() for found in re.finditer(r"\S+", line[16:])] for line in lines]
    assert ends[0] == [*range(8, 96, 8)]
    assert all(row == ends[0][: len(row)] for row in ends)


# --- --evaluate -------------------------------------------------------------------------------


def test_what_is_told_and_drawn_comes_from_the_same_logits(tmp_path, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    logits = 3 * torch.nn.functional.one_hot(DIGITS, 10).float()
    tst_set = MNIST((torch.zeros(len(LABELS), 1, 28, 28, dtype=torch.uint8), LABELS))
    path, plots = tmp_path / "checkpoints/mine.pt", tmp_path / "plots/evaluation"
    show_evaluation(path, {}, "here.tar", tst_set, logits, tmp_path, as_json=False)

    told, table, files = capsys.readouterr().out.split("\n\n")
    loss = math.log(math.e**3 + 9) - 3 * 9 / 13  # of the softmax, 9 of 13 right
    assert told == (
        f"{path}, on 13 test images of here.tar:\n"
        f"loss {loss:.4f}, accuracy 69.23% (4 misclassified)"
    )
    counts = count_confusions(LABELS, DIGITS)
    assert table == confusion_table(counts)
    assert files.split() == [str(plots / f"mine_{n}.png") for n in ("confusion", "misclassified")]
    confusion, misclassified = drawn
    assert confusion.get_suptitle() == "mine.pt: 69.23% of the test set"
    shown = {text.get_position(): text.get_text() for text in confusion.axes[0].texts}
    assert shown == {
        (digit, label): str(PAIRS.count((label, digit))) for label, digit in set(PAIRS)
    }
    assert misclassified.get_suptitle().startswith("mine.pt: 4 of 4 misclassified")
    certain = math.e**3 / (math.e**3 + 9)
    texts = sorted(text.get_text() for text in misclassified.axes[0].texts)
    assert texts == [f"{pair}\n{certain:.0%}" for pair in ("3→5", "3→5", "7→2", "8→0")]


@pytest.mark.parametrize("options", [(), ("--ema", "0.9")])
def test_evaluate_tells_the_numbers_of_the_last_epoch(start, results, data_dir, options):
    # With --ema, these are the numbers of the averaged weights.
    start("--epochs", 2, "--lr", 0.05, "--batch-size", 16, *options)
    checkpoint = results / "checkpoints/lenet5.pt"
    out = start("--evaluate", checkpoint).stdout
    entry = load_checkpoint(checkpoint)["history"][-1]
    assert f"loss {entry['test_loss']:.4f}, accuracy {entry['test_accuracy']:.2%}" in out
    tst_set = MNIST(data_dir / "test.tar")
    with torch.no_grad():
        digits = load_model(checkpoint)(tst_set[range(50)][0]).argmax(dim=1)
    assert confusion_table(count_confusions(tst_set.labels, digits)) in out
    for path in out.split()[-2:]:
        with Image.open(path) as image:
            assert image.format == "PNG"


def test_evaluate_tells_where_the_test_images_are_other_ones(start, results, data_dir, tmp_path):
    start("--epochs", 1)
    path = results / "checkpoints/lenet5.pt"
    other = write_data(tmp_path / "other", test=40)
    for data, note in ((data_dir, ""), (other, " (not those that were tested while it trained)")):
        first, *_ = start("--evaluate", path, data=data).stdout.splitlines()
        count = 50 if data == data_dir else 40
        assert first == f"{path}, on {count} test images of {data / 'test.tar'}{note}:"
        result = json.loads(start("--evaluate", path, "--json", data=data).stdout)
        assert result["tested_in_training"] is (data == data_dir)


def test_evaluate_asks_for_the_test_set_only(start, results, data_dir):
    start("--epochs", 1)
    (data_dir / "train.tar").unlink()
    start("--evaluate", results / "checkpoints/lenet5.pt")


def test_evaluate_prints_json_of_the_same_numbers(start, results, in_float64):
    start("--epochs", 1)
    path = results / "checkpoints/lenet5.pt"
    entry = load_checkpoint(path)["history"][-1]
    [line] = start("--evaluate", path, "--json").stdout.splitlines()
    result = json.loads(line)
    assert result["checkpoint"] == str(path)
    assert result["loss"] == pytest.approx(entry["test_loss"], rel=1e-9)
    assert result["accuracy"] == entry["test_accuracy"]
    assert sum(map(sum, result["confusion"])) == 50
    assert sum(result["confusion"][digit][digit] for digit in range(10)) / 50 == result["accuracy"]


@pytest.mark.parametrize("content", [b"", b"no checkpoint"])
def test_a_file_that_is_no_checkpoint_is_named(tmp_path, start, content):
    (tmp_path / "x.pt").write_bytes(content)
    process = start("--evaluate", tmp_path / "x.pt", code=1)
    assert process.stderr.startswith(f"error: {tmp_path / 'x.pt'}: is damaged")


def draw_seven(path):
    image = Image.new("L", (200, 300), 255)
    ImageDraw.Draw(image).line([(60, 80), (140, 80), (100, 220)], fill=0, width=14, joint="curve")
    image.save(path)
    return path


@pytest.mark.parametrize("command", ["--evaluate", "--predict"])
def test_under_torchrun_only_the_first_process_tells(start, tmp_path, monkeypatch, command):
    if command == "--evaluate":
        path = ROOT / "results/report/lenet5.pt"
    else:
        path = draw_seven(tmp_path / "photo.png")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    told = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        told.append(start(command, path).stdout)
    assert told[0]
    assert not told[1]


def test_the_lines_of_readme_read_a_digit_from_python(tmp_path):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall("```python\n(.*?)```", readme, re.DOTALL)
    [block] = [block for block in blocks if "read_digit" in block]
    names = {}
    exec(block.replace("photo.png", str(draw_seven(tmp_path / "photo.png"))), names)
    assert names["probabilities"].shape == (1, 10)
    assert names["probabilities"].argmax() == 7
