"""reasoning-gym's scorers, with the real package."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest

from textenvs import Episodes, RewardError
from textenvs.checking import check_reward
from textenvs.rewards import Judge, make_reward


@pytest.fixture(scope="module")
def entries() -> list[dict[str, Any]]:
    from reasoning_gym import create_dataset

    return [dict(entry) for entry in create_dataset("chain_sum", size=4, seed=1)]


def test_scores_are_those_of_the_package(entries: list[dict[str, Any]]) -> None:
    answers = [entry["answer"] for entry in entries]
    assert answers == ["-4", "6", "214", entries[3]["answer"]]
    completions = ["-4", " 6.0\n", "It is 214", "no idea"]
    questions = [entry["question"] for entry in entries]
    whole = Episodes.from_texts(questions, completions, {"entry": entries})
    # chain_sum pays a text that contains the answer by the share of its characters: 3 of 9
    expected = [1, 1, 3 / 9, 0]
    np.testing.assert_allclose(make_reward("reasoning_gym:chain_sum").score(whole), expected, rtol=1e-6)
    parts = {name: [entry[name] for entry in entries] for name in ("question", "answer")}
    parts["metadata"] = [json.dumps(entry["metadata"]) for entry in entries]
    split = Episodes.from_texts(questions, completions, parts)
    reward = make_reward({"name": "reasoning_gym", "dataset": "chain_sum"})
    np.testing.assert_allclose(reward.score(split), expected, rtol=1e-6)
    check_reward(reward, whole)


def test_answers_between_tags(entries: list[dict[str, Any]]) -> None:
    completions = ["<answer>-4</answer>", "6", "<answer>1</answer> no: <answer> 214 </answer>", "<answer>"]
    episodes = Episodes.from_texts([""] * 4, completions, {"entry": entries})
    reward = make_reward({"name": "reasoning_gym", "dataset": "chain_sum", "answer_tag": "answer"})
    assert reward.score(episodes).tolist() == [1, 0, 1, 0]


def test_columns_that_are_missing_or_unfit(entries: list[dict[str, Any]]) -> None:
    judge = Judge(make_reward("reasoning_gym:chain_sum"))
    with pytest.raises(RewardError, match="needs the column 'entry', or question, answer, metadata; there is no 'answ"):
        judge(Episodes.from_texts(["q"], ["a"], {"question": ["q"], "metadata": [{}]}))
    with pytest.raises(RewardError, match="row 0 of the column 'entry' is no dictionary: 'soup'"):
        judge(Episodes.from_texts(["q"], ["a"], {"entry": ["soup"]}))


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"Unknown data set 'chain_sums'\. Did you mean 'chain_sum'"):
        make_reward("reasoning_gym:chain_sums")
    with pytest.raises(ValueError, match=r"does not take \{'soup': 1\}"):
        make_reward({"name": "reasoning_gym", "dataset": "chain_sum", "soup": 1})
    with pytest.raises(ValueError, match=r"does not take \{'min_terms': 0\}"):
        make_reward({"name": "reasoning_gym", "dataset": "chain_sum", "min_terms": 0})


@pytest.mark.parametrize("dataset", ["countdown", "n_queens", "spiral_matrix", "polynomial_multiplication"])
def test_scorers_that_run_the_text_need_consent(dataset: str) -> None:
    with pytest.raises(ValueError, match="runs the text as Python"):
        make_reward(f"reasoning_gym:{dataset}")
    make_reward({"name": "reasoning_gym", "dataset": dataset, "run_answers": True})


def test_global_randomness_is_left_alone() -> None:
    before = random.getstate()
    make_reward("reasoning_gym:number_sorting")
    assert random.getstate() == before
