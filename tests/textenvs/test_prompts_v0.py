"""Completions as answers, rows left out, and the id textenvs/Prompts-v0."""

from __future__ import annotations

import json
import logging
from itertools import product
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import textenvs
from textenvs import Vocab
from textenvs.engine import episodes_from_rows
from textenvs.rewards import Judge, make_reward
from textenvs.tasks.dataset import PromptTask, random_target_score
from textenvs.tasks.plurals import plural, plural_rows

ABC = Vocab(["a", "b", "c", "<eos>"], eos="<eos>")
ROWS = [{"prompt": "ab", "completion": "ba"}, {"prompt": "c", "completion": "ccc"}, {"prompt": "aa", "completion": ""}]


def play(env: Any, actions: list[int]) -> dict[str, Any]:
    """The infos at the end of an episode that is written to its end with these actions."""
    for action in actions:
        *_, terminated, _, info = env.step(action)
        if terminated:
            return dict(info)
    raise AssertionError("the text did not end")


# -- completions -------------------------------------------------------------------------------------------------------


def test_a_completion_is_a_column_a_target_and_the_oracles_answer() -> None:
    seen: list[tuple[str, str, str, list[int]]] = []

    def spy(prompts: Any, completions: Any, completion: Any, target: Any, target_ids: Any) -> list[float]:
        seen.extend(zip(prompts, completion, target, target_ids, strict=True))
        return [0.0] * len(prompts)

    env = textenvs.from_prompts(ROWS, ABC, reward=[(0.0, spy), (1.0, "match")])
    task = env.task
    assert task.max_new_tokens == 4  # the longest completion and EOS
    oracle = task.oracle(task.prompts_at(np.arange(3)))
    assert oracle.tolist() == [[1, 0, 3, 4], [2, 2, 2, 3], [3, 4, 4, 4]]
    for index in range(3):
        env.reset(seed=0, options={"index": index})
        assert play(env, oracle[index].tolist())["score"] == 1.0
    assert seen == [("ab", "ba", "ba", [1, 0, 3]), ("c", "ccc", "ccc", [2, 2, 2, 3]), ("aa", "", "", [3])]


def test_completions_are_compared_with_unless_another_reward_is_given() -> None:
    env = textenvs.from_prompts(ROWS, ABC)
    assert env.judge.name == "match"
    with pytest.raises(ValueError, match="prompts has no reward of its own: give reward="):
        textenvs.from_prompts(["ab"], ABC, max_new_tokens=3)
    with pytest.raises(ValueError, match="without completions nobody knows how long texts are: give max_new_tokens="):
        textenvs.from_prompts(["ab"], ABC, reward="length")


def test_a_completion_that_is_missing_somewhere_stays_a_column_and_no_more() -> None:
    rows = [{"prompt": "ab", "completion": "ba"}, {"prompt": "c", "completion": None}]
    task = PromptTask(["ab", "c"], ABC, 2, columns={"completion": ["ba", None]})
    assert task.columns(task.prompts_at(np.array([1, 0])), np.array([1, 0])) == {"completion": [None, "ba"]}
    assert task.default_reward is None
    with pytest.raises(ValueError, match="nobody knows the best answers"):
        task.oracle(task.prompts_at(np.array([0])))
    with pytest.raises(ValueError, match="has no reward of its own"):
        textenvs.from_prompts(rows, ABC, max_new_tokens=2)


def test_targets_of_ones_own_are_left_alone() -> None:
    task = PromptTask(["ab"], ABC, 2, columns={"completion": ["ba"], "target_ids": [[2]]})
    assert task.columns(task.prompts_at(np.array([0])), np.array([0]))["target_ids"].tolist() == [[2]]
    with pytest.raises(ValueError, match="nobody knows the best answers"):
        task.oracle(task.prompts_at(np.array([0])))


def test_completions_beyond_the_budget_are_cut_counted_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "textenvs"):
        env = textenvs.from_prompts(ROWS, ABC, max_new_tokens=3)
    assert "1 of 3 completions have more than max_new_tokens=3 tokens and were cut" in caplog.text
    assert env.task.num_cut == 1
    env.reset(seed=0, options={"index": 1})
    info = play(env, [2, 2, 2])
    assert (info["score"], info["finish_reason"]) == (1.0, "length")


