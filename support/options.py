"""The command line of main.py: from its options to the settings of a run."""

import argparse
from collections.abc import Collection
from dataclasses import fields
from pathlib import Path
from typing import NoReturn

from support.device import DEVICES
from support.errors import RunError
from support.settings import RECIPE, Settings, nonempty_path, option

COMMITTED_LENET5 = Path(__file__).resolve().parent.parent / "results" / "report" / "lenet5.pt"
EXAMPLES = """
examples:
  python main.py --model lenet5                             train LeNet-5 for 20 epochs
  python main.py --model mlp --epochs 20 --name second      train the MLP, beside other runs
  python main.py --regularize                               train LeNet-5 by README.md's recipe
  python main.py --evaluate results/checkpoints/lenet5.pt   test a trained network
  python main.py --predict photo.png scan.jpg               read the digits in these images
"""
GROUPS = {  # of --help: the first setting of each, and its title
    "model": "training (unless --evaluate or --predict)",
    "augment": "regularization (off by default)",
    "device": "paths and device",
}


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see python {self.prog} --help\n")


def parse_arguments(
    arguments: list[str] | None = None, **choices: Collection[str]
) -> tuple[argparse.Namespace, Settings]:
    """Parse main.py's command line (default: that of this process). Exit with 2 on wrong usage.

    Args:
        choices: the allowed values of an option, such as model=("lenet5", "mlp").

    Returns:
        The command with its own options (evaluate, predict, ...), and the settings of a run.
    """
    parser = make_parser(choices)
    args = parser.parse_args(arguments)
    if args.evaluate and args.predict:
        parser.error("--evaluate and --predict are two commands; give one at a time")
    if not args.predict and (args.checkpoint or args.save_inputs):
        parser.error("--checkpoint and --save-inputs require --predict")
    if args.json and not (args.evaluate or args.predict):
        parser.error("--json requires --evaluate or --predict")
    args.checkpoint = args.checkpoint or COMMITTED_LENET5
    given = vars(args).keys() & {one.name for one in fields(Settings)}
    try:
        settings = Settings(**{name: getattr(args, name) for name in given})
    except RunError as error:
        parser.error(str(error))
    return args, settings


def make_parser(choices: dict[str, Collection[str]]) -> Parser:
    """Return the parser. What it returns lacks the settings that the user did not name."""
    parser = Parser(
        description="Train LeNet-5 or an MLP on MNIST, watch it train, and use it.\n"
        "Defaults are shown in (parentheses).",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    choices["device"] = ("auto", *DEVICES)
    for one in fields(Settings):
        if one.name in GROUPS:
            group = parser.add_argument_group(GROUPS[one.name])
        add_setting(group, one.name, choices.get(one.name))

    parser.set_defaults(evaluate=None, predict=None, checkpoint=None, save_inputs=None, json=False)
    usage, path = parser.add_argument_group("using a trained network"), nonempty_path
    evaluate = "test a network and show its errors"
    usage.add_argument("--evaluate", type=path, metavar="CHECKPOINT", help=evaluate)
    predict = "read the digits in images"
    usage.add_argument("--predict", type=path, metavar="IMAGE", nargs="+", help=predict)
    network = "the network that predicts (README.md's LeNet-5)"
    usage.add_argument("--checkpoint", type=path, help=network)
    as_json = "print results as JSON, one object per line"
    usage.add_argument("--json", action="store_true", help=as_json)
    inputs = "save the preprocessed images there"
    usage.add_argument("--save-inputs", type=path, metavar="FOLDER", help=inputs)
    return parser


def add_setting(
    group: argparse._ActionsContainer, name: str, choices: Collection[str] | None = None
) -> None:
    """Add the option that sets a field of Settings, as main.py and report.py have it."""
    [one] = (one for one in fields(Settings) if one.name == name)
    flag, help_text = option(name), one.metadata["help"]
    if one.default is False:
        group.add_argument(flag, action="store_true", help=help_text)
    elif name == "augment":  # may stand without a value
        default = RECIPE["augment"]
        help_text += f" (--augment: {default})"
        group.add_argument(flag, nargs="?", const=default, choices=choices, help=help_text)
    else:
        group.add_argument(flag, type=one.metadata["kind"], choices=choices, help=help_text)
