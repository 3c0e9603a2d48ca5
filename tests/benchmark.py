"""Speed and memory, each beside what it is compared with, in one run: the ratios count.

    python tests/benchmark.py                 everything, over an hour on 2 cores
    python tests/benchmark.py epoch whole     these parts; the rest stays as last measured
    python tests/benchmark.py gpu             epochs on a GPU, only printed

Writes results/report/speed.json, of which report.py makes tables, and results/report/speed.png. The
machine may be shared with others: what is compared is measured in turn, several times, each time in
a process of its own, and the median counts.
"""

import io
import itertools
import json
import math
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torchvision
from matplotlib.figure import Figure
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # where the next ones lie
import main
from dataset import MEAN, MNIST, SPLITS, STD, data_loader, find_split
from model import MODELS, LeNet5
from support.device import set_up_cpu
from support.download import to_idx
from support.files import atomic_write
from support.mnist_files import tar_members
from support.provenance import processor_name
from support.report.speed import median_and_range
from tests.photographs import GOOD, SMALL, UNEVEN

ROOT = Path(main.__file__).parent
REPORT = ROOT / "results" / "report"

Comparisons = dict[str, dict[str, Callable[[], float]]]  # by title: what to measure, by name
Rounds = dict[str, dict[str, list[float]]]  # by title and name: what each round gave


def in_turn(comparisons: Comparisons, rounds: int) -> Rounds:
    """Measure everything once before anything is measured again."""
    taken: Rounds = {title: {name: [] for name in ways} for title, ways in comparisons.items()}
    for _ in range(rounds):
        for title, ways in comparisons.items():
            for name, measure in ways.items():
                taken[title][name].append(measure())
                print(f"    {title}: {name}: {taken[title][name][-1]:.2f}", file=sys.stderr)
    return taken


def alone(measure: Callable[..., float], *arguments: object) -> float:
    """What `measure` returns in a process of its own, as a user would run it: what one leaves
    behind in memory makes the next one faster or slower."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(measure, *arguments).result()


def line_times(*command: object) -> list[float]:
    """Seconds until each line that `python COMMAND` prints."""
    start = time.perf_counter()
    command = [sys.executable, "-u", *map(str, command)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        times = [time.perf_counter() - start for _ in process.stdout]
    assert process.returncode == 0, command
    return times


def epoch_seconds(ends: list[float]) -> float:
    """The median time from the end of one epoch to that of the next, so without the first epoch,
    which warms up."""
    return statistics.median(end - start for start, end in itertools.pairwise(ends))


# --- an epoch, the usual ways and ours --------------------------------------------------------


class PlainLeNet5(LeNet5):
    """LeNet-5 as it is usually written: ReLU before pooling."""

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, kernel_size=5, padding=padding)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(images)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc1(x.flatten(1)))
        return self.fc3(F.relu(self.fc2(x)))


NORMALIZED = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]


class PngFolder(Dataset):
    """The way of many course solutions: a PNG is opened whenever its sample is asked for."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*.png"))
        self.transform = transforms.Compose([transforms.Resize((32, 32)), *NORMALIZED])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path = self.paths[index]
        return self.transform(Image.open(path)), int(path.stem.split("_")[1])


def png_folder_epoch(folder: Path) -> float:
    return peer_epoch([PngFolder(folder / split) for split in SPLITS], padding=0, workers=0)


def torchvision_epoch(folder: Path, workers: int) -> float:
    transform = transforms.Compose(NORMALIZED)
    sets = [torchvision.datasets.MNIST(folder, train, transform) for train in (True, False)]
    return peer_epoch(sets, padding=2, workers=workers)


def peer_epoch(sets: list[Dataset], padding: int, workers: int) -> float:
    """Seconds of the second of two epochs of a plain script, each with a test: pytorch/examples'
    loop."""
    model = PlainLeNet5(padding)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    trn_loader = DataLoader(sets[0], batch_size=64, shuffle=True, num_workers=workers)
    tst_loader = DataLoader(sets[1], batch_size=1000, num_workers=workers)
    ends = []
    for _ in range(2):
        loss_sum = hits = 0
        for images, labels in trn_loader:
            optimizer.zero_grad()
            logits = model(images)
            loss = F.cross_entropy(logits, labels)
            loss.backward()
            optimizer.step()
            loss_sum += loss.item() * len(labels)
            hits += (logits.argmax(dim=1) == labels).sum().item()
        with torch.no_grad():
            for images, labels in tst_loader:
                logits = model(images)
                loss_sum += F.cross_entropy(logits, labels, reduction="sum").item()
                hits += (logits.argmax(dim=1) == labels).sum().item()
        ends.append(time.perf_counter())
    return epoch_seconds(ends)


