"""Reading: what is in the files is what comes out, in order, whatever holds it."""

import io
import itertools
import math
import os
import random
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
import torch
from helpers import chunk, make_digits, make_members, png_of, to_png, write_folder, write_tar
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Subset

import dataset
from dataset import MNIST, augment, data_loader, normalize, split_validation
from support.files import DataError


@pytest.fixture
def digits():
    return make_digits(25, seed=3)


@pytest.fixture
def tar(tmp_path, digits):
    return write_tar(tmp_path / "train.tar", make_members(*digits))


@pytest.fixture
def folder(tmp_path, digits):
    return write_folder(tmp_path / "extracted", make_members(*digits)) / "train"


@pytest.mark.parametrize("layout", ["tar", "folder"])
def test_reads_every_pixel_and_label(layout, digits, request):
    trn_set = MNIST(request.getfixturevalue(layout))
    images, labels = digits
    assert len(trn_set) == 25
    assert trn_set.images.dtype == torch.uint8
    assert np.array_equal(trn_set.images[:, 0].numpy(), images)
    assert trn_set.labels.tolist() == labels.tolist()


def test_reads_every_filter_of_png_as_pillow_does(tmp_path):
    rng = np.random.default_rng(0)
    lines = rng.integers(0, 256, (60, 28, 29), dtype=np.uint8)
    lines[:, :, 0] = rng.integers(0, 5, (60, 28))
    lines[:5, :, 0] = np.arange(5)[:, None]
    members = {
        f"train/{number:05d}_0.png": png_of(zlib.compress(one.tobytes()))
        for number, one in enumerate(lines)
    }
    images = MNIST(write_tar(tmp_path / "train.tar", members)).images[:, 0].numpy()
    for image, png in zip(images, members.values(), strict=True):
        assert np.array_equal(image, np.array(Image.open(io.BytesIO(png))))


def test_pixels_in_several_chunks_are_one_image(tmp_path, digits):
    png = to_png(digits[0][0])
    packed = png[png.index(b"IDAT") + 4 : png.index(b"IEND") - 8]
    ending = chunk(b"IDAT", packed[100:]) + chunk(b"IEND", b"")
    members = {"train/00000_0.png": png_of(packed[:100])[:-12] + ending}
    images = MNIST(write_tar(tmp_path / "train.tar", members)).images
    assert np.array_equal(images[0, 0].numpy(), digits[0][0])


def test_path_without_ending_finds_the_tar(tar):
    assert len(MNIST(tar.with_suffix(""))) == 25
    assert len(MNIST(str(tar))) == 25


def test_order_is_by_file_name_whatever_the_order_in_the_tar(tmp_path, digits):
    members = list(make_members(*digits).items())
    random.Random(0).shuffle(members)
    shuffled = MNIST(write_tar(tmp_path / "shuffled.tar", dict(members)))
    assert np.array_equal(shuffled.images[:, 0].numpy(), digits[0])
    assert shuffled.labels.tolist() == digits[1].tolist()


def test_one_sample_is_scaled_and_normalized(tar, digits):
    image, label = MNIST(tar)[13]
    assert image.shape == (1, 28, 28)
    assert image.dtype == torch.float32
    assert type(label) is int
    assert label == digits[1][13]
    expected = (digits[0][13] / 255 - 0.1307) / 0.3081
    np.testing.assert_allclose(image[0].numpy(), expected, atol=1e-5)


def test_normalize_subtracts_the_mean_and_divides_by_the_standard_deviation():
    pixels = np.arange(256, dtype=np.uint8)
    expected = (pixels / 255 - 0.1307) / 0.3081  # float64
    normalized = normalize(torch.from_numpy(pixels))
    assert normalized.dtype == torch.float32
    np.testing.assert_allclose(normalized.numpy(), expected, atol=1e-6)


def test_normalize_leaves_its_input_alone():
    pixels = torch.full((2, 2), 255.0)
    normalize(pixels)
    assert pixels.unique().tolist() == [255]


