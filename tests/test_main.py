"""The loop: its numbers and its steps; a run: what it trains on, what it prints and leaves."""

import math
import os
import threading
import time
from itertools import chain

import numpy as np
import pytest
import torch
from helpers import LeNet5InFloat64, in_epoch, make_digits, metrics_of
from PIL import Image
from torch import nn
from torch.nn.functional import cross_entropy

import main
from dataset import AUGMENTATIONS, MNIST, data_loader, find_split
from model import CustomMLP, LeNet5
from support.checkpoint import load_checkpoint, load_model
from support.errors import RunError
from support.muon import Muon
from support.provenance import code_commit, fingerprint, package_versions, processor_name
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


def loss_and_accuracy_of(model, images, labels, **smoothing):
    with torch.no_grad():
        logits = model(images)
    accuracy = (logits.argmax(dim=1) == labels).double().mean().item()
    return cross_entropy(logits, labels, **smoothing).item(), accuracy


# --- the loop ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [7, 64, 210, 1000])
def test_loss_and_accuracy_are_averages_over_samples_however_batched(digits, size):
    model, optimizer = model_and_optimizer(LeNet5InFloat64, lr=0.0)
    expected = pytest.approx(loss_and_accuracy_of(model, *digits), rel=1e-9)
    batches = batches_of(digits, size)
    assert main.test(model, batches, CPU, nn.CrossEntropyLoss()) == expected
    assert main.train(model, batches, CPU, nn.CrossEntropyLoss(), optimizer) == expected


def test_training_reports_the_logits_that_each_batch_was_trained_on(digits):
    model, optimizer = model_and_optimizer(LeNet5InFloat64, lr=0.1)
    reference, optimizer_too = model_and_optimizer(LeNet5InFloat64, lr=0.1)
    batches, criterion = batches_of(digits, 64), nn.CrossEntropyLoss()
    results = main.train(model, batches, CPU, criterion, optimizer)
    expected = np.zeros(2)
    for batch in batches:
        loss_and_accuracy = np.array(main.test(reference, [batch], CPU, criterion))
        expected += len(batch[1]) / 210 * loss_and_accuracy
        main.train(reference, [batch], CPU, criterion, optimizer_too)
    assert results == pytest.approx(expected, rel=1e-9)


def test_training_takes_the_steps_of_plain_sgd(epochs_of, results, in_float64):
    """With momentum, weight decay, a schedule, label smoothing, and an average of the weights."""
    epochs = epochs_of(
        *("--epochs", 2, "--batch-size", 64, "--lr", 0.07, "--momentum", 0.9),
        *("--weight-decay", 0.05, "--label-smoothing", 0.2, "--ema", 0.7),
    )
    model = LeNet5InFloat64()
    weights = list(model.parameters())
    averages = None
    with torch.no_grad():
        for weight, start in zip(weights, epochs[0].weights_before, strict=True):
            weight.copy_(start)
    velocities = [torch.zeros_like(weight) for weight in weights]
    rates = [0.035, 0.07, 0.06, 0.05, 0.04, 0.03, 0.02, 0.01]
    for rate, (images, labels) in zip(rates, epochs[0].batches + epochs[1].batches, strict=True):
        loss = cross_entropy(model(images), labels, label_smoothing=0.2)
        gradients = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            for weight, velocity, gradient in zip(weights, velocities, gradients, strict=True):
                velocity.mul_(0.9).add_(gradient + 0.05 * weight)
                weight.sub_(rate * velocity)
        averages = [  # which start as the weights after the first step
            0.7 * average + 0.3 * weight.detach()
            for average, weight in zip(averages or epochs[0].weights[0], weights, strict=True)
        ]
    saved = load_checkpoint(results / "checkpoints/lenet5.pt")["weights"]
    torch.testing.assert_close([*saved.values()], [weight.detach() for weight in weights])
    averaged = load_model(results / "checkpoints/lenet5.pt")
    torch.testing.assert_close([weight.detach() for weight in averaged.parameters()], averages)


def test_training_and_testing_set_their_mode_and_testing_changes_nothing(digits):
    model = nn.Sequential(LeNet5(dropout=0.5), nn.BatchNorm1d(10))  # which training mode changes
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    criterion = nn.CrossEntropyLoss()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    kept = []  # for a backward pass
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda tensor: tensor):
        results = [main.test(model, batches_of(digits, 64), CPU, criterion) for _ in range(2)]
    assert results[0] == results[1]
    assert kept == []
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    main.train(model, batches_of(digits, 64), CPU, criterion, optimizer)
    assert all(module.training for module in model.modules())
    main.test(model, batches_of(digits, 64), CPU, criterion)
    assert not any(module.training for module in model.modules())


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
    assert main.train(model, loader, CPU, nn.CrossEntropyLoss(), optimizer)[0] > 0


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


