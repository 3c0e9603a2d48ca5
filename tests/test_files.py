"""Whatever is wrong, a user gets one line that says what and where, and nothing is left behind."""

import io
import os
import resource
import struct
import subprocess
import sys
import tarfile
import zlib
from functools import partial

import numpy as np
import pytest
import torch
from helpers import (
    ROOT,
    assert_one_line,
    chunk,
    make_digits,
    make_members,
    png_of,
    run_main,
    to_png,
    without_rights,
    write_tar,
)

import main
from support.checkpoint import load_checkpoint
from support.files import atomic_write

IMAGE = make_digits(1, seed=0)[0][0]
PNG = to_png(IMAGE)
ONE = to_png(np.pad(np.full((18, 4), 255, np.uint8), ((5, 5), (12, 12))))  # a stroke to be read


def header(width, height, depth, color):
    """A PNG whose header is valid and says what is asked."""
    fields = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return PNG[:8] + chunk(b"IHDR", fields) + PNG[33:]


def gray16():
    return to_png(IMAGE.astype(np.uint16) * 256)


def color():
    return to_png(np.stack([IMAGE] * 3, axis=-1))


def black_and_white():
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(IMAGE > 127).save(file, "PNG")
    return file.getvalue()


def flipped():
    content = bytearray(PNG)
    content[len(PNG) // 2] ^= 1
    return bytes(content)


BAD_MEMBERS = {
    "not a png": ("train/00003_7.png", b"GIF89a not a png", "not a PNG"),
    "empty member": ("train/00003_7.png", b"", "not a PNG"),
    "cut off": ("train/00003_7.png", PNG[: len(PNG) // 2], "cut off"),
    "cut off in the header": ("train/00003_7.png", PNG[:20], "cut off"),
    "without its end": ("train/00003_7.png", PNG[:-12], "cut off"),
    "damaged": ("train/00003_7.png", flipped(), "damaged"),
    "not square": ("train/00003_7.png", to_png(IMAGE[:27]), "28x27"),
    "too large": ("train/00003_7.png", to_png(np.zeros((32, 32), np.uint8)), "32x32"),
    "huge": ("train/00003_7.png", header(100_000, 100_000, 8, 0), "100000x100000"),
    "color": ("train/00003_7.png", color(), "grayscale"),
    "16 bit": ("train/00003_7.png", gray16(), "grayscale"),
    "1 bit": ("train/00003_7.png", black_and_white(), "grayscale"),
    "other header inside": ("train/00003_7.png", PNG[:33] + header(99, 99, 8, 0)[8:], "99x99"),
    "pixels missing": ("train/00003_7.png", png_of(zlib.compress(bytes(811))), "damaged"),
    "pixels not packed": ("train/00003_7.png", png_of(bytes(812)), "damaged"),
    "unknown filter": ("train/00003_7.png", png_of(zlib.compress(b"\5" * 812)), "damaged"),
    "no pixels": ("train/00003_7.png", PNG[:33] + chunk(b"IEND", b""), "damaged"),
    "label is a letter": ("train/00003_x.png", PNG, "label"),
    "label of two digits": ("train/00003_10.png", PNG, "label"),
    "no label": ("train/00003.png", PNG, "label"),
    "not an image": ("train/README.txt", b"hello", "label"),
    "line break in the name": ("train/0\n0_x.png", PNG, "label"),
}


@pytest.fixture
def assert_refused(data_dir, tmp_path, main_here):
    """Checks that a run ends with one line, which is returned, and leaves no file or folder."""

    def check(*parts, data_dir=data_dir, run=main_here):
        before = sorted(tmp_path.rglob("*"))
        process = run("--data-dir", data_dir, "--results-dir", tmp_path / "results")
        assert_one_line(process, *parts)
        assert sorted(tmp_path.rglob("*")) == before
        return process.stderr

    return check


@pytest.mark.parametrize("case", BAD_MEMBERS)
def test_bad_member(data_dir, assert_refused, case):
    name, content, reason = BAD_MEMBERS[case]
    members = make_members(*make_digits(3, seed=0))
    write_tar(data_dir / "train.tar", {**members, name: content})
    line = assert_refused(name.replace("\n", "\\n"), reason)
    assert line.startswith(f"error: {data_dir / 'train.tar'}: ")


def test_bad_file_in_a_folder(data_dir, assert_refused):
    (data_dir / "test.tar").unlink()
    (data_dir / "test").mkdir()
    (data_dir / "test" / "00000_4.png").write_bytes(PNG[:50])
    assert_refused(str(data_dir / "test"), "00000_4.png", "cut off")


def test_member_that_fills_the_memory(data_dir, assert_refused):
    with tarfile.open(data_dir / "train.tar", "w") as tar:
        member = tarfile.TarInfo("train/00000_1.png")
        member.size = 50_000_000
        tar.addfile(member, io.BytesIO(PNG + bytes(member.size)))
    assert_refused("train/00000_1.png", "longer than")


def test_same_member_twice(data_dir, assert_refused):
    with tarfile.open(data_dir / "train.tar", "a") as tar:
        member = tarfile.TarInfo("train/00000_0.png")
        member.size = len(PNG)
        tar.addfile(member, io.BytesIO(PNG))
    assert_refused("train.tar", "train/00000_0.png", "twice")


def test_no_data_folder(tmp_path, assert_refused):
    nowhere = tmp_path / "nowhere"
    assert_refused(str(nowhere), "--data-dir", data_dir=nowhere)


@pytest.mark.parametrize("split", ["train", "test"])
def test_only_one_of_the_two_tars(data_dir, assert_refused, split):
    (data_dir / f"{split}.tar").unlink()
    assert_refused(f"{split}.tar", str(data_dir))


def cut_in_the_middle(content):
    return content[: len(content) // 2]


def text(content):
    return b"This is no tar.\n" * 1000


def nothing(content):
    return b""


def no_members(content):
    return bytes(10240)


@pytest.mark.parametrize("change", [cut_in_the_middle, text, nothing, no_members])
def test_bad_tar(data_dir, assert_refused, change):
    path = data_dir / "test.tar"
    path.write_bytes(change(path.read_bytes()))
    assert_refused(str(path))


def test_empty_folder(data_dir, assert_refused):
    (data_dir / "test.tar").unlink()
    (data_dir / "test").mkdir()
    assert_refused(str(data_dir / "test"), "no image")


@pytest.mark.parametrize("what", ["data/train.tar", "data"])
def test_data_without_permission(data_dir, tmp_path, what):
    (tmp_path / what).chmod(0)
    process = run_main(
        *("--data-dir", data_dir, "--results-dir", tmp_path / "results"), prefix=without_rights()
    )
    (tmp_path / what).chmod(0o755)
    assert_one_line(process, str(data_dir), "ermission")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("made", [False, True])
def test_results_folder_without_permission(data_dir, tmp_path, made):
    results = tmp_path / "locked" / "results"
    results.parent.mkdir()
    locked = results.parent
    if made:
        locked = results / "plots"
        locked.mkdir(parents=True)
    locked.chmod(0o555)
    process = run_main("--data-dir", data_dir, "--results-dir", results, prefix=without_rights())
    locked.chmod(0o755)
    assert_one_line(process, str(results), "--results-dir")
    assert not [path for path in results.rglob("*") if path.is_file()]


def test_results_folder_is_a_file(tmp_path, assert_refused):
    (tmp_path / "results").write_text("mine")
    assert_refused(str(tmp_path / "results"), "--results-dir")


def limit_file_size():
    """As on a disk that is nearly full: a write beyond the limit fails."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))


def test_full_disk_leaves_what_was_saved_before(data_dir, tmp_path):
    where = ["--data-dir", str(data_dir), "--results-dir", str(tmp_path / "results")]
    options = ["--epochs", "1", *where]
    main.main(options)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    process = run_main(*options, "--seed", 1, preexec_fn=limit_file_size)
    assert process.returncode == 1
    [line] = process.stderr.splitlines()
    assert line.startswith("error: ")
    assert "checkpoints/lenet5.pt" in line
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_results_folder_turns_read_only_during_the_run(data_dir, tmp_path):
    results = tmp_path / "results"
    process = subprocess.Popen(
        [
            *(*without_rights(), sys.executable, str(ROOT / "main.py"), "--epochs", "100000"),
            *("--data-dir", str(data_dir), "--results-dir", str(results)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while "2/100000" not in process.stdout.readline():
        assert process.poll() is None
    (results / "checkpoints").chmod(0o555)
    process.stdout.read()
    stderr = process.communicate(timeout=60)[1]
    (results / "checkpoints").chmod(0o755)
    assert process.returncode == 1
    [line] = stderr.splitlines()
    assert line.startswith("error: ")
    assert "checkpoints/lenet5.pt" in line
    assert load_checkpoint(results / "checkpoints/lenet5.pt")["epoch"] >= 1


@pytest.fixture
def by_the_block(monkeypatch):
    """Programs print into a pipe or a file as they usually do: when there is enough, or at last."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)


def test_reader_of_what_is_printed_has_left(data_dir, tmp_path, by_the_block):
    results = tmp_path / "results"
    read_end, write_end = os.pipe()
    os.close(read_end)  # as `| head` does when it has its lines
    where = ["--data-dir", data_dir, "--results-dir", results]
    process = run_main("--epochs", 9, *where, stdout=write_end)
    os.close(write_end)
    assert (process.returncode, process.stderr) == (141, "")  # as a shell calls SIGPIPE
    assert load_checkpoint(results / "checkpoints/lenet5.pt")["epoch"] == 1
    assert not list(results.rglob("*.lock"))


def test_no_space_for_what_is_printed(tmp_path, by_the_block):
    (tmp_path / "digit.png").write_bytes(ONE)
    with open("/dev/full", "w") as full:
        process = run_main("--predict", tmp_path / "digit.png", stdout=full)
    assert process.returncode == 1
    [line] = process.stderr.splitlines()
    assert line.startswith("error: standard output: No space left on device")


def test_standard_error_was_closed(data_dir, tmp_path, monkeypatch, main_here):
    results = tmp_path / "results"
    monkeypatch.setattr(sys, "stderr", None)  # what Python makes of `2>&-`
    process = main_here("--epochs", 1, "--data-dir", data_dir, "--results-dir", results)
    assert process.returncode == 0
    assert load_checkpoint(results / "checkpoints/lenet5.pt")["epoch"] == 1


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there(assert_refused, main_here, device):
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if there[device]:
        pytest.skip(f"{device} is there")
    assert_refused(f"--device {device}", run=partial(main_here, "--device", device))


def test_loss_that_is_no_number(data_dir, tmp_path, main_here):
    process = main_here(
        "--lr", "1e20", "--data-dir", data_dir, "--results-dir", tmp_path / "results"
    )
    assert process.returncode == 1
    [line] = process.stderr.splitlines()
    assert line.startswith("error: ")
    assert "epoch 1" in line
    assert not [path for path in (tmp_path / "results").rglob("*") if path.is_file()]


def test_atomic_write_leaves_the_old_one_when_writing_fails(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def write_and_fail():
        with atomic_write(path) as file:
            file.write(b"new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]
