"""Quality of reward models: calibration and controls by hand, and on models whose probabilities are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from agents.lm import Annotator, Ranking
from agents.lm.reward_quality import accuracy_by_margin, calibration, length_only_accuracy


def test_calibration_by_hand() -> None:
    log3, log9 = math.log(3), math.log(9)  # σ = 3/4 and 9/10
    result = calibration(np.array([log3, log3, log3, -log3, log9, -log9]), num_bins=2)
    first, second = result.bins
    assert (first.low, first.high, second.high) == (0.5, 0.75, 1.0)
    assert first.count == 0  # ¾ belongs to the upper bin
    assert math.isnan(first.accuracy)
    assert second.count == 6
    assert second.accuracy == pytest.approx(4 / 6)
    assert second.predicted == pytest.approx((4 * 0.75 + 2 * 0.9) / 6)
    assert result.error == pytest.approx(0.8 - 4 / 6)
    three = calibration(np.array([log3, log3, log3, -log3, log9, -log9]), num_bins=3)
    assert [each.count for each in three.bins] == [0, 4, 2]
    assert three.error == pytest.approx((4 * 0.0 + 2 * 0.4) / 6)
    assert calibration(np.zeros(5)).error == 0.0  # a toss-up that says so
    assert calibration(np.array([1e3])).bins[-1].predicted == 1.0


def test_true_probabilities_are_calibrated_and_overconfident_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    log_odds = rng.normal(0, 1.5, 50_000)
    chosen = np.where(rng.random(50_000) < 1 / (1 + np.exp(-log_odds)), log_odds, -log_odds)
    assert calibration(chosen).error < 0.01
    assert calibration(3 * chosen).error > 0.1
    assert calibration(chosen / 3).error > 0.1


def test_accuracy_by_margin_by_hand() -> None:
    low, high = accuracy_by_margin(np.array([0.1, -0.2, 3.0, 2.0, 0.0, -1.0]), num_bins=2)
    assert (low.low, low.high, low.count, low.accuracy) == (0.0, 0.2, 3, 0.5)
    assert (high.low, high.high, high.count) == (1.0, 3.0, 3)
    assert high.accuracy == pytest.approx(2 / 3)


def rankings_by(annotator: Annotator, count: int = 1_500, seed: int = 0) -> list[Ranking]:
    rng = np.random.default_rng(seed)
    lengths, gold = rng.integers(2, 14, (count, 4)), rng.normal(size=(count, 4))
    ranks, _ = annotator.rank(gold, lengths, seed)
    texts = [tuple(" ".join("w" * length) for length in row) for row in lengths.tolist()]
    return [Ranking(f"p{i}", texts[i], tuple(ranks[i].tolist())) for i in range(count)]


def test_the_control_sees_a_length_bias_of_either_sign_and_nothing_else() -> None:
    fair = length_only_accuracy(rankings_by(Annotator(2.0)), rankings_by(Annotator(2.0), seed=1))
    assert abs(fair - 0.5) < 4 * 0.5 / math.sqrt(1_500 * 3)
    for bias in (0.3, -0.3):
        annotator = Annotator(2.0, bias)
        assert length_only_accuracy(rankings_by(annotator), rankings_by(annotator, seed=1)) > 0.6
    opposite = length_only_accuracy(rankings_by(Annotator(2.0, 0.3)), rankings_by(Annotator(2.0, -0.3), seed=1))
    assert opposite < 0.4  # the direction is learnt from the training rankings


def test_length_only_by_hand() -> None:
    train = [Ranking("p", ("a b", "a"), (1, 2))]
    held_out = [Ranking("p", ("a b c", "a", "x y z"), (1, 2, 3))]
    assert length_only_accuracy(train, held_out) == pytest.approx((1 + 0.5 + 0) / 3)
    with pytest.raises(ValueError, match="nothing to measure on"):
        length_only_accuracy(train, [Ranking("p", ("a", "b"), (1, 1))])
