"""Arithmetic: sums modulo a number, sums in decimal notation, and Countdown."""

from __future__ import annotations

import re
from functools import cached_property, lru_cache
from itertools import combinations, product
from typing import Any

import numpy as np

from textenvs.rewards.countdown import Countdown as CountdownReward
from textenvs.rng import TASK_STREAM, episode_keys, stream_base, subkeys
from textenvs.tasks.base import PromptSetTask, Task, check_size, check_split
from textenvs.tasks.copying import random_eos_score
from textenvs.tasks.prompts import PromptNumbers, SymbolPrompts
from textenvs.vocab import Vocab

DIGITS = "0123456789"
MOST_RENDERED = 2
"""Additions of so many digits at most, 10,000 of them, are kept as a table."""


class ModSum(PromptSetTask):
    """Add up the prompt's symbols modulo their number; the text is one symbol, right or wrong.

    Args:
        length: symbols of the prompt.
        num_symbols: S: symbols are 0 … S − 1, and the sum is taken modulo S.
        split: ``"train"`` or ``"test"``.
    """

    name = "ModSum"
    default_reward = "match"
    optimum = 1.0
    max_new_tokens = 1

    def __init__(self, *, length: int = 3, num_symbols: int = 7, split: str = "train") -> None:
        check_size(self.name, "length", length, 1)
        check_size(self.name, "num_symbols", num_symbols, 2)
        self.split = check_split(self.name, split, has_prompts=True)
        self.vocab = Vocab.symbols(num_symbols)
        self.prompt_length = length
        self.prompt_set = SymbolPrompts(
            num_symbols=num_symbols, length=length, min_length=length, split=split, pad_id=self.pad_id
        )
        self.random_score = 1.0 / num_symbols

    def columns(self, prompt_ids: np.ndarray, index: np.ndarray) -> dict[str, Any]:
        return {"target_ids": self.oracle(prompt_ids)}

    def oracle(self, prompt_ids: np.ndarray) -> np.ndarray:
        return prompt_ids.sum(axis=1, keepdims=True) % self.pad_id


