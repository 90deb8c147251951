"""Plain functions as reward models: TRL's signature, unchanged."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from textenvs.episodes import Episodes
from textenvs.rewards.base import RewardError, describe

_BATCH_ARGUMENTS = ("prompts", "completions", "completion_ids", "trainer_state")


class FunctionReward:
    """A function ``f(prompts, completions, completion_ids, trainer_state=None, **columns) -> list[float | None]``.

    It is called with those of these arguments that it accepts, all of them lists with one entry for each text:
    ``prompts`` and ``completions`` are strings without EOS, ``completion_ids`` lists of ids without padding, and every
    column of the data set comes under its own name (rows of ids ``X_ids`` also as text ``X``). ``trainer_state`` is
    None.

    Args:
        function: the function.
        name: name in error messages and in ``reward_components``; default the function's own.
        low, high: declared range of its scores.
        version, deterministic: as in the reward contract.
        arguments: fixed keyword arguments, passed on at every call.
        messages: give prompts and completions as chat messages ``[{"role": …, "content": text}]`` instead of
            strings, for functions written for TRL's conversational data sets. Prompts that are chats come as they are.

    Raises:
        TypeError: ``arguments`` has names that the function does not take.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        low: float = -np.inf,
        high: float = np.inf,
        version: str = "1",
        deterministic: bool = False,
        arguments: dict[str, Any] | None = None,
        messages: bool = False,
    ) -> None:
        self.function = function
        self.messages = messages
        self.name = name or getattr(function, "__name__", type(function).__name__)
        self.arguments = arguments or {}
        given = "".join(f", {key}={value!r}" for key, value in self.arguments.items())
        self.low, self.high, self.version, self.deterministic = low, high, version + given, deterministic
        parameters = inspect.signature(function).parameters.values()
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        self._takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
        self._accepted = {p.name for p in parameters if p.kind in named}
        self._required = {p.name for p in parameters if p.kind in named and p.default is inspect.Parameter.empty}
        unknown = set(self.arguments) - self._accepted
        if unknown and not self._takes_all:
            raise TypeError(
                f"Reward function {self.name!r} takes no argument {sorted(unknown)[0]!r}; "
                f"it takes: {', '.join(sorted(self._accepted))}."
            )

    def score(self, episodes: Episodes) -> np.ndarray:
        """Scores float32 [B].

        Raises:
            RewardError: a column is missing that the function needs, or it answers None ("does not apply").
        """
        scores, applies = self.score_where_it_applies(episodes)
        if not applies.all():
            bad = int(np.flatnonzero(~applies)[0])
            raise RewardError(
                f"Reward function {self.name!r} returned None (does not apply) for {describe(episodes, bad)}. "
                f"That is legal inside a weighted sum, where another part must apply; alone it leaves no score."
            )
        return scores

    def score_where_it_applies(self, episodes: Episodes) -> tuple[np.ndarray, np.ndarray]:
        """Scores float32 [B], and bool [B] where the function gave one at all (None means that it does not apply)."""
        answer = self.function(**self._call_arguments(episodes))
        if not isinstance(answer, list | tuple | np.ndarray) or len(answer) != len(episodes):
            size = f" with {len(answer)} entries" if hasattr(answer, "__len__") else f" {answer!r:.200}"
            raise RewardError(
                f"Reward function {self.name!r} must return a list with {len(episodes)} scores, got "
                f"{type(answer).__name__}{size} (the first text: {describe(episodes, 0)})."
            )
        applies = np.array([value is not None for value in answer], dtype=np.bool_)
        with np.errstate(over="ignore"):  # the guard refuses infinity
            scores = np.array([0.0 if value is None else value for value in answer], dtype=np.float32)
        return scores, applies

    def _call_arguments(self, episodes: Episodes) -> dict[str, Any]:
        wanted = dict(self.arguments)
        for name in [*_BATCH_ARGUMENTS, *episodes.column_names()]:
            if name not in wanted and (self._takes_all or name in self._accepted):
                wanted[name] = self._argument(episodes, name)
        missing = sorted(self._required - wanted.keys())
        if missing:
            raise RewardError(
                f"Reward function {self.name!r} needs {missing[0]!r}, which is neither prompts, completions, "
                f"completion_ids nor a column of this task. Columns: {', '.join(episodes.column_names()) or '(none)'}."
            )
        return wanted

    def _argument(self, episodes: Episodes, name: str) -> Any:
        if name == "prompts":
            return self._prompts(episodes)
        if name == "completions":
            return self._texts("assistant", episodes.completions)
        if name == "completion_ids":
            rows, lengths = episodes.completion_ids.tolist(), episodes.lengths.tolist()
            return [row[:n] for row, n in zip(rows, lengths, strict=True)]
        if name == "trainer_state":
            return None
        column = episodes.column(name)
        if not name.endswith("_ids"):
            return column.tolist() if isinstance(column, np.ndarray) else list(column)
        pad_id = episodes.pad_id
        return [[i for i in row if i != pad_id] for row in np.asarray(column).tolist()]

    def _prompts(self, episodes: Episodes) -> list[Any]:
        texts = self._texts("user", episodes.prompts)
        if not self.messages or "prompt_messages" not in episodes.columns:
            return texts
        # A prompt that was a chat comes as it was; one that the data set does not know, as a text.
        chats = episodes.columns["prompt_messages"]
        return [text if chat is None else list(chat) for text, chat in zip(texts, chats, strict=True)]

    def _texts(self, role: str, texts: list[str]) -> list[Any]:
        if self.messages:
            return [[{"role": role, "content": text}] for text in texts]
        return list(texts)
