"""Photographs of handwritten digits, made from MNIST's: paper, boards, tables, light and dirt.

Every kind is a function from a digit, uint8 [height, width], and a random generator to an image.
KINDS names them all; GOOD are those that were read well before the ground was looked at locally.

    python -m tests.photographs FOLDER    how many pictures of FOLDER/labels.csv `--predict` reads
"""

import csv
import io
import math
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from scipy import ndimage
from torch import nn

from support.checkpoint import load_model
from support.errors import DataError
from support.prediction import classify, find_digit

LENET5 = Path(__file__).resolve().parents[1] / "results" / "report" / "lenet5.pt"

SIDE = 480  # pixels of most photographs, both ways


def redrawn_with_a_pen(digit: np.ndarray, width: float) -> np.ndarray:
    """The same digit with strokes `width` wide, where its longer side is 20: uint8, 6 times as
    large, with a free border."""
    large = np.asarray(Image.fromarray(digit).resize((6 * 28, 6 * 28), Image.BICUBIC))
    # A stroke's middle line: what is left when border pixels are taken off that connect no others
    # (Zhang, Suen 1984: from the lower right and from the upper left by turns).
    line = np.pad(large > 100, 20)
    size = 0
    while size != line.sum():
        size = line.sum()
        for side in (0, 4):
            around = [(1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1)]
            ring = [np.roll(line, shift, (0, 1)) for shift in around]  # from above, clockwise
            parts = sum(~a & b for a, b in zip(ring, ring[1:] + ring[:1], strict=True))
            north, east, south, west = (ring[(side + turn) % 8] for turn in (0, 2, 4, 6))
            on_border = ~(east & south & (north | west))
            line = line & ~(on_border & (parts == 1) & (sum(ring) > 1) & (sum(ring) < 7))
    rows, columns = line.nonzero()
    scale = max(np.ptp(rows), np.ptp(columns)) / (20 - width)  # pixels of the line to one of the 20
    far = ndimage.distance_transform_edt(~line)
    return (255 * (scale * width / 2 + 0.5 - far).clip(0, 1)).astype(np.uint8)


def strokes_of(
    digit: np.ndarray, rng: np.random.Generator, side: int = SIDE, share=(0.3, 0.55), angle=0.0
) -> np.ndarray:
    """How much of each pixel a pen has covered: float64 [side, side], 0 to 1. The digit's longer
    side takes a share of the picture within `share`, anywhere with a free border."""
    rows, columns = digit.any(axis=1).nonzero()[0], digit.any(axis=0).nonzero()[0]
    crop = digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = side * rng.uniform(*share) / max(crop.shape)
    height, width = (max(2, round(scale * length)) for length in crop.shape)
    crop = np.pad(crop, 2)  # for a stroke that ends softly
    pad = round(2 * scale)
    ink = Image.fromarray(crop).resize((width + 2 * pad, height + 2 * pad), Image.BICUBIC)
    if angle:
        ink = ink.rotate(angle, Image.BICUBIC, expand=True)
    margin = 0.06 * side - pad
    top, left = (round(rng.uniform(margin, side - margin - length)) for length in ink.size[::-1])
    mask = Image.new("L", (side, side))
    mask.paste(ink, (left, top))
    return ((np.asarray(mask) / 255 - 0.3) / 0.35).clip(0, 1)  # a pen's edge is sharper


def paper(rng: np.random.Generator, side: int = SIDE) -> np.ndarray:
    """White or cream: float64 [side, side, 3], 0 to 255."""
    return np.full((side, side, 3), rng.uniform(215, 250) * np.array([1, 1, rng.uniform(0.88, 1)]))


def pen(rng: np.random.Generator) -> np.ndarray:
    """Black, blue or red ink, float64 [3]."""
    colors = [(25, 25, 30), (20, 40, 130), (150, 25, 30)]
    return np.array(colors[rng.integers(len(colors))]) + rng.uniform(0, 30)


