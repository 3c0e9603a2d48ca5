"""The files of a run (checkpoint, metrics, plot), the lock on its name, and what it prints."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch import nn

from dataset import MNIST
from model import count_parameters, title_of
from support.checkpoint import TrainingState, load_checkpoint, misfit, write_checkpoint
from support.device import device_name
from support.distributed import check_same_everywhere, from_main_process, is_main_process
from support.errors import RunError
from support.files import atomic_write
from support.plots import SPLIT_TITLES, draw_run, save_figure
from support.provenance import code_commit, fingerprint, package_versions, processor_name
from support.settings import Settings, changed_settings, option

LOCAL = {"data_dir", "results_dir", "threads"}  # settings that each process may have of its own


class RunFiles:
    """What a run writes, and what it is checked against when it is resumed.

    Args:
        trn_set, watched_set: the data sets, on the CPU.

    Raises:
        RunError: the processes of the run have different settings or data.

    Attributes:
        checkpoint, metrics, plot: the paths of its files; `paths` holds all three.
    """

    def __init__(
        self, settings: Settings, device: torch.device, trn_set: MNIST, watched_set: MNIST
    ) -> None:
        self.settings, self.device = settings, device
        self.checkpoint = settings.results_dir / "checkpoints" / f"{settings.name}.pt"
        self.metrics = settings.results_dir / "metrics" / f"{settings.name}.json"
        self.plot = settings.results_dir / "plots" / f"{settings.name}.png"
        self.paths = (self.checkpoint, self.metrics, self.plot)
        self.made_by = {  # found at the start: the code may change while it runs
            "versions": package_versions(),
            "commit": code_commit(),
            "device": device_name(device),
            "processor": processor_name(),
        }
        self.watched_title = SPLIT_TITLES[settings.watched]
        self.data = {"training": fingerprint(trn_set), self.watched_title: fingerprint(watched_set)}
        self.counts = (
            f"{len(trn_set):,} training and {len(watched_set):,} {self.watched_title} images"
        )
        check_same_everywhere(
            {option(name): value for name, value in settings.plain().items() if name not in LOCAL}
            | {f"the checksum of the {name} images": crc for name, crc in self.data.items()}
        )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock on the run's name, and print what the run replaces. The system releases
        the lock even if the process is killed.

        Raises:
            RunError: another process holds it, or nothing can be written there.
        """
        if not is_main_process():
            yield
            return
        for path in self.paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not os.access(path.parent, os.W_OK):
                raise RunError(f"{path.parent}: is not writable; choose another --results-dir")
        lock = self.checkpoint.with_suffix(".lock")
        for path in (lock, *self.paths):
            if path.exists() and not path.is_file():  # opening a pipe would block
                raise RunError(f"{path}: is not a file; move it, or choose another --name")
        try:
            with FileLock(lock, timeout=0):
                self.remove_leftovers()
                if not self.settings.resume:
                    self.announce_replacement()
                try:
                    yield
                finally:
                    with contextlib.suppress(OSError):  # on Windows, filelock removes it itself
                        lock.unlink()
        except Timeout as error:
            raise RunError(
                f"{lock}: another run of this name is in progress; choose another --name"
            ) from error

    def remove_leftovers(self) -> None:
        """Remove the half-written files of a run of this name that was killed."""
        for path in self.paths:
            for leftover in path.parent.glob(f".{path.name}.~*.part"):
                leftover.unlink()

    def announce_replacement(self) -> None:
        """Print what this run is about to replace, if that is worth keeping."""
        if not self.checkpoint.exists():
            return
        try:
            saved = load_checkpoint(self.checkpoint)
        except RunError:
            replaced = "a file that cannot be read as a checkpoint"
        else:
            replaced = difference(saved, self.settings, self.data)
        if replaced:
            print(
                f"{self.checkpoint}: replacing {replaced}; --name keeps both, and --resume "
                "continues an unfinished run"
            )

    def resume(self, state: TrainingState) -> None:
        """Put `state` where the checkpoint of this name left off, if there is one.

        Raises:
            RunError: the checkpoint cannot be used, or was made with other settings or other data.
        """
        # The other processes of a run may be on machines that have no such file.
        exists = is_main_process() and self.checkpoint.exists()
        saved = from_main_process(load_checkpoint(self.checkpoint) if exists else None)
        if saved is None:
            print(f"{self.checkpoint}: does not exist yet; starting from the beginning")
            return
        check_resumable(self.checkpoint, saved, self.settings, self.data)
        try:
            state.restore(saved, self.device)
        except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunError(f"{self.checkpoint}: {misfit(self.settings.model, error)}") from error
        self.save(state)  # the run may have died after writing only some of its files

    def save(self, state: TrainingState) -> None:
        """Update the three files of the run, the checkpoint first: --resume reads only that."""
        if not is_main_process():
            return
        settings = self.settings
        checkpoint = {"model": settings.model, "config": settings.plain(), "data": self.data}
        write_checkpoint(self.checkpoint, checkpoint | state.to_save(self.device))
        with atomic_write(self.metrics) as file:
            file.write((json.dumps(self.metrics_of(state), indent=2) + "\n").encode())
        figure = draw_run(settings.model, state.history, settings.watched, settings.epochs)
        save_figure(figure, self.plot, compression=1)  # after every epoch, so fast

    def title_line(self, model: nn.Module) -> str:
        """Return what is printed before the first epoch."""
        name = title_of(self.settings.model)
        parameters, device = count_parameters(model), self.made_by["device"]
        return f"{name}, {parameters:,} parameters, on {device}: {self.counts}"

    def epoch_line(self, entry: dict) -> str:
        """Return what is printed after an epoch, given its entry of the history."""
        epochs, watched = self.settings.epochs, self.settings.watched
        return (
            f"epoch {entry['epoch']:{len(str(epochs))}}/{epochs}"
            f"  train loss {entry['train_loss']:.4f}, accuracy {entry['train_accuracy']:.2%}"
            f"  {self.watched_title} loss {entry[f'{watched}_loss']:.4f}, "
            f"accuracy {entry[f'{watched}_accuracy']:.2%}  {entry['seconds']:.1f} s"
        )

    def metrics_of(self, state: TrainingState) -> dict:
        """Return the numbers of the run, and what they depend on, as plain values."""
        return {
            "config": self.settings.plain(),
            "parameters": count_parameters(state.model),
            "history": state.history,
            **self.made_by,
            "data": self.data,
        }


