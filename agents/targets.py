"""Q-learning: targets and losses of whole episodes as pure functions on tensors.

Arrays are [B, T], one row an episode whose first ``lengths[b]`` steps count; what stands behind them, NaN included,
enters nothing, and results are 0 there. Every episode ends in a terminal state: nothing is bootstrapped after its last
step.
``values[b, t]`` is the target network's V(s_t) of the state before action t, for instance from :func:`greedy_values`.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from agents.returns import step_mask

LossKind = Literal["huber", "mse"]


def masked_max(q_values: Tensor, action_masks: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Largest Q of the legal actions, and the action that has it (the first of equals).

    Args:
        q_values: [..., V].
        action_masks: [..., V] bool, True where legal; at least one action of every state that counts. None: all are.

    Returns:
        maxima [...] and actions [...] int64.
    """
    if action_masks is not None:
        _check_masks(q_values, action_masks)
        q_values = q_values.masked_fill(~action_masks, float("-inf"))
    maxima, actions = q_values.max(-1)
    return maxima, actions


def greedy_values(q_online: Tensor, q_target: Tensor, action_masks: Tensor | None = None) -> Tensor:
    """V(s) = Q_target(s, argmax_a Q_online(s, a)), the maximum over legal actions.

    Double Q-learning: one network chooses, the other values. With ``q_online`` given twice this is the plain maximum.
    van Hasselt et al. 2016, "Deep Reinforcement Learning with Double Q-learning", equation 4.

    Args:
        q_online, q_target: [..., V].
        action_masks: [..., V] bool or None.

    Returns:
        [...].
    """
    _, actions = masked_max(q_online, action_masks)
    return take(q_target, actions)


def take(q_values: Tensor, actions: Tensor) -> Tensor:
    """Q [...] of the actions [...] int64, from Q [..., V]."""
    return q_values.gather(-1, actions[..., None])[..., 0]


