"""Running stages: each once, in its own process, as soon as what it needs is there; finished ones are kept.

OUT/settings.json          what is run; other settings are refused
OUT/seed-0/STAGE/          a finished stage: figures.json, models, data
OUT/seed-0/work/STAGE/     what an interrupted stage goes on from
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from agents import distributed
from agents.benchmark.pool import for_children
from agents.benchmark.results import open_folder, versions, write_json
from agents.rlhf.settings import RLHFError, Settings
from agents.rlhf.stages import Job, Stage, make_stages

FIGURES = "figures.json"


@dataclass(frozen=True)
class Task:
    """A stage of the pipeline of one seed."""

    seed: int
    stage: Stage

    @property
    def label(self) -> str:
        return f"seed {self.seed}: {self.stage.name}"


@dataclass(frozen=True)
class Advanced:
    task: Task
    share: float
    words: str


@dataclass(frozen=True)
class Finished:
    task: Task
    seconds: float


@dataclass(frozen=True)
class Failed:
    task: Task
    trace: str


Event = Advanced | Finished | Failed
OnEvent = Callable[[Event], Any]


def seed_folder(out: Path, seed: int) -> Path:
    """Where the pipeline of a seed stands."""
    return out / f"seed-{seed}"


def is_finished(out: Path, task: Task) -> bool:
    """A stage's folder gets its name once everything in it is written."""
    return (seed_folder(out, task.seed) / task.stage.name).is_dir()


def make_tasks(settings: Settings, seeds: Sequence[int]) -> list[Task]:
    """All stages of all seeds, each after those that it needs."""
    return [Task(seed, stage) for stage in make_stages(settings) for seed in seeds]


def open_pipeline(out: Path, settings: Settings) -> None:
    """Make the folder of a pipeline, or go on with one.

    Raises:
        BenchmarkError: it holds something else, or results of other settings.
    """
    open_folder(out, {"rlhf": asdict(settings), "versions": versions()})


def play(out: Path, settings: Settings, task: Task, report: Callable[[float, str], Any]) -> float:
    """Run a stage; seconds it took. Its folder is written under another name and renamed when it is complete.

    Several processes call it together: they share the stages that are collective, and the first runs the others.
    """
    folder = seed_folder(out, task.seed)
    work, unfinished = folder / "work" / task.stage.name, folder / f".{task.stage.name}.partial"
    started, computed = time.perf_counter(), time.process_time()

    def begin() -> None:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        work.mkdir(parents=True, exist_ok=True)

    def run() -> None:
        task.stage.run(Job(settings, task.seed, folder, unfinished, work, report))

    def finish() -> None:
        figures = json.loads((unfinished / FIGURES).read_text(encoding="utf-8"))
        spent = {"seconds": time.perf_counter() - started, "processor_seconds": time.process_time() - computed}
        write_json(unfinished / FIGURES, {**{name: round(x, 2) for name, x in spent.items()}, **figures})
        unfinished.replace(folder / task.stage.name)
        shutil.rmtree(work, ignore_errors=True)

    distributed.in_first(begin)
    if task.stage.collective:
        run()
    else:
        distributed.in_first(run)
    distributed.in_first(finish)
    return time.perf_counter() - started


def run_together(out: Path, settings: Settings, tasks: Sequence[Task], on_event: OnEvent) -> list[Failed]:
    """Run stages one after the other, in all of the processes that ``accelerate launch`` has started; errors are
    raised. The folder is one that all of them see."""
    for task in tasks:
        if not is_finished(out, task):

            def report(share: float, words: str, task: Task = task) -> None:
                on_event(Advanced(task, share, words))

            on_event(Finished(task, play(out, settings, task, report)))
        distributed.gather(None)  # nobody asks for the next one before everybody has seen this
    return []


def run_in_processes(
    out: Path, settings: Settings, tasks: Sequence[Task], jobs: int, on_event: OnEvent
) -> list[Failed]:
    """Run stages in up to ``jobs`` processes at once, of one thread each.

    A stage that fails does not stop those that do not need it. Returns what failed.
    """
    done = {(task.seed, task.stage.name) for task in tasks if is_finished(out, task)}
    waiting = [task for task in tasks if not is_finished(out, task)]
    workers: list[_Worker] = []
    failed: list[Failed] = []
    try:
        while waiting or any(worker.task for worker in workers):
            ready = [task for task in waiting if all((task.seed, name) in done for name in task.stage.needs)]
            busy = sum(worker.task is not None for worker in workers)
            for task in ready[: jobs - busy]:
                waiting.remove(task)
                idle = [worker for worker in workers if worker.task is None]
                if not idle:
                    idle = [_Worker(out, settings)]
                    workers += idle
                idle[0].give(task)
            by_connection = {worker.connection: worker for worker in workers if worker.task is not None}
            if not by_connection:
                break  # what is left needs something that failed
            for connection in wait(list(by_connection)):
                worker = by_connection[connection]  # type: ignore[index]
                event = worker.hear()
                if isinstance(event, Finished):
                    done.add((event.task.seed, event.task.stage.name))
                elif isinstance(event, Failed):
                    failed.append(event)
                    if not worker.process.is_alive():
                        workers.remove(worker)
                on_event(event)
    finally:
        with for_children():  # a second Ctrl-C must not leave processes behind
            for worker in workers:
                worker.process.terminate()
                worker.process.join(5)
    return failed


class _Worker:
    """A process that runs one stage after the other; it imports what they need once."""

    def __init__(self, out: Path, settings: Settings) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, out, settings), daemon=True)
        with for_children():
            self.process.start()
        theirs.close()
        self.task: Task | None = None

    def give(self, task: Task) -> None:
        self.task = task
        with contextlib.suppress(BrokenPipeError):  # one that has just died is found by its closed pipe
            self.connection.send(task)

    def hear(self) -> Event:
        """What it has to say; if it has died, that."""
        assert self.task is not None
        try:
            event: Event = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            event = Failed(self.task, f"The process of this stage ended with exit code {self.process.exitcode}.")
        if isinstance(event, Finished | Failed):
            self.task = None
        return event


def _work(connection: Connection, out: Path, settings: Settings) -> None:
    import torch
    from transformers.utils import logging

    torch.set_num_threads(1)
    logging.disable_progress_bar()
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent is gone
        while True:
            task: Task = connection.recv()

            def report(share: float, words: str, task: Task = task) -> None:
                connection.send(Advanced(task, share, words))

            try:
                seconds = play(out, settings, task, report)
            except (BrokenPipeError, ConnectionResetError):
                raise
            except Exception:
                connection.send(Failed(task, traceback.format_exc()))
            else:
                connection.send(Finished(task, seconds))


def read_figures(out: Path, seed: int, stage: str) -> dict[str, Any] | None:
    """The figures of a finished stage; None if it is not finished.

    Raises:
        RLHFError: they are damaged.
    """
    path = seed_folder(out, seed) / stage / FIGURES
    if not path.is_file():
        return None
    try:
        figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RLHFError(
            f"{path} is damaged: {error}. Delete the folder {path.parent} to run that stage again."
        ) from None
    return figures
