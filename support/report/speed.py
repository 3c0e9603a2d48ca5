"""The tables of engineering.md: what tests/benchmark.py measured, as Markdown."""

import json
import statistics
from pathlib import Path

from support.errors import RunError
from support.report.tables import markdown_table

PARTS = ("epoch", "whole", "torchrun", "fast", "predict")  # of what it measures


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


def speed_table(measured: dict) -> str:
    """Return what one part of the benchmark gave, each quantity beside the first that it is
    compared with: medians and ranges of the rounds, and of their ratios, round by round."""
    rows = []
    for title, rounds in measured["rounds"].items():
        [first, *_] = rounds.values()
        for name, values in rounds.items():
            ratios = [value / other for value, other in zip(values, first, strict=True)]
            beside = "" if values is first else median_and_range(ratios, 2)
            rows.append([title, name, median_and_range(values, 0 if first[0] >= 20 else 1), beside])
            title = ""
    titles = ["median (range)", "", "measured", "times the first"]
    return f"{markdown_table('llrr', titles, rows)}\n\nMeasured on {measured['machine']}."


def median_and_range(values: list[float], digits: int) -> str:
    text = f"{statistics.median(values):.{digits}f}"
    return f"{text} ({min(values):.{digits}f} to {max(values):.{digits}f})" if values[1:] else text
