"""Train LeNet-5 or the MLP on MNIST, evaluate what was trained, or read your own digits.

    python main.py --model lenet5
    python main.py --model mlp --epochs 20
    python main.py --evaluate results/checkpoints/lenet5.pt
    python main.py --predict photo.png

In each epoch the network sees every training image once; then it is tested. After every epoch a run
called NAME (the model's name, with --regularize "-regularized" after it) updates:

    results/checkpoints/NAME.pt   weights, optimizer, RNG states: all that is needed to resume
    results/metrics/NAME.json     configuration, history by epoch, versions
    results/plots/NAME.png        loss and accuracy, on training and test set, by epoch
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dataset import AUGMENTATIONS, MNIST, data_loader, find_split, split_validation
from model import MODELS

# Helpers: train() and test() need none of them.
from support.checkpoint import TrainingState, load_checkpoint, load_model, model_of
from support.checks import check_parts
from support.device import memory_errors, pick_device, set_up_cpu
from support.distributed import distribute, is_first_of_torchrun, process_group, progress_bar
from support.errors import RunError, run_program
from support.evaluation import show_evaluation
from support.muon import Muon
from support.options import parse_arguments
from support.run_files import RunFiles
from support.settings import Settings

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
        each batch was trained on: before that batch's update, with dropout and augmentation.
    """
    model.train()
    # Kept, and averaged once: .item() after each batch would make the CPU wait for the GPU.
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
    state: TrainingState,
    settings: Settings,
    trn_set: MNIST,
    watched_set: MNIST,
    device: torch.device,
) -> Iterator[dict]:
    """Train and test epoch by epoch, from where `state.history` ends; add each one's numbers to it
    and yield them. (A generator: nothing runs until they are asked for.)

    Args:
        watched_set: what to test on: the test set, or held-out training images.

    Raises:
        RunError: the training or test loss is not a finite number.
    """
    trn_loader = data_loader(
        trn_set, settings.batch_size, shuffle=True, generator=state.shuffle_generator
    )
    tst_loader = data_loader(watched_set)
    model = distribute(state.model)
    tested = distribute(state.ema, trained=False) if state.ema else model
    trn_criterion = nn.CrossEntropyLoss(label_smoothing=settings.label_smoothing)
    tst_criterion = nn.CrossEntropyLoss()  # never smoothed, so as to be comparable
    given = trn_set.transform  # none, or one of the caller's own
    augmentation = AUGMENTATIONS[settings.augment] if settings.augment else given
    augmented_epochs = settings.epochs - settings.no_aug_epochs

    for epoch in range(len(state.history) + 1, settings.epochs + 1):  # a resumed run has a history
        start = time.perf_counter()
        trn_set.transform = augmentation if epoch <= augmented_epochs else given
        batches = progress_bar(trn_loader, f"epoch {epoch}")
        trn_loss, trn_accuracy = train(
            model, batches, device, trn_criterion, state.optimizer, state.scheduler, state.ema
        )
        tst_loss, tst_accuracy = test(tested, tst_loader, device, tst_criterion)
        if not math.isfinite(trn_loss + tst_loss):
            raise RunError(f"the loss became {trn_loss + tst_loss} in epoch {epoch}; lower --lr")
        entry = {
            "epoch": epoch,
            "train_loss": trn_loss,
            "train_accuracy": trn_accuracy,
            f"{settings.watched}_loss": tst_loss,
            f"{settings.watched}_accuracy": tst_accuracy,
            "seconds": time.perf_counter() - start,
            "lr": state.optimizer.param_groups[0]["lr"],  # at the end of the epoch
        }
        state.history.append(entry)
        yield entry


# --- the parts of a run -----------------------------------------------------------------------


def onecycle(step: int, steps: int) -> float:
    """Return the factor of the peak learning rate at `step` of `steps`: in the first fifth it rises
    linearly to 1, then it falls linearly to 0 (after Smith & Topin 2018, Super-Convergence, but
    with a constant momentum)."""
    warmup = math.ceil(steps / 5)
    rising = (step + 1) / warmup  # 1 at the last step of the warmup
    falling = (steps - step) / (steps - warmup + 1)  # 1 there, too, and 0 after the last step
    return min(rising, falling)


# Each optimizer by its name: a function of a network's parameters and the settings.
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda parameters, s: torch.optim.SGD(
        parameters, s.lr, s.momentum, weight_decay=s.weight_decay, fused=True
    ),  # fused: updates all parameters at once
    "muon": lambda parameters, s: Muon(parameters, s.lr, s.momentum, s.weight_decay),
}
# Each schedule: a function of the step (0, 1, ...) and the number of steps, a factor of --lr.
SCHEDULES = {"onecycle": onecycle, "constant": lambda step, steps: 1.0}


