"""What the benchmark itself costs: counting and saving while agents learn, and the analysis of many runs."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agents.benchmark.report import read_report, write_report
from agents.benchmark.results import run_folder, versions, write_json
from agents.benchmark.rows import Row, read_run, rows_text
from agents.benchmark.run import next_evaluation, play
from agents.benchmark.speed import Comparison
from agents.benchmark.suites import DQN, PPO, QUICK_ENVIRONMENTS, EnvironmentSetting, RunSetting

OVERHEAD_BAR = 0.02
"""Of a run's seconds."""
ANALYSIS_LIMIT = 60.0
"""Seconds for 10,000 runs."""


@dataclass(frozen=True)
class OverheadPreset:
    """How much is measured."""

    episodes: int
    """Of each run that is taken apart."""
    seeds: int
    """Of the synthetic results: ten environments × ten agents × so many."""


FULL = OverheadPreset(episodes=2_000, seeds=100)
SMOKE = OverheadPreset(episodes=128, seeds=2)


def accounting(preset: OverheadPreset) -> list[Comparison]:
    """Seconds of counting, and of writing checkpoints, as a share of a run without its evaluations."""
    comparisons = []
    for agent in (PPO, DQN):
        for environment in QUICK_ENVIRONMENTS:
            shortened = EnvironmentSetting(environment.name, environment.env_id, preset.episodes, environment.kwargs)
            setting = RunSetting(shortened, agent, seed=0, stop_at=None, growth=0.1, evaluation_episodes=16)
            with tempfile.TemporaryDirectory() as folder:
                play(setting, Path(folder))
                run = read_run(run_folder(Path(folder), setting))
            result = run.settings["result"]
            spent = result["accounting_seconds"] + result["checkpoint_seconds"]
            whole = run.rows[-1].seconds + result["checkpoint_seconds"]
            what = f"{agent.name} on {environment.name}: counting and checkpoints"
            comparisons.append(_share("accounting", what, "the whole run", spent, whole, "s", OVERHEAD_BAR))
    return comparisons


def analysis(preset: OverheadPreset) -> list[Comparison]:
    """Seconds from the rows of many runs on disk to the report with its plots."""
    num_runs = 100 * preset.seeds
    with tempfile.TemporaryDirectory() as folder:
        write_synthetic_results(Path(folder), num_environments=10, num_agents=10, num_seeds=preset.seeds)
        start = time.perf_counter()
        write_report(Path(folder), read_report([Path(folder)]))
        seconds = time.perf_counter() - start
    allowed = ANALYSIS_LIMIT * num_runs / 10_000
    return [_share("analysis", f"report of {num_runs:,} runs", "what we allow", seconds, allowed, "s", 1.0)]


def _share(section: str, what: str, peer: str, ours: float, whole: float, unit: str, bar: float) -> Comparison:
    share = ours / whole
    return Comparison(section, what, peer, unit, ours, whole, share, share, share, bar, lower_is_better=True)


def write_synthetic_results(out: Path, num_environments: int, num_agents: int, num_seeds: int) -> None:
    """A results folder of runs that never happened, for timing the analysis.

    The normalised score of a run is 1 − exp(−episodes / speed), with a log-normal speed.
    """
    rng = np.random.default_rng(0)
    environments = [f"environment {number}" for number in range(num_environments)]
    agents = {f"agent {number}": "replay" if number % 2 else "on-policy" for number in range(num_agents)}
    for environment in environments:
        for agent in agents:
            for seed in range(num_seeds):
                _write_run(out, environment, agent, seed, speed=float(rng.lognormal(6.5, 0.5)))
    budget = {"env_id": "textenvs/Synthetic-v0", "kwargs": {}, "episodes": _BUDGET}
    suite = {
        "name": "synthetic",
        "environments": dict.fromkeys(environments, budget),
        "agents": {agent: {"kind": kind} for agent, kind in agents.items()},
        "thresholds": [0.5, 0.9],
        "stop_at": 0.9,
        "growth": _GROWTH,
        "evaluation_episodes": 128,
    }
    write_json(out / "settings.json", {"suite": suite, "versions": versions(), "code": "synthetic"})


_BUDGET, _BATCH, _GROWTH = 4_000, 16, 0.1


def _write_run(out: Path, environment: str, agent: str, seed: int, speed: float) -> None:
    rows: list[Row] = []
    episodes, solved = 0, False
    while not solved:
        score = 1.0 - float(np.exp(-episodes / speed))
        rows.append(
            Row(
                environment=environment,
                agent=agent,
                seed=seed,
                episodes=episodes,
                timesteps=4 * episodes,
                reward_calls=episodes,
                distinct_texts=episodes,
                gradient_samples=16 * episodes,
                seconds=episodes / 200,
                greedy_score=score,
                sampled_score=score,
                normalised_greedy=score,
                normalised_sampled=score,
            )
        )
        solved = len(rows) > 1 and min(row.normalised_greedy for row in rows[-2:]) >= 0.9
        if episodes >= _BUDGET:
            break
        episodes = min(_BUDGET, -(-next_evaluation(episodes, _GROWTH) // _BATCH) * _BATCH)
    settings: dict[str, Any] = {
        "environment": {"name": environment, "episodes": _BUDGET},
        "agent": {"name": agent, "agent": agent, "config": {}},
        "seed": seed,
        "config": {},
        "task": {"random_score": 0.0, "optimum": 1.0},
        "result": {"stopped": "solved" if solved else "budget", "rows": len(rows)},
        "versions": {},
        "commit": None,
        "machine": {"cores": 1, "processor": "none", "system": "none"},
    }
    folder = out / "runs" / f"{environment}__{agent}__{seed}".replace(" ", "-")
    folder.mkdir(parents=True)
    (folder / "rows.csv").write_text(rows_text(rows), encoding="utf-8")
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
