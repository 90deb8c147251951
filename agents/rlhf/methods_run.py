"""A comparison of methods: what is run, and a stage for each run.

OUT/seed-0/pretraining            shared by all seeds
OUT/seed-S/sft, rankings, reward-model
OUT/seed-S/method-NAME            rows.csv, gold.npy, figures.json
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from agents.benchmark.results import open_folder, versions
from agents.rlhf.comparison import MODELS, write_rows
from agents.rlhf.course import Course
from agents.rlhf.methods import Config, Method
from agents.rlhf.running import Task, read_figures, seed_folder
from agents.rlhf.settings import RLHFError, Settings, get_settings
from agents.rlhf.stages import Job, Stage, make_stages
from textenvs.errors import unknown_name

PRETRAINING_SEED = 0
"""Pretraining takes as long as everything after it, so it is done once; all seeds begin with that model."""
SEEDS = (0, 1, 2)
"""Compared unless others are asked for."""
TUNING_SEED = 100
"""Hyper-parameters were chosen on it, and on no other."""


@dataclass(frozen=True)
class MethodsPreset:
    """What is run, as pure data.

    Attributes:
        rlhf: the pipeline that makes the models.
        budget: how often each method may ask the reward model.
        evaluation_texts: of one measurement, each to another held-out prompt.
        marks: shares of the budget (of the steps, for those who never ask) after which methods measure.
        head_start: gradient steps of the replay method before its first episode.
    """

    preset: str
    rlhf: Settings
    budget: int = 8_192
    evaluation_texts: int = 512
    marks: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0)
    small: bool = False
    """Seconds rather than minutes: few environments, few steps."""


PRESETS = {
    "quick": MethodsPreset("quick", get_settings("quick")),
    "short": MethodsPreset("short", get_settings("short"), budget=4_096, evaluation_texts=256),
    "smoke": MethodsPreset(
        "smoke", get_settings("smoke"), budget=96, evaluation_texts=24, marks=(0.5, 1.0), small=True
    ),
}
SMALL: Config = {"num_envs": 16, "head_start": 2, "k": 2}
"""Instead of the hyper-parameters of the same name, where a comparison is ``small``."""


def get_methods_preset(preset: str) -> MethodsPreset:
    """The settings of a preset.

    Raises:
        RLHFError: there is none of that name.
    """
    if preset not in PRESETS:
        raise RLHFError(unknown_name("preset of --methods", preset, PRESETS))
    return PRESETS[preset]


@dataclass(frozen=True)
class Run:
    """A method with its hyper-parameters.

    Attributes:
        slug: in names of folders.
    """

    method: Method
    slug: str
    config: dict[str, Any]

    @property
    def stage(self) -> str:
        """Name of its stage."""
        return f"method-{self.slug}"


def make_runs(preset: MethodsPreset, methods: Sequence[Method], tune: bool = False) -> list[Run]:
    """The runs of one seed: a method each, or everything that is in their grids."""
    runs = []
    for method in methods:
        small = {name: value for name, value in SMALL.items() if preset.small and name in method.config}
        config = {**method.config, **small}
        if not tune:
            runs.append(Run(method, method.name, config))
            continue
        for values in itertools.product(*method.grid.values()):
            change = dict(zip(method.grid, values, strict=True))
            words = [f"{name}-{value:g}" for name, value in change.items()]
            runs.append(Run(method, "-".join([method.name, *words]), {**config, **change}))
    return runs


def make_methods_tasks(preset: MethodsPreset, runs: Sequence[Run], seeds: Sequence[int]) -> list[Task]:
    """All stages of all seeds, each after those that it needs."""
    common = [stage for stage in make_stages(preset.rlhf) if stage.name in MODELS]
    tasks = [Task(seed, stage) for stage in common for seed in seeds]
    more = {stage.name: stage for run in runs for stage in run.method.stages}
    tasks += [Task(seed, stage) for stage in more.values() for seed in seeds]
    for run in runs:
        needs = ("reward-model", *(stage.name for stage in run.method.stages))
        stage = Stage(run.stage, needs, partial(play_run, preset, run))
        tasks += [Task(seed, stage) for seed in seeds]
    return tasks


def play_run(preset: MethodsPreset, run: Run, job: Job) -> None:
    """A stage: train, measure, write down."""
    course = Course(job, preset.budget, preset.evaluation_texts, preset.marks)
    run.method.train(course, **run.config)
    write_rows(job.out / "rows.csv", course.rows)
    np.save(job.out / "gold.npy", course.gold)
    job.write(
        {
            "method": run.method.name,
            "config": run.config,
            "last": course.rows[-1],
            "samples": [asdict(sample) for sample in course.samples],
        }
    )


def open_methods(out: Path, preset: MethodsPreset, runs: Sequence[Run], seeds: Sequence[int]) -> None:
    """Make the folder of a comparison, or go on with one.

    Raises:
        BenchmarkError: it holds something else, or results of other settings.
        RLHFError: a method in it was run with other hyper-parameters.
    """
    open_folder(out, {"methods": asdict(preset), "versions": versions()})
    for seed in seeds:
        for run in runs:
            figures = read_figures(out, seed, run.stage)
            if figures is not None and figures["config"] != json.loads(json.dumps(run.config)):
                raise RLHFError(
                    f"{seed_folder(out, seed) / run.stage} was run with {figures['config']}, which are now "
                    f"{json.loads(json.dumps(run.config))}: delete that folder, or give --restart."
                )


def pretraining_task(settings: Settings) -> Task:
    """What makes the model that all seeds begin with."""
    return Task(PRETRAINING_SEED, next(stage for stage in make_stages(settings) if stage.name == "pretraining"))


def share_pretraining(out: Path, seeds: Sequence[int]) -> None:
    """Give every seed the pretrained model: a copy, where it has none. After it, that stage counts as finished."""
    source = seed_folder(out, PRETRAINING_SEED) / "pretraining"
    for seed in seeds:
        folder = seed_folder(out, seed)
        if not (folder / "pretraining").is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            unfinished = folder / ".pretraining.partial"
            shutil.rmtree(unfinished, ignore_errors=True)
            shutil.copytree(source, unfinished)
            unfinished.replace(folder / "pretraining")