def lines(
    rng: np.random.Generator, side: int, spacing: float, width: float, across=True
) -> np.ndarray:
    """Printed rules, a little tilted: how much of each pixel they cover, float64 [side, side]."""
    y, x = np.mgrid[:side, :side]
    if not across:
        y, x = x, y
    slope = math.tan(math.radians(rng.uniform(-2, 2)))
    place = (y + slope * x + rng.uniform(0, spacing)) % spacing
    return ((width + 1) / 2 - np.abs(place - spacing / 2)).clip(0, 1)


def grain(rng: np.random.Generator, side: int, size: float) -> np.ndarray:
    """Smooth random variation, `size` pixels wide, with a standard deviation of 1."""
    values = ndimage.gaussian_filter(rng.normal(size=(side, side)), size)
    return values / values.std()


def mix(ground: np.ndarray, color: np.ndarray | float, share: np.ndarray) -> np.ndarray:
    return ground + share[:, :, None] * (np.asarray(color) - ground)


def shoot(pixels: np.ndarray, rng: np.random.Generator, noise: float = 3) -> Image.Image:
    """What a camera makes of it: slightly soft, slightly noisy."""
    pixels = ndimage.gaussian_filter(pixels, (0.7, 0.7, 0)) + rng.normal(0, noise, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))


def direction(rng: np.random.Generator, side: int) -> np.ndarray:
    """A ramp over the picture in any direction: float64 [side, side], about -0.5 to 0.5."""
    y, x = np.mgrid[:side, :side] / side - 0.5
    angle = rng.uniform(0, 2 * math.pi)
    reach = abs(math.cos(angle)) + abs(math.sin(angle))
    return (x * math.cos(angle) + y * math.sin(angle)) / reach


def clean_paper(digit, rng):
    return shoot(mix(paper(rng), pen(rng), strokes_of(digit, rng)), rng)


def mild_gradient(digit, rng):
    light = 1 - rng.uniform(0.1, 0.25) * (direction(rng, SIDE) + 0.5)
    return shoot(mix(paper(rng), pen(rng), strokes_of(digit, rng)) * light[:, :, None], rng)


def blurred(digit, rng):
    radius = rng.uniform(3, 6)
    return clean_paper(digit, rng).filter(ImageFilter.GaussianBlur(radius))


def noisy(digit, rng):
    return shoot(mix(paper(rng), pen(rng), strokes_of(digit, rng)), rng, rng.uniform(20, 35))


def jpeg_quality_10(digit, rng):
    file = io.BytesIO()
    clean_paper(digit, rng).save(file, "JPEG", quality=10)
    return Image.open(file)


def tilted(digit, rng):
    angle = rng.choice([-20, 20])
    strokes = strokes_of(digit, rng, share=(0.3, 0.5), angle=angle)
    return shoot(mix(paper(rng), pen(rng), strokes), rng)


def pencil_strokes(digit, rng):
    """Pencil: gray, and with the paper's grain in it."""
    return strokes_of(digit, rng) * (0.85 + 0.15 * grain(rng, SIDE, 1)).clip(0.3, 1)


def pencil(digit, rng):
    gray = rng.uniform(105, 150)
    return shoot(mix(paper(rng), gray, pencil_strokes(digit, rng)), rng)


def color_on_color(digit, rng):
    """Two hues of the same brightness."""
    pairs = [
        ((208, 0, 0), (0, 106, 0)),
        ((60, 110, 220), (190, 75, 60)),
        ((200, 80, 200), (0, 150, 90)),
    ]
    ink, ground = (np.array(color, float) for color in pairs[rng.integers(len(pairs))])
    pixels = mix(np.full((SIDE, SIDE, 3), ground), ink, strokes_of(digit, rng))
    return shoot(pixels, rng)


