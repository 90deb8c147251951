"""The figures besides learning curves: profiles, who beats whom, ratios by environment, use of data against result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from agents.benchmark.plots import STYLE, legend_handles, line_style
from agents.benchmark.statistics import performance_profile
from agents.benchmark.summary import AXIS_NAMES, HEADLINE_AXES, Cell, Summary, budget
from agents.benchmark.words import factor, ratio_sign

PROFILE_POINTS = 101


@dataclass(frozen=True)
class Drawing:
    """A figure with its file name (without ending), what to call it, and how to read it."""

    name: str
    title: str
    caption: str
    figure: Figure


def drawings(summary: Summary) -> list[Drawing]:
    """Every figure that there is something for."""
    made = [_area_profile(summary), _budget_profile(summary)]
    if len(summary.agents) > 1:
        made += [_improvement(summary), *(_ratios(summary, axis) for axis in HEADLINE_AXES), _utilisation(summary)]
    return made


def _draw(width: float, height: float, draw: Callable[[Axes], None]) -> Figure:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.add_subplot())
        return figure


def _cells(summary: Summary, agent: str) -> list[Cell]:
    return [summary.cells[name, agent] for name in summary.environments if (name, agent) in summary.cells]


def _profile(
    summary: Summary, strata: dict[str, list[list[float]]], taus: np.ndarray, label: str, flip: bool
) -> Figure:
    """Shares above each τ, or (``flip``) at or below it."""

    def draw(axes: Axes) -> None:
        for number, agent in enumerate(summary.agents):
            profile = performance_profile(strata[agent], taus, np.random.default_rng(0))
            share, low, high = profile.share, profile.low, profile.high
            if flip:
                share, low, high = 1 - share, 1 - high, 1 - low
            style = line_style(number)
            axes.plot(taus, share, color=style["color"], linestyle=style["linestyle"], linewidth=1.8, label=agent)
            axes.fill_between(taus, low, high, color=style["color"], alpha=0.1, linewidth=0)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlim(float(taus[0]), float(taus[-1]))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_ylabel("share of runs")
        axes.set_xlabel(label)
        handles = legend_handles(summary)
        for handle in handles:
            handle.set_marker("")
        axes.figure.legend(handles=handles, loc="outside upper left", ncols=3, frameon=False, handlelength=3)

    return _draw(4.6, 3.4, draw)


def _area_profile(summary: Summary) -> Drawing:
    strata = {agent: [list(cell.areas) for cell in _cells(summary, agent)] for agent in summary.agents}
    lowest = min(0.0, *(min(values) for those in strata.values() for values in those))
    taus = np.linspace(lowest, 1.0, PROFILE_POINTS)
    return Drawing(
        "profile-area",
        "Performance profile",
        "Share of runs, of all environments, whose normalised area under the learning curve is above τ; higher is "
        "better everywhere. Bands: 95 % bootstrap intervals, runs resampled within their environment.",
        _profile(summary, strata, taus, "normalised area under the learning curve, τ", flip=False),
    )


def _budget_profile(summary: Summary) -> Drawing:
    top = max(summary.thresholds)

    def shares(cell: Cell) -> list[float]:
        times = cell.times["episodes", top]
        ends = [budget(run) for run in cell.runs]
        return [
            time / end if observed else np.inf
            for time, end, observed in zip(times.values, ends, times.observed, strict=True)
        ]

    strata = {agent: [shares(cell) for cell in _cells(summary, agent)] for agent in summary.agents}
    return Drawing(
        "profile-budget",
        f"Runs that have reached {top:g}",
        f"Share of runs, of all environments, that have reached {top:g} by so much of the budget of their environment; "
        "where a curve ends at the right is the share that arrived at all.",
        _profile(summary, strata, np.linspace(0.0, 1.0, PROFILE_POINTS), "share of the budget of episodes", flip=True),
    )


def _improvement(summary: Summary) -> Drawing:
    names = summary.agents
    values = np.full((len(names), len(names)), np.nan)
    for (a, b), estimate in summary.improvements.items():
        values[names.index(a), names.index(b)] = estimate.value

    def draw(axes: Axes) -> None:
        axes.imshow(values, cmap="PuOr_r", vmin=0.0, vmax=1.0)
        for i, a in enumerate(names):
            for j, b in enumerate(names):
                if (a, b) in summary.improvements:
                    estimate = summary.improvements[a, b]
                    dark = abs(estimate.value - 0.5) > 0.35
                    clear = not np.isnan(estimate.low) and (estimate.low > 0.5 or estimate.high < 0.5)
                    axes.text(
                        j,
                        i,
                        f"{estimate.value:.2f}",
                        ha="center",
                        va="center",
                        color="white" if dark else "black",
                        fontsize=8,
                        fontweight="bold" if clear else "normal",
                    )
        axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)

    size = 1.6 + 0.42 * len(names)
    return Drawing(
        "improvement",
        "Probability of improvement",
        "Probability that a run of the row's agent has a larger area under its learning curve than one of the "
        "column's, mean over environments, ties counting half. Bold: the 95 % interval leaves out 0.5.",
        _draw(max(size, 3.2), max(size - 0.3, 2.6), draw),
    )


def _ratios(summary: Summary, axis: str) -> Drawing:
    first, top = summary.reference, max(summary.thresholds)
    others = [agent for agent in summary.agents if agent != first]
    step = 0.8 / len(others)

    def draw(axes: Axes) -> None:
        axes.axvline(1.0, color="#595959", linewidth=0.8)
        for y, environment in enumerate((*summary.environments, None)):
            if y:
                axes.axhline(y - 0.5, color="#d4d4d4", linewidth=0.6)
            for k, agent in enumerate(others):
                if environment is None:
                    comparison = summary.comparisons.get((first, agent, axis, top))
                    ratio = None if comparison is None else comparison.ratio
                else:
                    ratio = summary.environment_ratio(environment, first, agent, axis, top)
                if ratio is None or ratio.both_censored == ratio.num_pairs:
                    continue
                style = line_style(summary.agents.index(agent))
                place = y + (k - (len(others) - 1) / 2) * step
                if not np.isnan(ratio.low):
                    axes.plot([ratio.low, ratio.high], [place, place], color=style["color"], linewidth=1.3)
                marker = {"": style["marker"], "≥": ">", "≤": "<", "≈": "|"}[ratio_sign(ratio)]
                axes.plot(
                    [ratio.value],
                    [place],
                    marker=marker,
                    color=style["color"],
                    markerfacecolor=style["color"] if environment is None else "white",
                    markersize=4,
                )
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: factor(value) if value != 1 else "1"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(axis="x", labelsize=8)
        axes.set_yticks(range(len(summary.environments) + 1), [*summary.environments, "geometric mean"])
        axes.set_ylim(len(summary.environments) + 0.5, -0.5)
        axes.set_xlabel(f"{AXIS_NAMES[axis]} of {first} / {AXIS_NAMES[axis]} of the other")
        handles = [handle for handle in legend_handles(summary) if handle.get_label() != first]
        axes.figure.legend(handles=handles, loc="outside upper left", ncols=3, frameon=False, handlelength=2)

    return Drawing(
        f"ratios-{axis}",
        f"{first} over the others, {AXIS_NAMES[axis]} to {top:g}",
        f"How many times as many {AXIS_NAMES[axis]} {first} needs: right of 1 the other needs fewer. Lines: 95 % "
        "bootstrap intervals over paired runs. A triangle points to where the true ratio lies, since runs of one agent "
        "did not get there; a bar: runs of both did not; nothing: no run of either did.",
        _draw(4.8, 1.2 + 0.1 * (len(summary.environments) + 1) * max(len(others), 2), draw),
    )


def _utilisation(summary: Summary) -> Drawing:
    used = {agent: summary.data_utilisation(agent) for agent in summary.agents}

    def draw(axes: Axes) -> None:
        for number, agent in enumerate(summary.agents):
            if used[agent] <= 0:
                continue
            area, style = summary.areas[agent], line_style(number)
            if not np.isnan(area.low):
                axes.plot([used[agent]] * 2, [area.low, area.high], color=style["color"], linewidth=1.3)
            axes.plot(
                [used[agent]],
                [area.value],
                marker=style["marker"],
                color=style["color"],
                markerfacecolor="white",
                markersize=6,
                linestyle="none",
            )
            axes.annotate(agent, (used[agent], area.value), xytext=(6, 3), textcoords="offset points", fontsize=8)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: factor(value) if value != 1 else "1"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(x=0.25, y=0.15)
        axes.set_xlabel("gradient samples per token written")
        axes.set_ylabel("area under the learning curve")

    return Drawing(
        "data-use",
        "Use of data against result",
        "How often an agent put each token into a gradient step, beside what came of it (interquartile mean over all "
        "environments, 95 % interval): they are not the same thing. Agents without gradient samples are left out.",
        _draw(4.6, 3.1, draw),
    )
