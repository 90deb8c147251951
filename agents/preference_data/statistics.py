"""Statistics of preference data: pure functions of rankings and counts."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from agents.lm.preferences import Ranking, pairs

RESAMPLES = 1_000
Z = 1.96


@dataclass(frozen=True)
class Decision:
    """One pair of a ranking: somebody preferred an answer to another."""

    prompt: str
    better: str
    worse: str
    annotator: str | None
    ranking: int
    """The number of the ranking that it is part of."""
    first: bool | None
    """Whether the better one stood before the other on the page; None: not known."""


@dataclass(frozen=True)
class Share:
    """A share with its 95 % interval, and of how many."""

    value: float
    low: float
    high: float
    count: int

    def text(self) -> str:
        """ "53.1 % (51.0–55.2)"."""
        return f"{100 * self.value:.1f} % ({100 * self.low:.1f}–{100 * self.high:.1f})"


def decisions(rankings: Sequence[Ranking]) -> list[Decision]:
    """All pairs that rankings decide; not those of an answer with another of the same text."""
    found = []
    for number, ranking in enumerate(rankings):
        for i, j in pairs(ranking.ranks).tolist():
            if ranking.answers[i] == ranking.answers[j]:
                continue
            first = None if ranking.shown is None else ranking.shown[i] < ranking.shown[j]
            found.append(
                Decision(ranking.prompt, ranking.answers[i], ranking.answers[j], ranking.annotator, number, first)
            )
    return found


def share_of(successes: Iterable[tuple[str, bool]], seed: int = 0) -> Share | None:
    """The share of successes, with an interval from a bootstrap over clusters; None where there are none to count.

    Pairs of one prompt depend on each other, so prompts are drawn with replacement, not pairs: each weighs as often as
    a Poisson variable of mean 1 says (Chamandy et al. 2012, "Estimating Uncertainty for Massive Data Streams").

    Args:
        successes: (cluster, success) of each.
        seed: of the bootstrap.
    """
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for cluster, success in successes:
        counts[cluster][0] += bool(success)
        counts[cluster][1] += 1
    if not counts:
        return None
    table = np.array(list(counts.values()), dtype=np.float64)
    weights = np.random.default_rng(seed).poisson(1.0, (RESAMPLES, len(table)))
    sums = weights @ table
    sums = sums[sums[:, 1] > 0]
    value, count = float(table[:, 0].sum() / table[:, 1].sum()), int(table[:, 1].sum())
    if value in (0.0, 1.0):  # resampling shows no spread; Wilson's interval does
        end = count / (count + Z**2)
        return Share(value, *((0.0, 1 - end) if value == 0 else (end, 1.0)), count)
    low, high = np.quantile(sums[:, 0] / sums[:, 1], (0.025, 0.975))
    return Share(value, float(low), float(high), count)


def agreement_table(rankings: Sequence[Ranking]) -> np.ndarray:
    """What each annotator says of each pair of answers, for Krippendorff's α at the nominal level.

    A unit is a prompt with two answers, once in each order, so that it does not matter which is called the first. The
    values: 1 where the first is better, −1 the second, 0 a tie, NaN not judged. Of repetitions the first counts.

    Returns:
        float64 [annotators, units]; units that fewer than two annotators judged are left out.
    """
    names = sorted({ranking.annotator for ranking in rankings if ranking.annotator is not None})
    told: dict[tuple[str, str, str], dict[str, float]] = defaultdict(dict)
    for ranking in rankings:
        if ranking.annotator is None:
            continue
        for i, j in itertools.permutations(range(len(ranking.answers)), 2):
            unit = (ranking.prompt, ranking.answers[i], ranking.answers[j])
            told[unit].setdefault(ranking.annotator, float(np.sign(ranking.ranks[j] - ranking.ranks[i])))
    units = [values for values in told.values() if len(values) > 1]
    table = np.full((len(names), len(units)), np.nan)
    for column, values in enumerate(units):
        for name, value in values.items():
            table[names.index(name), column] = value
    return table


def cyclic_triples(found: Sequence[Decision], *, together: bool = False) -> tuple[int, int]:
    """Triples of answers to a prompt, all three pairs decided, of which a beats b, b beats c and c beats a; and all.

    A judge who guesses makes a quarter of them cyclic (Kendall and Babington Smith 1940, "On the Method of Paired
    Comparisons"). Triples that one or two whole rankings decide are left out: those cannot be cyclic.

    Args:
        found: the decisions. A pair that was decided more than once goes by the majority.
        together: take all annotators as one.

    Returns:
        (cyclic, all).
    """
    groups: dict[tuple[str, str | None], list[Decision]] = defaultdict(list)
    for decision in found:
        groups[decision.prompt, None if together else decision.annotator].append(decision)
    cyclic = total = 0
    for group in groups.values():
        net: dict[tuple[str, str], int] = defaultdict(int)
        sources: dict[tuple[str, str], set[int]] = defaultdict(set)
        for each in group:
            net[each.better, each.worse] += 1
            net[each.worse, each.better] -= 1
            for pair in ((each.better, each.worse), (each.worse, each.better)):
                sources[pair].add(each.ranking)
        if len({each.ranking for each in group}) < 2:
            continue  # most groups, quickly
        for a, b, c in itertools.combinations(sorted({text for pair in net for text in pair}), 3):
            sides = [(a, b), (b, c), (c, a)]
            if not all(net.get(side, 0) for side in sides):
                continue
            those = [sources[side] for side in sides]
            if not set.intersection(*those) or len(set.union(*those)) > 2:
                total += 1
                cyclic += len({net[side] > 0 for side in sides}) == 1
    return cyclic, total


def repeat_agreement(found: Sequence[Decision]) -> list[tuple[str, bool]]:
    """(prompt, whether they agree) of each pair of answers that the same annotator decided again in another ranking:
    the second decision against the first, the third against the second, and so on."""
    last: dict[tuple[str | None, str, frozenset[str]], Decision] = {}
    agreed = []
    for each in found:
        if each.annotator is None:
            continue
        key = (each.annotator, each.prompt, frozenset((each.better, each.worse)))
        if key in last and last[key].ranking != each.ranking:
            agreed.append((each.prompt, last[key].better == each.better))
        last[key] = each
    return agreed


def noise_rate(disagreement: float) -> float:
    """The probability ε that a label is not the annotator's real opinion, from how often two labels of the same pair
    disagree: d = 2 ε (1 − ε), so ε = (1 − √(1 − 2 d)) / 2; ½ from d = ½ on."""
    return (1 - max(1 - 2 * disagreement, 0.0) ** 0.5) / 2


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Different n-grams of words as a share of all; NaN where there are none. Li et al. 2016, "A Diversity-Promoting
    Objective Function for Neural Conversation Models"."""
    grams = [gram for text in texts for gram in _grams(text, n)]
    return len(set(grams)) / len(grams) if grams else float("nan")


def similarity(one: str, other: str, n: int = 2) -> float:
    """Jaccard similarity of two texts' n-grams of words, in [0, 1]. Broder 1997, "On the Resemblance and Containment
    of Documents". Texts shorter than n are compared as a whole."""
    left, right = set(_grams(one, n)) or {(one,)}, set(_grams(other, n)) or {(other,)}
    return len(left & right) / len(left | right)


def _grams(text: str, n: int) -> list[tuple[str, ...]]:
    words = text.split()
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def bradley_terry(wins: np.ndarray, alpha: float = 0.0, tolerance: float = 1e-10) -> np.ndarray:
    """Strengths θ of K players, of mean 0, from how often each won against each: P(i beats j) = σ(θ_i − θ_j).

    Maximum likelihood by the MM algorithm: Hunter 2004, "MM Algorithms for Generalized Bradley-Terry Models",
    equation 3.

    Args:
        wins: [K, K], entry (i, j) counts how often i was preferred to j.
        alpha: pulls strengths together, and is needed where somebody always won: a Gamma prior of shape 1 + alpha and
            rate alpha on exp(θ), whose mean is 1 (Caron and Doucet 2012, "Efficient Bayesian Inference for Generalized
            Bradley-Terry Models").
        tolerance: on the strengths, between two iterations.

    Raises:
        ValueError: not such a matrix, or strengths that are infinite (give ``alpha``).
    """
    wins = np.asarray(wins, dtype=np.float64)
    if wins.ndim != 2 or wins.shape[0] != wins.shape[1] or wins.shape[0] < 2 or not (wins >= 0).all() or wins.trace():
        raise ValueError(f"wins must be [K, K], none negative, nobody against himself; got {wins!r:.200}.")
    games = wins + wins.T
    reached = np.linalg.matrix_power(np.eye(len(wins)) + (wins > 0), len(wins)) > 0
    if alpha == 0 and not reached.all():
        raise ValueError("Some players never won, or never lost, against the others: give alpha > 0, 0.01 for example.")
    strengths = np.zeros(len(wins))
    for _ in range(100_000):
        worth = np.exp(strengths)
        worth *= len(worth) / worth.sum()
        updated = np.log(wins.sum(axis=1) + alpha) - np.log(
            (games / (worth[:, None] + worth[None, :])).sum(axis=1) + alpha
        )
        updated -= updated.mean()
        if np.abs(updated - strengths).max() < tolerance:
            return updated
        strengths = updated
    return strengths
