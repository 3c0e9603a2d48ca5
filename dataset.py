"""MNIST: from a tar of PNGs to normalized batches.

A split (train or test) is a tar, or an extracted folder, of 28x28 8-bit grayscale PNGs named
`{number}_{label}.png`. Every PNG is decoded once; the pixels then stay in memory as one uint8
tensor, so that making a batch is one indexing operation:

    trn_set = MNIST(find_split("train"))  # downloaded if necessary
    for images, labels in data_loader(trn_set, batch_size=64, shuffle=True):
        ...  # float32 [64, 1, 28, 28], int64 [64]
"""

import contextlib
import functools
import math
import os
from collections.abc import Callable
from numbers import Integral
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    RandomSampler,
    SequentialSampler,
    Subset,
)

from support.download import download_mnist
from support.errors import DataError
from support.mnist_files import SIZE, read_split

DEFAULT_DATA_DIR = Path("/data/MNIST_assignment")
DOWNLOAD_DIR = Path(__file__).resolve().parent / "data" / "MNIST_assignment"
SPLITS = ("train", "test")
PIXEL = 2 / SIZE  # one pixel in the coordinates of grid_sample, which run from -1 to 1
MEAN, STD = 0.1307, 0.3081  # of the 60,000 training images, pixels in [0, 1]


# --- the data set -----------------------------------------------------------------------------


