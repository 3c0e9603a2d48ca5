"""Speed and memory, each beside what it is compared with, in one run: the ratios count.

    python tests/benchmark.py                 everything, an hour or two on 2 cores
    python tests/benchmark.py epoch start     these parts; the rest stays as last measured
    python tests/benchmark.py gpu             epochs and runs on a GPU, only printed

Prints tables, and writes results/report/speed.json and results/report/speed.png. The machine may be
shared with others: what is compared is measured in turn, at least three times, each time in a
process of its own, and the median counts.
"""

import contextlib
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
from collections.abc import Callable, Iterable
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
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # where the next three lie
import dataset
import main
from model import MODELS, LeNet5
from support import distributed, run_files
from support.device import set_up_cpu
from support.download import to_idx
from support.mnist_files import tar_members
from support.provenance import processor_name
from tests.photographs import GOOD, SMALL, UNEVEN

ROOT = Path(main.__file__).parent
REPORT = ROOT / "results" / "report"
REPEATS = 3
CPU = torch.device("cpu")

Batches = Iterable[tuple[torch.Tensor, torch.Tensor]]


def rounds_of(
    measures: dict[str, Callable[[], float]], repeats: int = REPEATS
) -> dict[str, list[float]]:
    """What each measure gave in each round, all of them taken once before any is taken again."""
    taken = {name: [] for name in measures}
    for _ in range(repeats):
        for name, measure in measures.items():
            taken[name].append(measure())
            print(f"    {name}: {taken[name][-1]:.2f}", file=sys.stderr)
    return taken


def in_turn(measures: dict[str, Callable[[], float]], repeats: int = REPEATS) -> dict[str, float]:
    """The median of each measure over some rounds."""
    return medians(rounds_of(measures, repeats))


def medians(rounds: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in rounds.items()}


def alone(measure: Callable, *arguments: object) -> object:
    """What `measure` returns in a process of its own, as a user would run it: what one leaves
    behind in memory makes the next one faster or slower."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(measure, *arguments).result()


def epoch_seconds(ends: list[float]) -> float:
    """The median time from the end of one epoch to that of the next, so without the first epoch,
    which warms up."""
    return statistics.median(end - start for start, end in itertools.pairwise(ends))


# --- the peers' ways --------------------------------------------------------------------------


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


class PngFolder(Dataset):
    """The way of many course solutions: a PNG is opened whenever its sample is asked for."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*.png"))
        self.transform = transforms.Compose(
            [
                transforms.Resize((32, 32)),
                transforms.ToTensor(),
                transforms.Normalize(dataset.MEAN, dataset.STD),
            ]
        )

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
        for images, labels in tqdm(trn_loader, leave=False, file=io.StringIO()):
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
    usual = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize(dataset.MEAN, dataset.STD)]
    )
    trn_set, tst_set = (
        torchvision.datasets.MNIST(folder, train=train, transform=usual) for train in (True, False)
    )
    return peer_epoch(trn_set, tst_set, padding=2, workers=workers)


# --- our way ----------------------------------------------------------------------------------

AS_PEERS = "--batch-size 64 --schedule constant --lr 0.01"


