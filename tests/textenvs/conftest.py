"""What the environment tests share: variants of every task, a task with masks, comparisons of infos."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from textenvs.tasks import Task
from textenvs.tasks.base import check_split
from textenvs.vocab import Vocab


class NoRepeats(Task):
    """A task with masks: never write a symbol twice in a row, and EOS not first. Prompt d, target "d d+1 EOS"."""

    name = "NoRepeats"
    default_reward = "match"
    optimum = 1.0
    random_score = float("nan")  # no closed form
    has_masks = True

    def __init__(self, *, num_symbols: int = 3, length: int = 4, split: str = "train") -> None:
        self.split = check_split(self.name, split, has_prompts=False)
        self.num_symbols = num_symbols
        self.vocab = Vocab.symbols(num_symbols, eos=True)
        self.prompt_length, self.max_new_tokens = 1, length

    def draw(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        index = (keys % np.uint64(self.num_symbols)).astype(np.int64)
        return index[:, None], index

    def prompts_at(self, index: np.ndarray) -> np.ndarray:
        if index.size and not 0 <= index.min() <= index.max() < self.num_symbols:
            raise ValueError(f"index must lie in 0 … {self.num_symbols - 1}.")
        return index[:, None]

    def columns(self, prompt_ids: np.ndarray, index: np.ndarray) -> dict[str, Any]:
        return {"target_ids": self.oracle(prompt_ids), "number": index}

    def oracle(self, prompt_ids: np.ndarray) -> np.ndarray:
        rows = np.full((len(prompt_ids), self.max_new_tokens), self.pad_id)
        rows[:, 0] = prompt_ids[:, 0]
        rows[:, 1] = (prompt_ids[:, 0] + 1) % self.num_symbols
        rows[:, 2] = self.vocab.eos_ids[0]
        return rows

    def action_masks(self, rows: np.ndarray, written: np.ndarray) -> np.ndarray:
        masks = np.ones((len(rows), len(self.vocab)), dtype=np.bool_)
        begun = np.flatnonzero(written > 0)
        masks[begun, rows[begun, self.prompt_length + written[begun] - 1]] = False
        masks[written == 0, self.vocab.eos_ids[0]] = False
        return masks


def odd_texts_only(completions: list[str], **columns: Any) -> list[float | None]:
    """A part of a score that applies to texts of odd length."""
    return [len(text) / 10 if len(text) % 2 else None for text in completions]


VARIANTS: dict[str, Callable[[], dict[str, Any]]] = {
    "Copy": lambda: {"task": "Copy"},
    "Reverse": lambda: {"task": "Reverse"},
    "Sort": lambda: {"task": "Sort"},
    "HiddenTarget": lambda: {"task": "HiddenTarget"},
    "PrefixLock": lambda: {"task": "PrefixLock", "num_symbols": 2},
    "Keywords": lambda: {"task": "Keywords", "num_symbols": 6},
    "Copy-eos": lambda: {"task": "Copy", "length": 5, "num_symbols": 4, "min_length": 2, "split": "test"},
    "Reverse-eos": lambda: {"task": "Reverse", "length": 4, "num_symbols": 3, "min_length": 1},
    "Sort-eos": lambda: {"task": "Sort", "length": 3, "num_symbols": 3, "min_length": 2, "info_text": True},
    "Copy-long": lambda: {"task": "Copy", "length": 40, "num_symbols": 8},  # prompts beyond 64 bits
    "BitModes": lambda: {"task": "BitModes", "length": 4, "num_modes": 3},  # found often, and not by all
    "Dyck": lambda: {"task": "Dyck", "length": 2, "num_kinds": 2},
    "DyckMasked": lambda: {"task": "DyckMasked", "length": 2, "num_kinds": 2},
    "Palindrome": lambda: {"task": "Palindrome", "length": 2, "num_symbols": 4},
    "PalindromeMasked": lambda: {"task": "PalindromeMasked", "length": 2, "num_symbols": 4},
    "Anagram": lambda: {"task": "Anagram", "length": 3, "num_symbols": 4, "split": "test"},
    "AnagramMasked": lambda: {"task": "AnagramMasked", "length": 3, "num_symbols": 4},
    "ModSum": lambda: {"task": "ModSum"},
    "Addition": lambda: {"task": "Addition", "info_text": True},
    "Countdown": lambda: {"task": "Countdown", "num_numbers": 2},
    "RandomWalk": lambda: {"task": "RandomWalk", "num_nodes": 6, "edge_probability": 0.5, "max_steps": 3},
    "RandomWalkMasked": lambda: {"task": "RandomWalkMasked", "num_nodes": 6, "edge_probability": 0.5, "max_steps": 3},
    "NoisyReverse": lambda: {"task": "NoisyReverse", "length": 2, "num_symbols": 3, "min_length": 1},
    "RewardSwap": lambda: {"task": "RewardSwap", "length": 2, "num_symbols": 3, "swap_at": 4},
    "Deceptive": lambda: {"task": "Deceptive"},
    "ProbeBoth": lambda: {"task": "ProbeBoth"},
    "ProbeMask": lambda: {"task": "ProbeMask"},
    "masks": lambda: {"task": NoRepeats(), "invalid_reward": -0.5},
    "masks-text": lambda: {"task": NoRepeats(num_symbols=2, length=3), "info_text": True},
    "weighted": lambda: {
        "task": "Reverse",
        "length": 3,
        "num_symbols": 2,
        "min_length": 1,
        "reward": [(0.75, "match"), (1.0, odd_texts_only), (0.0, "prefix")],
    },
}
"""Arguments of ``TextEnv`` and ``TextVectorEnv``: every task, and every way in which episodes differ."""


@pytest.fixture(params=list(VARIANTS))
def variant(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Arguments of one variant."""
    return VARIANTS[request.param]()


