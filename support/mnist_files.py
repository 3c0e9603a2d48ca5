"""From a tar or a folder of PNGs to arrays, checked; and the cache of decoded pixels."""

import contextlib
import hashlib
import io
import os
import posixpath
import re
import struct
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import PIL
from PIL import Image
from tqdm import tqdm

from support.errors import DataError
from support.files import atomic_write, remove_leftovers

SIZE = 28  # width and height in pixels
MAX_PNG_BYTES = 1 << 20  # far above any 28x28 PNG; keeps a huge file out of memory


def read_split(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read all images and labels of a tar or folder: uint8 [N, 28, 28], int64 [N], by file name.

    The decoded pixels of a tar are cached in the user's cache folder under the tar's SHA-256 and
    the version of Pillow, which decodes.
    """
    if not path.exists() and (tar := path.with_name(f"{path.name}.tar")).exists():
        path = tar
    if path.is_dir():
        return decode_images(path, folder_members(path))

    if path.exists() and not path.is_file():  # reading a named pipe would wait forever
        raise DataError(f"{path}: is not a file; put a tar or a folder there")
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    cache = cache_folder() / f"{digest}-pillow-{PIL.__version__}.npz"
    arrays = load_cache(cache)
    if arrays is None:
        arrays = decode_images(path, tar_members(path))
        # The cache only saves time: a full disk must not stop a run.
        with contextlib.suppress(OSError):
            remove_leftovers(cache.parent)
            with atomic_write(cache) as file:
                np.savez(file, images=arrays[0], labels=arrays[1])
    return arrays


def cache_folder() -> Path:
    """Return the folder of the cache: in the user's cache folder, or, without a home, in that of
    the system's temporary files."""
    user_cache = os.environ.get("XDG_CACHE_HOME", ""), os.path.expanduser("~/.cache")
    # A relative path does not count (XDG Base Directory Specification); without a home, "~" stays.
    places = filter(os.path.isabs, (*user_cache, tempfile.gettempdir()))
    return Path(next(places), "mnist-lenet5")


def load_cache(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the two arrays of a cache file; None if it is missing, damaged or something else."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images, labels = arrays["images"], arrays["labels"]
        valid = (
            (images.dtype, images.shape) == (np.uint8, (len(labels), SIZE, SIZE))
            and (labels.dtype, labels.shape) == (np.int64, (len(labels),))
            and np.isin(labels, range(10)).all()
        )
    except Exception:  # numpy and zipfile report a damaged file by errors of many types
        return None
    return (images, labels) if valid else None


def decode_images(
    path: Path, members: Iterable[tuple[str, bytes]]
) -> tuple[np.ndarray, np.ndarray]:
    """Decode (name, PNG) pairs to uint8 [N, 28, 28] and int64 [N], ordered by name.
    Errors name `path` and the member."""
    labels: dict[str, int] = {}  # of each name
    pixels = bytearray()
    bar = tqdm(members, f"reading {path.name}", unit=" images", leave=False, disable=None)
    for member, png in bar:
        name = posixpath.normpath(member)
        if name in labels:
            raise DataError(f"{path}: holds {name} twice; take one out")
        try:
            labels[name] = label_of(name)
            pixels += decode_png(png)
        except DataError as error:
            raise DataError(f"{path}: {member} {error}; replace it or take it out") from error

    if not labels:
        raise DataError(f"{path}: holds no image; fill it with PNGs named {{number}}_{{label}}.png")
    folders = {posixpath.basename(posixpath.dirname(name)) for name in labels}
    if {"train", "test"} <= folders:
        raise DataError(f"{path}: holds both train/ and test/; make a tar of each")
    order = np.argsort(list(labels))
    images = np.frombuffer(pixels, np.uint8).reshape(-1, SIZE, SIZE)
    return images[order], np.array(list(labels.values()), np.int64)[order]


def decode_png(png: bytes) -> bytes:
    """Decode a 28x28 8-bit grayscale PNG to its 28 * 28 pixels, row by row.

    Raises:
        DataError: it is damaged, or another kind of image. The caller adds its name.
    """
    if not png.startswith(b"\x89PNG\r\n\x1a\n"):
        raise DataError("is not a PNG")
    if len(png) > MAX_PNG_BYTES:
        raise DataError(f"is longer than {MAX_PNG_BYTES:,} bytes, too many for an image")
    if len(png) < 26:
        raise DataError("is cut off")
    # The header is read here first: Pillow prints a warning of a huge image.
    width, height, depth, color = struct.unpack_from(">IIBB", png, 16)
    if (width, height) != (SIZE, SIZE):
        raise DataError(f"is {width}x{height} pixels, not {SIZE}x{SIZE}")
    if (depth, color) != (8, 0):
        raise DataError(f"is not 8-bit grayscale (its depth is {depth}, its type of color {color})")
    try:
        # Checks the checksums, which decoding does not; the image must then be reopened.
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            image.verify()
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            if (image.size, image.mode) != ((SIZE, SIZE), "L"):
                raise ValueError("a second header contradicts the first")
            return image.tobytes()
    except Exception as error:  # Pillow reports a malformed PNG with errors of many types
        raise DataError(f"is damaged or cut off ({error})") from error


def folder_members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of each visible file in a folder."""
    with os.scandir(path) as entries:
        for entry in entries:
            if not is_visible(entry.name):
                continue
            if not entry.is_file():  # opening a pipe or a device would wait forever
                raise DataError(
                    f"{entry.path}: is not a file; put all images into {path} itself, each named "
                    "{number}_{label}.png, such as 00000_5.png"
                )
            with open(entry.path, "rb") as file:
                yield entry.name, file.read(MAX_PNG_BYTES + 1)


def tar_members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of each file in a tar, without extracting anything to disk."""
    with open(path, "rb") as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    # tarfile keeps every header, 60,000 of them in 70 MB; typeshed hides where.
                    tar.members.clear()  # type: ignore[attr-defined]
                    name = member.name.replace("\\", "/")  # some programs on Windows write that
                    if member.isdir() or not is_visible(name):
                        continue
                    if not member.isreg() or member.issparse():
                        raise DataError(f"{path}: {name} is not a file; store the image itself")
                    file.seek(member.offset_data)
                    yield name, file.read(min(member.size, MAX_PNG_BYTES + 1))
                end = tar.offset
        except (tarfile.TarError, EOFError, ValueError, OverflowError, MemoryError) as error:
            raise DataError(
                f"{path}: is not a tar, or is compressed or cut off ({error}); unpack or replace it"
            ) from error
        # tarfile silently stops at a damaged header; but a complete tar ends in blocks of zeros.
        padding = file.seek(0, os.SEEK_END) - file.seek(end)
        blocks = iter(lambda: file.read(1 << 16), b"")  # a sparse file may end in gigabytes of them
        if padding < tarfile.BLOCKSIZE or any(block != bytes(len(block)) for block in blocks):
            raise DataError(
                f"{path}: is cut off or damaged at byte {end:,}; make or download it again"
            )


def is_visible(name: str) -> bool:
    """Return False for hidden files, which macOS adds (`._5.png`, `.DS_Store`)."""
    return not name.rpartition("/")[2].startswith(".")


def label_of(name: str) -> int:
    match = re.fullmatch(r".*_([0-9])\.png", name.rpartition("/")[2])
    if match is None:
        raise DataError("is not named {number}_{label}.png with a label 0-9")
    return int(match[1])
