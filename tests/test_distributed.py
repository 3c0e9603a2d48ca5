"""A run by several processes: the same numbers as by one, and an end when one of them dies."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch
from helpers import ROOT, metrics_of, write_data
from torch import nn

import main
from support.checkpoint import load_checkpoint, load_model
from support.distributed import distribute, process_group
from support.errors import RunError
from support.settings import Settings


def test_one_run_needs_a_gpu_for_each_of_its_processes(under_torchrun, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with (
        pytest.raises(RunError, match=r"4 processes cannot share 1 GPU in .*--nproc-per-node 1"),
        process_group(torch.device("cuda", 0)),
    ):
        pass


def test_the_processes_of_one_run_speak_through_their_own_gpus(under_torchrun, monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", calls.append)
    monkeypatch.setattr(torch.distributed, "init_process_group", calls.append)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    with process_group(torch.device("cuda", 1)):
        assert calls == [torch.device("cuda", 1), "nccl"]


def test_without_torchrun_the_network_stays_as_it_is():
    model = nn.Linear(2, 2)
    assert distribute(model) is model


def test_a_run_of_its_own_in_one_of_torchruns_processes_is_written(
    under_torchrun, data_dir, tmp_path
):
    """As report.py's: they share no run."""
    settings = Settings(epochs=1, data_dir=data_dir, results_dir=str(tmp_path / "results"))
    main.run(settings, torch.device("cpu"), *main.load_sets(settings))
    assert (tmp_path / "results/checkpoints/lenet5.pt").exists()


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
    more = [*arguments, "--epochs", 3, "--resume"]
    process = start(
        *more,
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
def test_when_one_process_is_killed_all_end_and_the_run_can_go_on(
    start, results, without_plots, victim
):
    arguments = ["--model", "mlp", "--schedule", "constant", "--resume"]
    run = start(*arguments, "--epochs", 100_000, processes=2, wait=False)
    checkpoint = results / "checkpoints/mlp.pt"
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

    finished = load_checkpoint(checkpoint)["history"]
    assert finished
    start(*arguments, "--epochs", len(finished) + 1)
    *before, last = metrics_of(results, "mlp")["history"]
    assert before == finished  # trained once: it took the same seconds
    assert last["epoch"] == len(finished) + 1


@pytest.mark.slow
def test_missing_data_ends_every_process(start, tmp_path):
    process = start(data=tmp_path, processes=2, code=1)
    assert f"error: {tmp_path}: holds neither train.tar" in process.stderr


def test_an_error_of_the_first_process_ends_the_others(start, results):
    results.write_text("a file where the folder should be", encoding="utf-8")
    process = start(processes=2, code=1)
    assert f"error: {results}" in process.stderr
