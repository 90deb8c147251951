"""What the rows say: pure functions of arrays, with no files, no plots and no opinion.

A *time* is where a run crosses a threshold, on any axis: episodes, reward calls, tokens (timesteps) or seconds. A
run that never crosses is right-censored at its last evaluation: its time is known to be larger. Censored runs
are never dropped, because dropping them would flatter the agent that fails most often.

Intervals are percentile bootstrap intervals over runs. With few runs they are rough (three runs allow ten
distinct resamples), and with one run there is none: `low` and `high` are NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

NUM_RESAMPLES = 2_000
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A statistic of a sample of runs with its bootstrap interval.

    `value`, `low` and `high` may be infinite ("beyond what was observed"); `low` and `high` are NaN for one
    run.
    """

    value: float
    low: float
    high: float
    num_runs: int


@dataclass(frozen=True)
class Times:
    """A right-censored sample: `values [n]`, and whether each crossing was `observed [n]` or lies beyond its
    value.
    """

    values: FloatArray
    observed: BoolArray

    def __post_init__(self) -> None:
        if self.values.shape != self.observed.shape or self.values.ndim != 1:
            raise ValueError(f"times need two vectors of one length, got {self.values.shape} and {self.observed.shape}")


@dataclass(frozen=True)
class Curve:
    """A mean curve with a pointwise interval: all `[G]`.

    `until` is the end of what the mean rests on: beyond it a run that had not succeeded was out of budget.
    `solved` is where the last of the runs stopped if all of them stopped at success, else infinite: from
    there on the curve is carried forward.
    """

    grid: FloatArray
    mean: FloatArray
    low: FloatArray
    high: FloatArray
    until: float
    solved: float


@dataclass(frozen=True)
class Ratio:
    """Geometric mean of paired ratios a / b, and how many pairs are only bounds.

    `only_a_censored` pairs are larger in truth, `only_b_censored` smaller; `both_censored` say nothing and
    count as equal.
    """

    value: float
    low: float
    high: float
    num_pairs: int
    only_a_censored: int
    only_b_censored: int
    both_censored: int

    @property
    def inverse(self) -> Ratio:
        """The same for b / a."""
        low, high = (float(1.0 / end) for end in (self.high, self.low))
        return Ratio(
            1.0 / self.value, low, high, self.num_pairs, self.only_b_censored, self.only_a_censored, self.both_censored
        )


def normalise(scores: ArrayLike, random_score: float, optimum: float) -> FloatArray:
    """(score − random) / (optimum − random): 0 is what random play reaches, 1 is the best possible."""
    if not optimum > random_score:
        raise ValueError(f"the optimum ({optimum}) must be above the random score ({random_score})")
    return (np.asarray(scores, dtype=np.float64) - random_score) / (optimum - random_score)


def crossing_index(scores: ArrayLike, threshold: float) -> int | None:
    """Index of the first of two consecutive evaluations at or above the threshold; None if there are none.

    Two in a row, because with tens of evaluations a single one passes by luck.
    """
    above = np.asarray(scores, dtype=np.float64) >= threshold
    both = above[:-1] & above[1:]
    return int(np.argmax(both)) if both.any() else None


def crossing_time(x: ArrayLike, scores: ArrayLike, threshold: float) -> tuple[float, bool]:
    """(time, observed): `x` at the crossing, or the last `x` and False where the run is censored."""
    x = np.asarray(x, dtype=np.float64)
    index = crossing_index(scores, threshold)
    return (float(x[-1]), False) if index is None else (float(x[index]), True)


def kaplan_meier_median(values: ArrayLike, observed: ArrayLike) -> FloatArray:
    """Median of right-censored samples, one a row: `values [..., n]`, `observed [..., n]` → `[...]`.

    The product-limit estimate (Kaplan and Meier, 1958) S(t) = Π_{t_i ≤ t} (1 − d_i / n_i); the median is the
    first t with S(t) < 1/2, or the middle of the interval where S is exactly 1/2. So without censoring it is
    the ordinary median. Infinite where S never falls that far. At a tie, crossings come before censorings.
    """
    values = np.asarray(values, dtype=np.float64)
    observed = np.asarray(observed, dtype=bool)
    num_runs = values.shape[-1]
    if num_runs == 0:
        raise ValueError("the median of no runs does not exist")
    order = np.lexsort((~observed, values), axis=-1)
    values = np.take_along_axis(values, order, axis=-1)
    observed = np.take_along_axis(observed, order, axis=-1)
    at_risk = num_runs - np.arange(num_runs)
    return _median_of_survival(values, np.cumprod(np.where(observed, 1.0 - 1.0 / at_risk, 1.0), axis=-1))


