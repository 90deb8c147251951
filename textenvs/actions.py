"""Checks of what users pass in: actions, seeds, reset options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.error import InvalidAction

from textenvs.errors import unknown_name
from textenvs.tasks.base import Task


def check_actions(actions: Any, num_envs: int, num_tokens: int, active: np.ndarray | None = None) -> np.ndarray:
    """Actions as int64 [N].

    Args:
        actions: what the user passed.
        num_envs: N.
        num_tokens: V, the number of actions.
        active: bool [N]; actions of the others are ignored, so their values are not checked. None: all count.

    Raises:
        InvalidAction: wrong shape, not integers, or outside 0 … V − 1.
    """
    try:
        array = np.asarray(actions)
    except ValueError:  # rows of different lengths
        raise InvalidAction(
            f"Actions must have shape ({num_envs},), one token for each environment; got {actions!r:.100}."
        ) from None
    if array.shape != (num_envs,):
        raise InvalidAction(
            f"Actions must have shape ({num_envs},), one token for each environment; got {array.shape}."
        )
    if array.dtype.kind not in "iu":
        raise InvalidAction(f"Actions are token ids, so integers; got dtype {array.dtype}.")
    array = array.astype(np.int64, copy=False)
    checked = array if active is None else array[active]
    # Seen as unsigned, a negative number is larger than any id: one reduction checks both bounds.
    if checked.size and checked.view(np.uint64).max() >= num_tokens:
        wrong = (array < 0) | (array >= num_tokens)
        bad = int(np.flatnonzero(wrong if active is None else wrong & active)[0])
        raise InvalidAction(
            f"Action {array[bad]} of sub-environment {bad} lies outside 0 … {num_tokens - 1}"
            f"{' (padding is not an action)' if array[bad] == num_tokens else ''}."
        )
    return array


def check_action(action: Any, num_tokens: int) -> int:
    """The action of a scalar environment, a number or an array with one entry, as an int.

    Raises:
        InvalidAction: as :func:`check_actions`.
    """
    if type(action) in (int, np.int64) and 0 <= action < num_tokens:  # the usual case, without a detour over arrays
        return int(action)
    try:
        array = np.asarray(action)
    except ValueError:  # rows of different lengths
        raise InvalidAction(f"An action is one token id; got {action!r:.100}.") from None
    if array.shape not in ((), (1,)):
        raise InvalidAction(f"An action is one token id; got an array of shape {array.shape}.")
    return int(check_actions(array.reshape(1), 1, num_tokens)[0])


def check_seed(seed: Any) -> int:
    """A non-negative integer seed.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"A seed is a non-negative integer, got {seed!r}.")
    return int(seed)


@dataclass(frozen=True)
class ChosenPrompts:
    """Prompts that reset options ask for: ``prompts`` int64 [n, P] or ``index`` int64 [n], or neither."""

    prompts: np.ndarray | None = None
    index: np.ndarray | None = None


DRAWN = ChosenPrompts()
"""Neither: the prompts are drawn."""


def check_options(options: Any) -> dict[str, Any]:
    """The options of a reset as a dictionary of one's own; None is an empty one.

    Raises:
        TypeError: they are no mapping.
    """
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise TypeError(f"Reset options are a dictionary such as {{'index': 3}}; got {options!r:.100}.")
    return dict(options)


def read_options(
    options: dict[str, Any],
    task: Task,
    count: int,
    known: Sequence[str],
    rows: np.ndarray | slice = slice(None),
) -> ChosenPrompts:
    """The prompts that reset options ask for.

    Args:
        options: as passed to ``reset``, with one entry for each of the ``count`` sub-environments.
        task: knows how to read a prompt.
        count: number of sub-environments.
        known: names of all options of the caller.
        rows: the n sub-environments that are reset; entries of the others are not read.

    Raises:
        ValueError: an unknown option, both kinds at once, a wrong number of entries, or a prompt that the task refuses.
    """
    if not options:
        return DRAWN
    for name in options:
        if name not in known:
            raise ValueError(unknown_name("reset option", name, known))
    if "prompt" in options and "index" in options:
        raise ValueError("Give either options['prompt'] or options['index'], not both.")
    if "prompt" in options:
        entries = _entries("prompt", options["prompt"], count, rows)
        return ChosenPrompts(prompts=np.stack([task.encode_prompt(entry) for entry in entries]))
    if "index" in options:
        entries = _entries("index", options["index"], count, rows)
        if any(isinstance(entry, bool) or not isinstance(entry, int | np.integer) for entry in entries):
            raise ValueError(f"options['index'] holds prompt numbers (integers), got {entries!r:.200}.")
        if any(abs(int(entry)) >= 2**63 for entry in entries):
            raise ValueError(f"options['index'] holds numbers beyond 64 bits: {entries!r:.200}.")
        index = np.array(entries, dtype=np.int64)
        task.prompts_at(index)  # refuses numbers outside before anything changes
        return ChosenPrompts(index=index)
    return DRAWN


def _entries(name: str, value: Any, count: int, rows: np.ndarray | slice) -> list[Any]:
    try:
        entries = None if isinstance(value, str | Mapping) else list(value)
    except TypeError:  # a number, an array without dimensions
        entries = None
    if entries is None:
        raise ValueError(f"options[{name!r}] needs one entry for each of the {count} sub-environments, got {value!r}.")
    if len(entries) != count:
        raise ValueError(f"options[{name!r}] has {len(entries)} entries for {count} sub-environments.")
    return entries[rows] if isinstance(rows, slice) else [entries[i] for i in rows.tolist()]
