"""Simulated annotators: their faults are as large as they say, and the best possible accuracy is what it is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from agents.lm.annotators import Annotator
from agents.lm.preferences import best_accuracy


def test_probabilities_by_hand() -> None:
    gold, lengths = np.array([[0.0, 1.0]]), np.array([[4, 2]])
    # u = (2, 1 + 1) · …: scale 2 and half a point a word make 2·0 + 0.5·4 = 2 against 2·1 + 0.5·2 = 3.
    plain = Annotator(2.0, length_bias=0.5).pair_probabilities(gold, lengths)
    assert plain[0, 1, 0] == pytest.approx(1 / (1 + math.exp(-1.0)))
    # Of two places one is first half of the time: the average of σ(1 − b) and σ(1 + b).
    placed = Annotator(2.0, length_bias=0.5, position_bias=0.7).pair_probabilities(gold, lengths)
    expected = (1 / (1 + math.exp(-1.7)) + 1 / (1 + math.exp(-0.3))) / 2
    assert placed[0, 1, 0] == pytest.approx(expected)
    np.testing.assert_allclose(placed + placed.transpose(0, 2, 1), 1.0)


def test_one_without_faults_is_the_noisy_annotator() -> None:
    gold = np.random.default_rng(0).normal(size=(30, 4))
    assert Annotator(1.5).best_accuracy(gold, np.zeros((30, 4))) == pytest.approx(best_accuracy(gold, 1.5))


@pytest.mark.parametrize("annotator", [Annotator(1.5, 0.2), Annotator(1.0, 0.0, 0.6), Annotator(2.0, -0.1, -0.4)])
def test_frequencies_follow_the_probabilities(annotator: Annotator) -> None:
    count = 40_000
    gold, lengths = np.array([0.1, 0.6, -0.3]), np.array([5, 1, 9])
    ranks, shown = annotator.rank(np.tile(gold, (count, 1)), np.tile(lengths, (count, 1)), seed=1)
    np.testing.assert_array_equal(np.sort(ranks, axis=1), np.tile([1, 2, 3], (count, 1)))
    np.testing.assert_array_equal(np.sort(shown, axis=1), np.tile([1, 2, 3], (count, 1)))
    wins = (ranks[:, :, None] < ranks[:, None, :]).mean(axis=0)
    expected = annotator.pair_probabilities(gold[None], lengths[None])[0]
    off_diagonal = ~np.eye(3, dtype=bool)
    errors = np.sqrt(expected * (1 - expected) / count)
    assert (np.abs(wins - expected) < 4 * errors)[off_diagonal].all()


def test_what_stands_first_wins_more_often_where_it_is_liked() -> None:
    same = np.zeros((20_000, 2))
    ranks, shown = Annotator(1.0, position_bias=0.5).rank(same, same, seed=0)
    first_wins = (ranks[shown == 1] == 1).mean()
    expected = 1 / (1 + math.exp(-0.5))
    assert abs(first_wins - expected) < 4 * math.sqrt(expected * (1 - expected) / 20_000)


def test_nobody_predicts_better_than_best_accuracy() -> None:
    rng = np.random.default_rng(3)
    gold, lengths = rng.normal(size=(4_000, 4)), rng.integers(3, 20, (4_000, 4))
    annotator = Annotator(1.0, 0.15, 0.3)
    ranks, _ = annotator.rank(gold, lengths, seed=1)
    better = ranks[:, :, None] < ranks[:, None, :]
    best = annotator.best_accuracy(gold, lengths)
    error = 0.5 / math.sqrt(better.sum() / 3)  # pairs of a prompt depend on each other

    def agreement(scores: np.ndarray) -> float:
        return float((scores[:, :, None] > scores[:, None, :])[better].mean())

    assert abs(agreement(gold + 0.15 * lengths) - best) < 4 * error
    assert agreement(gold) < best - 4 * error  # who knows the taste alone does not know the fault


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="length_bias must be finite; got nan"):
        Annotator(1.0, math.nan)
    with pytest.raises(ValueError, match=r"lengths must have the shape of gold, \(2, 2\); got \(2,\)"):
        Annotator(1.0).rank(np.zeros((2, 2)), np.zeros(2), seed=0)
    with pytest.raises(ValueError, match="scale must be at least 0"):
        Annotator(-1.0).rank(np.zeros((2, 2)), np.zeros((2, 2)), seed=0)
