"""Sampling answers: K texts for each of N prompts, written by an agent or a policy in its environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from agents.base import Agent, find_text_spec, make_envs
from agents.collect import Collector, Rollout
from textenvs import Episodes, episodes_from_rows
from textenvs.spec import TextSpec


@dataclass(frozen=True)
class Answers:
    """K answers to each of N prompts."""

    episodes: Episodes
    """N · K texts, those to one prompt next to each other. Any reward model can judge them (``Judge``)."""
    scores: np.ndarray
    """float32 [N, K], by the environment's own judge."""

    @property
    def k(self) -> int:
        """Answers to each prompt."""
        return self.scores.shape[1]

    @property
    def rows(self) -> np.ndarray:
        """int64 [N · K, L]: prompt, answer, padding, as the environment's observations."""
        return np.concatenate([self.episodes.prompt_ids, self.episodes.completion_ids], axis=1)


def sample_answers(
    player: Any,
    env: str | VectorEnv,
    num_prompts: int,
    *,
    k: int = 1,
    seed: int = 0,
    num_envs: int = 256,
    env_kwargs: dict[str, Any] | None = None,
    deterministic: bool = False,
) -> Answers:
    """Play until each of ``num_prompts`` prompts has ``k`` answers.

    Every sub-environment plays the same number of episodes, so that long and short texts count alike; those that end
    early begin the next prompt at once. Prompts are drawn as the environment draws them: one may come more than once.
    The same arguments give the same answers. A policy is bound to the environment; training does not notice it
    otherwise, random numbers included.

    Args:
        player: an agent, or a policy (``LMActorCritic``, ``TransformerPolicy``), at its own temperature.
        env: an environment id, or a vector environment made with ``group_size=k``, which is reset.
        num_prompts: N.
        k: K.
        seed: of prompts and answers.
        num_envs: sub-environments, where ``env`` is an id: how many texts are written at once.
        env_kwargs: arguments of the environment, where ``env`` is an id: ``{"split": "test"}`` for held-out prompts.
        deterministic: the most probable token instead of a sampled one.

    Raises:
        ValueError: a number below 1, an environment whose groups are of another size, or one that does not fit.
    """
    for name, value in (("num_prompts", num_prompts), ("k", k), ("num_envs", num_envs)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1; got {value}.")
    own = isinstance(env, str)
    if isinstance(env, str):
        groups = min(num_prompts, max(num_envs // k, 1))
        options = {"group_size": k} if k > 1 else {}
        envs = make_envs(env, groups * k, {**(env_kwargs or {}), **options})
    else:
        if env_kwargs:
            raise ValueError("env_kwargs belong to an environment id; this environment is already made.")
        envs = env
    try:
        return _sample(player, envs, num_prompts, k, seed, deterministic)
    finally:
        if own:
            envs.close()


def _sample(player: Any, envs: VectorEnv, num_prompts: int, k: int, seed: int, deterministic: bool) -> Answers:
    spec = find_text_spec(envs)
    if spec.group_size != k:
        raise ValueError(f"The environment has group_size={spec.group_size}: make it with group_size={k} for k={k}.")
    groups = envs.num_envs // k
    count = -(-num_prompts // groups)  # episodes of each sub-environment
    collector = Collector(envs, spec, _act(player, spec, seed, deterministic))
    collector.reset(seed)
    rollouts: list[Rollout] = []
    ended = np.zeros(envs.num_envs, dtype=np.int64)
    while ended.min() < count:
        rollouts.append(collector.collect(1))
        ended += np.bincount(rollouts[-1].sub_envs, minlength=envs.num_envs)
    places = np.concatenate([rollout.sub_envs for rollout in rollouts])
    order = np.argsort(places, kind="stable")  # by sub-environment, and by time in each
    first = np.concatenate([[0], np.cumsum(ended)[:-1]])
    # [groups · K, count] to [count, groups, K]: the members of a group answer one prompt.
    chosen = order[first[:, None] + np.arange(count)].T.reshape(-1)[: num_prompts * k]
    episodes = _episodes(envs, spec, rollouts, chosen)
    prompts = episodes.prompt_ids.reshape(num_prompts, k, -1)
    if (prompts != prompts[:, :1]).any():
        raise ValueError("Sub-environments of one group were given different prompts: group_size has no effect there.")
    scores = np.concatenate([rollout.scores for rollout in rollouts])[chosen]
    return Answers(episodes, scores.reshape(num_prompts, k))


def _act(player: Any, spec: TextSpec, seed: int, deterministic: bool) -> Any:
    if isinstance(player, Agent):
        theirs = player.text_spec
        for name in ("prompt_length", "max_new_tokens", "vocab"):
            if getattr(spec, name) != getattr(theirs, name):
                raise ValueError(
                    f"The environment has {name}={getattr(spec, name)}; the agent was made for {getattr(theirs, name)}."
                )
        player.seed_prediction(seed)
    else:
        player.bind(spec)
        player.predict_generator.manual_seed(seed)

    def act(obs: np.ndarray, action_mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        actions = player.predict(obs, action_mask=action_mask, deterministic=deterministic)
        return actions[0] if isinstance(player, Agent) else actions, np.zeros(len(obs), dtype=np.float32)

    return act


def _episodes(envs: VectorEnv, spec: TextSpec, rollouts: list[Rollout], chosen: np.ndarray) -> Episodes:
    base: Any = envs.unwrapped
    task = base.task if hasattr(base, "task") else base.get_attr("task")[0]

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(rollout, name) for rollout in rollouts])[chosen]

    rows, lengths = joined("rows"), joined("lengths")
    last = rows[np.arange(len(rows)), spec.prompt_length + lengths - 1]
    reasons = np.where(np.isin(last, spec.eos_ids), "stop", "length").astype(object)
    if spec.has_masks:
        legal = joined("action_masks")[np.arange(len(rows)), lengths - 1, last]
        reasons[~legal] = "invalid"
    return episodes_from_rows(
        task,
        rows,
        lengths=lengths,
        finish_reason=reasons,
        key=joined("keys"),
        prompt_index=joined("prompt_index"),
    )
