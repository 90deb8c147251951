"""Checking the fields of a config: their names and types."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np

from textenvs.errors import unknown_name


def check_fields(config_class: type, given: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments for a dataclass, NumPy's numbers as Python's, which a checkpoint can hold.

    Raises:
        TypeError: an unknown key; the message lists the known ones and the nearest. A value of another type.
    """
    known = get_type_hints(config_class)
    values = {key: value.item() if isinstance(value, np.generic) else value for key, value in given.items()}
    for key, value in values.items():
        if key not in known:
            raise TypeError(unknown_name("config key", key, known))
        if not _is_a(value, known[key]):
            raise TypeError(f"{key} must be {_kind(known[key])}; got {value!r:.100}.")
    return values


def _is_a(value: Any, hint: Any) -> bool:
    options = get_args(hint)
    if get_origin(hint) is Literal:  # which of them it may be, the config says itself
        return isinstance(value, type(options[0]))
    if get_origin(hint) is dict:
        return isinstance(value, dict)
    if options:  # a union
        return any(_is_a(value, option) for option in options)
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, int | float if hint is float else hint)


def _kind(hint: Any) -> str:
    """A type of a config in words."""
    options = get_args(hint)
    if get_origin(hint) is dict:
        return "a mapping"
    if options:
        return " or ".join(repr(option) if get_origin(hint) is Literal else _kind(option) for option in options)
    return {int: "an integer", float: "a number", bool: "True or False", type(None): "None"}.get(hint, hint.__name__)