def bare_epoch() -> float:
    """Seconds of main.py's steps and tests on batches that lie in memory, and no more."""
    set_up_cpu(threads=None)
    trn_set, tst_set = (MNIST(find_split(split)) for split in SPLITS)
    trn_batches = list(data_loader(trn_set, 64, shuffle=True))
    tst_batches = list(data_loader(tst_set))
    model = LeNet5()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)
    ends = []
    for _ in range(4):
        for images, labels in trn_batches:
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.inference_mode():
            for images, labels in tst_batches:
                F.cross_entropy(model(images), labels)
        ends.append(time.perf_counter())
    return epoch_seconds(ends)


AS_PEERS = ("--batch-size", 64, "--schedule", "constant", "--lr", 0.01)


def main_epoch(*arguments: object) -> float:
    """Seconds of an epoch of main.py, the median of four but the first: all that it trains, tests,
    prints, writes and draws."""
    with tempfile.TemporaryDirectory() as results:
        run = (ROOT / "main.py", *AS_PEERS, "--epochs", 4, "--results-dir", results)
        return epoch_seconds(line_times(*run, *arguments)[1:5])  # after the title


def compare_epochs(scratch: Path) -> Comparisons:
    raw = scratch / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        (scratch / split).mkdir()
        for name, png in tar_members(find_split(split)):
            (scratch / name).write_bytes(png)
        images = MNIST(find_split(split))
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(to_idx(images.images[:, 0].numpy()))
        labels = images.labels.numpy().astype(np.uint8)
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(to_idx(labels))
    return {
        "seconds of an epoch, batch 64": {
            "main.py": main_epoch,
            "bare loop": partial(alone, bare_epoch),
            "main.py --augment": partial(main_epoch, "--augment"),
            "torchvision": partial(alone, torchvision_epoch, scratch, 0),
            "torchvision, 2 workers": partial(alone, torchvision_epoch, scratch, 2),
            "PNG folder": partial(alone, png_folder_epoch, scratch),
            "main.py --model mlp": partial(main_epoch, "--model", "mlp"),
        }
    }


def compare_on_gpu() -> Comparisons:
    return {
        f"seconds of an epoch of {model}, batch 64": {
            "as it is": partial(main_epoch, "--device", "cuda", "--model", model),
            "--augment": partial(main_epoch, "--device", "cuda", "--model", model, "--augment"),
        }
        for model in MODELS
    }


# --- whole processes --------------------------------------------------------------------------

IMPORTS = "import torch, matplotlib.pyplot"
READ_BOTH = """
import sys, dataset
for split in ("train", "test"):
    dataset.MNIST(dataset.find_split(split, *sys.argv[1:]))
"""
MAIN = "import sys, main; main.main(sys.argv[1:])"
# Asked of the process itself: what the system tells its parent counts the parent's memory too.
PEAK = "\nprint(next(line.split()[1] for line in open('/proc/self/status') if 'VmHWM' in line))"


def run_python(code: str, *arguments: object, first: bool = False) -> tuple[float, float]:
    """Seconds and peak resident memory (MB) of `python -c code`. With `first`, no pixels are
    cached yet."""
    with tempfile.TemporaryDirectory() as empty:
        start = time.perf_counter()
        process = subprocess.run(
            [sys.executable, "-c", code + PEAK, *map(str, arguments)],
            cwd=ROOT,
            env=os.environ | ({"XDG_CACHE_HOME": empty} if first else {}),
            stdout=subprocess.PIPE,
            encoding="utf-8",
            check=True,
        )
        return time.perf_counter() - start, int(process.stdout.split()[-1]) / 1024


def grow(source: Path, target: Path, times: int) -> None:
    """Write a tar that holds each image of another `times` times."""
    with tarfile.open(target, "w") as large:
        for name, png in tar_members(source):
            for copy in range(times):
                member = tarfile.TarInfo(name.replace("/", f"/{copy}"))
                member.size = len(png)
                large.addfile(member, io.BytesIO(png))


