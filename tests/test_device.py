"""Where a run computes: which device and how many threads are chosen."""

import os

import pytest
import torch

from support.device import device_name, pick_device, set_up_cpu
from support.errors import RunError

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
    assert threads == []
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
