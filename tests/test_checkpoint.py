"""A run that was stopped, however, and resumed ends as one that never was."""

import os
import random
import signal
import time

import pytest
import torch
from helpers import assert_one_line, metrics_of, write_data
from torch import nn

import main
from dataset import MNIST
from model import MODELS, LeNet5
from support.checkpoint import (
    CHECKPOINT_FORMAT,
    TrainingState,
    load_checkpoint,
    load_model,
    write_checkpoint,
)
from support.device import GET_RANDOM, SET_RANDOM
from support.errors import RunError
from support.provenance import fingerprint
from support.run_files import RunFiles
from support.settings import Settings

pytestmark = pytest.mark.usefixtures("without_plots")

EVERYTHING = [
    *("--threads", 1, "--batch-size", 32, "--lr", 0.05, "--schedule", "onecycle"),
    *("--augment", "--no-aug-epochs", 2, "--dropout", 0.2, "--weight-decay", 0.001),
    *("--label-smoothing", 0.1, "--ema", 0.95),
]
PLAIN = ["--batch-size", 32, "--lr", 0.05, "--schedule", "constant"]


def state_of(results, name="lenet5"):
    """All that a run ends with, but for how long it took."""
    checkpoint = torch.load(results / f"checkpoints/{name}.pt", weights_only=True)
    metrics = metrics_of(results, name)
    for entry in [*checkpoint["history"], *metrics["history"]]:
        del entry["seconds"]
    return checkpoint, metrics


def assert_same(left, right):
    assert type(left) is type(right)
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left.keys() - {"config"}:
            assert_same(left[key], right[key])
    elif isinstance(left, list | tuple):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    elif isinstance(left, torch.Tensor):
        assert torch.equal(left, right)
    else:
        assert left == right


def stop_in_epoch(monkeypatch, number, stop):
    """Calls `stop` when that epoch begins."""
    train, epochs = main.train, []

    def stopped(*arguments):
        epochs.append(1)
        if len(epochs) == number:
            stop()
        return train(*arguments)

    monkeypatch.setattr(main, "train", stopped)


# --- stopped and resumed ----------------------------------------------------------------------


@pytest.mark.parametrize(("optimizer", "epochs"), [("sgd", [2, 4, 5]), ("muon", [3])])
def test_resuming_after_any_epoch_changes_no_bit(start, tmp_path, monkeypatch, optimizer, epochs):
    arguments = [*EVERYTHING, "--epochs", 5, "--optimizer", optimizer]
    start(*arguments, results=tmp_path / "whole")
    for epoch in epochs:
        results = tmp_path / f"stopped{epoch}"
        with monkeypatch.context() as patch:
            stop_in_epoch(patch, epoch, lambda: signal.raise_signal(signal.SIGTERM))
            start(*arguments, results=results, code=143)
        start(*arguments, "--resume", results=results)
        assert_same(state_of(results), state_of(tmp_path / "whole"))


@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_more_epochs_with_a_constant_schedule_are_as_if_asked_for_at_once(
    start, tmp_path, optimizer
):
    arguments = [*PLAIN, "--ema", 0.9, "--augment", "--optimizer", optimizer]
    for epochs in (2, 5):
        start(*arguments, "--epochs", epochs, "--resume", results=tmp_path / "raised")
    start(*arguments, "--epochs", 5, results=tmp_path / "whole")
    assert_same(state_of(tmp_path / "raised")[0], state_of(tmp_path / "whole")[0])


def test_the_network_of_a_finished_run_is_ready_to_be_used(data_dir, results):
    settings = Settings(epochs=1, dropout=0.5, data_dir=data_dir, results_dir=results)
    sets = main.load_sets(settings)
    main.run(settings, torch.device("cpu"), *sets)
    settings.resume = True
    model, _ = main.run(settings, torch.device("cpu"), *sets)
    assert not any(module.training for module in model.modules())


def test_a_finished_run_stays_as_it_is(start, results):
    start(*EVERYTHING, "--epochs", 2)
    before = state_of(results)
    start(*EVERYTHING, "--epochs", 2, "--resume")
    assert_same(state_of(results), before)


