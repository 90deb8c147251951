"""The tasks: what they ask for, their oracles, and the scores that they state."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from textenvs import TextVectorEnv
from textenvs.engine import episodes_from_rows
from textenvs.rewards import Judge, make_reward
from textenvs.rng import splitmix64
from textenvs.tasks import FAMILIES, TASKS, make_task

COPYING = ("Copy", "Reverse", "Sort")
HIDDEN = ("HiddenTarget", "PrefixLock", "Keywords", "BitModes", "RewardSwap", "BigVocab", "Deceptive")
PROMPTLESS = (*HIDDEN, "ProbeConstant", "ProbeDiscount", "ProbeAction", "ProbeMask")
OWN_TESTS = ("TinyReviews", "Prompts", "ReasoningGym")  # and files of their own
TOLERANCE = {"Countdown": 0.001, "BitModes": 0.002, "Addition": 0.001}
"""Of random scores that are simulated, as the docstrings state it."""
EOS_VARIANTS: list[dict[str, Any]] = [
    {"length": 4, "num_symbols": 8, "min_length": 1},
    {"length": 3, "num_symbols": 4, "min_length": 2},
    {"length": 6, "num_symbols": 5, "min_length": 5},
]
ALL: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in TASKS if name not in OWN_TESTS),
    *((name, sizes) for name in COPYING for sizes in EOS_VARIANTS),
    ("HiddenTarget", {"length": 3, "num_symbols": 4, "task_seed": 5}),
    ("PrefixLock", {"length": 3, "num_symbols": 2, "task_seed": 5}),
    ("Keywords", {"length": 3, "num_symbols": 4, "num_keywords": 3, "task_seed": 5}),
    ("BitModes", {"length": 20, "num_modes": 16, "task_seed": 5}),
    ("Dyck", {"length": 1, "num_kinds": 12}),
    ("DyckMasked", {"length": 6, "num_kinds": 2}),
    ("Palindrome", {"length": 1, "num_symbols": 16}),
    ("PalindromeMasked", {"length": 8, "num_symbols": 8}),
    ("Anagram", {"length": 4, "num_symbols": 4}),
    ("AnagramMasked", {"length": 2, "num_symbols": 12}),
    ("ModSum", {"length": 2, "num_symbols": 11}),
    ("Addition", {"digits": 1}),
    ("Addition", {"digits": 5}),
    ("Countdown", {"num_numbers": 2, "max_number": 12, "max_target": 200}),
    ("Countdown", {"num_numbers": 4}),
    ("RandomWalk", {"num_nodes": 62, "max_steps": 5, "task_seed": 5}),
    ("RandomWalkMasked", {"num_nodes": 6, "max_steps": 3, "edge_probability": 0.5}),
    ("NoisyReverse", {"noise": 0.4, "length": 3, "min_length": 2}),
    ("RewardSwap", {"swap_at": 0, "length": 3, "num_symbols": 2}),
    ("LongCopy", {"length": 129, "min_length": 127}),
    ("Deceptive", {"length": 5, "num_symbols": 2, "lure": 0.9, "task_seed": 5}),
]
SPLITS = [
    (name, sizes, split)
    for name, sizes in ALL
    for split in ("train", "test")
    if split == "train"
    or (name not in PROMPTLESS and sizes.get("min_length") != 1 and sizes != {"length": 1, "num_kinds": 12})
]
NOT_ALWAYS = {  # tasks whose best text has no certain score: the mean is tested elsewhere
    "NoisyReverse": "tests/agents/test_baselines.py",
    "ProbeObservation": "tests/agents/test_baselines.py",
}


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
    for name in COPYING:
        task = make_task(name)
        prompts = rows_of(task, ["3021"])
        task.oracle(prompts)[:] = 0
        assert prompts.tolist() == [[3, 0, 2, 1]]


def all_texts(task, prompt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Final rows of every text that legal actions can write after one prompt [P], and their probabilities."""
    rows = np.full((1, task.prompt_length + task.max_new_tokens), task.pad_id)
    rows[0, : task.prompt_length] = prompt
    chances = np.ones(1)
    final_rows, final_chances = [], []
    for t in range(task.max_new_tokens):
        written = np.full(len(rows), t)
        legal = task.action_masks(rows, written) if task.has_masks else np.ones((len(rows), task.pad_id), dtype=bool)
        parent, action = np.nonzero(legal)
        rows, chances = rows[parent], (chances / legal.sum(axis=1))[parent]
        rows[:, task.prompt_length + t] = action
        over = np.isin(action, task.vocab.eos_ids) | (t + 1 == task.max_new_tokens)
        final_rows.append(rows[over])
        final_chances.append(chances[over])
        rows, chances = rows[~over], chances[~over]
    return np.concatenate(final_rows), np.concatenate(final_chances)


