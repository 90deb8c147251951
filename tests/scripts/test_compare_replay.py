"""scripts/compare_replay.py: tunes, compares, writes its tables, and plays nothing twice."""

from __future__ import annotations

import csv
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("compare_replay", ROOT / "scripts" / "compare_replay.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["compare_replay"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["compare_replay"]


def shown(script, options, path) -> str:
    with path.open("w") as file:
        assert script.main(options, Console(file=file, width=200)) == 0
    return path.read_text()


def test_a_section_in_small_and_once_more(script, tmp_path):
    options = script.Options(preset="smoke", sections=("choice",), out=tmp_path / "runs")
    first = shown(script, options, tmp_path / "first")
    assert "its figures mean nothing" in first
    assert first.count(" seed 1000:") == 2  # two configurations of PPO, of which one goes on
    assert first.count(" seed 1001:") == 1
    assert first.count(" seed 0:") == first.count(" seed 1:") == 3  # PPO, ours and one other
    table = (tmp_path / "runs" / "table.csv").read_text()
    again = shown(script, options, tmp_path / "again")
    assert " seed " not in again, "a finished run is not played again"
    assert (tmp_path / "runs" / "table.csv").read_text() == table
    with (tmp_path / "runs" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["agent"] for row in rows] == ["ReturnDecomposition", "PPO, tuned", "DQN", "PPO, tuned", "DQN"]
    assert (tmp_path / "runs" / "curves-choice.png").stat().st_size > 5_000
    restarted = shown(script, replace(options, restart=True), tmp_path / "restarted")
    assert "Earlier results are now in" in restarted
    assert restarted.count(" seed 0:") == 3


def test_unknown_names(script, tmp_path):
    for options in (
        script.Options(preset="ful", out=tmp_path / "runs"),
        script.Options(preset="smoke", sections=("limit",), out=tmp_path / "runs"),
    ):
        with pytest.raises(ValueError, match="Did you mean"):
            script.main(options, Console())
    assert not (tmp_path / "runs").exists()
