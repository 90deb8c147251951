"""The optional library reasoning-gym: loading it, and opening its data sets, without touching global randomness."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from textenvs.errors import unknown_name
from textenvs.rng import global_randomness_kept


def library(module: str, user: str) -> Any:
    """A module of reasoning-gym, imported now.

    Args:
        module: its name inside the package.
        user: who needs it, for the message.

    Raises:
        ImportError: reasoning-gym is not installed; the message names the extra that brings it.
    """
    try:
        with global_randomness_kept():  # importing it draws from the global generator
            return importlib.import_module(f"reasoning_gym.{module}")
    except ImportError as error:
        raise ImportError(f"{user} needs 'reasoning_gym': pip install 'textenvs[reasoning-gym]'. ({error})") from error


def open_dataset(dataset: str, config: Mapping[str, Any], user: str) -> Any:
    """One of reasoning-gym's data sets.

    Args:
        dataset: its name.
        config: its settings, ``seed`` and ``size`` among them.
        user: who needs it, for messages.

    Raises:
        ImportError: reasoning-gym is not installed.
        ValueError: an unknown data set, or settings that it does not take.
    """
    factory = library("factory", user)
    if dataset not in factory.DATASETS:
        raise ValueError(f"{user}: {unknown_name('data set', dataset, factory.DATASETS)}")
    try:
        with global_randomness_kept():
            return factory.create_dataset(dataset, **config)
    except (AssertionError, TypeError) as error:
        raise ValueError(f"{user}: the data set {dataset!r} does not take {dict(config)!r}: {error}") from error
