"""Agents and policies under exact evaluation: the tree agrees with whole texts, and with what is sampled."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import textenvs
from agents import DQN, PPO, DiscreteSAC, RandomAgent, SoftQ
from agents.exact import next_logprobs
from agents.networks import TransformerConfig
from agents.policies import TransformerPolicy
from textenvs.exact import ExactProblem, TextTree, uniform_policy

CASES: dict[str, dict[str, Any]] = {
    "plain": {"env": "textenvs/HiddenTarget-v0", "length": 3, "num_symbols": 4},
    "prompts and EOS": {"env": "textenvs/Copy-v0", "length": 3, "num_symbols": 3, "min_length": 1},
    "masks": {"env": "textenvs/DyckMasked-v0", "length": 2, "num_kinds": 3},
}


def make(case: str) -> tuple[Any, Any]:
    """An environment and the number of a prompt, None where it has none."""
    arguments = dict(CASES[case])
    envs: Any = gym.make_vec(arguments.pop("env"), num_envs=8, vectorization_mode="vector_entry_point", **arguments)
    return envs, ([2, 0] if envs.unwrapped.task.has_prompts else None)


def shaken(policy: Any, seed: int = 0) -> Any:
    """Other weights, so that the policy is far from uniform."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.ndim > 1:
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return policy


def whole_texts(policy: Any, tree: TextTree) -> np.ndarray:
    """Log-probabilities of all texts, each read as a whole: what an update sees."""
    spec_masks = None
    rows, lengths = tree.rows(), tree.lengths
    if tree.task.has_masks:
        masks = np.ones((len(rows), tree.task.max_new_tokens, tree.task.pad_id), dtype=bool)
        for t in range(tree.task.max_new_tokens):
            prefix = rows.copy()
            prefix[:, tree.task.prompt_length + t :] = tree.task.pad_id
            masks[:, t] = tree.task.action_masks(prefix, np.full(len(rows), t))
        spec_masks = torch.from_numpy(masks)
    with torch.no_grad():
        evaluation = policy.evaluate(torch.from_numpy(rows), torch.from_numpy(lengths), spec_masks)
    return evaluation.logprobs.double().sum(1).numpy()


@pytest.mark.parametrize("case", CASES)
def test_the_tree_agrees_with_whole_texts(case: str) -> None:
    envs, prompts = make(case)
    agent = PPO(envs)
    shaken(agent.policy)
    problem = ExactProblem(envs, next_logprobs(agent), prompts=prompts)
    for tree, logprobs in zip(problem.trees, problem.ref_logprobs, strict=True):
        assert np.allclose(logprobs, whole_texts(agent.policy, tree), atol=1e-4)
        assert np.exp(logprobs).sum() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("agent_class", [SoftQ, DiscreteSAC])
@pytest.mark.parametrize("case", CASES)
def test_agents_with_a_replay_buffer_answer_with_what_they_sample_from(agent_class: Any, case: str) -> None:
    """The log-probabilities of its own actions in play are those of the tree."""
    envs, _ = make(case)
    agent = agent_class(envs)
    shaken(agent.network, 1)
    obs, info = envs.reset(seed=3)
    policy = next_logprobs(agent)
    for _ in range(2):
        masks = info.get("action_mask")
        actions, logprobs = agent._act(obs, masks)
        written = (obs[:, agent.text_spec.prompt_length :] != agent.text_spec.pad_id).sum(1)
        for t in np.unique(written):
            here = np.flatnonzero(written == t)
            answer = policy(obs[here], None if masks is None else masks[here].astype(bool))
            assert np.allclose(answer[np.arange(len(here)), actions[here]], logprobs[here], atol=1e-4)
        obs, _, _, _, info = envs.step(actions)


