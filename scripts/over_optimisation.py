"""Over-optimisation: gold and proxy along √KL, for reward models of several widths and amounts of data.

    python scripts/over_optimisation.py --preset smoke     # seconds
    python scripts/over_optimisation.py                    # quick: five seeds, about ten minutes on a free core

A gold score of every text is known; reward models learn from noisy comparisons of texts of the reference. Best-of-n and
the best KL-regularised policies on each are computed exactly; PPO is trained on some, at several kl_coef, and graded
exactly. To the gold curves the laws of Gao, Schulman and Hilton (2022) are fitted, d (α − β d) for best-of-n and
d (α − β log d) for RL with d = √KL, and tested on seeds, and at distances, that they have not seen.

Prints tables; writes over_optimisation.csv and over_optimisation.png. Finished runs are kept and not run again.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, Literal

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
import tyro
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from rich.console import Console
from rich.table import Table

from agents.benchmark.analyse import Estimate, mean_estimate
from agents.benchmark.plots import COLOURS, DASHES, MARKERS
from agents.benchmark.suites import BenchmarkError
from agents.experiments import play_runs, write_csv
from agents.over_optimisation import (
    LAWS,
    Scene,
    SceneSettings,
    best_of_n_curve,
    extrapolated_r_squared,
    falls,
    fit_all,
    held_out_r_squared,
    ppo_point,
    tilted_curve,
    train_proxy,
)

KINDS = {"best of n": "best_of_n", "RL": "tilted"}
"""Names of the curves in the results."""
NEAR = 1.5
"""√KL below which a law is fitted for the test of its extrapolation."""


@dataclass(frozen=True)
class Preset:
    """What is run."""

    scene: SceneSettings
    widths: tuple[int, ...]
    comparisons: tuple[int, ...]
    seeds: int
    ns: tuple[int, ...]
    betas: tuple[float, ...]
    ppo: tuple[tuple[int, int], ...] = field(default=())
    """(width, comparisons) of the proxies that PPO is trained on."""
    kl_coefs: tuple[float, ...] = ()
    timesteps: int = 0
    """Of PPO: tokens."""


def _betas(count: int) -> tuple[float, ...]:
    return tuple(float(f"{beta:.4g}") for beta in np.geomspace(10.0, 0.03, count))


PRESETS = {
    "smoke": Preset(
        SceneSettings(length=3, num_tokens=4, texts=256, steps=20),
        (8,), (64,), 2, (1, 4, 16, 64), _betas(4), ((8, 64),), (0.3,), 768,
    ),
    "quick": Preset(
        SceneSettings(),
        (8, 64), (128, 512, 2_048, 8_192), 5, tuple(2**i for i in range(15)), _betas(16),
        ((64, 128), (64, 512)), (1.0, 0.3, 0.1, 0.03), 100_000,
    ),
}  # fmt: skip
Key = tuple[str, ...]
"""(width, comparisons, seed) of a run, as text."""


@dataclass(frozen=True)
class Args:
    """Options."""

    preset: Literal["smoke", "quick"] = "quick"
    seeds: int | None = None
    """Seeds from 0; default: as many as the preset has."""
    out: Path | None = None
    """Folder of the results; default: runs/over-optimisation-PRESET."""


@lru_cache(maxsize=1)
def scene_of(preset: str) -> Scene:
    """The preset's scene; its reference is pretrained once in a process."""
    return Scene(PRESETS[preset].scene)


def play(preset_name: str, key: Key) -> dict[str, Any]:
    """One run: train a proxy, optimise it."""
    preset, scene = PRESETS[preset_name], scene_of(preset_name)
    width, comparisons, seed = map(int, key)
    proxy = train_proxy(scene, width, comparisons, seed)
    problem = scene.problem(proxy.scores)
    ppo = []
    if (width, comparisons) in preset.ppo:
        for kl_coef in preset.kl_coefs:
            found = ppo_point(scene, problem, proxy.scores, kl_coef, seed, preset.timesteps)
            ppo.append([kl_coef, *found, *tilted_curve(problem, [kl_coef])[0]])
    return {
        "accuracy": proxy.accuracy,
        "best_accuracy": proxy.best_accuracy,
        "correlation": proxy.correlation,
        "best_of_n": best_of_n_curve(problem, preset.ns),
        "tilted": tilted_curve(problem, preset.betas),
        "ppo": ppo,
    }


Results = Mapping[Key, Mapping[str, Any]]


