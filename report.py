"""Makes everything that README.md reports: trains, measures, draws.

    python report.py                                all of it: hours
    torchrun --nproc-per-node 2 report.py           the same, the runs shared out
    python report.py --seeds 2 --epochs 1           a quick look, into results/quick-report/

Every row of a table is one setting of main.py, trained with several seeds. A finished run leaves a
record in results/report/runs/ and is not trained again; one that was stopped goes on after its
last finished epoch. All numbers, tables and figures are made from the records alone.
"""

import argparse
import contextlib
import io
import json
import math
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # As in main.py: no traceback while torch is imported; main.start() sets it back.
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

import numpy as np
import torch
from torch import distributed, nn

import main
from dataset import MNIST, SIZE, augment, data_loader, find_splits, whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent
REPORT = ROOT / "results" / "report"
SEEDS, EPOCHS = 10, 20
SPEEDS = {"epoch", "start", "memory", "scaling", "fast", "torchrun"}  # in tests/benchmark.py's file

Plan = list[tuple[str, argparse.Namespace]]  # of each run the row of its table, and its settings

# What every row of the ablation has in common, and what each technique adds to it.
SCHEDULE = "--schedule onecycle --lr 0.05 --batch-size 128"
TECHNIQUES = {
    "augment": "--augment",
    "dropout": "--dropout 0.2",
    "weight-decay": "--weight-decay 5e-4",
    "label-smoothing": "--label-smoothing 0.05",
    "ema": "--ema 0.999",
}
ROWS = {
    "lenet5": SCHEDULE,
    "mlp": f"--model mlp {SCHEDULE}",
    **{f"lenet5+{name}": f"{SCHEDULE} {flag}" for name, flag in TECHNIQUES.items()},
    "lenet5+all": " ".join([SCHEDULE, *TECHNIQUES.values()]),
    **{
        f"lenet5+all-{left_out}": " ".join(
            [SCHEDULE, *(flag for name, flag in TECHNIQUES.items() if name != left_out)]
        )
        for left_out in TECHNIQUES
    },
}
RECIPE, WITHOUT_UNDEFORMED = "recipe", "recipe-undeformed"
# How --regularize was chosen, on images held out of the training set: what was added to SCHEDULE.
# From a first guess, one change at a time.
HELD_OUT, CHOICE_SEEDS = 10_000, 2
CHOICES = {
    "validation": "--augment --weight-decay 5e-4 --ema 0.999",
    "validation-augment": "--weight-decay 5e-4 --ema 0.999",
    "validation-weight-decay": "--augment --ema 0.999",
    "validation-ema": "--augment --weight-decay 5e-4",
    "validation+lr": "--augment --weight-decay 5e-4 --ema 0.999 --lr 0.1",
    "validation+weight-decay": "--augment --weight-decay 2e-4 --ema 0.999",
    "validation+label-smoothing": (
        "--augment --weight-decay 5e-4 --ema 0.999 --label-smoothing 0.05"
    ),
    "validation+dropout": "--augment --weight-decay 5e-4 --ema 0.999 --dropout 0.1",
}
# And then, with as many epochs as the recipe.
LONG_CHOICES = {
    "long": "--augment --weight-decay 5e-4",
    "long+weight-decay-2e-4": "--augment --weight-decay 2e-4",
    "long+weight-decay-1e-3": "--augment --weight-decay 1e-3",
    "long+undeformed": "--augment --undeformed 3 --weight-decay 5e-4",
}
TITLES = {
    "augment": "augmentation",
    "dropout": "dropout",
    "weight-decay": "weight decay",
    "label-smoothing": "label smoothing",
    "ema": "averaged weights (EMA)",
}
ROW_TITLES = {
    "lenet5": "LeNet-5, plain",
    "mlp": "MLP, plain",
    **{f"lenet5+{name}": f"with {title}" for name, title in TITLES.items()},
    "lenet5+all": "all five",
    **{f"lenet5+all-{name}": f"all but {title}" for name, title in TITLES.items()},
}
# Student's t for 1 to 30 degrees of freedom: 95 % of its distribution lie within +-t.
T95 = [
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
]


