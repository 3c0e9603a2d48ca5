"""Whatever is wrong, a user gets one line that says what and where, and nothing is left behind."""

import errno
import io
import json
import os
import resource
import signal
import stat
import struct
import subprocess
import sys
import tarfile
import zlib

import numpy as np
import pytest
import torch
from helpers import (
    ROOT,
    chunk,
    make_digits,
    make_members,
    png_of,
    to_png,
    without_rights,
    write_data,
    write_folder,
    write_tar,
)
from PIL import Image

from dataset import MNIST
from support.checkpoint import load_checkpoint
from support.errors import DataError, RunError, run_program
from support.files import atomic_write
from support.run_files import RunFiles
from support.settings import Settings


def error_of(process):
    """What a run that failed says after `error: `, in its only line."""
    assert process.stdout == ""
    [line] = process.stderr.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def files_in(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def python(script, arguments=(), **options):
    """A process without torch, which starts in a twentieth of a second."""
    # Python prints into a pipe or a file as it usually does: when there is enough, or at the end.
    environment = {name: os.environ[name] for name in os.environ if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        [
            sys.executable,
            "-c",
            f"from support.errors import *\nfrom support.files import *\n{script}",
            *arguments,
        ],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        **options,
    )


# --- atomic_write -----------------------------------------------------------------------------


def test_a_file_is_replaced_only_when_all_of_it_is_on_the_disk(tmp_path, monkeypatch):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    events = []
    monkeypatch.setattr(
        os, "fsync", lambda file: events.append(f"{os.fstat(file).st_size} bytes to the disk")
    )
    replace = os.replace

    def recorded(source, target):
        events.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "replace", recorded)
    with atomic_write(path) as file:
        file.write(b"new one")
        assert path.read_bytes() == b"old"
    assert events == ["7 bytes to the disk", "rename"]
    assert path.read_bytes() == b"new one"
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_the_old_file_stays_when_writing_fails(tmp_path, error):
    path = tmp_path / "x"
    path.write_bytes(b"old")

    def write_and_fail():
        with atomic_write(path) as file:
            file.write(b"new")
            raise error

    with pytest.raises(error):
        write_and_fail()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]


def test_two_who_write_the_same_file_do_not_mix_their_bytes(tmp_path):
    # In one process, so with the same process number: as in two containers that share a folder.
    with atomic_write(tmp_path / "x") as first:
        first.write(b"first")
        with atomic_write(tmp_path / "x") as second:
            second.write(b"2nd")
        assert (tmp_path / "x").read_bytes() == b"2nd"
    assert (tmp_path / "x").read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o002])
def test_a_file_gets_the_permissions_that_the_umask_leaves(tmp_path, mask):
    before = os.umask(mask)
    try:
        with atomic_write(tmp_path / "x"):
            pass
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o666 & ~mask


def test_missing_folders_are_made(tmp_path):
    with atomic_write(tmp_path / "a/b/x") as file:
        file.write(b"new")
    assert (tmp_path / "a/b/x").read_bytes() == b"new"


KILLED = """
import sys
from pathlib import Path
open_files = [atomic_write(Path(path)) for path in sys.argv[1:]]
for file in open_files:
    file.__enter__()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_run_left_is_removed_and_nothing_of_another_run(tmp_path):
    images = MNIST((torch.zeros(1, 1, 28, 28, dtype=torch.uint8), torch.zeros(1).long()))
    ours, others = (
        RunFiles(Settings(name=name, results_dir=tmp_path), torch.device("cpu"), images, images)
        for name in ("a", "a.pt.b")
    )
    assert python(KILLED, [*ours.paths, *others.paths]).returncode == -signal.SIGKILL
    ours.remove_leftovers()
    left = [path.name.split("~")[0] for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(left) == [".a.pt.b.json.", ".a.pt.b.png.", ".a.pt.b.pt."]


@pytest.mark.parametrize("place", ["file/x", "folder", "n" * 250])
def test_an_error_names_the_file_that_was_to_be_written(tmp_path, place):
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=place) as caught, atomic_write(tmp_path / place):
        pass
    assert caught.value.filename == str(tmp_path / place)
    assert caught.value.strerror
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


# --- run_program: one line and an exit code ---------------------------------------------------


@pytest.fixture
def run(capsys):
    """Runs a function as a program; returns its exit code and what it printed."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background ignore it

    def run(program):
        code = 0
        try:
            run_program(program, resume_hint="python x.py --resume")
        except SystemExit as exit_:
            code = exit_.code
        stdout, stderr = capsys.readouterr()
        # Python prints the text it exits with, and its exit code is then 1.
        return (1, stdout, f"{stderr}{code}\n") if isinstance(code, str) else (code, stdout, stderr)

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


