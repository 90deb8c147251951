"""The tasks: what they ask for, their oracles, and the scores that they state."""

from __future__ import annotations

import inspect
from itertools import product
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from textenvs import TextEnv, TextVectorEnv, check_text_env
from textenvs.engine import episodes_from_rows
from textenvs.rewards import Judge, make_reward
from textenvs.tasks import TASKS, make_task

PROMPTED = ("Copy", "Reverse", "Sort")
HIDDEN = ("HiddenTarget", "PrefixLock", "Keywords")
EOS_VARIANTS: list[dict[str, Any]] = [
    {"length": 4, "num_symbols": 8, "min_length": 1},
    {"length": 3, "num_symbols": 4, "min_length": 2},
    {"length": 6, "num_symbols": 5, "min_length": 5},
]
ALL: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in (*PROMPTED, *HIDDEN)),
    *((name, sizes) for name in PROMPTED for sizes in EOS_VARIANTS),
    ("HiddenTarget", {"length": 3, "num_symbols": 4, "task_seed": 5}),
    ("PrefixLock", {"length": 3, "num_symbols": 2, "task_seed": 5}),
    ("Keywords", {"length": 3, "num_symbols": 4, "num_keywords": 3, "task_seed": 5}),
]


def rows_of(task, prompts: list[str]) -> np.ndarray:
    return np.stack([task.encode_prompt(prompt) for prompt in prompts])


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("Copy", ["3021", "2233", "0001"]),
        ("Reverse", ["1203", "3322", "1000"]),
        ("Sort", ["0123", "2233", "0001"]),
    ],
)
def test_oracles_by_hand(name, answers):
    task = make_task(name, length=4, num_symbols=4)
    completions = task.oracle(rows_of(task, ["3021", "2233", "0001"]))
    assert completions.dtype == np.int64
    assert task.vocab.decode_rows(completions) == answers


@pytest.mark.parametrize(
    ("name", "completions"),
    [
        ("Copy", [[2, 0, 1, 3], [1, 0, 3, 4], [2, 3, 4, 4]]),
        ("Reverse", [[1, 0, 2, 3], [0, 1, 3, 4], [2, 3, 4, 4]]),
        ("Sort", [[0, 1, 2, 3], [0, 1, 3, 4], [2, 3, 4, 4]]),
    ],
)
def test_oracles_with_eos_by_hand(name, completions):
    """Three symbols, EOS is 3, padding is 4."""
    task = make_task(name, length=3, num_symbols=3, min_length=1)
    assert (task.prompt_length, task.max_new_tokens, task.pad_id) == (3, 4, 4)
    prompts = rows_of(task, ["201", "10", "2"])
    assert prompts.tolist() == [[2, 0, 1], [4, 1, 0], [4, 4, 2]]
    assert task.oracle(prompts).tolist() == completions
    assert task.columns(prompts, np.zeros(3, dtype=np.int64))["target_ids"].tolist() == completions


def test_oracles_against_strings():
    for name, function in (
        ("Copy", str),
        ("Reverse", lambda text: text[::-1]),
        ("Sort", lambda text: "".join(sorted(text))),
    ):
        for sizes in ({"length": 50}, {"length": 50, "min_length": 20}):
            task = make_task(name, **sizes)
            prompts, _ = task.draw(np.arange(300, dtype=np.uint64))
            texts = task.vocab.decode_rows(prompts)
            assert task.vocab.decode_rows(task.oracle(prompts)) == [function(text) for text in texts]


def test_the_oracle_leaves_the_prompts_alone():
    for name in PROMPTED:
        task = make_task(name)
        prompts = rows_of(task, ["3021"])
        task.oracle(prompts)[:] = 0
        assert prompts.tolist() == [[3, 0, 2, 1]]


def all_scores(task, index: int) -> tuple[float, float]:
    """Expected score of uniform actions and highest score for one prompt, over every possible text."""
    size, budget, eos_ids = len(task.vocab), task.max_new_tokens, task.vocab.eos_ids
    texts, probabilities, reasons = [], [], []
    for n in range(1, budget + 1):
        for text in product(range(size), repeat=n):
            stops = text[-1] in eos_ids
            if any(i in eos_ids for i in text[:-1]) or not (stops or n == budget):
                continue
            texts.append([*text, *[task.pad_id] * (budget - n)])
            probabilities.append(float(size) ** -n)
            reasons.append("stop" if stops else "length")
    assert sum(probabilities) == pytest.approx(1.0)
    numbers = np.full(len(texts), index)
    prompts = task.prompts_at(numbers) if task.has_prompts else np.zeros((len(texts), 0), dtype=np.int64)
    rows = np.concatenate([prompts, np.array(texts)], axis=1)
    episodes = episodes_from_rows(
        task,
        rows,
        lengths=(np.array(texts) != task.pad_id).sum(axis=1),
        finish_reason=np.array(reasons, dtype=object),
        key=np.zeros(len(texts), dtype=np.uint64),
        prompt_index=numbers,
    )
    scores = Judge(make_reward(task.default_reward))(episodes).total
    return float(np.dot(scores.astype(np.float64), probabilities)), float(scores.max())


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("Copy", {"length": 3, "num_symbols": 3}),
        ("Reverse", {"length": 2, "num_symbols": 2, "min_length": 1}),
        ("Sort", {"length": 3, "num_symbols": 3, "min_length": 2}),
        ("Copy", {"length": 3, "num_symbols": 2, "min_length": 1}),
        ("HiddenTarget", {"length": 3, "num_symbols": 4}),
        ("PrefixLock", {"length": 4, "num_symbols": 3}),
        ("Keywords", {"length": 3, "num_symbols": 5, "num_keywords": 2}),
    ],
)
def test_stated_scores_against_every_text_there_is(name, sizes):
    task = make_task(name, **sizes)
    by_length: dict[int, list[float]] = {}
    for index in range(task.prompt_set.count if task.has_prompts else 1):
        expected, best = all_scores(task, index)
        assert best == pytest.approx(task.optimum)
        length = int((task.prompts_at(np.array([index])) != task.pad_id).sum()) if task.has_prompts else 0
        by_length.setdefault(length, []).append(expected)
    # Each length of prompt is drawn equally often.
    expected = np.mean([np.mean(scores) for scores in by_length.values()])
    assert task.random_score == pytest.approx(expected, rel=1e-6)


