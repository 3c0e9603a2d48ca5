"""Make everything that README.md reports: train, measure, draw.

    python report.py                                all of it: many hours
    torchrun --nproc-per-node 2 report.py           the same, the runs shared out
    python report.py --seeds 2 --epochs 1           a quick look, into results/quick-report/

Every row of a table is one setting of main.py, trained with several seeds. A finished run leaves a
record in results/report/runs/ and is not trained again; one that was stopped continues after its
last finished epoch. All numbers, tables and figures are made from the records alone.
"""

import argparse
import contextlib
import io
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import distributed, nn

import main
from dataset import MNIST, data_loader, find_splits, split_validation
from support.argument_types import int_at_least
from support.checkpoint import CHECKPOINT_FORMAT, load_model, write_checkpoint
from support.distributed import pick_device, set_up_cpu
from support.files import RunError, atomic_write, run_program
from support.options import (
    RECIPE,
    Parser,
    add_folders,
    changed_settings,
    config_of,
    parse_arguments,
)
from support.report import error_tables, figures, regularization, tables
from support.report.layers import save_layers
from support.report.page import write_page
from support.report.plan import (
    CHOICE_SEEDS,
    CHOICES,
    EPOCHS,
    FRESH,
    FRESH_ROWS,
    FRESH_SEEDS,
    HELD_OUT,
    LONG_CHOICES,
    LONG_PLAIN,
    LR_CHOICES,
    RECIPE_ROW,
    RECIPE_WITHOUT,
    ROWS,
    SHORT_RECIPE,
    SHORT_RECIPE_OPTIONS,
)
from support.report.records import Records, confusions, final_values
from support.report.speed import fast_table, speed_table, torchrun_table

ROOT = Path(__file__).resolve().parent
REPORT = ROOT / "results" / "report"
SEEDS = 10
SPEEDS = {"epoch", "start", "memory", "scaling", "fast", "torchrun"}  # by benchmark.py

Sets = tuple[MNIST, MNIST]  # the training and the test set
Plan = list[tuple[str, argparse.Namespace]]  # of each run: the row of its table, its settings


# --- training what is missing -----------------------------------------------------------------


def planned_runs(args: argparse.Namespace) -> Plan:
    """Return every run: its row, and its settings.

    First the runs by which --regularize was chosen; then the ablation, seed by seed, so that
    whatever is finished can be compared; then the recipe and its controls. With --epochs, only the
    ablation and the recipe: short runs do not tell how long ones end.
    """
    seeds, recipe_epochs = range(args.seeds), RECIPE["epochs"]
    plan = []
    if not args.epochs:
        for choices, epochs in (
            (LR_CHOICES, EPOCHS),
            (CHOICES, EPOCHS),
            (LONG_CHOICES, recipe_epochs),
        ):
            for row, added in choices.items():
                options = f"{added} --validation {HELD_OUT}"
                plan += [(row, options, epochs, seed) for seed in range(CHOICE_SEEDS)]
    plan += [(row, options, EPOCHS, seed) for seed in seeds for row, options in ROWS.items()]
    plan += [(RECIPE_ROW, "--regularize", recipe_epochs, seed) for seed in seeds]
    if not args.epochs:
        plan += [(LONG_PLAIN, "", recipe_epochs, seed) for seed in seeds]
        plan += [(SHORT_RECIPE, SHORT_RECIPE_OPTIONS, EPOCHS, seed) for seed in seeds]
        for row, options in RECIPE_WITHOUT.items():
            plan += [(row, options, recipe_epochs, seed) for seed in seeds]
        fresh = FRESH_SEEDS if args.seeds == SEEDS else FRESH_SEEDS[: args.seeds]
        for seed in fresh:
            for row, (options, epochs) in FRESH_ROWS.items():
                plan.append((f"{FRESH}{row}", options, epochs, seed))
    runs = []
    for row, options, epochs, seed in plan:
        epochs, name = args.epochs or epochs, row.removeprefix(FRESH)
        # One thread per run: the results do not depend on how many runs and cores there are.
        command = f"{options} --epochs {epochs} --seed {seed} --threads 1 --resume"
        run = parse_arguments([*command.split(), "--name", f"{name}-{epochs}-epochs-seed-{seed}"])
        run.data_dir, run.results_dir = args.data_dir, args.results_dir
        runs.append((row, run))
    return runs


def share_out(runs: Plan) -> Iterator[tuple[str, argparse.Namespace]]:
    """Yield the runs of this process: all, or, under torchrun, always the next that no process has
    taken. The first process then waits for the others: it writes the report from their records."""
    if not distributed.is_torchelastic_launched():
        yield from runs
        return
    store, rank, processes = next(distributed.rendezvous("env://"))
    while (index := store.add("taken", 1) - 1) < len(runs):  # add returns the new count
        yield runs[index]
    store.add("ended", 1)
    while rank == 0 and store.add("ended", 0) < processes:  # adding 0 reads
        time.sleep(1)


