"""A run that was stopped, however, and resumed ends as one that never was."""

import os
import random
import shutil
import signal
import time

import pytest
import torch
from helpers import ROOT, assert_one_line, in_epoch, metrics_of

import main
from dataset import MNIST
from model import LeNet5
from support.checkpoint import load_checkpoint
from support.settings import Settings

pytestmark = pytest.mark.usefixtures("without_plots")

EVERYTHING = [
    *("--threads", 1, "--batch-size", 32, "--lr", 0.05, "--schedule", "onecycle"),
    *("--augment", "--no-aug-epochs", 2, "--dropout", 0.2, "--weight-decay", 0.001),
    *("--label-smoothing", 0.1, "--ema", 0.95, "--epochs", 5),
]
PLAIN = ["--batch-size", 32, "--schedule", "constant", "--epochs", 2]


@pytest.fixture(scope="module")
def finished_run(tiny_data, tmp_path_factory):
    results = tmp_path_factory.mktemp("finished")
    settings = Settings(batch_size=32, schedule="constant", epochs=2, results_dir=results)
    main.run(settings, "cpu", *(MNIST(tiny_data / f"{split}.tar") for split in ("train", "test")))
    return results


@pytest.fixture
def finished(finished_run, results):
    """The checkpoint of a run of two epochs with the settings PLAIN."""
    return shutil.copytree(finished_run, results) / "checkpoints/lenet5.pt"


def state_of(results):
    """All that a run ends with, but for how long it took."""
    checkpoint, metrics = load_checkpoint(results / "checkpoints/lenet5.pt"), metrics_of(results)
    del checkpoint["config"], metrics["config"]  # says where, and whether it was resumed
    for entry in [*checkpoint["history"], *metrics["history"]]:
        del entry["seconds"]
    return checkpoint, metrics, (results / "plots/lenet5.png").read_bytes()


def assert_same(left, right):
    assert type(left) is type(right)
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, list | tuple):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    elif isinstance(left, torch.Tensor):
        assert torch.equal(left, right)
    else:
        assert left == right


# --- stopped and resumed ----------------------------------------------------------------------


@pytest.fixture
def resume(start, tmp_path, results):
    """Resumes a run, and checks that it ends as one that never was stopped."""

    def resume(*arguments):
        start(*arguments, "--resume")
        start(*arguments, results=tmp_path / "whole")
        assert_same(state_of(results), state_of(tmp_path / "whole"))
        assert os.listdir(results / "checkpoints") == ["lenet5.pt"]
        assert not list(results.rglob("*.part"))

    return resume


@pytest.mark.parametrize(("optimizer", "epoch"), [("sgd", 2), ("sgd", 4), ("sgd", 5), ("muon", 3)])
def test_an_interrupted_run_resumes_after_any_epoch_to_the_same_bits(
    start, resume, results, monkeypatch, optimizer, epoch
):
    arguments = [*EVERYTHING, "--optimizer", optimizer]
    with monkeypatch.context() as patch:
        in_epoch(patch, epoch, lambda: signal.raise_signal(signal.SIGTERM))
        process = start(*arguments, code=143)
    [line] = process.stderr.splitlines()
    assert "--resume" in line
    assert load_checkpoint(results / "checkpoints/lenet5.pt")["epoch"] == epoch - 1
    assert os.listdir(results / "checkpoints") == ["lenet5.pt"]
    resume(*arguments)


def test_more_epochs_with_a_constant_schedule_are_as_if_asked_for_at_once(start, resume):
    arguments = [*PLAIN, "--ema", 0.9, "--augment"]
    start(*arguments)
    resume(*arguments, "--epochs", 5)


def test_a_finished_run_stays_as_it_is_and_its_network_is_ready_to_be_used(data_dir, results):
    settings = Settings(epochs=2, dropout=0.5, ema=0.9, data_dir=data_dir, results_dir=results)
    sets = main.load_sets(settings)
    main.run(settings, "cpu", *sets)
    before = state_of(results)
    settings.resume = True
    model, _ = main.run(settings, "cpu", *sets)
    assert_same(state_of(results), before)
    assert not any(module.training for module in model.modules())


