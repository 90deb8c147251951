"""Walks on a random graph."""

from __future__ import annotations

import string
from functools import lru_cache
from typing import Any

import numpy as np

from textenvs.rewards.walks import GOAL, distances
from textenvs.rng import TASK_STREAM, episode_keys, stream_base
from textenvs.tasks.base import PromptSetTask, check_size, check_split
from textenvs.tasks.prompts import PromptNumbers
from textenvs.vocab import Vocab

ATTEMPTS = 20_000


class _Starts:
    """Every node but the goal as a prompt of one token; every fifth is for testing."""

    def __init__(self, num_nodes: int, split: str) -> None:
        self.numbers = PromptNumbers([num_nodes - 1], split, modulus=5)

    def draw(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        number, _, index = self.numbers.draw(keys)
        return number.astype(np.int64)[:, None] + 1, index

    def at(self, index: np.ndarray) -> np.ndarray:
        return self.numbers.at(index)[0].astype(np.int64)[:, None] + 1


class RandomWalk(PromptSetTask):
    """Walk from the prompt's node to node ``a``, which ends the text, by as few edges of a hidden graph as possible.

    Every token is a node. The score compares the walk with the shortest one (``path_optimality``) and is 0 for a walk
    that leaves the edges or does not arrive. After the random walks of trlx (``examples/randomwalks``): 21 nodes, at
    most 10 steps, directed edges with probability 0.1. Graphs on which some node is farther than that from the goal are
    not used. Every fifth node is a start for testing only.

    Args:
        num_nodes: nodes of the graph, 6 to 62.
        max_steps: most steps of a walk, the length budget.
        edge_probability: of each edge.
        task_seed: chooses the graph.
        split: ``"train"`` or ``"test"``.
    """

    name = "RandomWalk"
    optimum = 1.0
    prompt_set: _Starts

    def __init__(
        self,
        *,
        num_nodes: int = 21,
        max_steps: int = 10,
        edge_probability: float = 0.1,
        task_seed: int = 0,
        split: str = "train",
    ) -> None:
        check_size(self.name, "num_nodes", num_nodes, 6, 62)
        check_size(self.name, "max_steps", max_steps, 1)
        check_size(self.name, "task_seed", task_seed, 0)
        probability = edge_probability
        if isinstance(probability, bool) or not isinstance(probability, int | float) or not 0 < probability <= 1:
            raise ValueError(f"{self.name}: edge_probability must lie in (0, 1], got {edge_probability!r}.")
        self.split = check_split(self.name, split, has_prompts=True)
        names = string.ascii_letters + string.digits
        self.vocab = Vocab(names[:num_nodes], eos=names[GOAL])
        self.prompt_length, self.max_new_tokens = 1, max_steps
        self.successors = make_graph(self.name, num_nodes, max_steps, float(edge_probability), task_seed)
        self.default_reward = {
            "name": "path_optimality",
            "successors": [list(following) for following in self.successors],
            "max_steps": max_steps,
        }
        self.prompt_set = _Starts(num_nodes, split)
        self.edges = np.zeros((num_nodes, num_nodes), dtype=np.bool_)
        for node, following in enumerate(self.successors):
            self.edges[node, list(following)] = True
        self._steps = np.array(distances(self.successors))
        actions = self.edges.sum(axis=1) if self.has_masks else num_nodes
        self.random_score = self._random_score(actions)

    def columns(self, prompt_ids: np.ndarray, index: np.ndarray) -> dict[str, Any]:
        return {}

    def oracle(self, prompt_ids: np.ndarray) -> np.ndarray:
        rows = np.full((len(prompt_ids), self.max_new_tokens), self.pad_id)
        node, walking = prompt_ids[:, 0], prompt_ids[:, 0] != GOAL
        for step in range(self.max_new_tokens):
            # The successor that is nearest to the goal.
            nearest = np.where(self.edges[node], self._steps, len(self._steps) + 1).argmin(axis=1)
            rows[walking, step] = nearest[walking]
            node, walking = nearest, walking & (nearest != GOAL)
        return rows

    def encode_prompt(self, prompt: Any) -> np.ndarray:
        row = super().encode_prompt(prompt)
        if row[0] == GOAL:
            raise ValueError(f"{self.name}: a walk cannot begin at its goal, {self.vocab.tokens[GOAL]!r}.")
        return row

    def _random_score(self, actions: np.ndarray | int) -> float:
        """Exact mean score of uniform actions: the Markov chain of sound walks, which the goal absorbs."""
        starts = self.prompts_at(np.arange(self.prompt_set.numbers.count))[:, 0]
        moves = self.edges / np.reshape(actions, (-1, 1))
        moves[GOAL] = 0.0
        there, score = np.eye(len(moves))[starts], np.zeros(len(starts))
        for step in range(1, self.max_new_tokens + 1):
            there = there @ moves
            better = self.max_new_tokens + 1 - step
            score += there[:, GOAL] * better / (self.max_new_tokens + 1 - self._steps[starts])
        return float(score.mean())


class RandomWalkMasked(RandomWalk):
    """As ``RandomWalk``, under a mask of the edges: a walk cannot leave the graph, only fail to arrive.

    Args:
        num_nodes, max_steps, edge_probability, task_seed, split: as for ``RandomWalk``.
    """

    name = "RandomWalkMasked"
    has_masks = True

    def action_masks(self, rows: np.ndarray, written: np.ndarray) -> np.ndarray:
        return self.edges[rows[np.arange(len(rows)), written]]


@lru_cache(maxsize=64)
def make_graph(
    name: str, nodes: int, max_steps: int, probability: float, task_seed: int
) -> tuple[tuple[int, ...], ...]:
    """The successors of each node, in the first of many random graphs where every node is near enough to the goal.

    From the goal edges lead everywhere, so that something is legal there too.

    Raises:
        ValueError: there is none among the first 20,000.
    """
    base = stream_base(np.array([task_seed % 2**64], dtype=np.uint64), TASK_STREAM)
    for attempt in range(ATTEMPTS):
        random = episode_keys(base, np.arange(nodes * nodes) + attempt * nodes * nodes)
        edges = ((random >> np.uint64(11)) * 2.0**-53 < probability).reshape(nodes, nodes)
        edges &= ~np.eye(nodes, dtype=np.bool_)
        edges[GOAL] = True
        if edges.any(axis=1).all():
            successors = tuple(tuple(np.flatnonzero(row).tolist()) for row in edges)
            if max(distances(successors)) < min(nodes, max_steps + 1):  # nodes: no way
                return successors
    raise ValueError(
        f"{name}: on none of {ATTEMPTS:,} graphs with {nodes} nodes and edge_probability={probability} every node is "
        f"within max_steps={max_steps} of the goal: make the probability or the steps larger."
    )
