"""RLAIF as one of the methods that ``scripts/rlhf.py --methods`` compares: DPO on the labels of an AI judge.

The judge asks which of two reviews is gladder. It has learnt that from what the grammar says of its reviews, and has
seen neither the gold judge nor a label of the annotator.
"""

from __future__ import annotations

import itertools
from importlib import resources
from typing import Any

from agents.lm.ai_judge import AIJudge
from agents.lm.chat import ChatModel
from agents.lm.constitution import Constitution, parse_constitution
from agents.lm.dpo import DPOConfig, train_dpo
from agents.lm.preferences import Ranking
from agents.rlhf.stages import Job, Stage, save_model
from agents.rlhf.tiny_chat import TinyChat, train_glad_judge

GLAD = "glad.yaml"
JUDGE = "ai-judge"
"""The stage that makes the judge."""


def glad_constitution() -> Constitution:
    """The constitution of the method."""
    return parse_constitution(resources.files("agents.lm").joinpath(GLAD).read_text(encoding="utf-8"), GLAD)


def make_judge(job: Job) -> None:
    """The stage: a small judge of gladness."""
    tiny = job.settings.pretraining.width < TinyChat.width  # a smoke test
    setting = TinyChat(num_layers=1, width=32, pairs=640) if tiny else TinyChat()
    judge = train_glad_judge(setting, glad_constitution(), job.seed, job.on_step)
    save_model(judge.chat.model, judge.chat.tokenizer, job.out / "model")
    job.write({"pairs": setting.pairs})


STAGES = (Stage(JUDGE, (), make_judge),)


def all_pairs(rankings: list[Ranking]) -> tuple[list[str], list[tuple[str, str]], list[tuple[bool, bool]]]:
    """Prompts, pairs of answers, and whether each ended by itself, of all pairs that rankings would decide."""
    prompts, pairs, finished = [], [], []
    for ranking in rankings:
        ends = ranking.finished or (True,) * len(ranking.answers)
        for i, j in itertools.combinations(range(len(ranking.answers)), 2):
            prompts.append(ranking.prompt)
            pairs.append((ranking.answers[i], ranking.answers[j]))
            finished.append((ends[i], ends[j]))
    return prompts, pairs, finished


def rlaif(course: Any, *, beta: float, learning_rate: float, epochs: int, batch_size: int = 96) -> None:
    """DPO on soft labels of the AI judge, for the same answers that the annotator has ranked for others; neither the
    annotator nor the reward model is ever asked.

    Args:
        course: an ``agents.rlhf.course.Course``.
        batch_size: pairs in a gradient step.
    """
    chat = ChatModel.from_pretrained(course.job.folder / JUDGE / "model")
    judge = AIJudge(chat, glad_constitution(), min_mass=0.0)
    prompts, pairs, finished = all_pairs(course.rankings)
    labels, _ = judge.label(prompts, pairs, finished=finished, seed=course.seed)
    policy = course.start()

    def after_step(step: int, of: int, figures: dict[str, float]) -> None:
        if course.is_due(step / of):
            course.measure(policy, reward_calls=0, comparisons=0)

    config = DPOConfig(beta, learning_rate=learning_rate, epochs=epochs, batch_size=batch_size, seed=course.seed)
    train_dpo(policy, labels, config, callback=after_step)
