"""Records of a run, as wrappers of scalar environments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from textenvs.wrappers.records import (
    BestText,
    FinishedEpisodes,
    LogRow,
    LogTable,
    TopTexts,
    check_rows,
    find_text_spec,
)


class EpisodeLog(gym.Wrapper[np.ndarray, Any, np.ndarray, Any], gym.utils.RecordConstructorArgs):
    """Rows about the episodes at log-spaced episode numbers, written by the environment, so that every agent is
    measured alike (after bsuite, Osband et al. 2020, arXiv 1908.03568).

    A row stands at episodes 1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, … and averages those since the row before; see
    :class:`~textenvs.wrappers.records.LogRow` for the columns. ``close()`` adds a row of the episodes since the last.

    Args:
        env: a text environment, or any other (scores are then missing).
        path: a CSV file that does not exist yet (a run that is resumed goes on in another one); None: the rows are kept
            in ``rows`` only.

    Raises:
        FileExistsError: ``path`` exists.
    """

    def __init__(self, env: gym.Env[Any, Any], path: str | Path | None = None) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, path=path)
        super().__init__(env)
        self._table = LogTable(path)
        self._steps, self._length, self._return = 0, 0, 0.0

    @property
    def rows(self) -> list[LogRow]:
        """The rows so far."""
        return self._table.rows

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the environment; an episode that was not finished is not counted."""
        self._length, self._return = 0, 0.0
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the environment."""
        obs, reward, terminated, truncated, info = super().step(action)
        self._steps, self._length, self._return = self._steps + 1, self._length + 1, self._return + float(reward)
        if terminated or truncated:
            finished = FinishedEpisodes(
                returns=np.array([self._return]),
                lengths=np.array([self._length]),
                scores=np.array([info.get("score", np.nan)]),
                gold_scores=np.array([info.get("gold_score", np.nan)]),
                reasons=np.array([info.get("finish_reason")], dtype=object),
            )
            self._table.add(finished, self._steps)
            self._length, self._return = 0, 0.0
        return obs, reward, terminated, truncated, info

    def close(self) -> None:
        """Write the last row and close the environment."""
        self._table.flush(self._steps)
        super().close()


class BestTexts(gym.Wrapper[np.ndarray, Any, np.ndarray, Any], gym.utils.RecordConstructorArgs):
    """The k best different texts of a run, by their scores.

    Args:
        env: a text environment; wrappers that change observations belong above this one.
        k: how many texts to keep.

    Raises:
        TypeError: no text environment, or observations that are no rows of ids any more.
        ValueError: k is below 1.
    """

    def __init__(self, env: gym.Env[Any, Any], k: int = 10) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, k=k)
        super().__init__(env)
        spec = find_text_spec(env, "BestTexts")
        check_rows(env, spec, env.observation_space, "BestTexts")
        self._top = TopTexts(spec, k)

    @property
    def best(self) -> list[BestText]:
        """The best texts so far, the highest score first."""
        return self._top.best

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the environment."""
        obs, reward, terminated, truncated, info = super().step(action)
        if terminated or truncated:
            self._top.add(np.asarray(obs)[None], np.array([info.get("score", np.nan)]))
        return obs, reward, terminated, truncated, info
