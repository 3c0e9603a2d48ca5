"""Pixels become normalized batches, augmented or not, each image with its own label."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT
from torch.utils.data import ConcatDataset, DataLoader, Subset

from dataset import (
    DEFAULT_DATA_DIR,
    DOWNLOAD_DIR,
    MNIST,
    augment,
    data_loader,
    find_split,
    normalize,
    split_validation,
)
from support.errors import DataError


@pytest.mark.parametrize("layout", ["tar", "folder"])
def test_a_tar_or_a_folder_becomes_tensors_of_its_pixels_and_labels(layout, digits, request):
    trn_set = MNIST(request.getfixturevalue(layout))
    images, labels = digits
    assert len(trn_set) == 25
    assert trn_set.images.dtype == torch.uint8
    assert np.array_equal(trn_set.images[:, 0].numpy(), images)
    assert trn_set.labels.dtype == torch.int64
    assert trn_set.labels.tolist() == labels.tolist()


def test_normalize_subtracts_the_mean_and_divides_by_the_standard_deviation():
    pixels = np.arange(256, dtype=np.uint8)
    expected = (pixels / 255 - 0.1307) / 0.3081  # float64
    normalized = normalize(torch.from_numpy(pixels))
    assert normalized.dtype == torch.float32
    np.testing.assert_allclose(normalized.numpy(), expected, atol=1e-4)  # of 0.013 a gray level
    floats = torch.full((2, 2), 255.0)
    normalize(floats)
    assert floats.unique().tolist() == [255], "its input stays as it was"


@pytest.mark.parametrize(
    ("index", "positions"),
    [
        ([4, 0, 23], [4, 0, 23]),
        (torch.tensor([4, 0, 23]), [4, 0, 23]),
        (slice(3, 9, 2), [3, 5, 7]),
        (slice(None), list(range(25))),
        ([-1, 0], [24, 0]),
        (torch.arange(25) > 21, [22, 23, 24]),
        (np.arange(25) < 2, [0, 1]),
    ],
)
def test_indices_slices_and_masks_give_a_batch_of_what_they_give_of_a_list(tar, index, positions):
    trn_set = MNIST(tar)
    images, labels = trn_set[index]
    assert torch.equal(images, normalize(trn_set.images[positions]))
    assert torch.equal(labels, trn_set.labels[positions])


def test_a_set_is_indexed_as_a_list_is(tar):
    trn_set = MNIST(tar)
    for index in (24, -1, torch.tensor(24)):
        image, label = trn_set[index]
        assert torch.equal(image, normalize(trn_set.images[24]))
        assert label == trn_set.labels[24]
    assert type(trn_set[24][1]) is int
    with pytest.raises(IndexError):
        trn_set[25]
    assert [label for _, label in trn_set] == trn_set.labels.tolist()  # and iterating ends


def test_data_is_looked_for_where_the_assignment_puts_it_and_else_beside_the_program():
    assert Path("/data/MNIST_assignment") == DEFAULT_DATA_DIR
    assert DOWNLOAD_DIR == ROOT / "data" / "MNIST_assignment"


def test_one_split_is_found_without_the_other_and_a_tar_before_a_folder(tmp_path):
    (tmp_path / "train").mkdir()
    assert find_split("train", tmp_path) == tmp_path / "train"
    (tmp_path / "train.tar").touch()
    assert find_split("train", tmp_path) == tmp_path / "train.tar"
    with pytest.raises(DataError, match=r"test\.tar"):
        find_split("test", tmp_path)


def test_a_lack_of_permission_is_not_taken_for_a_missing_split(tmp_path, monkeypatch):
    def denied(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", denied)
    with pytest.raises(PermissionError):
        find_split("train", tmp_path)


def test_the_transform_of_a_set_made_from_tensors_gets_normalized_batches(tar):
    plain = MNIST(tar)
    made = MNIST((plain.images, plain.labels), lambda images: images + len(images))
    assert torch.equal(made[[1, 2, 3]][0], plain[[1, 2, 3]][0] + 3)
    assert torch.equal(made[1][0], plain[1][0] + 1)
    assert made[1][1] == plain[1][1]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_plain_dataloader_gives_every_sample_with_workers_or_without(tar, workers):
    batches = list(DataLoader(MNIST(tar), batch_size=10, shuffle=True, num_workers=workers))
    assert [images.shape for images, _ in batches] == [(10, 1, 28, 28)] * 2 + [(5, 1, 28, 28)]
    assert sorted(torch.cat([labels for _, labels in batches]).tolist()) == sorted(
        MNIST(tar).labels.tolist()
    )


def test_data_loader_gives_each_sample_once_in_an_order_that_its_generator_alone_decides(tar):
    trn_set = MNIST(tar)
    trn_set.labels = torch.arange(25)  # so that a label tells which sample it is

    def orders(seed):
        generator = torch.Generator().manual_seed(seed)
        loader = data_loader(trn_set, 10, shuffle=True, generator=generator)
        assert [len(labels) for _, labels in loader] == [10, 10, 5]
        assert len(loader) == 3
        return [torch.cat([labels for _, labels in loader]).tolist() for _ in range(2)]

    before = torch.get_rng_state()
    first, second = orders(5)
    assert sorted(first) == sorted(second) == list(range(25))
    assert first != second
    assert orders(5) == [first, second]
    assert orders(6)[0] != first
    assert torch.equal(torch.get_rng_state(), before)


def test_by_default_a_loader_gives_a_thousand_images_at_once_in_order(tar):
    trn_set = MNIST(tar)
    trn_set = MNIST((trn_set.images.repeat(50, 1, 1, 1), trn_set.labels.repeat(50)))
    labels = [labels for _, labels in data_loader(trn_set)]
    assert [len(batch) for batch in labels] == [1000, 250]
    assert torch.equal(torch.cat(labels), trn_set.labels)


def test_a_subset_is_loaded_in_batches_too(tar):
    trn_set = MNIST(tar)
    subset = Subset(trn_set, [5, 1, 3])
    [(images, labels), (last_images, _)] = data_loader(subset, 2, shuffle=False)
    assert torch.equal(images, trn_set[[5, 1]][0])
    assert labels.tolist() == trn_set.labels[[5, 1]].tolist()
    assert torch.equal(last_images, trn_set[[3]][0])


def test_data_loader_says_at_once_what_it_does_not_take(tar):
    both = ConcatDataset([MNIST(tar), MNIST(tar)])
    with pytest.raises(TypeError, match=r"torch\.utils\.data\.DataLoader"):
        data_loader(both, 2, shuffle=False)
    with pytest.raises(TypeError, match="ConcatDataset"):
        data_loader(Subset(Subset(both, [1, 2, 3]), [0, 1]), 2, shuffle=False)
    assert len(list(DataLoader(both, 2))) > 0


def test_split_validation_parts_the_set_at_random_but_always_in_the_same_way(tar):
    whole = MNIST(tar)
    whole.labels = torch.arange(25)  # so that a label tells which sample it is
    rest, held = split_validation(whole, 10)
    assert (len(rest), len(held), len(whole)) == (15, 10, 25)
    assert sorted([*rest.labels.tolist(), *held.labels.tolist()]) == list(range(25))
    for part in (rest, held):
        assert torch.equal(part[range(10)][0], whole[part.labels[:10]][0]), "each with its label"
    assert sorted(held.labels.tolist()) not in (list(range(10)), list(range(15, 25)))
    torch.manual_seed(99)
    assert torch.equal(split_validation(whole, 10)[1].labels, held.labels)


def test_split_validation_gives_the_transform_to_the_training_set_alone(tar):
    rest, held = split_validation(MNIST(tar, torch.neg), 10)
    assert torch.equal(rest[:][0], -normalize(rest.images))
    assert torch.equal(held[:][0], normalize(held.images))


# --- augmentation ------------------------------------------------------------------------------


def augment_pixel_by_pixel(images):
    """What `augment` computes, from the same random numbers, in the plainest way: in pixels from
    the center, one output pixel at a time."""
    count = len(images)
    limits = (math.radians(12), 0.15, 0.12, 2.0, 2.0)
    draws = [torch.empty(count).uniform_(-limit, limit).tolist() for limit in limits]
    bends = 0.5 * torch.randn(count, 2, 7, 7).double().numpy()  # in x, in y
    centers = np.linspace(-14, 14, 7)  # of the bumps that bend, in x and in y
    output = np.empty(images.shape)
    for b, (angle, shear, scale, shift_x, shift_y) in enumerate(zip(*draws, strict=True)):
        for row, column in itertools.product(range(28), range(28)):
            x, y = column - 13.5, row - 13.5
            across, down = (np.exp(-((at - centers) ** 2) / (2 * 4**2)) for at in (x, y))
            bumps = np.outer(down, across)
            bend_x, bend_y = (bends[b] * bumps).sum(axis=(1, 2)) / np.sqrt((bumps**2).sum())
            x = x + shear * y
            cos, sin = math.cos(angle), math.sin(angle)
            x, y = cos * x - sin * y, sin * x + cos * y
            x, y = (1 + scale) * x + shift_x + bend_x, (1 + scale) * y + shift_y + bend_y
            x, y = min(max(x + 13.5, 0), 27), min(max(y + 13.5, 0), 27)  # outside is the border
            left, top = min(int(x), 26), min(int(y), 26)
            square = images[b, 0, top : top + 2, left : left + 2].double().numpy()
            right, below = x - left, y - top  # bilinear interpolation
            output[b, 0, row, column] = [1 - below, below] @ square @ [1 - right, right]
    return output


def test_augment_samples_rotated_sheared_scaled_shifted_and_bent_images():
    images = torch.from_numpy(np.random.default_rng(0).random((6, 1, 28, 28), dtype=np.float32))
    before = images.clone()
    torch.manual_seed(1)
    augmented = augment(images)
    torch.manual_seed(1)
    # Neighbors differ by up to 1: off by 0.0005 pixels at most.
    np.testing.assert_allclose(augmented.numpy(), augment_pixel_by_pixel(images), atol=5e-4)
    assert augmented.dtype == torch.float32
    assert torch.equal(images, before), "the input stays as it was"


def test_augment_computes_where_the_images_are():
    images = torch.empty(3, 1, 28, 28, device="meta")  # a device without a machine, and numbers
    assert augment(images).device == images.device


def test_augment_moves_each_digit_in_its_own_way_by_a_few_pixels_and_on_average_not():
    dots = torch.zeros(1000, 1, 28, 28)
    dots[:, :, 13:15, 13:15] = 1.0
    torch.manual_seed(0)
    deformed = augment(dots)
    assert len(deformed.unique(dim=0)) == len(dots)
    weight = deformed.sum(dim=(1, 2, 3))
    y = (deformed.sum(dim=(1, 3)) @ torch.arange(28.0)) / weight - 13.5
    x = (deformed.sum(dim=(1, 2)) @ torch.arange(28.0)) / weight - 13.5
    for shift in (x, y):
        assert abs(shift.mean()) < 0.15
        assert 0.8 < shift.std() < 1.7
        assert shift.abs().max() < 5


@pytest.mark.cuda
def test_a_set_on_cuda_makes_the_same_batches_there(tar):
    here, there = MNIST(tar), MNIST(tar, transform=augment).to(torch.device("cuda"))
    images, labels = there[torch.arange(5)]
    assert images.is_cuda
    assert labels.is_cuda
    there.transform = None
    torch.testing.assert_close(there[torch.arange(5)][0].cpu(), here[torch.arange(5)][0])


# --- the real MNIST ---------------------------------------------------------------------------


@pytest.mark.slow
def test_it_is_the_published_mnist():
    trn_set, tst_set = (MNIST(find_split(split)) for split in ("train", "test"))
    assert trn_set.labels.bincount().tolist() == [
        *(5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
    ]
    assert tst_set.labels.bincount().tolist() == [
        *(980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)
    ]
    pixels = trn_set.images.double() / 255
    assert pixels.mean().item() == pytest.approx(0.1307, abs=5e-5)
    assert pixels.std().item() == pytest.approx(0.3081, abs=5e-5)
