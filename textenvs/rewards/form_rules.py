"""Rules on the form of a text, computed from the token ids as arrays: brackets, palindromes, anagrams.

What is to be written depends on the prompt, whose tokens each of them reads from ``prompt_ids``.
"""

from __future__ import annotations

import numpy as np

from textenvs.arrays import count_true
from textenvs.episodes import Episodes
from textenvs.rewards.registry import register_reward


@register_reward("brackets")
class Brackets:
    """Share of the prompt's brackets that are opened in their order, and closed, before the text goes wrong.

    The ids 0 … k − 1 open brackets of k = V // 2 kinds, and k + i closes what i opens. The text goes wrong at the first
    token that no balanced text with as many pairs as the prompt has brackets can go on with. Range: [0, 1].
    """

    low, high = 0.0, 1.0
    deterministic, version, cost = True, "1", "array"

    def score(self, episodes: Episodes) -> np.ndarray:
        kinds = episodes.pad_id // 2
        prompts, wanted = _left_aligned(episodes)
        count, width = prompts.shape
        if not width:
            return np.zeros(count, dtype=np.float32)
        # The stacks of open brackets and whether each was opened in turn. What is written to the last place is nowhere.
        stack, in_turn = np.zeros((2, count * (width + 1)), dtype=np.int64)
        first, first_wanted = np.arange(count) * (width + 1), np.arange(count) * width
        height, opened, closed = (np.zeros(count, dtype=np.int64) for _ in range(3))
        sound = np.ones(count, dtype=np.bool_)
        for token in episodes.completion_ids.T:
            opens = sound & (token < kinds) & (opened < wanted)
            top = first + height - (height > 0)
            closes = sound & (height > 0) & (token == stack[top] + kinds)
            sound = opens | closes
            closed += closes * in_turn[top]
            place = first + np.where(opens, height, width)
            stack[place] = token
            in_turn[place] = token == prompts.reshape(-1)[first_wanted + np.minimum(opened, width - 1)]
            opened += opens
            height += opens
            height -= closes
        return (closed / np.maximum(wanted, 1)).astype(np.float32)


@register_reward("palindrome")
class Palindrome:
    """Share of the prompt's symbols that stand in the text twice, mirrored at its middle; repeated ones count as often.

    Range: [0, 1]; 1 for a text of twice the prompt's length means that it is a palindrome of the prompt's symbols.
    """

    low, high = 0.0, 1.0
    deterministic, version, cost = True, "1", "array"

    def score(self, episodes: Episodes) -> np.ndarray:
        ids, pad = _without_eos(episodes), episodes.pad_id
        length = count_true(ids != pad)[:, None]
        place = np.arange(ids.shape[1])
        mirrored = np.take_along_axis(ids, np.maximum(length - 1 - place, 0), axis=1)
        pairs = np.where((place < length // 2) & (ids == mirrored), ids, pad)
        # The n-th pair of a symbol counts if the prompt has it n times.
        counts = (pairs != pad) & (_occurrence(pairs) < _how_often(pairs, episodes.prompt_ids))
        wanted = count_true(episodes.prompt_ids != pad)
        return (count_true(counts) / np.maximum(wanted, 1)).astype(np.float32)


@register_reward("anagram")
class Anagram:
    """Share of the prompt's symbols that the text has, each at most as often as the prompt, none at its old place.

    The n-th occurrence of a symbol counts if the prompt has it n times and does not have it at the same place.
    Range: [0, 1]; 1 for a text of the prompt's length means an anagram without a symbol at its old place.
    """

    low, high = 0.0, 1.0
    deterministic, version, cost = True, "1", "array"

    def score(self, episodes: Episodes) -> np.ndarray:
        ids, pad = _without_eos(episodes), episodes.pad_id
        prompts, wanted = _left_aligned(episodes)
        counts = (ids != pad) & (_occurrence(ids) < _how_often(ids, prompts))
        width = min(ids.shape[1], prompts.shape[1])
        counts[:, :width] &= ids[:, :width] != prompts[:, :width]
        return (count_true(counts) / np.maximum(wanted, 1)).astype(np.float32)


def _without_eos(episodes: Episodes) -> np.ndarray:
    """Completions [B, T] with padding in place of EOS, which is the last token where there is one."""
    ids = episodes.completion_ids
    for eos in episodes.vocab.eos_ids:
        ids = np.where(ids == eos, episodes.pad_id, ids)
    return ids


def _left_aligned(episodes: Episodes) -> tuple[np.ndarray, np.ndarray]:
    """Prompts [B, P] with their padding on the right, and their lengths [B]."""
    prompts, pad = episodes.prompt_ids, episodes.pad_id
    padding = prompts == pad
    if padding.any():
        prompts = np.take_along_axis(prompts, np.argsort(padding, axis=1, kind="stable"), axis=1)
    return prompts, prompts.shape[1] - count_true(padding)


def _occurrence(ids: np.ndarray) -> np.ndarray:
    """How often each token of rows [B, T] stands further left in its row, int64 [B, T]."""
    earlier = np.zeros_like(ids)
    for shift in range(1, ids.shape[1]):
        earlier[:, shift:] += ids[:, shift:] == ids[:, :-shift]
    return earlier


def _how_often(ids: np.ndarray, prompts: np.ndarray) -> np.ndarray:
    """How often the prompt [B, P] has each token of rows [B, T], int64 [B, T]."""
    times = np.zeros_like(ids)
    for symbol in prompts.T:
        times += ids == symbol[:, None]
    return times
