"""What a pipeline runs, as pure data."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from textenvs.errors import unknown_name


class RLHFError(Exception):
    """Something that a person can mend: settings, folders, models or data that do not fit."""


@dataclass(frozen=True)
class Pretraining:
    """A small GPT-2 from nothing, on the text source of ``TinyReviews``."""

    num_layers: int = 2
    width: int = 96
    num_heads: int = 4
    texts: int = 307_200
    batch_size: int = 32
    learning_rate: float = 8e-3


@dataclass(frozen=True)
class FineTuning:
    """SFT on demonstrations."""

    demonstrations: int = 16_000
    """How many are drawn from the grammar, where there is one; of a file, all are taken."""
    epochs: int = 1
    batch_size: int = 32
    learning_rate: float = 2e-4
    """Five times as much, and the model forgets the kinds that no demonstration is about (87 % grammatical)."""


@dataclass(frozen=True)
class Preferences:
    """Rankings of K answers by a simulated annotator, and the reward models trained on them."""

    answers: int = 4
    """K, of which all K (K − 1) / 2 pairs are compared."""
    scale: float = 8.0
    """Of the Bradley-Terry model, per unit of the gold score."""
    comparisons: int = 4_096
    small: int = 512
    """Comparisons of a second reward model, which shows what too few are worth; 0: none."""
    held_out: int = 6_000
    """Comparisons that accuracy is measured on."""
    learning_rate: float = 1e-3
    epochs: int = 2
    batch_size: int = 16
    """Prompts in a gradient step."""


@dataclass(frozen=True)
class Optimisation:
    """PPO. One run for each coefficient; the first is the one that counts."""

    kl_coefs: tuple[float, ...] = (0.15, 0.0)
    updates: int = 70
    num_envs: int = 128
    epochs: int = 2
    num_minibatches: int = 4
    learning_rate: float = 1e-3
    value_coef: float = 0.1
    critic: str = "reward"
    """Where the critic starts: ``"reward"`` (a trunk of its own, from the reward model), ``"copy"`` or ``"shared"``."""
    whiten_rewards: bool = False
    kl_target: float | None = None
    """KL of a text towards which the coefficient is adapted; None: it stays."""
    target_kl: float | None = None
    micro_batch_size: int | None = None

    def __post_init__(self) -> None:
        if not self.kl_coefs:
            raise RLHFError("At least one kl_coef is needed.")
        if min(self.kl_coefs) < 0:
            raise RLHFError(f"A kl_coef must not be negative; got {min(self.kl_coefs)}.")


@dataclass(frozen=True)
class Sources:
    """Where models, prompts and judges come from. Nothing given: all is made here, around ``TinyReviews``."""

    model: str | None = None
    """A causal language model: hub name or folder. It is the model that SFT, or PPO, begins with."""
    prompts: str | None = None
    """A JSONL file of ``{prompt}`` rows, or the hub name or folder of a data set."""
    reward: Any = None
    """The judge to train on: a sequence classifier (hub name or folder), or any form of ``reward=``."""
    gold: Any = None
    """A second judge, only reported."""
    demonstrations: str | None = None
    """JSONL of ``{prompt, completion}`` rows for SFT; none: no SFT."""
    max_new_tokens: int = 24
    prompt_length: int | None = None
    bf16: bool = False
    gradient_checkpointing: bool = False

    @property
    def is_tiny(self) -> bool:
        """Whether everything is made here."""
        return self.model is None


@dataclass(frozen=True)
class Settings:
    """A pipeline."""

    preset: str
    sources: Sources = field(default_factory=Sources)
    pretraining: Pretraining = field(default_factory=Pretraining)
    sft: FineTuning = field(default_factory=FineTuning)
    preferences: Preferences = field(default_factory=Preferences)
    ppo: Optimisation = field(default_factory=Optimisation)
    evaluation_texts: int = 1_024
    """Sampled texts, on held-out prompts, that every model is measured on."""
    shown_prompts: int = 8
    """Prompts whose texts are shown."""


PRESETS = {
    "quick": Settings("quick"),
    "frontier": Settings("frontier", ppo=Optimisation(kl_coefs=(0.15, 0.0, 0.05, 0.1, 0.2, 0.3, 0.5))),
    "short": Settings(
        "short",
        pretraining=Pretraining(texts=102_400),
        sft=FineTuning(demonstrations=6_400),
        preferences=Preferences(comparisons=2_048, small=0, held_out=2_000),
        ppo=Optimisation(kl_coefs=(0.15,), updates=25),
        evaluation_texts=512,
    ),
    "smoke": Settings(
        "smoke",
        pretraining=Pretraining(width=32, num_layers=1, texts=1_600),
        sft=FineTuning(demonstrations=320),
        preferences=Preferences(comparisons=192, small=96, held_out=96, epochs=1),
        ppo=Optimisation(updates=2, num_envs=16),
        evaluation_texts=64,
        shown_prompts=3,
    ),
}


def get_settings(preset: str) -> Settings:
    """The settings of a preset.

    Raises:
        RLHFError: there is none of that name.
    """
    if preset not in PRESETS:
        raise RLHFError(unknown_name("preset", preset, PRESETS))
    return PRESETS[preset]


def with_sources(settings: Settings, sources: Sources) -> Settings:
    """The settings for models and prompts of one's own: defaults that serve a small model trained here are replaced by
    those of ``LMActorCritic`` (InstructGPT's and lm-human-preferences').

    Raises:
        RLHFError: sources that do not go together.
    """
    if sources.is_tiny:
        for name in ("prompts", "reward", "gold", "demonstrations"):
            if getattr(sources, name) is not None:
                raise RLHFError(f"--{name} goes with --model: without one, everything is made here.")
        return replace(settings, sources=sources)
    for name in ("prompts", "reward"):
        if getattr(sources, name) is None:
            raise RLHFError(f"A model of your own needs --{name} too.")
    return replace(
        settings,
        sources=sources,
        sft=replace(settings.sft, learning_rate=2e-5),
        ppo=replace(settings.ppo, kl_coefs=(0.05,), learning_rate=1e-5, critic="shared", micro_batch_size=16),
    )
