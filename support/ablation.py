"""The tables of README.md on regularization, as Markdown, made from records."""

from support.plan import (
    ALL_AUGMENTED,
    CHOICES,
    HELD_OUT,
    LONG_CHOICES,
    LONG_PLAIN,
    PART_TITLES,
    RECIPE_ROW,
    RECIPE_WITHOUT,
    ROW_TITLES,
    ROWS,
    SHORT_RECIPE,
    TECHNIQUES,
)
from support.records import Records, accuracies, epochs_of, final_values
from support.stats import holm, paired_difference, paired_p_value
from support.tables import plus_minus, seeds_and_epochs, spread


def effects_of(records: Records) -> list[dict]:
    """What each technique adds to plain LeNet-5 ("alone") and to all the others ("with the
    others"): ten tests, read together."""
    effects = []
    for name in TECHNIQUES:
        for context, with_it, without_it in (
            ("alone", f"lenet5+{name}", "lenet5"),
            ("with the others", "lenet5+all", f"lenet5+all-{name}"),
        ):
            first, second = accuracies(records[with_it]), accuracies(records[without_it])
            difference, half_width = paired_difference(first, second)
            effects.append(
                {
                    "name": name,
                    "context": context,
                    "row": with_it if context == "alone" else without_it,
                    "differences": first - second,
                    "difference": difference,
                    "half_width": half_width,
                    "p_value": paired_p_value(first, second),
                }
            )
    adjusted = holm([effect["p_value"] for effect in effects])
    return [
        effect | {"adjusted": p_value, "significant": p_value < 0.05}
        for effect, p_value in zip(effects, adjusted, strict=True)
    ]


def verdict(difference: float, significant: bool) -> str:
    if not significant:
        return "not shown"
    return "**helps**" if difference > 0 else "hurts"


def ablation_table(records: Records) -> str:
    """Every row of the ablation, and what each technique adds."""
    cells = dict.fromkeys(ROWS, " | | ")
    cells["lenet5+all"] = difference_text(records["lenet5+all"], records["lenet5"]) + " | | "
    for effect in effects_of(records):
        gain = effect["difference"]
        cells[effect["row"]] = (
            f"{plus_minus(gain, effect['half_width'])} | {p_text(effect['adjusted'])} "
            f"| {verdict(gain, effect['significant'])}"
        )
    lines = [
        f"| {seeds_and_epochs(records['lenet5'])} | training accuracy (%) | test accuracy (%) "
        "| test loss | difference, 95% interval | adjusted p | the technique |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for row in ROWS:
        runs = records[row]
        loss = spread(final_values(runs, "loss"), 4)
        if runs[0]["config"]["label_smoothing"]:
            loss += " †"
        lines.append(
            f"| {ROW_TITLES[row]} | {spread(accuracies(runs, 'train'))} "
            f"| {spread(accuracies(runs))} | {loss} | {cells[row]} |"
        )
    return "\n".join(lines)


def p_text(p_value: float) -> str:
    return f"{p_value:.3f}" if p_value >= 0.001 else "< 0.001"


def control_table(records: Records) -> str:
    """Augmentation and weight decay against plain LeNet-5, short and long; unlike in --regularize,
    all epochs are augmented. The last cell is the interaction: by how much more length helps with
    regularization than without."""
    short, long = records["lenet5"], records[LONG_PLAIN]
    short_regularized, long_regularized = records[SHORT_RECIPE], records[ALL_AUGMENTED]
    longer_plain = accuracies(long) - accuracies(short)
    longer_regularized = accuracies(long_regularized) - accuracies(short_regularized)
    interaction = plus_minus(*paired_difference(longer_regularized, longer_plain))
    lines = [
        f"| test accuracy (%), {len(short)} seeds | {epochs_of(short)} epochs "
        f"| {epochs_of(long)} epochs | longer minus shorter |",
        "|---|---:|---:|---:|",
        f"| plain | {spread(accuracies(short), 3)} | {spread(accuracies(long), 3)} "
        f"| {difference_text(long, short)} |",
        f"| augmentation and weight decay | {spread(accuracies(short_regularized), 3)} "
        f"| {spread(accuracies(long_regularized), 3)} "
        f"| {difference_text(long_regularized, short_regularized)} |",
        f"| regularized minus plain | {difference_text(short_regularized, short)} "
        f"| {difference_text(long_regularized, long)} | {interaction} |",
    ]
    return "\n".join(lines)


def difference_text(first: list[dict], second: list[dict]) -> str:
    return plus_minus(*paired_difference(accuracies(first), accuracies(second)))


def choices_table(records: Records) -> str:
    """What was tried on held-out training images."""
    lines = [
        f"| on {HELD_OUT:,} held-out images | epochs | seeds | accuracy (%) | loss |",
        "|---|---:|---:|---:|---:|",
    ]
    for row, options in (CHOICES | LONG_CHOICES).items():
        runs = records[row]
        loss = final_values(runs, "loss").mean()
        lines.append(
            f"| `{options}` | {epochs_of(runs)} | {len(runs)} "
            f"| {spread(accuracies(runs), 3)} | {loss:.4f} |"
        )
    return "\n".join(lines)


def recipe_table(records: Records) -> str:
    """What each part of the recipe adds to the others, at the recipe's length: tests that are read
    together."""
    recipe = records[RECIPE_ROW]
    parts = [records[row] for row in RECIPE_WITHOUT]
    p_values = [paired_p_value(accuracies(recipe), accuracies(runs)) for runs in parts]
    lines = [
        f"| {seeds_and_epochs(recipe)} | test accuracy (%) | test loss "
        "| `--regularize` minus this, 95% interval | adjusted p | the part |",
        "|---|---:|---:|---:|---:|---|",
        f"| `--regularize` | {spread(accuracies(recipe), 3)} "
        f"| {spread(final_values(recipe, 'loss'), 4)} | | | |",
    ]
    for row, runs, p_value in zip(RECIPE_WITHOUT, parts, holm(p_values), strict=True):
        gain, _ = paired_difference(accuracies(recipe), accuracies(runs))
        lines.append(
            f"| {PART_TITLES[row]} | {spread(accuracies(runs), 3)} "
            f"| {spread(final_values(runs, 'loss'), 4)} | {difference_text(recipe, runs)} "
            f"| {p_text(p_value)} | {verdict(gain, p_value < 0.05)} |"
        )
    return "\n".join(lines)
