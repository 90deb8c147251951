"""Length hacking: annotators like long answers, a reward model learns it, PPO becomes verbose; four ways to mend it.

    pretraining ─▶ sft ─▶ rankings ─▶ judges ─▶ runs ─▶ evaluation

Around ``TinyReviews``, with a gold score that is against verbosity: sentiment, less something for every token past a
target. The same answers are ranked by two annotators, one of whom likes long answers. The first two stages are run
once, all others, annotators included, anew for each seed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import textenvs
from agents.alarm import HackingAlarm
from agents.benchmark.results import open_folder, versions
from agents.lm.actor_critic import LMActorCritic
from agents.lm.annotators import Annotator
from agents.lm.dpo import DPOConfig, train_dpo
from agents.lm.length_bias import balance_lengths, length_share, length_slope, longer_preferred, stratified_share
from agents.lm.preferences import Ranking, load_rankings, make_rankings, save_rankings
from agents.lm.reward_model import RewardModel, RewardModelConfig, pair_accuracy, train_reward_model
from agents.lm.reward_quality import length_only_accuracy
from agents.lm.sampling import sample_answers
from agents.ppo import PPO
from agents.rlhf.comparison import write_rows
from agents.rlhf.evaluation import as_json, measure, shown_samples, write_texts
from agents.rlhf.metering import GoldMeter
from agents.rlhf.settings import RLHFError, Settings, get_settings
from agents.rlhf.stages import ANSWERS, EVALUATION, HELD_OUT_ANSWERS, SEED_STRIDE, Job, Stage, make_stages
from agents.rlhf.worlds import TinyReviewsWorld
from textenvs import Episodes
from textenvs.errors import unknown_name
from textenvs.rewards.base import Judge

MODELS_SEED = 0
"""Folder of the models that all seeds share, and of their results."""


class ConciseSentiment:
    """Sentiment of prompt and completion in [−1, 1], less ``slope`` for every token past ``target``: what is meant."""

    name, deterministic = "concise_sentiment", True

    def __init__(self, target: int, slope: float) -> None:
        sentiment = {"name": "lexicon_sentiment", "of": "text"}
        model = textenvs.make_reward({"name": "length_penalty", "reward": sentiment, "target": target, "slope": slope})
        self._judge = Judge(model)
        self.low, self.high, self.version = self._judge.low, self._judge.high, model.version

    def score(self, episodes: Episodes) -> np.ndarray:
        """Scores float32 [B]."""
        return self._judge(episodes).total


class ConciseWorld(TinyReviewsWorld):
    """TinyReviews under that gold score."""

    def __init__(self, max_new_tokens: int, target: int, slope: float) -> None:
        self.gold_reward = {"name": "agents.rlhf.length_hacking:ConciseSentiment", "target": target, "slope": slope}
        super().__init__(max_new_tokens)


@dataclass(frozen=True)
class Experiment:
    """What is run, as pure data."""

    preset: str
    rlhf: Settings
    """Sizes of pretraining, SFT, preferences and evaluation."""
    target: int = 12
    """Tokens up to which a text costs nothing under the gold score."""
    slope: float = 0.08
    """Gold score per token past it."""
    length_bias: float = 1.2
    """Of the biased annotator, in log-odds per token; of the gold score both are as sure as in ``rlhf.preferences``."""
    members: int = 3
    """Reward models of the ensemble; the first is the biased one, the others learn from bootstrap samples of its
    prompts."""
    pessimism: float = 1.0
    """k of the ensemble's mean − k · std."""
    kl_coef: float = 0.03
    updates: int = 40


PRESETS = {
    "quick": Experiment("quick", get_settings("short")),
    "smoke": Experiment("smoke", get_settings("smoke"), members=2, updates=2),
}


def get_experiment(preset: str) -> Experiment:
    """The settings of a preset.

    Raises:
        RLHFError: there is none of that name.
    """
    if preset not in PRESETS:
        raise RLHFError(unknown_name("preset", preset, PRESETS))
    return PRESETS[preset]


def open_experiment(out: Path, experiment: Experiment) -> None:
    """Make the folder of an experiment, or go on with one.

    Raises:
        BenchmarkError: it holds something else, or results of other settings.
    """
    open_folder(out, {"length_hacking": asdict(experiment), "versions": versions()})


@dataclass(frozen=True)
class Run:
    """A policy that is trained.

    Attributes:
        name: in folders.
        title: in tables.
        judges: the reward models that it needs; the first one starts PPO's critic.
        dpo: rankings that DPO learns from; None: it is PPO.
    """

    name: str
    title: str
    judges: tuple[str, ...]
    dpo: str | None = None