def main_epoch(*arguments: object) -> float:
    """Seconds of an epoch of main.py, the median of four but the first: all that it trains, tests,
    prints, writes and draws, with the progress bar that a terminal shows."""
    ends = []
    save_run_plot = run_files.save_run_plot

    def stamped(*args: object) -> None:
        save_run_plot(*args)
        ends.append(time.perf_counter())

    def visible(loader: Batches, description: str, **options: object) -> tqdm:
        return tqdm(loader, description, file=io.StringIO())

    with (
        tempfile.TemporaryDirectory() as results,
        mock.patch.object(run_files, "save_run_plot", stamped),
        mock.patch.object(distributed, "tqdm", visible),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        arguments = [*AS_PEERS.split(), "--epochs", 4, "--results-dir", results, *arguments]
        main.main([*map(str, arguments)])
    return epoch_seconds(ends)


def bare_epoch(model: str = "lenet5", device: str = "cpu", augmented: bool = False) -> float:
    """Seconds of the same steps and the same tests on batches that lie in memory, and no more; with
    `augmented`, each batch is augmented as well."""
    set_up_cpu(threads=None)
    trn_set, tst_set = (
        dataset.MNIST(dataset.find_split(split)).to(torch.device(device))
        for split in dataset.SPLITS
    )
    trn_batches = list(dataset.data_loader(trn_set, 64, shuffle=True, seed=0))
    tst_batches = list(dataset.data_loader(tst_set))
    network = MODELS[model]().to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, fused=True)
    ends = []
    for _ in range(4):
        network.train()
        for images, labels in trn_batches:
            if augmented:
                images = dataset.augment(images)
            loss = F.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        network.eval()
        with torch.inference_mode():
            for images, labels in tst_batches:
                loss = F.cross_entropy(network(images), labels)
        loss.item()  # waits for a GPU to be done
        ends.append(time.perf_counter())
    return epoch_seconds(ends)


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
            rows = images.images.numpy().reshape(-1, 784).astype(np.float32) / 256
            for name, content in to_idx(prefix, rows, images.labels.numpy()).items():
                (raw / name).write_bytes(content)
        return rounds_of(
            {
                "PNG folder": lambda: alone(png_folder_epoch, folder),
                "torchvision, 2 workers": lambda: alone(torchvision_epoch, folder, 2),
                "torchvision": lambda: alone(torchvision_epoch, folder, 0),
                "main.py --augment": lambda: alone(main_epoch, "--augment"),
                "main.py": lambda: alone(main_epoch),
                "bare loop": lambda: alone(bare_epoch),
                "main.py --model mlp": lambda: alone(main_epoch, "--model", "mlp"),
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


def run_python(code: str, *arguments: object, cache: str | None = None) -> tuple[float, float]:
    """Seconds and peak resident memory (MB) of `python -c code`."""
    environment = os.environ | ({"XDG_CACHE_HOME": cache} if cache else {})
    # Asked of the process itself: what the system tells its parent counts the parent's memory too.
    ending = (
        "\nprint(next(line.split()[1] for line in open('/proc/self/status') if 'VmHWM' in line))"
    )
    start = time.perf_counter()
    process = subprocess.run(
        [sys.executable, "-c", code + ending, *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return time.perf_counter() - start, int(process.stdout.split()[-1]) / 1024


def to_first_line(*arguments: object) -> float:
    """Seconds until `python ARGUMENTS` prints its first line: how long it takes to end says nothing
    of how soon it begins."""
    start = time.perf_counter()
    command = [sys.executable, "-u", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout.readline()
        seconds = time.perf_counter() - start
        process.kill()
    return seconds


def measure_start() -> dict[str, float]:
    """Seconds until the first step, and of the first run's decoding of 70,000 PNGs."""

    def first_run() -> float:
        with tempfile.TemporaryDirectory() as empty:
            first = run_python(READ_BOTH, cache=empty)[0]
            return first - run_python(READ_BOTH, cache=empty)[0]

    with tempfile.TemporaryDirectory() as results:
        return in_turn(
            {
                IMPORTS: lambda: run_python(IMPORTS)[0],
                f"{IMPORTS}, without the process's end": lambda: to_first_line(
                    "-c", f"{IMPORTS}; print()"
                ),
                # It prints what it is about to train just before the first step.
                "main.py to its first step": lambda: to_first_line(
                    ROOT / "main.py", "--results-dir", results
                ),
                "reading 70,000 PNGs the first time": first_run,
            },
            repeats=7,  # the ratios of single ones lie between 1.1 and 1.9
        )


MAIN = "import sys, main; main.main(sys.argv[1:])"


def measure_memory() -> dict[str, float]:
    """Peak resident memory in MB."""
    with tempfile.TemporaryDirectory() as scratch:
        run = (MAIN, *AS_PEERS.split(), "--epochs", 1, "--results-dir", scratch)

        def first_run() -> float:
            with tempfile.TemporaryDirectory() as empty:
                return run_python(*run, cache=empty)[1]

        return in_turn(
            {
                "import torch": lambda: run_python("import torch")[1],
                "main.py": lambda: run_python(*run)[1],
                "main.py, first run": first_run,
                "main.py --augment": lambda: run_python(*run, "--augment")[1],
            }
        )


def grow(source: Path, target: Path, times: int) -> None:
    """Writes a tar that holds each image of another `times` times."""
    with tarfile.open(source) as small, tarfile.open(target, "w") as large:
        for member in small:
            content = small.extractfile(member).read()
            stem = member.name.removesuffix(".png")
            for copy in range(times):
                member.name = stem.replace("/", f"/{copy}") + ".png"
                large.addfile(member, io.BytesIO(content))


def measure_scaling() -> dict[str, float]:
    """Per image of sets of 1, 2 and 4 times MNIST: microseconds to decode, to read from the cache
    and of an epoch, and bytes of peak memory above `import torch`."""
    measures = {}
    with tempfile.TemporaryDirectory() as scratch:
        for times in (1, 2, 4):
            folder = Path(scratch, str(times))
            folder.mkdir()
            for path in map(dataset.find_split, dataset.SPLITS):
                grow(path, folder / path.name, times)

        def per_image(times: int) -> dict[str, Callable[[], float]]:
            folder, images = Path(scratch, str(times)), 70_000 * times

            def decode() -> float:
                with tempfile.TemporaryDirectory() as empty:
                    first = run_python(READ_BOTH, folder, cache=empty)[0]
                    return (first - run_python("import dataset")[0]) * 1e6 / images

            def memory() -> float:
                used = run_python(
                    MAIN,
                    *AS_PEERS.split(),
                    *("--epochs", 1, "--data-dir", folder, "--results-dir", scratch),
                )
                return (used[1] - run_python(IMPORTS)[1]) * 2**20 / images

            return {
                f"decoding, {times}x (us)": decode,
                f"epoch, {times}x (us)": lambda: (
                    alone(main_epoch, "--epochs", 2, "--data-dir", folder) * 1e6 / images
                ),
                f"memory, {times}x (bytes)": memory,
            }

        for times in (1, 2, 4):
            measures |= per_image(times)
        return in_turn(measures, repeats=5)  # three gave decoding ratios of 0.81 and of 1.15


# --- past 99% ----------------------------------------------------------------------------------

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
    start = time.perf_counter()
    main.train(model, loader, CPU, criterion, optimizer, scheduler)
    seconds = time.perf_counter() - start
    tst_loader = dataset.data_loader(tst_set)
    return seconds, main.test(model, tst_loader, CPU, criterion)[1]


def fast_lenet5(seed: int) -> tuple[float, float]:
    """Seconds of training and test accuracy of README's command."""
    seconds = []
    train = main.train

    def timed(*args: object) -> tuple[float, float]:
        start = time.perf_counter()
        result = train(*args)
        seconds.append(time.perf_counter() - start)
        return result

    with (
        tempfile.TemporaryDirectory() as results,
        mock.patch.object(main, "train", timed),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        main.main([*FAST.split(), "--seed", str(seed), "--results-dir", results])
        history = json.loads(Path(results, "metrics", "lenet5.json").read_text())["history"]
    return sum(seconds), history[-1]["test_accuracy"]


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


# --- several processes ------------------------------------------------------------------------

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


def processes_epoch(processes: int, batch_size: int) -> float:
    """Seconds that LeNet-5's second epoch takes `processes` processes."""
    launcher = [] if processes == 1 else [*TORCHRUN, str(processes)]
    with tempfile.TemporaryDirectory() as results:
        command = [sys.executable, *launcher, str(ROOT / "main.py"), "--epochs", "2"]
        subprocess.run(
            [*command, "--batch-size", str(batch_size), "--results-dir", results],
            check=True,
            capture_output=True,
        )
        metrics = json.loads(Path(results, "metrics", "lenet5.json").read_text())
    return metrics["history"][-1]["seconds"]


def measure_torchrun() -> dict[str, float]:
    """Seconds of an epoch by one process and by two."""
    measures = {
        f"main.py --batch-size {size}, {processes}": functools.partial(
            processes_epoch, processes, size
        )
        for size in (64, 512)
        for processes in (1, 2)
    }
    return in_turn(measures)


# --- on a GPU ---------------------------------------------------------------------------------


def whole_run(model: str, device: str) -> tuple[float, float]:
    """Seconds of `main.py --model MODEL`, from its start to its end, and its test accuracy (%)."""
    with tempfile.TemporaryDirectory() as results:
        command = [sys.executable, str(ROOT / "main.py"), "--model", model, "--device", device]
        start = time.perf_counter()
        subprocess.run([*command, "--results-dir", results], check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        metrics = json.loads(Path(results, "metrics", f"{model}.json").read_text())
    return seconds, 100 * metrics["history"][-1]["test_accuracy"]


def print_gpu(device: str = "cuda") -> None:
    """Print, for both networks, what an epoch takes with batches of 64, beside the bare loop, and a
    whole run of 20 epochs with its test accuracy."""
    measures = {}
    for model in MODELS:
        for flags in ([], ["--augment"]):
            name = " ".join([model, *flags])
            measures[f"{name}, main.py"] = functools.partial(
                alone, main_epoch, "--model", model, "--device", device, *flags
            )
            measures[f"{name}, bare loop"] = functools.partial(
                alone, bare_epoch, model, device, bool(flags)
            )
    print("| an epoch (s) | median | lowest | highest |", "|---|---:|---:|---:|", sep="\n")
    for name, taken in rounds_of(measures).items():
        print(f"| {name} | {statistics.median(taken):.2f} | {min(taken):.2f} | {max(taken):.2f} |")
    print("\n| `main.py`, 20 epochs | seconds | test accuracy (%) |", "|---|---:|---:|", sep="\n")
    for model in MODELS:
        seconds, accuracy = whole_run(model, device)
        print(f"| {model} | {seconds:.1f} | {accuracy:.2f} |")
    gpu = torch.cuda.get_device_name() if device == "cuda" else "no GPU"
    print(f"\n{gpu}; {machine()}")


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
    process = subprocess.run(command, cwd=tree, check=True, capture_output=True, text=True)
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
# (part, what, compared with): one ratio each.
RATIOS = [
    ("epoch", "PNG folder", "main.py"),
    ("epoch", "torchvision", "main.py"),
    ("epoch", "torchvision, 2 workers", "main.py"),
    ("epoch", "main.py", "bare loop"),
    ("epoch", "main.py --augment", "main.py"),
    ("epoch", "main.py --model mlp", "main.py"),
    ("start", "main.py to its first step", IMPORTS),
    ("start", "main.py to its first step", f"{IMPORTS}, without the process's end"),
    ("scaling", "decoding, 4x (us)", "decoding, 1x (us)"),
    ("scaling", "epoch, 4x (us)", "epoch, 1x (us)"),
    ("fast", "LeNet-5 (s)", "FastNet (s)"),
    ("torchrun", "main.py --batch-size 64, 1", "main.py --batch-size 64, 2"),
    ("torchrun", "main.py --batch-size 512, 1", "main.py --batch-size 512, 2"),
    ("predict", f"480x480 pixels, {BEFORE}", "480x480 pixels"),
    ("predict", f"12 megapixels, {BEFORE}", "12 megapixels"),
]


def machine() -> str:
    return (
        f"{os.cpu_count()} cores of {processor_name()}, {platform.system()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


def table(speed: dict) -> str:
    """What was measured and the ratios, as Markdown."""
    speed = speed | {"epoch": medians(speed["epoch"])}
    lines = ["| part | what | measured |", "|---|---|---:|"]
    for part in PARTS:
        lines += [f"| {part} | {name} | {value:.2f} |" for name, value in speed[part].items()]
    lines += ["", "| compared | with | ratio |", "|---|---|---:|"]
    for part, what, other in RATIOS:
        lines.append(f"| {what} | {other} | {speed[part][what] / speed[part][other]:.2f} |")
    return "\n".join(lines)


def draw(speed: dict) -> None:
    """Bars of the seconds an epoch takes, by way of reading the data."""
    from matplotlib.figure import Figure

    titles = {
        "PNG folder": "PNGs opened one by one",
        "torchvision, 2 workers": "torchvision, 2 workers",
        "torchvision": "torchvision",
        "main.py --augment": "main.py --augment",
        "main.py": "main.py",
        "bare loop": "bare loop, no data pipeline",
    }
    rounds = [speed["epoch"][name] for name in titles]
    seconds = [statistics.median(taken) for taken in rounds]
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    ax = figure.subplots()
    colors = ["tab:blue" if "main.py" in name else "tab:gray" for name in titles]
    ranges = [
        [value - min(taken) for value, taken in zip(seconds, rounds, strict=True)],
        [max(taken) - value for value, taken in zip(seconds, rounds, strict=True)],
    ]
    bars = ax.barh(list(titles.values()), seconds, color=colors, xerr=ranges, capsize=3)
    labels = [
        f"{value:.1f} s ({min(taken):.1f} to {max(taken):.1f})"
        for value, taken in zip(seconds, rounds, strict=True)
    ]
    ax.bar_label(bars, labels, padding=3)
    ax.invert_yaxis()
    ax.margins(x=0.25)
    ax.set_xlabel(f"seconds: median and range of {len(rounds[0])} rounds")
    figure.suptitle("One epoch of LeNet-5: 60,000 training and 10,000 test images, batch 64")
    ax.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(speed["machine"], fontsize=7)
    figure.savefig(REPORT / "speed.png", dpi=150)


def benchmark() -> None:
    """Measure the parts that are named on the command line, or all; "gpu" is only printed."""
    if sys.argv[1:] == ["gpu"]:
        print_gpu()
        return
    path = REPORT / "speed.json"
    speed = json.loads(path.read_text()) if path.exists() else {}
    for part in sys.argv[1:] or PARTS:
        print(part, file=sys.stderr)
        speed[part] = PARTS[part]()
        speed["machine"] = machine()
        path.write_text(json.dumps(speed, indent=2) + "\n")
    if speed.keys() >= PARTS.keys():
        print(table(speed))
        draw(speed)


if __name__ == "__main__":
    benchmark()
