"""Figures of a pipeline: what PPO did over time, and reward against KL."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
    runs = list(results.histories[results.seeds[0]])
    panels = {name: title for name, title in PANELS.items() if _is_known(results, runs[0], name)}
    columns = 3
    rows = -(-len(panels) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.6 * columns, 2.5 * rows + 0.4), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel, (name, title) in zip(axes, panels.items(), strict=False):
            for index, run in enumerate(runs):
                _draw_run(panel, results, run, name, index)
            panel.set_title(title, loc="left")
            panel.set_xlabel("episodes")
        for panel in axes[len(panels) :]:
            panel.set_visible(False)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=4, frameon=False)
    return figure


def _is_known(results: Results, run: str, name: str) -> bool:
    return not np.isnan(results.histories[results.seeds[0]][run][name]).all()


def _draw_run(axes: Axes, results: Results, run: str, name: str, index: int) -> None:
    histories = [results.histories[seed][run] for seed in results.seeds]
    length = min(len(history[name]) for history in histories)
    episodes = np.median([history["episodes"][:length] for history in histories], axis=0)
    values = np.array([history[name][:length] for history in histories])
    colour = COLOURS[index % len(COLOURS)]
    label = run_label(results, run)
    axes.plot(
        episodes, np.median(values, axis=0), color=colour, linestyle=DASHES[index % len(DASHES)], label=label, lw=1.6
    )
    if len(values) > 1:
        axes.fill_between(episodes, values.min(0), values.max(0), color=colour, alpha=0.18, linewidth=0)


def frontier_figure(results: Results) -> Figure:
    """Gold score (or the judge's, where no gold is known) and the grammatical share against KL, a point for each model
    and seed."""
    which = "gold" if results.figure(results.main, "gold") is not None else "reward"
    names = [which] + (["grammatical"] if results.figure(results.main, "grammatical") is not None else [])
    titles = {"gold": "gold score", "reward": "judge's score", "grammatical": "share of grammatical texts"}
    models = [results.base, *(model for model in results.models if model.startswith("ppo-"))]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6 * len(names), 3.2), layout="constrained")
        for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
            middles: list[tuple[float, float]] = []
            for index, model in enumerate(models):
                points = np.array(
                    [
                        [results.stages[seed]["evaluation"]["models"][model]["figures"][key] for key in ("kl", name)]
                        for seed in results.seeds
                    ]
                )
                label = "before PPO" if model == results.base else run_label(results, model)
                axes.plot(
                    *points.T,
                    linestyle="none",
                    marker=MARKERS[index % len(MARKERS)],
                    color=COLOURS[index % len(COLOURS)],
                    markersize=6,
                    label=label,
                )
                middle = np.median(points, axis=0)
                middles.append((float(middle[0]), float(middle[1])))
            axes.plot(*np.array(sorted(middles)).T, color="#999999", linewidth=0.8, zorder=0)
            axes.set_title(titles[name], loc="left")
            axes.set_xlabel("KL from the reference, nats per text")
            axes.set_xscale("symlog", linthresh=1.0)
            axes.xaxis.set_major_formatter("{x:g}")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", frameon=False)
    return figure


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
