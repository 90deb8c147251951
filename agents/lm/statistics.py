"""Log-probability and entropy of tokens over a large vocabulary, with as little as possible kept for the gradient."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class _LogprobAndEntropy(torch.autograd.Function):
    """With z the logits, p = softmax(z) and H the entropy: ∂ log p_a / ∂z = 1_a − p and ∂H / ∂z = −p (log p + H).

    PyTorch would keep one [M, V] tensor for each of its steps; here it is one for both results. Above all, nothing is
    left over if only one of the two is used: what a checkpoint has computed again for a result that has no gradient
    would stay until the whole backward pass is done.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        logprobs = F.log_softmax(logits, -1)
        chosen = logprobs.gather(-1, tokens[:, None])[:, 0]
        entropies = -torch.einsum("mv,mv->m", logprobs.exp(), logprobs)
        ctx.save_for_backward(logprobs, tokens, entropies)
        ctx.set_materialize_grads(False)
        return chosen, entropies

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_chosen: Tensor | None, of_entropies: Tensor | None) -> tuple[Tensor | None, None]:
        logprobs, tokens, entropies = ctx.saved_tensors
        probabilities = logprobs.exp()
        gradient = None
        if of_entropies is not None:
            gradient = (logprobs + entropies[:, None]).mul_(probabilities).mul_(-of_entropies[:, None])
        if of_chosen is not None:
            other = probabilities.mul_(-of_chosen[:, None])
            gradient = other if gradient is None else gradient.add_(other)
            gradient.scatter_add_(1, tokens[:, None], of_chosen[:, None])
        return gradient, None


def logprob_and_entropy(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of tokens, and entropies of the distributions that they come from.

    Args:
        logits: [M, V] float32.
        tokens: [M] int64.

    Returns:
        Two tensors [M], in nats.
    """
    results: tuple[Tensor, Tensor] = _LogprobAndEntropy.apply(logits, tokens)
    return results


def logprob_entropy_and_kl(logits: Tensor, ref_logprobs: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of tokens, and of the distributions that they come from entropy and KL(π ‖ π_ref), exact:
    over all V tokens.

    Args:
        logits: [M, V] float32, with gradients.
        ref_logprobs: [M, V] log π_ref, normalised; illegal tokens may stand at −1e9, where π is 0 too.
        tokens: [M] int64.

    Returns:
        Three tensors [M], in nats.
    """
    logprobs = F.log_softmax(logits, -1)
    probabilities = logprobs.exp()
    chosen = logprobs.gather(-1, tokens[:, None])[:, 0]
    return chosen, -(probabilities * logprobs).sum(-1), (probabilities * (logprobs - ref_logprobs)).sum(-1)
