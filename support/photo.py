"""Finding the digit in anybody's photo, scan or drawing.

A picture is seen as ink on a ground. The ground may be lit unevenly, ruled or dirty; of what stands
out from it, the connected components decide which marks are the digit (scipy.ndimage).
"""

import contextlib
import io
import math
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageFilter, ImageOps, UnidentifiedImageError
from scipy import ndimage
from scipy.spatial import ConvexHull

from support.errors import DataError

LONGEST = 400  # pixels: a larger picture is first looked at in a reduced copy
FAINTEST = 32  # of 255: the least contrast of a digit
CELLS = 32  # longer side of the copy that shows the ground; pieces of a row, to find lines
SHEET_CELLS = 128  # columns and rows of the copy on which sheets are looked for
EDGE = 16  # of 255: the least difference between two cells that makes an edge
MAX_PIXELS = 64_000_000  # up to here a picture takes seconds, and about a gigabyte of memory
CUT_OFF = "it is cut off by the border"


def read_image(path: Path) -> Image.Image:
    """An image of any kind, 8 bits a channel, upright: mode L, RGB, or RGBX.

    What is transparent counts as white, and opacity as a fourth channel, X: so a white digit on a
    transparent ground is seen as well.

    Raises:
        DataError: the file cannot be read, or is no image.
    """
    if path.exists() and not path.is_file():  # reading a named pipe would wait forever
        raise DataError(f"{path}: is not a file; name an image")
    try:
        content = io.BytesIO(path.read_bytes())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # we refuse earlier
            image: Image.Image = Image.open(content)
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"it has more than {MAX_PIXELS // 10**6} megapixels")
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith(("I", "F")):  # 16 bits or more, which Pillow would cut off
            values = np.asarray(image, np.float32)
            if not np.isfinite(values).all():
                raise ValueError("it has pixels that are no numbers")
            values = 255 * (values - values.min()) / max(np.ptp(values), 1)
            image = Image.fromarray(values.astype(np.uint8))
        if image.has_transparency_data:
            image = image.convert("RGBA")
            on_white = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            return Image.merge("RGBX", [*on_white.split()[:3], image.getchannel("A")])
        return image if image.mode in ("L", "RGB") else image.convert("RGB")
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: is not an image that Pillow can read; name another") from error
    except Exception as error:  # Pillow meets a malformed image with errors of many types
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read ({reason}); name another") from error


def find_ink(image: Image.Image) -> tuple[np.ndarray, list[str]]:
    """The digit that is cropped to its box, or else on a sheet of paper, or else in the picture.

    Returns:
        How much of each pixel is ink, float32 [height, width], 0 to 1, in a reduced copy or a part
        of the picture, and what gives rise to doubt.

    Raises:
        DataError: nothing stands out.
    """
    whole, doubts = find_ink_within(image)
    if all(side.any() for side in (whole[0], whole[-1], whole[:, 0], whole[:, -1])):
        return whole, []  # cropped to its box: not cut off, and nothing lies beside it
    for sheet in find_sheets(image):
        with contextlib.suppress(DataError):  # nothing is written on it
            ink, doubts_on_sheet = find_ink_within(sheet)
            if CUT_OFF not in doubts_on_sheet:
                return ink, doubts_on_sheet
    return whole, doubts


