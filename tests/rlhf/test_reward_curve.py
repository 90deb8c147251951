"""Reward models by the number of comparisons: what they learn from, what is measured, and what the audit finds."""

from __future__ import annotations

import csv
import importlib.util
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from agents.lm import Annotator, Ranking
from agents.lm.preferences import load_rankings
from agents.lm.reward_quality import length_only_accuracy
from agents.rlhf.reward_curve import (
    BIAS,
    RewardCurve,
    first_comparisons,
    get_reward_curve,
    judge_name,
    make_curve_tasks,
    open_curve,
    ranked_again,
)
from agents.rlhf.reward_curve_report import CurveResults, bias_table, judge_table, read_curve, report_text, write_curve
from agents.rlhf.running import play, read_figures
from agents.rlhf.settings import RLHFError
from tests.rlhf.conftest import Pipeline


@pytest.fixture(scope="session")
def curve(pipeline: Pipeline) -> RewardCurve:
    """Two sizes, on the rankings of the tiny pipeline."""
    return replace(get_reward_curve("smoke"), rlhf=pipeline.settings, sizes=(48, 96))


@pytest.fixture(scope="session")
def measured(pipeline: Pipeline, curve: RewardCurve) -> Path:
    for task in make_curve_tasks(curve, [0]):
        if task.stage.name == BIAS or task.stage.name.startswith("judge-"):
            play(pipeline.out, curve.rlhf, task, lambda share, words: None)
    return pipeline.out


def test_stages_are_those_of_the_sizes(curve: RewardCurve) -> None:
    names = [task.stage.name for task in make_curve_tasks(curve, [0, 1]) if task.seed == 1]
    assert names == ["pretraining", "sft", "rankings", "judge-48", "judge-96", "bias"]
    quick = get_reward_curve("quick")
    assert quick.sizes == (512, 1_024, 2_048, 4_096, 8_192)
    assert quick.rlhf.preferences.comparisons == max(quick.sizes)
    with pytest.raises(RLHFError, match=r"quik.*quick"):
        get_reward_curve("quik")


def test_every_reward_model_is_measured(measured: Path, curve: RewardCurve) -> None:
    results = read_curve(measured, curve, [0])
    for size in curve.sizes:
        [figures] = results.judges[size]
        assert figures["comparisons"] == size
        assert figures["share_of_best"] == pytest.approx(figures["accuracy"] / figures["best_possible_accuracy"])
        assert 0.5 < figures["best_possible_accuracy"] < 1
        assert len(figures["by_margin"]) == 4
        assert sum(each["count"] for each in figures["calibration"]) == 96
    assert results.judges[48][0]["accuracy"] != results.judges[96][0]["accuracy"]
    with pytest.raises(RLHFError, match="has no finished stage 'judge-48'"):
        read_curve(measured, curve, [7])


def test_smaller_sets_are_the_first_part_of_larger_ones(pipeline: Pipeline) -> None:
    rankings = load_rankings(pipeline.out / "seed-0" / "rankings" / "train.jsonl")  # six pairs each
    assert first_comparisons(rankings, 48) == rankings[:8]
    assert first_comparisons(rankings, 49) == rankings[:9]
    assert first_comparisons(rankings, 96) == rankings
    with pytest.raises(RLHFError, match="There are 96 comparisons, and 97 are wanted"):
        first_comparisons(rankings, 97)


def some_rankings(count: int, seed: int) -> list[Ranking]:
    """Answers whose worth has nothing to do with their length."""
    rng = np.random.default_rng(seed)
    rankings = []
    for number in range(count):
        answers = tuple(" ".join(["good"] * int(n)) + " ." for n in rng.choice(np.arange(4, 16), 4, replace=False))
        gold = tuple(rng.uniform(-1, 1, 4).tolist())
        rankings.append(Ranking(f"thing {number}", answers, (1, 2, 3, 4), gold))
    return rankings


def test_the_length_only_control_is_near_half_without_a_bias_and_far_from_it_with_one() -> None:
    train, held_out = some_rankings(400, 0), some_rankings(400, 1)
    found = []
    for bias in (0.0, 0.3):
        again = [ranked_again(each, Annotator(2.0, bias), seed=3) for each in (train, held_out)]
        assert [each.answers for each in again[0]] == [each.answers for each in train]
        assert again[0] == ranked_again(train, Annotator(2.0, bias), seed=3)
        assert all(sorted(each.ranks) == sorted(each.shown or ()) == [1, 2, 3, 4] for each in again[0])
        found.append(length_only_accuracy(*again))
    assert abs(found[0] - 0.5) < 0.04
    assert found[1] > 0.6


