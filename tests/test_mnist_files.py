"""What is in the files is what comes out, in order, whatever holds it; or the error is ours and
names the file."""

import contextlib
import io
import os
import random
import struct
import tarfile
import tempfile
import time
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import PIL
import pytest
from helpers import chunk, make_digits, make_members, png_of, to_png, write_tar
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from support import mnist_files
from support.errors import DataError
from support.mnist_files import decode_images, read_split, tar_members

IMAGES, LABELS = make_digits(5, seed=4)
MEMBERS = make_members(IMAGES, LABELS)
PNG = to_png(IMAGES[0])


def test_reads_every_filter_of_png_as_pillow_does(tmp_path):
    rng = np.random.default_rng(0)
    lines = rng.integers(0, 256, (60, 28, 29), dtype=np.uint8)
    lines[:, :, 0] = rng.integers(0, 5, (60, 28))
    lines[:5, :, 0] = np.arange(5)[:, None]
    members = {
        f"train/{number:05d}_0.png": png_of(zlib.compress(one.tobytes()))
        for number, one in enumerate(lines)
    }
    images, _ = read_split(write_tar(tmp_path / "train.tar", members))
    for image, png in zip(images, members.values(), strict=True):
        assert np.array_equal(image, np.array(Image.open(io.BytesIO(png))))


def test_pixels_in_several_chunks_are_one_image(tmp_path, digits):
    png = to_png(digits[0][0])
    packed = png[png.index(b"IDAT") + 4 : png.index(b"IEND") - 8]
    ending = chunk(b"IDAT", packed[100:]) + chunk(b"IEND", b"")
    members = {"train/00000_0.png": png_of(packed[:100])[:-12] + ending}
    images, _ = read_split(write_tar(tmp_path / "train.tar", members))
    assert np.array_equal(images[0], digits[0][0])


def test_a_path_without_its_ending_finds_the_tar(tar):
    assert np.array_equal(read_split(tar.with_suffix(""))[0], read_split(tar)[0])


def test_images_are_ordered_by_file_name_whatever_the_order_in_the_tar(tmp_path, digits):
    members = list(make_members(*digits).items())
    random.Random(0).shuffle(members)
    images, labels = read_split(write_tar(tmp_path / "shuffled.tar", dict(members)))
    assert np.array_equal(images, digits[0])
    assert np.array_equal(labels, digits[1])


def test_members_are_read_in_memory_wherever_their_names_point(tmp_path, digits):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    names = ["../../1_3.png", f"{tmp_path}/2_4.png", "train/3_5.png"]
    members = dict(zip(names, map(to_png, digits[0]), strict=False))
    before = sorted(tmp_path.rglob("*"))
    _, labels = read_split(write_tar(inside / "train.tar", members))
    assert sorted(labels) == [3, 4, 5]
    assert sorted(tmp_path.rglob("*")) == sorted([*before, inside / "train.tar"])


def test_what_a_mac_adds_is_no_image(tmp_path, folder, digits):
    members = make_members(*digits)
    companions = {"train/._00000_0.png": b"Mac OS X", "._train": b"", "train/.DS_Store": b"Bud1"}
    _, labels = read_split(write_tar(tmp_path / "mac.tar", {**companions, **members}))
    assert len(labels) == 25
    (folder / "._00000_0.png").write_bytes(b"Mac OS X")
    assert len(read_split(folder)[1]) == 25


def test_a_pipe_in_a_folder_is_refused_and_not_waited_for(folder):
    os.mkfifo(folder / "00099_1.png")
    with pytest.raises(DataError, match=r"00099_1\.png"):
        read_split(folder)


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
        read_split(path)


def test_a_tar_is_whole_or_refused_wherever_it_is_cut(tar):
    whole = tar.read_bytes()
    end = max(i for i, byte in enumerate(whole) if byte)  # then come only the zeros of the end
    cuts = {0, 100, 512, 1024, *range(512, end, 512 * 7), end, end // 2, end - 600}
    for cut in cuts:
        tar.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"train\.tar"):
            read_split(tar)


def test_a_damaged_header_does_not_hide_the_rest(tar):
    content = bytearray(tar.read_bytes())
    second = content.index(b"train/00001")
    content[second] ^= 0xFF
    tar.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        read_split(tar)


