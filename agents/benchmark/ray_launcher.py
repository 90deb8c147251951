"""Runs on a Ray cluster: an existing one, or one that is started on this machine.

The machines need the same code and versions, and no common disk: a run comes back as the text of its files, and the
machine that started the benchmark writes its folder. A worker that dies costs the time since the run began (since its
last checkpoint where the results folder is on a disk that the workers see), and Ray plays the run again.
"""

from __future__ import annotations

import importlib
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.benchmark.pool import DiskFull, Event, Failed, Finished, is_disk_full, play_reporting
from agents.benchmark.results import code_digest, place_run, run_folder
from agents.benchmark.run import Limits
from agents.benchmark.suites import BenchmarkError, RunSetting

MAX_RETRIES = 3
POLL_SECONDS = 5.0
REACH_SECONDS = 10.0


@dataclass(frozen=True)
class Played:
    """How a run ended on a worker, and the files of its folder, name to text, if it finished."""

    event: Event
    files: dict[str, str]


def play_remotely(setting: RunSetting, code: str, limits: Limits, results: str) -> Played:
    """On a worker: play a run in a temporary folder, and hand back its files.

    Args:
        setting: the run.
        code: digest of the sources on the machine that started the benchmark.
        limits: see :class:`~agents.benchmark.run.Limits`.
        results: path of the results folder there; checkpoints are kept in it if it is on this machine's disk too.
    """
    import torch

    torch.set_num_threads(1)
    if code_digest() != code:
        return Played(Failed(setting, "This worker has other sources of textenvs or agents: install the same.\n"), {})
    checkpoints = Path(results) if (Path(results) / "running").is_dir() else None
    with tempfile.TemporaryDirectory() as folder:
        event = play_reporting(setting, Path(folder), limits, lambda _: None, checkpoints)
        files = {}
        if isinstance(event, Finished):
            files = {
                path.name: path.read_text(encoding="utf-8") for path in run_folder(Path(folder), setting).iterdir()
            }
    return Played(event, files)


def play_all_on_ray(
    settings: Sequence[RunSetting],
    out: Path,
    on_event: Callable[[Event], Any],
    limits: Limits | None = None,
    address: str | None = None,
    jobs: int | None = None,
) -> list[Failed]:
    """As :func:`~agents.benchmark.pool.play_all`, with a Ray task of one core for each run.

    Args:
        settings, out, on_event, limits: as there; there is no progress within a run.
        address: of a running cluster; None: one on this machine, with ``jobs`` cores.
        jobs: runs at a time on a cluster of this machine; None: as many as it has cores.

    Raises:
        BenchmarkError: Ray is not installed, or no cluster answers at the address.
        DiskFull: a run could not be written.
    """
    ray = import_ray()
    limits = limits or Limits()
    _connect(ray, address, jobs)
    try:
        task = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(play_remotely)
        code, results = code_digest(), str(out.resolve())
        pending = {task.remote(setting, code, limits, results): setting for setting in settings}
        failed: list[Failed] = []
        while pending:
            done, _ = ray.wait(list(pending), num_returns=1, timeout=POLL_SECONDS)
            for reference in done:
                event = _receive(ray, reference, pending.pop(reference), out)
                if isinstance(event, Failed):
                    failed.append(event)
                on_event(event)
            if not done and time.time() >= limits.deadline + POLL_SECONDS:
                _cancel_queued(ray, pending)
        return failed
    finally:
        ray.shutdown()


def import_ray() -> Any:
    """The package ray.

    Raises:
        BenchmarkError: it is not installed; the message names the extra.
    """
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise BenchmarkError(f"--launcher ray needs Ray: pip install 'textenvs[ray]' ({error}).") from error


def _check_reachable(address: str) -> None:
    """Knock at "host:port", since Ray itself tries for minutes; other forms ("auto") are left to it."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        with socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS):
            pass


def _connect(ray: Any, address: str | None, jobs: int | None) -> None:
    options = {"num_cpus": jobs} if address is None else {"address": address}
    try:
        if address is not None:
            _check_reachable(address)
        ray.init(log_to_driver=False, include_dashboard=False if address is None else None, **options)
    except Exception as error:  # of whichever kind Ray raises for what it found at the address
        where = "No Ray cluster could be started here" if address is None else f"No Ray cluster answers at {address!r}"
        raise BenchmarkError(
            f"{where}: {error} Start one with `ray start --head`, whose output names its address, or leave out "
            f"--ray-address to use this machine alone."
        ) from error


def _receive(ray: Any, reference: Any, setting: RunSetting, out: Path) -> Event:
    """The end of a run; its folder is on this machine's disk before it is reported."""
    try:
        played: Played = ray.get(reference)
    except Exception as error:  # a worker that died on every retry, or could not read the task
        return Failed(setting, f"Ray could not play this run: {type(error).__name__}: {error}\n")
    event = played.event
    if isinstance(event, Failed) and event.disk_full:
        return Failed(setting, f"The disk of a worker is full.\n{event.trace}")
    if isinstance(event, Finished):
        try:
            place_run(run_folder(out, setting), played.files)
        except OSError as error:
            if is_disk_full(error):
                raise DiskFull(out) from error
            raise
    return event


def _cancel_queued(ray: Any, pending: dict[Any, RunSetting]) -> None:
    """After the deadline: runs in flight pause by themselves; what has not begun must not begin."""
    for reference in pending:
        ray.cancel(reference, force=False)
