"""Train LeNet-5 or the MLP on MNIST, evaluate what was trained, or read your own digits.

    python main.py --model lenet5
    python main.py --model mlp --epochs 20
    python main.py --evaluate results/checkpoints/lenet5.pt
    python main.py --predict photo.png

In each epoch the network sees every training image once; then it is tested. After every epoch a run
called NAME (by default the model's name) updates:

    results/checkpoints/NAME.pt   weights, optimizer, RNG states: all that is needed to resume
    results/metrics/NAME.json     configuration, history by epoch, versions
    results/plots/NAME.png        loss and accuracy, on training and test set, by epoch
"""

import argparse
import functools
import math
import os
import sys
import time
from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from dataset import MNIST, augment, data_loader, find_splits, split_validation
from model import MODELS, count_parameters
from support.checkpoint import RunState, fingerprint, load_model, make_ema, resume
from support.distributed import (
    device_name,
    distribute,
    pick_device,
    process_group,
    progress_bar,
    set_up_cpu,
)
from support.evaluation import show_evaluation
from support.files import RunError, run_program
from support.muon import Muon
from support.options import config_of, parse_arguments, watched_split
from support.plots import MODEL_TITLES, SPLIT_TITLES
from support.run_files import metrics_of, prepare_folder, run_files, run_lock, save_run

TEST_BATCH = 1000  # images: nothing is kept for a backward pass, so batches can be large

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]  # images [B, 1, 28, 28], labels [B]
Criterion = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # logits, labels -> mean loss


def train(
    model: nn.Module,
    trn_loader: Batches,
    device: torch.device,
    criterion: Criterion,
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler | None = None,
    ema: AveragedModel | None = None,
) -> tuple[float, float]:
    """Train `model` for one epoch.

    After each step of the optimizer, `scheduler` (if given) sets the next learning rate, and `ema`
    (if given) is updated with the new weights.

    Returns:
        The average loss per sample and the accuracy (0 to 1) over the epoch, from the logits that
        each batch was trained on: before its own update, with dropout and augmentation.
    """
    model.train()
    # Averaged once per epoch: .item() after each batch would make the CPU wait for a GPU.
    all_logits, all_labels = [], []
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

        all_logits.append(logits.detach())
        all_labels.append(labels)
    return loss_and_accuracy(torch.cat(all_logits), torch.cat(all_labels), criterion)


def test(
    model: nn.Module, tst_loader: Batches, device: torch.device, criterion: Criterion
) -> tuple[float, float]:
    """Return the average loss per sample and the accuracy (0 to 1) of `model`."""
    logits, labels = compute_logits(model, tst_loader, device)
    return loss_and_accuracy(logits, labels, criterion)


