"""Speed and memory, each beside what it is compared with, in one run: the ratios count.

    python tests/benchmark.py                 everything, over an hour on 2 cores
    python tests/benchmark.py epoch start     these parts; the rest stays as last measured
    python tests/benchmark.py gpu             epochs on a GPU, only printed

Writes results/report/speed.json, of which report.py makes tables, and results/report/speed.png. The
machine may be shared with others: what is compared is measured in turn, at least three times, each
time in a process of its own, and the median counts.
"""

import functools
import io
import itertools
import json
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
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # where the next ones lie
import dataset
import main
from model import LeNet5
from support.device import set_up_cpu
from support.download import to_idx
from support.mnist_files import tar_members
from support.provenance import processor_name
from tests.photographs import GOOD, SMALL, UNEVEN

ROOT = Path(main.__file__).parent
REPORT = ROOT / "results" / "report"
CPU = torch.device("cpu")


def rounds_of(measures: dict[str, Callable[[], float]], repeats: int = 3) -> dict[str, list[float]]:
    """What each measure gave in each round, all of them taken once before any is taken again."""
    taken = {name: [] for name in measures}
    for _ in range(repeats):
        for name, measure in measures.items():
            taken[name].append(measure())
            print(f"    {name}: {taken[name][-1]:.2f}", file=sys.stderr)
    return taken


def in_turn(measures: dict[str, Callable[[], float]], repeats: int = 3) -> dict[str, float]:
    """The median of each measure over some rounds."""
    rounds = rounds_of(measures, repeats)
    return {name: statistics.median(values) for name, values in rounds.items()}


def alone(measure: Callable, *arguments: object) -> object:
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


NORMALIZED = [transforms.ToTensor(), transforms.Normalize(dataset.MEAN, dataset.STD)]


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


def peer_epoch(trn_set: Dataset, tst_set: Dataset, padding: int, workers: int) -> float:
    """Seconds of the second of two epochs of a plain script, each with a test: pytorch/examples'
    loop."""
    model = PlainLeNet5(padding)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    trn_loader = DataLoader(trn_set, batch_size=64, shuffle=True, num_workers=workers)
    tst_loader = DataLoader(tst_set, batch_size=1000, num_workers=workers)
    ends = []
    for _ in range(2):
        model.train()
        loss_sum = hits = 0
        for images, labels in trn_loader:
            optimizer.zero_grad()
            logits = model(images)
            loss = F.cross_entropy(logits, labels)
            loss.backward()
            optimizer.step()
            loss_sum += loss.item() * len(labels)
            hits += (logits.argmax(dim=1) == labels).sum().item()
        model.eval()
        with torch.no_grad():
            for images, labels in tst_loader:
                logits = model(images)
                loss_sum += F.cross_entropy(logits, labels, reduction="sum").item()
                hits += (logits.argmax(dim=1) == labels).sum().item()
        ends.append(time.perf_counter())
    return epoch_seconds(ends)


def png_folder_epoch(folder: Path) -> float:
    trn_set, tst_set = (PngFolder(folder / split) for split in dataset.SPLITS)
    return peer_epoch(trn_set, tst_set, padding=0, workers=0)


def torchvision_epoch(folder: Path, workers: int) -> float:
    trn_set, tst_set = (
        torchvision.datasets.MNIST(folder, train, transform=transforms.Compose(NORMALIZED))
        for train in (True, False)
    )
    return peer_epoch(trn_set, tst_set, padding=2, workers=workers)


def bare_epoch() -> float:
    """Seconds of main.py's steps and tests on batches that lie in memory, and no more."""
    set_up_cpu(threads=None)
    trn_set, tst_set = (dataset.MNIST(dataset.find_split(split)) for split in dataset.SPLITS)
    trn_batches = list(dataset.data_loader(trn_set, 64, shuffle=True, seed=0))
    tst_batches = list(dataset.data_loader(tst_set))
    network = LeNet5()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, fused=True)
    ends = []
    for _ in range(4):
        for images, labels in trn_batches:
            loss = F.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.inference_mode():
            for images, labels in tst_batches:
                F.cross_entropy(network(images), labels)
        ends.append(time.perf_counter())
    return epoch_seconds(ends)


