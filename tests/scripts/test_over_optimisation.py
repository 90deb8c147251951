"""scripts/over_optimisation.py: what it prints and writes, going on where it was stopped, and what it refuses."""

from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from agents.benchmark.suites import BenchmarkError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("over_optimisation", ROOT / "scripts" / "over_optimisation.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["over_optimisation"] = module
    spec.loader.exec_module(module)
    return module


def test_it_writes_its_tables_and_goes_on_where_it_was(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    script.main(script.Args(preset="smoke", out=tmp_path))
    printed = capsys.readouterr()
    assert "2 runs, 0 finished before" in printed.err
    assert "PPO on the proxies" in printed.out
    with (tmp_path / "over_optimisation.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["width"], row["comparisons"], row["optimised by"]) for row in rows] == [
        ("8", "64", "best of n"),
        ("8", "64", "RL"),
    ]
    for row in rows:
        assert float(row["gold_at_peak"]) >= float(row["gold_at_end"])
        assert float(row["proxy_at_end"]) > 0
        assert 0.4 < float(row["accuracy_share"]) < 1.2
        assert float(row["fall_low"]) <= float(row["fall"]) <= float(row["fall_high"])
    assert (tmp_path / "over_optimisation.png").read_bytes().startswith(b"\x89PNG")

    def no_play(*_: object) -> None:
        raise AssertionError("this run has been played")

    monkeypatch.setattr(script, "play", no_play)
    script.main(script.Args(preset="smoke", out=tmp_path))
    assert "2 runs, 2 finished before" in capsys.readouterr().err


def test_ppo_stands_beside_the_best_policy_at_its_kl_coef(script: ModuleType) -> None:
    result = script.play("smoke", ("8", "64", "0"))
    (kl_coef, kl, proxy, _, best_kl, best_proxy, _) = result["ppo"][0]
    assert kl_coef == 0.3
    assert proxy - kl_coef * kl <= best_proxy - kl_coef * best_kl + 1e-9  # nothing is better than the best


def test_bad_input(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="at least 1; got 0"):
        script.main(script.Args(preset="smoke", seeds=0, out=tmp_path))
    (tmp_path / "a file").write_text("")
    with pytest.raises(BenchmarkError, match="not empty"):
        script.main(script.Args(preset="smoke", out=tmp_path))
