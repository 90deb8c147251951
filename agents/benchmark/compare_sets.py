"""Several results folders as one: joined where they were made alike, kept apart where they were not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agents.benchmark.results import Results, differences, joined_settings, read_results
from agents.benchmark.rows import Run
from agents.benchmark.suites import BenchmarkError

Warnings = list[tuple[str, list[str]]]
SHOWN = 8


@dataclass
class ResultSet:
    """Results that may be compared run by run: one folder, or several that were made alike."""

    label: str
    settings: dict[str, Any]
    runs: dict[tuple[str, str, int], Run]


def read_sets(folders: Sequence[Path]) -> tuple[list[ResultSet], Warnings]:
    """Results of all folders, and what has to be said about them.

    Folders join a set if nothing that decides rows differs: versions, code, rules of the suite, and the agents and
    environments that both have. Of a run that two of them hold, the first is used.

    Raises:
        BenchmarkError: no folders, not a results folder (or one packed into a .tar.xz file), or no finished run in any
            of them.
    """
    if not folders:
        raise BenchmarkError("nothing to report: give a folder that scripts/benchmark.py wrote.")
    sets: list[ResultSet] = []
    damaged, failed, twice, apart = [], [], [], []
    for folder in folders:
        results = read_results(folder)
        damaged += results.damaged
        failed += _failures(folder)
        found = next((one for one in sets if not _unlike(one.settings, results.settings)), None)
        if found is None:
            if sets:
                lines = _unlike(sets[0].settings, results.settings)
                more = [f"… and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
                apart += [f"{folder.name} from {sets[0].label}: {line}" for line in lines[:SHOWN] + more]
            found = ResultSet(_label(folder, sets), results.settings, {})
            sets.append(found)
        twice += _add(found, results)
    if not any(one.runs for one in sets):
        names = ", ".join(str(folder) for folder in folders)
        reason = "".join(f"\n{text}" for text in damaged)
        raise BenchmarkError(f"{names} has no finished run yet: start the benchmark again to play them.{reason}")
    warnings = [
        ("Kept apart, since they were made differently:", apart),
        ("Runs that failed:", failed),
        ("Runs whose files are damaged; the others are used:", damaged),
        ("Runs that are there twice; the first is used:", twice),
    ]
    return sets, [(what, which) for what, which in warnings if which]


def flatten(sets: Sequence[ResultSet]) -> tuple[dict[str, Any], list[Run]]:
    """(settings, runs) of all sets; where there are several, agents carry the name of theirs."""
    if len(sets) == 1:
        return sets[0].settings, list(sets[0].runs.values())
    first = sets[0].settings["suite"]
    suite: dict[str, Any] = {**first, "agents": {}, "environments": {}}
    runs: list[Run] = []
    for one in sets:
        own = one.settings["suite"]
        names = {
            name: name if first["environments"].get(name, setting) == setting else f"{name} [{one.label}]"
            for name, setting in own["environments"].items()
        }
        suite["environments"] |= {names[name]: setting for name, setting in own["environments"].items()}
        suite["agents"] |= {f"{name} [{one.label}]": setting for name, setting in own["agents"].items()}
        runs += [_renamed(run, names.get(run.environment, run.environment), one.label) for run in one.runs.values()]
    return {**sets[0].settings, "suite": suite}, runs


def _renamed(run: Run, environment: str, label: str) -> Run:
    rows = tuple(replace(row, environment=environment, agent=f"{row.agent} [{label}]") for row in run.rows)
    return Run(run.settings, rows)


def _add(found: ResultSet, results: Results) -> list[str]:
    found.settings = joined_settings(found.settings, results.settings)
    twice = []
    for run in results.runs:
        key = (run.environment, run.agent, run.seed)
        if key in found.runs:
            twice.append(f"{run.agent} on {run.environment}, seed {run.seed}")
        found.runs.setdefault(key, run)
    return twice


def _unlike(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What differs between two folders' settings, names of suites aside."""
    both = [joined_settings(old, new), joined_settings(new, old)]
    for settings in both:
        settings["suite"] = {key: value for key, value in settings["suite"].items() if key != "name"}
    return differences(*both)


def _label(folder: Path, sets: Sequence[ResultSet]) -> str:
    name = folder.resolve().name.removesuffix(".tar.xz")
    return name if all(one.label != name for one in sets) else f"{name} {len(sets) + 1}"


def _failures(folder: Path) -> list[str]:
    """A line for each run that failed and has not succeeded since."""
    lines = []
    for path in sorted((folder / "failed").glob("*.txt")):
        text = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        lines.append(f"{path.stem.replace('__', ', ')}: {text[-1] if text else 'no trace'}")
    return lines
