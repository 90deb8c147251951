"""Probes: environments so small that the first one which an agent fails names its mistake. See docs/probes.md."""

from __future__ import annotations

from typing import Any

import numpy as np

from textenvs.tasks.base import PromptlessTask, PromptSetTask, check_split
from textenvs.tasks.prompts import SymbolPrompts
from textenvs.vocab import Vocab


class _PromptlessProbe(PromptlessTask):
    """A probe of one state after the other.

    Args:
        split: only ``"train"``: there is no prompt to hold out.
    """

    default_reward: Any = {"name": "column", "low": 0.0, "high": 1.0}
    optimum = 1.0
    num_tokens = 2

    def __init__(self, *, split: str = "train") -> None:
        self.split = check_split(self.name, split, has_prompts=False)
        self.vocab = Vocab.symbols(self.num_tokens)

    def columns(self, prompt_ids: np.ndarray, index: np.ndarray) -> dict[str, Any]:
        return {"value": np.ones(len(prompt_ids))}

    def oracle(self, prompt_ids: np.ndarray) -> np.ndarray:
        return np.zeros((len(prompt_ids), self.max_new_tokens), dtype=np.int64)


class _PromptProbe(PromptSetTask):
    """A probe whose prompt is five bits, of which the last one counts; the others only make a test split possible.

    Args:
        split: ``"train"`` or ``"test"``.
    """

    default_reward: Any = {"name": "column", "low": 0.0, "high": 1.0}
    max_new_tokens = 1
    random_score = 0.5  # as many prompts end in 1 as in 0, in either split

    def __init__(self, *, split: str = "train") -> None:
        self.split = check_split(self.name, split, has_prompts=True)
        self.vocab = Vocab.symbols(2)
        self.prompt_length = 5
        self.prompt_set = SymbolPrompts(num_symbols=2, length=5, min_length=5, split=split, pad_id=self.pad_id)

    def columns(self, prompt_ids: np.ndarray, index: np.ndarray) -> dict[str, Any]:
        return {"value": prompt_ids[:, -1].astype(np.float64)}

    def oracle(self, prompt_ids: np.ndarray) -> np.ndarray:
        return prompt_ids[:, -1:].copy()


class ProbeConstant(_PromptlessProbe):
    """One token, and whatever it is the score is 1: the value of the only state is 1."""

    name = "ProbeConstant"
    max_new_tokens = 1
    random_score = 1.0


class ProbeObservation(_PromptProbe):
    """One token, and whatever it is the score is the prompt's last bit: so is the value."""

    name = "ProbeObservation"
    optimum = 0.5


class ProbeDiscount(_PromptlessProbe):
    """Two tokens, and whatever they are the score is 1: the value of the first state is γ, of the second 1."""

    name = "ProbeDiscount"
    max_new_tokens = 2
    random_score = 1.0


class ProbeAction(_PromptlessProbe):
    """One token: 1 scores 1, 0 scores 0."""

    name = "ProbeAction"
    default_reward = "match"
    max_new_tokens = 1
    random_score = 0.5

    def columns(self, prompt_ids: np.ndarray, index: np.ndarray) -> dict[str, Any]:
        return {"target_ids": self.oracle(prompt_ids)}

    def oracle(self, prompt_ids: np.ndarray) -> np.ndarray:
        return np.ones((len(prompt_ids), 1), dtype=np.int64)


class ProbeBoth(_PromptProbe):
    """One token: the prompt's last bit scores 1, the other one 0."""

    name = "ProbeBoth"
    default_reward = "match"
    optimum = 1.0

    def columns(self, prompt_ids: np.ndarray, index: np.ndarray) -> dict[str, Any]:
        return {"target_ids": self.oracle(prompt_ids)}


class ProbeMask(_PromptlessProbe):
    """Two tokens under a mask: first 0 or 1, then any but the first one again; ``02`` scores 1, half of it 0.5."""

    name = "ProbeMask"
    default_reward = "match"
    num_tokens = 3
    max_new_tokens = 2
    has_masks = True
    random_score = 0.5

    def columns(self, prompt_ids: np.ndarray, index: np.ndarray) -> dict[str, Any]:
        return {"target_ids": self.oracle(prompt_ids)}

    def oracle(self, prompt_ids: np.ndarray) -> np.ndarray:
        return np.tile(np.array([0, 2]), (len(prompt_ids), 1))

    def action_masks(self, rows: np.ndarray, written: np.ndarray) -> np.ndarray:
        token = np.arange(3)
        return np.where((written == 0)[:, None], token < 2, token != rows[:, :1])
