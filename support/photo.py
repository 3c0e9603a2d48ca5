"""Finding the digit in anybody's photo, scan or drawing.

A picture is seen as ink on a ground. The ground may be lit unevenly, ruled or dirty; of what stands
out from it, the connected components decide which marks are the digit (scipy.ndimage).
"""

import contextlib
import io
import math
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter, ImageOps, UnidentifiedImageError
from scipy import ndimage

from support.files import DataError
from support.sheets import find_sheets

LONGEST = 1000  # pixels: a larger picture is first looked at in a reduced copy
FAINTEST = 32  # of 255: the least contrast of a digit
CELLS = 64  # the ground is estimated on a copy whose longer side has so many pixels
STRIPS = 32  # columns of a copy in which printed lines are looked for
CUT_OFF = "it is cut off by the border"
NEIGHBORS = np.ones((3, 3))  # pixels that touch at a corner are connected, too


def read_channels(path: Path) -> list[Image.Image]:
    """The channels of an image of any kind, 8 bits each, upright, at full resolution.

    What is transparent counts as white, and opacity as one more channel: so a white digit on a
    transparent ground is seen as well.

    Raises:
        DataError: the file cannot be read, or is no image.
    """
    if path.exists() and not path.is_file():  # reading a named pipe would wait forever
        raise DataError(f"{path}: is not a file; name an image")
    try:
        content = io.BytesIO(path.read_bytes())
        with warnings.catch_warnings():
            # Pillow warns from 90 megapixels on; from 179 it refuses, which is enough.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(content)
            ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith(("I", "F")):  # 16 bits or more, which Pillow would cut off
            values = np.asarray(image, np.float32)
            values = 255 * (values - values.min()) / max(np.ptp(values), 1)
            image = Image.fromarray(values.astype(np.uint8))
        channels = []
        if image.has_transparency_data:
            image = image.convert("RGBA")
            channels = [image.getchannel("A")]
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return [*channels, *image.convert("RGB").split()]
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: is not an image that Pillow can read; name another") from error
    except Exception as error:  # Pillow meets a malformed image with errors of many types
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read ({reason}); name another") from error


def find_ink(channels: list[Image.Image]) -> tuple[np.ndarray, list[str]]:
    """The digit on a sheet of paper in the picture, or else in the whole picture.

    Returns:
        The ink of each pixel, float32 [height, width], 0 to 1, and what gives rise to doubt.

    Raises:
        DataError: nothing stands out.
    """
    for sheet, inside in find_sheets(channels):
        with contextlib.suppress(DataError):  # nothing is written on it
            ink, doubts = find_ink_within(sheet, inside)
            if CUT_OFF not in doubts:
                return ink, doubts
    return find_ink_within(channels, Image.new("L", channels[0].size, 255))


def find_ink_within(
    channels: list[Image.Image], inside: Image.Image, box: tuple[int, ...] | None = None
) -> tuple[np.ndarray, list[str]]:
    """The digit within `box` (left, top, right, bottom; default: the whole picture), as `find_ink`
    returns it. `inside`: a mask; a digit that reaches beyond it is cut off."""
    left, top, right, bottom = box or (0, 0, *channels[0].size)
    factor = max(1, math.ceil(max(right - left, bottom - top) / LONGEST))
    *reduced, inside_here = (
        channel.reduce(factor, (left, top, right, bottom)) for channel in [*channels, inside]
    )
    contrast = without_rules(contrast_to_ground(reduced))
    strongest = contrast.max()
    if strongest < FAINTEST:
        raise DataError("no digit stands out from its background")
    digit, doubts = choose_digit(contrast, strongest / 4, np.asarray(inside_here) < 255)

    [(rows, columns)] = ndimage.find_objects(digit.astype(np.uint8))
    side = max(rows.stop - rows.start, columns.stop - columns.start)
    if factor > 1 and side < 80:  # too small here: look again, closer, with as much around it
        closer = (
            max(left, left + factor * (columns.start - side)),
            max(top, top + factor * (rows.start - side)),
            min(right, left + factor * (columns.stop + side)),
            min(bottom, top + factor * (rows.stop + side)),
        )
        ink, more = find_ink_within(channels, inside, closer)
        return ink, doubts + more
    within = contrast[digit]
    full = np.median(within[within > within.max() / 2])
    return np.where(digit, (contrast - full / 4) / (full - full / 4), 0).clip(0, 1), doubts


def contrast_to_ground(channels: list[Image.Image]) -> np.ndarray:
    """How much each pixel differs from its ground in the channel where it differs most: float32
    [height, width], 0 to 255; what lies in the shade is brightened as its ground is."""
    if min(channels[0].size) >= 100:
        channels = [channel.filter(ImageFilter.BoxBlur(1)) for channel in channels]  # less noise
    pixels = np.stack(channels).astype(np.float32)
    border = np.concatenate(
        [pixels[:, 0], pixels[:, -1], pixels[:, :, 0], pixels[:, :, -1]], axis=1
    )
    even = np.median(border, axis=1)[:, None, None]
    distance = np.abs(border - even[:, :, 0]).max(axis=0)
    if (distance < FAINTEST / 2).mean() > 0.85:
        return np.abs(pixels - even).max(axis=0)  # evenly lit: one background for the picture

    low, high = np.stack([local_ground(channel) for channel in channels], axis=1)
    contrast = np.maximum(pixels - high, low - pixels).max(axis=0).clip(0)
    light = 16 + low.mean(axis=0)  # 16: black ground says little about the light
    return contrast * np.median(light) / light


