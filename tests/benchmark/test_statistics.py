"""Statistics over environments: against literal numbers, rliable, and synthetic curves with known answers."""

import numpy as np
import pytest

from agents.benchmark.analyse import Times, geometric_mean_ratio, stratified_iqm
from agents.benchmark.statistics import (
    area_under_curve,
    holm,
    paired_p_value,
    performance_profile,
    probability_of_improvement,
    rank_correlation,
    score_at,
)

# Scores of two agents, a row for each environment, and what rliable 1.2.0 says about them (its matrices are runs ×
# tasks, so transposed): metrics.aggregate_iqm, metrics.probability_of_improvement,
# library.create_performance_profile, and library.get_interval_estimates with RandomState(0), 50,000 resamples (20,000
# for the last two). rliable needs arch, whose version 7.2 does not import beside pandas 3, so it is no test dependency.
A = [
    [0.78, 0.91, 0.5, 0.5, 0.9],
    [0.68, 0.56, 0.72, 0.7, 0.5],
    [0.61, 0.93, 0.93, 0.75, 0.84],
    [0.75, 0.86, 0.46, 0.64, 0.87],
]
B = [
    [0.78, 0.19, 0.45, 0.89, 0.47],
    [0.3, 0.87, 0.66, 0.76, 0.43],
    [0.44, 0.63, 0.08, 0.4, 0.61],
    [0.54, 0.61, 0.86, 0.63, 0.31],
]
RLIABLE_IQM = {"A": (0.733, 0.634, 0.808), "B": (0.547, 0.441, 0.661)}
RLIABLE_IMPROVEMENT = (0.745, 0.580, 0.895)
RLIABLE_TAUS = [0.0, 0.25, 0.5, 0.75, 0.9, 1.0]
RLIABLE_PROFILE = ([1, 1, 0.8, 0.4, 0.15, 0], [1, 1, 0.65, 0.2, 0, 0], [1, 1, 0.95, 0.6, 0.3, 0])


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def times(values, observed=None) -> Times:
    values = np.asarray(values, dtype=np.float64)
    return Times(values, np.ones(len(values), dtype=bool) if observed is None else np.asarray(observed, dtype=bool))


def test_interquartile_mean_is_rliables():
    for name, scores in (("A", A), ("B", B)):
        value, low, high = RLIABLE_IQM[name]
        estimate = stratified_iqm(scores, rng(), num_resamples=20_000)
        assert estimate.value == pytest.approx(value, abs=1e-12)
        assert (estimate.low, estimate.high) == (pytest.approx(low, abs=0.005), pytest.approx(high, abs=0.005))


def test_probability_of_improvement_is_rliables():
    value, low, high = RLIABLE_IMPROVEMENT
    estimate = probability_of_improvement(list(zip(A, B, strict=True)), rng(), num_resamples=20_000)
    assert estimate.value == pytest.approx(value, abs=1e-12)
    assert (estimate.low, estimate.high) == (pytest.approx(low, abs=0.01), pytest.approx(high, abs=0.01))
    other = probability_of_improvement(list(zip(B, A, strict=True)), rng())
    assert other.value == pytest.approx(1 - value)


def test_performance_profile_is_rliables():
    profile = performance_profile(A, RLIABLE_TAUS, rng(), num_resamples=20_000)
    np.testing.assert_allclose(profile.share, RLIABLE_PROFILE[0], atol=1e-12)
    np.testing.assert_allclose(profile.low, RLIABLE_PROFILE[1], atol=0.051)  # a run is 0.05
    np.testing.assert_allclose(profile.high, RLIABLE_PROFILE[2], atol=0.051)


def test_small_samples_have_figures_without_intervals():
    estimate = probability_of_improvement([([1.0], [0.0, 2.0])], rng())
    assert estimate.value == 0.5
    assert np.isnan(estimate.low)
    assert probability_of_improvement([([1.0, 1.0], [1.0, 1.0])], rng()).value == 0.5, "ties count half"
    profile = performance_profile([[0.5], [0.7, 0.9]], [0.6], rng())
    np.testing.assert_allclose(profile.share, [2 / 3])
    assert np.isnan(profile.low).all()


