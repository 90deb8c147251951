"""Return decomposition: learn from a replay buffer how much each token adds to the score, and write what adds most.

    from agents import ReturnDecomposition
    ReturnDecomposition("textenvs/Reverse-v0", seed=0).learn(20_000, progress_bar=True)

The score comes at the end of a text, and Q-learning carries it back to the first token by token. Here the score is
explained at once, as a sum: score ≈ b(prompt) + Σ_t f(prefix_t, a_t), a regression on whole episodes (Arjona-Medina et
al. 2019, "RUDDER: Return Decomposition for Delayed Rewards"; Efroni et al. 2021, "Reinforcement Learning with
Trajectory Feedback"; Ren et al. 2022, "Learning Long-Term Reward Redistribution via Randomized Return Decomposition").
The score is a function of the text, so episodes of any policy serve, as often as one likes, without targets or
importance weights. What a token makes of the tokens after it is learnt on top: c(prefix, a), by expected SARSA on the
contributions. The policy is softmax((f + κ c) / τ), where κ, from 0 to 1, is how far c has held in new episodes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.base import Metrics
from agents.checkpoint import Tree
from agents.collect import Rollout
from agents.dqn import exploration_probabilities
from agents.losses import masked_mean
from agents.off_policy import Batch, OffPolicyAgent, OffPolicyConfig, one_hot_best
from agents.off_policy_losses import (
    continuation_evidence,
    continuation_targets,
    log_policy,
    policy_entropy,
    return_decomposition_loss,
    self_imitation_loss,
)
from agents.returns import step_mask
from agents.targets import take, td_loss


@dataclass(frozen=True)
class ReturnDecompositionConfig(OffPolicyConfig):
    """Hyper-parameters of ReturnDecomposition."""

    num_envs: int = 8
    batch_size: int = 64
    temperature: float = 0.02
    """τ: tokens are drawn from softmax((f + κ c) / τ), in units of the reward."""
    epsilon: float = 0.02
    """… or, with this probability, uniformly."""
    initial_std: float = 0.01
    """Standard deviation of the weights that f begins with: above τ, so that the first texts of a prompt differ from
    those of another, and each is more of a kind."""
    continuation_coef: float = 0.1
    """Weight of the loss of c; 0: there is no c, and the policy looks at f alone."""
    imitation_coef: float = 10.0
    """Weight of self-imitation where scores are all or nothing (the buffer has seen two different ones): until some
    text succeeds there is nothing to decompose, and then it is rare."""
    rare_share: float = 1 / 3
    """There, too: share of every minibatch in which every score occurs equally often."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_positive("temperature", "initial_std")
        self._check_shares("epsilon")
        for name in ("continuation_coef", "imitation_coef"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative; got {getattr(self, name)}.")


@dataclass
class Fit:
    """Running figures of how the network's predictions hold in episodes that it has not learnt from yet."""

    mean_score: float = 0.0
    mean_square: float = 0.0
    """Of the scores, as is the mean."""
    squared_error: float = 0.0
    """Of the predicted scores."""
    promised: float = 1e-3
    """Σ x² of :func:`agents.off_policy_losses.continuation_evidence`, the latest episodes counting most."""
    kept: float = 0.0
    """Σ x y."""

    @property
    def explained_variance(self) -> float:
        """1 − squared error / variance of the scores."""
        return 1 - self.squared_error / max(self.mean_square - self.mean_score**2, 1e-8)

    @property
    def trust(self) -> float:
        """κ: the slope of what came after a token on what it promised, between 0 and 1."""
        return min(max(self.kept / max(self.promised, 1e-6), 0.0), 1.0)

    def add_scores(self, scores: np.ndarray, predicted: np.ndarray) -> None:
        """Scores [B] and what had been predicted."""
        weight = min(1.0, len(scores) / _MEMORY)
        self.squared_error += weight * (float(np.square(predicted - scores).mean()) - self.squared_error)
        self.mean_score += weight * (float(scores.mean()) - self.mean_score)
        self.mean_square += weight * (float(np.square(scores).mean()) - self.mean_square)

    def add_evidence(self, kept: float, promised: float, num_episodes: int) -> None:
        """Sums over so many new episodes."""
        decay = max(0.0, 1 - num_episodes / (2 * _MEMORY))
        self.kept = self.kept * decay + kept
        self.promised = self.promised * decay + promised


_MEMORY = 128  # episodes


class ReturnDecomposition(OffPolicyAgent):
    """Return decomposition from replay; ``predict`` takes the best token, or samples as in training."""

    Config = ReturnDecompositionConfig
    loss_names = (
        "losses/decomposition_loss",
        "losses/continuation_loss",
        "losses/imitation_loss",
        "losses/contributions",
        "losses/entropy",
    )

    def _heads(self) -> dict[str, int]:
        num_tokens = self.text_spec.num_tokens
        continuation = {"continuation": num_tokens} if self.config.continuation_coef else {}
        return {"contributions": num_tokens, "baseline": 1} | continuation

    def _build(self) -> None:
        super()._build()
        config = self.config
        with torch.no_grad():
            weight: Any = self.network.heads["contributions"].weight
            weight.mul_(config.initial_std / weight.std())
        self.fit = Fit()
        self.all_or_nothing = False

    @property
    def tau(self) -> float:
        """Temperature of the policy, in the units in which the network learns."""
        tau: float = self.config.temperature * self.config.reward_scale
        return tau

    # -- learning ------------------------------------------------------------------------------------------------------

    def _collect(self, num_steps: int) -> Rollout:
        rollout = super()._collect(num_steps)
        if rollout.terminated.any():  # texts that were cut off have no score
            self._measure_fit(rollout, np.flatnonzero(rollout.terminated))
        return rollout

    @torch.no_grad()
    def _measure_fit(self, rollout: Rollout, which: np.ndarray) -> None:
        """What the present weights make of new episodes, before they learn from them."""
        config, heads, scores = self.config, self.network.heads, rollout.scores[which]
        rows, lengths = (torch.from_numpy(x[which]).to(self.device) for x in (rollout.rows, rollout.lengths))
        mask = step_mask(lengths, self.text_spec.max_new_tokens)
        actions = rows[:, self.text_spec.prompt_length :].clamp(max=self.text_spec.num_tokens - 1)
        hidden = self.network(rows)
        contributions = torch.where(mask, take(heads["contributions"](hidden), actions), 0.0)
        remaining = torch.from_numpy(scores).to(self.device) * config.reward_scale - self._baseline(hidden)
        errors = (contributions.sum(1) - remaining) / config.reward_scale
        self.fit.add_scores(scores, scores + errors.cpu().numpy())
        if config.continuation_coef and self.num_gradient_steps:
            action_masks = None
            if rollout.action_masks is not None:
                action_masks = torch.from_numpy(rollout.action_masks[which]).to(self.device) | ~mask[..., None]
            policy = self._explore(self._values(hidden), action_masks)
            kept, promised = continuation_evidence(
                policy, contributions, heads["continuation"](hidden), actions, remaining, mask
            )
            self.fit.add_evidence(kept.item(), promised.item(), len(which))

    def learn_offline(self, num_updates: int) -> Metrics:
        self.all_or_nothing = len(np.unique(self.replay.scores)) == 2
        return super().learn_offline(num_updates)

    def _shares(self) -> dict[str, float]:
        shares = super()._shares()
        if not self.all_or_nothing:
            return shares | {"rare_share": 0.0}
        return shares | {"recent_share": min(shares["recent_share"], 1 / 3)}

    def _loss(self, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        config, zero = self.config, torch.zeros((), device=self.device)
        hidden = self.network(batch.rows)
        contributions, baseline = self.network.heads["contributions"](hidden), self._baseline(hidden)
        taken = take(contributions, batch.actions)
        decomposition = return_decomposition_loss(taken, baseline, batch.scores, batch.mask)
        continuation = imitation = zero
        if config.continuation_coef:
            continuations = self.network.heads["continuation"](hidden)
            with torch.no_grad():
                policy = log_policy((contributions + self.fit.trust * continuations) / self.tau, batch.action_masks)
                targets = continuation_targets(policy.exp(), contributions + continuations, batch.mask)
            continuation = td_loss(take(continuations, batch.actions), targets, batch.mask, "mse")
        if config.imitation_coef and self.all_or_nothing:
            expected = baseline.detach().clamp(min=self.fit.mean_score * config.reward_scale)
            logprobs = take(log_policy(contributions / self.tau, batch.action_masks), batch.actions)
            imitation = self_imitation_loss(logprobs, (batch.scores - expected) / config.reward_scale, batch.mask)
        with torch.no_grad():
            entropies = policy_entropy(log_policy(contributions / self.tau, batch.action_masks))
        logged = [
            decomposition,
            continuation,
            imitation,
            masked_mean(taken, batch.mask) / config.reward_scale,
            masked_mean(entropies, batch.mask),
        ]
        return decomposition + config.continuation_coef * continuation + config.imitation_coef * imitation, logged

    def _charts(self) -> Metrics:
        return {
            "charts/explained_variance": self.fit.explained_variance,
            "charts/continuation_trust": self.fit.trust,
        }

    # -- acting --------------------------------------------------------------------------------------------------------

    def _baseline(self, hidden: Tensor) -> Tensor:
        """b [B] of the states [B, T, width] of episodes."""
        return torch.as_tensor(self.network.heads["baseline"](hidden[:, 0]))[:, 0]

    def _values(self, hidden: Tensor) -> Tensor:
        """f + κ c of every token, [..., V], of states [..., width]."""
        values: Tensor = self.network.heads["contributions"](hidden)
        if self.config.continuation_coef:
            values = values + self.fit.trust * self.network.heads["continuation"](hidden)
        return values

    def _explore(self, values: Tensor, action_masks: Tensor | None) -> Tensor:
        """Probabilities [..., V] with which tokens are drawn."""
        epsilon = torch.full(values.shape[:-1], self.config.epsilon, device=self.device)
        return exploration_probabilities(values, self.tau, epsilon, action_masks)

    def _policy(self, hidden: Tensor, action_masks: Tensor | None, deterministic: bool) -> Tensor:
        values = self._values(hidden)
        return one_hot_best(values, action_masks) if deterministic else self._explore(values, action_masks)

    # -- saving --------------------------------------------------------------------------------------------------------

    def _get_state(self) -> Tree:
        return super()._get_state() | {"fit": asdict(self.fit)}

    def _set_state(self, state: Tree) -> None:
        super()._set_state(state)
        self.fit = Fit(**state["fit"])
