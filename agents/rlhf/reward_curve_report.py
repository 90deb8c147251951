"""What the curve of reward models shows: tables (Markdown, CSV) and a figure."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from agents.benchmark.plots import COLOURS, DASHES, MARKERS, STYLE
from agents.rlhf.comparison_report import markdown
from agents.rlhf.methods_results import Interval, mean_interval
from agents.rlhf.plots import to_png
from agents.rlhf.reward_curve import BIAS, RewardCurve, judge_name
from agents.rlhf.running import read_figures, seed_folder
from agents.rlhf.settings import RLHFError

FIGURES = ("comparisons", "accuracy", "best_possible_accuracy", "share_of_best", "calibration_error", "train_accuracy")
BARS = {4_096: 0.92, 8_192: 0.95}
"""Share of the best possible accuracy that is asked for, by comparisons."""


@dataclass(frozen=True)
class CurveResults:
    """Of finished runs.

    Attributes:
        judges: by size, the figures of each seed.
        bias: of each seed.
    """

    curve: RewardCurve
    seeds: tuple[int, ...]
    judges: dict[int, list[dict[str, Any]]]
    bias: list[dict[str, Any]]

    def figure(self, size: int, name: str) -> Interval:
        """A figure of a size over seeds."""
        return mean_interval([each[name] for each in self.judges[size]])

    def reliability(self, size: int) -> np.ndarray:
        """Bins of all seeds together, float64 [3, bins]: predicted, accuracy, count."""
        bins: dict[float, list[tuple[float, float, float]]] = {}
        for figures in self.judges[size]:
            for each in figures["calibration"]:
                bins.setdefault(each["low"], []).append((each["predicted"], each["accuracy"], each["count"]))
        columns = []
        for low in sorted(bins):
            predicted, accuracy, count = np.array(bins[low]).T
            columns.append([np.average(predicted, weights=count), np.average(accuracy, weights=count), count.sum()])
        return np.array(columns).T


def read_curve(out: Path, curve: RewardCurve, seeds: Sequence[int]) -> CurveResults:
    """The results of finished runs.

    Raises:
        RLHFError: one is missing.
    """

    def figures(seed: int, stage: str) -> dict[str, Any]:
        found = read_figures(out, seed, stage)
        if found is None:
            raise RLHFError(f"{seed_folder(out, seed)} has no finished stage {stage!r}: run it again.")
        return found

    judges = {size: [figures(seed, judge_name(size)) for seed in seeds] for size in curve.sizes}
    return CurveResults(curve, tuple(seeds), judges, [figures(seed, BIAS) for seed in seeds])


def _percent(value: Interval) -> str:
    return Interval(100 * value.mean, 100 * value.low, 100 * value.high).text(".1f").replace(" (", " % (", 1)


def judge_table(results: CurveResults) -> list[list[str]]:
    """Header and rows: a row for each size."""
    head = [
        "comparisons",
        "held-out accuracy",
        "best possible",
        "share of it",
        "ECE",
        "accuracy by margin, in quarters",
    ]
    table = [head]
    for size in results.curve.sizes:
        margins = np.mean([each["by_margin"] for each in results.judges[size]], axis=0)
        table.append(
            [
                f"{results.figure(size, 'comparisons').mean:,.0f}",
                _percent(results.figure(size, "accuracy")),
                f"{100 * results.figure(size, 'best_possible_accuracy').mean:.1f} %",
                _percent(results.figure(size, "share_of_best")),
                results.figure(size, "calibration_error").text(".3f"),
                " · ".join(f"{100 * each:.0f} %" for each in margins),
            ]
        )
    return table


def bias_table(results: CurveResults) -> list[list[str]]:
    """Header and rows: the length-only control and the audit, without and with a length bias."""
    table = [["annotator", "length-only control, held out", "the longer one was preferred", "the audit says"]]
    names = {"unbiased": "goes by gold alone", "biased": f"+ {results.curve.length_bias:g} log-odds for every word"}
    for key, name in names.items():
        found = [each[key] for each in results.bias]
        verdicts = Counter(each["audit_verdict"] for each in found)
        table.append(
            [
                name,
                _percent(mean_interval([each["length_only_accuracy"] for each in found])),
                _percent(mean_interval([each["audit_share"] for each in found])),
                ", ".join(
                    f"{verdict} ({sum(each['audit_verdict'] == verdict for each in found)})" for verdict in verdicts
                ),
            ]
        )
    return table


def curve_figure(results: CurveResults) -> Figure:
    """Three panels: share of the best possible accuracy against comparisons, reliability, accuracy by margin."""
    sizes = results.curve.sizes
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11.4, 3.6), layout="constrained")
        share, reliability, margin = figure.subplots(1, 3)
        for number, each in enumerate(
            zip(*([f["share_of_best"] for f in results.judges[s]] for s in sizes), strict=True)
        ):
            share.plot(sizes, each, color="#BBBBBB", linewidth=0.8, label="one seed" if number == 0 else None)
        found = [results.figure(size, "share_of_best") for size in sizes]
        means = np.array([each.mean for each in found])
        reach = None
        if len(results.seeds) > 1:
            reach = np.array([[each.mean - each.low for each in found], [each.high - each.mean for each in found]])
        share.errorbar(sizes, means, yerr=reach, color=COLOURS[0], marker="o", capsize=3, label="mean, 95 %")
        for size, bar in BARS.items():
            if size in sizes:
                share.plot(size, bar, marker="_", markersize=16, color=COLOURS[1], linestyle="none")
        share.axhline(1.0, color="#999999", linewidth=0.8)
        share.set_xscale("log", base=2)
        share.set_xticks(sizes, [f"{size:,}" for size in sizes])
        share.minorticks_off()
        share.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        share.set_xlabel("comparisons")
        share.set_title("accuracy as a share of the best possible", loc="left")
        share.legend(frameon=False, fontsize=8, loc="lower right")
        reliability.plot([0.5, 1], [0.5, 1], color="#999999", linewidth=0.8)
        for number, size in enumerate((sizes[0], sizes[-1])):
            predicted, accuracy, count = results.reliability(size)
            error = 1.96 * np.sqrt(np.maximum(accuracy * (1 - accuracy), 0.0) / count)
            style: dict[str, Any] = {"color": COLOURS[number], "marker": MARKERS[number], "linestyle": DASHES[number]}
            label = f"{size:,}, ECE {results.figure(size, 'calibration_error').mean:.3f}"
            reliability.errorbar(predicted, accuracy, yerr=error, capsize=2, markersize=4, lw=1, label=label, **style)
        reliability.set_xlabel("expects to be right")
        reliability.set_ylabel("is right")
        reliability.set_title("reliability", loc="left")
        reliability.legend(frameon=False, fontsize=8, title="comparisons", title_fontsize=8)
        for number, size in enumerate(sizes):
            quarters = 100 * np.mean([each["by_margin"] for each in results.judges[size]], axis=0)
            style = {"color": COLOURS[number], "marker": MARKERS[number], "linestyle": DASHES[number]}
            margin.plot(range(1, len(quarters) + 1), quarters, markersize=4, lw=1.2, label=f"{size:,}", **style)
        margin.set_xticks(range(1, 5), ["closest", "2", "3", "farthest"])
        margin.yaxis.set_major_formatter("{x:g} %")
        margin.set_xlabel("quarters of the pairs, by the model's own margin")
        margin.set_title("accuracy by margin", loc="left")
        margin.legend(frameon=False, fontsize=8)
    return figure


def report_text(results: CurveResults) -> str:
    """The tables in Markdown."""
    count = len(results.seeds)
    head = f"Means of {count} seed(s)" + (", 95 % interval over seeds (Student's t) in brackets." if count > 1 else ".")
    return "\n".join([head, "", markdown(judge_table(results)), markdown(bias_table(results))])


def write_curve(out: Path, results: CurveResults) -> list[Path]:
    """Write ``reward_quality.md``, ``.csv`` (a row for each reward model) and ``.png``; returns their paths."""
    paths = [out / f"reward_quality.{suffix}" for suffix in ("md", "csv", "png")]
    paths[0].write_text(report_text(results), encoding="utf-8")
    with paths[1].open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["size", "seed", *FIGURES, "length_only_accuracy"])
        for size, several in results.judges.items():
            for seed, each in zip(results.seeds, several, strict=True):
                values = (each[name] for name in (*FIGURES, "length_only_accuracy"))
                writer.writerow([size, seed, *(f"{value:.6g}" for value in values)])
    to_png(curve_figure(results), paths[2])
    return paths