def resample(num_runs: int, rng: np.random.Generator, num_resamples: int = NUM_RESAMPLES) -> NDArray[np.int64]:
    """Bootstrap indices `[num_resamples, num_runs]`, drawn with replacement."""
    return rng.integers(num_runs, size=(num_resamples, num_runs))


def percentile_interval(samples: ArrayLike, level: float = LEVEL) -> tuple[FloatArray, FloatArray]:
    """The central `level` of `samples` along the first axis; picks samples, so infinities are allowed."""
    samples = np.asarray(samples, dtype=np.float64)
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2], axis=0, method="inverted_cdf")
    return low, high


def median_time(times: Times, rng: np.random.Generator, num_resamples: int = NUM_RESAMPLES) -> Estimate:
    """Censored median time with its bootstrap interval."""
    num_runs = len(times.values)
    value = float(kaplan_meier_median(times.values, times.observed))
    if num_runs == 1:
        return Estimate(value, np.nan, np.nan, 1)
    rows = resample(num_runs, rng, num_resamples)
    low, high = percentile_interval(_resampled_medians(times, rows))
    return Estimate(value, float(low), float(high), num_runs)


def _resampled_medians(times: Times, rows: NDArray[np.int64]) -> FloatArray:
    """:func:`kaplan_meier_median` of every resample [R, n], sorted once for all of them."""
    num_resamples, num_runs = rows.shape
    order = np.lexsort((~times.observed, times.values))
    place = np.argsort(order)
    flat = place[rows] + num_runs * np.arange(num_resamples)[:, None]
    counts = np.bincount(flat.ravel(), minlength=rows.size).reshape(rows.shape)
    at_risk = num_runs - np.cumsum(counts, axis=1) + counts
    crossed = np.where(times.observed[order], counts, 0)
    survival = np.cumprod(1.0 - crossed / np.maximum(at_risk, 1), axis=1)
    return _median_of_survival(times.values[order], survival)


def _median_of_survival(values: FloatArray, survival: ArrayLike) -> FloatArray:
    """Where S falls to 1/2, `[...]`, for sorted `values [..., n]` and `survival [..., n]` behind them."""
    survival = np.asarray(survival, dtype=np.float64)
    values = np.broadcast_to(values, survival.shape)

    def first(reached: BoolArray) -> FloatArray:
        index = np.argmax(reached, axis=-1)[..., None]
        return np.where(reached.any(axis=-1), np.take_along_axis(values, index, axis=-1)[..., 0], np.inf)

    rounding = 1e-9
    return 0.5 * (first(survival <= 0.5 + rounding) + first(survival < 0.5 - rounding))


def mean_estimate(values: ArrayLike, rng: np.random.Generator, num_resamples: int = NUM_RESAMPLES) -> Estimate:
    """Mean over runs with its bootstrap interval."""
    values = np.asarray(values, dtype=np.float64)
    if len(values) == 1:
        return Estimate(float(values[0]), np.nan, np.nan, 1)
    low, high = percentile_interval(values[resample(len(values), rng, num_resamples)].mean(axis=1))
    return Estimate(float(values.mean()), float(low), float(high), len(values))


def interquartile_mean(values: ArrayLike) -> FloatArray:
    """Mean of the middle half along the last axis: ⌊n/4⌋ values are cut from either end (Agarwal et al.,
    2021).
    """
    values = np.sort(np.asarray(values, dtype=np.float64), axis=-1)
    cut = values.shape[-1] // 4
    return values[..., cut : values.shape[-1] - cut].mean(axis=-1)


def stratified_iqm(
    scores: Sequence[ArrayLike], rng: np.random.Generator, num_resamples: int = NUM_RESAMPLES
) -> Estimate:
    """Interquartile mean over all runs of all environments; runs are resampled within their environment.

    `scores` holds one vector of run scores for each environment (lengths may differ). Agarwal et al., "Deep
    RL at the edge of the statistical precipice", 2021.
    """
    strata = [np.asarray(values, dtype=np.float64) for values in scores]
    value = float(interquartile_mean(np.concatenate(strata)))
    num_runs = sum(len(values) for values in strata)
    if min(len(values) for values in strata) == 1:
        return Estimate(value, np.nan, np.nan, num_runs)
    drawn = [values[resample(len(values), rng, num_resamples)] for values in strata]
    low, high = percentile_interval(interquartile_mean(np.concatenate(drawn, axis=1)))
    return Estimate(value, float(low), float(high), num_runs)


