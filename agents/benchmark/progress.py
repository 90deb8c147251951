"""Playing many runs with a bar over all of them, and a line for each that ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from agents.benchmark.pool import Advanced, Event, Failed, Finished
from agents.benchmark.results import failure_file, run_folder
from agents.benchmark.rows import read_run
from agents.benchmark.suites import RunSetting

Play = Callable[[Sequence[RunSetting], Path, Callable[[Event], None]], list[Failed]]


def play_with_progress(todo: Sequence[RunSetting], out: Path, play: Play, console: Console) -> list[Failed]:
    """Play runs, with a bar over all of them and a line for each that ends."""
    shares = dict.fromkeys((setting.label for setting in todo), 0.0)
    finished = 0
    columns = (
        TextColumn("{task.fields[finished]}/{task.total:.0f} runs"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("elapsed,"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=console, speed_estimate_period=120) as bar:
        task = bar.add_task("runs", total=len(todo), finished=0)

        def on_event(event: Event) -> None:
            nonlocal finished
            label = event.setting.label
            if isinstance(event, Advanced):
                shares[label] = min(1.0, event.progress.episodes / event.progress.budget)
            elif isinstance(event, Finished | Failed):
                shares[label] = 1.0
                finished += 1
                console.print(outcome(event, out), highlight=False)
            else:
                console.print(f"  {label}: paused", highlight=False)
            if isinstance(event, Failed):
                failure_file(out, event.setting).write_text(event.trace, encoding="utf-8")
            elif isinstance(event, Finished):
                failure_file(out, event.setting).unlink(missing_ok=True)
            bar.update(task, completed=sum(shares.values()), finished=finished)

        return play(todo, out, on_event)


def outcome(event: Finished | Failed, out: Path) -> str:
    """A line about a run that has ended."""
    if isinstance(event, Failed):
        return f"  {event.setting.label}: FAILED ({event.trace.strip().splitlines()[-1]})"
    run = read_run(run_folder(out, event.setting))
    last = run.rows[-1]
    how = f"reached {event.setting.stop_at:g}" if run.solved else f"ended at {last.normalised_greedy:.2f}"
    return f"  {event.setting.label}: {how} after {last.episodes:,} episodes, {last.seconds:.1f} s"
