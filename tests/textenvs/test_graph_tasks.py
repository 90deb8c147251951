"""Walks on a graph: where the graph comes from, starts of either split, the oracle."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from textenvs.rng import splitmix64
from textenvs.tasks import make_task


def keys(count: int) -> np.ndarray:
    return splitmix64(np.arange(count, dtype=np.uint64))


def test_graphs_come_from_the_task_seed_alone():
    graphs = [make_task("RandomWalk", task_seed=seed).successors for seed in range(4)]
    assert graphs[1] == make_task("RandomWalkMasked", task_seed=1, split="test").successors
    assert len(set(graphs)) == 4
    degrees = np.array([len(following) for graph in graphs for following in graph[1:]])
    assert 1.8 < degrees.mean() < 2.6  # 20 · 0.1 on average, a little more where every node has a way to the goal
    assert degrees.min() >= 1


@pytest.mark.parametrize("name", ["RandomWalk", "RandomWalkMasked"])
def test_starts_of_either_split(name):
    starts = {}
    for split in ("train", "test"):
        task = make_task(name, split=split)
        starts[split] = set(task.vocab.decode_rows(task.draw(keys(400))[0]))
    assert starts["test"] == set("fkpu")
    assert starts["train"] == set("bcdeghijlmnoqrst")


def test_the_oracle_walks_along_edges():
    task = make_task("RandomWalk", task_seed=3)
    for start, walk in zip(range(1, 21), task.oracle(np.arange(1, 21)[:, None]), strict=True):
        nodes = [start, *walk[walk != task.pad_id].tolist()]
        assert nodes[-1] == 0
        assert 0 not in nodes[:-1]
        assert all(b in task.successors[a] for a, b in pairwise(nodes))


def test_impossible_graphs():
    with pytest.raises(ValueError, match=r"on none of 20,000 graphs .*edge_probability=0\.001.*max_steps=2"):
        make_task("RandomWalk", num_nodes=6, max_steps=2, edge_probability=0.001)
    with pytest.raises(ValueError, match="a walk cannot begin at its goal, 'a'"):
        make_task("RandomWalk").encode_prompt([0])
    for wrong in (0, 1.1, "0.5", True):
        with pytest.raises(ValueError, match=r"edge_probability must lie in \(0, 1\]"):
            make_task("RandomWalk", edge_probability=wrong)
