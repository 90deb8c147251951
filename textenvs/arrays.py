"""Small array functions that several modules share."""

from __future__ import annotations

import numpy as np


def count_true(mask: np.ndarray) -> np.ndarray:
    """Number of True in each row of a bool array [B, W], as int64 [B].

    A product with ones: several times faster than ``mask.sum(axis=1)`` where rows are short, as texts here are.
    """
    return mask @ np.ones(mask.shape[1], dtype=np.int64)
