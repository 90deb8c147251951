"""TextObservation: strings in, strings out."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import gymnasium as gym
import pytest
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import SyncVectorEnv

import textenvs
from textenvs import TextEnv, TextObservation

ROWS = [{"prompt": "the cat", "completion": "sat down"}, {"prompt": "a dog", "completion": "ran"}]


def test_tokens_are_written_by_their_texts() -> None:
    env = TextObservation(textenvs.from_prompts(ROWS, "words"))
    text, info = env.reset(seed=0, options={"index": 0})
    assert (text, info) == ("the cat", {"prompt": "the cat", "completion": ""})
    text, reward, terminated, _, info = env.step("sat")
    assert (text, reward, terminated, info["completion"]) == ("the cat sat", 0.0, False, "sat")
    env.step("down")
    text, reward, terminated, truncated, info = env.step("")  # EOS
    assert (text, reward, terminated, truncated) == ("the cat sat down", 1.0, True, False)
    assert (info["finish_reason"], info["score"], info["prompt"]) == ("stop", 1.0, "the cat")
    with pytest.raises(ResetNeeded):
        env.step("sat")


def test_a_text_of_several_tokens_is_one_action() -> None:
    env = TextObservation(TextEnv("Reverse", length=4, num_symbols=8))
    env.reset(seed=0, options={"prompt": "0123"})
    text, reward, terminated, _, _ = env.step("32")
    assert (text, reward, terminated) == ("012332", 0.0, False)
    text, reward, terminated, _, info = env.step("1077777")  # the budget is two tokens more
    assert (text, reward, terminated, info["length"]) == ("01233210", 1.0, True, 4)


def test_whole_answers_make_an_episode_of_one_step() -> None:
    env = TextObservation(textenvs.from_prompts(ROWS, "characters"), whole=True)
    env.reset(seed=0, options={"index": 1})
    text, reward, terminated, _, info = env.step("ran")
    assert (text, reward, terminated, info["finish_reason"]) == ("a dogran", 1.0, True, "stop")
    env.reset(options={"index": 1})
    assert env.step("")[1:3] == (0.0, True)
    without_eos = TextObservation(TextEnv("Copy", length=2), whole=True)
    without_eos.reset(seed=0, options={"prompt": "12"})
    assert without_eos.step("1")[2] is False
    assert without_eos.step("2")[1:3] == (1.0, True)


def test_what_cannot_be_written_changes_nothing() -> None:
    env = TextObservation(TextEnv("Copy", length=2))
    env.reset(seed=0, options={"prompt": "12"})
    for action, message in ((3, "An action is a text"), ("1x", "'x' .*is not a token"), ("", "empty text writes EOS")):
        with pytest.raises(InvalidAction, match=message):
            env.step(action)  # type: ignore[arg-type]
    assert env.step("12")[1] == 1.0


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("make", ["Copy", "words", "bytes"])
def test_gymnasiums_checker_and_samples(make: str, whole: bool) -> None:
    inner = TextEnv("Copy") if make == "Copy" else textenvs.from_prompts(ROWS, make)
    env = TextObservation(inner, whole=whole)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(env, skip_render_check=True)
    assert all("different from the unwrapped version" in str(warning.message) for warning in caught)
    env.action_space.seed(0)
    lengths = set()
    for _ in range(30):
        text, _ = env.reset(seed=0)
        over = False
        while not over:
            assert text in env.observation_space
            action = env.action_space.sample()
            assert action in env.action_space
            lengths.add(len(env.unwrapped.task.vocab.encode(action)))  # type: ignore[attr-defined]
            text, _, over, _, _ = env.step(action or env.unwrapped.task.vocab.tokens[0])  # type: ignore[attr-defined]
    assert max(lengths) > 1 if whole else lengths <= {0, 1, 2, 3}
    with pytest.raises(ValueError, match="without mask and probability"):
        env.action_space.sample(mask=(1, None))
    assert 3 not in env.action_space
    assert "x" * 10_000 not in env.action_space


def test_many_of_them() -> None:
    make = functools.partial(TextEnv, "Copy", length=2)
    envs = SyncVectorEnv([lambda: TextObservation(make())] * 2)
    texts, _ = envs.reset(seed=0, options={"prompt": "12"})
    assert texts == ("12", "12")
    texts, rewards, *_ = envs.step(("12", "13"))
    assert texts == ("1212", "1213")
    assert rewards.tolist() == [1.0, 0.5]


def test_masks_and_what_it_cannot_wrap(masked_task: Any) -> None:
    env = TextObservation(TextEnv(masked_task()))
    _, info = env.reset(seed=0)
    assert info["action_mask"].tolist() == [1, 1, 1, 0]
    with pytest.raises(TypeError, match="TextObservation is for text environments"):
        TextObservation(gym.make("CartPole-v1"))
    with pytest.raises(TypeError, match="put TextObservation on first"):
        TextObservation(gym.wrappers.FlattenObservation(TextEnv("Copy")))
    again = gym.make(TextObservation(gym.make("textenvs/Copy-v0", length=2), whole=True).spec)  # type: ignore[arg-type]
    assert again.reset(seed=0, options={"prompt": "12"})[0] == "12"