AS_PEERS = [ROOT / "main.py", "--batch-size", 64, "--schedule", "constant", "--lr", 0.01]


def main_epoch(*arguments: object) -> float:
    """Seconds of an epoch of main.py, the median of four but the first: all that it trains, tests,
    prints, writes and draws."""
    with tempfile.TemporaryDirectory() as results:
        times = line_times(*AS_PEERS, "--epochs", 4, "--results-dir", results, *arguments)
    return epoch_seconds(times[1:5])  # after the title


def measure_epoch() -> dict[str, list[float]]:
    """Seconds an epoch (60,000 training and 10,000 test images, batch 64), in each round."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        raw = folder / "MNIST" / "raw"
        raw.mkdir(parents=True)
        for prefix, split in (("train", "train"), ("t10k", "test")):
            path = dataset.find_split(split)
            (folder / split).mkdir()
            for name, png in tar_members(path):
                (folder / name).write_bytes(png)
            images = dataset.MNIST(path)
            (raw / f"{prefix}-images-idx3-ubyte").write_bytes(to_idx(images.images[:, 0].numpy()))
            labels = images.labels.numpy().astype(np.uint8)
            (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(to_idx(labels))
        return rounds_of(
            {
                "PNG folder": lambda: alone(png_folder_epoch, folder),
                "torchvision, 2 workers": lambda: alone(torchvision_epoch, folder, 2),
                "torchvision": lambda: alone(torchvision_epoch, folder, 0),
                "main.py --augment": lambda: main_epoch("--augment"),
                "main.py": main_epoch,
                "bare loop": lambda: alone(bare_epoch),
                "main.py --model mlp": lambda: main_epoch("--model", "mlp"),
            },
            repeats=5,  # an epoch of main.py takes 3.3 to 4.7 s, as busy as the neighbors are
        )


# --- whole processes --------------------------------------------------------------------------

IMPORTS = "import torch, matplotlib.pyplot"
READ_BOTH = """
import sys, dataset
for split in ("train", "test"):
    dataset.MNIST(dataset.find_split(split, *sys.argv[1:]))
"""
MAIN = "import sys, main; main.main(sys.argv[1:])"


def run_python(code: str, *arguments: object, cache: str | None = None) -> tuple[float, float]:
    """Seconds and peak resident memory (MB) of `python -c code`."""
    # Asked of the process itself: what the system tells its parent counts the parent's memory too.
    ending = (
        "\nprint(next(line.split()[1] for line in open('/proc/self/status') if 'VmHWM' in line))"
    )
    start = time.perf_counter()
    process = subprocess.run(
        [sys.executable, "-c", code + ending, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | ({"XDG_CACHE_HOME": cache} if cache else {}),
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    )
    return time.perf_counter() - start, int(process.stdout.split()[-1]) / 1024


def first_run(code: str, *arguments: object) -> tuple[float, float]:
    """The same where no pixels are cached yet."""
    with tempfile.TemporaryDirectory() as empty:
        return run_python(code, *arguments, cache=empty)


def measure_start() -> dict[str, float]:
    """Seconds until the first step, and of the first run's decoding of 70,000 PNGs."""
    with tempfile.TemporaryDirectory() as results:
        train = (ROOT / "main.py", "--epochs", 1, "--results-dir", results)
        return in_turn(
            {
                IMPORTS: lambda: run_python(IMPORTS)[0],
                f"{IMPORTS}, without the process's end": lambda: line_times(
                    "-c", f"{IMPORTS}; print()"
                )[0],
                # It prints what it is about to train just before the first step.
                "main.py to its first step": lambda: line_times(*train)[0],
                "reading 70,000 PNGs the first time": lambda: (
                    first_run(READ_BOTH)[0] - run_python(READ_BOTH)[0]
                ),
            },
            repeats=7,  # the ratios of single ones lie between 1.1 and 1.9
        )


