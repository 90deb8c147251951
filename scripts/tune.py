"""Tunes every agent of the standard suite alike: random search, as many trials for each, on environments that the suite
has not got.

    python scripts/tune.py                               # 12 trials of 8 agents: about an hour on one core
    python scripts/tune.py --preset smoke                # two of two agents, in seconds: shows that it runs, no more
    python scripts/tune.py --agents PPO DQN --trials 32 --max-hours 2

The first trial of every agent is its defaults. Writes tables.md, trials.csv, chosen.json (what the suite reads, as
agents/benchmark/tuned.json) and study.log (for Optuna's own tools). Finished runs are kept: after Ctrl-C or a crash, or
for more trials, the same command goes on. What is searched, as pure data: agents/benchmark/search_spaces.py.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from agents.benchmark.command import exit_code
from agents.benchmark.pool import Failed, available_cores, play_all
from agents.benchmark.progress import play_with_progress
from agents.benchmark.results import lock, open_results, set_aside
from agents.benchmark.run import CHECKPOINT_SECONDS, Limits, check
from agents.benchmark.search_spaces import get_preset
from agents.benchmark.suites import BenchmarkError, RunSetting
from agents.benchmark.tuning import candidates, import_optuna, run_settings, search, tables, write

LARGEST_SEED = 10_000  # environment seeds, 100,000 for each run seed, have to fit into 32 bits


@dataclass(frozen=True)
class Options:
    preset: str = "full"
    """How much is run: smoke or full."""
    agents: tuple[str, ...] | None = None
    """Only these agents of the standard suite."""
    trials: int | None = None
    """Trials of each agent, its defaults included; the preset's unless given."""
    seed: int = 0
    """Of the draws, and of the runs: two seeds have no run seed in common, nor with any suite."""
    out: Path | None = None
    """Folder of the results; runs/tune-PRESET unless given."""
    jobs: Annotated[int | None, tyro.conf.arg(aliases=["--processes"])] = None
    """Parallel processes, one thread each; as many as there are cores unless given."""
    max_hours: float | None = None
    """Pause after so many hours; the same command goes on."""
    restart: bool = False
    """Set earlier results aside (they are renamed, not deleted) and begin anew."""

    @property
    def folder(self) -> Path:
        return self.out or Path("runs") / f"tune-{self.preset}"


def main(options: Options, console: Console) -> int:
    """Play what is not finished yet, then choose and write; returns the exit code."""
    check_options(options)
    preset, out = get_preset(options.preset, options.agents, options.trials), options.folder
    import_optuna()
    jobs = available_cores() if options.jobs is None else options.jobs
    limits = Limits()
    if options.max_hours is not None:
        limits = Limits(CHECKPOINT_SECONDS, time.time() + 3600 * options.max_hours)
    failures: list[Failed] = []

    def play(settings: Sequence[RunSetting]) -> None:
        if time.time() >= limits.deadline:
            return
        ended = play_with_progress(
            settings, out, lambda todo, folder, on_event: play_all(todo, folder, jobs, on_event, limits), console
        )
        failures.extend(ended)

    all_candidates = [each for those in candidates(preset, options.seed).values() for each in those]
    for setting in run_settings(preset, all_candidates, preset.seeds(options.seed)[:1]):
        if setting.environment is preset.environments[0]:
            check(setting)
    with lock(out):
        if options.restart and (old := set_aside(out)) is not None:
            console.print(f"Earlier results are now in {old}.", highlight=False)
        open_results(out, preset.suite([each.setting for each in all_candidates], options.seed))
        console.print(
            f"Tuning {len(preset.agents)} agents, {preset.trials} trials each, {jobs} runs at a time, in {out}",
            highlight=False,
        )
        result = search(preset, options.seed, out, play)
        if result is not None:
            paths = write(result, out)
    for failure in failures:
        print(f"\nFAILED, the worst score: {failure.setting.label}\n{failure.trace}", file=sys.stderr)
    if result is None:
        console.print("The time is over and there are runs left: the same command goes on.", highlight=False)
        return 0
    console.print(tables(result), highlight=False, markup=False, soft_wrap=True)
    if preset.name == "smoke":
        console.print("The smoke preset only shows that everything runs: its figures mean nothing.")
    console.print(f"written: {', '.join(map(str, paths))}", highlight=False, soft_wrap=True)
    return 0


def check_options(options: Options) -> None:
    """Complain about numbers that make no sense."""
    if options.jobs is not None and options.jobs < 1:
        raise BenchmarkError(f"--jobs must be at least 1, got {options.jobs}.")
    if options.max_hours is not None and not options.max_hours > 0:
        raise BenchmarkError(f"--max-hours must be positive, got {options.max_hours}.")
    if not 0 <= options.seed <= LARGEST_SEED:
        raise BenchmarkError(f"--seed must be between 0 and {LARGEST_SEED:,}, got {options.seed}.")


def run(options: Options) -> int:
    """``main`` with its errors as messages; returns the exit code."""
    return exit_code(lambda: main(options, Console()), options.folder)


if __name__ == "__main__":
    sys.exit(run(tyro.cli(Options, description=__doc__)))
