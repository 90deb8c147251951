"""Preferences: rankings of several answers to a prompt, simulated or from people, and what follows from them.

ranks = rank_answers(gold, scale=8.0, seed=0)             # gold [N, K]: what each answer is really worth
rankings = make_rankings(answers, ranks, gold)            # answers: see agents.lm.sampling.sample_answers
save_rankings("rankings.jsonl", rankings)
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from agents.lm.sampling import Answers

# -- a simulated annotator ---------------------------------------------------------------------------------------------


def preference_probabilities(gold: np.ndarray, scale: float) -> np.ndarray:
    """How probably the annotator prefers answer i to answer j: P = σ(scale · (gold_i − gold_j)).

    Bradley and Terry 1952, "Rank Analysis of Incomplete Block Designs".

    Args:
        gold: [N, K] worth of the K answers to each of N prompts.
        scale: how sure the annotator is; 0 guesses.

    Returns:
        float64 [N, K, K].
    """
    gold = checked_gold(gold, scale)
    differences = scale * (gold[:, :, None] - gold[:, None, :])
    probabilities: np.ndarray = np.exp(-np.logaddexp(0.0, -differences))
    return probabilities


def rank_answers(gold: np.ndarray, scale: float, seed: int) -> np.ndarray:
    """Rankings by a noisy annotator: the order of scale · gold + Gumbel noise, which is a draw from Plackett-Luce.

    Every pair of a ranking follows :func:`preference_probabilities`, since the difference of two Gumbel variables is
    logistic. Plackett 1975, "The Analysis of Permutations"; Yellott 1977, theorem 5.

    Args:
        gold: [N, K] worth of the K answers to each of N prompts.
        scale: how sure the annotator is; 0 guesses.
        seed: of the noise.

    Returns:
        int64 [N, K]: ranks 1 (best) … K, all different.
    """
    gold = checked_gold(gold, scale)
    noisy = scale * gold + np.random.default_rng(seed).gumbel(size=gold.shape)
    return rank_order(noisy)


def rank_order(utilities: np.ndarray) -> np.ndarray:
    """Ranks int64 [N, K], 1 for the largest of each row … K, all different."""
    order = np.argsort(-utilities, axis=1, kind="stable")
    ranks = np.empty(order.shape, dtype=np.int64)
    np.put_along_axis(ranks, order, np.arange(1, order.shape[1] + 1)[None], axis=1)
    return ranks


def best_accuracy(gold: np.ndarray, scale: float) -> float:
    """The accuracy of the best possible predictor of the annotator's pairs: the mean of max(p, 1 − p) over the pairs.

    Nobody who has to guess the noise can do better, the gold score itself included.

    Args:
        gold: [N, K].
        scale: as for :func:`rank_answers`.
    """
    probabilities = preference_probabilities(gold, scale)
    first, second = np.triu_indices(probabilities.shape[1], k=1)
    pairs = probabilities[:, first, second]
    return float(np.maximum(pairs, 1.0 - pairs).mean())


def checked_gold(gold: np.ndarray, scale: float) -> np.ndarray:
    """Gold scores as float64 [N, K].

    Raises:
        ValueError: another shape, a score that is not finite, or a scale that is negative or not finite.
    """
    gold = np.asarray(gold, dtype=np.float64)
    if gold.ndim != 2 or gold.shape[1] < 2:
        raise ValueError(f"gold must be [N, K] with K answers to each prompt, at least 2; got shape {gold.shape}.")
    if not np.isfinite(gold).all():
        raise ValueError("gold scores must be finite; one is NaN or infinite.")
    if not (scale >= 0 and np.isfinite(scale)):
        raise ValueError(f"scale must be at least 0 and finite; got {scale}.")
    return gold


# -- rankings ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ranking:
    """Several answers to one prompt, in order of preference.

    Raises:
        ValueError: fewer than two answers, or entries that are not one for each answer.
        TypeError: entries of another type.
    """

    prompt: str
    answers: tuple[str, ...]
    """Texts, EOS not written out."""
    ranks: tuple[int, ...]
    """Of each answer: the best has the smallest; equal ranks are ties."""
    gold: tuple[float, ...] | None = None
    """What each answer is really worth, where the annotator was simulated."""
    finished: tuple[bool, ...] | None = None
    """Whether each answer ends where its writer ended it (with EOS), rather than where the length budget did.
    None: all do."""
    shown: tuple[int, ...] | None = None
    """The place of each answer on the page, 1 (first) … K."""
    annotator: str | None = None
    """Who ranked."""
    round: int | None = None
    """1, or 2 … where the same annotator was shown the same answers again."""
    time: str | None = None
    """When, in ISO 8601."""
    seconds: float | None = None
    """How long it took."""
    margin: float | None = None
    """Of two answers: how much better one is, where a data set says so."""
    probability: float | None = None
    """Of two answers: how sure the annotator is of the preferred one, in [½, 1]; a soft label, an AI judge's."""

    def __post_init__(self) -> None:
        scalars: dict[str, tuple[type, str]] = {
            "prompt": (str, "a text"),
            "annotator": (str, "a text"),
            "round": (int, "a whole number"),
            "time": (str, "a text"),
            "seconds": (float, "a number"),
            "margin": (float, "a number"),
            "probability": (float, "a number"),
        }
        for name, (kind, what) in scalars.items():
            value = getattr(self, name)
            accepted = isinstance(value, int | float if kind is float else kind) and not isinstance(value, bool)
            if not accepted and (value is not None or name == "prompt"):
                raise TypeError(f"{name!r} must be {what}; got {value!r:.100}.")
        kinds: dict[str, tuple[type, str]] = {
            "answers": (str, "texts"),
            "ranks": (int, "whole numbers"),
            "gold": (float, "numbers"),
            "finished": (bool, "true or false"),
            "shown": (int, "whole numbers"),
        }
        for name, (kind, what) in kinds.items():
            entries = getattr(self, name)
            if entries is None and name not in ("answers", "ranks"):
                continue
            if not isinstance(entries, list | tuple):
                raise TypeError(f"{name!r} must be a list of {what}; got {entries!r:.100}.")
            for entry in entries:
                accepted = isinstance(entry, int | float if kind is float else kind)
                if not accepted or (kind is not bool and isinstance(entry, bool)):
                    raise TypeError(f"{name!r} must be {what}; got {entry!r:.100}.")
            if len(entries) != len(self.answers):
                raise ValueError(f"There are {len(self.answers)} answers but {len(entries)} entries in {name!r}.")
            object.__setattr__(self, name, tuple(entries))
        if len(self.answers) < 2:
            raise ValueError(f"A ranking needs at least two answers; got {len(self.answers)}.")
        if self.margin is not None and not (len(self.answers) == 2 and self.margin >= 0):
            raise ValueError(f"'margin' is at least 0, and of two answers; got {self.margin} of {len(self.answers)}.")
        if self.probability is not None and not (len(self.answers) == 2 and 0.5 <= self.probability <= 1):
            raise ValueError(
                f"'probability' lies in [0.5, 1], and is of two answers; got {self.probability} of {len(self.answers)}."
            )
        if self.shown is not None and sorted(self.shown) != list(range(1, len(self.answers) + 1)):
            raise ValueError(f"'shown' must be the places 1 … {len(self.answers)}, each once; got {self.shown}.")


