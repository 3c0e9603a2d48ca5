"""Finding the sheet of paper in a photograph of a table."""

from collections.abc import Iterator

import numpy as np
from PIL import Image
from scipy import ndimage
from scipy.spatial import ConvexHull

CELLS = 128  # sheets are looked for in a copy whose longer side has so many pixels
EDGE = 16  # of 255: the least difference between two cells that makes an edge


def find_sheets(channels: list[Image.Image]) -> Iterator[tuple[list[Image.Image], Image.Image]]:
    """Whatever may be a sheet of paper, or a card, on a table: the channels of the rectangle around
    it, the table painted over as if the sheet went on, and a mask that is 255 on the sheet.

    A sheet is an even region of the picture that nearly fills its convex hull, a quadrilateral. All
    even regions that do not reach the sides are tried together first: the lit and the shaded part.
    """
    scale = min(1, CELLS / max(channels[0].size))
    size = [max(1, round(scale * side)) for side in channels[0].size]
    if min(size) < 8:
        return
    cells = np.stack([channel.resize(size, Image.BOX, reducing_gap=2) for channel in channels])
    # What is less than 3 cells thick vanishes, as rules do; a frame does not: it goes on outside.
    cells = np.pad(cells, ((0, 0), (2, 2), (2, 2)), "edge")
    cells = ndimage.grey_opening(ndimage.grey_closing(cells, (1, 3, 3)), (1, 3, 3))[:, 2:-2, 2:-2]
    edges = ndimage.morphological_gradient(cells, (1, 3, 3)).max(axis=0)
    labels, _ = ndimage.label(edges < EDGE)
    areas = np.bincount(labels.ravel())
    large = 1 + np.argsort(-areas[1:])  # the largest first
    large = large[areas[large] > 0.02 * labels.size]
    inner = np.setdiff1d(large, [*labels[0], *labels[-1], *labels[:, 0], *labels[:, -1]])
    regions = [np.isin(labels, inner), *(labels == label for label in large)]
    for region in regions:
        # What holds all four corners is the table, or a picture without one.
        if region.mean() < 0.1 or region[[0, 0, -1, -1], [0, -1, 0, -1]].all():
            continue
        hull = ConvexHull(np.argwhere(region))
        normals, offsets = hull.equations[:, :2], hull.equations[:, 2]
        pixels = np.argwhere(np.ones_like(region))
        inside = (pixels @ normals.T + offsets < 0.75).all(axis=1).reshape(region.shape)
        if region.sum() > 0.6 * inside.sum() and squareness(hull) > 0.88:
            yield paint_around(channels, cells, region, inside)


def squareness(hull: ConvexHull) -> float:
    """Which share of a hull its largest quadrilateral takes: about 1 of a sheet, 0.64 of a zero."""
    y, x = hull.points[hull.vertices].T
    dy, dx = y - y[:, None], x - x[:, None]  # from each corner to each
    # Twice the area of every triangle, [corner, corner, corner], positive on one side of the line
    # through the first two, negative on the other: the largest on each side make a quadrilateral.
    triangles = dx[:, :, None] * dy[:, None] - dy[:, :, None] * dx[:, None]
    return (triangles.max(axis=2) - triangles.min(axis=2)).max() / 2 / hull.volume


def paint_around(
    channels: list[Image.Image], cells: np.ndarray, region: np.ndarray, inside: np.ndarray
) -> tuple[list[Image.Image], Image.Image]:
    """The rectangle around a sheet: outside of it, each pixel is as the nearest of the region."""
    nearest = ndimage.distance_transform_edt(~region, return_distances=False, return_indices=True)
    mask = Image.fromarray(inside).convert("L")
    place = mask.getbbox()
    scale = np.array([*channels[0].size, *channels[0].size]) / (mask.size * 2)
    box = np.rint(place * scale).astype(int).tolist()
    size = box[2] - box[0], box[3] - box[1]
    mask = mask.resize(size, Image.BILINEAR, place)
    paint = (Image.fromarray(band[*nearest]).resize(size, Image.NEAREST, place) for band in cells)
    sheet = [channel.crop(box) for channel in channels]
    return [Image.composite(*bands, mask) for bands in zip(sheet, paint, strict=True)], mask
