"""Rules: scores computed from the token ids, as arrays. The default rewards of the built-in tasks."""

from __future__ import annotations

import numpy as np

from textenvs.arrays import count_true
from textenvs.episodes import Episodes
from textenvs.rewards.inputs import version_of
from textenvs.rewards.registry import register_reward


def _column(episodes: Episodes, name: str, reward: str) -> np.ndarray:
    if name not in episodes.columns:
        raise ValueError(
            f"{reward!r} compares with the column {name!r}, which this task does not have. "
            f"Its columns: {', '.join(episodes.column_names()) or '(none)'}."
        )
    return np.asarray(episodes.columns[name])


def _matches(episodes: Episodes, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the completions that equal the target's, bool [B, min(T, target's width)]; padding never does.

    And the target's lengths, int64 [B].
    """
    width = min(target.shape[1], episodes.completion_ids.shape[1])
    wanted = target != episodes.pad_id
    equal = episodes.completion_ids[:, :width] == target[:, :width]
    equal &= wanted[:, :width]
    return equal, count_true(wanted)


@register_reward("match")
class Match:
    """Fraction of positions right: positions that equal ``target_ids``, over the longer of completion and target."""

    low, high, deterministic, cost = 0.0, 1.0, True, "array"

    def score(self, episodes: Episodes) -> np.ndarray:
        equal, target_lengths = _matches(episodes, _column(episodes, "target_ids", "match"))
        longest = np.maximum(np.maximum(target_lengths, episodes.lengths), 1)
        return (count_true(equal) / longest).astype(np.float32)


@register_reward("prefix")
class Prefix:
    """Length of the correct prefix over the length of the target."""

    low, high, deterministic, cost = 0.0, 1.0, True, "array"

    def score(self, episodes: Episodes) -> np.ndarray:
        equal, target_lengths = _matches(episodes, _column(episodes, "target_ids", "prefix"))
        right = count_true(np.logical_and.accumulate(equal, axis=1))
        return (right / np.maximum(target_lengths, 1)).astype(np.float32)


@register_reward("keywords")
class KeywordShare:
    """Fraction of the tokens in ``keywords_ids`` that occur in the completion, wherever."""

    low, high, deterministic, cost = 0.0, 1.0, True, "array"

    def score(self, episodes: Episodes) -> np.ndarray:
        keywords = _column(episodes, "keywords_ids", "keywords")
        occurs = np.zeros(keywords.shape, dtype=np.bool_)
        for column in range(episodes.completion_ids.shape[1]):
            occurs |= keywords == episodes.completion_ids[:, column, None]
        wanted = keywords != episodes.pad_id
        return (count_true(occurs & wanted) / np.maximum(count_true(wanted), 1)).astype(np.float32)


@register_reward("nearest_mode")
class NearestMode:
    """Fraction of positions right against the nearest of several texts, the rows of the column ``modes``."""

    low, high, deterministic, cost = 0.0, 1.0, True, "array"

    def score(self, episodes: Episodes) -> np.ndarray:
        modes = _column(episodes, "modes", "nearest_mode")  # [B, M, n]
        width = min(modes.shape[2], episodes.completion_ids.shape[1])
        equal = modes[:, :, :width] == episodes.completion_ids[:, None, :width]
        longest = np.maximum(modes.shape[2], episodes.lengths)
        return (equal.sum(axis=2).max(axis=1) / longest).astype(np.float32)


@register_reward("lure")
class Lure:
    """The larger of ``prefix`` against ``target_ids``, and a share of the positions that equal ``lure_ids``.

    The lure pays from its first position on, the target only as a prefix: whoever climbs where it pays at once ends at
    ``pays``. Range: [0, 1].

    Args:
        pays: score of the whole lure, in [0, 1].

    Raises:
        ValueError: ``pays`` lies outside.
    """

    low, high, deterministic, cost = 0.0, 1.0, True, "array"

    def __init__(self, *, pays: float = 0.6) -> None:
        if not 0 <= pays <= 1:
            raise ValueError(f"'lure': pays must lie in [0, 1], got {pays!r}.")
        self.pays = float(pays)
        self.version = version_of(pays=self.pays)
        self._prefix = Prefix()

    def score(self, episodes: Episodes) -> np.ndarray:
        equal, lengths = _matches(episodes, _column(episodes, "lure_ids", "lure"))
        lured = self.pays * count_true(equal) / np.maximum(lengths, 1)
        return np.maximum(self._prefix.score(episodes), lured).astype(np.float32)


@register_reward("column")
class ColumnValue:
    """The number in a column of the data set, whatever is written.

    Args:
        column: the column with the scores; ``"column:value"`` names it too.
        low: least possible score.
        high: greatest possible score.
    """

    deterministic, cost = True, "array"

    def __init__(self, column: str = "value", *, low: float = -np.inf, high: float = np.inf) -> None:
        self.column, self.low, self.high = column, low, high
        self.version = version_of(column=column)

    def score(self, episodes: Episodes) -> np.ndarray:
        return _column(episodes, self.column, "column").astype(np.float32)
