"""RLHF from end to end, offline: pretraining, SFT, rankings, a reward model, PPO, evaluation and a report.

    python scripts/rlhf.py --preset quick                       # a small language of our own; minutes on two cores
    python scripts/rlhf.py --preset quick --seeds 0 1 2 3 4     # five times, with intervals
    python scripts/rlhf.py --preset frontier                    # several kl_coef: the reward-KL frontier
    python scripts/rlhf.py --methods sft,best_of_n,rejection_sft,rest,dpo,ipo,rlaif,rloo,grpo,ppo,replay
    python scripts/rlhf.py --model gpt2 --prompts imdb.jsonl --reward lvwerra/distilbert-imdb --max-new-tokens 48
    accelerate launch --multi_gpu --num_processes 4 scripts/rlhf.py --model gpt2 …

Each stage has a folder of its own. Finished stages are kept and not run again: after Ctrl-C or a crash, or for more
seeds, the same command goes on.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from agents import distributed
from agents.benchmark.command import exit_code
from agents.benchmark.results import lock
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
from agents.rlhf.program import (
    announce,
    check_seeds,
    count_of_jobs,
    print_failures,
    run_with_progress,
    set_earlier_aside,
)
from agents.rlhf.running import (
    Failed,
    make_tasks,
    open_pipeline,
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
        check_seeds(seeds)
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
    if options.tune and options.methods is None:
        raise RLHFError("--tune goes with --methods.")
    failures = run_pipelines(options, console) if options.methods is None else compare(options, console)
    return print_failures(failures)


def run_pipelines(options: Options, console: Console) -> list[Failed]:
    """The whole course from pretraining to PPO, once for each seed; returns what failed."""
    settings, out, seeds = options.settings, options.folder, options.seed_numbers
    jobs = count_of_jobs(options.jobs)
    make_world(settings.sources)  # what cannot be had shows here, before anything is trained
    first = distributed.rank() == 0
    with lock(out) if first else contextlib.nullcontext():
        distributed.in_first(lambda: open_out(out, settings, options.restart, console))
        tasks = make_tasks(settings, seeds)
        announce(f"RLHF {options.preset}", out, tasks, console)
        failures = run_with_progress(out, settings, tasks, jobs, console)
        if first and not failures:
            report(out, settings, seeds, console)
    return failures


def compare(options: Options, console: Console) -> list[Failed]:
    """Methods beside each other, from the same models and under one budget; returns what failed."""
    if options.model is not None or options.given_to_ppo:
        raise RLHFError("--methods compares on the small language: it takes no model, no judge, and no options of PPO.")
    preset, out, seeds = get_methods_preset(options.preset), options.folder, options.seed_numbers
    jobs = count_of_jobs(options.jobs)
    runs = make_runs(preset, get_methods([name for name in (options.methods or "").split(",") if name]), options.tune)
    set_earlier_aside(out, options.restart, console)
    with lock(out):
        open_methods(out, preset, runs, seeds)
        tasks, pretraining = make_methods_tasks(preset, runs, seeds), pretraining_task(preset.rlhf)
        announce(f"Methods {options.preset}", out, [*tasks, pretraining], console)
        failures = run_with_progress(out, preset.rlhf, [pretraining], 1, console)
        if not failures:
            share_pretraining(out, seeds)
            failures = run_with_progress(out, preset.rlhf, tasks, jobs, console)
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


def open_out(out: Path, settings: Settings, restart: bool, console: Console) -> None:
    """Make the folder, or go on with it."""
    set_earlier_aside(out, restart, console)
    open_pipeline(out, settings)


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

    def run() -> int:
        distributed.join()  # with the other processes of `accelerate launch`, if there are any
        return main(chosen, Console(quiet=distributed.rank() > 0))

    sys.exit(exit_code(run, chosen.folder, RLHFError))
