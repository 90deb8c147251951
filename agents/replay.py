"""A replay buffer of whole episodes: what of a store of episodes is drawn, how often."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from agents.episode_store import EpisodeStore
from agents.replay_sampling import cap_probabilities, draw, rarity_probabilities, score_probabilities
from textenvs import Task
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
    """[B] float32, the reward of the last step (all others are 0); the mean where equal texts were put together."""
    logprobs: np.ndarray | None
    """[B, T] float32, of the tokens as they were sampled, NaN where nobody knows (demonstrations); None where the
    buffer does not keep them."""
    ref_logprobs: np.ndarray | None
    """[B, T] float32, of the tokens under a reference, NaN where it has not been asked; None where the buffer does not
    keep them."""
    action_masks: np.ndarray | None
    """[B, T, V] bool, True where an action was legal; None for tasks without masks."""
    weights: np.ndarray
    """[B] float32 importance weights, the largest 1; all 1 unless sampling is prioritised by errors."""
    ages: np.ndarray
    """[B] int64, how many episodes were added after each one."""


class EpisodeReplay(EpisodeStore):
    """The last ``capacity`` finished episodes, to be learnt from many times.

    With ``priority_alpha`` > 0 episodes are drawn in proportion to priority^α (Schaul et al. 2016, "Prioritized
    Experience Replay", section 3.3, with episodes in place of transitions).

    Args:
        capacity, text_spec, **store: as for :class:`agents.episode_store.EpisodeStore`.
        priority_alpha: α; 0 draws uniformly.
        priority_cap: no episode is drawn more than this many times as often as uniformly, by whatever priority: the
            entropy of the draws stays above log(number of episodes / cap). None: no limit.
        score_temperature: how much draws by score prefer better texts, in units of the score.

    Raises:
        ValueError: capacity below 1, a negative α, a cap below 1, or a temperature of 0 or less.
    """

    def __init__(
        self,
        capacity: int,
        text_spec: TextSpec,
        *,
        priority_alpha: float = 0.0,
        priority_cap: float | None = None,
        score_temperature: float = 0.1,
        **store: Any,
    ) -> None:
        super().__init__(capacity, text_spec, **store)
        if priority_alpha < 0:
            raise ValueError(f"priority_alpha must not be negative; got {priority_alpha}.")
        if priority_cap is not None and priority_cap < 1:
            raise ValueError(f"priority_cap must be None or at least 1; got {priority_cap}.")
        if not score_temperature > 0:
            raise ValueError(f"score_temperature must be positive; got {score_temperature}.")
        self.priority_alpha, self.priority_cap = priority_alpha, priority_cap
        self.score_temperature = score_temperature
        if priority_alpha > 0:
            self._columns["priorities"] = np.zeros(capacity, dtype=np.float64)
        self._highest_priority = 1.0
        self._fixed: dict[str, np.ndarray] = {}  # probabilities that hold until the buffer changes

    def _on_new(self, places: np.ndarray) -> None:
        self._fixed.clear()
        if "priorities" in self._columns:
            # As nothing is known of them, they are to be seen soon.
            self._columns["priorities"][places] = self._highest_priority

    def sample(
        self,
        batch_size: int,
        generator: np.random.Generator,
        *,
        recent: int | None = None,
        recent_share: float = 0.0,
        score_share: float = 0.0,
        rare_share: float = 0.0,
        beta: float = 1.0,
    ) -> ReplayBatch:
        """Draw episodes with replacement. What the shares leave comes from the whole buffer, uniformly or by errors.

        Args:
            batch_size: B.
            generator: the source of all randomness.
            recent: n: a part of the batch is drawn uniformly from the last n episodes only.
            recent_share: how large that part is, from 0 to 1.
            score_share: how large a part is drawn by score, better texts of a prompt more often
                (:func:`agents.replay_sampling.score_probabilities`).
            rare_share: how large a part is drawn so that every score occurs equally often
                (:func:`agents.replay_sampling.rarity_probabilities`).
            beta: of the importance weights (N · P(i))^−β of sampling prioritised by errors.

        Raises:
            ValueError: the buffer can never hold, or does not hold yet, as many episodes as the batch; ``recent_share``
                without ``recent``, or shares out of range.
        """
        size = len(self)
        shares = {"recent": recent_share, "score": score_share, "rare": rare_share}
        self._check_sampling(batch_size, recent, shares)
        numbers = {kind: round(share * batch_size) for kind, share in shares.items()}
        numbers["rest"] = batch_size - sum(numbers.values())
        parts = []
        if numbers["recent"]:
            assert recent is not None
            back = generator.integers(min(recent, self.num_added, self.capacity), size=numbers["recent"])
            parts.append(self._place_of(self.num_added - 1 - back))
        for kind in ("score", "rare"):
            if numbers[kind]:
                parts.append(draw(self._probabilities(kind), numbers[kind], generator))
        if self.priority_alpha == 0:
            parts.append(generator.integers(size, size=numbers["rest"]))
            return self.take(np.concatenate(parts))
        # Linear in the buffer's size, and yet far cheaper than a gradient step at 100,000 episodes.
        by_error = self._by_error()
        index = np.concatenate([*parts, draw(by_error, numbers["rest"], generator)])
        mixture = {"rest": by_error} | {kind: self._probabilities(kind) for kind in ("score", "rare") if numbers[kind]}
        if numbers["recent"]:
            newest = np.arange(self.num_added - min(recent or 0, self.num_added, self.capacity), self.num_added)
            mixture["recent"] = np.bincount(self._place_of(newest), minlength=size) / len(newest)
        probabilities = sum(numbers[kind] / batch_size * p[index] for kind, p in mixture.items())
        weights = (size * np.asarray(probabilities)) ** -beta
        return self.take(index, (weights / weights.max()).astype(np.float32))

    def _check_sampling(self, batch_size: int, recent: int | None, shares: dict[str, float]) -> None:
        size = len(self)
        if batch_size > self.capacity:
            raise ValueError(
                f"A batch of {batch_size} episodes is larger than the replay buffer's capacity of {self.capacity}."
            )
        if not 1 <= batch_size <= size:
            raise ValueError(f"batch_size must be from 1 to {size}, the episodes in the buffer; got {batch_size}.")
        for kind, share in shares.items():
            if not 0 <= share <= 1:
                raise ValueError(f"{kind}_share must be from 0 to 1; got {share}.")
        if sum(round(share * batch_size) for share in shares.values()) > batch_size:
            raise ValueError(f"The shares of a batch add up to more than 1: {shares}.")
        if recent is None and shares["recent"]:
            raise ValueError("recent_share needs recent=, the number of episodes that count as recent.")
        if recent is not None and recent < 1:
            raise ValueError(f"recent must be at least 1 episode; got {recent}.")

    def _probabilities(self, kind: str) -> np.ndarray:
        """[len] of drawing by score or by rarity; computed once for a buffer that does not change."""
        if kind not in self._fixed:
            scores = self._columns["scores"][: len(self)].astype(np.float64)
            if kind == "score":
                prompts = self._columns["tokens"][: len(self), : self.text_spec.prompt_length]
                group = np.unique(prompts, axis=0, return_inverse=True)[1] if prompts.size else np.zeros(len(self), int)
                probabilities = score_probabilities(scores, group.reshape(-1), self.score_temperature)
            else:
                probabilities = rarity_probabilities(scores)
            self._fixed[kind] = self._capped(probabilities)
        return self._fixed[kind]

    def _by_error(self) -> np.ndarray:
        weights = self._columns["priorities"][: len(self)] ** self.priority_alpha
        return self._capped(weights / weights.sum())

    def _capped(self, probabilities: np.ndarray) -> np.ndarray:
        return probabilities if self.priority_cap is None else cap_probabilities(probabilities, self.priority_cap)

    def take(self, index: np.ndarray, weights: np.ndarray | None = None) -> ReplayBatch:
        """The episodes in places ``index`` [B], with importance weights [B] (None: all 1)."""
        columns = self._columns
        rows = columns["tokens"][index].astype(np.int64)
        lengths = columns["lengths"][index].astype(np.int64)
        return ReplayBatch(
            index=index,
            rows=rows,
            lengths=lengths,
            scores=columns["scores"][index],
            logprobs=columns["logprobs"][index] if "logprobs" in columns else None,
            ref_logprobs=columns["ref_logprobs"][index] if "ref_logprobs" in columns else None,
            action_masks=self._masks(index),
            weights=np.ones(len(index), dtype=np.float32) if weights is None else weights,
            ages=self.num_added - 1 - columns["ages"][index],
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

    def rescore(self, reward: Any, task: Task | None = None, batch_size: int = 1024) -> None:
        """As in the store; priorities, which are errors of the old scores, start anew."""
        super().rescore(reward, task, batch_size)
        if "priorities" in self._columns:
            self._columns["priorities"][: len(self)] = self._highest_priority = 1.0

    def get_state(self) -> dict[str, np.ndarray]:
        """Everything that the buffer holds, as arrays: restored by ``set_state`` bit for bit."""
        return super().get_state() | {"highest_priority": np.array(self._highest_priority, dtype=np.float64)}

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over the state of another buffer of the same capacity, shapes and options.

        Raises:
            ValueError: it is of another kind of buffer; this one is left as it was.
        """
        if "highest_priority" not in state:
            raise ValueError("A state of a replay buffer has highest_priority; this one has not.")
        super().set_state({name: array for name, array in state.items() if name != "highest_priority"})
        self._highest_priority = float(state["highest_priority"])
        self._fixed.clear()
