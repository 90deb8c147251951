"""Re-scoring a replay buffer gives what the environment would have paid under that judge, without playing again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import agents
import textenvs
from agents.collect import Collector
from agents.off_policy import ReplayLearner
from agents.replay import EpisodeReplay

NOISY = {"name": "noise", "reward": "prefix", "probability": 0.4}


def filled(reward: Any, num_steps: int = 30, env_id: str = "textenvs/Reverse-v0", **sizes: Any) -> EpisodeReplay:
    """A buffer with the episodes of random actions, the same ones whatever the reward."""
    envs = gym.make_vec(env_id, num_envs=8, reward=reward, **sizes)
    spec = envs.unwrapped.text_spec
    rng = np.random.default_rng(0)

    def act(obs: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        return rng.integers(0, spec.pad_id, size=len(obs)), np.zeros(len(obs), dtype=np.float32)

    collector = Collector(envs, spec, act)
    collector.reset(seed=3)
    replay = EpisodeReplay(40, spec)
    replay.add(collector.collect(num_steps))
    return replay


JUDGES = ["prefix", NOISY, [(1.0, "match"), (-0.5, {"name": "missing_eos_penalty", "reward": "prefix"})]]


@pytest.mark.parametrize("sizes", [{"length": 3, "num_symbols": 3}, {"length": 3, "num_symbols": 4, "min_length": 2}])
@pytest.mark.parametrize("judge", JUDGES)
def test_equals_playing_under_the_new_judge(sizes: dict[str, int], judge: Any) -> None:
    replay, expected = filled("match", **sizes), filled(judge, **sizes)
    assert not np.array_equal(replay.scores, expected.scores)
    task = textenvs.TextEnv("Reverse", **sizes).task
    replay.rescore(judge, task, batch_size=7)
    np.testing.assert_array_equal(replay.scores, expected.scores)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("RewardSwap", {"length": 2, "num_symbols": 2, "swap_at": 3}),  # before and after the swap
        ("NoisyReverse", {"length": 2, "num_symbols": 3}),
        ("Anagram", {"length": 2, "num_symbols": 4}),
        ("RandomWalk", {"num_nodes": 6, "max_steps": 3, "edge_probability": 0.5}),
        ("Addition", {"digits": 1}),
        ("BitModes", {"length": 4, "num_modes": 2}),
    ],
)
def test_the_default_reward_gives_its_scores_again(name: str, sizes: dict[str, Any]) -> None:
    replay = filled(None, num_steps=60, env_id=f"textenvs/{name}-v0", **sizes)
    scores = replay.scores.copy()
    assert len(set(scores.tolist())) > 1
    task = textenvs.TextEnv(name, **sizes).task
    replay.rescore(task.default_reward, task, batch_size=7)
    np.testing.assert_array_equal(replay.scores, scores)


def test_marks_which_version_scored_each_row_and_survives_saving() -> None:
    replay = filled("match", num_steps=8, length=3, num_symbols=3)
    task = textenvs.TextEnv("Reverse", length=3, num_symbols=3).task
    count = len(replay)
    assert replay.judged_by == ["match 1"] * count
    replay.rescore([(1.0, "match"), (2.0, "prefix")], task)
    assert replay.judged_by == ["weighted_sum 1(parts=['match 1', 'prefix 1'], weights=[1.0, 2.0])"] * count
    replay.rescore("prefix", task)
    assert replay.judged_by == ["prefix 1"] * count
    other = EpisodeReplay(40, replay.text_spec)
    other.set_state(replay.get_state())
    assert other.judged_by == replay.judged_by
    np.testing.assert_array_equal(other.scores, replay.scores)


@pytest.mark.parametrize("mode", ["vector_entry_point", "sync", "async"])
def test_episodes_are_marked_with_the_judge_that_scored_them(mode: str) -> None:
    """Whether the environment's judge was changed with the buffer's or not."""
    envs = gym.make_vec("textenvs/Copy-v0", num_envs=2, vectorization_mode=mode, length=1, num_symbols=3)
    spec = textenvs.TextEnv("Copy", length=1, num_symbols=3).text_spec

    def act(obs: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(2, dtype=np.int64), np.zeros(2, dtype=np.float32)

    collector, replay = Collector(envs, spec, act), EpisodeReplay(40, spec)
    try:
        collector.reset(seed=3)
        replay.add(collector.collect(1))
        textenvs.set_reward(envs, "prefix")
        collector.reset()
        replay.add(collector.collect(1))
        first, second = ("the environment",) * 2 if mode == "async" else ("match 1", "prefix 1")
        assert replay.judged_by == [first] * 2 + [second] * 2
        replay.rescore("length", textenvs.TextEnv("Copy", length=1, num_symbols=3).task)
        collector.reset()
        replay.add(collector.collect(1))
        assert replay.judged_by == ["length 1(maximum=None)"] * 4 + [second] * 2
    finally:
        envs.close()


def test_a_judge_that_fails_leaves_the_scores() -> None:
    replay = filled("match", length=3, num_symbols=3)
    before = replay.scores
    calls = []

    def fails_later(completions: list[str]) -> list[float]:
        calls.append(1)
        if len(calls) == 3:
            raise OSError("gone")
        return [9.0] * len(completions)

    task = textenvs.TextEnv("Reverse", length=3, num_symbols=3).task
    with pytest.raises(textenvs.RewardError, match="gone"):
        replay.rescore(fails_later, task, batch_size=8)
    np.testing.assert_array_equal(replay.scores, before)
    assert set(replay.judged_by) == {"match 1"}


def test_another_task_is_refused() -> None:
    replay = filled("match", length=3, num_symbols=3)
    with pytest.raises(ValueError, match="not written for Reverse of these sizes"):
        replay.rescore("match", textenvs.TextEnv("Reverse", length=4, num_symbols=3).task)


def test_a_judge_of_other_texts_is_refused() -> None:
    replay = filled("match", length=3, num_symbols=3)
    before = replay.scores

    class Elsewhere:
        def score(self, episodes: textenvs.Episodes) -> np.ndarray:
            return np.zeros(len(episodes), dtype=np.float32)

        def check_spec(self, spec: Any) -> None:
            raise ValueError(f"I know nothing of {spec.num_tokens} tokens")

    with pytest.raises(ValueError, match="I know nothing of 3 tokens"):
        replay.rescore(Elsewhere(), textenvs.TextEnv("Reverse", length=3, num_symbols=3).task)
    np.testing.assert_array_equal(replay.scores, before)


LEARNERS = [kind for kind in vars(agents).values() if isinstance(kind, type) and issubclass(kind, ReplayLearner)]


@pytest.mark.parametrize("rescore", [True, False])
@pytest.mark.parametrize("kind", LEARNERS)
def test_an_agent_whose_judge_changes(kind: type[ReplayLearner], rescore: bool, tmp_path: Path) -> None:
    kwargs = {"length": 3, "num_symbols": 4}
    agent = kind("textenvs/Reverse-v0", env_kwargs=kwargs, batch_size=8, learning_starts=8).learn(200)
    old = agent.replay.scores
    agent.set_reward({"name": "length"}, rescore=rescore)
    scores, judges = agent.replay.scores, agent.replay.judged_by
    np.testing.assert_array_equal(scores, np.full(len(old), 3.0) if rescore else old)
    assert set(judges) == {"length 1(maximum=None)"} if rescore else {"match 1"}
    agent.learn(48)  # 16 texts in a window
    assert agent.replay.scores[len(old) :].tolist() == [3.0] * 16
    agent.save(tmp_path / "agent")
    again = kind.load(tmp_path / "agent").learn(48)  # under the new judge
    assert again.replay.scores[-16:].tolist() == [3.0] * 16


@pytest.mark.parametrize("kind", LEARNERS)
def test_a_judge_that_is_none_changes_nothing(kind: type[ReplayLearner]) -> None:
    agent = kind("textenvs/Reverse-v0", env_kwargs={"length": 3, "num_symbols": 4}, learning_starts=1_000).learn(100)
    before = agent.replay.scores

    def broken(completions: list[str]) -> list[float]:
        raise OSError("gone")

    for reward, error in (("macht", ValueError), (broken, textenvs.RewardError)):
        with pytest.raises(error):
            agent.set_reward(reward)
        np.testing.assert_array_equal(agent.replay.scores, before)
        assert agent.envs.unwrapped.judge.name == "match"  # type: ignore[attr-defined]
