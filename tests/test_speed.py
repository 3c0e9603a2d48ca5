"""The tables of engineering.md, made from measurements of which no two are equal."""

import json

import pytest

from support.errors import RunError
from support.report.speed import PARTS, load_speeds, speed_table


def test_each_quantity_stands_beside_the_first_that_it_is_compared_with():
    rounds = {
        "seconds": {"main.py": [2.0, 4.0, 5.0], "bare": [1.0, 3.0, 4.0]},
        "MB": {"main.py": [846.3], "import torch": [507.1]},
    }
    assert speed_table({"machine": "a machine", "rounds": rounds}).splitlines() == [
        "| median (range) |  | measured | times the first |",
        "|---|---|---:|---:|",
        "| seconds | main.py | 4.0 (2.0 to 5.0) |  |",
        "|  | bare | 3.0 (1.0 to 4.0) | 0.75 (0.50 to 0.80) |",  # round by round
        "| MB | main.py | 846 |  |",
        "|  | import torch | 507 | 0.60 |",
        "",
        "Measured on a machine.",
    ]


def test_speeds_are_read_as_they_were_measured_and_what_is_missing_or_damaged_is_named(tmp_path):
    path = tmp_path / "speed.json"
    measured = {part: {"machine": "a machine", "rounds": {}} for part in PARTS}
    path.write_text(json.dumps(measured), encoding="utf-8")
    assert load_speeds(path) == measured
    for part in PARTS:
        rest = {name: measured[name] for name in measured if name != part}
        path.write_text(json.dumps(rest), encoding="utf-8")
        with pytest.raises(RunError, match=f"speed.json: has no {part}; .* tests/benchmark.py"):
            load_speeds(path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(RunError, match=r"speed.json: is damaged .*; git checkout brings it back"):
        load_speeds(path)
    path.unlink()
    with pytest.raises(RunError, match=r"speed.json: has no epoch; git checkout brings it back"):
        load_speeds(path)
