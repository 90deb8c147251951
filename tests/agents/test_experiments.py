"""Runs of experiments: kept one by one, and played in several processes."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agents.experiments import play_runs

Play = Callable[[tuple[str, ...]], dict[str, Any]]
KEYS = [("one", "0"), ("two words", "0"), ("one", "1")]


MODULE = """
import os

def play(key):
    if key[0] == "bad":
        raise ValueError("this run is bad")
    return {"name": key[0], "seed": int(key[1]), "process": os.getpid()}
"""
"""A file that other processes can import from."""


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Play]:
    (tmp_path / "played_by_a_test.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("played_by_a_test").play
    del sys.modules["played_by_a_test"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_runs_are_kept_and_not_played_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], play: Play, jobs: int
) -> None:
    out = tmp_path / "out"
    results = play_runs(out, {"size": 3}, KEYS, play, jobs)
    assert list(results) == KEYS
    assert [(each["name"], each["seed"]) for each in results.values()] == [("one", 0), ("two words", 0), ("one", 1)]
    assert all((each["process"] == os.getpid()) == (jobs == 1) for each in results.values())
    assert json.loads((out / "runs" / "two-words--0.json").read_text()) == results["two words", "0"]
    assert play_runs(out, {"size": 3}, [*KEYS, ("new", "0")], play, jobs).keys() == {*KEYS, ("new", "0")}
    printed = capsys.readouterr().err
    assert "3 runs, 0 finished before" in printed
    assert "4 runs, 3 finished before" in printed
    assert "1/1 new, 0" in printed


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_was_over_before_a_run_failed_is_kept(tmp_path: Path, play: Play, jobs: int) -> None:
    out, keys = tmp_path / "out", [("one", "0"), ("bad", "0"), ("late", "0")]
    play_runs(out, {}, keys[:1], play, jobs)
    with pytest.raises(ValueError, match="this run is bad"):
        play_runs(out, {}, keys, play, jobs)
    kept = {path.name for path in (out / "runs").glob("*.json")}
    assert "one--0.json" in kept
    assert "bad--0.json" not in kept
    if jobs == 1:
        assert "late--0.json" not in kept