class Addition(Task):
    """Add two numbers, character by character: after ``27+5=`` comes ``32`` and EOS.

    The score is the fraction of positions right, over the longer of text and answer. Each operand has one to ``digits``
    digits, equally often. The random score takes every sum of a number of digits as equally likely in train and test,
    and is right to within 0.001.

    Args:
        digits: most digits of an operand, at most 5.
        split: ``"train"`` or ``"test"``.
    """

    name = "Addition"
    default_reward = "match"
    optimum = 1.0

    def __init__(self, *, digits: int = 2, split: str = "train") -> None:
        self.digits = check_size(self.name, "digits", digits, 1, 5)
        self.split = check_split(self.name, split, has_prompts=True)
        self.vocab = Vocab([*DIGITS, "+", "=", "<eos>"], eos="<eos>")
        self.plus, self.equals, self.eos = 10, 11, 12
        self.prompt_length = 2 * digits + 2
        self.max_new_tokens = digits + 2
        numbers = [numbers_with(n) for n in range(1, digits + 1)]
        self._low = np.array([low for low, _ in numbers], dtype=np.uint64)
        self._count = np.array([count for _, count in numbers], dtype=np.uint64)
        self.numbers = PromptNumbers([a * b for _, a in numbers for _, b in numbers], split)
        scores = []
        for a, b in product(range(1, digits + 1), repeat=2):
            carry, longest = carry_probability(a, b), max(a, b)
            same, longer = (random_eos_score(12, length, digits + 2) for length in (longest, longest + 1))
            scores.append((1.0 - carry) * same + carry * longer)
        self.random_score = float(np.mean(scores))

    def draw(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        number, group, index = self.numbers.draw(keys)
        if self.digits <= MOST_RENDERED:
            return rendered_additions(self.digits, self.split)[0][index], index
        return self._prompts(number, group), index

    def prompts_at(self, index: np.ndarray) -> np.ndarray:
        return self._prompts(*self.numbers.at(index))

    def columns(self, prompt_ids: np.ndarray, index: np.ndarray) -> dict[str, Any]:
        if self.digits <= MOST_RENDERED and index.size and index.min() >= 0:
            return {"target_ids": rendered_additions(self.digits, self.split)[1][index]}
        return {"target_ids": self.oracle(prompt_ids)}

    def oracle(self, prompt_ids: np.ndarray) -> np.ndarray:
        text = prompt_ids[:, :-1]
        plus = (text == self.plus).argmax(axis=1)
        place = np.arange(text.shape[1])
        worth = 10 ** place[::-1]
        digits = np.where(text < 10, text, 0)
        second = (digits * (place > plus[:, None])) @ worth
        first = (digits @ worth - second) // (10 * worth[plus])
        return _answers(self.digits, self.eos, self.pad_id)[first + second]

    def encode_prompt(self, prompt: Any) -> np.ndarray:
        row = super().encode_prompt(prompt)
        text = self.vocab.decode(row.tolist())
        number = rf"(?:0|[1-9][0-9]{{0,{self.digits - 1}}})"
        if not re.fullmatch(rf"{number}\+{number}=", text) or self.eos in row:
            raise ValueError(
                f"{self.name}: a prompt is two numbers of at most {self.digits} digits without leading zeros, "
                f"as in '1+1='; got {text!r}."
            )
        return row

    def _prompts(self, number: np.ndarray, group: np.ndarray) -> np.ndarray:
        most, width, numbers = self.digits, self.prompt_length, _operands(self.digits, self.pad_id)
        first, second = group // most, group % most
        count = self._count[second]
        rows = np.full((len(number), width), self.pad_id)
        rows[:, -1] = self.equals
        rows[:, width - 1 - most : width - 1] = numbers[number % count + self._low[second]]
        # The second operand has second + 1 digits, and before it comes "+", and before that the first one.
        plus = np.arange(len(rows)) * width + width - 3 - second
        flat = rows.reshape(-1)
        flat[plus] = self.plus
        flat[plus[:, None] + np.arange(-most, 0)] = numbers[number // count + self._low[first]]
        return rows


@lru_cache(maxsize=8)
def rendered_additions(digits: int, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Every prompt of a split [n, P] and its answer [n, T], by number: looking them up is faster than writing them."""
    task = Addition(digits=digits, split=split)
    prompts = task.prompts_at(np.arange(task.numbers.count))
    return prompts, task.oracle(prompts)


@lru_cache(maxsize=16)
def _operands(digits: int, pad_id: int) -> np.ndarray:
    """Digits of all numbers of at most so many digits, right-aligned, int64 [10^digits, digits]."""
    numbers = np.arange(10**digits)[:, None]
    worth = 10 ** np.arange(digits)[::-1]
    return np.where((numbers >= worth) | (worth == 1), numbers // worth % 10, pad_id)


@lru_cache(maxsize=16)
def _answers(digits: int, eos: int, pad_id: int) -> np.ndarray:
    """Digits of all sums of two such numbers, left-aligned, and EOS, int64 [2 · 10^digits, digits + 2]."""
    totals = np.arange(2 * 10**digits)[:, None]
    length, place = num_digits(totals), np.arange(digits + 2)
    shown = totals // 10 ** np.maximum(length - 1 - place, 0) % 10
    return np.where(place < length, shown, np.where(place == length, eos, pad_id))


def numbers_with(digits: int) -> tuple[int, int]:
    """The smallest number with so many digits, and how many there are; zero has one digit."""
    return (0, 10) if digits == 1 else (10 ** (digits - 1), 9 * 10 ** (digits - 1))


def carry_probability(first: int, second: int) -> float:
    """Chance that the sum of two random numbers with so many digits has one digit more than the longer of them."""
    (low, count), (_, other_count) = numbers_with(min(first, second)), numbers_with(max(first, second))
    # For a there are as many b ≥ 10^d − a as a says, but no more than there are numbers.
    numbers = np.arange(low, low + count)
    return float(np.minimum(numbers, other_count).sum()) / count / other_count


def num_digits(numbers: np.ndarray) -> np.ndarray:
    """Digits of non-negative integers, element by element; zero has one."""
    return 1 + np.searchsorted(10 ** np.arange(1, 19), numbers, side="right")


def write_number(rows: np.ndarray, end: np.ndarray, numbers: np.ndarray, most: int) -> np.ndarray:
    """Write numbers [B] of at most ``most`` digits into rows [B, P], the last digits in the columns ``end`` [B].

    Returns:
        The columns left of them, int64 [B].
    """
    place = np.arange(most)
    length = num_digits(numbers)
    written = place < length[:, None]
    row, column = np.nonzero(written)
    rows[row, end[row] - column] = (numbers[:, None] // 10**place % 10)[written]
    return end - length


class Countdown(Task):
    """Reach a number by an expression of given numbers: after ``3,7,2=13`` comes ``3*2+7`` and EOS.

    The score is 1 where the expression has the value, 0.1 for another expression that uses each number once at most,
    else 0. Numbers are whole, expressions have ``+ - * /`` and brackets.

    The random score is the mean of 65,536 texts, right to within 0.001.

    Args:
        num_numbers: how many numbers are given, 2 to 4.
        max_number: the largest of them, at most 99.
        max_target: the largest number to be reached, at least twice ``max_number``.
        split: ``"train"`` or ``"test"``.
    """

    name = "Countdown"
    default_reward = "countdown"
    optimum = 1.0

    def __init__(
        self, *, num_numbers: int = 3, max_number: int = 9, max_target: int = 99, split: str = "train"
    ) -> None:
        self.num_numbers = check_size(self.name, "num_numbers", num_numbers, 2, 4)
        self.max_number = check_size(self.name, "max_number", max_number, 2, 99)
        self.max_target = check_size(self.name, "max_target", max_target, 2 * max_number, 9_999)
        self.split = check_split(self.name, split, has_prompts=True)
        self.vocab = Vocab([*DIGITS, *"+-*/(),=", "<eos>"], eos="<eos>")
        self.comma, self.equals, self.eos = 16, 17, 18
        width = len(str(max_number))
        self.prompt_length = num_numbers * (width + 1) + len(str(max_target))
        # Every number, an operator between each two, brackets around all inner results but the last, EOS.
        self.max_new_tokens = num_numbers * width + (num_numbers - 1) + 2 * (num_numbers - 2) + 1
        self.numbers = PromptNumbers(
            [max_number**num_numbers], split, modulus=11 if max_number % 11 else 13, of=f" of {num_numbers} numbers"
        )
        self._powers = np.array([max_number**i for i in reversed(range(num_numbers))], dtype=np.uint64)
        self._ways = 3 ** (num_numbers - 1)

    def draw(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # The numbers alone decide about the split: two ways to the same target must not part.
        number, _, index = self.numbers.draw(keys)
        way = (subkeys(keys, 1)[:, 0] % np.uint64(self._ways)).astype(np.int64)
        return self._prompts(number, way), index * self._ways + way

    def prompts_at(self, index: np.ndarray) -> np.ndarray:
        if index.size and (index.min() < 0 or index.max() >= self.numbers.count * self._ways):
            raise ValueError(f"index must lie in 0 … {self.numbers.count * self._ways - 1}, got {index.tolist()[:8]}.")
        number, _ = self.numbers.at(index // self._ways)
        return self._prompts(number, index % self._ways)

    def columns(self, prompt_ids: np.ndarray, index: np.ndarray) -> dict[str, Any]:
        numbers, target = self._read(prompt_ids)
        return {"numbers": numbers, "target": target}

    def oracle(self, prompt_ids: np.ndarray) -> np.ndarray:
        rows = np.full((len(prompt_ids), self.max_new_tokens), self.pad_id)
        for row, given, target in zip(rows, *(part.tolist() for part in self._read(prompt_ids)), strict=True):
            ids = [*self.vocab.encode(solve(tuple(given), target) or ""), self.eos]
            row[: len(ids)] = ids
        return rows

    @cached_property
    def random_score(self) -> float:  # type: ignore[override]  # computed when asked for: it takes a moment
        """Mean score of uniformly random actions."""
        from textenvs.random_texts import random_episodes  # its module imports this package

        episodes = random_episodes(
            self, episode_keys(stream_base(np.zeros(1, np.uint64), TASK_STREAM), np.arange(2**16))
        )
        text = episodes.completion_ids
        # No expression begins with an operator or holds a comma or "=": most texts need no parsing.
        opens = (text[:, 0] < 10) | (text[:, 0] == self.vocab.encode("(")[0])
        likely = opens & ~((text == self.comma) | (text == self.equals)).any(axis=1)
        return float(CountdownReward().score(episodes.take(likely)).sum(dtype=np.float64) / len(episodes))

    def encode_prompt(self, prompt: Any) -> np.ndarray:
        row = super().encode_prompt(prompt)
        text = self.vocab.decode(row.tolist())
        number = r"(?:[1-9][0-9]*)"
        if not re.fullmatch(rf"{number}(?:,{number}){{{self.num_numbers - 1}}}={number}", text) or self.eos in row:
            raise ValueError(
                f"{self.name}: a prompt is {self.num_numbers} positive numbers and a target, as in "
                f"'{','.join('1' * self.num_numbers)}=2'; got {text!r}."
            )
        *given, target = map(int, re.findall("[0-9]+", text))
        if max(given) > self.max_number or target > self.max_target:
            raise ValueError(
                f"{self.name}: numbers are at most {self.max_number} and the target {self.max_target}; got {text!r}."
            )
        if solve(tuple(given), target) is None:
            raise ValueError(f"{self.name}: no expression of the numbers in {text!r} reaches the target.")
        return row

    def _prompts(self, number: np.ndarray, way: np.ndarray) -> np.ndarray:
        given = (number[:, None] // self._powers % np.uint64(self.max_number)).astype(np.int64) + 1
        value = given[:, 0]
        for i in range(1, self.num_numbers):
            # From the wanted operator on, the first that stays among 1 … max_target: one always does.
            results = np.stack([value + given[:, i], value - given[:, i], value * given[:, i]])
            fits = (results >= 1) & (results <= self.max_target)
            order = (way // 3 ** (i - 1) + np.arange(3)[:, None]) % 3
            chosen = np.take_along_axis(fits, order, axis=0).argmax(axis=0)
            value = results[order[chosen, np.arange(len(value))], np.arange(len(value))]
        rows = np.full((len(number), self.prompt_length), self.pad_id)
        row = np.arange(len(rows))
        end = write_number(rows, np.full(len(rows), self.prompt_length - 1), value, len(str(self.max_target)))
        for i in reversed(range(self.num_numbers)):
            rows[row, end] = self.equals if i == self.num_numbers - 1 else self.comma
            end = write_number(rows, end - 1, given[:, i], len(str(self.max_number)))
        return rows

    def _read(self, prompt_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Numbers int64 [B, k] and targets int64 [B] of prompts."""
        fields = np.zeros((len(prompt_ids), self.num_numbers + 1), dtype=np.int64)
        row, field = np.arange(len(prompt_ids)), np.zeros(len(prompt_ids), dtype=np.int64)
        for token in prompt_ids.T:
            digit = token < 10
            fields[row, field] = np.where(digit, fields[row, field] * 10 + token, fields[row, field])
            field += (token == self.comma) | (token == self.equals)
        return fields[:, :-1], fields[:, -1]


@lru_cache(maxsize=65_536)
def solve(numbers: tuple[int, ...], target: int) -> str | None:
    """An expression of some of the numbers, each used once at most, with this value; None if there is none.

    Any two numbers are replaced by their sum, difference, product or quotient, as long as these are whole and positive.
    """
    return _search([(number, str(number), 3) for number in numbers], target)


def _search(parts: list[tuple[int, str, int]], target: int) -> str | None:
    """Parts are (value, expression, precedence of its last operator: 1 sum, 2 product, 3 a single number)."""
    for value, text, _ in parts:
        if value == target:
            return text
    for i, j in combinations(range(len(parts)), 2):
        others = [part for k, part in enumerate(parts) if k not in (i, j)]
        for left, right in ((parts[i], parts[j]), (parts[j], parts[i])):
            for joined in _joined(left, right):
                found = _search([*others, joined], target)
                if found is not None:
                    return found
    return None


def _joined(left: tuple[int, str, int], right: tuple[int, str, int]) -> list[tuple[int, str, int]]:
    (a, a_text, a_level), (b, b_text, b_level) = left, right
    sum_right = b_text if b_level > 1 else f"({b_text})"
    product_left = a_text if a_level > 1 else f"({a_text})"
    product_right = b_text if b_level > 2 else f"({b_text})"
    joined = [(a + b, f"{a_text}+{b_text}", 1), (a * b, f"{product_left}*{product_right}", 2)]
    if a > b:
        joined.append((a - b, f"{a_text}-{sum_right}", 1))
    if a % b == 0:
        joined.append((a // b, f"{product_left}/{product_right}", 2))
    return joined