def test_resuming_before_there_is_a_checkpoint_starts_from_the_beginning(start, results):
    process = start(*PLAIN, "--epochs", 1, "--resume")
    checkpoint = results / "checkpoints/lenet5.pt"
    assert process.stdout.startswith(f"{checkpoint}: does not exist yet; ")
    assert load_checkpoint(checkpoint)["epoch"] == 1


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_says_how_to_go_on_and_leaves_its_last_epoch(
    start, results, monkeypatch, sent, code
):
    # A shell's background jobs, such as these tests may be, are started deaf to Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    stop_in_epoch(monkeypatch, 3, lambda: signal.raise_signal(sent))
    process = start(*EVERYTHING, "--epochs", 5, code=code)
    [line] = process.stderr.splitlines()
    assert "--resume" in line
    assert load_checkpoint(results / "checkpoints/lenet5.pt")["epoch"] == 2
    assert os.listdir(results / "checkpoints") == ["lenet5.pt"]
    assert os.listdir(results / "metrics") == ["lenet5.json"]


def kill_and_resume(start, tmp_path, rounds, rng):
    """Kills a run at random moments and resumes it, `rounds` times; then lets it end."""
    results = tmp_path / "killed"
    arguments = [*EVERYTHING, "--epochs", 5]
    for _ in range(rounds):
        process = start(*arguments, "--resume", results=results, wait=False)
        line = process.stdout.readline()
        assert line, process.stderr.read()
        time.sleep(rng.uniform(0, 1.0))
        process.kill()
        process.communicate()
        if (results / "checkpoints/lenet5.pt").exists():
            load_checkpoint(results / "checkpoints/lenet5.pt")  # whole, whenever it died
    start(*arguments, "--resume", results=results)
    start(*arguments, results=tmp_path / "whole")
    assert_same(state_of(results), state_of(tmp_path / "whole"))
    assert sorted(os.listdir(results / "checkpoints")) == ["lenet5.pt"]


def test_a_run_killed_at_a_random_moment_goes_on(start, tmp_path):
    kill_and_resume(start, tmp_path, rounds=1, rng=random.Random(1))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_run_killed_at_many_random_moments_goes_on(start, tmp_path, seed):
    kill_and_resume(start, tmp_path, rounds=5, rng=random.Random(seed))


DIES_WHILE_WRITING = """
import os, signal

written = 0

def fsync(file):
    global written
    written += os.readlink(f"/proc/self/fd/{file}").count(os.environ["DIES_WRITING"])
    if written == 3:
        os.kill(os.getpid(), signal.SIGKILL)

os.fsync = fsync
"""


@pytest.mark.parametrize(
    ("file", "epochs"),
    [
        ("checkpoints/.lenet5.pt", 2),
        pytest.param("metrics/.lenet5.json", 3, marks=pytest.mark.slow),
        pytest.param("plots/.lenet5.png", 3, marks=pytest.mark.slow),
    ],
)
def test_a_run_killed_while_it_writes_a_file_goes_on(start, tmp_path, file, epochs):
    at_start = tmp_path / "sitecustomize.py"  # Python runs it
    at_start.write_text(DIES_WHILE_WRITING, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "DIES_WRITING": file}
    results = tmp_path / "killed"
    arguments = [*EVERYTHING, "--epochs", 5]
    start(*arguments, results=results, env=environment, code=-signal.SIGKILL)
    assert list(results.glob(f"{file}.*.part")), "it was killed half-way"
    assert load_checkpoint(results / "checkpoints/lenet5.pt")["epoch"] == epochs

    start(*arguments, "--resume", results=results)
    start(*arguments, results=tmp_path / "whole")
    assert_same(state_of(results), state_of(tmp_path / "whole"))
    assert not list(results.rglob("*.part"))


def test_of_two_runs_of_one_name_the_second_is_refused(start, results, data_dir):
    trn_set, tst_set = MNIST(data_dir / "train"), MNIST(data_dir / "test")
    first = RunFiles(Settings(results_dir=results), torch.device("cpu"), trn_set, tst_set)
    with first.locked():
        process = start(*PLAIN, "--epochs", 1, code=1)
        assert "another run of this name" in process.stderr
        start(*PLAIN, "--epochs", 1, "--name", "other")
    start(*PLAIN, "--epochs", 1)  # the first has ended: its name is free


# --- replaced ---------------------------------------------------------------------------------


def test_a_run_that_replaces_one_of_other_settings_says_so_first(start, results):
    start(*PLAIN, "--epochs", 2)
    process = start(*PLAIN, "--epochs", 1, "--seed", 3, "--augment")
    line, title, *_ = process.stdout.splitlines()
    assert line.startswith(f"{results / 'checkpoints/lenet5.pt'}: replacing a run with ")
    assert "--epochs 2, --seed 0, --augment None; " in line
    assert "--name" in line
    assert title.startswith("LeNet-5, ")


