"""The tables on regularization, and on how its settings were chosen, as Markdown, made from
records."""

from support.report.plan import (
    CHOICES,
    HELD_OUT,
    LEARNING_RATES,
    LONG_CHOICES,
    PART_TITLES,
    RECIPE_ROW,
    RECIPE_WITHOUT,
    ROW_TITLES,
    ROWS,
    TECHNIQUES,
)
from support.report.records import Records, accuracies, epochs_of, final_values
from support.report.stats import paired_difference
from support.report.tables import (
    HYPHEN,
    NBSP,
    bounds_over_images,
    interval,
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
                "over_images": bounds_over_images(runs, other_runs, tests=len(pairs)),
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


def verdict(difference: float, significant: bool) -> str:
    if not significant:
        return "unclear"
    return "**helps**" if difference > 0 else "hurts"


def effect_cells(effect: dict) -> str:
    """Three cells: the difference with its interval, the other interval, and the verdict."""
    difference = with_interval(effect["difference"], effect["half_width"])
    said = verdict(effect["difference"], effect["significant"])
    return f"{difference} | {interval(*effect['over_images'])} | {said}"


def smoothing_mark(runs: Runs) -> str:
    """A dagger for the losses of networks trained with label smoothing: README says why."""
    return f"{NBSP}†" if runs[0]["config"]["label_smoothing"] else ""


def ablation_table(records: Records, effects: list[dict]) -> str:
    """Every row of LeNet-5 in the ablation, and what each technique adds, as `effects_of` gives
    it."""
    cells = dict.fromkeys(ROWS, " | | ")
    cells |= {effect["row"]: effect_cells(effect) for effect in effects}
    lines = [
        f"| {seeds_and_epochs(records['lenet5'])} | training accuracy (%) | test accuracy (%) "
        "| test loss | difference (points), 95% interval over seeds | over seeds and images "
        "| the technique |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for row, effect in cells.items():
        runs = records[row]
        loss = spread(final_values(runs, "loss"), 4) + smoothing_mark(runs)
        lines.append(
            f"| {ROW_TITLES[row]} | {spread(accuracies(runs, 'train'))} "
            f"| {spread(accuracies(runs))} | {loss} | {effect} |"
        )
    return "\n".join(lines)


def numbers(effects: list[dict]) -> dict[str, str]:
    """The numbers in README's sentences on what a technique adds alone, by their marker."""
    named = "augment", "label-smoothing", "weight-decay"
    return {
        effect["name"]: with_interval(effect["difference"], effect["half_width"])
        for effect in effects
        if effect["context"] == "alone" and effect["name"] in named
    }


def learning_rates_table(records: Records) -> str:
    """Both networks with the same peak learning rates, on held-out training images."""
    seeds = len(records[f"lenet5-lr-{LEARNING_RATES[0]}"])
    lines = [
        f"| accuracy (%) on {HELD_OUT:,} held-out images, {seeds} seeds | LeNet-5 | MLP |",
        "|---|---:|---:|",
    ]
    for lr in LEARNING_RATES:
        lenet5, mlp = (spread(accuracies(records[f"{row}-lr-{lr}"])) for row in ("lenet5", "mlp"))
        lines.append(f"| peak learning rate {lr} | {lenet5} | {mlp} |")
    return "\n".join(lines)


def choices_table(records: Records) -> str:
    """What was tried on held-out training images: the options, without their dashes."""
    lines = [
        f"| on {HELD_OUT:,} held-out images | epochs | seeds | accuracy (%) | loss |",
        "|---|---:|---:|---:|---:|",
    ]
    for row, options in (CHOICES | LONG_CHOICES).items():
        parts = [part.strip().replace(" ", NBSP) for part in options.split("--")[1:]]
        settings = ", ".join(parts).replace("-", HYPHEN)
        runs = records[row]
        loss = final_values(runs, "loss").mean()
        lines.append(
            f"| {settings} | {epochs_of(runs)} | {len(runs)} "
            f"| {spread(accuracies(runs))} | {loss:.4f}{smoothing_mark(runs)} |"
        )
    return "\n".join(lines)


def recipe_table(records: Records) -> str:
    """What each part of the recipe adds to the others, at the recipe's length: three tests
    together."""
    recipe = records[RECIPE_ROW]
    effects = tested_together([(recipe, records[row]) for row in RECIPE_WITHOUT])
    lines = [
        f"| {seeds_and_epochs(recipe)} | test accuracy (%) | test loss "
        "| the recipe minus this (points), 95% interval over seeds | over seeds and images "
        "| the part |",
        "|---|---:|---:|---:|---:|---|",
        f"| the recipe | {spread(accuracies(recipe))} "
        f"| {spread(final_values(recipe, 'loss'), 4)} | | | |",
    ]
    for row, effect in zip(RECIPE_WITHOUT, effects, strict=True):
        runs = records[row]
        lines.append(
            f"| {PART_TITLES[row]} | {spread(accuracies(runs))} "
            f"| {spread(final_values(runs, 'loss'), 4)} | {effect_cells(effect)} |"
        )
    return "\n".join(lines)
