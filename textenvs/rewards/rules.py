"""Rules: scores computed from the token ids, as arrays. The default rewards of the built-in tasks."""

from __future__ import annotations

import numpy as np

from textenvs.arrays import count_true
from textenvs.episodes import Episodes
from textenvs.rewards.registry import register_reward


def _column(episodes: Episodes, name: str, reward: str) -> np.ndarray:
    if name not in episodes.columns:
        raise ValueError(
            f"{reward!r} compares with the column {name!r}, which this task does not have. "
            f"Its columns: {', '.join(episodes.column_names()) or '(none)'}."
        )
    return np.asarray(episodes.columns[name])


def _matches(episodes: Episodes, target: np.ndarray) -> np.ndarray:
    """Positions of the completions that equal the target's, bool [B, min(T, target's width)]; padding never does."""
    width = min(target.shape[1], episodes.completion_ids.shape[1])
    written = episodes.completion_ids[:, :width]
    return (written == target[:, :width]) & (written != episodes.pad_id)


def _target_lengths(episodes: Episodes, target: np.ndarray) -> np.ndarray:
    return count_true(target != episodes.pad_id)


@register_reward("match")
class Match:
    """Fraction of positions right: positions that equal ``target_ids``, over the longer of completion and target."""

    low, high, deterministic, cost = 0.0, 1.0, True, "array"

    def score(self, episodes: Episodes) -> np.ndarray:
        target = _column(episodes, "target_ids", "match")
        right = count_true(_matches(episodes, target))
        longest = np.maximum(np.maximum(_target_lengths(episodes, target), episodes.lengths), 1)
        return (right / longest).astype(np.float32)


@register_reward("prefix")
class Prefix:
    """Length of the correct prefix over the length of the target."""

    low, high, deterministic, cost = 0.0, 1.0, True, "array"

    def score(self, episodes: Episodes) -> np.ndarray:
        target = _column(episodes, "target_ids", "prefix")
        right = count_true(np.logical_and.accumulate(_matches(episodes, target), axis=1))
        return (right / np.maximum(_target_lengths(episodes, target), 1)).astype(np.float32)


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
