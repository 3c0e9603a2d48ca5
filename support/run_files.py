"""The files of a run called NAME: where they are, who may write them, and its metrics."""

import contextlib
import functools
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch
from filelock import FileLock, Timeout

from model import count_parameters
from support.checkpoint import RunState, save_checkpoint
from support.distributed import device_name, is_main_process, processor_name
from support.files import RunError, atomic_write
from support.options import watched_split
from support.plots import save_run_plot


class RunFiles(NamedTuple):
    """Where a run called NAME writes."""

    checkpoint: Path
    metrics: Path
    plot: Path


def run_files(results_dir: Path, name: str) -> RunFiles:
    return RunFiles(
        results_dir / "checkpoints" / f"{name}.pt",
        results_dir / "metrics" / f"{name}.json",
        results_dir / "plots" / f"{name}.png",
    )


def prepare_folder(folder: Path) -> None:
    """Make a folder for results.

    Raises:
        RunError: nothing could be written there later.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        raise RunError(f"{folder}: is not writable; choose another --results-dir")


@contextlib.contextmanager
def run_lock(files: RunFiles) -> Iterator[None]:
    """Hold the lock on a run's name; the system releases it even if the process is killed.

    Raises:
        RunError: another process holds it, or nothing can be written there.
    """
    if not is_main_process():
        yield
        return
    for path in files:
        prepare_folder(path.parent)
    path = files.checkpoint.with_suffix(".lock")
    for file in (path, *files):
        if file.exists() and not file.is_file():  # a folder, or a pipe, which would wait forever
            raise RunError(f"{file}: is not a file; move it, or choose another --name")
    try:
        with FileLock(path, timeout=0):
            remove_leftovers(files)
            try:
                yield
            finally:
                with contextlib.suppress(OSError):  # on Windows, filelock removes it itself
                    path.unlink()
    except Timeout as error:
        raise RunError(
            f"{path}: another run of this name is in progress; choose another --name"
        ) from error


def remove_leftovers(files: RunFiles) -> None:
    """Remove the half-written files of a run of this name that was killed."""
    for path in files:
        for leftover in path.parent.glob(f".{path.name}.~*.part"):
            leftover.unlink()


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a run depends on."""
    packages = ("torchvision", "numpy", "matplotlib", "pillow")
    return {"python": platform.python_version(), "torch": torch.__version__} | {
        package: version(package) for package in packages
    }


@functools.cache
def code_commit() -> str | None:
    """Return the commit of this program, with "-dirty" where files differ from it; None where there
    is no git, or no repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    if shutil.which("git") is None:
        return None
    git = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    return git.stdout.strip() or None


def metrics_of(state: RunState, config: dict, data: dict[str, int], device: torch.device) -> dict:
    """Return the numbers of a run, as plain values."""
    return {
        "config": config,
        "parameters": count_parameters(state.model),
        "history": state.history,
        "versions": package_versions(),
        "commit": code_commit(),
        "device": device_name(device),
        "processor": processor_name(),
        "data": data,
    }


def save_run(
    files: RunFiles, state: RunState, config: dict, data: dict[str, int], device: torch.device
) -> None:
    """Update the three files of a run, the checkpoint first: --resume reads only that."""
    if not is_main_process():
        return
    save_checkpoint(files.checkpoint, state, config, data, device)
    with atomic_write(files.metrics) as file:
        file.write((json.dumps(metrics_of(state, config, data, device), indent=2) + "\n").encode())
    save_run_plot(
        files.plot, config["model"], state.history, watched_split(config), config["epochs"]
    )
