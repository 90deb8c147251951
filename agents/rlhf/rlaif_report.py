"""What RLAIF shows: the tables, samples of critique and revision, and a figure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from agents.benchmark.plots import COLOURS, STYLE
from agents.rlhf.comparison_report import markdown
from agents.rlhf.intervals import Interval, bootstrap
from agents.rlhf.plots import to_png
from agents.rlhf.results import spread
from agents.rlhf.rlaif import make_rlaif_stages
from agents.rlhf.rlaif_settings import RLAIF
from agents.rlhf.running import read_figures, seed_folder
from agents.rlhf.settings import RLHFError
from textenvs.tiny_reviews.faults import FAULTS

METHODS = ("dpo", "ppo")
NAMES = {"base": "base model", "sft": "SFT on revisions", "dpo": "DPO", "ppo": "PPO"}


def wins(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """1 where the first one's score is higher, ½ where they are equal, 0 elsewhere."""
    return (np.sign(first - second) + 1) / 2


@dataclass(frozen=True)
class RLAIFResults:
    """Of one or more seeds: figures by seed and stage, gold scores by model and seed."""

    rlaif: RLAIF
    seeds: tuple[int, ...]
    figures: dict[int, dict[str, Any]]
    gold: dict[str, list[np.ndarray]]

    def of(self, *path: str | int) -> list[Any]:
        """A figure of every seed."""
        found = []
        for seed in self.seeds:
            value: Any = self.figures[seed]
            for key in path:
                value = value[key]
            found.append(value)
        return found

    def median(self, *path: str | int) -> float:
        """Over seeds; NaN where it is not known."""
        known = [value for value in self.of(*path) if value is not None]
        return float(np.median(known)) if known else float("nan")

    def text(self, style: str, *path: str | int) -> str:
        """Median and range over seeds."""
        found = spread(self.of(*path))
        return "" if found is None else (found.over(0.01).text(".0f") + " %" if style == "%" else found.text(style))

    def win_rate(self, first: str, second: str) -> Interval:
        """How often the first model's text has the higher gold score, for the same prompt; ties are halves."""
        return bootstrap([wins(x, y) for x, y in zip(self.gold[first], self.gold[second], strict=True)])

    def ties(self, first: str, second: str) -> float:
        """Share of the prompts for which both have the same."""
        pairs = zip(self.gold[first], self.gold[second], strict=True)
        return float(np.mean([np.mean(x == y) for x, y in pairs]))


def read_rlaif(out: Path, rlaif: RLAIF, seeds: Sequence[int]) -> RLAIFResults:
    """The results of finished pipelines.

    Raises:
        RLHFError: a stage is missing or damaged.
    """
    figures: dict[int, dict[str, Any]] = {}
    for seed in seeds:
        figures[seed] = {}
        for stage in make_rlaif_stages(rlaif):
            found = read_figures(out, seed, stage.name)
            if found is None:
                raise RLHFError(f"{seed_folder(out, seed)} has no finished stage {stage.name!r}: run it again.")
            figures[seed][stage.name] = found
    models = list(figures[seeds[0]]["evaluation"]["models"])
    gold = {
        name: [np.load(seed_folder(out, seed) / "evaluation" / f"gold-{name}.npy") for seed in seeds] for name in models
    }
    return RLAIFResults(rlaif, tuple(seeds), figures, gold)


# -- tables ------------------------------------------------------------------------------------------------------------


def model_name(name: str) -> str:
    """ "DPO, labels of the judge"."""
    method, _, label = name.partition("-")
    who = {"": "", "human": ", simulated human's labels", "ai": ", AI judge's labels"}[label]
    return f"{NAMES[method]}{who}"


def models_table(results: RLAIFResults) -> list[list[str]]:
    """Header and rows: what every model writes."""
    table = [["model", "without fault", *FAULTS, "gold (− faults)", "grammatical", "KL from SFT", "tokens"]]
    for name in results.gold:
        path = ("evaluation", "models", name)
        table.append(
            [
                model_name(name),
                results.text("%", *path, "faults", "none"),
                *(results.text("%", *path, "faults", fault) for fault in FAULTS),
                bootstrap(results.gold[name]).text(".2f"),
                results.text("%", *path, "figures", "grammatical"),
                results.text(".1f", *path, "figures", "kl"),
                results.text(".1f", *path, "figures", "length"),
            ]
        )
    return table