# --- what a run trains on ---------------------------------------------------------------------


def indices_of(batches, images):
    """Which of the normalized `images` a run saw, batch by batch; None: one that was changed."""
    known = {image.numpy().tobytes(): index for index, image in enumerate(images)}
    assert len(known) == len(images)
    return [[known.get(image.numpy().tobytes()) for image in batch] for batch, _ in batches]


@pytest.fixture
def sets(data_dir):
    return MNIST(data_dir / "train.tar"), MNIST(data_dir / "test.tar")


def order_of(epoch, trn_set):
    """The indices of an epoch's batches, each image with its own label."""
    images, labels = trn_set[:]
    batches = indices_of(epoch.batches, images)
    for indices, (_, given) in zip(batches, epoch.batches, strict=True):
        assert torch.equal(given, labels[indices])
    return batches


def test_each_epoch_sees_every_image_once_in_a_new_order(epochs_of, sets):
    epochs = epochs_of("--epochs", 3, "--batch-size", 64)
    orders = [order_of(epoch, sets[0]) for epoch in epochs]
    for order in orders:
        assert [len(batch) for batch in order] == [64, 64, 64, 8]
        assert sorted(chain.from_iterable(order)) == list(range(200))
    firsts = [frozenset(order[0]) for order in orders]
    assert len({*firsts, frozenset(range(64))}) == 4, "images change their batches, too"


def test_the_seed_alone_decides_on_the_weights_at_the_start_and_the_order_of_the_images(
    epochs_of, sets
):
    def start_of(*arguments):
        epochs = epochs_of("--epochs", 2, "--batch-size", 64, *arguments)
        return epochs[0].weights_before, [order_of(epoch, sets[0]) for epoch in epochs]

    weights, order = start_of("--seed", 1)
    weights_too, order_too = start_of("--seed", 1, "--dropout", 0.5, "--lr", 0.01, "--ema", 0.9)
    assert order_too == order
    torch.testing.assert_close(weights_too, weights, rtol=0, atol=0)
    other_weights, other_order = start_of("--seed", 2)
    assert other_order != order
    for weight, other in zip(weights, other_weights, strict=True):
        assert not torch.equal(weight, other)


@pytest.mark.parametrize(
    ("arguments", "augmented"),
    [
        ([], [False, False, False]),
        (["--augment", "gray"], [True, True, True]),
        (["--augment", "gray", "--no-aug-epochs", 1], [True, True, False]),
        (["--augment", "gray", "--no-aug-epochs", 3], [False, False, False]),
    ],
)
def test_every_batch_is_augmented_by_draws_of_its_own_but_for_the_last_epochs(
    epochs_of, sets, monkeypatch, arguments, augmented
):
    monkeypatch.setitem(AUGMENTATIONS, "gray", lambda images: 0 * images + torch.rand(()))
    draws = []
    for epoch, changed in zip(epochs_of("--epochs", 3, *arguments), augmented, strict=True):
        if changed:
            draws += [images.unique().item() for images, _ in epoch.batches]
        else:
            assert sorted(chain.from_iterable(order_of(epoch, sets[0]))) == list(range(200))
        assert sum(len(labels) for _, labels in epoch.batches) == 200
    assert len(set(draws)) == 2 * sum(augmented)  # of 128 images, and of 72


def test_a_training_set_keeps_its_own_transform_which_no_augmentation_replaces(
    epochs_of, sets, results
):
    sets[0].transform = torch.neg
    epochs = epochs_of(Settings(epochs=2, results_dir=results), "cpu", *sets, run=main.run)
    sets[0].transform = None
    images, _ = sets[0][:]
    for epoch in epochs:
        indices = chain.from_iterable(indices_of([(-x, y) for x, y in epoch.batches], images))
        assert sorted(indices) == list(range(200))
    sets[0].transform = torch.neg
    with pytest.raises(RunError, match="--augment deform would replace the training set's own"):
        main.run(Settings(augment="deform", results_dir=results), "cpu", *sets)


@pytest.mark.parametrize("arguments", [[], ["--validation", 40]])
def test_what_is_tested_is_never_augmented(start, monkeypatch, sets, arguments):
    test, tested = main.test, []

    def watched_test(model, loader, *others):
        tested.extend(loader)
        return test(model, loader, *others)

    monkeypatch.setattr(main, "test", watched_test)
    start("--epochs", 1, "--augment", *arguments)
    images, labels = (torch.cat(parts) for parts in zip(*tested, strict=True))
    if arguments:
        [order] = indices_of([(images, labels)], sets[0][:][0])
        assert len(set(order)) == 40
        assert torch.equal(labels, sets[0].labels[order])
    else:
        assert torch.equal(images, sets[1][:][0])
        assert torch.equal(labels, sets[1].labels)


