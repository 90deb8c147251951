"""Sampling answers: K of each prompt, exactly as many of each, by the probabilities that the policy has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import textenvs
from agents import PPO, LMActorCritic
from agents.lm.preferences import make_rankings, rank_answers
from agents.lm.sampling import sample_answers
from textenvs.rewards import Judge, make_reward
from textenvs.spec import TextSpec

V, T = 11, 7
VOCAB = textenvs.Vocab.symbols(V - 1, eos=True)
PROMPTS = ["1", "23", "456", "7890", "01", "9"]


def ones(completions: list[str]) -> list[float]:
    return [text.count("1") / T for text in completions]


def make_envs(num_envs: int, group_size: int = 1, mode: AutoresetMode = AutoresetMode.SAME_STEP) -> Any:
    return textenvs.from_prompts(
        [{"prompt": prompt, "number": i} for i, prompt in enumerate(PROMPTS)],
        VOCAB,
        reward=ones,
        max_new_tokens=T,
        num_envs=num_envs,
        group_size=group_size,
        autoreset_mode=mode,
    )


@pytest.fixture
def policy(make_model: Any) -> LMActorCritic:
    return LMActorCritic(make_model("gpt2"))


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_every_prompt_has_its_answers(policy: LMActorCritic, mode: AutoresetMode) -> None:
    answers = sample_answers(policy, make_envs(12, 3, mode), 10, k=3, seed=1)
    episodes = answers.episodes
    assert (len(episodes), answers.k, answers.scores.shape, answers.rows.shape) == (30, 3, (10, 3), (30, 4 + T))
    grouped = np.array(episodes.prompts).reshape(10, 3)
    assert (grouped == grouped[:, :1]).all()
    assert set(grouped[:, 0]) <= set(PROMPTS)
    assert len(set(grouped[:, 0])) > 2
    assert episodes.columns["number"] == [PROMPTS.index(prompt) for prompt in episodes.prompts]
    assert len(set(episodes.completions)) > 20
    ended = episodes.completion_ids[np.arange(30), episodes.lengths - 1] == VOCAB.eos_ids[0]
    assert 0 < ended.sum() < 30
    np.testing.assert_array_equal(episodes.finish_reason == "stop", ended)
    again = Judge(make_reward(ones))(episodes).total
    np.testing.assert_array_equal(again.reshape(10, 3), answers.scores)


def test_prompts_and_keys_are_those_of_the_environment(policy: LMActorCritic) -> None:
    """Episode e of sub-environment i is the one that the environment plays under that seed: nothing is left out."""
    answers = sample_answers(policy, make_envs(4, 2), 6, k=2, seed=5)
    envs = make_envs(4, 2)
    keys, prompts = [], []
    obs, _ = envs.reset(seed=5)
    for _ in range(3):
        prompts += envs.task.vocab.decode_rows(obs[:, :4])
        eos = np.full(4, VOCAB.eos_ids[0])
        obs, _, _, _, info = envs.step(eos)
        keys += info["final_info"]["key"].tolist()
    assert answers.episodes.key.tolist() == keys
    assert answers.episodes.prompts == prompts


def test_answers_are_drawn_by_the_policys_probabilities(make_model: Any) -> None:
    """The first token's frequencies at temperature 1, within four standard errors."""
    policy = LMActorCritic(make_model("llama"))
    envs = textenvs.from_prompts(["23"], VOCAB, reward=ones, max_new_tokens=1, num_envs=400)
    answers = sample_answers(policy, envs, 4_000)
    counts = np.bincount(answers.episodes.completion_ids[:, 0], minlength=V)
    with torch.no_grad():
        logits = policy.model(torch.tensor([VOCAB.encode("23")])).logits[0, -1, :V]
    expected = logits.softmax(-1).numpy()
    assert expected.max() < 0.9
    errors = np.sqrt(expected * (1 - expected) / 4_000)
    assert (np.abs(counts / 4_000 - expected) < 4 * errors + 1e-9).all()


def test_short_and_long_texts_count_alike(make_model: Any) -> None:
    """As many texts of each length as the policy writes: those that end early do not crowd out the others."""
    policy = LMActorCritic(make_model("gpt2"))
    many = sample_answers(policy, make_envs(8), 1_200, seed=1).episodes.lengths
    first = sample_answers(policy, make_envs(1_200), 1_200, seed=2).episodes.lengths  # one episode each
    assert abs(many.mean() - first.mean()) < 4 * np.sqrt((many.var() + first.var()) / 1_200)


