"""Length in preferences and in rewards: how much of a gain is length, and rankings from which it is balanced away.

    slope = length_slope(lengths, scores)                  # of a reward model, on texts of the SFT model
    length_share(lengths, scores, new_lengths, new_scores) # how much of what training has gained is length
    balanced = balance_lengths(rankings, seed=0)           # pairs in which the longer answer wins as often as it loses

Singhal et al. 2023, "A Long Way to Go: Investigating Length Correlations in RLHF".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from agents.lm.preferences import Ranking, pairs

# -- how much of a gain is length --------------------------------------------------------------------------------------


def length_slope(lengths: np.ndarray, scores: np.ndarray) -> float:
    """Score per token: the slope of the least-squares line of scores [B] on lengths [B].

    Raises:
        ValueError: other shapes, fewer than two texts, or all of them equally long.
    """
    lengths, scores = np.asarray(lengths, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if lengths.ndim != 1 or lengths.shape != scores.shape:
        raise ValueError(f"lengths and scores must both be [B]; got {lengths.shape} and {scores.shape}.")
    if len(lengths) < 2 or np.ptp(lengths) == 0:
        raise ValueError(f"{len(lengths)} texts, all equally long: they do not show what a token is worth.")
    centred = lengths - lengths.mean()
    return float(centred @ scores / (centred @ centred))


def length_share(lengths: np.ndarray, scores: np.ndarray, new_lengths: np.ndarray, new_scores: np.ndarray) -> float:
    """Share of a gain in score that length alone explains: slope · (growth in tokens) / (gain in score), where the
    slope is that of the texts before. It can lie below 0 (texts became shorter) and above 1 (the rest lost score).

    Args:
        lengths, scores: [B] of texts before training.
        new_lengths, new_scores: [C] of texts after it.

    Returns:
        NaN where nothing was gained.

    Raises:
        ValueError: see :func:`length_slope`.
    """
    gain = float(np.mean(new_scores, dtype=np.float64) - np.mean(scores, dtype=np.float64))
    growth = float(np.mean(new_lengths, dtype=np.float64) - np.mean(lengths, dtype=np.float64))
    slope = length_slope(lengths, scores)
    return slope * growth / gain if gain > 0 else float("nan")


def stratified_share(
    lengths: np.ndarray, scores: np.ndarray, new_lengths: np.ndarray, new_scores: np.ndarray, width: int = 3
) -> float:
    """The same without a line: 1 − (gain at equal length) / gain. Texts are compared in bins of ``width`` tokens, and
    the gains of bins weighted by the texts after training in them; texts in bins that were empty before count nothing.
    Singhal et al. 2023, section 3.1 (there: the non-length reward gain).

    Args:
        lengths, scores: [B] of texts before training.
        new_lengths, new_scores: [C] of texts after it.
        width: of a bin.

    Returns:
        NaN where nothing was gained, or no bin has texts of both.
    """
    gain = float(np.mean(new_scores, dtype=np.float64) - np.mean(scores, dtype=np.float64))
    before, after = np.asarray(lengths) // width, np.asarray(new_lengths) // width
    shared = np.intersect1d(before, after)
    if gain <= 0 or not len(shared):
        return float("nan")
    counts = np.array([(after == each).sum() for each in shared])
    gains = np.array([new_scores[after == each].mean() - scores[before == each].mean() for each in shared])
    return 1 - float(counts @ gains / counts.sum()) / gain


# -- rankings ----------------------------------------------------------------------------------------------------------


def split_pairs(rankings: Sequence[Ranking]) -> list[Ranking]:
    """Every decided pair as a ranking of its own, the preferred answer first.

    Raises:
        ValueError: no rankings, or none that decides anything.
    """
    if not rankings:
        raise ValueError("There are no rankings: the preference set is empty.")
    found = []
    for ranking in rankings:
        for pair in pairs(ranking.ranks).tolist():
            found.append(
                Ranking(
                    ranking.prompt,
                    tuple(ranking.answers[i] for i in pair),
                    (1, 2),
                    gold=None if ranking.gold is None else tuple(ranking.gold[i] for i in pair),
                    finished=None if ranking.finished is None else tuple(ranking.finished[i] for i in pair),
                    annotator=ranking.annotator,
                )
            )
    if not found:
        raise ValueError(f"None of the {len(rankings)} rankings prefers an answer to another: all of them are ties.")
    return found


def length_difference(pair: Ranking) -> int:
    """Words of the preferred answer less those of the other."""
    return len(pair.answers[0].split()) - len(pair.answers[1].split())


def longer_preferred(rankings: Sequence[Ranking]) -> float:
    """How often the longer answer is the preferred one, among the pairs of unequal length; NaN without any.

    Raises:
        ValueError: see :func:`split_pairs`.
    """
    differences = [length_difference(pair) for pair in split_pairs(rankings)]
    unequal = [difference > 0 for difference in differences if difference]
    return float(np.mean(unequal)) if unequal else float("nan")


def balance_lengths(rankings: Sequence[Ranking], seed: int) -> list[Ranking]:
    """Pairs in which, at every difference in length, the longer answer is preferred as often as the shorter one.

    Of the pairs whose lengths differ by d words, those of the larger kind (the longer one preferred, as a rule) are
    drawn without replacement until both kinds are equally many. If preferences follow Bradley and Terry with log-odds
    s Δgold + b d, sampling one kind more often than the other only adds a constant to the log-odds of each d, and here
    it is the one that removes d's mean effect (the case-control argument of logistic regression).

    Args:
        rankings: of any number of answers.
        seed: of what is drawn.

    Returns:
        Pairs as rankings of two answers, in a random order; those of equal length are all kept.

    Raises:
        ValueError: no rankings, only ties, or a single class: the longer answer is always preferred, or never.
    """
    kinds: dict[int, tuple[list[Ranking], list[Ranking]]] = defaultdict(lambda: ([], []))
    for pair in split_pairs(rankings):
        difference = length_difference(pair)
        kinds[abs(difference)][difference > 0].append(pair)
    equal = [pair for part in kinds.pop(0, ([], [])) for pair in part]
    shorter, longer = (sum(len(part[which]) for part in kinds.values()) for which in (0, 1))
    if not shorter or not longer:
        which = "longer" if longer else "shorter" if shorter else "other"
        raise ValueError(
            f"A single class of preferences: in all {shorter + longer} pairs of unequal length the {which} answer is "
            f"preferred, so length and worth cannot be told apart. Collect pairs that contradict it, or put a length "
            f"penalty on the reward instead."
        )
    rng = np.random.default_rng(seed)
    kept = equal
    for distance in sorted(kinds):
        count = min(map(len, kinds[distance]))
        for part in kinds[distance]:
            kept += [part[i] for i in rng.permutation(len(part))[:count]]
    return [kept[i] for i in rng.permutation(len(kept))]
