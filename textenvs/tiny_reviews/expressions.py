"""Expressions: what a grammar without recursion is written in, a finite tree of words, sequences and choices."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np

CONDITIONS = 3
"""The probabilities of a choice may differ under so many conditions (the sentiments of a review)."""


@dataclass(frozen=True, eq=False)
class Words:
    """One of these words, each equally likely."""

    words: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Sequence:
    """One part after the other; nothing where there are none."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, eq=False)
class Choice:
    """One of the options: number i has probability ``weights[i, c]`` under condition c. Shape [n, CONDITIONS]."""

    options: tuple[Expression, ...]
    weights: np.ndarray


Expression = Words | Sequence | Choice


@cache
def any_word(words: str) -> Words:
    """Any of the words of a string.

    Raises:
        ValueError: there are none, or one is repeated (it would be more likely than the others).
    """
    alternatives = tuple(words.split())
    if not alternatives or len(set(alternatives)) < len(alternatives):
        raise ValueError(f"A choice of words needs at least one, each once; got {words!r}.")
    return Words(alternatives)


def sequence(*parts: Expression | str) -> Sequence:
    """The parts in order; a string stands for its words in order."""
    expressions: list[Expression] = []
    for part in parts:
        expressions += [Words((word,)) for word in part.split()] if isinstance(part, str) else [part]
    return Sequence(tuple(expressions))


def choice(*options: tuple[float | np.ndarray, Expression | str]) -> Choice:
    """One of the options, each ``(weight, expression)``; a weight is a number, or one for each condition.

    Raises:
        ValueError: a weight is not positive. What is possible may not depend on the condition: it would no longer be
            one language.
    """
    weights = np.stack([np.broadcast_to(weight, CONDITIONS) for weight, _ in options]).astype(np.float64)
    if not (weights > 0).all():
        raise ValueError(f"The weights of a choice must be positive, got {weights.min()}.")
    expressions = tuple(sequence(option) if isinstance(option, str) else option for _, option in options)
    return Choice(expressions, weights / weights.sum(axis=0))


def any_of(options: Iterable[Expression | str]) -> Choice:
    """Any of the options, each equally likely."""
    return choice(*((1.0, option) for option in options))
