"""What length hacking did, and what mended it: tables, samples and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from agents.benchmark.plots import COLOURS, DASHES, STYLE
from agents.experiments import write_csv
from agents.rlhf.comparison import read_rows
from agents.rlhf.comparison_report import markdown
from agents.rlhf.length_hacking import CLEAN, HACKED, MODELS_SEED, Experiment, Run, make_runs, stage_name
from agents.rlhf.plots import to_png
from agents.rlhf.results import spread
from agents.rlhf.running import read_figures, seed_folder
from agents.rlhf.settings import RLHFError

SMOOTH = 4
"""Batches that gold is averaged over before its fall is looked for."""
LOST = 0.1
"""Share of its rise that gold has lost when hacking counts as done."""
History = dict[str, np.ndarray]


@dataclass(frozen=True)
class Results:
    """Of all seeds.

    Attributes:
        stages: for each seed, figures by stage without the seed in its name.
        histories: for each seed, what each PPO run logged.
    """

    experiment: Experiment
    seeds: tuple[int, ...]
    stages: dict[int, dict[str, dict[str, Any]]]
    histories: dict[int, dict[str, History]]

    def models(self, seed: int) -> dict[str, dict[str, Any]]:
        """What was measured of each policy, that of SFT included."""
        models: dict[str, dict[str, Any]] = self.stages[seed]["evaluation"]["models"]
        return models

    def figure(self, model: str, name: str) -> list[float]:
        """A figure of a policy, for each seed."""
        return [self.models(seed)[model]["figures"][name] for seed in self.seeds]

    def kept(self, run: str) -> list[float]:
        """(gold − gold of SFT) / (what PPO on the unbiased reward model gained), for each seed."""
        gained = np.array(self.figure(run, "gold")) - self.figure("sft", "gold")
        whole = np.array(self.figure(CLEAN, "gold")) - self.figure("sft", "gold")
        return (gained / whole).tolist()

    def share(self, run: str, judge: str, name: str = "length_share") -> list[float]:
        """How much of the gain under a judge (``"own"``, ``"biased"``) is length, for each seed."""
        return [self.models(seed)[run][judge][name] for seed in self.seeds]


def read_hacking(out: Path, experiment: Experiment, seeds: Sequence[int]) -> Results:
    """The results of finished seeds.

    Raises:
        RLHFError: a stage is missing or damaged.
    """
    runs = make_runs(experiment)
    judges = dict.fromkeys(judge for run in runs for judge in run.judges)
    names = ["rankings", *(f"judge-{judge}" for judge in judges), *(run.name for run in runs), "evaluation"]
    stages: dict[int, dict[str, dict[str, Any]]] = {}
    histories: dict[int, dict[str, History]] = {}
    for seed in seeds:
        stages[seed] = {}
        for name in names:
            figures = read_figures(out, MODELS_SEED, stage_name(name, seed))
            if figures is None:
                raise RLHFError(f"{out} has no finished stage {stage_name(name, seed)!r}: run it again.")
            stages[seed][name] = figures
        folder = seed_folder(out, MODELS_SEED)
        histories[seed] = {
            run.name: read_rows(folder / stage_name(run.name, seed) / "history.csv") for run in runs if run.dpo is None
        }
    return Results(experiment, tuple(seeds), stages, histories)


# -- when gold fell ----------------------------------------------------------------------------------------------------


def fell_at(gold: np.ndarray, share: float = LOST) -> int | None:
    """After which batch, from 1, gold had lost this share of its rise; None: never.

    Means of four batches; the rise is from the first of them to the best one so far.
    """
    if len(gold) < SMOOTH:
        return None
    smooth = np.convolve(gold, np.full(SMOOTH, 1 / SMOOTH), mode="valid")
    best = np.maximum.accumulate(smooth)
    rise = best - smooth[0]
    lost = np.flatnonzero((rise > 0) & (best - smooth > share * rise))
    return int(lost[0]) + SMOOTH if len(lost) else None


def lost_at_end(gold: np.ndarray) -> float:
    """Share of its rise that gold has lost by the end of a run; 0 where it never rose."""
    smooth = np.convolve(gold, np.full(min(SMOOTH, len(gold)), 1 / min(SMOOTH, len(gold))), mode="valid")
    rise = float(smooth.max() - smooth[0])
    return float(smooth.max() - smooth[-1]) / rise if rise > 0 else 0.0


# -- tables ------------------------------------------------------------------------------------------------------------


def text(values: Sequence[float], style: str, scale: float = 1.0) -> str:
    """Median and range; a dash where a value is not known."""
    if not np.isfinite(values).all():
        return "–"
    found = spread([scale * value for value in values])
    assert found is not None
    return found.text(style)


def policy_table(results: Results) -> list[list[str]]:
    """A row for each policy: gold, what is kept of it, length, language, and how much of the gain is length."""
    head = ["policy", "gold", "gold gain kept, %", "tokens", "biased reward model's gain", "of it length, %"]
    head += ["of its own reward's gain length, %", "at equal length, %", "KL", "grammatical, %"]
    rows = [head]
    for name, title in (("sft", "SFT"), *((run.name, run.title) for run in make_runs(results.experiment))):
        basics = [text(results.figure(name, "gold"), ".2f"), "", text(results.figure(name, "length"), ".1f")]
        rest = ["", "", "", ""]
        if name != "sft":
            basics[1] = text(results.kept(name), ".0f", 100)
            gains = [models["biased"]["after"] - models["biased"]["before"] for models in _of(results, name)]
            shares = [results.share(name, "biased"), results.share(name, "own")]
            stratified = results.share(name, "own", "stratified_share")
            rest = [text(gains, ".2f"), *(text(share, ".0f", 100) for share in [*shares, stratified])]
        ends = [text(results.figure(name, "kl"), ".1f"), text(results.figure(name, "grammatical"), ".0f", 100)]
        rows.append([title, *basics, *rest, *ends])
    return rows


def _of(results: Results, run: str) -> list[dict[str, Any]]:
    return [results.models(seed)[run] for seed in results.seeds]


def judge_table(results: Results) -> list[list[str]]:
    """What the reward models learnt: pairs, accuracy on held-out pairs of both annotators, score per token."""
    rows = [["reward model", "pairs", "accuracy, unbiased annotator", "accuracy, biased annotator", "score per token"]]
    for name in results.stages[results.seeds[0]]:
        if name.startswith("judge-"):
            stages = [results.stages[seed][name] for seed in results.seeds]
            pairs = text([stage["comparisons"] for stage in stages], ",.0f")
            cells = [text([stage["accuracy"][who] for stage in stages], ".2f") for who in (CLEAN, HACKED)]
            slope = text([stage["length_slope"] for stage in stages], "+.3f")
            rows.append([name.removeprefix("judge-"), pairs, *cells, slope])
    control = [results.stages[seed]["judge-biased"]["length_only_accuracy"] for seed in results.seeds]
    rows.append(["(the longer answer)", "", "", text(control, ".2f"), ""])
    return rows


def alarm_table(results: Results) -> list[list[str]]:
    """When the alarm rang, and when gold had lost a tenth of its rise: batches, seed by seed."""
    rows = [["run", "the alarm rang after batch", "gold had lost 10 % of its rise after batch", "lost at the end, %"]]
    for run in ppo_runs(results):
        rang = [results.stages[seed][run.name]["alarm"] for seed in results.seeds]
        golds = [results.histories[seed][run.name]["gold"] for seed in results.seeds]
        rows.append(
            [
                run.title,
                ", ".join("–" if each is None else str(each["batch"]) for each in rang),
                ", ".join("–" if (batch := fell_at(gold)) is None else str(batch) for gold in golds),
                text([lost_at_end(gold) for gold in golds], ".0f", 100),
            ]
        )
    return rows


def ppo_runs(results: Results) -> list[Run]:
    """Those that have a history."""
    return [run for run in make_runs(results.experiment) if run.dpo is None]


def samples(results: Results, count: int = 2) -> str:
    """What SFT, the hacked and the unbiased policy write to the same prompts, of the first seed."""
    models = results.models(results.seeds[0])
    lines = []
    for i in range(min(count, len(models["sft"]["samples"]))):
        prompt = models["sft"]["samples"][i]["prompt"]
        for name in ("sft", CLEAN, HACKED):
            found = [each for each in models[name]["samples"] if each["prompt"] == prompt]
            lines += [f"{name:>9} ({each['gold']:+.2f}): {prompt} | {each['completion']}" for each in found]
    return "\n".join(lines)


def report_text(results: Results) -> str:
    """Everything in Markdown."""
    first = results.stages[results.seeds[0]]["rankings"]
    experiment = results.experiment
    return "\n".join(
        [
            f"Medians of {len(results.seeds)} seed(s), lowest and highest in brackets; "
            f"{experiment.rlhf.evaluation_texts} texts on held-out prompts.\n",
            f"Among pairs of unequal length the longer answer is preferred: unbiased annotator "
            f"{100 * first['unbiased_longer_preferred']:.0f} %, biased {100 * first['biased_longer_preferred']:.0f} %, "
            f"balanced {100 * first['balanced_longer_preferred']:.0f} % of {first['balanced_pairs']:,} pairs "
            f"(seed {results.seeds[0]}).\n",
            markdown(policy_table(results)),
            markdown(judge_table(results)),
            markdown(alarm_table(results)),
            f"```\n{samples(results)}\n```",
        ]
    )


# -- figure ------------------------------------------------------------------------------------------------------------


def hacking_figure(results: Results) -> Figure:
    """Score that is paid, gold and length over training; and how much of each gain is length beside the gold kept."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.4, 7.0), layout="constrained")
        axes: Any = figure.subplots(2, 2)
        panels = {"proxy": "score that is paid", "gold": "gold score", "length": "tokens per text"}
        for panel, (name, title) in zip(axes.ravel(), panels.items(), strict=False):
            for index, run in enumerate(ppo_runs(results)):
                _draw_run(panel, results, run, name, index)
            panel.set_title(title, loc="left")
            panel.set_xlabel("batches")
        _draw_shares(axes[1, 1], results)
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=3, frameon=False)
    return figure