def test_a_flipped_bit_in_a_png_never_changes_a_pixel_unseen(tmp_path, digits):
    png = to_png(digits[0][0])
    refused = 0
    for position in range(0, len(png) * 8, 29):
        flipped = bytearray(png)
        flipped[position // 8] ^= 1 << position % 8
        tar = write_tar(tmp_path / "train.tar", {"train/00000_0.png": bytes(flipped)})
        try:
            images, _ = read_split(tar)
        except DataError as error:
            refused += "train/00000_0.png" in str(error)
        else:
            assert np.array_equal(images[0], digits[0][0])
    assert refused > 0.9 * len(png) * 8 / 29  # all but a few in the last chunk, which is empty


def test_the_cache_serves_the_same_pixels_without_decoding_again(
    tar, digits, own_cache, monkeypatch
):
    read_split(tar)
    assert list(own_cache.rglob("*.npz"))
    monkeypatch.setattr(mnist_files, "decode_images", None)  # decoding again would now fail
    images, labels = read_split(tar)
    assert np.array_equal(images, digits[0])
    assert np.array_equal(labels, digits[1])


def test_the_cache_never_serves_a_changed_tar(tar, digits):
    read_split(tar)
    before = os.stat(tar)
    write_tar(tar, make_members(255 - digits[0], digits[1]))
    os.utime(tar, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert np.array_equal(read_split(tar)[0], 255 - digits[0])


def empty_it(content):
    return b""


def cut_in_half(content):
    return content[: len(content) // 2]


def flip_a_pixel(content):
    damaged = bytearray(content)
    damaged[len(damaged) // 2] ^= 1
    return bytes(damaged)


def fail():
    pytest.fail("code in the cache was run")


class Harmful:
    def __reduce__(self):
        return fail, ()


def replace_with_code(content):
    file = io.BytesIO()
    np.savez(file, images=np.array([Harmful()]), labels=np.array([1]))
    return file.getvalue()


def replace_with_other_shapes(content):
    file = io.BytesIO()
    np.savez(file, images=np.zeros((2, 3), np.uint8), labels=np.zeros(2, np.int64))
    return file.getvalue()


@pytest.mark.parametrize(
    "damage",
    [empty_it, cut_in_half, flip_a_pixel, replace_with_code, replace_with_other_shapes],
)
def test_a_damaged_cache_is_ignored(tar, digits, own_cache, damage):
    read_split(tar)
    [cache] = own_cache.rglob("*.npz")
    cache.write_bytes(damage(cache.read_bytes()))
    assert np.array_equal(read_split(tar)[0], digits[0])


def test_an_unwritable_cache_is_ignored(tar, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(read_split(tar)[1]) == 25


def test_a_cached_label_that_is_no_digit_is_not_used(tar, digits, own_cache):
    read_split(tar)
    [cache] = own_cache.rglob("*.npz")
    images, labels = digits
    for label in (-1, 10):
        np.savez(cache, images=255 - images, labels=np.where(labels == 3, label, labels))
        assert np.array_equal(read_split(tar)[1], labels)
        assert np.array_equal(read_split(tar)[0], images)


def test_another_version_of_pillow_decodes_anew(tar, digits, own_cache, monkeypatch):
    read_split(tar)
    [cache] = own_cache.rglob("*.npz")
    np.savez(cache, images=255 - digits[0], labels=digits[1])
    monkeypatch.setattr(PIL, "__version__", "99.0")
    assert np.array_equal(read_split(tar)[0], digits[0])
    assert len(list(own_cache.rglob("*.npz"))) == 2


def test_what_killed_processes_left_in_the_cache_is_removed(tar, own_cache):
    folder = own_cache / "mnist-lenet5"
    folder.mkdir(parents=True)
    old, new = folder / ".x.npz.~1.part", folder / ".x.npz.~2.part"
    old.touch()
    new.touch()
    os.utime(old, (time.time() - 3700,) * 2)
    read_split(tar)
    assert (old.exists(), new.exists()) == (False, True)


def test_without_a_home_the_cache_is_among_the_temporary_files(tar, tmp_path, monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    read_split(tar)
    assert list((tmp_path / "temporary").rglob("*.npz"))
    monkeypatch.setenv("XDG_CACHE_HOME", "~/.cache")  # not absolute: it does not count
    read_split(tar)
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("train/00000_5.png", b"GIF89a", "is not a PNG"),
        ("train/00000_x.png", None, r"is not named {number}_{label}\.png with a label 0-9"),
        ("train/00000.png", None, r"is not named {number}_{label}\.png with a label 0-9"),
    ],
)
def test_a_file_that_is_no_image_of_a_digit_is_named_with_the_reason(
    tmp_path, digits, name, content, reason
):
    tar = write_tar(tmp_path / "train.tar", {name: content or to_png(digits[0][0])})
    with pytest.raises(DataError, match=f"^{tar}: {name} {reason}; replace it or take it out$"):
        read_split(tar)


def test_a_folder_of_folders_is_told_how_to_name_images(folder):
    (folder / "7").mkdir()
    with pytest.raises(DataError, match=r"7: is a folder; .*{number}_{label}\.png"):
        read_split(folder)


def test_a_tar_may_lie_under_a_folder_called_like_the_other_split(tmp_path, digits):
    members = make_members(*digits, split="mnist/test/train")
    images, _ = read_split(write_tar(tmp_path / "train.tar", members))
    assert np.array_equal(images, digits[0])


def test_one_image_under_two_spellings_of_its_name_is_refused(tmp_path, digits):
    png = to_png(digits[0][0])
    members = {"train/00000_0.png": png, "./train/00000_0.png": png}
    with pytest.raises(DataError, match=r"train/00000_0\.png twice"):
        read_split(write_tar(tmp_path / "train.tar", members))


def test_a_tar_of_both_splits_is_refused(tmp_path, digits):
    members = make_members(*digits) | make_members(*digits, "test")
    with pytest.raises(DataError, match=r"both train/ and test/"):
        read_split(write_tar(tmp_path / "train.tar", members))


def test_a_pipe_in_place_of_a_tar_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "train.tar")
    with pytest.raises(DataError, match="is not a file"):
        read_split(tmp_path / "train.tar")


def test_a_folder_may_be_named_like_the_start_of_a_compressed_file(tmp_path, digits):
    members = {f"BZ/{name}": png for name, png in make_members(*digits).items()}
    assert len(read_split(write_tar(tmp_path / "train.tar", members))[1]) == 25


@pytest.mark.parametrize(("mode", "kind"), [("gz", "gzip"), ("bz2", "bzip2"), ("xz", "xz")])
def test_a_compressed_tar_says_so(tar, tmp_path, digits, mode, kind):
    with tarfile.open(tmp_path / "test.tar", f"w:{mode}") as compressed:
        compressed.add(tar)
    with pytest.raises(DataError, match=rf"test\.tar: is compressed \({kind}\); unpack it"):
        read_split(tmp_path / "test.tar")


def test_a_zip_called_tar_says_so(tmp_path):
    with zipfile.ZipFile(tmp_path / "test.tar", "w") as archive:
        archive.writestr("test/00000_1.png", b"")
    with pytest.raises(DataError, match=r"is compressed \(zip\)"):
        read_split(tmp_path / "test.tar")


# --- memory -----------------------------------------------------------------------------------


@contextlib.contextmanager
def at_most_megabytes(limit):
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < limit * 1e6


def test_a_huge_member_is_refused_before_it_is_in_memory(tmp_path):
    path = tmp_path / "train.tar"
    with open(path, "wb") as file:
        member = tarfile.TarInfo("train/00000_1.png")
        member.size = 200_000_000
        file.write(member.tobuf() + PNG)
        file.truncate(member.size + 10_240)  # a hole, which takes no space on disk
    with at_most_megabytes(10), pytest.raises(DataError, match="longer than"):
        read_split(path)


def test_a_huge_file_in_a_folder_is_refused_before_it_is_in_memory(folder):
    with open(folder / "00025_1.png", "wb") as file:
        file.write(PNG)
        file.truncate(200_000_000)
    with at_most_megabytes(10), pytest.raises(DataError, match="longer than"):
        read_split(folder)


def test_the_headers_of_a_tar_are_not_kept_in_memory(tmp_path):
    path = tmp_path / "train.tar"
    with tarfile.open(path, "w") as tar:
        for number in range(4000):
            tar.addfile(tarfile.TarInfo(f"train/.{number}"))
    with at_most_megabytes(1), pytest.raises(DataError, match="holds no image"):
        read_split(path)


# --- anything at all --------------------------------------------------------------------------

SECONDS = 10

EXAMPLES = [50, pytest.param(700, marks=pytest.mark.slow)]


def fuzz(examples, strategy, check):
    """Calls `check` with that many values of `strategy`; each may take 10 s and 10 MB."""

    @settings(
        max_examples=examples,
        deadline=SECONDS * 1000,
        suppress_health_check=list(HealthCheck),
        derandomize=examples == EXAMPLES[0],
        database=None,
    )
    @given(strategy)
    def cases(value):
        with at_most_megabytes(10):
            check(value)

    cases()


@st.composite
def mutations(draw, content):
    """`content` with a few bits flipped, blocks swapped, a piece cut out, or its end cut off."""
    content = bytearray(content)
    positions = st.integers(0, len(content) - 1)
    kinds = st.sampled_from(["flip", "swap", "cut", "end", "fill"])
    for kind in draw(st.lists(kinds, min_size=1, max_size=3)):
        if kind == "flip":
            for position in draw(st.lists(positions, min_size=1, max_size=4)):
                if position < len(content):
                    content[position] ^= 1 << draw(st.integers(0, 7))
        elif kind == "swap":
            a, b = (draw(positions) // 512 * 512 for _ in range(2))
            content[a : a + 512], content[b : b + 512] = content[b : b + 512], content[a : a + 512]
        elif kind == "cut":
            start = draw(positions)
            del content[start : start + draw(st.integers(1, 2000))]
        elif kind == "end":
            del content[draw(positions) :]
        else:
            start = draw(positions)
            content[start : start + 100] = bytes([draw(st.integers(0, 255))]) * 100
    return bytes(content)


def decode_png(png):
    """The pixels of one PNG."""
    images, _ = decode_images(Path("a.tar"), [("train/00000_5.png", png)])
    return images[0].tobytes()


def read(path):
    """What our reader makes of a tar: pixels and labels, or None where it refuses it."""
    outcome = message = None
    try:
        outcome = decode_images(path, tar_members(path))
    except DataError as error:
        message = str(error)
    assert message is None or str(path) in message
    return outcome


def assert_as_tarfile_and_pillow_read_it(path, images, labels):
    """The libraries, used in the plainest way, come to the same samples."""
    with tarfile.open(path, "r:") as tar:
        members = sorted(
            (
                member
                for member in tar
                if member.isreg() and not os.path.basename(member.name).startswith(".")
            ),
            key=lambda member: member.name,
        )
        expected = [np.array(Image.open(tar.extractfile(member))) for member in members]
    assert labels.tolist() == [int(member.name[-5]) for member in members]
    assert np.array_equal(images, np.stack(expected))


def check_tar(tar):
    outcome = read(tar)
    if outcome is not None:
        assert_as_tarfile_and_pillow_read_it(tar, *outcome)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_a_damaged_tar_is_read_as_tarfile_reads_it_or_refused(tmp_path, examples):
    tar = write_tar(tmp_path / "train.tar", MEMBERS)

    def check(content):
        tar.write_bytes(content)
        check_tar(tar)

    fuzz(examples, mutations(tar.read_bytes()), check)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_a_damaged_png_has_its_own_pixels_or_is_refused(examples):
    def check(png):
        with contextlib.suppress(DataError):
            assert decode_png(png) == IMAGES[0].tobytes()

    fuzz(examples, mutations(PNG), check)


NAMES = st.lists(
    st.one_of(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=120),
        st.from_regex(r"(train/|\./|\.\./|/)?[0-9é日]{1,6}_[0-9]\.png", fullmatch=True),
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_members_of_any_name_are_read_as_tarfile_reads_them_or_refused(tar, examples):
    def check(names):
        with tarfile.open(tar, "w") as archive:
            for name in names:  # one name may stand there twice
                member = tarfile.TarInfo(name)
                member.size = len(PNG)
                archive.addfile(member, io.BytesIO(PNG))
        check_tar(tar)

    fuzz(examples, NAMES, check)


KINDS = [
    *(b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tEXt", b"zTXt", b"iTXt", b"tRNS", b"iCCP", b"acTL"),
    *(b"fcTL", b"fdAT", b"gAMA", b"cHRM", b"pHYs", b"eXIf", b"sRGB", b"abcd", b"\xff\0\0\0"),
]
BODIES = st.one_of(
    st.binary(max_size=200),
    st.binary(max_size=60).map(lambda data: b"key\0\0" + zlib.compress(data)),
    st.just(b"key\0\0" + zlib.compress(bytes(20_000_000))),  # fills 20 MB when unpacked
    st.tuples(*[st.integers(0, 2**31 - 1)] * 2).map(
        lambda sides: struct.pack(">IIBBBBB", *sides, 8, 0, 0, 0, 0)
    ),
)
PLACES = st.sampled_from([8, 33, len(PNG) - 12, len(PNG)])


@pytest.mark.parametrize("examples", EXAMPLES)
def test_a_chunk_of_any_kind_changes_no_pixel_or_is_refused(examples):
    def check(added):
        kind, body, place = added
        png = PNG[:place] + chunk(kind, body) + PNG[place:]
        with contextlib.suppress(DataError):
            assert decode_png(png) == IMAGES[0].tobytes()

    fuzz(examples, st.tuples(st.sampled_from(KINDS), BODIES, PLACES), check)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE])
def test_a_hundred_thousand_empty_members_are_refused_in_seconds(tmp_path, kind):
    path = tmp_path / "train.tar"
    with tarfile.open(path, "w") as tar:
        for number in range(100_000):
            member = tarfile.TarInfo(f"train/{number:06d}_{number % 10}.png")
            member.type = kind
            tar.addfile(member)
    start = time.monotonic()
    assert read(path) is None
    assert time.monotonic() - start < SECONDS
