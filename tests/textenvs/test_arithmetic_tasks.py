"""Tasks of arithmetic: prompts and answers read as text."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from textenvs.rewards.countdown import evaluate, numbers_in
from textenvs.rng import splitmix64
from textenvs.tasks import make_task
from textenvs.tasks.arithmetic import carry_probability, solve


def keys(count: int) -> np.ndarray:
    return splitmix64(np.arange(count, dtype=np.uint64))


def test_additions_as_text():
    task = make_task("Addition", digits=3)
    prompts, index = task.draw(keys(2_000))
    texts = task.vocab.decode_rows(prompts)
    answers = task.oracle(prompts)
    lengths = set()
    for text, answer, ids in zip(texts, task.vocab.decode_rows(answers), answers.tolist(), strict=True):
        first, second = re.fullmatch(r"(0|[1-9]\d{0,2})\+(0|[1-9]\d{0,2})=", text).groups()
        assert answer == str(int(first) + int(second))
        assert ids[len(answer)] == task.eos
        lengths.add((len(first), len(second)))
    assert lengths == set(product((1, 2, 3), repeat=2))
    assert np.array_equal(task.prompts_at(index), prompts)


def test_operands_of_each_length_are_drawn_equally_often():
    texts = make_task("Addition").vocab.decode_rows(make_task("Addition").draw(keys(8_000))[0])
    counts = np.bincount([3 * text.index("+") + len(text) - text.index("+") - 2 for text in texts], minlength=9)
    of_each = counts[[4, 5, 7, 8]]
    assert of_each.sum() == 8_000
    assert (np.abs(of_each - 2_000) < 5 * np.sqrt(8_000 * 0.25 * 0.75)).all()


@pytest.mark.parametrize(("first", "second"), list(product((1, 2, 3), repeat=2)))
def test_how_often_a_sum_is_longer(first, second):
    def numbers(digits: int) -> range:
        return range(10 ** (digits - 1) if digits > 1 else 0, 10**digits)

    longer = sum(a + b >= 10 ** max(first, second) for a in numbers(first) for b in numbers(second))
    assert carry_probability(first, second) == pytest.approx(longer / len(numbers(first)) / len(numbers(second)))


@pytest.mark.parametrize("prompt", ["1+1", "=", "1+=", "01+1=", "100+1=", "1+1+1=", "1=1+", "+1=", ""])
def test_what_is_no_addition(prompt):
    with pytest.raises(ValueError, match=r"Addition: a prompt is two numbers of at most 2 digits|at most 6"):
        make_task("Addition").encode_prompt(prompt)


@pytest.mark.parametrize("sizes", [{}, {"num_numbers": 4, "max_number": 12, "max_target": 500}, {"num_numbers": 2}])
def test_countdowns_as_text(sizes):
    """Numbers in range, a target in range, and an answer of the oracle that fits the budget and Python agrees with."""
    task = make_task("Countdown", **sizes)
    prompts, index = task.draw(keys(200))
    answers = task.oracle(prompts)
    columns = task.columns(prompts, index)
    assert np.array_equal(task.prompts_at(index), prompts)
    for i, text in enumerate(task.vocab.decode_rows(prompts)):
        *numbers, target = map(int, re.fullmatch(r"([\d,]+)=(\d+)", text).group().replace("=", ",").split(","))
        assert len(numbers) == task.num_numbers
        assert all(1 <= number <= task.max_number for number in numbers)
        assert 1 <= target <= task.max_target
        assert columns["numbers"][i].tolist() == numbers
        assert columns["target"][i] == target
        answer = task.vocab.decode(answers[i].tolist())
        assert evaluate(answer) == target
        assert (
            eval(re.sub(r"(\d+)", r"Fraction(\1)", answer), {"Fraction": Fraction}) == target
        )  # the oracle's own text
        assert all(numbers_in(answer).count(n) <= numbers.count(n) for n in numbers_in(answer))


def test_every_operator_makes_targets():
    prompts, _ = make_task("Countdown", num_numbers=2).draw(keys(500))
    made = set()
    for text in make_task("Countdown", num_numbers=2).vocab.decode_rows(prompts):
        a, b, target = map(int, re.split("[,=]", text))
        made |= {name for name, value in (("+", a + b), ("-", a - b), ("*", a * b)) if value == target}
        assert target in (a + b, a - b, a * b)
    assert made == {"+", "-", "*"}


def test_solving_by_hand():
    assert evaluate(solve((3, 7, 2), 13)) == 13
    assert solve((2, 2), 7) is None
    assert solve((7, 2), 7) == "7"
    assert evaluate(solve((6, 4, 3), 8)) == 8
    for numbers, target in (((8, 4), 2), ((1, 2, 3, 4), 36), ((5, 5, 5, 1), 24), ((9, 8, 7), 65)):
        found = solve(numbers, target)
        assert found is not None
        assert evaluate(found) == target


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("3,7=10", "a prompt is 3 positive numbers and a target"),
        ("3,7,2,1=9", "a prompt is 3 positive numbers and a target|at most 8"),
        ("3,0,2=5", "a prompt is 3 positive numbers"),
        ("3,7,2", "a prompt is 3 positive numbers"),
        ("1,1,1=50", "no expression of the numbers in '1,1,1=50' reaches the target"),
    ],
)
def test_what_is_no_countdown(prompt, message):
    with pytest.raises(ValueError, match=f"Countdown: {message}"):
        make_task("Countdown").encode_prompt(prompt)
    with pytest.raises(ValueError, match="numbers are at most 5 and the target 10"):
        make_task("Countdown", max_number=5, max_target=10).encode_prompt("5,5,1=30")


@pytest.mark.parametrize("digits", [1, 2, 3])
@pytest.mark.parametrize("split", ["train", "test"])
def test_additions_that_are_looked_up_are_those_that_are_written(digits, split):
    task = make_task("Addition", digits=digits, split=split)
    prompts, index = task.draw(keys(300))
    assert np.array_equal(prompts, task.prompts_at(index))
    answers = task.columns(prompts, index)["target_ids"]
    assert np.array_equal(answers, task.oracle(prompts))
    assert np.array_equal(answers, task.columns(prompts, np.full(300, -1))["target_ids"])
    answers[:] = 0  # nobody else's
    assert np.array_equal(task.columns(prompts, index)["target_ids"], task.oracle(prompts))
