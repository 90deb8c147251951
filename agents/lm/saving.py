"""Policies on disk: a folder that plain transformers reads, with value head, critic and settings beside it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from agents.lm.loading import load_model
from textenvs.tokenizers import load_tokenizer

FORMAT = "textenvs-lm-policy"
VERSION = 1


def save_policy(
    folder: str | Path, model: Any, tokenizer: Any, critic: Any, value_head: nn.Module, settings: dict[str, Any]
) -> None:
    """Write a policy. One that is already there is replaced; the folder is there as a whole or not at all.

    Args:
        model, tokenizer, critic: each with ``save_pretrained``; tokenizer and critic may be None.
        settings: JSON values.

    Raises:
        ValueError: there is something else at ``folder``.
    """
    with replacing(folder) as temporary:
        model.save_pretrained(temporary)
        if tokenizer is not None:
            tokenizer.save_pretrained(temporary)
        if critic is not None:
            critic.save_pretrained(temporary / "critic")
        head = {name: parameter.detach().cpu().clone() for name, parameter in value_head.named_parameters()}
        save_file(head, temporary / "value_head.safetensors")
        header = {"format": FORMAT, "version": VERSION, **settings}
        (temporary / "policy.json").write_text(json.dumps(header, indent=2) + "\n")


@contextlib.contextmanager
def replacing(folder: str | Path) -> Iterator[Path]:
    """A temporary folder to write a model into, which takes the place of ``folder`` when all is written.

    Raises:
        ValueError: there is something else than a model at ``folder``.
    """
    folder = Path(folder)
    is_model = any((folder / name).is_file() for name in ("config.json", "adapter_config.json"))
    if folder.exists() and not is_model and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is no model: give another folder.")
    temporary, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{end}") for end in ("tmp", "old"))
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_settings(folder: Path) -> dict[str, Any] | None:
    """The settings of a saved policy; None where there is a model alone.

    Raises:
        ValueError: they are damaged, or of another version.
    """
    path = folder / "policy.json"
    if not path.is_file():
        return None
    try:
        settings = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if not isinstance(settings, dict) or settings.get("format") != FORMAT:
        raise ValueError(f"{path} is not the settings of a policy: it has no format {FORMAT!r}.")
    if settings.get("version") != VERSION:
        raise ValueError(f"{path} is of version {settings.get('version')}; this code reads version {VERSION}.")
    return settings


def load_critic_trunk(folder: Path) -> Any:
    """The trunk of a saved critic.

    Raises:
        ValueError: it cannot be read.
    """
    return load_model(folder / "critic", "AutoModel")


def load_value_head(folder: Path, value_head: nn.Module) -> None:
    """Put back a saved value head.

    Raises:
        ValueError: it is missing or damaged.
    """
    path = folder / "value_head.safetensors"
    try:
        value_head.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path} is missing or damaged: {error}") from error


def find_tokenizer(name: str | Path) -> Any:
    """The tokenizer beside a model; None if it is a folder without one.

    Raises:
        ValueError: it cannot be read.
    """
    folder, files = Path(name), ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json")
    if folder.is_dir() and not any((folder / file).is_file() for file in files):
        return None
    return load_tokenizer(name)
