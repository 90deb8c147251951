"""DQN learns where random does not, and sooner than from textbook targets."""

from __future__ import annotations

from typing import Any

import pytest

from agents import DQN, RandomAgent, evaluate_agent
from agents.base import Agent

TASKS = [
    ("textenvs/HiddenTarget-v0", {"length": 6, "num_symbols": 8}, "train", 640),
    ("textenvs/PrefixLock-v0", {"length": 5, "num_symbols": 6}, "train", 960),
    ("textenvs/Reverse-v0", {"length": 3, "num_symbols": 6}, "test", 1_600),
]


def learns(agent: Agent, env_id: str, env_kwargs: dict[str, Any], split: str, episodes: int) -> bool:
    """Whether the greedy policy passes 0.9 within so many episodes; stops there."""

    def score() -> float:
        return evaluate_agent(agent, env_id, split=split, num_episodes=200, seed=7, env_kwargs=env_kwargs).mean_score

    def not_yet(_: Agent) -> bool:
        return agent.num_episodes % 80 > 0 or score() <= 0.9

    assert score() < 0.5
    agent.learn(episodes * env_kwargs["length"], callback=not_yet)
    assert agent.num_episodes <= episodes
    return score() > 0.9


@pytest.mark.learning
@pytest.mark.parametrize(("env_id", "env_kwargs", "split", "episodes"), TASKS)
def test_dqn_passes_where_random_fails(env_id: str, env_kwargs: dict[str, Any], split: str, episodes: int) -> None:
    task = env_id, env_kwargs, split, episodes
    assert learns(DQN(env_id, seed=11, env_kwargs=env_kwargs), *task)
    assert not learns(RandomAgent(env_id, seed=11, env_kwargs=env_kwargs, num_envs=16), *task)


@pytest.mark.learning
def test_textbook_targets_are_slower() -> None:
    """One-step targets carry the score back by one token for every update of the target network."""
    env_id, env_kwargs, split, _ = TASKS[0]
    textbook = {"n_step": 1, "lower_bound": False, "target_tau": 1.0, "target_interval": 100}
    assert not learns(DQN(env_id, seed=11, env_kwargs=env_kwargs, **textbook), env_id, env_kwargs, split, 400)
    assert learns(DQN(env_id, seed=11, env_kwargs=env_kwargs), env_id, env_kwargs, split, 400)