def difference(saved: dict, settings: Settings, data: dict[str, int]) -> str:
    """Return how what a checkpoint holds differs from a run with these settings and fingerprints of
    its data; "" if it is the same run, finished."""
    if "config" not in saved:
        return "the weights of a network"
    if saved["config"].get("name", settings.name) != settings.name:  # on a disk that ignores case
        return f"the run {saved['config']['name']}"
    changed = changed_settings(saved["config"], settings)
    epochs = saved["config"]["epochs"]
    if epochs != settings.epochs:
        changed = {"epochs": epochs} | changed
    if changed:
        options = ", ".join(f"{option(name)} {changed[name]}" for name in changed)
        return f"a run with {options}"
    if saved["data"] != data:
        return "a run on other images"
    done = saved["epoch"]
    return "" if done == epochs else f"a run of which {done} of {epochs} epochs were done"


def check_resumable(path: Path, saved: dict, settings: Settings, data: dict[str, int]) -> None:
    """Raise RunError, saying what differs, unless the checkpoint at `path` is one of a run with
    these settings and fingerprints of its data."""
    if "config" not in saved:
        raise RunError(f"{path}: holds weights only; train without --resume")
    epochs = saved["config"]["epochs"]
    # Checked first: with --regularize, --no-aug-epochs depends on --epochs.
    if epochs != settings.epochs and (settings.schedule != "constant" or settings.no_aug_epochs):
        raise RunError(
            f"--epochs was {epochs} when {path} was written, and is {settings.epochs}: the "
            "schedule and --no-aug-epochs depend on the length of a run; set it back, or train "
            f"all {settings.epochs} epochs without --resume (--name NAME keeps both runs)"
        )
    if changed := changed_settings(saved["config"], settings):
        name = next(iter(changed))
        raise RunError(
            f"{option(name)} was {changed[name]} when {path} was written, and is "
            f"{getattr(settings, name)}: set it back, or train again without --resume"
        )
    for name, number in data.items():
        if saved["data"].get(name) != number:
            raise RunError(f"{path}: belongs to other {name} images; use those")
    if saved["epoch"] > settings.epochs:
        raise RunError(f"{path}: already has {saved['epoch']} epochs; raise --epochs")
    if not is_whole(saved["history"], saved["epoch"], settings.watched):
        raise RunError(f"{path}: its history is damaged; train again without --resume")


def is_whole(history: list[dict], epochs: int, watched: str) -> bool:
    """Return whether a history has all the numbers of each of its epochs."""
    names = ("train_loss", "train_accuracy", f"{watched}_loss", f"{watched}_accuracy")
    return [entry.get("epoch") for entry in history] == list(range(1, epochs + 1)) and all(
        isinstance(entry.get(name), float | int)
        for entry in history
        for name in (*names, "seconds", "lr")
    )
