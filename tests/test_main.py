"""The loop: its numbers and its steps; a run: what it trains on, what it prints and leaves."""

import io
import math
import os
import subprocess
import sys
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import (
    ROOT,
    LeNet5InFloat64,
    make_digits,
    make_members,
    metrics_of,
    write_data,
    write_folder,
)
from PIL import Image
from torch import nn
from torch.nn.functional import cross_entropy

import main
from dataset import AUGMENTATIONS, MNIST, data_loader, find_split
from model import CustomMLP, LeNet5
from support.checkpoint import load_model
from support.muon import Muon
from support.provenance import fingerprint
from support.settings import Settings

CPU = torch.device("cpu")


@pytest.fixture
def digits():
    """(float32 [210, 1, 28, 28], int64 [210]): batches of 64 leave a last one of 18."""
    images, labels = make_digits(210, seed=1)
    return torch.from_numpy(images).unsqueeze(1) / 255, torch.from_numpy(labels)


def batches_of(digits, size):
    return list(zip(*(part.split(size) for part in digits), strict=True))


def model_and_optimizer(network, lr):
    torch.manual_seed(0)
    model = network()
    return model, torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


# --- the loop ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [7, 64, 210, 1000])
def test_loss_and_accuracy_are_averages_over_samples_however_batched(digits, size):
    model, optimizer = model_and_optimizer(LeNet5InFloat64, lr=0.0)
    images, labels = digits
    with torch.no_grad():
        logits = model(images)
    loss = cross_entropy(logits, labels).item()
    accuracy = (logits.argmax(dim=1) == labels).double().mean().item()
    expected = pytest.approx((loss, accuracy), rel=1e-9)
    batches = batches_of(digits, size)
    assert main.test(model, batches, CPU, nn.CrossEntropyLoss()) == expected
    assert main.train(model, batches, CPU, nn.CrossEntropyLoss(), optimizer) == expected


def test_training_reports_the_logits_that_each_batch_was_trained_on(digits):
    model, optimizer = model_and_optimizer(LeNet5InFloat64, lr=0.1)
    reference, optimizer_too = model_and_optimizer(LeNet5InFloat64, lr=0.1)
    loss, accuracy = main.train(
        model, batches_of(digits, 64), CPU, nn.CrossEntropyLoss(), optimizer
    )
    losses, correct = 0.0, 0
    for images, labels in batches_of(digits, 64):
        logits = reference(images)
        losses += len(labels) * cross_entropy(logits, labels).item()
        correct += (logits.argmax(dim=1) == labels).sum().item()
        optimizer_too.zero_grad()
        cross_entropy(logits, labels).backward()
        optimizer_too.step()
    assert loss == pytest.approx(losses / 210, rel=1e-9)
    assert accuracy == pytest.approx(correct / 210)


def test_training_takes_the_steps_of_plain_sgd(digits):
    """With momentum, weight decay, a schedule, label smoothing, and an average of the weights."""
    torch.manual_seed(0)
    model, reference = LeNet5InFloat64(), LeNet5InFloat64()
    reference.load_state_dict(model.state_dict())
    optimizer = main.OPTIMIZERS["sgd"](
        model.parameters(), Settings(lr=0.07, momentum=0.9, weight_decay=0.05)
    )
    scheduler = main.make_scheduler(optimizer, "onecycle", steps=8)
    ema = main.make_ema(model, 0.7, CPU)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.2)
    for _ in range(2):
        main.train(model, batches_of(digits, 64), CPU, criterion, optimizer, scheduler, ema)

    weights = [parameter.detach() for parameter in reference.parameters()]
    velocities = [torch.zeros_like(weight) for weight in weights]
    averages = None
    rates = [0.035, 0.07, 0.06, 0.05, 0.04, 0.03, 0.02, 0.01]
    for rate, (images, labels) in zip(rates, 2 * batches_of(digits, 64), strict=True):
        loss = cross_entropy(reference(images), labels, label_smoothing=0.2)
        gradients = torch.autograd.grad(loss, list(reference.parameters()))
        for weight, velocity, gradient in zip(weights, velocities, gradients, strict=True):
            velocity.mul_(0.9).add_(gradient + 0.05 * weight)
            weight.sub_(rate * velocity)
        averages = [
            0.7 * average + 0.3 * weight
            for average, weight in zip(averages or weights, weights, strict=True)
        ]
    torch.testing.assert_close([*map(torch.detach, model.parameters())], weights)
    torch.testing.assert_close([*map(torch.detach, ema.module.parameters())], averages)


