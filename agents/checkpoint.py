"""Checkpoints: folders of ``config.json``, ``state.json``, ``*.safetensors``, written whole or not at all. No pickle.

State is a tree: nested dicts with string keys whose leaves are NumPy arrays, tensors, or plain JSON values. Every
entry at the top is a dict; one with arrays in it becomes a file of its own, ``network.safetensors`` for instance,
keyed by the path below it.
"""

from __future__ import annotations

import glob
import json
import os
import shutil
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

FORMAT = "textenvs-agent"
VERSION = 1
_JSON_FILES = ("config.json", "state.json")

Tree = dict[str, Any]


class CheckpointError(Exception):
    """A checkpoint that cannot be written or loaded here. Nothing has been changed."""


def save_checkpoint(folder: str | Path, config: Tree, state: Tree) -> None:
    """Write a checkpoint under a temporary name, then rename it into place.

    Args:
        folder: where; an earlier checkpoint of the same agent there is replaced, anything else is refused.
        config: what ``config.json`` says, JSON values only.
        state: the tree.

    Raises:
        CheckpointError: there is something else at ``folder``, e.g. a checkpoint of another agent or version, or a
            leaf that cannot be written.
    """
    folder = Path(folder)
    recover(folder)
    if folder.exists():
        _check_replaceable(folder, config)
    plain: dict[str, Any] = {}
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for name, subtree in state.items():
        if not isinstance(subtree, dict):
            raise CheckpointError(f"Entry {name!r} of a state must be a dict; got {type(subtree).__name__}.")
        _flatten(subtree, name, name, arrays.setdefault(name, {}), plain)
    folder.parent.mkdir(parents=True, exist_ok=True)
    for unfinished in _leftovers(folder, "tmp"):
        shutil.rmtree(unfinished, ignore_errors=True)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir()
    try:
        header = {"format": FORMAT, "version": VERSION, **config}
        (temporary / "config.json").write_text(json.dumps(header, indent=2, allow_nan=False) + "\n")
        (temporary / "state.json").write_text(json.dumps(plain, indent=1) + "\n")
        for name, leaves in arrays.items():
            if leaves:
                save_file(leaves, temporary / f"{name}.safetensors")
        _move(temporary, folder)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"Cannot write a checkpoint to {folder}: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def recover(folder: str | Path) -> None:
    """Put back an earlier checkpoint that a process left beside its place when it was killed in replacing it."""
    folder = Path(folder)
    if not folder.exists():
        for earlier in _leftovers(folder, "old")[-1:]:
            earlier.rename(folder)


def load_config(folder: str | Path) -> Tree:
    """``config.json`` of a checkpoint.

    Raises:
        CheckpointError: no checkpoint there, or one of another version.
    """
    folder = Path(folder)
    recover(folder)
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder} is not a checkpoint: it has no config.json.")
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise CheckpointError(f"{folder} is not a checkpoint of an agent: config.json has no format {FORMAT!r}.")
    if config.get("version") != VERSION:
        raise CheckpointError(
            f"{folder} is a checkpoint of version {config.get('version')}; this code reads version {VERSION}."
        )
    return config


