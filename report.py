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
import os
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import distributed, nn

import main
from dataset import MNIST, data_loader, find_split, split_validation
from support.checkpoint import load_model, write_checkpoint
from support.device import memory_errors, pick_device, set_up_cpu
from support.distributed import is_first_of_torchrun
from support.errors import RunError, run_program
from support.files import atomic_write
from support.options import Parser, add_setting
from support.plots import save_figure
from support.provenance import fingerprint
from support.report import regularization, tables
from support.report.figures import draw_report
from support.report.page import write_page
from support.report.plan import CHOICES, RECIPE_ROW, SEEDS, Plan, planned_runs
from support.report.records import (
    Fingerprints,
    Records,
    final_values,
    find_record,
    load_records,
    write_record,
)
from support.report.speed import load_speeds, speed_table
from support.settings import Settings

ROOT = Path(__file__).resolve().parent
REPORT = ROOT / "results" / "report"

Sets = tuple[MNIST, MNIST]  # the training and the test set


# --- training what is missing -----------------------------------------------------------------


def share_out(runs: Plan) -> Iterator[tuple[str, Settings]]:
    """Yield the runs of this process: all, or, under torchrun, always the next that no process has
    taken. The first process then waits for the others: it writes the report from their records."""
    if not distributed.is_torchelastic_launched():
        yield from runs
        return
    store, rank, processes = next(distributed.rendezvous("env://"))
    # After --max-restarts counting begins anew: the old count has passed what was in progress.
    store = distributed.PrefixStore(os.environ["TORCHELASTIC_RESTART_COUNT"], store)
    while (index := store.add("taken", 1) - 1) < len(runs):  # add returns the new count
        yield runs[index]
    store.add("ended", 1)
    while rank == 0 and store.add("ended", 0) < processes:  # adding 0 reads
        time.sleep(1)


def hold_out(sets: Sets, count: int) -> Sets:
    """Return what to train and to test on: `sets`, or, in place of the test set, `count` images
    held out of the training set."""
    return split_validation(sets[0], count) if count else sets


def fingerprints(sets: Sets, runs: Plan) -> Fingerprints:
    """Return the fingerprints of what each of `runs` is trained and tested on."""
    data = {}
    for count in {settings.validation for _, settings in runs}:
        trn_set, tst_set = hold_out(sets, count)
        title = "validation" if count else "test"
        data[count] = {"training": fingerprint(trn_set), title: fingerprint(tst_set)}
    return data


def train_and_record(
    folder: Path, settings: Settings, sets: Sets, weights_path: Path | None = None
) -> dict:
    """Train one run to its end. Write its record, and return it: its metrics, and, unless images
    were held out, how the trained network classifies both sets.

    Args:
        weights_path: where to write the weights of the network, if anywhere.
    """
    trn_set, tst_set = hold_out(sets, settings.validation)
    device = pick_device(settings.device)
    with contextlib.redirect_stdout(io.StringIO()):
        model, record = main.run(settings, device, trn_set, tst_set)
    if not settings.validation:
        digits = predict_digits(model, trn_set, device)
        record["train_accuracy"] = (digits == trn_set.labels).double().mean().item()
        digits = predict_digits(model, tst_set, device)
        record["misclassified"] = {
            str(index): [tst_set.labels[index].item(), digits[index].item()]
            for index in (digits != tst_set.labels).nonzero().flatten().tolist()
        }
    if weights_path:
        # The weights alone, before the record, with which the run is finished.
        weights = {"model": settings.model, "weights": model.state_dict(), "ema": None}
        write_checkpoint(weights_path, weights)
    write_record(folder, settings, record)
    return record


def predict_digits(model: nn.Module, dataset: MNIST, device: torch.device) -> torch.Tensor:
    """Return what `model`, on `device`, predicts for each image: digits, int64 [N], on the CPU."""
    logits, _ = main.compute_logits(model, data_loader(dataset), device)
    return logits.argmax(dim=1).cpu()


# --- from records to tables and figures -------------------------------------------------------


def readme_tables(records: Records, effects: list[dict]) -> dict[str, str]:
    """Return the tables of README.md, as Markdown, by their marker. `effects`: of the ablation."""
    return {
        "headline": tables.headline_table(records),
        "questions": tables.questions_table(records),
        "epochs": tables.epochs_table(records),
        "models": tables.models_table(records),
        "ablation": regularization.ablation_table(records, effects),
        "recipe": regularization.recipe_table(records),
    }


def engineering_tables(records: Records, speed: dict) -> dict[str, str]:
    """Return the tables of engineering.md, as Markdown, by their marker. With --epochs, those on
    what was chosen stay as committed: these runs are not made."""
    made = {
        "hard": tables.hard_images_table(records),
        **{part: speed_table(measured) for part, measured in speed.items()},
    }
    if CHOICES.keys() <= records.keys():
        made["learning-rates"] = regularization.learning_rates_table(records)
        made["choices"] = regularization.choices_table(records)
    return made