def near_the_border(digit, rng):
    """A few pixels from one side of the picture, or from two."""
    image = clean_paper(digit, rng)
    dark = np.asarray(image.convert("L")) < 150
    rows, columns = dark.any(axis=1).nonzero()[0], dark.any(axis=0).nonzero()[0]
    gap = int(rng.integers(4, 9))
    left = columns[0] - gap if rng.random() < 0.7 else 0
    top = rows[0] - gap if left == 0 or rng.random() < 0.5 else 0
    return image.crop((max(0, left), max(0, top), SIDE, SIDE))


def cropped_to_box(digit, rng):
    image = clean_paper(digit, rng)
    return image.crop(
        ImageOps.invert(image.convert("L").point(lambda v: 255 * (v > 150))).getbbox()
    )


def redrawn(digit: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """300 pixels: dark or light ink on a ground of another color, with mild noise."""
    size = int(rng.integers(120, 200))
    ink = Image.fromarray(digit).resize((size, size), Image.BICUBIC)
    mask = Image.new("L", (300, 300))
    mask.paste(ink, tuple(rng.integers(10, 290 - size, 2).tolist()))
    dark, light = rng.integers(0, 80, 3), rng.integers(170, 256, 3)
    stroke, ground = (dark, light) if rng.random() < 0.5 else (light, dark)
    pixels = mix(np.full((300, 300, 3), ground, float), stroke, np.asarray(mask) / 255)
    pixels += rng.normal(0, 6, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def ruled(digit, rng, color, strength, squared=False, strokes=None, ink=None):
    """On ruled paper: `strength` is how much of the paper's white the rules take."""
    spacing = rng.uniform(35, 60) if not squared else rng.uniform(22, 36)
    width = rng.uniform(1, 2.5)
    rules = lines(rng, SIDE, spacing, width)
    if squared:
        rules = np.maximum(rules, lines(rng, SIDE, spacing, width, across=False))
    ground = mix(paper(rng), color, strength * rules)
    if strokes is None:
        strokes, ink = strokes_of(digit, rng), pen(rng)
    return shoot(mix(ground, ink, strokes), rng)


def pencil_on_rules(digit, rng):
    strokes, gray = pencil_strokes(digit, rng), rng.uniform(105, 150)
    color = [(70, 110, 220), (90, 90, 90)][rng.integers(2)]
    return ruled(digit, rng, color, rng.uniform(0.25, 0.5), strokes=strokes, ink=gray)


def smudged_board(digit, rng):
    """Chalk on a board from which other chalk was wiped, not well."""
    board = np.full((SIDE, SIDE, 3), np.array([[45, 50, 48], [30, 62, 45]][rng.integers(2)], float))
    smudges = np.zeros((SIDE, SIDE))
    for _ in range(rng.integers(3, 7)):  # each a stroke of the sponge
        band = np.abs(direction(rng, SIDE) - rng.uniform(-0.4, 0.4)) < rng.uniform(0.03, 0.1)
        length = np.abs(direction(rng, SIDE) - rng.uniform(-0.4, 0.4)) < rng.uniform(0.1, 0.3)
        stroke = ndimage.gaussian_filter((band & length).astype(float), rng.uniform(4, 12))
        smudges = np.maximum(smudges, rng.uniform(0.08, 0.25) * stroke)
    smudges *= (1 + 0.3 * grain(rng, SIDE, 3)).clip(0, 2)
    chalk = strokes_of(digit, rng) * (0.85 + 0.2 * grain(rng, SIDE, 1)).clip(0.25, 1)
    return shoot(mix(mix(board, 225, smudges), 235, chalk), rng)


def speck_of_dirt(digit, rng):
    """One to four dark specks on the paper, none on the digit."""
    strokes = strokes_of(digit, rng)
    far = ndimage.distance_transform_edt(strokes == 0)
    y, x = np.mgrid[:SIDE, :SIDE]
    specks = np.zeros((SIDE, SIDE))
    for _ in range(rng.integers(1, 5)):
        radius = rng.uniform(2, 7)
        places = np.argwhere(far > radius + 8)
        row, column = places[rng.integers(len(places))]
        shape = np.hypot(y - row, (x - column) * rng.uniform(0.6, 1.6))
        specks = np.maximum(specks, (radius + 0.5 - shape).clip(0, 1))
    ground = mix(paper(rng), rng.uniform(20, 90), specks)
    return shoot(mix(ground, pen(rng), strokes), rng)


def table_edge(digit, rng):
    """The sheet ends within the picture; beside it, the table's wood."""
    y, x = np.mgrid[:SIDE, :SIDE]
    slope = math.tan(math.radians(rng.uniform(-4, 4)))
    table = (rng.uniform(0.06, 0.2) * SIDE + slope * (x - SIDE / 2) - y + 0.5).clip(0, 1)
    streaks = 1 + 0.12 * ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), (1.5, 25)) * 20
    brown = np.array([[120, 80, 50], [70, 45, 30], [160, 125, 90]][rng.integers(3)])
    turns = int(rng.integers(4))
    table, wood = np.rot90(table, turns), np.rot90(streaks[:, :, None] * brown, turns)
    near = ndimage.distance_transform_edt(table == 0) < 0.05 * SIDE
    strokes = strokes_of(digit, rng, share=(0.3, 0.5))
    while strokes[near].any():
        strokes = strokes_of(digit, rng, share=(0.3, 0.5))
    return shoot(mix(mix(paper(rng), pen(rng), strokes), wood, table), rng)


