"""Losses of the off-policy agents: literal numbers, brute force, gradients, masks, padding."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from agents.off_policy_losses import (
    consistency_errors,
    consistency_losses,
    continuation_evidence,
    continuation_targets,
    log_policy,
    path_consistency_loss,
    policy_entropy,
    return_decomposition_loss,
    sac_policy_loss,
    sac_temperature_loss,
    sac_values,
    self_imitation_loss,
    soft_values,
    target_entropies,
    truncated_weights,
)

NAN, LOG2, LOG3 = float("nan"), math.log(2), math.log(3)
MASK = torch.tensor([[True, True], [True, False]])


def test_policy_over_legal_actions() -> None:
    logits = torch.tensor([[0.0, LOG3, 50.0], [7.0, 0.0, 0.0]])
    masks = torch.tensor([[True, True, False], [True, False, False]])
    logprobs = log_policy(logits, masks)
    torch.testing.assert_close(logprobs.exp(), torch.tensor([[0.25, 0.75, 0.0], [1.0, 0.0, 0.0]]))
    entropies = policy_entropy(logprobs)
    expected = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    torch.testing.assert_close(entropies, torch.tensor([expected, 0.0]))


def test_soft_values_literal() -> None:
    q_values = torch.tensor([[0.0, 2 * LOG3, 99.0], [5.0, 5.0, 5.0]])
    masks = torch.tensor([[True, True, False], [True, True, True]])
    torch.testing.assert_close(soft_values(q_values, 2.0, masks), torch.tensor([2 * math.log(4), 5 + 2 * LOG3]))
    torch.testing.assert_close(soft_values(q_values, 1e-3), torch.tensor([99.0, 5 + 1e-3 * LOG3]))  # → the maximum
    torch.testing.assert_close(soft_values(q_values, 1e-3, masks), torch.tensor([2 * LOG3, 5 + 1e-3 * LOG3]))


def test_sac_values_literal() -> None:
    logprobs = torch.tensor([[0.25, 0.75]]).log()
    q_1, q_2 = torch.tensor([[4.0, 9.0]]), torch.tensor([[8.0, 2.0]])
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    values = sac_values(logprobs, q_1, q_2, 0.5)
    torch.testing.assert_close(values, torch.tensor([0.25 * 4 + 0.75 * 2 + 0.5 * entropy]))


def test_illegal_actions_count_nothing_in_sac_values() -> None:
    masks = torch.tensor([[True, True, False]])
    logprobs = log_policy(torch.zeros(1, 3), masks)
    q = torch.tensor([[1.0, 3.0, 1e6]])
    torch.testing.assert_close(sac_values(logprobs, q, q, 2.0), torch.tensor([2 + 2 * LOG2]))


def test_sac_policy_loss_literal_and_its_gradient() -> None:
    logits = torch.tensor([[[0.0, 0.0], [0.0, LOG3]], [[0.0, 0.0], [NAN, NAN]]], requires_grad=True)
    q_1 = torch.tensor([[[2.0, 4.0], [1.0, 1.0]], [[0.0, 8.0], [NAN, NAN]]], requires_grad=True)
    q_2 = torch.tensor([[[3.0, 3.0], [1.0, 1.0]], [[6.0, 6.0], [NAN, NAN]]], requires_grad=True)
    alpha = torch.tensor(2.0, requires_grad=True)
    loss = sac_policy_loss(log_policy(logits), q_1, q_2, alpha, MASK)
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    values = [2.5 + 2 * LOG2, 1 + 2 * entropy, 3 + 2 * LOG2]
    assert loss.item() == pytest.approx(-sum(values) / 3, abs=1e-6)
    loss.backward()
    assert q_1.grad is None
    assert q_2.grad is None
    assert alpha.grad is None
    assert logits.grad is not None
    # d/dlogit_a of Σ π (α log π − Q) is π_a (α log π_a − Q_a − Σ π (α log π − Q)).
    expected = torch.tensor([[0.25, -0.25], [0.0, 0.0]]) / 3
    expected[1, 0] = 0.25 * (2 * math.log(0.25) - 1 + values[1]) / 3
    expected[1, 1] = 0.75 * (2 * math.log(0.75) - 1 + values[1]) / 3
    torch.testing.assert_close(logits.grad[0], expected)
    torch.testing.assert_close(logits.grad[1, 0], torch.tensor([1.5, -1.5]) / 3)


def test_the_policy_that_minimises_the_loss_is_softmax_of_q_over_alpha() -> None:
    q = torch.tensor([[[1.0, 2.0, 5.0]]])
    best = log_policy(q / 0.7)
    mask = torch.ones(1, 1, dtype=torch.bool)
    least = sac_policy_loss(best, q, q, 0.7, mask)
    torch.testing.assert_close(-least, soft_values(q, 0.7)[0, 0])
    for seed in range(20):
        other = log_policy(q / 0.7 + torch.randn(1, 1, 3, generator=torch.Generator().manual_seed(seed)))
        assert sac_policy_loss(other, q, q, 0.7, mask) > least


def test_temperature_rises_where_entropy_is_missing() -> None:
    entropies = torch.tensor([[0.5, 0.1], [0.3, NAN]], requires_grad=True)
    log_alpha = torch.tensor(-1.0, requires_grad=True)
    loss = sac_temperature_loss(log_alpha, entropies, torch.full((2, 2), 0.4), MASK)
    assert loss.item() == pytest.approx(-1.0 * (0.1 - 0.3 - 0.1) / 3)
    loss.backward()
    assert log_alpha.grad is not None
    assert log_alpha.grad.item() == pytest.approx(-0.1)  # descending raises it
    assert entropies.grad is None


def test_target_entropies_count_legal_actions() -> None:
    masks = torch.tensor([[[True, True, False], [True, False, False]], [[True, True, True], [False, False, False]]])
    literal = torch.tensor([[LOG2, 0.0], [LOG3, 0.0]])
    torch.testing.assert_close(target_entropies(0.5, torch.zeros(2, 2, 3), masks), 0.5 * literal)
    torch.testing.assert_close(target_entropies(0.5, torch.zeros(2, 2, 3)), torch.full((2, 2), 0.5 * LOG3))


def test_path_consistency_literal() -> None:
    logprobs = torch.tensor([[-1.0, -2.0, -4.0], [-3.0, NAN, NAN]])
    values = torch.tensor([[1.0, 2.0, 3.0], [5.0, NAN, NAN]])
    scores, lengths = torch.tensor([1.0, 2.0]), torch.tensor([3, 1])
    # Rests −7, −6, −4 and −3; with τ = 1/2: 1 − 3.5 − 1, 2 − 3 − 1, 3 − 2 − 1 and 5 − 1.5 − 2.
    errors = [-3.5, -2.0, 0.0, 1.5]
    losses = [0.5 * e * e for e in errors]
    assert path_consistency_loss(logprobs, values, scores, lengths, 0.5).item() == pytest.approx(sum(losses) / 4)
    weights = torch.tensor([0.5, 1.0])
    weighted = path_consistency_loss(logprobs, values, scores, lengths, 0.5, weights).item()
    assert weighted == pytest.approx((0.5 * sum(losses[:3]) + losses[3]) / 4)


def test_the_soft_optimal_policy_is_consistent_along_every_path() -> None:
    """All texts of two tokens out of three: Q from the scores by soft backups leaves no error, whatever was written."""
    tau = 0.3
    scores = torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    first_q = soft_values(scores, tau)
    first_v = soft_values(first_q, tau)
    for a in range(3):
        for b in range(3):
            logprobs = torch.stack([(first_q[a] - first_v) / tau, (scores[a, b] - first_q[a]) / tau])[None]
            values = torch.stack([first_v, first_q[a]])[None]
            loss = path_consistency_loss(logprobs, values, scores[a, b][None], torch.tensor([2]), tau)
            assert loss.item() == pytest.approx(0, abs=1e-20)


def test_consistency_errors_literal() -> None:
    log_ratios = torch.tensor([[1.0, -2.0, 4.0], [-3.0, NAN, NAN]])
    values = torch.tensor([[1.0, 2.0, 3.0], [5.0, NAN, NAN]])
    scores, lengths = torch.tensor([1.0, 2.0]), torch.tensor([3, 1])
    # One step: 2 − 1 − 0.5, 3 − 2 + 1, and 1 − 3 − 2 at the end; 2 − 5 + 1.5 in the second text. τ = 1/2.
    for lam, expected in (
        (0.0, [[0.5, 2.0, -4.0], [-1.5, 0.0, 0.0]]),
        (1.0, [[-1.5, -2.0, -4.0], [-1.5, 0.0, 0.0]]),
        (0.5, [[0.5, 0.0, -4.0], [-1.5, 0.0, 0.0]]),
    ):
        errors = consistency_errors(log_ratios, values, scores, lengths, 0.5, lam)
        torch.testing.assert_close(errors, torch.tensor(expected))
    # λ = 1 is path consistency of every suffix, log π − log π_ref in the place of log π.
    loss = path_consistency_loss(log_ratios, values, scores, lengths, 0.5)
    assert loss.item() == pytest.approx(0.5 * (1.5**2 + 2**2 + 4**2 + 1.5**2) / 4)


def test_consistency_losses_literal() -> None:
    log_ratios = torch.tensor([[0.5, -1.0], [2.0, NAN]], requires_grad=True)
    values = torch.tensor([[1.0, 3.0], [-1.0, NAN]], requires_grad=True)
    errors = torch.tensor([[1.0, -2.0], [4.0, NAN]])
    policy, value = consistency_losses(log_ratios, values, errors, MASK)
    # The mean error is 1: errors less it are 0, −3 and 3.
    assert policy.item() == pytest.approx(-(0 * 0.5 + 3 * 1.0 + 3 * 2.0) / 3)
    assert value.item() == pytest.approx(0.5 * (1 + 4 + 16) / 3)
    (policy + 2 * value).backward()
    torch.testing.assert_close(log_ratios.grad, torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
    torch.testing.assert_close(values.grad, torch.tensor([[-2 / 3, 4 / 3], [-8 / 3, 0.0]]))


def test_weights_of_a_text_literal() -> None:
    log2 = math.log(2)
    logprobs = torch.tensor([[-1.0, -2.0, -1.0], [-1.0, NAN, NAN]])
    behaviour = logprobs + torch.tensor([[-log2, 2 * log2, -log2], [log2, NAN, NAN]])  # ratios 2, 1/4, 2 and 1/2
    mask = torch.tensor([[True, True, True], [True, False, False]])
    weights = truncated_weights(logprobs, behaviour, mask)
    torch.testing.assert_close(weights[mask], torch.tensor([1.0, 0.5, 1.0, 0.5]))
    log_ratios, errors = torch.tensor([[1.0, 2.0, 3.0], [4.0, NAN, NAN]]), torch.tensor([[1.0, 2.0, -1.0], [0.0] * 3])
    # Weighted mean error (1 + 1 − 1 + 0) / 3; errors less it 2/3, 5/3, −4/3, −1/3, weighted 2/3, 5/6, −4/3, −1/6.
    policy, _ = consistency_losses(log_ratios, torch.zeros(2, 3), errors, mask, weights)
    assert policy.item() == pytest.approx(-(2 / 3 + 5 / 3 - 4 - 2 / 3) / 4)


def test_the_exact_kl_has_the_gradient_of_samples_of_ones_own() -> None:
    """Every token of one step, weighted by its probability: the expectation over what the policy itself writes."""
    generator = torch.Generator().manual_seed(0)
    scores, ref = (torch.randn(5, generator=generator, dtype=torch.float64) for _ in range(2))
    ref, mask, tau = ref.log_softmax(0), torch.ones(5, 1, dtype=torch.bool), 0.3
    gradients = []
    for exact in (False, True):
        logits = torch.linspace(-1, 1, 5, dtype=torch.float64, requires_grad=True)
        logprobs = logits.log_softmax(0)
        log_ratios, values = (logprobs - ref)[:, None], torch.full((5, 1), 0.4, dtype=torch.float64)
        kls = (logprobs.exp() * (logprobs - ref)).sum().expand(5, 1) if exact else None
        errors = consistency_errors(log_ratios, values, scores, torch.ones(5, dtype=torch.int64), tau, 1.0)
        weights = 5 * logprobs.exp().detach()[:, None]
        policy, _ = consistency_losses(log_ratios, values, errors, mask, weights, kls, tau)
        policy.backward()
        assert logits.grad is not None
        gradients.append(logits.grad)
    assert gradients[0].abs().max() > 0.05
    torch.testing.assert_close(*gradients)


def test_the_optimum_beside_a_reference_is_consistent_along_every_path() -> None:
    """All texts of two tokens out of three: π* ∝ π_ref · exp(score / τ) leaves no error, whatever was written."""
    tau, generator = 0.3, torch.Generator().manual_seed(1)
    scores = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    first = torch.randn(3, generator=generator, dtype=torch.float64).log_softmax(0)
    second = torch.randn(3, 3, generator=generator, dtype=torch.float64).log_softmax(1)
    texts = (first[:, None] + second + scores / tau).flatten().log_softmax(0).view(3, 3)  # log π* of a text
    optimal_first = texts.logsumexp(1)
    second_v = tau * (second + scores / tau).logsumexp(1)
    first_v = tau * (first + second_v / tau).logsumexp(0)
    for a in range(3):
        for b in range(3):
            log_ratios = torch.stack([optimal_first[a] - first[a], texts[a, b] - optimal_first[a] - second[a, b]])[None]
            values = torch.stack([first_v, second_v[a]])[None]
            for lam in (0.0, 0.6, 1.0):
                errors = consistency_errors(log_ratios, values, scores[a, b][None], torch.tensor([2]), tau, lam)
                assert errors.abs().max().item() == pytest.approx(0, abs=1e-12)


def episodes(seed: int = 0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, 3, 5, generator=generator, dtype=torch.float64)
    values = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    scores = torch.randn(4, generator=generator, dtype=torch.float64)
    lengths = torch.tensor([3, 1, 2, 3])
    masks = torch.rand(4, 3, 5, generator=generator) < 0.6
    masks[..., 0] = True
    return logits, values, scores, lengths, masks, torch.arange(3) < lengths[:, None]


def test_path_consistency_against_its_definition() -> None:
    logits, values, scores, lengths, *_ = episodes()
    logprobs = log_policy(logits)[..., 0]
    total = 0.0
    for b, length in enumerate(lengths.tolist()):
        for t in range(length):
            rest = sum(logprobs[b, i].item() for i in range(t, length))
            total += 0.5 * (values[b, t].item() + 0.7 * rest - scores[b].item()) ** 2
    loss = path_consistency_loss(logprobs, values, scores, lengths, 0.7)
    assert loss.item() == pytest.approx(total / lengths.sum().item())


LOSSES: dict[str, Callable[..., Tensor]] = {
    "policy": lambda x, v, s, n, legal, m: sac_policy_loss(log_policy(x, legal), 2 * x.detach(), x.detach(), 0.3, m),
    "path": lambda x, v, s, n, legal, m: path_consistency_loss(log_policy(x, legal)[..., 0], v, s, n, 0.3),
    "soft values": lambda x, v, s, n, legal, m: soft_values(x, 0.3, legal).sum(),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients(name: str) -> None:
    logits, values, *rest = episodes()
    logits, values = logits.requires_grad_(), values.requires_grad_()

    def loss(logits: Tensor, values: Tensor) -> Tensor:
        return LOSSES[name](logits, values, *rest)

    if name == "policy":  # its critics are fixed, which finite differences do not know
        fixed = logits.detach().clone()
        assert torch.autograd.gradcheck(
            lambda x: sac_policy_loss(log_policy(x, rest[2]), 2 * fixed, fixed, 0.3, rest[3]), (logits,)
        )
    else:
        assert torch.autograd.gradcheck(loss, (logits, values))


def test_padding_changes_nothing_and_gets_no_gradient() -> None:
    logits, values, scores, lengths, legal, mask = episodes()
    for name, loss in LOSSES.items():
        if name == "soft values":
            continue
        results = []
        for dirt in (0.0, NAN):
            x = torch.where(mask[..., None], logits, dirt).requires_grad_()
            v = torch.where(mask, values, dirt).requires_grad_()
            result = loss(x, v, scores, lengths, legal, mask)
            result.backward()
            results.append((result.detach(), x.grad, v.grad))
        assert results[0][0] == results[1][0]
        for clean in results[0][1:]:
            if clean is not None:
                assert not clean[~mask].any()


# -- return decomposition ----------------------------------------------------------------------------------------------


def test_return_decomposition_loss_literal_and_its_gradient() -> None:
    contributions = torch.tensor([[1.0, 2.0], [4.0, NAN]], requires_grad=True)
    baseline, scores = torch.tensor([0.5, 1.0], requires_grad=True), torch.tensor([2.0, 6.0])
    loss = return_decomposition_loss(contributions, baseline, scores, MASK)
    assert loss.item() == (1.5**2 + 1.0**2) / 2
    loss.backward()
    assert contributions.grad is not None
    assert baseline.grad is not None
    assert contributions.grad.tolist() == [[1.5, 1.5], [-1.0, 0.0]]
    assert baseline.grad.tolist() == [1.5, -1.0]


def test_contributions_of_an_additive_score_are_found_by_least_squares() -> None:
    """With a table for f and no network, gradient descent on the loss gives what every symbol adds, up to a constant of
    each position; and the symbol that adds most is the best."""
    generator = torch.Generator().manual_seed(0)
    worth = torch.randn(3, 4, generator=generator)
    texts = torch.randint(4, (200, 3), generator=generator)
    scores = worth[torch.arange(3), texts].sum(1)
    table, baseline = torch.zeros(3, 4, requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([table, baseline], max_iter=200)

    def closure() -> Tensor:
        optimizer.zero_grad()
        taken = table[torch.arange(3), texts]
        loss = return_decomposition_loss(taken, baseline.expand(200), scores, torch.ones(200, 3, dtype=torch.bool))
        loss.backward()
        return loss

    optimizer.step(closure)
    assert closure().item() < 1e-8
    centred = table.detach() - table.detach().mean(1, keepdim=True)
    torch.testing.assert_close(centred, worth - worth.mean(1, keepdim=True), atol=1e-3, rtol=1e-3)


def test_continuation_targets_literal() -> None:
    probabilities = torch.tensor([[[0.5, 0.5], [0.25, 0.75]], [[1.0, 0.0], [NAN, NAN]]])
    values = torch.tensor([[[9.0, 9.0], [4.0, 8.0]], [[9.0, 9.0], [NAN, NAN]]])
    assert continuation_targets(probabilities, values, MASK).tolist() == [[7.0, 0.0], [0.0, 0.0]]


def test_continuation_of_the_best_policy_is_what_it_will_still_earn() -> None:
    """On a tree of three tokens, by fixed point: under the greedy policy c(s, a) is the best sum of later f."""
    generator = torch.Generator().manual_seed(1)
    f = [torch.randn(2**t, 2, generator=generator) for t in range(3)]  # f[t][prefix as a number, token]
    c = [torch.zeros_like(x) for x in f]
    texts = torch.tensor([[a, b, d] for a in (0, 1) for b in (0, 1) for d in (0, 1)])
    prefixes = torch.stack([torch.zeros(8, dtype=torch.int64), texts[:, 0], 2 * texts[:, 0] + texts[:, 1]], 1)
    mask = torch.ones(8, 3, dtype=torch.bool)
    for _ in range(3):
        q = torch.stack([(f[t] + c[t])[prefixes[:, t]] for t in range(3)], 1)
        greedy = torch.nn.functional.one_hot(q.argmax(-1), 2).float()
        targets = continuation_targets(greedy, q, mask)
        for t in range(3):
            c[t][prefixes[:, t], texts[:, t]] = targets[:, t]
    sums = torch.stack([f[t][prefixes[:, t], texts[:, t]] for t in range(3)], 1).sum(1)
    best_after = {a: sums[texts[:, 0] == a].max() - f[0][0, a] for a in (0, 1)}
    torch.testing.assert_close(c[0][0], torch.stack([best_after[0], best_after[1]]))


def test_continuation_evidence_literal() -> None:
    probabilities = torch.tensor([[[0.5, 0.5], [0.5, 0.5]], [[0.5, 0.5], [NAN, NAN]]])
    continuations = torch.tensor([[[1.0, 3.0], [8.0, 8.0]], [[5.0, 1.0], [NAN, NAN]]])
    contributions, actions = torch.tensor([[1.0, 4.0], [2.0, NAN]]), torch.tensor([[1, 0], [0, 0]])
    kept, promised = continuation_evidence(
        probabilities, contributions, continuations, actions, torch.tensor([5.0, 7.0]), MASK
    )
    # The first token of the first text alone has a continuation: promised 3 − 2, and 5 − 1 − 2 came.
    assert (kept.item(), promised.item()) == (2.0, 1.0)


def test_self_imitation_loss_literal_and_its_gradient() -> None:
    logprobs = torch.tensor([[-1.0, -2.0], [-3.0, NAN]], requires_grad=True)
    gains = torch.tensor([0.5, -2.0], requires_grad=True)
    loss = self_imitation_loss(logprobs, gains, MASK)
    assert loss.item() == 0.75
    loss.backward()
    assert gains.grad is None
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [[-0.25, -0.25], [0.0, 0.0]]


@pytest.mark.parametrize("loss", [return_decomposition_loss, self_imitation_loss])
def test_gradients_of_return_decomposition(loss: Callable[..., Tensor]) -> None:
    generator = torch.Generator().manual_seed(2)
    values = torch.randn(2, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    if loss is return_decomposition_loss:
        baseline = torch.randn(2, generator=generator, dtype=torch.float64, requires_grad=True)
        scores = torch.randn(2, generator=generator, dtype=torch.float64)
        assert torch.autograd.gradcheck(lambda f, b: loss(f, b, scores, MASK), (values, baseline))
    else:
        gains = torch.tensor([0.7, -0.3], dtype=torch.float64)
        assert torch.autograd.gradcheck(lambda x: loss(x, gains, MASK), (values,))