RANKING_COLUMNS = tuple(field.name for field in fields(Ranking))


def pairs(ranks: Sequence[int] | np.ndarray) -> np.ndarray:
    """All pairs that a ranking decides, int64 [M, 2] numbers of (preferred, other): K (K − 1) / 2, less by ties.

    Ouyang et al. 2022, "Training language models to follow instructions with human feedback", section 3.5.

    Args:
        ranks: [K], the best has the smallest.
    """
    ranks = np.asarray(ranks)
    return np.argwhere(ranks[:, None] < ranks[None, :])


def make_rankings(
    answers: Answers,
    ranks: np.ndarray,
    gold: np.ndarray | None = None,
    *,
    shown: np.ndarray | None = None,
    annotator: str | None = None,
    round: int | None = None,
) -> list[Ranking]:
    """Rankings of sampled answers.

    Args:
        answers: K to each of N prompts.
        ranks: int [N, K].
        gold: [N, K], what they are worth, where that is known.
        shown: int [N, K], the place of each on the page.
        annotator: who ranked.
        round: how many times this annotator has now ranked them.

    Raises:
        ValueError: other shapes.
    """
    shape = answers.scores.shape
    for name, given in (("ranks", ranks), ("gold", gold), ("shown", shown)):
        if given is not None and given.shape != shape:
            raise ValueError(f"{name} must have one entry for each answer, shape {shape}; got {given.shape}.")
    episodes, k = answers.episodes, shape[1]
    completions, finished = episodes.completions, episodes.finish_reason == "stop"
    rankings = []
    for n, row in enumerate(ranks.tolist()):
        part = slice(n * k, (n + 1) * k)
        rankings.append(
            Ranking(
                prompt=episodes.prompts[n * k],
                answers=tuple(completions[part]),
                ranks=tuple(row),
                gold=None if gold is None else tuple(gold[n].astype(np.float64).tolist()),
                finished=None if finished[part].all() else tuple(finished[part].tolist()),
                shown=None if shown is None else tuple(shown[n].tolist()),
                annotator=annotator,
                round=round,
            )
        )
    return rankings


