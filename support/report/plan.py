"""What the report trains: the rows of its tables, the settings of main.py behind each, and the
questions that they answer.

Two kinds of seeds are kept apart. On those of the exploration, settings were chosen or compared at
will. What the report concludes rests on fresh seeds alone: the questions, their rows, tests and
margins below were committed before any of their runs was trained.
"""

import functools
import operator
from pathlib import Path
from typing import Any, NamedTuple

from support.settings import RECIPE, Settings

Options = dict[str, Any]  # those settings that are not at main.py's defaults
Plan = list[tuple[str, Settings]]  # of each run: the row of its table, its settings


class Row(NamedTuple):
    """A row of the tables: its title, and what its runs are trained with."""

    title: str
    options: Options


# --- the questions ----------------------------------------------------------------------------

FRESH_SEEDS = range(10, 30)
FRESH = "fresh "  # before the names of their rows
# All rows of a seed are trained on the same kind of processor, which the records name.
FRESH_ROWS = {
    "mlp": Row("MLP", {"model": "mlp"}),
    "mlp-recipe": Row("MLP, regularized", {"model": "mlp"} | RECIPE),
    "lenet5": Row("LeNet-5", {}),
    "lenet5-long": Row("LeNet-5, trained longer", {"epochs": 100}),
    "recipe": Row("LeNet-5, regularized", RECIPE),
}


class Question(NamedTuple):
    """Is the first row more accurate than the second? With a margin (percentage points): does it
    reach the second, that is, is it not worse by as much as the margin?"""

    text: str
    first: str
    second: str
    margin: float | None = None


# Tested together, on test accuracy after the last epoch: the mean over FRESH_SEEDS of first minus
# second, paired by seed, with 95% intervals of Student's t that are simultaneous over the four
# (Bonferroni). The first is more accurate if its interval lies above 0, and less if it lies below;
# it reaches the second if its interval lies above minus the margin.
QUESTIONS = (
    Question("Is LeNet-5 more accurate than an MLP of its size?", "lenet5", "mlp"),
    Question("Does --regularize help, at the same length?", "recipe", "lenet5-long"),
    Question("Does longer training help by itself?", "lenet5-long", "lenet5"),
    Question("Does the regularized MLP reach plain LeNet-5?", "mlp-recipe", "lenet5-long", 0.1),
)
# One more test by itself: is plain LeNet-5 ("lenet5") not worse than this by as much as the margin?
# The 95% interval of the difference between two error rates, ours in the mean over FRESH_SEEDS,
# each on 10,000 images, treated as independent (Wald), has to lie above minus the margin.
KNOWN_ACCURACY, KNOWN_MARGIN = 99.05, 0.1  # percent: LeCun et al. 1998, LeNet-5 without distortions

# --- the exploration --------------------------------------------------------------------------

SEEDS = 10  # of each row: 0, 1, ...
# What each technique of the ablation adds to the default settings.
TECHNIQUES = {
    "augment": Row("augmentation", {"augment": "deform"}),
    "dropout": Row("dropout", {"dropout": 0.2}),
    "weight-decay": Row("weight decay", {"weight_decay": 5e-4}),
    "label-smoothing": Row("label smoothing", {"label_smoothing": 0.05}),
    "ema": Row("averaged weights (EMA)", {"ema": 0.999}),
}


def all_but(left_out: str | None) -> Options:
    """Return the settings of all techniques but this one."""
    kept = [technique.options for name, technique in TECHNIQUES.items() if name != left_out]
    return functools.reduce(operator.or_, kept)


# The rows of the ablation: in their names, + adds a technique, and - leaves it out.
ROWS = {
    "lenet5": Row("LeNet-5, plain", {}),
    **{
        f"lenet5+{name}": Row(f"with {technique.title}", technique.options)
        for name, technique in TECHNIQUES.items()
    },
    "lenet5+all": Row("all five", all_but(None)),
    **{
        f"lenet5+all-{name}": Row(f"all but {technique.title}", all_but(name))
        for name, technique in TECHNIQUES.items()
    },
}

# The recipe, --regularize, and the recipe without one of its parts.
RECIPE_ROW = "recipe"
RECIPE_ROWS = {
    RECIPE_ROW: Row("the recipe", RECIPE),
    "recipe-augment": Row("without augmentation", RECIPE | {"augment": None, "no_aug_epochs": 0}),
    "recipe-weight-decay": Row("without weight decay", RECIPE | {"weight_decay": 0.0}),
    "recipe-all-augmented": Row("augmented in the last epochs, too", RECIPE | {"no_aug_epochs": 0}),
}

