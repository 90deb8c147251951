"""Environments that several tests of the agents share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from textenvs import Task, Vocab


class NoRepeat(Task):
    """Write symbols, never the same twice in a row (a mask says so); the score is the share of symbol 0."""

    name = "NoRepeat"
    default_reward = staticmethod(lambda prompts, completions: [text.count("0") / 4 for text in completions])
    prompt_length = 0
    max_new_tokens = 4
    has_masks = True
    random_score = 1 / 3
    optimum = 0.5

    def __init__(self) -> None:
        self.vocab = Vocab.symbols(3)

    def draw(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((len(keys), 0), dtype=np.int64), np.full(len(keys), -1)

    def prompts_at(self, index: np.ndarray) -> np.ndarray:
        raise ValueError("no prompts")

    def columns(self, prompt_ids: np.ndarray, index: np.ndarray) -> dict[str, Any]:
        return {}

    def oracle(self, prompt_ids: np.ndarray) -> np.ndarray:
        return np.tile([0, 1, 0, 2], (len(prompt_ids), 1))

    def action_masks(self, rows: np.ndarray, written: np.ndarray) -> np.ndarray:
        last = np.where(written > 0, rows[np.arange(len(rows)), np.maximum(written - 1, 0)], -1)
        return np.arange(3) != last[:, None]


@pytest.fixture
def masked_task() -> Task:
    return NoRepeat()
