"""Faults of a task as a set of functions of arrays: prompts, columns, masks, splits."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from textenvs.rng import splitmix64
from textenvs.tasks import Task
from textenvs.tasks.dataset import RESERVED_COLUMNS
from textenvs.vocab import Vocab

KEYS = splitmix64(np.arange(256, dtype=np.uint64))
MANY_KEYS = splitmix64(np.arange(4_096, dtype=np.uint64))
SOME = np.arange(0, 256, 3)
MAX_NUMBERED = 20_000
"""Prompts of a split that are looked at by their numbers."""


def attribute_faults(env: Any, task: Task) -> Iterator[str]:
    """What the task says of itself, and whether the environment's spaces say the same."""
    if not isinstance(getattr(task, "name", None), str) or not task.name:
        yield f"name must be a non-empty string, got {getattr(task, 'name', None)!r}"
    if not isinstance(getattr(task, "vocab", None), Vocab):
        yield f"vocab must be a textenvs.Vocab, got {getattr(task, 'vocab', None)!r:.100}"
        return
    size = len(task.vocab)
    for name, least in (("prompt_length", 0), ("max_new_tokens", 1)):
        value = getattr(task, name, None)
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            yield f"{name} must be an integer of at least {least}, got {value!r}"
            return
    if task.split not in ("train", "test"):
        yield f"split must be 'train' or 'test', got {task.split!r}"
    for i in task.vocab.eos_ids:
        if not 0 <= i < size:
            yield f"EOS has the id {i}, which is none of the tokens 0 … {size - 1}"
    for name in ("random_score", "optimum"):
        value = getattr(task, name, None)
        if isinstance(value, bool) or not isinstance(value, float | int | np.floating):
            yield f"{name} must be a number (NaN where nobody knows it), got {value!r}"
    if not task.has_masks and type(task).action_masks is not Task.action_masks:
        yield "it has action_masks() but has_masks is False, so that nobody asks for them"
    length = task.prompt_length + task.max_new_tokens
    if getattr(env.action_space, "n", None) != size:
        yield f"the action space must be Discrete({size}), one action a token; it is {env.action_space}"
    nvec = getattr(env.observation_space, "nvec", np.zeros(0))
    if nvec.shape != (length,) or (nvec != size + 1).any():
        yield f"the observation space must be MultiDiscrete([{size + 1}] * {length}); it is {env.observation_space}"
    if type(task.vocab) is Vocab:  # tokenizers may join tokens
        for i in range(min(size, 1_000)):
            if i not in task.vocab.eos_ids and task.vocab.encode(task.vocab.decode([i])) != [i]:
                yield f"the vocabulary does not encode the text of token {i} back to it"
                break


def draw_faults(task: Task) -> Iterator[str]:
    """Prompts as a function of random keys."""
    width, pad_id = task.prompt_length, task.pad_id
    keys = KEYS.copy()
    rows, index = task.draw(keys)
    if not np.array_equal(keys, KEYS):
        yield "draw() changes the keys that it was given"
    for name, array, shape in (("prompts", rows, (len(KEYS), width)), ("numbers", index, (len(KEYS),))):
        if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype != np.int64:
            got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            yield f"draw() must give {name} int64 {shape}, got {got}"
            return
    if rows.size and (rows.min() < 0 or rows.max() > pad_id):
        yield f"draw() gives ids outside 0 … {pad_id}: {rows.min()} … {rows.max()}"
    padding = rows == pad_id
    wrong = np.flatnonzero((padding[:, 1:] & ~padding[:, :-1]).any(axis=1))
    if wrong.size:
        yield f"wrong padding: prompts are padded on the left, with {pad_id}; draw() gives {rows[wrong[0]].tolist()}"
    again, _ = task.draw(KEYS.copy())
    if not np.array_equal(rows, again):
        yield "draw() gives other prompts for the same keys: a task has no state, and draws from the keys alone"
        return
    if not np.array_equal(task.draw(KEYS[SOME])[0], rows[SOME]):
        yield "draw() gives other prompts for the same keys in another batch"
    numbered = index >= 0
    if task.has_prompts and numbered.any():
        if not np.array_equal(task.prompts_at(index[numbered]), rows[numbered]):
            yield "prompts_at() does not give the prompts whose numbers draw() says they have"
        try:
            task.prompts_at(np.array([2**62]))
        except ValueError:
            pass
        except Exception as error:
            yield f"prompts_at() must raise ValueError for a number outside, not {type(error).__name__}: {error}"
        else:
            yield "prompts_at() takes any number: one outside the prompt set must raise ValueError"
    if task.has_prompts:
        for row in rows[:16]:
            if not np.array_equal(task.encode_prompt(row), row):
                yield f"encode_prompt() does not give back the drawn prompt {row.tolist()}"
                break
            text = task.vocab.decode(row.tolist())
            if type(task.vocab) is Vocab and not np.array_equal(task.encode_prompt(text), row):
                yield f"encode_prompt({text!r:.100}) does not give back the drawn prompt with that text, {row.tolist()}"
                break


def column_faults(task: Task) -> Iterator[str]:
    """Columns as a function of prompts."""
    rows, index = task.draw(KEYS.copy())
    given = rows.copy()
    columns = task.columns(given, index)
    if not np.array_equal(given, rows):
        yield "columns() changes the prompts that it was given"
    try:
        pickle.dumps(columns)
    except Exception as error:
        yield f"columns() gives what cannot be pickled: {type(error).__name__}: {error}"
        return
    again, some = task.columns(rows.copy(), index), task.columns(rows[SOME], index[SOME])
    for name, column in columns.items():
        if name in RESERVED_COLUMNS:
            yield f"a column cannot be called {name!r}, which reward functions know as something else"
        if len(column) != len(KEYS):
            yield f"column {name!r} has {len(column)} entries for {len(KEYS)} prompts"
        elif not _same(column, again[name]):
            yield f"column {name!r} is another one when asked for again"
        elif not _same([column[i] for i in SOME], some[name]):
            yield f"column {name!r} depends on the other prompts of the batch"
    if task.has_prompts:
        yield from _given_prompt_faults(task)


