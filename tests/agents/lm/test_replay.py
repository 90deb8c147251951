"""SoftQ trains a policy of one's own from replay, beside a reference: a language model and a small network alike."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit

import textenvs
from agents import DQN, CheckpointError, DiscreteSAC, SoftQ
from agents.demonstrations import read_demonstrations
from agents.lm import LMActorCritic, actor_critic
from agents.losses import kl_k1, kl_k3
from agents.networks import TransformerConfig
from agents.off_policy_losses import consistency_errors
from agents.policies import TransformerPolicy

V, T = 11, 7
VOCAB = textenvs.Vocab.symbols(V - 1, eos=True)
PROMPTS = ["1", "23", "456", "7890", "01", "9"]
POLICIES = ["gpt2", "gpt2-critic", "llama", "small"]
SMALL = {"tau": 0.1, "learning_rate": 0.003, "batch_size": 8, "learning_starts": 8, "updates_per_window": 2}


def ones(completions: list[str]) -> list[float]:
    """The share of ones: something to be learnt."""
    return [text.count("1") / T for text in completions]


def make_envs(num_envs: int = 8, reward: Any = ones, **others: Any) -> Any:
    sizes = {"max_new_tokens": T, "num_envs": num_envs, "prompt_length": 4}
    return textenvs.from_prompts(PROMPTS, VOCAB, reward=reward, **sizes, **others)


@pytest.fixture
def make_policy_of(make_model: Any) -> Any:
    """``make_policy_of(kind)``: a policy that is far from uniform."""

    def make(kind: str, **options: Any) -> Any:
        if kind == "small":
            policy = TransformerPolicy(V, 4, T, TransformerConfig(2, 16, 2))
            with torch.no_grad():
                policy.policy_head.weight.mul_(30)
            return policy
        name, _, critic = kind.partition("-")
        return LMActorCritic(make_model(name), critic="copy" if critic else "shared", **options)

    return make


@pytest.fixture
def make_agent(make_policy_of: Any) -> Any:
    """``make_agent(kind, **config)``: SoftQ with a policy and a frozen copy of it."""

    def make(kind: str = "gpt2", *, envs: Any = None, seed: int = 0, **config: Any) -> SoftQ:
        policy = make_policy_of(kind)
        return SoftQ(envs or make_envs(), policy=policy, reference=policy.frozen_copy(), seed=seed, **(SMALL | config))

    return make


def saved(tree: Any) -> Any:
    """A state tree as bytes."""
    if isinstance(tree, dict):
        return {name: saved(value) for name, value in tree.items()}
    if isinstance(tree, torch.Tensor):
        return tree.detach().numpy().tobytes()
    return tree.tobytes() if isinstance(tree, np.ndarray) else tree


# -- the reference -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", POLICIES)
def test_the_reference_stays_and_every_trainable_parameter_changes(kind: str, make_agent: Any) -> None:
    agent = make_agent(kind)
    frozen = {name: p.clone() for name, p in agent.reference.named_parameters()}
    before = {name: p.clone() for name, p in agent.policy.named_parameters()}
    agent.learn(400)
    assert all(torch.equal(frozen[name], p) for name, p in agent.reference.named_parameters())
    assert all(p.grad is None for p in agent.reference.parameters())
    assert [name for name, p in agent.policy.named_parameters() if torch.equal(before[name], p)] == []


@pytest.mark.parametrize("kind", POLICIES)
def test_the_buffer_keeps_what_the_reference_says(kind: str, make_agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make_agent(kind).learn(300)
    assert len(agent.replay.without_ref_logprobs()) == 0
    batch = agent._sample_batch()
    said = agent.reference.logprobs(batch.rows, batch.lengths)
    torch.testing.assert_close(agent.ref_logprobs(batch), said, atol=1e-5, rtol=1e-5)
    monkeypatch.setattr(agent.reference, "logprobs", lambda *_: pytest.fail("the reference was asked again"))
    agent.learn_offline(3)


@pytest.mark.parametrize("kind", POLICIES)
def test_the_exact_kl_is_that_of_all_tokens(kind: str, make_agent: Any) -> None:
    """Against Σ_a π log (π / π_ref), each token written in turn; gradients go into the policy alone."""
    agent = make_agent(kind).learn(300)
    batch = agent._sample_batch()
    rows, lengths = batch.rows[:1].clone(), torch.tensor([1])
    rows[:, 5:] = V
    own, kls = agent.policy.evaluate_beside(agent.reference, batch.rows, batch.lengths, None)
    plain = agent.policy.evaluate(batch.rows, batch.lengths)
    for name in ("logprobs", "entropies", "values"):
        torch.testing.assert_close(getattr(own, name), getattr(plain, name), atol=1e-5, rtol=1e-4)
    assert (kls[~batch.mask] == 0).all()
    expected = 0.0
    for token in range(V):
        rows[:, 4] = token
        logprob, ref = (each.logprobs(rows, lengths)[0, 0].item() for each in (agent.policy, agent.reference))
        expected += np.exp(logprob) * (logprob - ref)
    assert kls[0, 0].item() == pytest.approx(expected, rel=1e-3, abs=1e-6)
    kls.sum().backward()
    assert agent.gradient.abs().sum() > 0
    assert all(p.grad is None for p in agent.reference.parameters())


def test_the_exact_kl_in_pieces(make_agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = make_agent().learn(300)
    batch = agent._sample_batch()
    gradients = []
    for at_once in (2**24, 5 * V):
        monkeypatch.setattr(actor_critic, "LOGITS_AT_ONCE", at_once)
        agent.gradient.zero_()
        agent._loss(batch)[0].backward()
        gradients.append(agent.gradient.clone())
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", POLICIES)
def test_what_is_logged_is_that_of_the_window(kind: str, make_agent: Any) -> None:
    """KL as PPO logs it, from the log-probabilities of sampling; at first it is 0."""
    agent = make_agent(kind)
    agent.learn(40)
    assert abs(agent.metrics["objective/kl"]) < 1e-5
    agent.learn(600)
    before = agent.num_episodes
    agent.learn(1)
    metrics, count = agent.metrics, agent.num_episodes - before
    window = agent.replay.take(agent.replay.places(count))
    logprobs, ref_logprobs = torch.from_numpy(window.logprobs), torch.from_numpy(window.ref_logprobs)
    assert metrics["objective/kl"] == pytest.approx(float(kl_k3(logprobs, ref_logprobs).sum(1).mean()), rel=1e-4)
    k1, score = float(kl_k1(logprobs, ref_logprobs).sum(1).mean()), float(window.scores.mean())
    assert abs(k1) > 1e-3
    assert metrics["objective/kl_k1"] == pytest.approx(k1, rel=1e-4)
    assert metrics["objective/scores"] == pytest.approx(score)
    assert metrics["objective/non_score_reward"] == pytest.approx(-0.1 * k1, rel=1e-4)
    assert metrics["objective/rlhf_reward"] == pytest.approx(score - 0.1 * k1, rel=1e-4)
    assert metrics["objective/kl_coef"] == 0.1
    assert metrics["objective/entropy"] == pytest.approx(float(-logprobs.sum(1).mean()), rel=1e-4)


def test_the_buffer_holds_scores_and_no_kl(make_agent: Any) -> None:
    agent = make_agent(tau=5.0).learn(300)
    batch = agent._sample_batch()
    texts = ["".join(VOCAB.tokens[i] for i in row[4:] if i < V - 1) for row in batch.rows.tolist()]
    np.testing.assert_allclose(batch.scores, ones(texts), atol=1e-6)


# -- what is learnt ----------------------------------------------------------------------------------------------------

SYMBOLS, BUDGET, TAU = 4, 3, 0.5
TEXTS = ["".join(text) for n in range(BUDGET + 1) for text in itertools.product("0123", repeat=n)]
VALUES = dict(zip(TEXTS, np.random.default_rng(0).normal(size=len(TEXTS)).tolist(), strict=True))


def worth(completions: list[str]) -> list[float]:
    """Any number for each text: nothing adds up."""
    return [VALUES[text] for text in completions]


def all_texts(vocab: textenvs.Vocab) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows [2 · 85, 4], lengths and scores of every text to both prompts."""
    rows, lengths = [], []
    for prompt in range(2):
        for text in TEXTS:
            ids = [*map(int, text), *([vocab.eos_ids[0]] if len(text) < BUDGET else [])]
            rows.append([prompt, *ids, *[SYMBOLS + 1] * (BUDGET - len(ids))])
            lengths.append(len(ids))
    return torch.tensor(rows), torch.tensor(lengths), torch.tensor(worth(TEXTS) * 2)


