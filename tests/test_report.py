"""The report: its statistics, its tables, and that a second person can go on with it."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import ROOT, write_data

import main
import report
from dataset import MNIST, find_splits
from model import CustomMLP, LeNet5

REPORT = ROOT / "results" / "report"


def committed_runs():
    return report.planned_runs(report.parse_arguments([]))


def test_readmes_tables_are_what_the_committed_records_give():
    records = report.load_records(REPORT, committed_runs())
    speed = report.load_speeds()
    readme = (ROOT / "README.md").read_text()
    for name, table in report.make_tables(records, speed).items():
        shown = readme.split(f"<!-- table {name} -->\n")[1].split(f"\n<!-- end {name} -->")[0]
        assert shown == table, name
    assert readme.count("<!-- table ") == len(report.make_tables(records, speed))


def test_readmes_command_for_99_percent_is_the_one_that_was_measured():
    import benchmark  # imports torchvision, so only where it is used

    assert f"    python main.py {benchmark.FAST}\n" in (ROOT / "README.md").read_text()


def record_of_the_committed_network():
    runs = committed_runs()
    [run] = [run for row, run in runs if row == report.RECIPE and run.seed == 0]
    return report.find_record(REPORT, run)


def test_the_committed_network_is_the_recipe_of_seed_0():
    record = record_of_the_committed_network()
    checkpoint = torch.load(REPORT / "lenet5.pt", weights_only=True)
    assert sum(weights.numel() for weights in checkpoint["weights"].values()) == 61_706
    assert len(record["misread"]) == pytest.approx(
        10_000 * (1 - record["history"][-1]["test_accuracy"])
    )


@pytest.mark.slow
def test_the_committed_network_reads_the_test_set_as_its_record_says():
    misread = record_of_the_committed_network()["misread"]
    tst_set = MNIST(find_splits()[1])
    digits = report.read(main.load_model(REPORT / "lenet5.pt"), tst_set)
    wrong = (digits != tst_set.labels).nonzero().flatten().tolist()
    # Another processor rounds otherwise, which may turn a digit that is on the edge.
    assert len({str(index) for index in wrong} ^ misread.keys()) <= 2
    assert len(wrong) <= 45


def test_paired_difference():
    # Student 1908, the two soporifics: mean 1.58, standard deviation 1.23, t = 4.06, n = 10.
    first = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])
    second = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
    difference, reach = report.paired_difference(first, second)
    assert difference == pytest.approx(1.58)
    assert (difference - reach, difference + reach) == pytest.approx((0.70, 2.46), abs=0.005)


def test_the_interval_covers_the_true_difference_95_times_in_100():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(4000):
        difference, reach = report.paired_difference(rng.normal(0.3, 1, 5), np.zeros(5))
        covered += abs(difference - 0.3) <= reach
    assert covered / 4000 == pytest.approx(0.95, abs=0.012)


def test_mcnemar():
    def misreading(*images):
        return {"misread": {str(image): [1, 7] for image in images}}

    # 1 against 8: twice the probability of at most 1 head in 9 throws, 2 * (1 + 9) / 512.
    first, second = misreading(0, 1, 50), misreading(1, 2, 3, 4, 5, 6, 7, 8, 9, 50)
    only_first, only_second, probability = report.mcnemar(first, second)
    assert (only_first, only_second) == (1, 8)
    assert probability == pytest.approx(20 / 512)
    assert report.mcnemar(first, first) == (0, 0, 1.0)


def test_multiply_adds():
    convolutions = 6 * 28 * 28 * 25 + 16 * 10 * 10 * 6 * 25
    assert report.multiply_adds(LeNet5()) == convolutions + 400 * 120 + 120 * 84 + 84 * 10
    assert report.multiply_adds(CustomMLP()) == 62_170 - 250  # all but the biases


@pytest.mark.parametrize(
    ("difference", "reach", "said"),
    [(0.2, 0.1, "helps"), (-0.2, 0.1, "hurts"), (0.1, 0.2, "not shown"), (-0.1, 0.2, "not shown")],
)
def test_what_does_not_help_is_said_not_to(difference, reach, said):
    assert said in report.verdict(difference, reach)


def test_every_row_of_the_ablation_differs_in_its_technique_alone():
    plain = main.parse_arguments(report.ROWS["lenet5"].split())
    every = main.parse_arguments(report.ROWS["lenet5+all"].split())
    for name in report.TECHNIQUES:
        setting = name.replace("-", "_")
        alone = main.parse_arguments(report.ROWS[f"lenet5+{name}"].split())
        without = main.parse_arguments(report.ROWS[f"lenet5+all-{name}"].split())
        for row, other in ((alone, plain), (without, every)):
            different = {key for key in vars(row) if vars(row)[key] != vars(other)[key]}
            assert different == {setting}


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
    monkeypatch.setattr(main, "save_plot", lambda *_: None)  # of each run: most of the time here
    report.report(quick)
    folder = tmp_path / "results" / "quick-report"
    records = {path: path.stat().st_mtime_ns for path in (folder / "runs").iterdir()}
    assert len(records) == 2 * (1 + len(report.ROWS))
    assert len(capsys.readouterr().out.splitlines()) == len(records) + 1
    shown = set(re.findall(r"results/report/([\w-]+\.png)", (ROOT / "README.md").read_text()))
    assert shown - {"speed.png"} == {path.name for path in folder.glob("*.png")}
    text = (folder / "README.md").read_text()
    assert re.search(r"\| LeNet-5 \| 2 \| 1 \| [0-9.]+ ± [0-9.]+ \|", text)
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
    figures = []
    monkeypatch.setattr(report, "save_figure", lambda figure, path: figures.append(figure))
    entry = {"train_loss": 0.7, "test_loss": 0.2, "train_accuracy": 0.8, "test_accuracy": 0.9}
    report.draw_curves(tmp_path / "curves.png", "", {"LeNet-5": 2 * [{"history": [entry]}]})
    for ax in figures[0].axes:
        [line] = ax.lines
        assert line.get_marker() == "o"  # a line of one point has no length
        bottom, top = ax.get_ylim()
        assert bottom < line.get_ydata()[0] < top


def test_a_run_that_was_stopped_loses_at_most_an_epoch(quick, tmp_path, monkeypatch):
    args = report.parse_arguments([*quick, "--epochs", "5"])
    run = dict(report.planned_runs(args))["lenet5+augment"]
    (tmp_path / "runs").mkdir()
    train, epochs = main.train, []

    def counted(*arguments):
        epochs.append(len(epochs))
        if len(epochs) == 4:
            raise KeyboardInterrupt
        return train(*arguments)

    monkeypatch.setattr(main, "train", counted)
    with pytest.raises(KeyboardInterrupt):
        report.train_and_record(tmp_path, run)
    assert report.find_record(tmp_path, run) is None
    record = report.train_and_record(tmp_path, run)
    assert report.find_record(tmp_path, run)["history"] == record["history"]
    assert len(epochs) == 4 + 2  # the fourth, which was stopped, again, and the fifth

    run.results_dir = tmp_path / "elsewhere"
    whole = report.train_and_record(tmp_path, run)
    for entry, expected in zip(record["history"], whole["history"], strict=True):
        assert {**entry, "seconds": 0} == {**expected, "seconds": 0}
    assert record["misread"] == whole["misread"]


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
