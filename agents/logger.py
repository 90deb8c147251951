"""Logging: one CSV row per update or evaluation, and the same figures for TensorBoard."""

from __future__ import annotations

import csv
import math
from pathlib import Path


class Logger:
    """Writes a CSV file and TensorBoard event files into a folder; a folder that has a log is continued.

    The keys are fixed by the first row, so that every column of the file means one thing. Only the parts of a reward,
    ``rewards/…``, come and go with the judge: a new one adds a column.

    Args:
        folder: made if missing.
        step_key: name of the first column.
        file: name of the CSV file.

    Raises:
        ImportError: tensorboard is not installed.
        ValueError: the CSV file is no log.
    """

    def __init__(self, folder: str | Path, step_key: str = "timesteps", file: str = "metrics.csv") -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "log_dir needs the tensorboard package: install the extra, e.g. pip install 'textenvs[agents]'."
            ) from error
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path = self.folder / file
        self._step_key = step_key
        self._keys: list[str] | None = None
        if self.path.exists() and self.path.stat().st_size:
            with self.path.open(newline="") as opened:
                header = next(csv.reader(opened))
            if header[0] != step_key:
                raise ValueError(f"{self.path} is not a log of an agent: its first column is {header[0]!r}.")
            self._keys = header[1:]
        self._make_board = SummaryWriter
        self._board = SummaryWriter(str(self.folder))

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Add one row.

        Args:
            step: environment steps so far.
            metrics: key to figure; the same keys every time, but for ``rewards/…``. NaN is an empty cell.

        Raises:
            ValueError: other keys than before.
        """
        if self._keys is None:
            self._keys = list(metrics)
            self._append([self._step_key, *self._keys])
        missing, new = set(self._keys) - set(metrics), set(metrics) - set(self._keys)
        if not all(key.startswith("rewards/") for key in missing | new):
            raise ValueError(
                f"{self.path} has other columns: missing now {sorted(missing)}, new {sorted(new)}. "
                "Give each kind of agent its own log_dir."
            )
        if new:
            self._add_columns([key for key in metrics if key in new])
        figures = {key: metrics.get(key, math.nan) for key in self._keys}
        self._append([step, *("" if math.isnan(figure) else figure for figure in figures.values())])
        for key, figure in figures.items():
            if not math.isnan(figure):
                self._board.add_scalar(key, figure, step)

    def rewind(self, step: int) -> None:
        """Take back what was logged after ``step``: a run that goes on from there plays it once more."""
        if self._keys is None:
            return
        with self.path.open(newline="") as file:
            _, *rows = csv.reader(file)
        kept = [row for row in rows if int(row[0]) <= step]
        if len(kept) < len(rows):
            self._rewrite(kept)
            self._board.close()
            self._board = self._make_board(str(self.folder), purge_step=step + 1)

    def flush(self) -> None:
        """Write out the events so far."""
        self._board.flush()

    def close(self) -> None:
        """Close the event file."""
        self._board.close()

    def _append(self, row: list[object]) -> None:
        with self.path.open("a", newline="") as file:  # closed again: whoever stops us, the file is whole
            csv.writer(file).writerow(row)

    def _add_columns(self, keys: list[str]) -> None:
        """Write the file anew with further columns, empty in the rows so far."""
        assert self._keys is not None
        self._keys += keys
        with self.path.open(newline="") as file:
            _, *rows = csv.reader(file)
        self._rewrite([[*row, *[""] * len(keys)] for row in rows])

    def _rewrite(self, rows: list[list[str]]) -> None:
        assert self._keys is not None
        temporary = self.path.with_name(f"{self.path.name}.tmp")
        with temporary.open("w", newline="") as file:
            csv.writer(file).writerows([[self._step_key, *self._keys], *rows])
        temporary.replace(self.path)
