"""Tasks that are hard to learn from: noise, a judge that changes, long texts, many tokens, a lure."""

from __future__ import annotations

from math import comb
from typing import Any

import numpy as np

from textenvs.rng import TASK_STREAM, episode_keys, stream_base
from textenvs.tasks.base import check_size
from textenvs.tasks.copying import Copy, Reverse
from textenvs.tasks.search import HiddenTask, Keywords, TargetTask


class NoisyReverse(Reverse):
    """Write the prompt backwards for a judge that is sometimes wrong: with a known probability the score is flipped.

    What is paid is 1 − score for a share ``noise`` of the texts, the clean score is reported as ``gold_score``.
    Optimum and random score are those of what is paid.

    Args:
        noise: share of the texts whose score is flipped, below 0.5.
        length, num_symbols, min_length, split: as for ``Reverse``.
    """

    name = "NoisyReverse"

    def __init__(
        self,
        *,
        noise: float = 0.2,
        length: int = 4,
        num_symbols: int = 8,
        min_length: int | None = None,
        split: str = "train",
    ) -> None:
        super().__init__(length=length, num_symbols=num_symbols, min_length=min_length, split=split)
        if isinstance(noise, bool) or not isinstance(noise, int | float) or not 0 <= noise < 0.5:
            raise ValueError(f"{self.name}: noise must be a number in [0, 0.5), got {noise!r}.")
        self.default_reward = {"name": "noise", "reward": "match", "probability": float(noise)}
        self.optimum = 1.0 - noise
        self.random_score = (1.0 - noise) * self.random_score + noise * (1.0 - self.random_score)


class RewardSwap(TargetTask):
    """Find a hidden text; from a certain episode of each sub-environment on, the judge wants another one.

    The score is the fraction of positions right, before and after. The second text differs from the first at every
    place, so that what was best scores 0. The change shows in the scores alone. In the terminal info ``prompt_index``
    is the number of the text that was wanted, 0 or 1, so that a replay buffer can tell, or be judged again.

    An agent is evaluated on the first text by default, and on the second in an environment with ``swap_at=0``.

    Args:
        swap_at: number, from 0 under each seed, of the first episode that is judged by the second text.
        length: symbols of the text.
        num_symbols: size of the alphabet.
        task_seed: chooses both texts.
        split: only ``"train"``: there is no prompt to hold out.
    """

    name = "RewardSwap"
    default_reward = "match"

    def __init__(
        self,
        *,
        swap_at: int = 200,
        length: int = 6,
        num_symbols: int = 8,
        task_seed: int = 0,
        split: str = "train",
    ) -> None:
        super().__init__(length=length, num_symbols=num_symbols, task_seed=task_seed, split=split)
        self.swap_at = check_size(self.name, "swap_at", swap_at, 0)
        self.targets = np.stack([self.target, other_text(self.target, num_symbols, task_seed)])
        self.random_score = 1.0 / num_symbols

    def draw_episodes(self, keys: np.ndarray, episodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((len(keys), 0), dtype=np.int64), (episodes >= self.swap_at).astype(np.int64)

    def columns(self, prompt_ids: np.ndarray, index: np.ndarray) -> dict[str, Any]:
        return {"target_ids": self.targets[np.maximum(index, 0)]}

    def oracle(self, prompt_ids: np.ndarray) -> np.ndarray:
        return np.tile(self.targets[int(self.swap_at == 0)], (len(prompt_ids), 1))


class LongCopy(Copy):
    """Write a long prompt again: 128 tokens or more.

    Args:
        length: symbols of the (longest) prompt, at least 128.
        num_symbols, min_length, split: as for ``Copy``.
    """

    name = "LongCopy"

    def __init__(
        self, *, length: int = 128, num_symbols: int = 8, min_length: int | None = None, split: str = "train"
    ) -> None:
        check_size(self.name, "length", length, 128)
        super().__init__(length=length, num_symbols=num_symbols, min_length=min_length, split=split)


class BigVocab(Keywords):
    """Use hidden keywords out of a vocabulary as large as a language model's: 4,096 tokens or more.

    Args:
        length: tokens of the text.
        num_symbols: size of the alphabet, at least 4,096.
        num_keywords, task_seed, split: as for ``Keywords``.
    """

    name = "BigVocab"

    def __init__(
        self,
        *,
        length: int = 64,
        num_symbols: int = 4_096,
        num_keywords: int = 8,
        task_seed: int = 0,
        split: str = "train",
    ) -> None:
        check_size(self.name, "num_symbols", num_symbols, 4_096)
        super().__init__(
            length=length, num_symbols=num_symbols, num_keywords=num_keywords, task_seed=task_seed, split=split
        )


class Deceptive(HiddenTask):
    """Find a hidden text that pays as a whole prefix only, beside a lure that pays from its first token on.

    The score is the larger of the correct prefix's share of the target, and ``lure`` times the fraction of positions
    that equal the lure, which differs from the target at every place. Climbing where it pays at once ends at ``lure``.

    Args:
        length: symbols of the text.
        num_symbols: size of the alphabet.
        lure: score of the whole lure, below 1.
        task_seed: chooses target and lure.
        split: only ``"train"``: there is no prompt to hold out.
    """

    name = "Deceptive"

    def __init__(
        self, *, length: int = 6, num_symbols: int = 4, lure: float = 0.6, task_seed: int = 0, split: str = "train"
    ) -> None:
        random = self._set_up(length, num_symbols, task_seed, split)
        if isinstance(lure, bool) or not isinstance(lure, int | float) or not 0 <= lure < 1:
            raise ValueError(f"{self.name}: lure must be a number in [0, 1), got {lure!r}.")
        self.default_reward = {"name": "lure", "pays": float(lure)}
        self.target = (random % np.uint64(num_symbols)).astype(np.int64)
        self.lure = other_text(self.target, num_symbols, task_seed)
        self.random_score = random_lure_score(length, num_symbols, lure)

    def columns(self, prompt_ids: np.ndarray, index: np.ndarray) -> dict[str, Any]:
        shape = (len(prompt_ids), self.max_new_tokens)
        return {"target_ids": np.broadcast_to(self.target, shape), "lure_ids": np.broadcast_to(self.lure, shape)}

    def oracle(self, prompt_ids: np.ndarray) -> np.ndarray:
        return np.tile(self.target, (len(prompt_ids), 1))


def other_text(text: np.ndarray, num_symbols: int, task_seed: int) -> np.ndarray:
    """A hidden text that differs from ``text`` at every place."""
    base = stream_base(np.array([task_seed % 2**64], dtype=np.uint64), TASK_STREAM)
    random = episode_keys(base, len(text) + np.arange(len(text)))  # beyond the numbers that made the first
    return (text + 1 + (random % np.uint64(num_symbols - 1)).astype(np.int64)) % num_symbols


def random_lure_score(length: int, num_symbols: int, pays: float) -> float:
    """Expected ``lure`` score of uniform actions, in closed form.

    The correct prefix has k tokens with probability (1 − 1/S) S^−k. The token that breaks it is the lure's with
    probability 1/(S − 1), each later one with 1/S.
    """
    chance = 1.0 / num_symbols
    total = chance**length  # the whole target, which scores 1
    for k in range(length):
        later = length - k - 1
        counts = [comb(later, m) * chance**m * (1.0 - chance) ** (later - m) for m in range(later + 1)]
        at_break = 1.0 / (num_symbols - 1)
        for m, p in enumerate(counts):
            for extra, q in ((1, at_break), (0, 1.0 - at_break)):
                total += chance**k * (1.0 - chance) * p * q * max(pays * (m + extra) / length, k / length)
    return total