def test_resuming_before_there_is_a_checkpoint_starts_from_the_beginning(start, results):
    process = start(*PLAIN, "--resume")
    checkpoint = results / "checkpoints/lenet5.pt"
    assert process.stdout.startswith(f"{checkpoint}: does not exist yet; ")
    assert load_checkpoint(checkpoint)["epoch"] == 2


@pytest.mark.parametrize(
    ("file", "done"),
    [("checkpoints/lenet5.pt", 4), ("metrics/lenet5.json", 5), ("plots/lenet5.png", 5)],
)
def test_resuming_completes_a_run_that_died_before_a_file_of_its_last_epoch_was_there(
    start, resume, results, monkeypatch, file, done
):
    """The checkpoint comes first: from it, the others are brought up to date."""
    replace, written = os.replace, []

    def dying(source, target):
        written.append(os.fspath(target))
        if written.count(str(results / file)) == 5:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying)
        start(*EVERYTHING, code=130)
    assert load_checkpoint(results / "checkpoints/lenet5.pt")["epoch"] == done
    resume(*EVERYTHING)


DIES_WHILE_WRITING = """
import os, signal
from main import main

written = []

def fsync(file):
    written.append(os.readlink(f"/proc/self/fd/{file}"))
    if sum("checkpoints/.lenet5.pt" in path for path in written) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

os.fsync = fsync
main()
"""


def test_a_run_killed_while_it_writes_goes_on_in_another_process_to_the_same_bits(
    start, resume, tmp_path, results
):
    (tmp_path / "dies.py").write_text(DIES_WHILE_WRITING, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    start(*EVERYTHING, script=tmp_path / "dies.py", env=environment, code=-signal.SIGKILL)
    assert list(results.rglob("*.part")), "it was killed half-way"
    assert load_checkpoint(results / "checkpoints/lenet5.pt")["epoch"] == 2
    resume(*EVERYTHING)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_run_killed_at_many_random_moments_goes_on(start, resume, results, seed):
    rng = random.Random(seed)
    for _ in range(5):
        process = start(*EVERYTHING, "--resume", wait=False)
        line = process.stdout.readline()
        assert line, process.stderr.read()
        time.sleep(rng.uniform(0, 1.0))
        process.kill()
        process.communicate()
        if (results / "checkpoints/lenet5.pt").exists():
            load_checkpoint(results / "checkpoints/lenet5.pt")  # whole, whenever it died
    resume(*EVERYTHING)


def test_of_two_runs_of_one_name_the_second_is_refused(start, monkeypatch):
    def start_others():
        process = start(*PLAIN, "--epochs", 1, code=1)
        assert "another run of this name" in process.stderr
        start(*PLAIN, "--epochs", 1, "--name", "other")

    in_epoch(monkeypatch, 1, start_others)
    start(*PLAIN, "--epochs", 1)
    start(*PLAIN, "--epochs", 1)  # the first has ended: its name is free


# --- replaced ---------------------------------------------------------------------------------


def change(path, **fields):
    """Change fields of a checkpoint; None: without it."""
    fields = torch.load(path, weights_only=True) | fields
    torch.save({name: value for name, value in fields.items() if value is not None}, path)


@pytest.mark.parametrize(
    ("saved", "arguments", "replaced"),
    [
        (
            {},
            ["--epochs", 1, "--seed", 3, "--augment"],
            "a run with --epochs 2, --seed 0, --augment None",
        ),
        ({"epoch": 1}, [], "a run of which 1 of 2 epochs were done"),
        ({"data": {}}, [], "a run on other images"),
        ({"config": None}, [], "the weights of a network"),
        # As on a disk that ignores case.
        ({"config": {"name": "LeNet5", "epochs": 2}}, [], "the run LeNet5"),
        ({"format": 0}, [], "a file that cannot be read as a checkpoint"),
    ],
)
def test_a_run_says_first_what_it_replaces(start, finished, saved, arguments, replaced):
    change(finished, **saved)
    line, title, *_ = start(*PLAIN, *arguments).stdout.splitlines()
    assert line.startswith(f"{finished}: replacing {replaced}; ")
    assert "--name" in line
    assert "--resume" in line
    assert title.startswith("LeNet-5, ")


def test_a_run_again_or_of_another_name_replaces_nothing_worth_a_word(start, finished):
    before = finished.read_bytes()
    for arguments in (["--regularize", "--epochs", 1], PLAIN):
        assert finished.read_bytes() == before
        assert start(*arguments).stdout.startswith("LeNet-5, ")


# --- refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("special", "changed"),
    [
        ([], ["--optimizer", "muon"]),
        (["--dropout", 0.2], ["--dropout", 0]),
        ([], ["--model", "mlp"]),
        # More epochs, where the last ones are special.
        (["--schedule", "onecycle"], ["--epochs", 3]),
        (["--augment", "--no-aug-epochs", 1], ["--epochs", 3]),
        (["--regularize"], ["--epochs", 3]),  # where another setting depends on the one typed
    ],
)
def test_a_setting_that_changes_the_result_is_refused(start, results, special, changed):
    arguments = [*PLAIN, *special, "--name", "lenet5"]
    start(*arguments)
    before = (results / "checkpoints/lenet5.pt").read_bytes()
    process = start(*arguments, *changed, "--resume", code=1)
    assert process.stderr.startswith(f"error: {changed[0]} was ")
    assert (results / "checkpoints/lenet5.pt").read_bytes() == before


