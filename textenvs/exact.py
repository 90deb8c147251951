"""Small environments solved exactly: the optimum, the best KL-regularised policy, and any policy's distance from it.

    problem = ExactProblem(gym.make("textenvs/PrefixLock-v0", length=6), reference)
    problem.tilted(beta=0.1)            # reward and KL of π* ∝ π_ref · exp(r / β)
    problem.grade(policy, beta=0.1)     # expected reward, KL and regret of a policy, without any sampling

Every text is listed with its score, and a policy is asked about the tree of prefixes level by level. A policy is any
function from observations to log-probabilities of the next token, so nothing here needs torch; ``agents.exact`` makes
one of an agent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from textenvs.regularised import (
    best_logprobs,
    best_of_n_logprobs,
    check_beta,
    expected,
    kl_divergence,
    soft_value,
    tilted_logprobs,
)
from textenvs.rewards.base import Judge
from textenvs.tasks.base import Task
from textenvs.text_tree import BLOCK, LIMIT, NextLogprobs, TextTree, check_count, check_exact

__all__ = ["ExactProblem", "Grade", "NextLogprobs", "Point", "TextTree", "uniform_policy"]


@dataclass(frozen=True)
class Point:
    """A policy on the plane of reward and KL, exactly; means over the prompts."""

    reward: float
    """Expected score."""
    kl: float
    """KL to the reference in nats, summed over a text; inf where the policy writes what the reference never does."""
    length: float
    """Expected tokens, EOS included."""
    gold: float | None
    """Expected gold score, where the environment reports one."""

    def objective(self, beta: float) -> float:
        """E[r] − β KL."""
        return self.reward - check_beta(beta) * self.kl


@dataclass(frozen=True)
class Grade:
    """A policy beside the best one at the same β."""

    point: Point
    """Where the policy is."""
    beta: float
    objective: float
    """Its E[r] − β KL."""
    optimal: float
    """The most that can be reached, β log E_ref[exp(r / β)]."""
    reference: float
    """What the reference reaches: its expected score, at KL 0."""

    @property
    def regret(self) -> float:
        """What is missing, optimal − objective; it equals β KL(π ‖ π*)."""
        return self.optimal - self.objective

    @property
    def closed(self) -> float:
        """Share of the gap between the reference and the optimum that the policy has closed: 0 at the reference, 1 at
        the optimum, negative below the reference; NaN where there is no gap."""
        gap = self.optimal - self.reference
        return (self.objective - self.reference) / gap if gap > 0 else float("nan")


class ExactProblem:
    """An environment and a reference: what can be reached at which KL, and how near a policy comes.

    Args:
        env: ``TextEnv`` or ``TextVectorEnv``, wrapped or not; its task and its reward model are used.
        reference: π_ref; ``uniform_policy(V)`` where none is meant.
        prompts: those to average over, each with the same weight: numbers of the task's prompt set, rows of ids, or
            texts. None: the task has none.
        limit: texts after one prompt at most.
        block_size: rows that a policy is asked about at once.

    Attributes:
        trees: one for each prompt, with all its texts.
        scores: of each tree, float64 [N].
        golds: gold scores likewise; None where the environment reports none.
        ref_logprobs: of each tree, float64 [N].

    Raises:
        TypeError: an environment without a task and a reward model of texts.
        ValueError: too many texts, a judge or a task without one score for each text, no prompts or prompts that the
            task refuses, or a reference over another vocabulary.
        RewardError: the reward model failed.
    """

    def __init__(
        self,
        env: Any,
        reference: NextLogprobs,
        *,
        prompts: Iterable[Any] | None = None,
        limit: int = LIMIT,
        block_size: int = BLOCK,
    ) -> None:
        base = getattr(env, "unwrapped", env)
        task, judge = getattr(base, "task", None), getattr(base, "judge", None)
        if not isinstance(task, Task) or not isinstance(judge, Judge):
            raise TypeError(
                f"An exact evaluation needs the task and the reward model of a TextEnv or TextVectorEnv; "
                f"{type(base).__name__} has none."
            )
        check_exact(task, judge)
        check_count(task, limit)
        rows, numbers = read_prompts(task, prompts)
        own_judge = Judge(judge.model)  # the environment's counts what the environment asks
        self.trees = [
            TextTree(task, row, prompt_index=int(number), limit=limit, block_size=block_size)
            for row, number in zip(rows, numbers, strict=True)
        ]
        scored = [tree.scores(own_judge) for tree in self.trees]
        self.scores = [total for total, _ in scored]
        golds = [gold for _, gold in scored if gold is not None]
        self.golds = golds if len(golds) == len(scored) else None
        self.ref_logprobs = self.logprobs(reference)

    @property
    def num_texts(self) -> int:
        """Texts after all prompts together."""
        return sum(map(len, self.trees))

    def logprobs(self, policy: NextLogprobs) -> list[np.ndarray]:
        """Log-probabilities [N] of all texts of each tree under a policy.

        Raises:
            ValueError: the policy's answers are none for this environment; see :meth:`TextTree.logprobs`.
        """
        return [tree.logprobs(policy) for tree in self.trees]

    def point(self, logprobs: Sequence[np.ndarray]) -> Point:
        """Where a policy with these log-probabilities of each tree's texts is."""

        def mean(values: Iterable[float]) -> float:
            return float(np.mean(list(values)))

        gold = None
        if self.golds is not None:
            gold = mean(map(expected, logprobs, self.golds))
        return Point(
            reward=mean(map(expected, logprobs, self.scores)),
            kl=mean(map(kl_divergence, logprobs, self.ref_logprobs)),
            length=mean(expected(own, tree.lengths) for own, tree in zip(logprobs, self.trees, strict=True)),
            gold=gold,
        )

    # -- what can be reached -------------------------------------------------------------------------------------------

    @property
    def optimum(self) -> float:
        """The highest score that a text can have, mean over prompts; whatever the reference writes."""
        return float(np.mean([scores.max() for scores in self.scores]))

    @property
    def reference(self) -> Point:
        """The reference itself."""
        return self.point(self.ref_logprobs)

    @property
    def best(self) -> Point:
        """The limit of the tilted policy for β → 0: the reference among the best texts that it can write."""
        return self.point([best_logprobs(*each) for each in self._both()])

    def tilted_logprobs(self, beta: float) -> list[np.ndarray]:
        """log π* of each tree's texts; ``trees[i].policy(…)`` makes a policy of them.

        Raises:
            ValueError: β is not positive.
        """
        return [tilted_logprobs(*each, beta) for each in self._both()]

    def tilted(self, beta: float) -> Point:
        """The best policy at β, π* ∝ π_ref · exp(r / β).

        Raises:
            ValueError: β is not positive.
        """
        return self.point(self.tilted_logprobs(beta))

    def value(self, beta: float) -> float:
        """The most that E[r] − β KL can be: β log E_ref[exp(r / β)], mean over prompts.

        Raises:
            ValueError: β is not positive.
        """
        return float(np.mean([soft_value(*each, beta) for each in self._both()]))

    def frontier(self, betas: Iterable[float] | None = None) -> list[Point]:
        """The highest reward at each KL: the tilted policies, from the reference to the best texts.

        Args:
            betas: default 41 of them, from 100 times the range of the scores to a hundredth of it, in equal ratios.

        Raises:
            ValueError: a β that is not positive.
        """
        if betas is None:
            spread = max(float(np.ptp(scores)) for scores in self.scores)
            betas = np.geomspace(100 * spread, 0.01 * spread, 41) if spread > 0 else ()
        return [self.reference, *(self.tilted(beta) for beta in sorted(betas, reverse=True)), self.best]

    def reward_at(self, kl: float) -> float:
        """The highest expected reward of a policy with this KL or less, right to about 1e-9 of the range of the scores;
        never below the truth.

        Raises:
            ValueError: a KL below 0.
        """
        if not kl >= 0:
            raise ValueError(f"A KL is not negative; got {kl}.")
        best = self.best
        spread = max(float(np.ptp(scores)) for scores in self.scores)
        if kl >= best.kl or spread == 0:
            return best.reward
        # By duality the answer is the smallest value(β) + β kl over β, and the smallest where the tilted policy's KL,
        # which falls with β, is the one asked for.
        low, high = np.log(1e-6 * spread), np.log(1e9 * spread)
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.tilted(np.exp(middle)).kl > kl else (low, middle)
        return min(best.reward, self.value(np.exp(high)) + float(np.exp(high)) * kl)

    def best_of_n(self, n: int) -> Point:
        """Best-of-n from the reference, exactly; compare its KL with :func:`textenvs.regularised.best_of_n_bound`.

        Raises:
            ValueError: n is not a positive integer.
        """
        return self.point([best_of_n_logprobs(*each, n) for each in self._both()])

    # -- how near a policy comes ---------------------------------------------------------------------------------------

    def evaluate(self, policy: NextLogprobs) -> Point:
        """Expected reward, KL and length of a policy, exactly.

        Raises:
            ValueError: see :meth:`logprobs`.
        """
        return self.point(self.logprobs(policy))

    def grade(self, policy: NextLogprobs | Point, beta: float) -> Grade:
        """A policy, or the point where it is, beside the best one at β.

        Raises:
            ValueError: β is not positive, or see :meth:`logprobs`.
        """
        point = policy if isinstance(policy, Point) else self.evaluate(policy)
        return Grade(point, check_beta(beta), point.objective(beta), self.value(beta), self.reference.reward)

    def _both(self) -> Iterable[tuple[np.ndarray, np.ndarray]]:
        return zip(self.ref_logprobs, self.scores, strict=True)


