"""How good a reward model is: accuracy as a share of what can be reached, by margin, and calibration.

quality = measure_reward_model(model, held_out, result.log_odds_scale, best=best_accuracy(gold, scale=8.0))
print(quality.share_of_best, quality.calibration.error, length_only_accuracy(train, held_out))
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agents.lm.preferences import Ranking, pairs
from agents.lm.reward_model import RewardModel, score_margins

BINS = 10


@dataclass(frozen=True)
class Bin:
    """Pairs that belong together."""

    low: float
    high: float
    """The bin's limits."""
    count: int
    predicted: float
    """Mean probability with which the model expected what it expects; NaN where the bin is empty."""
    accuracy: float
    """How often it was right; NaN where the bin is empty."""


@dataclass(frozen=True)
class Calibration:
    """Of a classifier of pairs."""

    error: float
    """ECE, the expected calibration error: mean |accuracy − predicted| over bins, weighted by their counts."""
    bins: tuple[Bin, ...]
    """Of the reliability plot, from toss-ups to certainty."""


@dataclass(frozen=True)
class RewardModelQuality:
    """On pairs that the model has not learnt from."""

    accuracy: float
    share_of_best: float | None
    """The accuracy over the best possible one; None where that is not known."""
    calibration: Calibration
    by_margin: tuple[Bin, ...]
    """Accuracy by how far apart the model's own scores are, in quarters of the pairs; limits in units of the score."""


def measure_reward_model(
    model: RewardModel, rankings: Sequence[Ranking], log_odds_scale: float, *, best: float | None = None
) -> RewardModelQuality:
    """Measure a reward model on held-out rankings.

    Args:
        model: the model.
        rankings: held-out ones.
        log_odds_scale: that of its training, see :class:`agents.lm.reward_model.RewardModelResult`.
        best: the best possible accuracy, see :func:`agents.lm.best_accuracy`.

    Raises:
        ValueError: no ranking decides anything.
    """
    margins = score_margins(model, rankings).astype(np.float64)
    if not len(margins):
        raise ValueError("None of the rankings prefers an answer to another: there is nothing to measure on.")
    right = (margins > 0) + 0.5 * (margins == 0)
    accuracy = float(right.mean())
    return RewardModelQuality(
        accuracy,
        None if best is None else accuracy / best,
        calibration(log_odds_scale * margins),
        accuracy_by_margin(margins),
    )


def calibration(log_odds: np.ndarray, num_bins: int = BINS) -> Calibration:
    """Expected calibration error and reliability of predictions of pairs.

    A pair is predicted with confidence max(p, 1 − p) in [½, 1], p = σ(log-odds), which is divided into bins of equal
    width. Guo et al. 2017, "On Calibration of Modern Neural Networks", equations 2 and 3.

    Args:
        log_odds: [M], that the answer which was chosen is the better one: positive where the model was right.
        num_bins: how many.
    """
    log_odds = np.asarray(log_odds, dtype=np.float64)
    confidence = 1 / (1 + np.exp(-np.abs(log_odds)))
    right = (log_odds > 0) + 0.5 * (log_odds == 0)
    edges = np.linspace(0.5, 1.0, num_bins + 1)
    numbers = np.minimum(((confidence - 0.5) * 2 * num_bins).astype(int), num_bins - 1)
    bins = tuple(
        _bin(float(edges[i]), float(edges[i + 1]), confidence[numbers == i], right[numbers == i])
        for i in range(num_bins)
    )
    error = sum(each.count * abs(each.accuracy - each.predicted) for each in bins if each.count)
    return Calibration(error / max(len(log_odds), 1), bins)


def accuracy_by_margin(margins: np.ndarray, num_bins: int = 4) -> tuple[Bin, ...]:
    """Accuracy for bins of equal counts by |margin|: a model that has learnt something is right where it is sure.

    Args:
        margins: [M] r_chosen − r_rejected.
        num_bins: how many.
    """
    size, right = np.abs(margins), (margins > 0) + 0.5 * (margins == 0)
    parts = np.array_split(np.argsort(size, kind="stable"), num_bins)
    nan = np.array([math.nan])
    return tuple(
        _bin(float(size[part].min()), float(size[part].max()), nan, right[part]) for part in parts if len(part)
    )


def _bin(low: float, high: float, predicted: np.ndarray, right: np.ndarray) -> Bin:
    if not len(right):
        return Bin(low, high, 0, math.nan, math.nan)
    return Bin(low, high, len(right), float(predicted.mean()), float(right.mean()))


def length_only_accuracy(rankings: Sequence[Ranking], held_out: Sequence[Ranking]) -> float:
    """The accuracy of a control that sees lengths alone: it prefers the longer answer, or the shorter one, whichever
    was preferred more often in ``rankings``. About ½ where there is no length bias; half of the pairs of equal length
    count as right.

    Args:
        rankings: those that a reward model learns from.
        held_out: those that it is measured on.

    Raises:
        ValueError: no held-out ranking decides anything.
    """
    likes_long = np.sign(_length_differences(rankings)).sum() >= 0
    differences = np.sign(_length_differences(held_out)) * (1 if likes_long else -1)
    if not len(differences):
        raise ValueError("None of the rankings prefers an answer to another: there is nothing to measure on.")
    return float(((differences > 0) + 0.5 * (differences == 0)).mean())


def _length_differences(rankings: Sequence[Ranking]) -> np.ndarray:
    """Words of the preferred answer less those of the other, int64 [M]."""
    found = []
    for ranking in rankings:
        words = [len(text.split()) for text in ranking.answers]
        found += [words[better] - words[worse] for better, worse in pairs(ranking.ranks).tolist()]
    return np.array(found, dtype=np.int64)
