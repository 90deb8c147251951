"""The native vector environment as Stable-Baselines3's: the same episodes as its own DummyVecEnv gives."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv

import textenvs

SIZES: dict[str, Any] = {"length": 3, "num_symbols": 4, "min_length": 1}


def test_equals_dummy_vec_env() -> None:
    ours = textenvs.as_sb3_vec_env(gym.make_vec("textenvs/Reverse-v0", num_envs=4, **SIZES))
    theirs = DummyVecEnv([lambda: gym.make("textenvs/Reverse-v0", **SIZES)] * 4)
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    ours.seed(7)
    theirs.seed(7)
    np.testing.assert_array_equal(ours.reset(), theirs.reset())
    rng = np.random.default_rng(0)
    ends = 0
    for _ in range(200):
        actions = rng.integers(5, size=4)
        for a, b in zip(ours.step(actions)[:3], theirs.step(actions)[:3], strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype
        ours.step_async(actions)
        theirs.step_async(actions)
        obs, rewards, dones, infos = ours.step_wait()
        expected = theirs.step_wait()
        np.testing.assert_array_equal(obs, expected[0])
        np.testing.assert_array_equal(rewards, expected[1])
        np.testing.assert_array_equal(dones, expected[2])
        for mine, other in zip(infos, expected[3], strict=True):
            if not mine:
                assert set(other) <= {"TimeLimit.truncated"}
                continue
            ends += 1
            np.testing.assert_array_equal(mine.pop("terminal_observation"), other.pop("terminal_observation"))
            episode = mine.pop("episode")
            assert (episode["r"], episode["l"]) == (mine["score"], mine["length"])
            assert mine == other
    assert ends > 100


def test_a_reset_without_seed_goes_on_with_the_next_episodes() -> None:
    envs = textenvs.as_sb3_vec_env(gym.make_vec("textenvs/Reverse-v0", num_envs=4, length=8))
    envs.seed(1)
    first, second = envs.reset(), envs.reset()
    assert not np.array_equal(first, second)


def test_attributes_and_methods() -> None:
    envs = textenvs.as_sb3_vec_env(gym.make_vec("textenvs/Copy-v0", num_envs=3))
    assert envs.get_attr("task")[0].name == "Copy"
    assert np.array(envs.env_method("action_masks")).shape == (3, 8)
    textenvs.set_reward(envs, "prefix")
    assert envs.get_attr("judge")[0].name == "prefix"
    with pytest.raises(ValueError, match="share one engine"):
        envs.env_method("set_reward", "match", indices=[0])


def test_other_environments_are_refused() -> None:
    with pytest.raises(TypeError, match="make_vec_env"):
        textenvs.as_sb3_vec_env(gym.make("textenvs/Copy-v0"))
    with pytest.raises(ValueError, match="same step"):
        textenvs.as_sb3_vec_env(gym.make_vec("textenvs/Copy-v0", num_envs=2, autoreset_mode="NextStep"))
