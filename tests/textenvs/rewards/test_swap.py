"""Swapping the judge at run time, through any stack of wrappers."""

from __future__ import annotations

import logging
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import RecordEpisodeStatistics, TimeLimit
from stable_baselines3.common.vec_env import DummyVecEnv

import textenvs


def one(completions: list[str]) -> list[float]:
    return [1.0] * len(completions)


def minus_two(completions: list[str]) -> list[float]:
    return [-2.0] * len(completions)


SIZES: dict[str, Any] = {"length": 2, "num_symbols": 3, "reward": one}


def test_takes_effect_for_the_next_finished_text(caplog: pytest.LogCaptureFixture) -> None:
    env = TimeLimit(RecordEpisodeStatistics(gym.make("textenvs/Copy-v0", **SIZES)), 10)
    env.reset(seed=0)
    env.step(0)
    with caplog.at_level(logging.INFO, logger="textenvs"):
        textenvs.set_reward(env, minus_two)
    assert "minus_two" in caplog.text
    assert env.step(0)[1] == -2.0


def test_native_vector_env() -> None:
    envs = gym.wrappers.vector.RecordEpisodeStatistics(gym.make_vec("textenvs/Copy-v0", num_envs=3, **SIZES))
    envs.reset(seed=0)
    actions = np.zeros(3, dtype=np.int64)
    envs.step(actions)
    np.testing.assert_array_equal(envs.step(actions)[1], [1.0] * 3)
    textenvs.set_reward(envs, [(1.0, minus_two), (1.0, one)])
    envs.step(actions)
    np.testing.assert_array_equal(envs.step(actions)[1], [-1.0] * 3)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_gymnasium_vector_envs(mode: str) -> None:
    envs = gym.make_vec("textenvs/Copy-v0", num_envs=2, vectorization_mode=mode, **SIZES)
    try:
        envs.reset(seed=0)
        textenvs.set_reward(envs, minus_two)
        envs.step(np.zeros(2, dtype=np.int64))
        np.testing.assert_array_equal(envs.step(np.zeros(2, dtype=np.int64))[1], [-2.0] * 2)
    finally:
        envs.close()


def test_stable_baselines_vec_env() -> None:
    envs = DummyVecEnv([lambda: gym.make("textenvs/Copy-v0", **SIZES)] * 2)
    envs.reset()
    textenvs.set_reward(envs, minus_two)
    envs.step(np.zeros(2, dtype=np.int64))
    np.testing.assert_array_equal(envs.step(np.zeros(2, dtype=np.int64))[1], [-2.0] * 2)


def test_a_wrong_spec_leaves_the_old_judge() -> None:
    envs = gym.make_vec("textenvs/Copy-v0", num_envs=2, vectorization_mode="sync", **SIZES)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match="Unknown reward 'macht'"):
        textenvs.set_reward(envs, "macht")
    envs.step(np.zeros(2, dtype=np.int64))
    np.testing.assert_array_equal(envs.step(np.zeros(2, dtype=np.int64))[1], [1.0] * 2)


def test_an_environment_without_a_judge_is_refused() -> None:
    with pytest.raises(TypeError, match="no text environment inside"):
        textenvs.set_reward(gym.make("CartPole-v1"), one)


class OfFourDigits:
    """A judge of texts over four digits alone."""

    name, low, high = "of_four", 0.0, 1.0

    def score(self, episodes: textenvs.Episodes) -> np.ndarray:
        return np.ones(len(episodes), dtype=np.float32)

    def check_spec(self, spec: textenvs.spec.TextSpec) -> None:
        if len(spec.vocab) != 4:
            raise ValueError(f"of_four judges four digits, not {len(spec.vocab)}")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda reward: reward,
        lambda reward: [(0.5, one), (0.0, reward)],
        lambda reward: {"name": "cache", "reward": {"name": "gold", "proxy": reward, "gold": reward}},
    ],
)
def test_a_judge_says_what_it_cannot_judge_before_anything_is_written(wrap: Any) -> None:
    judge = OfFourDigits()
    judge.deterministic = True  # type: ignore[attr-defined]
    sizes = {"length": 2, "num_symbols": 4}
    gym.make("textenvs/Copy-v0", **sizes, reward=wrap(judge))
    with pytest.raises(ValueError, match="of_four judges four digits, not 3"):
        gym.make("textenvs/Copy-v0", **{**SIZES, "reward": wrap(judge)})
    envs: Any = DummyVecEnv([lambda: gym.make("textenvs/Copy-v0", **SIZES)])
    with pytest.raises(ValueError, match="not 3"):
        textenvs.set_reward(envs, wrap(judge))
    envs.reset()
    envs.step(np.zeros(1, dtype=np.int64))
    assert envs.step(np.zeros(1, dtype=np.int64))[1].tolist() == [1.0]  # the judge of before