def raising(error):
    def program():
        raise error

    return program


def test_a_program_that_succeeds_exits_with_0(run):
    assert run(lambda: print("done")) == (0, "done\n", "")


@pytest.mark.parametrize("error", [DataError, RunError])
def test_an_error_is_one_line_whatever_a_file_is_called(run, error):
    assert run(raising(error("a\nb\x1b[31m.tar: is empty"))) == (
        *(1, ""),
        "error: a\\nb\\x1b[31m.tar: is empty\n",
    )


ANOTHER = "choose another place with --data-dir or --results-dir"


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOENT, "x/y: does not exist; check its name"),
        (errno.EACCES, f"x/y: Permission denied; check its permissions, or {ANOTHER}"),
        (errno.EPERM, f"x/y: Operation not permitted; check its permissions, or {ANOTHER}"),
        (errno.ENOSPC, f"x/y: No space left on device; free some space there, or {ANOTHER}"),
        (errno.EEXIST, f"x/y: File exists; move it, or {ANOTHER}"),
        (errno.ENOTDIR, f"x/y: Not a directory; move it, or {ANOTHER}"),
        (errno.EROFS, f"x/y: Read-only file system; {ANOTHER}"),
    ],
)
def test_an_error_of_the_system_says_what_helps_against_it(run, number, message):
    error = OSError(number, os.strerror(number), "x/y")
    assert run(raising(error)) == (1, "", f"error: {message}\n")


def test_an_error_without_a_file_or_a_number_says_what_it_knows(run):
    _, _, stderr = run(raising(OSError("timed out")))
    assert stderr.startswith("error: a file, or standard output: timed out; ")


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_program_in_one_line_that_tells_how_to_continue(run, sent, code):
    assert run(lambda: signal.raise_signal(sent)) == (
        *(code, ""),
        "interrupted; python x.py --resume continues after the last finished epoch\n",
    )


def test_a_program_whose_reader_has_left_ends_quietly_as_the_shell_calls_it(run):
    assert run(raising(BrokenPipeError)) == (141, "", "")


def test_a_program_runs_where_standard_error_is_closed(run, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)  # what Python makes of `2>&-`
    assert run(lambda: sys.stderr.write("lost"))[0] == 0


def test_a_name_that_the_terminal_cannot_show_is_printed_as_codes(run, monkeypatch):
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, "ascii"))
    assert run(lambda: print("七.png"))[0] == 0
    assert shown.getvalue() == b"\\u4e03.png\n"


def test_what_is_printed_last_for_a_reader_that_has_left_ends_quietly_too():
    read_end, write_end = os.pipe()
    os.close(read_end)  # as `| head` does when it has its lines
    process = python("run_program(lambda: print('seven'), '')", stdout=write_end)
    os.close(write_end)
    assert (process.returncode, process.stderr) == (141, "")


def test_no_space_for_what_is_printed_is_an_error():
    with open("/dev/full", "wb") as full:
        process = python("run_program(lambda: print('seven'), '')", stdout=full)
    assert process.returncode == 1
    [line] = process.stderr.splitlines()
    assert line.startswith("error: standard output: No space left on device; ")


# --- a run with data that cannot be used ------------------------------------------------------

IMAGE = make_digits(1, seed=0)[0][0]
PNG = to_png(IMAGE)


