"""Tasks written by hand as a plain ``gymnasium.Env``: the peers of the speed benchmark.

They are as lean as the interface allows: no checks, no infos but masks, plain Python numbers on the step path, and
under a vector environment no copies. Prompts are drawn from Gymnasium's own generator, so the episodes are not those of
our environments; the tasks are the same.
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


class HandwrittenDyckMasked(gym.Env[np.ndarray, np.int64]):
    """Write balanced brackets whose kinds open in the order of the prompt, under a mask of what can still balance.

    Args:
        length: pairs of brackets.
        num_kinds: kinds of brackets.
        copy: as for ``HandwrittenReverse``, of the mask too.
    """

    def __init__(self, length: int = 4, num_kinds: int = 3, copy: bool = False) -> None:
        self.length, self.num_kinds, self.copy = length, num_kinds, copy
        self.pad_id = 2 * num_kinds
        self.end = 3 * length
        self.action_space = spaces.Discrete(self.pad_id)
        self.observation_space = spaces.MultiDiscrete(np.full(self.end, self.pad_id + 1))
        self.mask = np.zeros(self.pad_id, dtype=np.int8)
        self.info = {"action_mask": self.mask}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        if seed is not None:
            super().reset(seed=seed)
        prompt = self.np_random.integers(self.num_kinds, size=self.length)
        self.row = np.full(self.end, self.pad_id)
        self.row[: self.length] = prompt
        self.prompt = prompt.tolist()
        self.column, self.opened, self.right = self.length, 0, 0
        self.stack: list[tuple[int, bool]] = []
        self.mask[: self.num_kinds] = 1
        self.mask[self.num_kinds :] = 0
        return (self.row.copy(), {"action_mask": self.mask.copy()}) if self.copy else (self.row, self.info)

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        kinds, stack = self.num_kinds, self.stack
        legal = self.mask[action]
        self.row[self.column] = action
        self.column += 1
        if legal:
            if stack:
                self.mask[kinds + stack[-1][0]] = 0
            if action < kinds:
                stack.append((int(action), action == self.prompt[self.opened]))
                self.opened += 1
                if self.opened == self.length:
                    self.mask[:kinds] = 0
            else:
                self.right += stack.pop()[1]
            if stack:
                self.mask[kinds + stack[-1][0]] = 1
        obs, info = (self.row.copy(), {"action_mask": self.mask.copy()}) if self.copy else (self.row, self.info)
        if not legal:
            return obs, 0.0, True, False, info
        if self.column == self.end:
            self.mask[:] = 1
            return obs, self.right / self.length, True, False, info
        return obs, 0.0, False, False, info


class HandwrittenAddition(gym.Env[np.ndarray, np.int64]):
    """Add two numbers, character by character; at the end, the fraction of positions right.

    Args:
        digits: most digits of an operand.
        copy: as for ``HandwrittenReverse``.
    """

    def __init__(self, digits: int = 2, copy: bool = False) -> None:
        self.digits, self.copy = digits, copy
        self.ids = {character: i for i, character in enumerate("0123456789+=")}
        self.eos, self.pad_id = 12, 13
        self.start, self.end = 2 * digits + 2, 3 * digits + 4
        self.action_space = spaces.Discrete(self.pad_id)
        self.observation_space = spaces.MultiDiscrete(np.full(self.end, self.pad_id + 1))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        if seed is not None:
            super().reset(seed=seed)
        a, b = self._operand(), self._operand()
        prompt = [self.ids[character] for character in f"{a}+{b}="]
        self.row = np.full(self.end, self.pad_id)
        self.row[self.start - len(prompt) : self.start] = prompt
        self.target = [*map(int, str(a + b)), self.eos]
        self.column, self.right = self.start, 0
        return self.row.copy() if self.copy else self.row, {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        written = self.column - self.start
        self.row[self.column] = action
        self.column += 1
        if written < len(self.target) and action == self.target[written]:
            self.right += 1
        obs = self.row.copy() if self.copy else self.row
        if action == self.eos or self.column == self.end:
            return obs, self.right / max(written + 1, len(self.target)), True, False, {}
        return obs, 0.0, False, False, {}

    def _operand(self) -> int:
        digits = int(self.np_random.integers(1, self.digits + 1))
        return int(self.np_random.integers(10 ** (digits - 1) if digits > 1 else 0, 10**digits))
