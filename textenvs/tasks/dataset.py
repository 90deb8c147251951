"""PromptTask: writing that begins with the prompts of a data set."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np

from textenvs.errors import unknown_name
from textenvs.rng import subkeys
from textenvs.tasks.base import Task, check_size
from textenvs.vocab import Vocab

LOGGER = logging.getLogger("textenvs")

OnLong = Literal["error", "truncate", "skip"]
RESERVED_COLUMNS = ("prompt", "prompts", "completions", "completion_ids", "trainer_state")


class PromptTask(Task):
    """Continue a prompt that is drawn from a list; the other columns of its row reach the reward model.

    Args:
        prompts: texts. The same text may occur more than once.
        vocab: what is read and written, one token an action.
        max_new_tokens: T.
        columns: name to a sequence with one entry for each prompt. Rows of token ids in a column ``X_ids`` become one
            padded array, and a reward may ask for their text as ``X``.
        default_reward: the reward of an environment made without ``reward=``.
        prompt_length: P in tokens; default that of the longest prompt of either split, so that both have the same
            shape.
        split: None for all prompts. ``"train"`` and ``"test"`` are decided by a hash of the text alone: copies of a
            prompt stay together, and adding prompts moves none of the others.
        test_fraction: share of different texts that belongs to the test split.
        on_long: what to do with prompts of more than P tokens: ``"error"``; ``"truncate"`` keeps their last P tokens;
            ``"skip"`` leaves them out. How many there were is logged, and kept in ``num_long``.
        places: where each prompt comes from, for error messages.
        name: of the task.

    Raises:
        ValueError: no prompts (in this split), a prompt without tokens, one that is too long, or columns that do not
            fit.
    """

    random_score = float("nan")  # unknown: it depends on the reward
    optimum = float("nan")

    def __init__(
        self,
        prompts: Sequence[str],
        vocab: Vocab,
        max_new_tokens: int,
        *,
        columns: Mapping[str, Sequence[Any]] | None = None,
        default_reward: Any = None,
        prompt_length: int | None = None,
        split: str | None = None,
        test_fraction: float = 0.1,
        on_long: OnLong = "error",
        places: Sequence[str] | None = None,
        name: str = "prompts",
    ) -> None:
        self.name, self.vocab, self.default_reward = name, vocab, default_reward
        self.max_new_tokens = check_size(name, "max_new_tokens", max_new_tokens, 1)
        if split not in (None, "train", "test"):
            raise ValueError(unknown_name("split", split, ("train", "test")))
        if on_long not in ("error", "truncate", "skip"):
            raise ValueError(unknown_name("on_long", on_long, ("error", "truncate", "skip")))
        if not 0 < test_fraction < 1:
            raise ValueError(f"test_fraction must lie between 0 and 1; got {test_fraction}.")
        if not len(prompts):
            raise ValueError(f"{name}: the prompt set is empty.")
        self.split = split or "train"
        where = places or [f"prompt {i}" for i in range(len(prompts))]
        given = check_columns(name, columns or {}, len(prompts))

        encoded = [self._encode(text, where[i]) for i, text in enumerate(prompts)]
        lengths = np.array([len(ids) for ids in encoded])
        if prompt_length is None:
            prompt_length = int(lengths.max())
        self.prompt_length = check_size(name, "prompt_length", prompt_length, 1)
        long = lengths > self.prompt_length
        self.num_long = int(long.sum())
        if self.num_long and on_long == "error":
            first = int(np.argmax(long))
            raise ValueError(
                f"{where[first]}: the prompt has {lengths[first]} tokens, prompt_length is {self.prompt_length} "
                f"({self.num_long} of {len(prompts)} prompts are too long). Make prompt_length larger, or choose "
                f"on_long='truncate' (keep the last {self.prompt_length} tokens) or on_long='skip'."
            )
        if self.num_long:
            done = {"truncate": "cut to their last tokens", "skip": "left out"}[on_long]
            LOGGER.warning(
                "%s: %d of %d prompts have more than %d tokens and were %s.",
                name, self.num_long, len(prompts), self.prompt_length, done,
            )  # fmt: skip
        chosen = np.ones(len(prompts), dtype=np.bool_) if on_long != "skip" else ~long
        if split is not None:
            chosen &= np.array([in_test_split(text, test_fraction) for text in prompts]) == (split == "test")
        kept = np.flatnonzero(chosen)
        if not kept.size:
            raise ValueError(
                f"{name}: none of the {len(prompts)} prompts is left"
                + (f" in the {split} split (test_fraction={test_fraction})." if split else " after on_long='skip'.")
            )
        self._rows = np.full((kept.size, self.prompt_length), self.pad_id, dtype=np.int32)
        for row, i in zip(self._rows, kept.tolist(), strict=True):
            ids = encoded[i][-self.prompt_length :]
            row[self.prompt_length - len(ids) :] = ids
        self._columns = {key: self._column(key, [column[i] for i in kept.tolist()]) for key, column in given.items()}

    @property
    def num_prompts(self) -> int:
        """Number of prompts in this split, copies counted."""
        return len(self._rows)

    def draw(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        index = (subkeys(keys, 1)[:, 0] % np.uint64(self.num_prompts)).astype(np.int64)
        return self._rows[index].astype(np.int64), index

    def prompts_at(self, index: np.ndarray) -> np.ndarray:
        if index.size and (index.min() < 0 or index.max() >= self.num_prompts):
            raise ValueError(f"{self.name}: index must lie in 0 … {self.num_prompts - 1}, got {index.tolist()[:8]}.")
        return self._rows[index].astype(np.int64)

    def columns(self, prompt_ids: np.ndarray, index: np.ndarray) -> dict[str, Any]:
        """Columns of the prompts' rows. A prompt that was given by itself is looked up among them; of one that is not
        there nothing is known, which is None (a row of padding in a column of token ids)."""
        if not self._columns:
            return {}
        numbers = index
        if index.size and index.min() < 0:
            found = [self._number_of.get(row.tobytes(), -1) for row in prompt_ids.astype(np.int32)]
            numbers = np.where(index < 0, found, index)
        answer: dict[str, Any] = {}
        for name, column in self._columns.items():
            if isinstance(column, np.ndarray):
                answer[name] = np.where(numbers[:, None] >= 0, column[numbers], self.pad_id)
            else:
                answer[name] = [column[i] if i >= 0 else None for i in numbers.tolist()]
        return answer

    def oracle(self, prompt_ids: np.ndarray) -> np.ndarray:
        raise ValueError(f"{self.name}: nobody knows the best answers to the prompts of a data set.")

    def encode_prompt(self, prompt: Any) -> np.ndarray:
        row = super().encode_prompt(self._encode(prompt, "prompt") if isinstance(prompt, str) else prompt)
        if self.prompt_length and row[-1] == self.pad_id:
            raise ValueError(f"{self.name}: a prompt needs at least one token.")
        return row

    def _encode(self, text: str, where: str) -> list[int]:
        encode = getattr(self.vocab, "encode_prompt", self.vocab.encode)
        try:
            ids: list[int] = encode(text)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        if not ids:
            raise ValueError(
                f"{where}: the prompt {text!r} has no tokens, and a text must begin with something. If the model has a "
                f"BOS token, write that as the prompt."
            )
        return ids

    def _column(self, name: str, values: list[Any]) -> list[Any] | np.ndarray:
        if not name.endswith("_ids") or not all(isinstance(value, list | tuple | np.ndarray) for value in values):
            return values
        padded = np.full((len(values), max(map(len, values))), self.pad_id, dtype=np.int64)
        for row, value in zip(padded, values, strict=True):
            row[: len(value)] = value
        return padded

    @cached_property
    def _number_of(self) -> dict[bytes, int]:
        """Number of the first prompt with these tokens."""
        return {row.tobytes(): i for i, row in reversed(list(enumerate(self._rows)))}


def in_test_split(text: str, test_fraction: float) -> bool:
    """Whether a prompt belongs to the test split: a hash of its text decides, the same in every process and version."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < test_fraction * 2**64


def check_columns(name: str, columns: Mapping[str, Sequence[Any]], count: int) -> dict[str, Sequence[Any]]:
    """The columns, if each has ``count`` entries and none takes the name of an argument of reward functions.

    Raises:
        ValueError: otherwise.
    """
    for key, column in columns.items():
        if key in RESERVED_COLUMNS:
            raise ValueError(
                f"{name}: a column cannot be called {key!r}, which reward functions know as something else; rename it."
            )
        if len(column) != count:
            raise ValueError(f"{name}: column {key!r} has {len(column)} entries for {count} prompts.")
    return dict(columns)
