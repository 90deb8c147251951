"""from_prompts: prompts as texts, rows, data sets and files; columns, splits, lengths; what is wrong, and where."""

from __future__ import annotations

import json
import logging
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import textenvs
from textenvs.prompt_rows import read_prompts
from textenvs.tasks.dataset import PromptTask, in_test_split

WORDS = textenvs.Vocab(["a", "b", "c", "d", "<eos>"], eos="<eos>")
ROWS = [{"prompt": "ab", "topic": "x"}, {"prompt": "c", "topic": "y"}, {"prompt": "dda", "topic": "z"}]


def length(completions: list[str]) -> list[float]:
    return [float(len(text)) for text in completions]


def make(prompts: Any, **arguments: Any) -> Any:
    return textenvs.from_prompts(prompts, WORDS, **{"reward": length, "max_new_tokens": 3, **arguments})


def finish(env: Any) -> dict[str, Any]:
    """Write until the end of the episode; its infos."""
    while True:
        *_, terminated, _, info = env.step(0)
        if terminated:
            return dict(info)


def test_texts_are_left_padded_and_one_is_drawn_for_each_episode() -> None:
    env = make(["ab", "c", "dda"])
    assert env.observation_space.shape == (6,)
    assert env.text_spec.prompt_length == 3
    seen = set()
    for _ in range(40):
        obs, _ = env.reset(seed=None if seen else 0)
        seen.add(tuple(obs.tolist()))
    assert seen == {(5, 0, 1, 5, 5, 5), (5, 5, 2, 5, 5, 5), (3, 3, 0, 5, 5, 5)}


def test_a_number_of_sub_environments_gives_the_native_vector_environment() -> None:
    envs = make(ROWS, num_envs=4, group_size=2, autoreset_mode=AutoresetMode.NEXT_STEP)
    assert isinstance(envs, textenvs.TextVectorEnv)
    assert (envs.num_envs, envs.text_spec.group_size) == (4, 2)
    obs, _ = envs.reset(seed=3)
    assert np.array_equal(obs[0], obs[1])
    scalar = make(ROWS)
    assert isinstance(scalar, textenvs.TextEnv)
    assert np.array_equal(scalar.reset(seed=3)[0], obs[0])


def test_every_prompt_is_drawn_equally_often() -> None:
    task = PromptTask(["a", "b", "c", "d"], WORDS, 1)
    keys = np.random.default_rng(0).integers(0, 2**63, 8_000).astype(np.uint64)
    rows, index = task.draw(keys)
    assert np.array_equal(rows[:, 0], index)
    assert np.bincount(index).min() > 1_850


@pytest.mark.parametrize("form", ["rows", "dataset", "jsonl", "jsonl-texts"])
def test_all_forms_of_prompts_say_the_same(form: str, tmp_path: Path) -> None:
    prompts: Any = ROWS
    if form == "dataset":
        prompts = pytest.importorskip("datasets").Dataset.from_list(ROWS)
    elif form.startswith("jsonl"):
        prompts = tmp_path / "prompts.jsonl"
        lines = [json.dumps(row if form == "jsonl" else row["prompt"]) for row in ROWS]
        prompts.write_text("\n".join([lines[0], "", *lines[1:]]) + "\n")  # an empty line is nothing
    table = read_prompts(prompts)
    assert table.prompts == ["ab", "c", "dda"]
    assert table.columns == ({} if form == "jsonl-texts" else {"topic": ["x", "y", "z"]})
    assert make(str(prompts) if isinstance(prompts, Path) else prompts).task.num_prompts == 3


def test_every_other_column_reaches_the_reward_by_the_number_of_the_prompt() -> None:
    seen: list[tuple[str, str]] = []

    def spy(prompts: list[str], completions: list[str], topic: list[str]) -> list[float]:
        seen.extend(zip(prompts, topic, strict=True))
        return [0.0] * len(prompts)

    envs = make(ROWS, reward=spy, num_envs=8)
    envs.reset(seed=0)
    for _ in range(30):
        envs.step(np.zeros(8, dtype=np.int64))
    assert set(seen) == {("ab", "x"), ("c", "y"), ("dda", "z")}


def test_the_same_prompt_with_other_columns_is_another_row() -> None:
    rows = [{"prompt": "a", "topic": "x"}, {"prompt": "a", "topic": "y"}]
    task = make(rows).task
    prompt = task.prompts_at(np.array([0]))
    assert task.columns(prompt, np.array([1])) == {"topic": ["y"]}
    assert task.columns(prompt, np.array([-1])) == {"topic": ["x"]}  # by its text: the first that has it


def test_rows_of_token_ids_become_a_padded_array_with_text() -> None:
    rows = [{"prompt": "a", "answer_ids": [1, 2]}, {"prompt": "b", "answer_ids": [3]}]
    env = make(rows, reward=lambda completions, answer: [float(text == "bc") for text in answer])
    task = env.task
    both = task.columns(task.prompts_at(np.array([1, 0])), np.array([1, 0]))
    assert both["answer_ids"].tolist() == [[3, 5], [1, 2]]
    env.reset(seed=0, options={"index": 0})
    assert finish(env)["score"] == 1.0
    env.reset(options={"prompt": "d"})
    assert finish(env)["score"] == 0.0  # of that prompt nothing is known


