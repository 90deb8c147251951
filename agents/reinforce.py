"""REINFORCE for text: the policy gradient as it was first written down, with a moving average as its baseline.

    from agents import REINFORCE
    REINFORCE("textenvs/Reverse-v0", seed=0).learn(200_000, progress_bar=True)

Williams 1992, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning". The plainest
agent of all: no critic, no groups, one gradient step for each batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from agents.base import Metrics
from agents.checkpoint import Tree
from agents.collect import Rollout
from agents.losses import masked_mean, policy_gradient_loss
from agents.on_policy import OnPolicyAgent, OnPolicyConfig, Texts
from agents.targets import monte_carlo_returns


@dataclass(frozen=True)
class REINFORCEConfig(OnPolicyConfig):
    """Hyper-parameters of REINFORCE."""

    num_envs: int = 16
    """Sub-environments, where the environment is given as an id: few, since every batch serves one step."""
    baseline: Literal["none", "moving"] = "moving"
    """What is subtracted from the return: nothing, or the moving average of the returns of the batches before."""
    baseline_decay: float = 0.9
    """Weight of the past in the moving average, for each batch."""
    gamma: float = 1.0
    """Discount."""
    ent_coef: float = 0.01
    """Weight of the entropy bonus."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_shares("gamma", "baseline_decay")
        if self.baseline_decay == 1:
            raise ValueError("baseline_decay must be below 1: else the moving average never moves.")
        if self.baseline not in ("none", "moving"):
            raise ValueError(f"baseline must be 'none' or 'moving'; got {self.baseline!r}.")


@dataclass(frozen=True)
class _Batch(Texts):
    advantages: Tensor  # [B, T]


class REINFORCE(OnPolicyAgent):
    """REINFORCE.

    The loss is −mean log π(a_t|s_t) (G_t − b) over tokens, with the return to go G_t = Σ_{l ≥ t} γ^{l−t} r_l and the
    baseline b, an average over the batches before, so that it does not depend on the tokens it judges (Williams'
    theorem 1; his section 4 calls it reinforcement comparison).

    Args:
        env, policy, reference, **others: as for :class:`agents.on_policy.OnPolicyAgent`.

    Attributes:
        baseline: b.
    """

    Config = REINFORCEConfig
    loss_names = ("losses/policy_loss", "losses/entropy", "losses/baseline")

    def _build(self) -> None:
        super()._build()
        self._average, self._weight = 0.0, 0.0  # of the returns seen, and what the average's weights add up to

    @property
    def baseline(self) -> float:
        """b; 0 before the first batch, and where there is none."""
        return self._average / self._weight if self._weight else 0.0

    def _iterate(self) -> Metrics:
        rollout, metrics = self._play()
        # A text that was cut off has no score, and there is no critic to say what it would have been.
        scored = rollout.take(np.flatnonzero(rollout.terminated))
        return metrics | self._update(scored) if len(scored) else metrics

    def _update(self, rollout: Rollout) -> Metrics:
        config = self.config
        used = self.baseline
        batch, objective = self._batch(rollout)
        self.policy.invalidate_cache()
        figures = torch.zeros(2, device=self.device)
        self.gradient.zero_()
        for mb, share in self._micro_batches(batch):
            new = self.policy.evaluate(mb.rows, mb.lengths, mb.action_masks)
            policy_loss = policy_gradient_loss(new.logprobs, mb.advantages, mb.mask)
            entropy = masked_mean(new.entropies, mb.mask)
            loss = policy_loss - config.ent_coef * entropy if config.ent_coef else policy_loss
            (share * loss).backward()
            figures += share * torch.stack([policy_loss, entropy]).detach()
        self._step(figures)
        self.gradient_samples += int(rollout.lengths.sum())
        self.num_updates += 1
        return dict(zip(self.loss_names, [*figures.tolist(), used], strict=True)) | objective

    @torch.no_grad()
    def _batch(self, rollout: Rollout) -> tuple[_Batch, Metrics]:
        """The texts and their advantages, and what is logged about the reward. Moves the baseline."""
        config, texts = self.config, self._texts(rollout)
        rewards, objective = self._penalised_rewards(rollout, texts)
        returns = monte_carlo_returns(rewards, texts.lengths, config.gamma)
        advantages = torch.where(texts.mask, returns - self.baseline, 0.0)
        if config.baseline == "moving":
            decay = config.baseline_decay
            self._average = decay * self._average + (1 - decay) * masked_mean(returns, texts.mask).item()
            self._weight = decay * self._weight + 1 - decay
        return _Batch(**vars(texts), advantages=advantages), objective

    def _get_state(self) -> Tree:
        return super()._get_state() | {"baseline": {"average": self._average, "weight": self._weight}}

    def _set_state(self, state: Tree) -> None:
        super()._set_state(state)
        self._average, self._weight = state["baseline"]["average"], state["baseline"]["weight"]
