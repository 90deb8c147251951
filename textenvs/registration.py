"""Registers the environment ids with Gymnasium."""

from __future__ import annotations

import gymnasium as gym

from textenvs.tasks import TASKS

NAMESPACE = "textenvs"


def register_envs() -> None:
    """Register ``textenvs/{task}-v0`` for every task; ids that are registered already are left as they are."""
    for name in TASKS:
        env_id = f"{NAMESPACE}/{name}-v0"
        if env_id not in gym.registry:
            gym.register(
                id=env_id,
                entry_point="textenvs.env:TextEnv",
                vector_entry_point="textenvs.vector:TextVectorEnv",
                kwargs={"task": name},
            )


def list_envs() -> list[str]:
    """All ids of this project, sorted."""
    return sorted(env_id for env_id in gym.registry if env_id.startswith(f"{NAMESPACE}/"))
