"""Our PPO and DQN against Stable-Baselines3's: the same environments, budgets and grid of tuning, intervals over seeds.

    python scripts/compare_sb3.py                                # the figures of docs/results.md: 20 min on one core
    python scripts/compare_sb3.py --preset full                  # wider grids, more tuning, larger tasks: hours
    python scripts/compare_sb3.py --preset smoke                 # all of it, tiny: shows that it runs, no more
    python scripts/compare_sb3.py --sections seconds             # a part

Sections: "ppo" and "dqn" count episodes to 0.9 with the same network, our transformer, as Stable-Baselines3's features
extractor; "seconds" those of training to 0.9, against its default MlpPolicy. What is run, as pure data:
agents/benchmark/sb3_settings.py. Writes table.csv, table.md and curves.png. Finished runs are kept and not run again.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from agents.benchmark.results import lock, set_aside
from agents.benchmark.sb3_comparison import Outcome, play_section, table, verdicts, write
from agents.benchmark.sb3_settings import get_sections
from agents.benchmark.suites import BenchmarkError


@dataclass(frozen=True)
class Options:
    preset: str = "quick"
    """How much is run: smoke, quick or full."""
    sections: tuple[str, ...] | None = None
    """Only these: ppo, dqn, seconds."""
    out: Path | None = None
    """Folder of the results; runs/compare-sb3-PRESET unless given."""
    restart: bool = False
    """Set earlier results aside (they are renamed, not deleted) and begin anew."""

    @property
    def folder(self) -> Path:
        return self.out or Path("runs") / f"compare-sb3-{self.preset}"


def main(options: Options, console: Console) -> int:
    """Run what is not finished yet, then write and print the tables; returns the exit code."""
    sections, out = get_sections(options.preset, options.sections), options.folder
    torch.set_num_threads(1)
    with lock(out):
        if options.restart and (old := set_aside(out)) is not None:
            console.print(f"Earlier results are now in {old}.", highlight=False)

        def tell(line: str) -> None:
            console.print(line, highlight=False, markup=False, soft_wrap=True)

        outcomes = [play_section(section, out, tell) for section in sections]
        paths = write(outcomes, out)
    for outcome in outcomes:
        show(outcome, console)
    if options.preset == "smoke":
        console.print("\nThe smoke preset only shows that everything runs: its figures mean nothing.")
    console.print(f"written: {', '.join(map(str, paths))}", highlight=False, soft_wrap=True)
    return 0


def show(outcome: Outcome, console: Console) -> None:
    """A section for a terminal."""
    console.print(f"\n{outcome.section.title}", highlight=False)
    for line in table(outcome):
        interval = f" ({line.interval})" if line.interval else ""
        needed = f"{line.needed}{interval}, {line.reached} runs, score {line.score}" if line.needed else ""
        within = f" ({line.ratio_interval})" if line.ratio_interval else ""
        ratio = f"{'; ' if needed else ''}{line.ratio}{within} × ours" if line.ratio else ""
        console.print(f"  {line.environment}, {line.contestant}: {needed}{ratio}", highlight=False, soft_wrap=True)
    for sentence in verdicts(outcome):
        console.print(f"  {sentence}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    import tyro

    chosen = tyro.cli(Options, description=__doc__)
    try:
        sys.exit(main(chosen, Console()))
    except (BenchmarkError, ValueError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"\nStopped. The same command goes on from what has finished in {chosen.folder}.", file=sys.stderr)
        sys.exit(130)
