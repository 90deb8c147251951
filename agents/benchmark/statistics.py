"""Statistics over all environments at once: pure functions of arrays, like :mod:`agents.benchmark.analyse`.

*Strata* are the runs of one environment: a sequence of vectors, one for each environment, whose lengths may differ.
Bootstrap intervals resample runs within their environment. After Agarwal et al. 2021, "Deep Reinforcement Learning at
the Edge of the Statistical Precipice", whose library rliable gives the same figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from agents.benchmark.analyse import (
    NUM_RESAMPLES,
    Estimate,
    FloatArray,
    Times,
    carry_forward,
    log_ratios,
    percentile_interval,
    resample,
)

NUM_PERMUTATIONS = 10_000
EXACT_PAIRS = 13
"""Up to so many pairs all 2^n sign patterns are gone through."""


@dataclass(frozen=True)
class Profile:
    """Share of runs whose score is above τ: `taus`, `share`, `low`, `high`, all [K]."""

    taus: FloatArray
    share: FloatArray
    low: FloatArray
    high: FloatArray


def area_under_curve(x: ArrayLike, scores: ArrayLike, end: float) -> float:
    """Mean score over 0 … `end` of the step function through the evaluations, in units of the score.

    A run that stopped before `end` goes on with its last score: it stopped because it had succeeded.
    """
    x, scores = np.asarray(x, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if not end > 0:
        raise ValueError(f"an area needs an end above 0, got {end}")
    inside = x < end
    edges = np.append(x[inside], end)
    return float((np.diff(edges) * scores[inside]).sum() / (end - edges[0])) if inside.any() else float(scores[0])


def score_at(x: ArrayLike, scores: ArrayLike, at: float) -> float:
    """The last score observed at or before `at`."""
    return float(carry_forward(x, scores, [at])[0])


def performance_profile(
    strata: Sequence[ArrayLike], taus: ArrayLike, rng: np.random.Generator, num_resamples: int = NUM_RESAMPLES
) -> Profile:
    """Share of runs with a score above τ, for each τ, with pointwise intervals; every run weighs the same."""
    taus = np.asarray(taus, dtype=np.float64)
    scores = [np.asarray(values, dtype=np.float64) for values in strata]
    total = sum(len(values) for values in scores)
    above = [(values[:, None] > taus).astype(np.float64) for values in scores]
    share = sum(part.sum(axis=0) for part in above) / total
    low = high = np.full_like(taus, np.nan)
    if min(len(values) for values in scores) > 1:
        drawn = sum(_counts(len(part), rng, num_resamples) @ part for part in above) / total
        low, high = percentile_interval(drawn)
    return Profile(taus, share, low, high)


def probability_of_improvement(
    pairs: Sequence[tuple[ArrayLike, ArrayLike]], rng: np.random.Generator, num_resamples: int = NUM_RESAMPLES
) -> Estimate:
    """Probability that a run of a is better than a run of b on the same environment, mean over environments.

    P(X > Y) + P(X = Y) / 2 over all pairs of runs: Mann and Whitney's U over n·m (1947). `pairs` holds the scores of a
    and of b for each environment; they are resampled independently.
    """
    value, drawn, intervals = [], [], True
    for first, second in pairs:
        a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
        wins = (a[:, None] > b).astype(np.float64) + 0.5 * (a[:, None] == b)
        value.append(wins.mean())
        intervals = intervals and min(len(a), len(b)) > 1
        if intervals:
            rows, columns = _counts(len(a), rng, num_resamples), _counts(len(b), rng, num_resamples)
            drawn.append(np.einsum("ra,ab,rb->r", rows, wins, columns, optimize=True) / wins.size)
    num_runs = sum(len(np.asarray(a)) for a, _ in pairs)
    if not intervals:
        return Estimate(float(np.mean(value)), np.nan, np.nan, num_runs)
    low, high = percentile_interval(np.mean(drawn, axis=0))
    return Estimate(float(np.mean(value)), float(low), float(high), num_runs)


def paired_p_value(
    pairs: Sequence[tuple[Times, Times]], rng: np.random.Generator, num_permutations: int = NUM_PERMUTATIONS
) -> float:
    """Two-sided p-value of "both agents need equally much" from paired times.

    A permutation test: were the two alike, each pair's log ratio could as well have the other sign. The statistic is
    |mean over environments of the mean over pairs of log(a / b)|, the logarithm of
    :func:`~agents.benchmark.analyse.geometric_mean_ratio`. Censored times enter as they do there: a bound instead of a
    larger ratio, and 0 where neither got there; exchanging the agents changes nothing about that, so the test keeps
    its level. All sign patterns are gone through for few pairs, else `num_permutations` random ones.
    """
    logs = [log_ratios(a, b) for a, b in pairs]
    weights = np.concatenate([log / (len(log) * len(logs)) for log in logs])
    weights = weights[weights != 0]
    if not len(weights):
        return 1.0
    observed = abs(weights.sum()) * (1 - 1e-12)
    if len(weights) <= EXACT_PAIRS:
        patterns = (np.arange(2 ** len(weights))[:, None] >> np.arange(len(weights))) & 1
        return float((np.abs((1.0 - 2.0 * patterns) @ weights) >= observed).mean())
    signs = 1.0 - 2.0 * rng.integers(0, 2, size=(num_permutations, len(weights)))
    return float((1 + (np.abs(signs @ weights) >= observed).sum()) / (1 + num_permutations))


def holm(p_values: ArrayLike) -> FloatArray:
    """p-values [m] adjusted for there being m of them: below α, all such may be believed at once with error α.

    Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure": the k-th smallest is multiplied by m − k + 1,
    made no smaller than the one before it, and cut at 1.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)) if len(p) else p
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def rank_correlation(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's rank correlation (1904), with mean ranks for ties; NaN for a constant or fewer than two values."""
    ranks = [_ranks(np.asarray(values, dtype=np.float64)) for values in (x, y)]
    centred = [rank - rank.mean() for rank in ranks] if len(ranks[0]) else ranks
    scale = np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum())
    return float((centred[0] * centred[1]).sum() / scale) if scale > 0 else float("nan")


def _ranks(values: FloatArray) -> FloatArray:
    return (values[:, None] > values).sum(1) + 0.5 * ((values[:, None] == values).sum(1) - 1.0)


def _counts(num_runs: int, rng: np.random.Generator, num_resamples: int) -> FloatArray:
    """How often each run is in each resample, [num_resamples, num_runs]."""
    rows = resample(num_runs, rng, num_resamples) + num_runs * np.arange(num_resamples)[:, None]
    counts = np.bincount(rows.ravel(), minlength=num_runs * num_resamples)
    return counts.reshape(num_resamples, num_runs).astype(np.float64)
