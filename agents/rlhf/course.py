"""What a method of alignment is given, and how it is measured: the same models, data and budget for all.

    pretraining ─▶ sft ─▶ rankings ─▶ reward-model ─▶ method-ppo, method-dpo, …

A method begins with the SFT model, may ask the reward model ``budget`` times, and calls :meth:`Course.measure` along
its way; the last measurement is the one that counts. The clock stands still while it is measured.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv

from agents.lm.actor_critic import LMActorCritic
from agents.lm.preferences import Ranking, load_rankings, pairs
from agents.lm.sampling import Answers
from agents.rlhf.evaluation import Sample, shown_samples, write_texts
from agents.rlhf.stages import EVALUATION, Job
from textenvs.rewards.base import Judge
from textenvs.rewards.registry import make_reward

ROW = ("reward_calls", "comparisons", "seconds", "reward", "gold", "gold_grammatical", "kl", "grammatical", "length")
"""Columns of a measurement."""


@dataclass
class Course:
    """A run of one method.

    Attributes:
        job: the stage that it is.
        budget: how often the reward model may be asked. Those who learn from its answers stop at the end of the batch
            in which it is used up.
        evaluation_texts: of one measurement, each to another held-out prompt; the same prompts for all methods.
        marks: shares of the way after which a method measures.
        rows: measurements so far, columns as in ``ROW``.
    """

    job: Job
    budget: int
    evaluation_texts: int
    marks: tuple[float, ...]
    rows: list[dict[str, float]] = field(default_factory=list)
    gold: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """Gold scores [evaluation_texts] of the last measurement, prompt by prompt."""
    samples: list[Sample] = field(default_factory=list)
    """Of the last measurement."""

    def __post_init__(self) -> None:
        self._seconds, self._begun = 0.0, time.process_time()
        self._next_mark = 0

    # -- what there is to begin with -----------------------------------------------------------------------------------

    @property
    def reward_model(self) -> Path:
        """The folder of the reward model; a critic may start from it."""
        return self.job.folder / "reward-model" / "model"

    def start(self, **options: Any) -> LMActorCritic:
        """The SFT model, to be trained; ``critic=`` and others as for ``LMActorCritic``."""
        return self.job.policy(self.job.base_model, **options)

    @cached_property
    def reference(self) -> LMActorCritic:
        """The SFT model, which stays as it is."""
        return self.job.policy(self.job.base_model).frozen_copy()

    def envs(self, num_envs: int, group_size: int = 1) -> VectorEnv:
        """Training prompts, judged by the reward model."""
        return self.job.world.envs("train", num_envs, self.job.world.paid_reward(self.job.folder), group_size)

    @cached_property
    def rankings(self) -> list[Ranking]:
        """What the reward model has learnt from: answers of the SFT model, ranked by the simulated annotator."""
        return load_rankings(self.job.folder / "rankings" / "train.jsonl")

    @cached_property
    def comparisons(self) -> int:
        """Pairs in :attr:`rankings`."""
        return sum(len(pairs(ranking.ranks)) for ranking in self.rankings)

    @property
    def seed(self) -> int:
        """Of the learning."""
        return self.job.seed

    # -- measuring -----------------------------------------------------------------------------------------------------

    def is_due(self, share: float) -> bool:
        """Whether a mark has been passed since this was last true; tells the progress bar how far the method is."""
        self.job.report(min(share, 1.0), f"gold {self.rows[-1]['gold']:.2f}" if self.rows else "")
        passed = sum(mark <= share for mark in self.marks)
        due, self._next_mark = passed > self._next_mark, max(passed, self._next_mark)
        return due

    def measure(self, policy: LMActorCritic, *, reward_calls: int, comparisons: int | None = None) -> None:
        """Measure a policy as it is now. A copy of it writes, so that training does not notice.

        Args:
            reward_calls: texts that the reward model has judged for it so far.
            comparisons: by the annotator, consumed so far; default all, for the reward model has learnt from them.
        """
        self._stop_clock()
        writer = policy.frozen_copy()
        answers = write_texts(writer, self.job.world, self.evaluation_texts, self.job.stream(EVALUATION))
        self.reference.bind(writer.spec)
        rows, lengths = torch.from_numpy(answers.rows), torch.from_numpy(answers.episodes.lengths)
        rows, lengths = rows.to(writer.device), lengths.to(writer.device)
        differences = writer.logprobs(rows, lengths).sum(1) - self.reference.logprobs(rows, lengths).sum(1)
        self._add(answers, float(differences.double().mean()), reward_calls, comparisons)

    def measure_answers(
        self, answers: Answers, *, kl: float, reward_calls: int, comparisons: int | None = None
    ) -> None:
        """Measure texts that no policy wrote as they are: chosen among several, for example.

        Args:
            answers: one to each of the ``evaluation_texts`` held-out prompts.
            kl: of their writer from the SFT model, in nats per text.
        """
        self._stop_clock()
        self._add(answers, kl, reward_calls, comparisons)

    def _stop_clock(self) -> None:
        self._seconds += time.process_time() - self._begun

    def _add(self, answers: Answers, kl: float, reward_calls: int, comparisons: int | None) -> None:
        world, episodes = self.job.world, answers.episodes
        paid = Judge(make_reward(world.paid_reward(self.job.folder)))(episodes).total
        gold, grammatical = world.gold(episodes), world.grammatical(episodes)
        assert gold is not None
        assert grammatical is not None
        self.gold = gold.astype(np.float64)
        self.samples = shown_samples(answers, world, self.job.settings.shown_prompts)
        values: Sequence[float] = (
            reward_calls,
            self.comparisons if comparisons is None else comparisons,
            round(self._seconds, 4),
            float(paid.mean(dtype=np.float64)),
            float(self.gold.mean()),
            float(np.where(grammatical, self.gold, 0.0).mean()),
            kl,
            float(grammatical.mean()),
            float(episodes.lengths.mean()),
        )
        self.rows.append(dict(zip(ROW, values, strict=True)))
        self._begun = time.process_time()
