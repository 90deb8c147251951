"""Reverse, written by hand as a plain ``gymnasium.Env``: the peer of the speed benchmark.

It is as lean as the interface allows: no checks, no infos, plain Python numbers on the step path, and under a vector
environment no copies. Prompts are drawn from Gymnasium's own generator, so the episodes are not those of
``textenvs/Reverse-v0``; the task is the same.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class HandwrittenReverse(gym.Env[np.ndarray, np.int64]):
    """Write the prompt backwards; at the end, the fraction of positions right.

    Args:
        length: symbols of the (longest) prompt.
        num_symbols: size of the alphabet.
        min_length: shortest prompt; below ``length`` the text ends with EOS, one more token and position.
        copy: whether every observation is a new array, as Gymnasium asks of an environment. A vector environment
            copies them at once, so there it is not needed.
    """

    def __init__(
        self, length: int = 4, num_symbols: int = 8, min_length: int | None = None, copy: bool = False
    ) -> None:
        self.length, self.num_symbols, self.copy = length, num_symbols, copy
        self.min_length = length if min_length is None else min_length
        has_eos = self.min_length < length
        self.eos = num_symbols if has_eos else -1
        self.pad_id = num_symbols + has_eos
        self.end = 2 * length + has_eos
        self.action_space = spaces.Discrete(self.pad_id)
        self.observation_space = spaces.MultiDiscrete(np.full(self.end, self.pad_id + 1))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        if seed is not None:
            super().reset(seed=seed)
        count = self.length if self.eos < 0 else int(self.np_random.integers(self.min_length, self.length + 1))
        prompt = self.np_random.integers(self.num_symbols, size=count)
        self.row = np.full(self.end, self.pad_id)
        self.row[self.length - count : self.length] = prompt
        self.target = prompt[::-1].tolist()
        if self.eos >= 0:
            self.target.append(self.eos)
        self.column, self.right = self.length, 0
        return self.row.copy() if self.copy else self.row, {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        written = self.column - self.length
        self.row[self.column] = action
        self.column += 1
        if written < len(self.target) and action == self.target[written]:
            self.right += 1
        obs = self.row.copy() if self.copy else self.row
        if action == self.eos or self.column == self.end:
            return obs, self.right / max(written + 1, len(self.target)), True, False, {}
        return obs, 0.0, False, False, {}
