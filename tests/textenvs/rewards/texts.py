"""Finished texts with literal contents, for tests of reward models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from textenvs import Episodes, Vocab

LETTERS = Vocab([*"abcdefgh", "<eos>"], eos="<eos>")


def make_episodes(
    completions: Sequence[str],
    prompts: Sequence[str] | None = None,
    *,
    vocab: Vocab = LETTERS,
    reasons: Sequence[str] | None = None,
    keys: Sequence[int] | None = None,
    **columns: Any,
) -> Episodes:
    """Episodes with these texts. Those that stop (the default) end with EOS, which counts as a token."""
    reasons = reasons or ["stop"] * len(completions)
    rows = [
        vocab.encode(text) + (list(vocab.eos_ids) if reason == "stop" else [])
        for text, reason in zip(completions, reasons, strict=True)
    ]
    starts = [vocab.encode(text) for text in prompts or [""] * len(completions)]
    width, start_width = max(map(len, rows)), max(map(len, starts))
    pad = len(vocab)
    return Episodes(
        prompt_ids=np.array([[pad] * (start_width - len(s)) + s for s in starts], dtype=np.int64).reshape(
            len(starts), start_width
        ),
        completion_ids=np.array([r + [pad] * (width - len(r)) for r in rows], dtype=np.int64),
        lengths=np.array([len(r) for r in rows], dtype=np.int64),
        finish_reason=np.array(reasons, dtype=object),
        key=np.array(keys if keys is not None else range(len(rows)), dtype=np.uint64),
        vocab=vocab,
        columns=columns,
    )
