"""Figures of a pipeline: what PPO did over time, and reward against KL."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from agents.benchmark.plots import COLOURS, DASHES, MARKERS, STYLE
from agents.rlhf.results import Results

PANELS = {
    "objective/scores": "reward model's score",
    "gold": "gold score",
    "objective/kl_k1": "KL from the reference, nats per text",
    "objective/entropy": "entropy, nats per text",
    "charts/episodic_length": "tokens per text",
}
"""Column of the log to the title of its panel."""


def run_label(results: Results, run: str) -> str:
    """ "PPO, kl_coef 0.15"."""
    return f"PPO, kl_coef {run.removeprefix('ppo-')}"


def training_figure(results: Results) -> Figure:
    """A panel for each quantity, a line for each PPO run: the median over seeds, and their range."""
    names = known_panels(results)
    columns = 3
    rows = -(-len(names) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.6 * columns, 2.5 * rows + 0.4), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel, name in zip(axes, names, strict=False):
            _draw_panel(panel, results, name)
        for panel in axes[len(names) :]:
            panel.set_visible(False)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=4, frameon=False)
    return figure


def panel_figure(results: Results, name: str) -> Figure:
    """One panel of it by itself."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.9, 2.9), layout="constrained")
        axes = figure.subplots()
        _draw_panel(axes, results, name)
        axes.legend(frameon=False, fontsize=8)
    return figure


def known_panels(results: Results) -> list[str]:
    """The panels whose quantity was logged."""
    run = results.main
    return [name for name in PANELS if not np.isnan(results.histories[results.seeds[0]][run][name]).all()]


def _draw_panel(axes: Axes, results: Results, name: str) -> None:
    for index, run in enumerate(results.histories[results.seeds[0]]):
        _draw_run(axes, results, run, name, index)
    axes.set_title(PANELS[name], loc="left")
    axes.set_xlabel("episodes")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter("{x:,.0f}")


def _draw_run(axes: Axes, results: Results, run: str, name: str, index: int) -> None:
    histories = [results.histories[seed][run] for seed in results.seeds]
    length = min(len(history[name]) for history in histories)
    episodes = np.median([history["episodes"][:length] for history in histories], axis=0)
    values = np.array([history[name][:length] for history in histories])
    colour = COLOURS[index % len(COLOURS)]
    label = run_label(results, run)
    axes.plot(episodes, np.median(values, axis=0), color=colour, linestyle=_again(DASHES, index), label=label, lw=1.6)
    if len(values) > 1:
        axes.fill_between(episodes, values.min(0), values.max(0), color=colour, alpha=0.18, linewidth=0)


def frontier_figures(results: Results) -> dict[str, Figure]:
    """Gold score (or the judge's, where no gold is known) and the grammatical share against KL, a point for each model
    and seed; the line joins the medians."""
    which = "gold" if results.figure(results.main, "gold") is not None else "reward"
    names = [which] + (["grammatical"] if results.figure(results.main, "grammatical") is not None else [])
    return {name: _frontier_figure(results, name) for name in names}


def _frontier_figure(results: Results, name: str) -> Figure:
    titles = {"gold": "gold score", "reward": "judge's score", "grammatical": "share of grammatical texts"}
    models = [results.base, *(model for model in results.models if model.startswith("ppo-"))]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.4, 3.2), layout="constrained")
        axes = figure.subplots()
        middles: list[tuple[float, float]] = []
        for index, model in enumerate(models):
            figures = [results.stages[seed]["evaluation"]["models"][model]["figures"] for seed in results.seeds]
            points = np.array([[each["kl"], each[name]] for each in figures])
            axes.plot(
                *points.T,
                linestyle="none",
                marker=_again(MARKERS, index),
                color=COLOURS[index % len(COLOURS)],
                markerfacecolor="white" if index >= len(COLOURS) else None,
                markersize=6,
                label="before PPO" if model == results.base else run_label(results, model),
            )
            middle = np.median(points, axis=0)
            middles.append((float(middle[0]), float(middle[1])))
        axes.plot(*np.array(sorted(middles)).T, color="#999999", linewidth=0.8, zorder=0)
        axes.set_title(titles[name], loc="left")
        axes.set_xlabel("KL from the reference, nats per text")
        axes.set_xscale("symlog", linthresh=1.0)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.legend(frameon=False, fontsize=8)
    return figure


def reliability_figure(bins: Sequence[dict[str, float]]) -> Figure:
    """How often a reward model is right about a pair against how often it expects to be: ``predicted``, ``accuracy``
    and ``count`` of each bin. The interval is that of a share of ``count``."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.6, 3.2), layout="constrained")
        axes = figure.subplots()
        predicted, accuracy, count = (
            np.array([each[name] for each in bins]) for name in ("predicted", "accuracy", "count")
        )
        axes.plot([0.5, 1], [0.5, 1], color="#999999", linewidth=0.8)
        error = 1.96 * np.sqrt(accuracy * (1 - accuracy) / count)
        axes.errorbar(predicted, accuracy, yerr=error, fmt="o", color=COLOURS[0], capsize=3, markersize=5)
        axes.set_xlabel("expects to be right")
        axes.set_ylabel("is right")
        axes.set_title("reliability", loc="left")
    return figure


def _again(styles: Sequence[Any], index: int) -> Any:
    """The style of a number: colours begin again after the last one, each with another style then."""
    return styles[(index + index // len(COLOURS)) % len(styles)]


def to_svg(figure: Figure) -> str:
    """The figure as SVG text, the same for the same results."""
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def to_png(figure: Figure, path: Path) -> None:
    """The figure as a PNG file."""
    with matplotlib.rc_context(STYLE):
        figure.savefig(path, dpi=150)
