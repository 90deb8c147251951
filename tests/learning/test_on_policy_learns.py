"""RLOO, GRPO, A2C and REINFORCE learn to copy, on prompts that they have never seen."""

from __future__ import annotations

from typing import Any

import pytest

from agents import A2C, GRPO, REINFORCE, RLOO, RandomAgent, evaluate_agent

COPY = {"length": 3, "num_symbols": 6}


def score(agent: Any) -> float:
    where = {"split": "test", "num_episodes": 200, "seed": 7, "env_kwargs": COPY}
    return evaluate_agent(agent, "textenvs/Copy-v0", **where).mean_score


@pytest.mark.learning
@pytest.mark.parametrize("agent_class", [RLOO, GRPO, A2C, REINFORCE])
def test_they_learn_to_copy(agent_class: Any) -> None:
    agent = agent_class("textenvs/Copy-v0", seed=0, env_kwargs=COPY)
    assert score(agent) < 0.5
    assert score(agent.learn(15_000)) > 0.9


@pytest.mark.learning
def test_random_does_not() -> None:
    assert score(RandomAgent("textenvs/Copy-v0", seed=0, env_kwargs=COPY).learn(15_000)) < 0.5
