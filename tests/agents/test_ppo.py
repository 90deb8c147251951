"""PPO: the first-minibatch test, what enters the update, schedules, determinism."""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit

from agents import PPO
from agents.losses import ppo_policy_loss
from agents.returns import step_mask
from textenvs import Task, TextEnv, TextVectorEnv

VARYING = {"length": 4, "num_symbols": 3, "min_length": 1}
SMALL = {"num_envs": 16, "width": 16, "num_heads": 2}


def make(seed: int = 0, **more: Any) -> PPO:
    return PPO("textenvs/Copy-v0", seed=seed, env_kwargs=VARYING, **(SMALL | more))


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_first_minibatch_ratio_is_one(mode: AutoresetMode) -> None:
    """Catches most mistakes: masks, shifts by one, stale caches, dropout, other temperatures."""
    agent = PPO(TextVectorEnv("Copy", 16, autoreset_mode=mode, **VARYING), width=16, num_heads=2, learning_rate=0.02)
    agent.learn(800)  # far from the initial policy
    assert agent.metrics["losses/approx_kl"] > 1e-3
    agent.collector.reset(0)  # episodes begun under the current weights
    rollout = agent.collector.collect(12)
    rows, lengths = torch.from_numpy(rollout.rows), torch.from_numpy(rollout.lengths)
    old = torch.from_numpy(rollout.logprobs)
    evaluation = agent.policy.evaluate(rows, lengths)
    mask = step_mask(lengths, 5)
    assert len(rollout) > 20
    assert (rollout.rows[:, 0] == 4).any()  # padded prompts among them
    assert old[mask].std() > 0.1
    assert ((evaluation.logprobs - old).exp() - 1).abs().max() <= 1e-5
    loss = ppo_policy_loss(evaluation.logprobs, old, torch.ones_like(old), mask, 0.2)
    assert loss.approx_kl.abs() < 1e-6
    assert loss.clipfrac == 0


def test_one_epoch_of_one_minibatch_logs_no_kl() -> None:
    agent = make(epochs=1, num_minibatches=1).learn(60)
    assert agent.num_updates == 1
    assert abs(agent.metrics["losses/approx_kl"]) < 1e-6
    assert agent.metrics["losses/clipfrac"] == 0
    # Whitened advantages and ratio 1: the policy loss is minus their mean, 0.
    assert abs(agent.metrics["losses/policy_loss"]) < 1e-5
    assert agent.metrics["losses/entropy"] == pytest.approx(np.log(4), abs=1e-3)


def test_episodes_in_flight_keep_the_log_probabilities_they_were_sampled_with() -> None:
    agent = PPO("textenvs/Reverse-v0", num_envs=8, num_steps=6, width=16, num_heads=2, learning_rate=0.02)
    agent.learn(48)  # one update; two tokens of each next text were written before it
    before = agent.collector.get_state()["logprobs"][:, :2]
    assert before.all()
    rollout = agent.collector.collect(2)
    np.testing.assert_array_equal(rollout.logprobs[:, :2], before)
    evaluation = agent.policy.evaluate(torch.from_numpy(rollout.rows), torch.from_numpy(rollout.lengths))
    difference = evaluation.logprobs.detach().numpy() - rollout.logprobs
    assert np.abs(difference[:, :2]).max() > 1e-3  # by older weights
    assert np.abs(difference[:, 2:]).max() < 1e-5  # by the present ones


def test_masks_enter_the_update(masked_task: Task) -> None:
    agent = PPO(TextVectorEnv(masked_task, 16, invalid_reward=-1.0), width=16, num_heads=2, epochs=1, num_minibatches=1)
    agent.learn(64)
    assert agent.metrics["charts/episodic_length"] == 4  # an illegal action would have ended a text early
    # Uniform over 3 actions at first, then over the 2 that do not repeat.
    assert agent.metrics["losses/entropy"] == pytest.approx((np.log(3) + 3 * np.log(2)) / 4, abs=1e-3)
    assert abs(agent.metrics["losses/approx_kl"]) < 1e-6
    agent.learn(4_000)
    assert agent.metrics["charts/episodic_return"] > 0.4  # optimum 0.5, random 0.33


def test_truncated_texts_are_bootstrapped_and_terminated_ones_are_not() -> None:
    def value_targets(limit: int) -> dict[str, torch.Tensor]:
        envs = SyncVectorEnv([lambda: TimeLimit(TextEnv("Reverse"), limit)] * 4, autoreset_mode=AutoresetMode.SAME_STEP)
        agent = PPO(envs, width=16, num_heads=2, num_steps=limit, epochs=1, num_minibatches=1, gae_lambda=1.0)
        agent.policy.value_head.bias.data.fill_(7.0)  # every state is worth 7, wherever
        agent.policy.value_head.weight.data.zero_()
        agent.learn(1)
        return agent.metrics

    # Truncated after 3 tokens: the return is V(s_3) = 7, the value loss 0. Terminated: the score, at most 1.
    assert value_targets(3)["losses/value_loss"] == 0.0
    assert value_targets(4)["losses/value_loss"] > 0.5 * 6**2


