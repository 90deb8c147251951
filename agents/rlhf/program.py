"""What the programs of ``scripts/`` that run stages have in common: checks of options, progress, failures."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from agents import distributed
from agents.benchmark.pool import available_cores
from agents.benchmark.results import set_aside
from agents.rlhf.running import (
    Advanced,
    Event,
    Failed,
    Finished,
    Task,
    is_finished,
    run_in_processes,
    run_together,
)
from agents.rlhf.settings import RLHFError, Settings


def check_seeds(seeds: Sequence[int]) -> None:
    """Complain about seeds that are none.

    Raises:
        RLHFError: one of them twice, a negative one, or none.
    """
    if len(set(seeds)) != len(seeds) or not seeds or min(seeds) < 0:
        raise RLHFError(f"--seeds must be different numbers from 0 on, at least one; got {list(seeds)}.")


def count_of_jobs(jobs: int | None) -> int:
    """Stages at once: as many as were asked for, or as there are cores.

    Raises:
        RLHFError: fewer than one.
    """
    if jobs is not None and jobs < 1:
        raise RLHFError(f"--jobs must be at least 1, got {jobs}.")
    return available_cores() if jobs is None else jobs


def set_earlier_aside(out: Path, restart: bool, console: Console) -> None:
    """Rename earlier results, if they are not to be gone on with."""
    if restart and (old := set_aside(out)) is not None:
        console.print(f"Earlier results are now in {old}.", highlight=False)


def announce(what: str, out: Path, tasks: Sequence[Task], console: Console) -> None:
    """Say what is to be done."""
    done = sum(is_finished(out, task) for task in tasks)
    kept = f" ({done} finished before)" if done else ""
    console.print(f"{what}: {len(tasks)} stages{kept}, in {out}", highlight=False)


def run_with_progress(
    out: Path, settings: Settings, tasks: Sequence[Task], jobs: int, console: Console
) -> list[Failed]:
    """Run stages that are not finished yet, with a bar for each that runs and a line for each that ends; returns what
    failed."""
    if all(is_finished(out, task) for task in tasks):
        return []
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[words]}"))
    with Progress(*columns, console=console) as bars:
        shown: dict[str, Any] = {}

        def on_event(event: Event) -> None:
            label = event.task.label if len({task.seed for task in tasks}) > 1 else event.task.stage.name
            if isinstance(event, Advanced):
                if label not in shown:
                    shown[label] = bars.add_task(label, total=1.0, words="")
                bars.update(shown[label], completed=event.share, words=event.words)
                return
            if label in shown:
                bars.remove_task(shown.pop(label))
            how = f"{event.seconds:.0f} s" if isinstance(event, Finished) else "FAILED"
            console.print(f"  {label}: {how}", highlight=False)

        if distributed.world_size() > 1:
            return run_together(out, settings, tasks, on_event)
        return run_in_processes(out, settings, tasks, jobs, on_event)


def print_failures(failures: Sequence[Failed]) -> int:
    """Traces on standard error; returns the exit code."""
    for failure in failures:
        print(f"\nFAILED: {failure.task.label}\n{failure.trace}", file=sys.stderr)
    if failures:
        print("The same command goes on from the stages that are finished.", file=sys.stderr)
    return 1 if failures else 0
