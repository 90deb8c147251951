"""The rows of a run: one CSV line for each evaluation, with its reading, writing and checking."""

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from agents.benchmark.analyse import normalise
from agents.benchmark.suites import BenchmarkError


@dataclass(frozen=True)
class Row:
    """One evaluation.

    Everything that is counted (`episodes`, `timesteps` = tokens written, `gradient_samples`, `seconds`)
    counts training alone: evaluations are free. `greedy_score` is the mean score of deterministic actions on
    the evaluation episodes. `sampled_score` is the mean score of the training episodes that ended since the
    evaluation before, as the agent played them, exploration included; NaN (an empty field) before any has
    ended.
    """

    environment: str
    agent: str
    seed: int
    episodes: int
    timesteps: int
    gradient_samples: int
    seconds: float
    greedy_score: float
    sampled_score: float
    normalised_greedy: float
    normalised_sampled: float


COLUMNS = tuple(column.name for column in fields(Row))
COUNTERS = ("episodes", "timesteps", "gradient_samples", "seconds")
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


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as CSV. Floats are written so that reading gives the same bits; NaN is an empty field."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            writer.writerow("" if isinstance(x, float) and math.isnan(x) else x for x in asdict(row).values())


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
    for number, values in enumerate(csv.reader(text.splitlines()), start=1):
        try:
            if number == 1:
                if tuple(values) != COLUMNS:
                    raise ValueError(f"the header should be {','.join(COLUMNS)}")
                continue
            row = _parse(values)
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


def _parse(values: list[str]) -> Row:
    if len(values) != len(COLUMNS):
        raise ValueError(f"{len(values)} fields where there should be {len(COLUMNS)}")
    parsed: list[Any] = []
    for column, value in zip(fields(Row), values, strict=True):
        kind = {str: str, int: int, float: float}[column.type]  # type: ignore[index]
        optional = column.name in ("sampled_score", "normalised_sampled")
        try:
            number = float("nan") if optional and value == "" else kind(value)
        except ValueError:
            raise ValueError(f"{column.name} is {value!r}, which is not a number") from None
        if isinstance(number, float) and not math.isfinite(number) and not (optional and value == ""):
            raise ValueError(f"{column.name} is {value!r}")
        parsed.append(number)
    return Row(*parsed)


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
        expected = float(normalise(score, random_score, optimum))
        if not math.isclose(expected, normalised, abs_tol=1e-6) and not (
            math.isnan(expected) and math.isnan(normalised)
        ):
            raise ValueError(f"a score of {score} is {expected} when normalised, not {normalised}")