def _given_prompt_faults(task: Task) -> Iterator[str]:
    """Columns of prompts that were given by themselves, whose number is −1: those of the same prompt, or unknown."""
    _, index = task.draw(KEYS.copy())
    last = int(index.max())
    if not 0 <= last < MAX_NUMBERED:
        return  # prompts without numbers, or too many to look for copies among
    numbers = np.arange(last + 1)
    rows = task.prompts_at(numbers)
    known = task.columns(rows.copy(), numbers)
    unknown = np.full(len(rows), -1)
    try:
        columns = task.columns(rows.copy(), unknown)
    except Exception as error:
        yield (
            f"columns() raised {type(error).__name__} for prompts that were given by themselves, which have the number "
            f"-1: {error}"
        )
        return
    of_prompt: dict[bytes, list[int]] = {}
    for i, row in enumerate(rows):
        of_prompt.setdefault(row.tobytes(), []).append(i)
    for name in known:
        for row, value in zip(rows, columns.get(name, ()), strict=False):
            copies = of_prompt[row.tobytes()]
            if not _says_unknown(value, task.pad_id) and not any(_equal(known[name][i], value) for i in copies):
                yield (
                    f"column {name!r} of the prompt {row.tolist()} is {known[name][copies[0]]!r:.100} by its number, "
                    f"and {value!r:.100} where the prompt was given by itself, which has the number -1 (None, -1 or "
                    f"padding says that nothing is known)"
                )
                break


def _says_unknown(value: Any, pad_id: int) -> bool:
    """Whether an entry of a column says that nothing is known: None, the number −1, or a row of padding."""
    if value is None or (isinstance(value, np.ndarray) and value.ndim > 0):
        return value is None or bool((value == pad_id).all())
    return isinstance(value, int | np.integer) and value == -1


def mask_faults(task: Task) -> Iterator[str]:
    """Masks as a function of states: those that random legal and illegal actions lead to, finished ones included."""
    if not task.has_masks:
        return
    rng = np.random.default_rng(0)
    prompts, _ = task.draw(KEYS.copy())
    count, first = len(prompts), task.prompt_length
    rows = np.full((count, first + task.max_new_tokens), task.pad_id, dtype=np.int64)
    rows[:, :first] = prompts
    written, over = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.bool_)
    while True:
        given = rows.copy()
        masks = task.action_masks(given, written.copy())
        if not np.array_equal(given, rows):
            yield "action_masks() changes the rows that it was given"
        if not isinstance(masks, np.ndarray) or masks.dtype != np.bool_ or masks.shape != (count, task.pad_id):
            yield f"action_masks() must give bool {(count, task.pad_id)}, got {masks!r:.100}"
            return
        stuck = np.flatnonzero(~masks.any(axis=1))
        if stuck.size:
            i = stuck[0]
            state = "the finished text" if over[i] else "the text"
            yield f"no action is legal after {state} {rows[i].tolist()} ({written[i]} tokens written)"
            return
        if not np.array_equal(task.action_masks(rows[SOME], written[SOME]), masks[SOME]):
            yield "action_masks() gives other masks for the same states in another batch, or when asked again"
            return
        if over.all():
            return
        # One action in eight may be illegal: it ends the text, and the mask is asked for all the same.
        liked = masks | (rng.random((count, 1)) < 1 / 8)
        actions = np.where(liked, rng.random(masks.shape), -1.0).argmax(axis=1)
        playing = np.flatnonzero(~over)
        rows[playing, first + written[playing]] = actions[playing]
        illegal = ~masks[np.arange(count), actions]
        written[playing] += 1
        over |= illegal | np.isin(actions, task.vocab.eos_ids) | (written == task.max_new_tokens)


def split_faults(task: Task, make_split: Callable[[str], Task] | None) -> Iterator[str]:
    """Whether a prompt stands in both splits."""
    if not task.has_prompts or make_split is None:
        return
    other_split = "train" if task.split == "test" else "test"
    try:
        other = make_split(other_split)
    except Exception as error:
        yield f"the {other_split} split cannot be made: {type(error).__name__}: {error}"
        return
    if other.split != other_split:
        yield f"made with split={other_split!r}, the task says that it has split={other.split!r}"
    sizes = [(each.prompt_length, each.max_new_tokens, each.pad_id) for each in (task, other)]
    if sizes[0] != sizes[1]:
        yield f"the splits have other shapes: (prompt_length, max_new_tokens, V) are {sizes[0]} and {sizes[1]}"
        return
    common = _prompts(task) & _prompts(other)
    if common:
        text = task.vocab.decode(np.frombuffer(min(common), dtype=np.int64).tolist())
        yield f"the splits overlap: {len(common)} prompts stand in both, for instance {text!r:.200}"


def _prompts(task: Task) -> set[bytes]:
    rows, index = task.draw(MANY_KEYS.copy())
    found = {row.tobytes() for row in rows}
    last = int(index.max())
    if 0 <= last < MAX_NUMBERED:
        found |= {row.tobytes() for row in task.prompts_at(np.arange(last + 1))}
    return found


def _same(one: Any, two: Any) -> bool:
    return all(_equal(left, right) for left, right in zip(one, two, strict=True))


def _equal(one: Any, two: Any) -> bool:
    if isinstance(one, np.ndarray) or isinstance(two, np.ndarray):
        return np.array_equal(np.asarray(one), np.asarray(two))
    return bool(one == two)
