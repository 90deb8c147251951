"""The floor and the ceiling of every benchmark: uniformly random texts, and the task's own oracle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from agents.base import Agent, AgentConfig, Metrics
from agents.checkpoint import Tree
from agents.episode_metrics import episode_metrics


class _Baseline(Agent):
    """An agent that plays and counts, and learns nothing."""

    Config = AgentConfig

    def _iterate(self) -> Metrics:
        return episode_metrics(self._collect(self.text_spec.max_new_tokens))


class RandomAgent(_Baseline):
    """Every legal action with the same probability; ``deterministic`` makes no difference."""

    def _build(self) -> None:
        self._predict_rng = np.random.default_rng([self.seed, 1])

    def _act(self, obs: np.ndarray, action_mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        return self._draw(self.rng, obs, action_mask)

    def _predict(self, obs: np.ndarray, action_mask: np.ndarray | None, deterministic: bool) -> np.ndarray:
        return self._draw(self._predict_rng, obs, action_mask)[0]

    def _draw(
        self, rng: np.random.Generator, obs: np.ndarray, action_mask: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        num_rows, num_tokens = len(obs), self.text_spec.pad_id
        if action_mask is None:
            logprobs = np.full(num_rows, -np.log(num_tokens), dtype=np.float32)
            return rng.integers(num_tokens, size=num_rows), logprobs
        legal = np.asarray(action_mask) != 0
        # The largest of independent draws among the legal ones is each of them equally often.
        actions = np.where(legal, rng.random(legal.shape), -1.0).argmax(1)
        return actions, -np.log(legal.sum(1)).astype(np.float32)

    def seed_prediction(self, seed: int) -> None:
        """Restart the random stream of predictions."""
        self._predict_rng = np.random.default_rng(seed)

    def _get_state(self) -> Tree:
        return {"predict_rng": self._predict_rng.bit_generator.state}

    def _set_state(self, state: Tree) -> None:
        self._predict_rng.bit_generator.state = state["predict_rng"]


class OracleAgent(_Baseline):
    """Writes the best text. The only agent that looks inside the environment (``unwrapped.task.oracle``)."""

    def _build(self) -> None:
        base: Any = self.envs.unwrapped
        task = base.task if hasattr(base, "task") else base.get_attr("task")[0]
        self._oracle: Callable[[np.ndarray], np.ndarray] = task.oracle

    def _act(self, obs: np.ndarray, action_mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        return self._predict(obs, action_mask, True), np.zeros(len(obs), dtype=np.float32)

    def _predict(self, obs: np.ndarray, action_mask: np.ndarray | None, deterministic: bool) -> np.ndarray:
        spec = self.text_spec
        completions = self._oracle(obs[:, : spec.prompt_length])
        written = (obs[:, spec.prompt_length :] != spec.pad_id).sum(1)
        actions = completions[np.arange(len(obs)), np.minimum(written, spec.max_new_tokens - 1)]
        return np.where(actions == spec.pad_id, 0, actions)  # beyond the end of the best text anything goes

    def seed_prediction(self, seed: int) -> None:
        """Nothing is random here."""

    def _get_state(self) -> Tree:
        return {}

    def _set_state(self, state: Tree) -> None:
        pass