def compare_processes(scratch: Path) -> Comparisons:
    """Time to the first step and memory of whole processes, and how both grow with the data."""
    run = (*AS_PEERS, "--epochs", 1, "--results-dir", scratch)
    # main.py prints what it is about to train just before the first step.
    started = {
        "python main.py": lambda: line_times(ROOT / "main.py", *run)[0],
        f'python -c "{IMPORTS}"': lambda: run_python(IMPORTS)[0],
        "the same without the process's end": lambda: line_times("-c", f"{IMPORTS}; print()")[0],
    }
    memory = {
        "main.py": lambda: run_python(MAIN, *run)[1],
        "main.py, first run": lambda: run_python(MAIN, *run, first=True)[1],
        "import torch": lambda: run_python("import torch")[1],
    }

    def decoding(folder: Path) -> float:
        return run_python(READ_BOTH, folder, first=True)[0] - run_python("import dataset")[0]

    def taken(folder: Path) -> float:
        return run_python(MAIN, *run, "--data-dir", folder)[1] - run_python(IMPORTS)[1]

    once, four = scratch / "once", scratch / "four"
    for folder, times in ((once, 1), (four, 4)):
        folder.mkdir()
        for path in map(find_split, SPLITS):
            grow(path, folder / path.name, times)

    def per_image(measure: Callable[[Path], float], scale: float) -> dict[str, Callable]:
        return {
            "MNIST": lambda: measure(once) * scale / 70_000,
            "4× MNIST": lambda: measure(four) * scale / 280_000,
        }

    return {
        "seconds to the first step": started,
        "MB of memory at the peak": memory,
        "µs to decode an image": per_image(decoding, 1e6),
        "µs of an epoch per image": per_image(partial(main_epoch, "--data-dir"), 1e6),
        "bytes of memory per image, above the imports": per_image(taken, 2**20),
    }


def run_metrics(scratch: Path, *command: object) -> dict:
    """The metrics that a run of main.py called "measured" leaves at its end."""
    line_times(*command, "--results-dir", scratch, "--name", "measured")
    text = (scratch / "metrics" / "measured.json").read_text(encoding="utf-8")
    return json.loads(text)["history"][-1]


def compare_torchrun(scratch: Path) -> Comparisons:
    two = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2)

    def second_epoch(batch_size: int, *launcher: object) -> float:
        run = (ROOT / "main.py", "--epochs", 2, "--batch-size", batch_size)
        return run_metrics(scratch, *launcher, *run)["seconds"]

    return {
        f"seconds of an epoch, batch {size}": {
            "1 process": partial(second_epoch, size),
            "2 processes": partial(second_epoch, size, *two),
        }
        for size in (64, 512)
    }


# --- past 99% ---------------------------------------------------------------------------------

# engineering.md's command; chosen on 10,000 images held out of the training set.
FAST = (
    "--epochs 1 --optimizer muon --batch-size 384 --schedule onecycle --lr 0.08 --momentum 0.75 "
    "--label-smoothing 0.05"
)
PEER = "--model fastnet --epochs 1 --optimizer adam --batch-size 256 --schedule cosine --lr 0.01"


class FastNet(nn.Module):
    """The final network of tuomaso/train_mnist_fast, 215,194 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 24, kernel_size=5)
        self.conv2 = nn.Conv2d(24, 32, kernel_size=3)
        self.fc1 = nn.Linear(800, 256)
        self.fc2 = nn.Linear(256, 10)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = F.relu(F.max_pool2d(self.conv1(images), 2))
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


def cosine_onecycle(step: int, steps: int) -> float:
    """The factors of torch's OneCycleLR, which its author uses."""
    peak = 0.3 * steps - 1
    start, end = (1 / 25, 1) if step <= peak else (1, 1 / 25 / 1e4)
    done = step / peak if step <= peak else (step - peak) / (steps - 1 - peak)
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


def train_fastnet() -> None:
    """Be main.py, with FastNet and its author's optimizer and schedule."""
    MODELS["fastnet"] = FastNet
    main.OPTIMIZERS["adam"] = lambda parameters, s: torch.optim.Adam(
        parameters, s.lr, betas=(0.7, 0.9), fused=True
    )
    main.SCHEDULES["cosine"] = cosine_onecycle
    main.main(sys.argv[2:])


def measure_fast(scratch: Path, seeds: int = 10) -> Rounds:
    """Seconds and errors after one epoch, a test included, with one seed after another."""
    ours, peer = "LeNet-5, 61,706 parameters", "train_mnist_fast, 215,194 parameters"
    seconds: dict[str, list[float]] = {ours: [], peer: []}
    errors: dict[str, list[float]] = {ours: [], peer: []}
    for seed in range(seeds):
        for name, command in (
            (ours, (ROOT / "main.py", *FAST.split())),
            (peer, (__file__, "fastnet", *PEER.split())),
        ):
            last = run_metrics(scratch, *command, "--seed", seed)
            seconds[name].append(last["seconds"])
            errors[name].append(round(10_000 * (1 - last["test_accuracy"])))
    return {"seconds of the one epoch": seconds, "errors in 10,000 test images": errors}


# --- a person's own digits --------------------------------------------------------------------

