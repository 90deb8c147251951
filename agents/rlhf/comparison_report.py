"""What a comparison of on- and off-policy RLHF shows: tables (CSV, Markdown) and a figure."""

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

from agents.benchmark.plots import COLOURS, DASHES, MARKERS, STYLE
from agents.rlhf.comparison import MODELS_SEED, Comparison, Method, read_rows, run_name
from agents.rlhf.plots import to_png
from agents.rlhf.results import Spread, spread
from agents.rlhf.running import read_figures, seed_folder
from agents.rlhf.settings import RLHFError

TARGETS = ((1.0, 1.5), (1.2, 2.0), (1.4, 2.5))
"""(reward, KL): "how many episodes until the reward is at least so high, at a KL of at most so much"."""


@dataclass(frozen=True)
class Run:
    """A run's measurements, one column each, and its figures."""

    seed: int
    rows: dict[str, np.ndarray]
    figures: dict[str, Any]

    def objective(self, kl_coef: float) -> np.ndarray:
        """What both methods maximise, at each measurement: mean reward less β · KL."""
        return self.rows["reward"] - kl_coef * self.rows["kl_k1"]


Runs = dict[tuple[str, float], list[Run]]
"""Of each method (by name) and coefficient, one run for each seed."""


def read_runs(out: Path, comparison: Comparison, seeds: Sequence[int]) -> Runs:
    """The finished runs of a comparison.

    Raises:
        RLHFError: one is missing or damaged.
    """
    runs: Runs = {}
    for method in comparison.methods:
        for kl_coef in comparison.kl_coefs:
            for seed in seeds:
                name = run_name(method, kl_coef, seed)
                figures = read_figures(out, MODELS_SEED, name)
                if figures is None:
                    raise RLHFError(f"{seed_folder(out, MODELS_SEED)} has no finished run {name!r}: run it again.")
                rows = read_rows(seed_folder(out, MODELS_SEED) / name / "rows.csv")
                runs.setdefault((method.name, kl_coef), []).append(Run(seed, rows, figures))
    return runs


def first_reached(rows: dict[str, np.ndarray], axis: str, reward: float, kl: float) -> float:
    """Where on ``axis`` ("episodes", "reward_calls", "seconds") a run first has at least this reward at no more than
    this KL, both interpolated linearly between measurements; infinity if nowhere."""
    x, r, k = rows[axis], rows["reward"], rows["kl"]
    if r[0] >= reward and k[0] <= kl:
        return float(x[0])
    for i in range(len(x) - 1):
        low, high = 0.0, 1.0  # the part of the segment in which both hold
        for begin, end in ((r[i] - reward, r[i + 1] - reward), (kl - k[i], kl - k[i + 1])):
            if begin < 0 and end < 0:
                low, high = 1.0, 0.0
            elif begin < 0:
                low = max(low, begin / (begin - end))
            elif end < 0:
                high = min(high, begin / (begin - end))
        if low <= high:
            return float(x[i] + low * (x[i + 1] - x[i]))
    return float("inf")


def reached(runs: Runs, method: str, axis: str, reward: float, kl: float) -> tuple[float, Spread]:
    """The coefficient with which a method is quickest, by the median over seeds, and how quick it is with it."""
    best: tuple[float, Spread] | None = None
    for (name, kl_coef), several in runs.items():
        if name == method:
            found = spread([first_reached(run.rows, axis, reward, kl) for run in several])
            assert found is not None
            if best is None or found.median < best[1].median:
                best = (kl_coef, found)
    assert best is not None
    return best


# -- tables ------------------------------------------------------------------------------------------------------------


def target_table(comparison: Comparison, runs: Runs) -> list[list[str]]:
    """Header and rows: episodes, reward calls and seconds that each method needs for each target."""
    table = [["reward ≥", "KL ≤", "method", "kl_coef", "episodes", "reward calls", "seconds"]]
    for reward, kl in TARGETS:
        for method in comparison.methods:
            kl_coef, episodes = reached(runs, method.name, "episodes", reward, kl)
            if not np.isfinite(episodes.median):
                table.append([f"{reward:g}", f"{kl:g}", method.name, "", "not reached", "", ""])
                continue
            several = runs[method.name, kl_coef]
            others = [
                _text(spread([first_reached(run.rows, axis, reward, kl) for run in several]))
                for axis in ("reward_calls", "seconds")
            ]
            table.append([f"{reward:g}", f"{kl:g}", method.name, f"{kl_coef:g}", _text(episodes), *others])
    return table


def objective_table(comparison: Comparison, runs: Runs) -> list[list[str]]:
    """Header and rows: mean reward − β · KL after some episodes, for each coefficient and method; at 0 after a head
    start."""
    marks = (0, *comparison.marks)
    table = [["kl_coef", "method", *(f"{mark:,}" for mark in marks)]]
    for kl_coef in sorted(comparison.kl_coefs):
        for method in comparison.methods:
            several = runs[method.name, kl_coef]
            columns = np.array(
                [[np.interp(m, run.rows["episodes"], run.objective(kl_coef)) for m in marks] for run in several]
            )
            table.append([f"{kl_coef:g}", method.name, *(_text(spread(list(c)), ".2f") for c in columns.T)])
    return table


