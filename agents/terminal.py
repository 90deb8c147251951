"""What a person at the terminal sees of learning, and how Ctrl-C ends it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def hold_interrupt() -> Iterator[Callable[[], bool]]:
    """Hold back Ctrl-C, so that a batch is never learnt from by half; the function given says whether there was one."""
    pending = False

    def hold(*_: Any) -> None:
        nonlocal pending
        if pending:
            raise KeyboardInterrupt
        pending = True
        # Not print: a signal may come in the middle of one.
        os.write(2, b"\nStopping once this batch has been learnt from; Ctrl-C again stops at once.\n")

    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: False  # signals are not ours to handle here
        return
    previous = signal.signal(signal.SIGINT, hold)
    try:
        yield lambda: pending
    finally:
        signal.signal(signal.SIGINT, previous)


@contextlib.contextmanager
def show_progress(visible: bool, total: int) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """A progress bar on the terminal, or nothing."""
    if not visible:
        yield lambda done, metrics: None
        return
    try:
        from rich import progress
    except ImportError as error:
        raise ImportError(
            "progress_bar=True needs the rich package: install the extra, e.g. pip install 'textenvs[agents]'."
        ) from error
    columns = [
        progress.BarColumn(),
        progress.TextColumn("{task.completed:,.0f}/{task.total:,.0f} timesteps"),
        progress.TextColumn("{task.fields[sps]:,.0f}/s  score {task.fields[score]:.3f}"),
        progress.TimeRemainingColumn(),
    ]
    with progress.Progress(*columns) as bar:
        task = bar.add_task("learn", total=total, sps=0.0, score=float("nan"))

        def show(done: int, metrics: dict[str, float]) -> None:
            sps, score = metrics["charts/SPS"], metrics["charts/episodic_return"]
            bar.update(task, completed=min(done, total), sps=sps, score=score)

        yield show
