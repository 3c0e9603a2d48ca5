"""The settings of a run, which check themselves, and the recipe of --regularize."""

import argparse
import math
import operator
import re
from collections.abc import Callable
from dataclasses import Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from support.errors import RunError

# --regularize: the settings that README.md reports, chosen on held-out training images.
RECIPE = {"epochs": 100, "augment": "deform", "no_aug_epochs": 3, "weight_decay": 5e-4}
RECIPE_OPTIONS = ", ".join(f"{name.replace('_', '-')} {value}" for name, value in RECIPE.items())
# --resume accepts other values of these; support/run_files.py checks epochs, and the data itself.
MAY_CHANGE_ON_RESUME = {
    "epochs",
    "device",
    "threads",
    "data_dir",
    "results_dir",
    "name",
    "resume",
    "regularize",  # it only sets others
}


def nonempty_path(text: str) -> Path:
    """A type for argparse: a path that is not empty."""
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return Path(text)


def setting(
    default: object, help_text: str, kind: Callable[[str], object] = str, interval: str = ""
) -> Any:  # noqa: ANN401 (a field of any type)
    """Return a field of Settings.

    Args:
        help_text, kind: what --help says of it, and what argparse makes its value with.
        interval: which numbers are allowed, such as "[0, 1)".
    """
    shown = f"{help_text} ({default})" if default else help_text
    return field(default=default, metadata={"help": shown, "kind": kind, "interval": interval})


@dataclass(init=False)
class Settings:
    """The settings of a run: main.py's training options, their defaults, and what --help says."""

    model: str = setting("lenet5", "network")
    epochs: int = setting(20, "passes over the data", int, "[1, 1e9]")
    batch_size: int = setting(128, "images per step", int, "[1, 1e9]")
    optimizer: str = setting("sgd", "optimizer")
    lr: float = setting(0.05, "learning rate; with onecycle, its peak", float, "(0, inf)")
    momentum: float = setting(0.9, "optimizer momentum", float, "[0, 1)")
    schedule: str = setting("onecycle", "learning-rate schedule")
    seed: int = setting(0, "random seed (0)", int, "[0, 1e9]")
    validation: int = setting(
        0,
        "hold out so many training images, and test on them, not on the test set",
        int,
        "[0, 1e9]",
    )
    name: str = setting("", "base name of the run's files (MODEL, or MODEL-regularized)")
    resume: bool = setting(False, "continue after the last finished epoch of this name")

    augment: str | None = setting(None, "change the training images a little, at random")
    no_aug_epochs: int = setting(
        0, "with --augment, train so many last epochs on the images as they are", int, "[0, 1e9]"
    )
    # None: the network's own default.
    dropout: float | None = setting(None, "dropout probability", float, "[0, 1)")
    weight_decay: float = setting(0.0, "weight decay (of biases as well)", float, "[0, inf)")
    label_smoothing: float = setting(
        0.0, "share of the target probability that is spread over all digits", float, "[0, 1)"
    )
    ema: float = setting(
        0.0, "decay of an exponential moving average of the weights, to be tested", float, "[0, 1)"
    )
    regularize: bool = setting(False, f"README.md's recipe; sets these defaults: {RECIPE_OPTIONS}")

    device: str = setting("auto", "where to compute: auto is CUDA or the CPU; mps is untested")
    threads: int | None = setting(None, "CPU threads (torch's choice)", int, "[1, 1024]")
    data_dir: Path | None = setting(
        None, "contains train.tar and test.tar (see README.md)", nonempty_path
    )
    results_dir: Path = setting(Path("results"), "where to write results", nonempty_path)

    def __init__(self, **given: object) -> None:
        """Take the settings that are given; of the others the defaults above, or, with
        regularize=True, those of the recipe. Make numbers plain Python ones: a checkpoint with
        NumPy's could not be read.

        Raises:
            RunError: a value is not allowed.
            TypeError: there is no such setting.
        """
        if unknown := given.keys() - {one.name for one in fields(self)}:
            raise TypeError(f"there is no setting called {min(unknown)}")
        recipe = RECIPE if given.get("regularize") else {}
        for name, value in (recipe | given).items():
            setattr(self, name, value)
        if recipe and "no_aug_epochs" not in given:
            # At least one epoch must be augmented, however few there are.
            self.no_aug_epochs = min(self.no_aug_epochs, self.epochs - 1)
        self.name = self.name or self.model + ("-regularized" if self.regularize else "")
        self.results_dir = Path(self.results_dir)
        for one in fields(self):
            if one.metadata["interval"] and getattr(self, one.name) is not None:
                setattr(self, one.name, number_within(one, getattr(self, one.name)))
        if self.no_aug_epochs and not self.augment:
            raise RunError("--no-aug-epochs requires --augment")
        if self.no_aug_epochs > self.epochs:
            raise RunError(f"--no-aug-epochs {self.no_aug_epochs} exceeds --epochs {self.epochs}")
        check_file_name(self.name)

    @property
    def watched(self) -> str:
        """What is tested after each epoch: "val" for held-out training images, or "test"."""
        return "val" if self.validation else "test"

    def plain(self) -> dict:
        """Return the settings as plain values, for a checkpoint or a record."""
        return {
            name: str(value) if isinstance(value, Path) else value
            for name, value in asdict(self).items()
        }


def number_within(one: Field, value: Any) -> int | float:  # noqa: ANN401 (a number of any library)
    """Return the value of a setting as Python's own int or float. Raise RunError unless it is such
    a number in the field's interval."""
    whole, interval = one.metadata["kind"] is int, one.metadata["interval"]
    least, most = (float(bound) for bound in interval[1:-1].split(","))
    try:
        number = operator.index(value) if whole else float(value)
    except (TypeError, ValueError):
        number = math.nan
    allowed = least <= number <= most
    if (number == least and interval[0] == "(") or (number == most and interval[-1] == ")"):
        allowed = False
    if not allowed:
        kind = "an integer" if whole else "a number"
        raise RunError(f"{option(one.name)} {value} is not {kind} in {interval}")
    return number


def check_file_name(name: str) -> None:
    """Raise RunError unless the files of a run can be called `name`, on Windows as well."""
    if not re.fullmatch(r"\w[\w.+=-]*", name):
        raise RunError(f"--name {name} is not a valid name: use letters, digits, _ . + = -")
    if re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", name, re.IGNORECASE):
        raise RunError(f"--name {name} is a device on Windows: use another")
    if len(name.encode()) > 200:  # most file systems allow 255, with the endings of ours
        raise RunError("--name is too long: use at most 200 characters")


def changed_settings(saved: dict, settings: Settings) -> dict:
    """Return the saved values of the settings that matter to a run and that differ in `settings`. A
    setting missing from what was saved counts as its default."""
    config = settings.plain()
    before = Settings().plain() | saved
    if isinstance(before["augment"], bool):  # in older files
        before["augment"] = "deform" if before["augment"] else None
    if not config["dropout"] and before["dropout"] == 0:  # what older files say of the default
        before["dropout"] = config["dropout"]
    return {
        name: before[name]
        for name in config
        if name not in MAY_CHANGE_ON_RESUME and before[name] != config[name]
    }


def option(name: str) -> str:
    """Return how a setting is written on the command line."""
    return f"--{name.replace('_', '-')}"
