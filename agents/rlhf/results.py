"""A pipeline's results, read from its folder: figures of every model over seeds, and what a run did over time."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from agents.benchmark.results import read_json
from agents.rlhf.evaluation import Figures
from agents.rlhf.running import read_figures, seed_folder
from agents.rlhf.settings import RLHFError, Settings
from agents.rlhf.stages import make_stages, ppo_name

FIGURE_NAMES = tuple(field.name for field in fields(Figures))


@dataclass(frozen=True)
class Spread:
    """A figure over seeds: its median, lowest and highest value.

    The range of five seeds holds the true median with probability 1 − 2 · (1/2)⁵ = 94 %.
    """

    median: float
    low: float
    high: float
    count: int

    def over(self, divisor: float) -> Spread:
        """As a multiple of a number."""
        return Spread(self.median / divisor, self.low / divisor, self.high / divisor, self.count)

    def text(self, style: str = ".2f") -> str:
        """ "0.84 (0.81–0.86)"; the median alone for one seed."""
        middle = f"{self.median:{style}}"
        text = middle if self.count < 2 else f"{middle} ({self.low:{style}}–{self.high:{style}})"
        return text.replace("-", "−")


def spread(values: Sequence[float | None]) -> Spread | None:
    """Median and range of the values; None if one of them is unknown, or there is none."""
    if not values or any(value is None for value in values):
        return None
    known = [float(value) for value in values if value is not None]
    return Spread(float(np.median(known)), min(known), max(known), len(known))


@dataclass(frozen=True)
class Results:
    """Of one or more seeds.

    Attributes:
        stages: seed to stage to figures.
        histories: seed to PPO run to column to values, one for each update.
        provenance: versions, as recorded with the folder.
    """

    settings: Settings
    seeds: tuple[int, ...]
    stages: dict[int, dict[str, dict[str, Any]]]
    histories: dict[int, dict[str, dict[str, np.ndarray]]]
    provenance: dict[str, Any]

    @property
    def models(self) -> list[str]:
        """Names of the models that were evaluated, in the order of the pipeline."""
        return list(self.stages[self.seeds[0]]["evaluation"]["models"])

    @property
    def base(self) -> str:
        """The model that PPO began with."""
        name: str = self.stages[self.seeds[0]]["evaluation"]["base"]
        return name

    @property
    def main(self) -> str:
        """The PPO run that counts."""
        return ppo_name(self.settings.ppo.kl_coefs[0])

    @property
    def free(self) -> str | None:
        """The PPO run without a penalty, if there is one beside the main one."""
        name = ppo_name(0.0)
        return name if name in self.models and name != self.main else None

    def figure(self, model: str, name: str) -> Spread | None:
        """A figure of a model over seeds."""
        return spread([self.stages[seed]["evaluation"]["models"][model]["figures"][name] for seed in self.seeds])

    def known(self, model: str, name: str) -> Spread:
        """A figure that is known in every world."""
        figure = self.figure(model, name)
        if figure is None:
            raise RLHFError(f"The evaluation of {model} does not say its {name}: run that stage again.")
        return figure

    def stage(self, stage: str, *path: str) -> Spread | None:
        """A figure of a stage over seeds."""
        values: list[Any] = [self.stages[seed].get(stage) for seed in self.seeds]
        for key in path:
            values = [None if value is None else value.get(key) for value in values]
        return spread(values)

    @property
    def lift(self) -> Spread | None:
        """How far PPO has lifted the gold score, as a share of the way from the model it began with to the 99th
        percentile of the grammar's own texts."""
        values: list[float | None] = []
        for seed in self.seeds:
            evaluation = self.stages[seed]["evaluation"]
            best, models = evaluation.get("best_texts"), evaluation["models"]
            before, after = (models[name]["figures"]["gold"] for name in (self.base, self.main))
            values.append(None if best is None else (after - before) / (best - before))
        return spread(values)


def read_results(out: Path, settings: Settings, seeds: Sequence[int]) -> Results:
    """The results of finished pipelines.

    Raises:
        RLHFError: a stage is missing or damaged.
    """
    stages: dict[int, dict[str, dict[str, Any]]] = {}
    histories: dict[int, dict[str, dict[str, np.ndarray]]] = {}
    for seed in seeds:
        stages[seed], histories[seed] = {}, {}
        for stage in make_stages(settings):
            figures = read_figures(out, seed, stage.name)
            if figures is None:
                raise RLHFError(f"{seed_folder(out, seed)} has no finished stage {stage.name!r}: run it again.")
            stages[seed][stage.name] = figures
            if stage.name.startswith("ppo-"):
                histories[seed][stage.name] = read_history(seed_folder(out, seed) / stage.name / "history.csv")
    return Results(settings, tuple(seeds), stages, histories, read_json(out / "settings.json")["versions"])


def read_history(path: Path) -> dict[str, np.ndarray]:
    """Columns of a PPO run's log.

    Raises:
        RLHFError: it cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
    except (OSError, ValueError, IndexError, TypeError) as error:
        raise RLHFError(f"{path} cannot be read: {error}.") from error