@pytest.mark.parametrize("indices", [[4, 0, 24], torch.tensor([4, 0, 24])])
def test_indices_give_a_batch_of_the_same_samples(tar, indices):
    trn_set = MNIST(tar)
    images, labels = trn_set[indices]
    assert images.shape == (3, 1, 28, 28)
    assert labels.dtype == torch.int64
    for position, index in enumerate([4, 0, 24]):
        image, label = trn_set[index]
        assert torch.equal(images[position], image)
        assert labels[position] == label


def test_iterating_ends(tar):
    assert [label for _, label in MNIST(tar)] == MNIST(tar).labels.tolist()


def test_transform_gets_normalized_batches(tar):
    trn_set = MNIST(tar, transform=lambda images: images + images.shape[0])
    plain = MNIST(tar)
    assert torch.equal(trn_set[[1, 2, 3]][0], plain[[1, 2, 3]][0] + 3)
    assert torch.equal(trn_set[1][0], plain[1][0] + 1)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_plain_dataloader_works(tar, workers):
    batches = list(DataLoader(MNIST(tar), batch_size=10, shuffle=True, num_workers=workers))
    assert [images.shape for images, _ in batches] == [(10, 1, 28, 28)] * 2 + [(5, 1, 28, 28)]
    assert sorted(torch.cat([labels for _, labels in batches]).tolist()) == sorted(
        MNIST(tar).labels.tolist()
    )


def test_data_loader_gives_each_sample_once_in_a_new_order_each_time(tar):
    trn_set = MNIST(tar)
    trn_set.labels = torch.arange(25)  # so that a label tells which sample it is
    loader = data_loader(trn_set, 10, shuffle=True, seed=5)
    assert len(loader) == 3
    orders = [torch.cat([labels for _, labels in loader]).tolist() for _ in range(2)]
    assert [images.shape[0] for images, _ in loader] == [10, 10, 5]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(25))
    assert orders[0] != orders[1]
    again = data_loader(trn_set, 10, shuffle=True, seed=5)
    assert [torch.cat([labels for _, labels in again]).tolist() for _ in range(2)] == orders
    other = data_loader(trn_set, 10, shuffle=True, seed=6)
    assert torch.cat([labels for _, labels in other]).tolist() != orders[0]
    ordered = data_loader(trn_set, 10, shuffle=False)
    assert torch.cat([labels for _, labels in ordered]).tolist() == list(range(25))


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
    torch.manual_seed(1)
    augmented = augment(images)
    torch.manual_seed(1)
    np.testing.assert_allclose(augmented.numpy(), augment_pixel_by_pixel(images), atol=1e-5)


def test_augment_deforms_every_image_in_its_own_way():
    image = torch.from_numpy(make_digits(6, seed=3)[0][5:]).unsqueeze(1) / 255
    images = image.repeat(200, 1, 1, 1)
    torch.manual_seed(0)
    deformed = augment(images)
    assert deformed.shape == images.shape
    assert deformed.dtype == torch.float32
    assert torch.equal(images, image.repeat(200, 1, 1, 1)), "the input stays as it was"
    assert len(deformed.flatten(1).unique(dim=0)) == 200
    assert deformed.min() >= images.min() - 1e-5
    assert deformed.max() <= images.max() + 1e-5
    torch.manual_seed(0)
    assert torch.equal(augment(images), deformed)


def test_augment_moves_a_digit_by_a_few_pixels_at_most_and_on_average_not():
    dots = torch.zeros(1000, 1, 28, 28)
    dots[:, :, 13:15, 13:15] = 1.0
    torch.manual_seed(0)
    deformed = augment(dots)
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


def test_split_validation_parts_the_set_always_in_the_same_way(tar):
    whole = MNIST(tar)
    whole.labels = torch.arange(25)  # so that a label tells which sample it is
    rest, held = split_validation(whole, 10)
    assert (len(rest), len(held), len(whole)) == (15, 10, 25)
    assert sorted([*rest.labels.tolist(), *held.labels.tolist()]) == list(range(25))
    assert torch.equal(held[0][0], whole[int(held.labels[0])][0])
    torch.manual_seed(99)
    assert torch.equal(split_validation(whole, 10)[1].labels, held.labels)


