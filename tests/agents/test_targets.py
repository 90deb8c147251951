"""Q-learning targets and losses: literal numbers, brute force, padding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from agents.returns import lambda_returns
from agents.targets import (
    greedy_values,
    lambda_targets,
    masked_max,
    monte_carlo_returns,
    n_step_targets,
    take,
    td_loss,
)

NAN, INF = float("nan"), float("inf")

# One episode of three steps beside one of two; behind it stands rubbish.
REWARDS = torch.tensor([[1.0, 2.0, 4.0], [0.0, 8.0, NAN]])
VALUES = torch.tensor([[10.0, 20.0, 30.0], [40.0, 50.0, INF]])
LENGTHS = torch.tensor([3, 2])


def test_masked_max_literal() -> None:
    q_values = torch.tensor([[1.0, 5.0, 3.0], [-2.0, -1.0, -3.0]])
    maxima, actions = masked_max(q_values)
    assert maxima.tolist() == [5, -1]
    assert actions.tolist() == [1, 1]
    masks = torch.tensor([[True, False, True], [True, False, False]])
    maxima, actions = masked_max(q_values, masks)
    assert maxima.tolist() == [3, -2]  # negative values win over what is illegal
    assert actions.tolist() == [2, 0]


def test_masks_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"bool of shape \(2, 3\); got torch.bool \(3,\)"):
        masked_max(torch.zeros(2, 3), torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"got torch.int8"):
        masked_max(torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.int8))


def test_double_q_chooses_with_one_network_and_values_with_the_other() -> None:
    online = torch.tensor([[1.0, 3.0, 2.0]])
    target = torch.tensor([[9.0, 5.0, 7.0]])
    assert greedy_values(online, target).tolist() == [5]
    assert greedy_values(target, target).tolist() == [9]
    assert greedy_values(online, target, torch.tensor([[True, False, True]])).tolist() == [7]


def test_take() -> None:
    assert take(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[1, 0]])).tolist() == [[2, 3]]


def test_one_step_literal() -> None:
    assert n_step_targets(REWARDS, VALUES, LENGTHS, 1).tolist() == [[1 + 20, 2 + 30, 4], [50, 8, 0]]
    assert n_step_targets(REWARDS, VALUES, LENGTHS, 1, 0.5).tolist() == [[1 + 10, 2 + 15, 4], [25, 8, 0]]


def test_two_steps_literal() -> None:
    assert n_step_targets(REWARDS, VALUES, LENGTHS, 2).tolist() == [[1 + 2 + 30, 2 + 4, 4], [8, 8, 0]]
    assert n_step_targets(REWARDS, VALUES, LENGTHS, 2, 0.5).tolist() == [[1 + 1 + 7.5, 2 + 2, 4], [4, 8, 0]]


@pytest.mark.parametrize("n", [3, 4, 100])
def test_enough_steps_are_the_monte_carlo_return(n: int) -> None:
    assert n_step_targets(REWARDS, VALUES, LENGTHS, n).tolist() == [[7, 6, 4], [8, 8, 0]]
    assert monte_carlo_returns(REWARDS, LENGTHS).tolist() == [[7, 6, 4], [8, 8, 0]]
    assert monte_carlo_returns(REWARDS, LENGTHS, 0.5).tolist() == [[3, 4, 4], [4, 8, 0]]


def test_peng_literal() -> None:
    # Backwards with λ = 1/2: 4, then 2 + (30 + 4) / 2 = 19, then 1 + (20 + 19) / 2 = 20.5.
    assert lambda_targets(REWARDS, VALUES, LENGTHS, 0.5).tolist() == [[20.5, 19, 4], [29, 8, 0]]
    # γ = 1/2: 4, 2 + 17 / 2 = 10.5, 1 + (20 + 10.5) / 4 = 8.625; the other: (50 + 8) / 4.
    assert lambda_targets(REWARDS, VALUES, LENGTHS, 0.5, 0.5).tolist() == [[8.625, 10.5, 4], [14.5, 8, 0]]


def test_watkins_stops_at_the_first_action_that_is_not_greedy() -> None:
    # The first action's own greediness does not matter: its value is what is being learnt.
    keep = torch.tensor([[False, True, False], [False, False, True]])
    # The last action of the first episode is exploratory: V(s_2) = 30 in place of what followed; then as before.
    assert lambda_targets(REWARDS, VALUES, LENGTHS, 1.0, keep=keep).tolist() == [[1 + 32, 2 + 30, 4], [50, 8, 0]]
    assert lambda_targets(REWARDS, VALUES, LENGTHS, 0.5, keep=keep).tolist() == [[1 + 26, 2 + 30, 4], [50, 8, 0]]


def test_the_ends_of_lambda() -> None:
    rewards, values, lengths, keep = random_episodes()
    for gamma in (1.0, 0.9):
        one_step = n_step_targets(rewards, values, lengths, 1, gamma)
        torch.testing.assert_close(lambda_targets(rewards, values, lengths, 0.0, gamma), one_step)
        torch.testing.assert_close(lambda_targets(rewards, values, lengths, 0.0, gamma, keep), one_step)
        torch.testing.assert_close(
            lambda_targets(rewards, values, lengths, 1.0, gamma), monte_carlo_returns(rewards, lengths, gamma)
        )
        torch.testing.assert_close(
            lambda_targets(rewards, values, lengths, 0.7, gamma),
            lambda_returns(rewards, values, lengths, torch.zeros(len(lengths)).double(), gamma, 0.7),
        )


def random_episodes() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    rewards = torch.randn(20, 6, generator=generator, dtype=torch.float64)
    values = torch.randn(20, 6, generator=generator, dtype=torch.float64)
    lengths = torch.randint(1, 7, (20,), generator=generator)
    keep = torch.rand(20, 6, generator=generator) < 0.6
    return rewards, values, lengths, keep


@pytest.mark.parametrize("gamma", [1.0, 0.9])
@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_n_step_against_its_definition(n: int, gamma: float) -> None:
    rewards, values, lengths, _ = random_episodes()
    targets = n_step_targets(rewards, values, lengths, n, gamma)
    for b, length in enumerate(lengths.tolist()):
        for t in range(6):
            assert targets[b, t].item() == pytest.approx(n_step_return(rewards[b], values[b], length, t, n, gamma))


def n_step_return(rewards: Tensor, values: Tensor, length: int, t: int, n: int, gamma: float) -> float:
    if t >= length:
        return 0.0
    total = sum(gamma**i * rewards[t + i].item() for i in range(n) if t + i < length)
    return total + (gamma**n * values[t + n].item() if t + n < length else 0.0)


@pytest.mark.parametrize("watkins", [False, True])
@pytest.mark.parametrize("gamma", [1.0, 0.9])
@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
def test_lambda_against_the_mixture_of_n_step_returns(lam: float, gamma: float, watkins: bool) -> None:
    """Forward view: each n-step return weighs as much as the traces that end there."""
    rewards, values, lengths, keep = random_episodes()
    targets = lambda_targets(rewards, values, lengths, lam, gamma, keep if watkins else None)
    for b, length in enumerate(lengths.tolist()):
        for t in range(length):
            expected, trace = 0.0, 1.0
            for n in range(1, length - t + 1):
                follows = 0.0
                if t + n < length:
                    follows = lam * (keep[b, t + n].item() if watkins else 1)
                expected += trace * (1 - follows) * n_step_return(rewards[b], values[b], length, t, n, gamma)
                trace *= follows
            assert targets[b, t].item() == pytest.approx(expected)
        assert not targets[b, length:].any()


def test_rubbish_in_the_padding_changes_nothing() -> None:
    rewards, values, lengths, keep = random_episodes()
    outside = torch.arange(6) >= lengths[:, None]
    dirty = [x.masked_fill(outside, NAN) for x in (rewards, values)]
    for n in (1, 3):
        assert n_step_targets(*dirty, lengths, n).equal(n_step_targets(rewards, values, lengths, n))
    assert lambda_targets(*dirty, lengths, 0.9).equal(lambda_targets(rewards, values, lengths, 0.9))
    flipped = keep ^ outside
    assert lambda_targets(*dirty, lengths, 0.9, 1.0, flipped).equal(
        lambda_targets(rewards, values, lengths, 0.9, 1.0, keep)
    )


def test_td_loss_literal() -> None:
    q_taken = torch.tensor([[1.0, 5.0], [2.0, NAN]])
    targets = torch.tensor([[0.5, 2.0], [2.0, INF]])
    mask = torch.tensor([[True, True], [True, False]])
    assert td_loss(q_taken, targets, mask, "mse").item() == pytest.approx((0.125 + 4.5 + 0) / 3)
    assert td_loss(q_taken, targets, mask, "huber").item() == pytest.approx((0.125 + 2.5 + 0) / 3)
    assert td_loss(q_taken, targets, mask, "huber", delta=2.0).item() == pytest.approx((0.125 + 4 + 0) / 3)
    weights = torch.tensor([0.5, 1.0])
    assert td_loss(q_taken, targets, mask, "mse", weights).item() == pytest.approx((0.125 + 4.5) / 6)


@pytest.mark.parametrize("kind", ["mse", "huber"])
def test_td_loss_gradient(kind: str) -> None:
    q_taken = torch.tensor([[1.0, 5.0], [2.0, NAN]], requires_grad=True)
    targets = torch.tensor([[0.5, 2.0], [2.0, INF]])
    mask = torch.tensor([[True, True], [True, False]])
    td_loss(q_taken, targets, mask, kind, torch.tensor([1.0, 1.0])).backward()  # type: ignore[arg-type]
    second = 3.0 if kind == "mse" else 1.0  # clipped
    assert q_taken.grad is not None
    torch.testing.assert_close(q_taken.grad, torch.tensor([[0.5, second], [0.0, 0.0]]) / 3)


def test_bad_arguments() -> None:
    x, mask = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="n must be at least 1; got 0"):
        n_step_targets(x, x, LENGTHS, 0)
    with pytest.raises(ValueError, match=r"must both be \[B, T\] and lengths \[B\]"):
        n_step_targets(x, torch.zeros(2, 4), LENGTHS, 1)
    with pytest.raises(ValueError, match=r"must both be \[B, T\] and lengths \[B\]"):
        lambda_targets(x, x, torch.tensor([3]), 0.5)
    with pytest.raises(ValueError, match="kind must be 'huber' or 'mse'; got 'l1'"):
        td_loss(x, x, mask, "l1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"must all be \[B, T\]"):
        td_loss(x, x, mask.float())
