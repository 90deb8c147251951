"""The judge changes: how many new episodes until an agent writes well by the new one?

    python scripts/reward_swap.py --preset smoke    # seconds
    python scripts/reward_swap.py                   # quick: some ten minutes on a free core
    python scripts/reward_swap.py --preset full     # larger tasks, more agents and seeds: hours

Every agent learns under one judge until its greedy texts on test prompts reach 90 % of the best score, or its budget is
spent. Then the judge is another one, and what counts is new episodes until 90 % of the best score under that. A replay
agent judges the texts that it has anew, learns from them, and goes on; PPO goes on without. Three controls: the replay
agent without judging anew, and both agents from scratch. The best score is found by writing every possible text.

Three swaps: copy the prompt, then write it backwards; another hidden text, in no place equal to the first; the same two
parts of a sum, with other weights. Prints a table; writes reward_swap.csv and reward_swap.png. Finished runs are kept
and not played again.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
import tyro

from agents import evaluate_agent
from agents.base import SEED_STRIDE, Agent
from agents.benchmark.plots import COLOURS
from agents.benchmark.suites import BenchmarkError
from agents.environments import find_text_spec, make_envs
from agents.evaluate_callback import EVALUATION_OFFSET
from agents.experiments import (
    Curve,
    Entrant,
    crossing,
    episodes_text,
    learn_until,
    median_of,
    play_runs,
    write_csv,
)
from agents.off_policy import ReplayLearner
from textenvs import episodes_from_rows, make_reward
from textenvs.rewards import Judge

ENTRANTS = (
    Entrant("PPO", "PPO"),
    Entrant("DQN", "DQN"),
    Entrant("DiscreteSAC", "DiscreteSAC"),
    Entrant("SoftQ", "SoftQ"),
    Entrant("ReturnDecomposition", "ReturnDecomposition"),
)
SHARE = 0.9
RESCORES, KEEPS, GOES_ON, SCRATCH = "judges anew", "keeps old scores", "goes on", "from scratch"


def copied(prompts: list[str], completions: list[str]) -> list[float]:
    """Share of the places where the prompt's symbol stands."""
    return [_share(prompt, text) for prompt, text in zip(prompts, completions, strict=True)]


def one_further(completions: list[str], target: list[str]) -> list[float]:
    """Share of the places right for another target: the first one with every symbol one further, 0 for the last."""
    moved = str.maketrans("012345", "123450")
    return [_share(goal.translate(moved), text) for goal, text in zip(target, completions, strict=True)]


def _share(goal: str, text: str) -> float:
    return sum(a == b for a, b in zip(goal, text, strict=False)) / len(goal)


NUM_SYMBOLS = 6
"""Of all tasks here."""


@dataclass(frozen=True)
class Swap:
    """A task and its two judges."""

    name: str
    env_id: str
    before: Any
    after: Any


SWAPS = (
    Swap("copy, then backwards", "textenvs/Reverse-v0", copied, "match"),
    Swap("another hidden text", "textenvs/HiddenTarget-v0", "match", one_further),
    Swap(
        "other weights of a sum",
        "textenvs/Reverse-v0",
        [(0.75, "match"), (0.25, copied)],
        [(0.25, "match"), (0.75, copied)],
    ),
)


@dataclass(frozen=True)
class Preset:
    """What is run."""

    swaps: tuple[str, ...]
    entrants: tuple[str, ...]
    length: int
    budget: int  # episodes, before and after
    seeds: int
    offline_updates: int  # gradient steps on the texts judged anew, before anything new is written


EVERY_SWAP = tuple(swap.name for swap in SWAPS)
PRESETS = {
    "smoke": Preset(EVERY_SWAP[:1], ("PPO", "DQN"), 2, 96, 1, 10),
    "quick": Preset(EVERY_SWAP, ("PPO", "DQN"), 3, 2_000, 3, 500),
    "full": Preset(EVERY_SWAP, tuple(entrant.name for entrant in ENTRANTS), 4, 8_000, 5, 2_000),
}


@dataclass(frozen=True)
class Args:
    """Options."""

    preset: Literal["smoke", "quick", "full"] = "quick"
    seeds: int | None = None
    """Seeds from 0; default: as many as the preset has."""
    out: Path | None = None
    """Folder of the results; default: runs/reward-swap-PRESET."""


def env_kwargs_of(swap: Swap, preset: Preset, seed: int) -> dict[str, Any]:
    """Sizes of the task; the seed chooses what is hidden."""
    sizes = {"length": preset.length, "num_symbols": NUM_SYMBOLS}
    hidden = swap.env_id == "textenvs/HiddenTarget-v0"
    return {"length": preset.length + 3, "num_symbols": NUM_SYMBOLS, "task_seed": seed} if hidden else sizes