def carry_forward(x: ArrayLike, y: ArrayLike, grid: ArrayLike) -> FloatArray:
    """Step interpolation: at every point of the grid the last `y` observed at or before it (NaN before the
    first).
    """
    x, y, grid = (np.asarray(values, dtype=np.float64) for values in (x, y, grid))
    index = np.searchsorted(x, grid, side="right") - 1
    return np.where(index >= 0, y[np.maximum(index, 0)], np.nan)


def mean_curve(
    runs: Sequence[tuple[ArrayLike, ArrayLike]],
    solved: Sequence[bool],
    grid: ArrayLike,
    rng: np.random.Generator,
    num_resamples: int = NUM_RESAMPLES,
) -> Curve:
    """Mean of the runs' step functions on a common grid, with a pointwise bootstrap interval over runs.

    `runs` holds (x, y) for each run; `solved` tells which stopped because they had succeeded. These are
    carried forward: their last value stands for what they would have gone on to reach. A run that used up its
    budget cannot be carried past it, so the curve ends (`until`) where the first of those ends.
    """
    grid = np.asarray(grid, dtype=np.float64)
    values = np.stack([carry_forward(x, y, grid) for x, y in runs])
    ends = np.array([np.asarray(x, dtype=np.float64)[-1] for x, _ in runs])
    done = np.asarray(solved, dtype=bool)
    until = float(grid[-1] if done.all() else ends[~done].min())
    mean = values.mean(axis=0)
    low = high = np.full_like(mean, np.nan)
    if len(runs) > 1:
        rows = resample(len(runs), rng, num_resamples) + len(runs) * np.arange(num_resamples)[:, None]
        counts = np.bincount(rows.ravel(), minlength=rows.size).reshape(rows.shape)
        low, high = percentile_interval(counts @ values / len(runs))
    return Curve(grid, mean, low, high, until, float(ends.max()) if done.all() else float("inf"))


def data_utilisation(gradient_samples: ArrayLike, timesteps: ArrayLike) -> FloatArray:
    """Gradient samples per environment sample: how often a token that was written entered a gradient step."""
    return np.asarray(gradient_samples, dtype=np.float64) / np.asarray(timesteps, dtype=np.float64)


def log_ratios(a: Times, b: Times) -> FloatArray:
    """log(a / b) of paired times [n]. Where one of a pair is censored, what is known of it enters, and the ratio is a
    bound; where both are, nothing is known of the ratio and it counts as 1.

    Raises:
        ValueError: other lengths, or times that are not above 0.
    """
    if len(a.values) != len(b.values):
        raise ValueError(f"paired times need one length, got {len(a.values)} and {len(b.values)}")
    if min(a.values.min(), b.values.min()) <= 0:
        raise ValueError("ratios need times above 0")
    return np.where(a.observed | b.observed, np.log(a.values / b.values), 0.0)


def geometric_mean_ratio(
    pairs: Sequence[tuple[Times, Times]], rng: np.random.Generator, num_resamples: int = NUM_RESAMPLES
) -> Ratio:
    """How many times more (episodes, tokens, seconds) agent a needs than agent b.

    `pairs` holds (times of a, times of b) for each environment, aligned: entry i of both is the same seed,
    that is the same task and the same prompts. exp of the mean over environments of the mean over runs of
    log(a / b).

    Runs are resampled within their environment, both agents together, and one fewer than there are: so the
    variance between resamples is that of the mean, not (n − 1) / n of it (Rao and Wu, 1988). There is no
    interval where an environment has a single pair, since nothing is known about its spread.
    """
    logs, only_a, only_b, both = [], 0, 0, 0
    for a, b in pairs:
        logs.append(log_ratios(a, b))
        only_a += int((~a.observed & b.observed).sum())
        only_b += int((a.observed & ~b.observed).sum())
        both += int((~a.observed & ~b.observed).sum())
    value = float(np.exp(np.mean([log.mean() for log in logs])))
    low = high = np.nan
    if min(len(log) for log in logs) > 1:
        drawn = [log[resample(len(log), rng, num_resamples)[:, 1:]].mean(axis=1) for log in logs]
        low, high = (float(end) for end in percentile_interval(np.exp(np.mean(drawn, axis=0))))
    return Ratio(value, low, high, sum(len(log) for log in logs), only_a, only_b, both)
