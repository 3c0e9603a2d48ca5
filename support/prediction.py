"""Read anybody's digit: an image is brought to MNIST's form, and the network says what it shows.

image = read_digit("photo.png")  # uint8 [1, 28, 28]
logits = model(normalize(image)[None])
"""

import json
import math
import os
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import nn

from dataset import SIZE, normalize
from support.errors import DataError, RunError, error_line, printable
from support.files import atomic_write
from support.photo import find_ink, read_image

# A prediction is reported as unsure if its probability, averaged over the image as it is and turned
# by ANGLES (degrees), is below UNSURE: the highest threshold, in steps of 0.05, that warns of 3.5%
# or less of the digits read correctly in 2,010 synthetic photographs of held-out training digits
# (results/report/engineering.md).
ANGLES = (-30, -15, 15, 30)
UNSURE = 0.65
BOX = 20  # pixels: the longer side of a digit in MNIST's form
THINNEST = 2  # pixels: a stroke's least width in it; nine of ten in MNIST are 2.4 to 4.4 wide


def predict_images(
    paths: list[Path],
    model: nn.Module,
    device: torch.device,
    as_json: bool,
    inputs_folder: Path | None,
) -> bool:
    """Print which digit each image shows; one that cannot be read gives an error on stderr.

    Args:
        model: in evaluation mode, on `device`.
        as_json: print a JSON object an image instead of a sentence.
        inputs_folder: write there, as PNGs, what the network saw.

    Returns:
        Whether all images could be read.
    """
    all_read = True
    for number, path in enumerate(paths, start=1):
        try:
            image, doubts = find_digit(path)
        except DataError as error:
            print(error_line(str(error)), file=sys.stderr)
            all_read = False
            continue
        if inputs_folder:
            with atomic_write(inputs_folder / f"{number:03d}_{path.stem}.png") as file:
                Image.fromarray(image[0].numpy()).save(file, "PNG")
        probabilities, sure = classify(image, model, device)
        if not sure:
            doubts.append("the network is unsure")
        print(prediction_line(path, probabilities, doubts, as_json))
    return all_read


def classify(
    image: torch.Tensor, model: nn.Module, device: torch.device
) -> tuple[torch.Tensor, bool]:
    """Return the probability of each digit in an image in MNIST's form, float32 [10], and whether
    the first one's mean over the image as it is and turned by ANGLES is at least UNSURE.

    Raises:
        RunError: a probability is NaN, as those of a network that diverged are.
    """
    turned = [ndimage.rotate(image[0].numpy(), angle, order=1, reshape=False) for angle in ANGLES]
    images = torch.from_numpy(np.stack([image[0], *turned]))[:, None]
    with torch.no_grad():
        probabilities = model(normalize(images).to(device)).softmax(dim=1).cpu()
    if not probabilities.isfinite().all():
        raise RunError("the network's output is no number; name another --checkpoint")
    digit = probabilities[0].argmax()
    return probabilities[0], probabilities[:, digit].mean().item() >= UNSURE


def prediction_line(
    path: Path, probabilities: torch.Tensor, doubts: list[str], as_json: bool
) -> str:
    """Return what to print of one image, given the probability of each digit, float32 [10]."""
    (first, second), (digit, other) = (values.tolist() for values in probabilities.topk(2))
    warning = "; ".join(doubts) or None
    if as_json:
        return json.dumps(
            {
                "image": str(path),
                "digit": digit,
                "probability": first,
                "runner_up": other,
                "runner_up_probability": second,
                "warning": warning,
            }
        )
    line = f"{printable(str(path))}: {digit} ({first:.1%}), else {other} ({second:.1%})"
    return f"{line} - look again: {warning}" if warning else line


def read_digit(path: str | os.PathLike) -> torch.Tensor:
    """Return the digit in a photo, scan or drawing, in MNIST's form: uint8 [1, 28, 28].

    Raises:
        DataError: the image cannot be read, or no digit stands out in it.
    """
    return find_digit(path)[0]


def find_digit(path: str | os.PathLike) -> tuple[torch.Tensor, list[str]]:
    """Return the digit as `read_digit` does, and a phrase for each thing in the picture that casts
    doubt on it."""
    image = read_image(Path(path))
    try:
        ink, doubts = find_ink(image)
    except DataError as error:
        raise DataError(
            f"{path}: {error}; show one, dark on light or light on dark, with a free border"
        ) from error
    return to_mnist_form(ink), list(dict.fromkeys(doubts))  # each only once


def cropped(ink: np.ndarray) -> np.ndarray:
    """The smallest box around all ink."""
    [box] = ndimage.find_objects((ink > 0).astype(np.uint8))
    return ink[box]


def stroke_width(ink: np.ndarray) -> float:
    """The mean width of the strokes of ink in its box, in pixels of MNIST's form.

    Pixels in a stroke lie, on average, a quarter of its width from its edge.
    """
    distances = ndimage.distance_transform_edt(np.pad(ink > 0.5, 1))  # 0.5 more than to the edge
    return 4 * (distances[distances > 0].mean() - 0.5) * BOX / max(ink.shape)


def filled(ink: np.ndarray, line: float) -> np.ndarray:
    """Fill a digit, ink in its box, that is drawn as an outline by strokes `line` wide.

    What an outline encloses is wider than the line and long: its area is over 3 times its width
    squared. The loops of a digit are rounder.
    """
    strokes = ink > 0.5
    holes, count = ndimage.label(ndimage.binary_fill_holes(strokes) & ~strokes)
    areas = np.bincount(holes.ravel())[1:]
    distances = ndimage.distance_transform_edt(holes)
    widths = 2 * ndimage.maximum(distances, holes, np.arange(1, count + 1)) - 1
    enclosed = (widths > line * max(ink.shape) / BOX) & (areas > 3 * widths**2)
    return np.maximum(ink, np.isin(holes, 1 + enclosed.nonzero()[0]))


def thickened(ink: np.ndarray) -> np.ndarray:
    """Give ink in its box strokes that are at least THINNEST wide once they are scaled down."""
    missing = (THINNEST - stroke_width(ink)) / 2 * max(ink.shape) / BOX  # on each side of a stroke
    if missing <= 0:
        return ink
    ink = np.pad(ink, math.ceil(missing))
    beside = ndimage.distance_transform_edt(ink <= 0.5)
    return cropped(np.maximum(ink, (missing + 1 - beside).clip(0, 1)))


def to_mnist_form(ink: np.ndarray) -> torch.Tensor:
    """Bring ink, float32 [height, width], 0 for ground and 1 for a full stroke, to MNIST's form:
    uint8 [1, 28, 28], white on black.

    As LeCun et al. 1998 (section III.A) describe it: the digit is scaled to fit into 20x20 pixels,
    keeping its ratio, and put into 28x28 with its center of mass in the middle.
    """
    ink = cropped(ink)
    line = stroke_width(ink)
    if line < THINNEST:  # an outline, or a thin pen
        ink = thickened(filled(ink, line))
    height, width = (max(1, round(BOX * side / max(ink.shape))) for side in ink.shape)
    small = np.asarray(Image.fromarray(ink).resize((width, height), Image.Resampling.BOX))
    small = small / small.max()
    top, left = (
        round(np.clip((SIZE - 1) / 2 - middle, 0, SIZE - side))
        for middle, side in zip(ndimage.center_of_mass(small), small.shape, strict=True)
    )
    digit = np.zeros((SIZE, SIZE))
    digit[top : top + height, left : left + width] = small
    return torch.from_numpy(np.rint(255 * digit).astype(np.uint8))[None]
