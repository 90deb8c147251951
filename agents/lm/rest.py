"""ReST, reinforced self-training: a policy writes, the best of what it wrote is kept, and it learns from that alone.

    result = train_rest(policy, envs, ReSTConfig(prompts=512, k=4), checkpoint="runs/rest/checkpoint")

Grow: the policy answers many prompts, and the environment's judge scores the answers. Improve: supervised fine-tuning
on those above a threshold; then again, on the same answers, with a higher threshold. Then the better policy grows anew.
Gulcehre et al. 2023, "Reinforced Self-Training (ReST) for Language Modeling", algorithm 1, with the plain negative
log-likelihood, which did best there.

Rejection-sampling fine-tuning is one round of it that keeps the best answer to each prompt: :func:`rejection_sampling`.
Touvron et al. 2023, "Llama 2", section 3.2.3; Dong et al. 2023, "RAFT".
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from gymnasium.vector import VectorEnv

from agents.checkpoint import (
    CheckpointError,
    checksum,
    load_config,
    load_state,
    load_trainable_state,
    recover,
    save_checkpoint,
    trainable_state,
)
from agents.lm.sampling import Answers, sample_answers
from agents.lm.sft import Corpus, SFTConfig, train_on_texts
from textenvs.rewards.learned import token_rows

SEED_STRIDE = 1_000
"""Between the seeds of two grow steps."""


@dataclass(frozen=True)
class ReSTConfig:
    """Hyper-parameters."""

    grows: int = 2
    """How often the policy writes anew."""
    thresholds: tuple[float, ...] = (0.7, 0.8, 0.9)
    """Of the improve steps after each grow: quantiles of the scores, rising. An answer is kept if it scores at least
    that much."""
    keep: Literal["quantile", "best"] = "quantile"
    """``"best"`` keeps the best answer to each prompt instead; ``thresholds`` are then of those."""
    prompts: int = 512
    """In each grow step."""
    k: int = 4
    """Answers to each; the environment must have ``group_size=k``."""
    sft: SFTConfig = field(default_factory=lambda: SFTConfig(learning_rate=3e-4))
    """Of every improve step; the learning rate of the first one in a round."""
    decay: float = 0.7
    """What the learning rate is multiplied with from one improve step to the next of a round."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("grows", "prompts", "k"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}.")
        if not self.thresholds or list(self.thresholds) != sorted(self.thresholds):
            raise ValueError(f"thresholds must rise, at least one of them; got {self.thresholds}.")
        if not (self.thresholds[0] >= 0 and self.thresholds[-1] < 1):
            raise ValueError(f"thresholds are quantiles in [0, 1); got {self.thresholds}.")
        if self.keep not in ("quantile", "best"):
            raise ValueError(f"keep must be 'quantile' or 'best'; got {self.keep!r}.")
        if self.keep == "best" and self.k < 2:
            raise ValueError("keep='best' chooses among several answers to a prompt: k must be at least 2.")
        if not 0 < self.decay <= 1:
            raise ValueError(f"decay must lie in (0, 1]; got {self.decay}.")


def rejection_sampling(prompts: int, k: int, sft: SFTConfig | None = None, seed: int = 0) -> ReSTConfig:
    """Rejection-sampling fine-tuning: K answers to each prompt, one round of SFT on the best of each."""
    sft = sft or SFTConfig(learning_rate=3e-4)
    return ReSTConfig(1, (0.0,), "best", prompts, k, sft, seed=seed)


@dataclass(frozen=True)
class Step:
    """What happened in an improve step."""

    grow: int
    improve: int
    """Both from 1."""
    mean_score: float
    """Of all answers of the grow step."""
    threshold: float
    """The score from which answers were kept."""
    kept: int
    loss: float
    """Mean over the step, in nats per token."""


@dataclass(frozen=True)
class ReSTResult:
    """What came out."""

    steps: tuple[Step, ...]
    reward_calls: int
    """Texts that were judged."""


Callback = Callable[[int, int, Step], Any]
"""Called after each improve step with its number (from 1), their number, and what happened. Training stops after a step
for which it returns False."""


def select(scores: np.ndarray, threshold: float, keep: str = "quantile") -> np.ndarray:
    """Which answers are learnt from.

    Args:
        scores: [N, K].
        threshold: a quantile of the scores, in [0, 1).
        keep: ``"quantile"``: all answers that score at least that quantile of all scores; ``"best"``: of the best
            answer to each prompt (the first of those that tie) the same.

    Returns:
        bool [N, K]; never all False.
    """
    if keep == "best":
        best = np.zeros(scores.shape, dtype=bool)
        best[np.arange(len(scores)), scores.argmax(axis=1)] = True
        return best & (scores >= np.quantile(scores[best], threshold))
    chosen: np.ndarray = scores >= np.quantile(scores, threshold)
    return chosen


