"""One run: an agent learns in an environment and is evaluated on the way; its rows land in a folder."""

import json
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym
from gymnasium.vector import VectorEnv

import agents
from agents.base import SEED_STRIDE, Agent, AgentConfig, make_config, make_envs
from agents.benchmark.accounting import Accounting
from agents.benchmark.analyse import normalise
from agents.benchmark.results import PARTIAL, git_commit, machine, run_folder, versions
from agents.benchmark.rows import Row, write_rows
from agents.benchmark.suites import BenchmarkError, RunSetting
from agents.evaluation import Evaluation, Predictor, evaluate_agent
from textenvs.errors import unknown_name
from textenvs.tasks import Task

EVALUATION_OFFSET = 50_000
"""Evaluation episodes are seeded half-way to the next run's seeds: the same for every agent of a run."""


class Player(Predictor, Protocol):
    """What a run asks of an agent; ours fulfil it, and so do those of :mod:`agents.benchmark.sb3_agents`."""

    config: Any

    @property
    def gradient_samples(self) -> int:
        """Tokens that entered a gradient step, counted each time."""
        ...

    def learn(self, total_timesteps: int, callback: Callable[[Any], bool | None]) -> Any:
        """See :meth:`agents.base.Agent.learn`."""
        ...


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    episodes: int
    budget: int
    normalised_greedy: float


def next_evaluation(episodes: int, growth: float) -> int:
    """How many episodes must have ended before the next evaluation: that share more, and at least one.

    Args:
        episodes: how many had ended at the last one.
        growth: 0.05 is 5 %.
    """
    return max(episodes + 1, math.ceil(episodes * (1.0 + growth) - 1e-9))


