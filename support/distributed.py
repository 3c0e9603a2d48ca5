"""The processes that torchrun starts: how they share a run, and each of its batches."""

import contextlib
import io
import math
import os
import platform
import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from support.errors import RunError


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Under torchrun, join the processes that it started, so that they train one network.

    Only the main process prints. Without torchrun this does nothing.

    Raises:
        RunError: there are more processes than GPUs, or another process has died.
    """
    if not distributed.is_torchelastic_launched():
        yield
        return
    if device.type == "cuda":
        processes, gpus = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if processes > gpus:  # NCCL demands one for each
            raise RunError(
                f"{processes} processes cannot share {gpus} GPU{'s' if gpus > 1 else ''} in one "
                f"run; use --nproc-per-node {gpus}, or --device cpu"
            )
        torch.cuda.set_device(device)  # what speaks of "the" GPU then means this process's
    try:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    except distributed.DistError as error:
        raise RunError(
            f"the processes of this run do not find each other ({str(error).splitlines()[0]}); "
            "start all of them, and check --master-addr and --master-port"
        ) from error
    silence = (
        contextlib.nullcontext() if is_main_process() else contextlib.redirect_stdout(io.StringIO())
    )
    try:
        with silence:
            yield
    except RuntimeError as error:
        if "finished reduction" in str(error):
            raise RunError(
                "under torchrun every parameter of a network must get a gradient; freeze "
                "(requires_grad=False) or remove those that get none"
            ) from error
        if not isinstance(error, distributed.DistError) and "gloo" not in str(error):
            raise
        raise RunError(
            f"a process of this run has died ({str(error).splitlines()[0]}); "
            "the same command with --resume continues the run"
        ) from error
    finally:
        # The group's threads may still have to free their last tensors, and a process that ends
        # before they have is aborted ("terminate called"): give them a moment.
        time.sleep(0.1)
        distributed.destroy_process_group()


def is_main_process() -> bool:
    """Return whether this process prints and writes: the only one of its run, or the first."""
    return not distributed.is_initialized() or distributed.get_rank() == 0


def is_first_of_torchrun() -> bool:
    """Return whether this is the only process, or the first of those that torchrun started, whether
    or not they share a run."""
    return not distributed.is_torchelastic_launched() or os.environ["RANK"] == "0"


def check_same_everywhere(values: dict[str, object]) -> None:
    """Raise RunError, in every process of a run, unless all of them pass the same `values`."""
    if not distributed.is_initialized():
        return
    all_values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(all_values, values | {"host": platform.node()})
    first, *others = all_values
    for rank, other in enumerate(others, start=1):
        for name in values:
            if other[name] != first[name]:
                raise RunError(
                    f"process {rank} on {other['host']}: {name} is {other[name]}, but "
                    f"{first[name]} in process 0 on {first['host']}; start all with the same "
                    "command on the same data"
                )


def from_main_process(value: Any) -> Any:  # noqa: ANN401 (anything that can be pickled)
    """Return, in every process, the `value` that the main process passes."""
    if not distributed.is_initialized():
        return value
    box = [value]
    distributed.broadcast_object_list(box)
    return box[0]


def progress_bar(batches: Iterable, description: str) -> tqdm:
    """Iterate over `batches` with a progress bar on a terminal, and with none elsewhere."""
    hidden = None if is_main_process() else True  # None: tqdm looks for a terminal itself
    return tqdm(batches, description, leave=False, disable=hidden)


def distribute(model: nn.Module, trained: bool = True) -> nn.Module:
    """Return `model`; under torchrun, wrapped so that all processes share each batch.

    Args:
        trained: whether gradients are needed; the averaged network is only tested.
    """
    return ShardedBatch(model, trained) if distributed.is_initialized() else model


class ShardedBatch(nn.Module):
    """A network whose batches are shared by all processes of a run.

    Each process is given the whole batch and computes its share of the images; all get all the
    logits, float32 [B, 10]. So each finds the loss of the whole batch, and from it the gradients
    of its own share. Random numbers stay in step, since all processes draw equally many: the same
    augmented images as in one process, but the same dropout for each share. Batch norm computes
    its statistics from each process's share, and tests with the running ones of the main process.
    """

    def __init__(self, network: nn.Module, trained: bool) -> None:
        super().__init__()
        self.network = DistributedDataParallel(network) if trained else network

    def train(self, mode: bool = True) -> "ShardedBatch":
        """Switch to training, or to testing: there with the buffers of the main process, which
        writes the checkpoint."""
        super().train(mode)
        for buffer in self.network.buffers():
            distributed.broadcast(buffer, src=0)
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        rank, processes = distributed.get_rank(), distributed.get_world_size()
        share = math.ceil(len(images) / processes)
        indices = torch.arange(rank * share, (rank + 1) * share, device=images.device)
        # Shares must have the same size: where images run out, the last one is repeated.
        logits = self.network(images[indices.clamp(max=len(images) - 1)])
        if logits.requires_grad:
            # DistributedDataParallel averages the gradients, but those of shares must be summed.
            logits.register_hook(lambda gradient: gradient * processes)
        shares = [torch.empty_like(logits) for _ in range(processes)]
        distributed.all_gather(shares, logits.detach())
        shares[rank] = logits  # the one share that this process can differentiate
        return torch.cat(shares)[: len(images)]