def test_testing_changes_nothing(digits):
    model = nn.Sequential(LeNet5(), nn.BatchNorm1d(10))  # which changes in training mode
    before = {name: value.clone() for name, value in model.state_dict().items()}
    main.test(model, batches_of(digits, 64), CPU, nn.CrossEntropyLoss())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_testing_keeps_nothing_for_a_backward_pass(digits):
    model, _ = model_and_optimizer(LeNet5, lr=0.1)
    logits, labels = main.compute_logits(model, batches_of(digits, 64), CPU)
    assert not logits.requires_grad
    assert torch.equal(labels, digits[1])


def test_train_and_test_set_the_mode_of_layers_such_as_dropout(digits):
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(784, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    criterion = nn.CrossEntropyLoss()
    model.eval()
    main.train(model, batches_of(digits, 64), CPU, criterion, optimizer)
    assert model.training
    results = [main.test(model, batches_of(digits, 64), CPU, criterion) for _ in range(2)]
    assert not model.training
    assert results[0] == results[1]


@pytest.mark.parametrize("network", [LeNet5, CustomMLP])
@pytest.mark.parametrize(("optimizer", "epochs"), [("sgd", 13), ("muon", 5)])
def test_each_network_learns_with_each_optimizer(digits, network, optimizer, epochs):
    torch.manual_seed(0)
    model = network()
    optimizer = main.OPTIMIZERS[optimizer](model.parameters(), Settings(lr=0.02))
    criterion = nn.CrossEntropyLoss()
    for _ in range(epochs):
        main.train(model, batches_of(digits, 16), CPU, criterion, optimizer)
    loss, accuracy = main.test(model, batches_of(digits, 64), CPU, criterion)
    assert accuracy > 0.95
    assert loss < 0.3 * math.log(10)


def test_a_users_own_model_and_data_set_work(digits):
    class Doubled(torch.utils.data.Dataset):
        def __len__(self):
            return 50

        def __getitem__(self, indices):
            return 2 * digits[0][indices], digits[1][indices]

    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loader = data_loader(Doubled(), batch_size=16, shuffle=True)
    loss, accuracy = main.train(model, loader, CPU, nn.CrossEntropyLoss(), optimizer)
    assert loss > 0
    assert 0 <= accuracy <= 1


@pytest.mark.cuda
def test_cuda_agrees_with_cpu(digits):
    results = []
    for device in (CPU, torch.device("cuda")):
        torch.manual_seed(0)
        model = LeNet5().to(device)
        optimizer = main.OPTIMIZERS["sgd"](model.parameters(), Settings(lr=0.01))
        criterion = nn.CrossEntropyLoss()
        main.train(model, batches_of(digits, 64), device, criterion, optimizer)
        results.append(main.test(model, batches_of(digits, 64), device, criterion))
    assert results[1] == pytest.approx(results[0], rel=1e-3)


# --- the parts of a run -----------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("muon", Muon)])
def test_the_optimizer_trains_every_parameter_with_the_settings_it_is_given(name, kind):
    model = LeNet5()
    optimizer = main.OPTIMIZERS[name](
        model.parameters(), Settings(lr=0.3, momentum=0.8, weight_decay=0.02)
    )
    assert type(optimizer) is kind
    [group] = optimizer.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.3, 0.8, 0.02)
    assert [id(one) for one in group["params"]] == [id(one) for one in model.parameters()]
    if name == "sgd":  # the plain one
        assert (group["dampening"], group["nesterov"], group["maximize"]) == (0, False, False)


def rates_of(schedule, steps, lr=1.0):
    """The learning rate of each step."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = main.make_scheduler(optimizer, schedule, steps)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("steps", "rates"),
    [
        (1, [1]),
        (2, [1, 1 / 2]),
        (3, [1, 2 / 3, 1 / 3]),
        (7, [1 / 2, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]),
    ],
)
def test_onecycle_raises_the_learning_rate_and_lowers_it_to_zero(steps, rates):
    assert rates_of("onecycle", steps) == pytest.approx(rates)


def test_onecycle_is_two_lines_with_the_peak_after_a_fifth_of_the_steps():
    for steps in range(1, 60):
        peak = math.ceil(steps / 5) - 1
        expected = np.interp(range(steps), [-1, peak, steps], [0, 0.05, 0])
        assert rates_of("onecycle", steps, lr=0.05) == pytest.approx(expected)


def test_a_constant_schedule_leaves_the_learning_rate_alone():
    assert rates_of("constant", 5, lr=0.05) == [0.05] * 5


def test_a_schedule_is_only_asked_for_the_steps_of_the_run(monkeypatch):
    """A list of factors is a schedule; NumPy's numbers become plain ones."""
    monkeypatch.setitem(
        main.SCHEDULES, "listed", lambda step, steps: np.linspace(1, 2, steps)[step]
    )
    rates = rates_of("listed", 3)
    assert rates == [1, 1.5, 2]
    assert {type(rate) for rate in rates} == {float}


