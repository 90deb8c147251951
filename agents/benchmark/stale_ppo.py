"""PPO whose batches grow old before they are learnt from: what an on-policy agent loses with data that is not fresh."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Any

import torch
from gymnasium.vector import VectorEnv

from agents.base import Metrics
from agents.checkpoint import CheckpointError, Tree
from agents.collect import Rollout
from agents.losses import ppo_policy_loss
from agents.ppo import PPO, PPOConfig

MOVED = 0.2
"""A token counts as moved by an update that changes its probability by more than this share: PPO's usual ε, whatever
ε the agent has."""


@dataclass(frozen=True)
class StalePPOConfig(PPOConfig):
    """Hyper-parameters of StalePPO: those of PPO, and how its batches are treated."""

    age: int = 0
    """Updates between the playing of a batch and the one that learns from it; 0: PPO."""
    importance_ratio: bool = True
    """False: a batch is taken for one of the present policy's, its log-probabilities computed anew before the update,
    so that every ratio begins at 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.age < 0:
            raise ValueError(f"age must be at least 0; got {self.age}.")


class StalePPO(PPO):
    """PPO with a queue between playing and learning: every batch is learnt from once, ``age`` updates after it was
    played. While the queue fills nothing is learnt, so the first ``age`` + 1 batches are all of the first policy.

    Values and advantages stay those of the time when the batch was played.

    Attributes:
        num_learnt: texts that have been learnt from; those in the queue have not.
    """

    Config = StalePPOConfig

    def __init__(self, env: str | VectorEnv, **others: Any) -> None:
        self.waiting: deque[Rollout] = deque()
        self.num_learnt = 0
        super().__init__(env, **others)

    def _iterate(self) -> Metrics:
        rollout, metrics = self._play()
        metrics |= {"updates/kl": float("nan"), "updates/moved": float("nan")}
        if len(rollout):
            self.waiting.append(rollout)
        if len(self.waiting) <= self.config.age:
            return metrics
        return metrics | self._update(self.waiting.popleft())

    def _update(self, rollout: Rollout) -> Metrics:
        if not self.config.importance_ratio:
            rollout = replace(rollout, logprobs=self._logprobs(rollout).cpu().numpy())
        metrics = super()._update(rollout)
        self.num_learnt += len(rollout)
        return metrics | self._movement(rollout)

    @torch.no_grad()
    def _logprobs(self, rollout: Rollout) -> torch.Tensor:
        """Log-probabilities [B, T] of a batch under the present weights, 0 in the padding."""
        texts = self._texts(rollout)
        evaluated = self.policy.evaluate(texts.rows, texts.lengths, texts.action_masks)
        return torch.where(texts.mask, evaluated.logprobs, 0.0)

    @torch.no_grad()
    def _movement(self, rollout: Rollout) -> Metrics:
        """How far the policy is, now that it has learnt from the batch, from the log-probabilities that the update
        started from: the estimator k3 of the KL divergence, and the share of tokens with |ratio − 1| > 0.2, both over
        the whole batch. What PPO logs itself are means over minibatches, most of them before the last steps."""
        texts = self._texts(rollout)
        nothing = torch.zeros_like(texts.logprobs)
        moved = ppo_policy_loss(self._logprobs(rollout), texts.logprobs, nothing, texts.mask, MOVED)
        return {"updates/kl": moved.approx_kl.item(), "updates/moved": moved.clipfrac.item()}

    def _get_state(self) -> Tree:
        raise CheckpointError("StalePPO has no checkpoints: the batches in its queue are not kept. Use PPO.")
