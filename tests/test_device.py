"""Where a run computes: which device and how many threads are chosen; and that every command works
on an accelerator, though a simulated one."""

import json
import os

import numpy as np
import pytest
import torch
from helpers import ROOT, make_digits, metrics_of, to_png, write_data
from torch import nn
from torch.utils import backend_registration

import main
from dataset import MNIST, augment, data_loader
from model import LeNet5
from support.device import (
    DEVICES,
    device_name,
    pick_device,
    random_state,
    set_random_state,
    set_up_cpu,
)
from support.errors import RunError
from support.settings import Settings

# --- which device, how many threads -----------------------------------------------------------


@pytest.fixture
def devices(monkeypatch):
    """Makes torch find these devices, and no others."""

    def find(*kinds, gpus=8):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in kinds)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus * ("cuda" in kinds))
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in kinds)

    return find


@pytest.mark.parametrize(
    ("found", "picked"),
    [((), "cpu"), (("mps",), "cpu"), (("cuda",), "cuda"), (("cuda", "mps"), "cuda")],
)
def test_auto_is_cuda_or_the_cpu_and_any_device_has_a_name(devices, found, picked):
    devices(*found)
    assert pick_device("auto") == torch.device(picked)
    assert all(pick_device(kind) == torch.device(kind) for kind in ("cpu", *found))


def test_a_device_that_is_not_there_is_refused(devices):
    devices("mps")
    with pytest.raises(RunError, match=r"^--device cuda: "):
        pick_device("cuda")


@pytest.mark.parametrize(("gpus", "index"), [(8, 1), (1, 0)])
def test_under_torchrun_the_processes_share_the_gpus_out(devices, under_torchrun, gpus, index):
    devices("cuda", gpus=gpus)
    assert pick_device("auto") == torch.device("cuda", index)
    assert pick_device("cpu") == torch.device("cpu")


@pytest.fixture
def threads(monkeypatch):
    """The numbers of threads that are asked of torch."""
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    return asked


def test_torch_chooses_the_number_of_threads_unless_it_is_given(threads):
    set_up_cpu(None)
    set_up_cpu(3)
    assert threads == [3]


@pytest.mark.parametrize(("cores", "share"), [(9, 2), (2, 1)])
def test_four_processes_of_torchrun_share_the_cores(
    threads, under_torchrun, monkeypatch, cores, share
):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    set_up_cpu(None)
    set_up_cpu(3)
    assert threads == [share, 3]


def test_the_cpu_is_described_with_its_threads(monkeypatch):
    for threads, description in ((1, "cpu (1 thread)"), (8, "cpu (8 threads)")):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert device_name(torch.device("cpu")) == description


def test_random_states_are_those_of_the_cpu_and_of_this_very_device(monkeypatch):
    gpus = {0: "first", 1: "second"}
    monkeypatch.setitem(
        DEVICES,
        "cuda",
        (
            lambda device: gpus[device.index],
            lambda state, device: gpus.update({device.index: state}),
        ),
    )
    device = torch.device("cuda", 1)
    states, drawn = random_state(device), torch.rand(3)
    gpus[1] = "later"
    set_random_state(states, device)
    assert torch.equal(torch.rand(3), drawn)
    assert gpus == {0: "first", 1: "second"}


# --- on a simulated device --------------------------------------------------------------------

# torch calls this experimental.
CAN_SIMULATE = hasattr(backend_registration, "_setup_privateuseone_for_python_backend")
if CAN_SIMULATE:
    import simulated_device  # noqa: F401 (it makes torch.sim)


@pytest.fixture
def sim(monkeypatch, without_plots):
    """torch.sim, the simulated device, which --device can name."""
    if not CAN_SIMULATE:
        pytest.skip(f"torch {torch.__version__} lets no device be written in Python")
    monkeypatch.setitem(DEVICES, "sim", (torch.sim.get_rng_state, torch.sim.set_rng_state))
    torch.sim.counts.clear()
    with torch.sim as sim:
        yield sim


def history_of(results, name="lenet5"):
    return [{**entry, "seconds": 0} for entry in metrics_of(results, name)["history"]]


def test_the_simulated_device_refuses_what_cuda_refuses(sim):
    here, there = torch.arange(3), torch.arange(3, device="sim")
    for mixed in (lambda: here + there, lambda: here[there], lambda: there.add_(here)):
        with pytest.raises(RuntimeError, match="same device"):
            mixed()
    assert (there + torch.tensor(1))[[0, 2]].cpu().tolist() == [1, 3]
    assert there.to("cpu").add_(here).tolist() == [0, 2, 4]
    assert there[there > 0].device == there.device
    assert sim.counts["reads"] == 3  # two results, and how many are above 0