@pytest.mark.learning
@pytest.mark.parametrize(
    ("kind", "online", "allowed"), [("gpt2", True, 0.04), ("small", True, 0.1), ("gpt2", False, 0.1)]
)
def test_the_policy_becomes_the_reference_times_exp_of_score_over_tau(
    kind: str, online: bool, allowed: float, make_model: Any, tmp_path: Path
) -> None:
    """All 85 texts to two prompts, any score each: the learnt distribution is close to π_ref · exp(score / τ) / Z, from
    texts of its own, or from each text that there is, once, without playing."""
    vocab = textenvs.Vocab.symbols(SYMBOLS, eos=True)
    sizes = {"max_new_tokens": BUDGET, "num_envs": 16, "prompt_length": 1}
    envs: Any = textenvs.from_prompts(["0", "1"], vocab, reward=worth, **sizes)
    if kind == "small":
        policy: Any = TransformerPolicy(SYMBOLS + 1, 1, BUDGET, TransformerConfig(2, 32, 2), seed=1)
        with torch.no_grad():
            policy.policy_head.weight.mul_(30)
    else:
        policy = LMActorCritic(make_model("gpt2", vocab_size=SYMBOLS + 1), critic="copy")
    reference = policy.frozen_copy()
    rows, lengths, scores = all_texts(vocab)
    reference.bind(envs.unwrapped.text_spec)
    ref = reference.logprobs(rows, lengths).sum(1).view(2, -1)
    torch.testing.assert_close(ref.exp().sum(1), torch.ones(2))  # these are all texts that there are
    optimum = (ref + scores.view(2, -1) / TAU).log_softmax(1)

    options = {"tau": TAU, "weight_decay": 0.0, "reward_scale": 1.0, "updates_per_window": 8}
    options |= {"batch_size": 32, "learning_starts": 64, "recent_episodes": 256}
    agent = SoftQ(envs, policy=policy, reference=reference, importance_weights=online, exact_kl=False, **options)
    if not online:
        lines = [{"prompt": prompt, "completion": text} for prompt in "01" for text in TEXTS]
        (tmp_path / "all.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        task = envs.unwrapped.task
        agent.replay.add_episodes(read_demonstrations(tmp_path / "all.jsonl", task)[0], task=task, reward=worth)

    def distance() -> float:
        """Total variation, the mean over both prompts."""
        own = policy.logprobs(rows, lengths).sum(1).view(2, -1)
        return 0.5 * (own.exp() - optimum.exp()).abs().sum(1).mean().item()

    assert distance() > 0.3
    for learning_rate in (3e-3, 1e-3, 3e-4):  # the noise of the steps is the last distance to go
        agent.optimizer.param_groups[0]["lr"] = learning_rate
        agent.learn(3_000) if online else agent.learn_offline(500)
    assert distance() < allowed
    assert (agent.num_episodes > 0) == online


def test_a_large_tau_holds_the_policy_at_its_reference(make_agent: Any) -> None:
    held, free = (make_agent(envs=make_envs(16), tau=tau, updates_per_window=8).learn(1_500) for tau in (3.0, 0.02))
    assert free.metrics["objective/kl"] > 3 * held.metrics["objective/kl"] > 0
    assert free.metrics["objective/scores"] > held.metrics["objective/scores"]


@pytest.mark.parametrize("exact_kl", [True, False])
@pytest.mark.parametrize("kind", ["gpt2", "small"])
def test_what_stands_behind_a_text_does_not_change_the_update(kind: str, exact_kl: bool, make_agent: Any) -> None:
    clean, dirty = (make_agent(kind, exact_kl=exact_kl).learn(200) for _ in range(2))
    batch = clean._sample_batch().replayed
    behind = np.arange(T) >= batch.lengths[:, None]
    rows = batch.rows.copy()
    rows[:, 4:][behind] = np.random.default_rng(1).integers(V, size=behind.sum())
    for agent, each in ((clean, batch), (dirty, dataclasses.replace(batch, rows=rows))):
        agent.replay.sample = lambda *_, each=each, **__: each
        agent._update()
    torch.testing.assert_close(clean.gradient, dirty.gradient, atol=1e-6, rtol=1e-4)


# -- masks, ends, other people's texts ---------------------------------------------------------------------------------


def test_masks_enter_the_reference_and_the_update(make_model: Any, masked_task: Any) -> None:
    envs = textenvs.TextVectorEnv(masked_task, 16, invalid_reward=-1.0)
    policy = LMActorCritic(make_model("gpt2"), bos_token_id=12)
    agent = SoftQ(envs, policy=policy, reference=policy.frozen_copy(), **SMALL)
    agent.learn(64)
    assert abs(agent.metrics["objective/kl"]) < 1e-5  # the reference is asked under the same masks
    agent.learn(1_000)
    assert agent.metrics["charts/episodic_length"] == 4  # an illegal action would have ended a text early
    batch = agent._sample_batch()
    assert batch.action_masks is not None
    torch.testing.assert_close(
        agent.ref_logprobs(batch), agent.reference.logprobs(batch.rows, batch.lengths, batch.action_masks)
    )
    only = np.zeros((16, 3), dtype=np.int8)
    only[:, 1] = 1
    assert (agent.predict(envs.reset(seed=0)[0], action_mask=only, deterministic=False)[0] == 1).all()


def test_texts_end_at_eos_and_nothing_counts_behind(make_agent: Any) -> None:
    agent = make_agent().learn(400)
    kept = agent.replay.take(agent.replay.places(1_000))
    last = kept.rows[np.arange(len(kept.rows)), 4 + kept.lengths - 1]
    assert ((last == V - 1) | (kept.lengths == T)).all()
    assert (kept.lengths < T).any()
    behind = np.arange(T) >= kept.lengths[:, None]
    assert (kept.ref_logprobs[behind] == 0).all()
    assert (kept.ref_logprobs[~behind] < 0).all()


def test_texts_of_others_need_no_logprobs(make_agent: Any, tmp_path: Path) -> None:
    agent = make_agent()
    task = agent.envs.unwrapped.task
    rows = [{"prompt": "1", "completion": text} for text in ("11", "1", "23")] * 4
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    episodes, _ = read_demonstrations(tmp_path / "texts.jsonl", task)
    agent.replay.add_episodes(episodes, task=task, reward=ones)
    metrics = agent.learn_offline(4)
    assert all(np.isfinite(list(metrics.values())))
    assert agent.num_episodes == 0
    batch = agent._sample_batch()  # who wrote them is taken to write like the reference
    torch.testing.assert_close(agent.behaviour_logprobs(batch), agent.ref_logprobs(batch), atol=0, rtol=0)
    agent.learn(50)
    assert set(agent.replay.sources) == {"demonstrations", "agent"}
    assert np.isfinite(agent.metrics["objective/kl"])


def test_texts_cut_off_by_a_time_limit_are_not_learnt_from(make_policy_of: Any) -> None:
    task = make_envs().unwrapped.task
    envs = SyncVectorEnv(
        [lambda: TimeLimit(textenvs.TextEnv(task, reward=ones), max_episode_steps=1)] * 4,
        autoreset_mode=AutoresetMode.SAME_STEP,
    )
    policy = make_policy_of("small")
    agent = SoftQ(envs, policy=policy, reference=policy.frozen_copy(), **SMALL).learn(30)
    assert agent.num_episodes > 20
    assert agent.num_gradient_steps == 0  # but for texts that are one EOS, none has ended
    assert (agent.replay.take(agent.replay.places(30)).lengths == 1).all()


def test_weights_that_are_switched_off_are_1(make_agent: Any) -> None:
    weighted, plain = (make_agent(importance_weights=on, exact_kl=False).learn(300) for on in (True, False))
    assert not torch.equal(weighted.parameters, plain.parameters)
    batch = plain._sample_batch()
    loss, _ = plain._loss(batch)
    new = plain.policy.evaluate(batch.rows, batch.lengths)
    log_ratios = new.logprobs - plain.ref_logprobs(batch)
    errors = consistency_errors(log_ratios, new.values, batch.scores, batch.lengths, 0.1, 0.95).detach()
    centred = errors - errors[batch.mask].mean()
    expected = -(centred * log_ratios)[batch.mask].mean() + 0.5 * errors[batch.mask].square().mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)


