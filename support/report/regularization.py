"""The tables of README.md on regularization, as Markdown, made from records."""

from support.report.plan import (
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
from support.report.records import Records, accuracies, epochs_of, final_values
from support.report.stats import holm, paired_difference, paired_p_value
from support.report.tables import plus_minus, seeds_and_epochs, spread

Runs = list[dict]  # the records of a row, one per seed


def tested_together(pairs: list[tuple[Runs, Runs]]) -> list[dict]:
    """Test by how much each first row is more accurate than the second: paired differences (points)
    with 95% intervals, and p-values adjusted for the number of pairs."""
    accuracy_pairs = [(accuracies(first), accuracies(second)) for first, second in pairs]
    adjusted = holm([paired_p_value(first, second) for first, second in accuracy_pairs])
    effects = []
    for (first, second), p_value in zip(accuracy_pairs, adjusted, strict=True):
        difference, half_width = paired_difference(first, second)
        effects.append(
            {
                "differences": first - second,
                "difference": difference,
                "half_width": half_width,
                "adjusted": p_value,
                "significant": p_value < 0.05,
            }
        )
    return effects


def effects_of(records: Records) -> list[dict]:
    """What each technique adds to plain LeNet-5 ("alone") and to all the others ("with the
    others"): ten tests, read together."""
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
        return "not shown"
    return "**helps**" if difference > 0 else "hurts"


def effect_cells(effect: dict) -> str:
    """Three cells: the difference with its interval, the adjusted p, and the verdict."""
    p_value = effect["adjusted"]
    p_text = f"{p_value:.3f}" if p_value >= 0.001 else "< 0.001"
    difference = plus_minus(effect["difference"], effect["half_width"])
    return f"{difference} | {p_text} | {verdict(effect['difference'], effect['significant'])}"


def smoothing_mark(runs: Runs) -> str:
    """A dagger for the losses of networks trained with label smoothing: README says why."""
    return " †" if runs[0]["config"]["label_smoothing"] else ""


def ablation_table(records: Records) -> str:
    """Every row of the ablation, and what each technique adds."""
    cells = dict.fromkeys(ROWS, " | | ")
    cells["lenet5+all"] = difference_text(records["lenet5+all"], records["lenet5"]) + " | | "
    cells |= {effect["row"]: effect_cells(effect) for effect in effects_of(records)}
    lines = [
        f"| {seeds_and_epochs(records['lenet5'])} | training accuracy (%) | test accuracy (%) "
        "| test loss | difference, 95% interval | adjusted p | the technique |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for row in ROWS:
        runs = records[row]
        loss = spread(final_values(runs, "loss"), 4) + smoothing_mark(runs)
        lines.append(
            f"| {ROW_TITLES[row]} | {spread(accuracies(runs, 'train'))} "
            f"| {spread(accuracies(runs))} | {loss} | {cells[row]} |"
        )
    return "\n".join(lines)


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


def difference_text(first: Runs, second: Runs) -> str:
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
            f"| {spread(accuracies(runs), 3)} | {loss:.4f}{smoothing_mark(runs)} |"
        )
    return "\n".join(lines)


def recipe_table(records: Records) -> str:
    """What each part of the recipe adds to the others, at the recipe's length: tests that are read
    together."""
    recipe = records[RECIPE_ROW]
    effects = tested_together([(recipe, records[row]) for row in RECIPE_WITHOUT])
    lines = [
        f"| {seeds_and_epochs(recipe)} | test accuracy (%) | test loss "
        "| `--regularize` minus this, 95% interval | adjusted p | the part |",
        "|---|---:|---:|---:|---:|---|",
        f"| `--regularize` | {spread(accuracies(recipe), 3)} "
        f"| {spread(final_values(recipe, 'loss'), 4)} | | | |",
    ]
    for row, effect in zip(RECIPE_WITHOUT, effects, strict=True):
        runs = records[row]
        lines.append(
            f"| {PART_TITLES[row]} | {spread(accuracies(runs), 3)} "
            f"| {spread(final_values(runs, 'loss'), 4)} | {effect_cells(effect)} |"
        )
    return "\n".join(lines)
