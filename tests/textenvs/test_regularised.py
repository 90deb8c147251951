"""The closed forms: literal numbers, and what must hold for any reference and any scores."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from textenvs.regularised import (
    best_logprobs,
    best_of_n_bound,
    best_of_n_logprobs,
    check_beta,
    entropy,
    expected,
    kl_divergence,
    logsumexp,
    soft_value,
    tilted_logprobs,
)

REF = np.log([0.5, 0.3, 0.2])
SCORES = np.array([0.0, 1.0, 2.0])

SIZE = 5
logits = arrays(np.float64, SIZE, elements=st.floats(-8, 8))
scores = arrays(np.float64, SIZE, elements=st.sampled_from([-2.0, -0.5, 0.0, 0.25, 1.0, 3.0]))
betas = st.floats(0.02, 50)


def normalised(values: np.ndarray) -> np.ndarray:
    return values - logsumexp(values)


def test_tilted_policy_and_its_value_in_numbers() -> None:
    # At β = 1/log 2 the weights are 0.5 · 1, 0.3 · 2, 0.2 · 4 = 0.5, 0.6, 0.8 of 1.9.
    beta = 1 / np.log(2)
    tilted = tilted_logprobs(REF, SCORES, beta)
    assert np.allclose(np.exp(tilted), [0.5 / 1.9, 0.6 / 1.9, 0.8 / 1.9], atol=1e-15)
    assert soft_value(REF, SCORES, beta) == pytest.approx(np.log(1.9) / np.log(2), abs=1e-14)
    assert expected(tilted, SCORES) == pytest.approx(2.2 / 1.9, abs=1e-14)


def test_two_texts_of_equal_probability_give_the_logistic_function() -> None:
    tilted = tilted_logprobs(np.log([0.5, 0.5]), np.array([0.0, 3.0]), 2.0)
    assert np.exp(tilted[1]) == pytest.approx(1 / (1 + np.exp(-1.5)), abs=1e-15)


def test_kl_and_entropy_in_numbers() -> None:
    own = np.log([0.25, 0.25, 0.5])
    by_hand = 0.25 * np.log(0.25 / 0.5) + 0.25 * np.log(0.25 / 0.3) + 0.5 * np.log(0.5 / 0.2)
    assert kl_divergence(own, REF) == pytest.approx(by_hand, abs=1e-15)
    assert kl_divergence(REF, REF) == 0.0
    assert entropy(own) == pytest.approx(1.5 * np.log(2), abs=1e-15)
    assert entropy(np.array([0.0, -np.inf])) == 0.0


def test_what_the_reference_never_writes() -> None:
    impossible = np.array([0.0, -np.inf, -np.inf])
    assert kl_divergence(impossible, REF) == pytest.approx(np.log(2), abs=1e-15)
    assert kl_divergence(REF, impossible) == np.inf
    assert np.exp(tilted_logprobs(impossible, SCORES, 0.1)).tolist() == [1.0, 0.0, 0.0]
    assert best_logprobs(np.log(np.array([0.5, 0.5, 1e-300])), SCORES).tolist() == [-np.inf, -np.inf, 0.0]
    assert best_logprobs(impossible, SCORES).tolist() == [0.0, -np.inf, -np.inf]  # the best that it can write
    assert best_of_n_logprobs(impossible, SCORES, 3).tolist() == [0.0, -np.inf, -np.inf]


def test_best_texts_share_as_the_reference_does() -> None:
    best = best_logprobs(REF, np.array([2.0, 1.0, 2.0]))
    assert np.allclose(np.exp(best), [5 / 7, 0, 2 / 7], atol=1e-15)


def test_best_of_n_in_numbers() -> None:
    # P(all of 2 score 0) = 0.25; P(best is 1) = 0.8² − 0.5² = 0.39; the rest 0.36.
    assert np.allclose(np.exp(best_of_n_logprobs(REF, SCORES, 2)), [0.25, 0.39, 0.36], atol=1e-15)
    # Equals: texts 0 and 2 share P(best is 0) = 0.7² = 0.49 as 0.5 to 0.2.
    tied = best_of_n_logprobs(REF, np.array([0.0, 1.0, 0.0]), 2)
    assert np.allclose(np.exp(tied), [0.35, 0.51, 0.14], atol=1e-15)
    assert np.allclose(best_of_n_logprobs(REF, SCORES, 1), REF, atol=1e-15)


def test_bound_of_best_of_n_in_numbers() -> None:
    assert best_of_n_bound(1) == 0.0
    assert best_of_n_bound(4) == pytest.approx(0.6362943611198906, abs=1e-15)


def test_bound_is_nearly_reached_by_many_texts_and_far_from_few() -> None:
    # 100,000 texts of different scores: within a thousandth. Two texts, the better one at 1/2: the KL is at most log 2.
    many = np.full(100_000, -np.log(100_000))
    kl = kl_divergence(best_of_n_logprobs(many, np.arange(100_000.0), 16), many)
    assert best_of_n_bound(16) - 1e-3 < kl <= best_of_n_bound(16)
    two = np.log([0.5, 0.5])
    assert kl_divergence(best_of_n_logprobs(two, np.array([0.0, 1.0]), 1_000), two) == pytest.approx(np.log(2))


@given(logits, scores, st.integers(1, 4))
def test_best_of_n_equals_every_draw_listed(reference: np.ndarray, score: np.ndarray, n: int) -> None:
    probabilities = np.exp(normalised(reference))
    listed = np.zeros(SIZE)
    for draw in product(range(SIZE), repeat=n):
        best = max(draw, key=lambda i: score[i])  # the first of equals
        listed[best] += np.prod(probabilities[list(draw)])
    assert np.allclose(np.exp(best_of_n_logprobs(normalised(reference), score, n)), listed, atol=1e-12)


@given(logits, scores, st.integers(1, 1_000))
def test_best_of_n_stays_within_its_bound(reference: np.ndarray, score: np.ndarray, n: int) -> None:
    reference = normalised(reference)
    best = best_of_n_logprobs(reference, score, n)
    assert np.exp(best).sum() == pytest.approx(1, abs=1e-9)
    assert kl_divergence(best, reference) <= best_of_n_bound(n) + 1e-9


@given(logits, logits, scores, betas)
def test_nothing_beats_the_tilted_policy(
    reference: np.ndarray, policy: np.ndarray, score: np.ndarray, beta: float
) -> None:
    """And what a policy misses is β times its KL to the tilted one."""
    reference, policy = normalised(reference), normalised(policy)
    objective = expected(policy, score) - beta * kl_divergence(policy, reference)
    regret = soft_value(reference, score, beta) - objective
    assert regret >= -1e-9
    tilted = tilted_logprobs(reference, score, beta)
    assert regret == pytest.approx(beta * kl_divergence(policy, tilted), rel=1e-6, abs=1e-9 * (1 + beta))


@given(logits, scores, betas)
def test_the_tilted_policy_reaches_its_value(reference: np.ndarray, score: np.ndarray, beta: float) -> None:
    reference = normalised(reference)
    tilted = tilted_logprobs(reference, score, beta)
    reached = expected(tilted, score) - beta * kl_divergence(tilted, reference)
    assert reached == pytest.approx(soft_value(reference, score, beta), abs=1e-9 * (1 + beta))
    assert np.exp(tilted).sum() == pytest.approx(1, abs=1e-12)


@given(logits, scores)
def test_small_beta_leads_to_the_best_texts_and_large_beta_to_the_reference(
    reference: np.ndarray, score: np.ndarray
) -> None:
    reference = normalised(reference)
    assert np.allclose(np.exp(tilted_logprobs(reference, score, 1e-3)), np.exp(best_logprobs(reference, score)))
    assert np.allclose(tilted_logprobs(reference, score, 1e9), reference, atol=1e-6)


@pytest.mark.parametrize("beta", [0, -0.1, np.inf, np.nan])
def test_beta_must_be_positive(beta: float) -> None:
    for function in (soft_value, tilted_logprobs):
        with pytest.raises(
            ValueError, match=r"beta, the weight of the KL, must be positive and finite; got .*best_log"
        ):
            function(REF, SCORES, beta)


@pytest.mark.parametrize("beta", ["0.1", None, True])
def test_beta_must_be_a_number(beta: object) -> None:
    with pytest.raises(ValueError, match="must be a number"):
        check_beta(beta)  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [0, -1, 2.0, True])
def test_n_must_be_a_positive_integer(n: object) -> None:
    for function in (best_of_n_bound, lambda n: best_of_n_logprobs(REF, SCORES, n)):
        with pytest.raises(ValueError, match="must be a positive integer; got"):
            function(n)  # type: ignore[operator]
