"""ReasoningGym: the generated problems of reasoning-gym, by the id ``textenvs/ReasoningGym-v0``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from textenvs.prompt_rows import COMPLETION
from textenvs.reasoning_gym_library import open_dataset
from textenvs.rng import global_randomness_kept
from textenvs.tasks.base import check_size, check_split
from textenvs.tasks.dataset import OnLong, PromptTask
from textenvs.tokenizers import make_vocab

SEED_RANGE = 2**20
"""Problems that a split may have. Split k (train 0, test 1) of task seed s is generated from the seeds
(2 s + k) · 2**20 upwards, one seed a problem, so that no two splits share one."""
_MAX_TASK_SEED = 2**31 // (2 * SEED_RANGE) - 1  # some data sets need seeds below 2**32
_RANDOM_TEXTS = 2_000
_USER = "textenvs/ReasoningGym-v0"


class ReasoningGym(PromptTask):
    """Solve a generated problem of the library reasoning-gym, scored by its own ``score_answer``.

    Train and test problems come from seeds that never overlap, and a test problem whose question is also a training
    question is left out. Equal questions count once. The reward model is told ``entry``, all that reasoning-gym knows
    of the problem, and ``completion``, its answer, where it has a single one. The optimum is then 1; the random score
    is that of 2,000 random texts.

    Args:
        dataset: name in reasoning-gym.
        config: the data set's own settings, e.g. ``{"max_terms": 3}`` of ``"chain_sum"``.
        size, test_size: problems to generate for the two splits.
        task_seed: chooses the problems, 0 … 1,023.
        tokenizer: as for :func:`textenvs.from_prompts`.
        max_new_tokens: T, EOS included; default that of the longest answer of either split.
        prompt_length, on_long, eos_ids: as for :func:`textenvs.from_prompts`.
        run_answers: allow a scorer that runs the text as Python (see the reward ``reasoning_gym``). In a sandbox only.
        split: ``"train"`` or ``"test"``.

    Raises:
        ImportError: reasoning-gym is not installed.
        ValueError: an unknown data set, settings that it does not take, or a scorer that runs the text.
    """

    name = "ReasoningGym"

    def __init__(
        self,
        *,
        dataset: str = "chain_sum",
        config: Mapping[str, Any] | None = None,
        size: int = 1_000,
        test_size: int = 100,
        task_seed: int = 0,
        tokenizer: Any = "characters",
        max_new_tokens: int | None = None,
        prompt_length: int | None = None,
        on_long: OnLong = "error",
        eos_ids: Sequence[int] = (),
        run_answers: bool = False,
        split: str = "train",
    ) -> None:
        settings = dict(config or {})
        for name, argument in (("seed", "task_seed"), ("size", "size and test_size")):
            if name in settings:
                raise ValueError(f"{self.name}: config sets {name!r}, which is for {argument} of the environment.")
        check_size(self.name, "size", size, 1, SEED_RANGE)
        check_size(self.name, "test_size", test_size, 1, SEED_RANGE)
        check_size(self.name, "task_seed", task_seed, 0, _MAX_TASK_SEED)
        check_split(self.name, split, has_prompts=True)
        entries: dict[str, dict[str, Any]] = {}
        counts = []
        for half, wanted in enumerate((size, test_size)):
            first_seed = (2 * task_seed + half) * SEED_RANGE
            source = open_dataset(dataset, {**settings, "seed": first_seed, "size": wanted}, _USER)
            with global_randomness_kept():
                for i in range(wanted):
                    entry = dict(source[i])
                    entries.setdefault(entry["question"], entry)
            counts.append(len(entries))
        if split == "test" and counts[0] == counts[1]:
            raise ValueError(
                f"{self.name}: every test problem of {dataset!r} with {settings!r} is also a training problem, for "
                f"there are few different ones: make size smaller, test_size larger, or the problems harder."
            )
        columns: dict[str, list[Any]] = {"entry": list(entries.values())}
        answers = [entry["answer"] for entry in entries.values()]
        if all(isinstance(answer, str) for answer in answers):
            columns[COMPLETION] = answers
        reward = {"name": "reasoning_gym", "dataset": dataset, **settings}
        super().__init__(
            list(entries),
            make_vocab(tokenizer, eos_ids=eos_ids, texts=[*entries, *columns.get(COMPLETION, [])]),
            max_new_tokens,
            columns=columns,
            default_reward={**reward, "run_answers": True} if run_answers else reward,
            prompt_length=prompt_length,
            split=split,
            in_test=[i >= counts[0] for i in range(counts[1])],
            on_long=on_long,
            places=[f"problem {i} of {dataset}" for i in range(counts[1])],
            name=self.name,
        )

    @cached_property
    def optimum(self) -> float:  # type: ignore[override]
        """1, reasoning-gym's highest score, where an answer is known of every problem and fits into the budget."""
        return 1.0 if self._targets is not None and not self.num_cut else float("nan")

    @cached_property
    def random_score(self) -> float:  # type: ignore[override]
        """Mean score of 2,000 random texts, the same ones every time."""
        from textenvs.random_texts import random_episodes
        from textenvs.rewards import Judge, make_reward

        keys = np.arange(_RANDOM_TEXTS, dtype=np.uint64)
        return float(Judge(make_reward(self.default_reward))(random_episodes(self, keys)).total.mean())