def rows_of(results: Results) -> list[dict[str, Any]]:
    """One row for each width, number of comparisons and way of optimising: figures over all seeds."""
    rows = []
    for width, comparisons in dict.fromkeys(key[:2] for key in results):
        runs = [run for key, run in results.items() if key[:2] == (width, comparisons)]
        share = estimate([run["accuracy"] / run["best_accuracy"] for run in runs])
        for name, column in KINDS.items():
            curves = [run[column] for run in runs]
            gold = np.array(curves)[:, :, 2]
            peak = int(gold.mean(axis=0).argmax())
            alpha, beta = fit_all(LAWS[name], curves)
            row: dict[str, Any] = {"width": int(width), "comparisons": int(comparisons), "optimised by": name}
            row |= {"seeds": len(runs), "alpha": alpha, "beta": beta}
            row["peak_root_kl"] = float(np.sqrt(np.array(curves)[:, peak, 0].mean()))
            for figure, value in (
                ("accuracy_share", share),
                ("gold_at_peak", estimate(gold[:, peak])),
                ("gold_at_end", estimate(gold[:, -1])),
                ("proxy_at_end", estimate([curve[-1][1] for curve in curves])),
                ("fall", estimate(falls(curves))),
                ("held_out_r2", estimate(held_out_r_squared(LAWS[name], curves)) if len(runs) > 1 else nothing()),
            ):
                row |= {figure: value.value, f"{figure}_low": value.low, f"{figure}_high": value.high}
            row["extrapolated_r2"] = extrapolated_r_squared(LAWS[name], curves, NEAR)
            rows.append(row)
    return rows


def estimate(values: Sequence[float] | np.ndarray) -> Estimate:
    """Mean over seeds with its 95 % bootstrap interval."""
    return mean_estimate(values, np.random.default_rng(0))


def nothing() -> Estimate:
    return Estimate(float("nan"), float("nan"), float("nan"), 0)