# --- what a run trains on ---------------------------------------------------------------------


@pytest.fixture
def epochs_of(start, monkeypatch, without_plots):
    """Starts a run; returns, of each of its epochs, what `train` was given, the learning rate of
    each step, and the weights after it."""
    train = main.train

    def epochs_of(*arguments, **options):
        epochs = []

        def watched_train(model, loader, device, criterion, optimizer, scheduler=None, ema=None):
            batches, rates, weights = list(loader), [], []
            epochs.append(
                SimpleNamespace(
                    model=model, batches=batches, optimizer=optimizer, rates=rates, weights=weights
                )
            )
            hooks = [
                optimizer.register_step_pre_hook(
                    lambda *_: rates.append(optimizer.param_groups[0]["lr"])
                ),
                optimizer.register_step_post_hook(
                    lambda *_: weights.append(model.fc3.weight.detach().clone())
                ),
            ]
            numbers = train(model, batches, device, criterion, optimizer, scheduler, ema)
            for hook in hooks:
                hook.remove()
            return numbers

        with monkeypatch.context() as patch:
            patch.setattr(main, "train", watched_train)
            start(*arguments, **options)
        return epochs

    return epochs_of


def indices_of(batches, images):
    """Which of the normalized `images` a run saw, batch by batch; None: one that was changed."""
    known = {image.numpy().tobytes(): index for index, image in enumerate(images)}
    assert len(known) == len(images)
    return [[known.get(image.numpy().tobytes()) for image in batch] for batch, _ in batches]


@pytest.fixture
def trn_set(data_dir):
    return MNIST(data_dir / "train.tar")


def order_of(epoch, trn_set):
    """The indices of an epoch's batches, each image with its own label."""
    images, labels = trn_set[range(len(trn_set))]
    batches = indices_of(epoch.batches, images)
    for indices, (_, given) in zip(batches, epoch.batches, strict=True):
        assert torch.equal(given, labels[indices])
    return batches


def test_each_epoch_sees_every_image_once_in_a_new_order(epochs_of, trn_set):
    epochs = epochs_of("--epochs", 3, "--batch-size", 64)
    orders = [order_of(epoch, trn_set) for epoch in epochs]
    for order in orders:
        assert [len(batch) for batch in order] == [64, 64, 64, 8]
        assert sorted(chain.from_iterable(order)) == list(range(200))
    firsts = [frozenset(order[0]) for order in orders]
    assert len({*firsts, frozenset(range(64))}) == 4, "images change their batches, too"


def test_the_seed_alone_decides_on_the_order_of_the_images(epochs_of, trn_set):
    def orders(*arguments):
        epochs = epochs_of("--epochs", 2, "--batch-size", 64, *arguments)
        return [order_of(epoch, trn_set) for epoch in epochs]

    first = orders("--seed", 1)
    assert orders("--seed", 1, "--dropout", 0.5) == first
    assert orders("--seed", 2) != first


def test_the_seed_alone_decides_on_the_weights_at_the_start(epochs_of):
    def weights(*arguments):
        [epoch] = epochs_of("--epochs", 1, "--lr", "1e-12", *arguments)
        return epoch.weights[0]

    first = weights("--seed", 1)
    torch.testing.assert_close(weights("--seed", 1, "--batch-size", 50, "--augment"), first)
    assert not torch.isclose(weights("--seed", 2), first).any()


@pytest.mark.parametrize(
    ("arguments", "augmented"),
    [
        ([], [False, False, False]),
        (["--augment"], [True, True, True]),
        (["--augment", "--no-aug-epochs", 1], [True, True, False]),
        (["--augment", "--no-aug-epochs", 2], [True, False, False]),
        (["--augment", "--no-aug-epochs", 3], [False, False, False]),
    ],
)
def test_training_images_are_augmented_but_for_the_last_epochs(
    epochs_of, trn_set, arguments, augmented
):
    images, _ = trn_set[range(200)]
    epochs = epochs_of("--epochs", 3, "--batch-size", 64, *arguments)
    for epoch, changed in zip(epochs, augmented, strict=True):
        indices = [*chain.from_iterable(indices_of(epoch.batches, images))]
        assert (set(indices) == {None}) if changed else (sorted(indices) == list(range(200)))
        assert len(indices) == 200


