"""Means with intervals over seeds and prompts."""

from __future__ import annotations

import numpy as np
import pytest

from agents.rlhf.intervals import Interval, bootstrap


def test_one_seed_is_the_bootstrap_over_its_prompts() -> None:
    values = np.random.default_rng(0).normal(0.3, 1.0, 400)
    found = bootstrap([values])
    error = values.std() / 400**0.5
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_seeds_that_differ_widen_it() -> None:
    same = bootstrap([np.zeros(50), np.zeros(50), np.zeros(50)])
    assert (same.mean, same.low, same.high) == (0, 0, 0)
    apart = bootstrap([np.zeros(50), np.zeros(50), np.ones(50)])
    assert (apart.low, apart.high) == (0.0, 1.0)
    assert apart.mean == pytest.approx(1 / 3)


def test_it_is_reproducible_and_needs_something() -> None:
    values = [np.arange(5.0), np.arange(5.0) * 2]
    assert bootstrap(values, seed=1) == bootstrap(values, seed=1)
    for nothing in ([], [np.zeros(0)]):
        with pytest.raises(ValueError, match="at least one seed"):
            bootstrap(nothing)


def test_text() -> None:
    assert Interval(0.523, 0.49, 0.551).text() == "52 % (49–55)"
    assert Interval(0.523, 0.49, 0.551).text(".1%") == "52.3 % (49.0–55.1)"
    assert Interval(-0.5, -0.61, 0.2).text(".2f") == "−0.50 (−0.61–0.20)"