def record_path(folder: Path, run: argparse.Namespace) -> Path:
    return folder / "runs" / f"{run.name}.json"


def find_record(folder: Path, run: argparse.Namespace) -> dict | None:
    """Return the record of this run, if it was finished before, with the same settings."""
    path = record_path(folder, run)
    if not path.exists():
        return None
    record = json.loads(path.read_text())
    return None if changed_settings(record["config"], config_of(run)) else record


def train_and_record(
    folder: Path, run: argparse.Namespace, sets: Sets, weights_path: Path | None = None
) -> dict:
    """Train one run to its end. Write its record, and return it: its metrics, and, unless images
    were held out, how the trained network classifies both sets.

    Args:
        weights_path: where to write the weights of the network, if anywhere.
    """
    trn_set, tst_set = split_validation(sets[0], run.validation) if run.validation else sets
    device = pick_device(run.device)
    with contextlib.redirect_stdout(io.StringIO()):
        model, record = main.run(run, device, trn_set, tst_set)
    if not run.validation:
        digits = predict_digits(model, trn_set, device)
        record["train_accuracy"] = (digits == trn_set.labels).double().mean().item()
        digits = predict_digits(model, tst_set, device)
        record["misclassified"] = {
            str(index): [tst_set.labels[index].item(), digits[index].item()]
            for index in (digits != tst_set.labels).nonzero().flatten().tolist()
        }
    if weights_path:
        save_weights(weights_path, run, model)  # before the record, with which the run is finished
    with atomic_write(record_path(folder, run)) as file:
        file.write((json.dumps(record, indent=1) + "\n").encode())
    return record


def predict_digits(model: nn.Module, dataset: MNIST, device: torch.device) -> torch.Tensor:
    """Return what `model`, on `device`, predicts for each image: digits, int64 [N], on the CPU."""
    loader = data_loader(dataset, main.TEST_BATCH, shuffle=False)
    logits, _ = main.compute_logits(model, loader, device)
    return logits.argmax(dim=1).cpu()


def save_weights(path: Path, run: argparse.Namespace, model: nn.Module) -> None:
    """Write the weights of a network, and nothing else, as a checkpoint for --evaluate."""
    weights = model.state_dict()
    write_checkpoint(
        path, {"format": CHECKPOINT_FORMAT, "model": run.model, "weights": weights, "ema": None}
    )


# --- from records to tables and figures -------------------------------------------------------


def load_records(folder: Path, runs: Plan) -> Records:
    """Return the records of those of `runs` that are finished, by row and then by seed.

    Rows that are compared seed by seed are cut to the seeds that all of them have.

    Raises:
        RunError: too few runs are finished.
    """
    runs = [(row, run) for row, run in runs if not row.startswith(FRESH)]  # not yet reported
    found: dict[str, dict[int, dict]] = {row: {} for row, _ in runs}
    for row, run in runs:
        if record := find_record(folder, run):
            found[row][run.seed] = record
    compared = [row for row in found if row not in CHOICES | LONG_CHOICES | LR_CHOICES]
    everywhere = set.intersection(*(set(found[row]) for row in compared))
    for row in compared:
        found[row] = {seed: found[row][seed] for seed in everywhere}
    for row, records in found.items():
        if len(records) < 2:
            raise RunError(f"{folder}: {row} has fewer than 2 seeds; run report.py to its end")
    return {row: [by_seed[seed] for seed in sorted(by_seed)] for row, by_seed in found.items()}


def load_speeds() -> dict:
    """Return what tests/benchmark.py measured.

    Raises:
        RunError: it has not measured everything.
    """
    file = REPORT / "speed.json"
    speed = json.loads(file.read_text()) if file.exists() else {}
    if missing := SPEEDS - speed.keys():
        raise RunError(
            f"{file}: has no {min(missing)}; git checkout brings it back, "
            "python tests/benchmark.py measures again"
        )
    return speed


def readme_tables(records: Records) -> dict[str, str]:
    """Return the tables of README.md, as Markdown, by their marker. With --epochs, those on the
    recipe, its controls and how it was chosen stay as committed: their runs are not made."""
    made = {
        "headline": tables.headline_table(records),
        "epochs": tables.epochs_table(records),
        "models": tables.models_table(records),
        "known": tables.known_table(records),
        "differences": tables.differences_table(records),
        "confusions": error_tables.confusions_table(records),
        "hard": error_tables.hard_images_text(records),
        "ablation": regularization.ablation_table(records),
    }
    if SHORT_RECIPE in records:  # not with --epochs: see planned_runs
        made["control"] = regularization.control_table(records)
        made["choices"] = regularization.choices_table(records)
        made["recipe"] = regularization.recipe_table(records)
    return made


def engineering_tables(speed: dict) -> dict[str, str]:
    """Return the tables of engineering.md, as Markdown, by their marker."""
    return {
        "speed": speed_table(speed),
        "fast": fast_table(speed["fast"]),
        "torchrun": torchrun_table(speed["torchrun"]),
    }


