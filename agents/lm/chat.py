"""A chat model of Hugging Face, asked for replies and for how probable given answers are.

    chat = ChatModel.from_pretrained("Qwen/Qwen2.5-0.5B-Instruct")        # or a folder
    chat.replies([[{"role": "user", "content": "Say hello."}]], max_new_tokens=16, seed=0)
    chat.choices([[{"role": "user", "content": "Is fire hot? Answer A for yes, B for no."}]], ("A", "B"))

Messages become a text by the tokenizer's chat template.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from agents.lm.loading import load_model
from agents.lm.models import find_causal_lm, max_positions
from textenvs.tokenizers import Messages, TokenizerVocab, load_tokenizer

TOKENS_AT_ONCE = 2**14
"""Tokens in one forward pass."""

OnProgress = Callable[[int, int], Any]
"""Told (chats done, chats in all)."""


@dataclass(frozen=True)
class Choices:
    """How probable answers of one word are.

    Attributes:
        probabilities: float64 [B, n], of each of the n words to be the next token.
        likeliest: of each chat: the likeliest next token, as text.
    """

    probabilities: np.ndarray
    likeliest: list[str]


class ChatModel:
    """A causal language model whose tokenizer has a chat template. It is used as it is, without dropout.

    Raises:
        TypeError: no causal language model, or no fast tokenizer.
        ValueError: a tokenizer without a chat template or EOS, or one that does not belong to the model.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.vocab = TokenizerVocab(tokenizer)
        embeddings = find_causal_lm(model).get_input_embeddings().weight.shape[0]
        if len(self.vocab) > embeddings:
            raise ValueError(
                f"The tokenizer has {len(self.vocab)} tokens, the model embeddings for {embeddings}: they do not "
                f"belong together."
            )
        self.encode([{"role": "user", "content": ""}])  # says so if there is no template
        model.eval()

    @classmethod
    def from_pretrained(cls, name: str | Path) -> Self:
        """From a hub name or a folder.

        Raises:
            ImportError, ValueError: as for :func:`agents.lm.loading.load_model`.
        """
        return cls(load_model(name), load_tokenizer(name))

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        device: torch.device = self.model.get_input_embeddings().weight.device
        return device

    def encode(self, chat: Messages) -> list[int]:
        """Ids of a chat, up to where the assistant's answer begins.

        Raises:
            ValueError: there is no chat template, or it refuses the messages.
        """
        return self.vocab.encode_chat(chat)

    def option_ids(self, option: str) -> list[int]:
        """Ids of the tokens that are a word by themselves: as it is, and with a space before it.

        Raises:
            ValueError: the tokenizer has no single token for it.
        """
        found = {tuple(self.vocab.encode(text)) for text in (option, f" {option}")}
        ids = sorted(row[0] for row in found if len(row) == 1 and row[0] != self.tokenizer.unk_token_id)
        if not ids:
            raise ValueError(f"The tokenizer has no single token for the answer {option!r}; choose another one.")
        return ids

    @torch.no_grad()
    def choices(
        self, chats: Sequence[Messages], options: Sequence[str], on_progress: OnProgress | None = None
    ) -> Choices:
        """How probably the answer begins with each of the options, as one token (with a space before it or without).

        Raises:
            ValueError: an option that is no single token, or a chat longer than the model's context; says which.
        """
        ids = [self.option_ids(option) for option in options]
        probabilities, likeliest = np.zeros((len(chats), len(options))), [""] * len(chats)
        done = 0
        for numbers, rows in self._batches(chats, room=1):
            lengths = torch.tensor([len(row) for row in rows])
            tokens = torch.zeros(len(rows), int(lengths.max()), dtype=torch.int64)
            for place, row in enumerate(rows):
                tokens[place, : len(row)] = torch.tensor(row)
            # Padding on the right needs no mask: nothing looks ahead.
            hidden = find_causal_lm(self.model).base_model(input_ids=tokens.to(self.device), use_cache=False)
            last = hidden.last_hidden_state[torch.arange(len(rows)), (lengths - 1).to(self.device)]
            logits = self.model.get_output_embeddings()(last)[:, : len(self.vocab)]
            shares = logits.double().softmax(1).cpu().numpy()
            for place, number in enumerate(numbers):
                probabilities[number] = [shares[place, each].sum() for each in ids]
                likeliest[number] = self.vocab.tokens[int(shares[place].argmax())]
            done += len(rows)
            if on_progress is not None:
                on_progress(done, len(chats))
        return Choices(probabilities, likeliest)

    @torch.no_grad()
    def replies(
        self,
        chats: Sequence[Messages],
        *,
        max_new_tokens: int,
        temperature: float = 1.0,
        seed: int = 0,
        on_progress: OnProgress | None = None,
    ) -> list[str]:
        """An answer to each chat, without special tokens.

        Args:
            max_new_tokens: length budget of an answer.
            temperature: divides the logits; 0: always the likeliest token.
            seed: of the sampling; the same arguments give the same answers.

        Raises:
            ValueError: a chat that leaves no room for an answer of that length; says which.
        """
        from transformers import GenerationConfig

        if max_new_tokens < 1 or temperature < 0:
            raise ValueError(
                f"max_new_tokens must be at least 1 and temperature not negative; got {max_new_tokens}, {temperature}."
            )
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
        config = GenerationConfig(
            max_new_tokens=max_new_tokens,
            eos_token_id=list(self.vocab.eos_ids),
            pad_token_id=self.vocab.eos_ids[0],
            bos_token_id=None,
            **(sampling or {"do_sample": False}),
        )
        texts, done = [""] * len(chats), 0
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            for numbers, rows in self._batches(chats, room=max_new_tokens):
                longest = max(map(len, rows))
                tokens = torch.full((len(rows), longest), self.vocab.eos_ids[0])
                mask = torch.zeros_like(tokens)
                for place, row in enumerate(rows):  # padding on the left: answers begin in the same column
                    tokens[place, longest - len(row) :] = torch.tensor(row)
                    mask[place, longest - len(row) :] = 1
                written = self.model.generate(
                    input_ids=tokens.to(self.device), attention_mask=mask.to(self.device), generation_config=config
                )
                for number, answer in zip(numbers, self._answers(written[:, longest:]), strict=True):
                    texts[number] = answer
                done += len(rows)
                if on_progress is not None:
                    on_progress(done, len(chats))
        return texts

    def _answers(self, written: torch.Tensor) -> list[str]:
        rows = []
        for row in written.tolist():
            end = next((i for i, token in enumerate(row) if token in self.vocab.eos_ids), len(row))
            rows.append(row[:end])
        return [text.strip() for text in self.tokenizer.batch_decode(rows, skip_special_tokens=True)]

    def _batches(self, chats: Sequence[Messages], room: int) -> Iterator[tuple[list[int], list[list[int]]]]:
        """Numbers and ids of chats of about equal length."""
        limit = max_positions(find_causal_lm(self.model).config)
        rows = []
        for number, chat in enumerate(chats):
            rows.append(self.encode(chat))
            if len(rows[-1]) + room > limit + (room == 1):
                raise ValueError(
                    f"Chat {number} has {len(rows[-1])} tokens and the answer up to {room}; the model reads at most "
                    f"{limit}."
                )
        order = np.argsort([len(row) for row in rows], kind="stable").tolist()
        size = max(1, TOKENS_AT_ONCE // max((len(row) + room for row in rows), default=1))
        for start in range(0, len(order), size):
            part = order[start : start + size]
            yield part, [rows[i] for i in part]
