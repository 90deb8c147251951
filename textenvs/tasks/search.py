"""Search tasks: no prompt, a hidden thing that comes from ``task_seed`` and must be found by writing."""

from __future__ import annotations

from typing import Any

import numpy as np

from textenvs.rng import TASK_STREAM, episode_keys, splitmix64, stream_base
from textenvs.tasks.base import Task, check_size, check_split
from textenvs.vocab import Vocab


class _HiddenTask(Task):
    """A task without prompts; what is hidden depends on ``task_seed`` alone, never on the seed of a reset."""

    optimum = 1.0
    prompt_length = 0

    def _set_up(self, length: int, num_symbols: int, task_seed: int, split: str) -> np.ndarray:
        """Check the arguments, set the sizes, and return ``length`` random uint64 for the hidden thing."""
        check_size(self.name, "length", length, 1)
        check_size(self.name, "num_symbols", num_symbols, 2)
        check_size(self.name, "task_seed", task_seed, 0)
        self.split = check_split(self.name, split, has_prompts=False)
        self.vocab = Vocab.symbols(num_symbols)
        self.max_new_tokens = length
        seed = np.array([task_seed % 2**64], dtype=np.uint64)
        return episode_keys(stream_base(seed, TASK_STREAM), np.arange(length))

    def draw(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((len(keys), 0), dtype=np.int64), np.zeros(len(keys), dtype=np.int64)

    def prompts_at(self, index: np.ndarray) -> np.ndarray:
        raise ValueError(f"{self.name} has no prompts, so reset takes neither 'prompt' nor 'index'.")

    def encode_prompt(self, prompt: Any) -> np.ndarray:
        raise ValueError(f"{self.name} has no prompts, so reset takes neither 'prompt' nor 'index'.")


class _TargetTask(_HiddenTask):
    """A hidden row of symbols.

    Args:
        length: symbols of the target.
        num_symbols: size of the alphabet.
        task_seed: chooses the target.
        split: only ``"train"``: there is no prompt to hold out.
    """

    def __init__(self, *, length: int = 8, num_symbols: int, task_seed: int = 0, split: str = "train") -> None:
        random = self._set_up(length, num_symbols, task_seed, split)
        self.target = (random % np.uint64(num_symbols)).astype(np.int64)

    def columns(self, prompt_ids: np.ndarray, index: np.ndarray) -> dict[str, Any]:
        return {"target_ids": np.broadcast_to(self.target, (len(prompt_ids), len(self.target)))}

    def oracle(self, prompt_ids: np.ndarray) -> np.ndarray:
        return np.tile(self.target, (len(prompt_ids), 1))


class HiddenTarget(_TargetTask):
    """Find a hidden text; the score is the fraction of positions right."""

    name = "HiddenTarget"
    default_reward = "match"

    def __init__(self, *, length: int = 8, num_symbols: int = 16, task_seed: int = 0, split: str = "train") -> None:
        super().__init__(length=length, num_symbols=num_symbols, task_seed=task_seed, split=split)
        self.random_score = 1.0 / num_symbols


class PrefixLock(_TargetTask):
    """Open a combination lock; the score is the length of the correct prefix over the length of the whole."""

    name = "PrefixLock"
    default_reward = "prefix"

    def __init__(self, *, length: int = 8, num_symbols: int = 8, task_seed: int = 0, split: str = "train") -> None:
        super().__init__(length=length, num_symbols=num_symbols, task_seed=task_seed, split=split)
        self.random_score = sum(num_symbols**-n for n in range(1, length + 1)) / length


class Keywords(_HiddenTask):
    """Use hidden keywords, anywhere and in any order; the score is the fraction of them that occur.

    Args:
        length: tokens of the text.
        num_symbols: size of the alphabet.
        num_keywords: how many different symbols are hidden, at most ``length``.
        task_seed: chooses the keywords.
        split: only ``"train"``: there is no prompt to hold out.
    """

    name = "Keywords"
    default_reward = "keywords"

    def __init__(
        self,
        *,
        length: int = 12,
        num_symbols: int = 64,
        num_keywords: int = 4,
        task_seed: int = 0,
        split: str = "train",
    ) -> None:
        random = self._set_up(length, num_symbols, task_seed, split)
        check_size(self.name, "num_keywords", num_keywords, 1, min(length, num_symbols))
        order = splitmix64(random[0] ^ splitmix64(np.arange(num_symbols, dtype=np.uint64)))
        self.keywords = np.argsort(order, kind="stable")[:num_keywords].astype(np.int64)
        self.random_score = 1.0 - (1.0 - 1.0 / num_symbols) ** length

    def columns(self, prompt_ids: np.ndarray, index: np.ndarray) -> dict[str, Any]:
        return {"keywords_ids": np.broadcast_to(self.keywords, (len(prompt_ids), len(self.keywords)))}

    def oracle(self, prompt_ids: np.ndarray) -> np.ndarray:
        return np.tile(np.resize(self.keywords, self.max_new_tokens), (len(prompt_ids), 1))
