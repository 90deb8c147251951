"""Is preference data good enough to train on? One verdict for each criterion, with its threshold and its source.

for criterion in audit(load_preferences("rankings.jsonl")).criteria:
    print(criterion.name, criterion.verdict, criterion.figure)
"""

from __future__ import annotations

import enum
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from agents.lm.preferences import Ranking, pairs
from agents.preference_data.statistics import (
    Decision,
    Share,
    agreement_table,
    cyclic_triples,
    decisions,
    distinct_n,
    noise_rate,
    repeat_agreement,
    share_of,
    similarity,
)

DIVERSITY_SAMPLE = 200
"""Answers that distinct-2 is measured on: it falls with the number of texts."""
NEAR = 0.8
"""Similarity from which two answers count as the same."""


class Verdict(enum.StrEnum):
    """What a criterion comes to, the worst last."""

    GOOD = "good"
    UNKNOWN = "not measured"
    DOUBTFUL = "doubtful"
    NOT_ENOUGH = "not enough"


@dataclass(frozen=True)
class Criterion:
    """One of the things that make preference data good or bad."""

    name: str
    figure: str
    """What was found, in words."""
    value: float | None
    """The same as a number; None: it cannot be measured on this data."""
    verdict: Verdict
    threshold: str
    source: str
    """Where the threshold is from."""
    advice: str
    """What to do where the verdict is not good."""


@dataclass(frozen=True)
class Audit:
    """Of a file of preferences."""

    criteria: tuple[Criterion, ...]
    notes: tuple[str, ...]
    """What was left out, and other findings without a verdict."""
    by_place: tuple[Share | None, ...]
    """Share of its pairs that the answer at each place on the page won; empty where places are not known."""
    by_length: tuple[tuple[str, Share], ...]
    """For pairs by how many words the longer answer has more: share in which the longer one was preferred."""

    @property
    def verdict(self) -> Verdict:
        """The worst one."""
        order = list(Verdict)
        return max((criterion.verdict for criterion in self.criteria), key=order.index)


def audit(rankings: Sequence[Ranking]) -> Audit:
    """Judge preference data.

    Args:
        rankings: of two answers or more. Those equal in everything to an earlier one are left out, as copies.

    Raises:
        ValueError: there are none, or none of them prefers an answer to another.
    """
    if not rankings:
        raise ValueError("There are no preferences to audit.")
    kept, copies = _without_copies(rankings)
    found = decisions(kept)
    if not found:
        raise ValueError("None of the rankings prefers an answer to another: there is nothing to audit.")
    notes = []
    if copies:
        notes.append(f"{len(copies)} rows are copies of earlier ones and were left out: {_rows(copies)}.")
    selves = [number for number, each in enumerate(rankings, start=1) if _prefers_a_text_to_itself(each)]
    if selves:
        notes.append(
            f"{len(selves)} rows prefer an answer to another of the same text, pairs that were left out: "
            f"{_rows(selves)}."
        )
    blank = [number for number, each in enumerate(rankings, start=1) if not all(map(str.strip, each.answers))]
    if blank:
        notes.append(f"{len(blank)} rows have an empty answer: {_rows(blank)}.")
    empty = sum(len(set(ranking.ranks)) == 1 for ranking in kept)
    if empty:
        notes.append(f"{empty} of {len(kept)} rankings tie all answers and decide nothing.")
    if all(ranking.annotator is None for ranking in kept):
        notes.append("No row says who ranked (annotator): agreement and label noise cannot be measured.")
    criteria = [
        _size(found),
        _coverage(kept),
        _diversity(kept),
        _near_duplicates(kept),
        _agreement(kept),
        _cycles(found),
        _noise(found),
        _position(found),
        _length(found),
    ]
    return Audit(tuple(criteria), tuple(notes), _by_place(kept), _by_length(found))


def _prefers_a_text_to_itself(ranking: Ranking) -> bool:
    return any(ranking.answers[i] == ranking.answers[j] for i, j in pairs(ranking.ranks).tolist())


def _rows(numbers: Sequence[int]) -> str:
    """ "row 3, 8", the first ten of them."""
    return "row " + ", ".join(map(str, numbers[:10])) + (" …" if len(numbers) > 10 else "")


def _without_copies(rankings: Sequence[Ranking]) -> tuple[list[Ranking], list[int]]:
    """Rankings that differ, and the numbers (from 1) of the others."""
    seen: set[Ranking] = set()
    kept, copies = [], []
    for number, ranking in enumerate(rankings, start=1):
        if ranking in seen:
            copies.append(number)
        else:
            seen.add(ranking)
            kept.append(ranking)
    return kept, copies


def graded(value: float, good: float, doubtful: float) -> Verdict:
    """A verdict by two thresholds; where ``good`` is the smaller one, less is better."""
    if good < doubtful:
        value, good, doubtful = -value, -good, -doubtful
    return Verdict.GOOD if value >= good else Verdict.DOUBTFUL if value >= doubtful else Verdict.NOT_ENOUGH