@dataclass(frozen=True)
class Grown:
    """What a grow step has written: N · K texts as ids with their scores; prompts are read and not predicted.

    Attributes:
        ids: int64 [N · K, L], right-padded.
        lengths, prompt_lengths: int64 [N · K], tokens.
        scores: float32 [N, K].
    """

    ids: np.ndarray
    lengths: np.ndarray
    prompt_lengths: np.ndarray
    scores: np.ndarray

    @classmethod
    def of(cls, answers: Answers) -> Grown:
        """From sampled answers."""
        episodes = answers.episodes
        rows = token_rows(episodes)
        ids = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = row
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        prompts = (episodes.prompt_ids != episodes.pad_id).sum(axis=1).astype(np.int64)
        return cls(ids, lengths, prompts, answers.scores)

    def corpus(self, chosen: np.ndarray) -> Corpus:
        """The texts to learn from; a text that has nothing to predict (EOS alone, without a prompt) is left out.

        Args:
            chosen: bool [N, K].

        Raises:
            ValueError: nothing is left.
        """
        learnt = chosen.reshape(-1) & (self.lengths > np.maximum(self.prompt_lengths, 1))
        return Corpus(self.ids[learnt], self.lengths[learnt], self.prompt_lengths[learnt])


def train_rest(
    policy: Any,
    envs: VectorEnv,
    config: ReSTConfig | None = None,
    *,
    checkpoint: str | Path | None = None,
    callback: Callback | None = None,
) -> ReSTResult:
    """Train a policy on the best of its own answers.

    With ``checkpoint=`` the same call goes on after the last finished improve step, to the bit; the policy must then be
    the one that it was given at first.

    Args:
        policy: an ``LMActorCritic``, changed in place.
        envs: made with ``group_size=k``; its judge gives the scores.
        config: hyper-parameters.
        checkpoint: a folder that training can be resumed from.
        callback: see ``Callback``; a progress bar for example.

    Raises:
        ValueError: an environment whose groups are of another size, or a policy that is frozen.
        CheckpointError: the checkpoint is of another training.
    """
    config = config or ReSTConfig()
    if not any(parameter.requires_grad for parameter in policy.model.parameters()):
        raise ValueError("The policy has no weights that could be trained: is it a frozen copy?")
    identity = {
        "kind": "rest",
        "hyperparameters": json.loads(json.dumps(asdict(config))),
        "model": checksum(policy.model.parameters()),
    }
    folder = None if checkpoint is None else Path(checkpoint)
    steps: list[Step] = []
    grown: Grown | None = None
    if folder is not None:
        recover(folder)
    if folder is not None and folder.is_dir():
        steps, grown = _resume(folder, identity, policy)
    improves = len(config.thresholds)
    total = config.grows * improves
    for number in range(len(steps), total):
        grow, improve = divmod(number, improves)
        if improve == 0 or grown is None:
            seed = config.seed * SEED_STRIDE + grow
            grown = Grown.of(sample_answers(policy, envs, config.prompts, k=config.k, seed=seed))
        chosen = select(grown.scores, config.thresholds[improve], config.keep)
        sft = replace(config.sft, learning_rate=config.sft.learning_rate * config.decay**improve)
        losses = train_on_texts(policy.model, grown.corpus(chosen), sft, seed=config.seed * SEED_STRIDE + number)
        scores = grown.scores
        what = (float(scores.mean()), float(scores[chosen].min()), int(chosen.sum()), float(np.mean(losses)))
        steps.append(Step(grow + 1, improve + 1, *what))
        if folder is not None:
            _save(folder, identity, policy, steps, grown)
        if callback is not None and callback(number + 1, total, steps[-1]) is False:
            break
    return ReSTResult(tuple(steps), -(-len(steps) // improves) * config.prompts * config.k)


def _save(folder: Path, identity: dict[str, Any], policy: Any, steps: list[Step], grown: Grown) -> None:
    names = [each.name for each in fields(Step)]
    state = {
        "model": trainable_state(policy.model),
        "steps": {name: np.array([getattr(step, name) for step in steps]) for name in names},
        "grown": dict(vars(grown)),
    }
    save_checkpoint(folder, identity, state)


def _resume(folder: Path, identity: dict[str, Any], policy: Any) -> tuple[list[Step], Grown]:
    """Put back the policy; returns the steps so far, and the answers of the last grow step."""
    saved = load_config(folder)
    for name, what in (
        ("kind", "of another method"),
        ("hyperparameters", "of other hyper-parameters"),
        ("model", "of a policy that began with other weights"),
    ):
        if saved.get(name) != identity[name]:
            raise CheckpointError(
                f"The checkpoint {folder} is {what}: give another folder, or delete it to begin anew."
            )
    state = load_state(folder)
    load_trainable_state(policy.model, state["model"])
    columns = [state["steps"][each.name].tolist() for each in fields(Step)]
    return [Step(*row) for row in zip(*columns, strict=True)], Grown(**state["grown"])
