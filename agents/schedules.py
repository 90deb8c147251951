"""Schedules: hyper-parameters that change as timesteps pass, as plain values of the config.

    PPO(env, schedules={"learning_rate": [[0, 0.0], [2_000, 1e-3], [200_000, 0.0]]})   # warm up, then fall
    DQN(env, schedules={"epsilon": [[0, 1.0], [50_000, 0.02]]})

A schedule is a list of points [timesteps, value], straight lines between them, constant before the first and after the
last. It depends on the agent's count of timesteps alone, so a resumed run goes on where it was.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from textenvs.errors import unknown_name

if TYPE_CHECKING:
    from agents.base import AgentConfig

SCHEDULABLE = (
    "learning_rate",
    "ent_coef",
    "clip_coef",
    "entropy_share",
    "epsilon",
    "temperature",
    "priority_beta",
)
"""Fields that may have a schedule, in the configs that have them: what is read anew in every update or action."""

Points = Sequence[Sequence[float]]


def schedule_value(points: Points, timesteps: int) -> float:
    """The value at ``timesteps`` of the line through ``points``, [[timesteps, value], …]."""
    steps, values = zip(*points, strict=True)
    return float(np.interp(timesteps, steps, values))


def schedulable(config_class: type[AgentConfig]) -> tuple[str, ...]:
    """Which fields of a config may have a schedule."""
    fields = {field.name for field in dataclasses.fields(config_class)}
    return tuple(name for name in SCHEDULABLE if name in fields)


def check_schedules(config: AgentConfig) -> None:
    """Check the schedules of a config.

    Raises:
        ValueError: a field that can have none, something other than rising points, or a value that the config refuses
            (a learning rate may be 0).
    """
    possible = schedulable(type(config))
    for name, points in config.schedules.items():
        if name not in possible:
            raise ValueError(unknown_name("field for schedules", name, possible))
        if not _are_points(points):
            raise ValueError(
                f"schedules[{name!r}] must be points [[timesteps, value], …] of numbers, timesteps rising from 0 or "
                f"more; got {points!r:.100}."
            )
        for _, value in points:
            if value == 0 and name == "learning_rate":
                continue
            try:
                changed: dict[str, Any] = {"schedules": {}, name: float(value)}
                dataclasses.replace(config, **changed)
            except ValueError as error:
                raise ValueError(f"schedules[{name!r}] holds a value that is not allowed: {error}") from None


def config_at(config: AgentConfig, timesteps: int) -> AgentConfig:
    """The config with the values that its scheduled fields have after so many timesteps."""
    present = copy.copy(config)
    for name, points in config.schedules.items():
        object.__setattr__(present, name, schedule_value(points, timesteps))  # checked when the agent was made
    return present


def _are_points(points: Any) -> bool:
    if not isinstance(points, list | tuple) or not points:
        return False
    for point in points:
        if not isinstance(point, list | tuple) or len(point) != 2:
            return False
        if any(isinstance(x, bool) or not isinstance(x, int | float) or not np.isfinite(x) for x in point):
            return False
    steps = [point[0] for point in points]
    return steps[0] >= 0 and all(a < b for a, b in pairwise(steps))
