"""The settings of a run, the recipe of --regularize, and the command line that makes them."""

import argparse
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from support.argument_types import file_name, float_in, int_at_least, nonempty_path

COMMITTED_LENET5 = Path(__file__).resolve().parent.parent / "results" / "report" / "lenet5.pt"
# --regularize: the settings that README.md reports, chosen on held-out training images.
RECIPE = {"epochs": 100, "augment": "deform", "no_aug_epochs": 3, "weight_decay": 5e-4}
# --resume accepts other values of these; RunFiles checks epochs, and the data itself.
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

EXAMPLES = """
examples:
  python main.py --model lenet5                             train LeNet-5 for 20 epochs
  python main.py --model mlp --epochs 20 --name second      train the MLP, beside other runs
  python main.py --regularize                               train LeNet-5 by README.md's recipe
  python main.py --evaluate results/checkpoints/lenet5.pt   test a trained network
  python main.py --predict photo.png scan.jpg               read the digits in these images
"""


@dataclass
class Settings:
    """The settings of a run: main.py's training options and their defaults."""

    model: str = "lenet5"
    epochs: int = 20
    batch_size: int = 128
    optimizer: str = "sgd"
    lr: float = 0.05
    momentum: float = 0.9
    schedule: str = "onecycle"
    seed: int = 0
    validation: int = 0
    name: str | None = None  # None: the model's name, and "-regularized" if regularize is set
    resume: bool = False
    augment: str | None = None
    no_aug_epochs: int = 0
    dropout: float = 0.0
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    ema: float = 0.0
    regularize: bool = False  # --regularize; from Python, `Settings(**RECIPE)` sets the recipe
    device: str = "auto"
    threads: int | None = None
    data_dir: Path | None = None
    results_dir: Path = Path("results")

    def __post_init__(self) -> None:
        self.name = self.name or self.model + ("-regularized" if self.regularize else "")
        self.results_dir = Path(self.results_dir)

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


def changed_settings(saved: dict, settings: Settings) -> dict:
    """Return the saved values of the settings that matter to a run and that differ in `settings`. A
    setting missing from what was saved counts as its default."""
    config = settings.plain()
    before = Settings().plain() | saved
    if isinstance(before["augment"], bool):  # in older files
        before["augment"] = "deform" if before["augment"] else None
    return {
        name: before[name]
        for name in config
        if name not in MAY_CHANGE_ON_RESUME and before[name] != config[name]
    }


def option(name: str) -> str:
    """Return how a setting is written on the command line."""
    return f"--{name.replace('_', '-')}"


# --- the command line -------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line."""

    def error(self, message: str) -> None:
        self.exit(2, f"error: {message}; see python {self.prog} --help\n")


def parse_arguments(
    arguments: list[str] | None = None, **choices: Collection[str]
) -> tuple[argparse.Namespace, Settings]:
    """Parse main.py's command line (default: that of this process). Exit with 2 on wrong usage.

    Args:
        choices: the allowed values of an option, such as model=("lenet5", "mlp").

    Returns:
        The command, with its own options (evaluate, predict, ...), and the settings of a run.
    """
    parser = make_parser(choices)
    args = parser.parse_args(arguments)
    if args.evaluate and args.predict:
        parser.error("--evaluate and --predict are two commands; give one at a time")
    if not args.predict and (args.checkpoint or args.save_inputs):
        parser.error("--checkpoint and --save-inputs require --predict")
    if args.json and not (args.evaluate or args.predict):
        parser.error("--json requires --evaluate or --predict")
    if args.regularize:
        # Parse again with the recipe as defaults, so that explicit options win; and once more,
        # since at least one epoch must be augmented, however few there are.
        parser.set_defaults(**RECIPE)
        epochs = parser.parse_args(arguments).epochs
        parser.set_defaults(no_aug_epochs=min(RECIPE["no_aug_epochs"], epochs - 1))
        args = parser.parse_args(arguments)
    if args.no_aug_epochs and not args.augment:
        parser.error("--no-aug-epochs requires --augment")
    if args.no_aug_epochs > args.epochs:
        parser.error(f"--no-aug-epochs {args.no_aug_epochs} exceeds --epochs {args.epochs}")
    args.checkpoint = args.checkpoint or COMMITTED_LENET5
    return args, Settings(**{field.name: getattr(args, field.name) for field in fields(Settings)})


