"""Measures DQN's switches: each setting differs from the defaults in what its name says.

    python scripts/compare_dqn_switches.py                                   # everything: half an hour on one core
    python scripts/compare_dqn_switches.py --switches defaults n_step=1      # a part of it
    python scripts/compare_dqn_switches.py --switches defaults --envs "Reverse 4 of 8" --seeds 100 101 102

Prints a table for docs/dqn_defaults.md: the median over seeds of the episodes (and of the gradient steps' tokens in
them) until the greedy policy scores 0.9, as the benchmark counts them. Finished runs are kept and not run again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from agents import DQN
from agents.benchmark.pool import Advanced, Event, Finished, play_all
from agents.benchmark.results import is_finished, lock, open_results, read_results
from agents.benchmark.run import check
from agents.benchmark.suites import (
    AgentSetting,
    BenchmarkError,
    EnvironmentSetting,
    RunSetting,
    Suite,
    run_settings,
    select,
)
from agents.benchmark.summary import Cell, summarise
from agents.benchmark.words import median_text

THRESHOLD = 0.9

EPSILON_GREEDY: dict[str, Any] = {"temperature": 0.0, "epsilon": 0.05, "epsilon_start": 1.0}

SWITCHES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "textbook double DQN": dict(DQN.presets["textbook"]),
    "Rainbow without the noise": dict(DQN.presets["rainbow"]),
    "n_step=1": {"n_step": 1},
    "n_step=3": {"n_step": 3},
    "Monte-Carlo targets": {"n_step": 1_000},
    "cut_traces=False": {"cut_traces": False},
    "lambda_=1": {"lambda_": 1.0},
    "lower_bound=False": {"lower_bound": False},
    "double=False": {"double": False},
    "dueling=True": {"dueling": True},
    "priority_alpha=0.6": {"priority_alpha": 0.6},
    "recent_share=0": {"recent_share": 0.0},
    "target copied every 100 steps": {"target_interval": 100, "target_tau": 1.0},
    "no target network": {"target_interval": 1, "target_tau": 1.0},
    "reward_scale=1": {"reward_scale": 1.0},
    "epsilon-greedy": EPSILON_GREEDY,
    "epsilon-greedy, Ape-X": {"temperature": 0.0, "epsilon": 0.4, "epsilon_spread": 7.0},
    "Boltzmann alone": {"epsilon": 0.0},
    "temperature=0.04": {"temperature": 0.04},
    "learning_rate=1e-3": {"learning_rate": 1e-3},
    "weight_decay=0": {"weight_decay": 0.0},
    "updates_per_window=8": {"updates_per_window": 8},
}


def _environment(name: str, episodes: int, **sizes: int) -> EnvironmentSetting:
    return EnvironmentSetting(name, f"textenvs/{name.split()[0]}-v0", episodes, sizes)


SUITE = Suite(
    name="dqn-switches",
    environments=(
        _environment("HiddenTarget 6 of 8", 800, length=6, num_symbols=8),
        _environment("PrefixLock 6 of 6", 1_200, length=6, num_symbols=6),
        _environment("Reverse 3 of 6", 1_200, length=3, num_symbols=6),
        _environment("HiddenTarget 8 of 16", 4_000, length=8, num_symbols=16),
        _environment("PrefixLock 8 of 8", 4_000, length=8, num_symbols=8),
        _environment("Reverse 4 of 8", 4_000, length=4, num_symbols=8),
        _environment("Sort 3 of 8", 4_000, length=3, num_symbols=8),
        _environment("Keywords 4 of 64", 4_000, length=12, num_symbols=64, num_keywords=4),
    ),
    agents=tuple(AgentSetting(name, "DQN", config) for name, config in SWITCHES.items()),
    seeds=(0, 1, 2),
    thresholds=(THRESHOLD,),
)


@dataclass(frozen=True)
class Options:
    out: Path = Path("runs/dqn-switches")
    """Folder of the results."""
    switches: tuple[str, ...] | None = None
    """Only these settings."""
    envs: tuple[str, ...] = ("HiddenTarget 6 of 8", "PrefixLock 6 of 6", "Reverse 3 of 6")
    """Only these environments, by their names above; the larger ones are to confirm the defaults."""
    seeds: tuple[int, ...] = SUITE.seeds
    """Seeds, and task seeds where a task hides something."""
    jobs: int = 1
    """Parallel processes, one thread each; more than one core each makes the seconds comparable."""


def main(options: Options, console: Console) -> int:
    """Run what is not finished yet, then print the table; returns the exit code."""
    suite = select(SUITE, options.envs, options.switches, options.seeds)
    settings = run_settings(suite)
    for setting in settings:
        if setting.seed == settings[0].seed:
            check(setting)
    with lock(options.out):
        open_results(options.out, SUITE)
        todo = [setting for setting in settings if not is_finished(options.out, setting)]
        console.print(f"{len(settings)} runs, {len(settings) - len(todo)} finished before, in {options.out}")
        failures = play_all(todo, options.out, options.jobs, _reporter(todo, console))
        print_table(suite, settings, options.out)
    for failure in failures:
        print(f"\nFAILED: {failure.setting.label}\n{failure.trace}", file=sys.stderr)
    return 1 if failures else 0


def _reporter(todo: Sequence[RunSetting], console: Console) -> Any:
    ended = 0

    def on_event(event: Event) -> None:
        nonlocal ended
        if isinstance(event, Advanced):
            return
        ended += 1
        how = "finished" if isinstance(event, Finished) else "FAILED"
        console.print(f"  {ended}/{len(todo)} {event.setting.label}: {how}", highlight=False)

    return on_event


def print_table(suite: Suite, settings: Sequence[RunSetting], out: Path) -> None:
    """A Markdown table: a row for each setting, in every environment the median episodes and seconds to 0.9 and
    how many runs reached it."""
    wanted = {(setting.environment.name, setting.agent.name, setting.seed) for setting in settings}
    results = read_results(out)
    if results.damaged:
        raise BenchmarkError("\n".join(results.damaged))
    runs = [run for run in results.runs if (run.environment, run.agent, run.seed) in wanted]
    environments = [environment.name for environment in suite.environments]
    agents = [agent.name for agent in suite.agents]
    summary = summarise(runs, environments, agents, (THRESHOLD,))
    print("| setting | " + " | ".join(environments) + " | geometric mean |")
    print("|---" * (len(environments) + 2) + "|")
    for name in agents:
        cells = [summary.cells.get((environment, name)) for environment in environments]
        texts = ["–" if cell is None else _text(cell) for cell in cells]
        medians = [np.inf if cell is None else cell.medians["episodes", THRESHOLD].value for cell in cells]
        mean = f"{np.exp(np.mean(np.log(medians))):,.0f}" if np.isfinite(medians).all() else "–"
        print(f"| {name} | " + " | ".join(texts) + f" | {mean} |")


def _text(cell: Cell) -> str:
    episodes, _ = median_text(cell, "episodes", THRESHOLD)
    seconds, _ = median_text(cell, "seconds", THRESHOLD)
    return f"{episodes} ({seconds} s, {cell.reached(THRESHOLD)}/{len(cell.runs)})"


if __name__ == "__main__":
    import tyro

    chosen = tyro.cli(Options, description=__doc__)
    try:
        sys.exit(main(chosen, Console()))
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"\nStopped. The same command goes on from what has finished in {chosen.out}.", file=sys.stderr)
        sys.exit(130)