# --- training what is missing -----------------------------------------------------------------


def planned_runs(args: argparse.Namespace) -> Plan:
    """Every run: its row, and its command line. First those that --regularize was chosen by, then
    the ablation seed by seed, so that whatever is finished can be compared, then the recipe, with
    and without its undeformed epochs. With --epochs nothing is chosen again, nor the recipe
    compared: how a setting begins says little of how it ends."""
    seeds, recipe_epochs = range(args.seeds), main.RECIPE["epochs"]
    plan = []
    if not args.epochs:
        for choices, epochs in ((CHOICES, EPOCHS), (LONG_CHOICES, recipe_epochs)):
            for row, options in choices.items():
                options = f"{SCHEDULE} {options} --validation {HELD_OUT}"
                plan += [(row, options, epochs, seed) for seed in range(CHOICE_SEEDS)]
    plan += [(row, options, EPOCHS, seed) for seed in seeds for row, options in ROWS.items()]
    plan += [(RECIPE, "--regularize", recipe_epochs, seed) for seed in seeds]
    if not args.epochs:
        options = "--regularize --undeformed 0"
        plan += [(WITHOUT_UNDEFORMED, options, recipe_epochs, seed) for seed in seeds]
    runs = []
    for row, options, epochs, seed in plan:
        epochs = args.epochs or epochs
        # One thread a run: the same numbers, however many runs and cores there are.
        command = f"{options} --epochs {epochs} --seed {seed} --threads 1 --resume"
        run = main.parse_arguments(
            [*command.split(), "--name", f"{row}-{epochs}-epochs-seed-{seed}"]
        )
        run.data_dir, run.results_dir = args.data_dir, args.results_dir
        runs.append((row, run))
    return runs


def share_out(runs: Plan) -> Iterator[tuple[str, argparse.Namespace]]:
    """Yields this process's runs: all, or, under torchrun, each that no other has taken before."""
    if not distributed.is_torchelastic_launched():
        yield from runs
        return
    store, rank, processes = next(distributed.rendezvous("env://"))
    while (index := store.add("taken", 1) - 1) < len(runs):
        yield runs[index]
    store.add("ended", 1)
    while rank == 0 and store.add("ended", 0) < processes:
        time.sleep(1)  # the first process writes the report, so it waits for the others' records


def record_path(folder: Path, run: argparse.Namespace) -> Path:
    return folder / "runs" / f"{run.name}.json"


def find_record(folder: Path, run: argparse.Namespace) -> dict | None:
    """The record of this very run, if it was finished before, on whatever machine."""
    path = record_path(folder, run)
    if not path.exists():
        return None
    record = json.loads(path.read_text())
    return None if main.changed_settings(record, run) else record


def train_and_record(folder: Path, run: argparse.Namespace) -> dict:
    """Trains one run to its end and writes its record: its metrics, and, unless it served to
    choose, what the trained network makes of both sets."""
    with contextlib.redirect_stdout(io.StringIO()):
        main.run(run)
    record = json.loads(main.metrics_path(run).read_text())
    if not run.validation:
        model = main.load_model(main.checkpoint_path(run))
        trn_set, tst_set = (MNIST(path) for path in find_splits(run.data_dir))
        record["train_accuracy"] = (read(model, trn_set) == trn_set.labels).double().mean().item()
        digits = read(model, tst_set)
        record["misread"] = {
            index: [tst_set.labels[index].item(), digits[index].item()]
            for index in (digits != tst_set.labels).nonzero().flatten().tolist()
        }
    with whole_file(record_path(folder, run)) as file:
        file.write((json.dumps(record, indent=1) + "\n").encode())
    return record


def read(model: nn.Module, images: MNIST) -> torch.Tensor:
    """The digit that `model` takes each image for: int64 [N]."""
    return logits_of(model, images).argmax(dim=1)


