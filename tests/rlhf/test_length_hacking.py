"""Length hacking: what the annotators, the remedies and the report do, on a pipeline that is small enough for tests."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import agents.rlhf.length_hacking as hacking
import textenvs
from agents.benchmark.suites import BenchmarkError
from agents.lm.length_bias import longer_preferred
from agents.lm.preferences import load_rankings
from agents.rlhf.length_hacking import (
    CLEAN,
    HACKED,
    ConciseSentiment,
    Experiment,
    get_experiment,
    make_hacking_stages,
    make_runs,
    open_experiment,
    paid_reward,
    stage_name,
)
from agents.rlhf.length_hacking_report import fell_at, lost_at_end, read_hacking, write_hacking
from agents.rlhf.running import Task, play, read_figures
from agents.rlhf.settings import RLHFError
from agents.rlhf.stages import Job
from tests.rlhf.conftest import Pipeline
from textenvs import Episodes
from textenvs.rewards.base import Judge

ROOT = Path(__file__).resolve().parents[2]
SEED = 4


@pytest.fixture(scope="session")
def small(pipeline: Pipeline) -> Experiment:
    return replace(get_experiment("smoke"), rlhf=pipeline.settings)


@pytest.fixture(scope="session")
def played(pipeline: Pipeline, small: Experiment) -> Path:
    """All stages of a seed, beside the models of the tiny pipeline."""
    for stage in make_hacking_stages(small, [SEED]):
        if stage.name not in ("pretraining", "sft"):
            play(pipeline.out, small.rlhf, Task(0, stage), lambda share, words: None)
    return pipeline.out


def job_of(out: Path, small: Experiment) -> Job:
    folder = out / "seed-0"
    return Job(small.rlhf, 0, folder, folder, folder, lambda share, words: None)


def test_what_is_meant_is_sentiment_without_verbosity() -> None:
    texts = ["was good .", "was good " + "and good " * 5 + "."]
    episodes = Episodes.from_texts(["the film"] * 2, texts)
    plain = Judge(textenvs.make_reward({"name": "lexicon_sentiment", "of": "text"}))(episodes).total
    scores = ConciseSentiment(target=12, slope=0.1).score(episodes)
    excess = np.maximum(episodes.lengths - 12, 0)
    assert excess[0] == 0 < excess[1]
    assert scores == pytest.approx(plain - 0.1 * excess, abs=1e-6)
    assert ConciseSentiment(8, 0.1).version != ConciseSentiment(8, 0.2).version


def test_both_annotators_rank_the_same_answers(played: Path, small: Experiment) -> None:
    folder = played / "seed-0" / stage_name("rankings", SEED)
    clean, biased = (load_rankings(folder / f"{name}-train.jsonl") for name in (CLEAN, HACKED))
    assert [each.answers for each in clean] == [each.answers for each in biased]
    assert [each.gold for each in clean] == [each.gold for each in biased]
    assert longer_preferred(biased) > longer_preferred(clean) + 0.2
    balanced = load_rankings(folder / "balanced-train.jsonl")
    assert longer_preferred(balanced) == 0.5
    figures = read_figures(played, 0, stage_name("rankings", SEED))
    assert figures is not None
    assert figures["balanced_pairs"] == len(balanced) < 6 * len(biased)
    assert figures["biased_longer_preferred"] == longer_preferred(biased)


def test_every_run_is_paid_by_its_own_judges(played: Path, small: Experiment) -> None:
    job = job_of(played, small)
    paid = {run.name: paid_reward(small, run, SEED, job) for run in make_runs(small)}
    assert paid["biased"].endswith("judge-biased-seed-4/model")
    assert paid["dpo"] == paid["biased"]
    assert paid["balanced"].endswith("judge-balanced-seed-4/model")
    assert paid["unbiased"] == paid["dpo-unbiased"]
    assert paid["ensemble"]["how"] == "pessimistic"
    assert paid["ensemble"]["parts"] == [paid["biased"], paid["biased"].replace("judge-biased", "judge-member-1")]
    slope = read_figures(played, 0, stage_name("judge-biased", SEED))["length_slope"]  # type: ignore[index]
    assert paid["penalty"] == {
        "name": "length_penalty",
        "reward": paid["biased"],
        "target": 0,
        "slope": max(slope, 0.0),
    }


def test_the_penalty_takes_off_what_a_token_adds(played: Path, small: Experiment, monkeypatch: Any) -> None:
    monkeypatch.setattr(hacking, "figures_of", lambda folder: {"length_slope": 0.25})
    run = next(run for run in make_runs(small) if run.name == "penalty")
    assert paid_reward(small, run, SEED, job_of(played, small))["slope"] == 0.25
    monkeypatch.setattr(hacking, "figures_of", lambda folder: {"length_slope": -0.25})
    assert paid_reward(small, run, SEED, job_of(played, small))["slope"] == 0  # nobody is paid for being verbose


def test_dpo_has_the_optimum_of_ppo(played: Path, small: Experiment) -> None:
    for name, judge in (("dpo", "biased"), ("dpo-unbiased", "unbiased")):
        scale = read_figures(played, 0, stage_name(f"judge-{judge}", SEED))["log_odds_scale"]  # type: ignore[index]
        beta = read_figures(played, 0, stage_name(name, SEED))["beta"]  # type: ignore[index]
        assert beta == pytest.approx(small.kl_coef * scale)


def test_histories_and_figures(played: Path, small: Experiment) -> None:
    results = read_hacking(played, small, [SEED])
    assert set(results.histories[SEED]) == {"unbiased", "biased", "penalty", "balanced", "ensemble"}
    for history in results.histories[SEED].values():
        assert history["updates"].tolist() == [1, 2]
        assert np.isfinite([history[name] for name in ("proxy", "gold", "length", "kl")]).all()
    models = results.models(SEED)
    assert set(models) == {"sft", *(run.name for run in make_runs(small))}
    assert models["sft"]["figures"]["kl"] == 0
    assert all(models[run.name]["figures"]["kl"] != 0 for run in make_runs(small))  # estimated from samples
    # one and the same judge says one and the same of the SFT model's texts
    assert len({models[run.name]["biased"]["before"] for run in make_runs(small)}) == 1
    assert models["biased"]["own"] == models["biased"]["biased"]
    assert models["unbiased"]["own"] != models["unbiased"]["biased"]
    assert results.kept("unbiased") == [1.0]


def test_the_report(played: Path, small: Experiment) -> None:
    paths = write_hacking(played, small, [SEED])
    with paths[0].open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["policy"] for row in rows] == [run.name for run in make_runs(small)]
    page = paths[1].read_text(encoding="utf-8")
    for run in make_runs(small):
        assert f"| {run.title} |" in page
    assert "the alarm rang after batch" in page
    assert re.search(r"unbiased annotator \d+ %, biased \d+ %, balanced 50 %", page)
    assert paths[2].read_bytes().startswith(b"\x89PNG")


def test_results_that_are_not_there(played: Path, small: Experiment) -> None:
    with pytest.raises(RLHFError, match="no finished stage 'rankings-seed-5'"):
        read_hacking(played, small, [SEED, 5])


def test_when_gold_fell() -> None:
    """Means of four batches: 0, 1, … 8, then 8.625, 8.875 (the best), 8.75, 8.25 and, after batch 17, 7.75: of a rise
    of 8.875 more than a tenth is lost."""
    rising = np.arange(-1.5, 10.0)
    assert fell_at(rising) is None
    assert lost_at_end(rising) == 0
    falling = np.concatenate([rising, rising[-1] - 0.5 * np.arange(1, 13)])
    assert fell_at(falling) == 17
    smooth = np.convolve(falling, np.full(4, 0.25), mode="valid")
    assert lost_at_end(falling) == pytest.approx((smooth.max() - smooth[-1]) / (smooth.max() - smooth[0]))
    assert fell_at(-rising) is None  # what never rose has nothing to lose
    assert lost_at_end(-rising) == 0
    assert fell_at(np.ones(3)) is None


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("length_hacking", ROOT / "scripts" / "length_hacking.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["length_hacking"] = module
    spec.loader.exec_module(module)
    return module


def test_a_finished_experiment_is_reported_and_not_run_again(
    script: ModuleType,
    played: Path,
    small: Experiment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(script, "get_experiment", lambda preset: small)
    out = tmp_path / "out"
    open_experiment(out, small)
    (out / "seed-0").symlink_to(played / "seed-0")
    times = {path: path.stat().st_mtime_ns for path in (played / "seed-0").glob("*/figures.json")}
    assert script.main(script.Options(preset="smoke", seeds=(SEED,), out=out, jobs=1), Console()) == 0
    printed = capsys.readouterr().out
    assert "15 stages (15 finished before)" in printed
    assert "PPO, biased annotator" in printed
    assert {path: path.stat().st_mtime_ns for path in times} == times


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "quik"}, "Unknown preset 'quik'. Did you mean 'quick'"),
        ({"seeds": ()}, "--seeds must be different numbers"),
        ({"seeds": (1, 1)}, "--seeds must be different numbers"),
        ({"jobs": 0}, "--jobs must be at least 1"),
    ],
)
def test_what_it_refuses(script: ModuleType, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RLHFError, match=message):
        script.main(script.Options(out=tmp_path, **options), Console())


def test_results_of_another_preset_are_not_mixed(script: ModuleType, tmp_path: Path) -> None:
    open_experiment(tmp_path, get_experiment("smoke"))
    with pytest.raises(BenchmarkError, match="settings"):
        script.main(script.Options(preset="quick", out=tmp_path), Console())
    assert json.loads((tmp_path / "settings.json").read_text())["length_hacking"]["preset"] == "smoke"