def test_onecycle_is_two_lines_with_the_peak_after_a_fifth_of_the_steps():
    for steps in range(1, 60):
        expected = np.interp(range(steps), [-1, math.ceil(steps / 5) - 1, steps], [0, 1, 0])
        rates = [main.SCHEDULES["onecycle"](step, steps) for step in range(steps)]
        assert rates == pytest.approx(expected)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("onecycle", [0.035, 0.07, 0.06, 0.05, 0.04, 0.03, 0.02, 0.01]),
        ("constant", [0.07] * 8),
        ("of NumPy", 0.07 * np.arange(1, 9)),
    ],
)
def test_the_schedule_goes_on_from_step_to_step_through_all_epochs(
    epochs_of, results, monkeypatch, schedule, expected
):
    # Is asked for no other step, and gives no plain numbers, as a checkpoint demands.
    monkeypatch.setitem(
        main.SCHEDULES, "of NumPy", lambda step, steps: np.arange(1, steps + 1)[step]
    )
    arguments = ["--epochs", 2, "--batch-size", 64, "--lr", 0.07, "--schedule", schedule]
    first, second = epochs_of(*arguments)
    assert first.rates + second.rates == pytest.approx(expected)
    lrs = [entry["lr"] for entry in metrics_of(results)["history"]]
    assert lrs == pytest.approx([expected[4], expected[7]])  # of the next step, if there is one
    assert load_checkpoint(results / "checkpoints/lenet5.pt")["epoch"] == 2


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("muon", Muon)])
def test_the_command_line_sets_optimizer_and_dropout(epochs_of, name, kind):
    [epoch] = epochs_of(
        *("--epochs", 1, "--schedule", "constant", "--optimizer", name, "--lr", 0.03),
        *("--momentum", 0.7, "--weight-decay", 0.004, "--dropout", 0.3),
    )
    assert type(epoch.optimizer) is kind
    [group] = epoch.optimizer.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.03, 0.7, 0.004)
    assert [*map(id, group["params"])] == [*map(id, epoch.model.parameters())]
    assert epoch.model.dropout.p == 0.3


@pytest.mark.parametrize("ema", [0, 0.9])
def test_the_network_that_was_tested_is_saved_and_returned(
    sets, tmp_path, without_plots, in_float64, ema
):
    options = {"epochs": 3, "batch_size": 32, "lr": 0.1, "ema": ema, "label_smoothing": 0.2}
    settings = Settings(**options, name="mine", results_dir=tmp_path)
    trained, metrics = main.run(settings, "cpu", *sets)
    assert metrics == metrics_of(tmp_path, "mine")
    entry = metrics["history"][-1]
    for model in (trained, load_model(tmp_path / "checkpoints/mine.pt")):
        assert not any(module.training for module in model.modules())
        # Smoothing is for the training loss only.
        expected = pytest.approx(loss_and_accuracy_of(model, *sets[1][:]), rel=1e-9)
        assert (entry["test_loss"], entry["test_accuracy"]) == expected


def test_with_validation_the_training_images_are_enough(start, data_dir, results):
    (data_dir / "test.tar").unlink()
    process = start("--epochs", 1, "--validation", 40)
    assert "160 training and 40 validation images" in process.stdout
    assert metrics_of(results)["history"][0]["val_loss"] > 0


def test_a_validation_set_that_leaves_nothing_to_train_on_is_refused(start):
    process = start("--validation", 200, code=1)
    assert process.stderr.startswith("error: --validation 200: ")
    assert "200 training images" in process.stderr


@pytest.mark.parametrize(("name", "loss"), [("train", math.nan), ("test", math.inf)])
def test_a_loss_that_is_no_number_ends_the_run_without_a_trace(
    start, monkeypatch, results, name, loss
):
    monkeypatch.setattr(main, name, lambda *_: (loss, 0.5))
    process = start("--epochs", 2, code=1)
    assert process.stderr == f"error: the loss became {loss} in epoch 1; lower --lr\n"
    assert files_in(results) == []


