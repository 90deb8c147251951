"""Who gains from texts that somebody else wrote? Replay agents with 0, 100 and 1,000 demonstrations, beside PPO.

    python scripts/demonstrations.py --preset smoke    # seconds
    python scripts/demonstrations.py                   # quick: some ten minutes on a free core
    python scripts/demonstrations.py --preset full     # larger tasks, more agents and seeds: hours

Demonstrations are texts of the task's oracle, or sampled from a half-trained agent: PPO, stopped when its batches score
0.5 under ``match``. All are judged by the task's reward. An agent first learns from them alone (offline, no text of
its own), then plays until its greedy texts on test prompts score 0.9 in two evaluations in a row. PPO uses an episode
once, under the policy that wrote it, and has no use for demonstrations. Prints a table; writes demonstrations.csv and
demonstrations.png. Finished runs are kept and not played again.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
import tyro

from agents import PPO, evaluate_agent
from agents.base import SEED_STRIDE, Agent
from agents.benchmark.plots import COLOURS, MARKERS
from agents.benchmark.suites import BenchmarkError
from agents.demonstrations import oracle_episodes
from agents.evaluate_callback import EVALUATION_OFFSET
from agents.evaluation import play_episodes
from agents.experiments import (
    Entrant,
    crossing,
    episodes_text,
    learn_until,
    median_of,
    play_runs,
    write_csv,
)
from agents.off_policy import ReplayLearner

ENTRANTS = (
    Entrant("PPO", "PPO"),
    Entrant("DQN", "DQN"),
    Entrant("DiscreteSAC", "DiscreteSAC"),
    Entrant("SoftQ", "SoftQ"),
    Entrant("ReturnDecomposition", "ReturnDecomposition"),
)
GOAL = 0.9


@dataclass(frozen=True)
class TaskSetting:
    """A task and the episodes that an agent may write."""

    name: str
    env_id: str
    env_kwargs: dict[str, Any]
    budget: int


@dataclass(frozen=True)
class Preset:
    """What is run."""

    tasks: tuple[TaskSetting, ...]
    entrants: tuple[str, ...]
    conditions: tuple[tuple[int, str], ...]  # how many demonstrations, whose
    seeds: int
    offline_updates: int


def _task(name: str, budget: int, **env_kwargs: Any) -> TaskSetting:
    return TaskSetting(name, f"textenvs/{name.split()[0]}-v0", env_kwargs, budget)


ORACLE, HALF = "oracle", "half-trained"
PRESETS = {
    "smoke": Preset(
        (_task("Reverse 3 of 3", 64, length=3, num_symbols=3),),
        ("PPO", "DQN"),
        ((0, ""), (40, ORACLE), (40, HALF)),
        1,
        5,
    ),
    "quick": Preset(
        (
            _task("Reverse 3 of 6", 2_000, length=3, num_symbols=6),
            _task("Reverse 3 of 6, exact match", 2_000, length=3, num_symbols=6, reward="exact_match"),
        ),
        ("PPO", "DQN", "SoftQ"),
        ((0, ""), (100, ORACLE), (1_000, ORACLE), (1_000, HALF)),
        3,
        500,
    ),
    "full": Preset(
        (
            _task("Reverse 4 of 8", 8_000, length=4, num_symbols=8),
            _task("Sort 4 of 8", 12_000, length=4, num_symbols=8),
            _task("Reverse 3 of 6, exact match", 12_000, length=3, num_symbols=6, reward="exact_match"),
        ),
        tuple(entrant.name for entrant in ENTRANTS),
        ((0, ""), (100, ORACLE), (1_000, ORACLE), (100, HALF), (1_000, HALF)),
        5,
        2_000,
    ),
}


@dataclass(frozen=True)
class Args:
    """Options."""

    preset: Literal["smoke", "quick", "full"] = "quick"
    seeds: int | None = None
    """Seeds from 0; default: as many as the preset has."""
    out: Path | None = None
    """Folder of the results; default: runs/demonstrations-PRESET."""


def label(condition: tuple[int, str]) -> str:
    """``"100 oracle"``, ``"0"``."""
    return f"{condition[0]:,} {condition[1]}".strip()


def conditions_of(entrant: Entrant, preset: Preset) -> list[tuple[int, str]]:
    """An agent without a replay buffer plays without demonstrations alone."""
    learns_from_others = issubclass(entrant.kind, ReplayLearner)
    return [condition for condition in preset.conditions if condition[0] == 0 or learns_from_others]


def add_demonstrations(agent: ReplayLearner, setting: TaskSetting, count: int, source: str, seed: int) -> float:
    """Fill the replay buffer; returns the mean score of what was added."""
    demonstration_seed = seed * SEED_STRIDE + 2 * EVALUATION_OFFSET - 1
    if source == ORACLE:
        task = agent.replay.task
        assert task is not None
        agent.add_demonstrations(oracle_episodes(task, count, demonstration_seed), source=source)
    else:
        writer = PPO(setting.env_id, seed=seed + 1_000, env_kwargs={**setting.env_kwargs, "reward": "match"})
        writer.learn(1_000_000, callback=lambda agent: agent.metrics["charts/episodic_return"] < 0.5)
        texts = play_episodes(
            writer,
            setting.env_id,
            split="train",
            num_episodes=count,
            deterministic=False,
            seed=demonstration_seed,
            env_kwargs=setting.env_kwargs,
        )
        agent.replay.add(texts, source=source)
    return float(agent.replay.scores.mean())


def play(setting: TaskSetting, entrant: Entrant, condition: tuple[int, str], seed: int, updates: int) -> dict[str, Any]:
    """One run: offline, then until the goal or the end of the budget."""
    agent = entrant.kind(setting.env_id, seed=seed, env_kwargs=setting.env_kwargs, **entrant.config)

    def evaluate() -> float:
        return evaluate_agent(
            agent,
            setting.env_id,
            split="test",
            num_episodes=128,
            seed=seed * SEED_STRIDE + EVALUATION_OFFSET,
            env_kwargs=setting.env_kwargs,
        ).mean_score

    result: dict[str, Any] = {"demonstration_score": None, "offline_score": None}
    if condition[0]:
        assert isinstance(agent, ReplayLearner)
        result["demonstration_score"] = add_demonstrations(agent, setting, *condition, seed)
        agent.learn_offline(updates)
        result["offline_score"] = evaluate()
    curve, seconds = learn_until(agent, evaluate, GOAL, setting.budget)
    return result | {"curve": curve, "seconds": round(seconds, 2), "gradient_steps": _gradient_steps(agent)}


def _gradient_steps(agent: Agent) -> int | None:
    return agent.num_gradient_steps if isinstance(agent, ReplayLearner) else None


def main(args: Args) -> None:
    """Play what is missing, print the table, write CSV and figure."""
    torch.set_num_threads(1)
    preset = PRESETS[args.preset]
    preset = preset if args.seeds is None else replace(preset, seeds=args.seeds)
    if preset.seeds < 1:
        sys.exit(f"--seeds must be at least 1; got {preset.seeds}.")
    out = args.out or Path(f"runs/demonstrations-{args.preset}")
    entrants = {entrant.name: entrant for entrant in ENTRANTS if entrant.name in preset.entrants}
    tasks = {setting.name: setting for setting in preset.tasks}
    plan: dict[tuple[str, ...], tuple[int, str]] = {
        (setting.name, entrant.name, label(condition), str(seed)): condition
        for seed in range(preset.seeds)  # one of each first
        for setting, entrant in product(preset.tasks, entrants.values())
        for condition in conditions_of(entrant, preset)
    }

    def play_one(key: tuple[str, ...]) -> dict[str, Any]:
        return play(tasks[key[0]], entrants[key[1]], plan[key], int(key[3]), preset.offline_updates)

    settings = {"tasks": [asdict(s) for s in preset.tasks], "offline_updates": preset.offline_updates, "goal": GOAL}
    try:
        results = play_runs(out, settings, list(plan), play_one)
    except BenchmarkError as error:
        sys.exit(str(error))

    rows = []
    in_order = sorted(results, key=lambda key: (list(tasks).index(key[0]), list(entrants).index(key[1])))
    for key in in_order:
        result, (task, name, condition, seed) = results[key], key
        episodes, reached = crossing(result["curve"], GOAL)
        rows.append(
            {
                "task": task,
                "agent": name,
                "demonstrations": condition,
                "seed": seed,
                "demonstration_score": result["demonstration_score"],
                "offline_score": result["offline_score"],
                "episodes": int(episodes),
                "reached": reached,
                "seconds": result["seconds"],
            }
        )
    write_csv(out / "demonstrations.csv", rows)
    print_table(rows, tasks)
    draw(rows, preset, out / "demonstrations.png")
    print(f"\nwritten: {out / 'demonstrations.csv'}, {out / 'demonstrations.png'}")


def _cells(rows: list[dict[str, Any]]) -> dict[tuple[str, str, str], list[dict[str, Any]]]:
    """Runs by task, agent and demonstrations."""
    cells: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        cells.setdefault((row["task"], row["agent"], row["demonstrations"]), []).append(row)
    return cells


def print_table(rows: list[dict[str, Any]], tasks: dict[str, TaskSetting]) -> None:
    """Medians over seeds with 95 % intervals (episodes) and ranges (scores), in Markdown."""
    print("| task | agent | demonstrations | their score | greedy score after learning offline | episodes to 0.9 |")
    print("|---|---|---|---|---|---|")
    for (task, agent, condition), runs in _cells(rows).items():
        episodes = median_of([(run["episodes"], run["reached"]) for run in runs])
        scores = [_range([run[key] for run in runs]) for key in ("demonstration_score", "offline_score")]
        print(
            f"| {task} | {agent} | {condition} | {' | '.join(scores)} | {episodes_text(episodes, tasks[task].budget)} |"
        )


def _range(values: list[float | None]) -> str:
    """Median and range."""
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    median, low, high = np.median(known), min(known), max(known)
    return f"{median:.2f}" if low == high else f"{median:.2f} ({low:.2f}–{high:.2f})"


def draw(rows: list[dict[str, Any]], preset: Preset, path: Path) -> None:
    """Above: episodes to the goal, with intervals. Below: scores after learning offline, each run a mark."""
    cells = _cells(rows)
    names = [label(condition) for condition in preset.conditions]
    figure, panels = plt.subplots(
        2, len(preset.tasks), figsize=(3.8 * len(preset.tasks), 6), sharex=True, squeeze=False, layout="constrained"
    )
    for column, setting in enumerate(preset.tasks):
        above, below = panels[:, column]
        for number, name in enumerate(preset.entrants):
            style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
            for place, condition in enumerate(names):
                runs = cells.get((setting.name, name, condition))
                if runs is None:
                    continue
                x = place + 0.12 * (number - (len(preset.entrants) - 1) / 2)
                estimate = median_of([(run["episodes"], run["reached"]) for run in runs])
                value, low, high = (
                    np.nan_to_num(v, nan=estimate.value, posinf=setting.budget)
                    for v in (estimate.value, estimate.low, estimate.high)
                )
                value = min(value, setting.budget)
                bars = [[max(value - low, 0)], [max(min(high, setting.budget) - value, 0)]]
                above.errorbar(x, value, yerr=bars, capsize=3, label=name if place == 0 else None, **style)
                offline = [run["offline_score"] for run in runs if run["offline_score"] is not None]
                below.plot([x] * len(offline), offline, linestyle="", alpha=0.8, **style)
        above.axhline(setting.budget, color="grey", linewidth=0.8, linestyle=":")
        above.set(title=setting.name, ylim=(0, None))
        below.axhline(GOAL, color="grey", linewidth=0.8, linestyle=":")
        below.set(ylim=(0, 1.05), xlabel="demonstrations")
        below.set_xticks(range(len(names)), names, rotation=20)
    panels[0, 0].set_ylabel("episodes to 0.9 (dotted: budget)")
    panels[1, 0].set_ylabel("greedy score after\nlearning offline")
    panels[0, 0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main(tyro.cli(Args))
