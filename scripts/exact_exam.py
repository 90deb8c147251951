"""The exact exam: how near do methods come to the optimum of the KL-regularised problem, which is known here?

    python scripts/exact_exam.py --preset smoke     # seconds
    python scripts/exact_exam.py                    # quick: five seeds, under 20 minutes on two free cores
    python scripts/exact_exam.py --methods PPO RLOO --seeds 10

Three environments whose texts can all be listed, each with a reference that was pretrained on skewed texts. Every
method begins as the reference (DiscreteSAC from nothing) and maximises E[score] − β KL, DPO from rankings, ReST by
imitating its best texts; then
its expected score and KL are computed exactly, without sampling, and what it misses of the best policy π* ∝ π_ref ·
exp(score / β). Best-of-n is computed exactly, too, and its KL set beside the bound log n − (n − 1) / n.

Prints tables; writes exact_exam.csv, best_of_n.csv and exact_exam.png. Finished runs are kept and not run again.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table

from agents.benchmark.analyse import percentile_interval, resample
from agents.benchmark.plots import COLOURS
from agents.benchmark.pool import available_cores
from agents.benchmark.suites import BenchmarkError
from agents.exam import PAPERS, Exam, Paper, sit
from agents.exam_methods import METHODS
from agents.experiments import play_runs, write_csv
from textenvs.errors import unknown_name

NS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Of best-of-n."""
MARKERS = ("o", "s", "^", "v", "D", "P")


@dataclass(frozen=True)
class Preset:
    """What is run."""

    papers: tuple[str, ...]
    timesteps: int  # tokens; SoftQ and DiscreteSAC have a quarter of them
    seeds: int
    texts: int  # that the reference learns from
    steps: int  # of its pretraining


EVERY_PAPER = tuple(paper.name for paper in PAPERS)
PRESETS = {
    "smoke": Preset(EVERY_PAPER[2:], 1_536, 1, 256, 20),
    "quick": Preset(EVERY_PAPER, 100_000, 5, 4_096, 400),
}
Key = tuple[str, ...]
"""(paper, method, β, seed) of a run, as text."""


@dataclass(frozen=True)
class Args:
    """Options."""

    preset: Literal["smoke", "quick"] = "quick"
    methods: tuple[str, ...] = tuple(METHODS)
    """Those that are examined."""
    seeds: int | None = None
    """Seeds from 0; default: as many as the preset has."""
    out: Path | None = None
    """Folder of the results; default: runs/exact-exam-PRESET."""
    jobs: int | None = None
    """Runs at once; as many as there are cores unless given."""


def examine(preset: Preset, key: Key) -> dict[str, Any]:
    """One run: train, grade."""
    paper, method, beta, seed = key
    exam = sit(paper, preset.texts, preset.steps)
    began = time.perf_counter()
    examinee = METHODS[method](exam, float(beta), int(seed), preset.timesteps)
    seconds = time.perf_counter() - began
    return exam.grade(examinee.policy, float(beta)) | {"seconds": seconds, "tokens": examinee.tokens}


def median_and_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Median over runs with its 95 % bootstrap interval; NaN for the interval of one run."""
    array = np.array(values, dtype=np.float64)
    if len(array) == 1:
        return float(array[0]), float("nan"), float("nan")
    low, high = percentile_interval(np.median(array[resample(len(array), np.random.default_rng(0))], axis=1))
    return float(np.median(array)), float(low), float(high)


def shown(values: Sequence[float], form: str) -> str:
    """``"97.1 % (96.5–97.8)"``."""
    value, low, high = median_and_interval(values)
    suffix = " %" if form.endswith("%") else ""
    scale, form = (100.0, form[:-1] + "f") if suffix else (1.0, form)
    interval = "" if np.isnan(low) else f" ({scale * low:{form}}–{scale * high:{form}})"
    return f"{scale * value:{form}}{suffix}{interval}"


def regret_rows(results: Mapping[Key, Mapping[str, float]]) -> list[dict[str, Any]]:
    """One row for each paper, β and method: figures of all seeds."""
    groups: dict[Key, list[Mapping[str, float]]] = {}
    for (paper, method, beta, _), result in results.items():
        groups.setdefault((paper, beta, method), []).append(result)
    rows = []
    for (paper, beta, method), runs in groups.items():
        row: dict[str, Any] = {"environment": paper, "beta": beta, "method": method, "seeds": len(runs)}
        for name in ("closed", "regret", "kl", "reward", "seconds"):
            row[name], row[f"{name}_low"], row[f"{name}_high"] = median_and_interval([run[name] for run in runs])
        row["tokens"] = int(np.median([run["tokens"] for run in runs]))
        row["most_above_frontier"] = max(run["above"] for run in runs)
        rows.append(row)
    return rows


def regret_table(exams: Mapping[str, Exam], results: Mapping[Key, Mapping[str, float]]) -> Table:
    """Share of the gap closed, regret, KL and score of every method; and of the best of the best-of-n."""
    table = Table(title="share of the gap between the reference and the optimum of (expected score − β KL)")
    for name in ("environment", "β", "method", "gap closed", "regret", "KL", "score", "best KL", "best score"):
        table.add_column(name, justify="left" if name in ("environment", "method") else "right")
    for name, exam in exams.items():
        for beta in exam.paper.betas:
            best = exam.problem.tilted(beta)
            for method in dict.fromkeys(key[1] for key in results):
                runs = [run for key, run in results.items() if key[:3] == (name, method, str(beta))]
                if runs:
                    figures = {each: [run[each] for run in runs] for each in ("closed", "regret", "kl", "reward")}
                    table.add_row(
                        name,
                        str(beta),
                        method,
                        shown(figures["closed"], ".1%"),
                        shown(figures["regret"], ".4f"),
                        shown(figures["kl"], ".2f"),
                        shown(figures["reward"], ".3f"),
                        f"{best.kl:.2f}",
                        f"{best.reward:.3f}",
                    )
            grades = {n: exam.problem.grade(exam.problem.best_of_n(n), beta) for n in NS}
            n, grade = max(grades.items(), key=lambda item: item[1].closed)
            point = grade.point
            cells = (f"{100 * grade.closed:.1f} %", f"{grade.regret:.4f}", f"{point.kl:.2f}", f"{point.reward:.3f}")
            table.add_row(name, str(beta), f"best of {n}", *cells, f"{best.kl:.2f}", f"{best.reward:.3f}")
            table.add_section()
    return table


def best_of_n_rows(exams: Mapping[str, Exam]) -> list[dict[str, Any]]:
    """Exact KL and reward of best-of-n, the bound of the KL, and the highest reward at that KL."""
    rows = []
    for name, exam in exams.items():
        for n in NS:
            result = exam.best_of_n(n, exam.paper.betas)
            result.pop("closed")
            rows.append({"environment": name} | result | {"frontier": exam.problem.reward_at(result["kl"])})
    return rows


def best_of_n_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The same, to be read."""
    table = Table(title="best-of-n, exactly: KL and its bound log n − (n − 1) / n")
    for name in ("environment", "n", "KL", "bound", "score", "frontier at that KL"):
        table.add_column(name, justify="left" if name == "environment" else "right")
    for row in rows:
        numbers = (f"{row[name]:.3f}" for name in ("kl", "bound", "reward", "frontier"))
        table.add_row(row["environment"], str(row["n"]), *numbers)
        if row["n"] == NS[-1]:
            table.add_section()
    return table


