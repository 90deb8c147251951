"""Settings that hold for every test."""

from __future__ import annotations

import os

import hypothesis
import pytest

# Before anything imports torch: one thread per process, since the tests run in several. And no window for plots.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

LEARNING_TIMEOUT = 600.0  # seconds, for a learning test that states none of its own

# Same examples in every run, nothing written beside the tests, no failure because the machine was busy.
hypothesis.settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
hypothesis.settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("learning") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(LEARNING_TIMEOUT))