def n_step_targets(rewards: Tensor, values: Tensor, lengths: Tensor, n: int, gamma: float = 1.0) -> Tensor:
    """n-step targets: G_t = Σ_{i < n} γ^i r_{t+i} + γ^n V(s_{t+n}), cut where the episode ends.

    n = 1 is DQN's target (Mnih et al. 2015, "Human-level control through deep reinforcement learning"), n >= T the
    Monte-Carlo return. Uncorrected for the behaviour policy, as in Hessel et al. 2018, "Rainbow".

    Args:
        rewards: [B, T].
        values: [B, T] V(s_t).
        lengths: [B] int64, at least 1.
        n: at least 1.
        gamma: discount γ.

    Returns:
        [B, T], 0 in the padding.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1; got {n}.")
    _check_shapes(rewards, values, lengths)
    num_steps = rewards.shape[1]
    inside = step_mask(lengths, num_steps)
    zero = rewards.new_zeros(())
    # After the last step there is neither reward nor value, so that a sum that runs over the end stops by itself.
    padded_rewards = F.pad(torch.where(inside, rewards, zero), (0, n))
    targets = gamma**n * F.pad(torch.where(inside, values, zero), (0, n))[:, n:]
    for i in range(min(n, num_steps)):
        targets = targets + gamma**i * padded_rewards[:, i : i + num_steps]
    return torch.where(inside, targets, zero)


def monte_carlo_returns(rewards: Tensor, lengths: Tensor, gamma: float = 1.0) -> Tensor:
    """Observed returns: G_t = Σ_i γ^i r_{t+i} to the end of the episode. [B, T], 0 in the padding."""
    return n_step_targets(rewards, torch.zeros_like(rewards), lengths, rewards.shape[1], gamma)


def lambda_targets(
    rewards: Tensor, values: Tensor, lengths: Tensor, lam: float, gamma: float = 1.0, keep: Tensor | None = None
) -> Tensor:
    """λ-returns: G_t = r_t + γ ((1 − λ_{t+1}) V(s_{t+1}) + λ_{t+1} G_{t+1}), λ_t = λ where ``keep[t]``, else 0.

    Without ``keep``: Peng's Q(λ), which follows the episode whatever policy wrote it (Peng & Williams 1994,
    "Incremental multi-step Q-learning"; Kozuno et al. 2021, "Revisiting Peng's Q(λ)"). With ``keep`` = "a_t is greedy":
    Watkins' Q(λ), which stops at the first exploratory action (Watkins 1989; Sutton & Barto 2018, section 12.10).
    λ = 0 is the one-step target, λ = 1 without ``keep`` the Monte-Carlo return.

    Args:
        rewards: [B, T].
        values: [B, T] V(s_t).
        lengths: [B] int64, at least 1.
        lam: λ.
        gamma: discount γ.
        keep: [B, T] bool, whether the trace passes through action t.

    Returns:
        [B, T], 0 in the padding.
    """
    _check_shapes(rewards, values, lengths)
    num_steps = rewards.shape[1]
    inside = step_mask(lengths, num_steps)
    zero = rewards.new_zeros(())
    rewards = torch.where(inside, rewards, zero)
    values = torch.where(inside, values, zero)
    traces = torch.full_like(values, lam) if keep is None else lam * keep.to(values.dtype)
    # Padding has neither reward nor value: going backwards, the sum is still 0 when the episode begins.
    targets = [rewards[:, -1]]
    for t in range(num_steps - 2, -1, -1):
        trace = traces[:, t + 1]
        following = (1 - trace) * values[:, t + 1] + trace * targets[-1]
        targets.append(rewards[:, t] + gamma * following)
    return torch.where(inside, torch.stack(targets[::-1], dim=1), zero)


def td_loss(
    q_taken: Tensor,
    targets: Tensor,
    mask: Tensor,
    kind: LossKind = "huber",
    weights: Tensor | None = None,
    delta: float = 1.0,
) -> Tensor:
    """Mean over the steps in the mask of w_b ℓ(Q(s_t, a_t) − target_t), a scalar.

    "mse": ℓ(x) = x² / 2. "huber": ℓ(x) = x² / 2 for |x| <= δ, δ (|x| − δ / 2) beyond (Mnih et al. 2015 clip the error).

    Args:
        q_taken, targets: [B, T].
        mask: [B, T] bool.
        weights: [B] importance weights w_b of the episodes; None: 1.
        delta: δ, in units of the targets.
    """
    if q_taken.shape != targets.shape or mask.shape != targets.shape or mask.dtype != torch.bool:
        raise ValueError(
            f"q_taken, targets and a bool mask must all be [B, T]; got {tuple(q_taken.shape)}, {tuple(targets.shape)} "
            f"and {mask.dtype} {tuple(mask.shape)}."
        )
    if kind not in ("huber", "mse"):
        raise ValueError(f"kind must be 'huber' or 'mse'; got {kind!r}.")
    # Before the loss, not after it: a NaN in the padding would come back as a gradient of 0 · NaN.
    errors = torch.where(mask, q_taken - targets, targets.new_zeros(()))
    losses = 0.5 * errors.square()
    if kind == "huber":
        losses = torch.where(errors.abs() <= delta, losses, delta * (errors.abs() - 0.5 * delta))
    if weights is not None:
        losses = losses * weights[:, None]
    return losses.sum() / mask.sum()


def _check_shapes(rewards: Tensor, values: Tensor, lengths: Tensor) -> None:
    if rewards.ndim != 2 or values.shape != rewards.shape or lengths.shape != rewards.shape[:1]:
        raise ValueError(
            f"rewards and values must both be [B, T] and lengths [B]; got {tuple(rewards.shape)}, "
            f"{tuple(values.shape)} and {tuple(lengths.shape)}."
        )


def _check_masks(q_values: Tensor, action_masks: Tensor) -> None:
    if action_masks.shape != q_values.shape or action_masks.dtype != torch.bool:
        raise ValueError(
            f"action_masks must be bool of shape {tuple(q_values.shape)}; got {action_masks.dtype} "
            f"{tuple(action_masks.shape)}."
        )
