"""Anybody's digit: a photo, scan or drawing is brought to MNIST's form and read."""

import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import nn

from dataset import SIZE, normalize
from support.files import DataError, atomic_write, error_line, printable

FAINTEST = 32  # of 255: what stands out less from its background is no digit


@torch.no_grad()
def predict_images(
    paths: list[Path],
    model: nn.Module,
    device: torch.device,
    as_json: bool,
    inputs_folder: Path | None,
) -> bool:
    """Print which digit each image shows.

    Args:
        inputs_folder: where to write what the network saw, if anywhere.

    Returns:
        Whether all images could be read: one that cannot is reported on standard error.
    """
    all_read = True
    for number, path in enumerate(paths, start=1):
        try:
            image = read_digit(path)
        except DataError as error:
            print(error_line(str(error)), file=sys.stderr)
            all_read = False
            continue
        if inputs_folder:
            save_input(inputs_folder / f"{number:03d}_{path.stem}.png", image)
        [logits] = model(normalize(image)[None].to(device)).cpu()
        print(prediction_line(path, logits.softmax(dim=0), as_json))
    return all_read


def prediction_line(path: Path, probabilities: torch.Tensor, as_json: bool) -> str:
    """What to print of one image: float32 [10] as words, or with --json as a JSON object."""
    (first, second), (digit, other) = (values.tolist() for values in probabilities.topk(2))
    if as_json:
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
    with atomic_write(path) as file:
        Image.fromarray(image[0].numpy()).save(file, "PNG")


def read_digit(path: str | os.PathLike) -> torch.Tensor:
    """One digit from a photo, scan or drawing, brought to MNIST's form: uint8 [1, 28, 28].

    As LeCun et al. 1998 (section III.A) describe it: the digit, white on black, is scaled to fit
    into 20x20 pixels, keeping its ratio, and put into 28x28 with its centre of mass in the middle.
    What counts as digit is what differs in colour from the image's border.

    Raises:
        DataError: the image cannot be read, or nothing in it stands out.
    """
    ink = ink_of(read_colors(Path(path)))
    strokes = ink > 0
    if not 0 < strokes.mean() < 0.5:
        raise DataError(
            f"{path}: no digit stands out from its background; show one, dark on light or light "
            "on dark, with a free border"
        )
    rows, columns = strokes.any(axis=1).nonzero()[0], strokes.any(axis=0).nonzero()[0]
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]

    height, width = (max(1, round(20 * side / max(ink.shape))) for side in ink.shape)
    small = np.asarray(Image.fromarray(ink).resize((width, height), Image.Resampling.BOX))
    small = small / small.max()
    digit = np.zeros((SIZE, SIZE))
    top, left = (
        round(np.clip((SIZE - 1) / 2 - middle, 0, SIZE - side))
        for middle, side in zip(center_of_mass(small), small.shape, strict=True)
    )
    digit[top : top + height, left : left + width] = small
    return torch.from_numpy(np.rint(255 * digit).astype(np.uint8))[None]


def read_colors(path: Path) -> np.ndarray:
    """The pixels of an image of any kind, float32 [height, width, channels], 0 to 255; a large one
    made smaller and softer, which evens out noise. What is transparent counts as white, and
    opacity as one more channel: so a white digit on a transparent ground is seen as well."""
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith(("I", "F")):  # 16 bits or more, which Pillow would cut off
                values = np.asarray(image, np.float32)
                values = 255 * (values - values.min()) / max(np.ptp(values), 1)
                image = Image.fromarray(values.astype(np.uint8))
            channels = []
            if image.has_transparency_data:
                image = image.convert("RGBA")
                channels = [image.getchannel("A")]
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            channels += image.convert("RGB").split()
    except Exception as error:  # Pillow meets a malformed image with errors of many types
        raise DataError(f"{path}: cannot be read as an image ({error}); name another") from error
    side = min(image.size)
    channels = [channel.reduce(max(1, side // 400)) for channel in channels]
    if side >= 100:
        channels = [channel.filter(ImageFilter.BoxBlur(1)) for channel in channels]
    return np.stack([np.asarray(channel, np.float32) for channel in channels], axis=2)


def ink_of(colours: np.ndarray) -> np.ndarray:
    """How much each pixel, [height, width, channels], belongs to the digit: float32 [height,
    width], 0 for the background, 1 for the full stroke; all 0 if nothing stands out."""
    border = np.concatenate([colours[0], colours[-1], colours[:, 0], colours[:, -1]])
    distance = np.abs(colours - np.median(border, axis=0)).max(axis=2)
    if distance.max() < FAINTEST:
        return np.zeros_like(distance)
    threshold = otsu_threshold(distance)
    full = np.median(distance[distance > threshold])
    return np.clip((distance - threshold / 2) / (full - threshold / 2), 0, 1)


def otsu_threshold(values: np.ndarray) -> float:
    """The value that parts `values` (0 to 255) best into low and high ones: that with the largest
    variance between the two (Otsu 1979)."""
    counts, edges = np.histogram(values, bins=256, range=(0, 256))
    below = counts.cumsum()[:-1]
    above = values.size - below
    sums = (counts * edges[:-1]).cumsum()
    means_below = sums[:-1] / np.maximum(below, 1)
    means_above = (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    return float(edges[1 + np.argmax(below * above * (means_above - means_below) ** 2)])


def center_of_mass(image: np.ndarray) -> tuple[float, float]:
    """(row, column), where the first pixel's middle is (0, 0)."""
    row, column = (np.arange(side) for side in image.shape)
    return (image.sum(axis=1) @ row) / image.sum(), (image.sum(axis=0) @ column) / image.sum()