def load_state(folder: str | Path) -> Tree:
    """The state tree of a checkpoint, arrays as NumPy arrays.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    folder = Path(folder)
    state: Tree = {}
    try:
        for path, value in json.loads((folder / "state.json").read_text()).items():
            _insert(state, path.split("/"), value)
        for file in sorted(folder.glob("*.safetensors")):
            for path, array in load_file(file).items():
                _insert(state, [file.stem, *path.split("/")], array)
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"The checkpoint {folder} is damaged: {error}") from error
    return state


def module_state(module: torch.nn.Module) -> Tree:
    """Parameters and persistent buffers of a module, for ``module.load_state_dict(to_tensors(...))``."""
    return dict(module.state_dict())


def optimizer_state(optimizer: torch.optim.Optimizer) -> Tree:
    """Moments and step counts of an optimiser; its hyper-parameters belong to the config."""
    return {str(i): dict(moments) for i, moments in optimizer.state_dict()["state"].items()}


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: Tree) -> None:
    """Put back what :func:`optimizer_state` gave."""
    moments = {int(i): to_tensors(entry) for i, entry in state.items()}
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})


def trainable_state(module: torch.nn.Module) -> Tree:
    """Trainable parameters of a module by name; those that many share, once."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def load_trainable_state(module: torch.nn.Module, state: Tree) -> None:
    """Put back what :func:`trainable_state` gave.

    Raises:
        ValueError: other names or shapes; nothing has been changed.
    """
    own = trainable_state(module)
    if own.keys() != state.keys():
        raise ValueError(f"parameters differ, for instance {sorted(own.keys() ^ state.keys())[0]!r}")
    for name, parameter in own.items():
        if tuple(parameter.shape) != state[name].shape:
            raise ValueError(f"{name} has shape {state[name].shape}, here {tuple(parameter.shape)}")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(torch.from_numpy(np.array(state[name])))


def checksum(parameters: Iterable[torch.Tensor]) -> int:
    """A number that changes with any bit of the tensors; the same on every machine."""
    total = 0
    for parameter in parameters:
        data = parameter.detach().cpu().contiguous().reshape(-1)
        total = zlib.crc32(data.view(torch.uint8).numpy().data, total)
    return total


def to_tensors(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """NumPy arrays as tensors."""
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def _check_replaceable(folder: Path, config: Tree) -> None:
    """Only an empty folder, or a checkpoint of the same kind with nothing else in it (logs, notes), may be replaced."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is a file; give a folder for the checkpoint.")
    files = list(folder.iterdir())
    if not files:
        return
    try:
        earlier = json.loads((folder / "config.json").read_text())
        ours = earlier.get("format") == FORMAT
    except (OSError, ValueError, AttributeError):
        ours = False
    if not ours:
        raise CheckpointError(f"{folder} exists and is not a checkpoint of an agent; give another folder.")
    if earlier.get("version") != VERSION:
        raise CheckpointError(
            f"{folder} holds a checkpoint of version {earlier.get('version')}; this code writes {VERSION}. Give "
            f"another folder."
        )
    if earlier.get("agent") != config.get("agent"):
        raise CheckpointError(
            f"{folder} holds a checkpoint of {earlier.get('agent')}, not of {config.get('agent')}; give another folder."
        )
    others = [file.name for file in files if file.suffix != ".safetensors" and file.name not in _JSON_FILES]
    if others:
        raise CheckpointError(
            f"{folder} holds other files beside a checkpoint ({others[0]}); give a folder of its own."
        )


def _leftovers(folder: Path, kind: str) -> list[Path]:
    """What processes that were killed have left beside a checkpoint, the newest last."""
    found = folder.parent.glob(f".{glob.escape(folder.name)}.*.{kind}")
    return sorted(found, key=lambda path: path.stat().st_mtime_ns)


def _move(new: Path, folder: Path) -> None:
    """Put ``new`` in the place of ``folder``."""
    if not folder.exists():
        new.rename(folder)
        return
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old)


def _flatten(tree: Any, path: str, name: str, arrays: dict[str, np.ndarray], plain: dict[str, Any]) -> None:
    if isinstance(tree, dict):
        for key, value in tree.items():
            if not isinstance(key, str) or "/" in key:
                raise CheckpointError(f"Keys of a state must be strings without a slash; got {key!r} in {path}.")
            _flatten(value, f"{path}/{key}", name, arrays, plain)
        return
    if isinstance(tree, torch.Tensor):
        tree = tree.detach().cpu().numpy()
    if isinstance(tree, np.ndarray):
        if tree.dtype.kind not in "biuf":
            raise CheckpointError(f"{path} is an array of {tree.dtype}; only numbers and booleans can be saved.")
        arrays[path.removeprefix(f"{name}/")] = np.array(tree, order="C")
    else:
        plain[path] = tree.item() if isinstance(tree, np.generic) else tree


def _insert(tree: Tree, path: list[str], value: Any) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value
