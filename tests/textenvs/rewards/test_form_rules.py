"""Rules of form, each against scores counted by hand and against a second way of counting."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from texts import LETTERS, make_episodes

from textenvs import Vocab, check_reward, make_reward

BRACKETS = Vocab("([)]")


def score(name: str, completions: list[str], prompts: list[str], vocab: Vocab = LETTERS) -> list[Any]:
    reasons = ["stop" if vocab.eos_ids else "length"] * len(completions)
    return make_reward(name).score(make_episodes(completions, prompts, vocab=vocab, reasons=reasons)).tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("([])", 1.0),
        ("()[]", 1.0),
        ("[()]", 0.0),  # balanced, in the wrong order of kinds
        ("(())", 0.5),  # the second one is of the wrong kind
        ("()()", 0.5),
        ("([)]", 0.0),  # goes wrong before anything is closed
        ("()]]", 0.5),
        ("())(", 0.5),
        (")[](", 0.0),
        ("(((]", 0.0),  # three open: nothing balanced can come of that
        ("()[[", 0.5),
        ("()", 0.5),
        ("([", 0.0),
    ],
)
def test_brackets(text, expected):
    assert score("brackets", [text], ["(["], BRACKETS) == [expected]


@given(text=st.text("([)]", min_size=1, max_size=8), prompt=st.text("([", min_size=1, max_size=4))
def test_brackets_against_a_stack(text, prompt):
    stack: list[tuple[str, bool]] = []
    opened = closed = 0
    for token in text:
        if token in "([" and opened < len(prompt):
            stack.append((token, token == prompt[opened]))
            opened += 1
        elif token in ")]" and stack and stack[-1][0] == {")": "(", "]": "["}[token]:
            closed += stack.pop()[1]
        else:
            break
    assert score("brackets", [text], [prompt], BRACKETS) == [pytest.approx(closed / len(prompt))]


@pytest.mark.parametrize(
    ("text", "prompt", "expected"),
    [
        ("abba", "ab", 1.0),
        ("baab", "ab", 1.0),
        ("abab", "ab", 0.0),
        ("acca", "ab", 0.5),
        ("abca", "ab", 0.5),
        ("aaaa", "ab", 0.5),
        ("aaaa", "aa", 1.0),  # repeated symbols count as often as the prompt has them
        ("abcba", "ab", 1.0),  # the middle is free
        ("a", "a", 0.0),  # and not a pair
        ("", "ab", 0.0),
        ("abba", "abcd", 0.5),
    ],
)
def test_palindrome(text, prompt, expected):
    assert score("palindrome", [text], [prompt]) == [expected]


@pytest.mark.parametrize(
    ("text", "prompt", "expected"),
    [
        ("bca", "abc", 1.0),
        ("acb", "abc", pytest.approx(2 / 3)),  # a kept its place
        ("abc", "abc", 0.0),
        ("bbb", "abc", pytest.approx(1 / 3)),  # one b counts, the first
        ("cab", "abc", 1.0),
        ("bd", "abc", pytest.approx(1 / 3)),
        ("aab", "baa", pytest.approx(2 / 3)),  # the second a stands where one stood
        ("cccab", "ab", 1.0),  # the last places are nobody's
        ("", "abc", 0.0),
    ],
)
def test_anagram(text, prompt, expected):
    assert score("anagram", [text], [prompt]) == [expected]


@given(data=st.data())
def test_palindrome_and_anagram_against_counting_characters(data):
    prompt = data.draw(st.text("abc", min_size=1, max_size=4))
    text = data.draw(st.text("abcd", max_size=8))
    pairs = Counter(text[i] for i in range(len(text) // 2) if text[i] == text[-1 - i])
    mirrored = sum((pairs & Counter(prompt)).values())
    assert score("palindrome", [text], [prompt]) == [pytest.approx(mirrored / len(prompt))]
    moved = 0
    for i, symbol in enumerate(text):
        in_time = text[:i].count(symbol) < prompt.count(symbol)
        moved += in_time and (i >= len(prompt) or prompt[i] != symbol)
    assert score("anagram", [text], [prompt]) == [pytest.approx(moved / len(prompt))]


@pytest.mark.parametrize("name", ["brackets", "palindrome", "anagram"])
def test_they_keep_the_contract(name):
    check_reward(name)
    without_prompts = make_episodes(["ab", "aba"])
    assert make_reward(name).score(without_prompts).tolist() == [0.0, 0.0]
    many = make_episodes(["abba", "ba", "aabb", ""], ["ab", "a", "abc", "ba"])
    order = np.array([3, 1, 0, 2])
    assert make_reward(name).score(many)[order].tolist() == make_reward(name).score(many.take(order)).tolist()