def even(share: Share, tolerance: float) -> Verdict:
    """Whether a share is ½: good, if its whole interval is within the tolerance; not enough, if all of it is beyond."""
    if share.low >= 0.5 - tolerance and share.high <= 0.5 + tolerance:
        return Verdict.GOOD
    outside = share.high < 0.5 - tolerance or share.low > 0.5 + tolerance
    return Verdict.NOT_ENOUGH if outside else Verdict.DOUBTFUL


# -- criteria ----------------------------------------------------------------------------------------------------------

OWN = (
    "measured here: a reward model learnt 94 % of the best possible accuracy from 4,098 comparisons of 683 prompts, "
    "78 % from 516 of 86"
)
CONVENTION = "convention of this project"


def _size(found: list[Decision]) -> Criterion:
    count = len(found)
    return Criterion(
        "comparisons",
        f"{count:,}",
        count,
        graded(count, 4_096, 512),
        "good from 4,096, doubtful from 512",
        OWN,
        "Collect more: a ranking of four answers gives six comparisons.",
    )


def _coverage(rankings: list[Ranking]) -> Criterion:
    counts = Counter(ranking.prompt for ranking in rankings)
    most = max(counts.values()) / len(rankings)
    return Criterion(
        "distinct prompts",
        f"{len(counts):,}; the most frequent one has {100 * most:.1f} % of the rankings",
        len(counts),
        graded(len(counts), 683, 86),
        "good from 683, doubtful from 86",
        OWN,
        "More prompts with fewer answers teach more than more answers to the same ones.",
    )


def _diversity(rankings: list[Ranking]) -> Criterion:
    texts = sorted({answer for ranking in rankings for answer in ranking.answers})
    order = np.random.default_rng(0).permutation(len(texts))[:DIVERSITY_SAMPLE]
    value = distinct_n([texts[i] for i in order], 2)
    known = not np.isnan(value)
    return Criterion(
        "diversity of answers",
        f"distinct-2 = {value:.2f} in {len(order)} answers" if known else "answers are single words",
        value if known else None,
        graded(value, 0.3, 0.1) if known else Verdict.UNKNOWN,
        f"share of different word pairs in {DIVERSITY_SAMPLE} answers: good from 0.3, doubtful from 0.1",
        f"measure: Li et al. 2016; threshold: {CONVENTION}",
        "Sample at a higher temperature, or from several models.",
    )


def _near_duplicates(rankings: list[Ranking]) -> Criterion:
    near = [
        (ranking.prompt, similarity(one, other) >= NEAR)
        for ranking in rankings
        for one, other in itertools.combinations(ranking.answers, 2)
    ]
    share = share_of(near)
    assert share is not None
    return Criterion(
        "near-duplicates",
        f"{share.text()} of the pairs have a similarity of {NEAR} or more",
        share.value,
        graded(share.value, 0.02, 0.10),
        "good up to 2 %, doubtful up to 10 %",
        f"similarity of 0.8: Lee et al. 2022, Deduplicating Training Data; threshold: {CONVENTION}",
        "Comparing an answer with itself teaches nothing: sample until the answers differ.",
    )


def _agreement(rankings: list[Ranking]) -> Criterion:
    table = agreement_table(rankings)
    threshold = "Krippendorff's α: good from 0.667, doubtful from 0.46"
    source = (
        "0.667: Krippendorff 2004, the least for tentative conclusions; 0.46: what 73 % agreement comes to, that of "
        "InstructGPT's annotators (Ouyang et al. 2022)"
    )
    advice = "Let several people rank the same items, and write down with examples what is better."
    if not table.size or len(np.unique(table[~np.isnan(table)])) < 2:
        return Criterion(
            "agreement of annotators", "no pair was judged by two", None, Verdict.UNKNOWN, threshold, source, advice
        )
    alpha = krippendorff_alpha(table)
    figure = f"α = {alpha:.2f}, {len(table)} annotators, {table.shape[1] // 2:,} pairs judged by two or more"
    return Criterion("agreement of annotators", figure, alpha, graded(alpha, 0.667, 0.46), threshold, source, advice)


def krippendorff_alpha(table: np.ndarray) -> float:
    """Krippendorff's α at the nominal level: 1 − observed / expected disagreement.

    Args:
        table: float [annotators, units], NaN where somebody did not judge.

    Raises:
        ImportError: the extra ``annotate`` is missing.
    """
    try:
        import krippendorff
    except ImportError as error:
        raise ImportError(f"Krippendorff's α needs its extra: pip install 'textenvs[annotate]'. ({error})") from error
    return float(krippendorff.alpha(reliability_data=table, level_of_measurement="nominal"))


