"""Callbacks of ``learn``: plain functions of the agent, and ones that have a state and go on with a checkpoint."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from agents.base import Agent

Callback = Callable[["Agent"], bool | None]


class StatefulCallback(ABC):
    """A callback that is asked before the first batch as well, and whose state is part of the agent's checkpoint.

    ``Agent.load`` keeps the state for the callback of the same name that the next ``learn`` is given.

    Attributes:
        name: what its state is called in a checkpoint; different for each callback of one ``learn``.
    """

    name: str

    @abstractmethod
    def start(self, agent: Agent) -> bool | None:
        """Called when ``learn`` begins, before anything is played; False stops."""

    @abstractmethod
    def __call__(self, agent: Agent) -> bool | None:
        """Called after every batch and its update; False stops."""

    @abstractmethod
    def get_state(self) -> dict[str, Any]:
        """JSON values by name."""

    @abstractmethod
    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from ``get_state``."""


class Callbacks:
    """The callbacks of one ``learn``, called in their order; if one stops, the others are still called.

    Args:
        given: one, several, or None.

    Attributes:
        seconds: how long they have taken.

    Raises:
        ValueError: two with a state have the same name.
    """

    def __init__(self, given: Callback | Sequence[Callback] | None) -> None:
        several: Sequence[Callback] = () if given is None else (given,) if callable(given) else tuple(given)
        self._all = several
        self._stateful = {each.name: each for each in several if isinstance(each, StatefulCallback)}
        if len(self._stateful) < sum(isinstance(each, StatefulCallback) for each in several):
            raise ValueError("Two callbacks have the same name, under which their states are saved: pass name=.")
        self.seconds = 0.0

    def start(self, agent: Agent) -> bool:
        """Whether to begin."""
        return self._call([each.start for each in self._stateful.values()], agent)

    def __call__(self, agent: Agent) -> bool:
        """Whether to go on."""
        return self._call(self._all, agent)

    def _call(self, callbacks: Sequence[Callback], agent: Agent) -> bool:
        began = time.perf_counter()
        answers = [callback(agent) for callback in callbacks]
        self.seconds += time.perf_counter() - began
        return not any(answer is False for answer in answers)

    def restore(self, states: dict[str, Any]) -> None:
        """Take the states of these callbacks out of ``states``, by name."""
        for name in self._stateful.keys() & states.keys():
            self._stateful[name].set_state(states.pop(name))

    def get_states(self) -> dict[str, Any]:
        """Their states by name."""
        return {name: each.get_state() for name, each in self._stateful.items()}


class LogLines:
    """Prints a line about learning now and then, for terminals that are not watched: a file, a pipe.

        10,240 timesteps, 2,560 episodes, 5,120/s: return 0.512, length 4.0, epsilon 0.02

    Args:
        seconds: between two lines; 0: a line after every batch.
        file: where to; default: standard error.
    """

    def __init__(self, seconds: float = 10.0, file: TextIO | None = None) -> None:
        if not seconds >= 0:
            raise ValueError(f"seconds must not be negative; got {seconds}.")
        self.seconds, self.file = seconds, file
        self._last = time.monotonic()

    def __call__(self, agent: Agent) -> None:
        """After a batch."""
        if time.monotonic() - self._last >= self.seconds:
            self._last = time.monotonic()
            print(log_line(agent), file=self.file or sys.stderr, flush=True)


def log_line(agent: Agent) -> str:
    """What an agent has done and how its last batch was, in one line."""
    figures = {name.rpartition("/")[2]: value for name, value in agent.metrics.items() if name.startswith("charts/")}
    speed = figures.pop("SPS", float("nan"))
    names = {"episodic_return": "return", "episodic_length": "length", "replay_episodes": "replay"}
    shown = ", ".join(f"{names.get(name, name)} {value:.4g}" for name, value in figures.items())
    return f"{agent.num_timesteps:,} timesteps, {agent.num_episodes:,} episodes, {speed:,.0f}/s: {shown}"