# -- the same bits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gpt2", "gpt2-critic", "small"])
def test_learn_save_load_learn_equals_learning_through(
    kind: str, make_agent: Any, make_policy_of: Any, tmp_path: Path
) -> None:
    through = make_agent(kind, capacity=40).learn(200)
    through.save(tmp_path / "agent")
    policy = make_policy_of(kind)
    resumed = SoftQ.load(tmp_path / "agent", make_envs(), policy=policy, reference=policy.frozen_copy())
    for agent in (through, resumed):
        agent.learn(200)
    assert saved(resumed._get_state()) == saved(through._get_state())
    assert resumed.num_episodes == through.num_episodes > 40
    assert resumed.gradient_samples == through.gradient_samples
    obs, _ = through.envs.reset(seed=1)
    np.testing.assert_array_equal(*(agent.predict(obs, deterministic=False)[0] for agent in (through, resumed)))


def test_predict_does_not_touch_training(make_agent: Any) -> None:
    agent, other = make_agent().learn(100), make_agent().learn(100)
    obs, _ = make_envs().reset(seed=3)
    for deterministic in (True, False):
        agent.predict(obs, deterministic=deterministic)
    for each in (agent, other):
        each.learn(100)
    assert torch.equal(agent.parameters, other.parameters)


def test_checkpoints_of_another_kind_are_refused(make_agent: Any, make_policy_of: Any, tmp_path: Path) -> None:
    make_agent("gpt2").learn(100).save(tmp_path / "lm")
    SoftQ(make_envs(), batch_size=8, learning_starts=8).save(tmp_path / "own")
    policy, other = make_policy_of("gpt2"), make_policy_of("small")
    changed = make_policy_of("gpt2")
    with torch.no_grad():
        next(changed.parameters()).add_(1.0)
    with pytest.raises(CheckpointError, match=r"with a LMActorCritic: give SoftQ\.load"):
        SoftQ.load(tmp_path / "lm", make_envs(), policy=other, reference=other.frozen_copy())
    with pytest.raises(CheckpointError, match="reference, or a frozen part of the policy, is not the one"):
        SoftQ.load(tmp_path / "lm", make_envs(), policy=policy, reference=changed.frozen_copy())
    with pytest.raises(CheckpointError, match=r"with a LMActorCritic: give SoftQ\.load"):
        SoftQ.load(tmp_path / "lm", make_envs())
    with pytest.raises(CheckpointError, match="with no policy of its own: load it without policy="):
        SoftQ.load(tmp_path / "own", make_envs(), policy=policy, reference=policy.frozen_copy())