def table_of(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The same, to be read."""
    table = Table(title="gold in standard deviations under the reference; means over seeds, 95 % bootstrap intervals")
    heads = ("width", "comparisons", "optimised by", "accuracy", "gold at its peak", "at √KL", "gold at the end")
    for head in (*heads, "fallen by", "α", "β", "R², other seeds", "R², beyond"):
        table.add_column(head, justify="left" if head == "optimised by" else "right")
    for row in rows:

        def shown(name: str, row: Mapping[str, Any] = row, form: str = ".2f") -> str:
            value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
            interval = "" if np.isnan(low) else f" ({low:{form}}–{high:{form}})".replace("-", "−")
            return f"{value:{form}}".replace("-", "−") + interval

        table.add_row(
            str(row["width"]),
            f"{row['comparisons']:,}",
            row["optimised by"],
            f"{100 * row['accuracy_share']:.0f} %",
            shown("gold_at_peak"),
            f"{row['peak_root_kl']:.1f}",
            shown("gold_at_end"),
            shown("fall"),
            f"{row['alpha']:.2f}",
            f"{row['beta']:.2f}",
            shown("held_out_r2"),
            f"{row['extrapolated_r2']:.2f}".replace("-", "−"),
        )
        if row["optimised by"] == list(KINDS)[-1]:
            table.add_section()
    return table


def draw(preset: Preset, results: Results, rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Gold (solid, with the fitted law dotted) and proxy (dashed) along √KL; means of PPO's runs as diamonds."""
    figure, axes = plt.subplots(
        len(preset.widths), 2, figsize=(9.0, 3.5 * len(preset.widths)), squeeze=False, sharex=True, sharey=True
    )
    for (i, width), (j, (name, column)) in product(enumerate(preset.widths), enumerate(KINDS.items())):
        axis = axes[i, j]
        for number, comparisons in enumerate(preset.comparisons):
            runs = [run for key, run in results.items() if key[:2] == (str(width), str(comparisons))]
            row = next(
                row
                for row in rows
                if (row["width"], row["comparisons"], row["optimised by"]) == (width, comparisons, name)
            )
            draw_curves(axis, np.array([run[column] for run in runs]), row, LAWS[name], number)
            if name == "RL" and runs[0]["ppo"]:
                points = np.mean([run["ppo"] for run in runs], axis=0)
                style: Any = {"color": COLOURS[number], "marker": "D", "markersize": 8, "markeredgecolor": "black"}
                axis.plot(np.sqrt(points[:, 1]), points[:, 3], linestyle="", zorder=4, **style)
        axis.set(title=f"{name}, reward models of width {width}")
        axis.axhline(0, color="0.8", linewidth=0.8, zorder=0)
        if j == 0:
            axis.set(ylabel="standard deviations under the reference")
        if i == len(preset.widths) - 1:
            axis.set(xlabel="√KL to the reference (nats)")
    axes[0, 0].legend(frameon=False, fontsize=8, loc="lower right", title="gold after … comparisons", title_fontsize=8)
    lines = [Line2D([], [], color="black", linestyle=dash) for dash in ("-", DASHES[1], DASHES[2])]
    lines.append(Line2D([], [], color="0.6", marker="D", markersize=8, markeredgecolor="black", linestyle=""))
    axes[0, 1].legend(
        lines,
        ["gold", "reward model (proxy)", "law of gold", "gold of PPO"],
        frameon=False,
        fontsize=8,
        loc="lower right",
    )
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_curves(axis: Axes, curves: np.ndarray, row: Mapping[str, Any], law: Any, number: int) -> None:
    """Means over seeds [S, M, 3] of gold with a band of ± 1 standard error, of the proxy, and the law."""
    d, colour = np.sqrt(np.maximum(curves[:, :, 0].mean(axis=0), 0.0)), COLOURS[number]
    gold, proxy = curves[:, :, 2], curves[:, :, 1]
    mean = gold.mean(axis=0)
    error = gold.std(axis=0, ddof=1) / np.sqrt(len(gold)) if len(gold) > 1 else np.zeros_like(mean)
    axis.plot(d, mean, color=colour, label=f"{row['comparisons']:,}", marker=MARKERS[number], markersize=3)
    axis.fill_between(d, mean - error, mean + error, color=colour, alpha=0.15, linewidth=0)
    axis.plot(d, proxy.mean(axis=0), color=colour, linestyle=DASHES[1], linewidth=1)
    grid = np.linspace(max(d[d > 0].min(), 0.02), d.max(), 100)
    axis.plot(grid, law.predict(grid, row["alpha"], row["beta"]), color=colour, linestyle=DASHES[2], linewidth=1.2)


def ppo_table(results: Results) -> Table:
    """PPO's runs beside the best policies, of the proxy, at the same KL coefficient."""
    table = Table(title="PPO on the proxies, and the best policies at its kl_coef: means over seeds")
    heads = ("width", "comparisons", "kl_coef", "KL", "proxy", "gold", "best KL", "best proxy", "its gold")
    for head in heads:
        table.add_column(head, justify="right")
    for width, comparisons in dict.fromkeys(key[:2] for key in results):
        runs = [run["ppo"] for key, run in results.items() if key[:2] == (width, comparisons)]
        for points in zip(*runs, strict=True):
            kl_coef, *figures = np.mean(points, axis=0)
            table.add_row(width, f"{int(comparisons):,}", f"{kl_coef:g}", *(f"{figure:.2f}" for figure in figures))
    return table


def main(args: Args) -> None:
    """Run what is not finished yet, print, draw."""
    torch.set_num_threads(1)
    preset = PRESETS[args.preset]
    num_seeds = preset.seeds if args.seeds is None else args.seeds
    if num_seeds < 1:
        raise BenchmarkError(f"--seeds must be at least 1; got {num_seeds}.")
    # One seed of everything first: what is stopped early is a smaller experiment, not a part of one.
    cells = list(product(preset.widths, preset.comparisons))
    keys: list[Key] = [(str(width), str(count), str(seed)) for seed in range(num_seeds) for width, count in cells]
    out = args.out or Path("runs") / f"over-optimisation-{args.preset}"
    shared = {name: value for name, value in asdict(preset).items() if name not in ("widths", "comparisons", "seeds")}
    settings = {"experiment": "over_optimisation", "preset": args.preset, **shared}
    results = play_runs(out, settings, keys, lambda key: play(args.preset, key))
    rows = rows_of(results)
    console = Console(width=170)
    console.print(table_of(rows), ppo_table(results))
    write_csv(out / "over_optimisation.csv", rows)
    draw(preset, results, rows, out / "over_optimisation.png")
    print(f"written: {out / 'over_optimisation.csv'}, {out / 'over_optimisation.png'}")


if __name__ == "__main__":
    try:
        main(tyro.cli(Args, description=__doc__))
    except BenchmarkError as error:
        sys.exit(f"over_optimisation: {error}")