def test_a_text_that_ended_early_is_not_bootstrapped() -> None:
    agent = make(gae_lambda=1.0, epochs=1, num_minibatches=1)
    agent.policy.value_head.bias.data.fill_(7.0)
    agent.learn(1)
    assert agent.metrics["charts/episodic_length"] < 5  # ended by EOS, not by the budget
    assert agent.metrics["losses/value_loss"] > 0.5 * 6**2  # every return is a score, at most 1


def test_the_entropy_bonus_raises_entropy() -> None:
    def entropy_after(ent_coef: float) -> float:
        agent = make(ent_coef=ent_coef, learning_rate=0.003)
        agent.policy.policy_head.weight.data.mul_(100)
        return agent.learn(800).metrics["losses/entropy"]

    assert entropy_after(1.0) > entropy_after(0.0) + 0.2


def test_gradients_are_clipped() -> None:
    assert make(max_grad_norm=0.01).learn(60).gradient.norm().item() == pytest.approx(0.01, rel=1e-3)
    assert make(max_grad_norm=1e6).learn(60).gradient.norm() > 0.02


def test_minibatches_are_every_episode_once_an_epoch_in_a_new_order() -> None:
    agent = make(epochs=3, num_minibatches=4)
    agent.collector.reset(0)
    rollout = agent.collector.collect(12)
    batch, _ = agent._batch(rollout)
    parts = [[tuple(row) for row in mb.rows.tolist()] for mb in agent._minibatches(batch, rollout.lengths)]
    assert len(parts) == 12
    epochs = [list(chain(*parts[i : i + 4])) for i in (0, 4, 8)]
    expected = sorted(map(tuple, rollout.rows.tolist()))
    assert all(sorted(epoch) == expected for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert agent.gradient_samples == 3 * rollout.lengths.sum()


def test_padding_has_no_influence_on_an_update() -> None:
    agents = make(), make()
    with torch.no_grad():
        agents[1].policy.trunk.token_embedding[4] += 3.0
    before = [agent.parameters.detach().clone() for agent in agents]
    for agent in agents:
        agent.learn(200)
    steps = [agent.parameters.detach() - start for agent, start in zip(agents, before, strict=True)]
    torch.testing.assert_close(steps[0], steps[1], atol=1e-5, rtol=0)
    gradient = agents[1].policy.trunk.token_embedding.grad
    assert gradient is not None
    assert not gradient[4].any()
    assert gradient[:3].any(-1).all()  # (nothing comes after EOS, so nothing is learnt about it as an input)


def test_learning_rate_falls_linearly_to_zero() -> None:
    agent, seen = make(learning_rate=0.1, anneal_timesteps=400), []
    agent.learn(480, callback=lambda a: seen.append((a.num_timesteps, a.optimizer.param_groups[0]["lr"])))
    starts = [0, *(timesteps for timesteps, _ in seen[:-1])]
    expected = [0.1 * max(0.0, 1 - start / 400) for start in starts]
    assert [rate for _, rate in seen] == pytest.approx(expected)
    assert seen[-1][1] == 0.0
    before = agent.parameters.detach().clone()
    agent.learn(80)
    assert torch.equal(agent.parameters, before)


def test_target_kl_stops_an_update() -> None:
    free, stopped = make(learning_rate=0.05), make(learning_rate=0.05, target_kl=1e-4)
    free.learn(80)
    stopped.learn(80)
    assert stopped.gradient_samples < free.gradient_samples
    assert stopped.gradient_samples > 0


def test_every_parameter_learns() -> None:
    agent = make(num_layers=2)
    before = {name: p.detach().clone() for name, p in agent.policy.named_parameters()}
    agent.learn(400)
    for name, parameter in agent.policy.named_parameters():
        assert not torch.equal(parameter, before[name]), name
        assert torch.isfinite(parameter).all(), name


def test_batches_smaller_than_the_number_of_minibatches() -> None:
    agent = PPO("textenvs/Copy-v0", num_envs=2, num_minibatches=8, epochs=2, width=16, num_heads=2)
    agent.learn(8)
    assert (agent.num_episodes, agent.gradient_samples) == (2, 16)


def test_same_seed_same_parameters() -> None:
    first, again, other = (make(seed).learn(300).parameters.detach() for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_no_global_random_state_is_touched() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    legacy = np.random.get_state()[1].tolist()  # noqa: NPY002 (the state that must not move)
    make().learn(100)
    assert torch.equal(before, torch.get_rng_state())
    assert legacy == np.random.get_state()[1].tolist()  # noqa: NPY002
