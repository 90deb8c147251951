"""Countdown: expressions are parsed, valued exactly, and never executed."""

from __future__ import annotations

import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from texts import make_episodes

from textenvs import Vocab, check_reward, make_reward
from textenvs.rewards import RewardError
from textenvs.rewards.countdown import evaluate

CHARACTERS = Vocab([*"0123456789+-*/(),= a_", "<eos>"], eos="<eos>")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("1+2*3", 7),
        ("(1+2)*3", 9),
        ("8-3-2", 3),  # to the left
        ("8/4/2", 1),
        ("8-(3-2)", 7),
        ("2*3-4*5", -14),
        ("((7))", 7),
        ("1/3+1/6", Fraction(1, 2)),
        (" 1 + 2 ", 3),
        ("0", 0),
        ("10/4", Fraction(5, 2)),
    ],
)
def test_values(text, value):
    assert evaluate(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "+", "1+", "+1", "-1", "1 2", "()", "(1", "1)", ")1(", "1(2)", "(1)2", "1++2", "2**3", "1//2", "01", "1+02",
     "1/0", "1/(2-2)", "1.5", "a", "1+a", "1,2", "=1", "__import__", "1e3", "0x1", "٣"],
)  # fmt: skip
def test_what_is_no_expression(text):
    assert evaluate(text) is None


def test_no_depth_of_brackets_and_no_length_exhausts_anything():
    assert evaluate("(" * 100_000 + "1" + ")" * 100_000) == 1
    assert evaluate("(" * 100_000) is None
    assert evaluate("1" + "+1" * 50_000) == 50_001
    assert evaluate("1" * 1_000) == int("1" * 1_000)
    for text in ("9" * 5_000, "1+" + "9" * 5_000):  # more digits than Python reads
        assert evaluate(text) is None
        assert make_reward("countdown").score(
            make_episodes([text], vocab=CHARACTERS, numbers=[[9]], target=[9])
        ).tolist() == [0.0]


@given(st.text("123+-*/()", max_size=12))
def test_against_python(text):
    """Python's own parser knows more: powers, whole quotients, signs, calls. Those are refused here."""
    value = evaluate(text)
    known_to_python_only = re.search(r"\*\*|//|(^|[-+*/(])[-+]|\d\(|\)\(|\)\d", text)
    try:
        expected = eval(
            re.sub(r"(\d+)", r"Fraction(\1)", text), {"Fraction": Fraction}
        )  # generated here, not by a model
    except (SyntaxError, ZeroDivisionError, TypeError):
        expected = None
    if known_to_python_only or not isinstance(expected, Fraction):
        assert value is None
    else:
        assert value == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3*2+7", 1.0),
        ("(3*2)+7", 1.0),
        ("7+6", 0.0),  # 6 is not given
        ("3*2", 0.1),  # another value
        ("7", 0.1),
        ("7+3+3", 0.0),  # 3 is given once
        ("13", 0.0),
        ("3*2+7+", 0.0),
        ("3/(2-2)", 0.0),
        ("", 0.0),
        ("()", 0.0),
    ],
)
def test_scores(text, expected):
    columns = {"numbers": np.array([[3, 7, 2]]), "target": np.array([13])}
    episodes = make_episodes([text], vocab=CHARACTERS, **columns)
    assert make_reward("countdown").score(episodes) == pytest.approx([expected])
    as_lists = make_episodes([text], vocab=CHARACTERS, numbers=[[3, 7, 2]], target=[13])
    assert make_reward({"name": "countdown", "partial": 0.0}).score(as_lists) == pytest.approx([float(expected == 1.0)])


def test_the_contract():
    columns = {"numbers": np.array([[3, 7, 2]] * 3), "target": np.array([13, 5, 12])}
    check_reward("countdown", make_episodes(["3*2+7", "3+2", "7+"], vocab=CHARACTERS, **columns))
    with pytest.raises(ValueError, match=r"partial must lie in \[0, 1\], got 2"):
        make_reward({"name": "countdown", "partial": 2})
    with pytest.raises(RewardError, match="this task has no 'numbers'"):
        check_reward("countdown")