def wins_table(results: RLAIFResults) -> list[list[str]]:
    """Header and rows: win rates by the gold score."""
    table = [["gold win rate of", "against", "win rate, ties halved", "ties"]]
    pairs = [(f"{method}-ai", f"{method}-human") for method in METHODS]
    pairs += [(f"{method}-{label}", "sft") for method in METHODS for label in ("ai", "human")] + [("sft", "base")]
    for first, second in pairs:
        rate, ties = results.win_rate(first, second), results.ties(first, second)
        table.append([model_name(first), model_name(second), rate.text(".1%"), f"{100 * ties:.0f} %"])
    return table


def judge_table(results: RLAIFResults) -> list[list[str]]:
    """Header and rows: how good critic, judge and annotator are."""
    judge = ("judge",)
    rows = [
        ["judge: accuracy where the answers differ, both orders", results.text("%", *judge, "accuracy")],
        ["the same from one order", results.text("%", *judge, "accuracy_one_order")],
        *(
            [f"under the principle {name!r}", results.text("%", *judge, "accuracy_by_principle", name)]
            for name in results.figures[results.seeds[0]]["judge"]["accuracy_by_principle"]
        ),
        ["position bias before averaging", f"{100 * results.median(*judge, 'position_bias_before'):.1f} points"],
        ["position bias after", f"{100 * abs(results.median(*judge, 'position_bias_after')):.4f} points"],
        ["the first of two is preferred, before", results.text("%", *judge, "first_preferred_before")],
        ["the same after", results.text("%", *judge, "first_preferred_after")],
        ["questions on which the order decides", results.text("%", *judge, "changes_its_mind")],
        ["answered with A or B", results.text("%", *judge, "answered")],
        ["critic: bad answers with the fault that was asked for", results.text("%", "revisions", "fault_before")],
        ["the same after revision", results.text("%", "revisions", "fault_after")],
        ["critiques that are exactly right", results.text("%", "revisions", "critique_right")],
        [
            "labels of the judge in the order of gold, where it differs",
            results.text("%", "labels", "test", "ai_accuracy"),
        ],
        ["labels of the simulated human, likewise", results.text("%", "labels", "test", "human_accuracy")],
        [
            "reward model from the judge's labels, accuracy on human ones",
            results.text("%", "reward-model-ai", "accuracy"),
        ],
        ["reward model from human labels, likewise", results.text("%", "reward-model-human", "accuracy")],
    ]
    return [["what", "measured"], *rows]


def samples_text(results: RLAIFResults, count: int = 6) -> str:
    """Critiques and revisions as Markdown."""
    rows = [["prompt", "principle", "bad answer", "critique", "revision"]]
    for each in results.figures[results.seeds[0]]["revisions"]["samples"][:count]:
        rows.append([each[name] for name in ("prompt", "principle", "answer", "critique", "revision")])
    return markdown(rows)


def written_text(results: RLAIFResults, count: int = 3) -> str:
    """What the models wrote to the first prompts, as Markdown."""
    models = results.figures[results.seeds[0]]["evaluation"]["models"]
    rows = [["prompt", "model", "text", "− faults"]]
    for number in range(count):
        for name, found in models.items():
            if number < len(found["samples"]):
                sample = found["samples"][number]
                gold = f"{sample['gold']:.0f}".replace("-", "−")
                rows.append([sample["prompt"], model_name(name), sample["completion"], gold])
    return markdown(rows)


def report_text(results: RLAIFResults) -> str:
    """All tables."""
    rlaif = results.rlaif
    seconds = sum(sum(figures["seconds"] for figures in results.figures[seed].values()) for seed in results.seeds)
    head = (
        f"{len(results.seeds)} seed(s); {rlaif.comparisons:,} comparisons for each policy, "
        f"{rlaif.evaluation_texts:,} texts about held-out kinds from each model. Medians, lowest and highest seed in "
        f"brackets; gold scores and win rates: means, with 95 % bootstrap intervals over seeds and prompts. "
        f"{seconds / 60 / len(results.seeds):.1f} minutes a seed, summed over its stages."
    )
    parts = [markdown(models_table(results)), markdown(wins_table(results)), markdown(judge_table(results))]
    return "\n".join([head, "", *parts, samples_text(results), written_text(results)])


# -- figure ------------------------------------------------------------------------------------------------------------


