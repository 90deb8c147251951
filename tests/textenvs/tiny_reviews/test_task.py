"""The task TinyReviews: prompts, splits, the scores that it states, and that it plays."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from textenvs import TextVectorEnv
from textenvs.rng import splitmix64
from textenvs.tasks.tiny_reviews import TinyReviews
from textenvs.tiny_reviews import KINDS, TEST_KINDS, TRAIN_KINDS


def keys(count: int) -> np.ndarray:
    return splitmix64(np.arange(count, dtype=np.uint64))


def test_sizes(grammar):
    task = TinyReviews()
    assert (task.prompt_length, task.max_new_tokens, task.pad_id) == (8, 24, len(grammar.vocab))
    assert task.has_prompts
    assert not task.has_masks
    assert TinyReviews(split="test").prompt_length == 8
    with pytest.raises(ValueError, match="max_new_tokens must be at least 6, got 5"):
        TinyReviews(max_new_tokens=5)
    with pytest.raises(ValueError, match="Unknown split 'tset'"):
        TinyReviews(split="tset")


@pytest.mark.parametrize(("split", "kinds"), [("train", TRAIN_KINDS), ("test", TEST_KINDS)])
def test_prompts_of_a_split(grammar, split, kinds):
    task = TinyReviews(split=split)
    prompt_ids, index = task.draw(keys(5_000))
    assert prompt_ids.shape == (5_000, 8)
    assert prompt_ids.dtype == index.dtype == np.int64
    np.testing.assert_array_equal(task.prompts_at(index), prompt_ids)
    found, counts = np.unique(task.columns(prompt_ids, index)["kind"].astype(str), return_counts=True)
    assert set(found) == set(kinds)
    assert counts.min() > 0.8 * 5_000 / len(kinds)
    # Drawn as often as reviews begin like that.
    prompts = grammar.prompts(kinds)
    np.testing.assert_array_equal(task.prompts_at(np.arange(len(prompts.ids))), prompts.ids)
    seen = np.bincount(index, minlength=len(prompts.ids))
    expected = 5_000 * prompts.probability
    frequent = expected > 20
    assert frequent.any()
    assert (np.abs(seen - expected)[frequent] < 5 * np.sqrt(expected[frequent])).all()


def test_splits_do_not_overlap():
    texts = []
    for split in ("train", "test"):
        task = TinyReviews(split=split)
        texts.append(set(task.vocab.decode_rows(task.prompts_at(np.arange(4_000)))))
    assert not texts[0] & texts[1]


def test_numbers_outside_the_prompt_set():
    with pytest.raises(ValueError, match="index must lie in 0 … "):
        TinyReviews().prompts_at(np.array([10**6]))
    with pytest.raises(ValueError, match="index must lie in 0 … "):
        TinyReviews().prompts_at(np.array([-1]))


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("the", "'the' does not say what is reviewed, one of biography, bistro"),
        ("film", "no review begins with 'film'"),
        ("the film was good and funny . <eos>", "is not a token"),
        ("the aardvark", "'aardvark' .* is not a token"),
        ("the film had a", "no review that begins with 'the film had a' ends within max_new_tokens=6"),
        ("", "'' does not say what is reviewed"),
    ],
)
def test_prompts_that_are_none(prompt, message):
    with pytest.raises(ValueError, match=message):
        TinyReviews(max_new_tokens=6).encode_prompt(prompt)


def test_a_prompt_of_ones_own():
    task = TinyReviews()
    row = task.encode_prompt("the opera was very long and")  # longer than the task's own, and of a test kind
    assert task.vocab.decode(row.tolist()) == "the opera was very long and"
    assert task.columns(row[None], np.array([-1]))["kind"].tolist() == ["concert"]
    with pytest.raises(ValueError, match="no review begins with"):
        task.encode_prompt([*task.vocab.encode("the film"), task.vocab.eos_ids[0]])


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("max_new_tokens", [6, 24])
def test_the_oracle_reaches_the_optimum(grammar, split, max_new_tokens):
    pytest.importorskip("vaderSentiment", reason="vaderSentiment is an extra")
    envs = TextVectorEnv("TinyReviews", num_envs=512, split=split, max_new_tokens=max_new_tokens)
    scores, rows, kinds = play(envs, envs.task.oracle)
    assert scores.mean() == pytest.approx(envs.task.optimum, abs=0.02)
    assert grammar.grammatical(rows).all()
    assert set(kinds) == set(TEST_KINDS if split == "test" else TRAIN_KINDS)


@pytest.mark.parametrize("max_new_tokens", [6, 24, 40])
def test_random_score(grammar, max_new_tokens):
    pytest.importorskip("vaderSentiment", reason="vaderSentiment is an extra")
    envs = TextVectorEnv("TinyReviews", num_envs=2_000, max_new_tokens=max_new_tokens)
    rng = np.random.default_rng(0)
    scores, rows, _ = play(envs, lambda prompts: rng.integers(len(grammar.vocab), size=(len(prompts), max_new_tokens)))
    margin = 4 * scores.std() / len(scores) ** 0.5
    assert scores.mean() == pytest.approx(envs.task.random_score, abs=margin + 0.015)
    assert not grammar.grammatical(rows).any()


def play(envs: TextVectorEnv, plan) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Scores, final rows and kinds of the first episode of every sub-environment."""
    spec, task = envs.text_spec, envs.task
    obs, _ = envs.reset(seed=3)
    actions = plan(obs[:, : spec.prompt_length])
    actions[actions == spec.pad_id] = 0  # the text is over by then: any action will do
    scores, rows = np.full(envs.num_envs, np.nan), np.zeros_like(obs)
    for column in actions.T:
        *_, infos = envs.step(column)
        if "final_info" in infos:
            first = infos["_final_info"] & np.isnan(scores)
            scores[first] = infos["final_info"]["score"][first]
            rows[first] = infos["final_obs"][first]
    return scores, rows, task.columns(rows[:, : spec.prompt_length], np.zeros(0))["kind"].tolist()


def test_needs_no_vader_with_another_reward():
    envs = TextVectorEnv("TinyReviews", num_envs=8, reward=odd_length)
    scores, _, _ = play(envs, envs.task.oracle)
    assert set(scores.tolist()) <= {0.0, 1.0}


def odd_length(completions: list[str], kind: list[str]) -> list[float]:
    """A reward that reads the column ``kind``."""
    assert set(kind) <= set(KINDS)
    return [float(len(text.split()) % 2) for text in completions]


def test_pickles_small():
    task = TinyReviews(split="test", max_new_tokens=12)
    assert task.optimum < 1.0
    pickled = pickle.dumps(task)
    assert len(pickled) < 50_000  # the grammar is built again where it is needed, not sent
    again = pickle.loads(pickled)
    np.testing.assert_array_equal(again.draw(keys(5))[0], task.draw(keys(5))[0])
