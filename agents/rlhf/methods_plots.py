"""Figures of a comparison of methods: gains over SFT, gold score against KL and against reward calls."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from agents.benchmark.plots import COLOURS, DASHES, MARKERS, STYLE
from agents.rlhf.methods_results import BASE, MethodsComparison, Result


def methods_figure(comparison: MethodsComparison) -> Figure:
    """Three panels: the gain of each method with its interval, gold score against KL, gold score against reward calls.
    A small point for each measurement, a large one for the end; means over seeds."""
    styles = {slug: _style(number) for number, slug in enumerate(comparison.results)}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(12.6, 4.6), layout="constrained")
        gains, kl, calls = figure.subplots(1, 3, width_ratios=(1.0, 1.15, 1.15))
        _draw_gains(gains, comparison, styles)
        base = comparison.base
        for slug, result in comparison.results.items():
            _draw_path(kl, result, "kl", styles[slug], base)
            _draw_path(calls, result, "reward_calls", styles[slug], base)
        kl.set_title("gold score against KL", loc="left")
        kl.set_xlabel("KL from the SFT model, nats per text")
        calls.set_title("gold score against reward calls", loc="left")
        calls.set_xlabel("texts judged by the reward model")
        calls.xaxis.set_major_formatter("{x:,.0f}")
        handles, labels = kl.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    return figure


def _style(number: int) -> dict[str, Any]:
    """Colour, marker and dashes: when colours begin again, so do hollow markers."""
    colour = COLOURS[number % len(COLOURS)]
    hollow = number >= len(COLOURS)
    return {
        "color": colour,
        "marker": MARKERS[number % len(MARKERS)],
        "markerfacecolor": "white" if hollow else colour,
        "linestyle": DASHES[number % len(DASHES)],
    }


def _draw_gains(axes: Axes, comparison: MethodsComparison, styles: dict[str, dict[str, Any]]) -> None:
    shown = comparison.others[::-1]
    for place, result in enumerate(shown):
        style = {name: value for name, value in styles[result.run.slug].items() if name != "linestyle"}
        value = result.last("gold") if comparison.base is None else result.gain(comparison.base)
        reach = None if np.isnan(value.low) else [[value.mean - value.low], [value.high - value.mean]]
        axes.errorbar(value.mean, place, xerr=reach, capsize=3, markersize=6, linewidth=1.4, **style)
        if comparison.base is not None:
            strict = result.last("gold_grammatical").mean - comparison.base.last("gold_grammatical").mean
            axes.plot(strict, place, marker="|", markersize=13, markeredgewidth=1.6, color="#555555")
    if comparison.base is not None:
        axes.axvline(0.0, color="#999999", linewidth=0.8)
    axes.set_yticks(range(len(shown)), [result.run.method.label for result in shown])
    axes.tick_params(axis="y", length=0)
    axes.margins(y=0.08)
    axes.set_title("gold score" if comparison.base is None else "gain in gold score over SFT", loc="left")
    axes.set_xlabel("on the same held-out prompts; bars: ungrammatical texts worth 0")


def _draw_path(axes: Axes, result: Result, column: str, style: dict[str, Any], base: Result | None) -> None:
    x, y = result.path(column, "gold")
    if base is not None and result.run.slug != BASE and x[0] > 0 and column == "kl":
        x, y = np.append(0.0, x), np.append(base.last("gold").mean, y)
    axes.plot(x, y, markersize=2.5, linewidth=1.0, **style)
    axes.plot(x[-1:], y[-1:], markersize=7, label=result.run.method.label, **{**style, "linestyle": "none"})
