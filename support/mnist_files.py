"""From a tar or a folder of PNGs to arrays, checked; and the cache of decoded pixels."""

import contextlib
import hashlib
import io
import itertools
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
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
COMPRESSED = {b"\x1f\x8b\x08": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
MAX_PNG_BYTES = 1 << 20  # far above any 28x28 PNG; keeps a huge file out of memory


def read_split(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read all images and labels of a tar or folder: uint8 [N, 28, 28], int64 [N], by file name.

    The decoded pixels of a tar are cached in the user's cache folder under the tar's SHA-256 and
    the version of Pillow, which decodes.
    """
    tar_path = path.with_name(path.name + ".tar")
    if tar_path.exists() and not path.exists():
        path = tar_path
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
    user_cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not user_cache.is_absolute():  # then it does not count (XDG Base Directory Specification)
        try:
            user_cache = Path.home() / ".cache"
        except RuntimeError:  # no home
            user_cache = Path(tempfile.gettempdir())
    return user_cache / "mnist-lenet5"


def load_cache(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the two arrays of a cache file; None if it is missing, damaged or something else."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images, labels = arrays["images"], arrays["labels"]
        valid = (
            images.dtype == np.uint8
            and images.shape == (len(labels), SIZE, SIZE)
            and labels.dtype == np.int64
            and labels.shape == (len(labels),)
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
    names, labels, pixels = [], [], bytearray()
    bar = tqdm(members, f"reading {path.name}", unit=" images", leave=False, disable=None)
    for name, png in bar:
        try:
            labels.append(label_of(name))
            pixels += decode_png(png)
        except DataError as error:
            raise DataError(f"{path}: {name} {error}; replace it or take it out") from error
        names.append(name)

    if not names:
        raise DataError(f"{path}: holds no image; fill it with PNGs named {{number}}_{{label}}.png")
    for first, second in itertools.pairwise(sorted(map(posixpath.normpath, names))):
        if first == second:
            raise DataError(f"{path}: holds {first} twice; take one out")
    folders = {posixpath.basename(posixpath.dirname(name)) for name in names}
    if {"train", "test"} <= folders:
        raise DataError(f"{path}: holds both train/ and test/; make a tar of each")
    order = sorted(range(len(names)), key=lambda index: names[index])
    images = np.frombuffer(pixels, np.uint8).reshape(-1, SIZE, SIZE)
    return images[order], np.array(labels, np.int64)[order]


def decode_png(png: bytes) -> bytes:
    """Decode a 28x28 8-bit grayscale PNG to its 28 * 28 pixels, row by row.

    Raises:
        DataError: it is damaged, or another kind of image. The caller adds its name.
    """
    if not png.startswith(PNG_SIGNATURE):
        raise DataError("is not a PNG")
    if len(png) > MAX_PNG_BYTES:
        raise DataError(
            f"is longer than {MAX_PNG_BYTES:,} bytes, too large for a {SIZE}x{SIZE} PNG"
        )
    if len(png) >= 24:  # the header's width and height, before Pillow warns of a huge image
        check_size(*struct.unpack_from(">II", png, 16))
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            check_size(*image.size)
            if image.mode != "L":
                raise DataError(f"is not 8-bit grayscale (it has Pillow's mode {image.mode})")
            # Checks the checksums, which decoding does not; the image must then be reopened.
            image.verify()
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            return image.tobytes()
    except DataError:
        raise
    except Exception as error:  # Pillow reports a malformed PNG with errors of many types
        raise DataError(f"is damaged or cut off ({error})") from error


def check_size(width: int, height: int) -> None:
    if (width, height) != (SIZE, SIZE):
        raise DataError(f"is {width}x{height} pixels, not {SIZE}x{SIZE}")


def folder_members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of each visible file in a folder."""
    for file in path.iterdir():
        if not is_visible(file.name):
            continue
        if file.is_dir():
            raise DataError(
                f"{file}: is a folder; put all images into {path} itself, each named "
                "{number}_{label}.png, such as 00000_5.png"
            )
        if file.exists() and not file.is_file():  # opening a pipe or a device would wait forever
            raise DataError(f"{file}: is not a file; keep only PNGs in {path}")
        with open(file, "rb") as opened:
            yield file.name, opened.read(MAX_PNG_BYTES + 1)


def tar_members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of each file in a tar, without extracting anything to disk."""
    again = "make or download the tar again"
    with open(path, "rb") as file:
        start = file.read(max(map(len, COMPRESSED)))
        for signature, kind in COMPRESSED.items():
            if start.startswith(signature):
                raise DataError(f"{path}: is compressed ({kind}); unpack it to a plain tar")
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    tar.members.clear()  # tarfile keeps every header: 60,000 of them take 70 MB
                    if member.isdir() or not is_visible(member.name):
                        continue
                    if not member.isreg() or member.issparse():
                        raise DataError(
                            f"{path}: {member.name} is not a plain file; store the image itself"
                        )
                    file.seek(member.offset_data)
                    yield member.name, file.read(min(member.size, MAX_PNG_BYTES + 1))
                end = tar.offset
        except (tarfile.TarError, EOFError, ValueError, OverflowError, MemoryError) as error:
            raise DataError(f"{path}: is not a tar, or is cut off ({error}); {again}") from error
        # tarfile silently stops at a damaged header; but a complete tar ends in blocks of zeros.
        file.seek(end)
        rest = file.read()
    if len(rest) < tarfile.BLOCKSIZE or rest.strip(b"\0"):
        raise DataError(f"{path}: is cut off or damaged at byte {end:,}; {again}")


def is_visible(name: str) -> bool:
    """Return False for hidden files, which macOS adds (`._5.png`, `.DS_Store`)."""
    return not name.rpartition("/")[2].startswith(".")


def label_of(name: str) -> int:
    match = re.fullmatch(r".*_([0-9])\.png", name.rpartition("/")[2])
    if match is None:
        raise DataError("is not named {number}_{label}.png with a label 0-9")
    return int(match[1])
