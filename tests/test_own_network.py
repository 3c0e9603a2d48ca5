"""A network, an optimizer, a schedule, an augmentation of one's own, in a file of one's own."""

import json
import runpy
import sys

import pytest
import torch
from helpers import MINE, assert_one_line, in_epoch, metrics_of
from PIL import Image
from torch import nn

import main
from dataset import AUGMENTATIONS
from model import MODELS
from support.checkpoint import load_checkpoint

pytestmark = pytest.mark.usefixtures("without_plots")


class Own(nn.Module):
    """Without batch norm, with `.view`, which wants the usual order in memory."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 5)
        self.out = nn.Linear(4 * 24 * 24, 10)

    def forward(self, images):
        x = self.conv(images).relu()
        return self.out(x.view(len(x), -1))


def own_with_batch_norm():
    return nn.Sequential(Own(), nn.BatchNorm1d(10))


@pytest.mark.parametrize(
    ("network", "ema"), [(Own, 0.9), (own_with_batch_norm, 0), (own_with_batch_norm, 0.9)]
)
def test_it_trains_and_is_drawn_resumes_to_the_same_bits_and_is_evaluated(
    start, tmp_path, results, monkeypatch, network, ema
):
    monkeypatch.setitem(MODELS, "own", network)
    options = ["--model", "own", "--epochs", 3, "--batch-size", 64, "--ema", ema]
    with monkeypatch.context() as patch:
        in_epoch(patch, 3, KeyboardInterrupt)
        start(*options, results=tmp_path / "stopped", code=130)
    start(*options, "--resume", results=tmp_path / "stopped")
    assert start(*options).stdout.startswith("own, ")
    assert (results / "plots/own.png").read_text(encoding="utf-8").startswith("own: test accuracy")
    stopped, whole = (
        load_checkpoint(folder / "checkpoints/own.pt") for folder in (tmp_path / "stopped", results)
    )
    for name, weights in whole["weights"].items():
        assert torch.equal(weights, stopped["weights"][name]), name

    last = metrics_of(results, "own")["history"][-1]
    result = json.loads(start("--evaluate", results / "checkpoints/own.pt", "--json").stdout)
    assert result["loss"] == pytest.approx(last["test_loss"], rel=1e-5)
    assert result["accuracy"] == last["test_accuracy"]


@pytest.mark.parametrize(
    ("options", "expected"), [(["--dropout", 0.25], 0.25), (["--dropout", 0], 0), ([], 0.3)]
)
def test_dropout_is_passed_only_if_it_is_named(epochs_of, monkeypatch, options, expected):
    def with_dropout(dropout=0.3):
        return nn.Sequential(Own(), nn.Dropout(dropout))

    monkeypatch.setitem(MODELS, "own", with_dropout)
    [epoch] = epochs_of("--model", "own", "--epochs", 1, *options)
    assert epoch.model[1].p == expected


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (Own, ["--dropout", 0.25], "unexpected keyword argument 'dropout'; leave out --dropout"),
        (lambda width: Own(), [], "argument: 'width'; give its arguments defaults"),
    ],
)
def test_a_network_that_needs_other_arguments_is_refused(
    start, monkeypatch, network, options, message
):
    monkeypatch.setitem(MODELS, "own", network)
    process = start("--model", "own", "--epochs", 1, *options, code=1)
    assert_one_line(process, "error: cannot make own: ", message)


def test_a_changed_network_is_named_with_torchs_reason(start, monkeypatch, results):
    monkeypatch.setitem(MODELS, "own", Own)
    start("--model", "own", "--epochs", 1)
    monkeypatch.setitem(MODELS, "own", own_with_batch_norm)
    path = results / "checkpoints/own.pt"
    for command in (["--resume", "--model", "own", "--epochs", 1], ["--evaluate", path]):
        assert_one_line(
            start(*command, code=1),
            f"error: {path}: does not fit own as it is now (",
            'Missing key(s) in state_dict: "0.conv.weight"',
        )


def test_every_choice_that_is_registered_is_shown_and_used(start, epochs_of, monkeypatch, results):
    monkeypatch.setitem(MODELS, "own", Own)
    monkeypatch.setitem(main.OPTIMIZERS, "adagrad", lambda w, s: torch.optim.Adagrad(w, s.lr))
    monkeypatch.setitem(main.SCHEDULES, "thirds", lambda step, steps: 1 - step // 2 / 3)
    monkeypatch.setitem(AUGMENTATIONS, "dark", lambda images: 0 * images - 0.5)
    chosen = {"model": "own", "optimizer": "adagrad", "schedule": "thirds", "augment": "dark"}
    shown = start("--help").stdout
    assert all(name in shown for name in chosen.values())
    epochs = epochs_of(
        *(part for option, name in chosen.items() for part in (f"--{option}", name)),
        *("--epochs", 3, "--lr", 0.3, "--batch-size", 100),
    )
    config = metrics_of(results, "own")["config"]
    assert {option: config[option] for option in chosen} == chosen
    assert isinstance(epochs[0].optimizer, torch.optim.Adagrad)
    assert [epoch.rates for epoch in epochs] == [
        pytest.approx(rates) for rates in ([0.3, 0.3], [0.2, 0.2], [0.1, 0.1])
    ]
    images = torch.cat([images for epoch in epochs for images, _ in epoch.batches])
    assert torch.equal(images, torch.full((600, 1, 28, 28), -0.5))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda logits: (logits, None), "own returns tuple"),
        (lambda logits: logits[:, :7], "own returns [2, 7] for two images; it must return logits"),
        (lambda logits: logits.repeat(1, 2), "own returns [2, 20]"),
    ],
)
def test_a_network_that_does_not_return_ten_logits_is_refused_before_it_trains(
    start, monkeypatch, results, change, part
):
    class Odd(Own):
        def forward(self, images):
            return change(super().forward(images))

    monkeypatch.setitem(MODELS, "own", Odd)
    assert_one_line(start("--model", "own", code=1), part)
    assert not list(results.rglob("*.pt"))


@pytest.mark.parametrize(
    ("augmentation", "form"),
    [
        (lambda images: images[:, :, 1:], "[2, 1, 27, 28], torch.float32"),
        (lambda images: images.double(), "[2, 1, 28, 28], torch.float64"),
    ],
)
def test_an_augmentation_that_changes_the_form_of_images_is_refused(
    start, monkeypatch, augmentation, form
):
    monkeypatch.setitem(AUGMENTATIONS, "odd", augmentation)
    assert_one_line(start("--augment", "odd", code=1), f"--augment odd makes {form}")


def test_an_optimizer_that_needs_a_closure_is_refused(start, monkeypatch):
    monkeypatch.setitem(main.OPTIMIZERS, "lbfgs", lambda w, s: torch.optim.LBFGS(w, s.lr))
    assert_one_line(start("--optimizer", "lbfgs", code=1), "LBFGS needs a closure")


def test_what_is_checked_before_the_first_epoch_leaves_no_trace(start, monkeypatch):
    class Counting(nn.Module):
        """Draws, and changes a buffer, whenever it is used."""

        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))
            self.layer = nn.Linear(784, 10)

        def forward(self, images):
            self.calls += torch.rand(1)
            return self.layer(images.flatten(1))

    def stop(model, *_):
        found.update(model.state_dict(), random=torch.get_rng_state())
        raise KeyboardInterrupt

    found = {}
    monkeypatch.setitem(MODELS, "own", Counting)
    monkeypatch.setattr(main, "train", stop)
    start("--model", "own", "--augment", "--seed", 3, code=130)
    torch.manual_seed(3)
    expected = Counting().state_dict() | {"random": torch.get_rng_state()}
    torch.testing.assert_close(found, dict(expected), rtol=0, atol=0)


def test_a_file_of_ones_own_trains_evaluates_and_predicts(
    start, run_here, tmp_path, data_dir, results, monkeypatch
):
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    Image.new("L", (28, 28)).save(tmp_path / "empty.png")
    checkpoint = results / "checkpoints/mynet.pt"

    def mine(*arguments):
        """As `python mine.py ARGUMENTS` in another folder, but in this process."""
        folders = ["--data-dir", data_dir, "--results-dir", results, "--device", "cpu"]
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["mine.py", *map(str, [*folders, *arguments])])
            patch.setitem(MODELS, "mynet", None)  # so that it is as before
            return run_here(lambda: runpy.run_path(str(tmp_path / "mine.py"), run_name="__main__"))

    assert "mynet, 23,162 parameters" in mine("--model", "mynet", "--epochs", 1).stdout
    assert "on 50 test images" in mine("--evaluate", checkpoint).stdout
    process = mine("--predict", tmp_path / "empty.png", "--checkpoint", checkpoint)
    assert "no digit stands out" in process.stderr
    process = start("--evaluate", checkpoint, code=1)
    assert "holds a network called mynet, which is not in MODELS; use the script" in process.stderr
