"""Ours against a peer, measured in turn: what the speed benchmarks have in common."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Measure = Callable[[], float]
"""Does some work and returns its rate, in units of work per second."""


@dataclass(frozen=True)
class Comparison:
    """Ours against a peer, measured in turn."""

    section: str
    what: str
    peer: str
    unit: str
    our_rate: float
    peer_rate: float
    ratio: float
    """Of the medians."""
    lowest: float
    highest: float
    """Of the rounds' own ratios."""
    bar: float | None
    """The ratio that we ask of ourselves; None: reported without one."""
    lower_is_better: bool = False
    """Whether the bar is the most, not the least, that the ratio may be."""

    @property
    def met(self) -> bool:
        """Whether the bar, if there is one, is met."""
        return self.bar is None or (self.ratio <= self.bar if self.lower_is_better else self.ratio >= self.bar)


def compare(
    section: str, what: str, peer: str, unit: str, ours: Measure, peers: Measure, rounds: int, bar: float | None = None
) -> Comparison:
    """Measure ours and the peer's in turn, after one round of each that does not count."""
    ours(), peers()
    pairs = [(ours(), peers()) for _ in range(rounds)]
    our_rate, peer_rate = (statistics.median(rates) for rates in zip(*pairs, strict=True))
    ratios = [one / two for one, two in pairs]
    return Comparison(
        section, what, peer, unit, our_rate, peer_rate, our_rate / peer_rate, min(ratios), max(ratios), bar
    )


def geometric_mean(what: str, comparisons: Sequence[Comparison], bar: float | None) -> Comparison:
    """Geometric means of the rates, and so of the ratios, of comparisons with one peer; lowest and highest are those
    of the comparisons' ratios."""
    first = comparisons[0]
    our_rate, peer_rate = (
        math.exp(statistics.mean(math.log(rate) for rate in rates))
        for rates in zip(*((each.our_rate, each.peer_rate) for each in comparisons), strict=True)
    )
    ratios = [each.ratio for each in comparisons]
    return Comparison(
        first.section, what, first.peer, first.unit, our_rate, peer_rate, our_rate / peer_rate, min(ratios),
        max(ratios), bar,
    )  # fmt: skip


def measured(work: Callable[[], float], seconds: float = 0.0) -> Measure:
    """Units of work per second of the processor, the work being done once, or until ``seconds`` are over.

    On a machine of one's own these are the seconds of the clock, if one thread does the work and waits for nothing.
    On a shared one they leave out the time in which others had the processor.

    Args:
        work: does some and says how much.
    """

    def rate() -> float:
        done, start = 0.0, time.process_time()
        while True:
            done += work()
            elapsed = time.process_time() - start
            if elapsed >= seconds:
                return done / elapsed

    return rate
