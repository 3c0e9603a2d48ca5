"""The tables of engineering.md, made from measurements of which no two are equal."""

import json

import pytest

from support.errors import RunError
from support.report.speed import fast_table, load_speeds, speed_table, torchrun_table

SPEED = {
    "machine": "a machine",
    "epoch": {"main.py": [2.0, 4.0, 5.0], "bare": [1.0, 3.0, 4.0]},
    "start": {
        "main.py to its first step": 6.0,
        "import torch, matplotlib.pyplot": 5.0,
        "import torch, matplotlib.pyplot, without the process's end": 4.0,
        "reading 70,000 PNGs the first time": 7.0,
    },
    "memory": {"import torch": 100, "main.py": 150, "main.py, first run": 300},
    "scaling": {
        "decoding, 1x (us)": 20,
        "decoding, 4x (us)": 21,
        "epoch, 1x (us)": 40,
        "epoch, 4x (us)": 50,
        "memory, 1x (bytes)": 800,
        "memory, 4x (bytes)": 880,
    },
    "fast": {
        "LeNet-5 (%)": 99.1,
        "LeNet-5 (% std)": 0.08,
        "LeNet-5 (s)": 12.3,
        "FastNet (%)": 98.9,
        "FastNet (% std)": 0.07,
        "FastNet (s)": 45.6,
    },
    "torchrun": {
        "main.py --batch-size 64, 1": 6.0,
        "main.py --batch-size 64, 2": 4.0,
        "main.py --batch-size 512, 1": 5.0,
        "main.py --batch-size 512, 2": 2.0,
    },
}


def test_each_measurement_stands_in_its_place():
    assert speed_table(SPEED).splitlines() == [
        "| one epoch, 60,000 + 10,000 images, batch 64 | seconds | times `main.py` |",
        "|---|---:|---:|",
        "| main.py | 4.0 (2.0 to 5.0) | 1.00 (1.00 to 1.00) |",
        "| bare | 3.0 (1.0 to 4.0) | 0.75 (0.50 to 0.80) |",  # round by round
        "",
        "| the whole process | measured | compared with | ratio |",
        "|---|---:|---|---:|",
        "| from `python main.py` to the first step | 6.0 s "
        '| `python -c "import torch, matplotlib.pyplot"`: 5.0 s | 1.20 |',
        "|  |  | the same without the process's end: 4.0 s | 1.50 |",
        "| decoding 70,000 PNGs, in the first run only | 7.0 s |  |  |",
        "| peak memory, above `import torch` | 50 MB "
        "| the first run, which decodes: 200 MB | 0.25 |",
        "| µs to decode one image, 4× MNIST | 21 | 1× MNIST: 20 | 1.05 |",
        "| µs per image and epoch, 4× MNIST | 50 | 1× MNIST: 40 | 1.25 |",
        "| bytes of memory per image, 4× MNIST | 880 | 1× MNIST: 800 | 1.10 |",
        "",
        "Measured on a machine.",
    ]


def test_the_fast_network_stands_below_the_one_that_is_compared_with_it():
    assert fast_table(SPEED["fast"]).splitlines() == [
        "|  | seconds of training | test accuracy (%), 10 seeds |",
        "|---|---:|---:|",
        "| LeNet-5 by the command above: 61,706 parameters | 12.3 | 99.10 ± 0.08 |",
        "| train_mnist_fast's network: 215,194 parameters, 1 epoch, batch 256 | 45.6 "
        "| 98.90 ± 0.07 |",
    ]


def test_two_processes_are_compared_with_one_for_each_batch_size():
    assert torchrun_table(SPEED["torchrun"]).splitlines() == [
        "| seconds on 2 cores | 1 process | 2 processes | ratio |",
        "|---|---:|---:|---:|",
        "| an epoch of `main.py`, batch 64 | 6.0 | 4.0 | 1.50 |",
        "| an epoch of `main.py`, batch 512 | 5.0 | 2.0 | 2.50 |",
    ]


def test_speeds_are_read_as_they_were_measured_and_what_is_missing_or_damaged_is_named(tmp_path):
    path = tmp_path / "speed.json"
    path.write_text(json.dumps(SPEED), encoding="utf-8")
    assert load_speeds(path) == SPEED
    for part in SPEED.keys() - {"machine"}:
        rest = {name: SPEED[name] for name in SPEED if name != part}
        path.write_text(json.dumps(rest), encoding="utf-8")
        with pytest.raises(RunError, match=f"speed.json: has no {part}; .* tests/benchmark.py"):
            load_speeds(path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(RunError, match=r"speed.json: is damaged .*; git checkout brings it back"):
        load_speeds(path)
    path.unlink()
    with pytest.raises(RunError, match=r"speed.json: has no epoch; git checkout brings it back"):
        load_speeds(path)
