"""RLAIF on reviews with faults: what is run, as pure data, and the world that it is run in."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from agents.lm.dpo import DPOConfig
from agents.lm.reward_model import RewardModelConfig
from agents.lm.sft import Corpus, encode_rows
from agents.rlhf.settings import FineTuning, Optimisation, Pretraining, RLHFError, Settings
from agents.rlhf.tiny_chat import TinyChat
from agents.rlhf.worlds import TinyReviewsWorld
from textenvs.errors import unknown_name
from textenvs.tiny_reviews.faults import fault_scores, make_reviews


@dataclass(frozen=True)
class RLAIF:
    """What is run, as pure data.

    Attributes:
        rlhf: sizes of the base model and of PPO.
        share: of the reviews that the base model reads have each of the faults.
        revisions: prompts for critique and revision.
        comparisons: pairs that are labelled, by the annotator and by the judge.
        min_mass: of "A" and "B" together, for the judge's answer to count.
        scale: how sure the annotator is: P(x before y) = σ(scale · (faults of y − faults of x)).
        judged: pairs on held-out kinds that the judge's accuracy and position bias are measured on.
        evaluation_texts: of each model, one to each held-out prompt.
    """

    preset: str
    rlhf: Settings
    chat: TinyChat = field(default_factory=TinyChat)
    share: float = 0.3
    revisions: int = 1_536
    sft: FineTuning = field(default_factory=lambda: FineTuning(learning_rate=5e-4, epochs=2))
    comparisons: int = 2_048
    min_mass: float = 0.5
    scale: float = 2.0
    dpo: DPOConfig = field(default_factory=lambda: DPOConfig(beta=0.1, learning_rate=5e-4, epochs=2, batch_size=32))
    reward_model: RewardModelConfig = field(default_factory=lambda: RewardModelConfig(batch_size=32, epochs=2))
    judged: int = 2_000
    evaluation_texts: int = 1_024


PRESETS = {
    "quick": RLAIF(
        "quick",
        Settings("rlaif", pretraining=Pretraining(texts=81_920), ppo=Optimisation(kl_coefs=(0.1,), updates=30)),
    ),
    "smoke": RLAIF(
        "smoke",
        Settings(
            "rlaif-smoke",
            pretraining=Pretraining(width=32, num_layers=1, texts=960),
            ppo=Optimisation(kl_coefs=(0.1,), updates=2, num_envs=16),
            shown_prompts=3,
        ),
        chat=TinyChat(num_layers=1, width=32, reviews=640, pairs=640),
        min_mass=0.0,  # it has learnt next to nothing
        revisions=32,
        comparisons=64,
        judged=64,
        evaluation_texts=48,
    ),
}


def get_rlaif(preset: str) -> RLAIF:
    """The settings of a preset.

    Raises:
        RLHFError: there is none of that name.
    """
    if preset not in PRESETS:
        raise RLHFError(unknown_name("preset", preset, PRESETS))
    return PRESETS[preset]


class FaultyWorld(TinyReviewsWorld):
    """TinyReviews as people write them, with faults; gold is minus the number of faults.

    Args:
        label: whose reward model pays.
    """

    gold_reward: Any = staticmethod(fault_scores)

    def __init__(self, label: str = "") -> None:
        super().__init__()
        self.label = label

    def paid_reward(self, folder: Path) -> Any:
        return f"learned:{reward_model_of(folder, self.label)}"

    def faulty_corpus(self, count: int, seed: int, share: float) -> Corpus:
        """Reviews to pretrain on."""
        reviews = make_reviews(count, seed=seed, share=share)
        corpus = encode_rows(
            [{"prompt": each.prompt, "completion": each.spoilt} for each in reviews], self.grammar.vocab
        )
        return replace(corpus, prompt_lengths=np.zeros_like(corpus.prompt_lengths))


def reward_model_of(folder: Path, label: str) -> Path:
    """The folder of a reward model."""
    return folder / f"reward-model-{label}" / "model"