def test_prompts_can_be_chosen_by_number_and_by_text() -> None:
    def topic(completions: list[str], topic: list[str | None]) -> list[float]:
        return [{"x": 1.0, "y": 2.0, "z": 3.0, None: 0.0}[name] for name in topic]

    env = make(ROWS, reward=topic)
    obs, _ = env.reset(seed=0, options={"index": 2})
    assert obs.tolist() == [3, 3, 0, 5, 5, 5]
    info = finish(env)
    assert (info["score"], info["prompt_index"]) == (3.0, 2)
    env.reset(options={"prompt": "c"})
    info = finish(env)
    assert (info["score"], info["prompt_index"]) == (2.0, -1)
    env.reset(options={"prompt": [1, 1]})
    assert finish(env)["score"] == 0.0
    with pytest.raises(ValueError, match=r"index must lie in 0 … 2, got \[3\]"):
        env.reset(options={"index": 3})
    with pytest.raises(ValueError, match="4 tokens; prompts allows at most 3"):
        env.reset(options={"prompt": "aaaa"})
    with pytest.raises(ValueError, match="has no tokens"):
        env.reset(options={"prompt": ""})
    with pytest.raises(ValueError, match="needs at least one token"):
        env.reset(options={"prompt": [5, 5]})


def test_texts_can_be_judged_again_from_rows() -> None:
    task = make(ROWS).task
    index = np.array([2, 0])
    rows = np.concatenate([task.prompts_at(index), np.zeros((2, 3), dtype=np.int64)], axis=1)
    episodes = textenvs.episodes_from_rows(
        task,
        rows,
        lengths=np.array([3, 3]),
        finish_reason=np.array(["length"] * 2, dtype=object),
        key=np.zeros(2, dtype=np.uint64),
        prompt_index=index,
    )
    assert episodes.prompts == ["dda", "ab"]
    assert episodes.column("topic") == ["z", "x"]


def test_environment_and_task_are_picklable_and_go_on_alike() -> None:
    envs = make(ROWS, num_envs=3)
    envs.reset(seed=0)
    envs.step(np.zeros(3, dtype=np.int64))
    twin = pickle.loads(pickle.dumps(envs))
    for _ in range(10):
        one, two = (each.step(np.ones(3, dtype=np.int64)) for each in (envs, twin))
        assert np.array_equal(one[0], two[0])
        assert np.array_equal(one[1], two[1])


# -- splits ------------------------------------------------------------------------------------------------------------


def test_splits_share_no_text_and_together_are_everything() -> None:
    prompts = ["".join("abcd"[int(d)] for d in np.base_repr(i + 256, 4)) for i in range(300)] * 2
    train, test, whole = (make(prompts, split=split).task for split in ("train", "test", None))
    texts = [set(WORDS.decode_rows(task.prompts_at(np.arange(task.num_prompts)))) for task in (train, test, whole)]
    assert not texts[0] & texts[1]
    assert texts[0] | texts[1] == texts[2]
    assert train.num_prompts + test.num_prompts == whole.num_prompts == 600
    assert 0.05 < test.num_prompts / 600 < 0.16
    assert train.prompt_length == test.prompt_length
    assert (train.split, test.split, whole.split) == ("train", "test", "train")


def test_the_split_of_a_text_is_fixed_for_ever() -> None:
    """Literal, so that no change of version or platform moves prompts across."""
    chosen = [text for text in map(str, range(60)) if in_test_split(text, 0.1)]
    assert chosen == ["3", "9", "16", "21", "38", "46"]
    assert set(chosen) <= {text for text in map(str, range(60)) if in_test_split(text, 0.3)}


def test_an_empty_split_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"none of the 1 prompts is left in the test split \(test_fraction=1e-09\)"):
        make(["a"], split="test", test_fraction=1e-9)
    with pytest.raises(ValueError, match=r"Unknown split 'tset'.*'test'"):
        make(["a"], split="tset")
    for fraction in (1.0, "0.1", True):
        with pytest.raises(ValueError, match="test_fraction must lie between 0 and 1"):
            make(["a"], split="test", test_fraction=fraction)


# -- length ------------------------------------------------------------------------------------------------------------


def test_long_prompts_are_an_error_unless_told_otherwise(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in ROWS))
    with pytest.raises(ValueError, match=r"line 3: the prompt has 3 tokens, prompt_length is 2 \(1 of 3 .*on_long='t"):
        make(path, prompt_length=2)
    with caplog.at_level(logging.WARNING, "textenvs"):
        cut = make(path, prompt_length=2, on_long="truncate").task
        assert "1 of 3 prompts have more than 2 tokens and were cut to their last tokens" in caplog.text
        skipped = make(path, prompt_length=2, on_long="skip").task
        assert "left out" in caplog.text
    assert cut.prompts_at(np.arange(3)).tolist() == [[0, 1], [5, 2], [3, 0]]
    assert skipped.prompts_at(np.arange(2)).tolist() == [[0, 1], [5, 2]]
    assert skipped.columns(skipped.prompts_at(np.array([1])), np.array([1])) == {"topic": ["y"]}
    assert (cut.num_long, skipped.num_long, make(path).task.num_long) == (1, 1, 0)
    with pytest.raises(ValueError, match="none of the 1 prompts is left after on_long='skip'"):
        make(["abc"], prompt_length=2, on_long="skip")
    with pytest.raises(ValueError, match=r"Unknown on_long 'cut'.*Known: error, skip, truncate"):
        make(path, on_long="cut")


