"""On- and off-policy RLHF side by side: the same SFT model, reward model and prompts, and two ways to learn from them.

    pretraining ─▶ sft ─▶ rankings ─▶ reward-model ─▶ ppo-0.15-seed-0, softq-0.15-seed-0, …

The stages before the last arrow are those of the pipeline (:mod:`agents.rlhf.stages`), run once; what differs between
the runs of a method is the seed of its learning. Each is measured along its way: texts on held-out prompts at
temperature 1.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.benchmark.results import open_folder, versions
from agents.demonstrations import read_demonstrations
from agents.lm.actor_critic import LMActorCritic
from agents.lm.preferences import load_rankings
from agents.losses import kl_k3
from agents.ppo import PPO
from agents.rlhf.evaluation import measure, write_texts
from agents.rlhf.settings import RLHFError, Settings, get_settings
from agents.rlhf.stages import EVALUATION, Job, Stage, make_stages
from agents.soft_q import SoftQ
from textenvs.errors import unknown_name

AGENTS: dict[str, Any] = {"PPO": PPO, "SoftQ": SoftQ}
MODELS = ("pretraining", "sft", "rankings", "reward-model")
"""Stages whose results all runs share."""

MODELS_SEED = 0


@dataclass(frozen=True)
class Method:
    """A way to learn.

    Attributes:
        name: as tables show it.
        agent: "PPO" or "SoftQ".
        num_envs: texts that are written at once.
        config: of the agent, but for the coefficient of the KL penalty, which is kl_coef of PPO and τ of SoftQ.
        head_start: gradient steps on the texts that were ranked for the reward model, before the first episode.
    """

    name: str
    agent: str
    num_envs: int
    config: dict[str, Any]
    head_start: int = 0

    @property
    def slug(self) -> str:
        """In names of folders."""
        return self.name.lower().replace(",", "").replace(" ", "-")


PPO_CONFIG: dict[str, Any] = {"learning_rate": 1e-3, "epochs": 2, "num_minibatches": 2}
SOFT_Q_CONFIG: dict[str, Any] = {
    "learning_rate": 5e-4,
    "updates_per_window": 8,
    "batch_size": 16,
    "learning_starts": 16,
    "recent_episodes": 32,
    "exact_kl": True,
}
"""Both chosen with seed 0 at kl_coef 0.15; what else was tried stands in docs/rlhf_from_replay.md."""


@dataclass(frozen=True)
class Comparison:
    """What is run, as pure data.

    Attributes:
        rlhf: the pipeline that makes the models.
        kl_coefs: coefficients β of the KL penalty, for every method the same.
        episodes: of a run.
        marks: episodes after which the policy is measured; each at the end of the window in which it is reached. It is
            measured before the first one, too.
        evaluation_texts: sampled for one measurement.
    """

    preset: str
    rlhf: Settings
    methods: tuple[Method, ...]
    kl_coefs: tuple[float, ...] = (0.15, 0.3, 0.05)
    episodes: int = 1_024
    marks: tuple[int, ...] = (128, 256, 384, 512, 768, 1_024)
    evaluation_texts: int = 384

    def select(self, methods: Sequence[str] | None = None, kl_coefs: Sequence[float] | None = None) -> Comparison:
        """A part of the comparison: None is all.

        Raises:
            RLHFError: a method or coefficient that is not in it.
        """
        known: dict[str, Method] = {method.name: method for method in self.methods}
        for name in methods or ():
            if name not in known:
                raise RLHFError(unknown_name("method", name, known))
        for kl_coef in kl_coefs or ():
            if kl_coef not in self.kl_coefs:
                raise RLHFError(f"kl_coef {kl_coef:g} is none of {', '.join(f'{x:g}' for x in self.kl_coefs)}.")
        chosen = self.methods if methods is None else tuple(known[name] for name in methods)
        return replace(self, methods=chosen, kl_coefs=self.kl_coefs if kl_coefs is None else tuple(kl_coefs))


METHODS = (
    Method("PPO", "PPO", 16, PPO_CONFIG),
    Method("SoftQ", "SoftQ", 16, SOFT_Q_CONFIG),
    Method("SoftQ, head start", "SoftQ", 16, SOFT_Q_CONFIG, head_start=160),
)
PRESETS = {
    "quick": Comparison("quick", get_settings("quick"), METHODS),
    "smoke": Comparison(
        "smoke",
        get_settings("smoke"),
        (
            METHODS[0],
            METHODS[1],
            Method("SoftQ, head start", "SoftQ", 16, SOFT_Q_CONFIG, head_start=2),
        ),
        kl_coefs=(0.15,),
        episodes=64,
        marks=(32, 64),
        evaluation_texts=32,
    ),
}


def get_comparison(preset: str) -> Comparison:
    """The settings of a preset.

    Raises:
        RLHFError: there is none of that name.
    """
    if preset not in PRESETS:
        raise RLHFError(unknown_name("preset", preset, PRESETS))
    return PRESETS[preset]


def open_comparison(out: Path, comparison: Comparison) -> None:
    """Make the folder of a comparison, or go on with one.

    Raises:
        BenchmarkError: it holds something else, or results of other settings.
    """
    open_folder(out, {"comparison": asdict(comparison), "versions": versions()})


def run_name(method: Method, kl_coef: float, seed: int) -> str:
    """The name of a run's stage: ``softq-0.15-seed-0``."""
    return f"{method.slug}-{kl_coef:g}-seed-{seed}"


