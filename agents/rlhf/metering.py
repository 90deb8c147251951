"""Scores of the gold judge over training, seen on the environment's side."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import VectorWrapper

from agents import distributed


class GoldMeter(VectorWrapper):
    """Collects ``gold_score`` of the episodes that end in a vector environment in SAME_STEP mode."""

    def __init__(self, envs: Any) -> None:
        super().__init__(envs)
        self._scores: list[np.ndarray] = []

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        result = super().step(actions)
        ended = result[4].get("final_info", {})
        if "gold_score" in ended:
            self._scores.append(ended["gold_score"][ended["_gold_score"]])
        return result

    def take_mean(self) -> float:
        """Mean since the last call, over all processes; NaN if no episode with a gold score has ended."""
        scores = np.concatenate([np.zeros(0), *(part for parts in distributed.gather(self._scores) for part in parts)])
        self._scores.clear()
        return float(scores.mean()) if len(scores) else float("nan")