def test_the_oracle_knows_no_other_prompts() -> None:
    task = textenvs.from_prompts(ROWS, ABC).task
    with pytest.raises(ValueError, match="no completion is known of the prompt 'bb'"):
        task.oracle(np.array([[0, 1], [1, 1]]))


@pytest.mark.parametrize(
    ("rows", "vocab", "message"),
    [
        ([{"prompt": "a", "completion": "x"}], ABC, r"prompt 0: 'x' \(piece 0 of 'x'\) is not a token"),
        ([{"prompt": "a", "completion": ""}], Vocab("abc"), "prompt 0: the completion is empty, which .* without EOS"),
        (
            [{"prompt": "a", "completion": "bb"}, {"prompt": "b", "completion": "c"}],
            Vocab("abc"),
            r"prompt 1: the completion has 1 tokens, and without EOS .* max_new_tokens=2: .*Vocab\(tokens, eos=…\)",
        ),
    ],
)
def test_completions_that_cannot_be_written(rows: list[dict[str, str]], vocab: Vocab, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        textenvs.from_prompts(rows, vocab)


def test_equal_prompts_with_different_completions_have_no_stated_optimum() -> None:
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": "c"}]
    assert np.isnan(textenvs.from_prompts(rows, ABC).task.optimum)
    assert textenvs.from_prompts(rows[:1] * 2, ABC).task.optimum == 1.0
    assert np.isnan(PromptTask(["a"], ABC, 2, columns={"completion": ["b"]}, default_reward="prefix").random_score)


# -- the random score --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("eos_ids", "budget", "targets"),
    [
        ((), 2, [[0, 1], [1, 1]]),
        ((2,), 3, [[0, 2, 3], [1, 0, 2], [2, 3, 3], [0, 1, 1]]),
        ((2,), 2, [[0, 2], [1, 1]]),
        ((2, 1), 3, [[0, 0, 2], [0, 2, 3]]),
    ],
)
def test_random_score_against_every_text_there_is(
    eos_ids: tuple[int, ...], budget: int, targets: list[list[int]]
) -> None:
    vocab = Vocab("abc" if eos_ids else "ab", eos="c" if eos_ids else None)
    vocab.eos_ids = eos_ids
    size, total = len(vocab), 0.0
    for target in targets:
        task = PromptTask(["a"], vocab, budget, columns={"target_ids": [[i for i in target if i < size]]})
        for n in range(1, budget + 1):
            for text in product(range(size), repeat=n):
                if any(i in eos_ids for i in text[:-1]) or not (text[-1] in eos_ids or n == budget):
                    continue
                row = np.array([[0, *text, *[size] * (budget - n)]])
                episodes = episodes_from_rows(
                    task,
                    row,
                    lengths=np.array([n]),
                    finish_reason=np.array(["stop"], dtype=object),
                    key=np.zeros(1, dtype=np.uint64),
                    prompt_index=np.zeros(1, dtype=np.int64),
                )
                total += float(Judge(make_reward("match"))(episodes).total[0]) * size**-n
    stated = random_target_score(np.array(targets), size, eos_ids, budget)
    assert stated == pytest.approx(total / len(targets), rel=1e-6)


# -- rows left out -----------------------------------------------------------------------------------------------------