def all_scores(task, prompt: np.ndarray, index: int) -> tuple[float, float]:
    """Expected score of uniform legal actions and highest score for one prompt [P], over every possible text."""
    rows, chances = all_texts(task, prompt)
    assert chances.sum() == pytest.approx(1.0)
    lengths = (rows[:, task.prompt_length :] != task.pad_id).sum(axis=1)
    last = rows[np.arange(len(rows)), task.prompt_length + lengths - 1]
    episodes = episodes_from_rows(
        task,
        rows,
        lengths=lengths,
        finish_reason=np.where(np.isin(last, task.vocab.eos_ids), "stop", "length").astype(object),
        key=np.zeros(len(rows), dtype=np.uint64),
        prompt_index=np.full(len(rows), index),
    )
    scores = Judge(make_reward(task.default_reward))(episodes).total
    return float(np.dot(scores.astype(np.float64), chances)), float(scores.max())


def all_prompts(task) -> np.ndarray:
    """Every prompt of the split [n, P]."""
    if not task.has_prompts:
        return np.zeros((1, 0), dtype=np.int64)
    count = 1
    with contextlib.suppress(ValueError):
        while True:
            prompts = task.prompts_at(np.arange(count))
            count += 1
    return prompts


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
        ("BitModes", {"length": 6, "num_modes": 3}),
        ("Dyck", {"length": 2, "num_kinds": 3}),
        ("DyckMasked", {"length": 3, "num_kinds": 2}),
        ("Palindrome", {"length": 2, "num_symbols": 4}),
        ("PalindromeMasked", {"length": 3, "num_symbols": 4}),
        ("Anagram", {"length": 3, "num_symbols": 4}),
        ("AnagramMasked", {"length": 4, "num_symbols": 4}),
        ("ModSum", {"length": 3, "num_symbols": 3}),
        ("RandomWalk", {"num_nodes": 6, "max_steps": 4, "edge_probability": 0.4}),
        ("RandomWalkMasked", {"num_nodes": 7, "max_steps": 5, "edge_probability": 0.4}),
        ("RewardSwap", {"length": 3, "num_symbols": 3}),
        ("Deceptive", {"length": 4, "num_symbols": 3, "lure": 0.7}),
        ("Deceptive", {"length": 3, "num_symbols": 2, "lure": 0.3}),
        ("ProbeConstant", {}),
        ("ProbeDiscount", {}),
        ("ProbeAction", {}),
        ("ProbeBoth", {}),
        ("ProbeMask", {}),
    ],
)
def test_stated_scores_against_every_text_there_is(name, sizes):
    task = make_task(name, **sizes)
    by_length: dict[int, list[float]] = {}
    for index, prompt in enumerate(all_prompts(task)):
        expected, best = all_scores(task, prompt, index)
        assert best == pytest.approx(task.optimum)
        by_length.setdefault(int((prompt != task.pad_id).sum()), []).append(expected)
    # Each length of prompt is drawn equally often.
    expected = np.mean([np.mean(scores) for scores in by_length.values()])
    assert task.random_score == pytest.approx(expected, rel=1e-6)