def _cycles(found: list[Decision]) -> Criterion:
    cyclic, total = cyclic_triples(found)
    whose = "of single annotators"
    if not total:
        cyclic, total = cyclic_triples(found, together=True)
        whose = "of all annotators together"
    return Criterion(
        "intransitive cycles",
        f"{cyclic:,} of {total:,} triples {whose}" if total else "no triple of answers was decided piece by piece",
        cyclic / total if total else None,
        graded(cyclic / total, 0.05, 0.125) if total else Verdict.UNKNOWN,
        "good up to 5 %, doubtful up to 12.5 % of the triples that could be cyclic",
        "25 % is guessing: Kendall and Babington Smith 1940; half and a fifth of it: " + CONVENTION,
        "Look at the prompts concerned: a beats b, b beats c, c beats a means that the question is not one.",
    )


def _noise(found: list[Decision]) -> Criterion:
    share = share_of((prompt, not agreed) for prompt, agreed in repeat_agreement(found))
    threshold = "good up to 10 %, doubtful up to 16 %"
    source = f"16 %: the noise that alone explains the 73 % agreement of InstructGPT's annotators; 10 %: {CONVENTION}"
    advice = "Give annotators more time, fewer answers at once, or a way to skip; reward models take label_smoothing."
    if share is None:
        figure = "nobody judged the same pair twice"
        return Criterion("label noise", figure, None, Verdict.UNKNOWN, threshold, source, advice)
    noise, low, high = (noise_rate(value) for value in (share.value, share.low, share.high))
    figure = f"{100 * noise:.1f} % ({100 * low:.1f}–{100 * high:.1f}) from {share.count:,} repeated pairs"
    return Criterion("label noise", figure, noise, graded(noise, 0.10, 0.16), threshold, source, advice)


def _position(found: list[Decision]) -> Criterion:
    share = share_of((each.prompt, each.first) for each in found if each.first is not None)
    return _even_criterion(
        "position bias",
        share,
        0.05,
        "the earlier one on the page was preferred",
        "places on the page are not known",
        "Shuffle the order on the page; the bias is then noise alone, which costs accuracy.",
    )


def _length(found: list[Decision]) -> Criterion:
    share = share_of((each.prompt, longer) for each in found if (longer := _longer(each)) is not None)
    return _even_criterion(
        "length bias",
        share,
        0.05,
        "the longer answer was preferred",
        "all answers are of the same length",
        "Unless longer answers are better here: tell annotators so, or pair answers of equal length. A reward model "
        "learns this first, and what is optimised against it grows long (Singhal et al. 2023, A Long Way to Go).",
    )


def _longer(decision: Decision) -> bool | None:
    """Whether the better answer has more words; None where both have as many."""
    difference = len(decision.better.split()) - len(decision.worse.split())
    return None if difference == 0 else difference > 0


def _even_criterion(
    name: str, share: Share | None, tolerance: float, what: str, missing: str, advice: str
) -> Criterion:
    percent = f"{100 * (0.5 - tolerance):.0f}–{100 * (0.5 + tolerance):.0f} %"
    return Criterion(
        name,
        missing if share is None else f"{share.text()}: {what}",
        None if share is None else share.value,
        Verdict.UNKNOWN if share is None else even(share, tolerance),
        f"good: the 95 % interval lies in {percent}; not enough: outside of it",
        f"a test of equivalence; its margin: {CONVENTION}",
        advice,
    )


# -- what the plots show -----------------------------------------------------------------------------------------------


def _by_place(rankings: list[Ranking]) -> tuple[Share | None, ...]:
    known = [ranking for ranking in rankings if ranking.shown is not None]
    places = max((len(ranking.answers) for ranking in known), default=0)
    won: list[list[tuple[str, bool]]] = [[] for _ in range(places)]
    for ranking in known:
        assert ranking.shown is not None
        for i, j in itertools.permutations(range(len(ranking.answers)), 2):
            if ranking.ranks[i] != ranking.ranks[j]:
                won[ranking.shown[i] - 1].append((ranking.prompt, ranking.ranks[i] < ranking.ranks[j]))
    return tuple(share_of(each) for each in won)


def _by_length(found: list[Decision]) -> tuple[tuple[str, Share], ...]:
    bins: dict[str, Callable[[int], bool]] = {
        "1–2": lambda words: 1 <= words <= 2,
        "3–5": lambda words: 3 <= words <= 5,
        "6–10": lambda words: 6 <= words <= 10,
        "11 or more": lambda words: words > 10,
    }
    result = []
    for label, holds in bins.items():
        rows = []
        for each in found:
            difference = len(each.better.split()) - len(each.worse.split())
            if difference and holds(abs(difference)):
                rows.append((each.prompt, difference > 0))
        share = share_of(rows)
        if share is not None:
            result.append((label, share))
    return tuple(result)