def make_runs(experiment: Experiment) -> tuple[Run, ...]:
    """All of them, that of the unbiased annotator first and the hacked one second."""
    members = ("biased", *(f"member-{number}" for number in range(1, experiment.members)))
    return (
        Run("unbiased", "PPO, unbiased annotator", ("unbiased",)),
        Run("biased", "PPO, biased annotator", ("biased",)),
        Run("penalty", "… with a length penalty", ("biased",)),
        Run("balanced", "… with length-balanced pairs", ("balanced",)),
        Run("ensemble", "… with a pessimistic ensemble", members),
        Run("dpo", "DPO, biased annotator", ("biased",), dpo="biased"),
        Run("dpo-unbiased", "DPO, unbiased annotator", ("unbiased",), dpo="unbiased"),
    )


HACKED, CLEAN = "biased", "unbiased"


def make_hacking_stages(experiment: Experiment, seeds: Sequence[int]) -> list[Stage]:
    """Models that all share, then the stages of each seed."""
    stages = [stage for stage in make_stages(experiment.rlhf) if stage.name in ("pretraining", "sft")]
    runs = make_runs(experiment)
    judges = tuple(dict.fromkeys(judge for run in runs for judge in run.judges))
    for seed in seeds:

        def name(what: str, seed: int = seed) -> str:
            return stage_name(what, seed)

        stages.append(Stage(name("rankings"), ("sft",), partial(collect, experiment, seed)))
        for judge in judges:
            needs = (name("rankings"), *((name("judge-biased"),) if judge.startswith("member") else ()))
            stages.append(Stage(name(f"judge-{judge}"), needs, partial(train_judge, experiment, judge, seed)))
        for run in runs:
            needs = tuple(name(f"judge-{judge}") for judge in run.judges)
            function = optimise if run.dpo is None else prefer
            stages.append(Stage(name(run.name), needs, partial(function, experiment, run, seed)))
        needs = tuple(name(run.name) for run in runs)
        stages.append(Stage(name("evaluation"), needs, partial(evaluate, experiment, seed)))
    return stages


def stage_name(what: str, seed: int) -> str:
    """The name of a stage of a seed: ``rankings-seed-1``."""
    return f"{what}-seed-{seed}"


def world_of(experiment: Experiment) -> ConciseWorld:
    """The world with its gold score."""
    return ConciseWorld(experiment.rlhf.sources.max_new_tokens, experiment.target, experiment.slope)


def stream(seed: int, number: int) -> int:
    """The seed of a random stream; those of the shared models lie elsewhere."""
    return (seed + 1) * SEED_STRIDE + number


# -- preferences and reward models -------------------------------------------------------------------------------------


