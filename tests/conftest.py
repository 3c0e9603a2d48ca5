import os
import signal
import subprocess

import pytest
import torch
from helpers import write_data

import main
from support.files import run_program


def pytest_configure():
    """Two tests run at once (pyproject.toml), so each has one thread, and a core for it."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Keeps the tests' decoded pixels out of the user's cache folder."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@pytest.fixture
def data_dir(tmp_path):
    return write_data(tmp_path / "data")


@pytest.fixture
def start_here(capsys):
    """Runs a program as `run_program` does, and returns what its user sees of it, but in this
    process: one of its own takes 3 s."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def start(program) -> subprocess.CompletedProcess:
        capsys.readouterr()
        code = 0
        try:
            run_program(program, resume_hint="the same command with --resume")
        except SystemExit as exit_:
            code = exit_.code
        stdout, stderr = capsys.readouterr()
        if isinstance(code, str):  # Python prints it, and exits with 1
            code, stderr = 1, stderr + code + "\n"
        return subprocess.CompletedProcess(program, code, stdout, stderr)

    yield start
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def main_here(start_here):
    """`python main.py ARGUMENTS`, in this process."""
    return lambda *arguments: start_here(lambda: main.main([*map(str, arguments)]))
