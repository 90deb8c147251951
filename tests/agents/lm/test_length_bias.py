"""Length in rewards and in rankings: shares against literal numbers, and balanced pairs that are balanced."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from agents.lm.annotators import Annotator
from agents.lm.length_bias import (
    balance_lengths,
    length_difference,
    length_share,
    length_slope,
    longer_preferred,
    split_pairs,
    stratified_share,
)
from agents.lm.preferences import Ranking


def words(count: int, mark: str = "w") -> str:
    return " ".join([mark] * count)


def test_slope_of_a_line_and_of_scattered_points() -> None:
    assert length_slope(np.array([1, 2, 4]), np.array([5.0, 7.0, 11.0])) == pytest.approx(2)
    assert length_slope(np.array([1, 2, 3]), np.array([0.0, 3.0, 0.0])) == pytest.approx(0)


@pytest.mark.parametrize(
    ("lengths", "scores", "message"),
    [
        ([3, 3], [0.0, 1.0], "2 texts, all equally long"),
        ([3], [0.0], "1 texts"),
        ([1, 2], [0.0], r"must both be \[B\]"),
    ],
)
def test_slopes_that_there_are_not(lengths: list[int], scores: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        length_slope(np.array(lengths), np.array(scores))


def test_share_of_a_gain_that_is_length() -> None:
    """Half a point per token, four tokens more: 2 of the 3 that were gained."""
    lengths, scores = np.array([2, 4]), np.array([1.0, 2.0])
    assert length_share(lengths, scores, np.array([7, 7]), np.array([4.5, 4.5])) == pytest.approx(2 / 3)
    assert length_share(lengths, scores, np.array([3, 3]), np.array([4.5, 4.5])) == pytest.approx(0)
    assert length_share(lengths, scores, np.array([1, 1]), np.array([2.5, 2.5])) == pytest.approx(-1)
    assert np.isnan(length_share(lengths, scores, np.array([7]), np.array([1.5])))


def test_share_at_equal_length() -> None:
    """Where both have texts they gained 1 of 3: two thirds are length. A bin without texts before is left out."""
    lengths, scores = np.array([0, 1, 3, 4]), np.array([0.0, 0.0, 4.0, 4.0])
    assert stratified_share(lengths, scores, np.array([3, 5]), np.array([5.0, 5.0])) == pytest.approx(1 - 1 / 3)
    after = np.array([3, 5, 30]), np.array([5.0, 5.0, 5.0])
    assert stratified_share(lengths, scores, *after) == pytest.approx(1 - 1 / 3)
    assert np.isnan(stratified_share(lengths, scores, np.array([30]), np.array([9.0])))
    assert np.isnan(stratified_share(lengths, scores, np.array([3]), np.array([1.0])))


def test_both_shares_agree_where_score_is_a_line_of_length() -> None:
    rng = np.random.default_rng(0)
    lengths, after = rng.integers(3, 20, size=4_000), rng.integers(9, 20, size=4_000)
    one = length_share(lengths, 0.2 * lengths, after, 0.2 * after + 0.4)
    assert one == pytest.approx(0.2 * (after.mean() - lengths.mean()) / (0.2 * (after.mean() - lengths.mean()) + 0.4))
    assert stratified_share(lengths, 0.2 * lengths, after, 0.2 * after + 0.4, width=1) == pytest.approx(one, abs=0.02)


def test_pairs_are_split_with_what_is_known_of_each() -> None:
    ranking = Ranking("p", ("a", "b b", "c c c"), (2, 1, 2), gold=(0.1, 0.2, 0.3), finished=(True, False, True))
    found = split_pairs([ranking])
    assert [(pair.answers, pair.gold, pair.finished) for pair in found] == [
        (("b b", "a"), (0.2, 0.1), (False, True)),
        (("b b", "c c c"), (0.2, 0.3), (False, True)),
    ]
    assert [length_difference(pair) for pair in found] == [1, -1]
    assert longer_preferred([ranking]) == 0.5


@pytest.mark.parametrize(
    ("rankings", "message"),
    [
        ([], "the preference set is empty"),
        ([Ranking("p", ("a", "b"), (1, 1))], "None of the 1 rankings prefers .* ties"),
        ([Ranking("p", ("a a", "b"), (1, 2))] * 3, "single class.* in all 3 pairs .* the longer answer"),
        ([Ranking("p", ("a", "b b"), (1, 2))], "single class.* the shorter answer is preferred"),
        ([Ranking("p", ("a", "b"), (1, 2))], "single class.* all 0 pairs"),
    ],
)
def test_sets_that_cannot_be_balanced(rankings: list[Ranking], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        balance_lengths(rankings, seed=0)


def test_balanced_pairs_prefer_the_longer_answer_half_the_time_at_every_difference() -> None:
    rng = np.random.default_rng(0)
    lengths, gold = rng.integers(1, 6, size=(400, 4)), rng.normal(size=(400, 4))
    ranks, _ = Annotator(1.0, length_bias=0.5).rank(gold, lengths, seed=1)
    rankings = [
        Ranking("p", tuple(words(n) for n in row), tuple(order), gold=tuple(worth))
        for row, order, worth in zip(lengths.tolist(), ranks.tolist(), gold.tolist(), strict=True)
    ]
    assert longer_preferred(rankings) > 0.65
    balanced = balance_lengths(rankings, seed=3)
    kinds = Counter(length_difference(pair) for pair in balanced)
    assert all(kinds[d] == kinds[-d] > 0 for d in range(1, 5))
    before = Counter(length_difference(pair) for pair in split_pairs(rankings))
    assert kinds[0] == before[0]
    assert all(kinds[d] == min(before[d], before[-d]) for d in range(1, 5))
    # What is left still prefers what is worth more.
    assert np.mean([pair.gold[0] > pair.gold[1] for pair in balanced if pair.gold]) > 0.6
    assert balance_lengths(rankings, seed=3) == balanced
    assert balance_lengths(rankings, seed=4) != balanced


def test_balancing_takes_the_length_out_of_the_log_odds() -> None:
    """A logistic regression of which answer wins on Δgold and Δlength: the length's coefficient goes, gold's stays."""
    rng = np.random.default_rng(5)
    lengths, gold = rng.integers(1, 12, size=(6_000, 2)), rng.normal(size=(6_000, 2))
    ranks, _ = Annotator(1.0, length_bias=0.3).rank(gold, lengths, seed=6)
    rankings = [
        Ranking("p", (words(a), words(b)), tuple(order), gold=tuple(worth))
        for (a, b), order, worth in zip(lengths.tolist(), ranks.tolist(), gold.tolist(), strict=True)
    ]

    def coefficients(pairs: list[Ranking]) -> np.ndarray:
        rows = np.array([[p.gold[0] - p.gold[1], length_difference(p)] for p in pairs if p.gold])
        theta = np.zeros(2)
        for _ in range(30):  # Newton's method; the winner stands first, so there is no intercept
            p = 1 / (1 + np.exp(-rows @ theta))
            theta += np.linalg.solve((rows.T * (p * (1 - p))) @ rows, rows.T @ (1 - p))
        return theta

    assert coefficients(split_pairs(rankings)) == pytest.approx([1.0, 0.3], abs=0.06)
    assert coefficients(balance_lengths(rankings, seed=7)) == pytest.approx([1.0, 0.0], abs=0.1)
