"""Stable-Baselines3's own PPO and DQN train on a text environment and beat random by a wide margin."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

import textenvs  # noqa: F401  # registers the environments

ENV_ID = "textenvs/Copy-v0"
SIZES: dict[str, Any] = {"length": 2, "num_symbols": 4}
MARGIN = 0.5  # of the score's range [0, 1], over random's 0.25


def mean_score(model: Any) -> float:
    score, _ = evaluate_policy(model, make_vec_env(ENV_ID, n_envs=8, seed=1_000, env_kwargs=SIZES), n_eval_episodes=200)
    return float(np.mean(score))


def random_score() -> float:
    return float(gym.make(ENV_ID, **SIZES).unwrapped.task.random_score)  # type: ignore[attr-defined]


@pytest.mark.timeout(300)
def test_ppo_beats_random():
    envs = make_vec_env(ENV_ID, n_envs=16, seed=0, env_kwargs=SIZES)
    model = PPO(
        "MlpPolicy",
        envs,
        n_steps=32,
        batch_size=128,
        n_epochs=4,
        learning_rate=3e-3,
        gamma=1.0,
        ent_coef=0.01,
        seed=0,
        device="cpu",
    )
    assert mean_score(model) < random_score() + MARGIN  # not yet
    assert mean_score(model.learn(6_144)) > random_score() + MARGIN


@pytest.mark.timeout(300)
def test_dqn_beats_random():
    model = DQN(
        "MlpPolicy",
        make_vec_env(ENV_ID, n_envs=1, seed=0, env_kwargs=SIZES),
        learning_rate=2e-3,
        buffer_size=10_000,
        learning_starts=500,
        batch_size=64,
        train_freq=4,
        gradient_steps=2,
        gamma=1.0,
        target_update_interval=200,
        exploration_fraction=0.5,
        exploration_final_eps=0.1,
        seed=0,
        device="cpu",
    )
    assert mean_score(model) < random_score() + MARGIN  # not yet
    assert mean_score(model.learn(3_000)) > random_score() + MARGIN