def test_a_full_gpu_is_one_line(start, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee ...")

    monkeypatch.setattr(main, "train", full)
    [line] = start(code=1).stderr.splitlines()
    assert line.startswith("error: the GPU's memory is full; lower --batch-size")


# --- what a run prints and leaves -------------------------------------------------------------


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def files_of(name):
    return [f"checkpoints/{name}.pt", f"metrics/{name}.json", f"plots/{name}.png"]


@pytest.mark.parametrize(
    ("model", "title", "epochs"), [("lenet5", "LeNet-5, 61,706", 2), ("mlp", "MLP, 62,170", 10)]
)
def test_a_run_tells_what_it_trains_a_line_for_each_epoch_and_its_files(
    start, results, model, title, epochs
):
    process = start("--model", model, "--epochs", epochs, "--batch-size", 200)
    assert process.stderr == ""
    first, *lines = process.stdout.splitlines()
    assert first.startswith(f"{title} parameters, on cpu (1 thread): ")
    assert first.endswith(": 200 training and 50 test images")
    for line, entry in zip(lines[:epochs], metrics_of(results, model)["history"], strict=True):
        assert line == (
            f"epoch {entry['epoch']:{len(str(epochs))}}/{epochs}"
            f"  train loss {entry['train_loss']:.4f}, accuracy {entry['train_accuracy']:.2%}"
            f"  test loss {entry['test_loss']:.4f}, accuracy {entry['test_accuracy']:.2%}"
            f"  {entry['seconds']:.1f} s"
        )
    assert lines[epochs:] == [str(results / name) for name in files_of(model)]
    assert files_in(results) == files_of(model)
    with Image.open(results / f"plots/{model}.png") as image:
        assert image.format == "PNG"
        assert min(image.size) > 500


def test_metrics_say_what_was_run_where_on_what_and_what_came_of_it(
    start, results, sets, without_plots
):
    start("--model", "mlp", "--epochs", 2, "--seed", 7)
    metrics = metrics_of(results, "mlp")
    assert metrics["parameters"] == 62_170
    assert metrics["device"] == "cpu (1 thread)"
    assert metrics["processor"] == processor_name()
    assert metrics["versions"] == package_versions()
    assert metrics["commit"] == code_commit()
    assert metrics["data"] == {"training": fingerprint(sets[0]), "test": fingerprint(sets[1])}
    config = metrics["config"]
    assert (config["model"], config["epochs"], config["seed"]) == ("mlp", 2, 7)
    assert metrics["history"] == load_checkpoint(results / "checkpoints/mlp.pt")["history"]
    assert [entry["epoch"] for entry in metrics["history"]] == [1, 2]
    quantities = {"train_loss", "train_accuracy", "test_loss", "test_accuracy"}
    assert metrics["history"][1].keys() == {"epoch", *quantities, "seconds", "lr"}


def test_the_seconds_of_an_epoch_are_those_of_training_and_testing(start, results, monkeypatch):
    now = [0.0]

    def lasting(seconds, function):
        def slow(*arguments):
            now[0] += seconds
            return function(*arguments)

        return slow

    with monkeypatch.context() as patch:
        patch.setattr(time, "perf_counter", lambda: now[0])
        patch.setattr(main, "train", lasting(20, main.train))
        patch.setattr(main, "test", lasting(3, main.test))
        start("--epochs", 2)
    assert [entry["seconds"] for entry in metrics_of(results)["history"]] == [23, 23]


def test_results_are_up_to_date_after_every_epoch(start, results, monkeypatch):
    def look():
        assert files_in(results) == ["checkpoints/lenet5.lock", *files_of("lenet5")]
        assert len(metrics_of(results)["history"]) == 2
        raise KeyboardInterrupt

    in_epoch(monkeypatch, 3, look)
    start("--epochs", 5, code=130)
    assert load_checkpoint(results / "checkpoints/lenet5.pt")["epoch"] == 2


def test_a_run_starts_in_any_working_folder(start, data_dir, tmp_path, monkeypatch, without_plots):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    start("--epochs", 1, data=os.path.relpath(data_dir), results="results")
    assert len(files_in(elsewhere / "results")) == 3


def test_the_program_runs_in_a_thread(start, results, without_plots):
    thread = threading.Thread(target=start, args=["--epochs", 1])
    thread.start()
    thread.join()
    assert files_in(results) == files_of("lenet5")


def test_the_number_of_threads_can_be_chosen(start, without_plots):
    threads = torch.get_num_threads()
    try:
        assert "on cpu (2 threads): " in start("--epochs", 1, "--threads", 2).stdout
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
def test_one_epoch_of_lenet5_reads_97_percent_of_mnist(start, results):
    data = find_split("train")
    start("--model", "lenet5", "--epochs", 1, data=data.parent)
    [entry] = metrics_of(results)["history"]
    assert entry["test_accuracy"] > 0.97
    assert entry["train_accuracy"] > 0.75  # a running mean, with a learning rate that starts low