def local_ground(channel: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """The darkest and the brightest that the ground may be at each pixel, float32 [height, width].

    The ground is the median of a neighborhood half as wide as the picture: strokes do not fill it,
    and it keeps the straight edge of a shadow. Beside such an edge dark and bright differ, and only
    what is darker or brighter than both counts as ink. A median here is the lowest gray level, in
    steps of 3, that at least half of the window's pixels do not exceed.
    """
    scale = min(1, CELLS / max(channel.size))
    width, height = (max(1, round(scale * side)) for side in channel.size)
    small = np.asarray(channel.resize((width, height), Image.Resampling.BOX))
    levels = np.arange(0, 255, 3)
    below = (small <= levels[:, None, None]).astype(np.float32)
    window = 1 + 2 * (min(width, height) // 4)
    share = ndimage.uniform_filter(below, (0, window, window), mode="nearest")
    ground = 3 * (share < 0.5).sum(axis=0)
    low, high = (
        Image.fromarray(extreme(ground, 7).astype(np.float32)).resize(channel.size)
        for extreme in (ndimage.minimum_filter, ndimage.maximum_filter)
    )
    return np.asarray(low), np.asarray(high)


def without_rules(contrast: np.ndarray) -> np.ndarray:
    """Remove printed lines. Under them, the contrast is the mean of what lies around, weighted
    by a Gaussian (normalized convolution: Knutsson, Westin 1993)."""
    strokes = contrast > 0.15 * contrast.max()
    rules = crossing_lines(strokes) | crossing_lines(strokes.T).T
    if not rules.any():
        return contrast
    rules = ndimage.binary_dilation(rules)
    weight = ndimage.gaussian_filter((~rules).astype(np.float32), 3)
    around = ndimage.gaussian_filter(np.where(rules, 0, contrast), 3)
    return np.where(rules, around / np.maximum(weight, 1e-3), contrast)


def crossing_lines(strokes: np.ndarray) -> np.ndarray:
    """Which pixels of `strokes`, bool [height, width], lie on a straight line that goes from the
    left of the picture to the right, as no digit does; it may rise by a tenth of the height."""
    height, width = strokes.shape
    columns = np.arange(width)
    thick = thicker(strokes, 1)  # so that a line may bend slightly
    found = np.zeros_like(strokes)
    strips = Image.fromarray(thick).convert("L").resize((STRIPS, height), Image.BOX)
    strips = np.asarray(strips) / 255  # how much of a row's piece is covered
    if strips.max(axis=0).mean() <= 0.9:
        return found  # most often: no line can be there
    centers = ((np.arange(STRIPS) + 0.5) * width / STRIPS).astype(int)
    for rise in range(-(height // 10), height // 10 + 1, 2):
        shift = np.rint(rise * (columns / width - 0.5)).astype(int)
        rows = (np.arange(height)[:, None] + shift[centers]).clip(0, height - 1)
        covered = strips[rows, np.arange(STRIPS)].mean(axis=1)
        lines = (covered > 0.9).nonzero()[0]
        found[(lines[:, None] + shift).clip(0, height - 1), columns] = True
    return found & thick


def thicker(strokes: np.ndarray, by: int) -> np.ndarray:
    """Strokes, bool [height, width], that reach so many pixels further up and down. (In place of a
    maximum filter of scipy's, which takes 40 times as long.)"""
    padded = np.pad(strokes, ((by, by), (0, 0)))
    return np.any([padded[row : row + len(strokes)] for row in range(2 * by + 1)], axis=0)


def choose_digit(
    contrast: np.ndarray, threshold: float, outside: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """Which pixels, bool [height, width], are the digit's, and what gives rise to doubt.

    The digit is the strongest connected component that does not touch the sides of the picture or
    of the sheet, with the parts close to it. Strokes that are 4 pixels apart are connected.
    """
    strokes = contrast > threshold
    connected = thicker(thicker(strokes, 2).T, 2).T
    labels, count = ndimage.label(connected, NEIGHBORS)
    marks = labels * strokes
    numbers = range(1, count + 1)
    boxes = ndimage.find_objects(labels)
    sides = marks[0], marks[-1], marks[:, 0], marks[:, -1], marks[outside]
    touched = np.sum([np.isin(numbers, side) for side in sides], axis=0)
    # The more sides a component touches, the more likely it is a table or a shadow.
    weights = np.bincount(labels.ravel(), contrast.ravel())[1:] / 4.0**touched
    main = int(weights.argmax())
    y, x = boxes[main]
    tall, wide = y.stop - y.start, x.stop - x.start
    digit = labels == main + 1
    contact = sum((side == main + 1).sum() for side in sides)  # pixels: a tip may touch a side
    doubts = [CUT_OFF] if contact > 3 else []
    for other in (weights > 0.05 * weights[main]).nonzero()[0]:
        if other == main:
            continue
        other_y, other_x = boxes[other]
        above = max(other_y.start - y.stop, y.start - other_y.stop)
        beside = max(other_x.start - x.stop, x.start - other_x.stop)
        as_tall = other_y.stop - other_y.start > tall / 2  # then it is another digit
        close = max(above, beside) <= 0.1 * max(tall, wide) and touched[other] <= touched[main]
        if close and not (beside >= 0 and as_tall):
            digit |= labels == other + 1
        elif weights[other] > weights[main] / 4:
            doubts.append("there is more than one mark")
    return digit, doubts
