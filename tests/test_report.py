"""The report: its statistics, its tables, and that a second person can go on with it."""

import re
import subprocess
import sys

import pytest
import torch
from helpers import ROOT, write_data

import main
import report
from dataset import MNIST, find_splits
from support import run_files
from support.checkpoint import load_model
from support.options import parse_arguments
from support.report import figures
from support.report.plan import TECHNIQUES

REPORT = ROOT / "results" / "report"


def committed_runs():
    return report.planned_runs(report.parse_report_arguments([]))


def assert_tables(path, made):
    """Each table stands in the file as it is made, and no other does."""
    text = path.read_text()
    for name, table in made.items():
        shown = text.split(f"<!-- table {name} -->\n")[1].split(f"\n<!-- end {name} -->")[0]
        assert shown == table, name
    assert text.count("<!-- table ") == len(made)


def test_readmes_tables_are_what_the_committed_records_give():
    records = report.load_records(REPORT, committed_runs())
    assert all(len(runs) == report.SEEDS for row, runs in records.items() if row in report.ROWS)
    assert_tables(ROOT / "README.md", report.readme_tables(records))


def test_engineerings_tables_are_what_the_committed_benchmark_gives():
    speed = report.load_speeds()
    assert_tables(REPORT / "engineering.md", report.engineering_tables(speed))


def test_every_picture_of_the_report_is_there():
    for page in (ROOT / "README.md", REPORT / "engineering.md"):
        links = re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text())
        assert links
        for link in links:
            assert (page.parent / link).exists(), link


def test_readmes_command_for_99_percent_is_the_one_that_was_measured():
    import benchmark  # imports torchvision, so only where it is used

    assert f"    python main.py {benchmark.FAST}\n" in (REPORT / "engineering.md").read_text()


def record_of_the_committed_network():
    runs = committed_runs()
    [run] = [run for row, run in runs if row == report.RECIPE_ROW and run.seed == 0]
    return report.find_record(REPORT, run)


def test_the_committed_network_is_the_recipe_of_seed_0():
    record = record_of_the_committed_network()
    checkpoint = torch.load(REPORT / "lenet5.pt", weights_only=True)
    assert sum(weights.numel() for weights in checkpoint["weights"].values()) == 61_706
    assert len(record["misclassified"]) == pytest.approx(
        10_000 * (1 - record["history"][-1]["test_accuracy"])
    )


@pytest.mark.slow
def test_the_committed_network_reads_the_test_set_as_its_record_says():
    misclassified = record_of_the_committed_network()["misclassified"]
    tst_set = MNIST(find_splits()[1])
    digits = report.predict_digits(load_model(REPORT / "lenet5.pt"), tst_set, torch.device("cpu"))
    wrong = (digits != tst_set.labels).nonzero().flatten().tolist()
    # Another processor rounds otherwise, which may turn a digit that is on the edge.
    assert len({str(index) for index in wrong} ^ misclassified.keys()) <= 2
    assert len(wrong) <= 45


def test_every_row_of_the_ablation_differs_in_its_technique_alone():
    plain = parse_arguments(report.ROWS["lenet5"].split())
    every = parse_arguments(report.ROWS["lenet5+all"].split())
    for name in TECHNIQUES:
        setting = name.replace("-", "_")
        alone = parse_arguments(report.ROWS[f"lenet5+{name}"].split())
        without = parse_arguments(report.ROWS[f"lenet5+all-{name}"].split())
        for row, other in ((alone, plain), (without, every)):
            different = {key for key in vars(row) if vars(row)[key] != vars(other)[key]}
            assert different == {setting}


def test_the_controls_of_the_recipe_differ_from_it_in_nothing_else():
    settings = {row: vars(run) for row, run in committed_runs() if run.seed == 0}
    recipe = settings[report.RECIPE_ROW]
    expected = {
        "recipe-augment": {"augment", "no_aug_epochs"},
        "recipe-weight-decay": {"weight_decay"},
        "recipe-all-augmented": {"no_aug_epochs"},
        "recipe-short": {"epochs", "no_aug_epochs"},
        "lenet5-long": {"augment", "no_aug_epochs", "weight_decay"},
    }
    assert expected.keys() == report.RECIPE_WITHOUT.keys() | {
        report.SHORT_RECIPE,
        report.LONG_PLAIN,
    }
    for row, parts in expected.items():
        different = {key for key in recipe if settings[row][key] != recipe[key]}
        assert different - {"name", "regularize"} == parts


@pytest.fixture
def quick(tmp_path):
    """The arguments of a report on a few images."""
    data = write_data(tmp_path / "data", train=120, test=30)
    return [
        *("--seeds", "2", "--epochs", "1"),
        *("--data-dir", str(data), "--results-dir", str(tmp_path / "results")),
    ]


