"""Best-of-n: its estimate against all subsets, its KL against exact distributions, and what is chosen."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

import textenvs
from agents.lm import LMActorCritic, sample_answers
from agents.lm.best_of_n import best_of_n_estimate, best_of_n_kl, choose_best, sample_best_of_n

VOCAB = textenvs.Vocab.symbols(10, eos=True)


def ones(completions: list[str]) -> list[float]:
    return [float(text.count("1")) for text in completions]


def make_envs(num_envs: int, group_size: int) -> Any:
    return textenvs.from_prompts(
        ["1", "23", "456"], VOCAB, reward=ones, max_new_tokens=7, num_envs=num_envs, group_size=group_size
    )


@pytest.fixture
def policy(make_model: Any) -> LMActorCritic:
    return LMActorCritic(make_model("gpt2"))


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_estimate_is_the_mean_over_all_subsets(n: int) -> None:
    rng = np.random.default_rng(n)
    scores, values = rng.permuted(np.tile(np.arange(5.0), (4, 1)), axis=1), rng.normal(size=(4, 5))
    expected = []
    for row, worth in zip(scores, values, strict=True):
        for subset in itertools.combinations(range(5), n):
            expected.append(worth[max(subset, key=lambda i: row[i])])
    assert best_of_n_estimate(scores, values, n) == pytest.approx(np.mean(expected))


def test_estimate_by_hand_with_ties() -> None:
    scores, values = np.array([[1.0, 1.0, 0.0]]), np.array([[6.0, 2.0, 10.0]])
    assert best_of_n_estimate(scores, values, 1) == pytest.approx(6.0)
    assert best_of_n_estimate(scores, values, 2) == pytest.approx(4.0)  # one of the two that tie is always there
    assert best_of_n_estimate(scores, values, 3) == pytest.approx(4.0)
    with pytest.raises(ValueError, match="3 answers to each prompt, so n must lie in 1 … 3; got 4"):
        best_of_n_estimate(scores, values, 4)
    with pytest.raises(ValueError, match=r"must both be \[N, K\]; got \(1, 3\) and \(3,\)"):
        best_of_n_estimate(scores, values[0], 1)


def test_kl_is_reached_by_texts_that_are_all_different() -> None:
    """Of m equally probable texts the i-th worst is the best of n with (i^n − (i − 1)^n) / m^n."""
    for n in (1, 2, 4, 16):
        m = 200_000
        edges = (np.arange(m + 1) / m) ** n
        chosen = np.diff(edges)
        kl = float((chosen * np.log(np.maximum(chosen * m, 1e-300))).sum())
        assert best_of_n_kl(n) == pytest.approx(kl, abs=1e-3)
    assert best_of_n_kl(4) == pytest.approx(math.log(4) - 0.75)
    two = np.diff((np.arange(3) / 2) ** 4)  # few texts: less
    assert (two * np.log(two * 2)).sum() < best_of_n_kl(4)
    with pytest.raises(ValueError, match="n must be at least 1; got 0"):
        best_of_n_kl(0)


def test_the_best_of_what_was_sampled(policy: LMActorCritic) -> None:
    envs = make_envs(12, 4)
    answers = sample_answers(policy, envs, 9, k=4, seed=2)
    best = sample_best_of_n(policy, envs, 9, n=4, seed=2)
    assert best.scores.shape == (9, 1)
    np.testing.assert_array_equal(best.scores[:, 0], answers.scores.max(axis=1))
    assert best.episodes.prompts == answers.episodes.prompts[::4]
    np.testing.assert_array_equal(np.array(ones(best.episodes.completions)), best.scores[:, 0])
    assert best.scores.mean() > answers.scores.mean()
    worst = choose_best(answers, -answers.scores)
    np.testing.assert_array_equal(-worst.scores[:, 0], answers.scores.min(axis=1))
    with pytest.raises(ValueError, match=r"scores must be \(9, 4\), one for each answer; got \(9,\)"):
        choose_best(answers, np.zeros(9))
