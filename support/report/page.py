"""The page on which anybody draws a digit and watches LeNet-5 read it: page.html, with numbers.

The page is one file that asks for nothing: the network's forward pass is in page.html, in
JavaScript; its weights and ten digits of the test set are put in here.
"""

import base64
import json
from pathlib import Path

import torch
from torch import nn

from dataset import MNIST, data_loader
from support.files import atomic_write

TEMPLATE = Path(__file__).with_name("page.html")
PLACE = "@NUMBERS@"
LAYERS = ("conv1", "conv2", "fc1", "fc2", "fc3")
MISCLASSIFIED = 2  # of the ten digits


def write_page(path: Path, model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    """Write the page of `model`, a LeNet5, to `path`: for the same arguments the same bytes.

    Args:
        images, labels: a test set, uint8 [N, 1, 28, 28] and int64 [N], with each label in it.

    Raises:
        OSError: `path` cannot be written.
    """
    digits = choose_digits(model, images, labels)
    numbers = {
        "weights": weights_base64(model),
        "digits": [
            {"label": int(labels[index]), "pixels": to_base64(images[index])} for index in digits
        ],
    }
    # Nothing but numbers, braces and names of ours: what is inserted can never be code.
    page = TEMPLATE.read_text(encoding="utf-8").replace(PLACE, json.dumps(numbers))
    with atomic_write(path) as file:
        file.write(page.encode())


@torch.no_grad()
def choose_digits(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> list[int]:
    """Return the indices of ten images, one of each label in order: the first that `model`
    classifies correctly, but the first that it misclassifies of the two labels of its first errors
    and of a label that it never classifies correctly."""
    model.eval()
    batches = data_loader(MNIST((images, labels)))
    predicted = torch.cat([model(batch).argmax(dim=1) for batch, _ in batches])
    correct: dict[int, int] = {}  # by label, the first index
    misclassified: dict[int, int] = {}
    for index, (label, digit) in enumerate(zip(labels.tolist(), predicted.tolist(), strict=True)):
        first_of = correct if digit == label else misclassified
        first_of.setdefault(label, index)
    shown_errors = dict(list(misclassified.items())[:MISCLASSIFIED])
    chosen = misclassified | correct | shown_errors  # the later ones win
    return [chosen[label] for label in sorted(chosen)]


def weights_base64(model: nn.Module) -> str:
    """Encode each layer's weight and bias, one after the other, as little-endian float32."""
    layers = [getattr(model, name) for name in LAYERS]
    arrays = [array for layer in layers for array in (layer.weight, layer.bias)]
    return to_base64(torch.cat([array.detach().flatten() for array in arrays]))


def to_base64(values: torch.Tensor) -> str:
    """Encode a uint8 or float32 tensor in base64, row by row, little-endian."""
    array = values.cpu().numpy()
    return base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode()
