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

from agents.benchmark.command import exit_code
from agents.benchmark.results import lock
from agents.rlhf.length_hacking import MODELS_SEED, Experiment, get_experiment, make_hacking_stages, open_experiment
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
        check_seeds(self.seeds)
        return get_experiment(self.preset)


def main(options: Options, console: Console) -> int:
    """Run what is not finished yet, then write the report; returns the exit code."""
    experiment, out, jobs = options.experiment, options.folder, count_of_jobs(options.jobs)
    set_earlier_aside(out, options.restart, console)
    tasks = [Task(MODELS_SEED, stage) for stage in make_hacking_stages(experiment, options.seeds)]
    with lock(out):
        open_experiment(out, experiment)
        announce(f"Length hacking {options.preset}", out, tasks, console)
        failures = run_with_progress(out, experiment.rlhf, tasks, jobs, console)
        if not failures:
            from agents.rlhf.length_hacking_report import write_hacking

            paths = write_hacking(out, experiment, options.seeds)
            print(paths[1].read_text(encoding="utf-8"))
            print("written: " + ", ".join(str(path) for path in paths))
    return print_failures(failures)


if __name__ == "__main__":
    import tyro

    chosen = tyro.cli(Options, description=__doc__)
    sys.exit(exit_code(lambda: main(chosen, Console()), chosen.folder, RLHFError))
