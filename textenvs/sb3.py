"""The native vector environment for Stable-Baselines3, which has a vector interface of its own."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from textenvs.vector import TextVectorEnv

try:
    from stable_baselines3.common.vec_env import VecEnv
except ImportError as error:
    raise ImportError(
        "as_sb3_vec_env needs Stable-Baselines3: pip install stable-baselines3 (the extra 'test' has it too)."
    ) from error


class TextVecEnv(VecEnv):
    """A ``TextVectorEnv`` as a ``VecEnv``: one call of the engine for all sub-environments.

    At the end of an episode ``infos[i]`` holds what the scalar environment's ``info`` would, ``terminal_observation``,
    and ``episode`` (return, length and time) for Stable-Baselines3's statistics.
    """

    def __init__(self, envs: TextVectorEnv) -> None:
        if envs.autoreset_mode != AutoresetMode.SAME_STEP:
            raise ValueError(
                f"Stable-Baselines3 begins the next episode in the same step: make the environment with "
                f"autoreset_mode='SameStep', not {envs.autoreset_mode.value!r}."
            )
        self.envs = envs
        self.render_mode = envs.render_mode
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)
        self._started = time.time()

    def reset(self) -> np.ndarray:
        seeds = None if all(seed is None for seed in self._seeds) else self._seeds
        obs, _ = self.envs.reset(seed=seeds)
        self._reset_seeds()
        self._reset_options()
        return obs

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        obs, rewards, terminations, _, info = self.envs.step(self._actions)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if "final_info" in info:
            final, ended = info["final_info"], np.flatnonzero(info["_final_info"]).tolist()
            seconds = round(time.time() - self._started, 6)
            for i in ended:
                infos[i] = _row(final, i)
                infos[i]["terminal_observation"] = info["final_obs"][i]
                infos[i]["TimeLimit.truncated"] = False
                infos[i]["episode"] = {"r": float(rewards[i]), "l": int(final["length"][i]), "t": seconds}
        return obs, rewards.astype(np.float32), terminations, infos

    def action_masks(self) -> np.ndarray:
        """Legal actions bool [N, V] in the present states."""
        return self.envs.action_masks()

    def close(self) -> None:
        self.envs.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self.envs, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        self._all_or_error(indices)
        setattr(self.envs, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        if method_name == "action_masks":
            return list(self.envs.action_masks()[list(self._get_indices(indices))])
        self._all_or_error(indices)
        result = getattr(self.envs, method_name)(*args, **kwargs)
        return [result] * self.num_envs

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        # Episode statistics are in the infos already, as Monitor would put them there.
        from stable_baselines3.common.monitor import Monitor

        return [issubclass(wrapper_class, Monitor)] * len(list(self._get_indices(indices)))

    def _all_or_error(self, indices: Any) -> None:
        if len(list(self._get_indices(indices))) != self.num_envs:
            raise ValueError("The sub-environments share one engine: attributes and methods are those of all of them.")


def _row(info: dict[str, Any], i: int) -> dict[str, Any]:
    """Row i of a vector info, as the scalar environment's info."""
    row: dict[str, Any] = {}
    for name, value in info.items():
        mask = info.get(f"_{name}")
        if mask is not None and mask[i]:
            row[name] = _row(value, i) if isinstance(value, dict) else value[i]
    return row
