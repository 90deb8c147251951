"""What RLOO, GRPO, A2C and REINFORCE must all do, on the small transformer; PPO has a file of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit

from agents import A2C, GRPO, PPO, REINFORCE, RLOO, CheckpointError
from agents.groups import GroupAgent
from agents.losses import kl_k1, kl_k3, mean_of_texts, ppo_policy_loss
from agents.networks import TransformerConfig
from agents.on_policy import OnPolicyAgent
from agents.policies import TransformerPolicy
from agents.returns import step_mask
from textenvs import Task, TextEnv, TextVectorEnv

AGENTS: list[type[OnPolicyAgent]] = [RLOO, GRPO, A2C, REINFORCE]
STEPS_ONCE: list[type[OnPolicyAgent]] = [A2C, REINFORCE]
VARYING = {"length": 4, "num_symbols": 3, "min_length": 1}
SMALL: dict[str, Any] = {"num_envs": 16, "width": 16, "num_heads": 2}


def sized(agent_class: type[OnPolicyAgent], num_envs: int = 16) -> dict[str, Any]:
    return {"group_size": num_envs // 2} if issubclass(agent_class, GroupAgent) else {}


def make(agent_class: type[OnPolicyAgent], **more: Any) -> Any:
    return agent_class("textenvs/Copy-v0", env_kwargs=VARYING, **(SMALL | sized(agent_class) | more))


def one_step(agent_class: type[OnPolicyAgent]) -> dict[str, int]:
    return {} if agent_class in STEPS_ONCE else {"epochs": 1, "num_minibatches": 1}


def plain(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: plain(value) for key, value in tree.items()}
    return tree.tolist() if isinstance(tree, torch.Tensor | np.ndarray) else tree


def everything(agent: Any) -> dict[str, Any]:
    counters = [agent.num_timesteps, agent.num_episodes, agent.num_updates, agent.gradient_samples]
    return {"counters": counters, "rng": agent.rng.bit_generator.state} | plain(
        {"state": agent._get_state(), "collector": agent.collector.get_state(), "env": agent.envs.get_state()}
    )


def with_reference(agent_class: type[OnPolicyAgent], kl_coef: float = 0.1, **more: Any) -> Any:
    """A policy that is far from uniform, and a copy of it."""
    policy = TransformerPolicy(4, 4, 5, TransformerConfig(1, 16, 2))
    with torch.no_grad():
        policy.policy_head.weight.mul_(30)
    options = {"num_envs": 16, "learning_rate": 0.005} | sized(agent_class) | more
    return agent_class(
        "textenvs/Copy-v0",
        policy=policy,
        reference=policy.frozen_copy(),
        kl_coef=kl_coef,
        env_kwargs=VARYING,
        **options,
    )


# -- the update --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("agent_class", AGENTS)
def test_first_minibatch_ratio_is_one(agent_class: type[OnPolicyAgent], mode: AutoresetMode) -> None:
    group_size = 8 if issubclass(agent_class, GroupAgent) else 1
    envs = TextVectorEnv("Copy", 16, autoreset_mode=mode, group_size=group_size, **VARYING)
    agent: Any = agent_class(envs, width=16, num_heads=2, learning_rate=0.02).learn(600)
    assert agent.metrics["charts/episodic_length"] < 5
    agent.collector.reset(0)  # episodes begun under the current weights
    rollout = agent.collector.collect(12)
    rows, lengths = torch.from_numpy(rollout.rows), torch.from_numpy(rollout.lengths)
    old, mask = torch.from_numpy(rollout.logprobs), step_mask(lengths, 5)
    evaluation = agent.policy.evaluate(rows, lengths)
    assert len(rollout) > 20
    assert old[mask].std() > 0.05  # far from the initial policy
    assert ((evaluation.logprobs - old).exp() - 1).abs().max() <= 1e-5
    loss = ppo_policy_loss(evaluation.logprobs, old, torch.ones_like(old), mask, 0.2)
    assert loss.approx_kl.abs() < 1e-6
    assert loss.clipfrac == 0


@pytest.mark.parametrize("agent_class", [RLOO, GRPO])
def test_one_epoch_of_one_minibatch_logs_no_kl(agent_class: type[OnPolicyAgent]) -> None:
    agent = make(agent_class, epochs=1, num_minibatches=1).learn(80)
    assert agent.num_updates == 1
    assert abs(agent.metrics["losses/approx_kl"]) < 1e-6
    assert agent.metrics["losses/clipfrac"] == 0
    assert abs(agent.metrics["losses/policy_loss"]) < 1e-5  # ratio 1, and advantages that add up to 0 in a group


@pytest.mark.parametrize("agent_class", [RLOO, GRPO])
def test_advantages_are_those_of_the_groups(agent_class: type[GroupAgent]) -> None:
    agent: Any = make(agent_class)
    agent.collector.reset(0)
    rollout, groups = agent._groups.add(agent.collector.collect(15))
    assert len(np.unique(rollout.lengths)) > 2
    batch, _ = agent._batch(rollout, groups)
    assert len(rollout) >= 24
    for group in np.unique(groups):
        where = np.flatnonzero(groups == group)
        scores = rollout.scores[where].astype(np.float64)
        others = [np.delete(scores, i).mean() for i in range(len(where))]
        if agent_class is RLOO:
            np.testing.assert_allclose(batch.advantages[where], scores - others, atol=1e-6)
            continue
        expected = (scores - scores.mean()) / (scores.std() + 1e-4)
        for row, length, advantage in zip(batch.advantages[where], rollout.lengths[where], expected, strict=True):
            np.testing.assert_allclose(row[:length], advantage, atol=1e-5)
            assert not row[length:].any()


def gradient_of(agent: Any, update: Any) -> torch.Tensor:
    """Of the first step, before it is clipped and taken."""
    seen: list[torch.Tensor] = []
    step = agent.optimizer.step
    agent.config = agent.config.__class__(**{**vars(agent.config), "max_grad_norm": 1e9})
    agent.optimizer.step = lambda: (seen.append(agent.gradient.clone()), step())
    update()
    return seen[0]


def test_the_gradient_of_rloo_is_that_of_the_paper() -> None:
    """−(1/B) Σ A_i ∇ log π(y_i|x_i), differentiated directly; ratios and clips are nowhere in it."""
    agent = make(RLOO, epochs=1, num_minibatches=1, learning_rate=0.02).learn(300)
    agent.collector.reset(0)
    rollout, groups = agent._groups.__class__(8, 16).add(agent.collector.collect(12))
    batch, _ = agent._batch(rollout, groups)
    logprobs = agent.policy.evaluate(batch.rows, batch.lengths).logprobs
    agent.gradient.zero_()
    (-(batch.advantages * logprobs.sum(1)).mean()).backward()
    expected = agent.gradient.clone()
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(gradient_of(agent, lambda: agent._update(rollout, groups)), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("length_normalisation", ["tokens", "texts", "budget"])
def test_the_gradient_of_grpo_is_that_of_the_paper(length_normalisation: Any) -> None:
    """Policy gradient with group advantages, plus β ∇ mean k3, under each of the three means."""
    agent = with_reference(
        GRPO, 0.3, epochs=1, num_minibatches=1, normalise_std=False, length_normalisation=length_normalisation
    ).learn(400)
    agent.collector.reset(0)
    rollout, groups = agent._groups.__class__(8, 16).add(agent.collector.collect(12))
    batch, _ = agent._batch(rollout, groups)
    logprobs = agent.policy.evaluate(batch.rows, batch.lengths).logprobs
    kl = kl_k3(logprobs, agent.reference.logprobs(batch.rows, batch.lengths))
    assert kl.abs().max() > 1e-3
    agent.gradient.zero_()
    mean_of_texts(0.3 * kl - batch.advantages * logprobs, batch.mask, length_normalisation).backward()
    expected = agent.gradient.clone()
    torch.testing.assert_close(gradient_of(agent, lambda: agent._update(rollout, groups)), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("agent_class", "more"),
    [
        *((agent_class, {}) for agent_class in AGENTS),
        (GRPO, {"length_normalisation": "tokens"}),
        (GRPO, {"length_normalisation": "budget"}),
    ],
)
def test_accumulation_over_micro_batches_equals_the_big_batch(
    agent_class: type[OnPolicyAgent], more: dict[str, Any]
) -> None:
    options = {"ent_coef": 0.1, "max_grad_norm": 1e9} | one_step(agent_class) | more
    whole = with_reference(agent_class, **options)
    parts = with_reference(agent_class, micro_batch_size=3, **options)
    whole.learn(90)
    parts.learn(90)
    assert whole.num_updates == parts.num_updates > 0
    torch.testing.assert_close(parts.parameters, whole.parameters, atol=2e-5, rtol=0)
    for name, figure in whole.metrics.items():
        if name != "charts/SPS":
            assert parts.metrics[name] == pytest.approx(figure, rel=2e-3, abs=1e-4, nan_ok=True), name


def test_reinforce_subtracts_the_average_of_the_batches_before() -> None:
    agent = make(REINFORCE, baseline_decay=0.5)
    means: list[float] = []
    batch_of = agent._batch

    def watched(rollout: Any) -> Any:
        means.append(float(np.average(rollout.scores, weights=rollout.lengths)))  # the return to go is the score
        batch, objective = batch_of(rollout)
        expected = torch.from_numpy(rollout.scores)[:, None] - used[-1]
        torch.testing.assert_close(batch.advantages, torch.where(batch.mask, expected, 0.0))
        return batch, objective

    agent._batch = watched
    used = [0.0]
    agent.learn(240, callback=lambda agent: used.append(agent.baseline))
    assert len(means) == 3
    assert used[1] == pytest.approx(means[0])
    assert used[2] == pytest.approx((means[0] + 2 * means[1]) / 3)
    assert used[3] == pytest.approx((means[0] + 2 * means[1] + 4 * means[2]) / 7)
    assert agent.metrics["losses/baseline"] == pytest.approx(used[2])
    without = make(REINFORCE, baseline="none").learn(240)
    assert without.metrics["losses/baseline"] == without.baseline == 0


def test_a2c_looks_n_steps_ahead() -> None:
    """With all values 7: one step ahead of the end there is nothing, earlier the critic is believed."""
    agent = make(A2C, n_step=1)
    agent.policy.value_head.bias.data.fill_(7.0)
    agent.collector.reset(0)
    rollout = agent.collector.collect(12)
    batch, _ = agent._batch(rollout)
    last = torch.arange(5) == batch.lengths[:, None] - 1
    torch.testing.assert_close(batch.returns[last], torch.from_numpy(rollout.scores))
    assert (batch.returns[batch.mask & ~last] == 7).all()
    to_the_end, _ = make_like(agent, n_step=None)._batch(rollout)
    expected = torch.where(batch.mask, torch.from_numpy(rollout.scores)[:, None], 0.0)
    torch.testing.assert_close(to_the_end.returns, expected)


def make_like(agent: Any, **more: Any) -> Any:
    other = make(type(agent), **more)
    other.policy.load_state_dict(agent.policy.state_dict())
    return other


@pytest.mark.parametrize("agent_class", AGENTS)
def test_masks_enter_the_update(agent_class: type[OnPolicyAgent], masked_task: Task) -> None:
    group_size = 8 if issubclass(agent_class, GroupAgent) else 1
    envs = TextVectorEnv(masked_task, 16, invalid_reward=-1.0, group_size=group_size)
    agent: Any = agent_class(envs, width=16, num_heads=2, learning_rate=0.005, **one_step(agent_class)).learn(64)
    assert agent.metrics["charts/episodic_length"] == 4  # an illegal action would have ended a text early
    # Uniform over 3 actions at first, then over the 2 that do not repeat.
    assert agent.metrics["losses/entropy"] == pytest.approx((np.log(3) + 3 * np.log(2)) / 4, abs=1e-3)
    agent.learn(6_000)
    assert agent.metrics["charts/episodic_return"] > 0.4  # optimum 0.5, random 0.33
    assert agent.metrics["charts/episodic_length"] == 4


@pytest.mark.parametrize("agent_class", AGENTS)
def test_padding_has_no_influence_on_an_update(agent_class: type[OnPolicyAgent]) -> None:
    agents = make(agent_class), make(agent_class)
    with torch.no_grad():
        agents[1].policy.trunk.token_embedding[4] += 3.0
    before = [agent.parameters.detach().clone() for agent in agents]
    for agent in agents:
        agent.learn(80)
    steps = [agent.parameters.detach() - start for agent, start in zip(agents, before, strict=True)]
    assert steps[0].abs().max() > 1e-4
    torch.testing.assert_close(steps[0], steps[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("agent_class", AGENTS)
def test_everything_but_an_unused_critic_learns(agent_class: type[OnPolicyAgent]) -> None:
    agent = make(agent_class)
    before = {name: p.detach().clone() for name, p in agent.policy.named_parameters()}
    agent.learn(400)
    same = [name for name, p in agent.policy.named_parameters() if torch.equal(p, before[name])]
    assert same == ([] if agent_class is A2C else ["value_head.weight", "value_head.bias"])
    assert torch.isfinite(agent.parameters).all()


@pytest.mark.parametrize("agent_class", AGENTS)
def test_the_entropy_bonus_raises_entropy(agent_class: type[OnPolicyAgent]) -> None:
    def entropy_after(ent_coef: float) -> float:
        agent = make(agent_class, ent_coef=ent_coef, learning_rate=0.01)
        with torch.no_grad():
            agent.policy.policy_head.weight.mul_(100)
        return agent.learn(1_000).metrics["losses/entropy"]

    assert entropy_after(3.0) > entropy_after(0.0) + 0.15


# -- texts that were cut off -------------------------------------------------------------------------------------------


def cut_off_envs(limit: int) -> SyncVectorEnv:
    envs = [lambda: TimeLimit(TextEnv("HiddenTarget", length=4), limit)] * 6
    return SyncVectorEnv(envs, autoreset_mode=AutoresetMode.SAME_STEP)


def test_a2c_bootstraps_texts_that_were_cut_off() -> None:
    def returns(limit: int) -> torch.Tensor:
        agent = A2C(cut_off_envs(limit), width=16, num_heads=2, num_steps=limit)
        agent.policy.value_head.bias.data.fill_(7.0)
        agent.collector.reset(0)
        return agent._batch(agent.collector.collect(limit))[0].returns[:, :limit]

    assert (returns(3) == 7).all()
    assert (returns(4) <= 1).all()


@pytest.mark.parametrize("agent_class", [RLOO, GRPO, REINFORCE])
def test_without_a_critic_they_are_skipped(agent_class: type[OnPolicyAgent]) -> None:
    """Nothing is known of their scores: no update, and figures under the same keys."""
    more = {"group_size": None} if issubclass(agent_class, GroupAgent) else {}
    agent: Any = agent_class(cut_off_envs(3), width=16, num_heads=2, num_steps=3, **more)
    before = agent.parameters.detach().clone()
    agent.learn(50)
    assert agent.num_episodes > 10
    assert (agent.num_updates, agent.gradient_samples) == (0, 0)
    assert torch.equal(agent.parameters, before)
    assert np.isnan(agent.metrics["losses/policy_loss"])
    finished: Any = agent_class(cut_off_envs(4), width=16, num_heads=2, num_steps=4, **more).learn(50)
    assert finished.num_updates > 0
    assert not torch.equal(finished.parameters, before)
    assert {name for name in finished.metrics if "rewards/" not in name} == set(agent.metrics)


# -- with a reference --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("agent_class", AGENTS)
def test_kl_is_0_at_first_and_the_reference_never_changes(agent_class: type[OnPolicyAgent]) -> None:
    agent = with_reference(agent_class)
    frozen = {name: p.clone() for name, p in agent.reference.named_parameters()}
    agent.learn(80)
    assert agent.num_updates == 1
    assert abs(agent.metrics["objective/kl"]) < 1e-5
    agent.learn(800)
    assert agent.metrics["objective/kl"] > 1e-3
    assert all(torch.equal(frozen[name], p) for name, p in agent.reference.named_parameters())
    assert all(p.grad is None for p in agent.reference.parameters())


@pytest.mark.parametrize("agent_class", AGENTS)
def test_the_penalty_holds_the_policy_back(agent_class: type[OnPolicyAgent]) -> None:
    free, held = (with_reference(agent_class, kl_coef).learn(1_000) for kl_coef in (0.0, 3.0))
    assert free.metrics["objective/kl"] > 3 * held.metrics["objective/kl"] > 0
    assert free.metrics["objective/non_score_reward"] == 0
    for agent in (free, held):
        figures = {name.split("/")[1]: x for name, x in agent.metrics.items() if name.startswith("objective/")}
        assert figures["rlhf_reward"] == pytest.approx(figures["scores"] + figures["non_score_reward"], abs=1e-5)
        estimate = figures["kl"] if agent_class is GRPO else figures["kl_k1"]
        assert figures["non_score_reward"] == pytest.approx(-figures["kl_coef"] * estimate, rel=1e-4, abs=1e-6)


def test_rloo_puts_the_kl_into_the_score_of_a_text() -> None:
    agent = with_reference(RLOO, 0.5).learn(600)
    agent.collector.reset(0)
    rollout, groups = agent._groups.__class__(8, 16).add(agent.collector.collect(12))
    batch, _ = agent._batch(rollout, groups)
    ref_logprobs = agent.reference.logprobs(batch.rows, batch.lengths)
    k1 = torch.where(batch.mask, kl_k1(batch.logprobs, ref_logprobs), 0.0).sum(1)
    assert k1.abs().max() > 0.01
    penalised = rollout.scores - 0.5 * k1.numpy()
    for group in np.unique(groups):
        where = groups == group
        expected = (penalised[where] - penalised[where].mean()) * where.sum() / (where.sum() - 1)
        np.testing.assert_allclose(batch.advantages[where], expected, atol=1e-5)


@pytest.mark.parametrize("agent_class", AGENTS)
def test_a_coefficient_without_a_reference_is_refused(agent_class: type[OnPolicyAgent]) -> None:
    with pytest.raises(ValueError, match="give reference="):
        make(agent_class, kl_coef=0.1)


# -- life --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("agent_class", AGENTS)
def test_learn_save_load_learn_equals_learning_through(agent_class: type[OnPolicyAgent], tmp_path: Path) -> None:
    stopped, straight = make(agent_class, num_steps=7), make(agent_class, num_steps=7)
    stopped.learn(500)
    assert stopped.collector.get_state()["lengths"].any()  # episodes in flight
    if issubclass(agent_class, GroupAgent):
        assert len(stopped._groups) > 0  # and held back
    stopped.save(tmp_path / "checkpoint")
    resumed = agent_class.load(tmp_path / "checkpoint")
    assert everything(resumed) == everything(stopped)
    resumed.learn(500)
    straight.learn(500)
    straight.learn(500)
    assert everything(resumed) == everything(straight)
    assert everything(resumed) != everything(stopped)
    with pytest.raises(CheckpointError, match=f"checkpoint of {agent_class.__name__}, not of PPO"):
        PPO.load(tmp_path / "checkpoint")


@pytest.mark.parametrize("agent_class", [RLOO, GRPO])
def test_held_back_masks_survive_a_checkpoint(agent_class: type[OnPolicyAgent], tmp_path: Path) -> None:
    """Masked texts whose lengths differ: the walker may stop where it likes."""

    def walks() -> TextVectorEnv:
        return TextVectorEnv("RandomWalkMasked", 8, group_size=4)

    options: dict[str, Any] = {"width": 16, "num_heads": 2, "num_layers": 1}
    stopped, straight = agent_class(walks(), **options), agent_class(walks(), **options)
    stopped.learn(500)
    assert len(stopped._groups) > 0  # type: ignore[attr-defined]
    assert stopped._get_state()["groups"]["held"]["action_masks"].any()
    stopped.save(tmp_path / "checkpoint")
    resumed = agent_class.load(tmp_path / "checkpoint", env=walks()).learn(400)
    straight.learn(500)
    assert everything(resumed) == everything(straight.learn(400))


@pytest.mark.parametrize("agent_class", AGENTS)
def test_same_seed_same_bits_and_predicting_disturbs_nothing(agent_class: type[OnPolicyAgent]) -> None:
    first, disturbed, other = make(agent_class), make(agent_class), make(agent_class, seed=1)
    obs, _ = TextVectorEnv("Copy", 3, **VARYING).reset(seed=1)

    def callback(agent: Any) -> None:
        agent.predict(obs, deterministic=False)
        agent.predict(obs[0])

    first.learn(300)
    disturbed.learn(300, callback=callback)
    assert torch.equal(first.parameters, disturbed.parameters)
    assert not torch.equal(first.parameters, other.learn(300).parameters)


def test_values_out_of_range_are_named() -> None:
    for agent_class, key, value in (
        (A2C, "n_step", 0),
        (A2C, "gamma", 1.5),
        (REINFORCE, "baseline_decay", 1.0),
        (REINFORCE, "baseline", "mean"),
        (RLOO, "clip_coef", 0.0),
        (GRPO, "epochs", 0),
        (GRPO, "kl_coef", -1.0),
        (A2C, "num_steps", 0),
    ):
        with pytest.raises(ValueError, match=key):
            agent_class("textenvs/Copy-v0", **{key: value})
