"""Losses: pure functions on tensors, each with its formula and source."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``x`` over the entries where the bool ``mask`` of the same shape is True; what stands elsewhere,
    infinities and NaN included, does not count."""
    _check_mask(x, mask)
    return torch.where(mask, x, 0.0).sum() / mask.sum()


LengthNormalisation = Literal["tokens", "texts", "budget"]


def mean_of_texts(x: Tensor, mask: Tensor, length_normalisation: LengthNormalisation = "tokens") -> Tensor:
    """Mean of ``x`` [B, T] over texts of unequal length, in one of the three ways that are in use.

    - ``"tokens"``, Σ_i Σ_t x_it / Σ_i |o_i|: every token counts alike, so long texts count more (Yu et al. 2025, "DAPO:
      An Open-Source LLM Reinforcement Learning System at Scale", equation 8).
    - ``"texts"``, (1/B) Σ_i (1/|o_i|) Σ_t x_it: every text counts alike, so a token of a long text counts less (Shao et
      al. 2024, "DeepSeekMath", equation 3).
    - ``"budget"``, (1/B) Σ_i (1/T) Σ_t x_it: sums over tokens, divided by a constant (Liu et al. 2025, "Understanding
      R1-Zero-Like Training: A Critical Perspective", the "Dr. GRPO" of section 3.2).

    Args:
        x: [B, T]; what stands outside the mask does not count.
        mask: [B, T] bool, the |o_i| generated tokens of each text.
    """
    if length_normalisation == "tokens":
        return masked_mean(x, mask)
    _check_mask(x, mask)
    sums = torch.where(mask, x, 0.0).sum(1)
    return (sums / (mask.sum(1) if length_normalisation == "texts" else mask.shape[1])).mean()


# -- PPO ---------------------------------------------------------------------------------------------------------------


class PolicyLoss(NamedTuple):
    """Result of :func:`ppo_policy_loss`; all scalars, only ``loss`` carries gradients."""

    loss: Tensor
    approx_kl: Tensor
    clipfrac: Tensor


def ppo_policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip_coef: float,
    length_normalisation: LengthNormalisation = "tokens",
) -> PolicyLoss:
    """Clipped surrogate objective, to be minimised.

    −mean min(ρ A, clip(ρ, 1 − ε, 1 + ε) A),  ρ = π(a|s) / π_old(a|s).
    Schulman et al. 2017, "Proximal Policy Optimization Algorithms", equation 7.

    Args:
        logprobs: [B, T] under the current weights.
        old_logprobs: [B, T] as sampled.
        advantages: [B, T].
        mask: [B, T] bool, the generated tokens.
        clip_coef: ε.
        length_normalisation: which mean; see :func:`mean_of_texts`.

    Returns:
        The loss; approx_kl, the estimator k3 = mean((ρ − 1) − log ρ) of KL(π_old ‖ π)
        (Schulman 2020, "Approximating KL Divergence"); clipfrac, the share of tokens with |ρ − 1| > ε; both over the
        tokens of all texts, or of each text and then over texts where the loss counts texts.
    """
    for x in (old_logprobs, advantages):
        _check_mask(x, mask)
    log_ratio = torch.where(mask, logprobs - old_logprobs, 0.0)  # the ratio of padding is 1: no KL, nothing clipped
    ratio = log_ratio.exp()
    # min(ρ A, clip(ρ) A) is ρ A with ρ bounded on the side where moving further would pay; written so, the gradient
    # takes a third of the operations that it takes through the minimum.
    gains = advantages > 0
    upper = torch.where(gains, 1 + clip_coef, torch.inf)
    lower = torch.where(gains, -torch.inf, 1 - clip_coef)
    surrogate = ratio.clamp(lower, upper) * advantages
    with torch.no_grad():
        change = ratio - 1
        figures: LengthNormalisation = "tokens" if length_normalisation == "tokens" else "texts"
        approx_kl = mean_of_texts(change - log_ratio, mask, figures)
        clipfrac = mean_of_texts((change.abs() > clip_coef).to(change.dtype), mask, figures)
    return PolicyLoss(-mean_of_texts(surrogate, mask, length_normalisation), approx_kl, clipfrac)


