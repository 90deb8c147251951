"""scripts/compare_sb3.py: tunes, compares, writes its tables, and plays nothing twice."""

from __future__ import annotations

import csv
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("compare_sb3", ROOT / "scripts" / "compare_sb3.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["compare_sb3"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["compare_sb3"]


def shown(script, options, path) -> str:
    with path.open("w") as file:
        assert script.main(options, Console(file=file, width=200)) == 0
    return path.read_text()


def test_a_section_in_small_and_once_more(script, tmp_path):
    options = script.Options(preset="smoke", sections=("ppo",), out=tmp_path / "runs")
    first = shown(script, options, tmp_path / "first")
    assert "its figures mean nothing" in first
    assert first.count(" ppo-tuning: ") == 4  # two configurations of each library
    assert first.count(" ppo: ") == 4  # two seeds of each
    table = (tmp_path / "runs" / "table.csv").read_text()
    again = shown(script, options, tmp_path / "again")
    assert " seed " not in again, "a finished run is not played again"
    assert (tmp_path / "runs" / "table.csv").read_text() == table
    with (tmp_path / "runs" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["contestant"] for row in rows] == [
        "our PPO",
        "SB3's PPO, our transformer",
        "SB3's PPO, our transformer",
    ]
    assert rows[2]["environment"] == "all"
    assert (tmp_path / "runs" / "curves.png").stat().st_size > 5_000


def test_unknown_names(script, tmp_path):
    for options in (
        script.Options(preset="quik", out=tmp_path / "runs"),
        script.Options(preset="smoke", sections=("sac",), out=tmp_path / "runs"),
    ):
        with pytest.raises(ValueError, match="Unknown"):
            script.main(options, Console())
    assert not (tmp_path / "runs").exists()
