"""A run from the command line: what it prints, what it leaves, and that it can be had again."""

import json
import os

import pytest
import torch
from helpers import make_digits, make_members, run_main, write_data, write_folder
from PIL import Image

import main
from dataset import MNIST, data_loader
from model import LeNet5

HISTORY_KEYS = [
    "epoch",
    "train_loss",
    "train_accuracy",
    "test_loss",
    "test_accuracy",
    "seconds",
    "lr",
]


def metrics_of(results, name="lenet5"):
    return json.loads((results / "metrics" / f"{name}.json").read_text())


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def run_here(data_dir, results, *arguments):
    """A run in this process: faster than one of its own."""
    main.main(["--data-dir", str(data_dir), "--results-dir", str(results), *arguments])


@pytest.mark.parametrize(("model", "parameters"), [("lenet5", 61_706), ("mlp", 62_170)])
def test_a_run_leaves_checkpoint_metrics_and_plot(data_dir, tmp_path, model, parameters):
    results = tmp_path / "results"
    process = run_main(
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
            assert process.returncode == 0, process.stderr
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
    run_here(data_dir, tmp_path, "--epochs", "1", "--name", "regularised", *technique)
    plain, regularised = (metrics_of(tmp_path, name) for name in ("lenet5", "regularised"))
    assert regularised["history"][0]["test_loss"] != plain["history"][0]["test_loss"]
    assert regularised["parameters"] == plain["parameters"] == 61_706


def test_the_last_epochs_may_leave_images_undeformed(data_dir, tmp_path):
    histories = {}
    for name, options in {
        "plain": [],
        "augment": ["--augment"],
        "all": ["--augment", "--undeformed", "2"],
        "last": ["--augment", "--undeformed", "1"],
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
        model = LeNet5() if kind == "weights" else main.make_ema(LeNet5(), 0.9)
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


@pytest.mark.parametrize("epochs", ["1", "3"])
def test_the_plot_can_be_read_without_the_code(data_dir, tmp_path, monkeypatch, epochs):
    from matplotlib.figure import Figure

    figures = []
    savefig = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: (figures.append(self), savefig(self, *a, **k))
    )
    run_here(data_dir, tmp_path, "--epochs", epochs)
    figure = figures[-1]
    history = metrics_of(tmp_path)["history"]
    assert "LeNet-5" in figure.get_suptitle()
    assert f"{history[-1]['test_accuracy']:.2%}" in figure.get_suptitle()
    panels = {ax.get_title(): ax for ax in figure.axes}
    assert len(panels) == 4
    for quantity in ("loss", "accuracy"):
        trn, tst = panels[f"training {quantity}"], panels[f"test {quantity}"]
        assert trn.get_ylim() == tst.get_ylim()
        for ax, split in ((trn, "train"), (tst, "test")):
            assert ax.get_xlabel() == "epoch"
            assert quantity in ax.get_ylabel()
            left, right = ax.get_xlim()
            shown = [tick for tick in ax.get_xticks() if left <= tick <= right]
            assert shown
            assert all(tick == round(tick) for tick in shown)
            drawn = ax.lines[0].get_ydata() / (100 if quantity == "accuracy" else 1)
            assert list(drawn) == pytest.approx([e[f"{split}_{quantity}"] for e in history])


def test_a_data_set_of_extracted_folders_trains(tmp_path):
    data_dir = tmp_path / "data"
    for split, count in (("train", 100), ("test", 30)):
        write_folder(data_dir, make_members(*make_digits(count, seed=0), split))
    run_here(data_dir, tmp_path / "results", "--epochs", "1")
    assert len(metrics_of(tmp_path / "results")["history"]) == 1


def test_runs_in_any_working_folder(data_dir, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    process = run_main(
        "--epochs", 1, "--data-dir", os.path.relpath(data_dir, elsewhere), cwd=elsewhere
    )
    assert process.returncode == 0, process.stderr
    assert len(files_in(elsewhere / "results")) == 3


def test_help_shows_every_option_with_its_default():
    process = run_main("--help")
    assert process.returncode == 0
    for text in ("--model {lenet5,mlp}", "--epochs", "(10)", "--augment", "(0.9)"):
        assert text in process.stdout