def logits_of(model: nn.Module, images: MNIST) -> torch.Tensor:
    """What `model` makes of each image, in order, on the CPU: float32 [N, 10]."""
    loader = data_loader(images, main.TEST_BATCH, shuffle=False)
    return main.predict(model, loader, torch.device("cpu"))


def save_weights(path: Path, run: argparse.Namespace) -> None:
    """Writes the weights of a run, and nothing else, as a checkpoint for --evaluate."""
    weights = main.load_model(main.checkpoint_path(run)).state_dict()
    main.write_checkpoint(
        path,
        {"format": main.CHECKPOINT_FORMAT, "model": run.model, "weights": weights, "ema": None},
    )


# --- from records to numbers ------------------------------------------------------------------


def load_records(folder: Path, runs: Plan) -> dict[str, list[dict]]:
    """The records of those of `runs` that are finished, by row and then by seed. The rows of the
    ablation have the same seeds, those that each of them has: only so can they be compared seed by
    seed. So have the two rows of the recipe.

    Raises:
        RunError: too few runs are finished.
    """
    found: dict[str, dict[int, dict]] = {row: {} for row, _ in runs}
    for row, run in runs:
        if record := find_record(folder, run):
            found[row][run.seed] = record
    for compared in (ROWS, {RECIPE, WITHOUT_UNDEFORMED} & found.keys()):
        everywhere = set.intersection(*(set(found[row]) for row in compared))
        for row in compared:
            found[row] = {seed: found[row][seed] for seed in everywhere}
    if min(len(records) for records in found.values()) < 2:
        raise main.RunError(f"{folder}: has no 2 seeds of every row yet; run report.py to its end")
    return {row: [by_seed[seed] for seed in sorted(by_seed)] for row, by_seed in found.items()}


def load_speeds() -> dict:
    """What tests/benchmark.py measured.

    Raises:
        RunError: it has not measured everything.
    """
    path = REPORT / "speed.json"
    speed = json.loads(path.read_text()) if path.exists() else {}
    if missing := SPEEDS - speed.keys():
        raise main.RunError(
            f"{path}: has no {min(missing)}; git checkout brings it back, "
            "python tests/benchmark.py measures anew"
        )
    return speed


def accuracies(records: list[dict], split: str = "test") -> np.ndarray:
    """Of each run's final network, in percent: on the test set, or on the 60,000 images that it
    was trained on, undeformed."""
    if split == "train":
        return 100 * np.array([record["train_accuracy"] for record in records])
    return 100 * np.array([record["history"][-1]["test_accuracy"] for record in records])


