"""Records of a run, as wrappers of vector environments: the native one, ``SyncVectorEnv`` and ``AsyncVectorEnv``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from textenvs.wrappers.records import (
    BestText,
    FinishedEpisodes,
    LogRow,
    LogTable,
    TopTexts,
    check_rows,
    find_text_spec,
)

Step = tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]


class EpisodeLog(gym.vector.VectorWrapper):
    """As :class:`textenvs.wrappers.EpisodeLog`; episodes that end in one step are counted in the order of their
    sub-environments.

    Args:
        env: a vector environment in any autoreset mode.
        path: a CSV file that does not exist yet; None: the rows are kept in ``rows`` only.

    Raises:
        FileExistsError: ``path`` exists.
        ValueError: the environment does not say how it resets (``metadata["autoreset_mode"]``).
    """

    def __init__(self, env: gym.vector.VectorEnv, path: str | Path | None = None) -> None:
        super().__init__(env)
        self._mode = _autoreset_mode(env)
        self._table = LogTable(path)
        self._steps = 0
        self._lengths, self._returns = np.zeros(env.num_envs, dtype=np.int64), np.zeros(env.num_envs)
        self._over = np.zeros(env.num_envs, dtype=np.bool_)

    @property
    def rows(self) -> list[LogRow]:
        """The rows so far."""
        return self._table.rows

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the environment; episodes that were not finished are not counted."""
        begun = (options or {}).get("reset_mask", slice(None))  # now: SyncVectorEnv takes it out of the dict
        answer = super().reset(seed=seed, options=options)
        self._lengths[begun], self._returns[begun], self._over[begun] = 0, 0.0, False
        return answer

    def step(self, actions: Any) -> Step:
        """As the environment."""
        obs, rewards, terminations, truncations, infos = super().step(actions)
        if self._mode == AutoresetMode.NEXT_STEP and self._over.any():  # those were reset instead
            playing = ~self._over
            self._lengths += playing
            self._returns += np.where(playing, rewards, 0.0)
            self._steps += int(playing.sum())
        else:
            self._lengths += 1
            self._returns += rewards
            self._steps += self.num_envs
        self._over = terminations | truncations
        if self._over.any():
            index = np.flatnonzero(self._over)
            final = _final_infos(infos)
            finished = FinishedEpisodes(
                returns=self._returns[index],
                lengths=self._lengths[index],
                scores=_entries(final, "score", index, np.nan),
                gold_scores=_entries(final, "gold_score", index, np.nan),
                reasons=_entries(final, "finish_reason", index, None),
            )
            self._table.add(finished, self._steps)
            self._lengths[index], self._returns[index] = 0, 0.0
        return obs, rewards, terminations, truncations, infos

    def close(self, **arguments: Any) -> None:
        """Write the last row and close the environment."""
        self._table.flush(self._steps)
        super().close(**arguments)


class BestTexts(gym.vector.VectorWrapper):
    """As :class:`textenvs.wrappers.BestTexts`.

    Args:
        env: a vector environment of text environments, in any autoreset mode; wrappers that change observations belong
            above this one.
        k: how many texts to keep.

    Raises:
        TypeError: no text environment, or observations that are no rows of ids any more.
        ValueError: k is below 1.
    """

    def __init__(self, env: gym.vector.VectorEnv, k: int = 10) -> None:
        super().__init__(env)
        spec = find_text_spec(env, "BestTexts")
        check_rows(env, spec, env.single_observation_space, "BestTexts")
        self._top = TopTexts(spec, k)

    @property
    def best(self) -> list[BestText]:
        """The best texts so far, the highest score first."""
        return self._top.best

    def step(self, actions: Any) -> Step:
        """As the environment."""
        obs, rewards, terminations, truncations, infos = super().step(actions)
        index = np.flatnonzero(terminations | truncations)
        if index.size:
            rows = infos.get("final_obs", obs)
            scores = _entries(_final_infos(infos), "score", index, np.nan)
            self._top.add(np.stack([rows[i] for i in index.tolist()]), scores)
        return obs, rewards, terminations, truncations, infos


def _autoreset_mode(env: gym.vector.VectorEnv) -> AutoresetMode:
    mode = env.metadata.get("autoreset_mode")
    if not isinstance(mode, AutoresetMode):
        raise ValueError(f"{env} does not say how it resets: metadata['autoreset_mode'] is {mode!r}.")
    return mode


def _final_infos(infos: dict[str, Any]) -> dict[str, Any]:
    """Where the infos of episodes that have just ended stand: apart where the next ones have begun already."""
    final: dict[str, Any] = infos.get("final_info", infos)
    return final


def _entries(infos: dict[str, Any], name: str, index: np.ndarray, missing: Any) -> np.ndarray:
    """Entries of the sub-environments ``index`` [n] in a vector info; ``missing`` for those that have none."""
    dtype = object if missing is None else np.float64
    answer = np.full(len(index), missing, dtype=dtype)
    if name in infos:
        present = np.asarray(infos[f"_{name}"])[index]
        answer[present] = np.asarray(infos[name])[index][present]
    return answer