@dataclass(frozen=True)
class Examination:
    """How an agent is judged: greedily, on the same test prompts every time (the task itself where there are none).

    Args:
        env_id, env_kwargs: the task.
        reward: the judge.
        seed: of the prompts.
    """

    env_id: str
    env_kwargs: dict[str, Any]
    reward: Any
    seed: int

    @property
    def _prompts(self) -> dict[str, Any]:
        has_prompts = self.env_id != "textenvs/HiddenTarget-v0"
        return {"split": "test", "num_episodes": 64} if has_prompts else {"split": "train", "num_episodes": 1}

    def score(self, agent: Agent) -> float:
        """Mean score."""
        kwargs = {**self.env_kwargs, "reward": self.reward}
        return evaluate_agent(agent, self.env_id, seed=self.seed, env_kwargs=kwargs, **self._prompts).mean_score

    def best(self) -> float:
        """The highest mean score that any texts get, found by judging every text for every prompt."""
        prompts = self._prompts
        kwargs = {**self.env_kwargs, "split": prompts["split"]}
        envs = make_envs(self.env_id, prompts["num_episodes"], kwargs)
        obs, _ = envs.reset(seed=self.seed)
        spec, task = find_text_spec(envs), envs.unwrapped.task  # type: ignore[attr-defined]
        judge = Judge(make_reward(self.reward))
        texts = np.array(list(product(range(spec.num_tokens), repeat=spec.max_new_tokens)), dtype=np.int64)
        best = []
        for prompt in obs[:, : spec.prompt_length]:
            rows = np.concatenate([np.tile(prompt, (len(texts), 1)), texts], axis=1)
            lengths = np.full(len(texts), spec.max_new_tokens)
            reasons = np.full(len(texts), "length", dtype=object)
            keys = np.zeros(len(texts), dtype=np.uint64)
            episodes = episodes_from_rows(
                task, rows, lengths=lengths, finish_reason=reasons, key=keys, prompt_index=np.full(len(texts), -1)
            )
            best.append(judge(episodes).total.max())
        envs.close()
        return float(np.mean(best))


def play(swap: Swap, entrant: Entrant, seed: int, preset: Preset) -> dict[str, Any]:
    """One agent: before the swap, then every way to go on, and from scratch."""
    kwargs = env_kwargs_of(swap, preset, seed)
    evaluation_seed = seed * SEED_STRIDE + EVALUATION_OFFSET
    before, after = (Examination(swap.env_id, kwargs, judge, evaluation_seed) for judge in (swap.before, swap.after))
    goals = {"before": round(SHARE * before.best(), 6), "after": round(SHARE * after.best(), 6)}

    def envs(reward: Any) -> Any:
        return make_envs(swap.env_id, entrant.kind.Config(**entrant.config).num_envs, {**kwargs, "reward": reward})

    agent = entrant.kind(envs(swap.before), seed=seed, **entrant.config)
    curves: dict[str, Curve] = {}
    curves["before"], _ = learn_until(agent, partial(before.score, agent), goals["before"], preset.budget)
    ways = (RESCORES, KEEPS) if isinstance(agent, ReplayLearner) else (GOES_ON,)
    with tempfile.TemporaryDirectory() as folder:
        agent.save(Path(folder) / "agent")
        for way in ways:
            again = entrant.kind.load(Path(folder) / "agent", env=envs(swap.before))
            if isinstance(again, ReplayLearner):
                again.set_reward(swap.after, rescore=way == RESCORES)
                if way == RESCORES:
                    again.learn_offline(preset.offline_updates)
            else:
                again.set_reward(swap.after)
            curves[way], _ = learn_until(again, partial(after.score, again), goals["after"], preset.budget)
    fresh = entrant.kind(envs(swap.after), seed=seed, **entrant.config)
    curves[SCRATCH], _ = learn_until(fresh, partial(after.score, fresh), goals["after"], preset.budget)
    return {"goals": goals, "curves": curves}


