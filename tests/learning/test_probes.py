"""Our agents pass the probes of docs/probes.md: the values, and the best text where there is one."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents import DQN, PPO, evaluate_agent

pytestmark = pytest.mark.learning

NEAR = 0.1  # values go on moving by a few hundredths under a constant learning rate; a mistake would move them by more


def values(agent: PPO, env_id: str) -> tuple[np.ndarray, np.ndarray]:
    """Values [64, T] of the states of one episode in 64 sub-environments, and their prompts [64, P]."""
    envs = gym.make_vec(env_id, num_envs=64)
    spec = envs.text_spec  # type: ignore[attr-defined]
    obs, info = envs.reset(seed=1)
    rows = np.full_like(obs, spec.pad_id)
    prompts = obs[:, : spec.prompt_length].copy()
    for _ in range(spec.max_new_tokens):
        actions, _ = agent.predict(obs, action_mask=info.get("action_mask"))
        obs, _, _, _, info = envs.step(actions)
        rows = info.get("final_obs", rows)
    lengths = torch.full((64,), spec.max_new_tokens)
    with torch.no_grad():
        return agent.policy.values(torch.as_tensor(rows), lengths)[0].numpy(), prompts


def ppo(name: str, **config: float) -> PPO:
    agent = PPO(f"textenvs/{name}-v0", seed=3, num_envs=32, num_steps=8, **config)
    agent.learn(8_000)
    return agent


def test_the_value_of_a_constant():
    learnt, _ = values(ppo("ProbeConstant"), "textenvs/ProbeConstant-v0")
    assert learnt == pytest.approx(1.0, abs=NEAR)


def test_a_value_that_depends_on_the_observation():
    learnt, prompts = values(ppo("ProbeObservation"), "textenvs/ProbeObservation-v0")
    assert set(prompts[:, -1].tolist()) == {0, 1}
    # For each of the prompts; a value that does not see them would be 0.5.
    assert learnt[:, 0] == pytest.approx(prompts[:, -1], abs=0.25)


@pytest.mark.parametrize("gamma", [1.0, 0.5])
def test_values_are_discounted(gamma):
    learnt, _ = values(ppo("ProbeDiscount", gamma=gamma), "textenvs/ProbeDiscount-v0")
    assert learnt[:, 0] == pytest.approx(gamma, abs=NEAR)
    assert learnt[:, 1] == pytest.approx(1.0, abs=NEAR)


@pytest.mark.parametrize("agent_class", [PPO, DQN])
@pytest.mark.parametrize("name", ["ProbeAction", "ProbeBoth", "ProbeMask"])
def test_the_best_text(agent_class, name):
    env_id = f"textenvs/{name}-v0"
    agent = agent_class(env_id, seed=3, num_envs=32, num_steps=8).learn(3_000)
    assert evaluate_agent(agent, env_id, split="train", num_episodes=64, seed=7).mean_score == 1.0
    if name == "ProbeBoth":
        assert evaluate_agent(agent, env_id, split="test", num_episodes=64, seed=7).mean_score == 1.0


def test_the_value_under_a_mask():
    learnt, _ = values(ppo("ProbeMask"), "textenvs/ProbeMask-v0")
    assert learnt == pytest.approx(1.0, abs=NEAR)