def policy_gradient_loss(logprobs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    """−mean log π(a|s) A over tokens, whose gradient is the policy gradient of tokens drawn from π.

    Williams 1992, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning", theorem
    1; Sutton et al. 1999, "Policy Gradient Methods for Reinforcement Learning with Function Approximation".

    Args:
        logprobs: [B, T] under the current weights.
        advantages: [B, T], no gradients.
        mask: [B, T] bool, the generated tokens.
    """
    _check_mask(advantages, mask)
    return -masked_mean(logprobs * advantages, mask)


def ppo_value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, value_clip: float | None
) -> Tensor:
    """Squared error of the values, the pessimistic one of two where they moved far.

    ½ mean max((V − R)², (V_old + clip(V − V_old, −ε, ε) − R)²). Not in the PPO paper: from its reference code
    (openai/baselines, ppo2). ``value_clip=None`` is ½ mean (V − R)².

    Args:
        values, old_values, returns: [B, T] V, V_old at the time of the rollout, R.
        mask: [B, T] bool, the generated tokens.
        value_clip: ε, in units of the reward.
    """
    for x in (values, old_values, returns):
        _check_mask(x, mask)
    errors = (values - returns).square()
    if value_clip is not None:
        with torch.no_grad():  # a clipped value has no gradient
            # Values within the limits come out as they are, to the bit: rounding must not choose a gradient of 0.
            clipped = values.clamp(old_values - value_clip, old_values + value_clip)
            clipped_errors = (clipped - returns).square()
        errors = torch.where(clipped_errors > errors, clipped_errors, errors)
    return 0.5 * masked_mean(errors, mask)


# -- Kullback-Leibler divergence ---------------------------------------------------------------------------------------


def kl_k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Estimator k1 of KL(π ‖ π_ref) from tokens drawn from π: log π − log π_ref.

    Unbiased, of either sign; summed over the tokens of a text it is that text's log ratio. It is the one in rewards.
    Schulman 2020, "Approximating KL Divergence". Arguments of any one shape.
    """
    return logprobs - ref_logprobs


def kl_k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Estimator k3 of KL(π ‖ π_ref) from tokens drawn from π: (r − 1) − log r,  r = π_ref / π.

    Unbiased, never negative, of smaller variance than k1 where the two are close. Where they are far apart its mean
    hangs on tokens that are hardly ever drawn, and samples fall short of it by up to 1 a token: read k1 there. Source
    and arguments as for :func:`kl_k1`.
    """
    log_ratio = ref_logprobs - logprobs
    return log_ratio.exp() - 1 - log_ratio


def adapt_kl_coef(kl_coef: float, kl: float, kl_target: float, num_episodes: int, horizon: int) -> float:
    """The coefficient of a KL penalty after a batch: larger where the KL was above its target, smaller where below.

    β ← β (1 + e n / h),  e = clip(KL / target − 1, −0.2, 0.2).
    Ziegler et al. 2019, "Fine-Tuning Language Models from Human Preferences", section 2.2.

    Args:
        kl_coef: β.
        kl: mean KL of an episode, a sum over its tokens.
        kl_target: what it should be.
        num_episodes: n, episodes of the batch.
        horizon: h, in episodes.
    """
    error = min(max(kl / kl_target - 1, -0.2), 0.2)
    return kl_coef * (1 + error * num_episodes / horizon)


# -- preferences -------------------------------------------------------------------------------------------------------


