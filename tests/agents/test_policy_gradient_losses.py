"""Losses of the policy gradient and means over texts of unequal length: literal numbers, gradients, padding."""

from __future__ import annotations

import math

import pytest
import torch

from agents.losses import LengthNormalisation, kl_k3, mean_of_texts, policy_gradient_loss, ppo_policy_loss

MASK = torch.tensor([[True, True, True, False], [True, False, False, False]])
KINDS: list[LengthNormalisation] = ["tokens", "texts", "budget"]


@pytest.mark.parametrize(
    ("kind", "expected", "weights"),
    [
        ("tokens", (1 + 2 + 6 + 5) / 4, [[1 / 4, 1 / 4, 1 / 4, 0], [1 / 4, 0, 0, 0]]),
        ("texts", (3 + 5) / 2, [[1 / 6, 1 / 6, 1 / 6, 0], [1 / 2, 0, 0, 0]]),
        ("budget", (9 / 4 + 5 / 4) / 2, [[1 / 8, 1 / 8, 1 / 8, 0], [1 / 8, 0, 0, 0]]),
    ],
)
def test_means_of_texts_literal(kind: LengthNormalisation, expected: float, weights: list[list[float]]) -> None:
    nan, inf = math.nan, math.inf
    x = torch.tensor([[1.0, 2.0, 6.0, nan], [5.0, inf, nan, -inf]], requires_grad=True)
    mean = mean_of_texts(x, MASK, kind)
    assert mean.item() == pytest.approx(expected)
    mean.backward()
    torch.testing.assert_close(x.grad, torch.tensor(weights))


@pytest.mark.parametrize("kind", KINDS)
def test_the_surrogate_takes_the_mean_that_it_is_told(kind: LengthNormalisation) -> None:
    # ratios 1.5 at an advantage of 1 are clipped to 1.2; 0.5 is not.
    ratios = torch.tensor([[1.5, 1.1, 0.5, 7.0], [0.5, 7.0, 7.0, 7.0]])
    advantages = torch.tensor([[1.0, 1.0, 1.0, 3.0], [2.0, 3.0, 3.0, 3.0]])
    loss = ppo_policy_loss(ratios.log(), torch.zeros(2, 4), advantages, MASK, 0.2, kind).loss
    surrogate = torch.tensor([[1.2, 1.1, 0.5, 0.0], [1.0, 0.0, 0.0, 0.0]])
    assert loss.item() == pytest.approx(-mean_of_texts(surrogate, MASK, kind).item(), abs=1e-6)


def test_policy_gradient_loss_literal() -> None:
    logprobs = torch.tensor([[-1.0, -2.0, -0.5, 0.0], [-3.0, 0.0, 0.0, 0.0]], requires_grad=True)
    advantages = torch.tensor([[2.0, -1.0, 0.0, math.nan], [0.5, math.nan, math.nan, math.nan]])
    loss = policy_gradient_loss(logprobs, advantages, MASK)
    assert loss.item() == pytest.approx(-(-2.0 + 2.0 + 0.0 - 1.5) / 4)
    loss.backward()
    assert logprobs.grad is not None
    assert logprobs.grad[MASK].tolist() == [-0.5, 0.25, -0.0, -0.125]


def test_at_ratio_1_the_surrogate_has_the_policy_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    old, advantages = (torch.randn(2, 4, generator=generator) for _ in range(2))
    gradients = []
    for surrogate in (True, False):
        logprobs = old.clone().requires_grad_()
        if surrogate:
            ppo_policy_loss(logprobs, old, advantages, MASK, 0.2).loss.backward()
        else:
            policy_gradient_loss(logprobs, advantages, MASK).backward()
        gradients.append(logprobs.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_by_finite_differences(kind: LengthNormalisation) -> None:
    """Of the whole loss of GRPO, of A2C's policy loss, and of RLOO's with a text as one action; away from the clip."""
    generator = torch.Generator().manual_seed(1)
    logits, old, ref, advantages = (torch.randn(2, 4, generator=generator, dtype=torch.float64) for _ in range(4))
    logprobs = (old + 0.05 * logits).requires_grad_()

    def grpo(logprobs: torch.Tensor) -> torch.Tensor:
        policy = ppo_policy_loss(logprobs, old, advantages, MASK, 0.2, kind)
        return policy.loss + 0.3 * mean_of_texts(kl_k3(logprobs, ref), MASK, kind)

    def rloo(logprobs: torch.Tensor) -> torch.Tensor:
        new, sampled = (torch.where(MASK, x, 0.0).sum(1, keepdim=True) for x in (logprobs, old))
        every = torch.ones(2, 1, dtype=torch.bool)
        return ppo_policy_loss(new, sampled, advantages[:, :1], every, 0.5).loss

    assert torch.autograd.gradcheck(grpo, (logprobs,))
    assert torch.autograd.gradcheck(rloo, (logprobs,))
    assert torch.autograd.gradcheck(lambda x: policy_gradient_loss(x, advantages, MASK), (logprobs,))


def test_wrong_masks_are_named() -> None:
    x = torch.zeros(2, 4)
    for call in (lambda: mean_of_texts(x, MASK[:, :2], "texts"), lambda: policy_gradient_loss(x, x[:1], MASK)):
        with pytest.raises(ValueError, match="mask must be bool of shape"):
            call()
