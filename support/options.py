"""The command line: its options, the recipe of --regularize, and what may change on --resume."""

import argparse
from pathlib import Path

from model import MODELS
from support.argument_types import file_name, float_in, int_at_least, nonempty_path

COMMITTED_LENET5 = Path(__file__).resolve().parent.parent / "results" / "report" / "lenet5.pt"
# --regularize: the settings that README.md reports, chosen on held-out training images.
RECIPE = {
    "epochs": 100,
    "augment": True,
    "no_aug_epochs": 3,
    "weight_decay": 5e-4,
}
# These do not change what an epoch learns; more epochs only add to it.
MAY_CHANGE_ON_RESUME = {
    *("epochs", "device", "threads", "data_dir", "results_dir", "name", "resume"),
    "regularize",  # it sets others, which count
}
NOT_FOR_TRAINING = {"evaluate", "predict", "checkpoint", "json", "save_inputs"}

EXAMPLES = """
examples:
  python main.py --model lenet5                             train LeNet-5 for 20 epochs
  python main.py --model mlp --epochs 20 --name second      train the MLP, beside other runs
  python main.py --regularize                               train LeNet-5 by README.md's recipe
  python main.py --evaluate results/checkpoints/lenet5.pt   test a trained network
  python main.py --predict photo.png scan.jpg               read the digits in these images
"""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line."""

    def error(self, message: str) -> None:
        self.exit(2, f"error: {message}; see python {self.prog} --help\n")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse main.py's command line (default: that of this process). Wrong usage exits with 2."""
    parser = make_parser()
    args = parser.parse_args(arguments)
    if args.evaluate and args.predict:
        parser.error("--evaluate and --predict are two commands; give one at a time")
    if not args.predict and (args.checkpoint or args.json or args.save_inputs):
        parser.error("--checkpoint, --json and --save-inputs require --predict")
    if args.regularize:
        parser.set_defaults(**RECIPE)  # and parse again: an explicit option overrides the recipe
        epochs = parser.parse_args(arguments).epochs
        # At least the first epoch is augmented, however few there are.
        parser.set_defaults(no_aug_epochs=min(RECIPE["no_aug_epochs"], epochs - 1))
        args = parser.parse_args(arguments)
    if args.no_aug_epochs and not args.augment:
        parser.error("--no-aug-epochs requires --augment")
    if args.no_aug_epochs > args.epochs:
        parser.error(f"--no-aug-epochs {args.no_aug_epochs} exceeds --epochs {args.epochs}")
    args.name = args.name or args.model
    args.checkpoint = args.checkpoint or COMMITTED_LENET5
    return args


def make_parser() -> Parser:
    parser = Parser(
        prog="main.py",
        description="Train LeNet-5 or an MLP on MNIST, watch it train, and use it.\n"
        "Defaults are shown in (parentheses).",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_training(parser.add_argument_group("training (unless --evaluate or --predict)"))
    add_regularization(parser.add_argument_group("regularization (off by default)"))
    add_usage(parser.add_argument_group("using a trained network"))
    add_places(parser.add_argument_group("paths and device"))
    return parser


def add_training(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--model", choices=MODELS, default="lenet5", help="the network (%(default)s)")
    add(
        "--epochs",
        type=int_at_least(1),
        default=20,
        help="passes over the data (%(default)s)",
    )
    add("--batch-size", type=int_at_least(1), default=128, help="images per step (%(default)s)")
    add("--optimizer", choices=("sgd", "muon"), default="sgd", help="the optimizer (%(default)s)")
    peak = "learning rate, with onecycle its peak (%(default)s)"
    add("--lr", type=float_in("(0, inf)"), default=0.05, help=peak)
    add("--momentum", type=float_in("[0, 1)"), default=0.9, help="optimizer momentum (%(default)s)")
    schedules = ("constant", "onecycle")
    add("--schedule", choices=schedules, default="onecycle", help="lr schedule (%(default)s)")
    add("--seed", type=int_at_least(0), default=0, help="random seed (%(default)s)")
    held_out = "hold out N training images and watch them in place of the test set (%(default)s)"
    add("--validation", type=int_at_least(0), default=0, metavar="N", help=held_out)
    add("--name", type=file_name, help="base name of the run's files (the model's name)")
    add("--resume", action="store_true", help="continue after the last finished epoch of this name")


def add_regularization(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--augment", action="store_true", help="deform the training images a little, at random")
    without = "with --augment, train the last N epochs on the images as they are"
    add("--no-aug-epochs", type=int_at_least(0), default=0, metavar="N", help=without)
    share, penalty = float_in("[0, 1)"), float_in("[0, inf)")
    add("--dropout", type=share, default=0.0, metavar="P", help="dropout probability")
    add(
        "--weight-decay",
        type=penalty,
        default=0.0,
        metavar="W",
        help="weight decay (of biases as well)",
    )
    smoothing = "share of the target probability that is spread over all digits"
    add("--label-smoothing", type=share, default=0.0, metavar="E", help=smoothing)
    average = "test an exponential moving average of the weights"
    add("--ema", type=share, default=0.0, metavar="DECAY", help=average)
    recipe = ", ".join(f"{name.replace('_', '-')} {value}" for name, value in RECIPE.items())
    recipe_help = f"the recipe of README.md: changes these defaults: {recipe}"
    add("--regularize", action="store_true", help=recipe_help)


def add_usage(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--evaluate",
        type=nonempty_path,
        metavar="CHECKPOINT",
        help="test a network and show its errors",
    )
    add(
        "--predict",
        type=nonempty_path,
        metavar="IMAGE",
        nargs="+",
        help="read the digits in images",
    )
    add("--checkpoint", type=nonempty_path, help="the network that predicts (README.md's LeNet-5)")
    add("--json", action="store_true", help="print each prediction as a JSON object")
    add(
        "--save-inputs",
        type=nonempty_path,
        metavar="FOLDER",
        help="save the preprocessed images there",
    )


def add_places(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    devices = ("auto", "cpu", "cuda", "mps")
    add("--device", choices=devices, default="auto", help="where to compute (%(default)s)")
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
        default=Path("results"),
        help="where to write results (results)",
    )


def config_of(args: argparse.Namespace) -> dict:
    """Return the settings of a run, as plain values."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(args).items()
        if name not in NOT_FOR_TRAINING
    }


def changed_settings(saved: dict, config: dict) -> dict:
    """Return the saved values of the settings that matter to a run and that differ in `config`. A
    setting missing from what was saved counts as its default."""
    before = config_of(parse_arguments([])) | saved
    return {
        name: before[name]
        for name in config
        if name not in MAY_CHANGE_ON_RESUME and before[name] != config[name]
    }


def watched_split(config: dict) -> str:
    """Return what is tested after each epoch: "val" for held-out training images, or "test"."""
    return "val" if config["validation"] else "test"
