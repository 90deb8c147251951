"""Checkpoints of runs in flight: a run that was ended half-way goes on from its last one."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agents.base import Agent
from agents.benchmark.accounting import Accounting
from agents.benchmark.rows import Row
from agents.checkpoint import CheckpointError


@dataclass(frozen=True)
class RecorderState:
    """What the recorder of a run remembers, as JSON holds it."""

    rows: list[dict[str, Any]]
    due: int
    evaluation_seconds: float
    checkpoint_seconds: float

    def read_rows(self) -> list[Row]:
        return [Row(**row) for row in self.rows]


class RunCheckpoint:
    """The checkpoints of one run: FOLDER/000001, FOLDER/000002, … of which the newest alone is kept.

    Each is written under a temporary name and renamed once it is on the disk, and the one before it is deleted after
    that, so there is a whole one whenever the process ends.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, agent: Agent, envs: Accounting, state: RecorderState) -> None:
        """Write the next checkpoint."""
        earlier = self._numbers()
        number = max(earlier, default=0) + 1
        unfinished = self.folder / f"partial-{os.getpid()}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        try:
            agent.save(unfinished / "agent")
            counts, texts = envs.get_counts()
            text = json.dumps({"counts": counts, "recorder": vars(state)})
            (unfinished / "run.json").write_text(text + "\n", encoding="utf-8")
            np.save(unfinished / "texts.npy", texts)
            sync(unfinished)
            unfinished.rename(self._path(number))
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        for old in earlier:
            shutil.rmtree(self._path(old), ignore_errors=True)

    def load(self, agent_class: type[Agent], envs: Accounting) -> tuple[Agent, RecorderState] | None:
        """(agent, recorder's state) of the newest checkpoint, ``envs`` put in its place too; None: there is none, or it
        is damaged, and then ``envs`` is as it was."""
        numbers = self._numbers()
        if not numbers:
            return None
        path = self._path(max(numbers))
        try:
            saved = json.loads((path / "run.json").read_text(encoding="utf-8"))
            state, counts = RecorderState(**saved["recorder"]), saved["counts"]
            texts = np.load(path / "texts.npy", allow_pickle=False)
            agent = agent_class.load(path / "agent", env=envs)
            envs.set_counts(counts, texts)
        except (CheckpointError, OSError, ValueError, KeyError, TypeError):
            return None
        return agent, state

    def delete(self) -> None:
        """The run has ended."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}"

    def _numbers(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        return [int(path.name) for path in self.folder.iterdir() if path.name.isdigit()]


def sync(folder: Path) -> None:
    """Wait until every file in a folder is on the disk, so that power cuts find it whole."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