def test_every_batch_of_every_epoch_is_augmented_by_draws_of_its_own(epochs_of, monkeypatch):
    monkeypatch.setitem(AUGMENTATIONS, "gray", lambda images: 0 * images + torch.rand(()))
    epochs = epochs_of("--epochs", 3, "--batch-size", 64, "--augment", "gray")
    draws = [images.unique().item() for epoch in epochs for images, _ in epoch.batches]
    assert len(set(draws)) == 12


@pytest.mark.parametrize("arguments", [[], ["--validation", 40]])
def test_what_is_tested_is_never_augmented(start, monkeypatch, data_dir, trn_set, arguments):
    test, tested = main.test, []

    def watched_test(model, loader, *others):
        tested.extend(loader)
        return test(model, loader, *others)

    monkeypatch.setattr(main, "test", watched_test)
    start("--epochs", 1, "--augment", *arguments)
    images, labels = (torch.cat(parts) for parts in zip(*tested, strict=True))
    if arguments:
        [order] = indices_of([(images, labels)], trn_set[range(200)][0])
        assert len(set(order)) == 40
        assert torch.equal(labels, trn_set.labels[order])
    else:
        expected, expected_labels = MNIST(data_dir / "test.tar")[range(50)]
        assert torch.equal(images, expected)
        assert torch.equal(labels, expected_labels)


def test_the_schedule_goes_on_from_step_to_step_through_all_epochs(epochs_of, results):
    arguments = ["--epochs", 2, "--batch-size", 64, "--lr", 0.07]
    first, second = epochs_of(*arguments, "--schedule", "onecycle")
    assert first.rates == pytest.approx([0.035, 0.07, 0.06, 0.05])
    assert second.rates == pytest.approx([0.04, 0.03, 0.02, 0.01])
    lrs = [entry["lr"] for entry in metrics_of(results)["history"]]
    assert lrs == pytest.approx([0.04, 0.01])  # of the next step, if there is one
    first, second = epochs_of(*arguments, "--schedule", "constant")
    assert first.rates == second.rates == [0.07] * 4


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("muon", Muon)])
def test_the_command_line_sets_optimizer_and_dropout(epochs_of, name, kind):
    [epoch] = epochs_of(
        *("--epochs", 1, "--schedule", "constant", "--optimizer", name, "--lr", 0.03),
        *("--momentum", 0.7, "--weight-decay", 0.004, "--dropout", 0.3),
    )
    assert type(epoch.optimizer) is kind
    [group] = epoch.optimizer.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.03, 0.7, 0.004)
    assert epoch.model.dropout.p == 0.3


def test_label_smoothing_is_for_the_training_loss_only(
    start, results, data_dir, trn_set, in_float64
):
    start("--epochs", 1, "--label-smoothing", 0.2, "--lr", "1e-12")  # weights as they were made
    [entry] = metrics_of(results)["history"]
    model = load_model(results / "checkpoints/lenet5.pt")
    images, labels = MNIST(data_dir / "test.tar")[range(50)]
    plain = cross_entropy(model(images), labels).item()
    assert entry["test_loss"] == pytest.approx(plain, rel=1e-9)
    images, labels = trn_set[range(200)]
    smoothed = cross_entropy(model(images), labels, label_smoothing=0.2).item()
    assert entry["train_loss"] == pytest.approx(smoothed, rel=1e-9)


def test_with_ema_the_average_of_the_weights_after_each_step_is_kept(
    epochs_of, results, in_float64
):
    epochs = epochs_of("--epochs", 2, "--batch-size", 64, "--ema", 0.8, "--lr", 0.1)
    first, *others = [weights for epoch in epochs for weights in epoch.weights]
    expected = first
    for weights in others:
        expected = 0.8 * expected + 0.2 * weights
    averaged = load_model(results / "checkpoints/lenet5.pt").fc3.weight.detach()
    torch.testing.assert_close(averaged, expected)
    checkpoint = torch.load(results / "checkpoints/lenet5.pt", weights_only=True)
    assert torch.equal(checkpoint["weights"]["fc3.weight"], others[-1])


