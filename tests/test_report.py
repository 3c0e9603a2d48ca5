"""The report: what is committed agrees with itself, and a second person can go on with it."""

import contextlib
import io
import json
import re
import shutil

import numpy as np
import pytest
import torch
from helpers import ROOT, assert_one_line, in_epoch, metrics_of, write_data
from matplotlib.figure import Figure
from torch import distributed

import report
from dataset import MNIST, find_split, split_validation
from support.checkpoint import load_model
from support.errors import RunError
from support.provenance import fingerprint
from support.report import regularization, tables
from support.report.plan import (
    FRESH,
    FRESH_ROWS,
    KNOWN_MARGIN,
    QUESTIONS,
    RECIPE_ROW,
    RECIPE_ROWS,
    ROWS,
    SEEDS,
    planned_runs,
)
from support.report.records import find_record, load_records
from support.report.speed import load_speeds

REPORT = ROOT / "results" / "report"


# --- what is committed ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def committed():
    """The committed records, by row."""
    return load_records(REPORT, planned_runs(SEEDS))


def assert_tables(path, made):
    """Making each table again changes nothing in the file, and it has no other."""
    text = path.read_text(encoding="utf-8")
    assert report.replace_tables(path, made) == text
    assert set(re.findall("<!-- ([a-z0-9-]+) -->", text)) == made.keys()


def test_the_tables_are_what_records_and_the_committed_benchmark_give(committed):
    effects = regularization.effects_of(committed)
    assert_tables(ROOT / "README.md", report.readme_tables(committed, effects))
    speed = load_speeds(REPORT / "speed.json")
    assert_tables(REPORT / "engineering.md", report.engineering_tables(committed, speed))


def test_readme_concludes_what_the_committed_records_say(committed):
    answers = [tables.answer(committed, question) for question in QUESTIONS]
    assert answers == ["yes", "yes", "unclear", "yes"]
    gap, half_width = tables.known_gap(committed)
    assert gap - half_width > -KNOWN_MARGIN
    effects = regularization.effects_of(committed)
    helpful = {(e["name"], e["context"]): e for e in effects if e["significant"]}
    alone = {(name, "alone") for name in ("augment", "label-smoothing", "weight-decay")}
    assert helpful.keys() == alone | {("augment", "with the others")}
    assert all(effect["difference"] > 0 for effect in helpful.values())
    over_images = {key for key, e in helpful.items() if e["over_images"][0] > e["over_images"][1]}
    assert over_images == alone
    parts = regularization.recipe_table(committed).splitlines()[3:]
    assert [line.split(" | ")[-1] for line in parts] == ["**helps** |", "unclear |", "unclear |"]

    def mean(row, quantity):
        histories = [run["history"] for run in tables.fresh(committed, row)]
        return np.mean([[entry[quantity] for entry in history] for history in histories], axis=0)

    mlp, lenet5, long = (mean(row, "test_loss") for row in ("mlp", "lenet5", "lenet5-long"))
    assert mlp[-1] > 1.1 * mlp.min()  # clearly
    assert 7 <= mlp.argmin() <= 11  # about half of 20 epochs
    assert 1.2 * lenet5.min() > lenet5[-1] > lenet5.min()  # slightly
    assert 11 <= lenet5.argmin() <= 15  # about two thirds
    assert long[-1] > 1.3 * lenet5[-1]
    for row in ("mlp", "lenet5"):
        accuracy = mean(row, "test_accuracy")
        assert abs(accuracy[-1] - accuracy[14]) < 0.001  # levels off from epoch 15


def test_no_number_and_no_option_in_a_table_of_readme_can_wrap():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    cells = [line for line in text.splitlines() if line.startswith("|")]
    assert any("\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}" in line for line in cells)
    for line in cells:
        assert not re.search(r" ±|± |\d to | --\w|`--\w", line), line


