"""Tokenizers: a Hugging Face fast tokenizer as the vocabulary of a task, and the built-in ones by their names."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from textenvs.vocab import ByteVocab, Vocab

BUILT_IN = ("bytes", "characters", "words")
"""Names of tokenizers that need nothing: UTF-8 bytes, and the characters or words that occur in the texts."""

Messages = Sequence[Mapping[str, Any]]
"""A chat: messages ``{"role": "user", "content": text}``."""


class TokenizerVocab(Vocab):
    """The tokens of a fast tokenizer, ids 0 … V − 1 with V = ``len(tokenizer)``.

    Padding is the id V here as everywhere, whatever the tokenizer's own padding token (which may be missing, or the
    same as EOS). Special tokens, EOS among them, have no text.

    Args:
        tokenizer: a fast tokenizer (``PreTrainedTokenizerFast``).
        eos_ids: further ids that end a text beside the tokenizer's ``eos_token_id``, e.g. that of a line break.

    Raises:
        TypeError: not a fast tokenizer.
        ValueError: there is no EOS at all, an ``eos_ids`` entry is no id, or ids are not contiguous.
    """

    def __init__(self, tokenizer: Any, *, eos_ids: Sequence[int] = ()) -> None:
        if not hasattr(tokenizer, "is_fast") or not callable(getattr(tokenizer, "convert_ids_to_tokens", None)):
            raise TypeError(f"tokenizer must be a Hugging Face tokenizer or a Vocab; got {type(tokenizer).__name__}.")
        if not tokenizer.is_fast:
            raise TypeError(
                f"{type(tokenizer).__name__} is a slow tokenizer, which decodes texts one by one in Python. Use its "
                f"fast version: AutoTokenizer.from_pretrained(name) gives it wherever there is one."
            )
        size = len(tokenizer)
        if max(tokenizer.get_vocab().values(), default=-1) >= size:
            raise ValueError(
                f"{_name(tokenizer)} has {size} tokens but ids up to {max(tokenizer.get_vocab().values())}: ids must "
                f"be 0 … {size - 1} without gaps, since {size} means padding. Fill them with tokenizer.add_tokens(…)."
            )
        ends = list(dict.fromkeys(int(i) for i in eos_ids))
        for i in ends:
            if not 0 <= i < size:
                raise ValueError(f"eos_ids: {i} is not a token id of {_name(tokenizer)} (0 … {size - 1}).")
        if tokenizer.eos_token_id is not None:
            ends = list(dict.fromkeys([int(tokenizer.eos_token_id), *ends]))
        if not ends:
            raise ValueError(
                f"{_name(tokenizer)} has no EOS token, so no text could ever end before its length budget. Name one of "
                f"its tokens, tokenizer.eos_token = '<|endoftext|>' for example, or give eos_ids=[…]."
            )
        self.tokenizer = tokenizer
        self.tokens = tuple(tokenizer.convert_ids_to_tokens(list(range(size))))
        self.eos = self.tokens[ends[0]]
        self.eos_ids = tuple(ends)
        self.separator = ""
        # Special tokens are left out by the tokenizer; an ordinary one that serves as EOS must be by us.
        self._plain_eos = frozenset(ends) - frozenset(tokenizer.all_special_ids)

    def __repr__(self) -> str:
        return f"TokenizerVocab({_name(self.tokenizer)}: {len(self)} tokens; eos_ids={self.eos_ids})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocab):
            return NotImplemented
        if not isinstance(other, TokenizerVocab):
            return False
        return self.tokens == other.tokens and self.eos_ids == other.eos_ids

    def __hash__(self) -> int:
        return hash((self.tokens, self.eos_ids))

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without special tokens; what is not known becomes the unknown token, if there is one.

        Raises:
            ValueError: the tokenizer cannot encode it.
        """
        return self._encode(text, special=False)

    def encode_prompt(self, text: str) -> list[int]:
        """Ids of a text as the model expects its beginning: with BOS where the tokenizer puts one, without EOS."""
        ids = self._encode(text, special=True)
        while len(ids) > 1 and ids[-1] in self.eos_ids and ids[-1] not in self._plain_eos:
            ids.pop()
        return ids

    def encode_chat(self, messages: Messages) -> list[int]:
        """Ids of a chat as its template writes it, up to where the assistant's answer begins. A last message of the
        assistant's own is gone on with.

        Raises:
            ValueError: the tokenizer has no chat template, or its template refuses the messages.
        """
        if not getattr(self.tokenizer, "chat_template", None):
            raise ValueError(
                f"{_name(self.tokenizer)} has no chat template, which makes a text of chat messages. Set one "
                f"(tokenizer.chat_template = '…'), take the tokenizer of a chat model, or give texts as prompts."
            )
        goes_on = messages[-1].get("role") == "assistant"
        try:
            text = self.tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                tokenize=False,
                add_generation_prompt=not goes_on,
                continue_final_message=goes_on,
            )
        except Exception as error:  # whatever the template's author raises
            raise ValueError(
                f"the chat template of {_name(self.tokenizer)} refuses {list(messages)!r:.200}: "
                f"{type(error).__name__}: {error}"
            ) from error
        return self._encode(text, special=False)  # the template writes BOS itself

    def _encode(self, text: str, special: bool) -> list[int]:
        # verbose: whether a prompt is too long is for the task to say, which knows how much may be written after it.
        options = {"add_special_tokens": special, "truncation": False, "padding": False, "verbose": False}
        try:
            encoded = self.tokenizer(text, **options)
        except Exception as error:  # its library has no class of its own for what it cannot encode
            raise ValueError(f"{_name(self.tokenizer)} cannot encode {text!r:.200}: {error}") from error
        return [int(i) for i in encoded["input_ids"]]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of a row of ids, without special tokens, padding and a last token that is EOS."""
        return self._decode_batch([self._written(ids)])[0]

    def decode_rows(self, ids: np.ndarray) -> list[str]:
        """Texts of the rows of an integer array [B, T]."""
        return self._decode_batch([self._written(row) for row in ids.tolist()])

    def _decode_batch(self, rows: list[list[int]]) -> list[str]:
        texts: list[str] = self.tokenizer.batch_decode(
            rows, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return texts

    def _written(self, row: Iterable[int]) -> list[int]:
        size = len(self.tokens)
        ids = [i for i in row if 0 <= i < size]
        if ids and ids[-1] in self._plain_eos:
            ids.pop()
        return ids


def make_vocab(tokenizer: Any, *, eos_ids: Sequence[int] = (), texts: Iterable[str] | None = None) -> Vocab:
    """A vocabulary from any of the forms of ``tokenizer=``.

    Args:
        tokenizer: ``"bytes"``, ``"characters"`` or ``"words"`` (those of ``texts``, and EOS), a ``Vocab``, a Hugging
            Face fast tokenizer, or the name or folder of one (a folder of such a name: ``"./words"``).
        eos_ids: further ids that end a text (Hugging Face tokenizers only).
        texts: everything that must be writable.

    Raises:
        TypeError: none of these.
        ValueError: a tokenizer that cannot be loaded, or that has no EOS, or texts without a character or word.
    """
    if isinstance(tokenizer, Vocab) or (isinstance(tokenizer, str) and tokenizer in BUILT_IN):
        if len(eos_ids):
            raise ValueError("eos_ids belong to a Hugging Face tokenizer; a Vocab is made with its own eos=.")
        if isinstance(tokenizer, Vocab):
            return tokenizer
        if tokenizer == "bytes":
            return ByteVocab()
        if texts is None:
            raise ValueError(f"tokenizer={tokenizer!r} takes its tokens from texts, and there are none here.")
        return Vocab.characters(texts) if tokenizer == "characters" else Vocab.words(texts)
    if isinstance(tokenizer, str | Path):
        tokenizer = load_tokenizer(tokenizer)
    return TokenizerVocab(tokenizer, eos_ids=eos_ids)


def load_tokenizer(name: str | Path) -> Any:
    """A Hugging Face tokenizer from a hub name or a local folder.

    Raises:
        ImportError: transformers is not installed.
        ValueError: there is no such tokenizer, or no network to fetch it.
    """
    reader = tokenizer_class(name)
    try:
        return reader.from_pretrained(str(name))
    except (OSError, ValueError) as error:
        local = Path(name).is_dir()
        where = "the folder holds none" if local else "it is no local folder, and the hub has none or cannot be reached"
        where += f" (built in are {', '.join(BUILT_IN)})"
        reason = str(error).splitlines()[0]
        raise ValueError(f"Cannot load the tokenizer {str(name)!r}: {where}. ({reason})") from error


def tokenizer_class(name: str | Path) -> Any:
    """The class of transformers that reads a tokenizer.

    One's own comes back as it was saved: ``AutoTokenizer`` would go by the model beside it, if that is a Qwen2 for
    instance, and add that model's special tokens.

    Raises:
        ImportError: transformers is not installed.
    """
    try:
        from transformers import AutoTokenizer, PreTrainedTokenizerFast
    except ImportError as error:
        raise ImportError(
            "A tokenizer by name needs the transformers package: install the extra, e.g. pip install 'textenvs[lm]'."
        ) from error
    return PreTrainedTokenizerFast if _has_own_tokenizer(Path(name)) else AutoTokenizer


def _has_own_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer that is of no model's class."""
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return config.get("tokenizer_class") in ("PreTrainedTokenizerFast", "TokenizersBackend")


def _name(tokenizer: Any) -> str:
    return getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__


def word_tokenizer(vocab: Vocab) -> Any:
    """A Hugging Face fast tokenizer with the very ids of a vocabulary whose tokens are separated by spaces, to be saved
    beside a model (``save_pretrained``) and read by plain transformers.

    Raises:
        ImportError: transformers is not installed.
        ValueError: tokens that are separated by something else, or no EOS.
    """
    try:
        from tokenizers import Tokenizer, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast
    except ImportError as error:
        raise ImportError(
            "A tokenizer for transformers needs that package: install the extra, e.g. pip install 'textenvs[lm]'."
        ) from error
    if vocab.separator != " " or vocab.eos is None:
        raise ValueError(
            f"A word tokenizer needs tokens separated by spaces and an EOS; got separator {vocab.separator!r} and "
            f"eos {vocab.eos!r}."
        )
    words = {token: i for i, token in enumerate(vocab.tokens)}
    level = Tokenizer(models.WordLevel(words))  # without a token for unknown words, of which there are none
    level.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=level, eos_token=vocab.eos, pad_token=vocab.eos)
