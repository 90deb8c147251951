"""Episodes: a batch of finished texts, the one currency of the project."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from textenvs.vocab import Vocab

FINISH_REASONS = ("stop", "length", "invalid")


@dataclass(eq=False)
class Episodes:
    """B finished texts, as a reward model sees them.

    Attributes:
        prompt_ids: int64 [B, P], left-padded with ``pad_id``.
        completion_ids: int64 [B, T], right-padded with ``pad_id``; EOS, where written, is part of it.
        lengths: int64 [B], tokens written, EOS included.
        finish_reason: object array [B] of ``"stop"`` (EOS), ``"length"`` (budget) or ``"invalid"``.
        columns: what the data set knows of each prompt: name to array or list with B entries. A column ``X_ids`` holds
            rows of token ids; its decoded text is available as column ``X`` through :meth:`column`.
        key: uint64 [B], from seed and episode number: the only source of randomness for a noisy judge.
        vocab: ids to text and back.
        separator: what stands between prompt and completion in :attr:`texts`; None: what decoding both together gives.
    """

    prompt_ids: np.ndarray
    completion_ids: np.ndarray
    lengths: np.ndarray
    finish_reason: np.ndarray
    key: np.ndarray
    vocab: Vocab
    columns: Mapping[str, Any] = field(default_factory=dict)
    separator: str | None = None

    @classmethod
    def from_texts(
        cls,
        prompts: Sequence[str],
        completions: Sequence[str],
        columns: Mapping[str, Any] | None = None,
        *,
        vocab: Vocab | None = None,
        separator: str | None = None,
    ) -> Episodes:
        """Episodes of B texts that come from elsewhere: a file, a server's request.

        They count as finished by themselves (``finish_reason`` ``"stop"``), without an EOS token. ``key`` is a hash
        of the text, so that a noisy judge answers alike in every batch.

        Args:
            prompts: B texts, ``""`` where there is none.
            completions: B texts.
            columns: what is known of each prompt: name to a list or array with B entries.
            vocab: its tokens are the tokens; without one, every character is a token, which is all that rewards of
                text need and makes rewards of token ids count characters.
            separator: what stands between prompt and completion in :attr:`texts`. Default: nothing, or what the given
                vocab puts there.

        Raises:
            TypeError: a prompt or completion is not a string.
            ValueError: not equally many entries, a text outside ``vocab``, or a column of ids without their ``vocab``.
        """
        columns = dict(columns or {})
        for name, entries in {"completions": completions, **columns}.items():
            if len(entries) != len(prompts):
                raise ValueError(f"There are {len(prompts)} prompts but {len(entries)} entries in {name!r}.")
            if vocab is None and name.endswith("_ids"):
                raise ValueError(f"The column {name!r} holds token ids, which mean nothing without their vocab.")
        given: list[Any] = [*prompts, *completions]
        for i, text in enumerate(given):
            if not isinstance(text, str):
                where = f"prompts[{i}]" if i < len(prompts) else f"completions[{i - len(prompts)}]"
                raise TypeError(f"{where} is not a string but {text!r:.200}.")
        alphabet = Vocab(sorted(set().union(*given)) or [" "]) if vocab is None else vocab
        rows = [alphabet.encode(text) for text in given]
        episodes = cls(
            prompt_ids=_padded(rows[: len(prompts)], len(alphabet), left=True),
            completion_ids=_padded(rows[len(prompts) :], len(alphabet), left=False),
            lengths=np.array([len(row) for row in rows[len(prompts) :]], dtype=np.int64),
            finish_reason=np.full(len(prompts), "stop", dtype=object),
            key=np.array([_text_key(*pair) for pair in zip(prompts, completions, strict=True)], dtype=np.uint64),
            vocab=alphabet,
            columns=columns,
            separator="" if vocab is None and separator is None else separator,
        )
        episodes.prompts, episodes.completions = list(prompts), list(completions)
        return episodes

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def pad_id(self) -> int:
        """The id of padding: V, one past the last token."""
        return len(self.vocab)

    @cached_property
    def prompts(self) -> list[str]:
        """Prompt texts, decoded on first use."""
        return self.vocab.decode_rows(self.prompt_ids)

    @cached_property
    def completions(self) -> list[str]:
        """Completion texts without EOS, decoded on first use."""
        return self.vocab.decode_rows(self.completion_ids)

    @cached_property
    def texts(self) -> list[str]:
        """Prompt and completion as one text without EOS, decoded on first use."""
        if self.separator is None:
            return self.vocab.decode_rows(np.concatenate([self.prompt_ids, self.completion_ids], axis=1))
        return [
            prompt + self.separator + completion if prompt and completion else prompt or completion
            for prompt, completion in zip(self.prompts, self.completions, strict=True)
        ]

    def column_names(self) -> list[str]:
        """Names that :meth:`column` knows, decoded ``X`` beside ``X_ids`` included."""
        decoded = {name.removesuffix("_ids") for name in self.columns if name.endswith("_ids")}
        return sorted(decoded | set(self.columns))

    def column(self, name: str) -> Any:
        """A column with B entries; ``X`` decodes ``X_ids`` where the data set has no column ``X`` itself.

        Raises:
            KeyError: there is no such column.
        """
        if name in self.columns:
            return self.columns[name]
        ids = self.columns.get(f"{name}_ids")
        if ids is None:
            raise KeyError(f"No column {name!r}; columns: {', '.join(self.column_names()) or '(none)'}.")
        if name not in self._decoded_columns:
            self._decoded_columns[name] = self.vocab.decode_rows(np.asarray(ids))
        return self._decoded_columns[name]

    @cached_property
    def _decoded_columns(self) -> dict[str, list[str]]:
        return {}

    def take(self, index: np.ndarray) -> Episodes:
        """The episodes at ``index`` (integers or booleans), in that order."""
        index = np.flatnonzero(index) if index.dtype == np.bool_ else index
        columns = {
            name: column[index] if isinstance(column, np.ndarray) else [column[i] for i in index.tolist()]
            for name, column in self.columns.items()
        }
        taken = Episodes(
            prompt_ids=self.prompt_ids[index],
            completion_ids=self.completion_ids[index],
            lengths=self.lengths[index],
            finish_reason=self.finish_reason[index],
            key=self.key[index],
            vocab=self.vocab,
            columns=columns,
            separator=self.separator,
        )
        for name in ("prompts", "completions", "texts"):
            if name in vars(self):  # decoded already
                texts = vars(self)[name]
                setattr(taken, name, [texts[i] for i in index.tolist()])
        return taken


def _padded(rows: list[list[int]], pad_id: int, *, left: bool) -> np.ndarray:
    """Rows of ids as int64 [B, longest], padded on one side."""
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    width = int(lengths.max(initial=0))
    columns = np.arange(width)
    filled = columns >= width - lengths[:, None] if left else columns < lengths[:, None]
    padded = np.full((len(rows), width), pad_id, dtype=np.int64)
    padded[filled] = np.fromiter(itertools.chain.from_iterable(rows), dtype=np.int64, count=int(lengths.sum()))
    return padded


def _text_key(prompt: str, completion: str) -> int:
    text = f"{prompt}\0{completion}".encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
