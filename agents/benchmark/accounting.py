"""Counting on the environment's side: every agent is measured alike, whatever it says about itself.

Everything that is paid for before the first update counts, random warm-up and demonstrations included; evaluation
plays in an environment of its own and is free, and so is its time.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

from agents.base import find_text_spec
from textenvs.rng import splitmix64
from textenvs.spec import TextSpec

COUNTS = ("episodes", "timesteps", "reward_calls", "invalid_texts", "truncated_texts")


class Accounting(VectorWrapper):
    """Counts what an agent uses of a vector environment in SAME_STEP mode.

    Args:
        envs: the vector environment.
        clock: what ``seconds`` is measured with.

    Attributes:
        episodes: texts that have ended.
        timesteps: tokens written in all sub-environments, those of unfinished texts included.
        reward_calls: texts that the reward model was asked about; texts that ended with an illegal action, or were cut
            off by a time limit, are not.
        invalid_texts: … ended with an illegal action.
        truncated_texts: … cut off.
        overhead_seconds: what the counting itself took; it is part of ``seconds``.

    Raises:
        ValueError: another autoreset mode, in which some steps write nothing.
    """

    def __init__(self, envs: VectorEnv, clock: Callable[[], float] = time.perf_counter) -> None:
        super().__init__(envs)
        self.clock = clock
        mode = envs.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise ValueError(f"accounting needs AutoresetMode.SAME_STEP, got {mode}.")
        self.autoreset_mode = mode
        self.episodes = self.timesteps = self.reward_calls = self.invalid_texts = self.truncated_texts = 0
        self.overhead_seconds = 0.0
        self._texts: set[int] = set()
        self._score_sum, self._score_count = 0.0, 0
        self._clock_seconds = 0.0
        self._running_since: float | None = None

    # -- what agents see of it -----------------------------------------------------------------------------------------

    @property
    def text_spec(self) -> TextSpec:
        """Shapes and vocabulary of the environment."""
        return find_text_spec(self.env)

    def action_masks(self) -> np.ndarray:
        """Legal actions bool [N, V] in the present states."""
        masks: np.ndarray = self.env.unwrapped.action_masks()  # type: ignore[attr-defined]
        return masks

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        obs, rewards, terminations, truncations, info = super().step(actions)
        started = time.perf_counter()
        self.timesteps += self.num_envs
        if terminations.any() or truncations.any():
            self._count_ended(terminations | truncations, truncations, rewards, info)
        self.overhead_seconds += time.perf_counter() - started
        return obs, rewards, terminations, truncations, info

    def _count_ended(
        self, ended: np.ndarray, truncations: np.ndarray, rewards: np.ndarray, info: dict[str, Any]
    ) -> None:
        count, cut = int(np.count_nonzero(ended)), int(np.count_nonzero(truncations))
        judged = int(np.count_nonzero(info["final_info"].get("_score", False)))
        self.episodes += count
        self.reward_calls += judged
        self.truncated_texts += cut
        self.invalid_texts += count - cut - judged
        self._score_count += count
        self._score_sum += float(rewards.sum())  # 0 before the end of a text, its score there
        rows = info["final_obs"][ended]
        self._add_texts(np.stack(list(rows)) if rows.dtype == object else rows)

    def _add_texts(self, rows: np.ndarray) -> None:
        self._texts.update(text_hashes(rows).tolist())

    # -- what the benchmark asks ---------------------------------------------------------------------------------------

    @property
    def distinct_texts(self) -> int:
        """How many different texts (with their prompts) have been written."""
        return len(self._texts)

    @property
    def seconds(self) -> float:
        """Seconds of the clock since ``start``, without those under ``paused``."""
        since = 0.0 if self._running_since is None else self.clock() - self._running_since
        return self._clock_seconds + since

    def start(self) -> None:
        """Let the clock run."""
        self._running_since = self.clock()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The clock stands still in here."""
        self._clock_seconds, self._running_since = self.seconds, None
        try:
            yield
        finally:
            self.start()

    def count_demonstrations(self, rows: np.ndarray, lengths: np.ndarray) -> None:
        """Count texts that the agent was given, judged, instead of writing them.

        Args:
            rows: [B, L] prompts and texts as the environment would show them at their end.
            lengths: [B] tokens of the texts.
        """
        self.episodes += len(rows)
        self.reward_calls += len(rows)
        self.timesteps += int(lengths.sum())
        self._add_texts(rows)

    def take_mean_score(self) -> float:
        """Mean score of the episodes that ended since the last call; NaN if there were none."""
        mean = self._score_sum / self._score_count if self._score_count else float("nan")
        self._score_sum, self._score_count = 0.0, 0
        return mean

    def get_counts(self) -> tuple[dict[str, float], np.ndarray]:
        """All counters, and the hashes uint64 [D] of the texts: :meth:`set_counts` goes on from them."""
        counts: dict[str, float] = {name: getattr(self, name) for name in COUNTS}
        counts |= {"seconds": self.seconds, "overhead_seconds": self.overhead_seconds}
        counts |= {"score_sum": self._score_sum, "score_count": self._score_count}
        return counts, np.array(sorted(self._texts), dtype=np.uint64)

    def set_counts(self, counts: dict[str, Any], texts: np.ndarray) -> None:
        """Go on from :meth:`get_counts`; the clock stands until ``start``."""
        for name in COUNTS:
            setattr(self, name, int(counts[name]))
        self._clock_seconds, self._running_since = float(counts["seconds"]), None
        self.overhead_seconds = float(counts["overhead_seconds"])
        self._score_sum, self._score_count = float(counts["score_sum"]), int(counts["score_count"])
        self._texts = set(texts.tolist())


def text_hashes(rows: np.ndarray) -> np.ndarray:
    """A uint64 for each row of token ids [B, L], the same for equal rows and no other (but for 1 in 2^64 pairs)."""
    columns = np.arange(rows.shape[1], dtype=np.uint64) << np.uint64(32)
    return np.bitwise_xor.reduce(splitmix64(rows.astype(np.uint64) + columns), axis=1)
