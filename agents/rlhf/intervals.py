"""Means with intervals over seeds and prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2_000


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float

    def text(self, style: str = ".0%") -> str:
        """ "52 % (49–55)", or "0.52 (0.49–0.55)" for a style without a percent sign."""
        if style.endswith("%"):
            mean, low, high = (f"{100 * value:.{style[1:-1]}f}" for value in (self.mean, self.low, self.high))
            return f"{mean} % ({low}–{high})".replace("-", "−")
        return f"{self.mean:{style}} ({self.low:{style}}–{self.high:{style}})".replace("-", "−")


def bootstrap(values: Sequence[np.ndarray], seed: int = 0) -> Interval:
    """Mean over seeds of the mean over prompts, with a bootstrap over both: seeds are drawn, then prompts in each.

    With few seeds such an interval is rather too narrow.

    Args:
        values: of each seed, one for each prompt.
        seed: of the drawing.

    Raises:
        ValueError: no seeds, or no prompts.
    """
    if not values or not all(len(each) for each in values):
        raise ValueError("There must be at least one seed, and a value of at least one prompt in each.")
    rng = np.random.default_rng(seed)
    drawn = np.stack(
        [each[rng.integers(len(each), size=(RESAMPLES, len(each)))].mean(axis=1) for each in values], axis=1
    )  # [resamples, seeds]
    chosen = rng.integers(len(values), size=(RESAMPLES, len(values)))
    means = np.take_along_axis(drawn, chosen, axis=1).mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(float(np.mean([each.mean() for each in values])), float(low), float(high))
