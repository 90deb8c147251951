"""Prompt sets that are computed, not stored: numbered, and split into train and test without overlap."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from textenvs.rng import subkeys

NUMBER_LIMIT = 2**32
"""Prompts of a group at most: a 64-bit key modulo their count is then uniform to within 2**-32."""


class PromptNumbers:
    """Numbers 0 … count − 1 of all prompts there are, in groups, split into train and test without overlap.

    A prompt belongs to the test split if and only if its number within its group leaves the highest remainder modulo
    ``modulus``: one prompt in so many, spread evenly. What prompt a number stands for is the task's business.

    Args:
        counts: prompts of each group; every group is drawn equally often.
        split: ``"train"`` or ``"test"``.
        modulus: one prompt in how many is a test prompt.
        of: what the prompts are, for the error message.

    Raises:
        ValueError: a group has too few prompts for this split.
    """

    def __init__(self, counts: Sequence[int], split: str, *, modulus: int = 11, of: str = "") -> None:
        self.modulus, self.test = modulus, split == "test"
        sizes = [n // modulus if self.test else n - n // modulus for n in counts]
        if min(sizes) < 1:
            raise ValueError(
                f"There are only {min(counts)} prompts{of}: too few for a test split (at least {modulus}). "
                f"Make the prompts longer or the alphabet larger."
            )
        self.sizes = np.array(sizes, dtype=np.uint64)
        self.starts = np.cumsum(self.sizes) - self.sizes
        """Number within the split of each group's first prompt."""
        self._single = len(sizes) == 1

    @property
    def count(self) -> int:
        """Number of prompts in the split."""
        return int(self.sizes.sum())

    def draw(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Prompts for random keys uint64 [B].

        Returns:
            number within the group uint64 [B], group int64 [B], and number within the split int64 [B].
        """
        if self._single:  # the key alone decides
            rank = keys % self.sizes[0]
            return self._numbers(rank), np.zeros(len(keys), dtype=np.int64), rank.astype(np.int64)
        group = subkeys(keys, 1)[:, 0] % np.uint64(len(self.sizes))
        rank = keys % self.sizes[group]
        return self._numbers(rank), group.astype(np.int64), (rank + self.starts[group]).astype(np.int64)

    def at(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Numbers within their groups uint64 [B], and groups int64 [B], of the split's prompts number ``index`` [B].

        Raises:
            ValueError: a number outside the split.
        """
        if index.size and (index.min() < 0 or index.max() >= self.count):
            raise ValueError(f"index must lie in 0 … {self.count - 1}, got {index.tolist()[:8]}.")
        group = np.searchsorted(self.starts, index.astype(np.uint64), side="right") - 1
        return self._numbers(index.astype(np.uint64) - self.starts[group]), group

    def is_test(self, numbers: np.ndarray) -> np.ndarray:
        """Whether prompts with these numbers within their groups (uint64) belong to the test split."""
        return np.asarray(numbers % np.uint64(self.modulus) == self.modulus - 1)

    def _numbers(self, rank: np.ndarray) -> np.ndarray:
        m = np.uint64(self.modulus)
        return rank * m + (m - np.uint64(1)) if self.test else rank + rank // (m - np.uint64(1))


class SymbolPrompts:
    """All rows of ``min_length`` to ``length`` symbols, each row being a number written in base ``num_symbols``.

    One row in eleven is for testing (in thirteen where 11 divides the base), and all of its symbols decide about that.
    Of rows too long for their number the last ``counted`` symbols decide, and the others are free.

    Args:
        num_symbols: size of the alphabet, the base.
        length: longest prompt, and the width of the returned rows.
        min_length: shortest prompt; each length is drawn equally often.
        split: ``"train"`` or ``"test"``.
        pad_id: fills the columns left of a shorter prompt.

    Raises:
        ValueError: there are too few prompts for a test split.
    """

    def __init__(self, *, num_symbols: int, length: int, min_length: int, split: str, pad_id: int) -> None:
        self.num_symbols, self.length, self.min_length = num_symbols, length, min_length
        self.pad_id = pad_id
        counted = 1
        while counted < length and num_symbols ** (counted + 1) <= NUMBER_LIMIT:
            counted += 1
        self.counted = counted
        self.powers = np.array([num_symbols**i for i in reversed(range(counted))], dtype=np.uint64)
        self.numbers = PromptNumbers(
            [num_symbols ** min(n, counted) for n in range(min_length, length + 1)],
            split,
            modulus=11 if num_symbols % 11 else 13,
            of=f" of {min_length} symbols out of {num_symbols}",
        )
        self.numbered = counted == length
        """Whether every prompt has a number, so that it can be chosen by ``index``."""

    @property
    def count(self) -> int:
        """Number of numbered prompts in the split."""
        return self.numbers.count

    def draw(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Prompts [B, length] for random keys [B] (uint64), and their numbers in the split [B] (−1: not numbered)."""
        number, group, index = self.numbers.draw(keys)
        if self.numbered:
            return self._pad(self._digits(number), group), index
        free = subkeys(keys, 1 + self.length - self.counted)[:, 1:] % np.uint64(self.num_symbols)
        rows = np.concatenate([free.astype(np.int64), self._digits(number)], axis=1)
        return self._pad(rows, group), np.full(len(keys), -1, dtype=np.int64)

    def at(self, index: np.ndarray) -> np.ndarray:
        """Prompts [B, length] with the given numbers [B].

        Raises:
            ValueError: a number outside the split, or a prompt set too large to be numbered.
        """
        if not self.numbered:
            raise ValueError("There are too many prompts here to be numbered: give options={'prompt': …} instead.")
        number, group = self.numbers.at(index)
        return self._pad(self._digits(number), group)

    def is_test(self, rows: np.ndarray) -> np.ndarray:
        """Whether rows [B, length] belong to the test split, bool [B]."""
        digits = np.where(rows == self.pad_id, 0, rows)[:, self.length - self.counted :].astype(np.uint64)
        return self.numbers.is_test((digits * self.powers).sum(axis=1, dtype=np.uint64))

    def _digits(self, number: np.ndarray) -> np.ndarray:
        # Digits are differences of quotients: one division each, along the long axis.
        quotients = number // self.powers[:, None]
        quotients[1:] -= quotients[:-1] * np.uint64(self.num_symbols)
        return quotients.T.astype(np.int64)

    def _pad(self, rows: np.ndarray, group: np.ndarray) -> np.ndarray:
        if self.min_length < self.length:
            missing = self.length - self.min_length - group
            rows[np.arange(self.length) < missing[:, None]] = self.pad_id
        return rows


class DistinctPrompts:
    """All rows of ``length`` different symbols, numbered by their Lehmer code.

    One in eleven is for testing, or in the next larger prime where 11 divides a factor of the code: else only some of
    the symbols would decide.

    Args:
        num_symbols: size of the alphabet.
        length: symbols of a prompt, at most ``num_symbols``.
        split: ``"train"`` or ``"test"``.

    Raises:
        ValueError: there are too few prompts for a test split, or too many to be numbered.
    """

    def __init__(self, *, num_symbols: int, length: int, split: str) -> None:
        self.length = length
        bases = [num_symbols - i for i in range(length)]
        count = prod(bases)
        if count > NUMBER_LIMIT:
            raise ValueError(
                f"There are {count:.3g} prompts of {length} different symbols out of {num_symbols}, more than 2**32: "
                f"make the prompts shorter or the alphabet smaller."
            )
        self._bases = np.array(bases, dtype=np.uint64)
        self._powers = np.array([prod(bases[i + 1 :]) for i in range(length)], dtype=np.uint64)
        of = f" of {length} different symbols out of {num_symbols}"
        modulus = next(p for p in (11, 13, 17, 19, 23, 29, 31, 37) if all(base % p for base in bases[1:]))
        self.numbers = PromptNumbers([count], split, modulus=modulus, of=of)

    def draw(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Prompts [B, length] for random keys [B] (uint64), and their numbers in the split [B]."""
        number, _, index = self.numbers.draw(keys)
        return self._rows(number), index

    def at(self, index: np.ndarray) -> np.ndarray:
        """Prompts [B, length] with the given numbers [B].

        Raises:
            ValueError: a number outside the split.
        """
        return self._rows(self.numbers.at(index)[0])

    def _rows(self, number: np.ndarray) -> np.ndarray:
        rows = (number // self._powers[:, None] % self._bases[:, None]).T.astype(np.int64)
        # Column i counts among the symbols that the columns before it left over.
        for i in reversed(range(self.length - 1)):
            rows[:, i + 1 :] += rows[:, i + 1 :] >= rows[:, i : i + 1]
        return rows
