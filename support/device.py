"""Where a run computes: its device with its random generator, and its CPU threads."""

import contextlib
import ctypes
import os
import platform
from collections.abc import Iterator

import torch
from torch import distributed

from support.errors import RunError

# Each kind of device: how the state of its random generator is got, and set.
DEVICES = {
    "cpu": (lambda device: torch.get_rng_state(), lambda state, device: torch.set_rng_state(state)),
    "cuda": (torch.cuda.get_rng_state, torch.cuda.set_rng_state),
    "mps": (
        lambda device: torch.mps.get_rng_state(),
        lambda state, device: torch.mps.set_rng_state(state),
    ),
}


def pick_device(name: str) -> torch.device:
    """Return the device called `name`; "auto" is CUDA or the CPU.

    Raises:
        RunError: this machine, or this build of torch, has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(name, True):
        raise RunError(f"--device {name}: torch finds none here; try --device auto")
    if name == "cuda" and distributed.is_torchelastic_launched():
        # report.py's processes, each with runs of its own, may share a GPU.
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    return torch.device(name)


def device_name(device: torch.device) -> str:
    """Describe the device: "cpu (2 threads)", "cuda (NVIDIA H100)", "2 times cpu (1 thread)"."""
    name = device.type
    if name == "cuda":
        name += f" ({torch.cuda.get_device_name(device)})"
    elif name == "cpu":
        threads = torch.get_num_threads()
        name += " (1 thread)" if threads == 1 else f" ({threads} threads)"
    processes = distributed.get_world_size() if distributed.is_initialized() else 1
    return name if processes == 1 else f"{processes} times {name}"


def set_up_cpu(threads: int | None) -> None:
    """Set the number of CPU threads (None: torch's default; under torchrun, this process's share of
    the cores), and make glibc keep the memory that tensors free.

    By default glibc returns most of it to the system, which then clears every page again: that
    takes a quarter of an epoch with batches of 128 (mallopt(3)).
    """
    if threads is None and distributed.is_torchelastic_launched():
        threads = max(1, (os.cpu_count() or 1) // int(os.environ["LOCAL_WORLD_SIZE"]))
    if threads is not None:
        torch.set_num_threads(threads)
    if platform.libc_ver()[0] == "glibc":
        trim_threshold, mmap_threshold = -1, -3  # their numbers in malloc.h
        libc = ctypes.CDLL(None)
        libc.mallopt(trim_threshold, 256 << 20)  # bytes
        libc.mallopt(mmap_threshold, 32 << 20)  # the most that it accepts


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the states of the random generators of the CPU and of `device`."""
    return {kind: DEVICES[kind][0](device) for kind in {"cpu", device.type}}


def set_random_state(states: dict[str, torch.Tensor], device: torch.device) -> None:
    """Set the random generators as `random_state` found them (of other devices: ignored)."""
    for kind in states.keys() & {"cpu", device.type}:
        DEVICES[kind][1](states[kind], device)


@contextlib.contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """Leave the random generators of the CPU and of `device` as they were."""
    states = random_state(device)
    yield
    set_random_state(states, device)


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Say in one line that the memory of a GPU is full."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise RunError(
            "the GPU's memory is full; lower --batch-size, or use --device cpu"
        ) from error
