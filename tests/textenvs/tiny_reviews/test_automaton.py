"""Expressions and the automaton that is made of them, on a language small enough to be listed."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from textenvs.tiny_reviews.automaton import DEAD, Automaton, build
from textenvs.tiny_reviews.expressions import any_of, any_word, choice, sequence

WORDS = ["a", "b", "c", "."]
IDS = {word: number for number, word in enumerate(WORDS)}
PAD = len(WORDS)

# "a", then perhaps one or two of b and c, in two ways that overlap ("b c" can be derived twice), then the end.
FIRST = sequence(
    "a",
    choice(
        (np.array([0.5, 0.2, 0.1]), ""),
        (np.array([0.3, 0.3, 0.4]), sequence(any_word("b c"))),
        (np.array([0.1, 0.4, 0.3]), sequence("b", any_of(("b", "c")))),
        (np.array([0.1, 0.1, 0.2]), "b c"),
    ),
    ".",
)
SECOND = sequence(any_word("a b"), "a", ".")
EXPRESSIONS = [FIRST, SECOND]


@pytest.fixture(scope="module")
def automaton() -> Automaton:
    return build(EXPRESSIONS, IDS)


def all_texts() -> list[list[str]]:
    return [list(text) for length in range(1, 5) for text in product(WORDS, repeat=length)]


def rows_of(texts: list[list[str]], *, left: int = 0, width: int = 6) -> np.ndarray:
    rows = np.full((len(texts), width), PAD)
    for row, text in zip(rows, texts, strict=True):
        row[left : left + len(text)] = [IDS[word] for word in text]
    return rows


@pytest.mark.parametrize("left", [0, 2])
def test_accepts_what_the_expressions_write_and_nothing_else(automaton, read_slowly, left):
    texts = all_texts()
    accepted = automaton.run(rows_of(texts, left=left), automaton.start) == automaton.accept
    expected = [any(read_slowly(expression, text).any() for expression in EXPRESSIONS) for text in texts]
    assert accepted.tolist() == expected
    assert 5 < sum(expected) < 12  # of 340


def test_starts_are_the_expressions_alone(automaton, read_slowly):
    texts = all_texts()
    for number, expression in enumerate(EXPRESSIONS):
        accepted = automaton.run(rows_of(texts), int(automaton.starts[number])) == automaton.accept
        assert accepted.tolist() == [bool(read_slowly(expression, text).any()) for text in texts]


def test_padding_between_words_is_no_text(automaton):
    assert automaton.run(np.array([[0, PAD, 3]]), automaton.start).tolist() == [DEAD]
    assert automaton.run(np.array([[0, 3, PAD, 3]]), automaton.start).tolist() == [DEAD]
    assert automaton.run(np.array([[PAD, PAD]]), automaton.start).tolist() == [automaton.start]


def test_probabilities_by_hand(automaton):
    texts = [["a", "."], ["a", "b", "c", "."], ["a", "a", "."], ["b", "a", "."], ["a", "c"]]
    found = np.exp(automaton.log_probability(rows_of(texts)))
    # Each expression has probability 1/2; "a b c ." can be derived in two ways, with "b" and any, or as it stands.
    np.testing.assert_allclose(found[0], [0.25, (0.1 / 2 + 0.1) / 2, 0.25, 0.25, 0.0])
    np.testing.assert_allclose(found[2], [0.05, (0.3 / 2 + 0.2) / 2, 0.25, 0.25, 0.0])


@pytest.mark.parametrize("left", [0, 2])
def test_probabilities_are_those_of_all_derivations(automaton, read_slowly, left):
    texts = all_texts()
    found = np.exp(automaton.log_probability(rows_of(texts, left=left)))
    expected = np.mean([[read_slowly(expression, text) for text in texts] for expression in EXPRESSIONS], axis=0)
    np.testing.assert_allclose(found, expected.T, atol=1e-12)
    np.testing.assert_allclose(found.sum(axis=1), 1.0)


@pytest.mark.parametrize("condition", [0, 1, 2])
def test_samples_follow_the_probabilities(automaton, condition):
    count = 20_000
    rows = automaton.sample(
        np.full(count, automaton.start), np.full(count, condition), np.random.default_rng(condition).random((count, 4))
    )
    assert (automaton.run(rows, automaton.start) == automaton.accept).all()
    texts, seen = np.unique(rows, axis=0, return_counts=True)
    expected = count * np.exp(automaton.log_probability(texts)[condition])
    assert (np.abs(seen - expected) < 5 * np.sqrt(expected)).all()
    assert expected.sum() == pytest.approx(count)  # none is missing


def test_the_ends_of_the_unit_interval(automaton):
    for number in (0.0, np.nextafter(1.0, 0.0)):
        rows = automaton.sample(np.full(3, automaton.start), np.arange(3), np.full((3, 4), number))
        assert (automaton.run(rows, automaton.start) == automaton.accept).all()


def test_bad_expressions():
    with pytest.raises(ValueError, match="each once; got 'x y x'"):
        any_word("x y x")
    with pytest.raises(ValueError, match="at least one"):
        any_word("")
    with pytest.raises(ValueError, match=r"must be positive, got 0\.0"):
        choice((1.0, "x"), (np.array([1.0, 0.0, 1.0]), "y"))
