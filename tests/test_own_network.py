"""A network, an optimizer, a schedule, an augmentation of one's own, in a file of one's own."""

import json
import os

import pytest
import torch
from helpers import ROOT, assert_one_line, metrics_of
from PIL import Image
from torch import nn

import main
from dataset import AUGMENTATIONS, MNIST
from model import MODELS
from support.checkpoint import load_checkpoint, load_model
from support.checks import check_parts

ELSEWHERE = {**os.environ, "PYTHONPATH": str(ROOT)}  # a script elsewhere finds this project
MINE = """
from torch import nn

from main import main
from model import MODELS


class MyNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 5)
        self.norm = nn.BatchNorm2d(4)
        self.out = nn.Linear(4 * 24 * 24, 10)

    def forward(self, images):
        x = self.norm(self.conv(images)).relu()
        return self.out(x.view(len(x), -1))


MODELS["mynet"] = MyNet
main()
"""


class Own(nn.Module):
    """Without batch norm, with `.view`, which wants the usual order in memory."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 5)
        self.out = nn.Linear(4 * 24 * 24, 10)

    def forward(self, images):
        x = self.conv(images).relu()
        return self.out(x.view(len(x), -1))


class OwnWithBatchNorm(Own):
    def __init__(self):
        super().__init__()
        self.conv = nn.Sequential(self.conv, nn.BatchNorm2d(4))


class OwnWithDropout(Own):
    def __init__(self, dropout=0.3):
        super().__init__()
        self.conv = nn.Sequential(self.conv, nn.Dropout2d(dropout))


@pytest.fixture(params=[Own, OwnWithBatchNorm, OwnWithDropout])
def own(request, monkeypatch):
    monkeypatch.setitem(MODELS, "own", request.param)
    return request.param


def weights_of(results, name="own"):
    return load_checkpoint(results / f"checkpoints/{name}.pt")["weights"]


def test_it_trains_and_is_drawn_and_resumes_bit_for_bit(start, own, tmp_path, monkeypatch):
    train, epochs = main.train, []

    def dying(*arguments):
        epochs.append(1)
        if len(epochs) == 3:
            raise KeyboardInterrupt
        return train(*arguments)

    options = ["--model", "own", "--epochs", 3, "--batch-size", 64, "--ema", 0.9]
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    with monkeypatch.context() as patch:
        patch.setattr(main, "train", dying)
        start(*options, results=stopped, code=130)
    start(*options, "--resume", results=stopped)
    process = start(*options, results=whole)
    assert process.stdout.startswith("own, ")
    assert (whole / "plots/own.png").exists()
    for name, weights in weights_of(whole).items():
        assert torch.equal(weights, weights_of(stopped)[name]), name


@pytest.mark.parametrize("ema", [0, 0.9])
def test_evaluation_gives_the_numbers_that_were_printed(start, own, results, ema):
    start("--model", "own", "--epochs", 2, "--batch-size", 64, "--ema", ema)
    last = metrics_of(results, "own")["history"][-1]
    process = start("--evaluate", results / "checkpoints/own.pt", "--json")
    result = json.loads(process.stdout)
    assert result["loss"] == pytest.approx(last["test_loss"], rel=1e-5)
    assert result["accuracy"] == last["test_accuracy"]


@pytest.mark.parametrize(("options", "expected"), [(["--dropout", 0.25], 0.25), ([], 0.3)])
def test_dropout_is_passed_only_if_it_is_named(start, monkeypatch, options, expected):
    given = []
    monkeypatch.setitem(MODELS, "own", lambda dropout=0.3: given.append(dropout) or Own())
    start("--model", "own", "--epochs", 1, *options)
    assert given[0] == expected


def test_dropout_is_refused_for_a_network_that_takes_none(start, monkeypatch):
    monkeypatch.setitem(MODELS, "own", Own)
    process = start("--model", "own", "--epochs", 1, "--dropout", 0.25, code=1)
    assert process.stderr == (
        "error: cannot make own: Own.__init__() got an unexpected keyword argument 'dropout'; "
        "leave out --dropout\n"
    )


def test_a_changed_network_is_named_with_torchs_reason(start, monkeypatch, results):
    monkeypatch.setitem(MODELS, "own", Own)
    start("--model", "own", "--epochs", 1)
    monkeypatch.setitem(MODELS, "own", OwnWithBatchNorm)
    for command in (
        ["--resume", "--model", "own", "--epochs", 1],
        ["--evaluate", results / "checkpoints/own.pt"],
    ):
        process = start(*command, code=1)
        [line] = process.stderr.splitlines()
        path = results / "checkpoints/own.pt"
        assert line.startswith(f"error: {path}: does not fit own as it is now (")
        assert 'Missing key(s) in state_dict: "conv.0.weight"' in line


def test_every_choice_that_is_registered_is_shown_and_used(start, monkeypatch, results, trained_by):
    monkeypatch.setitem(MODELS, "own", Own)
    adagrad = lambda parameters, s: torch.optim.Adagrad(parameters, s.lr)  # noqa: E731
    monkeypatch.setitem(main.OPTIMIZERS, "adagrad", adagrad)
    monkeypatch.setitem(main.SCHEDULES, "thirds", lambda step, steps: 1 - step // 2 / 3)
    monkeypatch.setitem(AUGMENTATIONS, "dark", lambda images: 0 * images - 0.5)
    shown = start("--help").stdout
    for name in ("own", "adagrad", "thirds", "dark"):
        assert name in shown
    start(
        *("--model", "own", "--optimizer", "adagrad", "--schedule", "thirds", "--augment", "dark"),
        *("--epochs", 3, "--lr", 0.3, "--batch-size", 100),
    )
    config = metrics_of(results, "own")["config"]
    assert [config[name] for name in ("model", "optimizer", "schedule", "augment")] == [
        *("own", "adagrad", "thirds", "dark")
    ]
    optimizer, rates, images = trained_by
    assert isinstance(optimizer[0], torch.optim.Adagrad)
    assert rates == pytest.approx([0.3, 0.3, 0.2, 0.2, 0.1, 0.1])
    assert torch.equal(torch.cat(images), torch.full((600, 1, 28, 28), -0.5))


class NeedsArguments(Own):
    def __init__(self, width):
        super().__init__()


class ReturnsATuple(Own):
    def forward(self, images):
        return super().forward(images), None


class FewOutputs(Own):
    def forward(self, images):
        return super().forward(images)[:, :7]


class ManyOutputs(Own):
    def forward(self, images):
        return super().forward(images).repeat(1, 2)


@pytest.mark.parametrize(
    ("network", "parts"),
    [
        (NeedsArguments, ["cannot make own", "'width'"]),
        (ReturnsATuple, ["own returns tuple"]),
        (FewOutputs, ["own returns [2, 7]", "logits, [2, 10]"]),
        (ManyOutputs, ["own returns [2, 20]"]),
    ],
)
def test_a_network_that_cannot_classify_digits_is_refused_before_it_trains(
    start, monkeypatch, results, network, parts
):
    monkeypatch.setitem(MODELS, "own", network)
    assert_one_line(start("--model", "own", code=1), *parts)
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
    lbfgs = lambda parameters, s: torch.optim.LBFGS(parameters, s.lr)  # noqa: E731
    monkeypatch.setitem(main.OPTIMIZERS, "lbfgs", lbfgs)
    assert_one_line(start("--optimizer", "lbfgs", code=1), "LBFGS needs a closure")


def test_what_is_checked_before_the_first_epoch_leaves_no_trace():
    class Counting(nn.Module):
        """Draws, and changes a buffer, whenever it is used."""

        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))
            self.layer = nn.Linear(784, 10)

        def forward(self, images):
            self.calls += torch.rand(1)
            return self.layer(images.flatten(1))

    model = Counting()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trn_set = MNIST((torch.zeros(5, 1, 28, 28, dtype=torch.uint8), torch.zeros(5).long()))
    before = torch.get_rng_state()
    check_parts(model, optimizer, trn_set, "deform", "counting", torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), before)
    assert model.calls == 0
    assert model.training


@pytest.fixture
def trained_by(monkeypatch):
    """What runs train with: optimizers, the learning rate of each step, the batches of images."""
    optimizers, rates, seen = [], [], []
    train = main.train

    def watched_train(model, loader, device, criterion, optimizer, scheduler, ema):
        optimizers.append(optimizer)
        batches = list(loader)
        seen.extend(images for images, _ in batches)
        hook = optimizer.register_step_pre_hook(
            lambda *_: rates.append(optimizer.param_groups[0]["lr"])
        )
        numbers = train(model, batches, device, criterion, optimizer, scheduler, ema)
        hook.remove()
        return numbers

    monkeypatch.setattr(main, "train", watched_train)
    return optimizers, rates, seen


def test_a_file_of_ones_own_trains_elsewhere_and_predicts(start, tmp_path, results, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.py").write_text(MINE, encoding="utf-8")
    process = start("--model", "mynet", "--epochs", 1, script=elsewhere / "mine.py", env=ELSEWHERE)
    assert "mynet, 23,162 parameters" in process.stdout
    Image.new("L", (28, 28)).save(tmp_path / "empty.png")
    process = start(
        *("--predict", tmp_path / "empty.png", "--checkpoint", results / "checkpoints/mynet.pt"),
        script=elsewhere / "mine.py",
        env=ELSEWHERE,
        code=1,
    )
    assert "no digit stands out" in process.stderr
    process = start("--evaluate", results / "checkpoints/mynet.pt", code=1)
    assert "holds a network called mynet, which is not in MODELS; use the script" in process.stderr


def test_printed_numbers_of_several_processes_are_those_of_evaluation(
    start, tmp_path, data_dir, results, monkeypatch
):
    """With batch norm, whose statistics differ between processes, and averaged weights."""
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    start(
        *("--model", "mynet", "--epochs", 3, "--batch-size", 50, "--ema", 0.9),
        script=tmp_path / "mine.py",
        env=ELSEWHERE,
        processes=2,
    )
    last = metrics_of(results, "mynet")["history"][-1]
    namespace = {}
    exec(MINE.split("MODELS[")[0], namespace)
    monkeypatch.setitem(MODELS, "mynet", namespace["MyNet"])
    model = load_model(results / "checkpoints/mynet.pt")
    images, labels = MNIST(data_dir / "test.tar")[:]
    with torch.no_grad():
        loss = nn.functional.cross_entropy(model(images), labels).item()
    assert last["test_loss"] == pytest.approx(loss, rel=1e-4)
