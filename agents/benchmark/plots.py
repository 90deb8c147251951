"""The figures: learning curves with bootstrap bands, in colours that colour-blind readers can tell apart."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from agents.benchmark.analyse import Curve, mean_curve
from agents.benchmark.summary import AXIS_NAMES, Cell, Summary
from agents.benchmark.words import number

# Okabe and Ito's palette ("Color universal design", 2008), without yellow and with a grey; line styles and markers
# differ too, so that two agents are alike in none of the three.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
DASHES: tuple[Any, ...] = (
    (0, None),
    (0, (5, 1.5)),
    (0, (1, 1)),
    (0, (5, 1, 1, 1)),
    (0, (8, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
CURVE_AXES = ("episodes", "reward_calls", "seconds")
LEGEND_INSIDE = 3
GRID_POINTS = 160
BAND_RESAMPLES = 500
STYLE: Any = {
    "font.family": "sans-serif",
    "svg.fonttype": "none",  # text, not outlines: a fraction of the size
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "textenvs",  # the same rows give the same file
}


def axis_end(cells: Sequence[Cell], axis: str) -> float:
    """Where a plot of these cells ends: at the end of the longest run."""
    return max(run.column(axis)[-1] for cell in cells for run in cell.runs)


def cell_curve(cell: Cell, axis: str, end: float, seed: int = 0) -> Curve:
    """Mean normalised greedy score of a cell against an axis, up to `end`."""
    grid = np.linspace(0.0, end, GRID_POINTS)
    runs = [(run.column(axis), run.column("normalised_greedy")) for run in cell.runs]
    return mean_curve(runs, [run.solved for run in cell.runs], grid, np.random.default_rng(seed), BAND_RESAMPLES)


def line_style(number: int) -> dict[str, Any]:
    """Colour, dashes and marker of the agent with this number."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": DASHES[number % len(DASHES)],
        "marker": MARKERS[number % len(MARKERS)],
    }


def draw_panel(axes: Axes, summary: Summary, environment: str, axis: str, labels: bool = True) -> None:
    """Learning curves of all agents on one environment."""
    cells = summary.row(environment)
    end = axis_end(cells, axis)
    for level in (0.0, *summary.thresholds, 1.0):
        axes.axhline(level, color="#999999", linewidth=0.6, linestyle=(0, (2, 2)), zorder=0)
    for cell in cells:
        style = line_style(summary.agents.index(cell.agent))
        colour, many = style["color"], len(cells) > 4
        curve = cell_curve(cell, axis, end)
        shown = curve.grid <= curve.until
        learning = shown & (curve.grid <= curve.solved)
        axes.plot(
            curve.grid[learning],
            curve.mean[learning],
            color=colour,
            linestyle=style["linestyle"],
            linewidth=1.8,
            zorder=3,
        )
        carried = shown & (curve.grid >= curve.solved)
        axes.plot(curve.grid[carried], curve.mean[carried], color=colour, linewidth=0.8, alpha=0.6, zorder=2)
        if len(cell.runs) > 1:
            axes.fill_between(
                curve.grid[learning],
                curve.low[learning],
                curve.high[learning],
                color=colour,
                alpha=0.08 if many else 0.18,
                linewidth=0,
            )
        for threshold in summary.thresholds:
            times = cell.times[axis, threshold]
            axes.plot(
                times.values[times.observed],
                np.full(times.observed.sum(), threshold),
                linestyle="none",
                marker=style["marker"],
                markersize=3.5 if many else 5,
                markerfacecolor="white",
                markeredgecolor=colour,
                zorder=4,
            )
    axes.set_xlim(0.0, end * 1.03)
    axes.set_ylim(min(-0.05, _lowest(cells)), 1.05)
    axes.set_yticks([0.0, *summary.thresholds, 1.0])
    axes.set_yticklabels(["random", *(f"{threshold:g}" for threshold in summary.thresholds), "best"])
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value, "episodes" if end >= 10 else axis)))
    axes.set_title(environment, loc="left")
    if labels:
        axes.set_xlabel(AXIS_NAMES[axis])


def _lowest(cells: Sequence[Cell]) -> float:
    return min(min(run.column("normalised_greedy")) for cell in cells for run in cell.runs) - 0.05


def legend_handles(summary: Summary) -> list[Line2D]:
    """One handle for each agent, in its colour, line style and marker."""
    return [
        Line2D([], [], **line_style(index), linewidth=1.8, markersize=5, markerfacecolor="white", label=agent)
        for index, agent in enumerate(summary.agents)
    ]


def svg(figure: Figure) -> str:
    """A figure as SVG text."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return re.sub(r"(\.\d\d)\d+", r"\1", buffer.getvalue())  # a hundredth of a point is enough


def panel_svg(summary: Summary, environment: str, axis: str) -> str:
    """One panel as SVG text, for the page; with its legend where that leaves room for the curves."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.2, 2.9), layout="constrained")
        axes = figure.add_subplot()
        draw_panel(axes, summary, environment, axis)
        if len(summary.agents) <= LEGEND_INSIDE:
            axes.legend(handles=legend_handles(summary), frameon=False, loc="lower right", handlelength=3)
        return svg(figure)


def legend_svg(summary: Summary) -> str:
    """The legend by itself, for many agents."""
    with matplotlib.rc_context(STYLE):
        rows = -(-len(summary.agents) // 3)
        figure = Figure(figsize=(4.2, 0.22 * rows + 0.1))
        figure.legend(handles=legend_handles(summary), loc="center", ncols=3, frameon=False, handlelength=3)
        return svg(figure)


def curves_png(summary: Summary, axis: str, path: Path) -> None:
    """All environments side by side (at most three in a row) as a PNG file."""
    columns = min(3, len(summary.environments))
    rows = -(-len(summary.environments) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.7 * columns, 2.7 * rows + 0.4), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        for panel, environment in zip(panels, summary.environments, strict=False):
            draw_panel(panel, summary, environment, axis)
        for panel in panels[len(summary.environments) :]:
            panel.set_visible(False)
        panels[0].set_ylabel("normalised greedy score")
        figure.legend(handles=legend_handles(summary), loc="outside upper left", ncols=6, frameon=False, handlelength=3)
        figure.savefig(path, dpi=160 if rows < 3 else 110)
