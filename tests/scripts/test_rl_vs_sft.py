"""scripts/rl_vs_sft.py: demonstrations, budgets and tables; a finished run is not played again."""

from __future__ import annotations

import csv
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("transformers")

from agents.benchmark.suites import BenchmarkError
from agents.rlhf.worlds import TinyReviewsWorld
from textenvs import Episodes

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("rl_vs_sft", ROOT / "scripts" / "rl_vs_sft.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["rl_vs_sft"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["rl_vs_sft"]


def test_demonstrations_are_glad_and_the_best_of_four_are_gladder(script: ModuleType) -> None:
    world = TinyReviewsWorld()
    means = []
    for best_of in (1, 4):
        rows = script.demonstrations(world, 200, 0, best_of)
        assert len(rows) == 200
        scores = world.gold(Episodes.from_texts([row["prompt"] for row in rows], [row["completion"] for row in rows]))
        assert scores is not None
        assert all(world.grammar.is_grammatical(row["completion"], row["prompt"]) for row in rows)
        means.append(scores.mean())
    assert 0.5 < means[0] < 0.65
    assert means[1] > means[0] + 0.15
    assert script.demonstrations(world, 5, 1, 1) != script.demonstrations(world, 5, 0, 1)


def test_it_runs_writes_its_tables_and_plays_nothing_twice(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = script.Args(preset="smoke", seeds=(0,), out=tmp_path / "out")
    assert script.main(args) == 0
    first = capsys.readouterr()
    assert "6/6 rl, seed 0" in first.err
    assert "| 64 | RL (PPO) |" in first.out
    assert "| budget | RL − SFT: gold |" in first.out
    with (tmp_path / "out" / "scores.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["budget"], row["method"]) for row in rows] == [
        ("0", "base model"),
        *((budget, name) for budget in ("32", "64") for name in ("SFT", "SFT, best of four", "RL (PPO)")),
    ]
    assert rows[0]["KL from the base"] == "0.0"
    assert [(row["demonstrations"], row["reward calls"]) for row in rows[:3]] == [
        ("0", "0"),
        ("32", "0"),
        ("32", "128"),
    ]
    assert rows[-1]["demonstrations"] == "0"
    assert 64 <= int(rows[-1]["reward calls"]) < 64 + 16 * 24  # the batch is finished
    assert (tmp_path / "out" / "rl_vs_sft.png").read_bytes().startswith(b"\x89PNG")
    assert script.main(args) == 0
    again = capsys.readouterr()
    assert "6 runs, 6 finished before" in again.err
    assert again.out == first.out


def test_differences_are_paired(script: ModuleType) -> None:
    setting = script.PRESETS["smoke"]

    def measured(*scores: float) -> dict[str, object]:
        return {"test": {"gold": list(scores), "grammatical": [True, False]}}

    found = {(method, n): [measured(0.25, 1.0)] for method in ("sft", "sft-best") for n in setting.counts}
    found |= {("rl", n): [measured(0.75, 1.5)] for n in setting.counts}
    table = script.differences_table(found, setting)
    assert table[1] == ["32", *["+0.50 (+0.50–+0.50)", "+0.25 (+0.00–+0.50)"] * 2]
    assert np.array_equal(script.gold(found["rl", 32][0], "test", True), [0.75, 0.0])


def test_bad_seeds(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="--seeds must be different numbers"):
        script.main(script.Args(seeds=(1, 1), out=tmp_path))
