"""Random texts without playing: the floor under every score."""

from __future__ import annotations

import numpy as np

from textenvs.engine import episodes_from_rows
from textenvs.episodes import Episodes
from textenvs.rng import subkeys
from textenvs.tasks.base import Task


def random_episodes(task: Task, keys: np.ndarray) -> Episodes:
    """What uniformly random actions write in a task without masks.

    Args:
        task: what is to be written.
        keys: uint64 [B], from which prompts and actions come.
    """
    prompts, index = task.draw(keys)
    random = subkeys(keys ^ np.uint64(2**63), task.max_new_tokens)
    completions = (random % np.uint64(task.pad_id)).astype(np.int64)
    is_end = np.isin(completions, task.vocab.eos_ids)
    ended = is_end.any(axis=1)
    lengths = np.where(ended, is_end.argmax(axis=1) + 1, task.max_new_tokens)
    completions[np.arange(task.max_new_tokens) >= lengths[:, None]] = task.pad_id
    return episodes_from_rows(
        task,
        np.concatenate([prompts, completions], axis=1),
        lengths=lengths,
        finish_reason=np.where(ended, "stop", "length").astype(object),
        key=keys,
        prompt_index=index,
    )