def paired_difference(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """The mean of first - second, seed by seed, and how far its 95 % confidence interval reaches
    to either side (Student 1908)."""
    differences = first - second
    runs = len(differences)
    reach = T95[min(runs - 1, len(T95)) - 1] * differences.std(ddof=1) / math.sqrt(runs)
    return differences.mean(), reach


def mcnemar(first: dict, second: dict) -> tuple[int, int, float]:
    """How many test images only the first of two networks misreads, how many only the second,
    and the probability of so uneven a split if both were equally good (McNemar 1947, exact)."""
    only_first = len(first["misread"].keys() - second["misread"].keys())
    only_second = len(second["misread"].keys() - first["misread"].keys())
    either = only_first + only_second
    tail = sum(math.comb(either, k) for k in range(min(only_first, only_second) + 1))
    return only_first, only_second, min(1.0, 2 * tail / 2**either)


def confusions(records: list[dict]) -> np.ndarray:
    """How often, in the mean over runs, digit [row] of the test set was read as [column]."""
    counts = np.zeros((10, 10))
    for record in records:
        for label, digit in record["misread"].values():
            counts[label, digit] += 1 / len(records)
    return counts


def multiply_adds(model: nn.Module) -> int:
    """The multiplications, each with its addition, that one image costs."""
    total = 0

    def count(layer: nn.Module, inputs: tuple, outputs: torch.Tensor) -> None:
        nonlocal total
        total += outputs.numel() * layer.weight[0].numel()  # each output sums so many products

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    model(torch.zeros(1, 1, 28, 28))
    return total


# --- tables -----------------------------------------------------------------------------------


def spread(values: np.ndarray) -> str:
    return f"{values.mean():.2f} ± {values.std(ddof=1):.2f}"


def paired(difference: float, reach: float) -> str:
    """A paired difference and how far its confidence interval reaches."""
    return f"{difference:+z.2f} ± {reach:.2f}"


def make_tables(records: dict[str, list[dict]], speed: dict) -> dict[str, str]:
    """The parts of README.md that are made from records, as Markdown, by their marker. Without
    runs to choose by, the tables of choices and of the recipe are left as they are."""
    tables = {
        "headline": headline_table(records),
        "models": models_table(records, speed),
        "confusions": confusions_table(records),
        "ablation": ablation_table(records),
        "speed": speed_table(speed),
        "fast": fast_table(speed["fast"]),
        "torchrun": torchrun_table(speed["torchrun"]),
    }
    if records.keys() >= CHOICES.keys():
        tables["choices"] = choices_table(records)
        tables["recipe"] = recipe_table(records)
    return tables


def headline_table(records: dict[str, list[dict]]) -> str:
    lines = [
        "| after training | seeds | epochs | test accuracy (%) | errors in 10,000 |",
        "|---|---:|---:|---:|---:|",
    ]
    for title, row in (
        ("MLP", "mlp"),
        ("LeNet-5", "lenet5"),
        ("**LeNet-5, `--regularize`**", RECIPE),
    ):
        runs = records[row]
        epochs = len(runs[0]["history"])
        test = accuracies(runs)
        errors = 100 * (100 - test.mean())  # in 10,000
        lines.append(f"| {title} | {len(runs)} | {epochs} | {spread(test)} | {errors:.0f} |")
    return "\n".join(lines)


def models_table(records: dict[str, list[dict]], speed: dict) -> str:
    """LeNet-5 and the MLP, trained alike, side by side."""
    lenet5, mlp = records["lenet5"], records["mlp"]
    seconds = speed["epoch"]["main.py"], speed["epoch"]["main.py --model mlp"]
    macs = [multiply_adds(main.MODELS[name]()) for name in ("lenet5", "mlp")]
    difference, reach = paired_difference(accuracies(lenet5), accuracies(mlp))
    only_lenet5, only_mlp, probability = mcnemar(lenet5[0], mlp[0])
    return "\n".join(
        [
            f"| {len(lenet5)} seeds, {len(lenet5[0]['history'])} epochs | LeNet-5 | MLP |",
            "|---|---:|---:|",
            f"| parameters | {lenet5[0]['parameters']:,} | {mlp[0]['parameters']:,} |",
            f"| multiply-adds an image | {macs[0]:,} | {macs[1]:,} |",
            f"| seconds an epoch (batch 64) | {seconds[0]:.1f} | {seconds[1]:.1f} |",
            f"| training accuracy (%) | {spread(accuracies(lenet5, 'train'))} "
            f"| {spread(accuracies(mlp, 'train'))} |",
            f"| test accuracy (%) | {spread(accuracies(lenet5))} | {spread(accuracies(mlp))} |",
            f"| test images that, of the two with seed 0, only this one misreads "
            f"| {only_lenet5} | {only_mlp} |",
            "",
            f"LeNet-5 reads {difference:.2f} ± {reach:.2f} percentage points more than the MLP "
            f"(95 % confidence interval over seeds). McNemar's test on the two networks with "
            f"seed 0: p = {probability:.1g}.",
        ]
    )


def confusions_table(records: dict[str, list[dict]]) -> str:
    """What each network most often takes a digit for."""
    columns = []
    for row in ("lenet5", "mlp", RECIPE):
        counts = confusions(records[row])
        most = np.argsort(-counts, axis=None, kind="stable")[:6]
        columns.append(
            [
                f"{label} as {digit}: {counts[label, digit]:.1f}"
                for label, digit in zip(*np.unravel_index(most, counts.shape), strict=True)
            ]
        )
    lines = ["| LeNet-5 | MLP | LeNet-5, `--regularize` |", "|---|---|---|"]
    return "\n".join(lines + [f"| {' | '.join(cells)} |" for cells in zip(*columns, strict=True)])


def effects(records: dict[str, list[dict]]) -> Iterator[tuple[str, str, float, float]]:
    """Yields, for each technique, what it adds to plain LeNet-5 and to all the others: its name,
    "alone" or "with the others", the difference in test accuracy (points), and its reach."""
    plain, every = accuracies(records["lenet5"]), accuracies(records["lenet5+all"])
    for name in TECHNIQUES:
        alone, without = accuracies(records[f"lenet5+{name}"]), f"lenet5+all-{name}"
        yield name, "alone", *paired_difference(alone, plain)
        yield name, "with the others", *paired_difference(every, accuracies(records[without]))


def verdict(difference: float, reach: float) -> str:
    if abs(difference) <= reach:
        return "not shown"
    return "**helps**" if difference > 0 else "hurts"


def ablation_table(records: dict[str, list[dict]]) -> str:
    """Every row of the ablation, and what each technique adds."""
    found = {(name, company): numbers for name, company, *numbers in effects(records)}
    plain = accuracies(records["lenet5"])
    cells = dict.fromkeys(ROWS, ("", ""))
    for row in ("mlp", "lenet5+all"):
        difference, reach = paired_difference(accuracies(records[row]), plain)
        cells[row] = (paired(difference, reach), "")
    for name in TECHNIQUES:
        for row, company in (
            (f"lenet5+{name}", "alone"),
            (f"lenet5+all-{name}", "with the others"),
        ):
            difference, reach = found[name, company]
            cells[row] = (paired(difference, reach), verdict(difference, reach))
    epochs = len(records["lenet5"][0]["history"])
    lines = [
        f"| {len(plain)} seeds, {epochs} epochs | training accuracy (%) | test accuracy (%) | gap "
        "| difference | the technique |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for row in ROWS:
        train, test = accuracies(records[row], "train"), accuracies(records[row])
        lines.append(
            f"| {ROW_TITLES[row]} | {spread(train)} | {spread(test)} "
            f"| {(train - test).mean():+z.2f} | {cells[row][0]} | {cells[row][1]} |"
        )
    return "\n".join(lines)


def choices_table(records: dict[str, list[dict]]) -> str:
    """What was tried on held-out training images."""
    lines = [
        f"| on {HELD_OUT:,} held-out images | epochs | seeds | accuracy (%) | loss |",
        "|---|---:|---:|---:|---:|",
    ]
    for row, options in (CHOICES | LONG_CHOICES).items():
        runs = records[row]
        epochs = len(runs[0]["history"])
        loss = np.mean([record["history"][-1]["test_loss"] for record in runs])
        lines.append(
            f"| `{options}` | {epochs} | {len(runs)} | {spread(accuracies(runs))} | {loss:.4f} |"
        )
    return "\n".join(lines)


def recipe_table(records: dict[str, list[dict]]) -> str:
    """What the recipe's last epochs, on undeformed images, add."""
    recipe, without = accuracies(records[RECIPE]), accuracies(records[WITHOUT_UNDEFORMED])
    difference, reach = paired_difference(recipe, without)
    epochs = len(records[RECIPE][0]["history"])
    return "\n".join(
        [
            f"| {len(recipe)} seeds, {epochs} epochs | test accuracy (%) | difference "
            "| the undeformed epochs |",
            "|---|---:|---:|---|",
            f"| `--regularize` | {spread(recipe)} | | |",
            f"| `--regularize --undeformed 0` | {spread(without)} "
            f"| {paired(difference, reach)} | {verdict(difference, reach)} |",
        ]
    )


def speed_table(speed: dict) -> str:
    """What tests/benchmark.py measured."""
    epoch, start, memory, scaling = (
        speed[part] for part in ("epoch", "start", "memory", "scaling")
    )
    lines = [
        "| one epoch, 60,000 + 10,000 images, batch 64 | seconds | times `main.py` |",
        "|---|---:|---:|",
    ]
    for name, seconds in epoch.items():
        lines.append(f"| {name} | {seconds:.1f} | {seconds / epoch['main.py']:.2f} |")
    imports = "import torch, matplotlib.pyplot"
    first = start["main.py to its first step"]
    whole, begun = start[imports], start[f"{imports}, without the process's end"]
    used, used_first = (
        memory[name] - memory["import torch"] for name in ("main.py", "main.py, first run")
    )
    lines += [
        "",
        "| the whole process | measured | compared with | ratio |",
        "|---|---:|---|---:|",
        f"| from `python main.py` to the first step | {first:.1f} s "
        f'| `python -c "{imports}"`: {whole:.1f} s | {first / whole:.2f} |',
        f"| | | the same without the process's end: {begun:.1f} s | {first / begun:.2f} |",
        "| decoding 70,000 PNGs, in the first run only "
        f"| {start['reading 70,000 PNGs the first time']:.1f} s | | |",
        f"| peak memory, above `import torch` | {used:.0f} MB "
        f"| the first run, which decodes: {used_first:.0f} MB | {used / used_first:.2f} |",
    ]
    for what, title, unit in (
        ("decoding", "µs to decode an image", "us"),
        ("epoch", "µs an image and epoch", "us"),
        ("memory", "bytes of memory an image", "bytes"),
    ):
        once, four = (scaling[f"{what}, {times}x ({unit})"] for times in (1, 4))
        lines.append(
            f"| {title}, 4 times MNIST | {four:.0f} | once MNIST: {once:.0f} | {four / once:.2f} |"
        )
    return "\n".join([*lines, "", f"Measured on {speed['machine']}."])


def fast_table(fast: dict[str, float]) -> str:
    """README's command for 99 %, beside a network made for it."""
    lines = ["| | seconds of training | test accuracy (%), 10 seeds |", "|---|---:|---:|"]
    for title, name in (
        ("LeNet-5 by the command above: 61,706 parameters", "LeNet-5"),
        ("train_mnist_fast's network: 215,194 parameters, 1 epoch, batch 256", "FastNet"),
    ):
        accuracy = f"{fast[f'{name} (%)']:.2f} ± {fast[f'{name} (% std)']:.2f}"
        lines.append(f"| {title} | {fast[f'{name} (s)']:.1f} | {accuracy} |")
    return "\n".join(lines)


def torchrun_table(seconds: dict[str, float]) -> str:
    """What an epoch takes one process and two."""
    lines = ["| seconds on 2 cores | 1 process | 2 processes | ratio |", "|---|---:|---:|---:|"]
    for title, name in (
        ("an epoch of `main.py`, batch 64", "main.py --batch-size 64"),
        ("an epoch of `main.py`, batch 512", "main.py --batch-size 512"),
    ):
        one, two = seconds[f"{name}, 1"], seconds[f"{name}, 2"]
        lines.append(f"| {title} | {one:.1f} | {two:.1f} | {one / two:.2f} |")
    return "\n".join(lines)


def replace_tables(text: str, tables: dict[str, str]) -> str:
    """`text` with each table between its markers, <!-- table NAME --> and <!-- end NAME -->.

    Raises:
        RunError: the markers of a table are missing.
    """
    for name, table in tables.items():
        start, end = f"<!-- table {name} -->", f"<!-- end {name} -->"
        before, found_start, rest = text.partition(start)
        _, found_end, after = rest.partition(end)
        if not (found_start and found_end):
            raise main.RunError(f"README.md: has no {start} with {end}; put the two lines back")
        text = f"{before}{start}\n{table}\n{end}{after}"
    return text


# --- figures ----------------------------------------------------------------------------------


def new_figure(width: float, height: float, title: str) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, fontweight="bold")
    return figure


def save_figure(figure: "Figure", path: Path) -> None:
    with whole_file(path) as file:
        figure.savefig(file, format="png", dpi=120)


def draw_curves(path: Path, title: str, rows: dict[str, list[dict]]) -> None:
    """Four panels: loss (above) and accuracy (below), on training (left) and test set (right), by
    epoch; each line the mean over seeds, each band one standard deviation to either side."""
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(9, 7, title)
    axes = figure.subplots(2, 2, sharex=True, sharey="row")
    for row, (quantity, label) in enumerate((("loss", "cross-entropy"), ("accuracy", "%"))):
        for column, split in enumerate(("train", "test")):
            ax = axes[row, column]
            for name, records in rows.items():
                runs = [
                    [entry[f"{split}_{quantity}"] for entry in record["history"]]
                    for record in records
                ]
                values = np.array(runs) * (100 if quantity == "accuracy" else 1)
                mean, std = values.mean(axis=0), values.std(axis=0, ddof=1)
                epochs = np.arange(1, len(mean) + 1)
                ax.plot(epochs, mean, "o-" if len(mean) == 1 else "-", label=name)
                ax.fill_between(epochs, mean - std, mean + std, alpha=0.25)
            ax.set_title(f"{'training' if split == 'train' else 'test'} {quantity}")
            ax.set_xlabel("epoch")
            ax.set_ylabel(f"{quantity} ({label})")
            ax.tick_params(labelbottom=True, labelleft=True)
            ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            ax.grid(alpha=0.3)
            if quantity == "loss":
                ax.set_yscale("log")
            elif len(mean) > 2:
                ax.set_ylim(95, 100.2)  # below is only the first epoch or two
            ax.legend()
    save_figure(figure, path)


def draw_ablation(path: Path, records: dict[str, list[dict]]) -> None:
    """What each technique adds, alone and to the others: dots, and 95 % confidence intervals."""
    figure = new_figure(8.5, 3.8, "What each technique adds to LeNet-5's test accuracy")
    ax = figure.subplots()
    places = {name: -place for place, name in enumerate(TECHNIQUES)}
    for company, shift, colour in (
        ("alone", 0.12, "tab:blue"),
        ("with the others", -0.12, "tab:red"),
    ):
        found = [effect for effect in effects(records) if effect[1] == company]
        ax.errorbar(
            [difference for _, _, difference, _ in found],
            [places[name] + shift for name, *_ in found],
            xerr=[reach for *_, reach in found],
            fmt="o",
            capsize=4,
            color=colour,
            label=company,
        )
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_yticks(list(places.values()), [TITLES[name] for name in places])
    ax.set_xlabel(
        f"percentage points of test accuracy, with 95 % confidence interval "
        f"({len(records['lenet5'])} seeds, paired)"
    )
    ax.grid(axis="x", alpha=0.3)
    ax.legend()
    save_figure(figure, path)


def draw_confusions(path: Path, records: dict[str, list[dict]]) -> None:
    """The errors of three networks: how often each digit was read as each other."""
    figure = new_figure(13, 4.8, "Test images misread, in the mean over seeds")
    most = confusions(records["mlp"]).max()
    for ax, (row, title) in zip(
        figure.subplots(1, 3),
        {"mlp": "MLP", "lenet5": "LeNet-5", RECIPE: "LeNet-5, --regularize"}.items(),
        strict=True,
    ):
        counts = confusions(records[row])
        main.draw_confusion(ax, counts, "{:.1f}", most)
        ax.set_title(f"{title}: {counts.sum():.0f} of 10,000")
    save_figure(figure, path)


def draw_misread(path: Path, weights: Path, tst_set: MNIST) -> None:
    """The test images that the report's trained network misreads."""
    probabilities = logits_of(main.load_model(weights), tst_set).softmax(dim=1)
    title = "LeNet-5, --regularize, seed 0"
    main.save_misread(path, title, tst_set.images, tst_set.labels, probabilities)


def draw_augmented(path: Path, images: torch.Tensor) -> None:
    """A few digits (left), each with ten of its augmented versions."""
    versions = 10
    torch.manual_seed(0)
    rows = []
    for image in images:
        copies = augment(image.expand(versions, 1, SIZE, SIZE).contiguous())
        rows.append(torch.cat([image[0], *copies[:, 0]], dim=1))
    figure = new_figure(
        versions + 1, 5.6, "Training images (left), and what --augment makes of them"
    )
    ax = figure.subplots()
    ax.imshow(torch.cat(rows).numpy(), cmap="gray_r")
    ax.axvline(SIZE - 0.5, color="tab:blue")
    ax.axis("off")
    save_figure(figure, path)


def write_report(folder: Path, readme: Path, runs: Plan, speed: dict) -> None:
    """Draws the figures into `folder`, and puts the tables between the markers of README.md."""
    records = load_records(folder, runs)
    trn_set, tst_set = (MNIST(path) for path in find_splits(runs[0][1].data_dir))

    lenet5, mlp, recipe = records["lenet5"], records["mlp"], records[RECIPE]
    draw_curves(folder / "lenet5.png", "LeNet-5, plain", {"LeNet-5": lenet5})
    draw_curves(folder / "mlp.png", "MLP, plain", {"MLP": mlp})
    draw_curves(folder / "lenet5-mlp.png", "LeNet-5 and the MLP", {"LeNet-5": lenet5, "MLP": mlp})
    draw_curves(folder / "regularized.png", "LeNet-5, --regularize", {"--regularize": recipe})
    draw_ablation(folder / "ablation.png", records)
    draw_confusions(folder / "confusions.png", records)
    draw_misread(folder / "misread.png", folder / "lenet5.pt", tst_set)
    firsts = [int((trn_set.labels == digit).nonzero()[0]) for digit in (2, 3, 4, 7, 8)]
    draw_augmented(folder / "augment.png", trn_set[firsts][0])

    text = replace_tables((ROOT / "README.md").read_text(), make_tables(records, speed))
    with whole_file(readme) as file:
        file.write(text.encode())


# --- the program ------------------------------------------------------------------------------


def report(arguments: list[str] | None = None) -> None:
    args = parse_arguments(arguments)
    speed = load_speeds()  # now, not when all is trained: what is missing is told at once
    torch.set_num_threads(1)
    full = (args.seeds, args.epochs) == (SEEDS, None)
    folder = args.results_dir / ("report" if full else "quick-report")
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    runs = planned_runs(args)
    for row, run in share_out(runs):
        if find_record(folder, run) is None:
            start = time.perf_counter()
            record = train_and_record(folder, run)
            if row == RECIPE and run.seed == 0:
                save_weights(folder / "lenet5.pt", run)
            done = sum(find_record(folder, other) is not None for _, other in runs)
            print(
                f"{run.name}: {record['history'][-1]['test_accuracy']:.2%} on the "
                f"{main.watched(run)} set, "
                f"{time.perf_counter() - start:.0f} s; {done} of {len(runs)} runs are done",
                flush=True,
            )
    if os.environ.get("RANK", "0") == "0":
        readme = ROOT / "README.md" if folder.resolve() == REPORT else folder / "README.md"
        write_report(folder, readme, runs, speed)
        print(f"{readme}: its tables are up to date, as are the figures in {folder}")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = main.Parser(
        prog="report.py",
        description="Trains, measures and draws all that README.md reports; with --seeds or "
        "--epochs a small version of it, in results/quick-report.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--seeds", type=main.whole(2), default=SEEDS, help="runs of each row (%(default)s)")
    add("--epochs", type=main.whole(1), help="of every run (as reported)")
    add("--data-dir", type=Path, help="holds train.tar and test.tar (see README.md)")
    add("--results-dir", type=Path, default=Path("results"), help="for what is written (results)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main.start(report, go_on="the same command")