def first_scores(envs: TextVectorEnv, plan: np.ndarray) -> np.ndarray:
    """Scores of the first episode that ends in each sub-environment (later ones would favour short texts)."""
    scores = np.full(envs.num_envs, np.nan)
    for actions in plan.T:
        *_, infos = envs.step(actions)
        if "final_info" in infos:
            first = infos["_final_info"] & np.isnan(scores)
            scores[first] = infos["final_info"]["score"][first]
    return scores


@pytest.mark.parametrize(("name", "sizes"), ALL)
def test_random_score_by_playing(name, sizes):
    """Uniform actions, within 4 standard errors."""
    envs = TextVectorEnv(name, num_envs=512, **sizes)
    spec = envs.text_spec
    rng = np.random.default_rng(0)
    envs.reset(seed=10)
    scores = []
    for _ in range(16):
        scores.extend(first_scores(envs, rng.integers(spec.num_tokens, size=(512, spec.max_new_tokens))))
        envs.reset()
    error = np.std(scores) / np.sqrt(len(scores))
    assert error > 0
    assert abs(np.mean(scores) - envs.task.random_score) < 4 * error


@pytest.mark.parametrize(
    ("name", "sizes", "split"),
    [(name, sizes, "train") for name, sizes in ALL]
    + [(name, sizes, "test") for name, sizes in ALL if name in PROMPTED and sizes.get("min_length") != 1],
)
def test_the_oracle_reaches_the_optimum(name, sizes, split):
    envs = TextVectorEnv(name, num_envs=64, split=split, **sizes)
    spec = envs.text_spec
    obs, _ = envs.reset(seed=4)
    plan = envs.task.oracle(obs[:, : spec.prompt_length])
    assert plan.shape == (64, spec.max_new_tokens)
    plan[plan == spec.pad_id] = 0  # the text is over by then: any action will do
    assert first_scores(envs, plan).tolist() == [envs.task.optimum] * 64


def test_random_scores_by_hand():
    assert make_task("Copy").random_score == 1 / 8
    assert make_task("HiddenTarget").random_score == 1 / 16
    assert make_task("PrefixLock", length=2, num_symbols=4).random_score == (1 / 4 + 1 / 16) / 2
    assert make_task("Keywords", length=2, num_symbols=4, num_keywords=2).random_score == 1 - (3 / 4) ** 2


def test_hidden_things_come_from_the_task_seed_alone():
    for name, attribute in (("HiddenTarget", "target"), ("PrefixLock", "target"), ("Keywords", "keywords")):
        hidden = [getattr(make_task(name, task_seed=seed), attribute).tolist() for seed in range(50)]
        assert hidden[3] == getattr(make_task(name, task_seed=3), attribute).tolist()
        assert len({tuple(row) for row in hidden}) > 45
    keywords = make_task("Keywords", num_symbols=8, length=8, num_keywords=8).keywords
    assert sorted(keywords.tolist()) == list(range(8))  # different symbols


def test_every_symbol_is_hidden_equally_often():
    hidden = np.concatenate([make_task("HiddenTarget", task_seed=seed, num_symbols=4).target for seed in range(500)])
    keywords = np.concatenate([make_task("Keywords", task_seed=seed, num_symbols=16).keywords for seed in range(500)])
    for drawn, size in ((hidden, 4), (keywords, 16)):
        counts, p = np.bincount(drawn, minlength=size), 1 / size
        assert (np.abs(counts - len(drawn) * p) < 5 * np.sqrt(len(drawn) * p * (1 - p))).all()


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
    ],
)
def test_sizes_out_of_range(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_task(name, **arguments)


def test_unknown_task_and_unknown_argument():
    with pytest.raises(ValueError, match=r"Unknown task 'Revers'\. Did you mean 'Reverse'\? Known: Copy, Hidden"):
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


@pytest.mark.parametrize("prompt", ["012", [0, 1, 2], (0, 1, 2), np.array([0, 1, 2], dtype=np.uint8), [5, 0, 1, 2]])
def test_prompts_as_text_and_as_ids(prompt):
    task = make_task("Copy", length=4, num_symbols=4, min_length=2)
    row = task.encode_prompt(prompt)
    assert row.tolist() == [5, 0, 1, 2]
    assert row.dtype == np.int64


@pytest.mark.parametrize("name", HIDDEN)
def test_tasks_without_prompts_take_none(name):
    task = make_task(name)
    assert not task.has_prompts
    for refuse in (lambda: task.encode_prompt("0"), lambda: task.prompts_at(np.array([0]))):
        with pytest.raises(ValueError, match=f"{name} has no prompts"):
            refuse()


def test_the_class_docstrings_name_every_argument():
    """They are all that a user sees of a task's sizes."""
    for task in (TASKS[name] for name in (*PROMPTED, *HIDDEN)):
        documented = "".join(base.__doc__ or "" for base in task.__mro__)
        for name in inspect.signature(task.__init__).parameters.keys() - {"self"}:
            assert f"{name}:" in documented, f"{task.name}: {name}"