def preference_loss(
    margins: Tensor, weights: Tensor, *, label_smoothing: float | Tensor = 0.0, offsets: Tensor | None = None
) -> Tensor:
    """Negative log-likelihood of preferences under the model of Bradley and Terry: −Σ w log σ(d),
    d = r_chosen − r_rejected − m; with label smoothing ε it is −Σ w [(1 − ε) log σ(d) + ε log σ(−d)].

    Ouyang et al. 2022, "Training language models to follow instructions with human feedback", equation 1, where the
    C(K, 2) pairs of a prompt weigh as much together as one prompt does. The margin m is that of Touvron et al. 2023,
    "Llama 2", equation 2. Only differences of scores count.

    Args:
        margins: [M] r_chosen − r_rejected of M pairs.
        weights: [M] w, of sum 1: for a mean over prompts, 1 / (prompts · pairs of the prompt).
        label_smoothing: ε, the share of labels that are taken to be wrong, in [0, ½); or [M], one for each label: with
            soft labels p it is 1 − p, and the loss the cross-entropy with them (Lee et al. 2023, "RLAIF", section 2.2).
        offsets: [M] m, by how much the chosen one ought to be better; default 0.
    """
    if offsets is not None:
        margins = margins - offsets
    losses = -F.logsigmoid(margins)
    if isinstance(label_smoothing, Tensor) or label_smoothing:
        losses = (1 - label_smoothing) * losses - label_smoothing * F.logsigmoid(-margins)
    return (weights * losses).sum()


def dpo_loss(log_ratios: Tensor, weights: Tensor, beta: float, *, label_smoothing: float | Tensor = 0.0) -> Tensor:
    """Direct preference optimisation: −Σ w [(1 − ε) log σ(β h) + ε log σ(−β h)],
    h = log π/π_ref (chosen) − log π/π_ref (rejected).

    Rafailov et al. 2023, "Direct Preference Optimization", equation 7; label smoothing: Mitchell 2023, "A note on DPO
    with noisy preferences". It is log 2 where π = π_ref.

    Args:
        log_ratios: [M] h, of sums over the tokens of each answer.
        weights: [M] w, of sum 1.
        beta: β, the coefficient of the KL divergence in the objective whose optimum this is.
        label_smoothing: ε, the share of labels that are taken to be wrong, in [0, ½); or [M], one for each label.
    """
    return preference_loss(beta * log_ratios, weights, label_smoothing=label_smoothing)


def ipo_loss(log_ratios: Tensor, weights: Tensor, beta: float, *, label_smoothing: float | Tensor = 0.0) -> Tensor:
    """Identity preference optimisation: Σ w (h − (1 − 2 ε) / (2 β))².

    Azar et al. 2023, "A General Theoretical Paradigm to Understand Learning from Human Preferences", equation 17,
    where β is τ. Unlike DPO's loss it does not pull on once a pair is told apart far enough.

    Args:
        log_ratios: [M] h as for :func:`dpo_loss`, but of means over the tokens of each answer, the form that the
            paper's results are of (so TRL, which has asked its authors).
        weights: [M] w, of sum 1.
        beta: β.
        label_smoothing: ε, how probably a label is wrong, or [M], one for each: h is drawn to (p − ½) / β, p = 1 − ε,
            which has the gradient of the mean over both labels.
    """
    return (weights * (log_ratios - (1 - 2 * label_smoothing) / (2 * beta)).square()).sum()


# -- how good a fit is -------------------------------------------------------------------------------------------------


def explained_variance(predictions: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """1 − Var(target − prediction) / Var(target) over the mask: 1 is perfect, 0 no better than a constant, NaN where
    the targets do not vary."""
    for x in (predictions, targets):
        _check_mask(x, mask)
    selected = targets[mask]
    variance = selected.var(correction=0)
    ratio = (selected - predictions[mask]).var(correction=0) / variance
    return torch.where(variance > 0, 1 - ratio, torch.full_like(ratio, float("nan")))


def _check_mask(x: Tensor, mask: Tensor) -> None:
    if x.shape != mask.shape or mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool of shape {tuple(x.shape)}; got {mask.dtype} {tuple(mask.shape)}.")