class MNIST(Dataset):
    """One split of MNIST, all of it in memory.

    Args:
        data_dir: a tar or a folder of PNGs (`.../train` also stands for `.../train.tar`), or the
            pair (images, labels), tensors like the attributes below.
        transform: maps a batch of normalized images, float32 [B, 1, 28, 28], to such a batch
            (augmentation: for the training set only). A random torchvision transform `t` would draw
            once for the whole batch; to draw for each image, pass
            `lambda images: torch.stack([t(image) for image in images])`.

    Attributes:
        images: uint8 [N, 1, 28, 28], ordered by file name.
        labels: int64 [N].

    Raises:
        DataError: an image is not a 28x28 8-bit grayscale PNG, or the tar is damaged.
        OSError: a file is missing or cannot be read.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike | tuple[torch.Tensor, torch.Tensor],
        transform: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        if isinstance(data_dir, tuple):
            self.images, self.labels = data_dir
        else:
            images, labels = read_split(Path(data_dir))
            self.images = torch.from_numpy(images).unsqueeze(1)
            self.labels = torch.from_numpy(labels)
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "MNIST":
        """Return this set with its images and labels on `device`, where batches are then made."""
        return MNIST((self.images.to(device), self.labels.to(device)), self.transform)

    def __getitem__(self, index: int | slice | list[int] | torch.Tensor) -> tuple:
        """Return one sample, (float32 [1, 28, 28], int), for an int; for a slice, a list of indices
        or a mask, a batch, (float32 [B, 1, 28, 28], int64 [B])."""
        if isinstance(index, Integral):  # Python's, or NumPy's
            images, labels = self[[int(index)]]
            return images[0], int(labels[0])
        if isinstance(index, list):  # goes to the device once, for both
            index = torch.tensor(index, device=self.labels.device)
        images, labels = normalize(self.images[index]), self.labels[index]
        if self.transform is not None:
            images = self.transform(images)
        return images, labels


def normalize(images: torch.Tensor) -> torch.Tensor:
    """Turn uint8 pixels of any shape into the networks' input: float32, on MNIST with mean 0 and
    standard deviation 1."""
    return (images / 255 - MEAN) / STD


# --- augmentation -----------------------------------------------------------------------------


def augment(images: torch.Tensor) -> torch.Tensor:
    """Distort each image of a batch a little, at random, as if somebody else had written it.

    Output pixel p takes the value of the input at A p + bend(p), where p = (x, y, 1). A shears by
    up to 0.15, rotates by up to 12 degrees, scales by up to 12% and shifts by up to 2 pixels (all
    uniform); bend is a smooth elastic displacement (normal, standard deviation 0.5 pixels; Simard,
    Steinkraus & Platt 2003, section 2). All draws come from torch's global generator.

    Takes float32 [B, 1, 28, 28] on any device; returns the same shape, dtype and device.
    """
    count, device = len(images), images.device
    basis = deformation_basis(device)

    def uniform(limit: float) -> torch.Tensor:
        return torch.empty(count, device=device).uniform_(-limit, limit)

    zero, one = torch.zeros(count, device=device), torch.ones(count, device=device)
    angle = uniform(math.radians(12))
    cos, sin = angle.cos(), angle.sin()
    rotation = torch.stack([cos, -sin, sin, cos], dim=1).view(count, 2, 2)
    shear = torch.stack([one, uniform(0.15), zero, one], dim=1).view(count, 2, 2)
    scale = 1 + uniform(0.12).view(count, 1, 1)
    shift = torch.stack([uniform(2 * PIXEL), uniform(2 * PIXEL)], dim=1).view(count, 2, 1)
    bend = 0.5 * PIXEL * torch.randn(count, 2, len(basis) - 3, device=device)

    # One weight for each row of the basis, which are x, y, 1 and the bumps: A p + bend(p) for all
    # pixels at once, [B, 2, 28 * 28]; then in the order that grid_sample takes, [B, 28, 28, 2].
    # Outside, the border is repeated: zeros would be gray (the normalized background is -0.42).
    grid = torch.cat([scale * rotation @ shear, shift, bend], dim=2) @ basis
    grid = grid.view(count, 2, SIZE, SIZE).permute(0, 2, 3, 1)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


@functools.cache
def deformation_basis(device: torch.device) -> torch.Tensor:
    """Return the basis, float32 [3 + 49, 28 * 28], of `augment`'s sampling grids, which are random
    linear combinations of its rows.

    Rows: x, y (-1 to 1 across the image) and 1, the affine part; then 7 x 7 Gaussian bumps with a
    standard deviation of 4 pixels, the elastic part. At every pixel the squares of the bumps sum
    to 1, so that random weights of variance v displace it with variance v.
    """
    coordinates = PIXEL * (torch.arange(SIZE) - (SIZE - 1) / 2)
    y, x = torch.meshgrid(coordinates, coordinates, indexing="ij")
    centers = torch.linspace(-1, 1, 7)[:, None]
    bumps_1d = torch.exp(-((coordinates - centers) ** 2) / (2 * (4 * PIXEL) ** 2))  # [7, 28]
    # Each bump of the plane is the product of a vertical and a horizontal one.
    bumps = F.normalize(torch.kron(bumps_1d, bumps_1d), dim=0)  # [49, 784]
    return torch.cat([x.reshape(1, -1), y.reshape(1, -1), torch.ones(1, SIZE**2), bumps]).to(device)


# Each augmentation by its name: what `--augment NAME` applies to a batch of training images.
AUGMENTATIONS = {"deform": augment}


# --- batches ----------------------------------------------------------------------------------


def split_validation(dataset: MNIST, count: int) -> tuple[MNIST, MNIST]:
    """Hold out `count` random samples, the same every time; return (training, validation). Only the
    training set has the transform of `dataset`."""
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))
    held_out, kept = order[:count], order[count:]
    training = MNIST((dataset.images[kept], dataset.labels[kept]), dataset.transform)
    return training, MNIST((dataset.images[held_out], dataset.labels[held_out]))


def data_loader(
    dataset: MNIST | Subset,
    batch_size: int = 1000,
    shuffle: bool = False,
    generator: torch.Generator | None = None,
) -> DataLoader:
    """Return a DataLoader that asks `dataset` for a whole batch at once.

    The defaults are for testing: in order, and in large batches, since nothing is kept for a
    backward pass. The last batch holds what is left over. With `shuffle`, every pass has a new
    order, drawn from `generator` (None: from torch's global one).

    Raises:
        TypeError: `dataset` is a ConcatDataset, or a Subset of one: it takes one index at a time.
    """
    source: Dataset = dataset
    while isinstance(source, Subset):
        source = source.dataset
    if isinstance(source, ConcatDataset):
        raise TypeError("ConcatDataset takes no batch of indices; use torch.utils.data.DataLoader")
    order = RandomSampler(dataset, generator=generator) if shuffle else SequentialSampler(dataset)
    batches = BatchSampler(order, batch_size, drop_last=False)
    # batch_size=None: dataset[...] is called once for each item of the sampler, a list of indices.
    # generator: the loader draws a seed for its workers in each pass; without it, from torch's
    # global generator, as the order of a run must not depend on what else draws from that.
    return DataLoader(dataset, batch_size=None, sampler=batches, generator=generator)


# --- where the data is ------------------------------------------------------------------------


def find_split(split: str, data_dir: str | os.PathLike | None = None) -> Path:
    """Return the path of a split, "train" or "test": a tar, or an extracted folder.

    Looks in `data_dir`; if None, in /data/MNIST_assignment, if that exists; else in
    data/MNIST_assignment beside this file, into which MNIST is downloaded.

    Raises:
        DataError: the split is missing, or MNIST cannot be downloaded.
    """
    if data_dir is not None:
        folder = Path(data_dir)
    elif DEFAULT_DATA_DIR.exists():
        folder = DEFAULT_DATA_DIR
    else:
        folder = DOWNLOAD_DIR
        if split_in(folder, split) is None:
            download_mnist(folder, [name for name in SPLITS if split_in(folder, name) is None])

    path = split_in(folder, split)
    if path is None:
        raise DataError(
            f"{folder}: holds neither {split}.tar nor a folder {split}/ of PNGs; "
            "put them there, or name their folder with --data-dir"
        )
    return path


def split_in(folder: Path, split: str) -> Path | None:
    """Return `folder/split.tar`, else the folder `folder/split`, else None.

    Raises:
        OSError: permission is missing to see what is there. (Path.exists() calls that absent.)
    """
    for path in (folder / f"{split}.tar", folder / split):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.stat()
            return path
    return None
