"""Why there is a trade-off between on-policy and off-policy learning: what is run, as pure data, and playing a run.

Two experiments. *Used once and thrown away*: PPO with batches that are some updates old, and with many epochs on fresh
ones, beside a replay agent that uses every token more or less often. *Small steps*: PPO with and without clipping at
many learning rates.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym

from agents import DQN
from agents.base import SEED_STRIDE, Agent
from agents.benchmark import stale_ppo
from agents.benchmark.analyse import normalise
from agents.benchmark.results import code_alone, code_digest, read_json, run_name, versions, write_json
from agents.benchmark.run import EVALUATION_OFFSET, Limits, Progress, text_task
from agents.benchmark.stale_ppo import StalePPO
from agents.benchmark.suites import AgentSetting, BenchmarkError, EnvironmentSetting, RunSetting
from agents.evaluation import evaluate_agent
from textenvs.errors import unknown_name

KINDS: dict[str, type[Agent]] = {"PPO": StalePPO, "DQN": DQN}
NUM_EVALUATIONS = 20
"""In equal distances over the budget, besides the one at the beginning."""

PPO_CONFIG: dict[str, Any] = {"num_envs": 32, "target_kl": None}
"""Batches of 32 texts, in four minibatches. No update is cut short: else 16 epochs would not be 16, and the clipping
would not be alone in keeping steps small."""
UNCLIPPED = 1e9
"""ε of the surrogate where nothing is clipped."""
DQN_WINDOW, DQN_BATCH = 16, 32
"""DQN's defaults: texts of a window and of a minibatch."""

Experiment = Literal["age", "reuse", "steps"]


@dataclass(frozen=True)
class Point:
    """A point of a figure: an agent, the curve it is on, and where."""

    experiment: Experiment
    series: str
    x: float
    agent: AgentSetting


@dataclass(frozen=True)
class Preset:
    """What is run. Every agent may learn from so many texts as its environment allows."""

    environments: tuple[EnvironmentSetting, ...]
    ages: tuple[int, ...]
    """Updates between the playing of a batch and learning from it."""
    epochs: tuple[int, ...]
    replay_ratios: tuple[float, ...]
    """Gradient samples of DQN for each token written, which are PPO's epochs."""
    learning_rates: tuple[float, ...]
    seeds: int
    evaluation_episodes: int
    points: tuple[Point, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "points", tuple(self._points()))

    def _points(self) -> list[Point]:
        ages = [
            Point("age", name, age, ppo(age=age, importance_ratio=ratio))
            for name, ratio in (("with the importance ratio", True), ("without", False))
            for age in self.ages
        ]
        reuse = [Point("reuse", "PPO, epochs", epochs, ppo(epochs=epochs)) for epochs in self.epochs]
        reuse += [Point("reuse", "DQN, replay ratio", ratio, dqn(ratio)) for ratio in self.replay_ratios]
        steps = [
            Point("steps", name, rate, ppo(learning_rate=rate, **clip))
            for name, clip in (("clipped", {}), ("not clipped", {"clip_coef": UNCLIPPED}))
            for rate in self.learning_rates
        ]
        return ages + reuse + steps


def ppo(**changes: Any) -> AgentSetting:
    """PPO with what differs from its usual config, after which it is named: equal configs are one agent."""
    usual = StalePPO.Config(**PPO_CONFIG)
    changes = {name: value for name, value in changes.items() if getattr(usual, name) != value}
    return AgentSetting(_named("PPO", changes), "PPO", PPO_CONFIG | changes)


def dqn(replay_ratio: float) -> AgentSetting:
    """DQN with its defaults, but for how often it uses what is written.

    Args:
        replay_ratio: gradient samples for each token written: gradient steps × texts of a minibatch, for each text.
            Below 2 the window grows instead of the number of steps falling below one.

    Raises:
        ValueError: no whole number of steps or windows gives it.
    """
    steps = replay_ratio * DQN_WINDOW / DQN_BATCH
    windows = 1.0 if steps >= 1 else 1 / steps
    if not (max(steps, 1.0).is_integer() and windows.is_integer()):
        raise ValueError(f"a replay ratio must be 2, a multiple of it, or 2 divided by an integer; got {replay_ratio}.")
    config = {"num_envs": DQN_WINDOW * int(windows), "updates_per_window": max(int(steps), 1), "batch_size": DQN_BATCH}
    return AgentSetting(_named("DQN", {"replay_ratio": replay_ratio}), "DQN", config)


