"""Why there is a trade-off between on-policy and off-policy learning: two experiments, a figure each.

    python scripts/tradeoff.py                                  # the figures of docs/tradeoff.md: 15 min on one core
    python scripts/tradeoff.py --envs "Reverse 3 of 6"          # a part of it
    python scripts/tradeoff.py --preset smoke                   # all of it, tiny: shows that it runs, no more

Used once and thrown away: PPO with batches that are 0 to 8 updates old, with and without the importance ratio, and
with 1 to 16 epochs on fresh ones, beside DQN that uses every token 0.25 to 32 times. Small steps: PPO with and
without clipping at eight learning rates. What is run, as pure data: agents/benchmark/tradeoff.py. Writes table.csv,
table.md, reuse.png and small_steps.png. Finished runs are kept and not run again.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from agents.benchmark.command import exit_code
from agents.benchmark.pool import Advanced, Event, Failed, available_cores, play_all
from agents.benchmark.results import lock, open_folder, set_aside
from agents.benchmark.suites import BenchmarkError
from agents.benchmark.tradeoff import get_environments, get_preset, play, run_file, run_settings, shared_settings


@dataclass(frozen=True)
class Options:
    preset: str = "full"
    """How much is run: smoke or full."""
    envs: tuple[str, ...] | None = None
    """Only these environments of the preset."""
    seeds: int | None = None
    """So many runs of everything instead of the preset's number."""
    processes: int | None = None
    """Parallel processes, one thread each; as many as there are cores unless given."""
    out: Path | None = None
    """Folder of the results; runs/tradeoff-PRESET unless given."""
    restart: bool = False
    """Set earlier results aside (they are renamed, not deleted) and begin anew."""

    @property
    def folder(self) -> Path:
        return self.out or Path("runs") / f"tradeoff-{self.preset}"


def main(options: Options, console: Console) -> int:
    """Run what is not finished yet, then write and print the tables; returns the exit code."""
    preset, out = get_preset(options.preset), options.folder
    environments = get_environments(preset, options.envs)
    seeds = preset.seeds if options.seeds is None else options.seeds
    processes = available_cores() if options.processes is None else options.processes
    for name, number in (("seeds", seeds), ("processes", processes)):
        if number < 1:
            raise BenchmarkError(f"--{name} must be at least 1; got {number}.")
    settings = run_settings(preset, environments, seeds)

    def tell(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    with lock(out):
        if options.restart and (old := set_aside(out)) is not None:
            tell(f"Earlier results are now in {old}.")
        open_folder(out, shared_settings(preset))
        todo = [setting for setting in settings if not run_file(out, setting).exists()]
        tell(f"{len(settings)} runs, {len(settings) - len(todo)} finished before, {processes} at a time, in {out}")
        failures = play_all(todo, out, processes, _reporter(len(todo), tell), play=play)
        if failures:
            print(f"\n{len(failures)} runs failed, the first with\n{failures[0].trace}", file=sys.stderr)
            print("The same command repeats them, and only them.", file=sys.stderr)
            return 1
        # Here, because worker processes import this file too and need no plots.
        from agents.benchmark.tradeoff_report import analyse, markdown, write

        lines = analyse(preset, environments, settings, out)
        paths = write(lines, out)
    tell("\n" + markdown(lines))
    if options.preset == "smoke":
        tell("The smoke preset only shows that everything runs: its figures mean nothing.")
    tell(f"written: {', '.join(map(str, paths))}")
    return 0


def _reporter(total: int, tell: Callable[[str], None]) -> Callable[[Event], None]:
    """Tells of every run that ends, and how long the others will take."""
    ended, began = 0, time.monotonic()

    def on_event(event: Event) -> None:
        nonlocal ended
        if isinstance(event, Advanced):
            return
        ended += 1
        left = (time.monotonic() - began) / ended * (total - ended)
        how = f"FAILED ({event.trace.strip().splitlines()[-1]})" if isinstance(event, Failed) else "finished"
        tell(f"  {ended}/{total} {event.setting.label}: {how}, about {left / 60:.0f} min left")

    return on_event


def run(options: Options) -> int:
    """``main`` with its errors as messages; returns the exit code."""
    return exit_code(lambda: main(options, Console()), options.folder)


if __name__ == "__main__":
    import tyro

    sys.exit(run(tyro.cli(Options, description=__doc__)))
