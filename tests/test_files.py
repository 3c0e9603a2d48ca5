"""A file appears whole or not at all; what killed processes leave of one is removed."""

import os
import signal
import stat
import subprocess
import sys
import time

import pytest
from helpers import ROOT

from support.files import atomic_write, remove_leftovers


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


@pytest.mark.parametrize("mask", [0o022, 0o027])
def test_a_file_gets_the_permissions_that_the_umask_leaves(tmp_path, mask):
    before = os.umask(mask)
    try:
        with atomic_write(tmp_path / "x"):
            pass
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("place", ["file/x", "folder", "n" * 250])
def test_an_error_names_the_file_that_was_to_be_written(tmp_path, place):
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=place) as caught, atomic_write(tmp_path / place):
        pass
    assert caught.value.filename == str(tmp_path / place)
    assert caught.value.strerror
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


KILLED = """
import os, signal, sys
from pathlib import Path
from support.files import atomic_write
open_files = [atomic_write(Path(path)) for path in sys.argv[1:]]
for file in open_files:
    file.__enter__()
os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_while_writing(*paths):
    killed = subprocess.run([sys.executable, "-c", KILLED, *paths], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL


def test_what_killed_processes_left_is_removed_after_an_hour(tmp_path):
    for name in ("old.tar", "new.tar"):
        kill_while_writing(tmp_path / name)
    old, new = sorted(tmp_path.iterdir(), key=lambda path: "new" in path.name)
    os.utime(old, (time.time() - 3700,) * 2)
    os.utime(new, (time.time() - 3500,) * 2)  # another process may be writing it
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [new]


def test_what_a_killed_run_left_is_removed_and_nothing_of_another_run(
    start, results, without_plots
):
    places = {"checkpoints": "pt", "metrics": "json", "plots": "png"}
    kill_while_writing(
        *(
            results / place / f"{run}.{kind}"
            for place, kind in places.items()
            for run in ("a", "a.pt.b")
        )
    )
    start("--epochs", 1, "--name", "a")
    left = [path.name.split("~")[0] for path in results.rglob(".*")]
    assert sorted(left) == [".a.pt.b.json.", ".a.pt.b.png.", ".a.pt.b.pt."]
