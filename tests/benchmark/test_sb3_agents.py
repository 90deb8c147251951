"""Stable-Baselines3's agents in the benchmark: the same episodes, called back after updates, equal gradient samples."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents import PPO
from agents.benchmark.accounting import Accounting
from agents.benchmark.entrants import find_agent
from agents.benchmark.sb3_agents import SB3DQN, SB3PPO
from agents.benchmark.sb3_peers import TransformerExtractor
from agents.benchmark.suites import BenchmarkError


def counted(num_envs=8, name="Reverse", **sizes):
    return Accounting(gym.make_vec(f"textenvs/{name}-v0", num_envs=num_envs, **(sizes or {"length": 2})))


def tiny_ppo(**config):
    return SB3PPO(counted(), seed=3, network="mlp", epochs=3, num_minibatches=2, **config)


def test_it_meets_the_episodes_that_our_agent_of_this_seed_meets():
    ours, theirs = PPO(counted(), seed=3), tiny_ppo()
    seen = []
    ours.learn(1, callback=lambda agent: seen.append(agent.collector.get_state()["obs"]))
    theirs.learn(1, callback=lambda agent: seen.append(agent.model._last_obs))
    prompts = [obs[:, :2] for obs in seen]  # of the second episodes, the first having ended with the batch
    np.testing.assert_array_equal(prompts[0], prompts[1])


def test_called_back_after_every_update_and_stopped_there():
    agent, seen = tiny_ppo(), []

    def callback(playing):
        seen.append((playing.model.num_timesteps, playing.gradient_samples))
        return len(seen) < 3

    agent.learn(10_000, callback=callback)
    # Batches of 8 texts of 2 tokens, 3 passes over each.
    assert seen == [(16, 48), (32, 96), (48, 144)]
    assert agent.gradient_samples == 144  # nothing was learnt after the stop


def test_the_last_update_is_called_back_too():
    agent, seen = tiny_ppo(), []
    agent.learn(32, callback=lambda playing: seen.append(playing.gradient_samples))
    assert seen == [48, 96]


def test_dqn_takes_as_many_gradient_samples_as_ours_of_the_same_config():
    config = {"updates_per_window": 4, "batch_size": 5, "learning_starts": 16}
    agent, seen = SB3DQN(counted(), seed=0, network="mlp", **config), []
    agent.learn(64, callback=lambda playing: seen.append(playing.gradient_samples))
    # Windows of 16 tokens; after the second there are 16 texts, and more than that only after the third. 4 updates from
    # 5 texts, that is 10 tokens, each.
    assert seen == [0, 0, 40, 80]


def test_target_updates_in_a_window_are_one_with_the_tau_of_all():
    soft = SB3DQN(counted(), network="mlp", target_tau=0.1, target_interval=1, updates_per_window=16)
    assert soft.model.tau == pytest.approx(1 - 0.9**16)
    assert soft.model.target_update_interval == 16  # a window: 8 texts of 2 tokens
    copied = SB3DQN(counted(), network="mlp", target_tau=1.0, target_interval=96, updates_per_window=16)
    assert (copied.model.tau, copied.model.target_update_interval) == (1.0, 6 * 16)


def test_greedy_predictions_draw_nothing():
    agent = tiny_ppo()
    obs, _ = counted().reset(seed=0)
    before = torch.get_rng_state()
    actions, state = agent.predict(obs)
    assert actions.shape == (8,)
    assert state is None
    assert torch.equal(before, torch.get_rng_state())
    with pytest.raises(ValueError, match="greedy"):
        agent.predict(obs, deterministic=False)


def test_the_transformer_is_the_extractor_and_its_weights_come_from_the_seed():
    extractors = [SB3PPO(counted(), seed=seed).model.policy.features_extractor for seed in (0, 0, 1)]
    assert isinstance(extractors[0], TransformerExtractor)
    first, again, other = (each.transformer.token_embedding for each in extractors)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_bad_input():
    with pytest.raises(ValueError, match="masks"):
        SB3PPO(counted(name="DyckMasked"))
    with pytest.raises(ValueError, match="transformer"):
        SB3PPO(counted(), network="lstm")
    with pytest.raises(TypeError, match="epochs"):
        SB3PPO(counted(), epoch=3)
    with pytest.raises(BenchmarkError, match="SB3Foo"):
        find_agent("SB3Foo")