@torch.no_grad()
def compute_logits(
    model: nn.Module, loader: Batches, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits of each image, float32 [N, 10], and its label, int64 [N], on `device`."""
    model.eval()
    all_logits, all_labels = [], []
    for images, labels in loader:
        all_logits.append(model(images.to(device)))
        all_labels.append(labels.to(device))
    return torch.cat(all_logits), torch.cat(all_labels)


def loss_and_accuracy(
    logits: torch.Tensor, labels: torch.Tensor, criterion: Criterion
) -> tuple[float, float]:
    """Return the average loss per sample and the accuracy (0 to 1) of logits, float32 [N, 10],
    for images with these labels, int64 [N]."""
    correct = (logits.argmax(dim=1) == labels).sum().item()
    return criterion(logits, labels).item(), correct / len(labels)


def fit(
    state: RunState,
    trn_set: MNIST,
    trn_loader: DataLoader,
    tst_loader: DataLoader,
    device: torch.device,
    epochs: int,
    aug_epochs: int,
    label_smoothing: float,
    watched: str,
    save: Callable[[], None],
) -> None:
    """Train until `epochs` epochs are done, continuing after those in `state.history`. Test, save
    and print a line after each.

    Args:
        aug_epochs: the number of first epochs that train on augmented images.
        label_smoothing: for the training loss; the test loss is plain cross-entropy.
        watched: what `tst_loader` holds, "test" or "val".
        save: called after every epoch.

    Raises:
        RunError: the training or test loss is not a finite number.
    """
    model = distribute(state.model)
    tested = distribute(state.ema) if state.ema else model
    trn_criterion = nn.CrossEntropyLoss(label_smoothing=label_smoothing)
    tst_criterion = nn.CrossEntropyLoss()

    for epoch in range(len(state.history) + 1, epochs + 1):  # a resumed run has a history
        start = time.perf_counter()
        # trn_loader reads this same data set, so this switches its augmentation on or off.
        trn_set.transform = augment if epoch <= aug_epochs else None
        trn_loss, trn_accuracy = train(
            model,
            progress_bar(trn_loader, f"epoch {epoch}"),
            device,
            trn_criterion,
            state.optimizer,
            state.scheduler,
            state.ema,
        )
        tst_loss, tst_accuracy = test(tested, tst_loader, device, tst_criterion)
        state.history.append(
            {
                "epoch": epoch,
                "train_loss": trn_loss,
                "train_accuracy": trn_accuracy,
                f"{watched}_loss": tst_loss,
                f"{watched}_accuracy": tst_accuracy,
                "seconds": time.perf_counter() - start,
                "lr": state.optimizer.param_groups[0]["lr"],  # for the next step
            }
        )
        if not math.isfinite(trn_loss + tst_loss):
            raise RunError(f"the loss became {trn_loss + tst_loss} in epoch {epoch}; lower --lr")
        save()
        print(epoch_line(state.history[-1], epochs, watched), flush=True)


def epoch_line(entry: dict, epochs: int, watched: str) -> str:
    """Format one entry of the history as the line that is printed after its epoch."""
    return (
        f"epoch {entry['epoch']:{len(str(epochs))}}/{epochs}"
        f"  train loss {entry['train_loss']:.4f}, accuracy {entry['train_accuracy']:.2%}"
        f"  {SPLIT_TITLES[watched]} loss {entry[f'{watched}_loss']:.4f}, "
        f"accuracy {entry[f'{watched}_accuracy']:.2%}"
        f"  {entry['seconds']:.1f} s"
    )


# --- the parts of a run -----------------------------------------------------------------------


def load_sets(data_dir: str | None, validation: int) -> tuple[MNIST, MNIST]:
    """Return the training set, and what to test on: the test set, or, if `validation` is not 0,
    that many images held out of the training set."""
    trn_path, tst_path = find_splits(data_dir)
    trn_set = MNIST(trn_path)
    if not validation:
        return trn_set, MNIST(tst_path)
    if validation >= len(trn_set):
        raise RunError(
            f"--validation {validation}: must be less than the {len(trn_set)} training images"
        )
    return split_validation(trn_set, validation)


def make_optimizer(
    model: nn.Module, name: str, lr: float, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Build the optimizer called `name`, "sgd" or "muon"."""
    if name == "muon":
        return Muon(model.parameters(), lr, momentum, weight_decay)
    device = next(model.parameters()).device
    return torch.optim.SGD(
        model.parameters(),
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
        fused=device.type in ("cpu", "cuda"),  # one kernel for all parameters: faster
    )


def make_schedule(optimizer: torch.optim.Optimizer, name: str, steps: int) -> LRScheduler | None:
    """Build the learning-rate schedule called `name`; None for "constant".

    "onecycle": over the first fifth of the steps the learning rate rises linearly to that of
    `optimizer`; then it falls linearly to 0 (after Smith & Topin 2018, Super-Convergence).
    """
    if name == "constant":
        return None
    warmup = math.ceil(steps / 5)

    def factor(step: int) -> float:
        rising = (step + 1) / warmup  # 1 at the last step of the warmup
        falling = (steps - step) / (steps - warmup + 1)  # 1 there, too, and 0 after the last step
        return min(rising, falling)

    return LambdaLR(optimizer, factor)  # multiplies the peak learning rate by it


def run(
    args: argparse.Namespace, device: torch.device, trn_set: MNIST, tst_set: MNIST
) -> tuple[nn.Module, dict]:
    """Train one network as specified by the command line `args`.

    Args:
        tst_set: what to test on after each epoch: the test set or held-out training images.

    Returns:
        The trained network (with --ema its average), and the metrics that were written.

    Raises:
        RunError: the run cannot be resumed, or the loss is no longer a finite number.
        OSError: a file cannot be written.
    """
    config = config_of(args)
    files = run_files(args.results_dir, args.name)
    watched = watched_split(config)
    # Before the sets are moved: fingerprints are computed on the CPU.
    data = {"training": fingerprint(trn_set), SPLIT_TITLES[watched]: fingerprint(tst_set)}
    trn_set, tst_set = trn_set.to(device), tst_set.to(device)  # copies: fit sets a transform
    with run_lock(files):
        torch.manual_seed(args.seed)
        model = MODELS[args.model](args.dropout)
        model = model.to(device, memory_format=torch.channels_last)  # faster convolutions
        trn_loader = data_loader(trn_set, args.batch_size, shuffle=True, seed=args.seed)
        tst_loader = data_loader(tst_set, TEST_BATCH, shuffle=False)
        optimizer = make_optimizer(model, args.optimizer, args.lr, args.momentum, args.weight_decay)
        steps = args.epochs * len(trn_loader)
        state = RunState(
            model,
            optimizer,
            scheduler=make_schedule(optimizer, args.schedule, steps),
            ema=make_ema(model, args.ema) if args.ema else None,
            shuffle_generator=trn_loader.generator,
            history=[],
        )
        save = functools.partial(save_run, files, state, config, data, device)
        if args.resume and resume(files.checkpoint, state, config, data, device):
            save()  # the run may have died after writing only some of its files
        print(
            f"{MODEL_TITLES[args.model]}, {count_parameters(model):,} parameters, "
            f"on {device_name(device)}: {len(trn_set):,} training and "
            f"{len(tst_set):,} {SPLIT_TITLES[watched]} images"
        )
        fit(
            state,
            trn_set,
            trn_loader,
            tst_loader,
            device,
            args.epochs,
            aug_epochs=args.epochs - args.no_aug_epochs if args.augment else 0,
            label_smoothing=args.label_smoothing,
            watched=watched,
            save=save,
        )
    print(*files, sep="\n")
    trained = state.ema.module if state.ema else model
    return trained, metrics_of(state, config, data, device)


# --- the program ------------------------------------------------------------------------------


def evaluate(args: argparse.Namespace, device: torch.device) -> None:
    """Test a trained network on the test set; print its confusion matrix and draw its errors."""
    model = load_model(args.evaluate).to(device)
    _, tst_path = find_splits(args.data_dir)
    tst_set = MNIST(tst_path)
    plots_dir = args.results_dir / "plots"
    prepare_folder(plots_dir)
    loader = data_loader(tst_set, TEST_BATCH, shuffle=False)
    logits, labels = compute_logits(model, loader, device)
    logits, labels = logits.cpu(), labels.cpu()
    loss, accuracy = loss_and_accuracy(logits, labels, nn.CrossEntropyLoss())
    show_evaluation(args.evaluate, plots_dir, tst_set.images, labels, logits, loss, accuracy)


def main(arguments: list[str] | None = None) -> None:
    """Run the program with `arguments` (default: those of the command line)."""
    args = parse_arguments(arguments)
    set_up_cpu(args.threads)
    device = pick_device(args.device)
    if not (args.evaluate or args.predict):
        with process_group(device):
            run(args, device, *load_sets(args.data_dir, args.validation))
    elif os.environ.get("RANK", "0") != "0":
        return  # torchrun started several processes; one is enough here
    elif args.evaluate:
        evaluate(args, device)
    else:
        from support.prediction import predict_images  # imports scipy, so only here

        model = load_model(args.checkpoint).to(device)
        if not predict_images(args.predict, model, device, args.json, args.save_inputs):
            sys.exit(1)


if __name__ == "__main__":
    run_program(main, resume_hint="the same command with --resume")