def draw(
    exams: Mapping[str, Exam], results: Mapping[Key, Mapping[str, float]], rows: Sequence[Mapping[str, Any]], path: Path
) -> None:
    """Each method's (KL, score) points under the exact frontier; hollow rings mark the optimum of each β."""
    figure, axes = plt.subplots(1, len(exams), figsize=(4.4 * len(exams), 3.9), squeeze=False)
    methods = list(dict.fromkeys(key[1] for key in results))
    for axis, (name, exam) in zip(axes[0], exams.items(), strict=True):
        axis.plot(*np.array(exam.frontier).T, color="black", linewidth=1.2, label="exact frontier")
        own = [row for row in rows if row["environment"] == name]
        axis.plot(
            [row["kl"] for row in own], [row["reward"] for row in own], color="0.6", marker=".", label="best of n"
        )
        for number, method in enumerate(methods):
            points = [(run["kl"], run["reward"]) for key, run in results.items() if key[:2] == (name, method)]
            style = {"color": COLOURS[number], "marker": MARKERS[number % len(MARKERS)], "linestyle": "", "alpha": 0.7}
            axis.plot(*np.array(points).T, markersize=5, label=method, **style)
        for beta in exam.paper.betas:
            best = exam.problem.tilted(beta)
            axis.plot(best.kl, best.reward, color="black", marker="o", markersize=11, fillstyle="none", linestyle="")
            axis.annotate(
                f"β = {beta}", (best.kl, best.reward), xytext=(8, -14), textcoords="offset points", fontsize=8
            )
        axis.set(title=name, xlabel="KL to the reference, nats")
    axes[0, 0].set(ylabel="expected score")
    axes[0, -1].legend(frameon=False, fontsize=8, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(args: Args) -> None:
    """Examine, print, draw."""
    torch.set_num_threads(1)
    preset = PRESETS[args.preset]
    for method in args.methods:
        if method not in METHODS:
            raise BenchmarkError(unknown_name("method", method, METHODS))
    if not args.methods:
        raise BenchmarkError(f"No methods to examine. Known: {', '.join(METHODS)}.")
    num_seeds = preset.seeds if args.seeds is None else args.seeds
    if num_seeds < 1:
        raise BenchmarkError(f"--seeds must be at least 1; got {num_seeds}.")
    papers: list[Paper] = [paper for paper in PAPERS if paper.name in preset.papers]
    jobs = available_cores() if args.jobs is None else args.jobs
    if jobs < 1:
        raise BenchmarkError(f"--jobs must be at least 1; got {jobs}.")
    # One seed of everything first: what is stopped early is a smaller exam, not a part of one.
    keys: list[Key] = [
        (paper.name, method, str(beta), str(seed))
        for seed, paper, method in product(range(num_seeds), papers, args.methods)
        for beta in paper.betas
    ]
    out = args.out or Path("runs") / f"exact-exam-{args.preset}"
    learning = {"timesteps": preset.timesteps, "texts": preset.texts, "steps": preset.steps}
    settings = {"experiment": "exact_exam", "preset": args.preset} | learning
    results = play_runs(out, settings, keys, partial(examine, preset), jobs)
    exams = {paper.name: sit(paper.name, preset.texts, preset.steps) for paper in papers}
    rows = best_of_n_rows(exams)
    console = Console(width=150)
    console.print(regret_table(exams, results), best_of_n_table(rows))
    write_csv(out / "exact_exam.csv", regret_rows(results))
    write_csv(out / "best_of_n.csv", rows)
    draw(exams, results, rows, out / "exact_exam.png")
    print(f"written: {out / 'exact_exam.csv'}, {out / 'best_of_n.csv'}, {out / 'exact_exam.png'}")


if __name__ == "__main__":
    try:
        main(tyro.cli(Args))
    except BenchmarkError as error:
        sys.exit(f"exact_exam: {error}")
