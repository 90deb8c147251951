"""RLHF from end to end, offline: pretraining, SFT, rankings, a reward model, PPO, evaluation and a report.

    python scripts/rlhf.py --preset quick                       # a small language of our own; minutes on two cores
    python scripts/rlhf.py --preset quick --seeds 0 1 2 3 4     # five times, with intervals
    python scripts/rlhf.py --preset frontier                    # several kl_coef: the reward-KL frontier
    python scripts/rlhf.py --methods sft,best_of_n,rejection_sft,rest,dpo,ipo,rloo,grpo,ppo,replay
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
from agents.rlhf.methods import get_methods
from agents.rlhf.methods_results import MethodsComparison, read_comparison
from agents.rlhf.methods_run import (
    SEEDS,
    TUNING_SEED,
    get_methods_preset,
    make_methods_tasks,
    make_runs,
    open_methods,
    pretraining_task,
    share_pretraining,
)
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
    seeds: tuple[int, ...] | None = None
    """One pipeline for each; 0 unless given, with --methods 0 1 2."""
    methods: str | None = None
    """Compare these methods under one budget instead, by name, with commas between them."""
    tune: bool = False
    """With --methods: every combination of hyper-parameters that each was chosen among, on the seed for that."""
    out: Path | None = None
    """Folder of the results; runs/rlhf-PRESET, with --methods runs/methods-PRESET, unless given."""
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
        kind = "rlhf" if self.methods is None else "methods-tuning" if self.tune else "methods"
        return self.out or Path("runs") / f"{kind}-{self.preset}"

    @property
    def seed_numbers(self) -> tuple[int, ...]:
        """The seeds of all pipelines.

        Raises:
            RLHFError: one of them twice, none, or --tune for others than its own.
        """
        default = (0,) if self.methods is None else (TUNING_SEED,) if self.tune else SEEDS
        seeds = default if self.seeds is None else self.seeds
        if len(set(seeds)) != len(seeds) or not seeds:
            raise RLHFError(f"--seeds must be different numbers, at least one; got {list(seeds)}.")
        return seeds

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
        return replace(settings, ppo=replace(settings.ppo, **self.given_to_ppo))

    @property
    def given_to_ppo(self) -> dict[str, Any]:
        """Options of PPO that were given."""
        names = ("kl_coefs", "updates", "num_envs", "learning_rate")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    @property
    def count_of_jobs(self) -> int:
        """Stages at once."""
        return available_cores() if self.jobs is None else self.jobs


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
    if options.count_of_jobs < 1:
        raise RLHFError(f"--jobs must be at least 1, got {options.jobs}.")
    if options.tune and options.methods is None:
        raise RLHFError("--tune goes with --methods.")
    failures = run_pipelines(options, console) if options.methods is None else compare(options, console)
    for failure in failures:
        print(f"\nFAILED: {failure.task.label}\n{failure.trace}", file=sys.stderr)
    if failures:
        print("The same command goes on from the stages that are finished.", file=sys.stderr)
    return 1 if failures else 0


def run_pipelines(options: Options, console: Console) -> list[Failed]:
    """The whole course from pretraining to PPO, once for each seed; returns what failed."""
    settings, out, seeds = options.settings, options.folder, options.seed_numbers
    make_world(settings.sources)  # what cannot be had shows here, before anything is trained
    first = distributed.rank() == 0
    with lock(out) if first else contextlib.nullcontext():
        distributed.in_first(lambda: open_out(out, settings, options.restart, console))
        tasks = make_tasks(settings, seeds)
        announce(f"RLHF {options.preset}", out, tasks, console)
        failures = run_with_progress(out, settings, tasks, options.count_of_jobs, console)
        if first and not failures:
            report(out, settings, seeds, console)
    return failures


def compare(options: Options, console: Console) -> list[Failed]:
    """Methods beside each other, from the same models and under one budget; returns what failed."""
    if options.model is not None or options.given_to_ppo:
        raise RLHFError("--methods compares on the small language: it takes no model, no judge, and no options of PPO.")
    preset, out, seeds = get_methods_preset(options.preset), options.folder, options.seed_numbers
    runs = make_runs(preset, get_methods([name for name in (options.methods or "").split(",") if name]), options.tune)
    if options.restart and (old := set_aside(out)) is not None:
        console.print(f"Earlier results are now in {old}.", highlight=False)
    with lock(out):
        open_methods(out, preset, runs, seeds)
        tasks, pretraining = make_methods_tasks(preset, runs, seeds), pretraining_task(preset.rlhf)
        announce(f"Methods {options.preset}", out, [*tasks, pretraining], console)
        failures = run_with_progress(out, preset.rlhf, [pretraining], 1, console)
        if not failures:
            share_pretraining(out, seeds)
            failures = run_with_progress(out, preset.rlhf, tasks, options.count_of_jobs, console)
        if not failures:
            report_methods(options.tune, out, read_comparison(out, preset, runs, seeds), console)
    return failures


def report_methods(tuned: bool, out: Path, comparison: MethodsComparison, console: Console) -> None:
    """Print and write what was compared, or tuned."""
    from agents.rlhf.methods_report import print_comparison, write_comparison
    from agents.rlhf.methods_tuning import print_tuning, write_tuning

    path = write_tuning(out, comparison) if tuned else write_comparison(out, comparison)
    (print_tuning if tuned else print_comparison)(comparison, console)
    console.print(f"Report: {path}", highlight=False, soft_wrap=True)


def announce(what: str, out: Path, tasks: Sequence[Task], console: Console) -> None:
    """Say what is to be done."""
    done = sum(is_finished(out, task) for task in tasks)
    kept = f" ({done} finished before)" if done else ""
    console.print(f"{what}: {len(tasks)} stages{kept}, in {out}", highlight=False)


def open_out(out: Path, settings: Settings, restart: bool, console: Console) -> None:
    """Make the folder, or go on with it."""
    if restart and (old := set_aside(out)) is not None:
        console.print(f"Earlier results are now in {old}.", highlight=False)
    open_pipeline(out, settings)


def run_with_progress(
    out: Path, settings: Settings, tasks: Sequence[Task], jobs: int, console: Console
) -> list[Failed]:
    """Run stages that are not finished yet, with a bar for each that runs and a line for each that ends."""
    if all(is_finished(out, task) for task in tasks):
        return []
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
