"""Trains LeNet-5 or the MLP on MNIST, watches it train, and uses what was trained.

    python main.py --model lenet5
    python main.py --model mlp --epochs 20
    python main.py --evaluate results/checkpoints/lenet5.pt
    python main.py --predict photo.png

After every epoch a run called NAME (by default the model's name) brings up to date:

    results/checkpoints/NAME.pt   weights, optimizer, random generators: all that a run is
    results/metrics/NAME.json     configuration, history by epoch, versions
    results/plots/NAME.png        loss and accuracy, on training and test set, by epoch
"""

import argparse
import contextlib
import ctypes
import io
import json
import math
import os
import platform
import re
import signal
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # To import torch takes seconds, in which Ctrl-C would show a traceback; start() sets it back.
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import numpy as np
import torch
from PIL import Image
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

try:
    import fcntl
except ImportError:  # Windows has none: there, two runs of one name are not noticed
    fcntl = None

from dataset import (
    MNIST,
    SIZE,
    DataError,
    augment,
    data_loader,
    find_splits,
    hold_out,
    normalise,
    read_digit,
    whole_file,
)
from model import CustomMLP, LeNet5, count_parameters

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TRAINED = Path(__file__).resolve().parent / "results" / "report" / "lenet5.pt"
MODELS = {"lenet5": LeNet5, "mlp": CustomMLP}
TITLES = {"lenet5": "LeNet-5", "mlp": "MLP"}
TEST_BATCH = 1000  # images: a test has no gradients to keep, so its batches can be large
CHECKPOINT_FORMAT = 1
# --regularize: the settings that README.md reports, chosen on held-out training images.
RECIPE = {
    "epochs": 100,
    "batch_size": 128,
    "schedule": "onecycle",
    "lr": 0.05,
    "augment": True,
    "undeformed": 3,
    "weight_decay": 5e-4,
}
RANDOM = {"cpu": torch, "cuda": torch.cuda, "mps": torch.mps}  # where each device's generator is

# Settings that a run may go on without: they do not change what it learns, or only how long.
FREE = {
    *("epochs", "device", "threads", "data_dir", "results_dir", "name", "resume"),
    "regularize",  # sets others, which count
}

NOT_TRAINING = {"evaluate", "predict", "checkpoint", "json", "save_inputs"}


class RunError(Exception):
    """The run cannot start or go on. The message is one line: what, and what to do."""


@dataclass
class Training:
    """All that changes while a network trains, and that a checkpoint therefore keeps."""

    model: nn.Module
    trn_loader: torch.utils.data.DataLoader
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler | None
    ema: AveragedModel | None
    history: list[dict]
    data: int  # CRC-32 of the training images and labels: tells one set from another


def main(arguments: list[str] | None = None) -> None:
    """Runs one command line (default: the one this program was started with)."""
    args = parse_arguments(arguments)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    if (args.evaluate or args.predict) and os.environ.get("RANK", "0") != "0":
        return  # of the processes that torchrun started, the first is enough
    if args.evaluate:
        evaluate(args)
    elif args.predict:
        predict_images(args)
    else:
        with joined_processes(args):
            run(args)


def run(args: argparse.Namespace) -> list[dict]:
    """Trains one model as `args` says, and returns its history, one dict per epoch.

    Raises:
        RunError: the device is not there, or the loss is no longer a number.
        DataError: the data cannot be used.
        OSError: a file cannot be read or written.
    """
    device = pick_device(args.device)
    trn_set, tst_set = load_sets(args, device)
    with only_run(args) if is_first() else contextlib.nullcontext():
        training = start_training(args, trn_set, device)
        if args.resume and resume_training(args, training, device) and is_first():
            save_run(args, training, device)  # the run may have died between two of its files
        print(
            f"{TITLES[args.model]}, {count_parameters(training.model):,} parameters, "
            f"on {device_name(device)}: "
            f"{len(trn_set):,} training and {len(tst_set):,} {watched(args)} images"
        )
        fit(args, training, tst_set, device)
    for path in (checkpoint_path(args), metrics_path(args), plot_path(args)):
        print(path)
    return training.history


def fit(args: argparse.Namespace, training: Training, tst_set: MNIST, device: torch.device) -> None:
    """The epochs of a run: train, test, write it down."""
    model, optimizer, ema = training.model, training.optimizer, training.ema
    tested = ema or model
    if distributed.is_initialized():
        model, tested = Shared(in_step(model)), Shared(tested)
    history = training.history
    tst_loader = data_loader(tst_set, TEST_BATCH, shuffle=False)
    trn_criterion = nn.CrossEntropyLoss(label_smoothing=args.label_smoothing)
    tst_criterion = nn.CrossEntropyLoss()

    for epoch in range(len(history) + 1, args.epochs + 1):
        start = time.perf_counter()
        deform = args.augment and epoch <= args.epochs - args.undeformed
        training.trn_loader.dataset.transform = augment if deform else None
        trn_bar = tqdm(
            training.trn_loader, f"epoch {epoch}", leave=False, disable=None if is_first() else True
        )
        trn_loss, trn_accuracy = train(
            model, trn_bar, device, trn_criterion, optimizer, training.scheduler, ema
        )
        tst_loss, tst_accuracy = test(tested, tst_loader, device, tst_criterion)
        history.append(
            {
                "epoch": epoch,
                "train_loss": trn_loss,
                "train_accuracy": trn_accuracy,
                "test_loss": tst_loss,
                "test_accuracy": tst_accuracy,
                "seconds": time.perf_counter() - start,
                "lr": optimizer.param_groups[0]["lr"],
            }
        )
        if not math.isfinite(trn_loss + tst_loss):
            raise RunError(f"the loss became {trn_loss + tst_loss} in epoch {epoch}; lower --lr")
        if is_first():
            save_run(args, training, device)
        print(epoch_line(args, history[-1]), flush=True)


