"""What the reward models of this package share: checked arguments, the texts they read, optional libraries."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from textenvs.episodes import Episodes
from textenvs.errors import unknown_name

READABLE = ("completion", "text")
"""What a reward model may be told to read (``of=``): the completion alone, or prompt and completion as one text."""

_LONG_VERSION = 400


def version_of(**arguments: Any) -> str:
    """Version of a built-in reward: its number, and the arguments that its scores depend on (a hash of them where they
    are long)."""
    text = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    if len(text) > _LONG_VERSION:
        text = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=12).hexdigest()
    return f"1({text})"


def readable_texts(episodes: Episodes, of: str) -> list[str]:
    """The B texts that a reward model with this ``of=`` reads."""
    return episodes.completions if of == "completion" else episodes.texts


def text_column(episodes: Episodes, name: str, reward: str) -> list[str]:
    """A column of B strings; rows of ids ``X_ids`` give the text ``X``.

    Raises:
        ValueError: there is no such column.
        TypeError: an entry is not a string.
    """
    if name not in episodes.column_names():
        raise ValueError(
            f"{reward!r} compares with the column {name!r}, which this task does not have. "
            f"Its columns: {', '.join(episodes.column_names()) or '(none)'}."
        )
    entries = entries_of(episodes.column(name))
    for i, entry in enumerate(entries):
        if not isinstance(entry, str):
            raise TypeError(f"{reward!r} needs texts in the column {name!r}; row {i} holds {entry!r:.200}.")
    return entries


def entries_of(column: Any) -> list[Any]:
    """A column as a list of plain Python values."""
    return column.tolist() if isinstance(column, np.ndarray) else list(column)


def whole_number(reward: str, argument: str, value: Any, *, minimum: int = 1) -> int:
    """``value`` as an int; a string of digits (from ``"name:12"``) is one.

    Raises:
        TypeError: it is none.
        ValueError: it is below ``minimum``.
    """
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{reward!r}: {argument} must be a whole number, got {value!r}.")
    if value < minimum:
        raise ValueError(f"{reward!r}: {argument} must be at least {minimum}, got {value}.")
    return int(value)


def choice(reward: str, argument: str, value: Any, allowed: Iterable[str]) -> str:
    """``value``, if it is one of ``allowed``.

    Raises:
        ValueError: it is not; the message names the nearest.
    """
    allowed = tuple(allowed)
    if value not in allowed:
        raise ValueError(f"{reward!r}: {unknown_name(f'{argument}=', value, allowed)}")
    return str(value)


def names(reward: str, argument: str, value: Any, *, empty: bool = False) -> tuple[str, ...]:
    """Distinct, non-empty strings; one string is a list separated by commas.

    Raises:
        TypeError: not strings.
        ValueError: an empty one, or none at all where ``empty`` is False.
    """
    entries = [part.strip() for part in value.split(",")] if isinstance(value, str) else list(value)
    for entry in entries:
        if not isinstance(entry, str):
            raise TypeError(f"{reward!r}: {argument} must be strings, got {entry!r}.")
        if not entry:
            raise ValueError(f"{reward!r}: {argument} holds an empty string.")
    if not entries and not empty:
        raise ValueError(f"{reward!r}: {argument} must name at least one.")
    return tuple(dict.fromkeys(entries))


def load_library(module: str, *, reward: str, extra: str) -> Any:
    """The module, imported now.

    Raises:
        ImportError: it is not installed; the message names the extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"Reward {reward!r} needs {module.partition('.')[0]!r}: pip install 'textenvs[{extra}]'. ({error})"
        ) from error
