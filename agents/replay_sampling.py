"""Which episodes a replay buffer draws: probabilities as pure functions on arrays."""

from __future__ import annotations

import numpy as np


def score_probabilities(scores: np.ndarray, prompts: np.ndarray, temperature: float) -> np.ndarray:
    """Better texts more often, each prompt as often as before.

    P(i) = N_p / N · softmax over the episodes of i's prompt p of score / temperature: prompts keep the share of the
    draws that they have in the buffer, so that easy ones do not crowd out hard ones. The rule inside a prompt is that
    of Bartoldson et al. 2025, "Trajectory Balance with Asynchrony".

    Args:
        scores: [N].
        prompts: [N] integers, equal where the prompt is the same.
        temperature: in units of the score, above 0.

    Returns:
        [N] float64, sums to 1.
    """
    _, group, counts = np.unique(prompts, return_inverse=True, return_counts=True)
    best = np.full(len(counts), -np.inf)
    np.maximum.at(best, group, scores)
    weights = np.exp((scores - best[group]) / temperature)
    return weights / np.bincount(group, weights)[group] * counts[group] / len(scores)


def rarity_probabilities(scores: np.ndarray) -> np.ndarray:
    """Every score that occurs equally often, however few episodes have it: P(i) ∝ 1 / (number of equal scores).

    Of an all-or-nothing score this makes half of the draws successes. Where all scores differ it is uniform.

    Args:
        scores: [N].

    Returns:
        [N] float64, sums to 1.
    """
    _, group, counts = np.unique(scores, return_inverse=True, return_counts=True)
    return 1 / (counts[group] * len(counts))


def cap_probabilities(probabilities: np.ndarray, cap: float) -> np.ndarray:
    """No entry above ``cap`` / N: what is cut off goes to the others in proportion.

    So no episode is drawn more than ``cap`` times as often as uniformly, and the entropy is at least log(N / cap).

    Args:
        probabilities: [N], sums to 1.
        cap: at least 1; 1 is uniform.

    Returns:
        [N], sums to 1.
    """
    if cap < 1:
        raise ValueError(f"cap must be at least 1, which is uniform; got {cap}.")
    size = len(probabilities)
    limit = cap / size
    if probabilities.max() <= limit:
        return probabilities
    order = np.argsort(-probabilities, kind="stable")
    falling = probabilities[order]
    # With the k largest at the limit, the others share what is left; k is the smallest that keeps them below it too.
    counts = np.arange(size)
    tails = np.cumsum(falling[::-1])[::-1]
    left = 1 - counts * limit
    scales = left / np.where(tails > 0, tails, 1)
    fits = (falling * scales <= limit) & (tails > 0)
    capped = np.empty(size)
    if fits.any():
        k = int(np.argmax(fits))
        capped[order] = np.where(counts < k, limit, falling * scales[k])
    else:  # all that is above 0 is at the limit
        k = int((falling > 0).sum())
        capped[order] = np.where(counts < k, limit, left[min(k, size - 1)] / max(size - k, 1))
    return capped


def draw(probabilities: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """``count`` indices int64, with replacement, in proportion to probabilities [N], which need not be normalised."""
    cumulative = np.cumsum(probabilities)
    drawn = np.searchsorted(cumulative, generator.random(count) * cumulative[-1], side="right")
    return np.minimum(drawn, len(probabilities) - 1)
