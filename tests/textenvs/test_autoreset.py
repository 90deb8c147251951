"""The three autoreset modes, against arrays written down by hand.

Copy with one or two symbols out of {0, 1, 2}: EOS is 3, padding is 4, a row is two columns of prompt and three of text.
Sub-environment 0 starts with the prompt "01", sub-environment 1 with "2"; their next prompts under seed 0 are "0" and
"2", then "0" and "0".
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode

from textenvs import TextVectorEnv

TWO_THIRDS = float(np.float32(2 / 3))  # scores are float32


def make(mode: AutoresetMode) -> TextVectorEnv:
    envs = TextVectorEnv("Copy", num_envs=2, length=2, num_symbols=3, min_length=1, autoreset_mode=mode)
    obs, infos = envs.reset(seed=0, options={"prompt": ["01", "2"]})
    assert obs.tolist() == [[0, 1, 4, 4, 4], [4, 2, 4, 4, 4]]
    assert infos == {}
    return envs


def step(envs: TextVectorEnv, actions: list[int]) -> tuple[list[Any], list[Any], list[Any], list[Any], dict[str, Any]]:
    obs, rewards, terminations, truncations, infos = envs.step(np.array(actions))
    return obs.tolist(), rewards.tolist(), terminations.tolist(), truncations.tolist(), infos


def ending(infos: dict[str, Any]) -> dict[str, Any]:
    """Terminal infos as lists, without the keys of the judge (random numbers, tested elsewhere)."""
    assert infos["_key"].tolist() == infos["_length"].tolist()
    return {
        key: {name: part.tolist() for name, part in value.items()} if isinstance(value, dict) else value.tolist()
        for key, value in infos.items()
        if key not in ("key", "_key")
    }


ENDING_OF_1 = {  # sub-environment 1 wrote "2" and EOS
    "score": [0.0, 1.0],
    "_score": [False, True],
    "reward_components": {"match": [0.0, 1.0], "_match": [False, True]},
    "_reward_components": [False, True],
    "length": [0, 2],
    "_length": [False, True],
    "finish_reason": [None, "stop"],
    "_finish_reason": [False, True],
    "prompt_index": [0, -1],  # -1: the prompt was given
    "_prompt_index": [False, True],
}
ENDING_OF_0 = {  # sub-environment 0 wrote "012": two of three positions right, no EOS
    "score": [TWO_THIRDS, 0.0],
    "_score": [True, False],
    "reward_components": {"match": [TWO_THIRDS, 0.0], "_match": [True, False]},
    "_reward_components": [True, False],
    "length": [3, 0],
    "_length": [True, False],
    "finish_reason": ["length", None],
    "_finish_reason": [True, False],
    "prompt_index": [-1, 0],
    "_prompt_index": [True, False],
}
NO_TRUNCATION = [False, False]


def test_same_step():
    envs = make(AutoresetMode.SAME_STEP)

    obs, rewards, terminations, truncations, infos = step(envs, [0, 2])
    assert obs == [[0, 1, 0, 4, 4], [4, 2, 2, 4, 4]]
    assert (rewards, terminations, truncations, infos) == ([0.0, 0.0], [False, False], NO_TRUNCATION, {})

    obs, rewards, terminations, truncations, infos = step(envs, [1, 3])
    assert obs == [[0, 1, 0, 1, 4], [4, 2, 4, 4, 4]]  # 1: the next episode has begun
    assert (rewards, terminations, truncations) == ([0.0, 1.0], [False, True], NO_TRUNCATION)
    assert set(infos) == {"final_obs", "_final_obs", "final_info", "_final_info"}
    assert infos["final_obs"][1].tolist() == [4, 2, 2, 3, 4]
    assert infos["_final_obs"].tolist() == infos["_final_info"].tolist() == [False, True]
    assert ending(infos["final_info"]) == ENDING_OF_1

    obs, rewards, terminations, truncations, infos = step(envs, [2, 0])
    assert obs == [[4, 0, 4, 4, 4], [4, 2, 0, 4, 4]]
    assert (rewards, terminations, truncations) == ([TWO_THIRDS, 0.0], [True, False], NO_TRUNCATION)
    assert infos["final_obs"][0].tolist() == [0, 1, 0, 1, 2]
    assert infos["_final_obs"].tolist() == infos["_final_info"].tolist() == [True, False]
    assert ending(infos["final_info"]) == ENDING_OF_0

    obs, rewards, terminations, truncations, infos = step(envs, [3, 1])  # 0 stops at once: nothing is right
    assert obs == [[4, 0, 4, 4, 4], [4, 2, 0, 1, 4]]
    assert (rewards, terminations, truncations) == ([0.0, 0.0], [True, False], NO_TRUNCATION)
    assert infos["final_obs"][0].tolist() == [4, 0, 3, 4, 4]

    obs, rewards, terminations, truncations, infos = step(envs, [0, 3])  # 1: EOS as the last token of the budget
    assert obs == [[4, 0, 0, 4, 4], [4, 0, 4, 4, 4]]
    assert (rewards, terminations, truncations) == ([0.0, 0.0], [False, True], NO_TRUNCATION)
    assert infos["final_info"]["finish_reason"].tolist() == [None, "stop"]

    obs, rewards, terminations, truncations, infos = step(envs, [3, 3])  # both at once
    assert obs == [[0, 2, 4, 4, 4], [0, 0, 4, 4, 4]]
    assert (rewards, terminations, truncations) == ([1.0, 0.0], [True, True], NO_TRUNCATION)
    assert infos["final_obs"].tolist() == [[4, 0, 0, 3, 4], [4, 0, 3, 4, 4]]
    assert infos["final_info"]["score"].tolist() == [1.0, 0.0]
    assert infos["final_info"]["_score"].tolist() == [True, True]


def test_next_step():
    envs = make(AutoresetMode.NEXT_STEP)

    obs, rewards, terminations, truncations, infos = step(envs, [0, 2])
    assert obs == [[0, 1, 0, 4, 4], [4, 2, 2, 4, 4]]
    assert (rewards, terminations, truncations, infos) == ([0.0, 0.0], [False, False], NO_TRUNCATION, {})

    obs, rewards, terminations, truncations, infos = step(envs, [1, 3])
    assert obs == [[0, 1, 0, 1, 4], [4, 2, 2, 3, 4]]  # 1: the finished text
    assert (rewards, terminations, truncations) == ([0.0, 1.0], [False, True], NO_TRUNCATION)
    assert ending(infos) == ENDING_OF_1

    obs, rewards, terminations, truncations, infos = step(envs, [2, 0])  # 1: the action is ignored
    assert obs == [[0, 1, 0, 1, 2], [4, 2, 4, 4, 4]]
    assert (rewards, terminations, truncations) == ([TWO_THIRDS, 0.0], [True, False], NO_TRUNCATION)
    assert ending(infos) == ENDING_OF_0

    obs, rewards, terminations, truncations, infos = step(envs, [-7, 1])  # 0: ignored, however wrong it is
    assert obs == [[4, 0, 4, 4, 4], [4, 2, 1, 4, 4]]
    assert (rewards, terminations, truncations, infos) == ([0.0, 0.0], [False, False], NO_TRUNCATION, {})

    step(envs, [3, 3])
    obs, rewards, terminations, truncations, infos = step(envs, [0, 0])  # both begin again
    assert obs == [[4, 0, 4, 4, 4], [4, 0, 4, 4, 4]]
    assert (rewards, terminations, truncations, infos) == ([0.0, 0.0], [False, False], NO_TRUNCATION, {})


def test_disabled():
    envs = make(AutoresetMode.DISABLED)

    obs, rewards, terminations, truncations, infos = step(envs, [0, 2])
    assert obs == [[0, 1, 0, 4, 4], [4, 2, 2, 4, 4]]
    assert (rewards, terminations, truncations, infos) == ([0.0, 0.0], [False, False], NO_TRUNCATION, {})

    obs, rewards, terminations, truncations, infos = step(envs, [1, 3])
    assert obs == [[0, 1, 0, 1, 4], [4, 2, 2, 3, 4]]
    assert (rewards, terminations, truncations) == ([0.0, 1.0], [False, True], NO_TRUNCATION)
    assert ending(infos) == ENDING_OF_1

    with pytest.raises(ResetNeeded, match=r"sub-environments \[1\] are over.*reset_mask"):
        envs.step(np.array([2, 0]))
    obs, infos = envs.reset(options={"reset_mask": np.array([False, True])})
    assert obs.tolist() == [[0, 1, 0, 1, 4], [4, 2, 4, 4, 4]]
    assert infos == {}

    obs, rewards, terminations, truncations, infos = step(envs, [2, 0])
    assert obs == [[0, 1, 0, 1, 2], [4, 2, 0, 4, 4]]
    assert (rewards, terminations, truncations) == ([TWO_THIRDS, 0.0], [True, False], NO_TRUNCATION)
    assert ending(infos) == ENDING_OF_0

    mask = np.array([True, False])
    obs, infos = envs.reset(options={"reset_mask": mask, "prompt": ["12", None]})  # entries outside the mask: not read
    assert obs.tolist() == [[1, 2, 4, 4, 4], [4, 2, 0, 4, 4]]
    assert mask.tolist() == [True, False]

    obs, rewards, terminations, truncations, infos = step(envs, [1, 1])
    assert obs == [[1, 2, 1, 4, 4], [4, 2, 0, 1, 4]]
    assert (rewards, terminations, truncations, infos) == ([0.0, 0.0], [False, False], NO_TRUNCATION, {})


def test_a_mask_resets_running_episodes_too_and_seeds_them():
    envs = make(AutoresetMode.DISABLED)
    step(envs, [0, 2])
    obs, _ = envs.reset(seed=[0, None], options={"reset_mask": np.array([True, False])})
    assert obs.tolist() == [[4, 2, 4, 4, 4], [4, 2, 2, 4, 4]]  # 0: the first prompt of seed 0
    obs, _ = envs.reset()
    assert obs.tolist() == [[4, 0, 4, 4, 4], [4, 2, 4, 4, 4]]  # the second prompts of seeds 0 and 1


def test_seeds_outside_the_mask_are_not_used():
    envs = make(AutoresetMode.DISABLED)
    step(envs, [0, 2])
    obs, _ = envs.reset(seed=0, options={"reset_mask": np.array([True, False])})
    assert obs.tolist() == [[4, 2, 4, 4, 4], [4, 2, 2, 4, 4]]
    obs, _ = envs.reset(seed=[None, 1], options={"reset_mask": np.array([True, False])})
    assert obs.tolist() == [[4, 0, 4, 4, 4], [4, 2, 2, 4, 4]]
    obs, _ = envs.reset()
    assert obs.tolist() == [[4, 0, 4, 4, 4], [4, 2, 4, 4, 4]]  # 1: the second prompt of seed 1, still


def test_same_step_is_the_default():
    assert TextVectorEnv("Copy", num_envs=2).metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert "autoreset_mode" not in TextVectorEnv.metadata


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        ([True, False], TypeError, "NumPy array of bool"),
        (np.array([1, 0]), TypeError, "NumPy array of bool"),
        (np.array([True]), ValueError, r"shape \(2,\)"),
        (np.array([False, False]), ValueError, "at least one True"),
    ],
)
def test_wrong_reset_masks(mask, error, message):
    envs = make(AutoresetMode.DISABLED)
    before = envs.get_state()
    with pytest.raises(error, match=message):
        envs.reset(options={"reset_mask": mask})
    after = envs.get_state()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert step(envs, [0, 2])[0] == [[0, 1, 0, 4, 4], [4, 2, 2, 4, 4]]


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_reset_mask_belongs_to_the_mode_without_autoreset(mode):
    envs = make(mode)
    with pytest.raises(ValueError, match=r"reset_mask.*DISABLED"):
        envs.reset(options={"reset_mask": np.array([True, False])})
    assert step(envs, [0, 2])[0] == [[0, 1, 0, 4, 4], [4, 2, 2, 4, 4]]


def test_the_first_reset_begins_all():
    envs = TextVectorEnv("Copy", num_envs=2, autoreset_mode=AutoresetMode.DISABLED)
    with pytest.raises(ValueError, match="The first reset"):
        envs.reset(options={"reset_mask": np.array([True, False])})
    obs, _ = envs.reset(seed=1, options={"reset_mask": np.array([True, True])})
    assert np.array_equal(obs, envs.reset(seed=1)[0])


def test_unknown_mode():
    with pytest.raises(ValueError, match=r"Unknown autoreset_mode 'SAME'.*Disabled, NextStep, SameStep"):
        TextVectorEnv("Copy", num_envs=2, autoreset_mode="SAME")
    assert TextVectorEnv("Copy", autoreset_mode="NextStep").autoreset_mode is AutoresetMode.NEXT_STEP
