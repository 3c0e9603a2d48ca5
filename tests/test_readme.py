"""README's Python runs as it stands there; its numbers are those of the records, and its log and
settings are those of main.py.

PYTHONPATH=tests python -m tests.test_readme    trains LeNet-5; its log and plot become README's
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import pytest
import torch
from helpers import ROOT, make_digits
from PIL import Image

import dataset
import main
from model import MODELS
from support.report import tables
from support.report.plan import FRESH_ROWS, QUESTIONS, SEEDS, planned_runs
from support.report.records import accuracies, final_values, load_records
from support.report.regularization import effects_of
from support.settings import Settings

README = (ROOT / "README.md").read_text(encoding="utf-8")
LOG = re.compile("```text\n(.*?)\n```", re.DOTALL)
HYPHEN = "\N{NON-BREAKING HYPHEN}"
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


def test_an_optimizer_a_schedule_and_an_augmentation_of_ones_own_train(here, start):
    run_block('OPTIMIZERS["adam"]')
    try:
        start("--optimizer", "adam", "--schedule", "cosine", "--augment", "noise", "--epochs", 1)
    finally:
        del main.OPTIMIZERS["adam"], main.SCHEDULES["cosine"], dataset.AUGMENTATIONS["noise"]


def test_the_photograph_shown_is_read_as_shown(start):
    photo = "results/report/photo.png"
    shown = re.search(rf"^    ({photo}: .*)$", README, re.MULTILINE)[1]
    assert f"python main.py --predict {photo}" in README
    told = start("--predict", ROOT / photo).stdout.strip()
    assert told.replace(f"{ROOT}/", "") == shown


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
    run_block("optimizer = torch.optim.Adam")
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


def test_the_loop_shown_is_mains():
    source = " ".join((ROOT / "main.py").read_text(encoding="utf-8").split())
    assert " ".join(block_with("for images, labels in trn_loader:").split()) in source


def test_the_settings_shown_are_those_of_main():
    table = README[README.index("| setting |") :].split("\n\n")[0].replace(HYPHEN, "-")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    for column, settings in ((1, Settings()), (2, Settings(regularize=True))):
        shown = {row[0]: row[column] for row in rows[2:]}
        augmented = "none"
        if settings.augment:
            augmented = f"all epochs but the last {settings.no_aug_epochs}"
        weight_decay = f"{settings.weight_decay:.0e}".replace("e-0", "e-")
        assert shown == {
            "epochs": str(settings.epochs),
            "batch size": str(settings.batch_size),
            "optimizer": f"{settings.optimizer.upper()}, momentum {settings.momentum}",
            "peak learning rate": str(settings.lr),
            "schedule": {"onecycle": "one-cycle"}[settings.schedule],
            "augmentation": augmented,
            "weight decay": weight_decay if settings.weight_decay else "none",
            "dropout, label smoothing, averaged weights": "none",
        }
        assert not any((settings.dropout, settings.label_smoothing, settings.ema))


# --- the numbers in its sentences -------------------------------------------------------------

# A number in README is written by hand. Each sentence that has one stands here, one a line, with
# the number's name in `quoted_numbers` in its place.
SENTENCES = """
    standard deviation over {seeds} seeds
    test loss rises from {mlp_lowest_loss:.3f} in epoch {mlp_lowest_epoch} to {mlp_loss:.3f}, while
    LeNet-5, by {lenet5_minus_mlp_size:.2f} percentage points (over seeds: {lenet5_minus_mlp_range};
    a difference of {known_points} points (over test images: {known_range}), all
    ours is {known_size:.2f} points higher (over test images: {known_range}).
    with weight decay adds {recipe_minus_lenet5_long_size:.2f} points (over seeds:
    over seeds: {recipe_minus_lenet5_long_range}) after the same 100
    augmentation adds {augment:.2f} points, label smoothing {label_smoothing:.2f} and
    and weight decay {weight_decay:.2f}; dropout
    is shown to help ({augment_with_the_others:.2f}).
    both after 100 epochs: {mlp_recipe_accuracy:.2f}% and {lenet5_long_accuracy:.2f}%,
    of {mlp_recipe_minus_lenet5_long_points} points (over seeds:
    over seeds: {mlp_recipe_minus_lenet5_long_range}). We had
    vary, too ({mlp_recipe_over_images}), it
    means over {seeds} seeds:
    by {lenet5_gap:.2f} points for LeNet-5 and {mlp_gap:.2f} for the MLP
    LeNet-5's test loss has risen to {lenet5_long_loss:.3f}
    LeNet-5 makes {lenet5_errors:.0f} errors in 10,000, the MLP {mlp_errors:.0f}**
    a difference of {lenet5_minus_mlp} points
    after 3, 4, 5, 6, 7, 12, 13, 16 and {seeds} of
    reads {lenet5_accuracy:.2f}% of MNIST's test digits correctly; regularized,
    on one CPU core, {recipe_accuracy:.2f}%.
    published one**: {lenet5_accuracy:.2f}% against 99.05%
    augmentation adds {augment_interval} points
    label smoothing {label_smoothing_interval}, weight decay {weight_decay_interval}.
    was chosen. There it gains {recipe_minus_lenet5_long} points
    without it: {recipe_errors:.0f} errors in 10,000 instead of {lenet5_long_errors:.0f}.
    from {lenet5_long_gap:.2f} to {recipe_gap:.2f} points
    no measurable gain: {lenet5_long_minus_lenet5} points
    {hard_images} images cause {hard_share} of the
    seed 0, {shown_accuracy:.2f}% on the test set
"""


@pytest.fixture(scope="module")
def committed():
    """The committed records, by row."""
    return load_records(ROOT / "results" / "report", planned_runs(SEEDS))


def quoted_numbers(records):
    """The numbers that README's sentences quote, by name, as the records give them."""
    mlp, long, reached = (
        tables.fresh(records, row) for row in ("mlp", "lenet5-long", "mlp-recipe")
    )
    losses = np.mean([[entry["test_loss"] for entry in run["history"]] for run in mlp], axis=0)
    over_images = tables.difference_over_images(reached, long, tests=len(QUESTIONS))
    half = tables.hard_images_table(records).splitlines()[3].split(" | ")
    [shown, *_] = records["recipe"]
    made = {
        "seeds": len(mlp),
        "mlp_lowest_loss": losses.min(),
        "mlp_lowest_epoch": 1 + losses.argmin(),
        "mlp_loss": losses[-1],
        "lenet5_long_loss": final_values(long, "loss").mean(),
        "mlp_recipe_over_images": tables.interval(*over_images),
        "hard_images": half[1],
        "hard_share": half[2],
        "shown_accuracy": accuracies([shown])[0],
        "shown_errors": len(shown["misclassified"]),
    }
    differences = {"known": tables.known_gap(records)}
    for question in QUESTIONS:
        pair = f"{question.first}_minus_{question.second}"
        differences[pair] = tables.difference(records, question)
    for name, values in differences.items():
        made[name] = tables.with_interval(*values)
        made[f"{name}_points"] = tables.signed(values[0])
        made[f"{name}_size"] = abs(values[0])
        made[f"{name}_range"] = tables.interval(*values)
    for row in FRESH_ROWS:
        test = accuracies(tables.fresh(records, row))
        made[f"{row}_accuracy"] = test.mean()
        made[f"{row}_errors"] = 100 * (100 - test).mean()
        made[f"{row}_gap"] = (accuracies(tables.fresh(records, row), "train") - test).mean()
    for effect in effects_of(records):
        name = effect["name"] + ("" if effect["context"] == "alone" else "_with_the_others")
        made[name] = effect["difference"]
        made[f"{name}_interval"] = tables.with_interval(effect["difference"], effect["half_width"])
    return {name.replace("-", "_"): number for name, number in made.items()}


def out_of_date(text, sentences, numbers):
    """What to change in a text: each sentence that it lacks, and what stands in its place."""
    text = " ".join(text.split())
    changes = []
    for sentence in filter(None, map(str.strip, sentences.splitlines())):
        expected = " ".join(sentence.format(**numbers).split())
        if expected not in text:
            parts = (re.escape(part) for part in re.split(r"\{.*?\}", sentence))
            found = re.search(".{1,60}?".join(parts), text)
            said = f"says {found[0]!r}" if found else "has no such sentence (reworded?)"
            changes.append(f"README {said}; by the records: {expected!r}")
    return changes


def test_every_number_in_a_sentence_is_that_of_the_committed_records(committed):
    changes = out_of_date(README, SENTENCES, quoted_numbers(committed))
    assert not changes, "\n" + "\n".join(changes)


def test_every_sentence_that_is_out_of_date_is_named_with_the_number_of_today():
    sentences = "\n a loss of {loss:.2f} here \n {seeds} seeds \n gone {seeds} \n"
    text = "a loss\nof 0.24 here, in 3 seeds"
    assert out_of_date(text, sentences, {"loss": 0.251, "seeds": 3}) == [
        "README says 'a loss of 0.24 here'; by the records: 'a loss of 0.25 here'",
        "README has no such sentence (reworded?); by the records: 'gone 3'",
    ]


def test_only_tables_stand_between_markers():
    for table in re.findall(r"<!-- (?!end).*? -->\n(.*?)\n<!-- end", README, re.DOTALL):
        assert all(line.startswith("|") for line in table.splitlines()), table
    assert README.count("<!--") == 2 * len(re.findall("<!-- end", README))


# --- the log of Quick start -------------------------------------------------------------------


def shown_lines(stdout):
    """The first lines of a run of 20 epochs, its last, and its files, as README shows them."""
    title, *epochs, checkpoint, metrics, plot = stdout.splitlines()
    assert len(epochs) == 20
    return [title, *epochs[:2], "...", epochs[-1], checkpoint, metrics, plot]


@pytest.mark.slow
def test_the_log_shown_is_that_of_a_default_run(start, tmp_path):
    """Another processor, or another number of threads, gives other digits, but not by much."""
    shown = LOG.search(README)[1].splitlines()
    data = dataset.find_split("train").parent
    stdout = start("--model", "lenet5", data=data).stdout
    printed = shown_lines(stdout.replace(str(tmp_path / "results"), "results"))
    numbers = re.compile(r"\d+\.\d+|\d+ threads?")
    assert [numbers.sub("", line) for line in printed] == [numbers.sub("", line) for line in shown]
    for line, expected in zip(printed, shown, strict=True):
        for quantity, tolerance in (
            (r"loss ([\d.]+)", {"rel": 0.4, "abs": 0.0005}),
            (r"accuracy ([\d.]+)", {"abs": 0.4 if "20/20" in line else 6}),
        ):
            values, others = (map(float, re.findall(quantity, text)) for text in (line, expected))
            assert list(values) == pytest.approx(list(others), **tolerance), line


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as results:
        command = [sys.executable, "main.py", "--model", "lenet5", "--results-dir", results]
        run = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, encoding="utf-8", check=True
        )
        shutil.copy(f"{results}/plots/lenet5.png", ROOT / "results/report/run.png")
    lines = shown_lines(run.stdout.replace(results, "results"))
    log = "```text\n" + "\n".join(lines) + "\n```"
    (ROOT / "README.md").write_text(LOG.sub(lambda _: log, README), encoding="utf-8")
