"""What is kept of a run: rows at log-spaced episodes, and its best texts. No environments, only finished episodes."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from textenvs.spec import TextSpec

POINTS_PER_DECADE = 10


def log_points() -> Iterator[int]:
    """1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, …: the whole numbers nearest to ten points a decade, without end."""
    last, k = 0, 0
    while True:
        point = round(10 ** (k / POINTS_PER_DECADE))
        if point > last:
            yield point
        last, k = point, k + 1


@dataclass(frozen=True)
class LogRow:
    """The episodes since the row before, this one's included."""

    episode: int
    """Number of the last of them, from 1."""
    steps: int
    """Tokens written since the beginning, those of unfinished episodes included."""
    mean_return: float
    mean_length: float
    mean_score: float
    """Of those that have one (an invalid text has none); NaN if none has."""
    mean_gold_score: float
    """NaN where the environment names no gold reward."""
    best_score: float
    """The highest score since the beginning."""
    stopped: float
    """Share that ended with EOS."""
    invalid: float
    """Share that an illegal action ended."""


COLUMNS = tuple(field.name for field in dataclasses.fields(LogRow))


@dataclass
class FinishedEpisodes:
    """n episodes that ended in one step, as arrays [n]; NaN where an episode has no such score."""

    returns: np.ndarray
    lengths: np.ndarray
    scores: np.ndarray
    gold_scores: np.ndarray
    reasons: np.ndarray


class LogTable:
    """Rows at log-spaced episodes.

    Args:
        path: a CSV file that does not exist yet, to which each row is written at once; None: rows are only kept.

    Attributes:
        rows: the rows so far.
        episodes: episodes so far.

    Raises:
        FileExistsError: ``path`` exists.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        self.rows: list[LogRow] = []
        self.episodes = 0
        self._best = -math.inf
        self._pending: list[FinishedEpisodes] = []
        self._next, self._index = 1, 0
        if self.path is not None:
            if self.path.exists():
                raise FileExistsError(f"{self.path} exists: a run is logged to a file of its own.")
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._write(COLUMNS)

    def add(self, finished: FinishedEpisodes, steps: int) -> None:
        """Count finished episodes, in their order.

        Args:
            finished: n of them.
            steps: tokens written since the beginning of the run.
        """
        start, count = 0, len(finished.returns)
        while self.episodes + (count - start) >= self._next:
            stop = start + self._next - self.episodes
            self._take(finished, start, stop)
            self.flush(steps)
            start = stop
        if start < count:
            self._take(finished, start, count)

    def flush(self, steps: int) -> None:
        """A row of the episodes since the last one, if there are any."""
        if not self._pending:
            return
        joined = {
            field.name: np.concatenate([getattr(part, field.name) for part in self._pending])
            for field in dataclasses.fields(FinishedEpisodes)
        }
        self._pending = []
        scores = joined["scores"][~np.isnan(joined["scores"])]
        self._best = max(self._best, float(scores.max(initial=-math.inf)))
        row = LogRow(
            episode=self.episodes,
            steps=steps,
            mean_return=_mean(joined["returns"]),
            mean_length=_mean(joined["lengths"]),
            mean_score=_mean(joined["scores"]),
            mean_gold_score=_mean(joined["gold_scores"]),
            best_score=self._best,
            stopped=float(np.mean(joined["reasons"] == "stop")),
            invalid=float(np.mean(joined["reasons"] == "invalid")),
        )
        self.rows.append(row)
        self._write([getattr(row, name) for name in COLUMNS])

    def _take(self, finished: FinishedEpisodes, start: int, stop: int) -> None:
        parts = (getattr(finished, field.name)[start:stop] for field in dataclasses.fields(finished))
        self._pending.append(FinishedEpisodes(*parts))
        self.episodes += stop - start
        while self._next <= self.episodes:
            self._index += 1
            self._next = _point(self._index)

    def _write(self, values: Any) -> None:
        if self.path is not None:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.writer(file).writerow(values)


@dataclass(frozen=True)
class BestText:
    """One of the best texts of a run."""

    score: float
    prompt: str
    completion: str
    episode: int
    """Number of the episode that wrote it first with this score, from 1."""


class TopTexts:
    """The k best different texts so far.

    Args:
        spec: of the environment, to decode by.
        k: how many.

    Attributes:
        best: them, the highest score first, of equal ones the earlier first.

    Raises:
        ValueError: k is below 1.
    """

    def __init__(self, spec: TextSpec, k: int) -> None:
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
            raise ValueError(f"k is the number of texts to keep, at least 1; got {k!r}.")
        self.spec, self.k = spec, int(k)
        self.best: list[BestText] = []
        self.episodes = 0

    def add(self, rows: np.ndarray, scores: np.ndarray) -> None:
        """Count finished episodes.

        Args:
            rows: int64 [n, L], final observations.
            scores: float64 [n], NaN for texts that have none.
        """
        first, self.episodes = self.episodes + 1, self.episodes + len(scores)
        # Most texts are no better than the worst that is kept: nothing is decoded for them.
        worst = self.best[-1].score if len(self.best) == self.k else -math.inf
        for i in np.flatnonzero(scores > worst).tolist():
            self._insert(rows[i], float(scores[i]), first + i)

    def _insert(self, row: np.ndarray, score: float, episode: int) -> None:
        decode, prompt_length = self.spec.vocab.decode, self.spec.prompt_length
        new = BestText(score, decode(row[:prompt_length].tolist()), decode(row[prompt_length:].tolist()), episode)
        # A noisy judge may score one text differently: it is kept once, with its highest score.
        same = [old for old in self.best if (old.prompt, old.completion) == (new.prompt, new.completion)]
        if same and same[0].score >= score:
            return
        kept = [old for old in self.best if old not in same]
        self.best = sorted([*kept, new], key=lambda text: (-text.score, text.episode))[: self.k]


def check_rows(env: Any, spec: TextSpec, space: Any, wrapper: str) -> None:
    """Check that what an environment gives are rows of token ids.

    Raises:
        TypeError: a wrapper below changes them.
    """
    if not isinstance(space, spaces.MultiDiscrete) or space.shape != (spec.row_length,):
        raise TypeError(
            f"{wrapper} reads the text from the observations, which something in {env} has changed to {space}: put "
            f"{wrapper} on first, next to the environment."
        )


def find_text_spec(env: Any, wrapper: str) -> TextSpec:
    """The ``text_spec`` below a stack of wrappers, scalar or vector.

    Raises:
        TypeError: there is no text environment.
    """
    base = env.unwrapped
    spec = getattr(base, "text_spec", None)
    if spec is None and hasattr(base, "get_attr"):
        try:
            spec = base.get_attr("text_spec")[0]
        except AttributeError:
            spec = None
    if not isinstance(spec, TextSpec):
        raise TypeError(f"{wrapper} is for text environments, and there is none inside {env}.")
    return spec


def _point(index: int) -> int:
    points = log_points()
    for _ in range(index):
        next(points)
    return next(points)


def _mean(values: np.ndarray) -> float:
    """Mean of what is not NaN; NaN if nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean(dtype=np.float64)) if known.size else math.nan
