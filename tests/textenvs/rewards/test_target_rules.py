"""Rules on hidden texts: the nearest of several, a lure beside a target, a number of the data set."""

from __future__ import annotations

import numpy as np
import pytest
from texts import make_episodes

from textenvs import check_reward, make_reward
from textenvs.rewards import RewardError


def ids(*texts: str) -> np.ndarray:
    return np.array([["abcdefgh".index(c) for c in text] for text in texts])


def fixed(texts: list[str], **columns: np.ndarray):
    return make_episodes(texts, reasons=["length"] * len(texts), **columns)


def test_nearest_mode():
    modes = np.broadcast_to(ids("aaaa", "bbbb", "abcd"), (5, 3, 4))
    episodes = fixed(["aaaa", "abbb", "abca", "efgh", "ab"], modes=modes)
    assert make_reward("nearest_mode").score(episodes).tolist() == [1.0, 0.75, 0.75, 0.0, 0.5]
    longer = fixed(["aaaaa"], modes=modes[:1])
    assert make_reward("nearest_mode").score(longer) == pytest.approx([0.8])
    check_reward("nearest_mode", episodes)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("abcd", 1.0),  # the target
        ("bcda", 0.6),  # the lure
        ("bbbb", 0.15),
        ("abbb", 0.5),  # half of the target's prefix is worth more than nothing of the lure
        ("acda", 0.45),  # a quarter of the target, three quarters of the lure
        ("abca", 0.75),
        ("eeee", 0.0),
    ],
)
def test_lure(text, expected):
    episodes = fixed([text], target_ids=ids("abcd"), lure_ids=ids("bcda"))
    assert make_reward("lure").score(episodes) == pytest.approx([expected])
    check_reward("lure", episodes)


def test_what_the_lure_pays():
    episodes = fixed(["bcda"], target_ids=ids("abcd"), lure_ids=ids("bcda"))
    assert make_reward({"name": "lure", "pays": 0.9}).score(episodes) == pytest.approx([0.9])
    with pytest.raises(ValueError, match=r"pays must lie in \[0, 1\], got -1"):
        make_reward({"name": "lure", "pays": -1})


def test_column():
    episodes = fixed(["a", "b"], value=np.array([0.25, 3.0]), other=[1, 0])
    assert make_reward("column").score(episodes).tolist() == [0.25, 3.0]
    assert make_reward("column:other").score(episodes).tolist() == [1.0, 0.0]
    check_reward("column", episodes)
    with pytest.raises(RewardError, match="outside its declared range"):
        check_reward({"name": "column", "low": 0.0, "high": 1.0}, episodes)
    with pytest.raises(RewardError, match="compares with the column 'value', which this task does not have"):
        check_reward("column")