def uniform_policy(num_tokens: int) -> NextLogprobs:
    """Every legal token equally likely: the reference where none is meant. KL to it is then a lack of entropy.

    Args:
        num_tokens: V.
    """

    def next_logprobs(rows: np.ndarray, masks: np.ndarray | None = None) -> np.ndarray:
        legal = np.ones((len(rows), num_tokens), dtype=np.bool_) if masks is None else masks
        with np.errstate(divide="ignore"):
            return np.log(legal / legal.sum(axis=1, keepdims=True))

    return next_logprobs


def read_prompts(task: Task, prompts: Iterable[Any] | None) -> tuple[np.ndarray, np.ndarray]:
    """Prompts int64 [n, P] and their numbers int64 [n], −1 without one.

    Raises:
        ValueError: none where the task has some, some where it has none, or one that the task refuses.
    """
    if not task.has_prompts:
        if prompts is not None:
            raise ValueError(f"{task.name} has no prompts: leave prompts= out.")
        return np.zeros((1, 0), dtype=np.int64), np.zeros(1, dtype=np.int64)
    given = [] if prompts is None else list(prompts)
    if not given:
        raise ValueError(
            f"{task.name} has prompts: give those to average over, prompts=range(16) for the first sixteen of its "
            f"prompt set, or texts, or rows of ids."
        )
    if all(isinstance(each, int | np.integer) and not isinstance(each, bool) for each in given):
        numbers = np.array(given, dtype=np.int64)
        return task.prompts_at(numbers), numbers
    return np.stack([task.encode_prompt(each) for each in given]), np.full(len(given), -1, dtype=np.int64)
