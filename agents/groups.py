"""Texts in groups: k completions of a prompt, each of which is compared with the others. What RLOO and GRPO share.

The environment's ``group_size`` says which sub-environments answer the same prompts: those of group g = i // k draw
them from one stream, so the n-th episodes of all of them have the same prompt. Texts differ in length, though: one
sub-environment may be in its seventh episode while another of its group is still writing the fifth.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv

from agents import distributed
from agents.base import Metrics, find_text_spec, make_envs
from agents.checkpoint import Tree
from agents.collect import Rollout
from agents.on_policy import OnPolicyAgent, OnPolicyConfig


class Groups:
    """Puts episodes together that answer the same prompt. One that has ended is held back until all of its group have.

    So an episode is learnt from whether it is long or short, and never compared with another prompt's. None is held
    back where all texts of a group are equally long. Where they are not, the sub-environments of a group drift apart
    like random walks, and what waits grows old: see ``lag``.

    Args:
        group_size: k; None: all episodes of a batch are one group, and none is held back.
        num_envs: sub-environments (of all processes).
    """

    def __init__(self, group_size: int | None, num_envs: int) -> None:
        self.group_size = group_size
        self._ended = np.zeros(num_envs, dtype=np.int64)  # episodes of each sub-environment since it was seeded
        self._held: Rollout | None = None
        self._numbers = np.zeros(0, dtype=np.int64)  # of the episodes held back: which one of its sub-environment

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def lag(self) -> int:
        """How many episodes the slowest sub-environment of a group is behind the fastest, at most."""
        if self.group_size is None:
            return 0
        ended = self._ended.reshape(-1, self.group_size)
        return int((ended.max(1) - ended.min(1)).max())

    def add(self, rollout: Rollout) -> tuple[Rollout, np.ndarray]:
        """Take what ended in a window, and give out the groups that are complete by now.

        A text that was cut off has no score and belongs to no group; the others of its group do without it, and one
        that is left alone is left out.

        Args:
            rollout: as the collector gives it.

        Returns:
            Their B episodes, group by group, and the number of the group of each, [B] int64 from 0. Values, keys and
            parts of scores are not kept.
        """
        bare = dataclasses.replace(rollout, values=None, keys=None, prompt_index=None, components={})
        if self.group_size is None:
            return _comparable(bare, np.zeros(len(bare), dtype=np.int64))
        numbers = self._ended[bare.sub_envs] + _occurrences(bare.sub_envs)
        self._ended += np.bincount(bare.sub_envs, minlength=len(self._ended))
        waiting = bare if self._held is None else _join(self._held, bare)
        self._numbers = np.concatenate([self._numbers, numbers])
        names = np.stack([waiting.sub_envs // self.group_size, self._numbers])
        _, group, size = np.unique(names, axis=1, return_inverse=True, return_counts=True)
        group = group.reshape(-1)
        complete = size[group] == self.group_size
        ready = np.flatnonzero(complete)
        ready = ready[np.argsort(group[ready], kind="stable")]
        self._held, self._numbers = waiting.take(np.flatnonzero(~complete)), self._numbers[~complete]
        return _comparable(waiting.take(ready), group[ready])

    def get_state(self) -> Tree:
        """Everything, as arrays."""
        state: Tree = {"ended": self._ended, "numbers": self._numbers}
        if len(self):
            assert self._held is not None
            state["held"] = {name: x for name, x in vars(self._held).items() if isinstance(x, np.ndarray)}
        return state

    def set_state(self, state: Tree) -> None:
        """Go on from a state of ``get_state``."""
        self._ended, self._numbers = state["ended"].copy(), state["numbers"].copy()
        self._held = None
        if len(self):
            missing = dict.fromkeys(("action_masks", "keys", "prompt_index"))
            self._held = Rollout(**{**missing, **state["held"]}, timesteps=0)


@dataclass(frozen=True)
class GroupConfig(OnPolicyConfig):
    """Hyper-parameters that agents with groups share."""

    group_size: int | None = 8
    """k, completions of each prompt; ``num_envs`` must be a multiple of it. None, for tasks without prompts: all texts
    of a batch are one group."""
    max_lag: int = 16
    """How many episodes the sub-environments of a group may drift apart, where texts differ in length: those of the
    fastest wait as long for the slowest. Beyond it all begin anew, and what is unfinished or held back is given up."""
    epochs: int = 1
    """Passes over a batch."""
    num_minibatches: int = 4
    """Parts, of whole episodes, that a batch is cut into; one gradient step each."""
    clip_coef: float = 0.2
    """ε of the clipped surrogate."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_counts("max_lag", "epochs", "num_minibatches")
        self._check_positive("clip_coef")
        if self.group_size is not None and self.group_size < 2:
            raise ValueError(
                f"group_size must be None or at least 2, for a text is compared with others of its group; got "
                f"{self.group_size}."
            )


