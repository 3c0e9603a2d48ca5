"""Types for argparse that check an option's value and say what is allowed."""

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path


def int_at_least(least: int, most: int = 10**9) -> Callable[[str], int]:
    """A type for argparse: an integer from `least` to `most`."""

    def parse(text: str) -> int:
        if not re.fullmatch("[0-9]{1,10}", text) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text} is not an integer from {least} to {most:,}")
        return int(text)

    return parse


def float_in(interval: str) -> Callable[[str], float]:
    """A type for argparse: a number within `interval`, such as "(0, inf)" or "[0, 1)"."""
    least, most = (float(bound) for bound in interval[1:-1].split(","))

    def parse(text: str) -> float:
        try:
            value = math.nan if "_" in text else float(text)  # float() takes 1_0 for 10
        except ValueError:
            value = math.nan
        inside = least < value < most or (value == least and interval[0] == "[")
        if not inside:
            raise argparse.ArgumentTypeError(f"{text} is not a number in {interval}")
        return value

    return parse


def file_name(text: str) -> str:
    """A type for argparse: a name that stays inside its folder."""
    if not re.fullmatch(r"\w[\w.+=-]*", text):
        raise argparse.ArgumentTypeError(
            f"{text} is not a valid name: use letters, digits, _ . + = -"
        )
    if len(text.encode()) > 200:  # most file systems allow 255, with the endings of ours
        raise argparse.ArgumentTypeError("is too long: use at most 200 characters")
    return text


def nonempty_path(text: str) -> Path:
    """A type for argparse: a path that is not empty."""
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return Path(text)
