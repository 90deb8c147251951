"""Best-of-n: write n answers and keep the one that the reward model likes best. No training, n times the sampling.

best = sample_best_of_n(policy, envs, 100, n=16)          # envs made with group_size=16
print(best.scores.mean(), "at a KL of at most", best_of_n_kl(16))
print([best_of_n_estimate(answers.scores, gold, n) for n in (1, 2, 4, 8, 16)])
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from agents.lm.sampling import Answers, sample_answers


def best_of_n_kl(n: int) -> float:
    """KL(best-of-n ‖ policy) in nats per text, if no two answers are the same; it is never more: log n − (n − 1) / n.

    Stiennon et al. 2020, "Learning to summarize from human feedback", appendix G.3; Beirami et al. 2024, "Theoretical
    guarantees on the best-of-n alignment policy".

    Raises:
        ValueError: n is below 1.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1; got {n}.")
    return math.log(n) - (n - 1) / n


def best_of_n_estimate(scores: np.ndarray, values: np.ndarray, n: int) -> float:
    """What best-of-n is worth on average, from K ≥ n answers to each prompt: the mean value of the best-scored one over
    all subsets of n, without drawing any. The answer with the i-th lowest score of K is the best of
    C(i − 1, n − 1) of the C(K, n) subsets.

    Nakano et al. 2021, "WebGPT", appendix I.

    Args:
        scores: [N, K], by which the best one is chosen: the reward model's.
        values: [N, K], what is wanted: the gold score, for example, or the scores themselves.
        n: answers to choose among.

    Raises:
        ValueError: other shapes, or n outside of 1 … K.
    """
    scores, values = np.asarray(scores, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if scores.ndim != 2 or values.shape != scores.shape:
        raise ValueError(f"scores and values must both be [N, K]; got {scores.shape} and {values.shape}.")
    k = scores.shape[1]
    if not 1 <= n <= k:
        raise ValueError(f"There are {k} answers to each prompt, so n must lie in 1 … {k}; got {n}.")
    weights = np.array([math.comb(i, n - 1) for i in range(k)], dtype=np.float64) / math.comb(k, n)
    # Equal scores are as likely to be chosen as each other: each takes the mean value of those that it ties with.
    total = 0.0
    for row, worth in zip(scores, values, strict=True):
        distinct, group = np.unique(row, return_inverse=True)
        means = np.bincount(group, weights=worth) / np.bincount(group)
        total += float(weights @ means[np.sort(group)])
        assert len(distinct) == len(means)
    return total / len(scores)


def choose_best(answers: Answers, scores: np.ndarray | None = None) -> Answers:
    """The best answer to each prompt.

    Args:
        answers: K to each of N prompts.
        scores: [N, K], by which they are chosen; default those of the environment's judge.

    Returns:
        One answer to each prompt, with its score: [N, 1].

    Raises:
        ValueError: scores of another shape.
    """
    scores = answers.scores if scores is None else np.asarray(scores)
    if scores.shape != answers.scores.shape:
        raise ValueError(f"scores must be {answers.scores.shape}, one for each answer; got {scores.shape}.")
    best = scores.argmax(axis=1)
    chosen = np.arange(len(scores)) * answers.k + best
    return Answers(answers.episodes.take(chosen), scores[np.arange(len(scores)), best][:, None].astype(np.float32))


def sample_best_of_n(
    player: Any, env: str | VectorEnv, num_prompts: int, *, n: int, seed: int = 0, **options: Any
) -> Answers:
    """The best of n answers to each prompt, by the environment's judge; n · num_prompts calls of it.

    Args:
        player, env, num_prompts, seed, options: as for :func:`agents.lm.sample_answers`, whose ``k`` is n.
        n: answers to choose among.
    """
    return choose_best(sample_answers(player, env, num_prompts, k=n, seed=seed, **options))
