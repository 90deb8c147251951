"""Copying tasks: the prompt is a row of symbols, the completion is a function of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from textenvs.arrays import count_true
from textenvs.tasks.base import PromptSetTask, Task, check_size, check_split
from textenvs.tasks.prompts import SymbolPrompts
from textenvs.vocab import Vocab


class _SymbolTask(PromptSetTask):
    """A prompt of symbols and one right completion; the default reward is the fraction of positions right.

    Args:
        length: symbols of the (longest) prompt.
        num_symbols: size of the alphabet.
        min_length: shortest prompt. Below ``length`` prompts vary in length, and the completion ends with EOS, which is
            then one more token and one more position of the target.
        split: ``"train"`` or ``"test"``.
    """

    default_reward: Any = "match"
    optimum = 1.0
    prompt_set: SymbolPrompts

    def __init__(
        self, *, length: int = 4, num_symbols: int = 8, min_length: int | None = None, split: str = "train"
    ) -> None:
        check_size(self.name, "length", length, 1)
        check_size(self.name, "num_symbols", num_symbols, 2)
        shortest = length if min_length is None else check_size(self.name, "min_length", min_length, 1, length)
        self.split = check_split(self.name, split, has_prompts=True)
        self.num_symbols = num_symbols
        self.has_eos = shortest < length
        self.vocab = Vocab.symbols(num_symbols, eos=self.has_eos)
        self.prompt_length = length
        self.max_new_tokens = length + self.has_eos
        self.prompt_set = SymbolPrompts(
            num_symbols=num_symbols, length=length, min_length=shortest, split=split, pad_id=self.pad_id
        )
        self.random_score = random_match_score(num_symbols, range(shortest, length + 1), self.has_eos)

    def columns(self, prompt_ids: np.ndarray, index: np.ndarray) -> dict[str, Any]:
        return {"target_ids": self.oracle(prompt_ids)}

    def oracle(self, prompt_ids: np.ndarray) -> np.ndarray:
        symbols = self.transform(prompt_ids)
        if not self.has_eos:
            return symbols
        completions = np.full((len(prompt_ids), self.max_new_tokens), self.pad_id, dtype=np.int64)
        completions[:, :-1] = symbols
        completions[np.arange(len(prompt_ids)), count_true(prompt_ids != self.pad_id)] = self.vocab.eos_ids[0]
        return completions

    def transform(self, prompt_ids: np.ndarray) -> np.ndarray:
        """The right completions [B, length], right-padded and without EOS, of left-padded prompts [B, length]."""
        raise NotImplementedError  # each task below

    def encode_prompt(self, prompt: Any) -> np.ndarray:
        row = Task.encode_prompt(self, prompt)  # prompts may be shorter here
        shortest = self.prompt_set.min_length
        symbols = row[row != self.pad_id]
        if symbols.size < shortest:
            raise ValueError(f"{self.name}: the prompt has {symbols.size} tokens, at least {shortest} are needed.")
        if symbols.size and symbols.max() >= self.num_symbols:
            raise ValueError(f"{self.name}: EOS cannot stand in a prompt.")
        return row


class Copy(_SymbolTask):
    """Write the prompt again."""

    name = "Copy"

    def transform(self, prompt_ids: np.ndarray) -> np.ndarray:
        if not self.has_eos:
            return prompt_ids.copy()
        # A stable sort by "is padding" moves the symbols to the left and keeps their order.
        order = np.argsort(prompt_ids == self.pad_id, axis=1, kind="stable")
        return np.take_along_axis(prompt_ids, order, axis=1)


class Reverse(_SymbolTask):
    """Write the prompt backwards."""

    name = "Reverse"

    def transform(self, prompt_ids: np.ndarray) -> np.ndarray:
        return prompt_ids[:, ::-1].copy()


class Sort(_SymbolTask):
    """Write the prompt's symbols in ascending order, repeated ones as often as they stand there."""

    name = "Sort"

    def transform(self, prompt_ids: np.ndarray) -> np.ndarray:
        return np.sort(prompt_ids, axis=1)  # padding is the highest id


def random_match_score(num_symbols: int, lengths: range, has_eos: bool) -> float:
    """Expected ``match`` score of uniform actions for targets of these lengths, each equally often, in closed form."""
    if not has_eos:
        return 1.0 / num_symbols
    return sum(random_eos_score(num_symbols, length, lengths[-1] + 1) for length in lengths) / len(lengths)


def random_eos_score(num_symbols: int, length: int, budget: int) -> float:
    """Expected ``match`` score of uniform actions, EOS one of S + 1, for a target of ``length`` symbols and EOS.

    The text ends after n tokens, n geometric and cut at the budget: its n − 1 symbols are right with probability 1/S
    where the target has a symbol, its EOS is right if and only if it stands at the target's end, and max(n, length + 1)
    is divided by.
    """
    end = 1.0 / (num_symbols + 1)
    total = 0.0
    for n in range(1, budget + 1):
        symbols_first = (1.0 - end) ** (n - 1)
        expected = symbols_first * end * (min(n - 1, length) / num_symbols + (n - 1 == length))
        if n == budget:  # the budget ran out: n symbols, no EOS
            expected += symbols_first * (1.0 - end) * min(n, length) / num_symbols
        total += expected / max(n, length + 1)
    return total
