"""Prompt sets: numbered, and split into train and test without overlap."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from textenvs.rng import splitmix64
from textenvs.tasks.prompts import SymbolPrompts

PAD = 99


def make(split: str, num_symbols: int, length: int, min_length: int | None = None) -> SymbolPrompts:
    return SymbolPrompts(
        num_symbols=num_symbols, length=length, min_length=min_length or length, split=split, pad_id=PAD
    )


def keys(count: int) -> np.ndarray:
    return splitmix64(np.arange(count, dtype=np.uint64))


def tuples(rows: np.ndarray) -> list[tuple[int, ...]]:
    return [tuple(i for i in row if i != PAD) for row in rows.tolist()]


SIZES = [
    (2, 5, 5),
    (3, 3, 3),
    (8, 2, 2),
    (11, 2, 2),
    (12, 2, 2),
    (13, 2, 2),
    (22, 2, 1),
    (26, 2, 2),
    (5, 4, 2),
    (12, 3, 1),
]


@pytest.mark.parametrize(("num_symbols", "length", "min_length"), SIZES)
def test_every_prompt_belongs_to_exactly_one_split(num_symbols, length, min_length):
    """All prompts there are, against both splits by number, by membership and by drawing."""
    everything = [prompt for n in range(min_length, length + 1) for prompt in product(range(num_symbols), repeat=n)]
    by_split = {}
    for split in ("train", "test"):
        prompts = make(split, num_symbols, length, min_length)
        assert prompts.numbered
        rows = prompts.at(np.arange(prompts.count))
        assert rows.dtype == np.int64
        assert rows.shape == (prompts.count, length)
        assert (prompts.is_test(rows) == (split == "test")).all()
        padding = rows == PAD
        assert (padding[:, :-1] >= padding[:, 1:]).all()  # on the left
        by_split[split] = tuples(rows)
        drawn, index = prompts.draw(keys(40 * prompts.count))
        assert np.array_equal(drawn, prompts.at(index))
        assert set(index.tolist()) == set(range(prompts.count))  # all are reached
    assert sorted(by_split["train"] + by_split["test"]) == sorted(everything)  # none twice, none missing
    modulus = 13 if num_symbols % 11 == 0 else 11
    assert len(by_split["test"]) == sum(num_symbols**n // modulus for n in range(min_length, length + 1))


def test_draws_are_uniform():
    prompts = make("train", 3, 3)
    _, index = prompts.draw(keys(25_000))
    counts = np.bincount(index, minlength=prompts.count)
    p = 1 / prompts.count
    assert (np.abs(counts - 25_000 * p) < 5 * np.sqrt(25_000 * p * (1 - p))).all()


def test_each_length_is_drawn_equally_often():
    prompts = make("train", 4, 6, 3)
    rows, _ = prompts.draw(keys(20_000))
    counts = np.bincount((rows != PAD).sum(axis=1), minlength=7)
    assert counts[:3].tolist() == [0, 0, 0]
    assert (np.abs(counts[3:] - 5_000) < 5 * np.sqrt(20_000 * 0.25 * 0.75)).all()


@pytest.mark.parametrize("num_symbols", [11, 22, 12, 8])
def test_every_symbol_of_a_prompt_decides_about_its_split(num_symbols):
    """Otherwise the test split would hold, say, all prompts that end in one symbol."""
    rows = make("test", num_symbols, 3).at(np.arange(make("test", num_symbols, 3).count))
    for column in range(3):
        assert set(rows[:, column].tolist()) == set(range(num_symbols))


@pytest.mark.parametrize(("length", "min_length"), [(128, 128), (30, 30), (128, 8), (12, 9)])
def test_prompts_beyond_64_bits(length, min_length):
    """Train and test differ in what decides, the last columns, and every column takes every value."""
    decided = {}
    for split in ("train", "test"):
        prompts = make(split, 8, length, min_length)
        assert not prompts.numbered
        assert prompts.counted == 10  # 8**10 <= 2**32 < 8**11
        rows, index = prompts.draw(keys(4_000))
        assert (index == -1).all()
        assert (prompts.is_test(rows) == (split == "test")).all()
        assert set(np.unique(rows)) == {*range(8), *([PAD] if min_length < length else [])}
        for column in (0, length // 2, length - 1):
            assert set(range(8)) <= set(rows[:, column].tolist())
        lengths = (rows != PAD).sum(axis=1)
        assert {int(lengths.min()), int(lengths.max())} == {min_length, length}
        decided[split] = {row for row in tuples(rows[:, -10:]) if len(row) == 10}
        if split == "test":
            assert len(set(tuples(rows))) > 3_990  # hardly any prompt comes twice
        with pytest.raises(ValueError, match="too many prompts here to be numbered"):
            prompts.at(np.array([0]))
    assert not decided["train"] & decided["test"]


def test_neighbouring_columns_of_long_prompts_are_independent():
    rows, _ = make("train", 2, 64).draw(keys(4_000))
    signs = rows * 2 - 1
    correlation = (signs[:, :-1] * signs[:, 1:]).mean(axis=0)
    assert (np.abs(correlation) < 5 / np.sqrt(4_000)).all()


def test_numbers_of_the_train_split_by_hand():
    """Base 4, one symbol of two: numbers 0 … 15 without the eleventh."""
    train, test = make("train", 4, 2), make("test", 4, 2)
    assert (train.count, test.count) == (15, 1)
    assert test.at(np.array([0])).tolist() == [[2, 2]]  # 10 = 2 · 4 + 2
    assert train.at(np.array([0, 9, 10, 14])).tolist() == [[0, 0], [2, 1], [2, 3], [3, 3]]


@pytest.mark.parametrize("index", [[-1], [15], [3, 99]])
def test_numbers_outside_the_set(index):
    with pytest.raises(ValueError, match=r"index must lie in 0 … 14"):
        make("train", 4, 2).at(np.array(index))


def test_too_few_prompts_for_a_test_split():
    with pytest.raises(ValueError, match=r"only 8 prompts of 1 symbols out of 8.*at least 11"):
        make("test", 8, 3, 1)
    assert make("train", 8, 3, 1).count == 8 + (64 - 5) + (512 - 46)  # short prompts are all for training
