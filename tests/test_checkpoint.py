"""A run that was stopped, however, and resumed ends as one that never was."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from helpers import ROOT, write_data

import main
from support.checkpoint import CHECKPOINT_FORMAT, load_checkpoint, write_checkpoint
from support.files import RunError

EVERYTHING = [
    *("--device", "cpu", "--threads", "1", "--epochs", "5", "--batch-size", "32", "--lr", "0.05"),
    *("--schedule", "onecycle", "--augment", "--dropout", "0.2", "--weight-decay", "0.001"),
    *("--label-smoothing", "0.1", "--ema", "0.95", "--no-aug-epochs", "2"),
]


def state_of(results, name="lenet5"):
    """All that a run ends with, but for how long it took."""
    checkpoint = torch.load(results / f"checkpoints/{name}.pt", weights_only=True)
    metrics = json.loads((results / f"metrics/{name}.json").read_text())
    for entry in [*checkpoint["history"], *metrics["history"]]:
        del entry["seconds"]
    return checkpoint, metrics


def assert_same(left, right):
    assert type(left) is type(right)
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left.keys() - {"config"}:
            assert_same(left[key], right[key])
    elif isinstance(left, list | tuple):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    elif isinstance(left, torch.Tensor):
        assert torch.equal(left, right)
    else:
        assert left == right


def options(data_dir, results, *more):
    return [*EVERYTHING, "--data-dir", str(data_dir), "--results-dir", str(results), *more]


def start_run(data_dir, results, *more):
    return start_program("main.py", *options(data_dir, results, *more))


def start_program(program, *arguments):
    return subprocess.Popen(
        [sys.executable, str(ROOT / program), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs, such as these tests may be, are started deaf to Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def wait_for_epoch(process, number):
    for line in process.stdout:
        if re.match(f"epoch +{number}/", line):
            return
    raise AssertionError(process.stderr.read())


def test_resuming_after_any_epoch_changes_no_bit(data_dir, tmp_path, monkeypatch):
    main.main(options(data_dir, tmp_path / "whole"))
    train = main.train
    for stop in (1, 3, 4):
        results = tmp_path / f"stopped{stop}"
        calls = []

        def stopped(*args, calls=calls, stop=stop):
            calls.append(1)
            if len(calls) > stop:
                raise KeyboardInterrupt
            return train(*args)

        with monkeypatch.context() as patch:
            patch.setattr(main, "train", stopped)
            with pytest.raises(KeyboardInterrupt):
                main.main(options(data_dir, results))
        main.main(options(data_dir, results, "--resume"))
        assert_same(state_of(results), state_of(tmp_path / "whole"))


def kill_and_resume(data_dir, tmp_path, rounds, rng):
    """Kills a run at random moments and resumes it, `rounds` times; then lets it end."""
    results = tmp_path / "killed"
    for _ in range(rounds):
        process = start_run(data_dir, results, "--resume")
        line = process.stdout.readline()
        assert line, process.stderr.read()
        time.sleep(rng.uniform(0, 1.0))
        process.kill()
        process.communicate()
        if (results / "checkpoints/lenet5.pt").exists():
            load_checkpoint(results / "checkpoints/lenet5.pt")  # whole, whenever it died
    main.main(options(data_dir, results, "--resume"))
    main.main(options(data_dir, tmp_path / "whole"))
    assert_same(state_of(results), state_of(tmp_path / "whole"))
    assert sorted(os.listdir(results / "checkpoints")) == ["lenet5.pt"]


def test_killed_at_random_moments(data_dir, tmp_path):
    kill_and_resume(data_dir, tmp_path, rounds=2, rng=random.Random(1))


@pytest.mark.parametrize(
    "written",
    ["checkpoints/.lenet5.pt", pytest.param("metrics/.lenet5.json", marks=pytest.mark.slow)],
)
def test_killed_while_a_file_is_being_written(data_dir, tmp_path, written):
    results = tmp_path / "killed"
    script = (
        "import main, os, sys, time\n"
        "os.fsync = lambda file: time.sleep(0.3)\n"  # a slow disk: most of the time goes into it
        "main.main(sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, *options(data_dir, results)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_for_epoch(process, 2)
    deadline = time.monotonic() + 60
    while not list(results.glob(f"{written}.*.part")):
        assert time.monotonic() < deadline
    process.kill()
    process.communicate()
    assert list(results.glob(f"{written}.*.part")), "it was killed half-way"
    assert load_checkpoint(results / "checkpoints/lenet5.pt")["epoch"] >= 2

    main.main(options(data_dir, results, "--resume"))
    main.main(options(data_dir, tmp_path / "whole"))
    assert_same(state_of(results), state_of(tmp_path / "whole"))
    assert not list(results.rglob("*.part"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_killed_at_many_random_moments(data_dir, tmp_path, seed):
    kill_and_resume(data_dir, tmp_path, rounds=5, rng=random.Random(seed))


@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_more_epochs_with_a_constant_schedule_are_as_if_asked_for_at_once(
    data_dir, tmp_path, optimizer
):
    common = ["--data-dir", str(data_dir), "--device", "cpu", "--ema", "0.9", "--augment"]
    common += ["--optimizer", optimizer]
    for epochs in ("2", "5"):
        results = ["--results-dir", str(tmp_path / "raised"), "--epochs", epochs, "--resume"]
        main.main([*common, *results])
    main.main([*common, "--results-dir", str(tmp_path / "whole"), "--epochs", "5"])
    assert_same(state_of(tmp_path / "raised")[0], state_of(tmp_path / "whole")[0])


@pytest.mark.parametrize(
    ("change", "setting"),
    [
        (["--optimizer", "muon"], "--optimizer"),
        (["--lr", "0.1"], "--lr"),
        (["--batch-size", "50"], "--batch-size"),
        (["--seed", "5"], "--seed"),
        (["--dropout", "0"], "--dropout"),
        (["--schedule", "constant"], "--schedule"),
        (["--epochs", "9"], "--epochs"),
        (["--model", "mlp", "--name", "lenet5"], "--model"),
    ],
)
def test_a_setting_that_changes_the_result_is_refused(data_dir, tmp_path, change, setting):
    main.main(options(data_dir, tmp_path, "--epochs", "2"))
    before = (tmp_path / "checkpoints/lenet5.pt").read_bytes()
    with pytest.raises(RunError, match=f"^{setting} was "):
        main.main(options(data_dir, tmp_path, "--epochs", "2", *change, "--resume"))
    assert (tmp_path / "checkpoints/lenet5.pt").read_bytes() == before


def test_more_epochs_are_refused_where_the_last_ones_are_special(data_dir, tmp_path):
    common = ["--data-dir", str(data_dir), "--results-dir", str(tmp_path)]
    common += ["--augment", "--no-aug-epochs", "1"]
    main.main([*common, "--epochs", "2"])
    with pytest.raises(RunError, match="--epochs was 2"):
        main.main([*common, "--epochs", "3", "--resume"])


def test_resuming_a_short_recipe_for_longer_names_the_option_that_was_typed(data_dir, tmp_path):
    common = ["--data-dir", str(data_dir), "--results-dir", str(tmp_path), "--regularize"]
    main.main([*common, "--epochs", "1"])
    with pytest.raises(RunError, match="--epochs was 1"):
        main.main([*common, "--epochs", "2", "--resume"])


def test_a_checkpoint_from_before_a_setting_came_is_one_with_its_default(data_dir, tmp_path):
    common = ["--data-dir", str(data_dir), "--results-dir", str(tmp_path), "--augment"]
    main.main([*common, "--epochs", "1"])
    path = tmp_path / "checkpoints/lenet5.pt"
    checkpoint = load_checkpoint(path)
    del checkpoint["config"]["no_aug_epochs"]
    write_checkpoint(path, checkpoint)
    with pytest.raises(RunError, match="--no-aug-epochs was 0"):
        main.main([*common, "--epochs", "1", "--no-aug-epochs", "1", "--resume"])
    main.main([*common, "--epochs", "2", "--resume"])
    assert load_checkpoint(path)["epoch"] == 2


def test_fewer_epochs_than_are_done_are_refused(data_dir, tmp_path):
    common = ["--data-dir", str(data_dir), "--results-dir", str(tmp_path)]
    main.main([*common, "--epochs", "2"])
    with pytest.raises(RunError, match="has 2 epochs"):
        main.main([*common, "--epochs", "1", "--resume"])


def test_a_finished_run_stays_as_it_is(data_dir, tmp_path):
    main.main(options(data_dir, tmp_path, "--epochs", "2"))
    before = state_of(tmp_path)
    main.main(options(data_dir, tmp_path, "--epochs", "2", "--resume"))
    assert_same(state_of(tmp_path)[0], before[0])


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted(data_dir, tmp_path, sent, code):
    process = start_run(data_dir, tmp_path / "results", "--epochs", "100000")
    wait_for_epoch(process, 2)
    process.send_signal(sent)
    stderr = process.communicate(timeout=60)[1]
    assert process.returncode == code
    assert len(stderr.splitlines()) == 1
    assert "--resume" in stderr
    checkpoint, _ = state_of(tmp_path / "results")
    assert checkpoint["epoch"] >= 2
    for folder, name in (("checkpoints", "pt"), ("metrics", "json"), ("plots", "png")):
        assert os.listdir(tmp_path / "results" / folder) == [f"lenet5.{name}"]


def test_two_runs_of_one_name(data_dir, tmp_path):
    first = start_run(data_dir, tmp_path / "results", "--epochs", "100000")
    wait_for_epoch(first, 1)
    with pytest.raises(RunError, match="another run of this name"):
        main.main(options(data_dir, tmp_path / "results", "--resume"))
    main.main(options(data_dir, tmp_path / "results", "--name", "other"))
    assert first.poll() is None
    first.kill()
    first.communicate()
    main.main(options(data_dir, tmp_path / "results"))  # the first is dead: its name is free


class Harmful:
    def __reduce__(self):
        return os.system, ("touch /tmp/mnist_harm",)


def with_code(good):
    torch.save({"format": CHECKPOINT_FORMAT, "weights": Harmful()}, good)


def cut_off(good):
    good.write_bytes(good.read_bytes()[:-5000])


def emptied(good):
    good.write_bytes(b"")


def text(good):
    good.write_text("this is no checkpoint")


def of_another_format(good):
    torch.save({**torch.load(good, weights_only=True), "format": 0}, good)


def of_other_shapes(good):
    checkpoint = torch.load(good, weights_only=True)
    checkpoint["weights"]["fc3.weight"] = torch.zeros(3, 3)
    torch.save(checkpoint, good)


def without_optimizer(good):
    checkpoint = torch.load(good, weights_only=True)
    del checkpoint["optimizer"]
    torch.save(checkpoint, good)


def a_bare_tensor(good):
    torch.save(torch.zeros(3), good)


@pytest.mark.parametrize(
    "damage",
    [
        *(with_code, cut_off, emptied, text, of_another_format, of_other_shapes),
        *(without_optimizer, a_bare_tensor),
    ],
)
def test_a_checkpoint_that_cannot_be_used(data_dir, tmp_path, damage):
    main.main(options(data_dir, tmp_path, "--epochs", "2"))
    path = tmp_path / "checkpoints/lenet5.pt"
    damage(path)
    with pytest.raises(RunError) as caught:
        main.main(options(data_dir, tmp_path, "--epochs", "2", "--resume"))
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert not os.path.exists("/tmp/mnist_harm")


@pytest.mark.parametrize(("train", "test", "other"), [(190, 50, "training"), (200, 40, "test")])
def test_other_images_are_refused(data_dir, tmp_path, train, test, other):
    results = tmp_path / "results"
    main.main(options(data_dir, results, "--epochs", "2"))
    write_data(tmp_path / "other", train=train, test=test)
    with pytest.raises(RunError, match=f"other {other} images"):
        main.main(options(tmp_path / "other", results, "--epochs", "2", "--resume"))


def without_loss(history):
    del history[0]["train_loss"]


def of_words(history):
    history[0]["test_accuracy"] = "good"


def with_a_gap(history):
    history[0]["epoch"] = 7


def of_nothing(history):
    history.clear()


@pytest.mark.parametrize("damage", [without_loss, of_words, with_a_gap, of_nothing])
def test_a_malformed_history_is_refused_and_nothing_rewritten(data_dir, tmp_path, damage):
    main.main(options(data_dir, tmp_path, "--epochs", "2"))
    path = tmp_path / "checkpoints/lenet5.pt"
    checkpoint = load_checkpoint(path)
    damage(checkpoint["history"])
    write_checkpoint(path, checkpoint)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.*") if file.is_file()}
    with pytest.raises(RunError, match=r"lenet5\.pt: "):
        main.main(options(data_dir, tmp_path, "--epochs", "2", "--resume"))
    assert {file: file.read_bytes() for file in before} == before


@pytest.mark.parametrize("place", ["checkpoints/lenet5.lock", "checkpoints/lenet5.pt"])
def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(data_dir, tmp_path, place):
    (tmp_path / "checkpoints").mkdir()
    os.mkfifo(tmp_path / place)
    with pytest.raises(RunError, match="is not a file"):
        main.main(options(data_dir, tmp_path, "--resume"))
    with pytest.raises(RunError, match="is not a file"):
        load_checkpoint(tmp_path / place)


def test_a_folder_in_place_of_the_checkpoint_is_refused_before_training(
    data_dir, tmp_path, monkeypatch
):
    (tmp_path / "checkpoints/lenet5.pt").mkdir(parents=True)
    monkeypatch.setattr(main, "fit", None)  # training would now fail
    with pytest.raises(RunError, match=r"lenet5\.pt: is not a file"):
        main.main(options(data_dir, tmp_path))