def test_exact_reward_and_kl_of_ppo_agree_with_its_own_rollouts() -> None:
    """Within three standard errors of 2,000 episodes, prompts as they are drawn: all of them, equally often."""
    envs: Any = gym.make_vec(
        "textenvs/Reverse-v0", num_envs=500, vectorization_mode="vector_entry_point", length=2, num_symbols=4
    )
    agent = PPO(envs, seed=1)
    shaken(agent.policy, 2)
    reference = shaken(agent.policy.frozen_copy(), 3)
    count = envs.unwrapped.task.prompt_set.count
    point = ExactProblem(envs, next_logprobs(reference, agent.text_spec), prompts=range(count)).evaluate(
        next_logprobs(agent)
    )
    agent.collector.reset(0)
    rollout = agent.collector.collect(8)
    rows, lengths = torch.from_numpy(rollout.rows), torch.from_numpy(rollout.lengths)
    kls = (rollout.logprobs - reference.logprobs(rows, lengths).numpy()).sum(1)
    assert len(rollout) == 2_000
    for sampled, exact in ((rollout.scores, point.reward), (kls, point.kl)):
        assert abs(sampled.mean() - exact) <= 3 * sampled.std() / np.sqrt(len(sampled))


def test_soft_q_with_a_policy_of_ones_own_answers_with_that_policy() -> None:
    envs, _ = make("plain")
    policy = shaken(TransformerPolicy(4, 0, 3))
    agent = SoftQ(envs, policy=policy, reference=policy.frozen_copy(), tau=0.1)
    problem = ExactProblem(envs, next_logprobs(policy, agent.text_spec))
    assert problem.evaluate(next_logprobs(agent)).kl == 0


def test_it_reads_the_weights_of_the_moment() -> None:
    envs, _ = make("plain")
    agent = PPO(envs)
    policy = next_logprobs(agent)
    problem = ExactProblem(envs, uniform_policy(4))
    before = problem.evaluate(policy)
    shaken(agent.policy)
    assert problem.evaluate(policy) != before


def test_a_language_model_agrees_with_itself(tiny_lm: Callable[..., Any]) -> None:
    for case in ("plain", "prompts and EOS", "masks"):
        envs, prompts = make(case)
        policy = tiny_lm(envs.unwrapped.text_spec.num_tokens + 1, temperature=0.7)
        policy.bind(envs.unwrapped.text_spec)
        problem = ExactProblem(envs, next_logprobs(policy), prompts=prompts)
        for tree, logprobs in zip(problem.trees, problem.ref_logprobs, strict=True):
            assert np.allclose(logprobs, whole_texts(policy, tree), atol=1e-4)


@pytest.fixture
def tiny_lm() -> Callable[..., Any]:
    transformers = pytest.importorskip("transformers")
    from agents import LMActorCritic

    def build(size: int, temperature: float) -> Any:
        torch.manual_seed(0)
        config = transformers.GPT2Config(
            vocab_size=size,
            n_positions=16,
            n_embd=16,
            n_layer=2,
            n_head=2,
            bos_token_id=size - 1,
            initializer_range=0.5,
        )
        model = transformers.GPT2LMHeadModel(config)
        return LMActorCritic(model, temperature=temperature, bos_token_id=size - 1)

    return build


def test_a_two_layer_policy_on_a_quarter_of_a_million_texts_within_the_bar() -> None:
    env = textenvs.TextEnv("HiddenTarget", length=6, num_symbols=8)
    policy = shaken(TransformerPolicy(8, 0, 6, TransformerConfig(2, 64, 4)))
    start = time.perf_counter()
    problem = ExactProblem(env, uniform_policy(8))
    point = problem.evaluate(next_logprobs(policy, env.text_spec))
    assert problem.num_texts == 262_144
    assert point.kl > 0.1
    assert time.perf_counter() - start < 60  # 3 s on one core


def test_what_samples_from_no_distribution_over_tokens_is_refused() -> None:
    envs, _ = make("plain")
    for agent in (RandomAgent(envs), DQN(envs)):
        with pytest.raises(TypeError, match=rf"{type(agent).__name__} has no next_logprobs"):
            next_logprobs(agent)


def test_a_policy_needs_to_know_its_environment() -> None:
    policy = TransformerPolicy(4, 0, 3)
    with pytest.raises(ValueError, match="Pass spec=, the text_spec"):
        next_logprobs(policy)
    envs, _ = make("prompts and EOS")
    with pytest.raises(ValueError, match=r"= \(4, 3, 4\); this policy was made for \(4, 0, 3\)"):
        next_logprobs(policy, envs.unwrapped.text_spec)
