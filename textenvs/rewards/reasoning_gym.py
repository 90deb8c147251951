"""The scorers of reasoning-gym's data sets."""

from __future__ import annotations

import contextlib
import inspect
import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from textenvs.episodes import Episodes
from textenvs.reasoning_gym_library import library, open_dataset
from textenvs.rewards.inputs import entries_of, version_of
from textenvs.rewards.registry import register_reward

_USER = "Reward 'reasoning_gym'"
_PARTS = ("question", "answer", "metadata")
_RUNS_TEXT = re.compile(r"\b(eval|exec|parse_expr|sympify)\((?!entry\b|metadata\b)")


@register_reward("reasoning_gym")
class ReasoningGym:
    """The score that reasoning-gym gives an answer to one of its tasks.

    Score: ``score_answer(completion, entry)`` of the data set. Range: [0, 1]; 1 for a right answer, and some data sets
    give part of it for a near one. The task's data set must carry what reasoning-gym generated: a column ``entry`` with
    the whole dictionary, or the columns ``question``, ``answer`` and ``metadata``; dictionaries may be JSON strings.

    The scorers of some data sets (``countdown``, ``n_queens``, ``spiral_matrix``, …) pass the text to ``eval`` or to
    sympy's parser: whatever the model writes then runs as Python in this process. Those are refused unless you say so.

    Args:
        dataset: name in reasoning-gym; ``"reasoning_gym:chain_sum"`` names it too.
        answer_tag: the answer stands between ``<tag>`` and ``</tag>``, the last pair counts, and a text without one has
            none. Default: the whole completion, without white space around it, is the answer.
        run_answers: allow a scorer that runs the text as Python. In a sandbox only.
        config: the data set's own settings, where its scorer depends on them.

    Raises:
        ImportError: reasoning-gym is not installed.
        ValueError: an unknown data set, settings that it does not take, or a scorer that runs the text.
    """

    low, high = 0.0, 1.0
    deterministic, version, cost = True, "1", "text"

    def __init__(
        self, dataset: str, *, answer_tag: str | None = None, run_answers: bool = False, **config: Any
    ) -> None:
        self._dataset = open_dataset(dataset, config, _USER)
        if not run_answers and _RUNS_TEXT.search(inspect.getsource(type(self._dataset).score_answer)):
            raise ValueError(
                f"'reasoning_gym': the scorer of {dataset!r} runs the text as Python, so a model could do anything "
                f"that you can. Choose another data set, or give run_answers=True in a sandbox."
            )
        self.answer_tag = answer_tag
        self.version = version_of(dataset=dataset, answer_tag=answer_tag, **config)

    def score(self, episodes: Episodes) -> np.ndarray:
        entries = _entries(episodes)
        scores = [self._score(text, entry) for text, entry in zip(episodes.completions, entries, strict=True)]
        return np.array(scores, dtype=np.float32)

    def _score(self, text: str, entry: dict[str, Any]) -> float:
        answer: str | None = text.strip()
        if self.answer_tag is not None:
            answer = library("utils", _USER).extract_answer(text, tag_name=self.answer_tag)
        return self._dataset.score_answer(answer, entry)


def _entries(episodes: Episodes) -> list[dict[str, Any]]:
    known = episodes.column_names()
    if "entry" in known:
        return [_dictionary("entry", i, entry) for i, entry in enumerate(entries_of(episodes.column("entry")))]
    missing = [name for name in _PARTS if name not in known]
    if missing:
        raise ValueError(
            f"'reasoning_gym' needs the column 'entry', or {', '.join(_PARTS)}; there is no {missing[0]!r}. "
            f"This task's columns: {', '.join(known) or '(none)'}."
        )
    questions, answers, metadata = (entries_of(episodes.column(name)) for name in _PARTS)
    return [
        {"question": question, "answer": answer, "metadata": _dictionary("metadata", i, data)}
        for i, (question, answer, data) in enumerate(zip(questions, answers, metadata, strict=True))
    ]


def _dictionary(column: str, i: int, value: Any) -> dict[str, Any]:
    given = value
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = json.loads(value)
    if not isinstance(value, Mapping):
        raise ValueError(f"'reasoning_gym': row {i} of the column {column!r} is no dictionary: {given!r:.200}.")
    return dict(value)
