"""Counting on the environment's side: every agent is measured alike, whatever it says about itself."""

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper


class Accounting(VectorWrapper):
    """Counts the tokens, episodes and scores of a vector environment in SAME_STEP mode.

    Attributes:
        timesteps: tokens written in all sub-environments.
        episodes: finished episodes.

    Raises:
        ValueError: another autoreset mode, in which some steps write nothing.
    """

    def __init__(self, envs: VectorEnv) -> None:
        super().__init__(envs)
        mode = envs.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise ValueError(f"accounting needs AutoresetMode.SAME_STEP, got {mode}.")
        self.timesteps = 0
        self.episodes = 0
        self._score_sum = 0.0
        self._score_count = 0

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        obs, rewards, terminations, truncations, info = super().step(actions)
        self.timesteps += self.num_envs
        count = int(np.count_nonzero(terminations | truncations))
        if count:
            self.episodes += count
            self._score_count += count
            self._score_sum += float(rewards.sum())  # 0 before the end of a text, its score there
        return obs, rewards, terminations, truncations, info

    def take_mean_score(self) -> float:
        """Mean score of the episodes that ended since the last call; NaN if there were none."""
        mean = self._score_sum / self._score_count if self._score_count else float("nan")
        self._score_sum, self._score_count = 0.0, 0
        return mean
