"""The tables on regularization, and on how its settings were chosen, as Markdown, made from
records."""

from support.report.plan import (
    CHOICES,
    HELD_OUT,
    LEARNING_RATES,
    RECIPE_ROW,
    RECIPE_ROWS,
    ROWS,
    TECHNIQUES,
    Options,
)
from support.report.records import Records, accuracies, epochs_of, final_values
from support.report.stats import paired_difference
from support.report.tables import (
    HYPHEN,
    NBSP,
    difference_over_images,
    interval,
    markdown_table,
    seeds_and_epochs,
    spread,
    with_interval,
)

Runs = list[dict]  # the records of a row, one per seed


def tested_together(pairs: list[tuple[Runs, Runs]]) -> list[dict]:
    """Test by how much each first row is more accurate than the second: paired differences (points)
    with 95% intervals, simultaneous over the pairs. An effect is significant when its interval over
    seeds excludes 0."""
    effects = []
    for runs, other_runs in pairs:
        first, second = accuracies(runs), accuracies(other_runs)
        difference, half_width = paired_difference(first, second, tests=len(pairs))
        effects.append(
            {
                "differences": first - second,
                "difference": difference,
                "half_width": half_width,
                "significant": abs(difference) > half_width,
                "over_images": difference_over_images(runs, other_runs, tests=len(pairs)),
            }
        )
    return effects


def effects_of(records: Records) -> list[dict]:
    """What each technique adds to plain LeNet-5 ("alone") and to all the others ("with the
    others"): ten tests together."""
    tests, pairs = [], []
    for name in TECHNIQUES:
        alone, left_out = f"lenet5+{name}", f"lenet5+all-{name}"
        tests.append({"name": name, "context": "alone", "row": alone})
        pairs.append((records[alone], records["lenet5"]))
        tests.append({"name": name, "context": "with the others", "row": left_out})
        pairs.append((records["lenet5+all"], records[left_out]))
    effects = tested_together(pairs)
    return [test | effect for test, effect in zip(tests, effects, strict=True)]


def verdict(effect: dict) -> str:
    if not effect["significant"]:
        return "unclear"
    return "**helps**" if effect["difference"] > 0 else "hurts"


def row_cells(title: str, runs: Runs, effect: dict | None) -> list[str]:
    """The cells of a row of both tables of effects: accuracy and loss; then the difference with its
    interval, the other interval, and the verdict, all empty where nothing is compared."""
    cells = [
        title,
        spread(accuracies(runs)),
        loss_cell(spread(final_values(runs, "loss"), 4), runs),
    ]
    if effect is None:
        return [*cells, "", "", ""]
    difference = with_interval(effect["difference"], effect["half_width"])
    return [*cells, difference, interval(*effect["over_images"]), verdict(effect)]


def loss_cell(loss: str, runs: Runs) -> str:
    """A loss; with a dagger for networks trained with label smoothing: README says why."""
    return loss + (f"{NBSP}†" if runs[0]["config"]["label_smoothing"] else "")


def ablation_table(records: Records, effects: list[dict]) -> str:
    """Every row of LeNet-5 in the ablation, and what each technique adds, as `effects_of` gives
    it."""
    by_row = {effect["row"]: effect for effect in effects}
    rows = []
    for row, (title, _) in ROWS.items():
        _, *cells = row_cells(title, records[row], by_row.get(row))
        rows.append([title, spread(accuracies(records[row], "train")), *cells])
    titles = [
        *(seeds_and_epochs(records["lenet5"]), "training accuracy (%)", "test accuracy (%)"),
        *("test loss", "difference (points), 95% interval over seeds", "over seeds and images"),
        "the technique",
    ]
    return markdown_table("lrrrrrl", titles, rows)


def recipe_table(records: Records) -> str:
    """What each part of the recipe adds to the others, at the recipe's length: three tests
    together."""
    recipe = records[RECIPE_ROW]
    effects = tested_together([(recipe, records[row]) for row in RECIPE_ROWS if row != RECIPE_ROW])
    rows = [
        row_cells(title, records[row], effect)
        for (row, (title, _)), effect in zip(RECIPE_ROWS.items(), [None, *effects], strict=True)
    ]
    titles = [
        *(seeds_and_epochs(recipe), "test accuracy (%)", "test loss"),
        "the recipe minus this (points), 95% interval over seeds",
        *("over seeds and images", "the part"),
    ]
    return markdown_table("lrrrrl", titles, rows)


def learning_rates_table(records: Records) -> str:
    """Both networks with the same peak learning rates, on held-out training images."""
    rows = [
        [
            f"peak learning rate {lr}",
            *(spread(accuracies(records[f"{model}-lr-{lr}"])) for model in ("lenet5", "mlp")),
        ]
        for lr in LEARNING_RATES
    ]
    seeds = len(records[f"lenet5-lr-{LEARNING_RATES[0]}"])
    title = f"accuracy (%) on {HELD_OUT:,} held-out images, {seeds} seeds"
    return markdown_table("lrr", [title, "LeNet-5", "MLP"], rows)


def choices_table(records: Records) -> str:
    """What was tried on held-out training images."""
    rows = []
    for row, options in CHOICES.items():
        runs = records[row]
        loss = loss_cell(f"{final_values(runs, 'loss').mean():.4f}", runs)
        accuracy = spread(accuracies(runs))
        rows.append([in_words(options), f"{epochs_of(runs)}", f"{len(runs)}", accuracy, loss])
    titles = [f"on {HELD_OUT:,} held-out images", "epochs", "seeds", "accuracy (%)", "loss"]
    return markdown_table("lrrrr", titles, rows)


def in_words(options: Options) -> str:
    """Settings as on the command line, without its dashes, and but for the epochs."""
    texts = []
    for name, value in options.items():
        number = f"{value:.0e}".replace("e-0", "e-") if name == "weight_decay" else f"{value}"
        if name != "epochs":
            texts.append(name if name == "augment" else f"{name}{NBSP}{number}")
    return ", ".join(texts).replace("_", HYPHEN).replace("-", HYPHEN)
