"""The statistics, on literal numbers and on synthetic curves with known answers."""

import numpy as np
import pytest

from agents.benchmark.analyse import (
    Times,
    carry_forward,
    crossing_index,
    crossing_time,
    data_utilisation,
    geometric_mean_ratio,
    interquartile_mean,
    kaplan_meier_median,
    mean_curve,
    mean_estimate,
    median_time,
    normalise,
    percentile_interval,
    stratified_iqm,
)

INF = float("inf")


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def times(*values: float, censored: tuple[int, ...] = ()) -> Times:
    observed = np.array([index not in censored for index in range(len(values))])
    return Times(np.array(values, dtype=np.float64), observed)


def test_normalise():
    np.testing.assert_allclose(normalise([0.125, 1.0, 0.5625, 0.0], 0.125, 1.0), [0.0, 1.0, 0.5, -1 / 7])
    with pytest.raises(ValueError, match="above the random score"):
        normalise([0.0], 1.0, 1.0)


def test_a_crossing_needs_two_in_a_row():
    assert crossing_index([0.0, 0.9, 0.2, 0.95, 0.5, 0.9, 0.9, 0.1], 0.9) == 5
    assert crossing_index([0.9, 0.9], 0.9) == 0
    assert crossing_index([0.0, 0.0, 0.9], 0.9) is None, "the last evaluation alone is not confirmed"
    assert crossing_index([0.95], 0.9) is None
    assert crossing_time([0, 10, 20, 30], [0.0, 0.6, 0.6, 0.2], 0.5) == (10.0, True)
    assert crossing_time([0, 10, 20, 30], [0.0, 0.6, 0.4, 0.2], 0.5) == (30.0, False)


def test_kaplan_meier_median_on_published_data():
    """Weeks of remission (Freireich et al., 1963), the textbook example: medians 23 and 8."""
    treated = [6, 6, 6, 6, 7, 9, 10, 10, 11, 13, 16, 17, 19, 20, 22, 23, 25, 32, 32, 34, 35]
    relapsed = [1, 1, 1, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0]
    placebo = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23]
    assert kaplan_meier_median(treated, relapsed) == 23
    assert kaplan_meier_median(placebo, [1] * 21) == 8


def test_kaplan_meier_median_small_samples():
    assert kaplan_meier_median([30, 10, 20], [1, 1, 1]) == 20
    assert kaplan_meier_median([40, 10, 20, 30], [1, 1, 1, 1]) == 25, "the ordinary median"
    assert kaplan_meier_median([10, 20, 99], [1, 1, 0]) == 20
    assert kaplan_meier_median([10, 99, 99], [1, 0, 0]) == INF
    assert kaplan_meier_median([10, 99], [1, 0]) == INF, "half are known: the middle is not"
    assert kaplan_meier_median([99], [0]) == INF
    assert kaplan_meier_median([5], [1]) == 5
    # Censored early: whoever is left counts for more. S = 1, 2/3, 1/3.
    assert kaplan_meier_median([1, 10, 20, 30], [0, 1, 1, 1]) == 20
    # A tie: the crossing at 10 comes before the censoring at 10. S = 2/3 at 10, 1/3... never again.
    assert kaplan_meier_median([10, 10, 20], [1, 0, 1]) == 20
    np.testing.assert_array_equal(kaplan_meier_median([[1, 2, 3], [9, 9, 9]], [[1, 1, 1], [0, 0, 0]]), [2, INF])
    with pytest.raises(ValueError, match="no runs"):
        kaplan_meier_median([], [])


def test_without_censoring_the_median_is_numpys():
    values = rng().lognormal(size=(200, 9))
    np.testing.assert_allclose(kaplan_meier_median(values, values > 0), np.median(values, axis=1))
    np.testing.assert_allclose(kaplan_meier_median(values[:, :8], values[:, :8] > 0), np.median(values[:, :8], axis=1))


def test_intervals_of_medians():
    assert median_time(times(7), rng()).value == 7
    assert np.isnan(median_time(times(7), rng()).low), "one run has no interval"
    estimate = median_time(times(10, 20, 30), rng())
    assert (estimate.value, estimate.low, estimate.high, estimate.num_runs) == (20, 10, 30, 3)
    estimate = median_time(times(10, 20, 99, censored=(2,)), rng())
    assert (estimate.value, estimate.low, estimate.high) == (20, 10, INF)
    estimate = median_time(times(99, 99, 99, censored=(0, 1, 2)), rng())
    assert (estimate.value, estimate.low, estimate.high) == (INF, INF, INF)


def test_intervals_cover_the_truth():
    """Censored lognormal times with median 1: a 95 % interval should hold it nearly always with 25 runs."""
    draws = rng().lognormal(size=(200, 25))
    hits = 0
    for seed, row in enumerate(draws):
        sample = Times(np.minimum(row, 3.0), row < 3.0)
        estimate = median_time(sample, np.random.default_rng(seed), num_resamples=300)
        hits += estimate.low <= 1.0 <= estimate.high
    assert 0.88 <= hits / len(draws) <= 0.99


def test_percentile_interval_picks_samples():
    low, high = percentile_interval(np.arange(1, 101))
    assert (low, high) == (3, 98)
    assert percentile_interval([1.0, INF, INF])[1] == INF