@pytest.mark.parametrize(
    "options",
    [
        ("--ema", 0.9, "--weight-decay", 0.01),
        ("--model", "mlp", "--validation", 50),
        ("--optimizer", "muon", "--label-smoothing", 0.1),
    ],
    ids=["lenet5", "mlp", "muon"],
)
def test_a_run_on_a_device_gives_the_same_numbers_as_on_the_cpu(sim, start, tmp_path, options):
    options = ("--epochs", 2, "--batch-size", 40, "--name", "run", *options)
    for device in ("cpu", "sim"):
        start("--device", device, *options, results=tmp_path / device)
    assert metrics_of(tmp_path / "sim", "run")["device"] == "sim"
    assert history_of(tmp_path / "sim", "run") == history_of(tmp_path / "cpu", "run")


def test_a_resumed_run_draws_on_from_the_devices_random_numbers(sim, start, tmp_path):
    options = ("--device", "sim", "--augment", "--dropout", 0.5, "--ema", 0.9)
    options += ("--schedule", "constant")  # does not depend on --epochs
    start(*options, "--epochs", 2, results=tmp_path / "whole")
    start(*options, "--epochs", 1, results=tmp_path / "resumed")
    torch.manual_seed(99)
    start(*options, "--epochs", 2, "--resume", results=tmp_path / "resumed")
    assert history_of(tmp_path / "resumed") == history_of(tmp_path / "whole")


def test_the_average_of_the_weights_counts_its_updates_on_the_device(sim, epochs_of):
    """Where NCCL, with which processes share it, needs it."""
    [epoch] = epochs_of("--device", "sim", "--epochs", 1, "--ema", 0.9)
    assert {value.device.type for value in epoch.ema.state_dict().values()} == {"sim"}


def test_a_network_trained_on_a_device_is_used_on_any(sim, start, results, tmp_path):
    start("--device", "sim", "--epochs", 1)
    checkpoint = results / "checkpoints" / "lenet5.pt"
    photo = np.full((90, 80), 255, np.uint8)
    photo[20:70, 36:44] = 0
    (tmp_path / "one.png").write_bytes(to_png(photo))
    for command in (
        ("--evaluate", checkpoint, "--json"),
        ("--predict", tmp_path / "one.png", "--checkpoint", checkpoint, "--json"),
    ):
        launched = sim.counts["launches"]
        there = start("--device", "sim", *command).stdout
        assert sim.counts["launches"] > launched
        assert there == start("--device", "cpu", *command).stdout


def test_the_quick_report_runs_on_a_device(sim, start, tmp_path, results, monkeypatch):
    monkeypatch.setattr(Settings, "device", "sim")  # its default
    data = write_data(tmp_path / "small", train=30, test=10)
    out = start("--seeds", 2, "--epochs", 1, data=data, program="report").stdout
    records = list((results / "quick-report" / "runs").iterdir())
    assert f"{len(records)} of {len(records)} runs are done" in out
    assert {json.loads(path.read_text(encoding="utf-8"))["device"] for path in records} == {"sim"}


SCRIPT = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
import torch, simulated_device, main
from helpers import LeNet5InFloat64
from support.device import DEVICES
main.MODELS["lenet5"] = LeNet5InFloat64
DEVICES["sim"] = (torch.sim.get_rng_state, torch.sim.set_rng_state)
with torch.sim:
    main.main()
"""


def test_several_devices_train_as_one(sim, start, tmp_path, in_float64):
    (tmp_path / "simulated.py").write_text(SCRIPT, encoding="utf-8")
    options = ("--device", "sim", "--epochs", 1, "--batch-size", 30, "--augment", "--ema", 0.9)
    start(*options, results=tmp_path / "one")
    two = start(*options, results=tmp_path / "two", script=tmp_path / "simulated.py", processes=2)
    assert "on 2 times sim" in two.stdout
    [alone], [together] = history_of(tmp_path / "one"), history_of(tmp_path / "two")
    assert together == pytest.approx(alone, abs=1e-8)


# --- how a device is used ---------------------------------------------------------------------


@pytest.fixture
def parts(sim):
    """What train() takes."""
    model = LeNet5().to("sim")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    return model, torch.device("sim"), nn.CrossEntropyLoss(), optimizer


@pytest.fixture
def small_set():
    images, labels = make_digits(60, seed=0)
    return MNIST((torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels)))


def test_batches_may_come_from_the_cpu(parts, small_set):
    model, device, criterion, optimizer = parts
    loader = data_loader(small_set, 20)
    main.train(model, loader, device, criterion, optimizer)
    main.test(model, loader, device, criterion)


def test_the_cpu_waits_for_results_only_at_the_end_of_an_epoch(sim, parts, small_set):
    model, device, criterion, optimizer = parts
    loader = data_loader(small_set.to(device), 20)
    loader.dataset.transform = augment
    augment(torch.zeros(1, 1, 28, 28, device=device))  # makes what all batches share
    for work in (
        lambda: main.train(model, loader, device, criterion, optimizer),
        lambda: main.test(model, loader, device, criterion),
    ):
        sim.counts.clear()
        work()
        assert sim.counts["reads"] == 2  # the loss and the accuracy
        assert sim.counts["uploads"] <= len(loader)  # the list of a batch