def _named(name: str, changes: dict[str, Any]) -> str:
    return " ".join([name, *(f"{key}={value:g}" for key, value in changes.items())])


REVERSE = EnvironmentSetting("Reverse 3 of 6", "textenvs/Reverse-v0", 1_280, {"length": 3, "num_symbols": 6})
PREFIX_LOCK = EnvironmentSetting("PrefixLock 6 of 6", "textenvs/PrefixLock-v0", 1_280, {"length": 6, "num_symbols": 6})

PRESETS = {
    "smoke": Preset(
        environments=(
            EnvironmentSetting("Reverse 2 of 4", "textenvs/Reverse-v0", 160, {"length": 2, "num_symbols": 4}),
        ),
        ages=(0, 1),
        epochs=(1, 4),
        replay_ratios=(1, 4),
        learning_rates=(1e-3, 1e-2),
        seeds=2,
        evaluation_episodes=32,
    ),
    "full": Preset(
        environments=(REVERSE, PREFIX_LOCK),
        ages=(0, 1, 2, 4, 8),
        epochs=(1, 2, 4, 8, 16),
        replay_ratios=(0.25, 0.5, 1, 2, 4, 8, 16, 32),
        learning_rates=(1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 3e-2),
        seeds=5,
        evaluation_episodes=128,
    ),
}


def get_preset(name: str) -> Preset:
    """A preset by its name.

    Raises:
        BenchmarkError: there is none.
    """
    if name not in PRESETS:
        raise BenchmarkError(unknown_name("preset", name, PRESETS))
    return PRESETS[name]


def get_environments(preset: Preset, names: Sequence[str] | None) -> tuple[EnvironmentSetting, ...]:
    """Environments of a preset by their names; None: all.

    Raises:
        BenchmarkError: an unknown name, or no name.
    """
    known = {each.name: each for each in preset.environments}
    chosen = tuple(dict.fromkeys(known if names is None else names))
    for name in chosen:
        if name not in known:
            raise BenchmarkError(unknown_name("environment", name, known))
    if not chosen:
        raise BenchmarkError("nothing to run: no environments were selected.")
    return tuple(known[name] for name in chosen)


def run_settings(preset: Preset, environments: Sequence[EnvironmentSetting], seeds: int) -> list[RunSetting]:
    """All runs, seeds outermost; agents that are on several curves are played once."""
    agents = {point.agent.name: point.agent for point in preset.points}
    return [
        RunSetting(environment, agent, seed, None, 0.0, preset.evaluation_episodes)
        for seed in range(seeds)
        for environment in environments
        for agent in agents.values()
    ]


def shared_settings(preset: Preset) -> dict[str, Any]:
    """What all results of one folder have in common."""
    digest = hashlib.sha256(code_digest().encode())
    for path in (stale_ppo.__file__, __file__):
        digest.update(code_alone(Path(path).read_text(encoding="utf-8")).encode())
    return {
        "experiment": "tradeoff",
        "evaluation_episodes": preset.evaluation_episodes,
        "versions": versions(),
        "code": digest.hexdigest()[:16],
    }


# -- a run -------------------------------------------------------------------------------------------------------------

UPDATE_KEYS = {
    "approx_kl": "losses/approx_kl",
    "clipfrac": "losses/clipfrac",
    "kl": "updates/kl",
    "moved": "updates/moved",
}
"""What is kept of each of PPO's updates."""


def run_file(out: Path, setting: RunSetting) -> Path:
    """Where a run's results are, once it is finished."""
    return out / "runs" / f"{run_name(setting)}.json"


