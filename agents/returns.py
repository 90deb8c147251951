"""Returns and advantages of whole episodes: pure functions on tensors.

Arrays are [B, T], one row an episode whose first ``lengths[b]`` entries count; the rest is padding and never enters
anything. Undiscounted textbook names: r_t is the reward of action t, V(s_t) the value of the state before it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def step_mask(lengths: Tensor, num_steps: int) -> Tensor:
    """[B, num_steps] bool, True at the steps t < lengths[b]."""
    return torch.arange(num_steps, device=lengths.device) < lengths[:, None]


def gae(
    rewards: Tensor, values: Tensor, lengths: Tensor, bootstrap: Tensor, gamma: float = 1.0, lam: float = 0.95
) -> Tensor:
    """Generalised advantage estimation.

    A_t = Σ_{l ≥ 0} (γλ)^l δ_{t+l},  δ_t = r_t + γ V(s_{t+1}) − V(s_t).
    Schulman et al. 2016, "High-Dimensional Continuous Control Using Generalized Advantage Estimation", equation 16.

    Args:
        rewards: [B, T].
        values: [B, T] V(s_t).
        lengths: [B] int64, at least 1.
        bootstrap: [B] value of the state after the last step: V(s_length) where the episode was truncated, 0 where it
            terminated.
        gamma: discount γ.
        lam: λ; 1 gives the Monte-Carlo return minus the value, 0 the one-step temporal difference.

    Returns:
        [B, T] advantages, 0 in the padding.
    """
    _check_shapes(rewards, values, lengths, bootstrap)
    num_steps = rewards.shape[1]
    inside = step_mask(lengths, num_steps)
    zero = rewards.new_zeros(())
    last = torch.arange(num_steps, device=lengths.device) == lengths[:, None] - 1
    next_values = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    next_values = torch.where(last, bootstrap[:, None], next_values)
    deltas = torch.where(inside, rewards + gamma * next_values - values, zero)
    # Padding has delta 0 and comes after the episode: going backwards, the sum is still 0 when the episode begins.
    steps = list(deltas.unbind(1))
    for t in range(num_steps - 2, -1, -1):
        steps[t] = torch.add(steps[t], steps[t + 1], alpha=gamma * lam)
    return torch.stack(steps, dim=1)


def lambda_returns(
    rewards: Tensor, values: Tensor, lengths: Tensor, bootstrap: Tensor, gamma: float = 1.0, lam: float = 0.95
) -> Tensor:
    """λ-returns: G_t = r_t + γ ((1 − λ) V(s_{t+1}) + λ G_{t+1}), after the last step the bootstrap value.

    Equal to the advantages of :func:`gae` plus V(s_t). Sutton & Barto 2018, equation 12.18. Arguments as there.

    Returns:
        [B, T], 0 in the padding.
    """
    advantages = gae(rewards, values, lengths, bootstrap, gamma, lam)
    inside = step_mask(lengths, rewards.shape[1])
    return torch.where(inside, advantages + values, rewards.new_zeros(()))


def n_step_advantages(
    rewards: Tensor, values: Tensor, lengths: Tensor, bootstrap: Tensor, n: int, gamma: float = 1.0
) -> Tensor:
    """n-step advantages, cut where the episode ends.

    A_t = Σ_{i < n} γ^i r_{t+i} + γ^n V(s_{t+n}) − V(s_t).
    Mnih et al. 2016, "Asynchronous Methods for Deep Reinforcement Learning", section 4.

    Args:
        n: at least 1; 1 gives the one-step temporal difference, T or more the Monte-Carlo return minus the value.
        rewards, values, lengths, bootstrap, gamma: as for :func:`gae`.

    Returns:
        [B, T], 0 in the padding.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1; got {n}.")
    _check_shapes(rewards, values, lengths, bootstrap)
    num_steps = rewards.shape[1]
    inside, zero = step_mask(lengths, num_steps), rewards.new_zeros(())
    # The state after the last step: who looks exactly as far has its value there, who looks further meets it on the way
    # as if it were a reward; behind it there is nothing.
    after = torch.arange(num_steps + n, device=lengths.device) == lengths[:, None]
    ahead = F.pad(torch.where(inside, values, zero), (0, n)) + torch.where(after, bootstrap[:, None], zero)
    paid = F.pad(torch.where(inside, rewards, zero), (0, n)) + torch.where(after, bootstrap[:, None], zero)
    targets = gamma**n * ahead[:, n:]
    for i in range(n):
        targets = targets + gamma**i * paid[:, i : i + num_steps]
    return torch.where(inside, targets - values, zero)