def make_comparison_stages(comparison: Comparison, seeds: Sequence[int]) -> list[Stage]:
    """The stages that make the models, then a stage for each run."""
    models = [stage for stage in make_stages(comparison.rlhf) if stage.name in MODELS]
    return models + [
        Stage(run_name(method, kl_coef, seed), ("reward-model",), partial(learn, comparison, method, kl_coef, seed))
        for kl_coef in comparison.kl_coefs
        for seed in seeds
        for method in comparison.methods
    ]


# -- a run -------------------------------------------------------------------------------------------------------------


@dataclass
class _Progress:
    """What a run has measured so far; kept beside its checkpoint."""

    rows: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0  # of learning, without the measurements
    calls: int = 0  # texts that were judged before the first episode


def learn(comparison: Comparison, method: Method, kl_coef: float, seed: int, job: Job) -> None:
    """Train, and measure along the way; goes on from its last measurement."""
    world, folder = job.world, job.folder
    judge = folder / "reward-model" / "model"
    policy = job.policy(job.base_model, critic=judge)
    reference = job.policy(job.base_model).frozen_copy()
    envs = world.envs("train", method.num_envs, world.paid_reward(folder))
    coefficient = {"PPO": "kl_coef", "SoftQ": "tau"}[method.agent]
    parts: dict[str, Any] = {"policy": policy, "reference": reference}
    checkpoint, log = job.work / "checkpoint", job.work / "progress.json"
    if checkpoint.is_dir():
        agent = AGENTS[method.agent].load(checkpoint, envs, **parts)
        saved = json.loads(log.read_text(encoding="utf-8"))
        progress = _Progress(**saved)
        progress.rows = [row for row in progress.rows if row["episodes"] <= agent.num_episodes]
    else:
        config = {coefficient: kl_coef} | method.config
        agent = AGENTS[method.agent](envs, seed=seed, **parts, **config)
        progress = _Progress()
        if method.head_start:
            progress.calls = add_ranked_texts(agent, job)
        _measure(comparison, job, agent, reference, progress)
        if method.head_start:
            _learn_from_ranked_texts(comparison, method, job, agent, reference, progress)
    started = time.perf_counter()

    def after_window(agent: Any) -> bool:
        nonlocal started
        measured = progress.rows[-1]["episodes"]
        if any(measured < mark <= agent.num_episodes for mark in comparison.marks):
            progress.seconds += time.perf_counter() - started
            _measure(comparison, job, agent, reference, progress)
            agent.save(checkpoint)
            log.write_text(json.dumps(vars(progress)), encoding="utf-8")
            started = time.perf_counter()
        job.report(agent.num_episodes / comparison.episodes, f"score {agent.metrics['objective/scores']:.2f}")
        return agent.num_episodes < comparison.episodes

    agent.learn(10**12, callback=after_window)
    job.write(
        {
            "method": method.name,
            "kl_coef": kl_coef,
            "seed": seed,
            "episodes": agent.num_episodes,
            "timesteps": agent.num_timesteps,
            "gradient_steps": getattr(agent, "num_gradient_steps", None),
            "update_to_data": agent.data_utilisation,
            "learning_seconds": progress.seconds,
        }
    )
    write_rows(job.out / "rows.csv", progress.rows)


