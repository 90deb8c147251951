"""Many runs in parallel processes, one torch thread each.

A process plays one run after the other. One that dies (killed for memory, say) costs the run it was playing
and is replaced. Workers hear of a Ctrl-C only through the parent, which ends them; if the parent itself is
killed they notice at their next message. Finished runs are on disk before they are reported, so nothing that
finished is lost.
"""

import contextlib
import multiprocessing
import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from agents.benchmark.run import Progress, play
from agents.benchmark.suites import RunSetting

ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


@dataclass(frozen=True)
class Advanced:
    setting: RunSetting
    progress: Progress


@dataclass(frozen=True)
class Finished:
    setting: RunSetting


@dataclass(frozen=True)
class Failed:
    """A run that ended in an exception or whose process died; `trace` says where or how."""

    setting: RunSetting
    trace: str


Event = Advanced | Finished | Failed


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def for_children() -> Iterator[None]:
    """What a spawned process inherits: one thread for its mathematics, and no answer to Ctrl-C."""
    saved = {name: os.environ.get(name) for name in ONE_THREAD}
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        for name, value in saved.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _work(connection: Connection, out: Path) -> None:
    """A worker process: plays what it is sent until the parent is gone."""
    import torch

    torch.set_num_threads(1)
    # The parent is gone when the pipe is broken: there is nobody left to tell, and nothing left to do.
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            setting: RunSetting = connection.recv()

            def report(progress: Progress, setting: RunSetting = setting) -> None:
                connection.send(Advanced(setting, progress))

            try:
                play(setting, out, report)
            except (BrokenPipeError, ConnectionResetError):
                raise
            except Exception:
                connection.send(Failed(setting, traceback.format_exc()))
            else:
                connection.send(Finished(setting))


class _Worker:
    def __init__(self, out: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, out), daemon=True)
        with for_children():
            self.process.start()
        theirs.close()
        self.setting: RunSetting | None = None

    def give(self, setting: RunSetting) -> None:
        self.setting = setting
        with contextlib.suppress(BrokenPipeError):  # a worker that has just died is found by its closed pipe
            self.connection.send(setting)

    def stop(self) -> None:
        self.process.terminate()
        self.process.join(5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.connection.close()


def play_all(settings: Sequence[RunSetting], out: Path, jobs: int, on_event: Callable[[Event], Any]) -> list[Failed]:
    """Play runs in `jobs` parallel processes; each lands in `run_folder(out, setting)` once it is finished.

    Returns the runs that failed. An exception in here, KeyboardInterrupt included, ends the workers at once.
    """
    waiting, failed = deque(settings), []
    workers: list[_Worker] = []
    try:
        while waiting or any(worker.setting for worker in workers):
            for worker in workers:
                if worker.setting is None and waiting:
                    worker.give(waiting.popleft())
            while waiting and len(workers) < jobs:
                workers.append(_Worker(out))
                workers[-1].give(waiting.popleft())
            busy = {worker.connection: worker for worker in workers if worker.setting is not None}
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]
                assert worker.setting is not None
                try:
                    event: Event = worker.connection.recv()
                except (EOFError, ConnectionResetError):
                    worker.process.join()
                    event = Failed(worker.setting, _last_words(worker.process.exitcode))
                    workers.remove(worker)
                if isinstance(event, Finished | Failed):
                    worker.setting = None
                if isinstance(event, Failed):
                    failed.append(event)
                on_event(event)
    finally:
        with for_children():  # a second Ctrl-C must not leave workers behind
            for worker in workers:
                worker.stop()
    return failed


def _last_words(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        hint = " The system may have run out of memory: try fewer --jobs." if name == "SIGKILL" else ""
        return f"The process that played this run was ended by {name}.{hint}\n"
    return f"The process that played this run ended by itself with exit code {exitcode}.\n"
