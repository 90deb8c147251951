"""Tasks of form: brackets that balance, palindromes, anagrams. Many texts are right; a mask can rule out wrong forms.

In the masked variants every text has the form, and what remains to be learnt is which of them the prompt asks for.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from textenvs.arrays import last_true
from textenvs.tasks.base import PromptSetTask, check_size, check_split
from textenvs.tasks.prompts import DistinctPrompts, SymbolPrompts
from textenvs.vocab import Vocab


class Dyck(PromptSetTask):
    """Write balanced brackets whose kinds open in the order of the prompt; how they are nested is free.

    The score is the share of the prompt's brackets that are opened in their turn, and closed, before the text goes
    wrong. Tokens 0 … k − 1 open, k … 2 k − 1 close.

    Args:
        length: pairs of brackets, which is the prompt's length and half of the text's.
        num_kinds: k.
        split: ``"train"`` or ``"test"``.
    """

    name = "Dyck"
    default_reward = "brackets"
    optimum = 1.0

    def __init__(self, *, length: int = 4, num_kinds: int = 3, split: str = "train") -> None:
        check_size(self.name, "length", length, 1)
        check_size(self.name, "num_kinds", num_kinds, 2)
        self.split = check_split(self.name, split, has_prompts=True)
        self.num_kinds = num_kinds
        self.vocab = bracket_vocab(num_kinds)
        self.prompt_length, self.max_new_tokens = length, 2 * length
        self.prompt_set = SymbolPrompts(
            num_symbols=num_kinds, length=length, min_length=length, split=split, pad_id=self.pad_id
        )
        # k actions open a bracket and one closes the last; a closed one counts if its kind is right, one time in k.
        self.random_score = expected_pairs(length, num_kinds, 1, 2 * num_kinds) / (length * num_kinds)

    def columns(self, prompt_ids: np.ndarray, index: np.ndarray) -> dict[str, Any]:
        return {}

    def oracle(self, prompt_ids: np.ndarray) -> np.ndarray:
        return np.concatenate([prompt_ids, prompt_ids[:, ::-1] + self.num_kinds], axis=1)

    def encode_prompt(self, prompt: Any) -> np.ndarray:
        row = super().encode_prompt(prompt)
        if row.max() >= self.num_kinds:
            raise ValueError(
                f"{self.name}: a prompt has opening brackets only, got {self.vocab.decode(row.tolist())!r}."
            )
        return row


class DyckMasked(Dyck):
    """As ``Dyck``, under a mask that makes unbalanced text impossible: what remains is the order of kinds.

    Args:
        length, num_kinds, split: as for ``Dyck``.
    """

    name = "DyckMasked"
    has_masks = True

    def __init__(self, *, length: int = 4, num_kinds: int = 3, split: str = "train") -> None:
        super().__init__(length=length, num_kinds=num_kinds, split=split)
        self.random_score = 1.0 / num_kinds

    def action_masks(self, rows: np.ndarray, written: np.ndarray) -> np.ndarray:
        length, kinds = self.prompt_length, self.num_kinds
        text = rows[:, length : length + max(int(written.max()), 1)]
        opens = text < kinds
        # +1 for what opens, −1 for what closes, 0 for padding, summed from the left by a product, which is faster.
        signs = opens * np.float32(2) - (text < self.pad_id)
        heights = signs @ _triangle(text.shape[1])
        height = heights[:, -1]
        # What must be closed next is the last bracket that opened to the present height.
        row = np.arange(len(rows))
        top = text[row, last_true(opens & (heights == height[:, None]))]
        masks = np.empty((len(rows), 2 * kinds), dtype=np.bool_)
        masks[:, :kinds] = (written + height < 2 * length)[:, None]
        masks[:, kinds:] = (top[:, None] == np.arange(kinds)) & (height > 0)[:, None]
        return allow_something(masks)


class Palindrome(PromptSetTask):
    """Write a palindrome of twice the prompt's length that has each of its symbols, in any order.

    The score is the share of the prompt's symbols, which all differ, that stand in a mirrored pair of places.

    Args:
        length: symbols of the prompt, and half of the text's.
        num_symbols: size of the alphabet.
        split: ``"train"`` or ``"test"``.
    """

    name = "Palindrome"
    default_reward = "palindrome"
    optimum = 1.0
    symbol_chance = 2
    """A pair shows a given symbol with probability S to the power of minus this."""

    def __init__(self, *, length: int = 4, num_symbols: int = 8, split: str = "train") -> None:
        set_up_distinct(self, length, num_symbols, split, shortest=1)
        self.max_new_tokens = 2 * length
        self.random_score = 1.0 - (1.0 - float(num_symbols) ** -self.symbol_chance) ** length

    def columns(self, prompt_ids: np.ndarray, index: np.ndarray) -> dict[str, Any]:
        return {}

    def oracle(self, prompt_ids: np.ndarray) -> np.ndarray:
        return np.concatenate([prompt_ids, prompt_ids[:, ::-1]], axis=1)

    def encode_prompt(self, prompt: Any) -> np.ndarray:
        return check_distinct(self.name, super().encode_prompt(prompt))


class PalindromeMasked(Palindrome):
    """As ``Palindrome``, under a mask that forces the second half: what remains is which symbols the first half has.

    Args:
        length, num_symbols, split: as for ``Palindrome``.
    """

    name = "PalindromeMasked"
    has_masks = True
    symbol_chance = 1

    def action_masks(self, rows: np.ndarray, written: np.ndarray) -> np.ndarray:
        masks = np.ones((len(rows), self.pad_id), dtype=np.bool_)
        forced = np.flatnonzero((written >= self.prompt_length) & (written < self.max_new_tokens))
        # Token t mirrors token T − 1 − t.
        mirrored = rows[forced, self.prompt_length + self.max_new_tokens - 1 - written[forced]]
        masks[forced] = mirrored[:, None] == np.arange(self.pad_id)
        return masks


class Anagram(PromptSetTask):
    """Write the prompt's symbols in another order, none of them at its old place.

    The score is the share of the prompt's symbols, which all differ, that occur first at a place that was another's.

    Args:
        length: symbols of the prompt and of the text, at least 2.
        num_symbols: size of the alphabet.
        split: ``"train"`` or ``"test"``.
    """

    name = "Anagram"
    default_reward = "anagram"
    optimum = 1.0

    def __init__(self, *, length: int = 5, num_symbols: int = 8, split: str = "train") -> None:
        set_up_distinct(self, length, num_symbols, split, shortest=2)
        self.max_new_tokens = length
        # A symbol occurs in time, less the chance that it does so first at its old place p.
        missing = 1.0 - 1.0 / num_symbols
        at_old_place = sum(missing**p / num_symbols for p in range(length)) / length
        self.random_score = 1.0 - missing**length - at_old_place

    def columns(self, prompt_ids: np.ndarray, index: np.ndarray) -> dict[str, Any]:
        return {}

    def oracle(self, prompt_ids: np.ndarray) -> np.ndarray:
        return np.roll(prompt_ids, 1, axis=1)

    def encode_prompt(self, prompt: Any) -> np.ndarray:
        return check_distinct(self.name, super().encode_prompt(prompt))


class AnagramMasked(Anagram):
    """As ``Anagram``, under a mask of the symbols that are left: what remains is that none keeps its place.

    Args:
        length, num_symbols, split: as for ``Anagram``.
    """

    name = "AnagramMasked"
    has_masks = True

    def __init__(self, *, length: int = 5, num_symbols: int = 8, split: str = "train") -> None:
        super().__init__(length=length, num_symbols=num_symbols, split=split)
        self.random_score = 1.0 - 1.0 / length

    def action_masks(self, rows: np.ndarray, written: np.ndarray) -> np.ndarray:
        length, size = self.prompt_length, self.pad_id
        masks = np.zeros((len(rows), size + 1), dtype=np.bool_)  # one column more, for padding
        flat, first = masks.reshape(-1), (np.arange(len(rows)) * (size + 1))[:, None]
        flat[first + rows[:, :length]] = True
        flat[first + rows[:, length:]] = False
        return allow_something(masks[:, :size])


@lru_cache(maxsize=256)
def _triangle(size: int) -> np.ndarray:
    """Ones on and above the diagonal, float32: rows times this are their running sums."""
    triangle = np.triu(np.ones((size, size), dtype=np.float32))
    triangle.flags.writeable = False
    return triangle


def bracket_vocab(num_kinds: int) -> Vocab:
    """Opening brackets, then closing ones: ``([{<`` and ``)]}>``; beyond four kinds words ``(4`` and ``)4``."""
    kinds = range(num_kinds)
    opening, closing = (
        [brackets[i] if i < len(brackets) else f"{brackets[0]}{i}" for i in kinds] for brackets in ("([{<", ")]}>")
    )
    return Vocab([*opening, *closing])


def expected_pairs(length: int, opening: int, closing: int, actions: int) -> float:
    """Expected number of brackets that random actions close before they leave the balanced texts of ``length`` pairs.

    Args:
        length: pairs of a balanced text.
        opening: actions that open a bracket, where that is allowed.
        closing: actions that close the last open one.
        actions: all actions, each equally likely.
    """
    # chance[o][c]: that o opened and c closed brackets come about without a mistake.
    chance = np.zeros((length + 1, length + 1))
    chance[0, 0] = 1.0
    total = 0.0
    for opened in range(length + 1):
        for closed in range(opened + 1):
            if opened < length:
                chance[opened + 1, closed] += chance[opened, closed] * opening / actions
            if closed < opened:
                chance[opened, closed + 1] += chance[opened, closed] * closing / actions
                total += chance[opened, closed] * closing / actions
    return total


def set_up_distinct(task: Palindrome | Anagram, length: int, num_symbols: int, split: str, *, shortest: int) -> None:
    """Check the sizes of a task whose prompts have ``length`` different symbols, and set alphabet and prompts."""
    check_size(task.name, "num_symbols", num_symbols, 2)
    check_size(task.name, "length", length, shortest, num_symbols)
    task.split = check_split(task.name, split, has_prompts=True)
    task.vocab = Vocab.symbols(num_symbols)
    task.prompt_length = length
    task.prompt_set = DistinctPrompts(num_symbols=num_symbols, length=length, split=split)


def check_distinct(name: str, row: np.ndarray) -> np.ndarray:
    """Return a prompt whose symbols all differ.

    Raises:
        ValueError: they do not.
    """
    if len(set(row.tolist())) < len(row):
        raise ValueError(f"{name}: the symbols of a prompt must all differ, got {row.tolist()}.")
    return row


def allow_something(masks: np.ndarray) -> np.ndarray:
    """Masks [B, V] with every action legal in rows that had none: texts that are over."""
    masks[~masks.any(axis=1)] = True
    return masks