def replace_tables(path: Path, made: dict[str, str]) -> str:
    """Return the text of a file with each table, between <!-- NAME --> and <!-- end NAME -->, made
    new.

    Raises:
        RunError: the markers of a table are missing.
    """
    text = path.read_text(encoding="utf-8")
    for name, content in made.items():
        start, end = f"<!-- {name} -->", f"<!-- end {name} -->"
        before, found, rest = text.partition(start)
        _, ended, after = rest.partition(end)
        if not (found and ended):
            raise RunError(f"{path.name}: has no {start} with {end}; put them back")
        text = f"{before}{start}\n{content}\n{end}{after}"
    return text


def write_report(folder: Path, records: Records, sets: Sets, model: nn.Module, speed: dict) -> None:
    """Draw the figures and the page to draw a digit on into `folder`, and bring README.md and
    engineering.md up to date: in place, if `folder` is the committed one, else as copies in it.

    Args:
        model: the network that is shown.
    """
    trn_set, tst_set = sets
    effects = regularization.effects_of(records)
    for name, figure in draw_report(records, effects, trn_set, tst_set, model).items():
        save_figure(figure, folder / f"{name}.png")
    write_page(folder / "draw.html", model, tst_set.images, tst_set.labels)
    target = ROOT if folder.resolve() == REPORT else folder
    for source, path, made in (
        (ROOT / "README.md", target / "README.md", readme_tables(records, effects)),
        (REPORT / "engineering.md", folder / "engineering.md", engineering_tables(records, speed)),
    ):
        text = replace_tables(source, made)
        with atomic_write(path) as file:
            file.write(text.encode())
    print(
        f"{target / 'README.md'}: its tables are up to date, as are the figures in {folder}; "
        "python -m pytest tests/test_readme.py names the numbers in its sentences that are not"
    )


# --- the program ------------------------------------------------------------------------------


@memory_errors()
def report(arguments: list[str] | None = None) -> None:
    """Train what is missing, then write the report."""
    args = parse_report_arguments(arguments)
    speed = load_speeds(REPORT / "speed.json")  # first: if it is missing, nothing is trained
    set_up_cpu(threads=1)
    full = args.seeds == SEEDS and args.epochs is None
    folder = args.results_dir / ("report" if full else "quick-report")
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    runs = planned_runs(args.seeds, args.epochs, args.data_dir, args.results_dir)
    sets = MNIST(find_split("train", args.data_dir)), MNIST(find_split("test", args.data_dir))
    data = fingerprints(sets, runs)
    [shown] = [s for row, s in runs if row == RECIPE_ROW and s.seed == 0]  # in the pictures
    # A quick look keeps one network for each length: it has to be the one of the numbers.
    weights_path = folder / ("lenet5.pt" if full else f"{shown.name}.pt")
    count_finished(folder, runs, data)  # first: if a record cannot be used, nothing is trained
    for _, settings in share_out(runs):
        lost = settings is shown and not weights_path.exists()
        if lost or find_record(folder, settings, data) is None:
            start = time.perf_counter()
            to_show = weights_path if settings is shown else None
            record = train_and_record(folder, settings, sets, to_show)
            [accuracy] = final_values([record], "accuracy")
            # The line break within the text: otherwise torchrun's processes might print before it.
            print(
                f"{settings.name}: {accuracy:.2%} on the "
                f"{'validation' if settings.validation else 'test'} set, "
                f"{time.perf_counter() - start:.0f} s; "
                f"{count_finished(folder, runs, data)} of {len(runs)} runs are done\n",
                end="",
                flush=True,
            )
    if is_first_of_torchrun():
        records = load_records(folder, runs, data)
        write_report(folder, records, sets, load_model(weights_path), speed)


def count_finished(folder: Path, runs: Plan, data: Fingerprints) -> int:
    """Return how many of `runs` have a record. Raise RunError if one cannot be used."""
    return sum(find_record(folder, settings, data) is not None for _, settings in runs)


def parse_report_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = Parser(
        prog="report.py",
        description="Train, measure and draw all that README.md reports; with --seeds or --epochs "
        "a small version of it, in results/quick-report.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--seeds", type=int, default=SEEDS, help="runs of each row, at least 2 (%(default)s)")
    add("--epochs", type=int, help="epochs of every run (as reported)")
    add_setting(parser, "data_dir")
    add_setting(parser, "results_dir")
    parser.set_defaults(results_dir=Settings.results_dir)
    args = parser.parse_args(arguments)
    if args.seeds < 2 or (args.epochs or 1) < 1:
        parser.error("--seeds must be at least 2, and --epochs 1")
    return args


if __name__ == "__main__":
    run_program(report, resume_hint="the same command")
