"""The loop: what it returns and changes; a run: what it prints and leaves, and that it repeats."""

import io
import os
import sys

import pytest
import torch
from helpers import (
    make_digits,
    make_members,
    metrics_of,
    run_here,
    run_main,
    write_data,
    write_folder,
)
from PIL import Image
from torch import nn

import main
from dataset import MNIST, data_loader
from model import CustomMLP, LeNet5
from support.checkpoint import make_ema
from support.muon import Muon

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


def average(model, digits):
    """Loss and accuracy over all samples at once: what any batching must come to."""
    images, labels = digits
    with torch.no_grad():
        logits = model(images)
    hits = (logits.argmax(dim=1) == labels).double()
    return nn.functional.cross_entropy(logits, labels).item(), hits.mean().item()


@pytest.mark.parametrize("size", [1, 64, 210, 1000])
def test_averages_are_per_sample_however_batched(digits, size):
    model, optimizer = model_and_optimizer(LeNet5, lr=0.0)
    expected = pytest.approx(average(model, digits), rel=1e-5)
    batches = batches_of(digits, size)
    assert main.test(model, batches, CPU, nn.CrossEntropyLoss()) == expected
    assert main.train(model, batches, CPU, nn.CrossEntropyLoss(), optimizer) == expected


def test_test_changes_nothing(digits):
    model, _ = model_and_optimizer(LeNet5, lr=0.1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    main.test(model, batches_of(digits, 64), CPU, nn.CrossEntropyLoss())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_train_and_test_set_the_mode_of_layers_such_as_dropout(digits):
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(784, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    main.train(model, batches_of(digits, 64), CPU, nn.CrossEntropyLoss(), optimizer)
    assert model.training
    criterion = nn.CrossEntropyLoss()
    results = [main.test(model, batches_of(digits, 64), CPU, criterion) for _ in range(2)]
    assert not model.training
    assert results[0] == results[1]


@pytest.mark.parametrize("network", [LeNet5, CustomMLP])
@pytest.mark.parametrize("muon", [False, True])
def test_it_learns(digits, network, muon):
    model, optimizer = model_and_optimizer(network, lr=0.02)
    if muon:
        optimizer = Muon(model.parameters(), lr=0.02, momentum=0.9, weight_decay=0)
    criterion = nn.CrossEntropyLoss()
    losses = [
        main.train(model, batches_of(digits, 16), CPU, criterion, optimizer)[0] for _ in range(15)
    ]
    loss, accuracy = main.test(model, batches_of(digits, 64), CPU, criterion)
    assert accuracy > 0.95
    assert loss < 0.3 * losses[0]


def test_one_step_is_that_of_plain_pytorch(digits):
    batches = batches_of(digits, 64)[:1]
    model, optimizer = model_and_optimizer(LeNet5, lr=0.1)
    main.train(model, batches, CPU, nn.CrossEntropyLoss(), optimizer)
    reference, _ = model_and_optimizer(LeNet5, lr=0.1)
    images, labels = batches[0]
    nn.functional.cross_entropy(reference(images), labels).backward()
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs - 0.1 * theirs.grad)


def test_ema_is_the_moving_average_of_the_weights_after_each_step(digits):
    model, optimizer = model_and_optimizer(LeNet5, lr=0.1)
    ema = make_ema(model, 0.9)
    expected = None
    for batch in batches_of(digits, 64):
        main.train(model, [batch], CPU, nn.CrossEntropyLoss(), optimizer, ema=ema)
        weights = model.fc3.weight.detach().clone()
        expected = weights if expected is None else 0.9 * expected + 0.1 * weights
    torch.testing.assert_close(ema.module.fc3.weight.detach(), expected)


def test_a_users_own_model_and_data_set_work(digits):
    class Doubled(torch.utils.data.Dataset):
        def __len__(self):
            return 50

        def __getitem__(self, indices):
            return 2 * digits[0][indices], digits[1][indices]

    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loader = data_loader(Doubled(), batch_size=16, shuffle=True, seed=0)
    loss, accuracy = main.train(model, loader, CPU, nn.CrossEntropyLoss(), optimizer)
    assert loss > 0
    assert 0 <= accuracy <= 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_cpu(digits):
    results = []
    for device in (CPU, torch.device("cuda")):
        torch.manual_seed(0)
        model = LeNet5().to(device)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        criterion = nn.CrossEntropyLoss()
        main.train(model, batches_of(digits, 64), device, criterion, optimizer)
        results.append(main.test(model, batches_of(digits, 64), device, criterion))
    assert results[1] == pytest.approx(results[0], rel=1e-3)


# --- a run from the command line ---------------------------------------------------------------

HISTORY_KEYS = [
    "epoch",
    "train_loss",
    "train_accuracy",
    "test_loss",
    "test_accuracy",
    "seconds",
    "lr",
]


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(("model", "parameters"), [("lenet5", 61_706), ("mlp", 62_170)])
def test_a_run_leaves_checkpoint_metrics_and_plot(data_dir, tmp_path, main_here, model, parameters):
    results = tmp_path / "results"
    process = main_here(
        *("--model", model, "--epochs", 2, "--data-dir", data_dir, "--results-dir", results)
    )
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    assert [line[:9] for line in process.stdout.splitlines()[1:3]] == ["epoch 1/2", "epoch 2/2"]
    expected = [f"checkpoints/{model}.pt", f"metrics/{model}.json", f"plots/{model}.png"]
    assert files_in(results) == expected
    assert all(str(results / name) in process.stdout for name in expected)

    metrics = metrics_of(results, model)
    assert metrics["parameters"] == parameters
    assert metrics["device"].startswith(("cpu", "cuda", "mps"))
    assert metrics["versions"]["torch"] == torch.__version__
    assert metrics["config"]["model"] == model
    assert metrics["config"]["epochs"] == 2
    assert [entry["epoch"] for entry in metrics["history"]] == [1, 2]
    for entry in metrics["history"]:
        assert list(entry) == HISTORY_KEYS
        assert entry["lr"] == 0.01
        assert 0 <= entry["train_accuracy"] <= 1
        assert 0 <= entry["test_accuracy"] <= 1
    with Image.open(results / "plots" / f"{model}.png") as image:
        assert image.format == "PNG"
        assert min(image.size) > 500


def test_the_checkpoint_holds_the_model_that_was_tested(data_dir, tmp_path):
    run_here(data_dir, tmp_path, "--epochs", "3", "--name", "mine")
    checkpoint = torch.load(tmp_path / "checkpoints/mine.pt", weights_only=True)
    assert checkpoint["epoch"] == 3
    assert checkpoint["history"] == metrics_of(tmp_path, "mine")["history"]
    model = LeNet5()
    model.load_state_dict(checkpoint["weights"])
    loader = data_loader(MNIST(data_dir / "test"), 50, shuffle=False)
    loss, accuracy = main.test(model, loader, torch.device("cpu"), torch.nn.CrossEntropyLoss())
    assert loss == pytest.approx(checkpoint["history"][-1]["test_loss"], rel=1e-5)
    assert accuracy == checkpoint["history"][-1]["test_accuracy"]


def test_same_seed_same_bits(data_dir, tmp_path):
    outcomes = {}
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        results = tmp_path / name
        options = ["--device", "cpu", "--threads", "1", "--epochs", "2", "--seed", str(seed)]
        if name == "b":  # in a process of its own, as when somebody else runs it
            process = run_main(*options, "--data-dir", data_dir, "--results-dir", results)
            assert (process.returncode, process.stderr) == (0, "")
            assert len(process.stdout.splitlines()) == 6  # the title, two epochs, three files
        else:
            run_here(data_dir, results, *options)
        weights = torch.load(results / "checkpoints/lenet5.pt", weights_only=True)["weights"]
        history = metrics_of(results)["history"]
        for entry in history:
            del entry["seconds"]
        outcomes[name] = weights, history
    (weights_a, history_a), (weights_b, history_b), (weights_c, _) = outcomes.values()
    assert all(torch.equal(weights_a[name], weights_b[name]) for name in weights_a)
    assert history_a == history_b
    assert not any(torch.equal(weights_a[name], weights_c[name]) for name in weights_a)


def test_onecycle_raises_the_learning_rate_and_lowers_it_to_zero(data_dir, tmp_path):
    options = ["--schedule", "onecycle", "--lr", "0.1", "--epochs", "10", "--batch-size", "20"]
    run_here(data_dir, tmp_path, *options)
    rates = [entry["lr"] for entry in metrics_of(tmp_path)["history"]]
    assert max(rates) == pytest.approx(0.1, rel=0.1)
    assert rates.index(max(rates)) in (1, 2)
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[-1] == 0


@pytest.mark.parametrize(
    "technique",
    [
        *(["--augment"], ["--dropout", "0.3"], ["--weight-decay", "0.01"]),
        *(["--label-smoothing", "0.1"], ["--ema", "0.9"]),
    ],
)
def test_each_technique_changes_the_training(data_dir, tmp_path, technique):
    run_here(data_dir, tmp_path, "--epochs", "1")
    run_here(data_dir, tmp_path, "--epochs", "1", "--name", "regularized", *technique)
    plain, regularized = (metrics_of(tmp_path, name) for name in ("lenet5", "regularized"))
    assert regularized["history"][0]["test_loss"] != plain["history"][0]["test_loss"]
    assert regularized["parameters"] == plain["parameters"] == 61_706


def test_the_last_epochs_may_leave_images_as_they_are(data_dir, tmp_path):
    histories = {}
    for name, options in {
        "plain": [],
        "augment": ["--augment"],
        "all": ["--augment", "--no-aug-epochs", "2"],
        "last": ["--augment", "--no-aug-epochs", "1"],
    }.items():
        run_here(data_dir, tmp_path, "--epochs", "2", "--name", name, *options)
        histories[name] = [entry["train_loss"] for entry in metrics_of(tmp_path, name)["history"]]
    assert histories["all"] == histories["plain"]
    assert histories["last"][0] == histories["augment"][0]
    assert histories["last"][1] not in (histories["augment"][1], histories["plain"][1])


def test_label_smoothing_is_for_the_training_loss_only(data_dir, tmp_path):
    run_here(data_dir, tmp_path, "--epochs", "1", "--label-smoothing", "0.2", "--lr", "1e-12")
    [entry] = metrics_of(tmp_path)["history"]
    model_path = tmp_path / "checkpoints/lenet5.pt"
    model = LeNet5()
    model.load_state_dict(torch.load(model_path, weights_only=True)["weights"])
    images, labels = MNIST(data_dir / "test")[torch.arange(50)]
    plain = torch.nn.functional.cross_entropy(model(images), labels).item()
    assert entry["test_loss"] == pytest.approx(plain, rel=1e-5)


def test_with_ema_the_average_is_what_is_tested_and_kept(data_dir, tmp_path):
    run_here(data_dir, tmp_path, "--epochs", "2", "--ema", "0.9", "--lr", "0.1")
    checkpoint = torch.load(tmp_path / "checkpoints/lenet5.pt", weights_only=True)
    losses = {}
    for kind in ("weights", "ema"):
        model = LeNet5() if kind == "weights" else make_ema(LeNet5(), 0.9)
        model.load_state_dict(checkpoint[kind])
        images, labels = MNIST(data_dir / "test")[torch.arange(50)]
        losses[kind] = torch.nn.functional.cross_entropy(model(images), labels).item()
    assert checkpoint["history"][-1]["test_loss"] == pytest.approx(losses["ema"], rel=1e-4)
    assert losses["weights"] != pytest.approx(losses["ema"], rel=1e-4)


def test_validation_images_come_from_the_training_set(data_dir, tmp_path, capsys):
    other = tmp_path / "other"
    write_data(other, test=10)  # another test set: it must not matter
    options = ["--epochs", "1", "--validation", "40"]
    run_here(data_dir, tmp_path / "a", *options)
    run_here(other, tmp_path / "b", *options)
    assert "160 training and 40 validation images" in capsys.readouterr().out
    [a], [b] = (metrics_of(tmp_path / name)["history"] for name in "ab")
    assert {**a, "seconds": 0} == {**b, "seconds": 0}
    with pytest.raises(main.RunError, match="200 training images"):
        run_here(data_dir, tmp_path / "c", "--validation", "200")


def test_augmentation_is_for_the_training_set_only(data_dir, tmp_path, monkeypatch):
    def seen_by(name, *options):
        """All images that main.train or main.test is given."""
        batches = []
        original = getattr(main, name)

        def spy(model, loader, *args):
            batches.extend(loader)
            return original(model, batches, *args)

        with monkeypatch.context() as patch:
            patch.setattr(main, name, spy)
            run_here(data_dir, tmp_path, "--epochs", "1", *options)
        return torch.cat([images for images, _ in batches])

    assert torch.equal(seen_by("test"), seen_by("test", "--augment"))
    plain, augmented = seen_by("train"), seen_by("train", "--augment")
    assert plain.shape == augmented.shape
    assert (plain != augmented).flatten(1).any(dim=1).all()


def test_results_are_up_to_date_after_every_epoch(data_dir, tmp_path, monkeypatch):
    train = main.train
    results = tmp_path / "results"

    def interrupted(*args, **kwargs):
        if (results / "metrics/lenet5.json").exists():
            left = ["checkpoints/lenet5.pt", "metrics/lenet5.json", "plots/lenet5.png"]
            assert files_in(results) == ["checkpoints/lenet5.lock", *left]
            if len(metrics_of(results)["history"]) == 2:
                raise KeyboardInterrupt
        return train(*args, **kwargs)

    monkeypatch.setattr(main, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_here(data_dir, results, "--epochs", "5")
    assert torch.load(results / "checkpoints/lenet5.pt", weights_only=True)["epoch"] == 2


def test_a_data_set_of_extracted_folders_trains(tmp_path):
    data_dir = tmp_path / "data"
    for split, count in (("train", 100), ("test", 30)):
        write_folder(data_dir, make_members(*make_digits(count, seed=0), split))
    run_here(data_dir, tmp_path / "results", "--epochs", "1")
    assert len(metrics_of(tmp_path / "results")["history"]) == 1


def test_runs_in_any_working_folder(data_dir, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    main.main(["--epochs", "1", "--data-dir", os.path.relpath(data_dir, elsewhere)])
    assert len(files_in(elsewhere / "results")) == 3


def test_a_name_that_standard_output_cannot_encode_does_not_stop_a_run(
    data_dir, tmp_path, monkeypatch, main_here
):
    stdout = io.TextIOWrapper(io.BytesIO(), "cp1252")  # as where it is piped on Windows
    monkeypatch.setattr(sys, "stdout", stdout)
    where = ["--data-dir", data_dir, "--results-dir", tmp_path / "results"]
    process = main_here("--epochs", 1, "--name", "七", *where)
    assert process.returncode == 0, process.stderr
    assert b"\\u4e03.pt" in stdout.buffer.getvalue()
    assert (tmp_path / "results/checkpoints/七.pt").exists()
