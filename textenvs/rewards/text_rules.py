"""Rules on decoded text: words, patterns, JSON, agreement with a column of the data set."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterable
from numbers import Real
from typing import Any

import numpy as np

from textenvs.episodes import Episodes
from textenvs.rewards.inputs import choice, entries_of, load_library, names, text_column, version_of
from textenvs.rewards.registry import register_reward


@register_reward("keyword_presence")
class KeywordPresence:
    """Share of the given words that the completion contains.

    Score: words found / words given. Range: [0, 1].

    Args:
        words: words or phrases; ``"keyword_presence:good,fine"`` names them too.
        whole_words: ``"art"`` is not found in ``"party"``.
        ignore_case: compare case-folded.
    """

    low, high = 0.0, 1.0
    deterministic, version, cost = True, "1", "text"

    def __init__(self, words: Iterable[str], *, whole_words: bool = True, ignore_case: bool = True) -> None:
        self.ignore_case = ignore_case
        words = names("keyword_presence", "words", words)
        self.version = version_of(words=words, whole_words=whole_words, ignore_case=ignore_case)
        folded = [word.casefold() if ignore_case else word for word in words]
        patterns = (re.escape(word) for word in dict.fromkeys(folded))
        self._patterns = [re.compile(rf"(?<!\w){p}(?!\w)" if whole_words else p) for p in patterns]

    def score(self, episodes: Episodes) -> np.ndarray:
        texts = episodes.completions
        if self.ignore_case:
            texts = [text.casefold() for text in texts]
        found = [sum(pattern.search(text) is not None for pattern in self._patterns) for text in texts]
        return np.array(found, dtype=np.float32) / np.float32(len(self._patterns))


@register_reward("regex")
class Regex:
    """Whether the completion matches a regular expression.

    Score: 1 where it matches, else 0. Range: [0, 1]. Python's ``re``: a pattern with nested repetitions can take
    exponential time on an unlucky text, and nothing interrupts it.

    Args:
        pattern: as in ``re``; ``"regex:^[ab]+$"`` names it too.
        mode: ``"search"`` (somewhere in the text) or ``"full"`` (the whole text).
        ignore_case: as ``re.IGNORECASE``.
    """

    low, high = 0.0, 1.0
    deterministic, version, cost = True, "1", "text"

    def __init__(self, pattern: str, *, mode: str = "search", ignore_case: bool = False) -> None:
        if not isinstance(pattern, str):
            raise TypeError(f"'regex': pattern must be a string, got {pattern!r}.")
        choice("regex", "mode", mode, ("search", "full"))
        try:
            compiled = re.compile(pattern, re.IGNORECASE if ignore_case else 0)
        except re.error as error:
            raise ValueError(f"'regex': {pattern!r} is not a regular expression: {error}.") from None
        self._match = compiled.search if mode == "search" else compiled.fullmatch
        self.version = version_of(pattern=pattern, mode=mode, ignore_case=ignore_case)

    def score(self, episodes: Episodes) -> np.ndarray:
        return np.array([self._match(text) is not None for text in episodes.completions], dtype=np.float32)


@register_reward("json_valid")
class JsonValid:
    """Whether the completion is valid JSON, optionally an object with given keys.

    Score: 1 where it is, else 0. Range: [0, 1]. The JSON of RFC 8259: ``NaN`` and ``Infinity`` are none.

    Args:
        required: keys that must be there; with any, the text must be an object.
    """

    low, high = 0.0, 1.0
    deterministic, version, cost = True, "1", "text"

    def __init__(self, required: Iterable[str] = ()) -> None:
        self.required = names("json_valid", "required", required, empty=True)
        self.version = version_of(required=self.required)

    def score(self, episodes: Episodes) -> np.ndarray:
        return np.array([self._is_valid(text) for text in episodes.completions], dtype=np.float32)

    def _is_valid(self, text: str) -> bool:
        try:
            value = json.loads(text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):  # RecursionError: a thousand opening brackets are no document either
            return False
        return not self.required or (isinstance(value, dict) and all(key in value for key in self.required))


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


@register_reward("exact_match")
class ExactMatch:
    """Whether the completion equals a column's text.

    Score: 1 where it does, else 0. Range: [0, 1].

    Args:
        column: the column with the wanted texts; ``"exact_match:answer"`` names it too.
        normalise: compare after Unicode NFKC, case-folding, dropping punctuation and collapsing white space.
    """

    low, high = 0.0, 1.0
    deterministic, version, cost = True, "1", "text"

    def __init__(self, column: str = "target", *, normalise: bool = False) -> None:
        self.column = column
        self.normalise = normalise
        self.version = version_of(column=column, normalise=normalise)

    def score(self, episodes: Episodes) -> np.ndarray:
        texts, wanted = episodes.completions, text_column(episodes, self.column, "exact_match")
        if self.normalise:
            texts, wanted = [normalised(text) for text in texts], [normalised(text) for text in wanted]
        return np.array([a == b for a, b in zip(texts, wanted, strict=True)], dtype=np.float32)


def normalised(text: str) -> str:
    """``text`` in Unicode NFKC, case-folded, without punctuation, white space collapsed to single spaces."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    kept = "".join(character for character in folded if not unicodedata.category(character).startswith("P"))
    return " ".join(kept.split())