def test_members_are_read_in_memory_wherever_their_names_point(tmp_path, digits):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    names = ["../../1_3.png", "/tmp/mnist_escape_2_4.png", "train/3_5.png"]
    members = dict(zip(names, map(to_png, digits[0]), strict=False))
    before = sorted(tmp_path.rglob("*"))
    trn_set = MNIST(write_tar(inside / "train.tar", members))
    assert sorted(trn_set.labels.tolist()) == [3, 4, 5]
    assert sorted(tmp_path.rglob("*")) == sorted([*before, inside / "train.tar"])
    assert not os.path.exists("/tmp/mnist_escape_2_4.png")


def test_what_a_mac_adds_is_no_image(tmp_path, folder, digits):
    members = make_members(*digits)
    companions = {"train/._00000_0.png": b"Mac OS X", "._train": b"", "train/.DS_Store": b"Bud1"}
    assert len(MNIST(write_tar(tmp_path / "mac.tar", {**companions, **members}))) == 25
    (folder / "._00000_0.png").write_bytes(b"Mac OS X")
    assert len(MNIST(folder)) == 25


def test_a_pipe_in_a_folder_is_refused_and_not_waited_for(folder):
    os.mkfifo(folder / "00099_1.png")
    with pytest.raises(DataError, match=r"00099_1\.png"):
        MNIST(folder)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path, digits, kind):
    path = tmp_path / "train.tar"
    with tarfile.open(path, "w") as tar:
        png = to_png(digits[0][0])
        image = tarfile.TarInfo("train/00000_0.png")
        image.size = len(png)
        tar.addfile(image, io.BytesIO(png))
        odd = tarfile.TarInfo("train/00001_1.png")
        odd.type, odd.linkname = kind, "train/00000_0.png"
        tar.addfile(odd)
    with pytest.raises(DataError, match=r"train/00001_1\.png"):
        MNIST(path)


def test_a_tar_is_whole_or_refused_wherever_it_is_cut(tar):
    whole = tar.read_bytes()
    end = max(i for i, byte in enumerate(whole) if byte)  # then come only the zeros of the end
    cuts = {0, 100, 512, 1024, *range(512, end, 512 * 7), end, end // 2, end - 600}
    for cut in cuts:
        tar.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"train\.tar"):
            MNIST(tar)


def test_a_damaged_header_does_not_hide_the_rest(tar):
    content = bytearray(tar.read_bytes())
    second = content.index(b"train/00001")
    content[second] ^= 0xFF
    tar.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        MNIST(tar)


def test_a_flipped_bit_in_a_png_never_changes_a_pixel_unseen(tmp_path, digits):
    png = to_png(digits[0][0])
    refused = 0
    for position in range(0, len(png) * 8, 29):
        flipped = bytearray(png)
        flipped[position // 8] ^= 1 << position % 8
        tar = write_tar(tmp_path / "train.tar", {"train/00000_0.png": bytes(flipped)})
        try:
            images = MNIST(tar).images
        except DataError as error:
            refused += "train/00000_0.png" in str(error)
        else:
            assert np.array_equal(images[0, 0].numpy(), digits[0][0])
    assert refused > 0.9 * len(png) * 8 / 29  # all but a few in the last chunk, which is empty


def test_cache_serves_the_same_pixels(tar, digits, own_cache, monkeypatch):
    first = MNIST(tar)
    assert list(own_cache.rglob("*.npz"))
    monkeypatch.setattr(dataset, "decode_images", None)  # decoding again would now fail
    second = MNIST(tar)
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.labels, second.labels)
    second[[0]][0].zero_()
    assert torch.equal(MNIST(tar).images, first.images)