# The peak learning rate, the same grid for both networks, on images held out of the training set.
# Chosen: main.py's default, 0.05. For each network it is within the noise of the best (0.09 points
# below 0.025 for LeNet-5, 0.07 below 0.1 for the MLP, two seeds each); at 0.2 both diverge.
HELD_OUT, CHOICE_SEEDS = 10_000, 2
LEARNING_RATES = (0.0125, 0.025, 0.05, 0.1, 0.2)
LR_CHOICES: dict[str, Options] = {
    f"{model}-lr-{lr}": {"model": model, "lr": lr}
    for model in ("lenet5", "mlp")
    for lr in LEARNING_RATES
}

# How --regularize was chosen, on the same images: what was added to the default settings. From a
# first guess, one change at a time; then with as many epochs as the recipe.
AUGMENT, WEIGHT_DECAY, EMA = (
    TECHNIQUES[name].options for name in ("augment", "weight-decay", "ema")
)
FIRST_GUESS = AUGMENT | WEIGHT_DECAY | EMA
CHOICES: dict[str, Options] = {
    "validation": FIRST_GUESS,
    "validation-augment": WEIGHT_DECAY | EMA,
    "validation-weight-decay": AUGMENT | EMA,
    "validation-ema": AUGMENT | WEIGHT_DECAY,
    "validation+lr": FIRST_GUESS | {"lr": 0.1},
    "validation+weight-decay": FIRST_GUESS | {"weight_decay": 2e-4},
    "validation+label-smoothing": FIRST_GUESS | {"label_smoothing": 0.05},
    "validation+dropout": FIRST_GUESS | {"dropout": 0.1},
    "long": AUGMENT | WEIGHT_DECAY | {"epochs": 100},
    "long+weight-decay-2e-4": AUGMENT | {"weight_decay": 2e-4, "epochs": 100},
    "long+weight-decay-1e-3": AUGMENT | {"weight_decay": 1e-3, "epochs": 100},
    "long+no-aug-epochs": AUGMENT | {"no_aug_epochs": 3} | WEIGHT_DECAY | {"epochs": 100},
}

# --- the runs ---------------------------------------------------------------------------------


def planned_runs(
    seeds: int,
    epochs: int | None = None,
    data_dir: Path | None = None,
    results_dir: Path = Settings.results_dir,
) -> Plan:
    """Return every run: its row, and its settings.

    First the runs on held-out images; then the ablation, seed by seed, so that whatever is finished
    can be compared; then the recipe and its parts; last the fresh seeds.

    Args:
        seeds: so many of each row of the exploration; of the fresh ones, too, if it is not SEEDS.
        epochs: of every run, in place of what is planned; then nothing is chosen, as short runs do
            not tell how long ones end.
    """
    fresh_seeds = FRESH_SEEDS if seeds == SEEDS else FRESH_SEEDS[:seeds]
    planned: list[tuple[str, Options, int]] = []
    if not epochs:
        for row, options in (LR_CHOICES | CHOICES).items():
            held_out = options | {"validation": HELD_OUT}
            planned += [(row, held_out, seed) for seed in range(CHOICE_SEEDS)]
    for seed in range(seeds):
        planned += [(row, options, seed) for row, (_, options) in ROWS.items()]
    for row, (_, options) in RECIPE_ROWS.items():
        planned += [(row, options, seed) for seed in range(seeds)]
    for seed in fresh_seeds:
        planned += [(f"{FRESH}{row}", options, seed) for row, (_, options) in FRESH_ROWS.items()]

    runs = []
    for row, options, seed in planned:
        length = epochs or options.get("epochs", Settings.epochs)
        of_its_own = {
            "epochs": length,
            # At least one epoch is augmented, however few there are.
            "no_aug_epochs": min(options.get("no_aug_epochs", 0), length - 1),
            "seed": seed,
            "name": f"{row.removeprefix(FRESH)}-{length}-epochs-seed-{seed}",
            # So the results do not depend on how many runs and cores there are.
            "threads": 1,
        }
        places = {"resume": True, "data_dir": data_dir, "results_dir": results_dir}
        runs.append((row, Settings(**options | of_its_own | places)))
    return runs
