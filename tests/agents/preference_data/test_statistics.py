"""Statistics of preference data against numbers by hand, and against the libraries that people know."""

from __future__ import annotations

import math

import numpy as np
import pytest

from agents.lm import Ranking
from agents.preference_data.audit import krippendorff_alpha
from agents.preference_data.statistics import (
    agreement_table,
    bradley_terry,
    cyclic_triples,
    decisions,
    distinct_n,
    noise_rate,
    repeat_agreement,
    share_of,
    similarity,
)


def pair(better: str, worse: str, annotator: str | None = "ada", **more: object) -> Ranking:
    return Ranking("p", (better, worse), (1, 2), annotator=annotator, **more)  # type: ignore[arg-type]


def test_decisions_know_who_stood_first() -> None:
    found = decisions([Ranking("p", ("a", "b", "c"), (2, 1, 2), shown=(3, 2, 1), annotator="ada")])
    assert [(each.better, each.worse, each.first) for each in found] == [("b", "a", True), ("b", "c", False)]
    assert decisions([pair("a", "b")])[0].first is None


def test_shares_and_their_intervals() -> None:
    share = share_of([("p", True), ("p", False), ("q", True), ("q", True)])
    assert share is not None
    assert (share.value, share.count) == (0.75, 4)
    assert share_of([]) is None
    sure = share_of((str(i), True) for i in range(100))
    assert sure is not None
    assert (sure.value, sure.high) == (1.0, 1.0)
    assert sure.low == pytest.approx(100 / (100 + 1.96**2))
    rng = np.random.default_rng(0)
    single = share_of((str(i), bool(x)) for i, x in enumerate(rng.random(2_000) < 0.3))
    assert single is not None
    assert single.high - single.low == pytest.approx(2 * 1.96 * math.sqrt(0.3 * 0.7 / 2_000), rel=0.1)


def test_pairs_of_one_prompt_do_not_narrow_an_interval() -> None:
    rng = np.random.default_rng(1)
    outcomes = rng.random(300) < 0.5
    once = share_of((str(i), bool(x)) for i, x in enumerate(outcomes))
    copied = share_of((str(i), bool(x)) for i, x in enumerate(outcomes) for _ in range(20))
    assert once is not None
    assert copied is not None
    assert (copied.value, copied.low, copied.high) == pytest.approx((once.value, once.low, once.high))
    assert copied.count == 20 * once.count


def test_the_interval_covers_the_truth_in_95_of_100() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        centre = np.clip(rng.normal(0.6, 0.2, 80), 0, 1)  # prompts differ
        share = share_of((str(i), bool(x)) for i in range(80) for x in rng.random(6) < centre[i])
        assert share is not None
        covered += share.low <= 0.594 <= share.high  # the mean of the clipped normal
    assert 180 <= covered <= 199


def test_agreement_by_hand_and_by_the_library() -> None:
    rankings = [pair("a", "b", "ada"), pair("a", "b", "bob"), pair("c", "d", "ada"), pair("d", "c", "bob")]
    table = agreement_table([*rankings, pair("b", "a", "ada"), pair("x", "y", "ada"), pair("x", "y", None)])
    assert table.shape == (2, 4)  # two pairs, each in both orders; of repetitions the first; one annotator is none
    # One unit in two agrees: D_o = 1/2. Of eight values four are 1 and four −1: D_e = 2 · 4 · 4 / (8 · 7) = 4/7.
    assert krippendorff_alpha(table) == pytest.approx(1 - (1 / 2) / (4 / 7))
    assert agreement_table([pair("a", "b", None)]).shape == (0, 0)
    three = agreement_table([Ranking("p", ("a", "b", "c"), (1, 1, 2), annotator=name) for name in ("ada", "bob")])
    assert sorted(three[0]) == [-1, -1, 0, 0, 1, 1]
    assert krippendorff_alpha(three) == 1.0


def test_alpha_of_noisy_annotators_is_what_their_noise_makes_it() -> None:
    """Two who both err with ε agree with 1 − 2 ε (1 − ε), and α is twice that, less one."""
    rng, rankings = np.random.default_rng(0), []
    for name in ("ada", "bob"):
        for i in range(4_000):
            order = (1, 2) if rng.random() < 0.8 else (2, 1)
            rankings.append(Ranking(f"p{i}", ("a", "b"), order, annotator=name))
    alpha = krippendorff_alpha(agreement_table(rankings))
    assert abs(alpha - (2 * (1 - 2 * 0.2 * 0.8) - 1)) < 4 * 2 * math.sqrt(0.68 * 0.32 / 4_000)


