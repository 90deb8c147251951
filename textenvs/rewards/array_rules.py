"""Rules on token ids: lengths and repeated n-grams. Nothing is decoded."""

from __future__ import annotations

import numpy as np

from textenvs.episodes import Episodes
from textenvs.rewards.inputs import version_of, whole_number
from textenvs.rewards.registry import register_reward

_LARGEST_CODE = 2**62


@register_reward("length")
class Length:
    """Tokens written, or their share of a maximum.

    Score: n, the tokens written, EOS included; with a maximum, min(n, maximum) / maximum. Range: [0, ∞), with a
    maximum [0, 1]. To pay for short texts, give it a negative weight in a sum.

    Args:
        maximum: tokens for the full score; ``"length:32"`` names it too.
    """

    low, high = 0.0, np.inf
    deterministic, version, cost = True, "1", "array"

    def __init__(self, maximum: int | str | None = None) -> None:
        self.maximum = None if maximum is None else whole_number("length", "maximum", maximum)
        if self.maximum is not None:
            self.high = 1.0
        self.version = version_of(maximum=self.maximum)

    def score(self, episodes: Episodes) -> np.ndarray:
        if self.maximum is None:
            return episodes.lengths.astype(np.float32)
        return (np.minimum(episodes.lengths, self.maximum) / self.maximum).astype(np.float32)


@register_reward("target_length")
class TargetLength:
    """How near the number of tokens written is to a target.

    Score: max(0, 1 − |n − target| / target), n counting EOS. Range: [0, 1]; 1 at the target, 0 for an empty text and
    from twice the target on.

    Args:
        target: tokens; ``"target_length:12"`` names it too.
    """

    low, high = 0.0, 1.0
    deterministic, version, cost = True, "1", "array"

    def __init__(self, target: int | str) -> None:
        self.target = whole_number("target_length", "target", target)
        self.version = version_of(target=self.target)

    def score(self, episodes: Episodes) -> np.ndarray:
        distance = np.abs(episodes.lengths - self.target)
        return np.maximum(1.0 - distance / self.target, 0.0).astype(np.float32)


@register_reward("repetition")
class Repetition:
    """Minus the share of n-grams that repeat an earlier one.

    Score: distinct / total − 1 over the n-grams of the tokens written, EOS excluded: minus the "seq-rep-n" of
    Welleck et al. 2019 (arXiv 1908.04319). Range: [−1, 0], higher is better; 0 where nothing is repeated, also in
    texts shorter than n.

    Args:
        n: tokens in an n-gram.
    """

    low, high = -1.0, 0.0
    deterministic, version, cost = True, "1", "array"

    def __init__(self, n: int | str = 4) -> None:
        self.n = whole_number("repetition", "n", n)
        self.version = version_of(n=self.n)

    def score(self, episodes: Episodes) -> np.ndarray:
        total, distinct = count_ngrams(episodes, self.n)
        return np.where(total > 0, distinct / np.maximum(total, 1) - 1.0, 0.0).astype(np.float32)


@register_reward("distinct_n")
class DistinctN:
    """Distinct n-grams over n-grams.

    Score: distinct / total over the n-grams of the tokens written, EOS excluded: the "distinct-n" of Li et al. 2016
    (arXiv 1510.03055), of one text. Range: [0, 1]. A text shorter than n has no n-grams and scores 0, so that writing
    nothing does not pay.

    Args:
        n: tokens in an n-gram.
    """

    low, high = 0.0, 1.0
    deterministic, version, cost = True, "1", "array"

    def __init__(self, n: int | str = 2) -> None:
        self.n = whole_number("distinct_n", "n", n)
        self.version = version_of(n=self.n)

    def score(self, episodes: Episodes) -> np.ndarray:
        total, distinct = count_ngrams(episodes, self.n)
        return (distinct / np.maximum(total, 1)).astype(np.float32)


def count_ngrams(episodes: Episodes, n: int) -> tuple[np.ndarray, np.ndarray]:
    """N-grams of the tokens written, EOS excluded.

    Returns:
        how many there are, int64 [B], and how many different ones, int64 [B].
    """
    ids = episodes.completion_ids
    written = ids != episodes.pad_id
    for eos in episodes.vocab.eos_ids:
        written &= ids != eos
    total = np.maximum(written.sum(axis=1) - n + 1, 0)
    places = ids.shape[1] - n + 1
    if places <= 0:
        return total, np.zeros_like(total)
    # Every n-gram gets a number of its own: n digits to the base V + 1. Before they grow too long for int64, the
    # prefixes found so far are numbered afresh.
    base = episodes.pad_id + 1
    codes, size = ids[:, :places], base
    for k in range(1, n):
        if size > _LARGEST_CODE // base:
            codes = np.unique(codes, return_inverse=True)[1].reshape(codes.shape)
            size = codes.size
        codes = codes * base + ids[:, k : k + places]
        size *= base
    codes = np.sort(np.where(np.arange(places) < total[:, None], codes, -1), axis=1)
    first = codes[:, :1] >= 0
    new = (codes[:, 1:] != codes[:, :-1]) & (codes[:, 1:] >= 0)
    return total, first.sum(axis=1) + new.sum(axis=1)