def test_every_row_of_the_report_has_all_its_seeds(committed):
    seeds = {}
    for row, settings in planned_runs(SEEDS):
        seeds.setdefault(row, []).append(settings.seed)
    for row, planned in seeds.items():
        trained = [run["config"]["seed"] for run in committed[row]]
        if row.startswith(FRESH):  # one after the other, as time allowed
            planned = planned[: len(trained)]
        assert trained == planned, row


def test_every_committed_record_is_that_of_a_planned_run():
    names = {settings.name for _, settings in planned_runs(SEEDS)}
    assert {path.stem for path in (REPORT / "runs").iterdir()} <= names


def test_every_committed_record_has_as_many_errors_as_its_accuracy_says(committed):
    for run in [run for runs in committed.values() for run in runs]:
        if not run["config"]["validation"]:
            accuracy = run["history"][-1]["test_accuracy"]
            assert len(run["misclassified"]) == round(10_000 * (1 - accuracy))


def test_every_picture_of_the_report_is_there():
    for page in (ROOT / "README.md", REPORT / "engineering.md"):
        links = re.findall(r'(?:\]\(|src=")(?!http|#)([^)#"]+)', page.read_text(encoding="utf-8"))
        assert links
        for link in links:
            assert (page.parent / link).exists(), link


def test_readmes_command_for_99_percent_is_the_one_that_was_measured():
    import benchmark  # imports torchvision, so only where it is used

    engineering = (REPORT / "engineering.md").read_text(encoding="utf-8")
    assert f"    python main.py {benchmark.FAST}\n" in engineering


def test_the_committed_network_is_a_lenet5_that_evaluate_can_read():
    weights = torch.load(REPORT / "lenet5.pt", weights_only=True)["weights"]
    assert sum(values.numel() for values in weights.values()) == 61_706
    load_model(REPORT / "lenet5.pt")


@pytest.mark.slow
def test_the_committed_network_reads_the_test_set_as_its_record_says(committed):
    misclassified = committed[RECIPE_ROW][0]["misclassified"]
    tst_set = MNIST(find_split("test"))
    digits = report.predict_digits(load_model(REPORT / "lenet5.pt"), tst_set, torch.device("cpu"))
    wrong = (digits != tst_set.labels).nonzero().flatten().tolist()
    # Another processor rounds otherwise, which may turn a digit that is on the edge.
    assert len({str(index) for index in wrong} ^ misclassified.keys()) <= 2
    assert len(wrong) <= 45


# --- a report from its beginning --------------------------------------------------------------

