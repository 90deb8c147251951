"""The stages of a pipeline, from a language model that knows nothing to one that pleases a judge.

    pretraining ─▶ sft ─▶ rankings ─▶ reward-model ─▶ ppo-0.15, ppo-0 ─▶ evaluation

Each reads the folders of the stages before it and writes one of its own.
"""

from __future__ import annotations

import csv
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from agents import distributed
from agents.lm.actor_critic import LMActorCritic
from agents.lm.loading import load_model
from agents.lm.models import find_causal_lm, new_gpt2
from agents.lm.preferences import best_accuracy, load_rankings, make_rankings, rank_answers, save_rankings
from agents.lm.reward_model import RewardModel, RewardModelConfig, train_reward_model
from agents.lm.reward_quality import length_only_accuracy, measure_reward_model
from agents.lm.sampling import sample_answers
from agents.lm.sft import Corpus, SFTConfig, cross_entropy, train_on_texts
from agents.ppo import PPO
from agents.rlhf.evaluation import as_json, measure, shown_samples, write_texts
from agents.rlhf.metering import GoldMeter
from agents.rlhf.settings import RLHFError, Settings
from agents.rlhf.worlds import TinyReviewsWorld, World, make_world
from textenvs.tokenizers import load_tokenizer

SEED_STRIDE = 1_000
"""Between the seeds of two pipelines; the streams of one (texts, prompts, answers) are numbered below it."""
CORPUS, DEMONSTRATIONS, ANSWERS, HELD_OUT_ANSWERS, HELD_OUT_TEXTS, EVALUATION = range(6)
CHECKPOINT_EVERY = 5
"""Updates of PPO between two checkpoints: what an interruption costs at most."""

Report = Callable[[float, str], Any]
"""Told the share that is done, and a figure in words."""


