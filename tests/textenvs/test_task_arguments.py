"""Sizes, prompts and names that tasks take and refuse, and what their docstrings say of them."""

from __future__ import annotations

import inspect
import re

import gymnasium as gym
import numpy as np
import pytest

from textenvs import TextEnv, TextVectorEnv, check_text_env
from textenvs.tasks import TASKS, make_task


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("Copy", {"length": 0}, "Copy: length must be at least 1, got 0"),
        ("Copy", {"length": 2.0}, "length must be an integer"),
        ("Copy", {"length": True}, "length must be an integer"),
        ("Reverse", {"num_symbols": 1}, "Reverse: num_symbols must be at least 2"),
        ("Sort", {"min_length": 0}, "min_length must be between 1 and 4"),
        ("Sort", {"min_length": 5}, "min_length must be between 1 and 4, got 5"),
        ("Sort", {"length": "4"}, "length must be an integer, got '4'"),
        ("Copy", {"split": "validation"}, "Unknown split 'validation'.*test, train"),
        ("Copy", {"split": "tset"}, "Did you mean 'test'"),
        ("Copy", {"length": 1, "split": "test"}, "too few for a test split"),
        ("HiddenTarget", {"split": "test"}, "HiddenTarget has no prompts and so no test split.*task_seed"),
        ("PrefixLock", {"task_seed": -1}, "task_seed must be at least 0"),
        ("PrefixLock", {"length": 0}, "length must be at least 1"),
        ("Keywords", {"num_keywords": 13}, "num_keywords must be between 1 and 12"),
        ("Keywords", {"num_symbols": 3}, "num_keywords must be between 1 and 3"),
        ("Dyck", {"num_kinds": 1}, "num_kinds must be at least 2"),
        ("Dyck", {"length": 2, "num_kinds": 2, "split": "test"}, "only 4 prompts of 2 symbols out of 2: too few"),
        ("Palindrome", {"length": 9}, "length must be between 1 and 8"),
        ("Palindrome", {"length": 14, "num_symbols": 40}, r"more than 2\*\*32"),
        ("Anagram", {"length": 1}, "length must be between 2 and 8"),
        ("Anagram", {"length": 2, "num_symbols": 3, "split": "test"}, "only 6 prompts of 2 different symbols out of 3"),
        ("ModSum", {"num_symbols": 1}, "num_symbols must be at least 2"),
        ("Addition", {"digits": 6}, "digits must be between 1 and 5"),
        ("Countdown", {"num_numbers": 5}, "num_numbers must be between 2 and 4"),
        ("Countdown", {"max_target": 17}, "max_target must be between 18 and 9999"),
        ("RandomWalk", {"num_nodes": 5}, "num_nodes must be between 6 and 62"),
        ("BitModes", {"length": 15, "num_modes": 9}, "num_modes must be between 1 and 8"),
        ("NoisyReverse", {"noise": 0.5}, r"noise must be a number in \[0, 0\.5\), got 0\.5"),
        ("RewardSwap", {"swap_at": -1}, "swap_at must be at least 0"),
        ("LongCopy", {"length": 127}, "length must be at least 128"),
        ("BigVocab", {"num_symbols": 4_095}, "num_symbols must be at least 4096"),
        ("Deceptive", {"lure": 1.0}, r"lure must be a number in \[0, 1\)"),
        ("ProbeMask", {"split": "test"}, "ProbeMask has no prompts and so no test split"),
    ],
)
def test_sizes_out_of_range(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_task(name, **arguments)


def test_unknown_task_and_unknown_argument():
    with pytest.raises(ValueError, match=r"Unknown task 'Revers'\. Did you mean 'Reverse'\? Known: Addition, Ana"):
        make_task("Revers")
    with pytest.raises(TypeError, match=r"Unknown argument of Copy 'lenght'\. Did you mean 'length'\? Known: .*split"):
        make_task("Copy", lenght=3)
    with pytest.raises(TypeError, match="Unknown argument of Copy 'task_seed'"):
        make_task("Copy", task_seed=3)


def test_task_objects_are_taken_as_they_are():
    task = make_task("Copy", length=2)
    assert make_task(task) is task
    with pytest.raises(TypeError, match=r"finished task object: \['length'\]"):
        make_task(task, length=3)


class Shout(TASKS["Copy"]):
    name = "Shout"


def test_a_task_of_ones_own_is_registered_by_its_class():
    gym.register("mine/Shout-v0", entry_point=TextEnv, vector_entry_point=TextVectorEnv, kwargs={"task": Shout})
    try:
        task = gym.make("mine/Shout-v0", length=3, split="test").unwrapped.task
        assert (type(task), task.prompt_length, task.split) == (Shout, 3, "test")
        assert gym.make_vec("mine/Shout-v0", num_envs=2, length=2).task.prompt_length == 2
        with pytest.raises(TypeError, match=r"Unknown argument of Shout 'lenght'\. Did you mean 'length'"):
            gym.make("mine/Shout-v0", lenght=3)
        check_text_env("mine/Shout-v0")
    finally:
        del gym.registry["mine/Shout-v0"]


PROMPT_ERRORS = [
    ("01232", "has 5 tokens; Copy allows at most 4"),
    ("01x", "'x' .*is not a token"),
    ("<eos>", "is not a token"),
    ("0", "has 1 tokens, at least 2 are needed"),
    ("", "has 0 tokens"),
    ([0, 1, 4], "EOS cannot stand in a prompt"),
    ([0, 6], "must lie in 0 … 4"),
    ([0, 5, 1], "must lie in 0 … 4"),  # padding in the middle
    ([0, 1, 5], "must lie in 0 … 4"),  # and on the right
    ([0, -1], "must lie in 0 … 4"),
    ([0.0, 1.0], "a text or a row of token ids"),
    ([[0, 1]], r"a text or a row of token ids.*shape \(1, 2\)"),
    (None, "a text or a row of token ids"),
    (7, "a text or a row of token ids"),
    ([True, False], "a text or a row of token ids"),
    ([0, 2**70], "a text or a row of token ids"),
]


@pytest.mark.parametrize(("prompt", "message"), PROMPT_ERRORS)
def test_impossible_prompts(prompt, message):
    task = make_task("Copy", length=4, num_symbols=4, min_length=2)  # EOS is 4, padding is 5
    with pytest.raises(ValueError, match=message):
        task.encode_prompt(prompt)


@pytest.mark.parametrize(
    ("name", "prompt", "message"),
    [
        ("Dyck", "([", "the prompt has 2 tokens, 4 are needed"),
        ("Dyck", "([)]", r"a prompt has opening brackets only, got '\(\[\)\]'"),
        ("Palindrome", "0120", "the symbols of a prompt must all differ"),
        ("AnagramMasked", [1, 1, 2, 3, 4], "the symbols of a prompt must all differ"),
        ("ModSum", "12", "the prompt has 2 tokens, 3 are needed"),
        ("ProbeBoth", "1", "the prompt has 1 tokens, 5 are needed"),
    ],
)
def test_impossible_prompts_of_other_tasks(name, prompt, message):
    with pytest.raises(ValueError, match=message):
        make_task(name).encode_prompt(prompt)


@pytest.mark.parametrize("prompt", ["012", [0, 1, 2], (0, 1, 2), np.array([0, 1, 2], dtype=np.uint8), [5, 0, 1, 2]])
def test_prompts_as_text_and_as_ids(prompt):
    task = make_task("Copy", length=4, num_symbols=4, min_length=2)
    row = task.encode_prompt(prompt)
    assert row.tolist() == [5, 0, 1, 2]
    assert row.dtype == np.int64


@pytest.mark.parametrize("name", [name for name in TASKS if name != "ReasoningGym" and not make_task(name).has_prompts])
def test_tasks_without_prompts_take_none(name):
    task = make_task(name)
    assert not task.has_prompts
    for refuse in (lambda: task.encode_prompt("0"), lambda: task.prompts_at(np.array([0]))):
        with pytest.raises(ValueError, match=f"{name} has no prompts"):
            refuse()


def test_the_class_docstrings_name_every_argument():
    """They are all that a user sees of a task's sizes."""
    for task in TASKS.values():
        documented = "".join(base.__doc__ or "" for base in task.__mro__)
        for name in inspect.signature(task.__init__).parameters.keys() - {"self"}:
            assert re.search(rf"^ +(?:\w+, )*{name}(?:, \w+)*: ", documented, re.MULTILINE), f"{task.name}: {name}"
