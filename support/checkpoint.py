"""The state of a run while it trains, and its checkpoint: writing, reading, resuming."""

import io
import os
import pickle
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from model import MODELS
from support.checks import check_network
from support.device import random_state, set_random_state
from support.errors import RunError
from support.files import atomic_write

CHECKPOINT_FORMAT = 2
# The types in a checkpoint: always, and of one that a run can be resumed from.
FIELDS = {"model": str, "weights": dict, "ema": dict | None}
RUN_FIELDS = {
    "config": dict,
    "data": dict,
    "optimizer": dict,
    "scheduler": dict,
    "random": dict,
    "shuffle": torch.Tensor,
    "epoch": int,
    "history": list,
}


@dataclass
class TrainingState:
    """All that changes while a network trains."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler
    ema: AveragedModel | None
    shuffle_generator: torch.Generator
    history: list[dict]

    def to_save(self, device: torch.device) -> dict:
        """Return the state as a checkpoint holds it; `device` is where the run trains."""
        return {
            "weights": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
            "random": random_state(device),
            "shuffle": self.shuffle_generator.get_state(),
            "epoch": len(self.history),
            "history": self.history,
        }

    def restore(self, saved: dict, device: torch.device) -> None:
        """Restore the state that `to_save` returned.

        Raises:
            RuntimeError, KeyError, TypeError, ValueError, AttributeError: it does not fit.
        """
        self.model.load_state_dict(saved["weights"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if saved["scheduler"]:  # older files hold none of a constant one
            self.scheduler.load_state_dict(saved["scheduler"])
        if self.ema:
            self.ema.load_state_dict(saved["ema"])
        self.shuffle_generator.set_state(saved["shuffle"])
        self.history.extend(saved["history"])
        set_random_state(saved["random"], device)


def write_checkpoint(path: Path, checkpoint: dict) -> None:
    """Write a checkpoint whole, or not at all.

    Raises:
        RunError: it could not be read again: it holds something else than tensors and plain values.
        OSError: it cannot be written.
    """
    # Through memory, because torch.save reports a full disk as a RuntimeError of its own.
    content = io.BytesIO()
    torch.save({"format": CHECKPOINT_FORMAT} | checkpoint, content)
    content.seek(0)
    try:
        torch.load(content, weights_only=True)
    except pickle.UnpicklingError as error:
        kind = re.search(r"GLOBAL (\S+)", str(error))
        raise RunError(
            f"{path}: was not written, since nothing could read it again: a state_dict of this run "
            f"holds {kind[1] if kind else 'an object'}; use tensors and plain Python values"
        ) from error
    with atomic_write(path) as file:
        file.write(content.getbuffer())


def load_checkpoint(path: str | os.PathLike) -> dict:
    """Read what `write_checkpoint` wrote, without running code that the file may hold.

    Raises:
        RunError: the file is damaged, or not a checkpoint of this program.
        OSError: it cannot be read.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # reading a named pipe would wait forever
        raise RunError(f"{path}: is not a file; name a checkpoint")
    content = io.BytesIO(path.read_bytes())
    try:
        checkpoint = torch.load(content, map_location="cpu", weights_only=True)
    except Exception as error:  # torch reports a file that is not its own by errors of many types
        raise RunError(f"{path}: is damaged, or not a checkpoint; train again") from error
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != CHECKPOINT_FORMAT:
        raise RunError(f"{path}: is not a checkpoint of this version of the program; train again")
    resumable = "config" in checkpoint  # or it holds weights alone
    expected = FIELDS | RUN_FIELDS if resumable else FIELDS
    for name, kind in expected.items():
        if not isinstance(checkpoint.get(name), kind):
            raise RunError(f"{path}: is damaged (its {name} is missing or odd); train again")
    if resumable and not isinstance(checkpoint["config"].get("epochs"), int):
        raise RunError(f"{path}: is damaged (its config has no epochs); train again")
    return checkpoint


def load_model(path: str | os.PathLike) -> nn.Module:
    """Return the trained network of a checkpoint, on the CPU and in evaluation mode. With --ema, it
    is the averaged one.

    Raises:
        RunError: the file is damaged, or does not fit one of MODELS.
        OSError: it cannot be read.
    """
    return model_of(path, load_checkpoint(path))


def model_of(path: str | os.PathLike, checkpoint: dict) -> nn.Module:
    """Return the trained network of a checkpoint that `load_checkpoint` read from `path`."""
    name = checkpoint.get("model")
    if name not in MODELS:
        raise RunError(
            f"{path}: holds a network called {name}, which is not in MODELS; use the script that "
            "registers it in place of main.py"
        )
    model = MODELS[name]()
    try:
        weights = checkpoint["weights"]
        if checkpoint["ema"]:  # its network is "module", beside the count "n_averaged"
            weights = {
                key.removeprefix("module."): value
                for key, value in checkpoint["ema"].items()
                if key.startswith("module.")
            }
        model.load_state_dict(weights)
    except (RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path}: {misfit(name, error)}") from error
    check_network(model, name, torch.device("cpu"))
    return model.eval()


def misfit(name: str, error: Exception) -> str:
    """Return what does not fit, in torch's words, and what to do, in one line."""
    reason = " ".join(str(error).split())
    return f"does not fit {name} as it is now ({reason}); train again, or undo the change"
