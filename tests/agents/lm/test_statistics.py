"""Log-probability and entropy of tokens: literal numbers, and gradients by finite differences."""

from __future__ import annotations

import math

import pytest
import torch

from agents.lm.statistics import logprob_and_entropy


def test_literal_numbers() -> None:
    logits = torch.tensor([[0.5, 0.25, 0.25], [1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]).log()
    logits[2] = torch.tensor([0.0, -1e9, -1e9])  # forbidden
    chosen, entropies = logprob_and_entropy(logits + 7.0, torch.tensor([1, 0, 0]))
    torch.testing.assert_close(chosen, torch.tensor([math.log(0.25), -math.log(3), 0.0]))
    torch.testing.assert_close(entropies, torch.tensor([1.5 * math.log(2), math.log(3), 0.0]))


def test_gradients_of_both_and_of_each_alone() -> None:
    logits = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    tokens = torch.tensor([0, 5, 2, 2])
    assert torch.autograd.gradcheck(lambda x: logprob_and_entropy(x, tokens), logits)
    for i in (0, 1):
        assert torch.autograd.gradcheck(lambda x, i=i: logprob_and_entropy(x, tokens)[i], logits)


def test_gradient_of_a_forbidden_token_is_zero() -> None:
    logits = torch.tensor([[0.3, -1e9, 0.1]], requires_grad=True)
    chosen, entropies = logprob_and_entropy(logits, torch.tensor([2]))
    (chosen + entropies).sum().backward()
    assert logits.grad is not None
    assert logits.grad[0, 1] == 0
    assert logits.grad.isfinite().all()
    assert logits.grad[0, 0] == pytest.approx(-logits.grad[0, 2])
