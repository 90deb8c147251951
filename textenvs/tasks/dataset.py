"""PromptTask: writing that begins with the prompts of a data set."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np

from textenvs.errors import unknown_name
from textenvs.prompt_rows import COMPLETION, OnBad, is_chat
from textenvs.rng import subkeys
from textenvs.tasks.base import Task, check_size
from textenvs.vocab import Vocab

LOGGER = logging.getLogger("textenvs")

OnLong = Literal["error", "truncate", "skip"]
RESERVED_COLUMNS = ("prompt", "prompts", "completions", "completion_ids", "trainer_state")
TARGET = "target_ids"


class PromptTask(Task):
    """Continue a prompt that is drawn from a list; the other columns of its row reach the reward model.

    Where every prompt has a ``completion``, its tokens and EOS are the column ``target_ids``, the oracle writes them,
    and the default reward compares with them. Optimum and random score are known for that reward, and NaN for others.

    Args:
        prompts: texts, or chats ``[{"role": …, "content": text}]``. The same one may occur more than once.
        vocab: what is read and written, one token an action.
        max_new_tokens: T; default that of the longest completion of either split. Longer completions are cut to T
            tokens, logged and counted in ``num_cut``.
        columns: name to a sequence with one entry for each prompt. Rows of token ids in a column ``X_ids`` become one
            padded array, and a reward may ask for their text as ``X``.
        default_reward: the reward of an environment made without ``reward=``; default ``"match"`` where there are
            completions.
        prompt_length: P in tokens; default that of the longest prompt of either split, so that both have the same
            shape.
        split: None for all prompts. ``"train"`` and ``"test"`` are decided by a hash of the text alone: copies of a
            prompt stay together, and adding prompts moves none of the others.
        test_fraction: share of different texts that belongs to the test split.
        in_test: which prompts belong to the test split, where no hash is to decide.
        on_long: what to do with prompts of more than P tokens: ``"error"``; ``"truncate"`` keeps their last P tokens;
            ``"skip"`` leaves them out. How many there were is logged, and kept in ``num_long``.
        on_bad: ``"skip"`` leaves out prompts and completions that cannot be tokenised instead of raising.
        places: where each prompt comes from, for error messages.
        skipped: what was wrong with rows that were left out before; all are logged, and counted in ``num_bad``.
        name: of the task.

    Raises:
        ValueError: no prompts (in this split), a prompt without tokens, one that is too long, a chat without a chat
            template, or columns that do not fit.
    """

    name = "prompts"

    def __init__(
        self,
        prompts: Sequence[Any],
        vocab: Vocab,
        max_new_tokens: int | None = None,
        *,
        columns: Mapping[str, Sequence[Any]] | None = None,
        default_reward: Any = None,
        prompt_length: int | None = None,
        split: str | None = None,
        test_fraction: float = 0.1,
        in_test: Sequence[bool] | None = None,
        on_long: OnLong = "error",
        on_bad: OnBad = "error",
        places: Sequence[str] | None = None,
        skipped: Sequence[str] = (),
        name: str = "prompts",
    ) -> None:
        self.name, self.vocab = name, vocab
        if split not in (None, "train", "test"):
            raise ValueError(unknown_name("split", split, ("train", "test")))
        if on_long not in ("error", "truncate", "skip"):
            raise ValueError(unknown_name("on_long", on_long, ("error", "truncate", "skip")))
        if on_bad not in ("error", "skip"):
            raise ValueError(unknown_name("on_bad", on_bad, ("error", "skip")))
        if isinstance(test_fraction, bool) or not isinstance(test_fraction, int | float) or not 0 < test_fraction < 1:
            raise ValueError(f"test_fraction must lie between 0 and 1; got {test_fraction!r}.")
        if not len(prompts):
            raise ValueError(f"{name}: the prompt set is empty.")
        self.split = split or "train"
        places = places or [f"prompt {i}" for i in range(len(prompts))]
        given = check_columns(name, columns or {}, len(prompts))

        encoded, targets, readable = self._tokenise(prompts, given, places, on_bad, skipped)
        lengths = np.array([len(ids) for ids in encoded])
        self.prompt_length = check_size(
            name, "prompt_length", int(lengths.max()) if prompt_length is None else prompt_length, 1
        )
        fits = self._check_lengths(lengths, places, on_long)
        chosen = readable if on_long != "skip" else readable & fits
        if targets is None and max_new_tokens is None:
            raise ValueError(f"{name}: without completions nobody knows how long texts are: give max_new_tokens=.")
        longest = max(map(len, targets)) if targets is not None else 1
        self.max_new_tokens = check_size(
            name, "max_new_tokens", longest if max_new_tokens is None else max_new_tokens, 1
        )
        if split is not None:
            if in_test is None:
                in_test = [in_test_split(text_of(each), test_fraction) for each in prompts]
            chosen &= np.array(in_test) == (split == "test")
        kept = np.flatnonzero(chosen).tolist()
        if not kept:
            raise ValueError(
                f"{name}: none of the {len(prompts)} prompts is left"
                + (f" in the {split} split (test_fraction={test_fraction})." if split else " after on_long='skip'.")
            )
        self._rows = np.full((len(kept), self.prompt_length), self.pad_id, dtype=np.int32)
        for row, i in zip(self._rows, kept, strict=True):
            ids = encoded[i][-self.prompt_length :]
            row[self.prompt_length - len(ids) :] = ids
        self._columns = {key: self._column(key, [column[i] for i in kept]) for key, column in given.items()}
        self._targets: np.ndarray | None = None
        self.num_cut = 0
        if targets is not None:
            self._targets = self._columns[TARGET] = self._cut([targets[i] for i in kept], [places[i] for i in kept])
        self.default_reward = "match" if default_reward is None and self._targets is not None else default_reward

    @cached_property
    def random_score(self) -> float:  # type: ignore[override]  # computed when asked for
        """Mean score of uniformly random actions; NaN under other rewards than ``"match"``."""
        if self._targets is None or self.default_reward != "match":
            return float("nan")
        return random_target_score(self._targets, self.pad_id, self.vocab.eos_ids, self.max_new_tokens)

    @cached_property
    def optimum(self) -> float:  # type: ignore[override]
        """1 under ``"match"``; NaN under other rewards, and where one prompt has different completions."""
        if self._targets is None or self.default_reward != "match":
            return float("nan")
        answers = {(row.tobytes(), target.tobytes()) for row, target in zip(self._rows, self._targets, strict=True)}
        return 1.0 if len(answers) == len(self._number_of) else float("nan")

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
            numbers = np.where(index < 0, self._find(prompt_ids), index)
        answer: dict[str, Any] = {}
        for name, column in self._columns.items():
            if isinstance(column, np.ndarray):
                answer[name] = np.where(numbers[:, None] >= 0, column[numbers], self.pad_id)
            else:
                answer[name] = [column[i] if i >= 0 else None for i in numbers.tolist()]
        return answer

    def oracle(self, prompt_ids: np.ndarray) -> np.ndarray:
        """The known completions; of equal prompts that of the first.

        Raises:
            ValueError: there are none, or a prompt is not among those of the split.
        """
        if self._targets is None:
            raise ValueError(f"{self.name}: nobody knows the best answers to prompts without completions.")
        numbers = self._find(prompt_ids)
        if numbers.size and numbers.min() < 0:
            unknown = self.vocab.decode(prompt_ids[int(np.argmin(numbers))].tolist())
            raise ValueError(f"{self.name}: no completion is known of the prompt {unknown!r:.200}.")
        completions = np.full((len(prompt_ids), self.max_new_tokens), self.pad_id, dtype=np.int64)
        completions[:, : self._targets.shape[1]] = self._targets[numbers]
        return completions

    def encode_prompt(self, prompt: Any) -> np.ndarray:
        given = self._encode(prompt, "prompt") if isinstance(prompt, str) or is_chat(prompt) else prompt
        row = super().encode_prompt(given)
        if self.prompt_length and row[-1] == self.pad_id:
            raise ValueError(f"{self.name}: a prompt needs at least one token.")
        return row

    # ------------------------------------------------------------------------------------------------- details

    def _tokenise(
        self,
        prompts: Sequence[Any],
        columns: Mapping[str, Sequence[Any]],
        places: Sequence[str],
        on_bad: OnBad,
        skipped: Sequence[str],
    ) -> tuple[list[list[int]], list[list[int]] | None, np.ndarray]:
        """Ids of the prompts and of their completions (None if some have none), and bool [n] which are readable."""
        answers = columns.get(COMPLETION)
        if answers is not None and (TARGET in columns or any(answer is None for answer in answers)):
            answers = None
        encoded, targets, faults = [], [], list(skipped)
        readable = np.ones(len(prompts), dtype=np.bool_)
        for i, prompt in enumerate(prompts):
            try:
                ids = self._encode(prompt, places[i])
                target = [] if answers is None else self._encode_answer(answers[i], places[i])
            except ValueError as error:
                if on_bad == "error":
                    raise
                faults.append(str(error))
                readable[i], ids, target = False, [], []
            encoded.append(ids)
            targets.append(target)
        self.num_bad = len(faults)
        if faults:
            total = len(prompts) + len(skipped)
            LOGGER.warning("%s: %d of %d rows were left out; the first: %s", self.name, len(faults), total, faults[0])
        if not readable.any():
            raise ValueError(f"{self.name}: not one of {len(prompts)} prompts can be read; the first: {faults[0]}")
        return encoded, None if answers is None else targets, readable

    def _encode(self, prompt: Any, where: str) -> list[int]:
        if is_chat(prompt):
            if not hasattr(self.vocab, "encode_chat"):
                raise ValueError(
                    f"{where}: chat messages become a text by the chat template of a Hugging Face tokenizer, and "
                    f"{self.vocab!r} has none: give texts as prompts."
                )
            encode = self.vocab.encode_chat
        else:
            encode = getattr(self.vocab, "encode_prompt", self.vocab.encode)
        try:
            ids: list[int] = encode(prompt)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        if not ids:
            raise ValueError(
                f"{where}: the prompt {prompt!r} has no tokens, and a text must begin with something. If the model has "
                f"a BOS token, write that as the prompt."
            )
        return ids

    def _encode_answer(self, text: str, where: str) -> list[int]:
        """Ids of a completion, EOS included where the vocabulary has one."""
        ends = self.vocab.eos_ids
        try:
            ids = self.vocab.encode(text)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        if ids and ids[-1] in ends:
            ids = ids[:-1]
        if any(i in ends for i in ids):
            raise ValueError(f"{where}: the completion {text!r:.100} goes on after EOS, where every text ends.")
        if not ids and not ends:
            raise ValueError(f"{where}: the completion is empty, which a vocabulary without EOS cannot write.")
        return [*ids, *ends[:1]]

    def _check_lengths(self, lengths: np.ndarray, places: Sequence[str], on_long: OnLong) -> np.ndarray:
        """Which prompts fit, bool [n]."""
        long = lengths > self.prompt_length
        self.num_long = int(long.sum())
        if self.num_long and on_long == "error":
            first = int(np.argmax(long))
            raise ValueError(
                f"{places[first]}: the prompt has {lengths[first]} tokens, prompt_length is {self.prompt_length} "
                f"({self.num_long} of {len(lengths)} prompts are too long). Make prompt_length larger, or choose "
                f"on_long='truncate' (keep the last {self.prompt_length} tokens) or on_long='skip'."
            )
        if self.num_long:
            done = {"truncate": "cut to their last tokens", "skip": "left out"}[on_long]
            LOGGER.warning(
                "%s: %d of %d prompts have more than %d tokens and were %s.",
                self.name, self.num_long, len(lengths), self.prompt_length, done,
            )  # fmt: skip
        return ~long

    def _cut(self, targets: list[list[int]], places: list[str]) -> np.ndarray:
        """Targets [n, at most T], right-padded."""
        budget = self.max_new_tokens
        self.num_cut = sum(len(target) > budget for target in targets)
        if self.num_cut:
            LOGGER.warning(
                "%s: %d of %d completions have more than max_new_tokens=%d tokens and were cut.",
                self.name, self.num_cut, len(targets), budget,
            )  # fmt: skip
        short = [i for i, target in enumerate(targets) if len(target) < budget]
        if short and not self.vocab.eos_ids:
            raise ValueError(
                f"{places[short[0]]}: the completion has {len(targets[short[0]])} tokens, and without EOS every text "
                f"has max_new_tokens={budget}: make the vocabulary with EOS, Vocab(tokens, eos=…)."
            )
        array = np.full((len(targets), min(budget, max(map(len, targets)))), self.pad_id, dtype=np.int64)
        for row, target in zip(array, targets, strict=True):
            row[: len(target)] = target[:budget]
        return array

    def _find(self, prompt_ids: np.ndarray) -> np.ndarray:
        """Number of the first prompt with these tokens, int64 [B]; −1 where there is none."""
        rows = prompt_ids.astype(np.int32)
        return np.array([self._number_of.get(row.tobytes(), -1) for row in rows], dtype=np.int64)

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


def random_target_score(targets: np.ndarray, pad_id: int, eos_ids: Sequence[int], max_new_tokens: int) -> float:
    """Expected ``match`` score of uniform actions, in closed form.

    A text has n tokens: n − 1 that are no EOS, each equally likely, and an EOS; or the budget T, of which the last may
    be anything. A position is right if it holds the target's token, and the longer of text and target is divided by.

    Args:
        targets: int64 [B, ≤ T], right-padded; what ends with EOS ends with ``eos_ids[0]``.
        pad_id: V.
        eos_ids: the E actions that end a text.
        max_new_tokens: T.
    """
    num_eos = len(eos_ids)
    end, num_others = num_eos / pad_id, max(pad_id - num_eos, 1)
    lengths = (targets != pad_id).sum(axis=1)
    ends = np.isin(targets, list(eos_ids)).any(axis=1)
    n = np.arange(1, max_new_tokens + 1)
    total = 0.0
    for (length, stops), count in zip(
        *np.unique(np.stack([lengths, ends], axis=1), axis=0, return_counts=True), strict=True
    ):
        right = np.minimum(n - 1, length - stops) / num_others  # before the last token
        if num_eos:
            right = right + (stops & (n == length)) / num_eos
        right[-1] = min(max_new_tokens - 1, length - stops) / num_others + (length == max_new_tokens) / pad_id
        probability = (1 - end) ** (n - 1) * np.where(n == max_new_tokens, 1.0, end)
        total += count * float((probability * right / np.maximum(n, length)).sum())
    return total / len(targets)


def text_of(prompt: Any) -> str:
    """A prompt as one text; a chat in a form that depends on its messages alone."""
    return prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True, ensure_ascii=False)


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
