"""Making vector environments of token sequences, and looking into them."""

from __future__ import annotations

import contextlib
import importlib
from typing import Any

import gymnasium as gym
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

import textenvs
from agents.checkpoint import Tree
from textenvs.errors import unknown_name
from textenvs.spec import TextSpec
from textenvs.tasks import Task


def make_envs(env_id: str, num_envs: int, env_kwargs: dict[str, Any]) -> VectorEnv:
    """A vector environment from an id (``"module:id"`` too): natively batched where it has such an entry point, else
    one by one.

    Raises:
        gymnasium.error.UnregisteredEnv: no such id; the message names the nearest and those of this project.
    """
    module, _, name = env_id.rpartition(":")
    if module:
        importlib.import_module(module)
    try:
        spec = gym.spec(name)
    except gym.error.UnregisteredEnv as error:
        raise type(error)(unknown_name("environment", env_id, textenvs.list_envs())) from None
    if spec.vector_entry_point is not None:
        return gym.make_vec(name, num_envs=num_envs, vectorization_mode="vector_entry_point", **env_kwargs)
    in_same_step = {"autoreset_mode": AutoresetMode.SAME_STEP}
    return gym.make_vec(name, num_envs=num_envs, vectorization_mode="sync", vector_kwargs=in_same_step, **env_kwargs)


def find_text_spec(envs: VectorEnv) -> TextSpec:
    """The ``text_spec`` of a vector environment or of what it is made of, through any wrappers.

    Raises:
        ValueError: there is none: the observations are not token sequences.
    """
    base = envs.unwrapped
    spec = getattr(base, "text_spec", None)
    if spec is None and hasattr(base, "get_attr"):
        with contextlib.suppress(AttributeError):
            spec = base.get_attr("text_spec")[0]
    if not isinstance(spec, TextSpec):
        raise ValueError(
            f"{envs} has no text_spec: its observations are not token sequences, which these agents need. "
            "For other environments use a general library, e.g. Stable-Baselines3."
        )
    return spec


def find_task(envs: VectorEnv) -> Task | None:
    """The writing task of a vector environment, where it lives in this process; None: it does not."""
    base: Any = envs.unwrapped
    if isinstance(base, SyncVectorEnv):
        base = base.envs[0].unwrapped
    task = getattr(base, "task", None)
    return task if isinstance(task, Task) else None


def describe_text_spec(spec: TextSpec) -> Tree:
    return {
        "prompt_length": spec.prompt_length,
        "max_new_tokens": spec.max_new_tokens,
        "pad_id": spec.pad_id,
        "eos_ids": list(spec.eos_ids),
        "has_masks": spec.has_masks,
        "tokens": list(spec.vocab.tokens),
    }
