"""One run: an agent learns in an environment and is evaluated on the way; its rows land in a folder."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv

from agents.base import SEED_STRIDE, Agent, make_envs
from agents.benchmark.accounting import Accounting
from agents.benchmark.analyse import normalise
from agents.benchmark.entrants import (
    Entrant,
    describe_outside,
    find_agent,
    group_size_of,
    is_outside,
    make_entrant,
    num_envs_of,
)
from agents.benchmark.results import checkpoint_folder, git_commit, machine, place_run, run_folder, versions
from agents.benchmark.rows import Row, rows_text
from agents.benchmark.run_checkpoint import RecorderState, RunCheckpoint
from agents.benchmark.suites import BenchmarkError, RunSetting
from agents.evaluation import Evaluation, evaluate_agent
from textenvs.tasks import Task

EVALUATION_OFFSET = 50_000
"""Evaluation episodes are seeded half-way to the next run's seeds: the same for every agent of a run."""
CHECKPOINT_SECONDS = 30.0


class RunPaused(Exception):
    """The time is over; the run goes on from its checkpoint when it is played again."""


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    episodes: int
    budget: int
    normalised_greedy: float


@dataclass(frozen=True)
class Limits:
    """When a run writes a checkpoint and when it must end.

    `checkpoint_seconds` between two checkpoints (0: after every batch); at the time `deadline` (of `time.time`) the run
    is paused.
    """

    checkpoint_seconds: float = CHECKPOINT_SECONDS
    deadline: float = math.inf


def next_evaluation(episodes: int, growth: float) -> int:
    """How many episodes must have ended before the next evaluation: that share more, and at least one.

    Args:
        episodes: how many had ended at the last one.
        growth: 0.05 is 5 %.
    """
    return max(episodes + 1, math.ceil(episodes * (1.0 + growth) - 1e-9))


class Recorder:
    """The callback of a run: evaluates when it is due, keeps the rows, and says when to stop.

    The clock of the environment stands while it evaluates.

    Args:
        setting: the run.
        agent: who is evaluated.
        envs: where the agent learns, and what counts.
        evaluate: plays the evaluation episodes.
        on_progress: told after every evaluation.
        save: writes a checkpoint; None: this agent has none.
        limits: when to save and when to pause.
        state: of the checkpoint that the run goes on from; None: it begins.

    Raises:
        RunPaused: from a call, at the deadline.
    """

    def __init__(
        self,
        setting: RunSetting,
        agent: Entrant,
        envs: Accounting,
        evaluate: Callable[[], Evaluation],
        on_progress: Callable[[Progress], Any],
        save: Callable[[RecorderState], None] | None = None,
        limits: Limits | None = None,
        state: RecorderState | None = None,
    ) -> None:
        self.setting, self.agent, self.envs = setting, agent, envs
        self.evaluate, self.on_progress, self.save = evaluate, on_progress, save
        self.limits = limits or Limits()
        self.rows: list[Row] = state.read_rows() if state else []
        self.evaluation_seconds = state.evaluation_seconds if state else 0.0
        self.checkpoint_seconds = state.checkpoint_seconds if state else 0.0
        self._due = state.due if state else 0
        self._saved_at = time.monotonic()
        envs.start()
        if state is None:
            self(agent)

    @property
    def solved(self) -> bool:
        """Whether the last two evaluations are both at or above `stop_at`."""
        stop_at = self.setting.stop_at
        last = [row.normalised_greedy for row in self.rows[-2:]]
        return stop_at is not None and len(last) == 2 and min(last) >= stop_at

    @property
    def state(self) -> RecorderState:
        rows = [asdict(row) for row in self.rows]
        return RecorderState(rows, self._due, self.evaluation_seconds, self.checkpoint_seconds)

    def __call__(self, _: Any) -> bool:
        """Once at the start, then after every batch and its update; False stops the run."""
        over = self.envs.episodes >= self.setting.environment.episodes
        if self.envs.episodes < self._due and not over and not self._must_save():
            return True
        with self.envs.paused():
            if self.envs.episodes >= self._due or over:
                self._record()
            going_on = not (over or self.solved)
            if going_on and self.rows[1:] and self._must_save():
                self._checkpoint()
        return going_on

    def _record(self) -> None:
        started = time.perf_counter()
        self.rows.append(self._row())
        self._due = next_evaluation(self.envs.episodes, self.setting.growth)
        self.on_progress(
            Progress(self.envs.episodes, self.setting.environment.episodes, self.rows[-1].normalised_greedy)
        )
        self.evaluation_seconds += time.perf_counter() - started

    def _must_save(self) -> bool:
        due = self.save is not None and time.monotonic() - self._saved_at >= self.limits.checkpoint_seconds
        return due or time.time() >= self.limits.deadline

    def _checkpoint(self) -> None:
        started = time.perf_counter()
        if self.save is not None:
            self.save(self.state)
        self.checkpoint_seconds += time.perf_counter() - started
        self._saved_at = time.monotonic()
        if time.time() >= self.limits.deadline:
            raise RunPaused(self.setting.label)

    def _row(self) -> Row:
        task = text_task(self.envs)
        # Scores are float32: rounded, so that 0.9 is at 0.9 and not below it.
        greedy, sampled = round(self.evaluate().mean_score, 6), round(self.envs.take_mean_score(), 6)
        return Row(
            environment=self.setting.environment.name,
            agent=self.setting.agent.name,
            seed=self.setting.seed,
            episodes=self.envs.episodes,
            timesteps=self.envs.timesteps,
            reward_calls=self.envs.reward_calls,
            distinct_texts=self.envs.distinct_texts,
            gradient_samples=self.agent.gradient_samples,
            seconds=round(self.envs.seconds, 4),
            greedy_score=greedy,
            sampled_score=sampled,
            normalised_greedy=round(float(normalise(greedy, task.random_score, task.optimum)), 6),
            normalised_sampled=round(float(normalise(sampled, task.random_score, task.optimum)), 6),
        )


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
        envs, evaluation = _prepare(setting)
        make_entrant(setting.agent, envs, setting.seed)
        make_envs(setting.environment.env_id, 1, {**evaluation["env_kwargs"], "split": evaluation["split"]})
    except BenchmarkError:
        raise
    except Exception as error:  # whatever an agent or environment of somebody else's raises
        raise BenchmarkError(f"{setting.label} cannot be run: {error}") from error


