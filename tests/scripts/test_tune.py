"""scripts/tune.py: searches in small, goes on where it was ended with the same result, refuses what makes no sense."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from agents.benchmark.pool import Finished
from agents.benchmark.run import play

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("tune_command", ROOT / "scripts" / "tune.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tune_command"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["tune_command"]


def shown(script, options) -> str:
    console = Console(file=io.StringIO(), width=300)
    assert script.main(options, console) == 0
    return console.file.getvalue()


def test_a_search_in_small_that_is_interrupted(script, tmp_path, monkeypatch, capsys):
    most = 1_000

    def play_here(settings, out, jobs, on_event, limits):
        for number, setting in enumerate(settings):
            if number == most:
                raise KeyboardInterrupt
            play(setting, out, limits=limits)
            on_event(Finished(setting))
        return []

    monkeypatch.setattr(script, "play_all", play_here)
    alone = script.Options(preset="smoke", out=tmp_path / "alone")
    text = shown(script, alone)
    assert "Tuning 2 agents, 2 trials each" in text
    assert "its figures mean nothing" in text
    assert text.count("trial 00 on HiddenTarget 3 of 4, seed 2000: ") == 2
    assert text.count("trial 01 on HiddenTarget 3 of 4, seed 2000: ") == 2
    assert text.count(" seed 2001: ") in (2, 3, 4)  # the defaults and, where it is another, the best
    chosen = json.loads((tmp_path / "alone" / "chosen.json").read_text())
    assert set(chosen) == {"PPO", "DQN"}
    for entry in chosen.values():
        assert entry["score"] >= entry["default_score"]
        assert (entry["trials"], entry["run_seeds"]) == (2, [2000, 2001])

    ended, most = script.Options(preset="smoke", out=tmp_path / "ended"), 3
    assert script.run(ended) == 130
    assert "goes on from there" in capsys.readouterr().err
    assert len(list((tmp_path / "ended" / "runs").iterdir())) == 3
    most = 1_000
    rest = shown(script, ended)
    assert rest.count(" seed 2000: ") == 1
    assert (tmp_path / "ended" / "chosen.json").read_text() == (tmp_path / "alone" / "chosen.json").read_text()
    assert ", seed " not in shown(script, ended), "nothing is played twice"

    assert script.run(script.Options(preset="smoke", out=tmp_path / "ended", seed=1)) == 2
    assert "holds results of other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "ful"}, "Did you mean 'full'"),
        ({"agents": ("PP0",)}, "Did you mean 'PPO'"),
        ({"trials": 0}, "--trials must be at least 1"),
        ({"jobs": 0}, "--jobs must be at least 1"),
        ({"max_hours": 0.0}, "--max-hours must be positive"),
        ({"seed": -1}, "--seed must be between 0 and 10,000, got -1"),
    ],
)
def test_bad_options_leave_no_folder(script, tmp_path, capsys, options, message):
    assert script.run(script.Options(**{"preset": "smoke", "out": tmp_path / "out", **options})) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