DAMAGED = "its history is damaged; "


@pytest.mark.parametrize(
    ("change_it", "reason"),
    [
        (lambda saved: saved.update(epoch=3), "already has 3 epochs"),
        (lambda saved: saved.pop("config"), "holds weights only"),
        (lambda saved: saved["data"].update(training=1), "belongs to other training images"),
        (lambda saved: saved["data"].update(test=1), "belongs to other test images"),
        (lambda saved: saved["history"][0].pop("train_loss"), DAMAGED),
        (lambda saved: saved["history"][0].update(test_accuracy="good"), DAMAGED),
        (lambda saved: saved["history"][0].update(epoch=7), DAMAGED),
        (lambda saved: saved["history"].clear(), DAMAGED),
    ],
)
def test_what_no_run_can_go_on_from_is_refused_and_nothing_rewritten(
    start, results, finished, change_it, reason
):
    saved = load_checkpoint(finished)
    change_it(saved)
    torch.save(saved, finished)
    before = {file: file.read_bytes() for file in results.rglob("*.*") if file.is_file()}
    process = start(*PLAIN, "--resume", code=1)
    assert process.stderr.startswith(f"error: {finished}: {reason}")
    assert {file: file.read_bytes() for file in before} == before


class Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (f"{self.path}.harmed",)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"this is no checkpoint"),
        lambda path: path.write_bytes(path.read_bytes()[:-5000]),
        lambda path: torch.save(torch.zeros(3), path),
        lambda path: change(path, weights=Harmful(path)),
        lambda path: change(path, weights={"fc3.weight": torch.zeros(3, 3)}),
        lambda path: change(path, weights=3),
        lambda path: change(path, format=0),
        lambda path: change(path, optimizer=None),
        lambda path: change(path, config={}),
        lambda path: change(path, data=5),
        lambda path: change(path, ema=1),
        lambda path: change(path, epoch="two"),
        lambda path: change(path, model=["a"]),
    ],
)
def test_a_damaged_or_foreign_checkpoint_is_refused_and_runs_no_code(start, finished, damage):
    damage(finished)
    for command in ([*PLAIN, "--resume"], ["--evaluate", finished]):
        assert_one_line(start(*command, code=1), f"error: {finished}: ")
    assert not os.path.exists(f"{finished}.harmed")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
@pytest.mark.parametrize("place", ["checkpoints/lenet5.lock", "checkpoints/lenet5.pt"])
def test_what_is_no_file_is_refused_in_place_of_one_and_not_waited_for(start, results, place, make):
    (results / "checkpoints").mkdir(parents=True)
    make(results / place)
    for command in ([], ["--resume"], ["--evaluate", results / place]):
        assert_one_line(start(*command, code=1), f"{place}: is not a file")


def test_what_could_not_be_read_again_is_not_written(start, monkeypatch, finished):
    before = finished.read_bytes()
    monkeypatch.setattr(LeNet5, "get_extra_state", lambda self: finished)
    process = start(*PLAIN, "--seed", 3, code=1)
    assert "lenet5.pt: was not written, since nothing could read it again" in process.stderr
    assert "pathlib" in process.stderr
    assert finished.read_bytes() == before
