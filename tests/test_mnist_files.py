"""What is in the files is what comes out, in order, whatever holds it; or the error is ours and
names the file."""

import contextlib
import gzip
import io
import os
import random
import re
import struct
import subprocess
import sys
import tarfile
import time
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import PIL
import pytest
from helpers import (
    ROOT,
    chunk,
    make_digits,
    make_members,
    png_of,
    to_png,
    without_rights,
    write_folder,
    write_tar,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from support.errors import DataError
from support.files import atomic_write
from support.mnist_files import decode_images, decode_png, read_split, tar_members

IMAGES, LABELS = make_digits(5, seed=4)
MEMBERS = make_members(IMAGES, LABELS)
IMAGE = IMAGES[0]
PNG = to_png(IMAGE)


def assert_reads(path, digits):
    """`digits` are the images and the labels that are in there."""
    images, labels = read_split(path)
    assert np.array_equal(images, digits[0])
    assert np.array_equal(labels, digits[1])


# --- what is read -----------------------------------------------------------------------------


def test_a_path_without_its_ending_finds_the_tar(tar, digits):
    assert_reads(tar.with_suffix(""), digits)


def test_images_are_ordered_by_file_name_whatever_the_order_in_the_tar(tmp_path, digits):
    members = list(make_members(*digits).items())
    random.Random(0).shuffle(members)
    assert_reads(write_tar(tmp_path / "shuffled.tar", members), digits)


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
    companions = {"train/._00000_0.png": b"Mac OS X", "._train": b"", "train\\.DS_Store": b"Bud1"}
    assert_reads(write_tar(tmp_path / "mac.tar", {**companions, **members}), digits)
    (folder / "._00000_0.png").write_bytes(b"Mac OS X")
    assert_reads(folder, digits)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_refused(tar, kind):
    with tarfile.open(tar, "a") as archive:
        odd = tarfile.TarInfo("train/00099_1.png")
        odd.type, odd.linkname = kind, "train/00000_0.png"
        archive.addfile(odd)
    with pytest.raises(DataError, match=rf"^{tar}: train/00099_1\.png is not a file"):
        read_split(tar)


def test_a_tar_may_lie_under_a_folder_called_like_the_other_split(tmp_path, digits):
    members = make_members(*digits, split="mnist/test/train")
    assert_reads(write_tar(tmp_path / "train.tar", members), digits)


# --- what is refused --------------------------------------------------------------------------


def header(width, height, depth, color):
    """A PNG whose header is valid and says what is asked."""
    fields = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return PNG[:8] + chunk(b"IHDR", fields) + PNG[33:]


BAD_IMAGES = {
    "not a png": (b"GIF89a not a png", "is not a PNG"),
    "empty": (b"", "is not a PNG"),
    "cut off": (PNG[: len(PNG) // 2], "is damaged or cut off"),
    "cut off in the header": (PNG[:20], "is cut off"),
    "without its end": (PNG[:-12], "is damaged or cut off"),
    "not square": (to_png(IMAGE[:27]), "is 28x27 pixels, not 28x28"),
    "too large": (to_png(np.zeros((32, 32), np.uint8)), "is 32x32 pixels"),
    "huge": (header(100_000, 100_000, 8, 0), "is 100000x100000 pixels"),
    "color": (to_png(np.stack([IMAGE] * 3, axis=-1)), "is not 8-bit grayscale"),
    "16 bit": (to_png(IMAGE.astype(np.uint16) * 256), "is not 8-bit grayscale"),
    "1 bit": (to_png(IMAGE > 127), "is not 8-bit grayscale"),
    "two headers": (PNG[:33] + header(28, 27, 8, 0)[8:], "is damaged"),
    "pixels missing": (png_of(zlib.compress(bytes(811))), "is damaged"),
    "pixels not packed": (png_of(bytes(812)), "is damaged"),
    "unknown filter": (png_of(zlib.compress(b"\5" * 812)), "is damaged"),
    "no pixels": (PNG[:33] + chunk(b"IEND", b""), "is damaged"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_a_bad_image_is_named_with_its_place_and_what_is_wrong(tmp_path, case):
    png, reason = BAD_IMAGES[case]
    tar = write_tar(tmp_path / "train.tar", {**MEMBERS, "train/00099_7.png": png})
    with pytest.raises(DataError, match=f"^{tar}: train/00099_7.png {reason}.*take it out$"):
        read_split(tar)


@pytest.mark.parametrize("name", ["00003_x.png", "00003_10.png", "00003.png", "README.txt"])
def test_a_name_without_a_label_is_told_what_it_should_be(tmp_path, name):
    tar = write_tar(tmp_path / "train.tar", {f"train/{name}": PNG})
    expected = f"{tar}: train/{name} is not named {{number}}_{{label}}.png with a label 0-9; "
    with pytest.raises(DataError, match=f"^{re.escape(expected)}"):
        read_split(tar)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "train")
    with pytest.raises(DataError, match=f"^{tmp_path}/train: is not a file"):
        read_split(tmp_path / "train")


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_in_a_folder_is_refused_with_how_to_name_images(folder, make):
    make(folder / "7")
    with pytest.raises(DataError, match=r"7: is not a file; .*{number}_{label}\.png"):
        read_split(folder)


@pytest.mark.parametrize(
    "other", ["./train/00000_0.png", "train\\00000_0.png", "train/00000_0.png"]
)
def test_one_image_that_is_there_twice_is_refused_however_it_is_spelled(tmp_path, other):
    tar = write_tar(tmp_path / "train.tar", [("train/00000_0.png", PNG), (other, PNG)])
    with pytest.raises(DataError, match=rf"^{tar}: holds train/00000_0\.png twice"):
        read_split(tar)


def test_a_tar_of_both_splits_is_refused(tmp_path, digits):
    members = make_members(*digits) | make_members(*digits, "test")
    with pytest.raises(DataError, match=r"both train/ and test/"):
        read_split(write_tar(tmp_path / "train.tar", members))


def test_what_holds_no_image_says_so(tmp_path):
    (tmp_path / "train").mkdir()
    for path in (tmp_path / "train", write_tar(tmp_path / "train.tar", {})):
        with pytest.raises(DataError, match=f"^{path}: holds no image"):
            read_split(path)


NO_TARS = {
    "text": lambda content: b"This is no tar.\n" * 1000,
    "compressed": gzip.compress,
    "damaged header": lambda content: content.replace(b"train/00001", b"train/x0001", 1),
    "something after its end": lambda content: content + bytes(3 << 20) + b"x",
}


@pytest.mark.parametrize("case", NO_TARS)
def test_what_is_no_whole_tar_is_named(tar, case):
    tar.write_bytes(NO_TARS[case](tar.read_bytes()))
    kind = "is cut off or damaged at byte" if " " in case else "is not a tar, or is compressed"
    with pytest.raises(DataError, match=f"^{tar}: {kind}"):
        read_split(tar)


def test_a_tar_is_whole_or_refused_wherever_it_is_cut(tar):
    whole = tar.read_bytes()
    end = max(i for i, byte in enumerate(whole) if byte)  # then come only the zeros of the end
    cuts = {0, 100, 512, 1024, *range(512, end, 512 * 7), end, end // 2, end - 600}
    for cut in cuts:
        tar.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"train\.tar"):
            read_split(tar)


LOCKED = """
import os, sys
from pathlib import Path
from support.mnist_files import read_split

if sys.argv[1] == "silent":  # from Python 3.14 on
    Path.exists, Path.is_dir, Path.is_file = os.path.exists, os.path.isdir, os.path.isfile
for path in sys.argv[2:]:
    try:
        read_split(Path(path))
    except PermissionError as error:
        print(error.filename)
"""


@pytest.mark.parametrize("exists", ["raises", "silent"])
def test_a_lack_of_permission_is_told_as_such(tmp_path, tar, folder, exists):
    hidden = write_folder(tmp_path / "hidden", MEMBERS)
    modes = {tar: 0o000, folder: 0o444, hidden: 0o000}  # of a folder, 4: may be listed only
    for path, mode in modes.items():
        path.chmod(mode)
    command = [sys.executable, "-c", LOCKED, exists, tar, folder, hidden / "train"]
    told = subprocess.run(  # as somebody whom permissions bind, which root is not
        [*without_rights(), *command], cwd=ROOT, stdout=subprocess.PIPE, encoding="utf-8"
    ).stdout.splitlines()
    for path in modes:
        path.chmod(0o755)
    assert told[0] == str(tar)
    assert Path(told[1]).parent == folder
    assert told[2] == str(hidden / "train")


# --- the cache --------------------------------------------------------------------------------


def test_the_cache_serves_the_same_pixels_without_decoding_again(
    tar, digits, own_cache, monkeypatch
):
    read_split(tar)
    monkeypatch.setattr(Image, "open", None)  # decoding again would now fail
    assert_reads(tar, digits)


def test_the_cache_never_serves_a_changed_tar(tar, digits):
    read_split(tar)
    before = os.stat(tar)
    write_tar(tar, make_members(255 - digits[0], digits[1]))
    os.utime(tar, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert_reads(tar, (255 - digits[0], digits[1]))


class Harmful:
    def __reduce__(self):
        return pytest.fail, ("code in the cache was run",)


def npz(images, labels):
    file = io.BytesIO()
    np.savez(file, images=images, labels=labels)
    return file.getvalue()


def flip_a_pixel(content):
    damaged = bytearray(content)
    damaged[len(damaged) // 2] ^= 1
    return bytes(damaged)


BLACK, ONES = np.zeros((2, 28, 28), np.uint8), np.ones(2, np.int64)

DAMAGED_CACHES = {
    "empty": lambda content: b"",
    "cut in half": lambda content: content[: len(content) // 2],
    "flipped pixel": flip_a_pixel,
    "code": lambda content: npz(np.array([Harmful()]), np.array([1])),
    "other shape": lambda content: npz(BLACK[:, :27], ONES),
    "other count": lambda content: npz(BLACK, ONES[:1]),
    "other pixels": lambda content: npz(BLACK.astype(np.float32), ONES),
    "other labels": lambda content: npz(BLACK, ONES.astype(np.uint8)),
    "label -1": lambda content: npz(BLACK, -ONES),
    "label 10": lambda content: npz(BLACK, 10 * ONES),
}


@pytest.mark.parametrize("case", DAMAGED_CACHES)
def test_a_damaged_cache_is_ignored(tar, digits, own_cache, case):
    read_split(tar)
    [cache] = own_cache.rglob("*.npz")
    cache.write_bytes(DAMAGED_CACHES[case](cache.read_bytes()))
    assert_reads(tar, digits)


def test_an_unwritable_cache_is_ignored(tar, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(read_split(tar)[1]) == 25


def test_another_version_of_pillow_decodes_anew(tar, digits, own_cache, monkeypatch):
    read_split(tar)
    [cache] = own_cache.rglob("*.npz")
    np.savez(cache, images=255 - digits[0], labels=digits[1])
    monkeypatch.setattr(PIL, "__version__", "99.0")
    assert_reads(tar, digits)
    assert len(list(own_cache.rglob("*.npz"))) == 2


def test_what_killed_processes_left_in_the_cache_is_removed(tar, own_cache):
    with atomic_write(own_cache / "mnist-lenet5" / "x.npz"):
        [leftover] = own_cache.rglob("*.part")
    leftover.touch()
    os.utime(leftover, (time.time() - 3700,) * 2)
    read_split(tar)
    assert not leftover.exists()


@pytest.mark.parametrize("variable", ["", "~/.cache"])  # what is not absolute does not count
def test_without_a_home_the_cache_is_among_the_temporary_files(
    tar, tmp_path, monkeypatch, variable
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", variable)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as it is without a home
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    read_split(tar)
    assert [path.parts[-3] for path in tmp_path.rglob("*.npz")] == ["temporary"]


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


@pytest.mark.parametrize("write", [write_tar, write_folder])
def test_a_huge_file_is_refused_before_it_is_in_memory(tmp_path, write):
    path = write(tmp_path / "train", {"00000_1.png": PNG + bytes(50_000_000)})
    expected = rf"^{path}: 00000_1\.png is longer than .*take it out$"
    with at_most_megabytes(10), pytest.raises(DataError, match=expected):
        read_split(path)


def test_zeros_after_the_end_of_a_tar_take_no_memory(tar, digits):
    with open(tar, "ab") as file:
        file.truncate(50_000_000)
    with at_most_megabytes(10):
        assert_reads(tar, digits)


def test_the_headers_of_a_tar_are_not_kept_in_memory(tmp_path):
    tar = write_tar(tmp_path / "train.tar", {f"train/.{number}": b"" for number in range(4000)})
    with at_most_megabytes(1), pytest.raises(DataError, match="holds no image"):
        read_split(tar)


# --- anything at all --------------------------------------------------------------------------

EXAMPLES = [50, pytest.param(700, marks=pytest.mark.slow)]


def fuzz(examples, strategy, check):
    """Calls `check` with that many values of `strategy`; each may take 10 s and 10 MB."""

    @settings(
        max_examples=examples,
        deadline=10_000,
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
    """`content` with a byte or a hundred overwritten, blocks swapped, a piece cut out, or its end
    cut off."""
    content = bytearray(content)
    positions = st.integers(0, len(content) - 1)
    kinds = st.sampled_from(["overwrite", "swap", "cut", "end"])
    for kind in draw(st.lists(kinds, min_size=1, max_size=3)):
        start = draw(positions)
        if kind == "overwrite":
            count = draw(st.sampled_from([1, 100]))
            content[start : start + count] = bytes([draw(st.integers(0, 255))]) * count
        elif kind == "swap":
            a, b = (place // 512 * 512 for place in (start, draw(positions)))
            content[a : a + 512], content[b : b + 512] = content[b : b + 512], content[a : a + 512]
        elif kind == "cut":
            del content[start : start + draw(st.integers(1, 2000))]
        else:
            del content[start:]
    return bytes(content)


def check_tar(path):
    """The libraries, used in the plainest way, come to the same samples; or the tar is refused."""
    try:
        images, labels = decode_images(path, tar_members(path))
    except DataError as error:
        if str(path) in str(error):
            return
        raise
    samples = {}
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            name = member.name.replace("\\", "/")
            if member.isreg() and not os.path.basename(name).startswith("."):
                samples[os.path.normpath(name)] = np.array(Image.open(tar.extractfile(member)))
    names = sorted(samples)
    assert labels.tolist() == [int(name[-5]) for name in names]
    assert np.array_equal(images, np.stack([samples[name] for name in names]))


@pytest.mark.parametrize("examples", EXAMPLES)
def test_a_damaged_tar_is_read_as_tarfile_reads_it_or_refused(tmp_path, examples):
    tar = write_tar(tmp_path / "train.tar", MEMBERS)

    def check(content):
        tar.write_bytes(content)
        check_tar(tar)

    fuzz(examples, mutations(tar.read_bytes()), check)


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
        check_tar(write_tar(tar, [(name, PNG) for name in names]))

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

DAMAGED_PNGS = {
    "mutated": mutations(PNG),
    "with one chunk more": st.builds(
        lambda kind, body, place: PNG[:place] + chunk(kind, body) + PNG[place:],
        *(st.sampled_from(KINDS), BODIES, PLACES),
    ),
}


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize("case", DAMAGED_PNGS)
def test_a_damaged_png_has_its_own_pixels_or_is_refused(examples, case):
    def check(png):
        with contextlib.suppress(DataError):
            assert decode_png(png) == IMAGE.tobytes()

    fuzz(examples, DAMAGED_PNGS[case], check)
