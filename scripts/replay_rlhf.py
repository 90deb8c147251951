"""RLHF by PPO and from a replay buffer: same models, same prompts, compared in episodes and reward calls at equal KL.

    python scripts/replay_rlhf.py --preset quick --seeds 0 1 2      # an hour or two on two cores
    python scripts/replay_rlhf.py --preset smoke                    # seconds

Pretraining, SFT, rankings and reward model are the stages of ``scripts/rlhf.py``; then PPO and SoftQ learn with several
coefficients of the KL penalty, and are measured along the way. Writes ``comparison.csv``, ``comparison.md`` and
``comparison.png``. Finished stages are kept: after Ctrl-C, or for more seeds, the same command goes on.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from agents.benchmark.command import exit_code
from agents.benchmark.results import lock
from agents.rlhf.comparison import MODELS_SEED, Comparison, get_comparison, make_comparison_stages, open_comparison
from agents.rlhf.program import (
    announce,
    check_seeds,
    count_of_jobs,
    print_failures,
    run_with_progress,
    set_earlier_aside,
)
from agents.rlhf.running import Task
from agents.rlhf.settings import RLHFError


@dataclass(frozen=True)
class Options:
    preset: str = "quick"
    """How much is done: quick or smoke."""
    seeds: tuple[int, ...] = (0,)
    """Of the learning; the models are made once."""
    out: Path | None = None
    """Folder of the results; runs/replay-rlhf-PRESET unless given."""
    jobs: int | None = None
    """Stages at once; as many as there are cores unless given."""
    restart: bool = False
    """Set earlier results aside (they are renamed, not deleted) and begin anew."""
    methods: tuple[str, ...] | None = None
    """Only these, by their names in the tables."""
    kl_coefs: tuple[float, ...] | None = None
    """Only these coefficients; the first one is that of the curves."""

    @property
    def folder(self) -> Path:
        return self.out or Path("runs") / f"replay-rlhf-{self.preset}"

    @property
    def comparison(self) -> Comparison:
        """What is to be run.

        Raises:
            RLHFError: an unknown preset, method or coefficient, or seeds that are no seeds.
        """
        check_seeds(self.seeds)
        whole = get_comparison(self.preset)
        return whole.select(self.methods, self.kl_coefs)


def main(options: Options, console: Console) -> int:
    """Run what is not finished yet, then write the report; returns the exit code."""
    comparison, out, jobs = options.comparison, options.folder, count_of_jobs(options.jobs)
    set_earlier_aside(out, options.restart, console)
    tasks = [Task(MODELS_SEED, stage) for stage in make_comparison_stages(comparison, options.seeds)]
    with lock(out):
        open_comparison(out, get_comparison(options.preset))
        announce(f"RLHF from replay {options.preset}", out, tasks, console)
        failures = run_with_progress(out, comparison.rlhf, tasks, jobs, console)
        if not failures:
            from agents.rlhf.comparison_report import write_comparison

            paths = write_comparison(out, comparison, options.seeds)
            print(paths[1].read_text(encoding="utf-8"))
            print("written: " + ", ".join(str(path) for path in paths))
    return print_failures(failures)


if __name__ == "__main__":
    import tyro

    chosen = tyro.cli(Options, description=__doc__)
    sys.exit(exit_code(lambda: main(chosen, Console()), chosen.folder, RLHFError))