def rlaif_figure(results: RLAIFResults) -> Figure:
    """Three panels: faults of every model, the judge in both orders, win rates of AI labels against human ones."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(12.0, 3.9), layout="constrained")
        left, middle, right = figure.subplots(1, 3, width_ratios=(1.6, 1.0, 1.0))
        _draw_faults(left, results)
        _draw_orders(middle, results)
        _draw_wins(right, results)
    return figure


def _draw_faults(axes: Axes, results: RLAIFResults) -> None:
    names = list(results.gold)
    for i, fault in enumerate(FAULTS):
        shares = np.array([results.of("evaluation", "models", name, "faults", fault) for name in names])
        at = np.arange(len(names)) + (i - 1) * 0.26
        middle = np.median(shares, axis=1)
        spans = np.abs(np.stack([shares.min(1), shares.max(1)]) - middle)
        axes.bar(at, 100 * middle, 0.24, yerr=100 * spans, color=COLOURS[i], label=fault, error_kw={"lw": 0.8})
    short = {"base": "base", "sft": "SFT"}
    ticks = [short.get(name, name.replace("-", "\n").replace("dpo", "DPO").replace("ppo", "PPO")) for name in names]
    axes.set_xticks(range(len(names)), [tick.replace("\nai", "\nAI") for tick in ticks])
    axes.set(ylabel="% of the texts")
    axes.set_title("Texts with a fault, held-out kinds", loc="left")
    axes.legend(frameon=False)


def _draw_orders(axes: Axes, results: RLAIFResults) -> None:
    """The probability of preferring what stands first, asked in one order and averaged over both."""
    both = np.array(results.figures[results.seeds[0]]["judge"]["orders"])
    first, swapped = both.T
    bins = np.linspace(0, 1, 26).tolist()
    averaged = (first + 1 - swapped) / 2
    before = np.concatenate([first, swapped])
    after = np.concatenate([averaged, 1 - averaged])
    for number, (values, name) in enumerate(((before, "one order"), (after, "both orders averaged"))):
        style: dict[str, Any] = {"color": COLOURS[number], "histtype": "step", "lw": 1.6}
        axes.hist(values, bins, weights=np.full(len(values), 100 / len(values)), label=name, **style)
        axes.axvline(float(values.mean()), color=COLOURS[number], lw=1.0, ls=":")
    axes.set(xlabel="probability that the first one is better", ylabel="% of the questions")
    axes.set_title("The judge (dotted: means)", loc="left")
    axes.legend(frameon=False, loc="upper left", fontsize=8)


def _draw_wins(axes: Axes, results: RLAIFResults) -> None:
    pairs = [(f"{method}-ai", f"{method}-human") for method in METHODS]
    pairs += [(f"{method}-{label}", "sft") for method in METHODS for label in ("ai", "human")]
    rates = [results.win_rate(*pair) for pair in pairs]
    at = np.arange(len(pairs))[::-1]
    mean = 100 * np.array([rate.mean for rate in rates])
    span = np.abs(100 * np.array([[rate.low for rate in rates], [rate.high for rate in rates]]) - mean)
    for i in range(len(pairs)):
        style: dict[str, Any] = {"fmt": "o", "color": COLOURS[0 if i < len(METHODS) else 2], "capsize": 3}
        axes.errorbar(mean[i : i + 1], at[i : i + 1], xerr=span[:, i : i + 1], **style)
    axes.axvline(50, color="0.6", lw=0.8)
    short = {"sft": "SFT", "dpo-ai": "DPO AI", "dpo-human": "DPO human", "ppo-ai": "PPO AI", "ppo-human": "PPO human"}
    axes.set_yticks(at, [f"{short[first]} against {short[second]}" for first, second in pairs])
    axes.set(xlabel="% of the prompts won, ties halved", xlim=(0, 100))
    axes.set_title("Gold win rate, 95 % intervals", loc="left")


def write_rlaif(out: Path, rlaif: RLAIF, seeds: Sequence[int]) -> list[Path]:
    """Write ``rlaif.md`` (tables and samples), ``rlaif.json`` (figures) and ``rlaif.png``; returns their paths."""
    results = read_rlaif(out, rlaif, seeds)
    paths = [out / f"rlaif.{suffix}" for suffix in ("md", "json", "png")]
    paths[0].write_text(report_text(results), encoding="utf-8")
    summary = {
        "seeds": list(seeds),
        "wins": {
            f"{first} against {second}": vars(results.win_rate(first, second))
            for first, second in [(f"{m}-ai", f"{m}-human") for m in METHODS]
        },
        "stages": {str(seed): _without_long(results.figures[seed]) for seed in seeds},
    }
    paths[1].write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    to_png(rlaif_figure(results), paths[2])
    return paths


def _without_long(stages: dict[str, Any]) -> dict[str, Any]:
    """Figures without curves and samples."""
    left_out = ("losses", "samples", "orders")
    return {
        stage: {name: value for name, value in figures.items() if name not in left_out}
        for stage, figures in stages.items()
    }