@pytest.mark.parametrize("ema", [0, 0.9])
def test_the_network_that_was_tested_is_saved_and_returned(
    data_dir, tmp_path, without_plots, in_float64, ema
):
    settings = Settings(
        epochs=3,
        batch_size=32,
        lr=0.1,
        ema=ema,
        name="mine",
        data_dir=data_dir,
        results_dir=tmp_path,
    )
    trained, metrics = main.run(settings, CPU, *main.load_sets(settings))
    images, labels = MNIST(data_dir / "test.tar")[range(50)]
    entry = metrics["history"][-1]
    for model in (trained.eval(), load_model(tmp_path / "checkpoints/mine.pt")):
        logits = model(images)
        assert entry["test_loss"] == pytest.approx(cross_entropy(logits, labels).item(), rel=1e-9)
        accuracy = (logits.argmax(dim=1) == labels).double().mean().item()
        assert entry["test_accuracy"] == pytest.approx(accuracy)


def test_validation_images_come_from_the_training_set(start, data_dir, tmp_path):
    other = write_data(tmp_path / "other", test=10)  # another test set: it must not matter
    arguments = ["--epochs", 1, "--validation", 40]
    here, there = (
        start(*arguments, data=folder, results=tmp_path / name)
        for folder, name in ((data_dir, "a"), (other, "b"))
    )
    assert "160 training and 40 validation images" in here.stdout
    assert "160 training and 40 validation images" in there.stdout
    [a], [b] = (metrics_of(tmp_path / name)["history"] for name in "ab")
    assert {**a, "seconds": 0} == {**b, "seconds": 0}
    assert "val_loss" in a


def test_with_validation_the_training_images_are_enough(start, data_dir):
    (data_dir / "test.tar").unlink()
    assert "40 validation images" in start("--epochs", 1, "--validation", 40).stdout


def test_a_validation_set_that_leaves_nothing_to_train_on_is_refused(start):
    process = start("--validation", 200, code=1)
    assert process.stderr.startswith("error: --validation 200: ")
    assert "200 training images" in process.stderr


@pytest.mark.parametrize("name", ["train", "test"])
@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_run_without_a_trace(
    start, monkeypatch, results, name, loss
):
    original = getattr(main, name)

    def broken(*arguments):
        return loss, original(*arguments)[1]

    monkeypatch.setattr(main, name, broken)
    process = start("--epochs", 2, code=1)
    assert process.stderr == f"error: the loss became {loss} in epoch 1; lower --lr\n"
    assert files_in(results) == []


# --- what a run prints and leaves -------------------------------------------------------------


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def files_of(name):
    return [f"checkpoints/{name}.pt", f"metrics/{name}.json", f"plots/{name}.png"]


@pytest.mark.parametrize("model", ["lenet5", "mlp"])
def test_a_run_leaves_checkpoint_metrics_and_plot_and_names_them(start, results, model):
    process = start("--model", model, "--epochs", 2)
    assert files_in(results) == files_of(model)
    assert process.stdout.splitlines()[3:] == [str(results / name) for name in files_of(model)]
    with Image.open(results / f"plots/{model}.png") as image:
        assert image.format == "PNG"
        assert min(image.size) > 500


@pytest.mark.parametrize(
    ("model", "title"), [("lenet5", "LeNet-5, 61,706"), ("mlp", "MLP, 62,170")]
)
def test_a_run_tells_what_it_trains_and_one_line_for_each_epoch(
    start, results, without_plots, model, title
):
    process = start("--model", model, "--epochs", 10, "--batch-size", 200)
    assert process.stderr == ""
    first, *lines = process.stdout.splitlines()[:11]
    assert first.startswith(f"{title} parameters, on cpu (1 thread): ")
    assert first.endswith(": 200 training and 50 test images")
    for line, entry in zip(lines, metrics_of(results, model)["history"], strict=True):
        assert line == (
            f"epoch {entry['epoch']:2}/10"
            f"  train loss {entry['train_loss']:.4f}, accuracy {entry['train_accuracy']:.2%}"
            f"  test loss {entry['test_loss']:.4f}, accuracy {entry['test_accuracy']:.2%}"
            f"  {entry['seconds']:.1f} s"
        )


