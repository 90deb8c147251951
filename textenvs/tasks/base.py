"""Task: what is to be written. Prompts, lengths, masks, the data set's columns, an oracle."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

import numpy as np

from textenvs.episodes import Episodes
from textenvs.errors import unknown_name
from textenvs.vocab import Vocab


class Task(ABC):
    """One writing task. It has no state: everything is a function of arrays, so that many texts are handled at once.

    A subclass sets the attributes below in its constructor, whose keyword arguments become arguments of ``gym.make``.
    """

    name: str
    """Name in the registry, also that of the environment id: ``textenvs/{name}-v0``."""
    vocab: Vocab
    prompt_length: int
    """P; prompts that are shorter are left-padded. 0: the task has no prompts."""
    max_new_tokens: int
    """T, EOS included."""
    default_reward: Any
    """The reward spec of an environment made without ``reward=``."""
    random_score: float
    """Mean score of uniformly random actions under the default reward."""
    optimum: float
    """Highest mean score under the default reward; the oracle reaches it."""
    split: str = "train"
    has_masks: bool = False
    memory_size: int = 0
    """Numbers that each sub-environment keeps from one episode to the next, see :meth:`remember`; 0: none."""

    @property
    def has_prompts(self) -> bool:
        """Whether there are prompts, and so a test split."""
        return self.prompt_length > 0

    @property
    def pad_id(self) -> int:
        """V: one past the last token."""
        return len(self.vocab)

    @abstractmethod
    def draw(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Prompts for the given random keys.

        Args:
            keys: uint64 [B].

        Returns:
            prompt_ids int64 [B, P], and the index int64 [B] of each prompt in the split's prompt set (−1 where it has
            no number).
        """

    def draw_episodes(self, keys: np.ndarray, episodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """:meth:`draw` for the episodes numbered ``episodes``, int64 [B], from 0 under each seed.

        Only a task that changes from episode to episode looks at the numbers.
        """
        return self.draw(keys)

    @abstractmethod
    def prompts_at(self, index: np.ndarray) -> np.ndarray:
        """Prompts int64 [B, P] with the given numbers, int64 [B].

        Raises:
            ValueError: a number outside the prompt set, or prompts that are not numbered.
        """

    @abstractmethod
    def columns(self, prompt_ids: np.ndarray, index: np.ndarray) -> dict[str, Any]:
        """What the reward model is told besides prompt and completion, for prompts [B, P] with numbers [B]."""

    @abstractmethod
    def oracle(self, prompt_ids: np.ndarray) -> np.ndarray:
        """Completions int64 [B, T], right-padded, that reach the optimum."""

    def action_masks(self, rows: np.ndarray, written: np.ndarray) -> np.ndarray:
        """Legal actions bool [B, V] in the states given by rows [B, L] with ``written`` [B] tokens.

        Only called where ``has_masks``; finished rows included. At least one action of every row must be legal.
        """
        return np.ones((len(rows), len(self.vocab)), dtype=np.bool_)

    def remember(self, memory: np.ndarray, episodes: Episodes) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """What finished texts add to the memories of their sub-environments. Only called where ``memory_size`` > 0.

        The task itself has no state: the environment keeps the memories, saves them with its state, and clears them
        when it is given a new seed.

        Args:
            memory: int64 [B, memory_size], all 0 at first.
            episodes: B finished texts, judged or invalid.

        Returns:
            The new memories int64 [B, memory_size], and entries of the terminal infos, name to array [B].
        """
        return memory, {}

    def encode_prompt(self, prompt: Any) -> np.ndarray:
        """A prompt given as text or ids as a left-padded row int64 [P].

        Raises:
            ValueError: unknown tokens, or longer than the task allows.
        """
        if isinstance(prompt, str):
            ids = np.asarray(self.vocab.encode(prompt), dtype=np.int64)
        else:
            ids = np.asarray(prompt)
            if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
                raise ValueError(
                    f"A prompt is a text or a row of token ids; got {type(prompt).__name__} with shape {ids.shape}."
                )
            ids = ids.astype(np.int64)
            ids = ids[np.argmax(ids != self.pad_id) if (ids != self.pad_id).any() else ids.size :]
            if ids.size and (ids.min() < 0 or ids.max() >= self.pad_id):
                raise ValueError(f"Prompt ids must lie in 0 … {self.pad_id - 1}; got {ids.tolist()}.")
        if ids.size > self.prompt_length:
            raise ValueError(
                f"The prompt has {ids.size} tokens; {self.name} allows at most {self.prompt_length} "
                f"(make the environment with a larger size, or shorten the prompt)."
            )
        row = np.full(self.prompt_length, self.pad_id, dtype=np.int64)
        row[self.prompt_length - ids.size :] = ids
        return row


class PromptSet(Protocol):
    """Prompts that are drawn by random keys and have numbers: see :mod:`textenvs.tasks.prompts`."""

    def draw(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As :meth:`Task.draw`."""
        ...

    def at(self, index: np.ndarray) -> np.ndarray:
        """As :meth:`Task.prompts_at`."""
        ...


class PromptSetTask(Task):
    """A task whose prompts come from a prompt set. All of its prompts have ``prompt_length`` tokens."""

    prompt_set: PromptSet

    def draw(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.prompt_set.draw(keys)

    def prompts_at(self, index: np.ndarray) -> np.ndarray:
        return self.prompt_set.at(index)

    def encode_prompt(self, prompt: Any) -> np.ndarray:
        row = super().encode_prompt(prompt)
        missing = int((row == self.pad_id).sum())
        if missing:
            raise ValueError(
                f"{self.name}: the prompt has {self.prompt_length - missing} tokens, {self.prompt_length} are needed."
            )
        return row


class PromptlessTask(Task):
    """A task without prompts: every text begins with nothing, and there is no test split."""

    prompt_length = 0

    def draw(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((len(keys), 0), dtype=np.int64), np.zeros(len(keys), dtype=np.int64)

    def prompts_at(self, index: np.ndarray) -> np.ndarray:
        raise ValueError(f"{self.name} has no prompts, so reset takes neither 'prompt' nor 'index'.")

    def encode_prompt(self, prompt: Any) -> np.ndarray:
        raise ValueError(f"{self.name} has no prompts, so reset takes neither 'prompt' nor 'index'.")


def check_split(name: str, split: str, has_prompts: bool) -> str:
    """Return ``split`` if the task has it.

    Raises:
        ValueError: it does not.
    """
    if split not in ("train", "test"):
        raise ValueError(unknown_name("split", split, ("train", "test")))
    if split == "test" and not has_prompts:
        raise ValueError(
            f"{name} has no prompts and so no test split: it is evaluated on itself. Use split='train' "
            f"(and vary task_seed= between runs)."
        )
    return split


def check_size(task: str, name: str, value: int, low: int, high: int | None = None) -> int:
    """Return an integer size argument that lies in [low, high].

    Raises:
        ValueError: it is not an integer, or outside.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ValueError(f"{task}: {name} must be an integer, got {value!r}.")
    if value < low or (high is not None and value > high):
        allowed = f"at least {low}" if high is None else f"between {low} and {high}"
        raise ValueError(f"{task}: {name} must be {allowed}, got {value}.")
    return int(value)