def find_sheets(image: Image.Image) -> Iterator[Image.Image]:
    """Whatever may be a sheet of paper, or a card, on a table: what lies between its corners.

    A sheet is an even region of the picture that nearly fills a quadrilateral. All even regions
    that do not reach the sides are tried together first: the lit and the shaded part.
    """
    small = image.resize((SHEET_CELLS, SHEET_CELLS), Image.Resampling.BOX, reducing_gap=2)
    cells = np.stack([np.asarray(channel) for channel in small.split()])
    # What is less than 3 cells thick vanishes, as rules do; a frame does not: it goes on outside.
    cells = np.pad(cells, ((0, 0), (2, 2), (2, 2)), "edge")
    cells = ndimage.grey_opening(ndimage.grey_closing(cells, (1, 3, 3)), (1, 3, 3))[:, 2:-2, 2:-2]
    edges = ndimage.morphological_gradient(cells, (1, 3, 3)).max(axis=0)
    labels, _ = ndimage.label(edges < EDGE)
    areas = np.bincount(labels.ravel())
    large = 1 + np.argsort(-areas[1:])  # the largest first
    large = large[areas[large] > 0.002 * labels.size]
    inner = np.setdiff1d(large, [*labels[0], *labels[-1], *labels[:, 0], *labels[:, -1]])
    for region in (np.isin(labels, inner), *(labels == label for label in large)):
        # What holds all four corners is the table, or a picture without one.
        if region.mean() < 0.1 or region[[0, 0, -1, -1], [0, -1, 0, -1]].all():
            continue
        points = np.argwhere(region)
        y, x = (points * image.size[::-1]).T  # in the picture's proportions
        ends = [(y + x).argmin(), (y - x).argmax(), (y + x).argmax(), (y - x).argmin()]
        corners = points[ends]  # upper left, lower left, lower right, upper right
        area = np.linalg.det(corners[2:] - corners[:2]) / 2  # half the diagonals' cross product
        hull = ConvexHull(points)
        if region.sum() > 0.7 * hull.volume and area > 0.8 * hull.volume:
            yield flattened(image, (corners + 0.5) / region.shape)


