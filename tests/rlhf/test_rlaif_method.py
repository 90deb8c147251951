"""RLAIF as a method of the comparison: the judge of gladness, and DPO on its labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers")

from agents.lm import LMActorCritic, Ranking
from agents.rlhf import rlaif_method, tiny_chat
from agents.rlhf.running import Task, play
from agents.rlhf.settings import get_settings
from textenvs.tiny_reviews import load_grammar
from textenvs.tokenizers import word_tokenizer


def test_its_constitution() -> None:
    constitution = rlaif_method.glad_constitution()
    assert [principle.name for principle in constitution.principles] == ["glad"]


def test_pairs_are_of_one_kind_and_the_better_one_was_meant_to_be_gladder() -> None:
    grammar = load_grammar()
    pairs = tiny_chat.make_glad_pairs(rlaif_method.glad_constitution(), 300, seed=1)
    assert len(pairs) == 300
    assert {pair.difference for pair in pairs} == {-2, -1, 0, 1, 2}
    assert abs(np.mean([pair.difference for pair in pairs])) < 0.2
    assert np.mean([grammar.is_grammatical(pair.x, pair.prompt) for pair in pairs]) == 1.0
    # y was written to another prompt about the same kind: its words belong there.
    from textenvs.tiny_reviews.faults import count_faults

    assert max(count_faults(pair.prompt, pair.y).false for pair in pairs) == 0


def test_all_pairs_of_rankings() -> None:
    rankings = [
        Ranking("p", ("a", "b", "c"), (1, 2, 3), finished=(True, False, True)),
        Ranking("q", ("d", "e"), (1, 1)),
    ]
    prompts, pairs, finished = rlaif_method.all_pairs(rankings)
    assert prompts == ["p", "p", "p", "q"]
    assert pairs == [("a", "b"), ("a", "c"), ("b", "c"), ("d", "e")]
    assert finished == [(True, False), (True, True), (False, True), (True, True)]


class Course:
    """What the method asks of its course."""

    seed = 0

    def __init__(self, folder: Path) -> None:
        class Job:
            pass

        self.job: Any = Job()
        self.job.folder = folder
        self.measured: list[dict[str, int]] = []
        texts = [("was good .", "was awful .", "was long ."), ("was bad .", "was great .", "was short .")]
        self.rankings = [Ranking("the film", answers, (1, 2, 3)) for answers in texts] * 4

    def start(self) -> LMActorCritic:
        from agents.lm.models import new_gpt2

        tokenizer = word_tokenizer(load_grammar().vocab)
        model = new_gpt2(tokenizer, width=16, num_layers=1, num_heads=2, positions=64, seed=0)
        return LMActorCritic(model, tokenizer)

    def is_due(self, share: float) -> bool:
        return share == 1.0

    def measure(self, policy: LMActorCritic, **figures: int) -> None:
        self.measured.append(figures)


def test_it_learns_from_the_judge_alone(tmp_path: Path) -> None:
    told: list[float] = []
    play(tmp_path, get_settings("smoke"), Task(0, rlaif_method.STAGES[0]), lambda share, words: told.append(share))
    assert told[-1] == 1.0
    course = Course(tmp_path / "seed-0")
    rlaif_method.rlaif(course, beta=0.1, learning_rate=1e-3, epochs=1, batch_size=8)
    assert course.measured == [{"reward_calls": 0, "comparisons": 0}]  # it asks neither reward model nor annotator
