"""How good a reward model gets with how many comparisons, where the best possible is known.

    pretraining ─▶ sft ─▶ rankings ─▶ judge-512, judge-1024, … judge-8192, bias

Pretraining, SFT and rankings are the stages of the pipeline. The annotator is simulated, so the best possible accuracy
is known; smaller sets are the first part of larger ones. ``bias`` has the same answers ranked by an annotator who also
likes long ones.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from agents.benchmark.results import open_folder, versions
from agents.lm.annotators import Annotator
from agents.lm.preferences import Ranking, load_rankings
from agents.lm.reward_model import RewardModel, RewardModelConfig, train_reward_model
from agents.lm.reward_quality import length_only_accuracy, measure_reward_model
from agents.preference_data.audit import audit
from agents.rlhf.running import Task
from agents.rlhf.settings import RLHFError, Settings, get_settings
from agents.rlhf.stages import Job, Stage, make_stages
from textenvs.errors import unknown_name

SHARED = ("pretraining", "sft", "rankings")
BIAS = "bias"
LENGTH_CRITERION = "length bias"
"""Its name in the audit."""


@dataclass(frozen=True)
class RewardCurve:
    """What is run, as pure data.

    Attributes:
        rlhf: the pipeline that makes the SFT model and the rankings; it has as many comparisons as the largest size.
        sizes: comparisons that a reward model learns from.
        judge: hyper-parameters of all of them, chosen on a seed that is not measured.
        length_bias: of the biased annotator, in log-odds for every word.
    """

    preset: str
    rlhf: Settings
    sizes: tuple[int, ...] = (512, 1_024, 2_048, 4_096, 8_192)
    judge: RewardModelConfig = field(
        default_factory=lambda: RewardModelConfig(
            learning_rate=2e-3, epochs=8, batch_size=16, weight_decay=2.0, label_smoothing=0.03
        )
    )
    length_bias: float = 0.3


def _with_comparisons(preset: str, comparisons: int) -> Settings:
    settings = get_settings(preset)
    return replace(settings, preferences=replace(settings.preferences, comparisons=comparisons))


PRESETS = {
    "quick": RewardCurve("quick", _with_comparisons("quick", 8_192)),
    "smoke": RewardCurve(
        "smoke",
        _with_comparisons("smoke", 192),
        sizes=(96, 192),
        judge=RewardModelConfig(learning_rate=2e-3, epochs=1, batch_size=16),
    ),
}


def get_reward_curve(preset: str) -> RewardCurve:
    """The settings of a preset.

    Raises:
        RLHFError: there is none of that name.
    """
    if preset not in PRESETS:
        raise RLHFError(unknown_name("preset", preset, PRESETS))
    return PRESETS[preset]


def judge_name(size: int) -> str:
    """The name of a stage: ``judge-512``."""
    return f"judge-{size}"


def make_curve_tasks(curve: RewardCurve, seeds: Sequence[int]) -> list[Task]:
    """All stages of all seeds, each after those that it needs."""
    stages = [stage for stage in make_stages(curve.rlhf) if stage.name in SHARED]
    stages += [Stage(judge_name(size), ("rankings",), partial(train_on, curve, size)) for size in curve.sizes]
    stages.append(Stage(BIAS, ("rankings",), partial(look_at_bias, curve)))
    return [Task(seed, stage) for stage in stages for seed in seeds]


def open_curve(out: Path, curve: RewardCurve) -> None:
    """Make the folder, or go on with one.

    Raises:
        BenchmarkError: it holds something else, or results of other settings.
    """
    open_folder(out, {"reward_curve": asdict(curve), "versions": versions()})


# -- stages ------------------------------------------------------------------------------------------------------------


def train_on(curve: RewardCurve, size: int, job: Job) -> None:
    """A reward model from the first ``size`` comparisons, measured on held-out ones about other kinds of things."""
    rankings = first_comparisons(_rankings(job, "train"), size)
    held_out = _rankings(job, "test")
    model = RewardModel.from_causal_lm(job.policy(job.base_model), seed=job.seed)

    def on_step(done: int, of: int, figures: dict[str, float]) -> None:
        job.report(done / of, f"accuracy {figures['rewards/accuracies']:.2f}")

    result = train_reward_model(model, rankings, replace(curve.judge, seed=job.seed), callback=on_step)
    best = json.loads((job.folder / "rankings" / "figures.json").read_text(encoding="utf-8"))["test"]
    quality = measure_reward_model(model, held_out, result.log_odds_scale, best=best["best_possible_accuracy"])
    job.write(
        {
            "comparisons": result.num_comparisons,
            "train_accuracy": result.train_accuracy,
            "accuracy": quality.accuracy,
            "best_possible_accuracy": best["best_possible_accuracy"],
            "share_of_best": quality.share_of_best,
            "calibration_error": quality.calibration.error,
            "calibration": [asdict(each) for each in quality.calibration.bins if each.count],
            "by_margin": [each.accuracy for each in quality.by_margin],
            "length_only_accuracy": length_only_accuracy(rankings, held_out),
        }
    )


def look_at_bias(curve: RewardCurve, job: Job) -> None:
    """The length-only control and the audit, on rankings without and with a liking for long answers."""
    figures: dict[str, object] = {}
    scale = job.settings.preferences.scale
    for number, (name, bias) in enumerate((("unbiased", 0.0), ("biased", curve.length_bias))):
        train, held_out = (
            ranked_again(_rankings(job, split), Annotator(scale, length_bias=bias), seed=job.stream(10 + place))
            for place, split in enumerate(("train", "test"))
        )
        found = next(each for each in audit(train).criteria if each.name == LENGTH_CRITERION)
        figures[name] = {
            "length_only_accuracy": length_only_accuracy(train, held_out),
            "audit_figure": found.figure,
            "audit_share": found.value,
            "audit_verdict": str(found.verdict),
        }
        job.report((number + 1) / 2, name)
    job.write(figures)


def first_comparisons(rankings: Sequence[Ranking], size: int) -> list[Ranking]:
    """The first rankings that have at least ``size`` pairs together.

    Raises:
        RLHFError: there are not as many.
    """
    counts = np.cumsum([len(ranking.answers) * (len(ranking.answers) - 1) // 2 for ranking in rankings])
    needed = int(np.searchsorted(counts, size)) + 1
    if needed > len(rankings):
        raise RLHFError(f"There are {counts[-1] if len(counts) else 0} comparisons, and {size} are wanted.")
    return list(rankings[:needed])


def ranked_again(rankings: Sequence[Ranking], annotator: Annotator, seed: int) -> list[Ranking]:
    """The same answers, ranked by another annotator; lengths are in words."""
    gold = np.array([ranking.gold for ranking in rankings], dtype=np.float64)
    lengths = np.array([[len(answer.split()) for answer in ranking.answers] for ranking in rankings])
    ranks, shown = annotator.rank(gold, lengths, seed=seed)
    return [
        replace(ranking, ranks=tuple(ranks[n].tolist()), shown=tuple(shown[n].tolist()))
        for n, ranking in enumerate(rankings)
    ]


def _rankings(job: Job, split: str) -> list[Ranking]:
    return load_rankings(job.folder / "rankings" / f"{split}.jsonl")
