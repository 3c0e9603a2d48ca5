"""A run by several processes: the same numbers as by one, and an end when one of them dies."""

import functools
import json
import os
import platform
import runpy
import signal
import socket
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from helpers import (
    MINE,
    ROOT,
    assert_one_line,
    make_digits,
    make_members,
    metrics_of,
    write_data,
    write_tar,
)
from torch import distributed

import main
from model import MODELS
from support.checkpoint import load_checkpoint, load_model
from support.settings import Settings

# --- each process -----------------------------------------------------------------------------


@pytest.fixture
def gpus(monkeypatch):
    """Makes torch find so many; returns which of them it is told to use, and how to connect."""

    def find(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        return asked

    def connect(backend):
        asked.append(backend)
        raise distributed.DistError("no connection\nat socket.cpp:3")

    asked = []
    monkeypatch.setattr(torch.cuda, "set_device", asked.append)
    monkeypatch.setattr(distributed, "init_process_group", connect)
    return find


def test_one_run_needs_a_gpu_for_each_of_its_processes(under_torchrun, start, gpus):
    asked = gpus(1)
    process = start("--device", "cuda", code=1)
    assert_one_line(process, "4 processes cannot share 1 GPU in", "--nproc-per-node 1")
    assert asked == []


def test_the_processes_of_one_run_speak_through_their_own_gpus(under_torchrun, start, gpus):
    asked = gpus(4)
    process = start("--device", "cuda", code=1)
    assert asked == [torch.device("cuda", 1), "nccl"]
    assert_one_line(process, "do not find each other (no connection)")


@pytest.fixture
def first_of(under_torchrun, monkeypatch):
    """Makes this process the first of so many."""

    def first_of(processes):
        with socket.create_server(("localhost", 0)) as server:
            port = server.getsockname()[1]
        values = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": processes, "MASTER_PORT": port}
        for name, value in {**values, "MASTER_ADDR": "localhost"}.items():
            monkeypatch.setenv(name, str(value))

    yield first_of
    if distributed.is_initialized():
        distributed.destroy_process_group()


def test_a_process_that_finds_no_others_ends_with_one_line(first_of, start, monkeypatch):
    first_of(2)
    connect = functools.partial(distributed.init_process_group, timeout=timedelta(seconds=1))
    monkeypatch.setattr(distributed, "init_process_group", connect)
    process = start(code=1)
    assert_one_line(process, "the processes of this run do not find each other", "--master-port")


@pytest.mark.parametrize(("arguments", "code"), [([], 0), (["--validation", 200], 1)])
def test_processes_have_parted_when_a_run_ends(
    first_of, start, results, without_plots, arguments, code
):
    first_of(1)
    start("--epochs", 1, *arguments, code=code)
    assert not distributed.is_initialized()
    assert (results / "checkpoints/lenet5.pt").exists() == (code == 0)


def test_a_run_of_its_own_in_one_of_torchruns_processes_is_written(
    under_torchrun, data_dir, results, without_plots
):
    """As report.py's: they share no run."""
    settings = Settings(epochs=1, data_dir=data_dir, results_dir=results)
    main.run(settings, "cpu", *main.load_sets(settings))
    assert (results / "checkpoints/lenet5.pt").exists()


@pytest.fixture
def start_next(start, monkeypatch, without_plots):
    """Starts what is the first process of a run, then what is the second, until they have told each
    other what they have; then each goes on alone."""
    told = []

    def start_next(*arguments, **options):
        with monkeypatch.context() as patch:

            def all_gather(values, value):
                told.append(value)
                values[:] = told[0], value
                patch.undo()

            patch.setattr(distributed, "is_initialized", lambda: True)
            patch.setattr(distributed, "get_world_size", lambda: 2)
            patch.setattr(distributed, "all_gather_object", all_gather)
            return start("--epochs", 1, *arguments, **options)

    return start_next


def permuted(folder):
    images, labels = make_digits(200, seed=1)
    write_tar(folder / "train.tar", make_members(images[::-1], labels[::-1]))


@pytest.mark.parametrize(
    ("arguments", "change_data", "difference"),
    [
        (["--seed", 3], None, "--seed is 3, but 0 in"),
        (["--lr", 0.1], None, "--lr is 0.1, but 0.05 in"),
        ([], permuted, "the checksum of the training images is "),
        ([], functools.partial(write_data, train=190), "the checksum of the training images is "),
        ([], functools.partial(write_data, test=40), "the checksum of the test images is "),
    ],
)
def test_processes_of_one_run_that_differ_end_with_one_line_on_what_differs_where(
    start_next, data_dir, arguments, change_data, difference
):
    start_next()
    if change_data:
        change_data(data_dir)
    here = f"process 1 on {platform.node()}: "
    assert_one_line(start_next(*arguments, code=1), here + difference, "in process 0 on ")


def test_processes_of_one_run_may_have_folders_and_threads_of_their_own(
    start_next, data_dir, tmp_path
):
    start_next()
    data_dir.rename(tmp_path / "elsewhere")
    start_next("--threads", 1, data=tmp_path / "elsewhere", results=tmp_path / "other")


# --- several processes ------------------------------------------------------------------------


LENET5_IN_FLOAT64 = """
from helpers import LeNet5InFloat64
from main import main
from model import MODELS

MODELS["lenet5"] = LeNet5InFloat64
main()
"""


def assert_same_history(results, expected):
    history, other = (metrics_of(folder)["history"] for folder in (results, expected))
    assert len(history) == len(other)
    for entry, wanted in zip(history, other, strict=True):
        for quantity in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
            assert entry[quantity] == pytest.approx(wanted[quantity], abs=1e-8), quantity


def assert_same_weights(results, expected):
    one, other = (load_model(folder / "checkpoints/lenet5.pt") for folder in (results, expected))
    for weight, wanted in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(weight, wanted, atol=1e-8, rtol=0)


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_several_processes_train_as_one_and_go_on_for_another_number(
    start, tmp_path, without_plots, in_float64, processes
):
    script = tmp_path / "in_float64.py"
    script.write_text(LENET5_IN_FLOAT64, encoding="utf-8")
    modules = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    data = write_data(tmp_path / "odd", train=203, test=53)  # neither divides evenly
    alone, together = tmp_path / "alone", tmp_path / "together"
    arguments = ["--batch-size", 25, "--lr", 0.05, "--schedule", "constant"]
    arguments += ["--momentum", 0.9, "--weight-decay", 0.01, "--augment", "--threads", 1]
    start(*arguments, "--epochs", 3, data=data, results=alone)
    start(*arguments, "--epochs", 1, data=data, results=together)
    process = start(
        *(*arguments, "--epochs", 3, "--resume"),
        data=data,
        results=together,
        script=script,
        env={**os.environ, **modules},
        processes=processes,
    )
    assert_same_history(together, alone)
    assert_same_weights(together, alone)

    lines = process.stdout.splitlines()
    # Each of them once. (gloo speaks as well in older versions of torch.)
    title, *epochs, _, _, _ = [line for line in lines if not line.startswith("[Gloo]")]
    assert f"on {processes} times cpu (1 thread): 203 training and 53 test images" in title
    assert [line[:9] for line in epochs] == ["epoch 2/3", "epoch 3/3"]
    assert sorted(path.suffix for path in together.rglob("*.*")) == [".json", ".png", ".pt"]

    for results in (alone, together):  # what several left, one can take up
        start(*arguments, "--epochs", 4, "--resume", data=data, results=results)
    assert_same_history(together, alone)


@pytest.mark.cuda(devices=2)
def test_several_gpus_train_as_one(start, tmp_path):
    arguments = ["--device", "cuda", "--epochs", 2, "--batch-size", 25, "--lr", 0.05]
    start(*arguments, results=tmp_path / "alone")
    start(*arguments, results=tmp_path / "together", processes=2)
    assert_same_history(tmp_path / "together", tmp_path / "alone")


def children_of(process):
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return children.read_text(encoding="utf-8").split()


@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_when_one_process_is_killed_all_end_and_what_they_trained_is_used_and_goes_on(
    start, tmp_path, results, monkeypatch, without_plots, victim
):
    """With batch norm, whose statistics differ between processes, and averaged weights: what was
    printed is what evaluation gives all the same."""
    script = tmp_path / "mine.py"
    script.write_text(MINE, encoding="utf-8")
    arguments = ["--model", "mynet", "--schedule", "constant", "--ema", 0.9, "--resume"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    options = {"script": script, "env": environment, "processes": 2}
    run = start(*arguments, "--epochs", 100_000, wait=False, **options)
    checkpoint = results / "checkpoints/mynet.pt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    processes = children_of(run)
    ranks = {}
    for pid in processes:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        ranks[next(int(value[5:]) for value in environment if value.startswith(b"RANK="))] = pid
    os.kill(int(ranks[victim]), signal.SIGKILL)
    _, stderr = run.communicate(timeout=60)
    assert run.returncode != 0
    assert f"Signal 9 (SIGKILL) received by PID {ranks[victim]}" in stderr
    assert not any(Path(f"/proc/{pid}").exists() for pid in processes)

    monkeypatch.setitem(MODELS, "mynet", None)  # so that it is as before
    runpy.run_path(str(script))
    finished = load_checkpoint(checkpoint)["history"]
    result = json.loads(start("--evaluate", checkpoint, "--json").stdout)
    assert result["loss"] == pytest.approx(finished[-1]["test_loss"], rel=1e-4)
    start(*arguments, "--epochs", len(finished) + 1)
    *before, last = metrics_of(results, "mynet")["history"]
    assert before == finished  # trained once: it took the same seconds
    assert last["epoch"] == len(finished) + 1


def test_an_error_of_the_first_process_ends_the_others(start, results):
    results.write_text("a file where the folder should be", encoding="utf-8")
    process = start(processes=2, code=1)
    assert f"error: {results}" in process.stderr
