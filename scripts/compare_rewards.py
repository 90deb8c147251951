"""The same agent, environment and seeds under three judges: each optimises its own.

    python scripts/compare_rewards.py                  # about two minutes
    python scripts/compare_rewards.py --preset smoke   # seconds

PPO learns on ``textenvs/Reverse-v0`` three times, with only ``reward=`` changed: a registered name, a mapping, a plain
function. The finished agents then write the same test prompts, and all three judges score what each of them wrote.
Prints the table, and writes it as CSV with a plot of training and table.
"""

from __future__ import annotations

import csv
import sys
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table

from agents import PPO, evaluate_agent
from agents.base import Agent
from agents.benchmark.plots import COLOURS, DASHES

ENV_ID = "textenvs/Reverse-v0"
SIZES = {"length": 5, "num_symbols": 8}


def ascending(completions: list[str]) -> list[float]:
    """Share of neighbouring symbols that do not descend."""
    return [sum(a <= b for a, b in pairwise(text)) / (len(text) - 1) for text in completions]


JUDGES: dict[str, Any] = {
    "match": "match",  # the prompt backwards, by name
    "distinct": {"name": "distinct_n", "n": 1},  # no symbol twice, by name and arguments
    "ascending": ascending,  # a function
}


@dataclass(frozen=True)
class Args:
    """Options."""

    preset: Literal["full", "smoke"] = "full"
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    timesteps: int = 40_000
    """Tokens for each of the runs."""
    out: Path = Path("runs/compare_rewards")


def train(reward: Any, seed: int, timesteps: int) -> tuple[PPO, list[tuple[int, float]]]:
    """A PPO agent trained under a reward, and its curve: (episodes, mean score of the batch)."""
    curve: list[tuple[int, float]] = []

    def record(agent: Agent) -> None:
        curve.append((agent.num_episodes, agent.metrics["charts/episodic_return"]))

    agent = PPO(ENV_ID, seed=seed, env_kwargs={**SIZES, "reward": reward})
    agent.learn(timesteps, callback=record)
    return agent, curve


def judged(agent: PPO, reward: Any, seed: int) -> float:
    """Mean score that a judge gives to what the agent writes (greedily) for 256 test prompts."""
    kwargs = {**SIZES, "reward": reward}
    return evaluate_agent(agent, ENV_ID, split="test", num_episodes=256, seed=seed, env_kwargs=kwargs).mean_score


def draw(curves: dict[str, list[list[tuple[int, float]]]], scores: np.ndarray, path: Path) -> None:
    """Training curves on the left, the table of scores [trained under, seed, judged by] on the right."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), width_ratios=[1.2, 1])
    for number, (name, runs) in enumerate(curves.items()):
        for seed, run in enumerate(runs):
            episodes, values = np.array(run).T
            style = {"color": COLOURS[number], "linestyle": DASHES[number], "alpha": 0.8, "linewidth": 1.2}
            left.plot(episodes, values, label=name if seed == 0 else None, **style)
    left.set(xlabel="episodes", ylabel="score under the agent's own judge", ylim=(0, 1.05))
    left.legend(frameon=False, fontsize=8)
    means = scores.mean(axis=1)
    names = list(curves)
    right.imshow(means, vmin=0, vmax=1, cmap="cividis")
    for (i, j), value in np.ndenumerate(means):
        right.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if value < 0.6 else "black")
    right.set(xticks=range(len(names)), yticks=range(len(names)), xticklabels=names, yticklabels=names)
    right.set(xlabel="judged by", ylabel="trained under")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(args: Args) -> None:
    """Train, judge, print, draw."""
    torch.set_num_threads(1)
    seeds, timesteps = ([0], 2_000) if args.preset == "smoke" else (args.seeds, args.timesteps)
    args.out.mkdir(parents=True, exist_ok=True)
    curves: dict[str, list[list[tuple[int, float]]]] = {name: [] for name in JUDGES}
    scores = np.zeros((len(JUDGES), len(seeds), len(JUDGES)))
    runs = [(i, s) for i in range(len(JUDGES)) for s in range(len(seeds))]
    for i, s in track(runs, description="training", disable=not sys.stderr.isatty()):
        name = list(JUDGES)[i]
        agent, curve = train(JUDGES[name], seeds[s], timesteps)
        curves[name].append(curve)
        scores[i, s] = [judged(agent, reward, seed=s) for reward in JUDGES.values()]

    table = Table(title=f"{ENV_ID} {SIZES}: mean score on 256 test prompts, {len(seeds)} seed(s)")
    table.add_column("trained under")
    for name in JUDGES:
        table.add_column(f"judged by {name}", justify="right")
    for name, row in zip(JUDGES, scores.mean(axis=1), strict=True):
        table.add_row(name, *(f"{value:.3f}" for value in row))
    Console().print(table)
    with (args.out / "scores.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["trained_under", "seed", "judged_by", "score"])
        for (i, s, j), value in np.ndenumerate(scores):
            writer.writerow([list(JUDGES)[i], seeds[s], list(JUDGES)[j], f"{value:.6f}"])
    draw(curves, scores, args.out / "compare_rewards.png")
    print(f"written: {args.out / 'scores.csv'}, {args.out / 'compare_rewards.png'}")


if __name__ == "__main__":
    main(tyro.cli(Args))
