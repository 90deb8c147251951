"""Tasks of form: masks against brute force, and against the variant without."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from textenvs import TextVectorEnv
from textenvs.rng import splitmix64
from textenvs.tasks import make_task


def keys(count: int) -> np.ndarray:
    return splitmix64(np.arange(count, dtype=np.uint64))


def legal_texts(task: Any, prompt: np.ndarray) -> set[tuple[int, ...]]:
    """Every text that the masks let through, asked for many states at once."""
    rows = np.concatenate([prompt, np.full(task.max_new_tokens, task.pad_id)])[None]
    for t in range(task.max_new_tokens):
        parent, action = np.nonzero(task.action_masks(rows, np.full(len(rows), t)))
        rows = rows[parent]
        rows[:, task.prompt_length + t] = action
    return set(map(tuple, rows[:, task.prompt_length :].tolist()))


def is_balanced(text: tuple[int, ...], kinds: int) -> bool:
    stack: list[int] = []
    for token in text:
        if token < kinds:
            stack.append(token)
        elif not stack or stack.pop() != token - kinds:
            return False
    return not stack


@pytest.mark.parametrize(
    ("name", "sizes", "has_the_form"),
    [
        ("DyckMasked", {"length": 3, "num_kinds": 2}, lambda text, prompt: is_balanced(text, 2)),
        ("PalindromeMasked", {"length": 3, "num_symbols": 4}, lambda text, prompt: text == text[::-1]),
        ("AnagramMasked", {"length": 4, "num_symbols": 5}, lambda text, prompt: sorted(text) == sorted(prompt)),
    ],
)
def test_masks_let_every_text_of_the_form_through_and_no_other(name, sizes, has_the_form):
    task = make_task(name, **sizes)
    for prompt in task.draw(keys(5))[0]:
        every = product(range(task.pad_id), repeat=task.max_new_tokens)
        assert legal_texts(task, prompt) == {text for text in every if has_the_form(text, tuple(prompt.tolist()))}


@pytest.mark.parametrize("name", ["DyckMasked", "PalindromeMasked", "AnagramMasked", "RandomWalkMasked", "ProbeMask"])
def test_something_is_legal_in_every_state(name):
    """Also where an illegal token was written, and where the text is over."""
    envs = TextVectorEnv(name, num_envs=256, autoreset_mode="Disabled")
    rng = np.random.default_rng(0)
    _, infos = envs.reset(seed=0)
    reasons = set()
    for _ in range(30):
        assert infos["action_mask"].any(axis=1).all()
        assert np.array_equal(infos["action_mask"].astype(bool), envs.action_masks())
        guided = np.where(envs.action_masks(), rng.random((256, envs.text_spec.num_tokens)), 0).argmax(axis=1)
        actions = np.where(rng.random(256) < 0.9, guided, rng.integers(envs.text_spec.num_tokens, size=256))
        *_, ended, _, infos = envs.step(actions)
        assert infos["action_mask"].any(axis=1).all()
        if ended.any():
            reasons.update(infos["finish_reason"][ended])
            envs.reset(options={"reset_mask": ended})
            infos = {"action_mask": envs.action_masks().astype(np.int8)}
    assert {"invalid"} < reasons


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("Dyck", {"length": 5}), ("Palindrome", {"length": 5}), ("Anagram", {}), ("RandomWalk", {})],
)
def test_masks_change_nothing_but_what_is_legal(name, sizes):
    """The masked variant has the prompts, the texts and the scores of the other one."""
    plain, masked = make_task(name, **sizes), make_task(f"{name}Masked", **sizes)
    assert (plain.has_masks, masked.has_masks) == (False, True)
    prompts, index = plain.draw(keys(50))
    for one, two in zip((prompts, index), masked.draw(keys(50)), strict=True):
        assert np.array_equal(one, two)
    assert plain.vocab == masked.vocab
    assert plain.default_reward == masked.default_reward
    assert np.array_equal(plain.oracle(prompts), masked.oracle(prompts))
    assert masked.random_score > plain.random_score
    assert type(masked).__doc__.startswith(f"As ``{name}``, under a mask")


def test_brackets_beyond_four_kinds_are_words():
    assert "".join(make_task("Dyck", num_kinds=4).vocab.tokens) == "([{<)]}>"
    task = make_task("Dyck", num_kinds=5, length=2)
    assert task.vocab.tokens[4::5] == ("(4", ")4")
    row = task.encode_prompt("(4 [")
    assert task.vocab.decode_rows(task.oracle(row[None])) == ["(4 [ ] )4"]
