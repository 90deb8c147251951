"""The rules of an episode, for N sub-environments at once. Both environment classes are thin shells around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from textenvs.episodes import Episodes
from textenvs.rewards.base import Judge, Scores
from textenvs.rewards.registry import make_reward
from textenvs.rng import JUDGE_STREAM, PROMPT_STREAM, episode_keys, stream_base
from textenvs.spec import TextSpec
from textenvs.tasks.base import Task, check_size

LENGTH, STOP, INVALID = range(3)
_REASONS = np.array(["length", "stop", "invalid"], dtype=object)

Rows = np.ndarray | slice
"""Which sub-environments: an index array, or a slice (all of them, without copying)."""
ALL = slice(None)
AHEAD = 32
"""Episodes that a single environment draws at once: drawing one costs as much as drawing some."""


@dataclass(frozen=True)
class Outcome:
    """How n episodes ended.

    Attributes:
        episodes: the finished texts.
        prompt_index: int64 [n], number of each prompt in the task's prompt set, −1 without a number.
        reward: float64 [n], reward of the last step: the score, or the penalty of an invalid text.
        scored: bool [n], False for invalid texts, which are not scored; None: there are none.
        scores: of the scored ones alone, in order; None if there are none.
        extra: name to array [n], what the task adds to the terminal infos.
    """

    episodes: Episodes
    prompt_index: np.ndarray
    reward: np.ndarray
    scored: np.ndarray | None
    scores: Scores | None
    extra: dict[str, np.ndarray]


class TextEngine:
    """State and rules of N text episodes.

    Args:
        task: what is to be written.
        reward: any form of reward spec, None for the task's default.
        num_envs: N.
        group_size: k: sub-environment i draws its prompts from the stream of i // k.
        invalid_reward: reward of an episode that ended by an illegal action; default the reward model's ``low``.

    Raises:
        ValueError: N is not a positive multiple of k, or a reward or an ``invalid_reward`` is needed but not given.
    """

    def __init__(
        self,
        task: Task,
        reward: Any,
        *,
        num_envs: int,
        group_size: int = 1,
        invalid_reward: float | None = None,
    ) -> None:
        check_size(task.name, "num_envs", num_envs, 1)
        check_size(task.name, "group_size", group_size, 1, num_envs)
        if num_envs % group_size:
            raise ValueError(f"num_envs must be a multiple of group_size, got {num_envs} and {group_size}.")
        if invalid_reward is not None and not np.isfinite(invalid_reward):
            raise ValueError(f"invalid_reward must be a finite number, got {invalid_reward}.")
        self.task = task
        self.num_envs = num_envs
        self._given_invalid_reward = invalid_reward
        self.spec = TextSpec(
            prompt_length=task.prompt_length,
            max_new_tokens=task.max_new_tokens,
            pad_id=task.pad_id,
            eos_ids=task.vocab.eos_ids,
            vocab=task.vocab,
            has_masks=task.has_masks,
            group_size=group_size,
        )
        reward = task.default_reward if reward is None else reward
        if reward is None:
            raise ValueError(f"{task.name} has no reward of its own: give reward=, the judge of its texts.")
        self.set_reward(reward)
        self.rows = np.full((num_envs, self.spec.row_length), task.pad_id, dtype=np.int64)
        """int64 [N, L]: prompt, what has been written, padding."""
        self.written = np.zeros(num_envs, dtype=np.int64)
        self.prompt_index = np.full(num_envs, -1, dtype=np.int64)
        self.episode = np.full(num_envs, -1, dtype=np.int64)
        """Number of each sub-environment's episode under its seed, from 0; −1 before the first."""
        self.key = np.zeros(num_envs, dtype=np.uint64)
        """The judge's randomness for each present episode."""
        self.memory = np.zeros((num_envs, task.memory_size), dtype=np.int64)
        """int64 [N, M]: what the task keeps of each sub-environment's episodes."""
        self.seeds: np.ndarray | None = None
        self.masks = np.ones((num_envs, self.spec.num_tokens), dtype=np.bool_) if task.has_masks else None
        """Legal actions bool [N, V] in the present states; None where every action always is."""
        self._illegal = np.zeros(num_envs, dtype=np.bool_)
        self._env_index = np.arange(num_envs)
        self._first_column = self._env_index * self.spec.row_length + self.spec.prompt_length
        """Position of each sub-environment's first token in ``rows``, laid flat."""
        self._first_action = self._env_index * self.spec.num_tokens
        """The same of its first action in ``masks``."""

    def set_reward(self, reward: Any) -> None:
        """Judge with another reward model from the next finished text on.

        Raises:
            ValueError: illegal actions need an ``invalid_reward`` that this reward model's range does not provide, or
                the reward model says that it cannot judge these texts; the old one stays.
        """
        judge = Judge(make_reward(reward))
        judge.check_spec(self.spec)
        penalty = self._given_invalid_reward
        if penalty is None:
            if self.task.has_masks and not np.isfinite(judge.low):
                raise ValueError(
                    f"{self.task.name} has illegal actions and reward {judge.name!r} no finite lower bound: "
                    f"give invalid_reward=, the reward of a text that broke the rules."
                )
            penalty = judge.low
        self.judge = judge
        self.invalid_reward = float(penalty)

    # ------------------------------------------------------------------------------------------------- episodes

    def seed(self, seeds: Sequence[int] | np.ndarray, rows: Rows = ALL) -> None:
        """Give sub-environments ``rows`` new seeds: their next episode is number 0."""
        if self.seeds is None:
            self.seeds = np.zeros(self.num_envs, dtype=np.uint64)
        self.seeds[rows] = np.array([seed % 2**64 for seed in seeds], dtype=np.uint64)
        self.episode[rows] = -1
        self.memory[rows] = 0
        # Group g = i // k shares one stream of prompts: that of the g-th seed.
        prompt_base = stream_base(self.seeds[self._env_index // self.spec.group_size], PROMPT_STREAM)
        self._streams = np.stack([prompt_base, stream_base(self.seeds, JUDGE_STREAM)])
        self._drawn: tuple[int, tuple[np.ndarray, ...]] | None = None

    def begin(self, rows: Rows = ALL, *, prompts: np.ndarray | None = None, index: np.ndarray | None = None) -> None:
        """Begin the next episode of ``rows``, with the given prompts [n, P] or prompt numbers [n] if any."""
        self.episode[rows] += 1
        if prompts is not None:
            prompt_ids, numbers = prompts, np.full(len(prompts), -1, dtype=np.int64)
            self.key[rows] = self._keys(rows)[1]
        elif index is not None:
            prompt_ids, numbers = self.task.prompts_at(index), index
            self.key[rows] = self._keys(rows)[1]
        else:
            prompt_ids, numbers, self.key[rows] = self._draw(rows)
        self.rows[rows, : self.spec.prompt_length] = prompt_ids
        self.rows[rows, self.spec.prompt_length :] = self.spec.pad_id
        self.prompt_index[rows] = numbers
        self.written[rows] = 0
        self._update_masks(rows)

    def _keys(self, rows: Rows) -> np.ndarray:
        """Random keys of the present episodes, uint64 [2, n]: of the prompts and of the judge."""
        return episode_keys(self._streams[:, rows], self.episode[rows])

    def _draw(self, rows: Rows) -> tuple[np.ndarray, ...]:
        """Prompts, their numbers and the judge's keys of the present episodes."""
        if self.num_envs > 1:
            prompt_key, key = self._keys(rows)
            return (*self.task.draw_episodes(prompt_key, self.episode[rows]), key)
        episode = int(self.episode[0])
        if self._drawn is None or not 0 <= episode - self._drawn[0] < AHEAD:
            episodes = np.arange(episode, episode + AHEAD)
            prompt_key, key = episode_keys(self._streams, episodes)
            self._drawn = episode, (*self.task.draw_episodes(prompt_key, episodes), key)
        first, drawn = self._drawn
        return tuple(array[episode - first : episode - first + 1] for array in drawn)

    def append(self, actions: np.ndarray | int, rows: Rows | int) -> np.ndarray:
        """Append one token each to ``rows``. The rules of how a text goes on and when it is over.

        Args:
            actions: int64 [n], each in 0 … V − 1.
            rows: the n sub-environments; or the number of one, and a single action.

        Returns:
            Whether the texts are over, bool [n].
        """
        illegal = None if self.masks is None else ~self.masks.reshape(-1)[self._first_action[rows] + actions]
        # One flat index is several times faster than a pair of indices.
        written = self.written[rows]
        self.rows.reshape(-1)[self._first_column[rows] + written] = actions
        written = written + 1
        self.written[rows] = written
        over = written == self.spec.max_new_tokens
        for eos in self.spec.eos_ids:
            over |= actions == eos
        if illegal is not None:
            over |= illegal
            self._illegal[rows] = illegal
            self._update_masks()
        return over

    def write(self, actions: np.ndarray, rows: Rows = ALL) -> tuple[Rows, np.ndarray]:
        """:meth:`append` one token each to ``rows``.

        Returns:
            The sub-environments whose episode ended, and bool [N] that is True for them.
        """
        over = self.append(actions, rows)
        if isinstance(rows, slice):
            ended = over
        else:
            ended = np.zeros(self.num_envs, dtype=np.bool_)
            ended[rows] = over
        ended_rows = ended.nonzero()[0]
        return (ALL if len(ended_rows) == self.num_envs else ended_rows), ended

    def finish(self, rows: Rows) -> Outcome:
        """Score the episodes of ``rows``, which have just ended, in one call of the reward model.

        Raises:
            RewardError: the reward model failed or broke its contract.
        """
        index = self._env_index[rows]
        # Copies: whoever keeps the episodes must not see the next ones being written into them.
        final, lengths = self.rows.take(index, axis=0), self.written.take(index)
        key, prompt_index = self.key.take(index), self.prompt_index.take(index)
        codes = np.zeros(len(index), dtype=np.int64)  # LENGTH
        if self.spec.eos_ids:
            last = self.rows.reshape(-1)[self._first_column[index] + lengths - 1]
            for eos in self.spec.eos_ids:
                codes[last == eos] = STOP
        if self.masks is not None:
            codes[self._illegal[index]] = INVALID
        episodes = episodes_from_rows(
            self.task,
            final,
            lengths=lengths,
            finish_reason=_REASONS[codes],
            key=key,
            prompt_index=prompt_index,
        )
        scored = None if self.masks is None else codes != INVALID
        scores: Scores | None
        if scored is None or scored.all():
            scored, scores = None, self.judge(episodes)
            reward = scores.total.astype(np.float64)
        else:
            reward = np.full(len(final), self.invalid_reward)
            scores = self.judge(episodes.take(scored)) if scored.any() else None
            if scores is not None:
                reward[scored] = scores.total
        extra: dict[str, np.ndarray] = {}
        if self.task.memory_size:
            self.memory[rows], extra = self.task.remember(self.memory[rows], episodes)
        return Outcome(episodes, prompt_index, reward, scored, scores, extra)

    def _update_masks(self, rows: Rows = ALL) -> None:
        if self.masks is not None:
            self.masks[rows] = self.task.action_masks(self.rows[rows], self.written[rows])

    # ------------------------------------------------------------------------------------------------- state

    def get_state(self) -> dict[str, np.ndarray]:
        """Everything that decides how the episodes go on, as arrays. Masks follow from it."""
        if self.seeds is None:
            raise ValueError("There is no state yet: reset the environment first.")
        return {
            "sizes": self._sizes(),
            "rows": self.rows.copy(),
            "written": self.written.copy(),
            "prompt_index": self.prompt_index.copy(),
            "episode": self.episode.copy(),
            "key": self.key.copy(),
            "seeds": self.seeds.copy(),
            "memory": self.memory.copy(),
        }

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a state of :meth:`get_state`.

        Raises:
            ValueError: it belongs to an environment of other sizes.
        """
        if not np.array_equal(state["sizes"], self._sizes()):
            raise ValueError(
                f"The state was saved from another environment: it has (num_envs, P, T, V, group_size) = "
                f"{tuple(np.asarray(state['sizes']).tolist())}, this environment {tuple(self._sizes().tolist())}."
            )
        self.seed([int(seed) for seed in state["seeds"]])
        for name in ("rows", "written", "prompt_index", "episode", "key", "memory"):
            getattr(self, name)[:] = state[name]
        self._update_masks()

    def _sizes(self) -> np.ndarray:
        spec = self.spec
        return np.array(
            [self.num_envs, spec.prompt_length, spec.max_new_tokens, spec.num_tokens, spec.group_size], dtype=np.int64
        )


def episodes_from_rows(
    task: Task,
    rows: np.ndarray,
    *,
    lengths: np.ndarray,
    finish_reason: np.ndarray,
    key: np.ndarray,
    prompt_index: np.ndarray,
) -> Episodes:
    """Finished texts from final observations: what a replay buffer keeps is enough to judge them again.

    Args:
        task: the task that they were written for.
        rows: int64 [B, L], final observations.
        lengths: int64 [B], tokens written.
        finish_reason: object array [B].
        key: uint64 [B], the ``key`` of each episode's terminal info.
        prompt_index: int64 [B], the ``prompt_index`` of each episode's terminal info.
    """
    prompt_ids = rows[:, : task.prompt_length]
    return Episodes(
        prompt_ids=prompt_ids,
        completion_ids=rows[:, task.prompt_length :],
        lengths=lengths,
        finish_reason=finish_reason,
        key=key,
        vocab=task.vocab,
        columns=task.columns(prompt_ids, prompt_index),
    )


# ----------------------------------------------------------------------------------------------------- infos


def scalar_info(outcome: Outcome, text: bool) -> dict[str, Any]:
    """The terminal ``info`` of a scalar environment, from an outcome of one episode."""
    episodes, scores = outcome.episodes, outcome.scores
    info: dict[str, Any] = {}
    if scores is not None:
        info["score"] = float(scores.total[0])
        parts = ((name, float(part[0])) for name, part in scores.components.items())
        info["reward_components"] = {name: part for name, part in parts if not math.isnan(part)}
        if scores.gold is not None:
            info["gold_score"] = float(scores.gold[0])
    info["length"] = int(episodes.lengths[0])
    info["finish_reason"] = episodes.finish_reason[0]
    info["key"] = episodes.key[0]
    info["prompt_index"] = int(outcome.prompt_index[0])
    for name, values in outcome.extra.items():
        info[name] = values[0].item()
    if text:
        info["prompt"] = episodes.prompts[0]
        info["completion"] = episodes.completions[0]
    return info


def vector_info(outcome: Outcome, rows: Rows, ended: np.ndarray, text: bool) -> dict[str, Any]:
    """The same for n episodes among N sub-environments, shaped as Gymnasium's vector environments shape infos.

    Args:
        outcome: of the n episodes.
        rows: the sub-environments that they belong to.
        ended: bool [N], True for them.
        text: whether to add the texts.
    """
    episodes, scores = outcome.episodes, outcome.scores
    info: dict[str, Any] = {}
    if scores is not None:
        if outcome.scored is None:
            scored_rows, scored = rows, ended
        else:
            scored_rows = np.flatnonzero(ended)[outcome.scored]
            scored = np.zeros_like(ended)
            scored[scored_rows] = True
        add_info(info, "score", scores.total.astype(np.float64), scored_rows, scored)
        parts: dict[str, Any] = {}
        for name, part in scores.components.items():
            _add_component(parts, name, part.astype(np.float64), scored)
        info["reward_components"], info["_reward_components"] = parts, scored.copy()
        if scores.gold is not None:
            add_info(info, "gold_score", scores.gold.astype(np.float64), scored_rows, scored)
    add_info(info, "length", episodes.lengths, rows, ended)
    add_info(info, "finish_reason", episodes.finish_reason, rows, ended)
    add_info(info, "key", episodes.key, rows, ended)
    add_info(info, "prompt_index", outcome.prompt_index, rows, ended)
    for name, values in outcome.extra.items():
        add_info(info, name, values, rows, ended)
    if text:
        add_info(info, "prompt", np.array(episodes.prompts, dtype=object), rows, ended)
        add_info(info, "completion", np.array(episodes.completions, dtype=object), rows, ended)
    return info


def _add_component(parts: dict[str, Any], name: str, part: np.ndarray, scored: np.ndarray) -> None:
    """A part of the score; it is NaN, and left out, for texts that it does not apply to."""
    applies = ~np.isnan(part)
    if applies.all():
        add_info(parts, name, part, scored, scored)
    elif applies.any():
        present = scored.copy()
        present[scored] = applies
        add_info(parts, name, part[applies], present, present)


def add_info(info: dict[str, Any], key: str, values: np.ndarray, rows: Rows, present: np.ndarray) -> None:
    """Put ``values`` [n, …] of the sub-environments ``rows`` into a vector info: ``key`` and its mask ``_key``.

    ``present``, bool [N], is True for the same sub-environments.
    """
    full = np.zeros((len(present), *values.shape[1:]), dtype=values.dtype)
    if values.dtype == object:
        full[:] = None
    full[rows] = values
    info[key], info[f"_{key}"] = full, present.copy()