# -- report ------------------------------------------------------------------------------------------------------------


def literal_results() -> CurveResults:
    def judge(share: float) -> dict[str, Any]:
        calibration = [
            {"low": 0.5, "high": 0.55, "count": 30, "predicted": 0.52, "accuracy": 0.5},
            {"low": 0.9, "high": 0.95, "count": 10, "predicted": 0.92, "accuracy": 0.9 + share / 100},
        ]
        return {
            "comparisons": 96,
            "accuracy": 0.8 * share,
            "best_possible_accuracy": 0.8,
            "share_of_best": share,
            "calibration_error": 0.02,
            "train_accuracy": 0.9,
            "calibration": calibration,
            "by_margin": [0.5, 0.7, 0.8, 1.0],
            "length_only_accuracy": 0.51,
        }

    def bias(verdict: str) -> dict[str, Any]:
        unbiased = {"length_only_accuracy": 0.5, "audit_share": 0.5, "audit_verdict": "good"}
        return {
            "unbiased": unbiased,
            "biased": {"length_only_accuracy": 0.7, "audit_share": 0.66, "audit_verdict": verdict},
        }

    curve = replace(get_reward_curve("smoke"), sizes=(48, 96))
    judges = {48: [judge(0.8), judge(0.9)], 96: [judge(0.96), judge(0.98)]}
    return CurveResults(curve, (0, 1), judges, [bias("not enough"), bias("doubtful")])


def test_tables_literal() -> None:
    results = literal_results()
    table = judge_table(results)
    assert table[2][0] == "96"
    assert table[2][2] == "80.0 %"
    assert table[2][3].startswith("97.0 % (")  # 0.97 ± 12.706 · 0.0141 / √2
    assert table[2][3] == "97.0 % (84.3–109.7)"
    assert table[2][5] == "50 % · 70 % · 80 % · 100 %"
    rows = bias_table(results)
    assert rows[1][-1] == "good (2)"
    assert rows[2][0] == "+ 0.3 log-odds for every word"
    assert rows[2][-1] == "not enough (1), doubtful (1)"
    np.testing.assert_allclose(results.reliability(96), [[0.52, 0.92], [0.5, 0.9097], [60, 20]])
    assert report_text(results).startswith("Means of 2 seed(s), 95 % interval over seeds")


def test_the_files_hold_every_reward_model(tmp_path: Path) -> None:
    paths = write_curve(tmp_path, literal_results())
    assert [path.name for path in paths] == ["reward_quality.md", "reward_quality.csv", "reward_quality.png"]
    with paths[1].open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["size"], row["seed"], row["share_of_best"]) for row in rows] == [
        ("48", "0", "0.8"), ("48", "1", "0.9"), ("96", "0", "0.96"), ("96", "1", "0.98"),
    ]  # fmt: skip
    assert paths[2].stat().st_size > 20_000


def load_script() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "scripts" / "reward_quality.py"
    spec = importlib.util.spec_from_file_location("reward_quality", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["reward_quality"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_the_script_keeps_what_is_finished_and_reports(
    measured: Path, curve: RewardCurve, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    script, out = load_script(), tmp_path / "out"
    monkeypatch.setattr(script, "get_reward_curve", lambda name: curve)
    open_curve(out, curve)
    shutil.copytree(measured / "seed-0", out / "seed-0")
    shutil.rmtree(out / "seed-0" / judge_name(48))  # as if it had been stopped
    console = Console(record=True, width=120)
    assert script.main(script.Options("smoke", seeds=(0,), out=out, jobs=1), console) == 0
    said = console.export_text()
    assert "7 stages (6 finished before)" in said
    assert "judge-48: " in said
    assert "| annotator | length-only control, held out |" in capsys.readouterr().out
    again, first = (read_figures(folder, 0, "judge-48") for folder in (out, measured))
    assert again is not None
    assert first is not None
    assert again["accuracy"] == first["accuracy"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": (1, 1)}, "--seeds must be different numbers"),
        ({"seeds": ()}, "at least one"),
        ({"jobs": 0}, "--jobs must be at least 1"),
        ({"preset": "fast"}, "fast"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    script = load_script()
    with pytest.raises(RLHFError, match=message):
        script.main(script.Options(out=tmp_path / "out", **options), Console())
    assert not (tmp_path / "out").exists()
