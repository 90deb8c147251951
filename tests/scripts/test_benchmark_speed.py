"""scripts/benchmark_speed.py: what it measures in turn, and what it says about it."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("benchmark_speed", ROOT / "scripts" / "benchmark_speed.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["benchmark_speed"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["benchmark_speed"]


def test_ours_and_the_peer_take_turns_and_medians_are_compared(script):
    order = []

    def measure(name: str, rates: list[float]) -> float:
        order.append(name)
        return rates[(len(order) - 1) // 2]

    result = script.compare(
        "section",
        "what",
        "peer",
        "steps/s",
        lambda: measure("ours", [1.0, 30.0, 90.0, 60.0]),  # the first round does not count
        lambda: measure("peer", [1.0, 10.0, 10.0, 30.0]),
        rounds=3,
        bar=6.0,
    )
    assert order == ["ours", "peer"] * 4
    assert (result.our_rate, result.peer_rate, result.ratio) == (60.0, 10.0, 6.0)
    assert (result.lowest, result.highest) == (2.0, 9.0)
    lines = list(script.show([result], with_bars=True))
    assert lines[-1].strip() == "ratio 6 (2 to 9), bar 6: met"
    assert list(script.show([result], with_bars=False))[-1].strip() == "ratio 6 (2 to 9)"


def test_a_bar_that_is_missed_is_said(script):
    result = script.compare("section", "what", "peer", "steps/s", lambda: 5.0, lambda: 1.0, rounds=1, bar=6.0)
    assert list(script.show([result], with_bars=True))[-1].strip() == "ratio 5 (5 to 5), bar 6: MISSED"


def test_the_environments_section_in_small(script, tmp_path):
    options = script.Options(preset="smoke", sections=("environments",), out=tmp_path / "speed.json")
    console = Console(file=(tmp_path / "shown").open("w"))
    assert script.main(options, console) == 0
    console.file.close()
    assert "its figures mean nothing" in (tmp_path / "shown").read_text()
    report = json.loads((tmp_path / "speed.json").read_text())
    assert report["preset"] == "smoke"
    assert report["versions"]["numpy"]
    bars = [each["bar"] for each in report["comparisons"]]
    assert bars == [40.0, 15.0, None, None, 20.0, 20.0, 0.25, 0.25, 1.0]
    assert [each["lower_is_better"] for each in report["comparisons"]] == [False] * 8 + [True]
    assert 20 < report["comparisons"][-1]["our_rate"] < 200  # MB
    for each in report["comparisons"]:
        assert each["ratio"] == each["our_rate"] / each["peer_rate"] > 0
        assert each["lowest"] <= each["ratio"] * 1.5
        assert each["highest"] >= each["ratio"] / 1.5


@pytest.mark.parametrize(
    ("preset", "sections", "says"), [("ful", ("environments",), "full"), ("full", ("env",), "section")]
)
def test_unknown_names(script, preset, sections, says, capsys):
    assert script.main(script.Options(preset=preset, sections=sections), Console(width=200)) == 2
    shown = capsys.readouterr().out
    assert "Unknown" in shown
    assert says in shown


def test_some_bars_are_upper_ones(script):
    shares = {
        share: script.Comparison("s", "w", "p", "ms", share, 1.0, share, share, share, 0.05, True)
        for share in (0.04, 0.06)
    }
    assert shares[0.04].met
    assert not shares[0.06].met


def test_the_sections_on_language_models_in_small(script, tmp_path):
    names = ("lm_rollouts", "small_rollouts", "lm_continuous", "lm_update")
    options = script.Options(preset="smoke", sections=names, out=tmp_path / "speed.json")
    with (tmp_path / "shown").open("w") as shown:
        assert script.main(options, Console(file=shown)) == 0
    comparisons = json.loads((tmp_path / "speed.json").read_text())["comparisons"]
    bars: dict[str, list[float | None]] = {}
    for each in comparisons:
        assert each["ratio"] == each["our_rate"] / each["peer_rate"] > 0
        bars.setdefault(each["section"], []).append(each["bar"])
    assert bars == {
        "rollouts of language models": [1.0, 1.0, 1.15],
        "rollouts of the small transformer": [None, None, 2.0],
        "texts that end at different times": [1.5, None, 1.5, None],
        "updates of language models": [1.6, 1.6],
    }
    assert comparisons[-1]["peer"].startswith("RLOOTrainer of TRL ")


def test_the_sections_on_agents_in_small(script, tmp_path):
    options = script.Options(preset="smoke", sections=("ppo", "dqn", "shares"), out=tmp_path / "speed.json")
    with (tmp_path / "shown").open("w") as shown:
        assert script.main(options, Console(file=shown)) == 0
    comparisons = json.loads((tmp_path / "speed.json").read_text())["comparisons"]
    by_section: dict[str, list[dict[str, object]]] = {}
    for each in comparisons:
        by_section.setdefault(each["section"], []).append(each)
    assert [each["bar"] for each in by_section["PPO"]] == [5.0] * 3
    assert [each["bar"] for each in by_section["DQN"]] == [10.0] * 4
    shares = by_section["where the time of training goes"]
    assert len(shares) == 6
    for one, two, three in (shares[:3], shares[3:]):  # environment, rest of the rollout, update
        assert one["ratio"] + two["ratio"] + three["ratio"] == pytest.approx(1.0)
        assert 0 < one["ratio"] < three["ratio"]
        assert two["ratio"] > 0


def test_what_the_benchmark_costs_in_small(script, tmp_path):
    options = script.Options(preset="smoke", sections=("accounting", "analysis"), out=tmp_path / "speed.json")
    assert script.main(options, Console(quiet=True)) == 0
    *shares, analysis = json.loads((tmp_path / "speed.json").read_text())["comparisons"]
    assert len(shares) == 6
    for each in shares:
        assert 0 < each["ratio"] < 0.2
        assert (each["bar"], each["lower_is_better"]) == (0.02, True)
    assert analysis["what"] == "report of 200 runs"
    assert analysis["peer_rate"] == pytest.approx(60.0 * 200 / 10_000)
