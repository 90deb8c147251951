"""Many runs in parallel processes, one torch thread each.

A process plays one run after the other. One that dies (killed for memory, say) costs the run it was playing
and is replaced. Workers hear of a Ctrl-C only through the parent, which ends them; if the parent itself is
killed they notice at their next message. Finished runs are on disk before they are reported, so nothing that
finished is lost.
"""

import contextlib
import errno
import multiprocessing
import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from agents.benchmark.run import Limits, Progress, RunPaused, play
from agents.benchmark.suites import BenchmarkError, RunSetting

ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


@dataclass(frozen=True)
class Advanced:
    setting: RunSetting
    progress: Progress


@dataclass(frozen=True)
class Finished:
    setting: RunSetting


@dataclass(frozen=True)
class Paused:
    """A run that the deadline ended; it goes on from its checkpoint another time."""

    setting: RunSetting


@dataclass(frozen=True)
class Failed:
    """A run that ended in an exception or whose process died; `trace` says where or how."""

    setting: RunSetting
    trace: str
    disk_full: bool = False


Event = Advanced | Finished | Paused | Failed

Play = Callable[[RunSetting, Path, Callable[[Progress], Any], Limits | None, Path | None], None]
"""What plays a run and writes its results: :func:`agents.benchmark.run.play`, or a function of some module like it."""


class DiskFull(BenchmarkError):
    """Nothing more can be written; what has finished is on the disk."""

    def __init__(self, out: Path) -> None:
        super().__init__(
            f"There is no space left on the disk of {out}. What has finished is there and whole. Make room, and start "
            f"the same command again: it goes on from there."
        )


def is_disk_full(error: BaseException) -> bool:
    """Whether an exception, or one that caused it, says that the disk is full."""
    seen: BaseException | None = error
    while seen is not None:
        # Safetensors has exceptions of its own, with the system's message in them.
        if getattr(seen, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def play_reporting(
    setting: RunSetting,
    out: Path,
    limits: Limits,
    report: Callable[[Event], Any],
    checkpoints: Path | None = None,
    play: Play = play,
) -> Event:
    """Play a run; how it ended, whatever happened in it."""
    try:
        play(setting, out, lambda progress: report(Advanced(setting, progress)), limits, checkpoints)
    except RunPaused:
        return Paused(setting)
    except (BrokenPipeError, ConnectionResetError):
        raise
    except Exception as error:
        return Failed(setting, traceback.format_exc(), is_disk_full(error))
    return Finished(setting)


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


def _work(connection: Connection, out: Path, limits: Limits, play: Play) -> None:
    """A worker process: plays what it is sent until the parent is gone."""
    import torch

    torch.set_num_threads(1)
    # The parent is gone when the pipe is broken: there is nobody left to tell, and nothing left to do.
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            connection.send(play_reporting(connection.recv(), out, limits, connection.send, play=play))


class _Worker:
    def __init__(self, out: Path, limits: Limits, play: Play) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, out, limits, play), daemon=True)
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


def play_all(
    settings: Sequence[RunSetting],
    out: Path,
    jobs: int,
    on_event: Callable[[Event], Any],
    limits: Limits | None = None,
    play: Play = play,
) -> list[Failed]:
    """Play runs in `jobs` parallel processes, each by `play`, which leaves its results in `out` once it is finished.

    Returns the runs that failed; after the deadline no more are begun, and those in flight are paused. An exception in
    here, KeyboardInterrupt included, ends the workers at once.

    Raises:
        DiskFull: a run could not be written.
    """
    limits = limits or Limits()
    waiting, failed = deque(settings), []
    workers: list[_Worker] = []
    try:
        while waiting or any(worker.setting for worker in workers):
            if time.time() >= limits.deadline:
                waiting.clear()
            for worker in workers:
                if worker.setting is None and waiting:
                    worker.give(waiting.popleft())
            while waiting and len(workers) < jobs:
                workers.append(_Worker(out, limits, play))
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
                if not isinstance(event, Advanced):
                    worker.setting = None
                if isinstance(event, Failed):
                    if event.disk_full:
                        raise DiskFull(out)
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