QUICK = ("--seeds", 2, "--epochs", 1)
QUICK_ROWS = len(ROWS) + len(RECIPE_ROWS) + len(FRESH_ROWS)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A folder of so few images that a report takes seconds."""
    return write_data(tmp_path_factory.mktemp("small"), train=120, test=30)


@pytest.fixture(scope="module")
def made(small, tmp_path_factory):
    """The results of a quick report, made once, and the lines that it printed."""
    results, stdout = tmp_path_factory.mktemp("made"), io.StringIO()
    with contextlib.redirect_stdout(stdout), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda *_, **__: None)  # which takes most of the time
        report.report([*map(str, QUICK), f"--data-dir={small}", f"--results-dir={results}"])
    return results, stdout.getvalue().splitlines()


@pytest.fixture
def folder(made, results, without_plots):
    """A copy of this report, which `start` goes on with."""
    return shutil.copytree(made[0], results) / "quick-report"


def page_of(folder):
    """The page to draw a digit on, with the weights of the network that is shown."""
    return (folder / "draw.html").read_bytes()


def test_one_command_makes_the_report(made):
    results, out = made
    folder = results / "quick-report"
    assert len(list((folder / "runs").iterdir())) == 2 * QUICK_ROWS
    assert len(out) == 2 * QUICK_ROWS + 1
    assert out[-2].endswith(f"; {2 * QUICK_ROWS} of {2 * QUICK_ROWS} runs are done")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"results/report/([\w-]+\.png)", readme))
    assert shown - {"draw.png", "photo.png", "run.png"} == {
        path.name for path in folder.glob("*.png")
    }
    assert len(page_of(folder)) < 600_000
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert re.search(r"\| LeNet-5, regularized \| 1 \| [0-9.]+ \| [0-9.]+\s±\s[0-9.]+ \|", text)


def test_a_run_or_a_network_that_is_missing_is_trained_again_and_nothing_else(start, small, folder):
    readme, text = (ROOT / "README.md").read_bytes(), (folder / "README.md").read_bytes()
    page, records = page_of(folder), {p: p.stat().st_mtime_ns for p in folder.glob("runs/*")}
    shown = folder / "runs" / "recipe-1-epochs-seed-0.json"
    lost = folder / "runs" / "mlp-1-epochs-seed-10.json"
    lost.unlink()
    [network] = folder.glob("*.pt")
    network.unlink()
    out = start(*QUICK, data=small, program="report").stdout.splitlines()
    assert [line.split(":")[0] for line in out[:-1]] == [shown.stem, lost.stem]
    again = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*")}
    assert {path for path in records if records[path] != again[path]} == {lost, shown}
    assert network.exists()
    assert page_of(folder) == page
    assert (folder / "README.md").read_bytes() == text
    assert (ROOT / "README.md").read_bytes() == readme


def test_the_network_that_is_shown_is_the_one_that_the_numbers_tell_of(start, small, folder):
    """Of its length, too: a longer quick look keeps its network beside that of a shorter one."""
    for path in folder.glob("runs/*"):  # of a longer one, so that few runs are left to train
        record = json.loads(path.read_text(encoding="utf-8"))
        record["config"]["epochs"] = 2
        record["history"] *= 2
        record["history"][1] = record["history"][0] | {"epoch": 2}
        longer = path.with_name(path.name.replace("-1-epochs", "-2-epochs"))
        longer.write_text(json.dumps(record), encoding="utf-8")
    first = page_of(folder)
    start("--seeds", 2, "--epochs", 2, data=small, program="report")
    assert page_of(folder) != first
    start(*QUICK, data=small, program="report")
    assert page_of(folder) == first


def test_a_damaged_record_stops_the_report_with_one_line(start, small, folder):
    path = folder / "runs" / "lenet5-1-epochs-seed-0.json"
    path.write_text("{", encoding="utf-8")
    assert_one_line(start(*QUICK, data=small, program="report", code=1), f"{path}: is damaged")


def test_a_record_of_other_images_stops_the_report_with_one_line(start, tmp_path, folder):
    other = write_data(tmp_path / "other", train=110, test=30)
    process = start(*QUICK, data=other, program="report", code=1)
    assert_one_line(process, f"{folder}/runs/", "belongs to other images", "--results-dir")


def test_missing_speeds_are_told_before_anything_is_trained(start, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "REPORT", tmp_path / "report")
    process = start(*QUICK, program="report", code=1)
    assert_one_line(process, f"{tmp_path / 'report' / 'speed.json'}: ", "benchmark.py")


@pytest.fixture
def sets(small):
    return tuple(MNIST(find_split(split, small)) for split in ("train", "test"))


def planned(row, epochs, results):
    return dict(planned_runs(2, epochs, results_dir=results))[row]


def test_after_a_restart_by_torchrun_no_run_is_left_out(monkeypatch):
    store = distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    environment = {
        "TORCHELASTIC_RUN_ID": "any",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": f"{store.port}",
        "RANK": "0",
        "WORLD_SIZE": "1",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    runs = planned_runs(2, 1)[:4]
    killed = report.share_out(runs)
    assert [next(killed), next(killed)] == runs[:2]
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert list(report.share_out(runs)) == runs


def test_a_record_tells_how_the_final_network_reads_both_sets(sets, results, without_plots):
    settings = planned("lenet5", 2, results)
    settings.batch_size = 5  # more steps: so that it reads some digits, and not others
    record = report.train_and_record(results, settings, sets, results / "lenet5.pt")
    assert find_record(results, settings, report.fingerprints(sets, [("", settings)])) == record
    model = load_model(results / "lenet5.pt")
    with torch.no_grad():
        (trn_digits, trn_labels), (tst_digits, tst_labels) = (
            (model(dataset[:][0]).argmax(dim=1), dataset.labels) for dataset in sets
        )
    assert record["train_accuracy"] == pytest.approx((trn_digits == trn_labels).double().mean())
    assert record["misclassified"] == {
        str(index): [int(label), int(digit)]
        for index, (label, digit) in enumerate(zip(tst_labels, tst_digits, strict=True))
        if label != digit
    }
    assert record["train_accuracy"] > 0.2
    assert 0 < len(record["misclassified"]) < 25


def test_a_run_that_holds_images_out_watches_those_alone(sets, results, without_plots):
    [settings] = [s for row, s in planned_runs(2, results_dir=results) if row == "validation"][:1]
    settings.epochs, settings.validation = 1, 20
    record = report.train_and_record(results, settings, sets)
    assert find_record(results, settings, report.fingerprints(sets, [("", settings)])) == record
    assert "val_accuracy" in record["history"][0]
    trn_set, val_set = split_validation(sets[0], 20)
    assert record["data"] == {
        "training": fingerprint(trn_set),
        "validation": fingerprint(val_set),
    }
    assert not {"misclassified", "train_accuracy"} & record.keys()


def test_a_run_that_was_stopped_loses_at_most_an_epoch(
    sets, results, monkeypatch, tmp_path, without_plots
):
    settings = planned("lenet5+augment", 5, results)
    with monkeypatch.context() as patch:
        in_epoch(patch, 4, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            report.train_and_record(results, settings, sets)
    data = report.fingerprints(sets, [("", settings)])
    assert find_record(results, settings, data) is None
    kept = metrics_of(results, settings.name)["history"]
    record = report.train_and_record(results, settings, sets)
    assert find_record(results, settings, data)["history"] == record["history"]
    assert record["history"][:3] == kept  # their seconds, too: not trained again

    settings.results_dir = tmp_path / "elsewhere"
    whole = report.train_and_record(results, settings, sets)
    for entry, expected in zip(record["history"], whole["history"], strict=True):
        assert {**entry, "seconds": 0} == {**expected, "seconds": 0}
    assert record["misclassified"] == whole["misclassified"]


def test_the_network_is_saved_before_its_run_counts_as_finished(sets, results, without_plots):
    results.mkdir()
    (results / "runs").touch()  # in the place of the records' folder
    with pytest.raises(OSError, match="runs"):
        report.train_and_record(results, planned(RECIPE_ROW, 1, results), sets, results / "x.pt")
    load_model(results / "x.pt")


def test_a_table_is_replaced_and_nothing_else(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("a\n<!-- table -->\nold\nlines\n<!-- end table -->\nb ±\n", encoding="utf-8")
    assert report.replace_tables(path, {"table": "| a |\n| \\1 |"}) == (
        "a\n<!-- table -->\n| a |\n| \\1 |\n<!-- end table -->\nb ±\n"
    )


def test_a_table_without_its_markers_is_named(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("<!-- b -->\nold\n<!-- end c -->\n", encoding="utf-8")
    for name in ("a", "b", "c"):
        missing = f"README.md: has no <!-- {name} --> with <!-- end {name} -->"
        with pytest.raises(RunError, match=missing):
            report.replace_tables(path, {name: "new"})


@pytest.mark.slow
def test_torchrun_shares_the_runs_out(start, small):
    lines = start(*QUICK, data=small, program="report", processes=2).stdout.splitlines()
    runs = [line.split(":")[0] for line in lines if " runs are done" in line]
    assert len(runs) == len(set(runs)) == 2 * QUICK_ROWS
    assert "README.md: its tables" in lines[-1]
