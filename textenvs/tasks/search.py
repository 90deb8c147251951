"""Search tasks: no prompt, a hidden thing that comes from ``task_seed`` and must be found by writing."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from textenvs.episodes import Episodes
from textenvs.rng import TASK_STREAM, episode_keys, splitmix64, stream_base, subkeys
from textenvs.tasks.base import PromptlessTask, check_size, check_split
from textenvs.vocab import Vocab


class HiddenTask(PromptlessTask):
    """A task without prompts; what is hidden depends on ``task_seed`` alone, never on the seed of a reset."""

    optimum = 1.0

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


class TargetTask(HiddenTask):
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


class HiddenTarget(TargetTask):
    """Find a hidden text; the score is the fraction of positions right."""

    name = "HiddenTarget"
    default_reward = "match"

    def __init__(self, *, length: int = 8, num_symbols: int = 16, task_seed: int = 0, split: str = "train") -> None:
        super().__init__(length=length, num_symbols=num_symbols, task_seed=task_seed, split=split)
        self.random_score = 1.0 / num_symbols


class PrefixLock(TargetTask):
    """Open a combination lock; the score is the length of the correct prefix over the length of the whole."""

    name = "PrefixLock"
    default_reward = "prefix"

    def __init__(self, *, length: int = 8, num_symbols: int = 8, task_seed: int = 0, split: str = "train") -> None:
        super().__init__(length=length, num_symbols=num_symbols, task_seed=task_seed, split=split)
        self.random_score = sum(num_symbols**-n for n in range(1, length + 1)) / length


class Keywords(HiddenTask):
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


class BitModes(HiddenTask):
    """Write bits near any of several hidden texts; the score is the fraction of positions right against the nearest.

    The hidden texts are far apart, a quarter of the length or more, and each of them is an optimum. The terminal info
    counts in ``modes_found`` how many of them a sub-environment has written exactly since it was seeded: a policy that
    repeats one text is as good by its score, and worse by that. After the bit sequences of Malkin et al. (2022,
    "Trajectory balance", arXiv 2201.13259).

    The random score is exact up to 16 bits, else the mean of 65,536 texts, right to within 0.002.

    Args:
        length: bits of the text.
        num_modes: how many texts are hidden, at most the largest power of two that is not above ``length``.
        task_seed: chooses the hidden texts.
        split: only ``"train"``: there is no prompt to hold out.
    """

    name = "BitModes"
    default_reward = "nearest_mode"

    def __init__(self, *, length: int = 16, num_modes: int = 4, task_seed: int = 0, split: str = "train") -> None:
        random = self._set_up(length, 2, task_seed, split)
        check_size(self.name, "num_modes", num_modes, 1, 2 ** (length.bit_length() - 1))
        self.memory_size = num_modes
        # Rows of a Hadamard matrix differ in half of their places; columns are shuffled, and a random text is added.
        column = np.argsort(splitmix64(random), kind="stable")
        parity = np.array([[(i & int(j)).bit_count() % 2 for j in column] for i in range(num_modes)], dtype=np.int64)
        self.modes = parity ^ (random & np.uint64(1)).astype(np.int64)

    @cached_property
    def random_score(self) -> float:  # type: ignore[override]  # computed when asked for
        """Mean score of uniformly random bits."""
        length = self.max_new_tokens
        if length <= 16:
            texts = np.arange(2**length)[:, None] >> np.arange(length) & 1
        else:
            texts = (subkeys(np.arange(2**16, dtype=np.uint64), length) >> np.uint64(63)).astype(np.int64)
        nearest = np.max([(texts == mode).sum(axis=1) for mode in self.modes], axis=0)
        return float(nearest.mean() / length)

    def columns(self, prompt_ids: np.ndarray, index: np.ndarray) -> dict[str, Any]:
        return {"modes": np.broadcast_to(self.modes, (len(prompt_ids), *self.modes.shape))}

    def oracle(self, prompt_ids: np.ndarray) -> np.ndarray:
        return np.tile(self.modes[0], (len(prompt_ids), 1))

    def remember(self, memory: np.ndarray, episodes: Episodes) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        written = (episodes.completion_ids[:, None, :] == self.modes).all(axis=2)
        found = memory | written
        return found, {"modes_found": found.sum(axis=1)}