def header(width, height, depth, color):
    """A PNG whose header is valid and says what is asked."""
    fields = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return PNG[:8] + chunk(b"IHDR", fields) + PNG[33:]


def gray16():
    return to_png(IMAGE.astype(np.uint16) * 256)


def color():
    return to_png(np.stack([IMAGE] * 3, axis=-1))


def black_and_white():
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
def refused(start, tmp_path):
    """Starts a run that must end with one line, which is returned, and leave no file or folder."""

    def refused(*arguments, **options):
        before = sorted(tmp_path.rglob("*"))
        process = start(*arguments, code=1, **options)
        assert sorted(tmp_path.rglob("*")) == before
        return error_of(process)

    return refused


@pytest.mark.parametrize("case", BAD_MEMBERS)
def test_a_bad_image_is_named_with_its_tar_and_what_is_wrong(data_dir, refused, case):
    name, content, reason = BAD_MEMBERS[case]
    members = make_members(*make_digits(3, seed=0))
    write_tar(data_dir / "train.tar", {**members, name: content})
    line = refused()
    assert line.startswith(f"{data_dir / 'train.tar'}: ")
    assert name.replace("\n", "\\n") in line
    assert reason in line


def test_a_bad_image_in_a_folder_is_named(data_dir, refused):
    (data_dir / "test.tar").unlink()
    (data_dir / "test").mkdir()
    (data_dir / "test" / "00000_4.png").write_bytes(PNG[:50])
    line = refused()
    assert line.startswith(str(data_dir / "test"))
    assert "00000_4.png" in line
    assert "cut off" in line


def test_a_member_that_would_fill_the_memory_is_refused(data_dir, refused):
    with tarfile.open(data_dir / "train.tar", "w") as tar:
        member = tarfile.TarInfo("train/00000_1.png")
        member.size = 50_000_000
        tar.addfile(member, io.BytesIO(PNG + bytes(member.size)))
    assert refused().startswith(f"{data_dir / 'train.tar'}: train/00000_1.png is longer than")


def test_a_member_that_is_there_twice_is_refused(data_dir, refused):
    with tarfile.open(data_dir / "train.tar", "a") as tar:
        member = tarfile.TarInfo("train/00000_0.png")
        member.size = len(PNG)
        tar.addfile(member, io.BytesIO(PNG))
    assert refused().startswith(f"{data_dir / 'train.tar'}: holds train/00000_0.png twice")


def test_a_data_folder_that_is_not_there_is_named(tmp_path, refused):
    line = refused(data=tmp_path / "nowhere")
    assert line.startswith(str(tmp_path / "nowhere"))
    assert "--data-dir" in line


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_tar_that_is_missing_is_named(data_dir, refused, split):
    (data_dir / f"{split}.tar").unlink()
    line = refused()
    assert f"{split}.tar" in line
    assert str(data_dir) in line