HEAD_START_MARKS = 5
"""Measurements of a head start."""


def _learn_from_ranked_texts(
    comparison: Comparison, method: Method, job: Job, agent: Any, reference: LMActorCritic, progress: _Progress
) -> None:
    """The head start, measured along its way."""
    started = time.perf_counter()
    bounds = np.linspace(0, method.head_start, min(HEAD_START_MARKS, method.head_start) + 1).astype(int).tolist()
    for begin, end in pairwise(bounds):
        agent.learn_offline(end - begin)
        progress.seconds += time.perf_counter() - started
        _measure(comparison, job, agent, reference, progress)
        started = time.perf_counter()


def add_ranked_texts(agent: SoftQ, job: Job) -> int:
    """Put the answers that were ranked into the replay buffer, judged by the reward model; returns how many.

    The SFT model wrote them for the reward model's training, so they cost no episode; the judge is asked for each.
    """
    path, task = job.work / "ranked.jsonl", agent.envs.unwrapped.task  # type: ignore[attr-defined]
    with path.open("w", encoding="utf-8") as file:
        for ranking in load_rankings(job.folder / "rankings" / "train.jsonl"):
            for answer in ranking.answers:
                file.write(json.dumps({"prompt": ranking.prompt, "completion": answer}) + "\n")
    episodes, _ = read_demonstrations(path, task)
    reward = job.world.paid_reward(job.folder)
    return agent.replay.add_episodes(episodes, source="ranked answers", task=task, reward=reward)


def _measure(comparison: Comparison, job: Job, agent: Any, reference: LMActorCritic, progress: _Progress) -> None:
    """Add a row about the present policy. A copy of it writes, so that training does not notice."""
    world = job.world
    policy = agent.policy.frozen_copy()
    policy.bind(agent.text_spec)
    answers = write_texts(policy, world, comparison.evaluation_texts, job.stream(EVALUATION))
    paid = world.paid_reward(job.folder)
    figures = measure(policy, answers, world, reference=reference, pretrained=None, reward=paid)
    rows, lengths = torch.from_numpy(answers.rows), torch.from_numpy(answers.episodes.lengths)
    logprobs, ref_logprobs = policy.logprobs(rows, lengths), reference.logprobs(rows, lengths)
    assert figures.reward is not None
    assert figures.gold is not None
    assert figures.kl is not None
    progress.rows.append(
        {
            "episodes": agent.num_episodes,
            "reward_calls": agent.num_episodes + progress.calls,
            "seconds": round(progress.seconds, 4),
            "gradient_samples": agent.gradient_samples,
            "reward": figures.reward,
            "gold": figures.gold,
            "kl": float(kl_k3(logprobs, ref_logprobs).sum(1).mean()),
            "kl_k1": figures.kl,
            "grammatical": float("nan") if figures.grammatical is None else figures.grammatical,
            "length": figures.length,
        }
    )


def write_rows(path: Path, rows: list[dict[str, float]]) -> None:
    """Measurements as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read_rows(path: Path) -> dict[str, np.ndarray]:
    """Columns of a run's measurements.

    Raises:
        RLHFError: they cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
    except (OSError, ValueError, IndexError, TypeError) as error:
        raise RLHFError(f"{path} cannot be read: {error}.") from error