def test_shorter_prompts_than_the_length_given_are_padded() -> None:
    assert make(["ab"], prompt_length=4).reset(seed=0)[0].tolist() == [5, 5, 0, 1, 5, 5, 5]


# -- what is wrong, and where ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "a"', r"line 2: it is not JSON \(.*\): '{\"prompt\": \"a\"'"),
        ('{"text": "a", "topic": "x"}', "line 2: there is no 'prompt'; the row has text, topic"),
        ("{}", "line 2: there is no 'prompt'; the row has no columns"),
        ('{"prompt": "a"}', r"line 2: it has the columns \['prompt'\], .*line 1 has \['prompt', 'topic'\]"),
        ('"a"', "line 2: it has the columns"),
        ("[1, 2]", r"line 2: a prompt is a text, a chat .* or a row .*got \[1, 2\]"),
        ('{"prompt": 3, "topic": "x"}', "line 2: 'prompt' must be a text or a chat .*; got 3"),
        ('{"prompt": [], "topic": "x"}', r"line 2: 'prompt' must be a text or a chat .*; got \[\]"),
        ('{"prompt": [{"role": "user"}], "topic": "x"}', "line 2: a chat message is .*; got {'role': 'user'}"),
        ('{"prompt": "a", "completion": 3}', "line 2: 'completion' must be a text, a message .* or None; got 3"),
        (
            '{"prompt": "a", "completion": [{"role": "user", "content": "b"}]}',
            "line 2: .* one message of the assistant",
        ),
        ('{"prompt": "", "topic": "x"}', "line 2: the prompt '' has no tokens"),
        ('{"prompt": "abx", "topic": "x"}', r"line 2: 'x' \(piece 2 of 'abx'\) is not a token"),
    ],
)
def test_a_bad_line_is_named(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps(ROWS[0]) + "\n" + line + "\n")
    with pytest.raises(ValueError, match=message):
        make(path)


def test_files_and_objects_that_hold_no_prompts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"which does not exist\. A single prompt is given as a list"):
        make("ab")
    with pytest.raises(ValueError, match="which is a folder"):
        make(tmp_path)
    (tmp_path / "empty.jsonl").write_text("\n\n")
    for empty in (tmp_path / "empty.jsonl", []):
        with pytest.raises(ValueError, match="the prompt set is empty"):
            make(empty)
    (tmp_path / "latin.jsonl").write_bytes(b'"\xe9"')
    with pytest.raises(ValueError, match="not a UTF-8 text file"):
        make(tmp_path / "latin.jsonl")
    with pytest.raises(TypeError, match="prompts must be texts"):
        make(3)
    with pytest.raises(TypeError, match=r"keys train, test: give one of its entries, e\.g\. dataset\['train'\]"):
        make({"train": ["a"], "test": ["b"]})


def test_data_sets_that_do_not_serve() -> None:
    datasets = pytest.importorskip("datasets")
    with pytest.raises(ValueError, match=r"no column 'prompt' \(or 'messages'\); its columns: text\. Rename"):
        make(datasets.Dataset.from_dict({"text": ["a"]}))
    with pytest.raises(ValueError, match=r"row 1: 'prompt' must be a text or a chat .*; got None"):
        make(datasets.Dataset.from_dict({"prompt": ["a", None]}))
    with pytest.raises(TypeError, match="read as a stream"):
        make(datasets.Dataset.from_dict({"prompt": ["a"]}).to_iterable_dataset())
    with pytest.raises(TypeError, match="keys train"):
        make(datasets.DatasetDict({"train": datasets.Dataset.from_dict({"prompt": ["a"]})}))


def test_names_of_columns_and_arguments() -> None:
    with pytest.raises(ValueError, match="a column cannot be called 'completions'"):
        make([{"prompt": "a", "completions": "b"}])
    with pytest.raises(TypeError, match=r"Unknown argument 'on_lng'.*Did you mean 'on_long'"):
        make(ROWS, on_lng="skip")
    with pytest.raises(TypeError, match="Unknown argument 'group_size'"):
        make(ROWS, group_size=2)  # a scalar environment has no groups
    with pytest.raises(ValueError, match="column 'topic' has 1 entries for 2 prompts"):
        PromptTask(["a", "b"], WORDS, 1, columns={"topic": ["x"]})
    with pytest.raises(ValueError, match="nobody knows the best answers"):
        make(ROWS).task.oracle(np.zeros((1, 3), dtype=np.int64))