def flattened(image: Image.Image, corners: np.ndarray) -> Image.Image:
    """What lies between four corners (row, column; each a share of the picture), as a rectangle."""
    image = image.reduce(max(1, max(image.size) // (5 * LONGEST)))
    corners = corners[:, ::-1] * image.size
    sides = np.hypot(*(corners - np.roll(corners, 1, axis=0)).T)
    width, height = sides.reshape(2, 2).max(axis=0).round().astype(int)  # the longer of opposites
    quadrilateral = corners.ravel().tolist()
    return image.transform(
        (width, height), Image.Transform.QUAD, quadrilateral, Image.Resampling.BILINEAR
    )


def find_ink_within(image: Image.Image) -> tuple[np.ndarray, list[str]]:
    """The digit in the whole picture, as `find_ink` returns it."""
    factor = max(1, math.ceil(max(image.size) / LONGEST))
    copy = image.reduce(factor)
    if factor < 3 and min(copy.size) >= 100:
        copy = copy.filter(ImageFilter.BoxBlur(1))  # less noise: a smaller copy has little
    contrast = without_rules(contrast_to_ground(copy))
    if contrast.max() < FAINTEST:
        raise DataError("no digit stands out from its background")
    digit, doubts = choose_digit(contrast, contrast.max() / 4)
    [(rows, columns)] = ndimage.find_objects(digit.astype(np.uint8))
    side = max(rows.stop - rows.start, columns.stop - columns.start)
    if factor > 1 and side < LONGEST / 7:  # under 57 pixels: look closer, with as much around it
        start = factor * (np.array([columns.start, rows.start]) - side)
        stop = factor * (np.array([columns.stop, rows.stop]) + side)
        ink, more = find_ink_within(image.crop((*start.clip(0), *stop.clip(max=image.size))))
        return ink, doubts + more
    within = contrast[digit]
    full = np.median(within[within > within.max() / 2])
    return np.where(digit, (contrast - full / 4) / (full - full / 4), 0).clip(0, 1), doubts


def contrast_to_ground(image: Image.Image) -> np.ndarray:
    """How much each pixel differs from its ground in the channel where it differs most: float32
    [height, width], from 0; up to 255, and more in the shade, brightened as its ground is."""
    pixels = np.atleast_3d(np.asarray(image))
    sides = pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]
    even = np.median(np.concatenate(sides), axis=0).astype(int)
    distances = [np.abs(side - even).max(axis=1) for side in sides]
    ground = np.mean([(distance < FAINTEST / 2).mean() for distance in distances])
    inked = [(distance > 2 * FAINTEST).mean() for distance in distances]
    # A digit that is cropped to its box touches all sides, and sharply: not as dark corners do.
    cropped = min(inked) > 0.01 and ground + np.mean(inked) > 0.9
    if ground > (0.6 if cropped else 0.85):  # one ground for the whole picture
        low = high = Image.new(image.mode, image.size, tuple(even.tolist()))
    else:
        low, high = local_ground(image)
    contrast = ImageChops.lighter(ImageChops.subtract(image, high), ImageChops.subtract(low, image))
    light = 16 + np.asarray(low.convert("L"), np.float32)  # 16: black says little about the light
    most = np.max([np.asarray(channel) for channel in contrast.split()], axis=0)
    return most * light.mean() / light


def local_ground(image: Image.Image) -> tuple[Image.Image, Image.Image]:
    """The darkest and the brightest that the ground may be at each pixel, as images.

    The ground is the median of a neighborhood half as wide as the shorter side: strokes do not fill
    it, and it keeps the straight edge of a shadow. Beside such an edge dark and bright differ, and
    only what is darker or brighter than both counts as ink.
    """
    scale = min(1, CELLS / max(image.size))
    cells = image.resize([max(1, round(scale * side)) for side in image.size], Image.Resampling.BOX)
    ground = cells.filter(ImageFilter.MedianFilter(1 + 2 * (min(cells.size) // 4)))
    low, high = ground.filter(ImageFilter.MinFilter(5)), ground.filter(ImageFilter.MaxFilter(5))
    return low.resize(image.size), high.resize(image.size)


def without_rules(contrast: np.ndarray) -> np.ndarray:
    """Remove printed lines: under them, the contrast is that of the nearest pixel beside them."""
    strokes = contrast > 0.15 * contrast.max()
    rules = ndimage.binary_dilation(crossing_lines(strokes) | crossing_lines(strokes.T).T)
    if not rules.any():
        return contrast
    nearest = ndimage.distance_transform_edt(rules, return_distances=False, return_indices=True)
    return contrast[*nearest]


def crossing_lines(strokes: np.ndarray) -> np.ndarray:
    """Which pixels of `strokes`, bool [height, width], lie on a straight line from the left of the
    picture to the right, rising by at most a tenth of the height; none, if one of them is thick."""
    height, width = strokes.shape
    columns = np.arange(width)
    found = np.zeros_like(strokes)
    pieces = Image.fromarray(strokes).convert("L").resize((CELLS, height), Image.Resampling.BOX)
    # How much of a row's piece is covered, with the rows beside it: a line may bend slightly.
    strips = ndimage.uniform_filter1d(np.asarray(pieces, np.float32) / 255, 3, axis=0)
    strips = np.minimum(3 * strips, 1)
    centers = ((np.arange(CELLS) + 0.5) * width / CELLS).astype(int)
    for rise in range(-(height // 10), height // 10 + 1, 2):
        shift = np.rint(rise * (columns / width - 0.5)).astype(int)
        rows = (np.arange(height)[:, None] + shift[centers]).clip(0, height - 1)
        covered = strips[rows, np.arange(CELLS)].mean(axis=1) > 0.9
        if ndimage.minimum_filter1d(covered, max(4, height // 20 + 1)).any():
            return np.zeros_like(strokes)  # too thick for a rule, which covers 3 rows and more
        found[(np.argwhere(covered) + shift).clip(0, height - 1), columns] = True
    return found & ndimage.maximum_filter(strokes, (3, 1))


def choose_digit(contrast: np.ndarray, threshold: float) -> tuple[np.ndarray, list[str]]:
    """Which pixels, bool [height, width], are the digit's or 2 from them, and what casts doubt.

    The digit is the connected component with the most contrast, which counts a quarter for each
    side of the picture it touches, and the parts close to it. Strokes 4 pixels apart are connected.
    """
    strokes = contrast > threshold
    labels, count = ndimage.label(ndimage.maximum_filter(strokes, 5), np.ones((3, 3)))
    marks = labels * strokes
    boxes = ndimage.find_objects(labels)
    sides = marks[0], marks[-1], marks[:, 0], marks[:, -1]
    touched = np.sum([np.isin(range(1, count + 1), side) for side in sides], axis=0)
    # The more sides a component touches, the more likely it is a table or a shadow.
    weights = np.bincount(labels[strokes], contrast[strokes])[1:] / 4.0**touched
    main = int(weights.argmax())
    y, x = boxes[main]
    tall, wide = y.stop - y.start, x.stop - x.start
    digit = labels == main + 1
    contact = sum((side == main + 1).sum() for side in sides)  # pixels: a tip may touch a side
    doubts = [CUT_OFF] if contact > 3 else []
    for other in np.setdiff1d((weights > 0.05 * weights[main]).nonzero(), main):
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
