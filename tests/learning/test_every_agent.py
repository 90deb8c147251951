"""Every agent that learns solves the first four probes and Copy; a new one is tested without being added here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import agents
from agents import OracleAgent, RandomAgent, evaluate_agent
from agents.base import Agent
from agents.on_policy import OnPolicyAgent

pytestmark = pytest.mark.learning

LEARNERS: list[Any] = [
    each
    for each in vars(agents).values()
    if isinstance(each, type) and issubclass(each, Agent) and each not in (Agent, RandomAgent, OracleAgent)
]
COPY = {"length": 3, "num_symbols": 5}
EPISODES = 3_000

# What each agent that has values says of the first state of episodes [B, L], in units of the score.
VALUES: dict[str, Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "PPO": lambda agent, rows, lengths: agent.policy.values(rows, lengths)[0][:, 0],
    "A2C": lambda agent, rows, lengths: agent.policy.values(rows, lengths)[0][:, 0],
    "DQN": lambda agent, rows, _: agent.network(rows)[:, 0].max(-1).values / agent.config.reward_scale,
    "SoftQ": lambda agent, rows, _: (
        agent.network.heads["q"](agent.network(rows))[:, 0].max(-1).values / agent.config.reward_scale
    ),
    "DiscreteSAC": lambda agent, rows, _: (
        agent.network.heads["q_1"](agent.network(rows))[:, 0].max(-1).values / agent.config.reward_scale
    ),
    "ReturnDecomposition": lambda agent, rows, _: decomposed(agent, agent.network(rows)) / agent.config.reward_scale,
}


def decomposed(agent: Any, hidden: torch.Tensor) -> torch.Tensor:
    """b + max (f + c) of the first states, of states [B, T, width]."""
    f, c = (agent.network.heads[name](hidden[:, 0]) for name in ("contributions", "continuation"))
    total: torch.Tensor = agent._baseline(hidden) + (f + c).max(-1).values
    return total


def make(agent_class: Any, env_id: str, **env_kwargs: Any) -> Agent:
    """With its defaults, but that a task without prompts makes one group of a batch."""
    prompts = gym.make(env_id, **env_kwargs).get_wrapper_attr("text_spec").prompt_length > 0
    whole = {} if prompts or "group_size" not in agent_class.Config.__dataclass_fields__ else {"group_size": None}
    agent: Agent = agent_class(env_id, seed=3, env_kwargs=env_kwargs, **whole)
    return agent


def first_values(agent: Any, env_id: str) -> tuple[np.ndarray, np.ndarray]:
    """Values [64] of the first states of 64 episodes, and their prompts [64, P]."""
    envs: Any = gym.make_vec(env_id, num_envs=64)
    obs, _ = envs.reset(seed=1)
    lengths = torch.full((64,), envs.text_spec.max_new_tokens)
    with torch.no_grad():
        values = VALUES[type(agent).__name__](agent, torch.as_tensor(obs), lengths)
    return values.numpy(), obs[:, : envs.text_spec.prompt_length]


@pytest.mark.parametrize("agent_class", [each for each in LEARNERS if each.__name__ in VALUES])
def test_values_of_the_first_three_probes(agent_class: Any) -> None:
    on_policy = issubclass(agent_class, OnPolicyAgent)  # fewer gradient steps for each token
    for name in ("ProbeConstant", "ProbeDiscount"):
        agent = make(agent_class, f"textenvs/{name}-v0").learn(4_000 if on_policy else 1_200)
        values, _ = first_values(agent, f"textenvs/{name}-v0")
        assert values == pytest.approx(1.0, abs=0.15), name
    agent = make(agent_class, "textenvs/ProbeObservation-v0").learn(6_000 if on_policy else 2_000)
    values, prompts = first_values(agent, "textenvs/ProbeObservation-v0")
    assert set(prompts[:, -1].tolist()) == {0, 1}
    assert values == pytest.approx(prompts[:, -1], abs=0.3)  # what does not see the prompts says 0.5


@pytest.mark.parametrize("agent_class", LEARNERS)
def test_the_action_that_pays_is_found(agent_class: Any) -> None:
    agent = make(agent_class, "textenvs/ProbeAction-v0").learn(3_000 if issubclass(agent_class, OnPolicyAgent) else 600)
    env_id = "textenvs/ProbeAction-v0"
    assert evaluate_agent(agent, env_id, split="train", num_episodes=64, seed=7).mean_score == 1.0


@pytest.mark.parametrize("agent_class", LEARNERS)
def test_copy(agent_class: Any) -> None:
    env_id = "textenvs/Copy-v0"
    agent = make(agent_class, env_id, **COPY)

    def score() -> float:
        return evaluate_agent(agent, env_id, split="test", num_episodes=200, seed=7, env_kwargs=COPY).mean_score

    def not_yet(_: Agent) -> bool:
        return agent.num_updates % 4 > 0 or score() <= 0.9

    assert score() < 0.5
    agent.learn(EPISODES * COPY["length"], callback=not_yet)
    assert score() > 0.9


def test_copy_is_not_for_free() -> None:
    agent = make(RandomAgent, "textenvs/Copy-v0", **COPY).learn(EPISODES)
    result = evaluate_agent(agent, "textenvs/Copy-v0", split="test", num_episodes=200, seed=7, env_kwargs=COPY)
    assert result.mean_score < 0.5