def main(args: Args) -> None:
    """Play what is missing, print the table, write CSV and figure."""
    torch.set_num_threads(1)
    preset = PRESETS[args.preset]
    preset = preset if args.seeds is None else replace(preset, seeds=args.seeds)
    if preset.seeds < 1:
        sys.exit(f"--seeds must be at least 1; got {preset.seeds}.")
    out = args.out or Path(f"runs/reward-swap-{args.preset}")
    entrants = {entrant.name: entrant for entrant in ENTRANTS if entrant.name in preset.entrants}
    swaps = {swap.name: swap for swap in SWAPS if swap.name in preset.swaps}
    keys = [(swap, name, str(seed)) for seed in range(preset.seeds) for swap, name in product(swaps, entrants)]

    def play_one(key: tuple[str, ...]) -> dict[str, Any]:
        return play(swaps[key[0]], entrants[key[1]], int(key[2]), preset)

    settings = {
        "length": preset.length,
        "budget": preset.budget,
        "offline_updates": preset.offline_updates,
        "share": SHARE,
    }
    try:
        results = play_runs(out, settings, keys, play_one)
    except BenchmarkError as error:
        sys.exit(str(error))

    rows = []
    for (swap, name, seed), result in sorted(results.items(), key=lambda item: keys_order(item[0], swaps, entrants)):
        for way, curve in result["curves"].items():
            goal = result["goals"]["before" if way == "before" else "after"]
            episodes, reached = crossing(curve, goal)
            rows.append(
                {
                    "swap": swap,
                    "agent": name,
                    "how": way,
                    "seed": seed,
                    "goal": goal,
                    "first_score": curve[0][1],
                    "episodes": int(episodes),
                    "reached": reached,
                }
            )
    write_csv(out / "reward_swap.csv", rows)
    print_table(rows, preset)
    draw(rows, preset, out / "reward_swap.png")
    print(f"\nwritten: {out / 'reward_swap.csv'}, {out / 'reward_swap.png'}")


def keys_order(key: tuple[str, ...], swaps: dict[str, Swap], entrants: dict[str, Entrant]) -> tuple[int, int, int]:
    """The order of the tables at the top."""
    return list(swaps).index(key[0]), list(entrants).index(key[1]), int(key[2])


def _cells(rows: list[dict[str, Any]]) -> dict[tuple[str, str, str], list[dict[str, Any]]]:
    """Runs by swap, agent and way."""
    cells: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in rows:
        cells.setdefault((row["swap"], row["agent"], row["how"]), []).append(row)
    return cells


def print_table(rows: list[dict[str, Any]], preset: Preset) -> None:
    """Medians over seeds with 95 % intervals, in Markdown."""
    print(f"| swap | agent | how | score at the swap (range) | episodes to {SHARE:.0%} of the best |")
    print("|---|---|---|---|---|")
    for (swap, agent, way), runs in _cells(rows).items():
        scores = [run["first_score"] for run in runs]
        episodes = episodes_text(median_of([(run["episodes"], run["reached"]) for run in runs]), preset.budget)
        first = f"{np.median(scores):.2f} ({min(scores):.2f}–{max(scores):.2f})"
        print(f"| {swap} | {agent} | {'(before the swap)' if way == 'before' else way} | {first} | {episodes} |")


def draw(rows: list[dict[str, Any]], preset: Preset, path: Path) -> None:
    """A panel for each swap, a bar for each agent and way, with intervals; every run a dot."""
    cells = {key: runs for key, runs in _cells(rows).items() if key[2] != "before"}
    figure, panels = plt.subplots(
        1, len(preset.swaps), figsize=(4.2 * len(preset.swaps), 4.2), squeeze=False, layout="constrained"
    )
    for panel, swap in zip(panels[0], preset.swaps, strict=True):
        names = [(agent, way) for s, agent, way in cells if s == swap]
        for place, (agent, way) in enumerate(names):
            runs = cells[swap, agent, way]
            estimate = median_of([(run["episodes"], run["reached"]) for run in runs])
            colour = COLOURS[preset.entrants.index(agent) % len(COLOURS)]
            value, low, high = (
                min(np.nan_to_num(v, nan=estimate.value, posinf=preset.budget), preset.budget)
                for v in (estimate.value, estimate.low, estimate.high)
            )
            bars = [[value - low], [high - value]]
            strong = way in (RESCORES, GOES_ON)
            panel.barh(place, value, xerr=bars, capsize=3, color=colour, alpha=0.85 if strong else 0.35)
            panel.plot([run["episodes"] for run in runs], [place] * len(runs), "k.", markersize=4)
        panel.axvline(preset.budget, color="grey", linewidth=0.8, linestyle=":")
        panel.set_yticks(range(len(names)), [f"{agent}, {way}" for agent, way in names], fontsize=8)
        panel.invert_yaxis()
        panel.set(title=swap, xlabel="new episodes (dotted: budget)")
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main(tyro.cli(Args))
