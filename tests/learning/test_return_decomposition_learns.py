"""ReturnDecomposition learns where random does not, sooner than PPO, and makes a sacrifice."""

from __future__ import annotations

from typing import Any

import pytest

from agents import PPO, RandomAgent, ReturnDecomposition, evaluate_agent
from agents.base import Agent

HIDDEN_TARGET = ("textenvs/HiddenTarget-v0", {"length": 6, "num_symbols": 8}, "train")
REVERSE = ("textenvs/Reverse-v0", {"length": 3, "num_symbols": 6}, "test")
LOCK = ("textenvs/PrefixLock-v0", {"length": 6, "num_symbols": 6}, "train")
SACRIFICE = (
    "textenvs/HiddenTarget-v0",
    {"length": 6, "num_symbols": 4, "reward": "agents.benchmark.hard_rewards:sacrifice"},
    "train",
)
Task = tuple[str, dict[str, Any], str]


def episodes_to_learn(kind: type[Agent], task: Task, budget: int, seed: int = 21, **config: Any) -> int | None:
    """Episodes until the greedy policy scores above 0.9, looked at every 40; None: not within the budget."""
    env_id, env_kwargs, split = task
    agent = kind(env_id, seed=seed, env_kwargs=env_kwargs, **config)

    def score() -> float:
        return evaluate_agent(agent, env_id, split=split, num_episodes=200, seed=7, env_kwargs=env_kwargs).mean_score

    def not_yet(_: Agent) -> bool:
        return agent.num_episodes < budget and (agent.num_episodes % 40 > 0 or score() <= 0.9)

    assert score() < 0.6
    agent.learn(budget * env_kwargs["length"], callback=not_yet)
    return agent.num_episodes if score() > 0.9 else None


@pytest.mark.learning
@pytest.mark.parametrize(("task", "budget"), [(HIDDEN_TARGET, 240), (LOCK, 480), (REVERSE, 480)])
def test_learns_where_random_does_not(task: Task, budget: int) -> None:
    assert episodes_to_learn(ReturnDecomposition, task, budget) is not None
    assert episodes_to_learn(RandomAgent, task, budget, num_envs=8) is None


@pytest.mark.learning
def test_on_prompts_it_learns_in_fewer_episodes_than_ppo() -> None:
    needed = episodes_to_learn(ReturnDecomposition, REVERSE, 480)
    assert needed is not None
    assert episodes_to_learn(PPO, REVERSE, needed, num_envs=16) is None


@pytest.mark.learning
def test_a_sacrifice_pays_with_a_continuation() -> None:
    """The opening that pays later looks bad by itself."""
    assert episodes_to_learn(ReturnDecomposition, SACRIFICE, 400) is not None