def hard_shadow(digit, rng):
    """Part of the picture, its edge mostly across the digit, lies in a shadow."""
    strokes = strokes_of(digit, rng)
    ramp = direction(rng, SIDE)
    middle = ramp[strokes > 0.5].mean() + rng.normal(0, 0.1)
    shadow = ndimage.gaussian_filter((ramp > middle).astype(float), rng.uniform(0.5, 2.5))
    light = 1 - rng.uniform(0.35, 0.6) * shadow
    return shoot(mix(paper(rng), pen(rng), strokes) * light[:, :, None], rng)


def strong_gradient(digit, rng):
    light = 1 - rng.uniform(0.6, 0.75) * (direction(rng, SIDE) + 0.5)
    return shoot(mix(paper(rng), pen(rng), strokes_of(digit, rng)) * light[:, :, None], rng)


def small_in_large(digit, rng):
    """About 43 of 2,000 pixels, under a lamp's soft light."""
    strokes = strokes_of(digit, rng, side=2000, share=(0.0205, 0.0225))
    light = 1 - 0.15 * (direction(rng, 2000) + 0.5)
    return shoot(mix(paper(rng, 2000), pen(rng), strokes) * light[:, :, None], rng)


# --- sheets on tables ---------------------------------------------------------------------------


def plain_table(rng):
    return np.full((SIDE, SIDE, 3), rng.uniform(15, 90) * rng.uniform([1, 0.8, 0.6], [1.1, 1, 1]))


def light_table(rng):
    return np.full((SIDE, SIDE, 3), rng.uniform(180, 240) * np.array([1, 1, rng.uniform(0.8, 1)]))


def wooden_table(rng):
    streaks = 1 + 2.4 * ndimage.gaussian_filter(rng.normal(size=(SIDE, SIDE)), (1.5, 25))
    brown = np.array([[120, 80, 50], [70, 45, 30], [160, 125, 90]][rng.integers(3)])
    return np.rot90(streaks[:, :, None] * brown, rng.integers(2))


def tablecloth(rng):
    """Woven: two sets of threads across each other, on a colored ground."""
    y, x = np.mgrid[:SIDE, :SIDE]
    threads = np.sin(2 * math.pi * y / rng.uniform(4, 9)) * np.sin(2 * math.pi * x / 6)
    weave = 1 + rng.uniform(0.05, 0.2) * threads + 0.06 * grain(rng, SIDE, 2)
    color = np.array([(40, 60, 110), (120, 30, 40), (60, 90, 60), (90, 90, 95)][rng.integers(4)])
    return weave[:, :, None] * color


