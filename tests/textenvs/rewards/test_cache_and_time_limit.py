"""Remembering scores, and not waiting for them for ever."""

from __future__ import annotations

import pickle
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from texts import make_episodes

import textenvs
from textenvs.rewards import Judge, RewardError, make_reward


class Counting:
    """Counts the texts it is asked about."""

    name, low, high, deterministic = "counting", 0.0, 10.0, True

    def __init__(self, version: str = "1") -> None:
        self.version, self.asked = version, 0

    def score(self, episodes: textenvs.Episodes) -> np.ndarray:
        self.asked += len(episodes)
        return np.array([len(text) for text in episodes.completions], dtype=np.float32)


def test_cache_asks_once_for_each_text() -> None:
    inner = Counting()
    judge = Judge(make_reward({"name": "cache", "reward": inner}))
    texts = make_episodes(["a", "ab", "a", "abc", "ab"])
    np.testing.assert_array_equal(judge(texts).total, [1, 2, 1, 3, 2])
    assert inner.asked == 3
    np.testing.assert_array_equal(judge(make_episodes(["abc", "b", "a"])).total, [3, 1, 1])
    assert inner.asked == 4
    assert (judge.model.hits, judge.model.misses) == (4, 4)


def test_cache_tells_prompts_and_columns_apart() -> None:
    inner = Counting()
    judge = Judge(make_reward({"name": "cache", "reward": inner}))
    judge(make_episodes(["a"], ["b"]))
    judge(make_episodes(["a"], ["c"]))
    judge(make_episodes(["a"], ["b"], answer=["x"]))
    judge(make_episodes(["a"], ["b"], answer=["y"]))
    judge(make_episodes(["a"], ["b"], answer=np.array([[1, 2]])))
    assert inner.asked == 5
    judge(make_episodes(["a"], ["b"], answer=["y"]))
    assert inner.asked == 5


def test_cache_forgets_the_longest_unused() -> None:
    inner = Counting()
    judge = Judge(make_reward({"name": "cache", "reward": inner, "size": 2}))
    for text in ("a", "b", "a", "c", "a"):
        judge(make_episodes([text]))
    assert inner.asked == 3
    judge(make_episodes(["b"]))
    assert inner.asked == 4


def test_cache_on_disk_outlives_the_process_but_not_the_version(tmp_path: Path) -> None:
    spec = {"name": "cache", "folder": str(tmp_path / "scores")}
    Judge(make_reward({**spec, "reward": Counting()}))(make_episodes(["a", "ab"]))
    later = Counting()
    scores = Judge(make_reward({**spec, "reward": later}))(make_episodes(["ab", "abc"]))
    np.testing.assert_array_equal(scores.total, [2, 3])
    assert later.asked == 1
    changed = Counting(version="2")
    Judge(make_reward({**spec, "reward": changed}))(make_episodes(["ab"]))
    assert changed.asked == 1
    assert pickle.loads(pickle.dumps(make_reward({**spec, "reward": later}))).size == 100_000


def test_cache_on_disk_tells_arguments_and_kinds_apart(tmp_path: Path) -> None:
    """One folder for several rewards: none is answered with the scores of another."""

    def cached(reward: object) -> list[float]:
        return Judge(make_reward({"name": "cache", "folder": tmp_path, "reward": reward}))(
            make_episodes(["abc"])
        ).total.tolist()

    class OtherCounting(Counting):
        def score(self, episodes: textenvs.Episodes) -> np.ndarray:
            return super().score(episodes) + 1

    assert cached({"name": "keyword_presence", "words": "a", "whole_words": False}) == [1.0]
    assert cached({"name": "keyword_presence", "words": "z", "whole_words": False}) == [0.0]
    assert cached([(1.0, "regex:a"), (1.0, "regex:z")]) == [1.0]
    assert cached([(2.0, "regex:a"), (1.0, "regex:z")]) == [2.0]
    assert cached({"name": "affine", "reward": "regex:a", "shift": 1.0}) == [2.0]
    assert cached({"name": "affine", "reward": "regex:a", "shift": 2.0}) == [3.0]
    assert cached(Counting()) == [3.0]
    assert cached(OtherCounting()) == [4.0]


def test_cache_keeps_components_and_gold() -> None:
    parts = [(1.0, Counting()), (0.0, {"name": "affine", "reward": Counting(), "scale": 2.0})]
    spec = {"name": "cache", "reward": {"name": "gold", "proxy": parts, "gold": Counting()}}
    judge = Judge(make_reward(spec))
    first, second = judge(make_episodes(["ab"])), judge(make_episodes(["ab"]))
    assert first.components.keys() == second.components.keys() == {"counting", "counting#2", "counting#3"}
    np.testing.assert_array_equal(second.gold, [2.0])


def test_cache_refuses_a_judge_that_is_not_deterministic() -> None:
    with pytest.raises(ValueError, match="not declared deterministic"):
        make_reward({"name": "cache", "reward": lambda completions: [0.0 for _ in completions]})
    with pytest.raises(ValueError, match="not declared deterministic"):
        make_reward({"name": "cache", "reward": {"name": "noise", "reward": "match", "probability": 0.1}})


class Slow:
    """Waits until it is told to stop."""

    name = "slow"

    def __init__(self, slow_calls: int) -> None:
        self.slow_calls, self.calls, self.cancelled = slow_calls, 0, threading.Event()

    def score(self, episodes: textenvs.Episodes) -> np.ndarray:
        self.calls += 1
        if self.calls <= self.slow_calls:
            self.cancelled.wait(10)
        return np.ones(len(episodes), dtype=np.float32)

    def cancel(self) -> None:
        self.cancelled.set()


def test_time_limit_stops_the_run_and_tells_the_plugin() -> None:
    slow = Slow(slow_calls=100)
    env = textenvs.TextEnv(
        "Copy", length=1, num_symbols=3, reward={"name": "time_limit", "reward": slow, "seconds": 0.05}
    )
    env.reset(options={"prompt": "2"})
    start = time.perf_counter()
    with pytest.raises(RewardError, match=r"'slow' did not answer within 0.05 s .*prompt '2', completion '1'"):
        env.step(1)
    assert time.perf_counter() - start < 5
    assert slow.cancelled.is_set()
    env.reset()


def test_time_limit_retries_as_configured() -> None:
    slow = Slow(slow_calls=1)
    judge = Judge(make_reward({"name": "time_limit", "reward": slow, "seconds": 0.05, "retries": 1}))
    np.testing.assert_array_equal(judge(make_episodes(["a"])).total, [1.0])
    assert slow.calls == 2


def test_time_limit_passes_errors_and_answers_on() -> None:
    judge = Judge(make_reward({"name": "time_limit", "reward": Counting(), "seconds": 30}))
    np.testing.assert_array_equal(judge(make_episodes(["ab"])).total, [2.0])

    def broken(completions: list[str]) -> list[float]:
        raise KeyError("gone")

    with pytest.raises(RewardError, match="'broken' raised KeyError"):
        Judge(make_reward({"name": "time_limit", "reward": broken, "seconds": 30}))(make_episodes(["a"]))
    with pytest.raises(ValueError, match="positive"):
        make_reward({"name": "time_limit", "reward": "match", "seconds": 0})