@register_reward("fuzzy_match")
class FuzzyMatch:
    """Similarity of the completion and a column's text by edit distance.

    Score: 1 − d / (length of the longer one), d the Levenshtein distance in characters (rapidfuzz). Range: [0, 1];
    1 for equal texts, two empty ones included.

    Args:
        column: the column with the wanted texts; ``"fuzzy_match:answer"`` names it too.
        normalise: compare as ``exact_match`` with ``normalise`` does.
    """

    low, high = 0.0, 1.0
    deterministic, version, cost = True, "1", "text"

    def __init__(self, column: str = "target", *, normalise: bool = False) -> None:
        _rapidfuzz("process")
        self.column = column
        self.normalise = normalise
        self.version = version_of(column=column, normalise=normalise)

    def score(self, episodes: Episodes) -> np.ndarray:
        texts, wanted = episodes.completions, text_column(episodes, self.column, "fuzzy_match")
        if self.normalise:
            texts, wanted = [normalised(text) for text in texts], [normalised(text) for text in wanted]
        similarity = _rapidfuzz("distance").Levenshtein.normalized_similarity
        return _rapidfuzz("process").cpdist(texts, wanted, scorer=similarity, dtype=np.float32)


def _rapidfuzz(module: str) -> Any:
    return load_library(f"rapidfuzz.{module}", reward="fuzzy_match", extra="rewards")


@register_reward("numeric_answer")
class NumericAnswer:
    """Whether the last number in the completion is a column's number.

    Score: 1 where |number − wanted| ≤ tolerance · max(1, |wanted|), else 0, also where the text has no number.
    Range: [0, 1]. Understood: a sign (``-5``, ``−5``; in ``7-5`` the minus subtracts), decimals (``.5``), thousands
    separated by commas (``1,234.5``), exponents (``2e-3``). Not understood: fractions, decimal commas, words;
    ``50%`` is 50.

    Args:
        column: the column with the wanted numbers, or with texts whose last number is meant (``"#### 42"``);
            ``"numeric_answer:answer"`` names it too.
        tolerance: allowed error, relative for numbers beyond ±1, absolute within.
    """

    low, high = 0.0, 1.0
    deterministic, version, cost = True, "1", "text"

    def __init__(self, column: str = "target", *, tolerance: float = 1e-6) -> None:
        if not 0 <= tolerance < math.inf:
            raise ValueError(f"'numeric_answer': tolerance must be finite and not negative, got {tolerance!r}.")
        self.column = column
        self.tolerance = float(tolerance)
        self.version = version_of(column=column, tolerance=self.tolerance)

    def score(self, episodes: Episodes) -> np.ndarray:
        if self.column not in episodes.column_names():
            text_column(episodes, self.column, "numeric_answer")  # says which columns there are
        wanted = [self._wanted(i, entry) for i, entry in enumerate(entries_of(episodes.column(self.column)))]
        pairs = zip(episodes.completions, wanted, strict=True)
        return np.array([self._agrees(last_number(text), number) for text, number in pairs], dtype=np.float32)

    def _agrees(self, number: float | None, wanted: float) -> bool:
        return number is not None and abs(number - wanted) <= self.tolerance * max(1.0, abs(wanted))

    def _wanted(self, i: int, entry: Any) -> float:
        number = last_number(entry) if isinstance(entry, str) else entry
        if isinstance(number, bool) or not isinstance(number, Real) or not math.isfinite(number):
            raise ValueError(f"'numeric_answer': row {i} of the column {self.column!r} is no number: {entry!r:.200}.")
        return float(number)


_NUMBER = re.compile(
    r"""
    (?:(?<![\w.)\]])[-+−])?                                  # a sign; after a word or a bracket it subtracts
    (?:
        (?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)         # 1,234 or 1234
        (?:\.[0-9]+)?
      | (?<![0-9])\.[0-9]+                                   # .5
    )
    (?:[eE][-+−]?[0-9]+(?!\w))?
    """,
    re.VERBOSE,
)


def last_number(text: str) -> float | None:
    """The last number in a text as :class:`NumericAnswer` reads it; None if there is none."""
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "").replace("−", "-")) if found else None
