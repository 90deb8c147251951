"""Playing episodes through the public Gymnasium vector API."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from agents import distributed
from textenvs.rewards import Judge
from textenvs.spec import TextSpec

Act = Callable[[np.ndarray, np.ndarray | None], tuple[np.ndarray, ...]]


@dataclass(frozen=True)
class Rollout:
    """Every episode that ended in a fixed window of steps, in the order of ending. B may be 0. Entries of [B, T] arrays
    beyond an episode's length are 0."""

    rows: np.ndarray
    """[B, L] int64 final observations."""
    lengths: np.ndarray
    """[B] int64 tokens written, EOS included."""
    rewards: np.ndarray
    """[B, T] float32."""
    logprobs: np.ndarray
    """[B, T] float32, as sampled (by older weights where an episode began before the window)."""
    terminated: np.ndarray
    """[B] bool."""
    truncated: np.ndarray
    """[B] bool."""
    action_masks: np.ndarray | None
    """[B, T, V] bool, True where an action was legal; None for tasks without masks."""
    sub_envs: np.ndarray
    """[B] int64, where each episode was played; a batch of several processes counts through all of them."""
    keys: np.ndarray | None
    """[B] uint64, the judge's randomness, 0 of texts that were cut off; None where the environment does not say."""
    prompt_index: np.ndarray | None
    """[B] int64, number of the prompt in the task's prompt set, −1 without; None where the environment does not say."""
    timesteps: int
    """Tokens written in the window by all sub-environments, those of unfinished episodes included."""
    values: np.ndarray | None = None
    """[B, T] float32, of the states as they were met; None where ``act`` gives none."""
    components: dict[str, np.ndarray] = field(default_factory=dict)
    """Name to [B] float32: parts of the scores as their reward models gave them; NaN where one does not apply."""
    judge: str | None = None
    """Name and version of the reward model that gave the scores; None where the environment does not say."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def scores(self) -> np.ndarray:
        """[B] float32 sums of the rewards."""
        return self.rewards.sum(1)

    def take(self, index: np.ndarray) -> Rollout:
        """The episodes with these numbers; ``timesteps`` stays that of the window."""
        parts = {name: x[index] for name, x in vars(self).items() if isinstance(x, np.ndarray)}
        components = {name: values[index] for name, values in self.components.items()}
        return dataclasses.replace(self, **parts, components=components)


class Collector:
    """Plays a vector environment and hands out finished episodes.

    A batch is every episode that ends in a window of steps, never "the first B finished", which favours short texts.
    A step counts if at least one sub-environment wrote a token in it. Episodes in flight carry over to the next
    window, with the log-probabilities that they were sampled with.

    Args:
        envs: any vector environment of token sequences, in any autoreset mode.
        text_spec: its shapes.
        act: called once per step with the observations [N, L] and the masks [N, V] (None for tasks without); returns
            actions [N], log-probabilities [N] and, if it likes, values [N] of the states.
        pooled: a batch is that of all processes, in the order in which one with all of their sub-environments would
            give it; ``collect`` must be called in all of them.
    """

    def __init__(self, envs: VectorEnv, text_spec: TextSpec, act: Act, *, pooled: bool = False) -> None:
        self.envs, self.text_spec, self.act, self.pooled = envs, text_spec, act, pooled
        mode = envs.metadata.get("autoreset_mode")
        if not isinstance(mode, AutoresetMode):
            raise ValueError(
                f"{envs} must name its autoreset mode: metadata['autoreset_mode'] is {mode!r}, "
                "not a gymnasium.vector.AutoresetMode."
            )
        self.mode = mode
        num_envs, num_steps = envs.num_envs, text_spec.max_new_tokens
        self._all = np.arange(num_envs)
        self._obs: np.ndarray | None = None  # None: reset first
        self._action_mask: np.ndarray | None = None
        self._ended = np.zeros(num_envs, dtype=bool)  # waiting for their reset (NEXT_STEP and DISABLED)
        self._lengths = np.zeros(num_envs, dtype=np.int64)
        self._rewards = np.zeros((num_envs, num_steps), dtype=np.float32)
        self._logprobs = np.zeros((num_envs, num_steps), dtype=np.float32)
        self._values: np.ndarray | None = None  # from the first step on, if there are any
        self._masks = np.zeros((num_envs, num_steps, text_spec.pad_id), dtype=bool) if text_spec.has_masks else None

    @property
    def started(self) -> bool:
        """Whether the environment has been reset."""
        return self._obs is not None

    def reset(self, seed: int | None = None) -> None:
        """Reset every sub-environment; episodes in flight are dropped."""
        obs, info = self.envs.reset(seed=seed)
        self._obs = obs
        self._action_mask = info["action_mask"] if self._masks is not None else None
        self._ended[:] = False
        self._clear(self._all)

    def drop(self) -> None:
        """Give up the episodes in flight; the next thing to do is ``reset``."""
        self._obs = None

    def collect(self, num_steps: int) -> Rollout:
        """Play ``num_steps`` steps that write tokens; return the episodes that ended in them."""
        if num_steps < 1:
            raise ValueError(f"num_steps must be at least 1; got {num_steps}.")
        if self._obs is None:
            raise RuntimeError("The collector must be reset before it collects.")
        finished: list[list[dict[str, Any]]] = []  # in each step
        timesteps = counted = 0
        while counted < num_steps:
            if self.mode is AutoresetMode.DISABLED and self._ended.any():
                self._reset_ended()
            # Only under NEXT_STEP is anything still waiting here: this step will reset it and write nothing.
            writing = self._all[~self._ended]
            if len(writing):
                counted += 1
                timesteps += len(writing)
            finished.append([])
            self._step(writing, finished[-1])
        if self.pooled and distributed.world_size() > 1:
            return self._pool(finished, timesteps)
        return self._rollout(list(chain(*finished)), timesteps)

    def _pool(self, finished: list[list[dict[str, Any]]], timesteps: int) -> Rollout:
        """The batch of all processes, whose windows have equally many steps."""
        for part in chain(*finished):
            part["sub_envs"] = part["sub_envs"] + distributed.rank() * len(self._all)
        everyone = distributed.gather((finished, timesteps))
        steps = zip(*(parts for parts, _ in everyone), strict=True)  # each: what ended in it, process by process
        return self._rollout(list(chain(*chain(*steps))), sum(tokens for _, tokens in everyone))

    def _reset_ended(self) -> None:
        obs, info = self.envs.reset(options={"reset_mask": self._ended.copy()})
        if self._action_mask is not None:
            self._action_mask = np.where(self._ended[:, None], info["action_mask"], self._action_mask)
        self._obs = obs
        self._ended[:] = False

    def _step(self, writing: np.ndarray, finished: list[dict[str, Any]]) -> None:
        assert self._obs is not None
        if len(writing):
            actions, logprobs, *values = self.act(self._obs, self._action_mask)
            steps = self._lengths[writing]
            self._logprobs[writing, steps] = logprobs[writing]
            if values:
                if self._values is None:
                    self._values = np.zeros_like(self._logprobs)
                self._values[writing, steps] = values[0][writing]
            if self._masks is not None and self._action_mask is not None:
                self._masks[writing, steps] = self._action_mask[writing]
        else:
            actions = np.zeros(len(self._all), dtype=np.int64)
        obs, rewards, terminations, truncations, info = self.envs.step(actions)
        self._obs = obs
        if self._masks is not None:
            self._action_mask = info["action_mask"]
        if len(writing):
            self._rewards[writing, steps] = rewards[writing]
            self._lengths[writing] += 1
        done = np.flatnonzero(terminations | truncations)
        if self.mode is not AutoresetMode.SAME_STEP:
            self._ended = terminations | truncations
        if len(done):
            self._finish(done, obs, terminations, truncations, info, finished)

    def _finish(
        self,
        done: np.ndarray,
        obs: np.ndarray,
        terminations: np.ndarray,
        truncations: np.ndarray,
        info: dict[str, Any],
        finished: list[dict[str, Any]],
    ) -> None:
        if self.mode is AutoresetMode.SAME_STEP:
            obs, info = info["final_obs"], info.get("final_info", {})
        rows = obs[done]
        if rows.dtype == object:  # SyncVectorEnv's array of rows
            rows = np.stack(list(rows))
        keys, prompt_index = info.get("key"), info.get("prompt_index")
        if prompt_index is not None:
            prompt_index = np.where(info["_prompt_index"], prompt_index, -1)
        finished.append(
            {
                "rows": np.array(rows, dtype=np.int64),
                "lengths": self._lengths[done],
                "rewards": self._rewards[done],
                "logprobs": self._logprobs[done],
                "values": None if self._values is None else self._values[done],
                "terminated": terminations[done],
                "truncated": truncations[done],
                "action_masks": None if self._masks is None else self._masks[done],
                "sub_envs": done,
                "keys": None if keys is None else keys[done].astype(np.uint64),
                "prompt_index": None if prompt_index is None else prompt_index[done].astype(np.int64),
                "components": _components(info, done),
            }
        )
        self._clear(done)

    def _clear(self, where: np.ndarray) -> None:
        self._lengths[where] = 0
        self._rewards[where] = 0
        self._logprobs[where] = 0
        if self._values is not None:
            self._values[where] = 0
        if self._masks is not None:
            self._masks[where] = False

    def _rollout(self, finished: list[dict[str, Any]], timesteps: int) -> Rollout:
        if not finished:
            finished = [self._no_episodes()]
        # A text that was cut off has no key and no number, others of the same batch do.
        for name, missing in (("keys", np.uint64(0)), ("prompt_index", np.int64(-1))):
            if any(part[name] is not None for part in finished):
                for part in finished:
                    if part[name] is None:
                        part[name] = np.full(len(part["rows"]), missing)
        components = _join_components([part.pop("components") for part in finished], [len(p["rows"]) for p in finished])
        joined: dict[str, Any] = {
            name: None if first is None else np.concatenate([part[name] for part in finished])
            for name, first in finished[0].items()
        }
        return Rollout(**joined, timesteps=timesteps, components=components, judge=_find_judge(self.envs))

    def _no_episodes(self) -> dict[str, Any]:
        none = np.zeros(0, dtype=np.int64)
        return {
            "rows": np.zeros((0, self.text_spec.row_length), dtype=np.int64),
            "lengths": none,
            "rewards": self._rewards[none],
            "logprobs": self._logprobs[none],
            "values": None if self._values is None else self._values[none],
            "terminated": none.astype(bool),
            "truncated": none.astype(bool),
            "action_masks": None if self._masks is None else self._masks[none],
            "sub_envs": none,
            "keys": none.astype(np.uint64),
            "prompt_index": none,
            "components": {},
        }

    def get_state(self) -> dict[str, np.ndarray]:
        """Observations and episodes in flight, as arrays; the environment's own state is not in it."""
        if self._obs is None:
            return {}
        state = {
            "obs": self._obs,
            "ended": self._ended,
            "lengths": self._lengths,
            "rewards": self._rewards,
            "logprobs": self._logprobs,
        }
        if self._masks is not None and self._action_mask is not None:
            state |= {"action_mask": self._action_mask, "masks": self._masks}
        if self._values is not None:
            state["values"] = self._values
        return {name: array.copy() for name, array in state.items()}

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a state of ``get_state``; the environment must have been put in its place as well.

        Raises:
            ValueError: the state is of other shapes.
        """
        if not state:
            self._obs = None
            return
        if state["obs"].shape != (len(self._all), self.text_spec.row_length):
            raise ValueError(
                f"This state has observations {state['obs'].shape}; the environment has "
                f"{(len(self._all), self.text_spec.row_length)}."
            )
        self._obs = state["obs"].copy()
        self._ended = state["ended"].copy()
        self._lengths = state["lengths"].copy()
        self._rewards = state["rewards"].copy()
        self._logprobs = state["logprobs"].copy()
        self._values = state["values"].copy() if "values" in state else None
        if self._masks is not None:
            self._action_mask = state["action_mask"].copy()
            self._masks = state["masks"].copy()


def _components(info: dict[str, Any], done: np.ndarray) -> dict[str, np.ndarray]:
    """Parts of the scores of the sub-environments ``done``, from their terminal info."""
    parts = info.get("reward_components", {})
    names = [name for name in parts if f"_{name}" in parts]  # the others are masks
    return {name: np.where(parts[f"_{name}"], parts[name], np.nan)[done].astype(np.float32) for name in names}


def _join_components(parts: list[dict[str, np.ndarray]], sizes: list[int]) -> dict[str, np.ndarray]:
    """Components of a batch from those of its steps, some of which may lack some."""
    names = dict.fromkeys(name for part in parts for name in part)
    missing = [np.full(size, np.nan, dtype=np.float32) for size in sizes]
    return {
        name: np.concatenate([part.get(name, none) for part, none in zip(parts, missing, strict=True)])
        for name in names
    }


def _find_judge(envs: VectorEnv) -> str | None:
    """What the environment's reward model is, where it lives in this process."""
    base: Any = envs.unwrapped
    if isinstance(base, SyncVectorEnv):
        base = base.envs[0].unwrapped
    judge = getattr(base, "judge", None)
    return judge.identity if isinstance(judge, Judge) else None
