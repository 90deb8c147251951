"""Small array functions that several modules share."""

from __future__ import annotations

from functools import lru_cache

import numpy as np


def count_true(mask: np.ndarray) -> np.ndarray:
    """Number of True in each row of a bool array [B, W], as int64 [B].

    A product with ones: several times faster than ``mask.sum(axis=1)`` where rows are short, as texts here are.
    """
    return mask @ _ones(mask.shape[1])


@lru_cache(maxsize=256)
def _ones(count: int) -> np.ndarray:
    ones = np.ones(count, dtype=np.int64)
    ones.flags.writeable = False
    return ones


def last_true(mask: np.ndarray) -> np.ndarray:
    """Column of the last True in each row of a bool array [B, W], int64 [B]; W − 1 where there is none."""
    return mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1)