def replace_tables(path: Path, made: dict[str, str]) -> str:
    """Return the text of a file with each table between its markers, <!-- table NAME --> and
    <!-- end NAME -->, made new.

    Raises:
        RunError: the markers of a table are missing.
    """
    text = path.read_text()
    for name, table in made.items():
        start, end = f"<!-- table {name} -->", f"<!-- end {name} -->"
        before, found_start, rest = text.partition(start)
        _, found_end, after = rest.partition(end)
        if not (found_start and found_end):
            raise RunError(f"{path.name}: has no {start} with {end}; put the two lines back")
        text = f"{before}{start}\n{table}\n{end}{after}"
    return text


def draw_figures(folder: Path, records: Records, sets: Sets) -> None:
    """Draw every figure of README.md, and write the page to draw a digit on."""
    trn_set, tst_set = sets
    lenet5, mlp = {"LeNet-5": records["lenet5"]}, {"MLP": records["mlp"]}
    figures.save_curves(folder / "lenet5.png", "LeNet-5, plain", lenet5)
    figures.save_curves(folder / "mlp.png", "MLP, plain", mlp)
    figures.save_curves(folder / "lenet5-mlp.png", "LeNet-5 and the MLP", lenet5 | mlp)
    figures.save_curves(
        folder / "regularized.png",
        "LeNet-5 with and without --regularize",
        {"LeNet-5": records[LONG_PLAIN], "LeNet-5, --regularize": records[RECIPE_ROW]},
        lowest_accuracy=98,
        no_aug_epochs=records[RECIPE_ROW][0]["config"]["no_aug_epochs"],
    )
    effects, seeds = regularization.effects_of(records), len(records["lenet5"])
    figures.save_ablation(folder / "ablation.png", effects, seeds)
    figures.save_confusions(
        folder / "confusions.png",
        {"LeNet-5": confusions(records["lenet5"]), "MLP": confusions(records["mlp"])},
    )
    misclassified = [record["misclassified"] for record in records[RECIPE_ROW]]
    figures.save_hard_digits(folder / "misclassified.png", tst_set.images, misclassified)
    firsts = [int((trn_set.labels == digit).nonzero()[0]) for digit in (2, 3, 4, 7, 8)]
    figures.save_augmented(folder / "augment.png", trn_set[firsts][0])
    model = load_model(folder / "lenet5.pt")
    save_layers(folder / "layers.png", model, tst_set.images[0])
    write_page(folder / "draw.html", model, tst_set.images, tst_set.labels)


def write_report(folder: Path, runs: Plan, sets: Sets, speed: dict) -> None:
    """Draw the figures into `folder`, and bring README.md and engineering.md up to date: in place,
    if `folder` is the committed one, else as copies in `folder`."""
    records = load_records(folder, runs)
    records.setdefault(LONG_PLAIN, records["lenet5"])  # with --epochs, both are equally long
    draw_figures(folder, records, sets)
    target = ROOT if folder.resolve() == REPORT else folder
    for source, path, made in (
        (ROOT / "README.md", target / "README.md", readme_tables(records)),
        (REPORT / "engineering.md", folder / "engineering.md", engineering_tables(speed)),
    ):
        text = replace_tables(source, made)
        with atomic_write(path) as file:
            file.write(text.encode())
    print(f"{target / 'README.md'}: its tables are up to date, as are the figures in {folder}")


# --- the program ------------------------------------------------------------------------------


def report(arguments: list[str] | None = None) -> None:
    """Train what is missing, then write the report."""
    args = parse_report_arguments(arguments)
    speed = load_speeds()  # so that a missing file is reported now, not after hours of training
    set_up_cpu(threads=1)
    full = args.seeds == SEEDS and args.epochs is None
    folder = args.results_dir / ("report" if full else "quick-report")
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    runs = planned_runs(args)
    sets = tuple(MNIST(path) for path in find_splits(args.data_dir))
    for row, run in share_out(runs):
        if find_record(folder, run) is None:
            start = time.perf_counter()
            shown = row == RECIPE_ROW and run.seed == 0  # the network of README.md's pictures
            record = train_and_record(folder, run, sets, folder / "lenet5.pt" if shown else None)
            done = sum(find_record(folder, other) is not None for _, other in runs)
            [accuracy] = final_values([record], "accuracy")
            print(
                f"{run.name}: {accuracy:.2%} on the "
                f"{'validation' if run.validation else 'test'} set, "
                f"{time.perf_counter() - start:.0f} s; {done} of {len(runs)} runs are done",
                flush=True,
            )
    if os.environ.get("RANK", "0") == "0":
        write_report(folder, runs, sets, speed)


def parse_report_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(
        prog="report.py",
        description="Train, measure and draw all that README.md reports; with --seeds or --epochs "
        "a small version of it, in results/quick-report.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--seeds", type=int_at_least(2), default=SEEDS, help="runs of each row (%(default)s)")
    add("--epochs", type=int_at_least(1), help="of every run (as reported)")
    add_folders(parser)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run_program(report, resume_hint="the same command")