def test_cache_never_serves_a_changed_tar(tar, digits):
    MNIST(tar)
    before = os.stat(tar)
    write_tar(tar, make_members(255 - digits[0], digits[1]))
    os.utime(tar, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert np.array_equal(MNIST(tar).images[:, 0].numpy(), 255 - digits[0])


def damage_nothing(content):
    return b""


def cut_in_half(content):
    return content[: len(content) // 2]


def flip_a_pixel(content):
    damaged = bytearray(content)
    damaged[len(damaged) // 2] ^= 1
    return bytes(damaged)


def replace_with_code(content):
    file = io.BytesIO()
    np.savez(file, images=np.array([print]), labels=np.array([1]))
    return file.getvalue()


def replace_with_other_shapes(content):
    file = io.BytesIO()
    np.savez(file, images=np.zeros((2, 3), np.uint8), labels=np.zeros(2, np.int64))
    return file.getvalue()


@pytest.mark.parametrize(
    "damage",
    [damage_nothing, cut_in_half, flip_a_pixel, replace_with_code, replace_with_other_shapes],
)
def test_a_damaged_cache_is_ignored(tar, digits, own_cache, damage):
    MNIST(tar)
    [cache] = own_cache.rglob("*.npz")
    cache.write_bytes(damage(cache.read_bytes()))
    assert np.array_equal(MNIST(tar).images[:, 0].numpy(), digits[0])


def test_an_unwritable_cache_is_ignored(tar, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(MNIST(tar)) == 25


def test_one_image_under_two_spellings_of_its_name_is_refused(tmp_path, digits):
    png = to_png(digits[0][0])
    members = {"train/00000_0.png": png, "./train/00000_0.png": png}
    with pytest.raises(DataError, match=r"train/00000_0\.png twice"):
        MNIST(write_tar(tmp_path / "train.tar", members))


def test_a_tar_of_both_splits_is_refused(tmp_path, digits):
    members = make_members(*digits) | make_members(*digits, "test")
    with pytest.raises(DataError, match=r"both train/ and test/"):
        MNIST(write_tar(tmp_path / "train.tar", members))


def test_a_subset_is_loaded_in_batches_too(tar):
    dataset = MNIST(tar)
    [(images, labels), (last_images, _)] = data_loader(Subset(dataset, [5, 1, 3]), 2, shuffle=False)
    assert torch.equal(images, dataset[[5, 1]][0])
    assert labels.tolist() == dataset.labels[[5, 1]].tolist()
    assert torch.equal(last_images, dataset[[3]][0])


def test_data_loader_says_at_once_what_it_does_not_take(tar):
    both = ConcatDataset([MNIST(tar), MNIST(tar)])
    with pytest.raises(TypeError, match=r"torch\.utils\.data\.DataLoader"):
        data_loader(both, 2, shuffle=False)
    assert len(list(DataLoader(both, 2))) > 0


def test_a_transform_can_be_drawn_for_each_image(tar):
    def jitter(image):
        return image + torch.rand(())

    plain = MNIST(tar)
    each = MNIST(tar, lambda images: torch.stack([jitter(image) for image in images]))
    added = (each[[0, 1, 2]][0] - plain[[0, 1, 2]][0]).flatten(1).mean(dim=1)
    assert len(added.unique()) == 3


def test_a_pipe_in_place_of_a_tar_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "train.tar")
    with pytest.raises(DataError, match="is not a file"):
        MNIST(tmp_path / "train.tar")


def test_a_folder_may_be_named_like_the_start_of_a_compressed_file(tmp_path, digits):
    members = {f"BZ/{name}": png for name, png in make_members(*digits).items()}
    assert len(MNIST(write_tar(tmp_path / "train.tar", members))) == len(digits[1])


@pytest.mark.parametrize("mode", ["gz", "bz2", "xz"])
def test_a_compressed_tar_says_so(tar, tmp_path, digits, mode):
    with tarfile.open(tmp_path / "test.tar", f"w:{mode}") as compressed:
        compressed.add(tar)
    with pytest.raises(DataError, match=r"test\.tar: is compressed"):
        MNIST(tmp_path / "test.tar")


def test_a_zip_called_tar_says_so(tmp_path):
    with zipfile.ZipFile(tmp_path / "test.tar", "w") as archive:
        archive.writestr("test/00000_1.png", b"")
    with pytest.raises(DataError, match=r"is compressed \(zip\)"):
        MNIST(tmp_path / "test.tar")
