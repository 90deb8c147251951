"""PPO's losses: literal numbers, clipping, and padding that does not count."""

from __future__ import annotations

import math

import pytest
import torch

from agents.losses import explained_variance, masked_mean, ppo_policy_loss, ppo_value_loss

MASK = torch.tensor([[True, True, False], [True, True, False]])


def test_masked_mean_ignores_what_is_masked() -> None:
    x = torch.tensor([[1.0, 2.0, float("nan")], [3.0, 6.0, float("inf")]], requires_grad=True)
    mean = masked_mean(x, MASK)
    assert mean.item() == 3.0
    mean.backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[0.25, 0.25, 0.0], [0.25, 0.25, 0.0]]


def test_policy_loss_literal() -> None:
    # ratios 1.5 (A 1: clipped to 1.2), 1.5 (A −1: not clipped), 0.5 (A 2: not clipped), 0.5 (A −2: clipped to 0.8)
    ratios = torch.tensor([[1.5, 1.5, 7.0], [0.5, 0.5, 7.0]])
    advantages = torch.tensor([[1.0, -1.0, 5.0], [2.0, -2.0, 5.0]])
    old = torch.full((2, 3), -2.0)
    result = ppo_policy_loss(old + ratios.log(), old, advantages, MASK, 0.2)
    assert result.loss.item() == pytest.approx(-(1.2 - 1.5 + 1.0 - 1.6) / 4, abs=1e-6)
    assert result.clipfrac.item() == 1.0
    k3 = (2 * (0.5 - math.log(1.5)) + 2 * (-0.5 - math.log(0.5))) / 4
    assert result.approx_kl.item() == pytest.approx(k3, abs=1e-6)


def test_policy_loss_gradients() -> None:
    ratios = torch.tensor([[1.5, 1.5, 7.0], [0.5, 1.1, 7.0]])
    advantages = torch.tensor([[1.0, -1.0, 5.0], [-2.0, 2.0, 5.0]])
    logprobs = ratios.log().requires_grad_()
    ppo_policy_loss(logprobs, torch.zeros(2, 3), advantages, MASK, 0.2).loss.backward()
    assert logprobs.grad is not None
    # d(−ρA/4)/dlogprob = −ρA/4 where the clip is not active, else 0.
    expected = torch.tensor([[0.0, 1.5, 0.0], [0.0, -2.2, 0.0]]) / 4
    torch.testing.assert_close(logprobs.grad, expected)


def test_equal_policies_have_no_kl_and_nothing_clipped() -> None:
    logprobs = torch.tensor([[-1.0, -0.3, 0.0], [-2.0, -5.0, 0.0]])
    result = ppo_policy_loss(logprobs, logprobs, torch.ones(2, 3), MASK, 0.2)
    assert (result.loss.item(), result.approx_kl.item(), result.clipfrac.item()) == (-1.0, 0.0, 0.0)


def test_value_loss_literal() -> None:
    old = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    values = torch.tensor([[0.1, 1.0, 9.0], [2.0, 0.5, 9.0]])
    returns = torch.tensor([[1.0, 1.0, 0.0], [1.5, 0.5, 0.0]])
    # unclipped: 0.81, 0, 0.25, 0. clipped values 0.1, 0.2, 1.2, 0.8: 0.81, 0.64, 0.09, 0.09.
    # larger: 0.81, 0.64, 0.25, 0.09.
    loss = ppo_value_loss(values, old, returns, MASK, 0.2)
    assert loss.item() == pytest.approx(0.5 * (0.81 + 0.64 + 0.25 + 0.09) / 4, abs=1e-6)
    plain = ppo_value_loss(values, old, returns, MASK, None)
    assert plain.item() == pytest.approx(0.5 * (0.81 + 0 + 0.25 + 0) / 4, abs=1e-6)


def test_values_within_the_limit_keep_their_gradient() -> None:
    """Rounding must not decide that the clipped value, which has none, is the worse one."""
    generator = torch.Generator().manual_seed(0)
    old, start, returns = (scale * torch.randn(50, 40, generator=generator) for scale in (0.05, 0.01, 0.3))
    assert ((old + (start - old)) != start).float().mean() > 0.3  # as the formula is written, nearly half of them move
    gradients = []
    for value_clip in (0.5, None):
        values = start.clone().requires_grad_()
        ppo_value_loss(values, old, returns, torch.ones_like(old, dtype=torch.bool), value_clip).backward()
        gradients.append(values.grad)
    assert torch.equal(*gradients)


def test_explained_variance_literal() -> None:
    targets = torch.tensor([[1.0, 2.0, 50.0], [3.0, 4.0, 50.0]])
    assert explained_variance(targets, targets, MASK).item() == 1.0
    assert explained_variance(torch.zeros(2, 3), targets, MASK).item() == 0.0
    # residuals −1, 0, 1, 0 around 0: variance 0.5; targets 1.25
    predictions = torch.tensor([[2.0, 2.0, 0.0], [2.0, 4.0, 0.0]])
    assert explained_variance(predictions, targets, MASK).item() == pytest.approx(1 - 0.5 / 1.25)
    assert math.isnan(explained_variance(predictions, torch.ones(2, 3), MASK).item())


def test_padding_never_enters() -> None:
    torch.manual_seed(0)
    a, b, c = (torch.randn(2, 3) for _ in range(3))
    dirty = [torch.where(MASK, x, float("nan")) for x in (a, b, c)]
    assert torch.equal(ppo_policy_loss(a, b, c, MASK, 0.2).loss, ppo_policy_loss(*dirty, MASK, 0.2).loss)
    assert torch.equal(ppo_value_loss(a, b, c, MASK, 0.2), ppo_value_loss(*dirty, MASK, 0.2))
    assert torch.equal(explained_variance(a, b, MASK), explained_variance(*dirty[:2], MASK))


def test_wrong_masks_are_named() -> None:
    x = torch.zeros(2, 3)
    for call in (
        lambda: masked_mean(x, torch.ones(2, 3)),
        lambda: ppo_policy_loss(x, x[:, :2], x, MASK, 0.2),
        lambda: ppo_value_loss(x, x, x, MASK[:1], None),
    ):
        with pytest.raises(ValueError, match="mask must be bool of shape"):
            call()
