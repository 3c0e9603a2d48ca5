"""The state of a run while it trains, and its checkpoint: saving, loading, resuming."""

import io
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dataset import MNIST
from model import MODELS
from support.distributed import from_main_process, is_main_process
from support.files import RunError, atomic_write
from support.options import changed_settings, watched_split

CHECKPOINT_FORMAT = 2
GENERATORS = {"cpu": torch, "cuda": torch.cuda, "mps": torch.mps}  # each device's global one


@dataclass
class RunState:
    """All that changes while a network trains, and that a checkpoint therefore keeps."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler | None
    ema: AveragedModel | None
    shuffle_generator: torch.Generator
    history: list[dict]


def make_ema(model: nn.Module, decay: float) -> AveragedModel:
    """Copy `model`; the copy's weights are to be an exponential moving average of its weights:
    after each step, decay * (their old value) + (1 - decay) * (the weight of `model`). The first
    step only copies."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))


def fingerprint(dataset: MNIST) -> int:
    """CRC-32 of all images and labels, on the CPU: tells one data set from another."""
    return zlib.crc32(dataset.images.numpy(), zlib.crc32(dataset.labels.numpy()))


# --- saving -----------------------------------------------------------------------------------


def save_checkpoint(
    path: Path, state: RunState, config: dict, data: dict[str, int], device: torch.device
) -> None:
    """Write all that is needed to use the network or to continue training it.

    Args:
        config: the settings of the run.
        data: the fingerprints of the data sets, by what they are called.
    """
    write_checkpoint(
        path,
        {
            "format": CHECKPOINT_FORMAT,
            "model": config["model"],
            "weights": state.model.state_dict(),
            "optimizer": state.optimizer.state_dict(),
            "scheduler": state.scheduler.state_dict() if state.scheduler else None,
            "ema": state.ema.state_dict() if state.ema else None,
            "random": {kind: GENERATORS[kind].get_rng_state() for kind in {"cpu", device.type}},
            "shuffle": state.shuffle_generator.get_state(),
            "epoch": len(state.history),
            "history": state.history,
            "config": config,
            "data": data,
        },
    )


def write_checkpoint(path: Path, checkpoint: dict) -> None:
    """Write a checkpoint whole, or not at all.

    Raises:
        OSError: it cannot be written.
    """
    # Through memory, because torch.save reports a full disk as a RuntimeError of its own.
    content = io.BytesIO()
    torch.save(checkpoint, content)
    with atomic_write(path) as file:
        file.write(content.getbuffer())


# --- loading ----------------------------------------------------------------------------------


def load_checkpoint(path: Path) -> dict:
    """Read what `write_checkpoint` wrote, without running code that the file may hold.

    Raises:
        RunError: the file is damaged, or not a checkpoint of this program.
        OSError: it cannot be read.
    """
    if path.exists() and not path.is_file():  # reading a named pipe would wait forever
        raise RunError(f"{path}: is not a file; name a checkpoint")
    content = io.BytesIO(path.read_bytes())
    try:
        checkpoint = torch.load(content, map_location="cpu", weights_only=True)
    except Exception as error:  # torch reports a file that is not its own by errors of many types
        raise RunError(f"{path}: is damaged, or not a checkpoint; train again") from error
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != CHECKPOINT_FORMAT:
        raise RunError(f"{path}: is not a checkpoint of this version of the program; train again")
    return checkpoint


def load_model(path: Path) -> nn.Module:
    """Return the trained network of a checkpoint, on the CPU; of a run with --ema, the averaged
    one.

    Raises:
        RunError: the file is damaged, or not a checkpoint of one of MODELS.
        OSError: it cannot be read.
    """
    checkpoint = load_checkpoint(path)
    try:
        model = MODELS[checkpoint["model"]]()
        model.load_state_dict(checkpoint["weights"])
        if checkpoint["ema"]:
            ema = make_ema(model, decay=0.0)
            ema.load_state_dict(checkpoint["ema"])
            model = ema.module
    except (RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path}: holds no weights of {' or '.join(MODELS)}; train again") from error
    return model.to(memory_format=torch.channels_last).eval()


def resume(
    path: Path, state: RunState, config: dict, data: dict[str, int], device: torch.device
) -> bool:
    """Put `state` where the checkpoint of this run left off; return False if there is none.

    Raises:
        RunError: the checkpoint cannot be used, or was made with other settings or other data.
    """
    # The other processes of a run may be on machines that have no such file.
    checkpoint = from_main_process(
        load_checkpoint(path) if is_main_process() and path.exists() else None
    )
    if checkpoint is None:
        print(f"{path}: does not exist yet; starting from the beginning")
        return False
    try:
        check_resumable(path, checkpoint, config, data)
        check_history(path, checkpoint, watched=watched_split(config))
        state.model.load_state_dict(checkpoint["weights"])
        state.optimizer.load_state_dict(checkpoint["optimizer"])
        if state.scheduler:
            state.scheduler.load_state_dict(checkpoint["scheduler"])
        if state.ema:
            state.ema.load_state_dict(checkpoint["ema"])
        state.shuffle_generator.set_state(checkpoint["shuffle"])
        state.history.extend(checkpoint["history"])
        for kind in checkpoint["random"].keys() & {"cpu", device.type}:
            GENERATORS[kind].set_rng_state(checkpoint["random"][kind])
    except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"{path}: does not fit this run; train again without --resume") from error
    return True


def check_resumable(path: Path, checkpoint: dict, config: dict, data: dict[str, int]) -> None:
    """Raise RunError, saying what differs, unless resuming equals a run without interruption."""
    changed = changed_settings(checkpoint["config"], config)
    epochs = checkpoint["config"]["epochs"]
    # Before other settings: --regularize derives some from it.
    if epochs != config["epochs"] and (config["schedule"] != "constant" or config["no_aug_epochs"]):
        raise RunError(
            f"--epochs was {epochs} when {path} was written, and is {config['epochs']}: schedule "
            "and --no-aug-epochs depend on the length of a run; set it back, or train all "
            f"{config['epochs']} epochs without --resume (--name NAME keeps both runs)"
        )
    if changed:
        name = next(iter(changed))
        raise RunError(
            f"--{name.replace('_', '-')} was {changed[name]} when {path} was written, and is "
            f"{config[name]}: set it back, or train again without --resume"
        )
    for name, number in data.items():
        if checkpoint["data"][name] != number:
            raise RunError(f"{path}: belongs to other {name} images; use those")
    if checkpoint["epoch"] > config["epochs"]:
        raise RunError(f"{path}: already has {checkpoint['epoch']} epochs; raise --epochs")


def check_history(path: Path, checkpoint: dict, watched: str) -> None:
    """Raise RunError unless the checkpoint has all numbers of each of its epochs."""
    quantities = ("train_loss", "train_accuracy", f"{watched}_loss", f"{watched}_accuracy")
    history = checkpoint["history"]
    epochs = [entry["epoch"] for entry in history]
    numbers = [entry[name] for entry in history for name in (*quantities, "seconds", "lr")]
    if epochs != list(range(1, checkpoint["epoch"] + 1)) or not all(
        isinstance(number, float | int) for number in numbers
    ):
        raise RunError(f"{path}: its history is damaged; train again without --resume")