def collect(experiment: Experiment, seed: int, job: Job) -> None:
    """The SFT model answers; two annotators rank the same answers; the biased one's pairs are balanced."""
    setting, world, policy = experiment.rlhf.preferences, world_of(experiment), job.policy(job.base_model)
    k = setting.answers
    pairs = k * (k - 1) // 2
    annotators = {CLEAN: Annotator(setting.scale), HACKED: Annotator(setting.scale, length_bias=experiment.length_bias)}
    figures: dict[str, Any] = {}
    parts = [("train", setting.comparisons, ANSWERS), ("test", setting.held_out, HELD_OUT_ANSWERS)]
    for number, (split, comparisons, which) in enumerate(parts):
        prompts = -(-comparisons // pairs)
        envs = world.envs(split, min(prompts, 256 // k) * k, group_size=k)
        answers = sample_answers(policy, envs, prompts, k=k, seed=stream(seed, which))
        lengths = answers.episodes.lengths.reshape(answers.scores.shape)
        for name, annotator in annotators.items():
            ranks, shown = annotator.rank(answers.scores, lengths, seed=stream(seed, which))
            rankings = make_rankings(answers, ranks, answers.scores, shown=shown, annotator=name)
            save_rankings(job.out / f"{name}-{split}.jsonl", rankings)
            figures[f"{name}_{split}_best_accuracy"] = annotator.best_accuracy(answers.scores, lengths)
            if split == "train":
                figures[f"{name}_longer_preferred"] = longer_preferred(rankings)
        if split == "train":
            np.save(job.out / "lengths.npy", lengths.reshape(-1))
            figures |= {
                "length": float(lengths.mean()),
                "gold_length_correlation": float(np.corrcoef(lengths.reshape(-1), answers.scores.reshape(-1))[0, 1]),
            }
        job.report((number + 1) / 2, f"{prompts} prompts")
    balanced = balance_lengths(load_rankings(job.out / f"{HACKED}-train.jsonl"), seed=stream(seed, ANSWERS))
    save_rankings(job.out / "balanced-train.jsonl", balanced)
    job.write(figures | {"balanced_pairs": len(balanced), "balanced_longer_preferred": longer_preferred(balanced)})


def read_rankings(job: Job, seed: int, name: str) -> list[Ranking]:
    """Rankings of a seed, by name: ``biased-train`` …"""
    return load_rankings(job.folder / stage_name("rankings", seed) / f"{name}.jsonl")


def train_judge(experiment: Experiment, judge: str, seed: int, job: Job) -> None:
    """A reward model on the rankings of its name, or on a bootstrap sample of the biased ones (``member-1`` …)."""
    setting = experiment.rlhf.preferences
    member = int(judge.removeprefix("member-")) if judge.startswith("member-") else 0
    rankings = read_rankings(job, seed, f"{'biased' if member else judge}-train")
    if member:
        drawn = np.random.default_rng([seed, member]).integers(len(rankings), size=len(rankings))
        rankings = [rankings[i] for i in drawn]
    model = RewardModel.from_causal_lm(job.policy(job.base_model), seed=stream(seed, member))
    # A pair by itself is a sixth of a prompt with four answers: as many comparisons in a step, and so as many steps.
    answers = len(rankings[0].answers)
    config = RewardModelConfig(
        learning_rate=setting.learning_rate,
        epochs=setting.epochs,
        batch_size=setting.batch_size if answers > 2 else setting.batch_size * 6,
        seed=stream(seed, member),
    )
    held_out = {name: read_rankings(job, seed, f"{name}-test") for name in (CLEAN, HACKED)}
    asked = read_rankings(job, seed, f"{HACKED}-train")
    reference = [row for ranking in asked for row in model.encode(ranking)]

    def on_step(done: int, of: int, figures: dict[str, float]) -> None:
        job.report(done / of, f"accuracy {figures['rewards/accuracies']:.2f}")

    result = train_reward_model(model, rankings, config, reference=reference, callback=on_step)
    model.save_pretrained(job.out / "model")
    lengths = np.array([len(answer.split()) for ranking in asked for answer in ranking.answers])
    job.write(
        {
            "comparisons": result.num_comparisons,
            "accuracy": {name: pair_accuracy(model, others) for name, others in held_out.items()},
            "length_only_accuracy": length_only_accuracy(rankings, held_out[HACKED]),
            "log_odds_scale": result.log_odds_scale,
            "length_slope": length_slope(lengths, model.scores(reference)),
        }
    )


def judge_folder(job: Job, seed: int, judge: str) -> Path:
    """Of a reward model's stage."""
    return job.folder / stage_name(f"judge-{judge}", seed)


def figures_of(folder: Path) -> dict[str, Any]:
    """What a finished stage wrote."""
    figures: dict[str, Any] = json.loads((folder / "figures.json").read_text(encoding="utf-8"))
    return figures


def paid_reward(experiment: Experiment, run: Run, seed: int, job: Job) -> Any:
    """The spec of what a run is paid by; of DPO, the reward model that its rankings would have trained.

    The length penalty takes off as much per token as the reward model adds on texts of the SFT model, from the first
    token on: its slope is measured, not chosen.
    """
    parts = [f"learned:{judge_folder(job, seed, judge) / 'model'}" for judge in run.judges]
    if run.name == "penalty":
        slope = max(figures_of(judge_folder(job, seed, run.judges[0]))["length_slope"], 0.0)
        return {"name": "length_penalty", "reward": parts[0], "target": 0, "slope": slope}
    if len(parts) > 1:
        return {"name": "ensemble", "parts": parts, "how": "pessimistic", "k": experiment.pessimism}
    return parts[0]


# -- runs --------------------------------------------------------------------------------------------------------------


def optimise(experiment: Experiment, run: Run, seed: int, job: Job) -> None:
    """PPO, with the alarm as a witness that does nothing but note when it rings."""
    setting, world = experiment.rlhf.ppo, world_of(experiment)
    policy = job.policy(job.base_model, critic=judge_folder(job, seed, run.judges[0]) / "model")
    reward = {"name": "gold", "proxy": paid_reward(experiment, run, seed, job), "gold": world.gold_reward}
    envs = GoldMeter(world.envs("train", setting.num_envs, reward))
    agent = PPO(
        envs,
        policy=policy,
        reference=job.policy(job.base_model).frozen_copy(),
        seed=seed,
        kl_coef=experiment.kl_coef,
        learning_rate=setting.learning_rate,
        epochs=setting.epochs,
        num_minibatches=setting.num_minibatches,
        vf_coef=setting.value_coef,
        anneal_timesteps=experiment.updates * setting.num_envs * experiment.rlhf.sources.max_new_tokens,
    )
    alarm = HackingAlarm(gold=ConciseSentiment.name)
    history: list[dict[str, float]] = []

    def after_update(agent: Any) -> bool:
        metrics = agent.metrics
        history.append(
            {
                "updates": agent.num_updates,
                "episodes": agent.num_episodes,
                "proxy": metrics["objective/scores"],
                "gold": envs.take_mean(),
                "length": metrics["charts/episodic_length"],
                "kl": metrics["objective/kl_k1"],
            }
        )
        job.report(agent.num_updates / experiment.updates, f"length {history[-1]['length']:.1f}")
        return bool(agent.num_updates < experiment.updates)

    agent.learn(10**12, callback=[alarm, after_update])
    envs.close()
    policy.save_pretrained(job.out / "model")
    write_rows(job.out / "history.csv", history)
    rung = None if alarm.alarm is None else {"batch": alarm.alarm.batch, "reason": alarm.alarm.reason}
    job.write({"run": run.name, "episodes": agent.num_episodes, "alarm": rung})


def prefer(experiment: Experiment, run: Run, seed: int, job: Job) -> None:
    """DPO on the rankings that a reward model learnt from, at the β that has the same optimum as PPO on that model.

    PPO tilts by score / kl_coef, and a difference of two scores is log-odds / scale, so β = kl_coef · scale.
    """
    assert run.dpo is not None
    policy = job.policy(job.base_model)
    scale = figures_of(judge_folder(job, seed, run.judges[0]))["log_odds_scale"]
    config = DPOConfig(beta=experiment.kl_coef * scale, seed=seed)

    def on_step(done: int, of: int, figures: dict[str, float]) -> None:
        job.report(done / of, f"accuracy {figures['rewards/accuracies']:.2f}")

    rankings, held_out = (read_rankings(job, seed, f"{run.dpo}-{split}") for split in ("train", "test"))
    result = train_dpo(policy, rankings, config, held_out=held_out, callback=on_step)
    policy.save_pretrained(job.out / "model")
    job.write({"run": run.name, "beta": config.beta, "held_out_accuracy": result.accuracy, "alarm": None})


# -- evaluation --------------------------------------------------------------------------------------------------------


def evaluate(experiment: Experiment, seed: int, job: Job) -> None:
    """Every policy on the same held-out prompts: gold, what it is paid, and how much of the gain is length."""
    world, count = world_of(experiment), experiment.rlhf.evaluation_texts
    reference = job.policy(job.base_model)
    before = write_texts(reference, world, count, stream(seed, EVALUATION))
    biased = Judge(textenvs.make_reward(f"learned:{judge_folder(job, seed, HACKED) / 'model'}"))
    results: dict[str, Any] = {}
    runs = make_runs(experiment)
    for number, run in enumerate((None, *runs)):
        name = "sft" if run is None else run.name
        model = job.base_model if run is None else job.folder / stage_name(run.name, seed) / "model"
        policy: LMActorCritic = reference if run is None else job.policy(model)
        answers = before if run is None else write_texts(policy, world, count, stream(seed, EVALUATION))
        figures = measure(policy, answers, world, reference=reference, pretrained=None)
        results[name] = as_json(figures, shown_samples(answers, world, experiment.rlhf.shown_prompts))
        if run is not None:
            own = Judge(textenvs.make_reward(paid_reward(experiment, run, seed, job)))
            results[name] |= {
                "own": shares(own, before.episodes, answers.episodes),
                "biased": shares(biased, before.episodes, answers.episodes),
            }
        job.report((number + 1) / (len(runs) + 1), name)
    job.write({"models": results})


def shares(judge: Judge, before: Episodes, after: Episodes) -> dict[str, float]:
    """What a judge says about texts before and after training, and how much of its gain is length."""
    texts = (before.lengths, judge(before).total, after.lengths, judge(after).total)
    return {
        "before": float(texts[1].mean()),
        "after": float(texts[3].mean()),
        "length_share": length_share(*texts),
        "stratified_share": stratified_share(*texts),
    }