def rank_margins(ranking: Ranking) -> np.ndarray:
    """How far apart a ranking put the two of each pair, float64 [M], in the order of :func:`pairs`: its ``margin``,
    where it has one; else the number of steps between them as a share of the steps from the best to the worst, in
    (0, 1]. Answers that tie share a step.
    """
    better, worse = pairs(ranking.ranks).T
    if ranking.margin is not None:
        return np.full(len(better), float(ranking.margin))
    _, steps = np.unique(np.asarray(ranking.ranks), return_inverse=True)
    return (steps[worse] - steps[better]) / max(int(steps.max()), 1)


def label_doubts(ranking: Ranking) -> np.ndarray:
    """How probably the label of each pair is wrong, float64 [M], in the order of :func:`pairs`: one minus its
    ``probability``; 0 where it has none."""
    doubt = 0.0 if ranking.probability is None else 1.0 - ranking.probability
    return np.full(len(pairs(ranking.ranks)), doubt)


def to_pairs(rankings: Iterable[Ranking], *, margins: bool = False) -> list[dict[str, Any]]:
    """Rows ``{prompt, chosen, rejected}``, one for each decided pair, as Hugging Face's data sets of preferences; with
    a column ``probability`` where labels are soft. Two answers of the same text make no pair.

    Args:
        margins: with a column ``margin``, see :func:`rank_margins`.
    """
    rows: list[dict[str, Any]] = []
    for ranking in rankings:
        for (better, worse), margin in zip(pairs(ranking.ranks).tolist(), rank_margins(ranking), strict=True):
            if ranking.answers[better] == ranking.answers[worse]:
                continue
            rows.append(
                {"prompt": ranking.prompt, "chosen": ranking.answers[better], "rejected": ranking.answers[worse]}
                | ({"margin": round(float(margin), 6)} if margins else {})
                | ({} if ranking.probability is None else {"probability": ranking.probability})
            )
    return rows


def save_rankings(path: str | Path, rankings: Iterable[Ranking]) -> None:
    """Write rankings as JSONL: rows ``{prompt, answers, ranks}``, and whatever else is known of each."""
    rows = ({name: value for name, value in vars(ranking).items() if value is not None} for ranking in rankings)
    write_jsonl(path, rows)


def load_rankings(path: str | Path) -> list[Ranking]:
    """Rankings from JSONL, as :func:`save_rankings` writes it; keys that it does not know are left aside.

    Raises:
        ValueError: no such file, no row in it, or a row that is no ranking, with its line number.
    """
    path = Path(path)
    rankings = []
    for number, line in read_lines(path, "rankings"):
        try:
            rankings.append(_from_row(json.loads(line)))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: {error} ({line!r:.100})") from None
    return rankings


def read_lines(path: Path, what: str) -> list[tuple[int, str]]:
    """The lines of a text file that are not blank, with their numbers from 1; a byte order mark is no part of them.

    Args:
        path: of the file.
        what: it holds, for messages.

    Raises:
        ValueError: no such file, another encoding than UTF-8, or nothing in it.
    """
    if not path.is_file():
        raise ValueError(f"There is no file {str(path)!r} with {what}.")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a UTF-8 text file: {error}.") from None
    found = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise ValueError(f"{path} holds no {what}.")
    return found


def write_jsonl(path: str | Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows as JSONL; a file of that name is replaced by the whole of it or not at all."""
    path = Path(path)
    temporary = path.with_name(f"{path.name}.partial-{os.getpid()}")
    temporary.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    temporary.replace(path)


def _from_row(row: Any) -> Ranking:
    needed = ("prompt", "answers", "ranks")
    if not isinstance(row, dict):
        raise TypeError("A row must be an object {prompt, answers, ranks}.")
    missing = [name for name in needed if name not in row]
    if missing:
        raise ValueError(f"There is no {missing[0]!r}; the row has {', '.join(row) or 'nothing'}.")
    known: dict[str, Any] = {name: row.get(name) for name in RANKING_COLUMNS}
    return Ranking(**known)