# -- defaults and bad input --------------------------------------------------------------------------------------------


def test_a_language_model_brings_its_own_defaults(make_policy_of: Any) -> None:
    policy = make_policy_of("gpt2")
    agent = SoftQ(make_envs(), policy=policy, reference=policy.frozen_copy(), tau=0.3)
    assert (agent.config.learning_rate, agent.config.weight_decay, agent.config.reward_scale) == (1e-5, 0.0, 1.0)
    assert agent.tau == 0.3
    own = SoftQ(make_envs(), policy=policy, reference=policy.frozen_copy(), learning_rate=0.5)
    assert (own.config.learning_rate, own.config.tau) == (0.5, 0.05)


def test_policy_and_reference_go_together(make_policy_of: Any) -> None:
    policy = make_policy_of("gpt2")
    with pytest.raises(ValueError, match=r"policy= was given without reference=.*frozen_copy"):
        SoftQ(make_envs(), policy=policy)
    with pytest.raises(ValueError, match=r"reference= was given without policy="):
        SoftQ(make_envs(), reference=policy)
    with pytest.raises(ValueError, match="reference would change with the policy"):
        SoftQ(make_envs(), policy=policy, reference=policy)
    colder = make_policy_of("gpt2", temperature=0.5).frozen_copy()
    with pytest.raises(ValueError, match=r"reference has temperature=0\.5, the policy 1\.0"):
        SoftQ(make_envs(), policy=policy, reference=colder)
    with pytest.raises(ValueError, match="cannot be compared"):
        SoftQ(make_envs(), policy=policy, reference=make_policy_of("llama").frozen_copy())


@pytest.mark.parametrize("kind", [DQN, DiscreteSAC])
def test_agents_with_a_network_of_their_own_name_the_one_that_takes_a_policy(kind: Any, make_policy_of: Any) -> None:
    policy = make_policy_of("gpt2")
    with pytest.raises(TypeError, match=rf"{kind.__name__} trains a network of its own.*SoftQ trains a policy"):
        kind(make_envs(), policy=policy, reference=policy.frozen_copy())
    with pytest.raises(TypeError, match="takes no policy= or reference="):
        kind(make_envs(), reference=policy)


@pytest.mark.parametrize(
    ("config", "message"),
    [({"path_lambda": 1.5}, "path_lambda must be between 0 and 1; got 1.5"), ({"vf_coef": 0.0}, "vf_coef must be")],
)
def test_config_values_out_of_range(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SoftQ("textenvs/Copy-v0", **config)