@pytest.fixture
def masked_task() -> type[NoRepeats]:
    """The class of the task with masks."""
    return NoRepeats


def _assert_equal(one: Any, two: Any, where: str) -> None:
    assert type(one) is type(two), f"{where}: {type(one)} != {type(two)}"
    if isinstance(one, dict):
        assert one.keys() == two.keys(), f"{where}: {sorted(one)} != {sorted(two)}"
        for key in one:
            _assert_equal(one[key], two[key], f"{where}[{key!r}]")
    elif isinstance(one, tuple):
        assert len(one) == len(two), f"{where}: {len(one)} != {len(two)} entries"
        for i, (left, right) in enumerate(zip(one, two, strict=True)):
            _assert_equal(left, right, f"{where}[{i}]")
    elif isinstance(one, np.ndarray):
        assert one.dtype == two.dtype, f"{where}: {one.dtype} != {two.dtype}"
        assert one.shape == two.shape, f"{where}: {one.shape} != {two.shape}"
        assert np.array_equal(one, two), f"{where}: {one} != {two}"
    else:
        assert one == two, f"{where}: {one!r} != {two!r}"


@pytest.fixture
def assert_same() -> Callable[[Any, Any], None]:
    """Compares nested dicts and tuples of arrays and scalars: keys, types, dtypes, shapes and values."""
    return lambda one, two: _assert_equal(one, two, "here")


def _of_sub_env(infos: dict[str, Any], i: int) -> dict[str, Any]:
    """What a vector environment's infos say about sub-environment i."""
    return {
        key: _of_sub_env(value, i) if isinstance(value, dict) else value[i]
        for key, value in infos.items()
        if not key.startswith("_") and infos[f"_{key}"][i]
    }


@pytest.fixture
def of_sub_env() -> Callable[[dict[str, Any], int], dict[str, Any]]:
    """Picks the infos of one sub-environment."""
    return _of_sub_env
