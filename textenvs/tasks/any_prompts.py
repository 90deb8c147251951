"""Prompts: anybody's prompts, by the id ``textenvs/Prompts-v0``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from textenvs.prompt_rows import COMPLETION, OnBad, is_chat, read_prompts
from textenvs.tasks.dataset import OnLong, PromptTask
from textenvs.tasks.plurals import plural_rows
from textenvs.tokenizers import BUILT_IN, make_vocab
from textenvs.vocab import Vocab


class Prompts(PromptTask):
    """Continue prompts of your own; without any, write English plurals (``"one box, two "`` → ``"boxes"``).

    Args:
        prompts, tokenizer, max_new_tokens, prompt_length, test_fraction, on_long, on_bad, eos_ids: as for
            :func:`textenvs.from_prompts`.
        split: ``"train"`` or ``"test"``; None for all prompts.
        name: of the task, in messages.
    """

    name = "Prompts"

    def __init__(
        self,
        *,
        prompts: Any = None,
        tokenizer: Any = "characters",
        max_new_tokens: int | None = None,
        prompt_length: int | None = None,
        split: str | None = "train",
        test_fraction: float = 0.1,
        on_long: OnLong = "error",
        on_bad: OnBad = "error",
        eos_ids: Sequence[int] = (),
        name: str = "Prompts",
    ) -> None:
        table = read_prompts(plural_rows() if prompts is None else prompts, on_bad=on_bad)
        plain = isinstance(tokenizer, Vocab) or (isinstance(tokenizer, str) and tokenizer in BUILT_IN)
        if plain and any(map(is_chat, table.prompts)):
            raise ValueError(
                f"{name}: chat messages become a text by the chat template of a Hugging Face tokenizer, which "
                f"tokenizer={tokenizer!r} is not: give one, or texts as prompts."
            )
        texts = [text for text in (*table.prompts, *table.columns.get(COMPLETION, ())) if isinstance(text, str)]
        super().__init__(
            table.prompts,
            make_vocab(tokenizer, eos_ids=eos_ids, texts=texts),
            max_new_tokens,
            columns=table.columns,
            prompt_length=prompt_length,
            split=split,
            test_fraction=test_fraction,
            on_long=on_long,
            on_bad=on_bad,
            places=table.places,
            skipped=table.skipped,
            name=name,
        )
