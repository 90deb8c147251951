"""Length hacking: annotators like long answers, a reward model learns it, PPO becomes verbose; and four remedies.

    python scripts/length_hacking.py --preset smoke                     # seconds
    python scripts/length_hacking.py --preset quick --seeds 0 1 2 3 4   # under 20 minutes on two cores

The remedies, side by side: a length penalty in the reward, length-balanced pairs, a pessimistic ensemble of reward
models, and DPO on the same rankings; beside them PPO and DPO with an annotator who has no bias. An alarm listens to
every PPO run. Writes ``length_hacking.csv``, ``length_hacking.md`` and ``length_hacking.png``. Finished stages are
kept: after Ctrl-C, or for more seeds, the same command goes on.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from agents.benchmark.pool import available_cores
from agents.benchmark.results import lock, set_aside
from agents.benchmark.suites import BenchmarkError
from agents.rlhf.length_hacking import MODELS_SEED, Experiment, get_experiment, make_hacking_stages, open_experiment
from agents.rlhf.running import Advanced, Event, Finished, Task, is_finished, run_in_processes
from agents.rlhf.settings import RLHFError


@dataclass(frozen=True)
class Options:
    preset: str = "quick"
    """How much is done: quick or smoke."""
    seeds: tuple[int, ...] = (0,)
    """Of annotators, reward models and learning; the SFT model is made once."""
    out: Path | None = None
    """Folder of the results; runs/length-hacking-PRESET unless given."""
    jobs: int | None = None
    """Stages at once; as many as there are cores unless given."""
    restart: bool = False
    """Set earlier results aside (they are renamed, not deleted) and begin anew."""

    @property
    def folder(self) -> Path:
        return self.out or Path("runs") / f"length-hacking-{self.preset}"

    @property
    def experiment(self) -> Experiment:
        """What is to be run.

        Raises:
            RLHFError: an unknown preset, or seeds that are no seeds.
        """
        if len(set(self.seeds)) != len(self.seeds) or not self.seeds or min(self.seeds) < 0:
            raise RLHFError(f"--seeds must be different numbers from 0 on, at least one; got {list(self.seeds)}.")
        if self.jobs is not None and self.jobs < 1:
            raise RLHFError(f"--jobs must be at least 1, got {self.jobs}.")
        return get_experiment(self.preset)


def main(options: Options, console: Console) -> int:
    """Run what is not finished yet, then write the report; returns the exit code."""
    experiment, out = options.experiment, options.folder
    if options.restart and (old := set_aside(out)) is not None:
        console.print(f"Earlier results are now in {old}.", highlight=False)
    tasks = [Task(MODELS_SEED, stage) for stage in make_hacking_stages(experiment, options.seeds)]
    with lock(out):
        open_experiment(out, experiment)
        done = sum(is_finished(out, task) for task in tasks)
        console.print(f"{len(tasks)} stages, {done} finished before, in {out}", highlight=False)

        def on_event(event: Event) -> None:
            nonlocal done
            if isinstance(event, Advanced):
                return
            done += 1
            how = f"{event.seconds:.0f} s" if isinstance(event, Finished) else "FAILED"
            console.print(f"  {done}/{len(tasks)} {event.task.stage.name}: {how}", highlight=False)

        jobs = available_cores() if options.jobs is None else options.jobs
        failures = run_in_processes(out, experiment.rlhf, tasks, jobs, on_event)
        if not failures:
            from agents.rlhf.length_hacking_report import write_hacking

            paths = write_hacking(out, experiment, options.seeds)
            print(paths[1].read_text(encoding="utf-8"))
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
        print(f"\nStopped. The same command goes on from what has finished in {chosen.folder}.", file=sys.stderr)
        sys.exit(130)
