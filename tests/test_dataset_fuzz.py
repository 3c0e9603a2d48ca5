"""Whatever is in a tar or a PNG, it loads exactly, or the error is ours and names the file."""

import contextlib
import io
import os
import resource
import struct
import tarfile
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers import chunk, make_digits, make_members, to_png, write_tar
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dataset import decode_images, tar_members
from support.files import DataError

IMAGES, LABELS = make_digits(5, seed=4)
MEMBERS = make_members(IMAGES, LABELS)
PNG = to_png(IMAGES[0])
SECONDS = 10
MEGABYTES = 500

EXAMPLES = [50, pytest.param(700, marks=pytest.mark.slow)]


def fuzz(examples, strategy, check):
    """Calls `check` with that many values of `strategy`."""

    @settings(
        max_examples=examples,
        deadline=SECONDS * 1000,
        suppress_health_check=list(HealthCheck),
        derandomize=examples == EXAMPLES[0],
        database=None,
    )
    @given(strategy)
    def cases(value):
        check(value)

    cases()


@pytest.fixture(autouse=True)
def memory_stays_small():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown / 1024 < MEGABYTES


@pytest.fixture
def tar(tmp_path):
    return write_tar(tmp_path / "train.tar", MEMBERS)


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
def test_mutated_tars(tar, examples):
    def check(content):
        tar.write_bytes(content)
        check_tar(tar)

    fuzz(examples, mutations(tar.read_bytes()), check)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_mutated_pngs(examples):
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
def test_odd_names(tar, examples):
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
def test_chunks_of_any_kind_with_the_right_checksum(examples):
    def check(added):
        kind, body, place = added
        png = PNG[:place] + chunk(kind, body) + PNG[place:]
        with contextlib.suppress(DataError):
            assert decode_png(png) == IMAGES[0].tobytes()

    fuzz(examples, st.tuples(st.sampled_from(KINDS), BODIES, PLACES), check)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE])
def test_a_hundred_thousand_empty_members(tmp_path, kind):
    path = tmp_path / "train.tar"
    with tarfile.open(path, "w") as tar:
        for number in range(100_000):
            member = tarfile.TarInfo(f"train/{number:06d}_{number % 10}.png")
            member.type = kind
            tar.addfile(member)
    start = time.monotonic()
    assert read(path) is None
    assert time.monotonic() - start < SECONDS