def test_a_run_that_replaces_an_unfinished_one_says_how_to_go_on_with_it(start, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        stop_in_epoch(patch, 3, interrupted)
        start(*PLAIN, "--epochs", 4, code=130)
    [line, *_] = start(*PLAIN, "--epochs", 4).stdout.splitlines()
    assert "replacing a run of which 2 of 4 epochs were done; " in line
    assert "--resume" in line


def test_a_run_that_replaces_one_on_other_images_or_bare_weights_says_so(start, results, tmp_path):
    start(*PLAIN, "--epochs", 1)
    other = write_data(tmp_path / "other", test=40)
    process = start(*PLAIN, "--epochs", 1, data=other)
    assert "lenet5.pt: replacing a run on other images; " in process.stdout.splitlines()[0]
    path = results / "checkpoints/lenet5.pt"
    saved = load_checkpoint(path)
    weights = {name: saved[name] for name in ("model", "weights", "ema")}
    write_checkpoint(path, weights)
    assert "holds weights only" in start(*PLAIN, "--epochs", 1, "--resume", code=1).stderr
    process = start(*PLAIN, "--epochs", 1)
    assert "lenet5.pt: replacing the weights of a network; " in process.stdout.splitlines()[0]


def test_a_run_that_replaces_what_cannot_be_read_or_is_called_otherwise_says_so(start, results):
    start(*PLAIN, "--epochs", 1, "--name", "LeNet5")
    path = results / "checkpoints/lenet5.pt"
    (results / "checkpoints/LeNet5.pt").rename(path)  # the same file on a disk that ignores case
    [line, *_] = start(*PLAIN, "--epochs", 1).stdout.splitlines()
    assert line.startswith(f"{path}: replacing the run LeNet5; ")
    path.write_bytes(b"no checkpoint")
    [line, *_] = start(*PLAIN, "--epochs", 1).stdout.splitlines()
    assert line.startswith(f"{path}: replacing a file that cannot be read as a checkpoint; ")


def test_a_run_again_or_of_another_name_replaces_nothing_worth_a_word(start, results):
    start(*PLAIN, "--epochs", 1)
    for arguments in ([], ["--name", "third", "--seed", 5]):
        process = start(*PLAIN, "--epochs", 1, *arguments)
        assert process.stdout.startswith("LeNet-5, ")


def test_the_recipe_is_kept_beside_the_plain_run(start, results):
    start("--epochs", 1)
    before = (results / "checkpoints/lenet5.pt").read_bytes()
    start("--regularize", "--epochs", 1)
    assert (results / "checkpoints/lenet5.pt").read_bytes() == before
    assert (results / "checkpoints/lenet5-regularized.pt").exists()


# --- refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "setting"),
    [
        (["--optimizer", "muon"], "--optimizer"),
        (["--lr", 0.1], "--lr"),
        (["--batch-size", 50], "--batch-size"),
        (["--seed", 5], "--seed"),
        (["--dropout", 0], "--dropout"),
        (["--schedule", "constant"], "--schedule"),
        (["--epochs", 9], "--epochs"),
        (["--model", "mlp", "--name", "lenet5"], "--model"),
    ],
)
def test_a_setting_that_changes_the_result_is_refused(start, results, change, setting):
    start(*EVERYTHING, "--epochs", 2)
    before = (results / "checkpoints/lenet5.pt").read_bytes()
    process = start(*EVERYTHING, "--epochs", 2, *change, "--resume", code=1)
    assert process.stderr.startswith(f"error: {setting} was ")
    assert (results / "checkpoints/lenet5.pt").read_bytes() == before


@pytest.mark.parametrize(
    "special", [["--schedule", "onecycle"], ["--augment", "--no-aug-epochs", 1]]
)
def test_more_epochs_are_refused_where_the_last_ones_are_special(start, special):
    start(*PLAIN, *special, "--epochs", 2)
    process = start(*PLAIN, *special, "--epochs", 3, "--resume", code=1)
    assert process.stderr.startswith("error: --epochs was 2 ")


def test_resuming_a_short_recipe_for_longer_names_the_option_that_was_typed(start):
    start("--regularize", "--epochs", 1)
    process = start("--regularize", "--epochs", 2, "--resume", code=1)
    assert process.stderr.startswith("error: --epochs was 1 ")