def measure_memory() -> dict[str, float]:
    """Peak resident memory in MB."""
    with tempfile.TemporaryDirectory() as scratch:
        run = (MAIN, *AS_PEERS[1:], "--epochs", 1, "--results-dir", scratch)
        return in_turn(
            {
                "import torch": lambda: run_python("import torch")[1],
                "main.py": lambda: run_python(*run)[1],
                "main.py, first run": lambda: first_run(*run)[1],
            }
        )


def grow(source: Path, target: Path, times: int) -> None:
    """Write a tar that holds each image of another `times` times."""
    with tarfile.open(target, "w") as large:
        for name, png in tar_members(source):
            for copy in range(times):
                member = tarfile.TarInfo(name.replace("/", f"/{copy}"))
                member.size = len(png)
                large.addfile(member, io.BytesIO(png))


def measure_scaling() -> dict[str, float]:
    """Per image of MNIST and of four times MNIST: microseconds to decode and of an epoch, and bytes
    of peak memory above the imports'."""

    def per_image(times: int) -> dict[str, Callable[[], float]]:
        folder, images = Path(scratch, f"{times}"), 70_000 * times
        folder.mkdir()
        for path in map(dataset.find_split, dataset.SPLITS):
            grow(path, folder / path.name, times)
        places = ("--data-dir", folder, "--results-dir", scratch)
        run = (MAIN, *AS_PEERS[1:], "--epochs", 1, *places)
        return {
            f"decoding, {times}x (us)": lambda: (
                (first_run(READ_BOTH, folder)[0] - run_python("import dataset")[0]) * 1e6 / images
            ),
            f"epoch, {times}x (us)": lambda: main_epoch("--data-dir", folder) * 1e6 / images,
            f"memory, {times}x (bytes)": lambda: (
                (run_python(*run)[1] - run_python(IMPORTS)[1]) * 2**20 / images
            ),
        }

    with tempfile.TemporaryDirectory() as scratch:
        # Three rounds gave decoding ratios of 0.81 and of 1.15.
        return in_turn(per_image(1) | per_image(4), repeats=5)


def processes_epoch(processes: int, batch_size: int) -> float:
    """Seconds that LeNet-5's second epoch takes `processes` processes."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes]
    with tempfile.TemporaryDirectory() as results:
        options = ("--epochs", 2, "--batch-size", batch_size, "--results-dir", results)
        line_times(*(torchrun if processes > 1 else []), ROOT / "main.py", *options)
        metrics = json.loads(Path(results, "metrics", "lenet5.json").read_text(encoding="utf-8"))
    return metrics["history"][-1]["seconds"]


def measure_torchrun() -> dict[str, float]:
    """Seconds of an epoch by one process and by two."""
    return in_turn(
        {
            f"main.py --batch-size {size}, {processes}": (
                lambda processes=processes, size=size: processes_epoch(processes, size)
            )
            for size in (64, 512)
            for processes in (1, 2)
        }
    )


# --- past 99% ---------------------------------------------------------------------------------

# README's command; chosen on 10,000 images held out of the training set.
FAST = (
    "--epochs 1 --optimizer muon --batch-size 384 --schedule onecycle --lr 0.08 --momentum 0.75 "
    "--label-smoothing 0.05"
)
FAST_SEEDS = 10


class FastNet(nn.Module):
    """The final network of tuomaso/train_mnist_fast, 215,194 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 24, kernel_size=5)
        self.conv2 = nn.Conv2d(24, 32, kernel_size=3)
        self.fc1 = nn.Linear(800, 256)
        self.fc2 = nn.Linear(256, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = F.relu(F.max_pool2d(self.conv1(images), 2))
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


def timed_training(program: Callable[[], None]) -> float:
    """Seconds that `program` spends in main.train."""
    seconds = 0.0
    train = main.train

    def timed(*args: object) -> tuple[float, float]:
        nonlocal seconds
        start = time.perf_counter()
        result = train(*args)
        seconds += time.perf_counter() - start
        return result

    with mock.patch.object(main, "train", timed):
        program()
    return seconds


def fast_net(seed: int) -> tuple[float, float]:
    """Seconds of training and test accuracy of FastNet, by its author's recipe."""
    set_up_cpu(threads=None)
    trn_set, tst_set = (dataset.MNIST(dataset.find_split(split)) for split in dataset.SPLITS)
    torch.manual_seed(seed)
    model = FastNet().to(memory_format=torch.channels_last)
    loader = dataset.data_loader(trn_set, 256, shuffle=True, seed=seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, betas=(0.7, 0.9), fused=True)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.01, total_steps=len(loader), cycle_momentum=False
    )
    criterion = nn.CrossEntropyLoss()
    seconds = timed_training(
        lambda: main.train(model, loader, CPU, criterion, optimizer, scheduler)
    )
    return seconds, main.test(model, dataset.data_loader(tst_set), CPU, criterion)[1]


