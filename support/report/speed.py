"""The tables of engineering.md: what tests/benchmark.py measured, as Markdown."""

import json
import statistics
from pathlib import Path

from support.errors import RunError
from support.report.tables import markdown_table

PARTS = ("epoch", "start", "memory", "scaling", "fast", "torchrun")  # of what it measures


def load_speeds(path: Path) -> dict:
    """Return what tests/benchmark.py measured.

    Raises:
        RunError: the file is damaged, or a part of it is missing.
    """
    remedy = "git checkout brings it back, python tests/benchmark.py measures again"
    try:
        speed = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise RunError(f"{path}: is damaged ({error}); {remedy}") from error
    for part in PARTS:
        if part not in speed:
            raise RunError(f"{path}: has no {part}; {remedy}")
    return speed


def speed_table(speed: dict) -> str:
    """How long an epoch takes in several ways, and what a whole process takes."""
    rounds = speed["epoch"]
    epochs = []
    for name, seconds in rounds.items():
        pairs = zip(seconds, rounds["main.py"], strict=True)  # each of one round
        ratios = [value / by_main for value, by_main in pairs]
        epochs.append([name, median_and_range(seconds, 1), median_and_range(ratios, 2)])
    epoch_titles = ["one epoch, 60,000 + 10,000 images, batch 64", "seconds", "times `main.py`"]
    titles = ["the whole process", "measured", "compared with", "ratio"]
    return "\n\n".join(
        [
            markdown_table("lrr", epoch_titles, epochs),
            markdown_table("lrlr", titles, process_rows(**speed)),
            f"Measured on {speed['machine']}.",
        ]
    )


def process_rows(start: dict, memory: dict, scaling: dict, **_: object) -> list[list[str]]:
    """What a whole process takes, and beside it what it is compared with."""
    imports = "import torch, matplotlib.pyplot"
    first = start["main.py to its first step"]
    whole, begun = start[imports], start[f"{imports}, without the process's end"]
    decoding = start["reading 70,000 PNGs the first time"]
    used, at_first = (
        memory[name] - memory["import torch"] for name in ("main.py", "main.py, first run")
    )
    compared = f'`python -c "{imports}"`: {whole:.1f} s'
    without_end = f"the same without the process's end: {begun:.1f} s"
    decodes = f"the first run, which decodes: {at_first:.0f} MB"
    rows = [
        [
            "from `python main.py` to the first step",
            f"{first:.1f} s",
            compared,
            ratio(first, whole),
        ],
        ["", "", without_end, ratio(first, begun)],
        ["decoding 70,000 PNGs, in the first run only", f"{decoding:.1f} s", "", ""],
        ["peak memory, above `import torch`", f"{used:.0f} MB", decodes, ratio(used, at_first)],
    ]
    for measure, title in (
        ("decoding, {}x (us)", "µs to decode one image"),
        ("epoch, {}x (us)", "µs per image and epoch"),
        ("memory, {}x (bytes)", "bytes of memory per image"),
    ):
        once, four = scaling[measure.format(1)], scaling[measure.format(4)]
        compared = f"1× MNIST: {once:.0f}"
        rows.append([f"{title}, 4× MNIST", f"{four:.0f}", compared, ratio(four, once)])
    return rows


def ratio(value: float, other: float) -> str:
    return f"{value / other:.2f}"


def median_and_range(values: list[float], digits: int) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def fast_table(fast: dict[str, float]) -> str:
    """README's command for 99%, beside a network made for it."""
    titles = {
        "LeNet-5": "LeNet-5 by the command above: 61,706 parameters",
        "FastNet": "train_mnist_fast's network: 215,194 parameters, 1 epoch, batch 256",
    }
    rows = []
    for name, title in titles.items():
        accuracy = f"{fast[f'{name} (%)']:.2f} ± {fast[f'{name} (% std)']:.2f}"
        rows.append([title, f"{fast[f'{name} (s)']:.1f}", accuracy])
    return markdown_table("lrr", ["", "seconds of training", "test accuracy (%), 10 seeds"], rows)


def torchrun_table(seconds: dict[str, float]) -> str:
    """What an epoch takes one process and two."""
    rows = []
    for size in (64, 512):
        one, two = (seconds[f"main.py --batch-size {size}, {processes}"] for processes in (1, 2))
        title = f"an epoch of `main.py`, batch {size}"
        rows.append([title, f"{one:.1f}", f"{two:.1f}", ratio(one, two)])
    return markdown_table("lrrr", ["seconds on 2 cores", "1 process", "2 processes", "ratio"], rows)