def make_model(name: str, dropout: float | None) -> nn.Module:
    """Return a new network; `dropout` is passed only if it is not None.

    Raises:
        RunError: its class does not take the dropout, or needs other arguments.
    """
    given = {} if dropout is None else {"dropout": dropout}
    try:
        return MODELS[name](**given)
    except TypeError as error:
        remedy = "leave out --dropout" if given else "give its arguments defaults"
        raise RunError(f"cannot make {name}: {error}; {remedy}") from error


def make_scheduler(optimizer: torch.optim.Optimizer, name: str, steps: int) -> LRScheduler:
    """Return what sets the learning rate of each of `steps` steps."""
    # float: a schedule may return NumPy's, which would spoil a checkpoint. min: torch also asks for
    # the step after the last.
    return LambdaLR(optimizer, lambda step: float(SCHEDULES[name](min(step, steps - 1), steps)))


def load_sets(settings: Settings) -> tuple[MNIST, MNIST]:
    """Return the training set, and what to test on: the test set, or, with --validation N, N images
    held out of the training set."""
    trn_set = MNIST(find_split("train", settings.data_dir))
    count = settings.validation
    if not count:
        return trn_set, MNIST(find_split("test", settings.data_dir))
    if count >= len(trn_set):
        raise RunError(f"--validation {count}: leaves none of the {len(trn_set)} training images")
    return split_validation(trn_set, count)


def run(
    settings: Settings, device: torch.device | str, trn_set: MNIST, watched_set: MNIST
) -> tuple[nn.Module, dict]:
    """Train one network on `trn_set`, and test it after each epoch on `watched_set`: the test set,
    or held-out training images. Both lie on the CPU.

    Returns:
        The trained network (with --ema its average), and the metrics that were written.

    Raises:
        RunError: the run cannot start, resume, or go on (the loss is not a finite number).
        OSError: a file cannot be written.
    """
    device = torch.device(device)
    files = RunFiles(settings, device, trn_set, watched_set)
    trn_set, watched_set = trn_set.to(device), watched_set.to(device)  # new: fit sets a transform
    with files.locked():
        torch.manual_seed(settings.seed)
        model = make_model(settings.model, settings.dropout).to(device)
        optimizer = OPTIMIZERS[settings.optimizer](model.parameters(), settings)
        check_parts(model, optimizer, trn_set, settings.augment, settings.model, device)
        ema = None
        if settings.ema:  # a copy that follows the weights: decay * itself + (1 - decay) * them
            ema = AveragedModel(model, device, multi_avg_fn=get_ema_multi_avg_fn(settings.ema))
        steps = settings.epochs * math.ceil(len(trn_set) / settings.batch_size)
        state = TrainingState(
            model,
            optimizer,
            scheduler=make_scheduler(optimizer, settings.schedule, steps),
            ema=ema,
            shuffle_generator=torch.Generator().manual_seed(settings.seed),
            history=[],
        )
        if settings.resume:
            files.resume(state)
        print(files.title_line(model))
        for entry in fit(state, settings, trn_set, watched_set, device):
            files.save(state)
            print(files.epoch_line(entry), flush=True)
    print(*files.paths, sep="\n")
    return (state.ema.module if state.ema else model).eval(), files.metrics_of(state)


# --- the program ------------------------------------------------------------------------------


def evaluate(args: argparse.Namespace, settings: Settings, device: torch.device) -> None:
    """Test a trained network on the test set; print its confusion matrix and draw its errors."""
    checkpoint = load_checkpoint(args.evaluate)
    model = model_of(args.evaluate, checkpoint).to(device)
    tst_path = find_split("test", settings.data_dir)
    tst_set = MNIST(tst_path)
    logits, _ = compute_logits(model, data_loader(tst_set), device)
    show_evaluation(
        args.evaluate, checkpoint, tst_path, tst_set, logits.cpu(), settings.results_dir, args.json
    )


@memory_errors()
def command(arguments: list[str] | None = None) -> None:
    """Do what `arguments` (default: those of the command line) ask for."""
    args, settings = parse_arguments(
        arguments, model=MODELS, optimizer=OPTIMIZERS, schedule=SCHEDULES, augment=AUGMENTATIONS
    )
    set_up_cpu(settings.threads)
    device = pick_device(settings.device)
    if not (args.evaluate or args.predict):
        with process_group(device):
            run(settings, device, *load_sets(settings))
    elif not is_first_of_torchrun():
        return  # only one process evaluates or predicts
    elif args.evaluate:
        evaluate(args, settings, device)
    else:
        from support.prediction import predict_images  # imports scipy, so only here

        model = load_model(args.checkpoint).to(device)
        if not predict_images(args.predict, model, device, args.json, args.save_inputs):
            sys.exit(1)


def main(arguments: list[str] | None = None) -> None:
    """Run the program; report an error in one line, with an exit code."""
    run_program(lambda: command(arguments), resume_hint="the same command with --resume")


if __name__ == "__main__":
    main()
