"""A replay buffer of whole episodes: every observation of an episode is a prefix of its row, so it keeps rows only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from agents.collect import Rollout
from textenvs import Task, episodes_from_rows, make_reward
from textenvs.rewards import Judge
from textenvs.spec import TextSpec


@dataclass(frozen=True)
class ReplayBatch:
    """Episodes drawn from an :class:`EpisodeReplay`."""

    index: np.ndarray
    """[B] int64, places in the buffer, for ``update_priorities``."""
    rows: np.ndarray
    """[B, L] int64, final observations."""
    lengths: np.ndarray
    """[B] int64, tokens written, EOS included."""
    scores: np.ndarray
    """[B] float32, the reward of the last step (all others are 0)."""
    logprobs: np.ndarray | None
    """[B, T] float32, of the tokens as they were sampled; None where the buffer does not keep them."""
    action_masks: np.ndarray | None
    """[B, T, V] bool, True where an action was legal; None for tasks without masks."""
    weights: np.ndarray
    """[B] float32 importance weights, the largest 1; all 1 unless sampling is prioritised."""


class EpisodeReplay:
    """The last ``capacity`` finished episodes, first in, first out.

    An episode is one row of tokens and one score. Episodes that a time limit cut off are skipped: their texts were not
    judged. With ``priority_alpha`` > 0 episodes are drawn in proportion to priority^α (Schaul et al. 2016, "Prioritized
    Experience Replay", section 3.3, with episodes in place of transitions).

    Args:
        capacity: episodes.
        text_spec: shapes of the episodes.
        keep_logprobs: keep the log-probabilities that the tokens were sampled with.
        priority_alpha: α; 0 draws uniformly.

    Raises:
        ValueError: capacity below 1, or a negative α.
    """

    def __init__(
        self, capacity: int, text_spec: TextSpec, *, keep_logprobs: bool = False, priority_alpha: float = 0.0
    ) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1 episode; got {capacity}.")
        if priority_alpha < 0:
            raise ValueError(f"priority_alpha must not be negative; got {priority_alpha}.")
        self.capacity, self.text_spec, self.priority_alpha = capacity, text_spec, priority_alpha
        steps, num_tokens = text_spec.max_new_tokens, text_spec.pad_id
        # The smallest type that holds the ids 0 … V, V being padding.
        token_type = next(t for t in (np.uint8, np.uint16, np.uint32) if num_tokens <= np.iinfo(t).max)
        columns = {
            "tokens": np.zeros((capacity, text_spec.row_length), dtype=token_type),
            "lengths": np.zeros(capacity, dtype=np.int32),
            "scores": np.zeros(capacity, dtype=np.float32),
            "keys": np.zeros(capacity, dtype=np.uint64),
            "prompt_index": np.zeros(capacity, dtype=np.int64),
            "ages": np.zeros(capacity, dtype=np.int64),
            "judges": np.zeros(capacity, dtype=np.uint16),
        }
        if keep_logprobs:
            columns["logprobs"] = np.zeros((capacity, steps), dtype=np.float32)
        if text_spec.has_masks:
            columns["masks"] = np.zeros((capacity, steps, -(-num_tokens // 8)), dtype=np.uint8)  # one bit an action
        if priority_alpha > 0:
            columns["priorities"] = np.zeros(capacity, dtype=np.float64)
        self._columns: dict[str, np.ndarray] = columns
        self._highest_priority = 1.0
        self._judges = ["the environment"]
        self.num_added = 0
        """Episodes ever added; number n stands in place n % capacity until n + capacity comes."""

    def __len__(self) -> int:
        return min(self.num_added, self.capacity)

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

    def add(self, rollout: Rollout) -> int:
        """Keep the finished episodes of a rollout; of more than fit, the last ones.

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
        kept, numbers = kept[-self.capacity :], numbers[-self.capacity :]
        places = numbers % self.capacity
        new: dict[str, np.ndarray] = {
            "tokens": rollout.rows[kept],
            "lengths": rollout.lengths[kept],
            "scores": rollout.scores[kept],
            "ages": numbers,
            "judges": np.full(len(kept), self._judge_number(rollout.judge or self._judges[0])),
        }
        if rollout.keys is not None:
            new["keys"] = rollout.keys[kept]
        if rollout.prompt_index is not None:
            new["prompt_index"] = rollout.prompt_index[kept]
        if "logprobs" in self._columns:
            new["logprobs"] = rollout.logprobs[kept]
        if "masks" in self._columns:
            assert rollout.action_masks is not None  # the collector gives them wherever the spec announces them
            new["masks"] = np.packbits(rollout.action_masks[kept], axis=-1)
        if "priorities" in self._columns:
            # As nothing is known of them, they are to be seen soon.
            new["priorities"] = np.full(len(kept), self._highest_priority)
        for name, values in new.items():
            self._columns[name][places] = values
        self.num_added += num_new
        return num_new

    def sample(
        self,
        batch_size: int,
        generator: np.random.Generator,
        *,
        recent: int | None = None,
        recent_share: float = 0.0,
        beta: float = 1.0,
    ) -> ReplayBatch:
        """Draw episodes with replacement.

        Args:
            batch_size: B.
            generator: the source of all randomness.
            recent: n: a part of the batch is drawn uniformly from the last n episodes only.
            recent_share: how large that part is, from 0 to 1; the rest comes from the whole buffer.
            beta: of the importance weights (N · P(i))^−β of prioritised sampling.

        Raises:
            ValueError: the buffer can never hold, or does not hold yet, as many episodes as the batch; ``recent_share``
                without ``recent``, or either out of range.
        """
        size = len(self)
        if batch_size > self.capacity:
            raise ValueError(
                f"A batch of {batch_size} episodes is larger than the replay buffer's capacity of {self.capacity}."
            )
        if not 1 <= batch_size <= size:
            raise ValueError(f"batch_size must be from 1 to {size}, the episodes in the buffer; got {batch_size}.")
        if not 0 <= recent_share <= 1:
            raise ValueError(f"recent_share must be from 0 to 1; got {recent_share}.")
        if recent is None and recent_share:
            raise ValueError("recent_share needs recent=, the number of episodes that count as recent.")
        if recent is not None and recent < 1:
            raise ValueError(f"recent must be at least 1 episode; got {recent}.")
        num_recent = round(recent_share * batch_size)
        index = np.empty(batch_size, dtype=np.int64)
        if num_recent:
            assert recent is not None
            back = generator.integers(min(recent, size), size=num_recent)
            index[:num_recent] = (self.num_added - 1 - back) % self.capacity
        weights = np.ones(batch_size, dtype=np.float32)
        num_others = batch_size - num_recent
        if self.priority_alpha == 0:
            index[num_recent:] = generator.integers(size, size=num_others)
        else:
            # Linear in the buffer's size, and yet far cheaper than a gradient step at 100,000 episodes.
            cumulative = np.cumsum(self._columns["priorities"][:size] ** self.priority_alpha)
            drawn = np.searchsorted(cumulative, generator.random(num_others) * cumulative[-1], side="right")
            index[num_recent:] = np.minimum(drawn, size - 1)
            weights = self._importance_weights(index, cumulative[-1], num_recent, recent, beta)
        return self._batch(index, weights)

    def _importance_weights(
        self, index: np.ndarray, total: float, num_recent: int, recent: int | None, beta: float
    ) -> np.ndarray:
        """(N · P(i))^−β over its largest, P being the mixture that the batch was drawn from."""
        size, batch_size = len(self), len(index)
        share = num_recent / batch_size
        probabilities = (1 - share) * self._columns["priorities"][index] ** self.priority_alpha / total
        if recent is not None:
            newest = min(recent, size)
            is_recent = self.num_added - 1 - self._columns["ages"][index] < newest
            probabilities += np.where(is_recent, share / newest, 0.0)
        weights = (size * probabilities) ** -beta
        return (weights / weights.max()).astype(np.float32)

    def _batch(self, index: np.ndarray, weights: np.ndarray) -> ReplayBatch:
        columns = self._columns
        masks = None
        if "masks" in columns:
            masks = np.unpackbits(columns["masks"][index], axis=-1, count=self.text_spec.pad_id).astype(bool)
        return ReplayBatch(
            index=index,
            rows=columns["tokens"][index].astype(np.int64),
            lengths=columns["lengths"][index].astype(np.int64),
            scores=columns["scores"][index],
            logprobs=columns["logprobs"][index] if "logprobs" in columns else None,
            action_masks=masks,
            weights=weights,
        )

    def update_priorities(self, index: np.ndarray, errors: np.ndarray, epsilon: float = 1e-6) -> None:
        """Set the priorities of the episodes in places ``index`` [B] to |errors| [B] + ε.

        Raises:
            ValueError: the buffer is not prioritised, or an error is not finite.
        """
        if "priorities" not in self._columns:
            raise ValueError("This replay buffer has no priorities: priority_alpha is 0.")
        priorities = np.abs(errors).astype(np.float64) + epsilon
        if not np.isfinite(priorities).all():
            raise ValueError("Priorities must be finite; an error is NaN or infinite.")
        self._columns["priorities"][index] = priorities
        self._highest_priority = max(self._highest_priority, float(priorities.max()))

    def rescore(self, reward: Any, task: Task, batch_size: int = 1024) -> None:
        """Judge every stored text by another reward model: the texts stay, only what they are worth changes.

        Episodes that are added later come with the scores of their environment, so change its judge as well
        (``textenvs.set_reward``); ``judged_by`` tells them apart. A text that ended by an illegal action keeps its
        penalty. Priorities, which are errors of the old scores, start anew.

        Args:
            reward: any form of reward spec.
            task: the task that the texts were written for (``envs.unwrapped.task``): it knows the prompts' columns.
            batch_size: texts in one call of the reward model.

        Raises:
            ValueError: the task has other shapes than the buffer.
            RewardError: the reward model failed; all scores are as they were.
        """
        spec = self.text_spec
        if (task.prompt_length, task.max_new_tokens, task.vocab) != (
            spec.prompt_length,
            spec.max_new_tokens,
            spec.vocab,
        ):
            raise ValueError(f"The texts in this replay buffer were not written for {task.name} of these sizes.")
        judge = Judge(make_reward(reward))
        judge.check_spec(spec)
        scores = self.scores
        for start in range(0, len(self), batch_size):
            places = np.arange(start, min(start + batch_size, len(self)))
            reasons = self._finish_reasons(places)
            places, reasons = places[reasons != "invalid"], reasons[reasons != "invalid"]
            if not len(places):
                continue
            episodes = episodes_from_rows(
                task,
                self._columns["tokens"][places].astype(np.int64),
                lengths=self._columns["lengths"][places].astype(np.int64),
                finish_reason=reasons,
                key=self._columns["keys"][places],
                prompt_index=self._columns["prompt_index"][places],
            )
            scores[places] = judge(episodes).total
        self._columns["scores"][: len(self)] = scores
        self._columns["judges"][: len(self)] = self._judge_number(judge.identity)
        if "priorities" in self._columns:
            self._columns["priorities"][: len(self)] = self._highest_priority = 1.0

    def _judge_number(self, judge: str) -> int:
        """Place of a judge in the list of those that scored something here."""
        if judge not in self._judges:
            self._judges.append(judge)
        return self._judges.index(judge)

    def _finish_reasons(self, places: np.ndarray) -> np.ndarray:
        """How the episodes in these places ended: their last tokens say it, and the masks where there are any."""
        columns, spec = self._columns, self.text_spec
        lengths = columns["lengths"][places].astype(np.int64)
        last = columns["tokens"][places, spec.prompt_length + lengths - 1].astype(np.int64)
        reasons = np.where(np.isin(last, spec.eos_ids), "stop", "length").astype(object)
        if "masks" in columns:
            legal = np.unpackbits(columns["masks"][places, lengths - 1], axis=-1, count=spec.pad_id)
            reasons[legal[np.arange(len(places)), last] == 0] = "invalid"
        return reasons

    def get_state(self) -> dict[str, np.ndarray]:
        """Everything that the buffer holds, as arrays: restored by ``set_state`` bit for bit."""
        state = {name: column[: len(self)].copy() for name, column in self._columns.items()}
        state["num_added"] = np.array(self.num_added, dtype=np.int64)
        state["highest_priority"] = np.array(self._highest_priority, dtype=np.float64)
        state["judge_names"] = np.frombuffer(json.dumps(self._judges).encode(), dtype=np.uint8).copy()
        return state

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over the state of another buffer of the same capacity, shapes and options.

        Raises:
            ValueError: it is of another kind of buffer; this one is left as it was.
        """
        expected = {*self._columns, "num_added", "highest_priority", "judge_names"}
        if set(state) != expected:
            raise ValueError(
                f"A state of this replay buffer has {', '.join(sorted(expected))}; got {', '.join(sorted(state))}."
            )
        num_added = int(state["num_added"])
        size = min(num_added, self.capacity)
        for name, column in self._columns.items():
            if state[name].shape != (size, *column.shape[1:]) or state[name].dtype != column.dtype:
                raise ValueError(
                    f"{name!r} should be {column.dtype} {(size, *column.shape[1:])} after {num_added} episodes with a "
                    f"capacity of {self.capacity}; got {state[name].dtype} {state[name].shape}."
                )
        for name, column in self._columns.items():
            column[:size] = state[name]
        self.num_added = num_added
        self._highest_priority = float(state["highest_priority"])
        self._judges = json.loads(state["judge_names"].tobytes())


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