# --- the loop ---------------------------------------------------------------------------------


def train(
    model: nn.Module,
    trn_loader: Iterable[tuple[torch.Tensor, torch.Tensor]],
    device: torch.device,
    criterion: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler | None = None,
    ema: AveragedModel | None = None,
) -> tuple[float, float]:
    """Trains `model` for one epoch.

    After each step `scheduler`, if any, sets the learning rate, and `ema`, if any, takes in the
    new weights.

    Returns:
        The average loss per sample and the accuracy (0 to 1) over the epoch, each batch as the
        network saw it: before the step that the batch led to.
    """
    model.train()
    seen_logits, seen_labels = [], []
    for images, labels in trn_loader:
        images, labels = images.to(device), labels.to(device)
        logits = model(images)
        loss = criterion(logits, labels)

        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        if ema is not None:
            ema.update_parameters(model)

        # Scored when all are there: to read a number after every step would make a GPU wait.
        seen_logits.append(logits.detach())
        seen_labels.append(labels)
    return score(torch.cat(seen_logits), torch.cat(seen_labels), criterion)


@torch.no_grad()
def test(
    model: nn.Module,
    tst_loader: Iterable[tuple[torch.Tensor, torch.Tensor]],
    device: torch.device,
    criterion: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> tuple[float, float]:
    """Returns the average loss per sample and the accuracy (0 to 1) of `model`."""
    model.eval()
    seen_logits, seen_labels = [], []
    for images, labels in tst_loader:
        seen_logits.append(model(images.to(device)))
        seen_labels.append(labels.to(device))
    return score(torch.cat(seen_logits), torch.cat(seen_labels), criterion)


def score(
    logits: torch.Tensor,
    labels: torch.Tensor,
    criterion: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> tuple[float, float]:
    """Returns the average loss per sample and the accuracy (0 to 1) of logits, float32 [N, 10],
    for images with these labels, int64 [N]."""
    right = (logits.argmax(dim=1) == labels).sum().item()
    return criterion(logits, labels).item(), right / len(labels)


@torch.no_grad()
def predict(
    model: nn.Module,
    loader: Iterable[tuple[torch.Tensor, torch.Tensor]],
    device: torch.device,
) -> torch.Tensor:
    """Returns the logits of each image, float32 [N, 10], on the CPU."""
    model.eval()
    return torch.cat([model(images.to(device)).cpu() for images, _ in loader])


def start_training(args: argparse.Namespace, trn_set: MNIST, device: torch.device) -> Training:
    """A network with weights drawn by --seed, and what trains it."""
    torch.manual_seed(args.seed)
    model = MODELS[args.model](args.dropout).to(device, memory_format=torch.channels_last)
    trn_loader = data_loader(trn_set, args.batch_size, shuffle=True, seed=args.seed)
    with signals_held():  # torch imports its compiler now, and Ctrl-C in there may end in a crash
        optimizer = make_optimizer(args, model, device)
    return Training(
        model,
        trn_loader,
        optimizer,
        scheduler=make_schedule(args, optimizer, steps=args.epochs * len(trn_loader)),
        ema=make_ema(model, args.ema) if args.ema else None,
        history=[],
        data=zlib.crc32(trn_set.images.cpu().numpy(), zlib.crc32(trn_set.labels.cpu().numpy())),
    )


def load_sets(args: argparse.Namespace, device: torch.device) -> tuple[MNIST, MNIST]:
    """The training set, and the set to watch: the test set, or images held out for validation."""
    trn_path, tst_path = find_splits(args.data_dir)
    trn_set = MNIST(trn_path)
    if args.validation >= len(trn_set):
        raise RunError(f"--validation {args.validation}: there are {len(trn_set)} training images")
    if args.validation:
        trn_set, tst_set = hold_out(trn_set, args.validation)
    else:
        tst_set = MNIST(tst_path)
    return trn_set.to(device), tst_set.to(device)


def make_optimizer(
    args: argparse.Namespace, model: nn.Module, device: torch.device
) -> torch.optim.Optimizer:
    """What steps by the gradients, as --optimizer says, with --lr, --momentum, --weight-decay."""
    if args.optimizer == "muon":
        return Muon(model.parameters(), args.lr, args.momentum, args.weight_decay)
    return torch.optim.SGD(
        model.parameters(),
        lr=args.lr,
        momentum=args.momentum,
        weight_decay=args.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal: a step turns all that a layer may do by about the same amount,
    where a gradient as it is goes mostly in the few directions that are steepest (Jordan et al.
    2024: Muon).

    Each parameter counts as a matrix with a row for each output: a convolution as one with a row
    for each map, a bias as one with a single column. Weight decay is apart from the gradient
    (Loshchilov, Hutter 2019: AdamW).
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, momentum: float, weight_decay: float
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            lr, momentum = group["lr"], group["momentum"]
            for parameter in group["params"]:
                if parameter.grad is None:  # frozen
                    continue
                state = self.state[parameter]
                if not state:
                    state["average"] = torch.zeros_like(parameter)
                average = state["average"].lerp_(parameter.grad, 1 - momentum)
                ahead = parameter.grad.lerp(average, momentum)  # as in Nesterov's momentum
                step = orthogonal(ahead.reshape(len(ahead), -1))
                rows, columns = step.shape
                # So that the outputs change equally much, whatever the shape of the layer.
                step *= max(1, rows / columns) ** 0.5
                parameter.mul_(1 - lr * group["weight_decay"])
                parameter.sub_(lr * step.view_as(parameter))


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Roughly the orthogonal matrix that is nearest to `matrix`, float32 [M, N]: with its singular
    vectors, and singular values not of 1, but of 0.7 to 1.2, unless they were tiny. By Newton and
    Schulz's iteration, which needs nothing but products (Jordan et al. 2024)."""
    a, b, c = 3.4445, -4.7750, 2.0315  # theirs: they raise small singular values soonest
    rows, columns = matrix.shape
    x = matrix if rows <= columns else matrix.T
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        square = x @ x.T
        # a x + (b square + c square square) x, each sum taken as part of its product
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x if rows <= columns else x.T


def make_ema(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of `model` whose weights are an exponential moving average of those of `model`:
    after each step, decay * (what they were) + (1 - decay) * (those of `model`)."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay))


def make_schedule(
    args: argparse.Namespace, optimizer: torch.optim.Optimizer, steps: int
) -> LambdaLR | None:
    """One-cycle: the learning rate rises to --lr over the first fifth of the steps and then falls
    to 0, both in a straight line (Smith, Topin 2018: Super-Convergence)."""
    if args.schedule == "constant":
        return None
    rise = math.ceil(steps / 5)
    return LambdaLR(
        optimizer, lambda step: min((step + 1) / rise, (steps - step) / (steps - rise + 1))
    )


def pick_device(name: str) -> torch.device:
    """The device called `name`; "auto" is the fastest that is there.

    Raises:
        RunError: this machine, or this build of torch, has no such device.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    there["cpu"] = True
    if name == "auto":
        name = next(kind for kind in there if there[kind])
    if not there[name]:
        raise RunError(f"--device {name}: torch finds none here; try --device auto")
    if name == "cuda" and distributed.is_torchelastic_launched():
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return torch.device(name)


def device_name(device: torch.device) -> str:
    """What a person calls the device: "cpu (2 threads)", "cuda (NVIDIA H100)"."""
    name = device.type
    if name == "cuda":
        name += f" ({torch.cuda.get_device_name(device)})"
    elif name == "cpu":
        name += f" ({torch.get_num_threads()} threads)"
    processes = distributed.get_world_size() if distributed.is_initialized() else 1
    return name if processes == 1 else f"{processes} times {name}"


# --- many processes: torchrun -----------------------------------------------------------------


class Shared(nn.Module):
    """A network that all processes of a run compute together. Each is given the whole batch and
    takes its share of the images; all get all the logits, float32 [B, 10].

    So each process finds the loss of the whole batch, and by it the gradients of its share. Random
    numbers stay in step, since all processes draw equally many: the same deformed images as in
    one process, but the same dropout for each share.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        rank, processes = distributed.get_rank(), distributed.get_world_size()
        share = math.ceil(len(images) / processes)
        indices = torch.arange(rank * share, (rank + 1) * share, device=images.device)
        # Shares must be equally large: where images run out, the last one fills up.
        logits = self.network(images[indices.clamp(max=len(images) - 1)])
        parts = [torch.empty_like(logits) for _ in range(processes)]
        distributed.all_gather(parts, logits.detach())
        parts[rank] = logits  # the one part that can be differentiated here
        return torch.cat(parts)[: len(images)]


def in_step(model: nn.Module) -> nn.Module:
    """`model`, with its gradients added up over all processes at each backward pass."""
    model = DistributedDataParallel(model)

    def add_up(_: None, bucket: distributed.GradBucket) -> torch.futures.Future[torch.Tensor]:
        work = distributed.all_reduce(bucket.buffer(), async_op=True)
        return work.get_future().then(lambda future: future.value()[0])

    model.register_comm_hook(None, add_up)  # without it, they are averaged
    return model


def is_first() -> bool:
    """Whether this process prints and writes: the only one of its run, or the first."""
    return not distributed.is_initialized() or distributed.get_rank() == 0


@contextlib.contextmanager
def joined_processes(args: argparse.Namespace) -> Iterator[None]:
    """Under torchrun, joins the processes that it started, so that they train one network.

    Raises:
        RunError: another process has ended before its time.
    """
    if not distributed.is_torchelastic_launched():
        yield
        return
    if args.threads is None:
        torch.set_num_threads(max(1, os.cpu_count() // int(os.environ["LOCAL_WORLD_SIZE"])))
    backend = "nccl" if pick_device(args.device).type == "cuda" else "gloo"
    distributed.init_process_group(backend)
    silence = contextlib.nullcontext() if is_first() else contextlib.redirect_stdout(io.StringIO())
    try:
        with silence:
            yield
    except RuntimeError as error:
        if not isinstance(error, distributed.DistError) and "gloo" not in str(error):
            raise
        raise RunError(
            f"a process of this run has ended before its time ({str(error).splitlines()[0]}); "
            "the same command with --resume goes on"
        ) from error
    finally:
        # Before version 2.8, torch keeps Python's lock while it waits for the group's threads to
        # end, of which one may still want it to clear away the last tensors: a moment for that.
        time.sleep(0.1)
        distributed.destroy_process_group()


# --- what a run leaves ------------------------------------------------------------------------


def checkpoint_path(args: argparse.Namespace) -> Path:
    return args.results_dir / "checkpoints" / f"{args.name}.pt"


def metrics_path(args: argparse.Namespace) -> Path:
    return args.results_dir / "metrics" / f"{args.name}.json"


def plot_path(args: argparse.Namespace) -> Path:
    return args.results_dir / "plots" / f"{args.name}.png"


def prepare_folders(results_dir: Path) -> None:
    """Makes the folders, and raises RunError now if nothing could be written there later."""
    for folder in (results_dir / name for name in ("checkpoints", "metrics", "plots")):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise RunError(f"{folder}: may not be written; choose another --results-dir")


@contextlib.contextmanager
def only_run(args: argparse.Namespace) -> Iterator[None]:
    """Holds a lock on the run's name, which the system lets go of when the process ends, however.

    Raises:
        RunError: another process that is still alive has it.
    """
    prepare_folders(args.results_dir)
    if fcntl is None:
        yield
        return
    path = checkpoint_path(args).with_suffix(".lock")
    with contextlib.ExitStack() as stack:
        held = False
        while not held:
            file = stack.enter_context(open(path, "a"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunError(
                    f"{path}: another run of this name is going on; choose another --name"
                ) from error
            # Its last holder may have removed the file between our opening and our locking it.
            held = path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())
        clear_leftovers(args)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # a folder turned read-only keeps an empty file
                path.unlink()


def clear_leftovers(args: argparse.Namespace) -> None:
    """Removes the half-written files of a run of this name that was killed."""
    for path in (checkpoint_path(args), metrics_path(args), plot_path(args)):
        for leftover in path.parent.glob(f".{path.name}.[0-9]*.part"):
            leftover.unlink()


def config_of(args: argparse.Namespace) -> dict:
    """The settings of a run, as plain values."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(args).items()
        if name not in NOT_TRAINING
    }


def changed_settings(saved: dict, args: argparse.Namespace) -> dict:
    """What the settings that count and that `args` changes were in a checkpoint or metrics file;
    one that came later than the file had its default there."""
    before, now = config_of(parse_arguments([])) | saved["config"], config_of(args)
    return {name: before[name] for name in now.keys() - FREE if before[name] != now[name]}


def save_run(args: argparse.Namespace, training: Training, device: torch.device) -> None:
    """Brings the three files of a run up to date, the checkpoint first: it is what counts."""
    save_checkpoint(args, training, device)
    save_metrics(args, training.model, device, training.history)
    save_plot(args, training.history)


def save_checkpoint(args: argparse.Namespace, training: Training, device: torch.device) -> None:
    """Writes all that is needed to use the model or to go on training it."""
    checkpoint = {
        "format": CHECKPOINT_FORMAT,
        "model": args.model,
        "weights": training.model.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "scheduler": training.scheduler.state_dict() if training.scheduler else None,
        "ema": training.ema.state_dict() if training.ema else None,
        "random": random_states(device),
        "shuffle": training.trn_loader.generator.get_state(),
        "epoch": len(training.history),
        "history": training.history,
        "config": config_of(args),
        "data": training.data,
    }
    write_checkpoint(checkpoint_path(args), checkpoint)


def write_checkpoint(path: Path, checkpoint: dict) -> None:
    """Writes a checkpoint whole, or not at all.

    Raises:
        OSError: it cannot be written.
    """
    # Through memory, because torch.save reports a full disk as a RuntimeError of its own.
    content = io.BytesIO()
    torch.save(checkpoint, content)
    with whole_file(path) as file:
        file.write(content.getbuffer())


def load_checkpoint(path: Path) -> dict:
    """Reads what `write_checkpoint` wrote, running no code that the file may hold.

    Raises:
        RunError: the file is damaged, or not a checkpoint of this program.
        OSError: it cannot be read.
    """
    content = io.BytesIO(path.read_bytes())
    try:
        checkpoint = torch.load(content, map_location="cpu", weights_only=True)
    except Exception as error:  # torch meets a file that is not its own with errors of many types
        raise RunError(f"{path}: is damaged, or no checkpoint; train again") from error
    if not isinstance(checkpoint, dict) or checkpoint.get("format") != CHECKPOINT_FORMAT:
        raise RunError(f"{path}: is no checkpoint of this version of the program; train again")
    return checkpoint


def load_model(path: Path) -> nn.Module:
    """The trained network of a checkpoint, on the CPU; of the two that a run with --ema has, the
    averaged one.

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


def resume_training(args: argparse.Namespace, training: Training, device: torch.device) -> bool:
    """Puts `training` where the checkpoint of this run left off; returns False if there is none.

    Raises:
        RunError: the checkpoint cannot be used, or was made with other settings.
    """
    path = checkpoint_path(args)
    checkpoint = load_checkpoint(path) if is_first() and path.exists() else None
    if distributed.is_initialized():  # the others may be on machines that have no such file
        box = [checkpoint]
        distributed.broadcast_object_list(box)
        [checkpoint] = box
    if checkpoint is None:
        print(f"{path}: not there yet; starting from the beginning")
        return False
    try:
        refuse_changes(args, training, checkpoint)
        training.model.load_state_dict(checkpoint["weights"])
        training.optimizer.load_state_dict(checkpoint["optimizer"])
        if training.scheduler:
            training.scheduler.load_state_dict(checkpoint["scheduler"])
        if training.ema:
            training.ema.load_state_dict(checkpoint["ema"])
        training.trn_loader.generator.set_state(checkpoint["shuffle"])
        training.history.extend(checkpoint["history"])
        for kind in checkpoint["random"].keys() & {"cpu", device.type}:
            RANDOM[kind].set_rng_state(checkpoint["random"][kind])
    except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"{path}: does not fit this run; train again without --resume") from error
    return True


def refuse_changes(args: argparse.Namespace, training: Training, checkpoint: dict) -> None:
    """Raises RunError, saying what is different, unless to go on gives what one run would give."""
    changed = changed_settings(checkpoint, args)
    epochs = checkpoint["config"]["epochs"]
    # With these, the length of the run decides what its epochs do.
    if epochs != args.epochs and (args.schedule != "constant" or args.undeformed):
        changed["epochs"] = epochs
    if changed:
        name = next(iter(changed))
        raise RunError(
            f"--{name.replace('_', '-')} was {changed[name]} when {checkpoint_path(args)} was "
            f"written, and is {config_of(args)[name]}: set it back, or train anew without --resume"
        )
    if checkpoint["data"] != training.data:
        raise RunError(f"{checkpoint_path(args)}: was trained on other training images; name those")
    if checkpoint["epoch"] > args.epochs:
        raise RunError(f"{checkpoint_path(args)}: has {checkpoint['epoch']} epochs; raise --epochs")


def random_states(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of torch's global generators, of the CPU and of `device`."""
    return {kind: RANDOM[kind].get_rng_state() for kind in {"cpu", device.type}}


def save_metrics(
    args: argparse.Namespace, model: nn.Module, device: torch.device, history: list[dict]
) -> None:
    """Writes the numbers of a run as JSON."""
    from importlib.metadata import version

    packages = ("torchvision", "numpy", "matplotlib", "pillow")
    metrics = {
        "config": config_of(args),
        "parameters": count_parameters(model),
        "history": history,
        "versions": {"python": platform.python_version(), "torch": torch.__version__}
        | {package: version(package) for package in packages},
        "device": device_name(device),
    }
    with whole_file(metrics_path(args)) as file:
        file.write((json.dumps(metrics, indent=2) + "\n").encode())


def save_plot(args: argparse.Namespace, history: list[dict]) -> None:
    """Draws loss (above) and accuracy (below), on training (left) and test set (right)."""
    from matplotlib.figure import Figure  # costs half a second, so only where something is drawn
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 6.5))
    # Fixed margins: to let matplotlib find them takes longer than to draw.
    figure.subplots_adjust(left=0.08, right=0.98, bottom=0.08, top=0.89, wspace=0.22, hspace=0.34)
    figure.suptitle(
        f"{TITLES[args.model]}: {watched(args)} accuracy {history[-1]['test_accuracy']:.2%} "
        f"after {len(history)} epoch{'s'[: len(history) > 1]}",
        fontweight="bold",
    )
    axes = figure.subplots(2, 2, sharex=True, sharey="row")
    epochs = [entry["epoch"] for entry in history]
    for row, quantity, unit, scale in ((0, "loss", "cross-entropy", 1), (1, "accuracy", "%", 100)):
        for column, split, colour in ((0, "train", "tab:blue"), (1, "test", "tab:orange")):
            ax = axes[row, column]
            values = [scale * entry[f"{split}_{quantity}"] for entry in history]
            ax.plot(epochs, values, "o-", color=colour, markersize=4)
            # y=1 says where: matplotlib would measure all else that is drawn, to find a place.
            ax.set_title(f"{'training' if split == 'train' else watched(args)} {quantity}", y=1)
            ax.set_xlabel("epoch")
            ax.set_ylabel(f"{quantity} ({unit})")
            ax.tick_params(labelbottom=True, labelleft=True)
            ax.set_xlim(0.5, args.epochs + 0.5)
            # Few ticks: to draw them is most of the work, and done after every epoch.
            few = {"nbins": 5, "steps": [1, 2, 5, 10]}
            ax.xaxis.set_major_locator(MaxNLocator(**few, integer=True, min_n_ticks=1))
            ax.yaxis.set_major_locator(MaxNLocator(**few))
            ax.grid(alpha=0.3)
    with whole_file(plot_path(args)) as file:  # packed a little less, in half the time
        figure.savefig(file, format="png", dpi=110, pil_kwargs={"compress_level": 1})


def watched(args: argparse.Namespace) -> str:
    """What the set is called that is tested after each epoch."""
    return "validation" if args.validation else "test"


def epoch_line(args: argparse.Namespace, entry: dict) -> str:
    return (
        f"epoch {entry['epoch']:{len(str(args.epochs))}}/{args.epochs}"
        f"  train loss {entry['train_loss']:.4f}, accuracy {entry['train_accuracy']:.2%}"
        f"  {watched(args)} loss {entry['test_loss']:.4f}, accuracy {entry['test_accuracy']:.2%}"
        f"  {entry['seconds']:.1f} s"
    )


# --- using what was trained -------------------------------------------------------------------


def evaluate(args: argparse.Namespace) -> None:
    """Prints what a trained network makes of the test set, and draws its confusions and errors."""
    device = pick_device(args.device)
    model = load_model(args.evaluate).to(device)
    tst_set = MNIST(find_splits(args.data_dir)[1]).to(device)
    prepare_folders(args.results_dir)
    logits = predict(model, data_loader(tst_set, TEST_BATCH, shuffle=False), device)
    images, labels = tst_set.images.cpu(), tst_set.labels.cpu()
    loss, accuracy = score(logits, labels, nn.CrossEntropyLoss())
    counts = count_confusions(labels, logits.argmax(dim=1))

    wrong = len(labels) - int(counts.trace())
    print(f"{args.evaluate}, on {len(labels):,} test images:")
    print(f"loss {loss:.4f}, accuracy {accuracy:.2%} ({wrong:,} misread)\n")
    print(confusion_table(counts))
    stem = args.results_dir / "plots" / args.evaluate.stem
    confusion_path, misread_path = Path(f"{stem}_confusion.png"), Path(f"{stem}_misread.png")
    save_confusion(confusion_path, f"{args.evaluate.name}: {accuracy:.2%} of the test set", counts)
    save_misread(misread_path, args.evaluate.name, images, labels, logits.softmax(dim=1))
    print(f"\n{confusion_path}\n{misread_path}")


def count_confusions(labels: torch.Tensor, digits: torch.Tensor) -> torch.Tensor:
    """How often each digit (row) was read as each (column): int64 [10, 10]."""
    return torch.bincount(10 * labels + digits, minlength=100).view(10, 10)


def confusion_table(counts: torch.Tensor) -> str:
    """The confusion matrix as text, with the recall of each row and the precision of each column:
    which share of the sevens was read as 7, and which share of those read as 7 are sevens."""

    def shares(totals: torch.Tensor) -> list[str]:
        pairs = zip(counts.diagonal().tolist(), totals.tolist(), strict=True)
        return [f"{right / total:.2%}" if total else "-" for right, total in pairs]

    lines = [["is \\ read as", *map(str, range(10)), "recall"]]
    for digit, (row, recall) in enumerate(
        zip(counts.tolist(), shares(counts.sum(dim=1)), strict=True)
    ):
        lines.append([str(digit), *(str(count or ".") for count in row), recall])
    lines.append(["precision", *shares(counts.sum(dim=0)), ""])
    return "\n".join(
        f"{first:>12}" + "".join(f"{cell:>8}" for cell in cells) for first, *cells in lines
    )


def save_confusion(path: Path, title: str, counts: torch.Tensor) -> None:
    """Draws the confusion matrix of one network."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 6), layout="constrained")
    figure.suptitle(title, fontweight="bold")
    draw_confusion(figure.subplots(), counts.double().numpy(), "{:.0f}")
    with whole_file(path) as file:
        figure.savefig(file, format="png", dpi=110)


def draw_confusion(ax: "Axes", counts: np.ndarray, number: str, most: float | None = None) -> None:
    """A confusion matrix, [10, 10], coloured by its errors alone: the rest would outshine them.

    Args:
        number: the format of a count.
        most: the count with the darkest colour (default: the largest of the errors).
    """
    errors = counts * (1 - np.eye(10))
    most = most or max(errors.max(), 1)
    ax.imshow(errors, cmap="Reds", vmin=0, vmax=most)
    for label, digit in np.ndindex(10, 10):
        text = number.format(counts[label, digit])
        if float(text):
            colour = "white" if errors[label, digit] > 0.6 * most else "black"
            ax.text(digit, label, text, ha="center", va="center", fontsize=8, color=colour)
    ax.set_xlabel("read as")
    ax.set_ylabel("is")
    ax.set_xticks(range(10))
    ax.set_yticks(range(10))


def save_misread(
    path: Path,
    name: str,
    images: torch.Tensor,
    labels: torch.Tensor,
    probabilities: torch.Tensor,
) -> None:
    """Draws up to 100 of the images that a network misreads, those it is surest of first."""
    from matplotlib.figure import Figure

    sureness, digits = probabilities.max(dim=1)
    wrong = (digits != labels).nonzero().flatten()
    shown = wrong[sureness[wrong].argsort(descending=True, stable=True)][:100]
    columns = 10
    rows = max(1, math.ceil(len(shown) / columns))
    figure = Figure(figsize=(columns, 1.1 * rows + 0.7), layout="constrained")
    figure.suptitle(
        f"{name}: {len(shown)} of {len(wrong)} misread test images, the surest first\n"
        "what it is → what it was read as, and its probability"
    )
    # One picture of all the images: axes of its own for each would take several times as long.
    width, height = SIZE + 8, SIZE + 11  # of the place of an image, with its text above it
    sheet = np.zeros((rows * height, columns * width), np.uint8)
    ax = figure.subplots()
    for place, index in enumerate(shown.tolist()):
        row, column = divmod(place, columns)
        top, left = (row + 1) * height - SIZE, column * width + (width - SIZE) // 2
        sheet[top : top + SIZE, left : left + SIZE] = images[index, 0]
        text = f"{labels[index]} → {digits[index]}  {sureness[index]:.0%}"
        ax.text(left + SIZE / 2, top - 2, text, ha="center", fontsize=9)
    ax.imshow(sheet, cmap="gray_r", vmin=0, vmax=255)
    ax.axis("off")
    with whole_file(path) as file:
        figure.savefig(file, format="png", dpi=110)


def predict_images(args: argparse.Namespace) -> None:
    """Prints which digit each image shows; one that cannot be read is told, and passed over."""
    device = pick_device(args.device)
    model = load_model(args.checkpoint).to(device)
    failed = False
    for number, path in enumerate(args.predict, start=1):
        try:
            image = read_digit(path)
        except DataError as error:
            print(error_line(str(error)), file=sys.stderr)
            failed = True
            continue
        if args.save_inputs:
            save_input(args.save_inputs / f"{number:03d}_{path.stem}.png", image)
        [logits] = predict(model, [(normalise(image)[None], None)], device)
        print(prediction_line(args, path, logits.softmax(dim=0)))
    if failed:
        sys.exit(1)


def prediction_line(args: argparse.Namespace, path: Path, probabilities: torch.Tensor) -> str:
    """What to print of one image: float32 [10] as words, or with --json as a JSON object."""
    (first, second), (digit, other) = (values.tolist() for values in probabilities.topk(2))
    if args.json:
        return json.dumps(
            {
                "image": str(path),
                "digit": digit,
                "probability": first,
                "runner_up": other,
                "runner_up_probability": second,
            }
        )
    return f"{printable(str(path))}: {digit} ({first:.1%}), else {other} ({second:.1%})"


def save_input(path: Path, image: torch.Tensor) -> None:
    """Writes what the network sees, uint8 [1, 28, 28], as a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        Image.fromarray(image[0].numpy()).save(file, "PNG")


# --- the command line -------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line."""

    def error(self, message: str) -> None:
        self.exit(2, f"error: {message}; see python {self.prog} --help\n")


EXAMPLES = """
examples:
  python main.py --model lenet5                             train LeNet-5 for 10 epochs
  python main.py --model mlp --epochs 20 --name second      train the MLP, beside other runs
  python main.py --regularize                               train LeNet-5 by README.md's recipe
  python main.py --evaluate results/checkpoints/lenet5.pt   what it makes of the test set
  python main.py --predict photo.png scan.jpg               what digits these images show
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(
        prog="main.py",
        description="Trains LeNet-5 or an MLP on MNIST, watches it train, and uses it.\n"
        "Defaults are shown in (brackets).",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument_group("training (unless --evaluate or --predict)").add_argument
    add("--model", choices=MODELS, default="lenet5", help="the network (%(default)s)")
    add("--epochs", type=whole(1), default=10, help="passes over the training set (%(default)s)")
    add("--batch-size", type=whole(1), default=64, help="images per step (%(default)s)")
    add("--optimizer", choices=("sgd", "muon"), default="sgd", help="how to step (%(default)s)")
    add("--lr", type=real("(0, inf)"), default=0.01, help="learning rate (%(default)s)")
    add("--momentum", type=real("[0, 1)"), default=0.9, help="of the gradients (%(default)s)")
    add(
        "--schedule",
        choices=("constant", "onecycle"),
        default="constant",
        help="of the learning rate (%(default)s)",
    )
    add("--seed", type=whole(0), default=0, help="of first weights and batches (%(default)s)")
    add(
        "--validation",
        type=whole(0),
        default=0,
        metavar="N",
        help="hold out N training images and watch them in place of the test set (%(default)s)",
    )
    add("--name", type=file_name, help="of the run's files (the model's name)")
    add("--resume", action="store_true", help="go on after the last finished epoch of this name")

    add = parser.add_argument_group("regularisation of the training (all off)").add_argument
    add("--augment", action="store_true", help="deform the training images a little, at random")
    add(
        "--undeformed",
        type=whole(0),
        default=0,
        metavar="N",
        help="with --augment, leave the images of the last N epochs as they are",
    )
    add("--dropout", type=real("[0, 1)"), default=0.0, metavar="P", help="share of units left out")
    add("--weight-decay", type=real("[0, inf)"), default=0.0, metavar="W", help="pull towards 0")
    add(
        "--label-smoothing",
        type=real("[0, 1)"),
        default=0.0,
        metavar="E",
        help="share of the target that is spread over all digits",
    )
    add(
        "--ema",
        type=real("[0, 1)"),
        default=0.0,
        metavar="DECAY",
        help="test a moving average of the weights",
    )
    recipe = ", ".join(f"{name.replace('_', '-')} {value}" for name, value in RECIPE.items())
    add(
        "--regularize",
        action="store_true",
        help=f"the recipe of README.md, that is, other defaults: {recipe}",
    )

    add = parser.add_argument_group("using a trained network").add_argument
    add("--evaluate", type=Path, metavar="CHECKPOINT", help="test a network, digit by digit")
    add("--predict", type=Path, metavar="IMAGE", nargs="+", help="read the digits in images")
    add("--checkpoint", type=Path, help="the network that predicts (README.md's LeNet-5)")
    add("--json", action="store_true", help="print each prediction as a JSON object")
    add("--save-inputs", type=Path, metavar="FOLDER", help="write there what the network saw")

    add = parser.add_argument_group("where").add_argument
    add(
        "--device",
        choices=("auto", "cpu", "cuda", "mps"),
        default="auto",
        help="where to compute (%(default)s)",
    )
    add("--threads", type=whole(1), help="of the CPU that compute together (torch's choice)")
    add("--data-dir", type=Path, help="holds train.tar and test.tar (see README.md)")
    add("--results-dir", type=Path, default=Path("results"), help="for what is written (results)")

    args = parser.parse_args(arguments)
    if args.evaluate and args.predict:
        parser.error("--evaluate and --predict are two commands; give one at a time")
    if not args.predict and (args.checkpoint or args.json or args.save_inputs):
        parser.error("--checkpoint, --json and --save-inputs are for --predict")
    if args.regularize:
        parser.set_defaults(**RECIPE)
        args = parser.parse_args(arguments)
    if args.undeformed and not args.augment:
        parser.error("--undeformed is for --augment")
    args.name = args.name or args.model
    args.checkpoint = args.checkpoint or TRAINED
    return args


def whole(least: int) -> Callable[[str], int]:
    """A type for argparse: a whole number of at least `least`."""

    def parse(text: str) -> int:
        if not re.fullmatch("[0-9]{1,9}", text) or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is not a whole number from {least} to 10^9")
        return int(text)

    return parse


def real(interval: str) -> Callable[[str], float]:
    """A type for argparse: a number within `interval`, such as "(0, inf)" or "[0, 1)"."""
    least, most = (float(bound) for bound in interval[1:-1].split(","))

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        inside = least < value < most or (value == least and interval[0] == "[")
        if not inside:
            raise argparse.ArgumentTypeError(f"{text} is not a number in {interval}")
        return value

    return parse


def file_name(text: str) -> str:
    """A type for argparse: a name that stays inside its folder."""
    if not re.fullmatch(r"\w[\w.+=-]*", text):
        raise argparse.ArgumentTypeError(f"{text} is no name: use letters, digits, _ . + = -")
    return text


def start(program: Callable[[], None], go_on: str) -> None:
    """Runs the command line of this process; turns what goes wrong into one line and exits.

    Args:
        go_on: how to go on with `program` after Ctrl-C.
    """
    if sys.stderr is None:  # whoever started this has closed it, and tqdm would fail
        sys.stderr = io.StringIO()
    keep_freed_memory()
    sys.unraisablehook = interrupt_again
    signal.signal(signal.SIGTERM, terminate)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        try:
            program()
        finally:
            flush_output()
    except (DataError, RunError) as error:
        sys.exit(error_line(str(error)))
    except BrokenPipeError:  # whoever read the output has left, as `| head` does
        sys.exit(141)  # as a shell calls the end by SIGPIPE
    except OSError as error:
        place = error.filename or "a file, or standard output"
        sys.exit(
            error_line(
                f"{place}: {error.strerror}; see to its permissions and to free space there, "
                "or choose another place with --data-dir or --results-dir"
            )
        )
    except KeyboardInterrupt as error:
        print(f"interrupted; {go_on} goes on after the last finished epoch", file=sys.stderr)
        sys.exit(143 if isinstance(error, Terminated) else 130)


def flush_output() -> None:
    """Prints what is still held back. What cannot be printed is dropped, or else Python would try
    again as it ends, and complain in its own way.

    Raises:
        OSError: naming standard output.
    """
    try:
        print(end="", flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OSError(error.errno, error.strerror, "standard output") from error


def keep_freed_memory() -> None:
    """Lets glibc keep what tensors have freed, for those of the next step. By default it gives most
    of it back to the system, which then clears every page anew: a quarter of an epoch with batches
    of 128 (mallopt(3))."""
    if platform.libc_ver()[0] == "glibc":
        trim_threshold, mmap_threshold = -1, -3  # as malloc.h numbers them
        libc = ctypes.CDLL(None)
        libc.mallopt(trim_threshold, 256 << 20)  # bytes
        libc.mallopt(mmap_threshold, 32 << 20)  # the most that it takes


class Terminated(KeyboardInterrupt):
    """SIGTERM came: as with Ctrl-C, what is half written is cleared away."""


def terminate(signum: int, frame: object) -> None:
    raise Terminated


def interrupt_again(dropped: "sys.UnraisableHookArgs") -> None:
    """Told of exceptions that Python drops, as it does with one raised while an object is cleared
    away: Ctrl-C and SIGTERM must not get lost there, so they come again a moment later."""
    if isinstance(dropped.exc_value, KeyboardInterrupt):
        terminated = isinstance(dropped.exc_value, Terminated)
        signum = signal.SIGTERM if terminated else signal.SIGINT
        threading.Timer(0.01, signal.raise_signal, [signum]).start()
    else:
        sys.__unraisablehook__(dropped)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Lets Ctrl-C and SIGTERM wait until the end of the block."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is ever interrupted
        return
    came = []

    def hold(signum: int, frame: object) -> None:
        came.append(signum)

    handlers = {signum: signal.signal(signum, hold) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
    if came:
        signal.raise_signal(came[0])


def error_line(message: str) -> str:
    """What a person is told of something that is not a fault of this program."""
    return f"error: {printable(message)}"


def printable(text: str) -> str:
    """`text` on one line: a line break or escape sequence in a file's name is shown as its code."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


if __name__ == "__main__":
    start(main, go_on="the same command with --resume")
