"""The KL-regularised problem over texts that can all be listed, in closed form: pure functions on float64 arrays [N].

For a reference π_ref, scores r and β > 0 it asks for the policy that maximises E_π[r] − β KL(π ‖ π_ref). The answer is
the reference tilted towards the score, π* ∝ π_ref · exp(r / β), and what it reaches is β log E_ref[exp(r / β)] (Ziegler
et al. 2019, "Fine-Tuning Language Models from Human Preferences"; Rafailov et al. 2023, "Direct Preference
Optimization", equations 3 and 4). KL is in nats; a log-probability may be −inf.
"""

from __future__ import annotations

import numpy as np


def check_beta(beta: float) -> float:
    """Return β if it is a positive finite number.

    Raises:
        ValueError: it is not.
    """
    if isinstance(beta, bool) or not isinstance(beta, int | float | np.integer | np.floating):
        raise ValueError(f"beta, the weight of the KL, must be a number; got {beta!r}.")
    if not 0 < beta < np.inf:
        raise ValueError(
            f"beta, the weight of the KL, must be positive and finite; got {beta}. Without any weight the best policy "
            f"is the reference among the best texts: best_logprobs."
        )
    return float(beta)


def logsumexp(values: np.ndarray) -> float:
    """log Σ exp(values), −inf for nothing but −inf."""
    highest = float(values.max(initial=-np.inf))
    return highest if highest == -np.inf else highest + float(np.log(np.exp(values - highest).sum()))


def expected(logprobs: np.ndarray, values: np.ndarray) -> float:
    """E_π[values]; a text of probability 0 counts nothing."""
    return float(np.exp(logprobs) @ values)


def kl_divergence(logprobs: np.ndarray, ref_logprobs: np.ndarray) -> float:
    """KL(π ‖ π_ref) = Σ π (log π − log π_ref), in nats; inf if π writes what π_ref never does."""
    written = logprobs > -np.inf
    own, other = logprobs[written], ref_logprobs[written]
    if (other == -np.inf).any():
        return np.inf
    # Rounding may leave a tiny negative number where both are the same.
    return max(0.0, float(np.exp(own) @ (own - other)))


def entropy(logprobs: np.ndarray) -> float:
    """−Σ π log π, in nats."""
    written = logprobs[logprobs > -np.inf]
    return float(-(np.exp(written) @ written))


def soft_value(ref_logprobs: np.ndarray, scores: np.ndarray, beta: float) -> float:
    """β log E_ref[exp(r / β)]: the most that E_π[r] − β KL(π ‖ π_ref) can be.

    Raises:
        ValueError: β is not positive.
    """
    beta = check_beta(beta)
    return beta * logsumexp(ref_logprobs + scores / beta)


def tilted_logprobs(ref_logprobs: np.ndarray, scores: np.ndarray, beta: float) -> np.ndarray:
    """log π* = log π_ref + r / β − log E_ref[exp(r / β)], [N].

    Raises:
        ValueError: β is not positive.
    """
    beta = check_beta(beta)
    logits = ref_logprobs + scores / beta
    return logits - logsumexp(logits)


def best_logprobs(ref_logprobs: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The limit of the tilted policy for β → 0, [N]: the reference among those of its texts that score best."""
    possible = ref_logprobs > -np.inf
    best = possible & (scores == scores[possible].max())
    logprobs = np.where(best, ref_logprobs, -np.inf)
    return logprobs - logsumexp(logprobs)


def best_of_n_logprobs(ref_logprobs: np.ndarray, scores: np.ndarray, n: int) -> np.ndarray:
    """Best-of-n, exactly, [N]: draw n texts from the reference and keep the one that scores best, of equals the first.

    With F(s) the reference's probability of a score of s or less, the best has score s with probability F(s)^n −
    F(s−)^n, and given that it is distributed as the reference is among the texts of that score.

    Raises:
        ValueError: n is not a positive integer.
    """
    check_n(n)
    values, group = np.unique(scores, return_inverse=True)  # ascending
    mass = np.bincount(group, weights=np.exp(ref_logprobs), minlength=len(values))
    up_to = np.minimum(np.cumsum(mass), 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        # log(F(s)^n − F(s−)^n) without the difference of two numbers that are nearly the same.
        share = np.minimum(mass / up_to, 1.0)
        chance = n * np.log(up_to) + np.log(-np.expm1(n * np.log1p(-share)))
        logprobs = ref_logprobs - np.log(mass)[group] + chance[group]
    return np.where(ref_logprobs > -np.inf, logprobs, -np.inf)


def best_of_n_bound(n: int) -> float:
    """log n − (n − 1) / n, in nats: what is often given as the KL of best-of-n to its reference.

    It is an upper bound, reached where no two texts score the same and each is improbable (Beirami et al. 2024,
    "Theoretical guarantees on the best-of-n alignment policy").

    Raises:
        ValueError: n is not a positive integer.
    """
    check_n(n)
    return float(np.log(n) - (n - 1) / n)


def check_n(n: int) -> None:
    """Raise ValueError unless n is a positive integer."""
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise ValueError(f"n, the texts that the best is chosen from, must be a positive integer; got {n!r}.")