def num_learnt(agent: Agent) -> int:
    """Texts that an agent has learnt from, or may learn from in its next update."""
    return agent.num_learnt if isinstance(agent, StalePPO) else agent.num_episodes


def play(
    setting: RunSetting,
    out: Path,
    on_progress: Callable[[Progress], Any] = lambda _: None,
    limits: Limits | None = None,
    checkpoints: Path | None = None,
) -> None:
    """Play a run to its budget of texts learnt from, and write its file.

    Runs take seconds: they have no checkpoints, and ``limits`` and ``checkpoints`` change nothing. Seconds are those of
    the processor.
    """
    environment, evaluations, num_texts = setting.environment, [], setting.environment.episodes
    updates: dict[str, list[float]] = {name: [] for name in UPDATE_KEYS}
    env_kwargs = dict(environment.kwargs)
    has_prompts = text_task(gym.make(environment.env_id, **env_kwargs)).has_prompts
    if not has_prompts:
        env_kwargs.setdefault("task_seed", setting.seed)
    kind = KINDS[setting.agent.agent]
    agent = kind(environment.env_id, seed=setting.seed, env_kwargs=env_kwargs, **setting.agent.config)
    task = text_task(agent.envs)
    due, evaluating = 0.0, 0.0

    def evaluate(deterministic: bool) -> float:
        found = evaluate_agent(
            agent,
            environment.env_id,
            split="test" if has_prompts else "train",
            num_episodes=setting.evaluation_episodes,
            deterministic=deterministic,
            seed=setting.seed * SEED_STRIDE + EVALUATION_OFFSET,
            env_kwargs=env_kwargs,
        )
        return round(float(normalise(found.mean_score, task.random_score, task.optimum)), 6)

    def look(_: Agent) -> bool:
        nonlocal due, evaluating
        if agent.metrics.get("updates/kl", float("nan")) >= 0:  # it is NaN while nothing has been learnt
            for name, key in UPDATE_KEYS.items():
                updates[name].append(agent.metrics[key])
        texts = num_learnt(agent)
        if texts >= min(due, num_texts):
            began = time.process_time()
            sampled, greedy = evaluate(deterministic=False), evaluate(deterministic=True)
            scores = {"texts": texts, "written": agent.num_episodes, "sampled": sampled, "greedy": greedy}
            evaluations.append(scores)
            on_progress(Progress(texts, num_texts, greedy))
            due = texts + num_texts / NUM_EVALUATIONS
            evaluating += time.process_time() - began
        return texts < num_texts

    began = time.process_time()
    look(agent)
    # More tokens than any run needs, its queue included; the callback ends it.
    tokens = (2 * num_texts + 100 * agent.config.num_envs) * agent.text_spec.max_new_tokens
    agent.learn(tokens, callback=look)
    (out / "runs").mkdir(parents=True, exist_ok=True)
    result = {
        "environment": environment.name,
        "agent": setting.agent.name,
        "seed": setting.seed,
        "texts": num_texts,
        "config": setting.agent.config,
        "evaluations": evaluations,
        "updates": updates,
        "gradient_samples": agent.gradient_samples,
        "timesteps": agent.num_timesteps,
        "seconds": round(time.process_time() - began - evaluating, 3),
    }
    write_json(run_file(out, setting), result)


def read_run(out: Path, setting: RunSetting) -> dict[str, Any]:
    """A finished run's results, as :func:`play` wrote them.

    Raises:
        BenchmarkError: the file is not what was written; the message names it and the way out.
    """
    path = run_file(out, setting)
    way_out = f"Delete {path} and start the same command again: only this run is repeated."
    try:
        result = read_json(path)
    except BenchmarkError as error:
        raise BenchmarkError(f"{error} {way_out}") from error
    said = tuple(result.get(key) for key in ("environment", "agent", "seed", "texts", "config"))
    wanted = (setting.environment.name, setting.agent.name, setting.seed, setting.environment.episodes)
    if said != (*wanted, setting.agent.config):
        raise BenchmarkError(f"{path} holds another run than {setting.label}. {way_out}")
    return result
