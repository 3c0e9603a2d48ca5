"""The tables of engineering.md: what tests/benchmark.py measured, as Markdown."""

import json
import statistics
from pathlib import Path

from support.errors import RunError

PARTS = ("epoch", "start", "memory", "scaling", "fast", "torchrun")  # of what it measures


def load_speeds(path: Path) -> dict:
    """Return what tests/benchmark.py measured.

    Raises:
        RunError: the file is damaged, or a part of it is missing.
    """
    try:
        speed = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise RunError(f"{path}: is damaged ({error}); git checkout brings it back") from error
    for part in PARTS:
        if part not in speed:
            raise RunError(
                f"{path}: has no {part}; git checkout brings it back, "
                "python tests/benchmark.py measures again"
            )
    return speed


def speed_table(speed: dict) -> str:
    """What tests/benchmark.py measured."""
    rounds, start, memory, scaling = (
        speed[part] for part in ("epoch", "start", "memory", "scaling")
    )
    lines = [
        "| one epoch, 60,000 + 10,000 images, batch 64 | seconds | times `main.py` |",
        "|---|---:|---:|",
    ]
    for name, seconds in rounds.items():
        pairs = zip(seconds, rounds["main.py"], strict=True)  # each of one round
        ratios = [value / by_main for value, by_main in pairs]
        lines.append(f"| {name} | {median_and_range(seconds, 1)} | {median_and_range(ratios, 2)} |")
    imports = "import torch, matplotlib.pyplot"
    first = start["main.py to its first step"]
    whole, begun = start[imports], start[f"{imports}, without the process's end"]
    used, used_first = (
        memory[name] - memory["import torch"] for name in ("main.py", "main.py, first run")
    )
    lines += [
        "",
        "| the whole process | measured | compared with | ratio |",
        "|---|---:|---|---:|",
        f"| from `python main.py` to the first step | {first:.1f} s "
        f'| `python -c "{imports}"`: {whole:.1f} s | {first / whole:.2f} |',
        f"| | | the same without the process's end: {begun:.1f} s | {first / begun:.2f} |",
        "| decoding 70,000 PNGs, in the first run only "
        f"| {start['reading 70,000 PNGs the first time']:.1f} s | | |",
        f"| peak memory, above `import torch` | {used:.0f} MB "
        f"| the first run, which decodes: {used_first:.0f} MB | {used / used_first:.2f} |",
    ]
    for what, title, unit in (
        ("decoding", "µs to decode one image", "us"),
        ("epoch", "µs per image and epoch", "us"),
        ("memory", "bytes of memory per image", "bytes"),
    ):
        once, four = (scaling[f"{what}, {times}x ({unit})"] for times in (1, 4))
        lines.append(
            f"| {title}, 4× MNIST | {four:.0f} | 1× MNIST: {once:.0f} | {four / once:.2f} |"
        )
    return "\n".join([*lines, "", f"Measured on {speed['machine']}."])


def median_and_range(values: list[float], digits: int) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def fast_table(fast: dict[str, float]) -> str:
    """README's command for 99%, beside a network made for it."""
    lines = ["| | seconds of training | test accuracy (%), 10 seeds |", "|---|---:|---:|"]
    for title, name in (
        ("LeNet-5 by the command above: 61,706 parameters", "LeNet-5"),
        ("train_mnist_fast's network: 215,194 parameters, 1 epoch, batch 256", "FastNet"),
    ):
        accuracy = f"{fast[f'{name} (%)']:.2f} ± {fast[f'{name} (% std)']:.2f}"
        lines.append(f"| {title} | {fast[f'{name} (s)']:.1f} | {accuracy} |")
    return "\n".join(lines)


def torchrun_table(seconds: dict[str, float]) -> str:
    """What an epoch takes one process and two."""
    lines = ["| seconds on 2 cores | 1 process | 2 processes | ratio |", "|---|---:|---:|---:|"]
    for title, name in (
        ("an epoch of `main.py`, batch 64", "main.py --batch-size 64"),
        ("an epoch of `main.py`, batch 512", "main.py --batch-size 512"),
    ):
        one, two = seconds[f"{name}, 1"], seconds[f"{name}, 2"]
        lines.append(f"| {title} | {one:.1f} | {two:.1f} | {one / two:.2f} |")
    return "\n".join(lines)
