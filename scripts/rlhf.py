"""RLHF from end to end, offline: pretraining, SFT, rankings, a reward model, PPO, evaluation and a report.

    python scripts/rlhf.py --preset quick                       # a small language of our own; minutes on two cores
    python scripts/rlhf.py --preset quick --seeds 0 1 2 3 4     # five times, with intervals
    python scripts/rlhf.py --preset frontier                    # several kl_coef: the reward-KL frontier
    python scripts/rlhf.py --model gpt2 --prompts imdb.jsonl --reward lvwerra/distilbert-imdb --max-new-tokens 48
    accelerate launch --multi_gpu --num_processes 4 scripts/rlhf.py --model gpt2 …

Each stage has a folder of its own. Finished stages are kept and not run again: after Ctrl-C or a crash, or for more
seeds, the same command goes on.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from agents import distributed
from agents.benchmark.pool import available_cores
from agents.benchmark.results import lock, set_aside
from agents.benchmark.suites import BenchmarkError
from agents.rlhf.running import (
    Advanced,
    Event,
    Failed,
    Finished,
    Task,
    is_finished,
    make_tasks,
    open_pipeline,
    run_in_processes,
    run_together,
)
from agents.rlhf.settings import RLHFError, Settings, Sources, get_settings, with_sources
from agents.rlhf.worlds import make_world


@dataclass(frozen=True)
class Options:
    preset: str = "quick"
    """How much is done: quick, frontier, short or smoke."""
    seeds: tuple[int, ...] = (0,)
    """One pipeline for each."""
    out: Path | None = None
    """Folder of the results; runs/rlhf-PRESET unless given."""
    jobs: int | None = None
    """Stages at once; as many as there are cores unless given."""
    restart: bool = False
    """Set earlier results aside (they are renamed, not deleted) and begin anew."""
    model: str | None = None
    """A causal language model instead of the small one that is trained here: hub name or folder."""
    prompts: str | None = None
    """Its prompts: a JSONL file of {"prompt": …} rows, or a data set (hub name or folder)."""
    reward: str | None = None
    """The judge: a sequence classifier (hub name or folder), a reward by name, or JSON of any form of reward=."""
    gold: str | None = None
    """A second judge that is only reported; as --reward."""
    demonstrations: str | None = None
    """JSONL of {"prompt": …, "completion": …} rows for SFT before PPO; none: no SFT."""
    max_new_tokens: int = 24
    """Length budget of a text, EOS included."""
    prompt_length: int | None = None
    """Longer prompts lose their beginning; unless given, the longest prompt sets the length."""
    bf16: bool = False
    """Compute in bfloat16 (GPUs)."""
    gradient_checkpointing: bool = False
    """Less memory, more time."""
    kl_coefs: tuple[float, ...] | None = None
    """Coefficients of the KL penalty, one PPO run each; the first one counts. Default: the preset's."""
    updates: int | None = None
    """Updates of PPO. Default: the preset's."""
    num_envs: int | None = None
    """Texts that are written at once. Default: the preset's."""
    learning_rate: float | None = None
    """Of PPO. Default: the preset's, or 1e-5 with --model."""

    @property
    def folder(self) -> Path:
        return self.out or Path("runs") / f"rlhf-{self.preset}"

    @property
    def settings(self) -> Settings:
        """What is to be run.

        Raises:
            RLHFError: an unknown preset, or sources that do not go together.
        """
        sources = Sources(
            model=self.model,
            prompts=self.prompts,
            reward=_spec(self.reward),
            gold=_spec(self.gold),
            demonstrations=self.demonstrations,
            max_new_tokens=self.max_new_tokens,
            prompt_length=self.prompt_length,
            bf16=self.bf16,
            gradient_checkpointing=self.gradient_checkpointing,
        )
        settings = with_sources(get_settings(self.preset), sources)
        names = ("kl_coefs", "updates", "num_envs", "learning_rate")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return replace(settings, ppo=replace(settings.ppo, **given))


def _spec(text: str | None) -> Any:
    """A judge from the command line: JSON where it is, else the text itself."""
    if text is None or not text.lstrip().startswith(("{", "[")):
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise RLHFError(f"The judge {text!r} begins like JSON and is none: {error}.") from None


def main(options: Options, console: Console) -> int:
    """Run what is not finished yet, then report; returns the exit code."""
    settings, out = options.settings, options.folder
    jobs = available_cores() if options.jobs is None else options.jobs
    if jobs < 1:
        raise RLHFError(f"--jobs must be at least 1, got {jobs}.")
    if len(set(options.seeds)) != len(options.seeds) or not options.seeds:
        raise RLHFError(f"--seeds must be different numbers, at least one; got {list(options.seeds)}.")
    make_world(settings.sources)  # what cannot be had shows here, before anything is trained
    first = distributed.rank() == 0
    with lock(out) if first else contextlib.nullcontext():
        distributed.in_first(lambda: open_out(out, settings, options.restart, console))
        tasks = make_tasks(settings, options.seeds)
        done = sum(is_finished(out, task) for task in tasks)
        kept = f" ({done} finished before)" if done else ""
        console.print(f"RLHF {options.preset}: {len(tasks)} stages{kept}, in {out}", highlight=False)
        failures = run_with_progress(out, settings, tasks, jobs, console) if done < len(tasks) else []
        if first and not failures:
            report(out, settings, options.seeds, console)
    for failure in failures:
        print(f"\nFAILED: {failure.task.label}\n{failure.trace}", file=sys.stderr)
    if failures:
        print("The same command goes on from the stages that are finished.", file=sys.stderr)
    return 1 if failures else 0


def open_out(out: Path, settings: Settings, restart: bool, console: Console) -> None:
    """Make the folder, or go on with it."""
    if restart and (old := set_aside(out)) is not None:
        console.print(f"Earlier results are now in {old}.", highlight=False)
    open_pipeline(out, settings)


def run_with_progress(
    out: Path, settings: Settings, tasks: Sequence[Task], jobs: int, console: Console
) -> list[Failed]:
    """Run stages, with a bar for each that runs and a line for each that ends."""
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


def report(out: Path, settings: Settings, seeds: Sequence[int], console: Console) -> None:
    """Print and write the report."""
    from agents.rlhf.report import print_report, read_results, write_report

    results = read_results(out, settings, seeds)
    page = write_report(out, results)
    print_report(results, console)
    console.print(f"Report: {page}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    import tyro

    chosen = tyro.cli(Options, description=__doc__)
    try:
        distributed.join()  # with the other processes of `accelerate launch`, if there are any
        sys.exit(main(chosen, Console(quiet=distributed.rank() > 0)))
    except (RLHFError, BenchmarkError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        command = shlex.join(["python", *(word for word in sys.argv if word != "--restart")])
        print(f"\nStopped. The stages that have finished are kept in {chosen.folder}.", file=sys.stderr)
        print(f"The same command goes on from there:\n  {command}", file=sys.stderr)
        sys.exit(130)
