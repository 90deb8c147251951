"""Evaluation: exactly as many episodes as asked for, the first of each sub-environment, reproducible."""

from __future__ import annotations

import numpy as np
import pytest

from agents import PPO, OracleAgent, RandomAgent, evaluate_agent
from textenvs import TextVectorEnv

VARYING = {"length": 4, "num_symbols": 3, "min_length": 3}


def test_first_episodes_of_the_split() -> None:
    agent = OracleAgent("textenvs/Copy-v0", env_kwargs=VARYING, num_envs=4)
    result = evaluate_agent(agent, "textenvs/Copy-v0", split="test", num_episodes=7, seed=5, env_kwargs=VARYING)
    expected, _ = TextVectorEnv("Copy", 7, split="test", **VARYING).reset(seed=5)
    np.testing.assert_array_equal(result.rows[:, :4], expected[:, :4])
    np.testing.assert_array_equal(result.scores, np.ones(7, dtype=np.float32))
    np.testing.assert_array_equal(result.lengths, (expected[:, :4] != 4).sum(1) + 1)
    assert result.mean_score == 1.0
    assert len(set(result.lengths.tolist())) > 1


def test_no_bias_towards_short_texts() -> None:
    agent = RandomAgent("textenvs/Copy-v0", env_kwargs=VARYING)
    result = evaluate_agent(agent, "textenvs/Copy-v0", split="train", num_episodes=4_000, seed=0, env_kwargs=VARYING)
    # EOS with probability 1/4 at each of up to 5 tokens.
    shares = np.bincount(result.lengths, minlength=6)[1:] / 4_000
    expected = np.array([1 / 4, 3 / 16, 9 / 64, 27 / 256, 81 / 256])
    np.testing.assert_allclose(shares, expected, atol=0.035)


def test_reproducible_and_without_effect_on_training() -> None:
    def make() -> PPO:
        return PPO("textenvs/Copy-v0", num_envs=8, width=16, num_heads=2)

    evaluated, alone = make(), make()

    def score(agent: PPO, seed: int) -> list[float]:
        return evaluate_agent(
            agent, "textenvs/Copy-v0", split="test", num_episodes=64, deterministic=False, seed=seed
        ).scores.tolist()

    first = score(evaluated, 0)
    assert score(evaluated, 0) == first
    assert score(evaluated, 1) != first
    evaluated.learn(200, callback=lambda agent: score(evaluated, 3) and None)
    alone.learn(200)
    np.testing.assert_array_equal(evaluated.parameters.detach().numpy(), alone.parameters.detach().numpy())


def test_bad_input() -> None:
    agent = RandomAgent("textenvs/Copy-v0")
    with pytest.raises(ValueError, match="num_episodes"):
        evaluate_agent(agent, "textenvs/Copy-v0", split="test", num_episodes=0, seed=0)
    with pytest.raises(ValueError, match=r"prompt_length=6.*made for 4"):
        evaluate_agent(agent, "textenvs/Copy-v0", split="test", seed=0, env_kwargs={"length": 6})
    with pytest.raises(ValueError, match="no test split"):
        evaluate_agent(agent, "textenvs/HiddenTarget-v0", split="test", seed=0)
