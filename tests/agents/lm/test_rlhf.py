"""RLHF is a configuration of PPO: what must hold, for a language model and for the small transformer alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit

import textenvs
from agents import PPO, CheckpointError
from agents.lm import LMActorCritic
from agents.losses import kl_k1, kl_k3
from agents.networks import TransformerConfig
from agents.policies import TransformerPolicy
from agents.returns import step_mask, whiten

V, T = 11, 7
VOCAB = textenvs.Vocab.symbols(V - 1, eos=True)
PROMPTS = ["1", "23", "456", "7890", "01", "9"]
POLICIES = ["gpt2", "gpt2-critic", "llama", "small"]
SMALL = TransformerConfig(2, 16, 2)


def ones(completions: list[str]) -> list[float]:
    """The share of ones: something to be learnt."""
    return [text.count("1") / T for text in completions]


def make_envs(num_envs: int = 8, reward: Any = ones, **others: Any) -> Any:
    sizes = {"max_new_tokens": T, "num_envs": num_envs, "prompt_length": 4}
    return textenvs.from_prompts(PROMPTS, VOCAB, reward=reward, **sizes, **others)


@pytest.fixture
def make_agent(make_model: Any) -> Any:
    """``make_agent(kind, **config)``: an agent whose policy is far from uniform, a frozen copy its reference."""

    def make(kind: str = "gpt2", *, envs: Any = None, seed: int = 0, temperature: float = 1.0, **config: Any) -> PPO:
        if kind == "small":
            policy: Any = TransformerPolicy(V, 4, T, SMALL)
            with torch.no_grad():
                policy.policy_head.weight.mul_(30)
        else:
            name, _, critic = kind.partition("-")
            policy = LMActorCritic(make_model(name), critic="copy" if critic else "shared", temperature=temperature)
        options = {"kl_coef": 0.1, "learning_rate": 0.003, "epochs": 2, "num_minibatches": 2} | config
        reference = policy.frozen_copy() if options.pop("reference", True) else None
        return PPO(envs or make_envs(), policy=policy, reference=reference, seed=seed, **options)

    return make


def tensors(rollout: Any) -> tuple[torch.Tensor, ...]:
    rows, lengths = torch.from_numpy(rollout.rows), torch.from_numpy(rollout.lengths)
    return rows, lengths, torch.from_numpy(rollout.logprobs), step_mask(lengths, T)


@pytest.mark.parametrize("kind", POLICIES)
def test_kl_0_and_ratio_1_at_the_first_step(kind: str, make_agent: Any) -> None:
    agent = make_agent(kind, epochs=1, num_minibatches=1, temperature=0.7).learn(40)
    assert agent.num_updates == 1
    assert abs(agent.metrics["objective/kl"]) < 1e-5
    assert abs(agent.metrics["objective/non_score_reward"]) < 1e-5
    assert abs(agent.metrics["losses/approx_kl"]) < 1e-6
    assert agent.metrics["losses/clipfrac"] == 0
    agent.learn(200)  # far from the first policy
    assert agent.metrics["objective/kl"] > 1e-4
    agent.collector.reset(0)  # episodes begun under the present weights
    rows, lengths, logprobs, mask = tensors(agent.collector.collect(T))
    evaluation = agent.policy.evaluate(rows, lengths)
    assert ((evaluation.logprobs - logprobs)[mask].exp() - 1).abs().max() <= 1e-5


@pytest.mark.parametrize("kind", POLICIES)
def test_rewards_are_the_score_less_the_penalty(kind: str, make_agent: Any) -> None:
    """Token by token, and Σ rewards = score − kl_coef · Σ k1; the figures that are logged follow from it."""
    agent = make_agent(kind, whiten_advantages=False, gae_lambda=1.0).learn(200)
    agent.collector.reset(0)
    rollout = agent.collector.collect(2 * T)
    rows, lengths, logprobs, mask = tensors(rollout)
    ref_logprobs = agent.reference.logprobs(rows, lengths)
    k1 = torch.where(mask, kl_k1(logprobs, ref_logprobs), 0.0)
    assert k1.abs().max() > 1e-3
    expected = -0.1 * k1
    last = torch.arange(len(rows)), lengths - 1
    expected[last] += torch.from_numpy(rollout.scores)

    rewards, objective = agent._penalise(torch.from_numpy(rollout.rewards), logprobs, ref_logprobs, mask)
    torch.testing.assert_close(rewards, expected)
    torch.testing.assert_close(rewards.sum(1), torch.from_numpy(rollout.scores) - 0.1 * k1.sum(1))
    k3 = torch.where(mask, kl_k3(logprobs, ref_logprobs), 0.0)
    assert objective["objective/kl"] == pytest.approx(float(k3.sum(1).mean()), rel=1e-4)
    assert objective["objective/kl_k1"] == pytest.approx(float(k1.sum(1).mean()), rel=1e-4)
    assert objective["objective/scores"] == pytest.approx(float(rollout.scores.mean()))
    assert objective["objective/non_score_reward"] == pytest.approx(float(-0.1 * k1.sum(1).mean()), rel=1e-4)
    assert objective["objective/rlhf_reward"] == pytest.approx(float(rewards.sum(1).mean()), rel=1e-4)
    assert objective["objective/entropy"] == pytest.approx(float(-logprobs.sum(1).mean()), rel=1e-5)
    assert objective["objective/kl_coef"] == 0.1
    # λ = 1, γ = 1: the return of the first state is the sum of the rewards
    batch, _ = agent._batch(rollout)
    torch.testing.assert_close(batch.returns[:, 0], rewards.sum(1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", POLICIES)
def test_the_reference_stays_and_every_trainable_parameter_changes(kind: str, make_agent: Any) -> None:
    agent = make_agent(kind, vf_coef=0.5)
    frozen = {name: p.clone() for name, p in agent.reference.named_parameters()}
    before = {name: p.clone() for name, p in agent.policy.named_parameters()}
    agent.learn(400)
    assert all(torch.equal(frozen[name], p) for name, p in agent.reference.named_parameters())
    assert [name for name, p in agent.policy.named_parameters() if torch.equal(before[name], p)] == []


@pytest.mark.parametrize("kind", ["gpt2-critic", "small"])
def test_two_seeds_differ_and_one_repeats(kind: str, make_agent: Any) -> None:
    def end(seed: int) -> tuple[Any, ...]:
        agent = make_agent(kind, seed=seed).learn(150)
        return agent.metrics["objective/kl"], agent.metrics["objective/scores"], agent.parameters.sum().item()

    assert end(0) == end(0)
    assert end(0) != end(1)


@pytest.mark.parametrize("kind", POLICIES)
@pytest.mark.parametrize("micro_batch_size", [1, 5])
def test_accumulation_over_micro_batches_equals_the_big_batch(
    kind: str, micro_batch_size: int, make_agent: Any
) -> None:
    """Texts differ in length, so parts of a minibatch differ in tokens: their means must be weighted."""
    whole = make_agent(kind, ent_coef=0.02, max_grad_norm=1e9)
    parts = make_agent(kind, ent_coef=0.02, max_grad_norm=1e9, micro_batch_size=micro_batch_size)
    for agent in (whole, parts):
        agent.collector.reset(0)
    rollouts = [agent.collector.collect(2 * T) for agent in (whole, parts)]
    assert np.array_equal(rollouts[0].rows, rollouts[1].rows)
    assert len(set(rollouts[0].lengths.tolist())) > 3
    metrics = []
    gradients: list[list[torch.Tensor]] = [[], []]
    for agent, rollout, seen in zip((whole, parts), rollouts, gradients, strict=True):
        usual = agent.optimizer.step
        agent.optimizer.step = lambda agent=agent, seen=seen, usual=usual: (
            seen.append(agent.gradient.clone()),
            usual(),
        )
        metrics.append(agent._update(rollout))
    torch.testing.assert_close(gradients[1][0], gradients[0][0], atol=1e-5, rtol=1e-4)
    assert metrics[1] == pytest.approx(metrics[0], rel=2e-3, abs=1e-4)


@pytest.mark.parametrize("kind", ["gpt2", "small"])
def test_padding_changes_nothing(kind: str, make_agent: Any) -> None:
    """A whole run, bit for bit, with another embedding in the place of padding."""
    plain, other = make_agent(kind), make_agent(kind)
    if kind == "small":
        for policy in (other.policy, other.reference):
            with torch.no_grad():
                policy.trunk.token_embedding[V] += 3.0
    else:
        for policy in (other.policy, other.reference):
            policy._padding_id = 12
    for agent in (plain, other):
        agent.learn(150)
    assert {k: v for k, v in plain.metrics.items() if "SPS" not in k} == pytest.approx(
        {k: v for k, v in other.metrics.items() if "SPS" not in k}, abs=0, rel=0
    )


def test_dropout_is_off_in_the_update(make_agent: Any, make_model: Any) -> None:
    def learn(dropout: float) -> Any:
        policy = LMActorCritic(make_model("gpt2", dropout=dropout))
        agent = PPO(make_envs(), policy=policy, reference=policy.frozen_copy(), kl_coef=0.1, learning_rate=0.003)
        return agent.learn(100)

    assert torch.equal(learn(0.0).parameters, learn(0.5).parameters)


# -- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", POLICIES)
def test_values_seen_while_playing_are_those_of_the_finished_texts(
    kind: str, make_agent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = make_agent(kind).learn(200)
    agent.collector.reset(0)
    rollout = agent.collector.collect(2 * T)
    rows, lengths, _, mask = tensors(rollout)
    values = agent.policy.values(rows, lengths)[0].detach()
    assert values[mask].std() > 0
    assert (rollout.values is None) == (kind in ("gpt2-critic", "small"))
    if rollout.values is not None:
        np.testing.assert_allclose(rollout.values, values.numpy(), atol=1e-5)
        monkeypatch.setattr(agent.policy, "values", lambda *_: pytest.fail("values were computed again"))
    batch, _ = agent._batch(rollout)
    torch.testing.assert_close(batch.values, values, atol=1e-5, rtol=0)


def test_texts_that_were_cut_off_are_bootstrapped(make_model: Any) -> None:
    task = make_envs().task
    envs = SyncVectorEnv(
        [lambda: TimeLimit(textenvs.TextEnv(task, reward=ones), max_episode_steps=3)] * 4,
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    policy = LMActorCritic(make_model("gpt2"))
    torch.nn.init.normal_(policy.value_head.weight)
    agent = PPO(envs, policy=policy, gae_lambda=1.0, whiten_advantages=False)
    agent.collector.reset(0)
    rollout = agent.collector.collect(6)
    cut = rollout.truncated & ~rollout.terminated
    assert cut.sum() > 4
    _, after = policy.values(torch.from_numpy(rollout.rows), torch.from_numpy(rollout.lengths))
    batch, _ = agent._batch(rollout)
    expected = torch.where(torch.from_numpy(cut), after, torch.from_numpy(rollout.scores))
    torch.testing.assert_close(batch.returns[:, 0], expected, atol=1e-5, rtol=0)


# -- the coefficient and the scale of rewards --------------------------------------------------------------------------


def test_an_adaptive_coefficient_moves_towards_its_target(make_agent: Any) -> None:
    low = make_agent(kl_target=1e-6, kl_horizon=100).learn(300)
    high = make_agent(kl_target=1e6, kl_horizon=100).learn(300)
    fixed = make_agent().learn(300)
    assert low.kl_coef > fixed.kl_coef == 0.1 > high.kl_coef > 0
    assert low.metrics["objective/kl_coef"] < low.kl_coef  # logged is the one that was used


def test_the_penalty_holds_the_policy_back(make_agent: Any) -> None:
    options = {"learning_rate": 0.005, "epochs": 4}
    free, held = (
        make_agent("llama", envs=make_envs(32), kl_coef=kl_coef, **options).learn(1_500) for kl_coef in (0.0, 3.0)
    )
    assert free.metrics["objective/kl"] > 3 * held.metrics["objective/kl"] > 0
    assert free.metrics["objective/scores"] > held.metrics["objective/scores"]
    assert free.metrics["objective/non_score_reward"] == 0


def test_rewards_are_whitened_by_scale_only(make_agent: Any) -> None:
    agent = make_agent(whiten_rewards=True, gae_lambda=1.0, whiten_advantages=False).learn(100)
    agent.collector.reset(0)
    rollout = agent.collector.collect(2 * T)
    rows, lengths, logprobs, mask = tensors(rollout)
    rewards, _ = agent._penalise(
        torch.from_numpy(rollout.rewards), logprobs, agent.reference.logprobs(rows, lengths), mask
    )
    batch, _ = agent._batch(rollout)
    expected = rewards / rewards[mask].std(correction=0)
    torch.testing.assert_close(whiten(rewards, mask, shift_mean=False), torch.where(mask, expected, 0.0))
    torch.testing.assert_close(batch.returns[:, 0], expected.sum(1), atol=1e-4, rtol=1e-4)


def test_a_language_model_brings_its_own_defaults(make_model: Any) -> None:
    policy = LMActorCritic(make_model("gpt2"))
    assert PPO(make_envs(), policy=policy).config.learning_rate == 1e-5
    agent = PPO(make_envs(), policy=policy, learning_rate=0.5)
    assert (agent.config.learning_rate, agent.config.vf_coef, agent.config.ent_coef) == (0.5, 0.1, 0.0)
    assert PPO(make_envs()).config.learning_rate == 1e-3


def test_a_task_without_prompts_begins_with_bos(make_model: Any) -> None:
    policy = LMActorCritic(make_model("gpt2", vocab_size=17, bos_token_id=16))
    reference = policy.frozen_copy()  # made before anybody knows that there are no prompts
    options = {"kl_coef": 0.1, "learning_rate": 0.003}
    env_kwargs = {"length": 5, "num_symbols": 16}
    agent = PPO("textenvs/HiddenTarget-v0", policy=policy, reference=reference, env_kwargs=env_kwargs, **options)
    agent.learn(5 * 64)
    assert policy.bos_token_id == reference.bos_token_id == 16
    assert abs(agent.metrics["objective/kl"]) < 1e-4
    assert agent.metrics["charts/episodic_length"] == 5


def test_masks_enter_the_penalty_and_the_update(make_model: Any, masked_task: Any) -> None:
    """The mask's probabilities are the reference's too: KL 0 at first, whatever it forbids."""
    envs = textenvs.TextVectorEnv(masked_task, 16, invalid_reward=-1.0)
    policy = LMActorCritic(make_model("gpt2"), bos_token_id=12)
    agent = PPO(envs, policy=policy, reference=policy.frozen_copy(), kl_coef=0.1, epochs=1, num_minibatches=1)
    agent.learn(64)
    assert agent.metrics["charts/episodic_length"] == 4  # an illegal action would have ended a text early
    assert abs(agent.metrics["objective/kl"]) < 1e-5
    assert abs(agent.metrics["losses/approx_kl"]) < 1e-6


def test_it_learns(make_model: Any) -> None:
    """A language model with random weights learns to write ones, through the very same loop as everybody."""
    policy = LMActorCritic(make_model("llama"), critic="copy")
    options = {"kl_coef": 0.01, "learning_rate": 0.02, "vf_coef": 0.5, "epochs": 2, "num_minibatches": 2}
    agent = PPO(make_envs(32), policy=policy, reference=policy.frozen_copy(), **options)
    agent.learn(224)
    before = agent.metrics["objective/scores"]
    agent.learn(6_000)
    assert agent.metrics["objective/scores"] > before + 0.4
    assert agent.metrics["objective/kl"] > 1


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_an_adapter_alone_is_trained(make_model: Any, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")

    def make() -> PPO:
        config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        torch.manual_seed(0)
        policy = LMActorCritic(peft.get_peft_model(make_model("llama"), config))
        reference = policy.without_adapter()
        return PPO(make_envs(), policy=policy, reference=reference, kl_coef=0.1, learning_rate=0.01)

    agent = make()
    frozen = {name: p.clone() for name, p in agent.policy.named_parameters() if not p.requires_grad}
    agent.learn(200)
    assert agent.metrics["objective/kl"] > 1e-3
    assert all(torch.equal(frozen[name], p) for name, p in agent.policy.named_parameters() if not p.requires_grad)
    assert agent.parameters.numel() < 0.2 * sum(p.numel() for p in agent.policy.parameters())
    agent.save(tmp_path / "checkpoint")
    assert (tmp_path / "checkpoint" / "network.safetensors").stat().st_size < 12_000
    again = make()
    again = PPO.load(
        tmp_path / "checkpoint", make_envs(), policy=again.policy, reference=again.policy.without_adapter()
    )
    assert torch.equal(again.parameters, agent.parameters)


# -- checkpoints -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gpt2", "gpt2-critic", "small"])
def test_learn_save_load_learn_equals_learning_through(kind: str, make_agent: Any, tmp_path: Path) -> None:
    options = {"kl_target": 0.5, "kl_horizon": 50, "num_steps": 5}
    stopped, straight = make_agent(kind, **options), make_agent(kind, **options)
    stopped.learn(100)
    stopped.save(tmp_path / "checkpoint")
    fresh = make_agent(kind)
    resumed = PPO.load(tmp_path / "checkpoint", make_envs(), policy=fresh.policy, reference=fresh.reference)
    resumed.learn(100)
    straight.learn(100).learn(100)
    assert torch.equal(resumed.parameters, straight.parameters)
    assert resumed.kl_coef == straight.kl_coef != 0.1
    assert resumed.metrics["objective/kl"] == straight.metrics["objective/kl"]


def test_checkpoints_name_the_parts_that_are_missing(make_agent: Any, make_model: Any, tmp_path: Path) -> None:
    make_agent("gpt2").learn(50).save(tmp_path / "checkpoint")

    def load(**parts: Any) -> None:
        PPO.load(tmp_path / "checkpoint", make_envs(), **parts)

    small = TransformerPolicy(V, 4, T, SMALL).frozen_copy()
    with pytest.raises(CheckpointError, match=r"checkpoint of a LMActorCritic: give PPO\.load\(…, policy=\)"):
        load(reference=small)
    policy, other = (LMActorCritic(make_model("gpt2", seed=seed)) for seed in (0, 5))
    with pytest.raises(CheckpointError, match="The reference, or a frozen part of the policy, is not the one"):
        load(policy=policy, reference=other.frozen_copy())
    with_critic = LMActorCritic(make_model("gpt2"), critic="copy")
    with pytest.raises(CheckpointError, match="parameters differ, for instance 'critic"):
        load(policy=with_critic, reference=policy.frozen_copy())


# -- what does not fit -------------------------------------------------------------------------------------------------


def test_parts_that_do_not_fit_are_named_before_training(make_model: Any) -> None:
    policy = LMActorCritic(make_model("gpt2"))
    with pytest.raises(ValueError, match="kl_coef is the weight of a penalty for leaving a reference: give reference="):
        PPO(make_envs(), policy=policy, kl_coef=0.1)
    with pytest.raises(ValueError, match="would change with the policy"):
        PPO(make_envs(), policy=policy, reference=policy)
    with pytest.raises(ValueError, match="a LlamaForCausalLM with 13 tokens, the policy a GPT2LMHeadModel"):
        PPO(make_envs(), policy=policy, reference=LMActorCritic(make_model("llama")).frozen_copy())
    with pytest.raises(ValueError, match="reference of a language model is one too"):
        PPO(make_envs(), policy=policy, reference=TransformerPolicy(V, 4, T, SMALL).frozen_copy())
    with pytest.raises(ValueError, match="The reference of a TransformerPolicy is one too"):
        PPO(make_envs(), reference=policy.frozen_copy())
    with pytest.raises(ValueError, match="would change with the policy"):
        PPO(make_envs(), reference=TransformerPolicy(V, 4, T, SMALL))
    with pytest.raises(ValueError, match=r"\(11, 4, 7\); this policy was made for \(11, 4, 6\)"):
        PPO(make_envs(), policy=TransformerPolicy(V, 4, 6, SMALL))
    with pytest.raises(ValueError, match="kl_target adapts kl_coef by factors"):
        PPO(make_envs(), policy=policy, kl_target=3.0)
    with pytest.raises(ValueError, match="micro_batch_size must be None or at least 1"):
        PPO(make_envs(), policy=policy, micro_batch_size=0)
    short = LMActorCritic(make_model("gpt2", n_positions=8))
    with pytest.raises(ValueError, match="reads at most 8 tokens; prompts of 4 and texts of 7 tokens need 10"):
        PPO(make_envs(), policy=short)
