"""scripts/tradeoff.py: what it writes, that it plays nothing twice, and what it says to bad input."""

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
    spec = importlib.util.spec_from_file_location("tradeoff_script", ROOT / "scripts" / "tradeoff.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def shown(script: ModuleType, options: object, path: Path, code: int = 0) -> str:
    with path.open("w") as file:
        assert script.main(options, Console(file=file, width=200)) == code
    return path.read_text()


def test_all_of_it_in_small_and_once_more(script, tmp_path, capsys):
    out = tmp_path / "runs"
    options = script.Options(preset="smoke", seeds=1, processes=1, out=out)
    first = shown(script, options, tmp_path / "first")
    assert first.startswith("10 runs, 0 finished before, 1 at a time")
    assert first.count(": finished, about") == 10
    assert "its figures mean nothing" in first
    with (out / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["experiment"], row["series"], row["x"]) for row in rows] == [
        ("age", "with the importance ratio", "0"),
        ("age", "with the importance ratio", "1"),
        ("age", "without", "0"),
        ("age", "without", "1"),
        ("reuse", "PPO, epochs", "1"),
        ("reuse", "PPO, epochs", "4"),
        ("reuse", "DQN, replay ratio", "1"),
        ("reuse", "DQN, replay ratio", "4"),
        ("steps", "clipped", "0.001"),
        ("steps", "clipped", "0.01"),
        ("steps", "not clipped", "0.001"),
        ("steps", "not clipped", "0.01"),
    ]
    assert [float(row["data_use"]) for row in rows[4:6]] == [1, 4]  # epochs
    assert rows[0]["area"] == rows[5]["area"] == rows[8]["area"]  # one agent on three figures
    assert float(rows[11]["kl"]) > float(rows[9]["kl"]) > float(rows[8]["kl"]) > 0  # steps without clipping are larger
    assert float(rows[10]["clipfrac"]) == 0
    for name in ("reuse.png", "small_steps.png"):
        assert (out / name).stat().st_size > 10_000
    table = (out / "table.csv").read_text()

    again = shown(script, options, tmp_path / "again")
    assert again.startswith("10 runs, 10 finished before")
    assert ": finished" not in again, "a finished run is not played again"
    assert (out / "table.csv").read_text() == table

    files = sorted((out / "runs").iterdir())
    files[0].write_text("{")
    with pytest.raises(ValueError, match=f"Delete .*{files[0].name} and start the same command again"):
        shown(script, options, tmp_path / "damaged")
    files[0].unlink()
    repaired = shown(script, options, tmp_path / "repaired")
    assert repaired.count(": finished, about") == 1
    with (out / "table.csv").open(newline="") as file:
        for before, after in zip(rows, csv.DictReader(file), strict=True):
            assert before | {"seconds": ""} == after | {"seconds": ""}

    (out / "settings.json").write_text((out / "settings.json").read_text().replace('"tradeoff"', '"another"'))
    with pytest.raises(ValueError, match="results of other settings"):
        script.main(options, Console())


def test_bad_input(script, tmp_path, capsys):
    options = script.Options(preset="smoke", out=tmp_path / "runs")
    for changes, message in (
        ({"preset": "ful"}, "Unknown preset 'ful'. Did you mean 'full'"),
        ({"envs": ("Reverse",)}, "Unknown environment 'Reverse'. Did you mean 'Reverse 2 of 4'"),
        ({"envs": ()}, "no environments were selected"),
        ({"seeds": 0}, "--seeds must be at least 1; got 0."),
        ({"processes": 0}, "--processes must be at least 1; got 0."),
    ):
        assert script.run(replace(options, **changes)) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    (tmp_path / "runs").write_text("")
    assert script.run(options) == 2
    assert "is a file: choose a folder with --out" in capsys.readouterr().err


def test_runs_that_fail(script, tmp_path, capsys, monkeypatch):
    """Everything is played, the exit code says it, and nothing is reported."""
    broken = replace(
        script.get_preset("smoke").environments[0], name="Reverse 2 of 3", kwargs={"length": 2, "num_symbols": 3}
    )
    preset = replace(script.get_preset("smoke"), environments=(broken,), ages=(0, 1), epochs=(), replay_ratios=())
    monkeypatch.setattr(script, "get_preset", lambda name: replace(preset, learning_rates=()))
    text = shown(
        script, script.Options(preset="smoke", seeds=1, processes=1, out=tmp_path / "runs"), tmp_path / "shown", code=1
    )
    assert text.count("FAILED (ValueError: There are only 9 prompts") == 4
    said = capsys.readouterr().err
    assert "4 runs failed, the first with\nTraceback" in said
    assert "repeats them, and only them" in said
    assert not (tmp_path / "runs" / "table.csv").exists()
