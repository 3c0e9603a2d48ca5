"""One run by several processes: the same numbers as by one, and an end when one of them dies."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT, write_data

import main
from support.checkpoint import load_checkpoint

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]


def torchrun(processes, *arguments, **options):
    return subprocess.Popen(
        [*TORCHRUN, f"--nproc-per-node={processes}", ROOT / "main.py", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def history_of(results):
    return json.loads((results / "metrics/lenet5.json").read_text())["history"]


def same_to_1e_4(history, other):
    assert len(history) == len(other)
    for entry, expected in zip(history, other, strict=True):
        for quantity in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
            assert entry[quantity] == pytest.approx(expected[quantity], abs=1e-4), quantity


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_several_processes_train_as_one_and_go_on_for_another_number(tmp_path, processes):
    data = write_data(tmp_path / "data", train=203, test=53)  # neither divides evenly
    options = ["--batch-size", "25", "--lr", "0.05", "--data-dir", str(data)]
    alone, together = tmp_path / "alone", tmp_path / "together"
    main.main([*options, "--epochs", "3", "--results-dir", str(alone)])

    main.main([*options, "--epochs", "1", "--results-dir", str(together)])
    run = torchrun(processes, *options, "--epochs", 3, "--resume", "--results-dir", together)
    stdout, stderr = run.communicate(timeout=200)
    assert run.returncode == 0, stderr
    same_to_1e_4(history_of(together), history_of(alone))
    assert [line[:9] for line in stdout.splitlines()[1:3]] == ["epoch 2/3", "epoch 3/3"]
    assert len(stdout.splitlines()) == 6  # the title, two epochs, three files: each once
    assert sorted(path.suffix for path in together.rglob("*.*")) == [".json", ".png", ".pt"]

    # What several left, one can take up.
    more = [*options, "--epochs", "4", "--resume"]
    for results in (alone, together):
        main.main([*more, "--results-dir", str(results)])
    same_to_1e_4(history_of(together), history_of(alone))


def children_of(process):
    return Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()


@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_when_one_process_is_killed_all_end_and_the_run_can_go_on(tmp_path, data_dir, victim):
    options = ["--data-dir", data_dir, "--results-dir", tmp_path, "--resume"]
    run = torchrun(2, *options, "--epochs", 100_000)
    checkpoint = tmp_path / "checkpoints/lenet5.pt"
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

    finished = load_checkpoint(checkpoint)["epoch"]
    assert finished > 0
    main.main([*map(str, options), "--epochs", str(finished + 1)])
    assert [entry["epoch"] for entry in history_of(tmp_path)] == [*range(1, finished + 2)]


def test_missing_data_ends_every_process(tmp_path):
    run = torchrun(2, "--data-dir", tmp_path, "--results-dir", tmp_path / "results")
    _, stderr = run.communicate(timeout=60)
    assert run.returncode != 0
    assert f"error: {tmp_path}: holds neither train.tar" in stderr


def test_an_error_of_the_first_process_ends_the_others(tmp_path, data_dir):
    results = tmp_path / "results"
    results.write_text("a file where the folder should be")
    run = torchrun(2, "--data-dir", data_dir, "--results-dir", results)
    _, stderr = run.communicate(timeout=60)
    assert run.returncode != 0
    assert f"error: {results}" in stderr
