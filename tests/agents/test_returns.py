"""Advantages and returns: literal numbers, brute force, and the two ends of lambda."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch

from agents.returns import (
    gae,
    group_normalised_advantages,
    lambda_returns,
    leave_one_out_advantages,
    n_step_advantages,
    step_mask,
    whiten,
)


def random_batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    rewards, values = (torch.from_numpy(rng.normal(size=(5, 6))) for _ in range(2))
    lengths = torch.tensor([6, 1, 4, 3, 5])
    bootstrap = torch.tensor([0.0, 0.7, 0.0, -1.2, 0.4], dtype=torch.float64)
    return rewards, values, lengths, bootstrap


def test_step_mask() -> None:
    assert step_mask(torch.tensor([2, 0, 3]), 3).tolist() == [[True, True, False], [False] * 3, [True] * 3]


def test_gae_literal() -> None:
    # deltas: 1 + 0.5·3 − 2 = 0.5;  0 + 0.5·4 − 3 = −1;  2 + 0.5·0 − 4 = −2.  γλ = 0.25.
    # A_2 = −2;  A_1 = −1 − 0.5 = −1.5;  A_0 = 0.5 − 0.375 = 0.125.
    # Second row: one step, truncated, bootstrap 6: 1 + 0.5·6 − 2 = 2.
    rewards = torch.tensor([[1.0, 0.0, 2.0], [1.0, 9.0, 9.0]])
    values = torch.tensor([[2.0, 3.0, 4.0], [2.0, 9.0, 9.0]])
    advantages = gae(rewards, values, torch.tensor([3, 1]), torch.tensor([0.0, 6.0]), gamma=0.5, lam=0.5)
    assert advantages.tolist() == [[0.125, -1.5, -2.0], [2.0, 0.0, 0.0]]


def test_lambda_returns_literal() -> None:
    # From the end: G_2 = 2;  G_1 = 0 + 0.5 (0.5·4 + 0.5·2) = 1.5;  G_0 = 1 + 0.5 (0.5·3 + 0.5·1.5) = 2.125.
    # Truncated with bootstrap 6: 1 + 0.5·6 = 4.
    rewards = torch.tensor([[1.0, 0.0, 2.0], [1.0, 9.0, 9.0]])
    values = torch.tensor([[2.0, 3.0, 4.0], [2.0, 9.0, 9.0]])
    returns = lambda_returns(rewards, values, torch.tensor([3, 1]), torch.tensor([0.0, 6.0]), gamma=0.5, lam=0.5)
    assert returns.tolist() == [[2.125, 1.5, 2.0], [4.0, 0.0, 0.0]]


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (0.97, 1.0), (0.8, 0.0)])
def test_gae_equals_its_double_sum(gamma: float, lam: float) -> None:
    rewards, values, lengths, bootstrap = random_batch()
    expected = torch.zeros_like(rewards)
    for b, length in enumerate(lengths.tolist()):
        after = [*values[b, 1:length].tolist(), bootstrap[b].item()]
        for t in range(length):
            for k in range(t, length):
                delta = rewards[b, k] + gamma * after[k] - values[b, k]
                expected[b, t] += (gamma * lam) ** (k - t) * delta
    torch.testing.assert_close(gae(rewards, values, lengths, bootstrap, gamma, lam), expected, atol=1e-12, rtol=0)


def test_lambda_one_is_monte_carlo_and_lambda_zero_one_step() -> None:
    rewards, values, lengths, bootstrap = random_batch()
    monte_carlo = lambda_returns(rewards, values, lengths, bootstrap, 0.9, 1.0)
    one_step = lambda_returns(rewards, values, lengths, bootstrap, 0.9, 0.0)
    for b, length in enumerate(lengths.tolist()):
        total = bootstrap[b].item()
        after = [*values[b, 1:length].tolist(), bootstrap[b].item()]
        for t in reversed(range(length)):
            total = rewards[b, t].item() + 0.9 * total
            assert monte_carlo[b, t].item() == pytest.approx(total, abs=1e-12)
            assert one_step[b, t].item() == pytest.approx(rewards[b, t].item() + 0.9 * after[t], abs=1e-12)
        assert not monte_carlo[b, length:].any()


def test_padding_never_enters() -> None:
    rewards, values, lengths, bootstrap = random_batch()
    first = gae(rewards, values, lengths, bootstrap)
    outside = ~step_mask(lengths, 6)
    rewards[outside], values[outside] = float("nan"), float("inf")
    second = gae(rewards, values, lengths, bootstrap)
    assert torch.equal(first, second)
    mask = ~outside
    dirty = torch.where(mask, first, float("nan"))
    assert torch.equal(whiten(dirty, mask), whiten(first, mask))


def test_whiten_literal() -> None:
    # 1, 3, 5, 7: mean 4, variance 5.
    x = torch.tensor([[1.0, 3.0, 99.0], [5.0, 7.0, 99.0]])
    mask = torch.tensor([[True, True, False], [True, True, False]])
    scale = 1 / 5**0.5
    expected = torch.tensor([[-3.0, -1.0, 0.0], [1.0, 3.0, 0.0]]) * scale
    torch.testing.assert_close(whiten(x, mask), expected)
    divided = whiten(x, mask, shift_mean=False)
    torch.testing.assert_close(divided, torch.where(mask, x, 0.0) * scale)
    assert not whiten(torch.full((2, 3), 5.0), mask).any()  # no variance: zeros, not NaN


def test_wrong_shapes_are_named() -> None:
    rewards, values, lengths, bootstrap = random_batch()
    with pytest.raises(ValueError, match="rewards and values"):
        gae(rewards, values[:, :3], lengths, bootstrap)
    with pytest.raises(ValueError, match="lengths must be"):
        gae(rewards, values, lengths[:2], bootstrap)
    with pytest.raises(ValueError, match="bootstrap must be"):
        gae(rewards, values, lengths, bootstrap[:, None])
    with pytest.raises(ValueError, match="mask must be bool"):
        whiten(rewards, lengths)


# -- n-step advantages -------------------------------------------------------------------------------------------------


def test_n_step_advantages_literal() -> None:
    # γ = 0.5, n = 2. A_0 = 1 + 0 + 0.25·4 − 2 = 0;  A_1 = 0 + 0.5·2 + 0 − 3 = −2;  A_2 = 2 − 4 = −2.
    # Truncated after one step, bootstrap 6: 1 + 0.5·6 − 2 = 2, for whoever looks that far or further.
    rewards = torch.tensor([[1.0, 0.0, 2.0], [1.0, 9.0, 9.0]])
    values = torch.tensor([[2.0, 3.0, 4.0], [2.0, 9.0, 9.0]])
    lengths, bootstrap = torch.tensor([3, 1]), torch.tensor([0.0, 6.0])
    advantages = n_step_advantages(rewards, values, lengths, bootstrap, 2, 0.5)
    assert advantages.tolist() == [[0.0, -2.0, -2.0], [2.0, 0.0, 0.0]]
    one_step = n_step_advantages(rewards, values, lengths, bootstrap, 1, 0.5)
    assert one_step.tolist() == [[0.5, -1.0, -2.0], [2.0, 0.0, 0.0]]


@pytest.mark.parametrize("n", [1, 2, 3, 6, 9])
@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_n_step_advantages_equal_their_sum(n: int, gamma: float) -> None:
    rewards, values, lengths, bootstrap = random_batch()
    expected = torch.zeros_like(rewards)
    for b, length in enumerate(lengths.tolist()):
        states = [*values[b, :length].tolist(), bootstrap[b].item()]
        for t in range(length):
            end = min(t + n, length)
            paid = sum(gamma ** (i - t) * rewards[b, i].item() for i in range(t, end))
            expected[b, t] = paid + gamma ** (end - t) * states[end] - states[t]
    outside = ~step_mask(lengths, 6)
    rewards[outside], values[outside] = float("nan"), float("inf")
    advantages = n_step_advantages(rewards, values, lengths, bootstrap, n, gamma)
    torch.testing.assert_close(advantages, expected, atol=1e-12, rtol=0)
    if n == 1:
        torch.testing.assert_close(advantages, gae(rewards, values, lengths, bootstrap, gamma, 0.0))
    if n >= 6:
        torch.testing.assert_close(advantages, gae(rewards, values, lengths, bootstrap, gamma, 1.0))


# -- groups ------------------------------------------------------------------------------------------------------------

SCORES, GROUPS = torch.tensor([1.0, 0.5, 0.0, 4.0, 2.0]), torch.tensor([0, 1, 0, 1, 0])


def test_leave_one_out_literal() -> None:
    # group 0: 1, 0, 2: 1 − (0 + 2)/2 = 0;  0 − 1.5;  2 − 0.5.  group 1: 0.5 − 4, 4 − 0.5.
    assert leave_one_out_advantages(SCORES, GROUPS).tolist() == [0.0, -3.5, -1.5, 3.5, 1.5]


def test_group_normalisation_literal() -> None:
    # group 0: 1, 0, 2 around 1, variance 2/3.  group 1: 0.5, 4 around 2.25, standard deviation 1.75.
    scale = 1.5**0.5
    expected = torch.tensor([0.0, -1.0, -scale, 1.0, scale])
    torch.testing.assert_close(group_normalised_advantages(SCORES, GROUPS, epsilon=0.0), expected)
    centred = group_normalised_advantages(SCORES, GROUPS, normalise_std=False)
    assert centred.tolist() == [0.0, -1.75, -1.0, 1.75, 1.0]


def test_leave_one_out_equals_its_sum() -> None:
    rng = np.random.default_rng(1)
    groups = rng.permutation(np.repeat(np.arange(5), [2, 3, 8, 4, 7]))
    scores = rng.normal(size=len(groups))
    expected = [
        scores[i] - np.mean([scores[j] for j in range(len(groups)) if j != i and groups[j] == groups[i]])
        for i in range(len(groups))
    ]
    result = leave_one_out_advantages(torch.from_numpy(scores), torch.from_numpy(groups))
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("advantages_of", [leave_one_out_advantages, group_normalised_advantages])
def test_equal_scores_teach_nothing(advantages_of: Callable[..., torch.Tensor]) -> None:
    """Exactly: what rounding leaves over, an optimiser would blow up."""
    scores = torch.full((21,), 0.1)
    assert not advantages_of(scores, torch.arange(21) % 3).any()
    groups = torch.tensor([0, 0, 1, 1])
    assert advantages_of(torch.tensor([0.3, 0.3, 0.0, 1.0]), groups)[:2].tolist() == [0, 0]


def test_leave_one_out_gives_the_policy_gradient() -> None:
    """Over all pairs of three actions: Σ π(i) π(j) ½ (A_i ∇log π(i) + A_j ∇log π(j)) = ∇ Σ π r."""
    logits = torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64, requires_grad=True)
    scores = torch.tensor([0.2, 1.0, -0.5], dtype=torch.float64)
    (exact,) = torch.autograd.grad((logits.softmax(0) * scores).sum(), logits)
    probabilities = logits.softmax(0).detach()
    estimate = torch.zeros(3, dtype=torch.float64)
    for pair in product(range(3), repeat=2):
        drawn = torch.tensor(pair)
        advantages = leave_one_out_advantages(scores[drawn], torch.zeros(2, dtype=torch.int64))
        (gradient,) = torch.autograd.grad((advantages * logits.log_softmax(0)[drawn]).mean(), logits)
        estimate += probabilities[drawn].prod() * gradient
    torch.testing.assert_close(estimate, exact, atol=1e-12, rtol=0)


def test_bad_groups_and_steps_are_named() -> None:
    with pytest.raises(ValueError, match="every group needs two members"):
        leave_one_out_advantages(SCORES, torch.tensor([0, 1, 0, 2, 0]))
    with pytest.raises(ValueError, match=r"must both be \[B\]; got \(5,\) and \(4,\)"):
        group_normalised_advantages(SCORES, GROUPS[:4])
    rewards, values, lengths, bootstrap = random_batch()
    with pytest.raises(ValueError, match="n must be at least 1"):
        n_step_advantages(rewards, values, lengths, bootstrap, 0)
