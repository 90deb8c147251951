"""The rows of a run: one CSV line for each evaluation, with its reading, writing and checking."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from agents.benchmark.suites import BenchmarkError


@dataclass(frozen=True)
class Row:
    """One evaluation.

    Everything that is counted (`episodes`, `timesteps` = tokens written, `reward_calls` = texts that were judged,
    `distinct_texts`, `gradient_samples`, `seconds`) counts training alone: evaluations are free. `greedy_score` is the
    mean score of deterministic actions on the evaluation episodes. `sampled_score` is the mean score of the training
    episodes that ended since the evaluation before, as the agent played them, exploration included; NaN (an empty
    field) before any has ended.
    """

    environment: str
    agent: str
    seed: int
    episodes: int
    timesteps: int
    reward_calls: int
    distinct_texts: int
    gradient_samples: int
    seconds: float
    greedy_score: float
    sampled_score: float
    normalised_greedy: float
    normalised_sampled: float


COLUMNS = tuple(column.name for column in fields(Row))
EARLIER_COLUMNS = tuple(name for name in COLUMNS if name not in ("reward_calls", "distinct_texts"))
"""Results from before these two were counted: every text was judged there, and how many differed is not known (0)."""
COUNTERS = ("episodes", "timesteps", "reward_calls", "distinct_texts", "gradient_samples", "seconds")
_KINDS: dict[str, Any] = {
    column.name: {"str": str, "int": int, "float": float}[str(column.type)] for column in fields(Row)
}
_OPTIONAL = ("sampled_score", "normalised_sampled")
TIMES = ("seconds",)
"""Columns that differ between two runs of the same settings."""


@dataclass(frozen=True)
class Run:
    """A finished run: what it was (`settings`, as in its settings.json) and what it measured."""

    settings: dict[str, Any]
    rows: tuple[Row, ...]

    @property
    def environment(self) -> str:
        return self.rows[0].environment

    @property
    def agent(self) -> str:
        return self.rows[0].agent

    @property
    def seed(self) -> int:
        return self.rows[0].seed

    @property
    def solved(self) -> bool:
        """Whether it stopped because it had reached the suite's `stop_at`, not because its budget was used
        up.
        """
        return self.settings["result"]["stopped"] == "solved"

    def column(self, name: str) -> list[float]:
        return [getattr(row, name) for row in self.rows]


def rows_text(rows: Sequence[Row]) -> str:
    """Rows as CSV. Floats are written so that reading gives the same bits; NaN is an empty field."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow("" if isinstance(x, float) and math.isnan(x) else x for x in asdict(row).values())
    return file.getvalue()


def read_run(folder: Path) -> Run:
    """Read a finished run's folder.

    Raises: BenchmarkError: a file is missing, or a line of rows.csv is truncated, edited or out of order; the
        message names the file, the line and the way out.
    """
    try:
        settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        expected, random_score, optimum = (
            settings["result"]["rows"],
            settings["task"]["random_score"],
            settings["task"]["optimum"],
        )
        identity = (settings["environment"]["name"], settings["agent"]["name"], settings["seed"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchmarkError(
            f"{folder / 'settings.json'} cannot be used ({type(error).__name__}: {error}). {_way_out(folder)}"
        ) from error
    path = folder / "rows.csv"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BenchmarkError(f"{path} cannot be read ({error}). {_way_out(folder)}") from error

    rows: list[Row] = []
    columns = COLUMNS
    for number, values in enumerate(csv.reader(text.splitlines()), start=1):
        try:
            if number == 1:
                columns = tuple(values)
                if columns not in (COLUMNS, EARLIER_COLUMNS):
                    raise ValueError(f"the header should be {','.join(COLUMNS)}")
                continue
            row = _parse(values, columns)
            _check(row, rows[-1] if rows else None, identity, random_score, optimum)
        except ValueError as error:
            raise BenchmarkError(f"{path}, line {number}: {error}. {_way_out(folder)}") from error
        rows.append(row)
    if len(rows) != expected or not rows or not text.endswith("\n"):
        raise BenchmarkError(
            f"{path}, line {len(rows) + 1}: the file ends here, with {len(rows)} of {expected} rows. {_way_out(folder)}"
        )
    return Run(settings, tuple(rows))


def _way_out(folder: Path) -> str:
    return f"Delete the folder {folder} and start the benchmark again: only this run is repeated."


def _parse(values: list[str], columns: Sequence[str]) -> Row:
    if len(values) != len(columns):
        raise ValueError(f"{len(values)} fields where there should be {len(columns)}")
    parsed: dict[str, Any] = {}
    for name, value in zip(columns, values, strict=True):
        if value == "" and name in _OPTIONAL:
            parsed[name] = math.nan
            continue
        try:
            parsed[name] = _KINDS[name](value)
        except ValueError:
            raise ValueError(f"{name} is {value!r}, which is not a number") from None
        if _KINDS[name] is float and not math.isfinite(parsed[name]):
            raise ValueError(f"{name} is {value!r}")
    if columns is not COLUMNS and "reward_calls" not in parsed:
        parsed |= {"reward_calls": parsed["episodes"], "distinct_texts": 0}
    return Row(**parsed)


def _check(row: Row, before: Row | None, identity: tuple[str, str, int], random_score: float, optimum: float) -> None:
    if (row.environment, row.agent, row.seed) != identity:
        raise ValueError(f"{row.environment}, {row.agent}, seed {row.seed} in the folder of {identity}")
    for counter in COUNTERS:
        value, previous = getattr(row, counter), getattr(before, counter, 0)
        if value < previous or (counter == "episodes" and before is not None and value == previous):
            raise ValueError(f"{counter} goes from {previous} to {value}; it can only grow")
    for score, normalised in (
        (row.greedy_score, row.normalised_greedy),
        (row.sampled_score, row.normalised_sampled),
    ):
        expected = (score - random_score) / (optimum - random_score)  # `normalise`, which is slow on single numbers
        if not math.isclose(expected, normalised, abs_tol=1e-6) and not (
            math.isnan(expected) and math.isnan(normalised)
        ):
            raise ValueError(f"a score of {score} is {expected} when normalised, not {normalised}")