def test_metrics_say_what_was_run_where_and_what_came_of_it(start, results, without_plots):
    start("--model", "mlp", "--epochs", 2, "--seed", 7)
    metrics = metrics_of(results, "mlp")
    assert metrics["parameters"] == 62_170
    assert metrics["device"] == "cpu (1 thread)"
    assert metrics["versions"]["torch"] == torch.__version__
    config = metrics["config"]
    assert (config["model"], config["epochs"], config["seed"]) == ("mlp", 2, 7)
    checkpoint = torch.load(results / "checkpoints/mlp.pt", weights_only=True)
    assert metrics["history"] == checkpoint["history"]
    assert [entry["epoch"] for entry in metrics["history"]] == [1, 2]
    quantities = ["train_loss", "train_accuracy", "test_loss", "test_accuracy"]
    for entry in metrics["history"]:
        assert list(entry) == ["epoch", *quantities, "seconds", "lr"]


def test_metrics_tell_the_code_the_processor_and_the_data(
    start, results, data_dir, trn_set, without_plots
):
    start("--epochs", 1)
    metrics = metrics_of(results)
    assert metrics["processor"].endswith(f" ({torch.backends.cpu.get_cpu_capability()})")
    tst_set = MNIST(data_dir / "test.tar")
    assert metrics["data"] == {"training": fingerprint(trn_set), "test": fingerprint(tst_set)}
    if (ROOT / ".git").exists():
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, encoding="utf-8"
        )
        assert metrics["commit"].removesuffix("-dirty") == head.stdout.strip()


def test_the_same_seed_gives_the_same_bits_in_another_process(start, tmp_path, without_plots):
    outcomes = {}
    for name, seed in (("here", 3), ("there", 3), ("other", 4)):
        results = tmp_path / name
        arguments = ["--threads", 1, "--epochs", 2, "--seed", seed, "--augment", "--dropout", 0.1]
        start(*arguments, results=results, process=name == "there")
        weights = torch.load(results / "checkpoints/lenet5.pt", weights_only=True)["weights"]
        history = metrics_of(results)["history"]
        outcomes[name] = weights, [{**entry, "seconds": 0} for entry in history]
    (weights, history), (weights_there, history_there), (weights_of_other, _) = outcomes.values()
    assert history == history_there
    assert all(torch.equal(weights[name], weights_there[name]) for name in weights)
    assert not any(torch.equal(weights[name], weights_of_other[name]) for name in weights)


def test_results_are_up_to_date_after_every_epoch(start, results, monkeypatch):
    train = main.train

    def interrupted(*arguments):
        if (results / "metrics/lenet5.json").exists():
            assert files_in(results) == ["checkpoints/lenet5.lock", *files_of("lenet5")]
            if len(metrics_of(results)["history"]) == 2:
                raise KeyboardInterrupt
        return train(*arguments)

    monkeypatch.setattr(main, "train", interrupted)
    start("--epochs", 5, code=130)
    assert torch.load(results / "checkpoints/lenet5.pt", weights_only=True)["epoch"] == 2


def test_a_data_set_of_extracted_folders_trains(start, tmp_path, results, without_plots):
    folder = tmp_path / "folders"
    for split, count in (("train", 100), ("test", 30)):
        write_folder(folder, make_members(*make_digits(count, seed=0), split))
    process = start("--epochs", 1, data=folder)
    assert "100 training and 30 test images" in process.stdout
    assert len(metrics_of(results)["history"]) == 1


def test_a_run_starts_in_any_working_folder(start, data_dir, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    start("--epochs", 1, data=os.path.relpath(data_dir), results="results")
    assert len(files_in(elsewhere / "results")) == 3


def test_the_number_of_threads_can_be_chosen(start, without_plots):
    threads = torch.get_num_threads()
    try:
        assert "on cpu (2 threads): " in start("--epochs", 1, "--threads", 2).stdout
    finally:
        torch.set_num_threads(threads)


@pytest.mark.skipif(
    sys.getfilesystemencoding() == "ascii", reason="--name refuses what no file here can be called"
)
def test_a_name_that_standard_output_cannot_encode_does_not_stop_a_run(
    start, results, monkeypatch, without_plots
):
    stdout = io.TextIOWrapper(io.BytesIO(), "cp1252")  # as where it is piped on Windows
    monkeypatch.setattr(sys, "stdout", stdout)
    start("--epochs", 1, "--name", "七")
    assert b"\\u4e03.pt" in stdout.buffer.getvalue()
    assert (results / "checkpoints/七.pt").exists()


@pytest.mark.slow
def test_one_epoch_of_lenet5_reads_97_percent_of_mnist(start, results):
    data = find_split("train")
    start("--model", "lenet5", "--epochs", 1, data=data.parent)
    [entry] = metrics_of(results)["history"]
    assert entry["test_accuracy"] > 0.97
    assert entry["train_accuracy"] > 0.75  # a running mean, with a learning rate that starts low
