"""What the experiments of ``scripts/`` share: runs kept on disk one by one, episodes to a score, figures with
intervals."""

from __future__ import annotations

import csv
import multiprocessing
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import agents
from agents.base import Agent
from agents.benchmark.analyse import Estimate, Times, crossing_time, median_time
from agents.benchmark.pool import for_children
from agents.benchmark.results import lock, open_folder, read_json, write_json
from agents.benchmark.run import next_evaluation

Curve = list[tuple[int, float]]


@dataclass(frozen=True)
class Entrant:
    """An agent that takes part.

    Args:
        name: what tables call it.
        agent: its name in ``agents``.
        config: where it differs from the defaults.
    """

    name: str
    agent: str
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> type[Agent]:
        """Its class."""
        found: type[Agent] = getattr(agents, self.agent)
        return found


def learn_until(
    agent: Agent, evaluate: Callable[[], float], goal: float, budget: int, growth: float = 0.1
) -> tuple[Curve, float]:
    """Learn until two evaluations in a row reach a score, or the budget of episodes is spent.

    Args:
        agent: who learns.
        evaluate: its score now.
        goal: the score.
        budget: new episodes at most (the batch at hand is finished).
        growth: how many more episodes between two evaluations, as a share.

    Returns:
        (new episodes, score) of each evaluation, the first before anything is played; and the seconds of learning,
        without those of evaluating.
    """
    curve: Curve = []
    first, due, evaluating = agent.num_episodes, 0, 0.0

    def look(agent: Agent) -> bool:
        nonlocal due, evaluating
        new = agent.num_episodes - first
        if new >= due or new >= budget:
            began = time.perf_counter()
            curve.append((new, round(evaluate(), 6)))  # scores are float32
            evaluating += time.perf_counter() - began
            due = next_evaluation(new, growth)
        return new < budget and not (len(curve) > 1 and min(curve[-1][1], curve[-2][1]) >= goal)

    began = time.perf_counter()
    look(agent)
    agent.learn((budget + agent.envs.num_envs) * agent.text_spec.max_new_tokens, callback=look)
    return curve, time.perf_counter() - began - evaluating


def crossing(curve: Sequence[Sequence[float]], goal: float) -> tuple[float, bool]:
    """(episodes at the first of two evaluations in a row that reach the goal, True), or (the last ones, False)."""
    episodes, scores = zip(*curve, strict=True)
    return crossing_time(episodes, scores, goal)


def median_of(crossings: Iterable[tuple[float, bool]]) -> Estimate:
    """Median of crossings, some of which lie beyond what was observed, with its 95 % bootstrap interval over runs."""
    values, observed = zip(*crossings, strict=True)
    return median_time(Times(np.array(values, dtype=np.float64), np.array(observed)), np.random.default_rng(0))


def episodes_text(estimate: Estimate, budget: int) -> str:
    """``"640 (512–900)"``, ``"> 3,000"`` for what lies beyond the budget."""

    def text(value: float) -> str:
        return f"{value:,.0f}" if np.isfinite(value) else f"> {budget:,}"

    if np.isnan(estimate.low) or (estimate.low == estimate.high == estimate.value):
        return text(estimate.value)
    return f"{text(estimate.value)} ({text(estimate.low)}–{text(estimate.high)})"


def play_runs(
    out: Path,
    settings: Mapping[str, Any],
    keys: Sequence[tuple[str, ...]],
    play: Callable[[tuple[str, ...]], dict[str, Any]],
    jobs: int = 1,
) -> dict[tuple[str, ...], dict[str, Any]]:
    """Play the runs that have no file in ``out/runs`` yet; each has one as soon as it is over.

    Args:
        out: folder of the results; one with other settings is refused.
        settings: what all runs share.
        keys: names of each run.
        play: plays one; what it returns is kept as JSON. With several jobs it can be pickled.
        jobs: processes, of one thread each.

    Returns:
        The results by key, as read back.

    Raises:
        BenchmarkError: the folder holds something else, or another process works in it.
    """
    files = {key: out / "runs" / ("--".join(_slug(part) for part in key) + ".json") for key in keys}
    with lock(out):
        open_folder(out, dict(settings))
        (out / "runs").mkdir(exist_ok=True)
        todo = [key for key in keys if not files[key].exists()]
        print(f"{len(keys)} runs, {len(keys) - len(todo)} finished before, in {out}", file=sys.stderr)
        for number, (key, seconds, result) in enumerate(_play_all(play, todo, jobs), start=1):
            write_json(files[key], result)
            print(f"  {number}/{len(todo)} {', '.join(key)}: {seconds:.1f} s", file=sys.stderr, flush=True)
        return {key: read_json(file) for key, file in files.items()}


Played = tuple[tuple[str, ...], float, dict[str, Any]]
"""A run's key, its seconds, and its result."""


def _play_all(
    play: Callable[[tuple[str, ...]], dict[str, Any]], todo: Sequence[tuple[str, ...]], jobs: int
) -> Iterator[Played]:
    """Play runs one after the other, or some at once in processes of one thread; each as soon as it is over."""
    if jobs == 1:
        yield from (_play_one(play, key) for key in todo)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, torch.set_num_threads, (1,)) as pool:
        with for_children():  # they are started here
            futures = [pool.submit(_play_one, play, key) for key in todo]
        try:
            yield from (future.result() for future in as_completed(futures))
        finally:
            pool.shutdown(cancel_futures=True)


def _play_one(play: Callable[[tuple[str, ...]], dict[str, Any]], key: tuple[str, ...]) -> Played:
    began = time.perf_counter()
    result = play(key)
    return key, time.perf_counter() - began, result


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows with the same columns as a CSV file, written under another name first."""
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(path)