def test_rows_that_cannot_be_read_are_left_out_if_so_wished(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "prompts.jsonl"
    lines = [
        '{"prompt": ',
        *map(json.dumps, ROWS),
        '{"text": "a"}',
        '{"prompt": "x", "completion": "a"}',
        '{"prompt": "a"}',
    ]
    path.write_text("\n".join(lines))
    with caplog.at_level(logging.WARNING, "textenvs"):
        task = textenvs.from_prompts(path, ABC, on_bad="skip").task
    assert (task.num_bad, task.num_prompts, task.num_long) == (4, 3, 0)
    assert f"4 of 7 rows were left out; the first: {path}, line 1: it is not JSON" in caplog.text
    assert task.vocab.decode_rows(task.prompts_at(np.arange(3))) == ["ab", "c", "aa"]
    assert textenvs.from_prompts(ROWS, ABC).task.num_bad == 0
    with pytest.raises(ValueError, match="line 1: it is not JSON"):
        textenvs.from_prompts(path, ABC)


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text("soup\nsoup\n")
    with pytest.raises(ValueError, match=r"not one of 2 rows can be read; the first: .*line 1: it is not JSON"):
        textenvs.from_prompts(path, ABC, on_bad="skip", reward="length", max_new_tokens=1)
    with pytest.raises(ValueError, match="prompts: not one of 1 prompts can be read; the first: prompt 0: 'x'"):
        textenvs.from_prompts(["x"], ABC, on_bad="skip", reward="length", max_new_tokens=1)
    with pytest.raises(ValueError, match=r"Unknown on_bad 'drop'.*Known: error, skip"):
        textenvs.from_prompts(["a"], ABC, on_bad="drop", reward="length", max_new_tokens=1)


# -- the id ------------------------------------------------------------------------------------------------------------


def test_the_id_shows_plurals_and_holds_some_out() -> None:
    train, test = (gym.make("textenvs/Prompts-v0", split=split).unwrapped for split in ("train", "test"))
    assert train.text_spec == test.text_spec
    texts = [set(t.vocab.decode_rows(t.prompts_at(np.arange(t.num_prompts)))) for t in (train.task, test.task)]
    assert not texts[0] & texts[1]
    assert len(texts[0] | texts[1]) == len(plural_rows()) == 313
    assert 20 <= len(texts[1]) <= 45
    assert train.task.optimum == 1.0
    assert 0.01 < train.task.random_score < 0.05
    obs, _ = train.reset(seed=0, options={"prompt": "one box, two "})
    oracle = train.task.oracle(obs[None, : train.text_spec.prompt_length])
    assert train.task.vocab.decode_rows(oracle) == ["boxes"]
    assert play(train, oracle[0].tolist())["score"] == 1.0


@pytest.mark.parametrize(
    ("noun", "answer"),
    [("cat", "cats"), ("box", "boxes"), ("bus", "buses"), ("peach", "peaches"), ("wish", "wishes"), ("city", "cities"),
     ("day", "days"), ("fly", "flies"), ("wolf", "wolves"), ("sheep", "sheep"), ("tooth", "teeth")],
)  # fmt: skip
def test_plurals_by_hand(noun: str, answer: str) -> None:
    assert plural(noun) == answer


def test_the_id_takes_what_from_prompts_takes(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in ROWS))
    for vectorized in (False, True):
        arguments: dict[str, Any] = {"prompts": str(path), "tokenizer": "bytes", "split": None, "on_bad": "skip"}
        if vectorized:
            env: Any = gym.make_vec("textenvs/Prompts-v0", num_envs=2, **arguments)
        else:
            env = gym.make("textenvs/Prompts-v0", **arguments).unwrapped
        assert env.text_spec.num_tokens == 257
        assert env.task.num_prompts == 3
    with pytest.raises(TypeError, match=r"Unknown argument of Prompts 'on_lng'.*Did you mean 'on_long'"):
        gym.make("textenvs/Prompts-v0", on_lng="skip")
    with pytest.raises(ValueError, match="Prompts has no reward of its own"):
        gym.make("textenvs/Prompts-v0", prompts=["a", "b", "c"], max_new_tokens=2)
    with pytest.raises(ValueError, match="Unknown split 'tset'"):
        gym.make("textenvs/Prompts-v0", split="tset")


@pytest.mark.parametrize("tokenizer", ["bytes", "characters", "words"])
def test_tokenizers_by_name(tokenizer: str) -> None:
    rows = [{"prompt": "wie heißt du ?", "completion": "ich heiße Ö"}, {"prompt": "du", "completion": "ich"}]
    task = textenvs.from_prompts(rows, tokenizer).task
    assert task.prompt_length == {"bytes": 15, "characters": 14, "words": 4}[tokenizer]
    assert task.max_new_tokens == {"bytes": 14, "characters": 12, "words": 4}[tokenizer]
    prompts = task.prompts_at(np.arange(2))
    assert task.vocab.decode_rows(prompts) == [row["prompt"] for row in rows]
    assert task.vocab.decode_rows(task.oracle(prompts)) == [row["completion"] for row in rows]
