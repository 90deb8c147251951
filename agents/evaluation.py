"""Measuring an agent on episodes of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from agents.base import find_text_spec, make_envs
from agents.collect import Collector, Rollout
from textenvs.spec import TextSpec


class Predictor(Protocol):
    """What is asked of whoever is evaluated; every :class:`agents.Agent` has it."""

    @property
    def text_spec(self) -> TextSpec: ...

    def predict(self, obs: np.ndarray, *, deterministic: bool, action_mask: np.ndarray | None) -> tuple[Any, None]: ...

    def seed_prediction(self, seed: int) -> None: ...


@dataclass(frozen=True)
class Evaluation:
    """One episode per sub-environment, in their order."""

    scores: np.ndarray
    """[E] float32."""
    lengths: np.ndarray
    """[E] int64 tokens, EOS included."""
    rows: np.ndarray
    """[E, L] int64 final observations: prompt, text, padding."""

    @property
    def mean_score(self) -> float:
        """Mean of the scores."""
        return float(self.scores.mean(dtype=np.float64))


def evaluate_agent(
    agent: Predictor,
    env_id: str,
    *,
    split: str,
    num_episodes: int = 256,
    deterministic: bool = True,
    seed: int,
    env_kwargs: dict[str, Any] | None = None,
) -> Evaluation:
    """Play exactly ``num_episodes`` episodes: the first one of as many sub-environments, so that long and short
    texts count alike. Training does not notice it; the same seed gives the same result.

    Args:
        agent: whose ``predict`` is asked.
        env_id: the environment; a new one is made.
        split: "train" or "test" prompts (tasks without prompts have "train" only).
        deterministic: the best token instead of a sampled one.
        seed: of the environment and of sampled predictions.
        env_kwargs: further arguments of the environment.

    Raises:
        ValueError: num_episodes below 1, or an environment of other shapes than the agent's.
    """
    rollout = play_episodes(
        agent,
        env_id,
        split=split,
        num_episodes=num_episodes,
        deterministic=deterministic,
        seed=seed,
        env_kwargs=env_kwargs,
    )
    return Evaluation(rollout.scores, rollout.lengths, rollout.rows)


def play_episodes(
    agent: Predictor,
    env_id: str,
    *,
    split: str,
    num_episodes: int,
    deterministic: bool,
    seed: int,
    env_kwargs: dict[str, Any] | None = None,
) -> Rollout:
    """The episodes of :func:`evaluate_agent`, one per sub-environment in their order, with all that is known of them;
    their log-probabilities are not."""
    if num_episodes < 1:
        raise ValueError(f"num_episodes must be at least 1; got {num_episodes}.")
    kwargs = {name: value for name, value in (env_kwargs or {}).items() if name != "group_size"}  # each a prompt
    envs = make_envs(env_id, num_episodes, {**kwargs, "split": split})
    spec, own = find_text_spec(envs), agent.text_spec
    for name in ("prompt_length", "max_new_tokens", "pad_id"):
        if getattr(spec, name) != getattr(own, name):
            raise ValueError(f"{env_id} has {name}={getattr(spec, name)}; the agent was made for {getattr(own, name)}.")
    agent.seed_prediction(seed)

    def act(obs: np.ndarray, action_mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        actions, _ = agent.predict(obs, deterministic=deterministic, action_mask=action_mask)
        return actions, np.full(len(obs), np.nan, dtype=np.float32)

    collector = Collector(envs, spec, act)
    collector.reset(seed)
    rollout = collector.collect(spec.max_new_tokens)  # by then every first episode has ended
    envs.close()
    return rollout.take(np.unique(rollout.sub_envs, return_index=True)[1])