def leave_one_out_advantages(scores: Tensor, groups: Tensor) -> Tensor:
    """Scores less the mean score of the others of their group.

    A_i = r_i − (1/(k − 1)) Σ_{j ≠ i} r_j over the k members of i's group.
    Kool et al. 2019, "Buy 4 REINFORCE Samples, Get a Baseline for Free!"; Ahmadian et al. 2024, "Back to Basics:
    Revisiting REINFORCE-Style Optimization for Learning from Human Feedback in LLMs", equation 8.

    Args:
        scores: [B].
        groups: [B] int64, the group of each, from 0; every group has two members at least.

    Returns:
        [B]; they add up to 0 in every group.
    """
    count, mean = _group_means(scores, groups)
    return (count / (count - 1) * (scores.double() - mean)).to(scores.dtype)


def group_normalised_advantages(
    scores: Tensor, groups: Tensor, normalise_std: bool = True, epsilon: float = 1e-4
) -> Tensor:
    """Scores less the mean score of their group, in units of its standard deviation.

    A_i = (r_i − mean r) / std r. Shao et al. 2024, "DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open
    Language Models", section 4.1.2. Without the division: Liu et al. 2025, "Understanding R1-Zero-Like Training: A
    Critical Perspective", since it makes groups count more that are nearly always or nearly never right.

    Args:
        scores, groups: as for :func:`leave_one_out_advantages`.
        normalise_std: divide by the standard deviation (of the k scores, not an estimate from a sample).
        epsilon: added to it: a group whose scores are all the same has advantages of 0.

    Returns:
        [B]; they add up to 0 in every group.
    """
    _, mean = _group_means(scores, groups)
    centred = scores.double() - mean
    if normalise_std:
        _, variance = _group_means(centred.square(), groups)
        centred = centred / (variance.sqrt() + epsilon)
    return centred.to(scores.dtype)


def _group_means(scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """For each entry [B], how many there are in its group and their mean; in float64, so that of equal scores the mean
    is the score: what is left of it by rounding, an optimiser would blow up."""
    if scores.ndim != 1 or groups.shape != scores.shape:
        raise ValueError(f"scores and groups must both be [B]; got {tuple(scores.shape)} and {tuple(groups.shape)}.")
    count = torch.bincount(groups)
    if (count == 1).any():
        raise ValueError("A text can only be compared with others of its group: every group needs two members.")
    sums = torch.zeros(len(count), dtype=torch.float64, device=scores.device).index_add(0, groups, scores.double())
    return count[groups], (sums / count)[groups]


def whiten(x: Tensor, mask: Tensor, shift_mean: bool = True, epsilon: float = 1e-8) -> Tensor:
    """Scale to variance 1 over the entries in the mask, and shift them to mean 0 unless told to leave zero where it is.

    Args:
        x: any shape.
        mask: bool, same shape.
        shift_mean: False only divides, for rewards, whose zero has a meaning. (The code of Ziegler et al. 2019 adds the
            mean back instead; that pays every token a constant, and so rewards or punishes length.)
        epsilon: added to the standard deviation.

    Returns:
        Same shape, 0 outside the mask.
    """
    if x.shape != mask.shape or mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool of shape {tuple(x.shape)}; got {mask.dtype} {tuple(mask.shape)}.")
    zero = x.new_zeros(())
    count = mask.sum()
    mean = torch.where(mask, x, zero).sum() / count
    centred = torch.where(mask, x - mean, zero)
    std = (centred.square().sum() / count).sqrt() + epsilon
    return (centred if shift_mean else torch.where(mask, x, zero)) / std


def _check_shapes(rewards: Tensor, values: Tensor, lengths: Tensor, bootstrap: Tensor) -> None:
    if rewards.ndim != 2 or values.shape != rewards.shape:
        raise ValueError(
            f"rewards and values must both be [B, T]; got {tuple(rewards.shape)} and {tuple(values.shape)}."
        )
    for name, x in (("lengths", lengths), ("bootstrap", bootstrap)):
        if x.shape != rewards.shape[:1]:
            raise ValueError(f"{name} must be [{rewards.shape[0]}], one entry per episode; got {tuple(x.shape)}.")
