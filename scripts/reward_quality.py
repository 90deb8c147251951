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

from agents.benchmark.pool import available_cores
from agents.benchmark.results import lock, set_aside
from agents.benchmark.suites import BenchmarkError
from agents.rlhf.methods_run import pretraining_task, share_pretraining
from agents.rlhf.reward_curve import get_reward_curve, make_curve_tasks, open_curve
from agents.rlhf.running import Advanced, Event, Finished, is_finished, run_in_processes
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


def main(options: Options, console: Console) -> int:
    """Run what is not finished yet, then write the report; returns the exit code."""
    curve, seeds = get_reward_curve(options.preset), options.seeds
    if len(set(seeds)) != len(seeds) or not seeds or min(seeds) < 0:
        raise RLHFError(f"--seeds must be different numbers from 0 on, at least one; got {list(seeds)}.")
    jobs = available_cores() if options.jobs is None else options.jobs
    if jobs < 1:
        raise RLHFError(f"--jobs must be at least 1, got {jobs}.")
    out = options.out or Path("runs") / f"reward-quality-{options.preset}"
    if options.restart and (old := set_aside(out)) is not None:
        console.print(f"Earlier results are now in {old}.", highlight=False)
    with lock(out):
        open_curve(out, curve)
        pretraining, tasks = pretraining_task(curve.rlhf), make_curve_tasks(curve, seeds)
        done = sum(is_finished(out, task) for task in [pretraining, *tasks])
        console.print(f"{len(tasks) + 1} stages, {done} finished before, in {out}", highlight=False)

        def on_event(event: Event) -> None:
            if not isinstance(event, Advanced):
                how = f"{event.seconds:.0f} s" if isinstance(event, Finished) else "FAILED"
                console.print(f"  {event.task.label}: {how}", highlight=False)

        failures = run_in_processes(out, curve.rlhf, [pretraining], 1, on_event)
        if not failures:
            share_pretraining(out, seeds)
            failures = run_in_processes(out, curve.rlhf, tasks, jobs, on_event)
        if not failures:
            from agents.rlhf.reward_curve_report import read_curve, write_curve

            paths = write_curve(out, read_curve(out, curve, seeds))
            print(paths[0].read_text(encoding="utf-8"))
            print("written: " + ", ".join(str(path) for path in paths))
    for failure in failures:
        print(f"\nFAILED: {failure.task.label}\n{failure.trace}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    import tyro

    chosen = tyro.cli(Options, description=__doc__)
    try:
        sys.exit(main(chosen, Console()))
    except (RLHFError, BenchmarkError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from the stages that are finished.", file=sys.stderr)
        sys.exit(130)
