"""What a language model writes on held-out prompts, measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from agents.lm.actor_critic import LMActorCritic
from agents.lm.sampling import Answers, sample_answers
from agents.rlhf.worlds import World
from textenvs.rewards.base import Judge
from textenvs.rewards.registry import make_reward


@dataclass(frozen=True)
class Figures:
    """Means over sampled texts. None: not known in this world, or not asked for."""

    texts: int
    reward: float | None
    """Score of the judge that PPO is paid by."""
    gold: float | None
    """Score of the judge that is meant."""
    gold_error: float | None
    """Standard error of ``gold``."""
    grammatical: float | None
    """Share of the texts that the grammar can parse."""
    kl: float | None
    """KL divergence from the reference, E Σ (log π − log π_ref), in nats per text."""
    entropy: float
    """−E Σ log π, in nats per text."""
    perplexity: float | None
    """Of the completions under the pretrained model: exp of the mean −log p of a token."""
    length: float
    """Tokens, EOS included."""
    distinct: float
    """Share of different texts."""


@dataclass(frozen=True)
class Sample:
    """A text as it is shown."""

    prompt: str
    completion: str
    gold: float | None
    grammatical: bool | None


def write_texts(policy: LMActorCritic, world: World, count: int, seed: int, split: str = "test") -> Answers:
    """Texts at the policy's own temperature: one to each of ``count`` prompts, the same for every policy."""
    envs = world.envs(split, min(count, 256))
    try:
        return sample_answers(policy, envs, count, seed=seed)
    finally:
        envs.close()


def measure(
    policy: LMActorCritic,
    answers: Answers,
    world: World,
    *,
    reference: LMActorCritic | None,
    pretrained: LMActorCritic | None,
    reward: Any = None,
) -> Figures:
    """Figures of texts that ``policy`` wrote.

    Args:
        answers: from :func:`write_texts`.
        reference: what the KL is measured from.
        pretrained: whose perplexity is reported.
        reward: spec of the judge that PPO is paid by.
    """
    episodes = answers.episodes
    rows, lengths = torch.from_numpy(answers.rows).to(policy.device), torch.from_numpy(episodes.lengths)
    lengths = lengths.to(policy.device)

    def log_probability(model: LMActorCritic) -> np.ndarray:
        model.bind(policy.spec)
        return model.logprobs(rows, lengths).sum(1).double().cpu().numpy()

    own = log_probability(policy)
    gold, grammatical = world.gold(episodes), world.grammatical(episodes)
    paid = None if reward is None else Judge(make_reward(reward))(episodes).total
    tokens = float(episodes.lengths.sum())
    return Figures(
        texts=len(episodes),
        reward=_mean(paid),
        gold=_mean(gold),
        gold_error=None if gold is None else float(gold.std(ddof=1) / len(gold) ** 0.5),
        grammatical=_mean(grammatical),
        kl=None if reference is None else float((own - log_probability(reference)).mean()),
        entropy=float(-own.mean()),
        perplexity=None if pretrained is None else float(np.exp(-log_probability(pretrained).sum() / tokens)),
        length=float(episodes.lengths.mean()),
        distinct=len(set(zip(episodes.prompts, episodes.completions, strict=True))) / len(episodes),
    )


def shown_samples(answers: Answers, world: World, count: int) -> list[Sample]:
    """The first texts with different prompts, with what is known of them."""
    episodes = answers.episodes
    gold, grammatical = world.gold(episodes), world.grammatical(episodes)
    samples: dict[str, Sample] = {}
    for i, (prompt, completion) in enumerate(zip(episodes.prompts, episodes.completions, strict=True)):
        if prompt not in samples and len(samples) < count:
            samples[prompt] = Sample(
                prompt,
                completion,
                None if gold is None else round(float(gold[i]), 3),
                None if grammatical is None else bool(grammatical[i]),
            )
    return list(samples.values())


def as_json(figures: Figures, samples: list[Sample]) -> dict[str, Any]:
    """Both as JSON values."""
    return {"figures": asdict(figures), "samples": [asdict(sample) for sample in samples]}


def _mean(values: np.ndarray | None) -> float | None:
    return None if values is None else float(np.mean(values, dtype=np.float64))
