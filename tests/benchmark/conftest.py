"""Runs that never happened, with known crossings; and a suite that takes a second."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from agents.benchmark.rows import Row, Run
from agents.benchmark.run import next_evaluation
from agents.benchmark.suites import AgentSetting, EnvironmentSetting, Suite

KINDS = {"PPO": "on-policy", "DQN": "replay", "SoftQ": "replay"}


def make_run(
    environment: str = "Reverse 4 of 8",
    agent: str = "PPO",
    seed: int = 0,
    speed: float = 1_000.0,
    budget: int = 8_000,
    stop_at: float = 0.9,
    batch: int = 64,
    seconds_per_episode: float = 0.005,
    utilisation: float = 4.0,
) -> Run:
    """A run whose normalised score is 1 − exp(−episodes / speed), so it passes x at −speed · log(1 − x)."""
    rows: list[Row] = []
    episodes, due, solved = 0, 0, False
    while episodes <= budget and not solved:
        if episodes >= due or episodes + batch > budget:
            score = float(1.0 - np.exp(-episodes / speed))
            sampled = float("nan") if episodes == 0 else 0.95 * score
            tokens = 4 * episodes
            rows.append(
                Row(
                    environment,
                    agent,
                    seed,
                    episodes,
                    tokens,
                    episodes,
                    min(episodes, 500),
                    int(utilisation * tokens),
                    round(seconds_per_episode * episodes, 4),
                    0.1 + 0.9 * score,
                    0.1 + 0.9 * sampled,
                    score,
                    sampled,
                )
            )
            due = next_evaluation(episodes, 0.05)
            solved = len(rows) > 1 and min(row.normalised_greedy for row in rows[-2:]) >= stop_at
        episodes += batch
    return Run(_settings_of(rows, solved, budget), tuple(rows))


def _settings_of(rows: list[Row], solved: bool, budget: int) -> dict[str, Any]:
    """What a run's settings.json says, as far as it is read."""
    return {
        "environment": {"name": rows[0].environment, "episodes": budget},
        "agent": {"name": rows[0].agent, "agent": rows[0].agent, "config": {}},
        "seed": rows[0].seed,
        "config": {"num_envs": 64, "learning_rate": 0.001},
        "task": {"random_score": 0.1, "optimum": 1.0},
        "result": {"stopped": "solved" if solved else "budget", "rows": len(rows)},
        "versions": {},
        "commit": None,
        "machine": {"cores": 2, "processor": "a processor", "system": "Linux"},
    }


def make_settings(runs: list[Run]) -> dict[str, Any]:
    """A folder's settings.json for these runs."""
    setting = {"env_id": "textenvs/X-v0", "kwargs": {"length": 4}, "episodes": 8_000}
    return {
        "suite": {
            "name": "synthetic",
            "environments": {run.environment: setting for run in runs},
            "agents": {run.agent: {"kind": KINDS.get(run.agent, "")} for run in runs},
            "thresholds": [0.5, 0.9],
            "stop_at": 0.9,
            "growth": 0.05,
            "evaluation_episodes": 256,
        },
        "versions": {"python": "3.11", "torch": "2"},
        "code": "0123456789abcdef",
    }


@pytest.fixture
def synthetic_run() -> Callable[..., Run]:
    return make_run


@pytest.fixture
def synthetic_settings() -> Callable[[list[Run]], dict[str, Any]]:
    return make_settings


@pytest.fixture
def tiny() -> Suite:
    """A suite of the floor, the ceiling and a learner, on one task with prompts and one without."""
    return Suite(
        name="tiny",
        environments=(
            EnvironmentSetting("HiddenTarget", "textenvs/HiddenTarget-v0", 300, {"length": 3, "num_symbols": 4}),
            EnvironmentSetting("Copy", "textenvs/Copy-v0", 300, {"length": 2, "num_symbols": 8}),
        ),
        agents=(
            AgentSetting("random", "RandomAgent"),
            AgentSetting("oracle", "OracleAgent"),
            AgentSetting("PPO", "PPO", {"num_envs": 16, "width": 16, "num_layers": 1}),
        ),
        seeds=(0, 1),
        evaluation_episodes=16,
    )
