"""scripts/exact_exam.py: what it prints and writes, that it goes on where it was stopped, and what it refuses."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from agents.benchmark.suites import BenchmarkError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("exact_exam", ROOT / "scripts" / "exact_exam.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["exact_exam"] = module
    spec.loader.exec_module(module)
    return module


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_medians_and_intervals(script: ModuleType) -> None:
    value, low, high = script.median_and_interval([0.5])
    assert value == 0.5
    assert low != low
    assert high != high
    value, low, high = script.median_and_interval([3.0, 1.0, 2.0, 5.0, 4.0])
    assert (value, low, high) == (3.0, 1.0, 5.0)
    assert script.shown([0.971], ".1%") == "97.1 %"
    assert script.shown([3.0, 1.0, 2.0, 5.0, 4.0], ".2f") == "3.00 (1.00–5.00)"
    assert script.shown([0.9, 0.9, 0.9], ".1%") == "90.0 % (90.0–90.0)"


def test_it_writes_its_tables_and_goes_on_where_it_was(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    script.main(script.Args(preset="smoke", jobs=1, methods=("PPO",), out=tmp_path))
    printed = capsys.readouterr()
    assert "2 runs, 0 finished before" in printed.err
    assert "best of" in printed.out
    assert "expected score − β KL" in printed.out
    first = rows_of(tmp_path / "exact_exam.csv")
    assert [(row["method"], row["beta"], row["seeds"]) for row in first] == [("PPO", "0.05", "1"), ("PPO", "0.2", "1")]
    assert all(float(row["most_above_frontier"]) <= 1e-9 for row in first)
    best_of_n = rows_of(tmp_path / "best_of_n.csv")
    assert [int(row["n"]) for row in best_of_n] == list(script.NS)
    assert all(float(row["kl"]) <= float(row["bound"]) + 1e-9 for row in best_of_n)
    assert all(float(row["reward"]) <= float(row["frontier"]) + 1e-9 for row in best_of_n)
    assert (tmp_path / "exact_exam.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "runs").glob("*.json"))) == 2

    def never(preset: Any, key: Any) -> Any:
        raise AssertionError(f"{key} is run again")

    monkeypatch.setattr(script, "examine", never)
    script.main(script.Args(preset="smoke", jobs=1, methods=("PPO",), out=tmp_path))
    assert "2 runs, 2 finished before" in capsys.readouterr().err
    assert rows_of(tmp_path / "exact_exam.csv") == first


def test_a_second_seed_is_added_to_the_first(script: ModuleType, tmp_path: Path) -> None:
    script.main(script.Args(preset="smoke", jobs=1, methods=("RLOO",), out=tmp_path))
    files = {path: json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*.json")}
    script.main(script.Args(preset="smoke", jobs=1, methods=("RLOO",), seeds=2, out=tmp_path))
    assert {path: json.loads(path.read_text()) for path in files} == files
    assert [row["seeds"] for row in rows_of(tmp_path / "exact_exam.csv")] == ["2", "2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"methods": ("PPQ",)}, "Unknown method 'PPQ'. Did you mean 'PPO'"),
        ({"methods": ()}, "No methods to examine. Known: PPO, RLOO, SoftQ, DiscreteSAC, DPO, ReST"),
        ({"seeds": 0}, "--seeds must be at least 1; got 0"),
    ],
)
def test_what_it_refuses(script: ModuleType, tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchmarkError, match=message):
        script.main(script.Args(preset="smoke", jobs=1, out=tmp_path, **arguments))


def test_results_of_another_preset_are_not_mixed(script: ModuleType, tmp_path: Path) -> None:
    script.main(script.Args(preset="smoke", jobs=1, methods=("RLOO",), out=tmp_path))
    with pytest.raises(BenchmarkError, match="preset"):
        script.main(script.Args(preset="quick", methods=("RLOO",), seeds=1, out=tmp_path))