def test_the_random_score_of_addition_against_every_text_there_is():
    """The split is not quite what the formula assumes: an answer has one digit or two about equally often in both."""
    for split, tolerance in (("train", 1e-3), ("test", 5e-3)):
        task = make_task("Addition", digits=1, split=split)
        prompts = all_prompts(task)
        assert len(prompts) == {"train": 91, "test": 9}[split]
        scores = [all_scores(task, prompt, i)[0] for i, prompt in enumerate(prompts)]
        assert task.random_score == pytest.approx(np.mean(scores), abs=tolerance)


def first_scores(envs: TextVectorEnv, act: Callable[[int], np.ndarray]) -> np.ndarray:
    """Scores of the first episode that ends in each sub-environment (later ones would favour short texts)."""
    scores = np.full(envs.num_envs, np.nan)
    for t in range(envs.text_spec.max_new_tokens):
        *_, infos = envs.step(act(t))
        if "score" in infos.get("final_info", {}):
            first = infos["final_info"]["_score"] & np.isnan(scores)
            scores[first] = infos["final_info"]["score"][first]
    return scores


@pytest.mark.parametrize(("name", "sizes"), ALL)
def test_random_score_by_playing(name, sizes):
    """Uniform legal actions, within 4 standard errors."""
    envs = TextVectorEnv(name, num_envs=512, **sizes)
    spec = envs.text_spec
    rng = np.random.default_rng(0)

    def act(t: int) -> np.ndarray:
        if not spec.has_masks:
            return rng.integers(spec.num_tokens, size=512)
        masks = envs.action_masks()
        return np.where(masks, rng.random(masks.shape), -1.0).argmax(axis=1)

    envs.reset(seed=10)
    scores = []
    for _ in range(16 if spec.max_new_tokens < 32 else 4):
        scores.extend(first_scores(envs, act))
        envs.reset()
    error = np.std(scores) / np.sqrt(len(scores))
    assert error > 0 or name in ("ProbeConstant", "ProbeDiscount")
    assert abs(np.mean(scores) - envs.task.random_score) <= 4 * error + TOLERANCE.get(name, 0.0)


@pytest.mark.parametrize(("name", "sizes", "split"), [each for each in SPLITS if each[0] not in NOT_ALWAYS])
def test_the_oracle_reaches_the_optimum(name, sizes, split):
    envs = TextVectorEnv(name, num_envs=64, split=split, **sizes)
    spec = envs.text_spec
    obs, _ = envs.reset(seed=4)
    plan = envs.task.oracle(obs[:, : spec.prompt_length])
    assert plan.shape == (64, spec.max_new_tokens)
    assert plan.dtype == np.int64
    plan[plan == spec.pad_id] = 0  # the text is over by then: any action will do
    assert first_scores(envs, lambda t: plan[:, t]).tolist() == [envs.task.optimum] * 64


@pytest.mark.parametrize(("name", "sizes"), [(name, sizes) for name, sizes, split in SPLITS if split == "test"])
def test_train_and_test_prompts_never_overlap(name, sizes):
    drawn = {}
    for split in ("train", "test"):
        task = make_task(name, split=split, **sizes)
        prompts, index = task.draw(splitmix64(np.arange(3_000, dtype=np.uint64)))
        assert prompts.dtype == index.dtype == np.int64
        if index.min() >= 0:
            assert np.array_equal(task.prompts_at(index), prompts)
        for prompt in prompts[:20]:
            assert np.array_equal(task.encode_prompt(task.vocab.decode(prompt.tolist())), prompt)
            assert np.array_equal(task.encode_prompt(prompt), prompt)
        drawn[split] = set(map(tuple, prompts.tolist()))
    assert drawn["train"]
    assert drawn["test"]
    assert not drawn["train"] & drawn["test"]


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


def test_families():
    assert {task.name for family in FAMILIES.values() for task in family} == set(TASKS)
    assert sum(map(len, FAMILIES.values())) == len(TASKS) >= 28