def test_a_checkpoint_from_before_a_setting_came_is_one_with_its_default(start, results):
    start(*PLAIN, "--augment", "--epochs", 1)
    path = results / "checkpoints/lenet5.pt"
    checkpoint = load_checkpoint(path)
    del checkpoint["config"]["no_aug_epochs"]
    write_checkpoint(path, checkpoint)
    process = start(*(*PLAIN, "--augment", "--epochs", 1, "--no-aug-epochs", 1, "--resume"), code=1)
    assert process.stderr.startswith("error: --no-aug-epochs was 0 ")
    start(*PLAIN, "--augment", "--epochs", 2, "--resume")
    assert load_checkpoint(path)["epoch"] == 2


def test_fewer_epochs_than_are_done_are_refused(start):
    start(*PLAIN, "--epochs", 2)
    assert "has 2 epochs" in start(*PLAIN, "--epochs", 1, "--resume", code=1).stderr


@pytest.mark.parametrize(("train", "test", "other"), [(190, 50, "training"), (200, 40, "test")])
def test_other_images_are_refused(start, tmp_path, train, test, other):
    start(*PLAIN, "--epochs", 1)
    data = write_data(tmp_path / "other", train=train, test=test)
    process = start(*PLAIN, "--epochs", 1, "--resume", data=data, code=1)
    assert f"other {other} images" in process.stderr


@pytest.fixture
def finished(start, results):
    """The checkpoint of a run of two epochs."""
    start(*PLAIN, "--epochs", 2)
    return results / "checkpoints/lenet5.pt"


class Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (f"{self.path}.harmed",)


def with_code(good):
    torch.save({"format": CHECKPOINT_FORMAT, "weights": Harmful(good)}, good)


def cut_off(good):
    good.write_bytes(good.read_bytes()[:-5000])


def emptied(good):
    good.write_bytes(b"")


def text(good):
    good.write_text("this is no checkpoint", encoding="utf-8")


def of_another_format(good):
    torch.save({**torch.load(good, weights_only=True), "format": 0}, good)


def of_other_shapes(good):
    checkpoint = torch.load(good, weights_only=True)
    checkpoint["weights"]["fc3.weight"] = torch.zeros(3, 3)
    torch.save(checkpoint, good)


def without_optimizer(good):
    checkpoint = torch.load(good, weights_only=True)
    del checkpoint["optimizer"]
    torch.save(checkpoint, good)


def a_bare_tensor(good):
    torch.save(torch.zeros(3), good)


def with_odd(**fields):
    def damage(good):
        torch.save(torch.load(good, weights_only=True) | fields, good)

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        *(with_code, cut_off, emptied, text, of_another_format, of_other_shapes),
        *(without_optimizer, a_bare_tensor, with_odd(config={}), with_odd(data=5)),
        *(with_odd(model=["a"]), with_odd(epoch="two"), with_odd(random=None), with_odd(weights=3)),
    ],
)
def test_a_damaged_or_foreign_checkpoint_is_refused_and_runs_no_code(start, finished, damage):
    damage(finished)
    process = start(*PLAIN, "--epochs", 2, "--resume", code=1)
    [line] = process.stderr.splitlines()
    assert line.startswith(f"error: {finished}: ")
    assert not os.path.exists(f"{finished}.harmed")


@pytest.mark.parametrize("fields", [{"model": ["a"]}, {"weights": 3}, {"ema": 1}, {"data": 5}])
def test_an_odd_checkpoint_is_refused_where_it_is_used(start, finished, fields):
    with_odd(**fields)(finished)
    assert_one_line(start("--evaluate", finished, code=1), f"{finished}: is damaged")


def without_loss(history):
    del history[0]["train_loss"]


def of_words(history):
    history[0]["test_accuracy"] = "good"


def with_a_gap(history):
    history[0]["epoch"] = 7


def of_nothing(history):
    history.clear()


@pytest.mark.parametrize("damage", [without_loss, of_words, with_a_gap, of_nothing])
def test_a_malformed_history_is_refused_and_nothing_rewritten(start, results, finished, damage):
    checkpoint = load_checkpoint(finished)
    damage(checkpoint["history"])
    write_checkpoint(finished, checkpoint)
    before = {file: file.read_bytes() for file in results.rglob("*.*") if file.is_file()}
    process = start(*PLAIN, "--epochs", 2, "--resume", code=1)
    assert process.stderr.startswith(f"error: {finished}: its history is damaged; ")
    assert {file: file.read_bytes() for file in before} == before