def final_table(comparison: Comparison, runs: Runs) -> list[list[str]]:
    """Header and rows: every method at the end, for each coefficient."""
    table = [
        [
            "kl_coef",
            "method",
            "reward",
            "gold",
            "KL (k3)",
            "KL (k1)",
            "grammatical",
            "tokens",
            "update-to-data",
            "seconds",
        ]
    ]
    for kl_coef in sorted(comparison.kl_coefs):
        for method in comparison.methods:
            several = runs[method.name, kl_coef]
            last = {name: spread([float(run.rows[name][-1]) for run in several]) for name in several[0].rows}
            ratio = spread([run.figures["update_to_data"] for run in several])
            figures = [_text(last[name], ".2f") for name in ("reward", "gold", "kl", "kl_k1")]
            share = last["grammatical"]
            percent = "" if share is None else _text(share.over(0.01), ".0f")
            middle = [percent, _text(last["length"], ".1f"), _text(ratio, ".1f"), _text(last["seconds"], ".0f")]
            table.append([f"{kl_coef:g}", method.name, *figures, *middle])
    return table


def markdown(table: Sequence[Sequence[str]]) -> str:
    """A table as Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in table]
    return "\n".join([lines[0], "|---" * len(table[0]) + "|", *lines[1:]]) + "\n"


def _text(value: Spread | None, style: str = ",.0f") -> str:
    return "" if value is None else value.text(style).replace("inf", "∞")


# -- figure ------------------------------------------------------------------------------------------------------------


def comparison_figure(comparison: Comparison, runs: Runs) -> Figure:
    """Four panels: the objective against episodes, gold against episodes and against reward calls, gold against KL."""
    main = comparison.kl_coefs[0]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 6.4), layout="constrained")
        axes: Any = figure.subplots(2, 2)
        for index, method in enumerate(comparison.methods):
            several = runs[method.name, main]
            objectives = [run.objective(main) for run in several]
            _draw_curves(axes[0, 0], several, "episodes", objectives, index, method)
            for panel, axis in ((axes[0, 1], "episodes"), (axes[1, 0], "reward_calls")):
                _draw_curves(panel, several, axis, [run.rows["gold"] for run in several], index, method)
            for kl_coef in comparison.kl_coefs:
                _draw_path(axes[1, 1], runs[method.name, kl_coef], index)
        axes[0, 0].set_title(f"reward model's score − {main:g} · KL", loc="left")
        axes[0, 1].set_title(f"gold score, kl_coef {main:g}", loc="left")
        axes[1, 0].set_title(f"gold score, kl_coef {main:g}", loc="left")
        axes[1, 1].set_title("gold score against KL along training", loc="left")
        axes[0, 0].set_xlabel("episodes")
        axes[0, 1].set_xlabel("episodes")
        axes[1, 0].set_xlabel("texts judged by the reward model")
        axes[1, 1].set_xlabel(f"KL, nats per text; kl_coef {', '.join(f'{x:g}' for x in sorted(comparison.kl_coefs))}")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=4, frameon=False)
    return figure


def _draw_curves(axes: Axes, runs: list[Run], axis: str, values: list[np.ndarray], index: int, method: Method) -> None:
    """The median over seeds and their range."""
    end = min(run.rows[axis][-1] for run in runs)
    begin = max(run.rows[axis][0] for run in runs)
    grid = np.linspace(begin, end, 200)
    curves = np.array([np.interp(grid, run.rows[axis], each) for run, each in zip(runs, values, strict=True)])
    style = {"color": COLOURS[index], "linestyle": DASHES[index], "lw": 1.6}
    axes.plot(grid, np.median(curves, axis=0), label=method.name, **style)
    if len(runs) > 1:
        axes.fill_between(grid, curves.min(0), curves.max(0), color=COLOURS[index], alpha=0.18, linewidth=0)
    axes.xaxis.set_major_formatter("{x:,.0f}")


def _draw_path(axes: Axes, runs: list[Run], index: int) -> None:
    """Median gold score against median KL: a small point for each measurement, a large one for the end."""
    length = min(len(run.rows["gold"]) for run in runs)
    x, y = (np.median([run.rows[name][:length] for run in runs], axis=0) for name in ("kl", "gold"))
    style: dict[str, Any] = {"color": COLOURS[index], "marker": MARKERS[index]}
    axes.plot(x, y, markersize=2.5, lw=0.9, linestyle=DASHES[index], **style)
    axes.plot(x[-1:], y[-1:], markersize=7, linestyle="none", **style)


# -- writing -----------------------------------------------------------------------------------------------------------


def write_comparison(out: Path, comparison: Comparison, seeds: Sequence[int]) -> list[Path]:
    """Write ``comparison.csv`` (every measurement), ``comparison.md`` (the tables) and ``comparison.png``; returns
    their paths."""
    runs = read_runs(out, comparison, seeds)
    paths = [out / f"comparison.{suffix}" for suffix in ("csv", "md", "png")]
    with paths[0].open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        names = list(next(iter(runs.values()))[0].rows)
        writer.writerow(["method", "kl_coef", "seed", *names])
        for (method, kl_coef), several in runs.items():
            for run in several:
                for values in zip(*(run.rows[name] for name in names), strict=True):
                    writer.writerow([method, kl_coef, run.seed, *(f"{value:.6g}" for value in values)])
    paths[1].write_text(report_text(comparison, runs, seeds), encoding="utf-8")
    to_png(comparison_figure(comparison, runs), paths[2])
    return paths


def report_text(comparison: Comparison, runs: Runs, seeds: Sequence[int]) -> str:
    """The tables in Markdown."""
    head = (
        f"Medians of {len(seeds)} seed(s), lowest and highest in brackets; measured on {comparison.evaluation_texts} "
        f"texts on held-out prompts."
    )
    return "\n".join(
        [
            head,
            "\nEpisodes, reward calls and seconds to a reward at a KL, with the coefficient that gets there first:\n",
            markdown(target_table(comparison, runs)),
            "Reward − kl_coef · KL after so many episodes:\n",
            markdown(objective_table(comparison, runs)),
            f"After {comparison.episodes:,} episodes:\n",
            markdown(final_table(comparison, runs)),
        ]
    )
