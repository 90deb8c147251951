"""A store of finished episodes: every observation of an episode is a prefix of its row, so it keeps rows only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from agents.checkpoint import CheckpointError, load_config, load_state, save_checkpoint
from agents.collect import Rollout
from agents.demonstrations import finish_reasons, masks_of_rows, rollout_from_episodes
from agents.environments import describe_text_spec
from textenvs import Episodes, Task, episodes_from_rows, make_reward
from textenvs.rewards import Judge
from textenvs.spec import TextSpec


class EpisodeStore:
    """The last ``capacity`` finished episodes, first in, first out.

    An episode is one row of tokens and one score. Episodes that a time limit cut off are skipped: their texts were not
    judged.

    Args:
        capacity: episodes.
        text_spec: shapes of the episodes.
        keep_logprobs: keep the log-probabilities that the tokens were sampled with.
        keep_ref_logprobs: keep what a reference says of the tokens, computed once: see ``set_ref_logprobs``.
        deduplicate: a text that is written again to the same prompt takes no second place: its score becomes the mean
            of all scores that it got, which is what a noisy judge calls for. It counts as new, so what is forgotten
            first is what has not been written for longest.
        masks_of: a task whose ``action_masks`` are asked when masks are needed, so that none are kept; None: they are
            kept, one bit an action.
        task: the task that the texts are written for, where it is known: by it texts are judged, now and anew, and the
            files of other tasks are refused.

    Raises:
        ValueError: capacity below 1.
    """

    def __init__(
        self,
        capacity: int,
        text_spec: TextSpec,
        *,
        keep_logprobs: bool = False,
        keep_ref_logprobs: bool = False,
        deduplicate: bool = False,
        masks_of: Task | None = None,
        task: Task | None = None,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1 episode; got {capacity}.")
        self.capacity, self.text_spec, self.task = capacity, text_spec, task
        self._mask_task = masks_of if text_spec.has_masks else None
        steps, num_tokens = text_spec.max_new_tokens, text_spec.pad_id
        columns = {
            # The smallest types that hold the ids 0 … V, V being padding, and the lengths.
            "tokens": np.zeros((capacity, text_spec.row_length), dtype=np.min_scalar_type(num_tokens)),
            "lengths": np.zeros(capacity, dtype=np.min_scalar_type(steps)),
            "scores": np.zeros(capacity, dtype=np.float32),
            "keys": np.zeros(capacity, dtype=np.uint64),
            "prompt_index": np.zeros(capacity, dtype=np.int64),
            "ages": np.zeros(capacity, dtype=np.int64),
            "judges": np.zeros(capacity, dtype=np.uint16),
            "sources": np.zeros(capacity, dtype=np.uint8),
        }
        if keep_logprobs:
            columns["logprobs"] = np.zeros((capacity, steps), dtype=np.float32)
        if keep_ref_logprobs:
            columns["ref_logprobs"] = np.zeros((capacity, steps), dtype=np.float32)
        if text_spec.has_masks and masks_of is None:
            columns["masks"] = np.zeros((capacity, steps, -(-num_tokens // 8)), dtype=np.uint8)  # one bit an action
        if deduplicate:
            columns["counts"] = np.zeros(capacity, dtype=np.uint32)
        self._columns: dict[str, np.ndarray] = columns
        self._places: dict[bytes, int] | None = {} if deduplicate else None  # of each text
        self._history = np.zeros(capacity if deduplicate else 0, dtype=np.int64)  # place of episode n, at n % capacity
        self._size = 0
        self._judges = ["the environment"]
        self._sources = ["agent"]
        self.num_added = 0
        """Episodes ever added."""

    def __len__(self) -> int:
        return self._size

    @property
    def scores(self) -> np.ndarray:
        """[len] float32 scores, in the order of places."""
        return self._columns["scores"][: len(self)].copy()

    @property
    def ages(self) -> np.ndarray:
        """[len] int64: how many episodes were added after each one, in the order of places."""
        return self.num_added - 1 - self._columns["ages"][: len(self)]

    @property
    def judged_by(self) -> list[str]:
        """[len] name and version of the reward model that gave each score, in the order of places; "the environment"
        where that did not say which one it was."""
        return [self._judges[i] for i in self._columns["judges"][: len(self)]]

    @property
    def sources(self) -> list[str]:
        """[len] where each episode came from, in the order of places: "agent", or as ``add`` was told."""
        return [self._sources[i] for i in self._columns["sources"][: len(self)]]

    def add(self, rollout: Rollout, source: str = "agent") -> int:
        """Keep the finished episodes of a rollout; of more than fit, the last ones.

        Args:
            rollout: the episodes.
            source: where they come from. Others than the agent's own: see :mod:`agents.demonstrations`.

        Returns:
            How many were added (truncated ones are skipped).

        Raises:
            ValueError: an episode was rewarded before its last step, or its shapes are not this buffer's.
        """
        if rollout.rows.shape[1:] != (self.text_spec.row_length,):
            raise ValueError(
                f"Rows of {rollout.rows.shape[1]} tokens do not belong into a replay buffer of rows of "
                f"{self.text_spec.row_length}."
            )
        kept = np.flatnonzero(rollout.terminated)
        _check_rewards(rollout.rewards[kept], rollout.lengths[kept])
        num_new = len(kept)
        numbers = self.num_added + np.arange(num_new)
        if self._places is None:  # what would be overwritten at once need not be written
            kept, numbers = kept[-self.capacity :], numbers[-self.capacity :]
        new: dict[str, np.ndarray] = {
            "tokens": rollout.rows[kept].astype(self._columns["tokens"].dtype),
            "lengths": rollout.lengths[kept],
            "scores": rollout.scores[kept],
            "ages": numbers,
            "judges": np.full(len(kept), _number(self._judges, rollout.judge or self._judges[0])),
            "sources": np.full(len(kept), _number(self._sources, source)),
        }
        if rollout.keys is not None:
            new["keys"] = rollout.keys[kept]
        if rollout.prompt_index is not None:
            new["prompt_index"] = rollout.prompt_index[kept]
        if "logprobs" in self._columns:
            new["logprobs"] = rollout.logprobs[kept]
        if "ref_logprobs" in self._columns:
            new["ref_logprobs"] = np.full(rollout.logprobs[kept].shape, np.nan)
        if "masks" in self._columns:
            assert rollout.action_masks is not None  # the collector gives them wherever the spec announces them
            new["masks"] = np.packbits(rollout.action_masks[kept], axis=-1)
        if self._places is None:
            places = numbers % self.capacity
            self._size = min(self.num_added + num_new, self.capacity)
        else:
            places = self._merge(new["tokens"], new.pop("scores"), new["judges"], numbers)
            self._history[numbers % self.capacity] = places
        for name, values in new.items():
            self._columns[name][places] = values
        self.num_added += num_new
        self._on_new(places)
        return num_new

    def _on_new(self, places: np.ndarray) -> None:
        """Called when the episodes in these places have come or changed."""

    def _merge(self, tokens: np.ndarray, scores: np.ndarray, judges: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Find a place for each episode and note its score there: that of the same text, or a free one, or that of the
        text which has not been written for longest. What another judge said of a text is no part of the mean."""
        assert self._places is not None
        columns, places = self._columns, np.empty(len(tokens), dtype=np.int64)
        for i, row in enumerate(tokens):  # one by one: a text may occur twice
            text = row.tobytes()
            place = self._places.get(text)
            if place is None:
                if self._size < self.capacity:
                    place, self._size = self._size, self._size + 1
                else:
                    place = int(columns["ages"].argmin())
                    del self._places[columns["tokens"][place].tobytes()]
                self._places[text] = place
                columns["tokens"][place], columns["counts"][place] = row, 0
            if columns["counts"][place] == 0 or columns["judges"][place] != judges[i]:
                columns["judges"][place], columns["counts"][place], columns["scores"][place] = judges[i], 0, 0.0
            columns["ages"][place] = numbers[i]
            columns["counts"][place] += 1
            columns["scores"][place] += (scores[i] - columns["scores"][place]) / columns["counts"][place]
            places[i] = place
        return places

    def _place_of(self, numbers: np.ndarray) -> np.ndarray:
        """Places of episodes by their numbers, which are among the last ``capacity``."""
        slots = numbers % self.capacity
        return slots if self._places is None else self._history[slots]

    def without_ref_logprobs(self) -> np.ndarray:
        """[M] int64 places of the episodes of which the reference has not been asked yet."""
        return np.flatnonzero(np.isnan(self._columns["ref_logprobs"][: len(self), 0]))

    def set_ref_logprobs(self, index: np.ndarray, ref_logprobs: np.ndarray) -> None:
        """Keep what a reference says of the episodes in places ``index`` [B]: [B, T], 0 behind the end of a text. It
        never changes, so once is enough, whatever judge or policy comes.

        Raises:
            ValueError: a log-probability is NaN.
        """
        if np.isnan(ref_logprobs).any():
            raise ValueError("The reference gives NaN as a log-probability: its weights or its masks are broken.")
        self._columns["ref_logprobs"][index] = ref_logprobs

    def places(self, newest: int) -> np.ndarray:
        """[n] places of the episodes that were added last, the newest at the end; fewer where fewer are kept."""
        count = min(newest, self.num_added, self.capacity)
        return self._place_of(np.arange(self.num_added - count, self.num_added))

    def _masks(self, index: np.ndarray) -> np.ndarray | None:
        """[B, T, V] bool of the episodes in these places; None for tasks without masks."""
        if self._mask_task is not None:
            tokens, lengths = self._columns["tokens"][index], self._columns["lengths"][index]
            return masks_of_rows(self._mask_task, tokens.astype(np.int64), lengths.astype(np.int64))
        if "masks" not in self._columns:
            return None
        return np.unpackbits(self._columns["masks"][index], axis=-1, count=self.text_spec.pad_id).astype(bool)

    def add_episodes(
        self,
        episodes: Episodes,
        scores: np.ndarray | None = None,
        *,
        source: str = "demonstrations",
        task: Task | None = None,
        reward: Any = None,
    ) -> int:
        """Keep texts that somebody else wrote: an oracle, people, other agents.

        Args:
            episodes: the texts, e.g. from :func:`agents.demonstrations.oracle_episodes` or ``read_demonstrations``.
            scores: [B]; None: they are judged here.
            source: what ``sources`` will call them.
            task: the task that they were written for: needed to judge them, and by tasks with masks. None: the
                buffer's.
            reward: any form of reward spec; None: the task's own.

        Returns:
            How many were added.

        Raises:
            ValueError: texts that this environment could not have brought forth: see
                :func:`agents.demonstrations.rollout_from_episodes`. The buffer is as it was.
            RewardError: the reward model failed; likewise.
        """
        return self.add(rollout_from_episodes(episodes, self.text_spec, scores, task or self.task, reward), source)

    def save(self, folder: str | Path, task: str | None = None) -> None:
        """Write the buffer alone, to be taken up elsewhere by ``load``; an earlier one there is replaced.

        Args:
            folder: where.
            task: name of the task that the texts were written for, which ``load`` can then compare; None: the
                buffer's.

        Raises:
            CheckpointError: there is something else at ``folder``.
        """
        task = task or (None if self.task is None else self.task.name)
        config = {"agent": type(self).__name__, "text_spec": describe_text_spec(self.text_spec), "task": task}
        save_checkpoint(folder, config, {"replay": self.get_state()})

    def load(self, folder: str | Path, task: str | None = None) -> None:
        """Take over the episodes of a buffer that ``save`` wrote, in place of this one's.

        Args:
            folder: where.
            task: name of the task that they must have been written for; None: the buffer's.

        Raises:
            CheckpointError: not a replay buffer, or one of another vocabulary, task, capacity or of other options; this
                one is as it was.
        """
        saved = load_config(folder)
        if saved["agent"] != type(self).__name__:
            raise CheckpointError(f"{folder} is a checkpoint of {saved['agent']}, not of a replay buffer.")
        here = describe_text_spec(self.text_spec)
        for name, value in saved["text_spec"].items():
            if here[name] != value:
                raise CheckpointError(f"The texts in {folder} have {name}={value}; this buffer's have {here[name]}.")
        task = task or (None if self.task is None else self.task.name)
        if None not in (task, saved["task"]) and task != saved["task"]:
            raise CheckpointError(f"The texts in {folder} were written for {saved['task']}, not for {task}.")
        try:
            self.set_state(load_state(folder).get("replay", {}))
        except ValueError as error:
            raise CheckpointError(f"The replay buffer in {folder} does not fit: {error}") from error

    def rescore(self, reward: Any, task: Task | None = None, batch_size: int = 1024) -> None:
        """Judge every stored text by another reward model: the texts stay, only what they are worth changes.

        Episodes that are added later come with the scores of their environment, so change its judge as well
        (``textenvs.set_reward``); ``judged_by`` tells them apart. A text that ended by an illegal action keeps its
        penalty.

        Args:
            reward: any form of reward spec.
            task: the task that the texts were written for (``envs.unwrapped.task``), which knows the prompts' columns;
                None: the buffer's.
            batch_size: texts in one call of the reward model.

        Raises:
            ValueError: the task has other shapes than the buffer, or there is none.
            RewardError: the reward model failed; all scores are as they were.
        """
        spec, task = self.text_spec, task or self.task
        if task is None:
            raise ValueError("This replay buffer does not know what its texts were written for: pass task=.")
        if (task.prompt_length, task.max_new_tokens, task.vocab) != (
            spec.prompt_length,
            spec.max_new_tokens,
            spec.vocab,
        ):
            raise ValueError(f"The texts in this replay buffer were not written for {task.name} of these sizes.")
        judge = Judge(make_reward(reward))
        judge.check_spec(spec)
        size = len(self)
        columns = {name: column[:size] for name, column in self._columns.items()}
        rows, lengths = columns["tokens"].astype(np.int64), columns["lengths"].astype(np.int64)
        reasons = finish_reasons(rows, lengths, spec, self._masks(np.arange(size)) if spec.has_masks else None)
        scores = self.scores
        judged = np.flatnonzero(reasons != "invalid")
        for start in range(0, len(judged), batch_size):
            part = judged[start : start + batch_size]
            episodes = episodes_from_rows(
                task,
                rows[part],
                lengths=lengths[part],
                finish_reason=reasons[part],
                key=columns["keys"][part],
                prompt_index=columns["prompt_index"][part],
            )
            scores[part] = judge(episodes).total
        columns["scores"][:] = scores
        columns["judges"][:] = _number(self._judges, judge.identity)
        if "counts" in columns:
            columns["counts"][:] = 1
        self._on_new(np.arange(size))

    def get_state(self) -> dict[str, np.ndarray]:
        """Everything that the buffer holds, as arrays: restored by ``set_state`` bit for bit."""
        state = {name: column[: len(self)].copy() for name, column in self._columns.items()}
        state["num_added"] = np.array(self.num_added, dtype=np.int64)
        names = json.dumps([self._judges, self._sources]).encode()
        state["names"] = np.frombuffer(names, dtype=np.uint8).copy()
        if self._places is not None:
            state["history"] = self._history.copy()
        return state

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over the state of another buffer of the same capacity, shapes and options.

        Raises:
            ValueError: it is of another kind of buffer; this one is left as it was.
        """
        expected = {*self._columns, "num_added", "names"}
        expected |= set() if self._places is None else {"history"}
        if set(state) != expected:
            raise ValueError(
                f"A state of this replay buffer has {', '.join(sorted(expected))}; got {', '.join(sorted(state))}."
            )
        num_added = int(state["num_added"])
        size = min(num_added, self.capacity) if self._places is None else min(len(state["ages"]), self.capacity)
        for name, column in self._columns.items():
            if state[name].shape != (size, *column.shape[1:]) or state[name].dtype != column.dtype:
                raise ValueError(
                    f"{name!r} should be {column.dtype} {(size, *column.shape[1:])} after {num_added} episodes with a "
                    f"capacity of {self.capacity}; got {state[name].dtype} {state[name].shape}."
                )
        if self._places is not None:
            if state["history"].shape != self._history.shape:
                raise ValueError(
                    f"'history' should be {self._history.shape}, the capacity; got {state['history'].shape}."
                )
            self._history[:] = state["history"]
            self._places = {row.tobytes(): place for place, row in enumerate(state["tokens"])}
        for name, column in self._columns.items():
            column[:size] = state[name]
        self._size, self.num_added = size, num_added
        self._judges, self._sources = json.loads(state["names"].tobytes())


def _number(names: list[str], name: str) -> int:
    """Place of a name in a list, to which it is added if it is new."""
    if name not in names:
        names.append(name)
    return names.index(name)


def _check_rewards(rewards: np.ndarray, lengths: np.ndarray) -> None:
    """Refuse what one score an episode cannot say."""
    early = rewards != 0
    early[np.arange(len(lengths)), lengths - 1] = False
    if early.any():
        episode, step = np.argwhere(early)[0]
        raise ValueError(
            f"A replay buffer of episodes keeps one score for each, the reward of the last step; this environment gave "
            f"{rewards[episode, step]:g} at step {step + 1} of {lengths[episode]}. Give the sum at the end instead."
        )