@pytest.mark.parametrize("place", ["checkpoints/lenet5.lock", "checkpoints/lenet5.pt"])
def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(start, results, place):
    (results / "checkpoints").mkdir(parents=True)
    os.mkfifo(results / place)
    assert "is not a file" in start("--resume", code=1).stderr
    with pytest.raises(RunError, match="is not a file"):
        load_checkpoint(results / place)


def test_a_folder_in_place_of_the_checkpoint_is_refused_before_training(
    start, results, monkeypatch
):
    (results / "checkpoints/lenet5.pt").mkdir(parents=True)
    monkeypatch.setattr(main, "train", None)  # training would now fail
    assert "lenet5.pt: is not a file" in start(code=1).stderr


def test_what_could_not_be_read_again_is_not_written(start, monkeypatch, finished):
    class WithAPath(LeNet5):
        def get_extra_state(self):
            return finished

        def set_extra_state(self, state):
            pass

    before = finished.read_bytes()
    monkeypatch.setitem(MODELS, "lenet5", WithAPath)
    process = start(*PLAIN, "--epochs", 2, "--seed", 3, code=1)
    assert "lenet5.pt: was not written, since nothing could read it again" in process.stderr
    assert "pathlib" in process.stderr
    assert finished.read_bytes() == before


# --- its parts --------------------------------------------------------------------------------


@pytest.mark.parametrize("ema", [0, 0.9])
def test_load_model_returns_the_network_ready_to_be_used(start, results, ema):
    start("--epochs", 1, "--model", "mlp", "--ema", ema)
    model = load_model(results / "checkpoints/mlp.pt")
    assert not any(module.training for module in model.modules())


def test_load_model_takes_a_path_as_text(finished):
    assert load_model(str(finished))(torch.zeros(1, 1, 28, 28)).shape == (1, 10)


def test_the_random_states_of_the_cpu_and_of_this_very_device_are_restored(monkeypatch):
    gpus = {0: "first", 1: "second"}
    monkeypatch.setitem(GET_RANDOM, "cuda", lambda device: gpus[device.index])
    monkeypatch.setitem(
        SET_RANDOM, "cuda", lambda state, device: gpus.update({device.index: state})
    )
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    state = TrainingState(model, optimizer, scheduler, None, torch.Generator(), [])
    saved = state.to_save(torch.device("cuda", 1))
    first = torch.rand(3)
    gpus[1] = "later"
    state.restore(saved, torch.device("cuda", 1))
    assert torch.equal(torch.rand(3), first)
    assert gpus == {0: "first", 1: "second"}


def test_load_model_names_the_networks_that_it_knows(finished):
    checkpoint = load_checkpoint(finished)
    checkpoint["model"] = "resnet"
    write_checkpoint(finished, checkpoint)
    with pytest.raises(RunError, match=r"lenet5\.pt: holds a network called resnet"):
        load_model(finished)


def test_the_average_starts_as_the_weights_after_the_first_step():
    model = nn.Linear(1, 1, bias=False)
    ema = main.make_ema(model, 0.75, torch.device("cpu"))
    averages = []
    for weight in (4.0, 8.0, 0.0):
        nn.init.constant_(model.weight, weight)
        ema.update_parameters(model)
        averages.append(ema.module.weight.item())
    assert averages == pytest.approx([4, 5, 3.75])


def test_the_average_counts_its_updates_where_the_network_is():
    device = torch.device("meta")  # without a machine
    ema = main.make_ema(nn.Linear(1, 1).to(device), 0.5, device)
    assert {value.device for value in ema.state_dict().values()} == {device}


def test_the_fingerprint_tells_data_sets_apart_by_one_label_one_pixel_or_their_order(data_dir):
    def changed(change):
        other = MNIST(data_dir / "train.tar")
        change(other)
        return fingerprint(other)

    def another_label(trn_set):
        trn_set.labels[7] += 1

    def another_pixel(trn_set):
        trn_set.images[7, 0, 5, 5] += 1

    def another_order(trn_set):
        trn_set.images, trn_set.labels = trn_set.images.flip(0), trn_set.labels.flip(0)

    original = changed(lambda trn_set: None)
    assert changed(lambda trn_set: None) == original
    changes = (another_label, another_pixel, another_order)
    assert len({original, *map(changed, changes)}) == 4