def fast_lenet5(seed: int) -> tuple[float, float]:
    """Seconds of training and test accuracy of README's command."""
    with tempfile.TemporaryDirectory() as results:
        arguments = [*FAST.split(), "--seed", f"{seed}", "--results-dir", results]
        seconds = timed_training(lambda: main.main(arguments))
        metrics = json.loads(Path(results, "metrics", "lenet5.json").read_text(encoding="utf-8"))
    return seconds, metrics["history"][-1]["test_accuracy"]


def measure_fast() -> dict[str, float]:
    """Training seconds and test accuracy (%), the two networks in turn, one seed after another."""
    pairs = [(alone(fast_lenet5, seed), alone(fast_net, seed)) for seed in range(FAST_SEEDS)]
    measures = {}
    for name, outcomes in zip(("LeNet-5", "FastNet"), zip(*pairs, strict=True), strict=True):
        seconds, accuracies = zip(*outcomes, strict=True)
        measures[f"{name} (s)"] = statistics.median(seconds)
        measures[f"{name} (%)"] = 100 * statistics.mean(accuracies)
        measures[f"{name} (% std)"] = 100 * statistics.stdev(accuracies)
    return measures


# --- a person's own digits --------------------------------------------------------------------


BEFORE = "41942c1"  # the last commit that left thin strokes as they are

FIND_DIGITS = """
import sys, time
from pathlib import Path
from dataset import normalize
from support.checkpoint import load_model
from support.prediction import find_digit
checkpoint, *photos = map(Path, sys.argv[1:])
find_digit(photos[0])  # some modules are imported at first use
start = time.process_time()
found = [find_digit(photo)[0] for photo in photos]
print(1000 * (time.process_time() - start) / len(photos))
model = load_model(checkpoint)
print(*(model(normalize(image)[None]).argmax().item() for image in found))
"""


def find_digits(tree: Path, photos: list[Path]) -> tuple[float, list[str]]:
    """Milliseconds of CPU that the code in `tree` takes for a picture, and the digits."""
    command = [sys.executable, "-c", FIND_DIGITS, REPORT / "lenet5.pt", *photos]
    process = subprocess.run(command, cwd=tree, check=True, capture_output=True, encoding="utf-8")
    milliseconds, *digits = process.stdout.split()
    return float(milliseconds), digits


def take_photos(folder: Path) -> tuple[list[Path], list[Path]]:
    """100 photographs of 480x480 pixels (few are smaller), five of each kind of paper, and 20 of
    them stretched to 4000x3000."""
    kinds = [kind for name, kind in (GOOD | UNEVEN).items() if name not in SMALL]
    digits = dataset.MNIST(dataset.find_split("train")).images
    rng = np.random.default_rng(0)
    small, large = [], []
    for number in range(100):
        photo = kinds[number % len(kinds)](digits[-1 - number, 0].numpy(), rng).convert("RGB")
        small.append(folder / f"{number}.jpg")
        photo.save(small[-1], quality=90)
        if number < 20:
            large.append(folder / f"{number}_large.jpg")
            photo.resize((4000, 3000)).save(large[-1], quality=90)
    return small, large