def test_area_under_known_curves():
    assert area_under_curve([0, 10, 20], [0.0, 1.0, 1.0], 20) == pytest.approx(0.5)
    assert area_under_curve([0, 10], [0.0, 1.0], 40) == pytest.approx(0.75), "it goes on as it stopped"
    assert area_under_curve([0, 10, 20], [0.0, 0.4, 1.0], 15) == pytest.approx(0.4 * 5 / 15), "nothing beyond the end"
    assert area_under_curve([0, 20], [0.3, 0.9], 20) == pytest.approx(0.3)
    # 1 − exp(−n / s) over 0 … N has the mean 1 − s / N (1 − exp(−N / s)).
    n = np.arange(0, 4_001, 4)
    expected = 1 - 500 / 4_000 * (1 - np.exp(-8))
    assert area_under_curve(n, 1 - np.exp(-n / 500), 4_000) == pytest.approx(expected, abs=0.002)
    with pytest.raises(ValueError, match="above 0"):
        area_under_curve([0], [0.0], 0)
    assert score_at([0, 10, 20], [0.1, 0.2, 0.3], 19) == 0.2


def test_holm_on_literal_numbers():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.6, 0.9]), [1.0, 1.0])
    np.testing.assert_allclose(holm([0.2]), [0.2])
    assert len(holm([])) == 0


def test_exact_p_values():
    """Five pairs that all point one way: 2 of 32 sign patterns are as extreme."""
    pairs = [(times([20, 40, 30, 25, 10]), times([10, 10, 10, 10, 5]))]
    assert paired_p_value(pairs, rng()) == pytest.approx(2 / 32)
    assert paired_p_value([(b, a) for a, b in pairs], rng()) == pytest.approx(2 / 32)
    assert paired_p_value([(times([1, 2]), times([2, 1]))], rng()) == pytest.approx(1.0)
    both = [(times([9, 9], [0, 0]), times([5, 7], [0, 0]))]
    assert paired_p_value(both, rng()) == 1.0, "neither got there: nothing is known"
    one = [(times([9] * 5, [0] * 5), times([3] * 5))]
    assert paired_p_value(one, rng()) == pytest.approx(2 / 32), "a bound is evidence"


def test_p_values_keep_their_level_under_censoring():
    generator, found = rng(), 0
    for _ in range(400):
        pairs = []
        for _ in range(4):
            draws = generator.lognormal(sigma=1.0, size=(2, 5))
            pairs.append(tuple(times(np.minimum(row, 1.5), row < 1.5) for row in draws))
        found += paired_p_value(pairs, generator, num_permutations=400) < 0.05
    assert found / 400 < 0.08
    assert found / 400 > 0.015, "nor is it a test that never finds anything"


def test_a_known_speed_up_is_found_within_its_interval():
    """a needs three times as much as b in truth, with lognormal noise."""
    generator, hits = rng(), 0
    for _ in range(100):
        pairs = []
        for scale in (100, 1_000, 5_000, 20):
            b = scale * generator.lognormal(sigma=0.4, size=5)
            a = 3 * scale * generator.lognormal(sigma=0.4, size=5)
            pairs.append((times(a), times(b)))
        ratio = geometric_mean_ratio(pairs, generator, num_resamples=400)
        hits += ratio.low <= 3 <= ratio.high
        assert paired_p_value(pairs, generator, num_permutations=500) < 0.05
    assert 0.85 <= hits / 100 <= 1.0


def test_rank_correlation():
    assert rank_correlation([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(1.0)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)
    # Ties have mean ranks: ranks 0, 1.5, 1.5, 3 against 0, 1, 2, 3.
    assert rank_correlation([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(0.9486832980505138)
    assert np.isnan(rank_correlation([1, 1], [1, 2]))
    assert np.isnan(rank_correlation([], []))
