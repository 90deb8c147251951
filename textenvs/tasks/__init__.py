"""The tasks: what is to be written. One file per family."""

from __future__ import annotations

import inspect
from typing import Any

from textenvs.errors import unknown_name
from textenvs.tasks.any_prompts import Prompts
from textenvs.tasks.arithmetic import Addition, Countdown, ModSum
from textenvs.tasks.base import Task
from textenvs.tasks.copying import Copy, Reverse, Sort
from textenvs.tasks.form import Anagram, AnagramMasked, Dyck, DyckMasked, Palindrome, PalindromeMasked
from textenvs.tasks.graphs import RandomWalk, RandomWalkMasked
from textenvs.tasks.hard import BigVocab, Deceptive, LongCopy, NoisyReverse, RewardSwap
from textenvs.tasks.probes import (
    ProbeAction,
    ProbeBoth,
    ProbeConstant,
    ProbeDiscount,
    ProbeMask,
    ProbeObservation,
)
from textenvs.tasks.reasoning_gym import ReasoningGym
from textenvs.tasks.search import BitModes, HiddenTarget, Keywords, PrefixLock
from textenvs.tasks.tiny_reviews import TinyReviews

__all__ = ["ENV_ARGUMENTS", "FAMILIES", "TASKS", "Task", "make_task"]

FAMILIES: dict[str, tuple[type[Task], ...]] = {
    "copying": (Copy, Reverse, Sort),
    "search": (HiddenTarget, PrefixLock, Keywords, BitModes),
    "form": (Dyck, DyckMasked, Palindrome, PalindromeMasked, Anagram, AnagramMasked),
    "arithmetic": (ModSum, Addition, Countdown),
    "graphs": (RandomWalk, RandomWalkMasked),
    "hard to learn from": (NoisyReverse, RewardSwap, LongCopy, BigVocab, Deceptive),
    "language": (TinyReviews, Prompts, ReasoningGym),
    "probes": (ProbeConstant, ProbeObservation, ProbeDiscount, ProbeAction, ProbeBoth, ProbeMask),
}

TASKS: dict[str, type[Task]] = {task.name: task for family in FAMILIES.values() for task in family}
"""Every task that has an environment id."""


ENV_ARGUMENTS = frozenset({"reward", "invalid_reward", "render_mode", "info_text"})
"""Arguments that both environment classes take, whatever the task."""


def make_task(task: str | Task | type[Task], env_arguments: frozenset[str] = ENV_ARGUMENTS, /, **kwargs: Any) -> Task:
    """A task from its name or class and its sizes; a task object is returned as it is.

    Args:
        task: name of a task, a task class, or a task object.
        env_arguments: names that an error message lists beside the task's own arguments.
        kwargs: the task's arguments.

    Raises:
        ValueError: unknown name, or a size out of range.
        TypeError: unknown keyword arguments.
    """
    if isinstance(task, Task):
        if kwargs:
            raise TypeError(f"{task.name} is a finished task object: {sorted(kwargs)} cannot be changed any more.")
        return task
    if isinstance(task, str) and task not in TASKS:
        raise ValueError(unknown_name("task", task, TASKS))
    task_class = TASKS[task] if isinstance(task, str) else task
    known = inspect.signature(task_class.__init__).parameters.keys() - {"self"}
    for name in kwargs:
        if name not in known:
            raise TypeError(unknown_name(f"argument of {task_class.name}", name, known | env_arguments))
    return task_class(**kwargs)