@dataclass(frozen=True)
class Job:
    """What a stage is given."""

    settings: Settings
    seed: int
    folder: Path
    """Of the pipeline: the stages before it have written into it."""
    out: Path
    """Its own folder, which becomes ``folder / name`` once it is complete."""
    work: Path
    """Kept when it is interrupted, gone once it is complete."""
    report: Report

    def stream(self, number: int) -> int:
        """The seed of one of the pipeline's random streams."""
        return self.seed * SEED_STRIDE + number

    @property
    def world(self) -> World:
        return make_world(self.settings.sources)

    @property
    def base_model(self) -> str | Path:
        """What PPO begins with, and stays close to."""
        sft = self.folder / "sft" / "model"
        return sft if sft.is_dir() else str(self.settings.sources.model)

    def policy(self, model: str | Path, **options: Any) -> LMActorCritic:
        """A saved model as a policy, in the precision of the settings."""
        sources = self.settings.sources
        options = {"bf16": sources.bf16, "gradient_checkpointing": sources.gradient_checkpointing} | options
        return LMActorCritic.from_pretrained(model, **options).to(distributed.join())

    def write(self, figures: dict[str, Any]) -> None:
        """The figures of the stage."""
        (self.out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")

    def on_step(self, done: int, of: int, loss: float) -> None:
        """Progress of supervised training."""
        self.report(done / of, f"loss {loss:.3f}")


@dataclass(frozen=True)
class Stage:
    """A node of the pipeline.

    Attributes:
        needs: names of the stages before it.
        collective: whether all processes of a multi-process run take part, rather than the first one alone.
    """

    name: str
    needs: tuple[str, ...]
    run: Callable[[Job], None]
    collective: bool = False


def ppo_name(kl_coef: float) -> str:
    """The name of a PPO run: ``ppo-0.15``."""
    return f"ppo-{kl_coef:g}"


def make_stages(settings: Settings) -> list[Stage]:
    """The stages of a pipeline, each after those that it needs."""
    stages: list[Stage] = []
    before: tuple[str, ...] = ()
    if settings.sources.is_tiny:
        stages.append(Stage("pretraining", (), pretrain))
        before = ("pretraining",)
    if settings.sources.is_tiny or settings.sources.demonstrations is not None:
        stages.append(Stage("sft", before, fine_tune))
        before = ("sft",)
    if settings.sources.is_tiny:
        stages.append(Stage("rankings", before, collect_rankings))
        stages.append(Stage("reward-model", ("rankings",), train_judge))
        if settings.preferences.small:
            stages.append(Stage("reward-model-small", ("rankings",), partial(train_judge, small=True)))
        before = ("reward-model",)
    runs = [Stage(ppo_name(kl), before, partial(optimise, kl_coef=kl), True) for kl in settings.ppo.kl_coefs]
    return [*stages, *runs, Stage("evaluation", tuple(run.name for run in runs), evaluate)]


# -- supervised --------------------------------------------------------------------------------------------------------


def pretrain(job: Job) -> None:
    """A word-level GPT-2 from random weights, on the grammar's texts."""
    setting, world = job.settings.pretraining, job.world
    assert isinstance(world, TinyReviewsWorld)
    tokenizer = world.tokenizer
    model = new_gpt2(
        tokenizer,
        width=setting.width,
        num_layers=setting.num_layers,
        num_heads=setting.num_heads,
        positions=64,
        seed=job.seed,
    )
    model.to(distributed.join())
    corpus = world.corpus(setting.texts, job.stream(CORPUS))
    sft = SFTConfig(learning_rate=setting.learning_rate, batch_size=setting.batch_size)
    losses = train_on_texts(model, corpus, sft, seed=job.seed, on_progress=job.on_step)
    held_out = world.corpus(2_000, job.stream(HELD_OUT_TEXTS))
    save_model(model, tokenizer, job.out / "model")
    job.write(
        {
            "losses": thinned(losses),
            "texts": len(corpus),
            "tokens": corpus.num_targets,
            "held_out_loss": cross_entropy(model, held_out),
            "lowest_possible_loss": lowest_possible_loss(world, held_out),
        }
    )


def lowest_possible_loss(world: TinyReviewsWorld, corpus: Corpus) -> float:
    """The loss of a model that knows the grammar by heart, in nats per predicted token: first tokens are not
    predicted, so their log-probability, estimated by their frequency, is taken away."""
    firsts = np.bincount(world.corpus(50_000, seed=0).ids[:, 0], minlength=len(world.grammar.vocab))
    of_first = np.log(firsts[corpus.ids[:, 0]] / firsts.sum())
    return float((of_first - world.grammar.log_probability(corpus.ids)).sum() / corpus.num_targets)


def fine_tune(job: Job) -> None:
    """Supervised fine-tuning on demonstrations."""
    setting, world, tiny = job.settings.sft, job.world, job.settings.sources.is_tiny
    source = job.folder / "pretraining" / "model" if tiny else job.settings.sources.model
    assert source is not None
    model, tokenizer = load_model(source).to(distributed.join()), load_tokenizer(source)
    corpus = world.demonstrations(setting.demonstrations, job.stream(DEMONSTRATIONS))
    assert corpus is not None
    sft = SFTConfig(learning_rate=setting.learning_rate, batch_size=setting.batch_size, epochs=setting.epochs)
    losses = train_on_texts(model, corpus, sft, seed=job.seed, on_progress=job.on_step)
    save_model(model, tokenizer, job.out / "model")
    job.write({"losses": thinned(losses), "texts": len(corpus), "tokens": corpus.num_targets})


# -- preferences -------------------------------------------------------------------------------------------------------


def collect_rankings(job: Job) -> None:
    """The SFT model writes K answers to each of many prompts; a noisy annotator with a known taste ranks them."""
    setting, world = job.settings.preferences, job.world
    policy = job.policy(job.base_model)
    k = setting.answers
    pairs = k * (k - 1) // 2
    figures: dict[str, Any] = {"answers": k, "pairs_of_a_prompt": pairs}
    parts = [("train", setting.comparisons, ANSWERS), ("test", setting.held_out, HELD_OUT_ANSWERS)]
    for number, (split, comparisons, stream) in enumerate(parts):
        prompts = -(-comparisons // pairs)
        envs = world.envs(split, min(prompts, 256 // k) * k, group_size=k)
        answers = sample_answers(policy, envs, prompts, k=k, seed=job.stream(stream))
        ranks = rank_answers(answers.scores, setting.scale, seed=job.stream(stream))
        save_rankings(job.out / f"{split}.jsonl", make_rankings(answers, ranks, answers.scores))
        figures[split] = {
            "prompts": prompts,
            "comparisons": prompts * pairs,
            "best_possible_accuracy": best_accuracy(answers.scores, setting.scale),
        }
        job.report((number + 1) / 2, f"{prompts} prompts")
    job.write(figures)


def train_judge(job: Job, small: bool = False) -> None:
    """A reward model from the rankings, on the trunk of the SFT model."""
    setting = job.settings.preferences
    rankings = load_rankings(job.folder / "rankings" / "train.jsonl")
    held_out = load_rankings(job.folder / "rankings" / "test.jsonl")
    if small:
        rankings = rankings[: -(-setting.small // (setting.answers * (setting.answers - 1) // 2))]
    model = RewardModel.from_causal_lm(job.policy(job.base_model), seed=job.seed)
    config = RewardModelConfig(
        learning_rate=setting.learning_rate, epochs=setting.epochs, batch_size=setting.batch_size, seed=job.seed
    )

    def on_step(done: int, of: int, figures: dict[str, float]) -> None:
        job.report(done / of, f"accuracy {figures['rewards/accuracies']:.2f}")

    result = train_reward_model(model, rankings, config, callback=on_step)
    model.save_pretrained(job.out / "model")
    best = json.loads((job.folder / "rankings" / "figures.json").read_text(encoding="utf-8"))["test"]
    quality = measure_reward_model(model, held_out, result.log_odds_scale, best=best.get("best_possible_accuracy"))
    job.write(
        {
            "comparisons": result.num_comparisons,
            "train_accuracy": result.train_accuracy,
            "held_out_accuracy": quality.accuracy,
            "share_of_best": quality.share_of_best,
            "calibration_error": quality.calibration.error,
            "calibration": [asdict(each) for each in quality.calibration.bins if each.count],
            "accuracy_by_margin": [each.accuracy for each in quality.by_margin],
            "length_only_accuracy": length_only_accuracy(rankings, held_out),
            "losses": thinned([step["losses/reward_model"] for step in result.history]),
        }
    )


# -- reinforcement learning --------------------------------------------------------------------------------------------


def optimise(job: Job, kl_coef: float) -> None:
    """PPO: actor and critic are trained, reward model and reference are frozen."""
    setting, world = job.settings.ppo, job.world
    paid = world.paid_reward(job.folder)
    reward = paid if world.gold_reward is None else {"name": "gold", "proxy": paid, "gold": world.gold_reward}
    critic = job.folder / "reward-model" / "model" if setting.critic == "reward" else setting.critic
    policy = job.policy(job.base_model, critic=critic)
    reference = job.policy(job.base_model).frozen_copy()
    processes = distributed.world_size()
    if setting.num_envs % processes:
        raise RLHFError(f"num_envs must be a multiple of the {processes} processes; got {setting.num_envs}.")
    envs = GoldMeter(world.envs("train", setting.num_envs // processes, reward))
    checkpoint, log = job.work / "checkpoint", job.work / "history.csv"
    history: list[dict[str, float]] = []
    parts: dict[str, Any] = {"policy": policy, "reference": reference}
    if checkpoint.is_dir():
        agent = PPO.load(checkpoint, envs, **parts)
        history = _read_history(log)[: agent.num_updates]
    else:
        agent = PPO(
            envs,
            seed=job.seed,
            kl_coef=kl_coef,
            kl_target=setting.kl_target if kl_coef else None,
            learning_rate=setting.learning_rate,
            epochs=setting.epochs,
            num_minibatches=setting.num_minibatches,
            vf_coef=setting.value_coef,
            whiten_rewards=setting.whiten_rewards,
            target_kl=setting.target_kl,
            micro_batch_size=setting.micro_batch_size,
            anneal_timesteps=setting.updates * setting.num_envs * job.settings.sources.max_new_tokens,
            **parts,
        )
    started = time.perf_counter()

    def after_update(agent: Any) -> bool:
        gold = envs.take_mean()
        row = {"updates": agent.num_updates, "episodes": agent.num_episodes, "timesteps": agent.num_timesteps}
        history.append({**row, "gold": gold, **agent.metrics, "seconds": time.perf_counter() - started})
        job.report(agent.num_updates / setting.updates, f"score {agent.metrics['objective/scores']:.2f}")
        if agent.num_updates % CHECKPOINT_EVERY == 0:
            agent.save(checkpoint)
            distributed.in_first(lambda: _write_history(log, history))
        return agent.num_updates < setting.updates

    agent.learn(10**12, callback=after_update)
    policy.save_pretrained(job.out / "model")
    figures = {"kl_coef": kl_coef, "updates": agent.num_updates, "episodes": agent.num_episodes, "last": history[-1]}

    def write() -> None:
        _write_history(job.out / "history.csv", history)
        job.write(figures | {"processes": processes})

    distributed.in_first(write)


def _write_history(path: Path, history: list[dict[str, float]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(history[0]))
        writer.writeheader()
        writer.writerows(history)


def _read_history(path: Path) -> list[dict[str, float]]:
    with path.open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


# -- evaluation --------------------------------------------------------------------------------------------------------


def evaluate(job: Job) -> None:
    """Every model on the same held-out prompts, at temperature 1."""
    settings, world = job.settings, job.world
    models: dict[str, str | Path] = {}
    if settings.sources.is_tiny:
        models["pretrained"] = job.folder / "pretraining" / "model"
    elif (job.folder / "sft").is_dir():
        models["pretrained"] = str(settings.sources.model)
    base_name = "sft" if (job.folder / "sft").is_dir() else "pretrained"
    models[base_name] = job.base_model
    for kl_coef in settings.ppo.kl_coefs:
        models[ppo_name(kl_coef)] = job.folder / ppo_name(kl_coef) / "model"
    reference = job.policy(job.base_model)
    pretrained = job.policy(models["pretrained"])
    judge = world.paid_reward(job.folder)
    results: dict[str, Any] = {}
    for number, (name, folder) in enumerate(models.items()):
        policy = job.policy(folder)
        answers = write_texts(policy, world, settings.evaluation_texts, job.stream(EVALUATION))
        figures = measure(policy, answers, world, reference=reference, pretrained=pretrained, reward=judge)
        results[name] = as_json(figures, shown_samples(answers, world, settings.shown_prompts))
        results[name]["model"] = describe_model(policy)
        job.report((number + 1) / len(models), name)
    bounds: dict[str, float] = {}
    if isinstance(world, TinyReviewsWorld):
        bounds = {"best_texts": world.best_texts(), "optimum": make_optimum(world)}
    job.write({"models": results, "base": base_name, **bounds})


def make_optimum(world: TinyReviewsWorld) -> float:
    """The best gold score that grammatical texts reach on held-out prompts."""
    envs: Any = world.envs("test", 1)
    return float(envs.unwrapped.task.optimum)


def describe_model(policy: LMActorCritic) -> dict[str, Any]:
    """Architecture and size, as the report shows them."""
    config = find_causal_lm(policy.model).config.get_text_config()
    return {
        "architecture": type(policy.model).__name__,
        "layers": config.num_hidden_layers,
        "width": config.hidden_size,
        "parameters": int(sum(p.numel() for p in policy.model.parameters())),
        "critic_parameters": 0 if policy.critic is None else int(sum(p.numel() for p in policy.critic.parameters())),
    }


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """A model and its tokenizer, as transformers reads them."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def thinned(values: list[float], count: int = 200) -> list[list[float]]:
    """(step, mean since the last point) at about ``count`` points."""
    edges = np.unique(np.linspace(0, len(values), min(count, len(values)) + 1).astype(int))
    return [[int(end), round(float(np.mean(values[start:end])), 5)] for start, end in itertools.pairwise(edges)]