class Recorder:
    """The callback of a run: evaluates when it is due, keeps the rows, and says when to stop.

    The clock stands while it evaluates.

    Args:
        setting: the run.
        agent: who is evaluated.
        envs: where the agent learns, and what counts.
        evaluate: plays the evaluation episodes.
        on_progress: told after every evaluation.
        clock: what seconds are measured with; None: those of the wall.
    """

    def __init__(
        self,
        setting: RunSetting,
        agent: Player,
        envs: Accounting,
        evaluate: Callable[[], Evaluation],
        on_progress: Callable[[Progress], Any],
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.setting, self.agent, self.envs = setting, agent, envs
        self.evaluate, self.on_progress = evaluate, on_progress
        self.clock = clock or time.perf_counter
        self.rows: list[Row] = []
        self.evaluation_seconds = 0.0
        self._due = 0
        self._paused = 0.0
        self._started = self.clock()
        self(agent)

    @property
    def solved(self) -> bool:
        """Whether the last two evaluations are both at or above `stop_at`."""
        stop_at = self.setting.stop_at
        last = [row.normalised_greedy for row in self.rows[-2:]]
        return stop_at is not None and len(last) == 2 and min(last) >= stop_at

    def __call__(self, _: Player) -> bool:
        """Once at the start, then after every batch and its update; False stops the run."""
        now = self.clock()
        over = self.envs.episodes >= self.setting.environment.episodes
        if self.envs.episodes >= self._due or over:
            self.rows.append(self._row(now - self._started - self._paused))
            self._due = next_evaluation(self.envs.episodes, self.setting.growth)
            self.on_progress(
                Progress(self.envs.episodes, self.setting.environment.episodes, self.rows[-1].normalised_greedy)
            )
            self.evaluation_seconds += self.clock() - now
        self._paused += self.clock() - now
        return not (over or self.solved)

    def _row(self, seconds: float) -> Row:
        task = text_task(self.envs)
        # Scores are float32: rounded, so that 0.9 is at 0.9 and not below it.
        greedy, sampled = round(self.evaluate().mean_score, 6), round(self.envs.take_mean_score(), 6)
        return Row(
            environment=self.setting.environment.name,
            agent=self.setting.agent.name,
            seed=self.setting.seed,
            episodes=self.envs.episodes,
            timesteps=self.envs.timesteps,
            gradient_samples=self.agent.gradient_samples,
            seconds=round(seconds, 4),
            greedy_score=greedy,
            sampled_score=sampled,
            normalised_greedy=round(float(normalise(greedy, task.random_score, task.optimum)), 6),
            normalised_sampled=round(float(normalise(sampled, task.random_score, task.optimum)), 6),
        )


def find_agent(name: str) -> Any:
    """An agent class of `agents` by its name, or one of Stable-Baselines3 as "SB3PPO" or "SB3DQN"."""
    if name.startswith("SB3"):
        from agents.benchmark.sb3_agents import SB3_AGENTS  # needs stable-baselines3

        if name in SB3_AGENTS:
            return SB3_AGENTS[name]
    known = {
        key: value
        for key, value in vars(agents).items()
        if isinstance(value, type) and issubclass(value, Agent) and value is not Agent
    }
    if name not in known:
        raise BenchmarkError(unknown_name("agent", name, known))
    return known[name]


def text_task(env: gym.Env[Any, Any] | VectorEnv) -> Task:
    """The writing task of a text environment."""
    task: Task = env.unwrapped.task  # type: ignore[union-attr]
    return task


def check(setting: RunSetting) -> None:
    """Complain about a run that could not begin, before any other run is played.

    Raises:
        BenchmarkError: no such agent or environment, or arguments that do not fit it.
    """
    try:
        evaluate = _prepare(setting)[2]
        make_envs(
            setting.environment.env_id, 1, {**evaluate.keywords["env_kwargs"], "split": evaluate.keywords["split"]}
        )
    except BenchmarkError:
        raise
    except (gym.error.Error, TypeError, ValueError) as error:
        raise BenchmarkError(f"{setting.label} cannot be run: {error}") from error


def _prepare(setting: RunSetting) -> tuple[Player, Accounting, partial[Evaluation]]:
    """(agent, the environment it learns in, how it is evaluated)."""
    agent_class = find_agent(setting.agent.agent)
    config: AgentConfig = make_config(agent_class.Config, setting.agent.config)
    env_id, env_kwargs = setting.environment.env_id, dict(setting.environment.kwargs)
    has_prompts = text_task(gym.make(env_id, **env_kwargs)).has_prompts
    if not has_prompts:
        env_kwargs.setdefault("task_seed", setting.seed)
    envs = Accounting(make_envs(env_id, config.num_envs, env_kwargs))
    agent = agent_class(envs, seed=setting.seed, **setting.agent.config)
    evaluate = partial(
        evaluate_agent,
        agent,
        env_id,
        split="test" if has_prompts else "train",
        num_episodes=setting.evaluation_episodes if has_prompts else 1,
        seed=setting.seed * SEED_STRIDE + EVALUATION_OFFSET,
        env_kwargs=env_kwargs,
    )
    return agent, envs, evaluate


def play(
    setting: RunSetting,
    out: Path,
    on_progress: Callable[[Progress], Any] = lambda _: None,
    clock: Callable[[], float] | None = None,
) -> None:
    """Play a run and write its folder in `out`; `clock` measures its seconds (None: those of the wall).

    The folder is written under a temporary name and renamed when it is complete: a run is there or it is not.
    """
    agent, envs, evaluate = _prepare(setting)
    recorder = Recorder(setting, agent, envs, evaluate, on_progress, clock)
    # The budget is in episodes; so many tokens are enough for it, and the recorder stops the run before.
    tokens = (setting.environment.episodes + envs.num_envs) * agent.text_spec.max_new_tokens
    agent.learn(total_timesteps=tokens, callback=recorder)

    task = text_task(envs)
    folder = run_folder(out, setting)
    unfinished = folder.with_name(f"{folder.name}{PARTIAL}-{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    settings = asdict(setting) | {
        "env_kwargs": evaluate.keywords["env_kwargs"],
        "config": asdict(agent.config),
        "task": {"random_score": task.random_score, "optimum": task.optimum},
        "result": {
            "stopped": "solved" if recorder.solved else "budget",
            "rows": len(recorder.rows),
            "evaluation_seconds": round(recorder.evaluation_seconds, 3),
        },
        "versions": versions(),
        "commit": git_commit(),
        "machine": machine(),
    }
    write_rows(unfinished / "rows.csv", recorder.rows)
    (unfinished / "settings.json").write_text(
        json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    for path in unfinished.iterdir():  # on disk before it counts as finished, power cuts included
        with path.open("rb") as file:
            os.fsync(file.fileno())
    unfinished.replace(folder)
