"""textenvs/ReasoningGym-v0, with the real package and without it."""

from __future__ import annotations

import pickle
import random
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import textenvs
from textenvs import RewardError, TextEnv
from textenvs.tasks.reasoning_gym import SEED_RANGE

ENV_ID = "textenvs/ReasoningGym-v0"


@pytest.fixture
def library() -> Any:
    return pytest.importorskip("reasoning_gym")


def make(**arguments: Any) -> TextEnv:
    env = gym.make(ENV_ID, **{"size": 30, "test_size": 10, **arguments}).unwrapped
    assert isinstance(env, TextEnv)
    return env


def questions(env: TextEnv) -> list[str]:
    task: Any = env.task
    return list(task.vocab.decode_rows(task.prompts_at(np.arange(task.num_prompts))))


def write(env: TextEnv, text: str) -> dict[str, Any]:
    actions = [*env.task.vocab.encode(text), env.text_spec.eos_ids[0]]
    for action in actions:
        *_, terminated, _, info = env.step(action)
        if terminated:
            return dict(info)
    raise AssertionError("the text did not end")


@pytest.mark.usefixtures("library")
def test_problems_are_those_of_the_package_scored_by_its_scorer() -> None:
    from reasoning_gym import create_dataset

    env = make(config={"max_terms": 3}, task_seed=2, max_new_tokens=12)
    ours, theirs = questions(env), create_dataset("chain_sum", seed=4 * SEED_RANGE, size=30, max_terms=3)
    assert ours == [entry["question"] for entry in theirs]
    for i, answer in ((0, theirs[0]["answer"]), (1, f"{theirs[1]['answer']} or 1"), (2, "ooo")):
        env.reset(seed=0, options={"index": i})
        info = write(env, answer)
        assert info["score"] == pytest.approx(theirs.score_answer(answer, theirs[i]), rel=1e-6)
    assert info["score"] == 0.0


@pytest.mark.usefixtures("library")
def test_train_and_test_come_from_seeds_that_never_overlap() -> None:
    from reasoning_gym import create_dataset

    train, test = make(), make(split="test")
    assert train.text_spec == test.text_spec
    assert questions(test) == [entry["question"] for entry in create_dataset("chain_sum", seed=SEED_RANGE, size=10)]
    assert not set(questions(train)) & set(questions(test))
    assert not set(questions(train)) & set(questions(make(task_seed=1)))
    with pytest.raises(ValueError, match="size must be between 1 and 1048576"):
        make(size=SEED_RANGE + 1)  # would reach into the other split's seeds
    with pytest.raises(ValueError, match="task_seed must be between 0 and 1023"):
        make(task_seed=1_024)


@pytest.mark.usefixtures("library")
def test_a_question_of_both_splits_is_a_training_question() -> None:
    arguments: dict[str, Any] = {"dataset": "count_bits", "config": {"min_n": 1, "max_n": 30}}
    train, test = (make(split=split, size=20, test_size=40, **arguments) for split in ("train", "test"))
    assert len(set(questions(train))) == len(questions(train)) < 20
    assert 0 < len(set(questions(test))) == len(questions(test)) < 30
    assert not set(questions(train)) & set(questions(test))
    assert train.text_spec == test.text_spec
    arguments["config"]["max_n"] = 3
    assert len(questions(make(size=50, **arguments))) == 3
    with pytest.raises(ValueError, match=r"every test problem of 'count_bits' .* is also a training problem"):
        make(size=50, split="test", **arguments)


@pytest.mark.parametrize(
    "dataset", ["chain_sum", "letter_counting", "caesar_cipher", "syllogism", "number_sorting", "pool_matrix"]
)
@pytest.mark.usefixtures("library")
def test_the_oracle_reaches_the_optimum(dataset: str) -> None:
    env = make(dataset=dataset, size=12, test_size=4)
    assert env.task.optimum == 1.0
    assert 0.0 <= env.task.random_score < 0.5
    oracle = env.task.oracle(env.task.prompts_at(np.arange(12)))  # type: ignore[attr-defined]
    for i, row in enumerate(oracle):
        env.reset(seed=0, options={"index": i})
        for action in row:
            _, reward, terminated, _, _ = env.step(action)
            if terminated:
                break
        assert reward == 1.0


@pytest.mark.usefixtures("library")
def test_data_sets_without_a_single_answer() -> None:
    env = make(dataset="graph_color", max_new_tokens=20)
    assert np.isnan(env.task.optimum)
    with pytest.raises(ValueError, match="nobody knows the best answers"):
        env.task.oracle(np.zeros((1, env.text_spec.prompt_length), dtype=np.int64))
    with pytest.raises(ValueError, match="give max_new_tokens="):
        make(dataset="graph_color")


@pytest.mark.usefixtures("library")
def test_other_rewards_and_tokenizers() -> None:
    env = make(reward="match", tokenizer="bytes")
    env.reset(seed=0, options={"index": 0})
    oracle = env.task.oracle(env.task.prompts_at(np.array([0])))[0]
    info = write(env, env.task.vocab.decode(oracle.tolist()))
    assert info["reward_components"] == {"match": 1.0}
    env = make()
    env.reset(seed=0, options={"prompt": "12 + 3 = "})  # a problem of which nothing is known
    with pytest.raises(RewardError, match="row 0 of the column 'entry' is no dictionary: None"):
        write(env, "15")


@pytest.mark.usefixtures("library")
def test_picklable_and_the_same_every_time() -> None:
    env, again = make(), make()
    twin = pickle.loads(pickle.dumps(env))
    for other in (again, twin):
        assert questions(other) == questions(env)
        assert other.task.random_score == env.task.random_score


@pytest.mark.usefixtures("library")
def test_global_randomness_is_left_alone() -> None:
    """pool_matrix seeds NumPy's global generator for every problem."""
    before, numpy_before = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    make(dataset="pool_matrix")
    assert random.getstate() == before
    assert (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002


@pytest.mark.usefixtures("library")
def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"Unknown data set 'chain_sums'\. Did you mean 'chain_sum'"):
        make(dataset="chain_sums")
    with pytest.raises(ValueError, match=r"chain_sum' does not take .*'max_term'"):
        make(config={"max_term": 3})
    with pytest.raises(ValueError, match="config sets 'size', which is for size and test_size of the environment"):
        make(config={"size": 3})
    with pytest.raises(TypeError, match=r"Unknown argument of ReasoningGym 'datset'.*Did you mean 'dataset'"):
        make(datset="chain_sum")
    with pytest.raises(ValueError, match="runs the text as Python"):
        make(dataset="countdown")
    assert make(dataset="countdown", run_answers=True).judge.name == "reasoning_gym"


def test_without_the_package_the_id_is_there_and_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "reasoning_gym"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    assert ENV_ID in textenvs.list_envs()
    with pytest.raises(ImportError, match=r"textenvs/ReasoningGym-v0 needs .*pip install 'textenvs\[reasoning-gym\]'"):
        gym.make(ENV_ID)
    with pytest.raises(ImportError, match=r"Reward 'reasoning_gym' needs .*pip install 'textenvs\[reasoning-gym\]'"):
        textenvs.make_reward("reasoning_gym:chain_sum")