def measure_predict() -> dict[str, float]:
    """Milliseconds of CPU that finding the digit takes a picture, by this code and by that of
    BEFORE, which comes from the repository's history; and how many digits are the same."""
    with tempfile.TemporaryDirectory() as scratch:
        old = Path(scratch, "before")
        old.mkdir()
        code = ["dataset.py", "model.py", "support"]
        archive = subprocess.run(
            ["git", "archive", BEFORE, *code], cwd=ROOT, check=True, stdout=subprocess.PIPE
        ).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(old, filter="data")
        measures, same = {}, {}
        for size, photos in zip(
            ("480x480 pixels", "12 megapixels"), take_photos(Path(scratch)), strict=True
        ):
            for name, tree in ((size, ROOT), (f"{size}, {BEFORE}", old)):
                measures[name] = lambda tree=tree, photos=photos: find_digits(tree, photos)[0]
            pairs = zip(find_digits(ROOT, photos)[1], find_digits(old, photos)[1], strict=True)
            same[f"{size}, same digit (%)"] = 100 * statistics.mean(a == b for a, b in pairs)
        return in_turn(measures, repeats=5) | same


# --- on a GPU ---------------------------------------------------------------------------------


def print_gpu(*arguments: object) -> None:
    """Print the seconds of an epoch with batches of 64, for both networks."""
    measures = {
        " ".join(flags): functools.partial(main_epoch, *flags, *arguments)
        for model in ("lenet5", "mlp")
        for flags in (("--model", model), ("--model", model, "--augment"))
    }
    for name, taken in rounds_of(measures).items():
        print(f"{name}: {min(taken):.2f} to {max(taken):.2f} s")
    print(machine())


# --- what is reported -------------------------------------------------------------------------

PARTS = {
    "epoch": measure_epoch,
    "start": measure_start,
    "memory": measure_memory,
    "scaling": measure_scaling,
    "fast": measure_fast,
    "torchrun": measure_torchrun,
    "predict": measure_predict,
}


def machine() -> str:
    return (
        f"{os.cpu_count()} cores of {processor_name()}, {platform.system()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


def draw(rounds: dict[str, list[float]], measured_on: str) -> None:
    """Bars of the seconds an epoch of LeNet-5 takes, by way of reading the data."""
    from matplotlib.figure import Figure

    rounds = {name: seconds for name, seconds in rounds.items() if "mlp" not in name}
    medians = [statistics.median(seconds) for seconds in rounds.values()]
    ranges = [(min(seconds), max(seconds)) for seconds in rounds.values()]
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    ax = figure.subplots()
    bars = ax.barh(
        list(rounds),
        medians,
        color=["tab:blue" if "main.py" in name else "tab:gray" for name in rounds],
        xerr=np.abs(np.transpose(ranges) - medians),
        capsize=3,
    )
    texts = zip(medians, ranges, strict=True)
    ax.bar_label(
        bars, [f"{x:.1f} s ({low:.1f} to {high:.1f})" for x, (low, high) in texts], padding=3
    )
    ax.invert_yaxis()
    ax.margins(x=0.25)
    ax.set_xlabel("seconds: median and range of the rounds")
    figure.suptitle("One epoch of LeNet-5: 60,000 training and 10,000 test images, batch 64")
    ax.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(measured_on, fontsize=7)
    figure.savefig(REPORT / "speed.png", dpi=150)


if __name__ == "__main__":
    if sys.argv[1:] == ["gpu"]:
        print_gpu("--device", "cuda")
        sys.exit()
    path = REPORT / "speed.json"
    speed = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for part in sys.argv[1:] or PARTS:
        print(part, file=sys.stderr)
        speed |= {part: PARTS[part](), "machine": machine()}
        path.write_text(json.dumps(speed, indent=2) + "\n", encoding="utf-8")
    draw(speed["epoch"], speed["machine"])
    print(f"{path} is up to date; python report.py makes the tables")
