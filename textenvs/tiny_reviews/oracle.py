"""The most positive way to complete a review, by VADER's rules, among all grammatical ones.

VADER adds up valences to s and answers s / √(s² + 15) (Hutto and Gilbert 2014, "VADER: a parsimonious rule-based model
for sentiment analysis of social media text"). A word of degree adds 0.293 to the word after it; what stands before the
first "but" counts half, what stands after it one and a half times. The best completion is then found by dynamic
programming over the grammar's automaton. VADER also lets a word of degree reach, weaker, one or two words further,
which is left out: its own score of these texts differs by less than 0.02.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from textenvs.tiny_reviews import words
from textenvs.tiny_reviews.automaton import Automaton
from textenvs.tiny_reviews.grammar import load_grammar

_DEGREE = 0.293
_SO = 1.1
"""VADER multiplies by 1.25 whatever follows "so", and adds 0.293 besides: about 1.1 more for a very positive word."""
_NOT = -10.0
"""Negation never pays: there is always a positive word that can be left as it is."""
_WORTH = {
    **words.POSITIVE,
    **words.NEGATIVE,
    **dict.fromkeys(("very", "really", "quite", "extremely", "absolutely"), _DEGREE),
    "so": _SO,
    "not": _NOT,
}
_NO_BUT, _BEFORE_BUT, _AFTER_BUT = range(3)
_FACTORS = (1.0, 0.5, 1.5)


def compound(worth: np.ndarray) -> np.ndarray:
    """VADER's score of texts whose valences add up to ``worth``."""
    return worth / np.sqrt(worth**2 + 15.0)


def best_completions(prompt_ids: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Completions int64 [B, steps], EOS included and right-padded, of prompts [B, P], and what they are worth [B].

    Where a prompt cannot be completed within ``steps`` tokens, the completion is all padding and the worth −inf.
    """
    automaton = load_grammar().automaton
    best, value = _tables(steps)
    but = load_grammar().vocab.encode("but")[0]
    states = automaton.run(prompt_ids, automaton.start)
    modes = np.where(value[_BEFORE_BUT, states] > value[_NO_BUT, states], _BEFORE_BUT, _NO_BUT)
    worth = value[modes, states]
    completions = np.empty((len(prompt_ids), steps), dtype=np.int64)
    for t in range(steps):
        word = best[steps - t, modes, states]
        completions[:, t] = word
        modes = np.where((modes == _BEFORE_BUT) & (word == but), _AFTER_BUT, modes)
        states = automaton.next_state[states, word]
    return completions, worth


@cache
def _tables(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """What to write, int64 [steps + 1, 3, S]: with n tokens left, in each mode and state; padding after the end.

    And what all that is still to come is worth, float64 [3, S], with ``steps`` tokens left; −inf where there is no way.
    """
    grammar = load_grammar()
    automaton: Automaton = grammar.automaton
    worth = np.array([_WORTH.get(token, 0.0) for token in grammar.vocab.tokens])[automaton.word]
    is_but = automaton.word == grammar.vocab.encode("but")[0]
    states = np.unique(automaton.source)
    starts = automaton.first[states]
    best = np.full((steps + 1, 3, len(automaton.next_state)), automaton.padding)
    value = np.full(best.shape[1:], -np.inf)
    value[[_NO_BUT, _AFTER_BUT], automaton.accept] = 0.0
    for n in range(1, steps + 1):
        after = value[:, automaton.target]
        after[_NO_BUT, is_but] = -np.inf
        after[_BEFORE_BUT, is_but] = value[_AFTER_BUT, automaton.target[is_but]]
        for mode, factor in enumerate(_FACTORS):
            values = factor * worth + after[mode]
            highest = np.maximum.reduceat(values, starts)
            reached = np.flatnonzero(
                np.isfinite(values) & (values == np.repeat(highest, np.diff(np.append(starts, len(values)))))
            )
            best[n, mode, automaton.source[reached]] = automaton.word[reached]
            value[mode, states] = highest
    return best, value
