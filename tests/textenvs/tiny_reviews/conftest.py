"""What the tests of the language share: the grammar, and a slow, obvious reader of expressions to compare it with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from textenvs.tiny_reviews import Grammar, load_grammar
from textenvs.tiny_reviews.expressions import CONDITIONS, Expression, Sequence, Words

Reader = Callable[[Expression, list[str]], np.ndarray]


def probability(expression: Expression, tokens: list[str]) -> np.ndarray:
    """Probability [C] that the expression writes exactly these tokens, by trying every way to derive them."""
    return derivations(expression, tokens, 0).get(len(tokens), np.zeros(CONDITIONS))


def derivations(expression: Expression, tokens: list[str], begin: int) -> dict[int, np.ndarray]:
    """Where the expression can end if it begins at ``begin``, and how likely it is to write what stands between."""
    if isinstance(expression, Words):
        if begin < len(tokens) and tokens[begin] in expression.words:
            return {begin + 1: np.full(CONDITIONS, 1.0 / len(expression.words))}
        return {}
    found: dict[int, np.ndarray] = {}
    if isinstance(expression, Sequence):
        found = {begin: np.ones(CONDITIONS)}
        for part in expression.parts:
            longer: dict[int, np.ndarray] = {}
            for middle, before in found.items():
                for end, after in derivations(part, tokens, middle).items():
                    longer[end] = longer.get(end, 0.0) + before * after
            found = longer
        return found
    for weight, option in zip(expression.weights, expression.options, strict=True):
        for end, likely in derivations(option, tokens, begin).items():
            found[end] = found.get(end, 0.0) + weight * likely
    return found


@pytest.fixture(scope="session")
def grammar() -> Grammar:
    return load_grammar()


@pytest.fixture(scope="session")
def read_slowly() -> Reader:
    return probability
