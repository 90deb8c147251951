"""Losses of the off-policy agents: pure functions on tensors, each with its formula and source.

Arrays are [B, T], one row an episode whose first ``lengths[b]`` steps count; what stands behind them, NaN included,
enters nothing. The reward is one score at the end, and nothing is discounted. Q-learning's targets and loss are in
:mod:`agents.targets`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from agents.losses import masked_mean
from agents.policies import mask_logits
from agents.returns import gae, step_mask

# -- policies over the legal actions -----------------------------------------------------------------------------------


def log_policy(logits: Tensor, action_masks: Tensor | None = None) -> Tensor:
    """log softmax over the legal actions, [..., V]; illegal ones are at about −1e9, so that probability times
    log-probability is 0 and not NaN.

    Args:
        logits: [..., V].
        action_masks: [..., V] bool, True where legal; None: all are.
    """
    return F.log_softmax(mask_logits(logits, action_masks), -1)


def policy_entropy(logprobs: Tensor) -> Tensor:
    """−Σ_a π(a) log π(a), [...], of log-probabilities [..., V]; illegal actions count nothing."""
    return -(logprobs.exp() * logprobs).sum(-1)


def soft_values(q_values: Tensor, tau: float, action_masks: Tensor | None = None) -> Tensor:
    """Soft maximum over the legal actions, V(s) = τ log Σ_a exp(Q(s, a) / τ), [...].

    Haarnoja et al. 2017, "Reinforcement Learning with Deep Energy-Based Policies".

    Args:
        q_values: [..., V].
        tau: temperature τ, in units of Q.
        action_masks: [..., V] bool or None.
    """
    if action_masks is not None:
        q_values = q_values.masked_fill(~action_masks, float("-inf"))
    return tau * torch.logsumexp(q_values / tau, -1)


# -- soft actor-critic -------------------------------------------------------------------------------------------------


def sac_values(logprobs: Tensor, q_1: Tensor, q_2: Tensor, alpha: Tensor | float) -> Tensor:
    """Soft value of the policy, V(s) = Σ_a π(a) (min(Q_1, Q_2)(s, a) − α log π(a)), [...].

    Christodoulou 2019, "Soft Actor-Critic for Discrete Action Settings", equation 10: the expectation over actions is
    taken exactly, where the continuous algorithm samples. Illegal actions have probability 0 and count nothing.

    Args:
        logprobs: [..., V] log π, from :func:`log_policy`.
        q_1, q_2: [..., V] of the two critics.
        alpha: temperature α.
    """
    return (logprobs.exp() * (torch.minimum(q_1, q_2) - alpha * logprobs)).sum(-1)


def sac_policy_loss(logprobs: Tensor, q_1: Tensor, q_2: Tensor, alpha: Tensor | float, mask: Tensor) -> Tensor:
    """What the policy minimises, a scalar: mean over the steps of Σ_a π(a) (α log π(a) − min(Q_1, Q_2)(s, a)).

    Christodoulou 2019, equation 12. No gradient goes into the critics or the temperature.

    Args:
        logprobs: [B, T, V] log π, with gradients.
        q_1, q_2: [B, T, V].
        alpha: temperature α.
        mask: [B, T] bool, the generated tokens.
    """
    fixed = alpha.detach() if isinstance(alpha, Tensor) else alpha
    return -masked_mean(sac_values(logprobs, q_1.detach(), q_2.detach(), fixed), mask)


def sac_temperature_loss(log_alpha: Tensor, entropies: Tensor, target_entropies: Tensor, mask: Tensor) -> Tensor:
    """Raises the temperature where the entropy is below its target, a scalar: mean of log α · (H(π(s)) − target(s)).

    Christodoulou 2019, equation 11, with log α for α, as in the code of Haarnoja et al. 2018, "Soft Actor-Critic
    Algorithms and Applications". Only log α gets a gradient.

    Args:
        log_alpha: scalar.
        entropies: [B, T] of the policy.
        target_entropies: [B, T], e.g. from :func:`target_entropies`.
        mask: [B, T] bool, the generated tokens.
    """
    return log_alpha * masked_mean((entropies - target_entropies).detach(), mask)


def target_entropies(share: float, q_values: Tensor, action_masks: Tensor | None = None) -> Tensor:
    """share · log(number of legal actions) in each state, [...]: the entropy of a uniform choice among them, in part.

    Christodoulou 2019 has 0.98 log(number of actions) in all states. Where one action is legal the target is 0.

    Args:
        share: from 0 to 1.
        q_values: [..., V], of which the shape and device matter only.
        action_masks: [..., V] bool or None: all are legal.
    """
    legal = torch.ones_like(q_values, dtype=torch.bool) if action_masks is None else action_masks
    return share * torch.log(legal.sum(-1).clamp(min=1).to(q_values.dtype))


# -- soft Q-learning ---------------------------------------------------------------------------------------------------


def path_consistency_loss(
    logprobs: Tensor, values: Tensor, scores: Tensor, lengths: Tensor, tau: float, weights: Tensor | None = None
) -> Tensor:
    """Mean over the steps t of ½ (V(s_t) + τ Σ_{i >= t} log π(a_i|s_i) − score)², a scalar: each suffix is a path.

    Along any path of the optimal entropy-regularised policy the value at its start is what is earned on it less
    τ log π of its actions, whoever chose them: so data of any policy will do, and the score reaches all tokens at
    once. Nachum et al. 2017, "Bridging the Gap Between Value and Policy Based Reinforcement Learning";
    Guo et al. 2021, "Efficient (Soft) Q-Learning for Text Generation with Limited Good Data".

    With a reference in the place of the entropy, log π − log π_ref stands where log π does.

    Args:
        logprobs: [B, T] of the tokens written.
        values: [B, T] V(s_t).
        scores: [B].
        lengths: [B] int64, at least 1.
        tau: temperature τ, in units of the score.
        weights: [B] importance weights of the episodes; None: 1.
    """
    mask = step_mask(lengths, logprobs.shape[1])
    rest = torch.where(mask, logprobs, 0.0).flip(1).cumsum(1).flip(1)
    errors = torch.where(mask, values + tau * rest - scores[:, None], 0.0)
    losses = 0.5 * errors.square()
    if weights is not None:
        losses = losses * weights[:, None]
    return losses.sum() / mask.sum()


def consistency_errors(
    log_ratios: Tensor, values: Tensor, scores: Tensor, lengths: Tensor, tau: float, lam: float
) -> Tensor:
    """How far episodes are from soft consistency with a reference, e_t = Σ_{l >= 0} λ^l δ_{t+l}, [B, T].

    δ_t = r_t − τ log (π / π_ref)(a_t|s_t) + V(s_{t+1}) − V(s_t), where r_t is the score at the last step and 0 before,
    and V is 0 after it. The optimum of E[score] − τ KL(π ‖ π_ref), π* ∝ π_ref · exp(Q / τ), has δ_t = 0 on every path,
    whoever wrote it, so any λ-weighted sum will do. λ = 0 is the one-step soft Bellman error, λ = 1 that of the path to
    the end. Nachum et al. 2017, "Bridging the Gap Between Value and Policy Based Reinforcement Learning", equations 13
    and 15, with a reference as in their "Trust-PCL" (2018) and λ as in generalised advantage estimation.

    Args:
        log_ratios: [B, T] log π − log π_ref of the tokens written.
        values: [B, T] V(s_t).
        scores: [B].
        lengths: [B] int64, at least 1.
        tau: temperature τ, in units of the score.
        lam: λ.
    """
    last = torch.arange(values.shape[1], device=lengths.device) == lengths[:, None] - 1
    rewards = torch.where(last, scores[:, None], 0.0) - tau * log_ratios
    return gae(rewards, values, lengths, torch.zeros_like(scores), 1.0, lam)


def truncated_weights(logprobs: Tensor, behaviour_logprobs: Tensor, mask: Tensor) -> Tensor:
    """How much of a text's beginning the policy would still write, min(1, Π_{i <= t} π(a_i|s_i) / μ(a_i|s_i)), [B, T].

    Consistency holds on any data, so nothing here corrects a bias at the optimum. But a text that the policy has given
    up would be pushed down for ever, and what is taken from it goes to texts that nobody has seen. Weights truncated at
    1: Munos et al. 2016, "Safe and Efficient Off-Policy Reinforcement Learning"; for language models Le Roux et al.
    2025, "Tapered Off-Policy REINFORCE".

    Args:
        logprobs, behaviour_logprobs: [B, T] log π and log μ of the tokens, μ being who wrote them.
        mask: [B, T] bool, the generated tokens.
    """
    return torch.where(mask, logprobs - behaviour_logprobs, 0.0).cumsum(1).clamp(max=0.0).exp()


def consistency_losses(
    log_ratios: Tensor,
    values: Tensor,
    errors: Tensor,
    mask: Tensor,
    weights: Tensor | None = None,
    kls: Tensor | None = None,
    tau: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """What the policy and what the values minimise, two scalars; the errors and the targets made of them are fixed.

    With Q_t = V(s_t) + τ log (π / π_ref) and the target Q_t + e_t, the gradient of ½ mean (Q_t − target)² is
    −τ mean e_t ∇log π in the policy and −mean e_t ∇V in the values. The policy's loss is the former over τ,
    −mean w_t (e_t − ē) log (π / π_ref), so that its size does not depend on τ. The weighted mean error ē of the
    minibatch is taken off: an error that all texts share is the values' to mend, and left in, it makes whatever is
    replayed more likely. At the optimum all errors are 0, and ē with them.

    With ``kls`` the part −τ log (π / π_ref)(a_t|s_t) of e_t, a sample of the KL in s_t, is left to the exact one: the
    loss is −mean w_t (g_t − ḡ) log (π / π_ref) + τ mean KL(s_t), g_t = e_t + τ log (π / π_ref)(a_t|s_t). On texts of
    the policy's own its gradient is the same in expectation. On others' no sample says what a token costs that nobody
    has written, where what is taken from bad tokens goes; the exact KL does. Its price: g_t is not 0 at the optimum, so
    that replayed texts of other policies leave a bias there, and all texts noise.

    Args:
        log_ratios, values: [B, T], with gradients.
        errors: [B, T] from :func:`consistency_errors`.
        mask: [B, T] bool, the generated tokens.
        weights: [B, T] w of the tokens in the policy's loss, e.g. from :func:`truncated_weights`; None: 1.
        kls: [B, T] KL(π ‖ π_ref) of the states, with gradients.
        tau: temperature τ of ``kls``.
    """
    # Before the losses, not in them: a NaN in the padding would come back as a gradient of 0 · NaN.
    log_ratios, values, errors = (torch.where(mask, x, 0.0) for x in (log_ratios, values, errors.detach()))
    weights = mask.to(errors.dtype) if weights is None else torch.where(mask, weights.detach(), 0.0)
    gains = errors if kls is None else errors + tau * log_ratios.detach()
    mean = (weights * gains).sum() / weights.sum()
    policy = -masked_mean(weights * (gains - mean) * log_ratios, mask)
    if kls is not None:
        policy = policy + tau * masked_mean(kls, mask)
    value = 0.5 * masked_mean((values - (values + errors).detach()).square(), mask)
    return policy, value


# -- return decomposition ----------------------------------------------------------------------------------------------


def return_decomposition_loss(contributions: Tensor, baseline: Tensor, scores: Tensor, mask: Tensor) -> Tensor:
    """Mean over the episodes of (b + Σ_t f_t − score)², a scalar: contributions of the tokens that add up to the score.

    Efroni et al. 2021, "Reinforcement Learning with Trajectory Feedback"; Ren et al. 2022, "Learning Long-Term Reward
    Redistribution via Randomized Return Decomposition", equation 4. Where the score is a function of the text, as here,
    episodes of any policy will do, and neither targets nor importance weights are needed.

    Args:
        contributions: [B, T] f_t of the tokens written.
        baseline: [B] b, what the prompt alone lets expect.
        scores: [B].
        mask: [B, T] bool, the generated tokens.
    """
    errors = baseline + torch.where(mask, contributions, 0.0).sum(1) - scores
    return errors.square().mean()


def continuation_targets(probabilities: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """What the continuation after token t is worth, [B, T]: Σ_a π(a|s_{t+1}) (f + c)(s_{t+1}, a), 0 after the last one.

    Expected SARSA on contributions in place of rewards (van Seijen et al. 2009, "A Theoretical and Empirical Analysis
    of Expected Sarsa").

    Args:
        probabilities: [B, T, V] π.
        values: [B, T, V] f + c, contribution and continuation of each token.
        mask: [B, T] bool, the generated tokens.
    """
    expected = torch.where(mask, (probabilities * values).sum(-1), 0.0)
    return F.pad(expected[:, 1:], (0, 1))


def continuation_evidence(
    probabilities: Tensor,
    contributions: Tensor,
    continuations: Tensor,
    actions: Tensor,
    remaining: Tensor,
    mask: Tensor,
) -> tuple[Tensor, Tensor]:
    """Whether what tokens are said to make of the rest of the text shows in the scores: (Σ x y, Σ x²), two scalars.

    x = c(s_t, a_t) − E_π c(s_t, ·) is what token a_t promises beyond the average of the policy; y is what came after
    it beyond that average. The slope Σ x y / Σ x² of their regression is 1 where the promises hold, 0 where they are
    noise. The last token of a text has no continuation and does not count.

    Args:
        probabilities: [B, T, V] π of the policy that wrote.
        contributions: [B, T] f of the tokens written.
        continuations: [B, T, V] c of every token.
        actions: [B, T] int64, the tokens written.
        remaining: [B] the scores less the baseline: what the contributions should add up to.
        mask: [B, T] bool, the generated tokens.
    """
    earned = torch.where(mask, contributions, 0.0).cumsum(1)
    average = (probabilities * continuations).sum(-1)
    promised = continuations.gather(-1, actions[..., None])[..., 0] - average
    came = remaining[:, None] - earned - average
    counts = mask & F.pad(mask[:, 1:], (0, 1))
    zero = promised.new_zeros(())
    return torch.where(counts, promised * came, zero).sum(), torch.where(counts, promised**2, zero).sum()


def self_imitation_loss(logprobs: Tensor, gains: Tensor, mask: Tensor) -> Tensor:
    """−mean over the episodes of max(gain, 0) · Σ_t log π(a_t|s_t), a scalar: texts that were better than expected are
    written again.

    Oh et al. 2018, "Self-Imitation Learning", equation 2, with one gain for the whole text.

    Args:
        logprobs: [B, T] of the tokens written, with gradients.
        gains: [B] score − what was expected; no gradient goes into it.
        mask: [B, T] bool, the generated tokens.
    """
    return -(torch.where(mask, logprobs, 0.0).sum(1) * gains.detach().clamp(min=0)).mean()
