"""Adapters to other libraries' interfaces."""

from __future__ import annotations

from typing import Any

from textenvs.vector import TextVectorEnv


def as_sb3_vec_env(envs: Any) -> Any:
    """The native vector environment as one of Stable-Baselines3's, for its agents to train on at full speed.

    Args:
        envs: a ``TextVectorEnv``, e.g. from ``gym.make_vec(id, num_envs=64, vectorization_mode="vector_entry_point")``.

    Returns:
        A ``stable_baselines3.common.vec_env.VecEnv``.

    Raises:
        ImportError: Stable-Baselines3 is not installed.
        TypeError: another kind of environment (make those with Stable-Baselines3's own ``make_vec_env``).
        ValueError: an autoreset mode other than SAME_STEP.
    """
    if not isinstance(envs, TextVectorEnv):
        raise TypeError(
            f"as_sb3_vec_env adapts a TextVectorEnv, not a {type(envs).__name__}: for wrapped or scalar environments "
            f"use Stable-Baselines3's make_vec_env."
        )
    from textenvs.sb3 import TextVecEnv  # needs Stable-Baselines3

    return TextVecEnv(envs)