class GroupAgent(OnPolicyAgent):
    """An on-policy agent that compares the completions of a prompt with each other.

    Args:
        env: an id, of which an environment with ``group_size`` is made; or one that has been made with it.
        policy, reference, **others: as for :class:`agents.on_policy.OnPolicyAgent`.

    Raises:
        ValueError: an environment without groups, or with others than ``group_size`` says; ``group_size=None`` for a
            task with prompts.
    """

    def __init__(self, env: str | VectorEnv, **others: Any) -> None:
        name = type(self).__name__
        if isinstance(env, VectorEnv):
            made = find_text_spec(env).group_size
            wanted = others.setdefault("group_size", made)
            if made == 1 and wanted is not None:
                raise ValueError(
                    f"{name} compares texts that answer the same prompt, and in this environment every sub-environment "
                    f"has prompts of its own. Make it with groups: gym.make_vec(id, num_envs=…, vectorization_mode="
                    f"'vector_entry_point', group_size=8). For a task without prompts, {name}(…, group_size=None) "
                    f"makes all texts of a batch one group."
                )
            if wanted not in (None, made):
                raise ValueError(f"group_size={wanted}, but the environment given has groups of {made}.")
        elif "group_size" in (others.get("env_kwargs") or {}):
            raise ValueError(f"group_size is for {name} to say: {name}({env!r}, group_size=…), not in env_kwargs.")
        super().__init__(env, **others)

    def _make_envs(self, env_id: str) -> VectorEnv:
        size = self.config.group_size
        if size is None:
            return super()._make_envs(env_id)
        spec = gym.registry.get(env_id.rpartition(":")[2])
        if spec is not None and spec.vector_entry_point is None:
            raise ValueError(
                f"{env_id} is not batched natively and has no groups: {type(self).__name__} needs an environment whose "
                f"vector_entry_point takes group_size=."
            )
        try:
            return make_envs(env_id, self.config.num_envs, self.env_kwargs | {"group_size": size})
        except TypeError:
            find_text_spec(super()._make_envs(env_id))  # says so if it is no text environment at all
            raise

    def _build(self) -> None:
        if self.config.group_size is None and self.text_spec.prompt_length:
            raise ValueError(
                "group_size=None compares all texts of a batch with each other, and in this task they answer different "
                "prompts: give a number, the completions of each prompt."
            )
        super()._build()
        self._groups = self._no_groups()

    def _no_groups(self) -> Groups:
        return Groups(self.config.group_size, self.envs.num_envs * distributed.world_size())

    def _begin_episodes(self) -> None:
        # Under a new seed: under the old one the sub-environments of a group would go on with different prompts.
        if self._env_seed is None:
            self._env_seed = self._another_env_seed()
        self._groups = self._no_groups()
        super()._begin_episodes()

    def _iterate(self) -> Metrics:
        if self._groups.lag > self.config.max_lag:
            self._begin_episodes()
        rollout, metrics = self._play()
        texts, groups = self._groups.add(rollout)
        metrics["charts/held_episodes"] = float(len(self._groups))
        metrics["charts/group_lag"] = float(self._groups.lag)
        metrics["charts/equal_groups"] = _share_of_equal(texts.scores, groups)
        return metrics | self._update(texts, groups) if len(texts) else metrics

    @abstractmethod
    def _update(self, rollout: Rollout, groups: np.ndarray) -> Metrics:
        """Learn from episodes and the number of the group of each [B]."""

    def _get_state(self) -> Tree:
        return super()._get_state() | {"groups": self._groups.get_state()}

    def _set_state(self, state: Tree) -> None:
        super()._set_state(state)
        self._groups.set_state(state["groups"])


def _occurrences(x: np.ndarray) -> np.ndarray:
    """How often each entry [B] has occurred before it."""
    order = np.argsort(x, kind="stable")
    ordered, place = x[order], np.arange(len(x))
    first = np.maximum.accumulate(np.where(np.diff(ordered, prepend=-1) != 0, place, 0))
    result = np.empty_like(place)
    result[order] = place - first
    return result


def _join(one: Rollout, other: Rollout) -> Rollout:
    """Episodes of two windows."""
    both: dict[str, Any] = {
        name: np.concatenate([getattr(one, name), x]) for name, x in vars(other).items() if isinstance(x, np.ndarray)
    }
    return dataclasses.replace(other, **both)


def _comparable(texts: Rollout, groups: np.ndarray) -> tuple[Rollout, np.ndarray]:
    """The texts that have a score, and another of their group beside them; their groups, numbered from 0."""
    scored = np.flatnonzero(texts.terminated)
    texts, groups = texts.take(scored), groups[scored]
    together = np.flatnonzero(np.bincount(groups)[groups] > 1) if len(groups) else scored
    return texts.take(together), np.unique(groups[together], return_inverse=True)[1].reshape(-1)


def _share_of_equal(scores: np.ndarray, groups: np.ndarray) -> float:
    """Share of the groups of which all scores are the same: nothing is learnt from them. NaN without any."""
    if not len(groups):
        return float("nan")
    high, low = (np.full(groups[-1] + 1, sign * np.inf) for sign in (-1, 1))
    np.maximum.at(high, groups, scores)
    np.minimum.at(low, groups, scores)
    return float((high == low).mean())
