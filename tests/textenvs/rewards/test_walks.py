"""Path optimality, counted by hand on a small graph."""

from __future__ import annotations

import numpy as np
import pytest
from texts import make_episodes

from textenvs import Vocab, check_reward, make_reward
from textenvs.rewards import RewardError
from textenvs.rewards.walks import distances

#     d → c → b → a,  d → b,  e → e (no way),  and a is the goal
SUCCESSORS = [[0, 1], [0, 2], [1], [2, 1], [4]]
NODES = Vocab("abcdef", eos="a")  # f is no node of the graph


def score(start: str, walk: str, max_steps: int = 4) -> float:
    """``walk`` without the goal; a trailing ``.`` means that it does not arrive."""
    arrives = not walk.endswith(".")
    episodes = make_episodes([walk.rstrip(".")], [start], vocab=NODES, reasons=["stop" if arrives else "length"])
    spec = {"name": "path_optimality", "successors": SUCCESSORS, "max_steps": max_steps}
    return float(make_reward(spec).score(episodes)[0])


def test_distances():
    assert distances(SUCCESSORS) == [0, 1, 2, 2, 5]
    assert distances([[]]) == [0]


@pytest.mark.parametrize(
    ("start", "walk", "expected"),
    [
        ("b", "", 1.0),  # one step, to the goal
        ("d", "b", 1.0),  # two
        ("d", "cb", 2 / 3),  # three steps where two do: (4 + 1 − 3) / (4 + 1 − 2)
        ("b", "cb", 2 / 4),
        ("d", "bcb", 1 / 3),
        ("c", "bcbcb", 0.0),  # six steps are too many
        ("c", "", 0.0),  # no such edge
        ("d", "cd", 0.0),
        ("d", "b.", 0.0),  # does not arrive
        ("d", "f", 0.0),  # not a node
        ("e", "ee", 0.0),
    ],
)
def test_walks(start, walk, expected):
    assert score(start, walk) == pytest.approx(expected)


def test_tokens_after_the_arrival_do_not_count():
    episodes = make_episodes(["b"], ["d"], vocab=NODES)
    longer = make_episodes(["b"], ["d"], vocab=NODES)
    longer.completion_ids = np.concatenate([episodes.completion_ids, [[5, 5]]], axis=1)
    model = make_reward({"name": "path_optimality", "successors": SUCCESSORS, "max_steps": 4})
    assert model.score(longer).tolist() == model.score(episodes).tolist() == [1.0]


def test_the_contract():
    spec = {"name": "path_optimality", "successors": SUCCESSORS, "max_steps": 4}
    walks = make_episodes(["b", "cb", "", "f"], ["d", "d", "b", "c"], vocab=NODES)
    check_reward(spec, walks)
    with pytest.raises(ValueError, match="node 1 has an edge to 7, not one of 2"):
        make_reward({"name": "path_optimality", "successors": [[0], [7]], "max_steps": 4})
    with pytest.raises(ValueError, match="max_steps must be at least 1"):
        make_reward({**spec, "max_steps": 0})
    with pytest.raises(TypeError, match="successors"):
        make_reward("path_optimality")
    with pytest.raises(RewardError, match="this task has no prompts"):
        check_reward(spec, make_episodes(["b"], vocab=NODES))
