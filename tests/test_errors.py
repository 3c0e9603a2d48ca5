"""Whatever is wrong, a user gets one line that says what and where, and an exit code."""

import errno
import io
import os
import resource
import signal
import subprocess
import sys

import pytest
import torch
from helpers import ROOT, assert_one_line, without_rights, write_tar

from support.checkpoint import load_checkpoint
from support.errors import DataError, RunError, run_program

# --- run_program: one line and an exit code ---------------------------------------------------


@pytest.fixture
def run(run_here):
    """Runs a function as a program; returns its exit code and what it printed."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background ignore it

    def run(program):
        done = run_here(lambda: run_program(program, resume_hint="python x.py --resume"))
        return done.returncode, done.stdout, done.stderr

    return run


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
LOCKED = f"check permissions and what has it open (--resume continues a run), or {ANOTHER}"


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOENT, "x/y: does not exist; check its name"),
        (errno.EACCES, f"x/y: Permission denied; {LOCKED}"),
        (errno.EPERM, f"x/y: Operation not permitted; {LOCKED}"),
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


PRINTING = "from support.errors import run_program; run_program(lambda: print('seven'), '')"


def print_to(stdout):
    """Print in a process without torch, which starts in a twentieth of a second."""
    # Into a pipe or a file, Python prints when there is enough, or at the end, unless told not to.
    environment = {name: os.environ[name] for name in os.environ if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        [sys.executable, "-c", PRINTING],
        cwd=ROOT,
        env=environment,
        stdout=stdout,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def test_what_is_printed_last_for_a_reader_that_has_left_ends_quietly_too():
    read_end, write_end = os.pipe()
    os.close(read_end)  # as `| head` does when it has its lines
    process = print_to(write_end)
    os.close(write_end)
    assert (process.returncode, process.stderr) == (141, "")


def test_no_space_for_what_is_printed_is_an_error():
    with open("/dev/full", "wb") as full:
        process = print_to(full)
    assert process.returncode == 1
    [line] = process.stderr.splitlines()
    assert line.startswith("error: standard output: No space left on device; ")


# --- a run that cannot start or go on ---------------------------------------------------------


NO_CHECKPOINT = "error: nope.pt: does not exist; check its name"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--data-dir", "nowhere"], ["error: nowhere", "--data-dir"]),
        (["--data-dir", "bad"], ["error: bad/train.tar: train/0\\n0_x.png is not named "]),
        (["--results-dir", "file"], ["error: file", "--results-dir"]),
        (["--evaluate", "nope.pt"], [NO_CHECKPOINT]),
        (["--predict", "x.png", "--checkpoint", "nope.pt"], [NO_CHECKPOINT]),
        pytest.param(
            *(["--device", "mps"], ["error: --device mps: "]),
            marks=pytest.mark.skipif(torch.backends.mps.is_available(), reason="it is there"),
        ),
    ],
)
def test_what_is_not_there_or_not_usable_is_named_and_no_trace_left(
    start, tmp_path, monkeypatch, arguments, parts
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "bad").mkdir()
    write_tar(tmp_path / "bad/train.tar", {"train/0\n0_x.png": b""})
    before = sorted(tmp_path.rglob("*"))
    assert_one_line(start(*arguments, code=1), *parts)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "file").read_bytes() == b"mine"


RUNS = """
import sys, main
from support.errors import run_program
for results in sys.argv[1:]:
    try:
        run_program(lambda: main.command(["--data-dir", "data", "--results-dir", results]), "")
    except SystemExit as exit_:
        print(exit_.code)
"""


def test_where_nothing_may_be_written_is_named(tmp_path, data_dir):
    (tmp_path / "half/plots").mkdir(parents=True)
    locked = [tmp_path / "half/plots", tmp_path]
    for path in locked:
        path.chmod(0o555)
    process = subprocess.run(  # as somebody whom permissions bind, which root is not
        [*without_rights(), sys.executable, "-c", RUNS, "results", "half"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    for path in locked:
        path.chmod(0o755)
    assert process.stdout.splitlines() == [
        f"error: results: Permission denied; {LOCKED}",
        "error: half/plots: is not writable; choose another --results-dir",
    ]


@pytest.fixture
def full_disk():
    """Makes the disk as good as full: a write beyond the first 200,000 bytes of a file fails."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_what_was_saved_before(start, results, full_disk):
    start("--epochs", 1)
    before = {path: path.read_bytes() for path in results.rglob("*.*")}
    full_disk()
    process = start("--epochs", 1, "--seed", 1, code=1)
    [line] = process.stderr.splitlines()
    assert line.startswith(f"error: {results / 'checkpoints/lenet5.pt'}: File too large; ")
    assert {path: path.read_bytes() for path in results.rglob("*.*")} == before


def test_a_plot_that_another_program_holds_open_ends_a_run_that_can_go_on(
    start, results, monkeypatch
):
    replace, plot = os.replace, results / "plots/lenet5.png"

    def as_on_windows(source, target):
        if os.fspath(target) == str(plot):
            raise PermissionError(errno.EACCES, "Access is denied", source, None, target)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", as_on_windows)
        process = start("--epochs", 2, code=1)
    [line] = process.stderr.splitlines()
    assert line == f"error: {plot}: Access is denied; {LOCKED}"
    assert sorted(path.suffix for path in results.rglob("*.*")) == [".json", ".pt"]
    assert "epoch 2/2" in start("--epochs", 2, "--resume").stdout
    assert plot.exists()


def test_a_run_whose_reader_has_left_ends_and_keeps_its_epochs(start, results, monkeypatch):
    read_end, write_end = os.pipe()
    os.close(read_end)  # as `| head` does when it has its lines
    with open(write_end, "w", encoding="utf-8") as pipe, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", pipe)
        assert start("--epochs", 9, code=141).stderr == ""
    assert load_checkpoint(results / "checkpoints/lenet5.pt")["epoch"] == 1
    assert not list(results.rglob("*.lock"))
