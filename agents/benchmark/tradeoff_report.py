"""What the two experiments of :mod:`agents.benchmark.tradeoff` say: a table, and a figure each."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator, PercentFormatter

from agents.benchmark.analyse import Estimate, mean_estimate
from agents.benchmark.plots import STYLE, line_style
from agents.benchmark.statistics import area_under_curve
from agents.benchmark.suites import EnvironmentSetting, RunSetting
from agents.benchmark.tradeoff import Experiment, Preset, read_run

MEASURES = (
    "area",
    "final",
    "greedy_area",
    "written_area",
    "kl",
    "moved",
    "approx_kl",
    "clipfrac",
    "data_use",
    "seconds",
)


@dataclass(frozen=True)
class Line:
    """A point of a figure on an environment: every measure with its bootstrap interval over runs."""

    experiment: Experiment
    environment: str
    series: str
    x: float
    estimates: dict[str, Estimate]


def measure(result: dict[str, Any]) -> dict[str, float]:
    """The measures of a run; NaN where its agent has no such thing.

    - ``area``: normalised score of sampled texts, mean from the first to the last text learnt from; ``greedy_area``
      that of greedy ones; ``written_area`` over texts written, those in a queue included.
    - ``final``: of sampled texts, at the end.
    - ``kl``, ``moved``: by how much an update changed the policy, means over updates; see
      :class:`agents.benchmark.stale_ppo.StalePPO`. ``approx_kl``, ``clipfrac``: as PPO logs them.
    - ``data_use``: gradient samples for each token written. ``seconds``: of the processor, without evaluation.
    """
    looks, end = result["evaluations"], result["texts"]
    texts, written, sampled, greedy = (
        [look[name] for look in looks] for name in ("texts", "written", "sampled", "greedy")
    )
    updates = {name: float(np.mean(values)) if values else float("nan") for name, values in result["updates"].items()}
    return updates | {
        "area": area_under_curve(texts, sampled, end),
        "final": float(sampled[-1]),
        "greedy_area": area_under_curve(texts, greedy, end),
        "written_area": area_under_curve(written, sampled, end),
        "data_use": result["gradient_samples"] / result["timesteps"],
        "seconds": float(result["seconds"]),
    }


def analyse(
    preset: Preset, environments: Sequence[EnvironmentSetting], settings: Sequence[RunSetting], out: Path
) -> list[Line]:
    """Every point of every figure, from the runs in a folder.

    Raises:
        BenchmarkError: a run cannot be read.
    """
    runs: dict[tuple[str, str], list[dict[str, float]]] = {}
    for setting in settings:
        key = setting.environment.name, setting.agent.name
        runs.setdefault(key, []).append(measure(read_run(out, setting)))
    lines = []
    for environment in environments:
        for point in preset.points:
            measured = runs[environment.name, point.agent.name]
            estimates = {
                name: mean_estimate([run[name] for run in measured], np.random.default_rng(0)) for name in MEASURES
            }
            lines.append(Line(point.experiment, environment.name, point.series, point.x, estimates))
    return lines


# -- words -------------------------------------------------------------------------------------------------------------

TITLES: dict[Experiment, str] = {
    "age": "Batches that are some updates old",
    "reuse": "Using every token several times",
    "steps": "Learning rates, with and without clipping",
}
AXES: dict[Experiment, str] = {
    "age": "updates old",
    "reuse": "uses of every token",
    "steps": "learning rate",
}
COLUMNS: dict[Experiment, dict[str, str]] = {
    "age": {"area": "area", "final": "final", "written_area": "area, over texts written", "clipfrac": "clipfrac"},
    "reuse": {"area": "area", "final": "final", "greedy_area": "area, greedy", "seconds": "seconds"},
    "steps": {"area": "area", "final": "final", "kl": "KL", "moved": "moved", "clipfrac": "clipfrac"},
}


def value_text(estimate: Estimate, digits: int = 2) -> str:
    """``"0.81 (0.78–0.84)"``; "–" where there is nothing."""
    if np.isnan(estimate.value):
        return "–"
    value = f"{estimate.value:.{digits}f}"
    return value if np.isnan(estimate.low) else f"{value} ({estimate.low:.{digits}f}–{estimate.high:.{digits}f})"


def markdown(lines: Sequence[Line]) -> str:
    """A table for each experiment."""
    blocks = []
    for experiment, title in TITLES.items():
        columns = COLUMNS[experiment]
        rows = [
            f"## {title}\n",
            f"| environment | | {AXES[experiment]} | " + " | ".join(columns.values()) + " |",
            "|---" * (3 + len(columns)) + "|",
        ]
        for line in lines:
            if line.experiment == experiment:
                values = [
                    value_text(line.estimates[name], 3 if name == "kl" else 1 if name == "seconds" else 2)
                    for name in columns
                ]
                rows.append(f"| {line.environment} | {line.series} | {line.x:g} | " + " | ".join(values) + " |")
        blocks.append("\n".join(rows))
    return "\n\n".join(blocks) + "\n"


def write(lines: Sequence[Line], out: Path) -> list[Path]:
    """table.csv, table.md, reuse.png and small_steps.png in ``out``; returns their paths."""
    paths = [out / name for name in ("table.csv", "table.md", "reuse.png", "small_steps.png")]
    with paths[0].open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        parts = [f"{name}{part}" for name in MEASURES for part in ("", "_low", "_high")]
        writer.writerow(["experiment", "environment", "series", "x", *parts])
        for line in lines:
            estimates = [line.estimates[name] for name in MEASURES]
            figures = [f"{x:.6g}" for each in estimates for x in (each.value, each.low, each.high)]
            writer.writerow([line.experiment, line.environment, line.series, f"{line.x:g}", *figures])
    paths[1].write_text(markdown(lines), encoding="utf-8")
    draw_reuse(lines).savefig(paths[2], dpi=110)
    draw_steps(lines).savefig(paths[3], dpi=110)
    return paths


# -- figures -----------------------------------------------------------------------------------------------------------

Panel = tuple[Experiment, str, str]
"""Which curves, of which measure, and what the measure is called."""


def draw_reuse(lines: Sequence[Line]) -> Figure:
    """Area and final score over the age of batches, and area over how often every token is used; a row for each
    environment."""
    panels: tuple[Panel, ...] = (
        ("age", "area", "mean score while learning"),
        ("age", "final", "score at the end"),
        ("reuse", "area", "mean score while learning"),
    )
    return _draw(lines, panels)


def draw_steps(lines: Sequence[Line]) -> Figure:
    """Area, final score, KL divergence and tokens moved by an update, over the learning rate."""
    panels: tuple[Panel, ...] = (
        ("steps", "area", "mean score while learning"),
        ("steps", "final", "score at the end"),
        ("steps", "kl", "KL divergence of an update"),
        ("steps", "moved", "tokens moved by > 20 %"),
    )
    return _draw(lines, panels)


def _draw(lines: Sequence[Line], panels: Sequence[Panel]) -> Figure:
    """A column for each panel, a row for each environment."""
    environments = list(dict.fromkeys(line.environment for line in lines))
    width = 3.6 if len(panels) == 3 else 3.0
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width * len(panels), 2.6 * len(environments) + 0.4), layout="constrained")
        grid = figure.subplots(len(environments), len(panels), squeeze=False)
        for row, environment in zip(grid, environments, strict=True):
            for axes, (experiment, name, label) in zip(row, panels, strict=True):
                chosen = [line for line in lines if (line.environment, line.experiment) == (environment, experiment)]
                _curves(axes, chosen, name)
                axes.set_ylabel(label)
                if name in ("area", "final"):
                    axes.axhline(1.0, color="#999999", linewidth=0.6, linestyle=(0, (2, 2)), zorder=0)
                    axes.set_ylim(min(0.0, *(line.estimates[name].value for line in chosen)) - 0.05, 1.05)
                if name == "kl":
                    axes.set_yscale("log")
                elif name == "moved":
                    axes.set_ylim(0, 1)
                    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
            row[0].set_title(environment, loc="left")
        for axes, (experiment, _, _) in zip(grid[-1], panels, strict=True):
            axes.set_xlabel(AXES[experiment])
        for number in {experiment: number for number, (experiment, _, _) in reversed(list(enumerate(panels)))}.values():
            grid[0, number].legend(frameon=False, handlelength=3, loc="best")
        return figure


def _curves(axes: Axes, lines: Sequence[Line], name: str) -> None:
    """A measure over x for each series, with 95 % intervals."""
    experiment = lines[0].experiment
    for number, series in enumerate(dict.fromkeys(line.series for line in lines)):
        style = line_style(number)
        points = [line for line in lines if line.series == series]
        x = [line.x for line in points]
        value, low, high = (
            [getattr(line.estimates[name], part) for line in points] for part in ("value", "low", "high")
        )
        axes.plot(x, value, **style, linewidth=1.8, markersize=4.5, markerfacecolor="white", label=series)
        axes.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)
    if experiment == "age":
        axes.set_xticks(sorted({line.x for line in lines}))
    else:
        axes.set_xscale("log")
        if experiment == "reuse":
            axes.xaxis.set_major_locator(FixedLocator(sorted({line.x for line in lines})))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: {0.25: "¼", 0.5: "½"}.get(x, f"{x:g}")))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_minor_formatter(NullFormatter())