BEFORE = "41942c1"  # the last commit that left thin strokes as they are
FIND_DIGITS = """
import sys, time
from pathlib import Path
from support.prediction import find_digit
photos = list(map(Path, sys.argv[1:]))
find_digit(photos[0])  # some modules are imported at first use
start = time.process_time()
for photo in photos:
    find_digit(photo)
print(1000 * (time.process_time() - start) / len(photos))
"""


def compare_prediction(scratch: Path) -> Comparisons:
    """CPU time to find the digit of a picture, by this code and by that of BEFORE, which comes from
    the repository's history."""
    before = scratch / "before"
    git = ["git", "archive", BEFORE, "dataset.py", "model.py", "support"]
    archive = subprocess.run(git, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(before, filter="data")
    # Photographs of 480x480 pixels (few are smaller), and some of them stretched to 4000x3000.
    kinds = [kind for name, kind in (GOOD | UNEVEN).items() if name not in SMALL]
    rng = np.random.default_rng(0)
    small, large = [], []
    for number, digit in enumerate(MNIST(find_split("train")).images[-100:, 0].numpy()):
        photo = kinds[number % len(kinds)](digit, rng).convert("RGB")
        small.append(scratch / f"{number}.jpg")
        photo.save(small[-1], quality=90)
        if number < 20:
            large.append(scratch / f"{number}_large.jpg")
            photo.resize((4000, 3000)).save(large[-1], quality=90)

    def milliseconds(tree: Path, photos: list[Path]) -> float:
        command = [sys.executable, "-c", FIND_DIGITS, *photos]
        run = subprocess.run(command, cwd=tree, check=True, stdout=subprocess.PIPE)
        return float(run.stdout)

    return {
        f"ms of CPU per picture of {size}": {
            f"commit {BEFORE}": partial(milliseconds, before, photos),
            "--predict": partial(milliseconds, ROOT, photos),
        }
        for size, photos in (("480×480 pixels", small), ("12 megapixels", large))
    }


# --- what is reported -------------------------------------------------------------------------

PARTS: dict[str, Callable[[Path], Rounds]] = {
    "epoch": lambda scratch: in_turn(compare_epochs(scratch), rounds=5),
    "whole": lambda scratch: in_turn(compare_processes(scratch), rounds=5),
    "torchrun": lambda scratch: in_turn(compare_torchrun(scratch), rounds=3),
    "fast": measure_fast,
    "predict": lambda scratch: in_turn(compare_prediction(scratch), rounds=5),
}


def machine() -> str:
    return (
        f"{os.cpu_count()} cores of {processor_name()}, {platform.system()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


def draw(rounds: dict[str, list[float]], measured_on: str) -> None:
    """Bars of the seconds an epoch of LeNet-5 takes, by way of reading the data."""
    rounds = {name: seconds for name, seconds in rounds.items() if "mlp" not in name}
    medians = np.median(list(rounds.values()), axis=1)
    lows, highs = (np.array([of(seconds) for seconds in rounds.values()]) for of in (min, max))
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    ax = figure.subplots()
    colors = ["tab:blue" if "main.py" in name else "tab:gray" for name in rounds]
    spread = (medians - lows, highs - medians)
    bars = ax.barh(list(rounds), medians, color=colors, xerr=spread, capsize=3)
    ax.bar_label(
        bars, [f"{median_and_range(values, 1)} s" for values in rounds.values()], padding=3
    )
    ax.invert_yaxis()
    ax.margins(x=0.25)
    ax.set_xlabel("seconds: median and range of the rounds")
    figure.suptitle("One epoch of LeNet-5: 60,000 training and 10,000 test images, batch 64")
    ax.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(measured_on, fontsize=7)
    figure.savefig(REPORT / "speed.png", dpi=150)


def measure(parts: list[str]) -> None:
    """Measure these parts, and bring speed.json and speed.png up to date after each."""
    path = REPORT / "speed.json"
    speed = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for part in parts:
        with tempfile.TemporaryDirectory() as scratch:
            speed[part] = {"machine": machine(), "rounds": PARTS[part](Path(scratch))}
        with atomic_write(path) as file:
            file.write((json.dumps(speed, indent=2, ensure_ascii=False) + "\n").encode())
    [epochs] = speed["epoch"]["rounds"].values()
    draw(epochs, speed["epoch"]["machine"])
    print(f"{path} is up to date; python report.py makes the tables")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["gpu"]:
            print(json.dumps(in_turn(compare_on_gpu(), rounds=3), indent=2), machine(), sep="\n")
        case ["fastnet", *_]:
            train_fastnet()
        case parts:
            measure(parts or list(PARTS))