def test_cycles_by_hand() -> None:
    cycle = [pair("a", "b"), pair("b", "c"), pair("c", "a")]
    assert cyclic_triples(decisions(cycle)) == (1, 1)
    assert cyclic_triples(decisions([pair("a", "b"), pair("b", "c"), pair("a", "c")])) == (0, 1)
    assert cyclic_triples(decisions(cycle[:2])) == (0, 0)
    apart = [pair("a", "b", "ada"), pair("b", "c", "bob"), pair("c", "a", "eve")]
    assert cyclic_triples(decisions(apart)) == (0, 0)
    assert cyclic_triples(decisions(apart), together=True) == (1, 1)
    assert cyclic_triples(decisions([*cycle, pair("a", "c"), pair("a", "c")])) == (0, 1)  # the majority counts
    assert cyclic_triples(decisions([*cycle, pair("a", "c")])) == (0, 0)  # undecided


def test_whole_rankings_cannot_be_cyclic_unless_there_are_three() -> None:
    orders = [(1, 2, 3), (3, 1, 2), (2, 3, 1)]  # Condorcet's three
    rankings = [Ranking("p", ("a", "b", "c"), ranks, annotator="ada", round=i) for i, ranks in enumerate(orders)]
    assert cyclic_triples(decisions(rankings[:1])) == (0, 0)
    assert cyclic_triples(decisions(rankings[:2])) == (0, 0)
    assert cyclic_triples(decisions(rankings)) == (1, 1)


def test_a_judge_who_guesses_makes_a_quarter_of_the_triples_cyclic() -> None:
    rng = np.random.default_rng(0)
    found = []
    for i in range(3_000):
        for one, other in (("a", "b"), ("b", "c"), ("a", "c")):
            first, second = (one, other) if rng.random() < 0.5 else (other, one)
            found.append(Ranking(f"p{i}", (first, second), (1, 2), annotator="ada"))
    cyclic, total = cyclic_triples(decisions(found))
    assert total == 3_000
    assert abs(cyclic / total - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 3_000)


def test_noise_from_repeats() -> None:
    again = [pair("a", "b", round=1), pair("a", "b", round=2), pair("b", "a", round=3), pair("a", "b", "bob")]
    assert repeat_agreement(decisions(again)) == [("p", True), ("p", False)]
    assert repeat_agreement(decisions([pair("a", "b", None), pair("b", "a", None)])) == []
    assert noise_rate(0.0) == 0.0
    assert noise_rate(2 * 0.1 * 0.9) == pytest.approx(0.1)
    assert noise_rate(0.5) == noise_rate(0.7) == 0.5


def test_words() -> None:
    assert distinct_n(["a b a b", "a b"], 2) == 2 / 4
    assert math.isnan(distinct_n(["a", ""], 2))
    assert similarity("a b c", "a b c") == 1.0
    assert similarity("a b c", "a b d") == 1 / 3
    assert similarity("a", "a") == 1.0
    assert similarity("a", "b") == 0.0


@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_strengths_equal_those_of_choix(alpha: float) -> None:
    choix = pytest.importorskip("choix")
    rng = np.random.default_rng(4)
    wins = rng.integers(1, 9, (5, 5)) * (1 - np.eye(5, dtype=int))
    data = [(i, j) for i in range(5) for j in range(5) for _ in range(wins[i, j])]
    theirs = choix.mm_pairwise(5, data, alpha=alpha, tol=1e-11)
    np.testing.assert_allclose(bradley_terry(wins, alpha), theirs - theirs.mean(), atol=1e-7)


def test_strengths_by_hand() -> None:
    assert bradley_terry(np.array([[0, 3], [1, 0]]))[0] == pytest.approx(math.log(3) / 2)
    with pytest.raises(ValueError, match="Some players never won, or never lost"):
        bradley_terry(np.array([[0, 3], [0, 0]]))
    assert bradley_terry(np.array([[0, 3], [0, 0]]), alpha=0.1)[0] > 0.5
    with pytest.raises(ValueError, match="nobody against himself"):
        bradley_terry(np.eye(2))