def test_one_seed_repeats_two_differ_and_greedy_is_greedy(policy: LMActorCritic) -> None:
    def completions(**options: Any) -> list[str]:
        return sample_answers(policy, make_envs(6), 12, **options).episodes.completions

    assert completions(seed=1) == completions(seed=1)
    assert completions(seed=1) != completions(seed=2)
    envs = make_envs(6, 3)
    greedy = sample_answers(policy, envs, 4, k=3, deterministic=True).episodes.completions
    assert all(len(set(greedy[i : i + 3])) == 1 for i in range(0, 12, 3))


def test_an_id_makes_its_own_environments(policy: LMActorCritic) -> None:
    sizes = {"length": 4, "num_symbols": V - 1, "min_length": 2}
    answers = sample_answers(policy, "textenvs/Copy-v0", 5, k=2, num_envs=6, env_kwargs={**sizes, "split": "test"})
    assert answers.scores.shape == (5, 2)
    single = sample_answers(policy, "textenvs/Copy-v0", 5, env_kwargs=sizes)
    assert single.scores.shape == (5, 1)


def test_an_agent_samples_without_noticing(make_model: Any) -> None:
    def learn(sample: bool) -> tuple[Any, ...]:
        agent = PPO(make_envs(8), policy=LMActorCritic(make_model("gpt2")), learning_rate=0.01).learn(60)
        if sample:
            answers = sample_answers(agent, make_envs(4, 2), 3, k=2)
            assert answers.scores.shape == (3, 2)
        agent.learn(60)
        return agent.parameters, agent.metrics["charts/episodic_return"]

    (quiet, score), (sampled, same) = learn(False), learn(True)
    assert torch.equal(quiet, sampled)
    assert score == same


class Careless:
    """A player that writes zeros, whatever the mask says."""

    def __init__(self) -> None:
        self.predict_generator = torch.Generator()

    def bind(self, spec: TextSpec) -> None:
        assert spec.has_masks

    def predict(self, obs: np.ndarray, action_mask: np.ndarray, deterministic: bool) -> np.ndarray:
        return np.zeros(len(obs), dtype=np.int64)


def test_texts_that_broke_the_rules_are_named(masked_task: Any) -> None:
    envs = textenvs.TextVectorEnv(masked_task, 2, invalid_reward=-1.0)
    answers = sample_answers(Careless(), envs, 3)
    assert answers.episodes.finish_reason.tolist() == ["invalid"] * 3  # a second zero is illegal there
    assert answers.episodes.lengths.tolist() == [2] * 3
    assert answers.scores.tolist() == [[-1.0]] * 3


def test_what_does_not_fit(policy: LMActorCritic) -> None:
    with pytest.raises(ValueError, match="k must be at least 1; got 0"):
        sample_answers(policy, make_envs(4), 4, k=0)
    with pytest.raises(ValueError, match="The environment has group_size=1: make it with group_size=2"):
        sample_answers(policy, make_envs(4), 4, k=2)
    with pytest.raises(ValueError, match="env_kwargs belong to an environment id"):
        sample_answers(policy, make_envs(4), 4, env_kwargs={"length": 3})
    agent = PPO(make_envs(4), policy=policy)
    short = textenvs.from_prompts(["1", "23"], VOCAB, reward=ones, max_new_tokens=T, num_envs=4)
    with pytest.raises(ValueError, match="has prompt_length=2; the agent was made for 4"):
        sample_answers(agent, short, 4)


def test_environments_one_by_one(policy: LMActorCritic) -> None:
    task = make_envs(1).task
    envs = SyncVectorEnv([lambda: textenvs.TextEnv(task, reward=ones)] * 3, autoreset_mode=AutoresetMode.SAME_STEP)
    native = sample_answers(policy, make_envs(3), 7, seed=4)
    one_by_one = sample_answers(policy, envs, 7, seed=4)
    np.testing.assert_array_equal(one_by_one.rows, native.rows)


def test_rankings_of_sampled_answers(policy: LMActorCritic) -> None:
    answers = sample_answers(policy, make_envs(6, 3), 5, k=3)
    ranks = rank_answers(answers.scores, 8.0, seed=0)
    rankings = make_rankings(answers, ranks, answers.scores)
    assert [ranking.prompt for ranking in rankings] == answers.episodes.prompts[::3]
    assert [text for ranking in rankings for text in ranking.answers] == answers.episodes.completions
    assert [list(ranking.ranks) for ranking in rankings] == ranks.tolist()
    np.testing.assert_allclose([ranking.gold for ranking in rankings], answers.scores)
    finished = np.array([ranking.finished or (True,) * 3 for ranking in rankings])
    np.testing.assert_array_equal(finished.reshape(-1), answers.episodes.finish_reason == "stop")
    assert not finished.all()
    with pytest.raises(ValueError, match=r"ranks must have one entry for each answer, shape \(5, 3\); got \(3, 5\)"):
        make_rankings(answers, ranks.T)
