"""Countdown: reach a target number by an expression of given numbers. Expressions are parsed here, never executed."""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from textenvs.episodes import Episodes
from textenvs.rewards.inputs import entries_of, version_of
from textenvs.rewards.registry import register_reward

_OPERATORS: dict[str, tuple[int, Callable[[Fraction, Fraction], Fraction]]] = {
    "+": (1, operator.add),
    "-": (1, operator.sub),
    "*": (2, operator.mul),
    "/": (2, operator.truediv),
}
"""Precedence and meaning; all of them group to the left."""

MOST_DIGITS = 1_000
"""Of a whole number; Python itself reads no more than 4,300."""

_TOKEN = re.compile(rf"\s*((?:0|[1-9][0-9]{{0,{MOST_DIGITS - 1}}})(?![0-9])|[-+*/()])")


@register_reward("countdown")
class Countdown:
    """Whether an expression of the numbers in the column ``numbers`` reaches the number in the column ``target``.

    Score: 1 where it does; ``partial`` where the text is an expression that uses each number at most as often as it is
    given, but has another value; else 0. Range: [0, 1]. An expression has whole numbers, ``+ - * /`` and brackets, and
    nothing else; fractions are exact.

    Args:
        partial: score of a sound expression with another value, in [0, 1].

    Raises:
        ValueError: ``partial`` lies outside.
    """

    low, high = 0.0, 1.0
    deterministic, version, cost = True, "1", "text"

    def __init__(self, *, partial: float = 0.1) -> None:
        if not 0 <= partial <= 1:
            raise ValueError(f"'countdown': partial must lie in [0, 1], got {partial!r}.")
        self.partial = float(partial)
        self.version = version_of(partial=self.partial)

    def score(self, episodes: Episodes) -> np.ndarray:
        for name in ("numbers", "target"):
            if name not in episodes.columns:
                raise ValueError(
                    f"'countdown' reads the columns 'numbers' and 'target'; this task has no {name!r}. "
                    f"Its columns: {', '.join(episodes.column_names()) or '(none)'}."
                )
        numbers, targets = (entries_of(episodes.columns[name]) for name in ("numbers", "target"))
        rows = zip(episodes.completions, numbers, targets, strict=True)
        return np.array([self._score(text, given, target) for text, given, target in rows], dtype=np.float32)

    def _score(self, text: str, numbers: list[int], target: int) -> float:
        used = numbers_in(text)
        if not used or Counter(used) - Counter(numbers):
            return 0.0  # before anything is worked out, so that a long text costs nothing
        value = evaluate(text)
        if value is None:
            return 0.0
        return 1.0 if value == target else self.partial


def numbers_in(text: str) -> list[int]:
    """All whole numbers that occur in a text, from left to right; none if one has more digits than can be read."""
    runs = re.findall(r"[0-9]+", text)
    return [int(run) for run in runs] if all(len(run) <= MOST_DIGITS for run in runs) else []


def evaluate(text: str) -> Fraction | None:
    """Value of an arithmetic expression; None if the text is none, divides by zero, or has a number of more than
    ``MOST_DIGITS`` digits.

    Operator precedence by two stacks (Dijkstra's shunting yard), so that no depth of brackets exhausts anything.
    """
    values: list[Fraction] = []
    waiting: list[str] = []  # operators and opening brackets
    text, operand_next, position = text.rstrip(), True, 0

    def apply() -> bool:
        right, left = values.pop(), values.pop()
        name = waiting.pop()
        if name == "/" and right == 0:
            return False
        values.append(_OPERATORS[name][1](left, right))
        return True

    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            return None
        token, position = found.group(1), found.end()
        if operand_next != (token == "(" or token.isdecimal()):
            return None
        if token == "(":
            waiting.append(token)
        elif token == ")":
            while waiting and waiting[-1] != "(":
                if not apply():
                    return None
            if not waiting:
                return None
            waiting.pop()
        elif token in _OPERATORS:
            while waiting and waiting[-1] != "(" and _OPERATORS[waiting[-1]][0] >= _OPERATORS[token][0]:
                if not apply():
                    return None
            waiting.append(token)
            operand_next = True
        else:
            values.append(Fraction(int(token)))
            operand_next = False
    if operand_next:
        return None
    while waiting:
        if waiting[-1] == "(" or not apply():
            return None
    return values[0]