def _prepare(setting: RunSetting, clock: Callable[[], float] = time.perf_counter) -> tuple[Accounting, dict[str, Any]]:
    """(the environment that the agent learns in, how it is evaluated)."""
    env_id, env_kwargs = setting.environment.env_id, dict(setting.environment.kwargs)
    num_envs = num_envs_of(setting.agent)
    has_prompts = text_task(gym.make(env_id, **env_kwargs)).has_prompts
    if not has_prompts:
        env_kwargs.setdefault("task_seed", setting.seed)
    groups = {"group_size": size} if (size := group_size_of(setting.agent)) > 1 else {}
    envs = Accounting(make_envs(env_id, num_envs, env_kwargs | groups), clock)
    return envs, {
        "env_id": env_id,
        "split": "test" if has_prompts else "train",
        "num_episodes": setting.evaluation_episodes if has_prompts else 1,
        "seed": setting.seed * SEED_STRIDE + EVALUATION_OFFSET,
        "env_kwargs": env_kwargs,
    }


def play(
    setting: RunSetting,
    out: Path,
    on_progress: Callable[[Progress], Any] = lambda _: None,
    limits: Limits | None = None,
    checkpoints: Path | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Play a run and write its folder in `out`; one that was ended half-way goes on from its checkpoint.

    The folder is written under a temporary name and renamed when it is complete: a run is there or it is not.

    Args:
        setting: the run.
        out: the results folder.
        on_progress: told after every evaluation.
        limits: when to write checkpoints and when to end.
        checkpoints: the results folder in which checkpoints are kept; None: `out`.
        clock: what the seconds of the rows are measured with.

    Raises:
        RunPaused: at the deadline.
    """
    envs, evaluation = _prepare(setting, clock)
    entrant: Entrant | None = None
    checkpoint = save = state = None
    if not is_outside(setting.agent):
        checkpoint = RunCheckpoint(checkpoint_folder(checkpoints or out, setting))
        loaded = checkpoint.load(find_agent(setting.agent.agent), envs)
        if loaded is not None:
            entrant, state = loaded
    if entrant is None:
        entrant = make_entrant(setting.agent, envs, setting.seed)
    if checkpoint is not None and isinstance(entrant, Agent):
        save = partial(checkpoint.save, entrant, envs)
    evaluate = partial(evaluate_agent, entrant, **evaluation)
    recorder = Recorder(setting, entrant, envs, evaluate, on_progress, save, limits, state)
    # The budget is in episodes; so many tokens are enough for it, and the recorder stops the run before.
    tokens = (setting.environment.episodes + envs.num_envs) * entrant.text_spec.max_new_tokens
    entrant.learn(total_timesteps=tokens, callback=recorder)
    _write_folder(setting, out, entrant, recorder, evaluation["env_kwargs"])
    if checkpoint is not None:
        checkpoint.delete()


def _write_folder(
    setting: RunSetting, out: Path, entrant: Entrant, recorder: Recorder, env_kwargs: dict[str, Any]
) -> None:
    envs, folder = recorder.envs, run_folder(out, setting)
    task = text_task(envs)
    settings = asdict(setting) | {
        "env_kwargs": env_kwargs,
        "config": asdict(entrant.config) if isinstance(entrant, Agent) else setting.agent.config,
        "task": {"random_score": task.random_score, "optimum": task.optimum},
        "result": {
            "stopped": "solved" if recorder.solved else "budget",
            "rows": len(recorder.rows),
            "evaluation_seconds": round(recorder.evaluation_seconds, 3),
            "checkpoint_seconds": round(recorder.checkpoint_seconds, 3),
            "accounting_seconds": round(envs.overhead_seconds, 4),
            "invalid_texts": envs.invalid_texts,
        },
        "versions": versions(),
        "commit": git_commit(),
        "machine": machine(),
        "outside": describe_outside(setting.agent),
    }
    text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    place_run(folder, {"rows.csv": rows_text(recorder.rows), "settings.json": text})
