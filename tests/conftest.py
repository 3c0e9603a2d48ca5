"""What several test files use; above all `start`, which starts a run."""

import importlib
import os
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import matplotlib
import pytest
import torch
from helpers import (
    ROOT,
    LeNet5InFloat64,
    make_digits,
    make_members,
    write_data,
    write_folder,
    write_tar,
)
from matplotlib.figure import Figure

import main
from model import MODELS
from support.errors import run_program


def pytest_configure():
    """Two tests run at once (pyproject.toml), so each has one thread, and a core for it, unless
    OMP_NUM_THREADS asks for more. The processes that tests start have as many."""
    torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", "1")))
    # One font cache for all tests and processes, made before they start: otherwise each would make
    # its own in the tests' cache folder, and say so on stderr where that takes long.
    os.environ["MPLCONFIGDIR"] = matplotlib.get_cachedir()
    importlib.import_module("matplotlib.font_manager")


def pytest_runtest_setup(item):
    """Skips what needs more GPUs than there are: one, or cuda(devices=2)."""
    for marker in item.iter_markers("cuda"):
        devices = marker.kwargs.get("devices", 1)
        if torch.cuda.device_count() < devices:
            pytest.skip(f"needs {devices} CUDA device(s)")


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_tests(tmp_path_factory):
    """Keeps the tests' decoded pixels out of the user's cache folder."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A cache folder in which this test finds nothing but its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def data_dir(tiny_data, tmp_path):
    """A folder of 200 training and 50 test images, which this test may change."""
    return shutil.copytree(tiny_data, tmp_path / "data")


@pytest.fixture
def digits():
    """(uint8 [25, 28, 28], int64 [25])"""
    return make_digits(25, seed=3)


@pytest.fixture
def tar(tmp_path, digits):
    """A train.tar of these digits."""
    return write_tar(tmp_path / "train.tar", make_members(*digits))


@pytest.fixture
def folder(tmp_path, digits):
    """The same PNGs, extracted."""
    return write_folder(tmp_path / "extracted", make_members(*digits)) / "train"


@pytest.fixture
def results(tmp_path):
    """Where `start` lets a run write."""
    return tmp_path / "results"


@pytest.fixture
def without_plots(monkeypatch):
    """Plots that are written in this process hold their title alone: to draw one takes most of a
    short run."""

    def save_title(figure, file, **_):
        file.write(figure.get_suptitle().encode())

    monkeypatch.setattr(Figure, "savefig", save_title)


@pytest.fixture
def in_float64(monkeypatch):
    """Makes LeNet-5 compute in float64 in the runs of this process."""
    monkeypatch.setitem(MODELS, "lenet5", LeNet5InFloat64)


@pytest.fixture
def under_torchrun(monkeypatch):
    """As in the second of four processes on this machine."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")


@pytest.fixture
def run_here(capsys):
    """Runs a program, which is a function, in this process; returns what a user sees of it."""

    def run_here(program):
        capsys.readouterr()
        code = 0
        try:
            program()
        except SystemExit as exit_:
            code = exit_.code or 0
        stdout, stderr = capsys.readouterr()
        if isinstance(code, str):  # Python prints it, and exits with 1
            code, stderr = 1, stderr + code + "\n"
        return subprocess.CompletedProcess([], code, stdout, stderr)

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield run_here
    for number, handler in handlers.items():  # which run_program changes
        signal.signal(number, handler)


@pytest.fixture
def start(data_dir, tmp_path, run_here):
    """Starts a run, and checks its exit code:

        start("--epochs", 2)                 python main.py --epochs 2, in this process
        start("--lr", "1e20", code=1)        one that must fail
        start(..., process=True)             in a process of its own: slower by 3 s
        start(..., processes=2)              in two processes, under torchrun
        start(..., wait=False)               in a process that still runs: a subprocess.Popen
        start("--seeds", 2, program="report")
        start(..., script=path)              a script of one's own, in a process of its own

    A run is on the CPU, reads `data` and writes to `results`, unless its arguments say otherwise.
    More keyword arguments are those of subprocess.Popen; `prefix` comes before the command.

    Returns: subprocess.CompletedProcess, with returncode, stdout and stderr.
    """
    started = []

    def start(
        *arguments,
        data=data_dir,
        results=tmp_path / "results",
        program="main",
        script=None,
        code=0,
        process=False,
        processes=None,
        wait=True,
        **popen,
    ):
        command = ["--data-dir", data, "--results-dir", results, *arguments]
        if program == "main":
            command = ["--device", "cpu", *command]
        command = [str(argument) for argument in command]
        if not (process or processes or script or not wait or popen):
            done = run_here(program_of(program, command))
        else:
            script = script or ROOT / f"{program}.py"
            running = start_process(script, command, processes, **popen)
            started.append(running)
            if not wait:
                return running
            stdout, stderr = running.communicate(timeout=300)
            done = subprocess.CompletedProcess(command, running.returncode, stdout, stderr)
        assert done.returncode == code, done.stderr
        return done

    yield start
    for running in started:
        running.kill()
        running.communicate()


@pytest.fixture
def epochs_of(start, monkeypatch, without_plots):
    """Starts a run (or calls `run` with what it is given); returns of each epoch what `train` was
    given, the weights before it, and of each of its steps the learning rate and the weights after.
    """
    train = main.train

    def weights_of(model):
        return [parameter.detach().clone() for parameter in model.parameters()]

    def epochs_of(*arguments, run=start, **options):
        epochs = []

        def watched_train(model, loader, device, criterion, optimizer, scheduler, ema):
            epoch = SimpleNamespace(
                model=model,
                batches=list(loader),
                optimizer=optimizer,
                ema=ema,
                rates=[],
                weights_before=weights_of(model),
                weights=[],
            )
            epochs.append(epoch)

            def before_step(*_):
                epoch.rates.append(optimizer.param_groups[0]["lr"])

            def after_step(*_):
                epoch.weights.append(weights_of(model))

            hooks = [
                optimizer.register_step_pre_hook(before_step),
                optimizer.register_step_post_hook(after_step),
            ]
            numbers = train(model, epoch.batches, device, criterion, optimizer, scheduler, ema)
            for hook in hooks:
                hook.remove()
            return numbers

        with monkeypatch.context() as patch:
            patch.setattr(main, "train", watched_train)
            run(*arguments, **options)
        return epochs

    return epochs_of


def program_of(name, command):
    """What `python NAME.py COMMAND` does, as a function."""
    module = importlib.import_module(name)
    if name == "main":
        return lambda: module.main(command)
    return lambda: run_program(lambda: module.report(command), resume_hint="the same command")


def start_process(script, command, processes, prefix=(), stdout=subprocess.PIPE, **popen):
    """`python SCRIPT COMMAND`, or, under torchrun, that many of it."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    python = [*prefix, sys.executable, *(torchrun if processes else [])]
    return subprocess.Popen(
        [*python, script, *command],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        **popen,
    )
