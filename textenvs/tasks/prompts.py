"""Prompt sets that are computed, not stored: rows of symbols, numbered, split into train and test without overlap."""

from __future__ import annotations

import numpy as np

from textenvs.rng import subkeys


class SymbolPrompts:
    """All rows of ``min_length`` to ``length`` symbols, each row being a number written in base ``num_symbols``.

    A row belongs to the test split if and only if its number leaves the highest remainder modulo ``modulus`` (11, or
    13 where 11 divides the base): about one row in eleven, spread evenly, and decided by all of its symbols. Of rows
    too long for 64-bit numbers the last ``counted`` symbols decide, and the others are free.

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
        self.test = split == "test"
        self.modulus = 11 if num_symbols % 11 else 13
        # 2**32 numbers at most: a 64-bit key modulo their count is uniform to within 2**-32.
        counted = 1
        while counted < length and num_symbols ** (counted + 1) <= 2**32:
            counted += 1
        self.counted = counted
        self.powers = np.array([num_symbols**i for i in reversed(range(counted))], dtype=np.uint64)
        totals = [num_symbols ** min(n, counted) for n in range(min_length, length + 1)]
        sizes = [n // self.modulus if self.test else n - n // self.modulus for n in totals]
        if min(sizes) < 1:
            raise ValueError(
                f"There are only {min(totals)} prompts of {min_length} symbols out of {num_symbols}: too few for a "
                f"test split (at least {self.modulus}). Make the prompts longer or the alphabet larger."
            )
        self.sizes = np.array(sizes, dtype=np.uint64)
        self.starts = np.cumsum(self.sizes) - self.sizes
        """Number of the first prompt of each length."""
        self.numbered = counted == length
        """Whether every prompt has a number, so that it can be chosen by ``index``."""

    @property
    def count(self) -> int:
        """Number of numbered prompts in the split."""
        return int(self.sizes.sum())

    def draw(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Prompts [B, length] for random keys [B] (uint64), and their numbers in the split [B] (−1: not numbered)."""
        if self.numbered and self.min_length == self.length:  # the key alone decides
            rank = keys % self.sizes[0]
            return self._rows(rank), rank.astype(np.int64)
        random = subkeys(keys, 1 + self.length - self.counted)
        group = random[:, 0] % np.uint64(len(self.sizes))
        rank = keys % self.sizes[group]
        rows = self._pad(self._rows(rank, random[:, 1:]), group.astype(np.int64))
        if not self.numbered:
            return rows, np.full(len(keys), -1, dtype=np.int64)
        return rows, (rank + self.starts[group]).astype(np.int64)

    def at(self, index: np.ndarray) -> np.ndarray:
        """Prompts [B, length] with the given numbers [B].

        Raises:
            ValueError: a number outside the split, or a prompt set too large to be numbered.
        """
        if not self.numbered:
            raise ValueError("There are too many prompts here to be numbered: give options={'prompt': …} instead.")
        if index.size and (index.min() < 0 or index.max() >= self.count):
            raise ValueError(f"index must lie in 0 … {self.count - 1}, got {index.tolist()[:8]}.")
        group = np.searchsorted(self.starts, index.astype(np.uint64), side="right") - 1
        rank = index.astype(np.uint64) - self.starts[group]
        return self._pad(self._rows(rank), group)

    def is_test(self, rows: np.ndarray) -> np.ndarray:
        """Whether rows [B, length] belong to the test split, bool [B]."""
        digits = np.where(rows == self.pad_id, 0, rows)[:, self.length - self.counted :].astype(np.uint64)
        number = (digits * self.powers).sum(axis=1, dtype=np.uint64)
        return np.asarray(number % np.uint64(self.modulus) == self.modulus - 1)

    def _rows(self, rank: np.ndarray, free: np.ndarray | None = None) -> np.ndarray:
        m = np.uint64(self.modulus)
        number = rank * m + (m - np.uint64(1)) if self.test else rank + rank // (m - np.uint64(1))
        # Digits are differences of quotients: one division each, along the long axis.
        quotients = number // self.powers[:, None]
        quotients[1:] -= quotients[:-1] * np.uint64(self.num_symbols)
        digits = quotients.T.astype(np.int64)
        if free is None or not free.shape[1]:
            return digits
        return np.concatenate([(free % np.uint64(self.num_symbols)).astype(np.int64), digits], axis=1)

    def _pad(self, rows: np.ndarray, group: np.ndarray) -> np.ndarray:
        missing = self.length - self.min_length - group
        rows[np.arange(self.length) < missing[:, None]] = self.pad_id
        return rows
