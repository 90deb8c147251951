"""Rates and ratios: what the speed benchmarks have in common."""

from __future__ import annotations

import time

import pytest

from agents.benchmark.speed import Comparison, geometric_mean, measured


def comparison(ours: float, peers: float, **others: object) -> Comparison:
    values = {"ratio": ours / peers, "lowest": 0.0, "highest": 9.0, "bar": None, **others}
    return Comparison("section", "what", "peer", "tokens/s", ours, peers, **values)  # type: ignore[arg-type]


def test_geometric_mean_of_rates_is_that_of_ratios() -> None:
    mean = geometric_mean("mean", [comparison(2.0, 1.0), comparison(8.0, 1.0), comparison(1.0, 2.0)], bar=2.1)
    assert mean.ratio == pytest.approx((2.0 * 8.0 * 0.5) ** (1 / 3)) == pytest.approx(2.0)
    assert mean.our_rate / mean.peer_rate == pytest.approx(mean.ratio)
    assert (mean.lowest, mean.highest) == (0.5, 8.0)
    assert (mean.section, mean.what, mean.peer, mean.met) == ("section", "mean", "peer", False)


def test_work_is_repeated_until_the_time_is_over() -> None:
    calls = []

    def work() -> float:
        calls.append(1)
        end = time.process_time() + 0.01
        while time.process_time() < end:
            pass
        return 5.0

    rate = measured(work, seconds=0.035)()
    assert len(calls) in (3, 4)  # a little more than a hundredth each
    assert 100 < rate <= 500
    calls.clear()
    measured(work)()
    assert len(calls) == 1


def test_time_in_which_nothing_is_done_does_not_count() -> None:
    def work() -> float:
        time.sleep(0.05)
        return 1.0

    assert measured(work)() > 100
