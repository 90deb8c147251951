"""ReturnDecomposition, which learns from a replay buffer, against PPO tuned on every environment by itself.

    python scripts/compare_replay.py                            # the figures of docs/results.md: 90 min on one core
    python scripts/compare_replay.py --sections additive        # a part of it: 30 min
    python scripts/compare_replay.py --preset smoke             # all of it, tiny: shows that it runs, no more

Sections: "additive", where a text is right token by token, is what return decomposition is made for; "limits", where
it is not: scores of all or nothing, sums modulo ten, sacrifices, noise, texts of many lengths; "choice" puts the other
replay agents beside it. What is run, as pure data: agents/benchmark/replay_settings.py. Writes table.csv, table.md and
a PNG of learning curves for each section. Finished runs are kept and not run again.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from agents.benchmark.replay_comparison import markdown, play_section, verdict, write
from agents.benchmark.replay_settings import get_sections
from agents.benchmark.results import lock, set_aside
from agents.benchmark.suites import BenchmarkError


@dataclass(frozen=True)
class Options:
    preset: str = "full"
    """How much is run: smoke or full."""
    sections: tuple[str, ...] | None = None
    """Only these: additive, limits, choice. Different ones can run in different processes at a time."""
    out: Path | None = None
    """Folder of the results; runs/compare-replay-PRESET unless given."""
    restart: bool = False
    """Set earlier results of these sections aside (they are renamed, not deleted) and begin anew."""

    @property
    def folder(self) -> Path:
        return self.out or Path("runs") / f"compare-replay-{self.preset}"


def main(options: Options, console: Console) -> int:
    """Run what is not finished yet, then write and print the tables; returns the exit code."""
    sections, out = get_sections(options.preset, options.sections), options.folder
    torch.set_num_threads(1)

    def tell(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    with ExitStack() as stack:
        for section in sections:
            stack.enter_context(lock(out / section.name))
        if options.restart:
            for section in sections:
                if (old := set_aside(out / section.name)) is not None:
                    tell(f"Earlier results are now in {old}.")
        outcomes = [play_section(section, out, tell) for section in sections]
        paths = write(outcomes, out)
    tell("\n" + markdown(outcomes))
    for outcome in outcomes:
        tell(f"{outcome.section.name}: {verdict(outcome)}")
    if options.preset == "smoke":
        tell("\nThe smoke preset only shows that everything runs: its figures mean nothing.")
    tell(f"written: {', '.join(map(str, paths))}")
    return 0


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