def make_parser(choices: dict[str, Collection[str]]) -> Parser:
    parser = Parser(
        description="Train LeNet-5 or an MLP on MNIST, watch it train, and use it.\n"
        "Defaults are shown in (parentheses).",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_training(parser.add_argument_group("training (unless --evaluate or --predict)"), choices)
    regularization = parser.add_argument_group("regularization (off by default)")
    add_regularization(regularization, choices)
    add_usage(parser.add_argument_group("using a trained network"))
    add_places(parser.add_argument_group("paths and device"))
    parser.set_defaults(**asdict(Settings()) | {"name": None})  # its default depends on others
    return parser


def add_training(group: argparse._ArgumentGroup, choices: dict[str, Collection[str]]) -> None:
    add, count = group.add_argument, int_at_least(1)
    add("--model", choices=choices.get("model"), help="network (%(default)s)")
    add("--epochs", type=count, help="passes over the data (%(default)s)")
    add("--batch-size", type=count, help="images per step (%(default)s)")
    add("--optimizer", choices=choices.get("optimizer"), help="optimizer (%(default)s)")
    peak = "learning rate; with onecycle, its peak (%(default)s)"
    add("--lr", type=float_in("(0, inf)"), help=peak)
    add("--momentum", type=float_in("[0, 1)"), help="optimizer momentum (%(default)s)")
    schedule = "learning-rate schedule (%(default)s)"
    add("--schedule", choices=choices.get("schedule"), help=schedule)
    add("--seed", type=int_at_least(0), help="random seed (%(default)s)")
    held_out = "hold out N training images and test on them instead of the test set (%(default)s)"
    add("--validation", type=int_at_least(0), metavar="N", help=held_out)
    add(
        "--name",
        type=file_name,
        help="base name of the run's files (the model's name; --regularize adds -regularized)",
    )
    add("--resume", action="store_true", help="continue after the last finished epoch of this name")


def add_regularization(group: argparse._ArgumentGroup, choices: dict[str, Collection[str]]) -> None:
    add, share = group.add_argument, float_in("[0, 1)")
    add(
        "--augment",
        nargs="?",
        const=RECIPE["augment"],
        choices=choices.get("augment"),
        help=f"change the training images a little, at random (--augment: {RECIPE['augment']})",
    )
    without = "with --augment, train the last N epochs on the images as they are"
    add("--no-aug-epochs", type=int_at_least(0), metavar="N", help=without)
    add("--dropout", type=share, metavar="P", help="dropout probability")
    decay = "weight decay (of biases as well)"
    add("--weight-decay", type=float_in("[0, inf)"), metavar="W", help=decay)
    smoothing = "share of the target probability that is spread over all digits"
    add("--label-smoothing", type=share, metavar="E", help=smoothing)
    average = "test an exponential moving average of the weights"
    add("--ema", type=share, metavar="DECAY", help=average)
    recipe = ", ".join(f"{name.replace('_', '-')} {value}" for name, value in RECIPE.items())
    recipe_help = f"README.md's recipe; sets these defaults: {recipe}"
    add("--regularize", action="store_true", help=recipe_help)


def add_usage(group: argparse._ArgumentGroup) -> None:
    add, path = group.add_argument, nonempty_path
    evaluate = "test a network and show its errors"
    add("--evaluate", type=path, metavar="CHECKPOINT", help=evaluate)
    add("--predict", type=path, metavar="IMAGE", nargs="+", help="read the digits in images")
    add("--checkpoint", type=path, help="the network that predicts (README.md's LeNet-5)")
    add("--json", action="store_true", help="print results as JSON, one object per line")
    save_inputs = "save the preprocessed images there"
    add("--save-inputs", type=path, metavar="FOLDER", help=save_inputs)


def add_places(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--device",
        choices=("auto", "cpu", "cuda", "mps"),
        help="where to compute; mps (Macs) is untested, and older versions of torch cannot "
        "--augment there (%(default)s)",
    )
    threads = int_at_least(1, most=1024)
    add("--threads", type=threads, help="number of CPU threads (torch's choice)")
    add_folders(group)


def add_folders(parser: argparse._ActionsContainer) -> None:
    """Add the options that say where to read and to write: main.py's and report.py's."""
    add = parser.add_argument
    add("--data-dir", type=nonempty_path, help="contains train.tar and test.tar (see README.md)")
    add(
        "--results-dir",
        type=nonempty_path,
        default=Settings.results_dir,
        help="where to write results (results)",
    )