def test_one_command_makes_the_report_and_trains_nothing_twice(
    quick, tmp_path, monkeypatch, capsys
):
    readme = (ROOT / "README.md").read_bytes()
    monkeypatch.setattr(
        run_files, "save_run_plot", lambda *_: None
    )  # of each run: most of the time here
    report.report(quick)
    folder = tmp_path / "results" / "quick-report"
    records = {path: path.stat().st_mtime_ns for path in (folder / "runs").iterdir()}
    assert len(records) == 2 * (1 + len(report.ROWS))
    assert len(capsys.readouterr().out.splitlines()) == len(records) + 1
    shown = set(re.findall(r"results/report/([\w-]+\.png)", (ROOT / "README.md").read_text()))
    assert shown - {"draw.png"} == {path.name for path in folder.glob("*.png")}
    assert (folder / "draw.html").stat().st_size < 600_000
    text = (folder / "README.md").read_text()
    assert re.search(
        r"\| \*\*LeNet-5, regularized\*\* \| 61,706 \| 1 \| [0-9.]+ ± [0-9.]+ \|", text
    )
    assert (ROOT / "README.md").read_bytes() == readme

    # A run that is missing is trained again, and only that one.
    lost = next(path for path in records if path.name.startswith("mlp"))
    lost.unlink()
    report.report(quick)
    assert len(capsys.readouterr().out.splitlines()) == 2
    again = {path: path.stat().st_mtime_ns for path in (folder / "runs").iterdir()}
    assert [path for path in records if records[path] != again[path]] == [lost]
    assert (folder / "README.md").read_text() == text


def test_missing_speeds_are_told_before_anything_is_trained(
    quick, tmp_path, monkeypatch, start_here
):
    monkeypatch.setattr(report, "REPORT", tmp_path / "report")
    process = start_here(lambda: report.report(quick))
    assert process.returncode == 1
    [line] = process.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path / 'report' / 'speed.json'}: ")
    assert "benchmark.py" in line
    assert process.stdout == ""


def test_the_curves_of_one_epoch_can_be_seen(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, path: drawn.append(figure))
    entry = {"train_loss": 0.7, "test_loss": 0.2, "train_accuracy": 0.8, "test_accuracy": 0.9}
    figures.save_curves(tmp_path / "curves.png", "", {"LeNet-5": 2 * [{"history": [entry]}]})
    for ax in drawn[0].axes:
        [line] = ax.lines
        assert line.get_marker() == "o"  # a line of one point has no length
        bottom, top = ax.get_ylim()
        assert bottom < line.get_ydata()[0] < top


def test_a_run_that_was_stopped_loses_at_most_an_epoch(quick, tmp_path, monkeypatch):
    args = report.parse_report_arguments([*quick, "--epochs", "5"])
    run = dict(report.planned_runs(args))["lenet5+augment"]
    (tmp_path / "runs").mkdir()
    sets = tuple(MNIST(path) for path in find_splits(args.data_dir))
    train, epochs = main.train, []

    def counted(*arguments):
        epochs.append(len(epochs))
        if len(epochs) == 4:
            raise KeyboardInterrupt
        return train(*arguments)

    monkeypatch.setattr(main, "train", counted)
    with pytest.raises(KeyboardInterrupt):
        report.train_and_record(tmp_path, run, sets)
    assert report.find_record(tmp_path, run) is None
    record = report.train_and_record(tmp_path, run, sets)
    assert report.find_record(tmp_path, run)["history"] == record["history"]
    assert len(epochs) == 4 + 2  # the fourth, which was stopped, again, and the fifth

    run.results_dir = tmp_path / "elsewhere"
    whole = report.train_and_record(tmp_path, run, sets)
    for entry, expected in zip(record["history"], whole["history"], strict=True):
        assert {**entry, "seconds": 0} == {**expected, "seconds": 0}
    assert record["misclassified"] == whole["misclassified"]


def test_the_network_is_saved_before_its_run_counts_as_finished(quick, tmp_path, monkeypatch):
    args = report.parse_report_arguments(quick)
    run = dict(report.planned_runs(args))[report.RECIPE_ROW]
    sets = tuple(MNIST(path) for path in find_splits(args.data_dir))

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "record_path", stopped)
    with pytest.raises(KeyboardInterrupt):
        report.train_and_record(tmp_path, run, sets, tmp_path / "lenet5.pt")
    load_model(tmp_path / "lenet5.pt")


@pytest.mark.slow
def test_torchrun_shares_the_runs_out(quick):
    process = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", ROOT / "report.py", *quick),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    runs = [line.split(":")[0] for line in lines if " runs are done" in line]
    assert len(runs) == len(set(runs)) == 2 * (1 + len(report.ROWS))
    assert "README.md: its tables" in lines[-1]
