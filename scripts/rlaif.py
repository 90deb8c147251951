"""RLAIF, offline: a constitution, critique and revision, an AI judge, and policies that learn from its preferences.

    python scripts/rlaif.py                                     # minutes; reviews with faults, all made here
    python scripts/rlaif.py --preset quick --seeds 0 1 2        # with intervals over seeds
    python scripts/rlaif.py --preset smoke                      # seconds
    python scripts/rlaif.py --chat-model Qwen/Qwen2.5-0.5B-Instruct --prompts prompts.jsonl --constitution mine.yaml

Offline, a judge and a critic are trained on a small language; policies that learn from the judge's labels are compared
with those that learn from a simulated human's, by rules that count faults. Writes ``rlaif.md``, ``rlaif.json`` and
``rlaif.png``. Finished stages are kept: after Ctrl-C, or for more seeds, the same command goes on.

With ``--chat-model`` it criticises and revises its own answers to your prompts (``revisions.jsonl``, for SFT) and
compares pairs of them (``preferences.jsonl``, for a reward model or DPO).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from agents.benchmark.command import exit_code
from agents.benchmark.results import lock, open_folder, versions
from agents.rlhf.program import (
    announce,
    check_seeds,
    count_of_jobs,
    print_failures,
    run_with_progress,
    set_earlier_aside,
)
from agents.rlhf.rlaif import make_rlaif_stages
from agents.rlhf.rlaif_settings import RLAIF, get_rlaif
from agents.rlhf.running import Task
from agents.rlhf.settings import RLHFError


@dataclass(frozen=True)
class Options:
    preset: str = "quick"
    """How much is done: quick or smoke."""
    seeds: tuple[int, ...] = (0,)
    """Everything is done anew for each."""
    out: Path | None = None
    """Folder of the results; runs/rlaif-PRESET unless given."""
    jobs: int | None = None
    """Stages at once; as many as there are cores unless given."""
    restart: bool = False
    """Set earlier results aside (they are renamed, not deleted) and begin anew."""
    chat_model: str | None = None
    """A chat model of yours as writer, critic and judge: hub name or folder."""
    prompts: Path | None = None
    """Its prompts: JSONL of {"prompt": …} rows."""
    constitution: Path | None = None
    """A YAML file of principles for --chat-model; default the one that comes with the package."""
    max_new_tokens: int = 256
    """Of an answer, a critique or a revision by --chat-model."""
    min_mass: float = 0.5
    """The least probability of "A" and "B" together that counts as an answer of --chat-model."""

    @property
    def folder(self) -> Path:
        return self.out or Path("runs") / (f"rlaif-{self.preset}" if self.chat_model is None else "rlaif-chat")

    def check(self) -> None:
        """Say what does not go together.

        Raises:
            RLHFError: that.
        """
        check_seeds(self.seeds)
        if (self.chat_model is None) != (self.prompts is None):
            raise RLHFError("--chat-model and --prompts go together.")
        if self.chat_model is None and self.constitution is not None:
            raise RLHFError("--constitution goes with --chat-model: the small models have learnt one of their own.")


def main(options: Options, console: Console) -> int:
    """Run what is not finished yet, then report; returns the exit code."""
    options.check()
    if options.chat_model is not None:
        return with_chat_model(options, console)
    rlaif, out, jobs = get_rlaif(options.preset), options.folder, count_of_jobs(options.jobs)
    set_earlier_aside(out, options.restart, console)
    tasks = [Task(seed, stage) for seed in options.seeds for stage in make_rlaif_stages(rlaif)]
    with lock(out):
        open_folder(out, {"rlaif": settings_of(rlaif), "versions": versions()})
        announce(f"RLAIF {options.preset}", out, tasks, console)
        failures = run_with_progress(out, rlaif.rlhf, tasks, jobs, console)
        if not failures:
            from agents.rlhf.rlaif_report import write_rlaif

            paths = write_rlaif(out, rlaif, options.seeds)
            print(paths[0].read_text(encoding="utf-8"))
            print("written: " + ", ".join(str(path) for path in paths))
    return print_failures(failures)


def settings_of(rlaif: RLAIF) -> dict[str, Any]:
    """As JSON values, with the constitution."""
    from dataclasses import asdict

    from agents.lm.constitution import load_constitution

    return {**asdict(rlaif), "constitution": asdict(load_constitution())}


def with_chat_model(options: Options, console: Console) -> int:
    """Critique, revision and preferences by somebody's own chat model."""
    from agents.lm.ai_judge import AIJudge
    from agents.lm.chat import ChatModel
    from agents.lm.constitution import load_constitution
    from agents.lm.critique import criticise_and_revise, save_revisions
    from agents.lm.preferences import save_rankings
    from textenvs.prompt_rows import read_prompts

    try:
        constitution = load_constitution(options.constitution)
        prompts = [str(prompt) for prompt in read_prompts(options.prompts).prompts]
        assert options.chat_model is not None
        chat = ChatModel.from_pretrained(options.chat_model)
        judge = AIJudge(chat, constitution, min_mass=options.min_mass, on_neither="skip")
        seed, tokens = options.seeds[0], options.max_new_tokens
        with Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console) as bars:
            bar = bars.add_task("critique and revision", total=1.0)
            revisions = criticise_and_revise(
                chat,
                constitution,
                prompts,
                max_new_tokens=tokens,
                seed=seed,
                on_progress=lambda share, what: bars.update(bar, completed=share),
            )
            bar = bars.add_task("answers", total=2 * len(prompts))
            asked = [
                [{"role": "user", "content": constitution.request(prompt)}] for prompt in prompts for _ in range(2)
            ]
            texts = chat.replies(
                asked, max_new_tokens=tokens, seed=seed, on_progress=lambda n, of: bars.update(bar, completed=n)
            )
            pairs = [(x, y) for x, y in zip(texts[::2], texts[1::2], strict=True)]
            bar = bars.add_task("comparisons", total=2 * len(prompts))
            rankings, left_out = judge.label(
                prompts, pairs, seed=seed, on_progress=lambda n, of: bars.update(bar, completed=n)
            )
    except (ValueError, TypeError, OSError, ImportError) as error:
        raise RLHFError(str(error)) from error
    options.folder.mkdir(parents=True, exist_ok=True)
    save_revisions(options.folder / "revisions.jsonl", revisions)
    save_rankings(options.folder / "preferences.jsonl", rankings)
    for row in left_out:
        print(f"left out: row {row}, {prompts[row]!r:.60}: the judge answered neither A nor B", file=sys.stderr)
    console.print(
        f"{len(revisions)} revisions and {len(rankings)} preferences ({len(left_out)} left out) in {options.folder}",
        highlight=False,
        soft_wrap=True,
    )
    return 0


if __name__ == "__main__":
    import tyro

    chosen = tyro.cli(Options, description=__doc__)
    sys.exit(exit_code(lambda: main(chosen, Console()), chosen.folder, RLHFError))
