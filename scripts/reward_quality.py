"""How good a reward model gets with 512 to 8,192 comparisons, as a share of what is possible.

    python scripts/reward_quality.py                            # three seeds; a quarter of an hour on two cores
    python scripts/reward_quality.py --preset smoke             # seconds

Accuracy on held-out pairs, calibration, accuracy by margin, and a control that sees lengths alone, on rankings by
simulated annotators without and with a length bias, which the audit of ``scripts/audit_preferences.py`` is to find.
Writes ``reward_quality.md``, ``.csv`` and ``.png``. Finished stages are kept: after Ctrl-C the same command goes on.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from agents.benchmark.command import exit_code
from agents.benchmark.results import lock
from agents.rlhf.methods_run import pretraining_task, share_pretraining
from agents.rlhf.program import (
    announce,
    check_seeds,
    count_of_jobs,
    print_failures,
    run_with_progress,
    set_earlier_aside,
)
from agents.rlhf.reward_curve import get_reward_curve, make_curve_tasks, open_curve
from agents.rlhf.settings import RLHFError


@dataclass(frozen=True)
class Options:
    preset: str = "quick"
    """How much is done: quick or smoke."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Everything but the pretraining is done anew for each."""
    out: Path | None = None
    """Folder of the results; runs/reward-quality-PRESET unless given."""
    jobs: int | None = None
    """Stages at once; as many as there are cores unless given."""
    restart: bool = False
    """Set earlier results aside (they are renamed, not deleted) and begin anew."""

    @property
    def folder(self) -> Path:
        return self.out or Path("runs") / f"reward-quality-{self.preset}"


def main(options: Options, console: Console) -> int:
    """Run what is not finished yet, then write the report; returns the exit code."""
    curve, seeds, out = get_reward_curve(options.preset), options.seeds, options.folder
    check_seeds(seeds)
    jobs = count_of_jobs(options.jobs)
    set_earlier_aside(out, options.restart, console)
    with lock(out):
        open_curve(out, curve)
        pretraining, tasks = pretraining_task(curve.rlhf), make_curve_tasks(curve, seeds)
        announce(f"Reward models {options.preset}", out, [pretraining, *tasks], console)
        failures = run_with_progress(out, curve.rlhf, [pretraining], 1, console)
        if not failures:
            share_pretraining(out, seeds)
            failures = run_with_progress(out, curve.rlhf, tasks, jobs, console)
        if not failures:
            from agents.rlhf.reward_curve_report import read_curve, write_curve

            paths = write_curve(out, read_curve(out, curve, seeds))
            print(paths[0].read_text(encoding="utf-8"))
            print("written: " + ", ".join(str(path) for path in paths))
    return print_failures(failures)


if __name__ == "__main__":
    import tyro

    chosen = tyro.cli(Options, description=__doc__)
    sys.exit(exit_code(lambda: main(chosen, Console()), chosen.folder, RLHFError))
