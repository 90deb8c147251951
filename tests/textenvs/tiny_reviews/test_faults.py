"""Faults of reviews: what the rules count, and what is put in is what they find."""

from __future__ import annotations

import numpy as np
import pytest

from textenvs.tiny_reviews import TRAIN_KINDS, load_grammar, words
from textenvs.tiny_reviews.faults import (
    FAULTS,
    POLITE,
    Faults,
    count_faults,
    fault_scores,
    find_faults,
    foreign_words,
    kind_of,
    make_polite,
    make_reviews,
    own_words,
    put_fault,
)


@pytest.mark.parametrize(
    ("prompt", "completion", "expected"),
    [
        ("the film", "was long and the actors were good .", Faults(0, 0, 0)),
        ("the film", "was stupid .", Faults(1, 0, 0)),
        ("the film", "was stupid and lazy and nasty .", Faults(2, 0, 0)),  # counted twice at most
        ("the film", "was long and the soup was good .", Faults(0, 1, 0)),
        ("the bistro", "was long and the soup was good .", Faults(0, 0, 0)),
        ("the film", "was very very long .", Faults(0, 0, 1)),
        ("the film", "was long and we loved it . was long and we loved it .", Faults(0, 0, 2)),
        ("the film", "was stupid stupid and the soup was lazy .", Faults(2, 1, 1)),
        ("the film", "", Faults(0, 0, 0)),
        ("we", "ate soup .", Faults(0, 0, 0)),  # nothing says what it is about
    ],
)
def test_counts(prompt: str, completion: str, expected: Faults) -> None:
    assert count_faults(prompt, completion) == expected


def test_the_words_are_named_in_their_order() -> None:
    found = find_faults("this hotel", "was lazy and the actors were very very stupid .")
    assert found == {"rude": ["lazy", "stupid"], "false": ["actors"], "rambling": ["very"]}


def test_scores_are_minus_the_faults() -> None:
    assert fault_scores(["the film", "the film"], ["was stupid .", "was long ."]) == [-1.0, 0.0]


def test_rude_words_are_replaced_by_polite_ones_of_the_same_class() -> None:
    grammar = load_grammar()
    assert make_polite("was stupid and lazy .") == "was confusing and impatient ."
    assert not set(POLITE) & set(POLITE.values())
    for rude, polite in POLITE.items():
        assert {rude, polite} <= set(grammar.vocab.tokens)
        assert rude in words.NEGATIVE or rude == "stupid"
        assert polite in words.NEGATIVE
        assert (rude in words.STRONG.split()) == (polite in words.STRONG.split())


def test_kinds_have_words_of_their_own() -> None:
    assert kind_of("my sister stayed at the inn") == "hotel"
    assert kind_of("my sister") is None
    assert "museum" in own_words()["course"]  # "at the museum": a place, though a part of trips only
    for kind, foreign in foreign_words().items():
        assert foreign
        assert not foreign & own_words()[kind]


def test_clean_reviews_are_grammatical_and_without_fault_and_spoilt_ones_have_what_they_were_given() -> None:
    grammar = load_grammar()
    reviews = make_reviews(1_500, seed=3)
    for review in reviews:
        assert grammar.is_grammatical(review.clean, review.prompt)
        assert count_faults(review.prompt, review.clean).total == 0
        counts = count_faults(review.prompt, review.spoilt)
        assert tuple(fault for fault in FAULTS if counts.of(fault)) == review.given
        assert len(review.spoilt.split()) <= 23  # fits into 24 tokens with EOS
    shares = [np.mean([fault in review.given for review in reviews]) for fault in FAULTS]
    np.testing.assert_allclose(shares, 0.3, atol=0.05)


def test_reviews_depend_on_seed_and_number_alone() -> None:
    whole = make_reviews(20, seed=5)
    assert make_reviews(8, seed=5, first=12) == whole[12:]
    assert make_reviews(20, seed=6) != whole


def test_kinds_can_be_chosen() -> None:
    assert {kind_of(review.prompt) for review in make_reviews(200, seed=0, kinds=TRAIN_KINDS)} == set(TRAIN_KINDS)


def test_an_unknown_fault_is_an_error() -> None:
    with pytest.raises(ValueError, match="fault must be one of rude, false, rambling; got 'late'"):
        put_fault("late", "the film", "was long .", np.random.default_rng(0))
