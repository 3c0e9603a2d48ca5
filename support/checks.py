"""Checks before the first epoch: of what would fail later, or be wrong in silence."""

import copy

import torch
from torch import nn

from dataset import AUGMENTATIONS, MNIST, normalize
from support.device import random_state_kept
from support.errors import RunError


def check_parts(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    trn_set: MNIST,
    augmentation: str | None,
    name: str,
    device: torch.device,
) -> None:
    """Raise RunError unless these parts of a run, on `device`, go with `train` and with each other.
    Leaves no trace: weights, buffers and random generators stay as they are.

    Args:
        name: what MODELS calls the network.
    """
    check_network(model, name, device)
    if isinstance(optimizer, torch.optim.LBFGS):
        raise RunError("LBFGS needs a closure, which train() does not give; use another optimizer")
    if augmentation is None:
        return
    if trn_set.transform is not None:
        raise RunError(
            f"--augment {augmentation} would replace the training set's own transform; use one"
        )
    images = normalize(trn_set.images[:2])
    with random_state_kept(device):
        changed = AUGMENTATIONS[augmentation](images)
    if (changed.shape, changed.dtype) != (images.shape, images.dtype):
        raise RunError(
            f"--augment {augmentation} makes {list(changed.shape)}, {changed.dtype} of "
            f"{list(images.shape)}, {images.dtype}; it must keep shape and dtype"
        )


def check_network(model: nn.Module, name: str, device: torch.device) -> None:
    """Raise RunError unless `model`, on `device`, gives ten logits an image. Leaves no trace:
    weights, buffers and random generators stay as they are."""
    with random_state_kept(device), torch.no_grad():
        logits = copy.deepcopy(model).eval()(torch.zeros(2, 1, 28, 28, device=device))
    form = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if form != [2, 10]:
        raise RunError(f"{name} returns {form} for two images; it must return logits, [2, 10]")