BAD_TARS = {
    "cut in the middle": lambda content: content[: len(content) // 2],
    "text": lambda content: b"This is no tar.\n" * 1000,
    "nothing": lambda content: b"",
    "no members": lambda content: bytes(10240),
}


@pytest.mark.parametrize("case", BAD_TARS)
def test_a_file_that_is_no_whole_tar_is_named(data_dir, refused, case):
    path = data_dir / "test.tar"
    path.write_bytes(BAD_TARS[case](path.read_bytes()))
    assert refused().startswith(f"{path}: ")


def test_a_folder_without_images_is_named(data_dir, refused):
    (data_dir / "test.tar").unlink()
    (data_dir / "test").mkdir()
    line = refused()
    assert line.startswith(f"{data_dir / 'test'}: ")
    assert "no image" in line


# --- a run whose folders, disk, output or device fail -----------------------------------------


RUNS = """
import json, os, sys, main
from pathlib import Path
from support.errors import run_program
# As since Python 3.14: False, and no error, where permission is missing.
Path.exists = lambda path: os.path.exists(path)
Path.is_file = lambda path: os.path.isfile(path)
Path.is_dir = lambda path: os.path.isdir(path)
for data, results in json.loads(sys.argv[1]):
    try:
        run_program(lambda: main.command(["--data-dir", data, "--results-dir", results]), "")
    except SystemExit as exit_:
        print(exit_.code)
"""


def test_what_may_not_be_read_or_written_is_named(tmp_path):
    # All cases in one process, which has to be one in which permissions bind root as well.
    cases = {
        # (--data-dir, --results-dir): what is locked, and how
        ("secret tar", "results"): ("secret tar/train.tar", 0o000),
        ("secret folder", "results"): ("secret folder", 0o000),
        ("secret images", "results"): ("secret images/train", 0o444),
        ("data", "locked/results"): ("locked", 0o555),
        ("data", "results without a place for plots"): (
            "results without a place for plots/plots",
            0o555,
        ),
    }
    for data, _ in cases:
        write_data(tmp_path / data, train=1, test=1)
    (tmp_path / "secret images/train.tar").unlink()
    write_folder(tmp_path / "secret images", make_members(*make_digits(1, seed=1)))
    for place, mode in cases.values():
        (tmp_path / place).exists() or (tmp_path / place).mkdir(parents=True)
        (tmp_path / place).chmod(mode)
    process = subprocess.run(
        [*without_rights(), sys.executable, "-c", RUNS, json.dumps(list(cases))],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    for place, _ in cases.values():
        (tmp_path / place).chmod(0o755)
    permissions = "Permission denied; check its permissions, or choose another place"
    assert [line.split(" with ")[0] for line in process.stdout.splitlines()] == [
        f"error: secret tar/train.tar: {permissions}",
        f"error: secret folder/train.tar: {permissions}",
        f"error: secret images/train/00000_0.png: {permissions}",
        f"error: locked/results: {permissions}",
        "error: results without a place for plots/plots: is not writable; "
        "choose another --results-dir",
    ]
    assert not (tmp_path / "results").exists()


def test_a_results_folder_that_is_a_file_is_named_and_stays(results, refused):
    results.write_bytes(b"mine")
    line = refused()
    assert line.startswith(f"{results}")
    assert "--results-dir" in line
    assert results.read_bytes() == b"mine"


@pytest.mark.parametrize("option", ["--evaluate", "--checkpoint"])
def test_a_checkpoint_that_is_not_there_is_named(refused, tmp_path, option):
    missing = tmp_path / "nope.pt"
    command = [option, missing] + (["--predict", "x.png"] if option == "--checkpoint" else [])
    assert refused(*command) == f"{missing}: does not exist; check its name"


@pytest.fixture
def full_disk():
    """Makes the disk as good as full: a write beyond the first 200,000 bytes of a file fails."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_what_was_saved_before(start, tmp_path, results, full_disk):
    start("--epochs", 1)
    before = files_in(tmp_path)
    full_disk()
    process = start("--epochs", 1, "--seed", 1, code=1)
    [line] = process.stderr.splitlines()
    assert line.startswith(f"error: {results / 'checkpoints/lenet5.pt'}: File too large; ")
    assert files_in(tmp_path) == before


def test_a_run_whose_reader_has_left_ends_and_keeps_its_epochs(start, results, monkeypatch):
    read_end, write_end = os.pipe()
    os.close(read_end)  # as `| head` does when it has its lines
    with open(write_end, "w", encoding="utf-8") as pipe, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", pipe)
        assert start("--epochs", 9, code=141).stderr == ""
    assert load_checkpoint(results / "checkpoints/lenet5.pt")["epoch"] == 1
    assert not list(results.rglob("*.lock"))


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_named(refused, device):
    if {"cuda": torch.cuda, "mps": torch.backends.mps}[device].is_available():
        pytest.skip(f"{device} is there")
    assert refused("--device", device).startswith(f"--device {device}: ")


def test_a_loss_that_is_no_number_ends_the_run_before_it_is_saved(start, results):
    process = start("--lr", "1e20", code=1)
    [line] = process.stderr.splitlines()
    assert line.startswith("error: the loss became ")
    assert line.endswith(" in epoch 1; lower --lr")
    assert files_in(results) == {}