def test_mean_estimate():
    estimate = mean_estimate([1.0, 2.0, 3.0], rng())
    assert (estimate.value, estimate.low, estimate.high) == (2.0, 1.0, 3.0)
    assert np.isnan(mean_estimate([1.0], rng()).low)
    constant = mean_estimate([2.0, 2.0], rng())
    assert (constant.low, constant.high) == (2.0, 2.0)


def test_interquartile_mean():
    assert interquartile_mean([100, 1, 2, 3, 4, -100, 5, 0]) == pytest.approx((1 + 2 + 3 + 4) / 4)
    assert interquartile_mean([1, 2, 6]) == 3, "with three values nothing is cut"
    np.testing.assert_array_equal(interquartile_mean([[0, 1, 1, 9], [1, 2, 2, 3]]), [1, 2])


def test_stratified_resampling_keeps_the_environments_apart():
    """Without spread inside the environments there is none between resamples, however different they are."""
    estimate = stratified_iqm([[0.0, 0.0], [1.0, 1.0]], rng())
    assert (estimate.value, estimate.low, estimate.high, estimate.num_runs) == (0.5, 0.5, 0.5, 4)
    assert np.isnan(stratified_iqm([[0.0], [1.0, 1.0]], rng()).low)


def test_carry_forward():
    np.testing.assert_array_equal(
        carry_forward([1, 10, 20], [0.1, 0.5, 0.7], [0, 1, 9.9, 10, 19, 20, 99]),
        [np.nan, 0.1, 0.1, 0.5, 0.5, 0.7, 0.7],
    )


def test_mean_curve_of_known_steps():
    grid = [0, 10, 20, 30]
    curve = mean_curve([([0, 10], [0.0, 1.0]), ([0, 20], [0.0, 1.0])], [True, True], grid, rng())
    np.testing.assert_array_equal(curve.mean, [0.0, 0.5, 1.0, 1.0])
    np.testing.assert_array_equal(curve.low, [0.0, 0.0, 1.0, 1.0])
    np.testing.assert_array_equal(curve.high, [0.0, 1.0, 1.0, 1.0])
    assert (curve.until, curve.solved) == (30, 20)


def test_a_curve_ends_where_a_run_was_out_of_budget():
    curve = mean_curve(
        [([0, 10], [0.0, 1.0]), ([0, 20], [0.0, 0.3]), ([0, 25], [0.0, 0.2])],
        [True, False, False],
        [0, 10, 30],
        rng(),
    )
    assert (curve.until, curve.solved) == (20, INF)


def test_data_utilisation():
    np.testing.assert_array_equal(data_utilisation([400, 1_600], [100, 200]), [4.0, 8.0])


def test_ratio_of_known_times():
    # Per environment 2 and 8: the geometric mean over environments is 4, whatever the scales are.
    pairs = [(times(20, 2_000), times(10, 1_000)), (times(80, 8), times(10, 1))]
    ratio = geometric_mean_ratio(pairs, rng())
    assert ratio.value == pytest.approx(4.0)
    assert (ratio.low, ratio.high) == (pytest.approx(4.0), pytest.approx(4.0)), "pairs are resampled together"
    assert (ratio.num_pairs, ratio.only_a_censored, ratio.only_b_censored, ratio.both_censored) == (
        4,
        0,
        0,
        0,
    )
    inverse = geometric_mean_ratio([(b, a) for a, b in pairs], rng())
    assert inverse.value == pytest.approx(0.25)


def test_every_environment_weighs_the_same():
    pairs = [(times(4), times(1)), (times(1, 1, 1), times(1, 1, 1))]
    ratio = geometric_mean_ratio(pairs, rng())
    assert ratio.value == pytest.approx(2.0)
    assert np.isnan(ratio.low), "nothing is known about the spread where there is one pair"


def test_ratio_counts_bounds():
    a, b = times(50, 100, 100, censored=(1, 2)), times(100, 50, 100, censored=(0, 2))
    ratio = geometric_mean_ratio([(a, b)], rng())
    assert (ratio.only_a_censored, ratio.only_b_censored, ratio.both_censored) == (1, 1, 1)
    assert ratio.value == pytest.approx(1.0)
    assert ratio.low <= 1 <= ratio.high
    assert np.isnan(geometric_mean_ratio([(times(2), times(1))], rng()).low)
    with pytest.raises(ValueError, match="one length"):
        geometric_mean_ratio([(times(1, 2), times(1))], rng())


def test_where_there_is_no_difference_one_is_rarely_found():
    """Three seeds on three environments, both agents alike: intervals must not leave out 1 all the time."""
    generator, found = rng(), 0
    for _ in range(300):
        pairs = [(times(*generator.lognormal(size=3)), times(*generator.lognormal(size=3))) for _ in range(3)]
        ratio = geometric_mean_ratio(pairs, generator, num_resamples=300)
        found += not ratio.low <= 1.0 <= ratio.high
    assert found / 300 < 0.15


def test_ratios_need_times_above_zero():
    with pytest.raises(ValueError, match="above 0"):
        geometric_mean_ratio([(times(0), times(10))], rng())
