"""Compares agents on text environments and writes a report.

    python scripts/benchmark.py --preset quick          # PPO and DQN, 3 environments, 3 seeds: minutes
    python scripts/benchmark.py --preset smoke          # the same in small, under a minute
    python scripts/benchmark.py --preset standard --max-hours 2       # 10 environments, 8 agents, 5 seeds
    python scripts/benchmark.py --preset full --launcher ray --ray-address auto
    python scripts/benchmark.py --agents PPO --envs Reverse --seeds 0 1 2 3 4
    python scripts/benchmark.py --preset standard --add mine=my_module:MyAgent

Finished runs are kept and not run again, and one that was ended half-way goes on from its checkpoint: after Ctrl-C
or a crash, or for more seeds, the same command goes on.
"""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

from agents.benchmark.command import exit_code
from agents.benchmark.pool import Failed, available_cores, play_all
from agents.benchmark.progress import Play, play_with_progress
from agents.benchmark.results import is_finished, lock, open_results, set_aside
from agents.benchmark.run import CHECKPOINT_SECONDS, Limits, check
from agents.benchmark.suites import BenchmarkError, add_agents, get_suite, run_settings, select


@dataclass(frozen=True)
class Options:
    preset: str = "quick"
    """What is run: smoke (under a minute), quick (minutes), standard or full (hours)."""
    out: Path | None = None
    """Folder of the results; runs/benchmark-PRESET unless given."""
    jobs: int | None = None
    """Parallel processes, one thread each; as many as there are cores unless given."""
    agents: tuple[str, ...] | None = None
    """Only these agents of the preset."""
    envs: tuple[str, ...] | None = None
    """Only these environments of the preset."""
    seeds: tuple[int, ...] | None = None
    """These seeds instead of the preset's; there may be more."""
    add: tuple[str, ...] = ()
    """Agents of your own beside the preset's, each as NAME=module:Class."""
    launcher: Literal["local", "ray"] = "local"
    """Processes on this machine, or a Ray cluster."""
    ray_address: str | None = None
    """Address of a running cluster (or "auto"); without it Ray is started on this machine."""
    max_hours: float | None = None
    """Pause after so many hours; the same command goes on."""
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    """Seconds between two checkpoints of a run in flight."""
    restart: bool = False
    """Set earlier results aside (they are renamed, not deleted) and begin anew."""

    @property
    def folder(self) -> Path:
        return self.out or Path("runs") / f"benchmark-{self.preset}"


def main(options: Options, console: Console) -> int:
    """Run what is not finished yet, then report; returns the exit code."""
    suite, out = add_agents(get_suite(options.preset), options.add), options.folder
    settings = run_settings(select(suite, options.envs, options.agents, options.seeds))
    jobs = available_cores() if options.jobs is None else options.jobs
    check_options(options, jobs)
    limits = Limits(options.checkpoint_seconds)
    if options.max_hours is not None:
        limits = Limits(options.checkpoint_seconds, time.time() + 3600 * options.max_hours)
    for setting in settings:
        if setting.seed == settings[0].seed:
            check(setting)
    with lock(out):
        if options.restart and (old := set_aside(out)) is not None:
            console.print(f"Earlier results are now in {old}.", highlight=False)
        open_results(out, suite)
        todo = [setting for setting in settings if not is_finished(out, setting)]
        done = len(settings) - len(todo)
        kept = f" ({done} finished before)" if done else ""
        at_a_time = f"{min(jobs, len(settings))} at a time" if options.launcher == "local" else "on Ray"
        text = f"Benchmark {suite.name}: {len(settings)} runs{kept}, {at_a_time}, in {out}"
        console.print(text, highlight=False)
        failures: list[Failed] = []
        if todo:
            failures = play_with_progress(todo, out, launcher(options, jobs, limits), console)
        left = sum(not is_finished(out, setting) for setting in settings) - len(failures)
        if any((out / "runs").iterdir()):
            report(out, console)
    for failure in failures:
        print(f"\nFAILED: {failure.setting.label}\n{failure.trace}", file=sys.stderr)
    if failures:
        print(
            f"{len(failures)} of {len(settings)} runs failed (traces in {out / 'failed'}). "
            f"The same command repeats these and only these.",
            file=sys.stderr,
        )
    if left:
        console.print(f"The time is over and {left} runs are left: the same command goes on.", highlight=False)
    return 1 if failures else 0


def check_options(options: Options, jobs: int) -> None:
    """Complain about numbers that make no sense."""
    if jobs < 1:
        raise BenchmarkError(f"--jobs must be at least 1, got {jobs}.")
    if options.max_hours is not None and not options.max_hours > 0:
        raise BenchmarkError(f"--max-hours must be positive, got {options.max_hours}.")
    if not options.checkpoint_seconds >= 0:
        raise BenchmarkError(f"--checkpoint-seconds must not be negative, got {options.checkpoint_seconds}.")
    if options.ray_address is not None and options.launcher != "ray":
        raise BenchmarkError("--ray-address goes with --launcher ray.")


def launcher(options: Options, jobs: int, limits: Limits) -> Play:
    """What plays runs: (settings, folder, what is told of every event) → the runs that failed."""
    if options.launcher == "local":
        return lambda settings, out, on_event: play_all(settings, out, jobs, on_event, limits)
    from agents.benchmark.ray_launcher import import_ray, play_all_on_ray

    import_ray()
    return lambda settings, out, on_event: play_all_on_ray(
        settings, out, on_event, limits, options.ray_address, options.jobs
    )


def report(out: Path, console: Console) -> None:
    """Print and write the report."""
    # Here, because worker processes import this file too and need no plots.
    from agents.benchmark.report import print_report, read_report, write_report

    results = read_report([out])
    page = write_report(out, results)
    console.print()
    print_report(results, console)
    console.print(f"Report: {page}", highlight=False, soft_wrap=True)


def run(options: Options) -> int:
    """``main`` with its errors as messages; returns the exit code."""
    return exit_code(lambda: main(options, Console()), options.folder)


if __name__ == "__main__":
    import tyro

    sys.path.insert(0, os.getcwd())  # "module:Class" of --add
    sys.exit(run(tyro.cli(Options, description=__doc__)))
