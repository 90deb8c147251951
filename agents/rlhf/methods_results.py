"""What a comparison of methods has found: measurements of every run, and differences to SFT with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agents.benchmark.results import read_json
from agents.rlhf.comparison import read_rows
from agents.rlhf.course import ROW
from agents.rlhf.methods_run import MethodsPreset, Run
from agents.rlhf.running import read_figures, seed_folder
from agents.rlhf.settings import RLHFError

BASE = "sft"
T_QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Student's t, two-sided 95 %, for 1 … 10 degrees of freedom. With more, the last one, which is a little too wide."""


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0

    def text(self, style: str = ".2f") -> str:
        """ "0.61 (0.55–0.67)"; the mean alone where one seed makes no interval."""
        if np.isnan(self.low):
            return f"{self.mean:{style}}".replace("-", "−")
        dash = "–" if self.low >= 0 else " to "
        return f"{self.mean:{style}} ({self.low:{style}}{dash}{self.high:{style}})".replace("-", "−")


def mean_interval(values: Sequence[float] | np.ndarray) -> Interval:
    """Student's t interval of the mean of one value for each seed: mean ± t · s / √S, with S − 1 degrees of freedom.

    Each seed has its own SFT model, reward model, training, prompts and texts, so the scatter of the values holds all
    of them, the choice of prompts included. NaN limits for a single seed.
    """
    values = np.asarray(values, dtype=np.float64)
    mean, count = float(values.mean()), len(values)
    if count < 2:
        return Interval(mean, float("nan"), float("nan"))
    quantile = T_QUANTILES[min(count - 1, len(T_QUANTILES)) - 1]
    half = quantile * float(values.std(ddof=1)) / count**0.5
    return Interval(mean, mean - half, mean + half)


@dataclass(frozen=True)
class Result:
    """A method's runs, one for each seed.

    Attributes:
        rows: of each seed, columns of its measurements.
        gold: float64 [seeds, texts], gold scores at the end, prompt by prompt.
        figures: of each seed.
    """

    run: Run
    rows: tuple[dict[str, np.ndarray], ...]
    gold: np.ndarray
    figures: tuple[dict[str, Any], ...]

    def last(self, column: str) -> Interval:
        """A column at the end, over seeds."""
        return mean_interval([float(rows[column][-1]) for rows in self.rows])

    def path(self, *columns: str) -> np.ndarray:
        """Means over seeds of the measurements along the way, float64 [columns, measurements]."""
        count = min(len(rows[columns[0]]) for rows in self.rows)
        return np.array([np.mean([rows[column][:count] for rows in self.rows], axis=0) for column in columns])

    def gain(self, base: Result) -> Interval:
        """Mean paired difference in gold score: the same prompts in every seed, then over seeds."""
        return mean_interval((self.gold - base.gold).mean(axis=1))

    def wins(self, base: Result) -> Interval:
        """Share of the prompts on which its text has the higher gold score; equal ones count half."""
        return mean_interval(((self.gold > base.gold) + 0.5 * (self.gold == base.gold)).mean(axis=1))


@dataclass(frozen=True)
class MethodsComparison:
    """All of them.

    Attributes:
        results: by the slug of their runs, in the order asked for.
        common_seconds: of the stages that all share, processor seconds of one seed: name to median.
    """

    preset: MethodsPreset
    seeds: tuple[int, ...]
    results: dict[str, Result]
    common_seconds: dict[str, float]
    provenance: dict[str, Any]

    @property
    def base(self) -> Result | None:
        """SFT, which the others are compared with; None if it was not among them."""
        return self.results.get(BASE)

    @property
    def others(self) -> list[Result]:
        """All but SFT, by their mean gold score, best first."""
        others = [result for slug, result in self.results.items() if slug != BASE]
        return sorted(others, key=lambda result: -result.last("gold").mean)


def read_comparison(out: Path, preset: MethodsPreset, runs: Sequence[Run], seeds: Sequence[int]) -> MethodsComparison:
    """The results of finished runs.

    Raises:
        RLHFError: one is missing or damaged.
    """
    results: dict[str, Result] = {}
    for run in runs:
        rows, gold, figures = [], [], []
        for seed in seeds:
            found = read_figures(out, seed, run.stage)
            folder = seed_folder(out, seed) / run.stage
            if found is None:
                raise RLHFError(f"{seed_folder(out, seed)} has no finished run {run.stage!r}: run it again.")
            columns = read_rows(folder / "rows.csv")
            if set(columns) != set(ROW):
                raise RLHFError(f"{folder / 'rows.csv'} has other columns than are measured now: delete {folder}.")
            rows.append(columns)
            gold.append(np.load(folder / "gold.npy"))
            figures.append(found)
        results[run.slug] = Result(run, tuple(rows), np.array(gold), tuple(figures))
    stages = ("pretraining", "sft", "rankings", "reward-model")
    known = {stage: [read_figures(out, seed, stage) for seed in seeds] for stage in stages}
    common = {
        stage: float(np.median([each.get("processor_seconds", each["seconds"]) for each in found if each is not None]))
        for stage, found in known.items()
    }
    provenance = read_json(out / "settings.json")["versions"]
    return MethodsComparison(preset, tuple(seeds), results, common, provenance)
