"""KL estimators against exact enumeration, and the adaptive coefficient against literal numbers."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from agents.losses import adapt_kl_coef, kl_k1, kl_k3
from agents.networks import TransformerConfig
from agents.policies import TransformerPolicy

V, T = 3, 3


def every_text() -> tuple[torch.Tensor, torch.Tensor]:
    """All texts of up to T symbols where symbol 2 is EOS: rows [B, T] and lengths [B]."""
    rows, lengths = [], []
    for text in product(range(V), repeat=T):
        length = text.index(2) + 1 if 2 in text else T
        if all(symbol == 0 for symbol in text[length:]):  # each once
            rows.append([*text[:length], *[V] * (T - length)])
            lengths.append(length)
    return torch.tensor(rows), torch.tensor(lengths)


def test_estimators_against_enumeration() -> None:
    """E[Σ k1] = E[Σ k3] = KL of the distributions over texts, exactly; sampled, k3 scatters less than k1."""
    policy = TransformerPolicy(V, 0, T, TransformerConfig(1, 16, 2))
    with torch.no_grad():
        policy.policy_head.weight.mul_(30)
        reference = policy.frozen_copy()
        policy.policy_head.weight.mul_(1.1)
        policy.trunk.token_embedding.mul_(1.4)
    rows, lengths = every_text()
    logprobs, ref_logprobs = (each.logprobs(rows, lengths).double() for each in (policy, reference))
    text_logprobs, ref_text_logprobs = logprobs.sum(1), ref_logprobs.sum(1)
    probabilities = text_logprobs.exp()
    assert float(probabilities.sum()) == pytest.approx(1, abs=1e-5)
    exact = float((probabilities * (text_logprobs - ref_text_logprobs)).sum())
    assert exact > 0.005

    k1, k3 = kl_k1(logprobs, ref_logprobs), kl_k3(logprobs, ref_logprobs)
    assert (k3 >= 0).all()
    assert (k1 < 0).any()
    for estimator in (k1, k3):
        assert float((probabilities * estimator.sum(1)).sum()) == pytest.approx(exact, abs=1e-5)
    drawn = np.random.default_rng(0).choice(len(rows), 4_000, p=(probabilities / probabilities.sum()).numpy())
    for estimator in (k1, k3):
        sampled = estimator.sum(1)[drawn]
        assert float(sampled.mean()) == pytest.approx(exact, abs=4 * float(sampled.std()) / 4_000**0.5)
    assert k3.sum(1)[drawn].std() < k1.sum(1)[drawn].std()


def test_estimators_literal() -> None:
    logprobs, ref_logprobs = torch.tensor([0.5, 0.25]).log(), torch.tensor([0.25, 0.25]).log()
    torch.testing.assert_close(kl_k1(logprobs, ref_logprobs), torch.tensor([np.log(2), 0.0], dtype=torch.float32))
    # r = 1/2: r − 1 − log r = −1/2 + log 2
    torch.testing.assert_close(kl_k3(logprobs, ref_logprobs), torch.tensor([np.log(2) - 0.5, 0.0], dtype=torch.float32))


@pytest.mark.parametrize(
    ("kl", "expected"),
    [
        (6.0, 0.1),  # on target
        (6.6, 0.1 * (1 + 0.1 * 64 / 10_000)),
        (60.0, 0.1 * (1 + 0.2 * 64 / 10_000)),  # clipped
        (5.4, 0.1 * (1 - 0.1 * 64 / 10_000)),
        (0.0, 0.1 * (1 - 0.2 * 64 / 10_000)),
        (-3.0, 0.1 * (1 - 0.2 * 64 / 10_000)),  # an estimate may be negative
    ],
)
def test_adaptive_coefficient_literal(kl: float, expected: float) -> None:
    assert adapt_kl_coef(0.1, kl, kl_target=6.0, num_episodes=64, horizon=10_000) == pytest.approx(expected)