def _draw_run(axes: Any, results: Results, run: Run, name: str, index: int) -> None:
    histories = [results.histories[seed][run.name] for seed in results.seeds]
    values = np.array([history[name] for history in histories])
    batches = np.arange(1, values.shape[1] + 1)
    style = {"color": COLOURS[index], "linestyle": DASHES[index]}
    axes.plot(batches, np.median(values, axis=0), label=run.title, lw=1.6, **style)
    if len(values) > 1 and run.name in (HACKED, CLEAN):
        axes.fill_between(batches, values.min(0), values.max(0), color=COLOURS[index], alpha=0.15, linewidth=0)
    if name == "gold":
        for seed, row in zip(results.seeds, values, strict=True):
            rung = results.stages[seed][run.name]["alarm"]
            if rung is not None:
                batch = rung["batch"]
                axes.plot(batch, row[batch - 1], marker="v", color=COLOURS[index], markersize=8, linestyle="none")


def _draw_shares(axes: Any, results: Results) -> None:
    runs = make_runs(results.experiment)
    for row, run in enumerate(runs):
        for values, marker, colour, label in (
            (results.share(run.name, "biased"), "s", COLOURS[1], "biased reward model's gain that is length"),
            (results.kept(run.name), "o", COLOURS[0], "gold gain kept"),
        ):
            known = [100 * value for value in values if np.isfinite(value)]
            if known:
                axes.plot([min(known), max(known)], [row, row], color=colour, lw=1.2)
                label = label if row == 0 else "_"
                axes.plot(np.median(known), row, marker=marker, color=colour, linestyle="none", label=label)
    axes.set_yticks(range(len(runs)), [run.title for run in runs])
    axes.invert_yaxis()
    axes.axvline(0, color="0.8", lw=0.8, zorder=0)
    axes.axvline(100, color="0.8", lw=0.8, zorder=0)
    axes.set_xlabel("%")
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)


# -- writing -----------------------------------------------------------------------------------------------------------


def write_hacking(out: Path, experiment: Experiment, seeds: Sequence[int]) -> list[Path]:
    """Write ``length_hacking.csv`` (a row for each policy and seed), ``.md`` (the tables) and ``.png``; returns their
    paths."""
    results = read_hacking(out, experiment, seeds)
    paths = [out / f"length_hacking.{suffix}" for suffix in ("csv", "md", "png")]
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        for run in make_runs(experiment):
            found = results.models(seed)[run.name]
            row = {"seed": seed, "policy": run.name, **found["figures"]}
            row["gold_gain_kept"] = results.kept(run.name)[list(results.seeds).index(seed)]
            row |= {f"{judge}_{key}": value for judge in ("own", "biased") for key, value in found[judge].items()}
            rows.append(row)
    write_csv(paths[0], rows)
    paths[1].write_text(report_text(results), encoding="utf-8")
    to_png(hacking_figure(results), paths[2])
    return paths
