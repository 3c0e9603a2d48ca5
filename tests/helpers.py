"""Small data sets made on the fly, and what runs on them leave."""

import io
import json
import os
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import main
from model import LeNet5

ROOT = Path(__file__).resolve().parent.parent


def make_digits(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images a network can learn in seconds: noise, and a bright bar whose place is the label."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 10
    images = rng.integers(0, 100, (count, 28, 28), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[4 + 2 * label : 6 + 2 * label] += 150
    return images, labels


class LeNet5InFloat64(LeNet5):
    """For tests in which two ways of computing must agree: in float32 they differ by what the
    processor and its number of threads round, and training makes more of it."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__(dropout)
        self.double()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images.double())


MINE = """
from torch import nn

from main import main
from model import MODELS


class MyNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 5)
        self.norm = nn.BatchNorm2d(4)
        self.out = nn.Linear(4 * 24 * 24, 10)

    def forward(self, images):
        x = self.norm(self.conv(images)).relu()
        return self.out(x.view(len(x), -1))


MODELS["mynet"] = MyNet
if __name__ == "__main__":
    main()
"""  # a network with batch norm, in a file of its own


def in_epoch(monkeypatch, number, happening):
    """When that epoch begins, calls `happening`, or raises it."""
    train, epochs = main.train, []

    def watched_train(*arguments):
        epochs.append(1)
        if len(epochs) == number:
            if isinstance(happening, type):
                raise happening
            happening()
        return train(*arguments)

    monkeypatch.setattr(main, "train", watched_train)


def to_png(image: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", **options)
    return file.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG, with its right checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of(packed: bytes, interlaced: int = 0) -> bytes:
    """A 28x28 PNG in grayscale whose pixels are stored as `packed`."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 28, 28, 8, 0, 0, 0, interlaced))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def make_members(images: np.ndarray, labels: np.ndarray, split: str = "train") -> dict[str, bytes]:
    return {
        f"{split}/{number:05d}_{label}.png": to_png(image)
        for number, (image, label) in enumerate(zip(images, labels, strict=True))
    }


def write_tar(path: Path, members: dict[str, bytes] | list[tuple[str, bytes]]) -> Path:
    """`members` are pairs where one name is in the tar twice."""
    with tarfile.open(path, "w") as tar:
        for name, content in members.items() if isinstance(members, dict) else members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def write_folder(path: Path, members: dict[str, bytes]) -> Path:
    """The files of a tar, extracted (tarfile's way to do so safely needs Python 3.11.4)."""
    for name, content in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def write_data(folder: Path, train: int = 200, test: int = 50) -> Path:
    """A folder with a small train.tar and test.tar."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tar(folder / "train.tar", make_members(*make_digits(train, seed=1)))
    write_tar(folder / "test.tar", make_members(*make_digits(test, seed=2), "test"))
    return folder


def make_runs(
    test=(95.0, 1.0),
    loss=(0.5, 0.1),
    train=(90.0, 1.0),
    epochs=1,
    seconds=(60, 60, 60),
    misclassified=({}, {}, {}),
    watched="test",
    parameters=1000,
    **config,
) -> list[dict]:
    """Records of the report for seeds 0, 1, 2. `test`, `loss` and `train` are the mean and the
    standard deviation of final values: mean - deviation, mean, mean + deviation. An epoch earlier,
    accuracies are lower by a point, and losses higher by 0.1; while training, by 5 points and 1."""
    config = {"validation": 9 * (watched == "val"), "label_smoothing": 0, "epochs": epochs} | config
    runs = []
    for place, seed in enumerate((-1, 0, 1)):
        accuracy, final_loss = test[0] + seed * test[1], loss[0] + seed * loss[1]
        history = [
            {
                "epoch": epoch,
                "train_loss": final_loss + 1 + 0.1 * (epochs - epoch),
                "train_accuracy": (accuracy - 5 - (epochs - epoch)) / 100,
                f"{watched}_loss": final_loss + 0.1 * (epochs - epoch),
                f"{watched}_accuracy": (accuracy - (epochs - epoch)) / 100,
                "seconds": seconds[place] / epochs,
                "lr": 0.1,
            }
            for epoch in range(1, epochs + 1)
        ]
        runs.append(
            {
                "config": config | {"seed": place},
                "parameters": parameters,
                "history": history,
                "train_accuracy": (train[0] + seed * train[1]) / 100,
                "misclassified": misclassified[place],
            }
        )
    return runs


def without_rights() -> list[str]:
    """A command prefix under which file permissions bind root as well."""
    return ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []


def metrics_of(results, name="lenet5"):
    return json.loads((results / "metrics" / f"{name}.json").read_text(encoding="utf-8"))


def assert_one_line(process, *parts, code=1):
    assert process.returncode == code, process.stderr
    assert process.stdout == ""
    lines = process.stderr.splitlines()
    assert len(lines) == 1, process.stderr
    assert lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0]


def span_of(shade):
    """From where to where an axvspan reaches, which is no rectangle in matplotlib 3.8."""
    path = shade.get_patch_transform().transform_path(shade.get_path())
    return tuple(path.get_extents().intervalx)
