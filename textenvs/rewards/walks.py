"""Walks on a graph: how near a walk is to the shortest one."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from textenvs.episodes import Episodes
from textenvs.rewards.inputs import version_of, whole_number
from textenvs.rewards.registry import register_reward

GOAL = 0


@register_reward("path_optimality")
class PathOptimality:
    """How near a walk from the prompt's last token to node 0 is to the shortest one; 0 if it leaves the edges or fails.

    Score: (m + 1 − n) / (m + 1 − d) for a walk that arrives after n ≤ m steps along edges, d of the shortest one and m
    the most that are allowed, else 0; a text counts up to its first arrival. Range: [0, 1]. This is the "path
    optimality" of trlx's random walks, but that arriving with the last step pays a little.

    Args:
        successors: for each node the nodes that its edges lead to; tokens are nodes. The task ``RandomWalk`` has its
            own in ``task.default_reward``.
        max_steps: m.

    Raises:
        ValueError: an edge to a node that is not there, or no steps.
    """

    low, high = 0.0, 1.0
    deterministic, version, cost = True, "1", "array"

    def __init__(self, successors: Sequence[Sequence[int]], max_steps: int) -> None:
        self.max_steps = whole_number("path_optimality", "max_steps", max_steps)
        nodes = len(successors)
        self._edges = np.zeros((nodes + 1, nodes + 1), dtype=np.bool_)  # the last: whatever is not a node
        for node, following in enumerate(successors):
            for other in following:
                if not 0 <= other < nodes:
                    raise ValueError(f"'path_optimality': node {node} has an edge to {other}, not one of {nodes}.")
                self._edges[node, other] = True
        self.version = version_of(successors=[list(following) for following in successors], max_steps=self.max_steps)
        self._shortest = np.minimum([*distances(successors), self.max_steps], self.max_steps)

    def score(self, episodes: Episodes) -> np.ndarray:
        nodes = len(self._shortest) - 1
        if not episodes.prompt_ids.shape[1]:
            raise ValueError("'path_optimality' begins at the prompt's last token, and this task has no prompts.")
        walk = np.concatenate([episodes.prompt_ids[:, -1:], episodes.completion_ids], axis=1)
        walk = np.minimum(walk, nodes)
        sound = np.logical_and.accumulate(self._edges[walk[:, :-1], walk[:, 1:]], axis=1)
        arrives = walk[:, 1:] == GOAL
        last = arrives.argmax(axis=1)
        row = np.arange(len(walk))
        steps = last + 1
        good = arrives[row, last] & sound[row, last] & (steps <= self.max_steps)
        optimality = (self.max_steps + 1 - steps) / (self.max_steps + 1 - self._shortest[walk[:, 0]])
        return np.where(good, optimality, 0.0).astype(np.float32)


def distances(successors: Sequence[Sequence[int]]) -> list[int]:
    """Fewest steps from each node to node 0; the number of nodes where there is no way."""
    before: list[list[int]] = [[] for _ in successors]
    for node, following in enumerate(successors):
        for other in following:
            before[other].append(node)
    steps = [len(successors)] * len(successors)
    steps[GOAL] = 0
    queue = deque([GOAL])
    while queue:
        node = queue.popleft()
        for other in before[node]:
            if steps[other] == len(successors) and other != GOAL:
                steps[other] = steps[node] + 1
                queue.append(other)
    return steps