def sheet_corners(rng, sides: int, angle: float, trapezoid: float) -> np.ndarray:
    """Of a sheet with so many sides in view, clockwise from the top left: float64 [4, 2], (x, y),
    beyond the picture where it is cut off."""
    width, height = rng.uniform(0.5, 0.62, 2) if angle or trapezoid else rng.uniform(0.5, 0.85, 2)
    left, top = rng.uniform(0.05, 0.95 - np.array([width, height]))
    right, bottom = left + width, top + height
    if sides < 4:
        bottom = 1.3
    if sides < 3:
        right = 1.3
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    middle = corners.mean(axis=0) if sides == 4 else np.array([0.5, 0.5])
    far = rng.integers(4)  # the side that is farther away, so shorter
    corners[[far, far - 3]] += trapezoid * (corners[[far - 3, far]] - corners[[far, far - 3]])
    sine, cosine = np.sin(np.radians(angle)), np.cos(np.radians(angle))
    turned = (corners - middle) @ np.array([[cosine, sine], [-sine, cosine]]) + middle
    turned += (0.5 - middle) * (sides == 4 and angle != 0)
    return SIDE * turned


def homography(source: np.ndarray, target: np.ndarray) -> list[float]:
    """The 8 numbers by which Pillow's PERSPECTIVE takes the corners `target` from `source`."""
    rows = []
    for (x, y), (u, v) in zip(target, source, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    return np.linalg.solve(np.array(rows), source.ravel()).tolist()


def capsule(start: np.ndarray, end: np.ndarray, radius: float) -> np.ndarray:
    """A thick line with round ends: how much of each pixel it covers, float64 [SIDE, SIDE]."""
    y, x = np.mgrid[:SIDE, :SIDE]
    along = end - start
    share = (((x - start[0]) * along[0] + (y - start[1]) * along[1]) / (along @ along)).clip(0, 1)
    far = np.hypot(x - start[0] - share * along[0], y - start[1] - share * along[1])
    return (radius + 0.5 - far).clip(0, 1)


def on_table(
    digit,
    rng,
    table=plain_table,
    sides=4,
    angle=0.0,
    trapezoid=0.0,
    dark=False,
    rules="",
    shadow=False,
    thing="",
):
    """A sheet (or a dark card) on a table, with what is written on it and what lies on its edge."""
    corners = sheet_corners(rng, sides, angle, trapezoid)
    width, height = (
        round(float(np.hypot(*(corners[a] - corners[0])).clip(100, 2 * SIDE))) for a in (1, 3)
    )
    # Of a sheet that is cut off, the visible part is written on.
    visible_w, visible_h = width, height
    if sides < 4:
        visible_h = min(height, round(SIDE - corners[:2, 1].max()))
    if sides < 3:
        visible_w = min(width, round(SIDE - corners[[0, 3], 0].max()))
    side = min(visible_w, visible_h)
    ink = strokes_of(digit, rng, side=side, share=(0.35, 0.6))
    strokes = np.zeros((height, width))
    top, left = rng.integers(visible_h - side + 1), rng.integers(visible_w - side + 1)
    strokes[top : top + side, left : left + side] = ink
    square = max(width, height)
    ground = np.full((square, square, 3), rng.uniform(20, 60, 3)) if dark else paper(rng, square)
    if rules:
        spacing, thickness = rng.uniform(22, 40), rng.uniform(1, 2)
        printed = lines(rng, square, spacing, thickness)
        if rules == "squared":
            printed = np.maximum(printed, lines(rng, square, spacing, thickness, across=False))
        ground = mix(ground, (80, 110, 190), rng.uniform(0.25, 0.6) * printed)
    color = np.array([230, 230, 225]) if dark else pen(rng)
    sheet = mix(ground[:height, :width], color, strokes).clip(0, 255).astype(np.uint8)
    frame = np.array([(0, 0), (width, 0), (width, height), (0, height)], float)
    layer = Image.fromarray(sheet).convert("RGBA")
    place = (SIDE, SIDE), Image.Transform.PERSPECTIVE, homography(frame, corners)
    layer = np.asarray(layer.transform(*place, Image.Resampling.BICUBIC), float)
    written = Image.fromarray((255 * strokes).astype(np.uint8)).transform(*place)
    pixels = mix(table(rng), layer[:, :, :3], layer[:, :, 3] / 255)
    if thing:
        far = ndimage.distance_transform_edt(np.asarray(written) < 100)
        radius, longest = (
            (rng.uniform(18, 30), 40) if thing == "finger" else (rng.uniform(4, 7), 90)
        )
        middle = corners[:2].mean(axis=0) + rng.uniform(-0.35, 0.35) * (corners[1] - corners[0])
        outward = np.array([rng.uniform(-0.4, 0.4), -1])
        for reach in (longest, longest / 2, longest / 4, 0):
            cover = capsule(middle - reach * outward, middle + 600 * outward, radius)
            if not (far[cover > 0] < 12).any():
                break
        color = np.array([(215, 165, 135), (120, 80, 60)][rng.integers(2)])
        color = color if thing == "finger" else pen(rng)
        pixels = mix(pixels, color, cover)
    if shadow:
        ramp = direction(rng, SIDE)
        middle = ramp[np.asarray(written) > 100].mean() + rng.normal(0, 0.1)
        dim = ndimage.gaussian_filter((ramp > middle).astype(float), rng.uniform(0.5, 4))
        pixels = pixels * (1 - rng.uniform(0.35, 0.6) * dim)[:, :, None]
    return shoot(pixels, rng)


def turned(rng):
    return rng.choice([-1, 1]) * rng.uniform(5, 30)


def any_sheet(digit, rng):
    """All of it at once: turned, in perspective, on any table, ruled or not, in a shadow or not."""
    return on_table(
        digit,
        rng,
        [plain_table, wooden_table, tablecloth][rng.integers(3)],
        angle=turned(rng),
        trapezoid=rng.uniform(0, 0.12),
        rules=["", "lined", "squared"][rng.integers(3)],
        shadow=rng.random() < 0.3,
        thing=["", "finger", "pen"][rng.integers(3)],
    )


def framed(image: Image.Image, width: int, color: str) -> Image.Image:
    return ImageOps.expand(image.crop((width, width, SIDE - width, SIDE - width)), width, color)


def white_frame(digit, rng):
    """Around a gray picture."""
    gray = np.full((SIDE, SIDE, 3), rng.uniform(90, 190))
    return framed(shoot(mix(gray, pen(rng) / 2, strokes_of(digit, rng)), rng), 12, "white")


# --- what nobody need read, but for a warning ---------------------------------------------------


def with_gap(digit, rng):
    """A band of the digit is missing, as of a pen that ran dry."""
    strokes = strokes_of(digit, rng)
    ramp = direction(rng, SIDE)
    inked = ramp[strokes > 0.5]
    place = rng.uniform(np.quantile(inked, 0.3), np.quantile(inked, 0.7))
    strokes = strokes * (np.abs(ramp - place) > rng.uniform(0.01, 0.025))
    return shoot(mix(paper(rng), pen(rng), strokes), rng)


def outline(digit, rng):
    strokes = strokes_of(digit, rng)
    inner = ndimage.binary_erosion(strokes > 0.5, iterations=4)
    return shoot(mix(paper(rng), pen(rng), np.where(inner, 0, strokes)), rng)


def turned_by_45(digit, rng):
    strokes = strokes_of(digit, rng, share=(0.3, 0.5), angle=rng.choice([-45, 45]))
    return shoot(mix(paper(rng), pen(rng), strokes), rng)


GOOD = {
    "clean paper": clean_paper,
    "mild gradient": mild_gradient,
    "blur": blurred,
    "noise": noisy,
    "JPEG quality 10": jpeg_quality_10,
    "tilt 20 degrees": tilted,
    "pencil": pencil,
    "color on color": color_on_color,
    "near the border": near_the_border,
    "redrawn": redrawn,
}
UNEVEN = {
    "faint rules": lambda digit, rng: ruled(digit, rng, 60, rng.uniform(0.12, 0.3)),
    "blue rules": lambda digit, rng: ruled(digit, rng, (70, 110, 220), rng.uniform(0.4, 0.8)),
    "squared paper": lambda digit, rng: ruled(
        digit, rng, (90, 110, 170), rng.uniform(0.25, 0.5), squared=True
    ),
    "smudged board": smudged_board,
    "speck of dirt": speck_of_dirt,
    "table edge": table_edge,
    "dark rules": lambda digit, rng: ruled(digit, rng, 40, rng.uniform(0.6, 0.95)),
    "pencil on rules": pencil_on_rules,
    "hard shadow": hard_shadow,
    "strong gradient": strong_gradient,
    "small in large": small_in_large,
}
SHEETS = {
    "sheet on a table": on_table,
    "turned sheet": lambda digit, rng: on_table(digit, rng, angle=turned(rng)),
    "sheet in perspective": lambda digit, rng: on_table(
        digit, rng, trapezoid=rng.uniform(0.05, 0.15), angle=rng.uniform(-5, 5)
    ),
    "three sides of a sheet": partial(on_table, sides=3),
    "two sides of a sheet": partial(on_table, sides=2),
    "sheet with a shadow": partial(on_table, shadow=True),
    "sheet on wood": partial(on_table, table=wooden_table),
    "sheet on cloth": partial(on_table, table=tablecloth),
    "finger at the edge": partial(on_table, thing="finger"),
    "pen at the edge": partial(on_table, thing="pen"),
    "lined sheet": partial(on_table, rules="lined"),
    "squared sheet": partial(on_table, rules="squared"),
    "any sheet": any_sheet,
    "dark card": partial(on_table, table=light_table, dark=True),
    "black frame": lambda digit, rng: framed(clean_paper(digit, rng), 4, "black"),
    "white frame": white_frame,
}
HARD = {
    "with a gap": with_gap,
    "outline": outline,
    "turned by 45 degrees": turned_by_45,
}
CROPPED = {"cropped to its box": cropped_to_box}
KINDS = GOOD | UNEVEN | SHEETS | HARD | CROPPED
SMALL = {"small in large"}  # takes a second to make


# --- how many are read --------------------------------------------------------------------------


def reading(path: Path, model: nn.Module) -> tuple[int, bool]:
    """The digit that `--predict` tells, or -1 for an error, and whether it comes with a warning."""
    try:
        image, doubts = find_digit(path)
    except DataError:
        return -1, True
    probabilities, sure = classify(image, model, torch.device("cpu"))
    return int(probabilities.argmax()), bool(doubts) or not sure


def table_of(folder: Path, model: nn.Module) -> str:
    """How many pictures of each kind are read, as Markdown: those in labels.csv, with the columns
    file, kind and label."""
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    readings = []  # kind, whether it is right, whether it comes with a warning
    for row in rows:
        digit, warned = reading(folder / row["file"], model)
        readings.append((row["kind"], digit == int(row["label"]), warned))
    lines = [
        "| kind | pictures | read correctly | wrong without a warning | right, with a warning |",
        "|---|---:|---:|---:|---:|",
    ]
    for name in (*dict.fromkeys(kind for kind, _, _ in readings), "all"):
        of_kind = [(right, warned) for kind, right, warned in readings if name in (kind, "all")]
        right = sum(right for right, _ in of_kind)
        silent, alarms = of_kind.count((False, False)), of_kind.count((True, True))
        lines.append(f"| {name} | {len(of_kind)} | {right} | {silent} | {alarms} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table_of(Path(sys.argv[1]), load_model(LENET5)))
