"""Hyper-parameters of the methods, chosen alike: every combination of a method's grid, on a seed of its own.

What counts is the gold score of grammatical texts, others being worth 0, at the end of the budget: by the gold score
alone, word salad would win.
"""

from __future__ import annotations

import csv
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from agents.rlhf.methods_results import MethodsComparison, Result

CRITERION = "gold_grammatical"
HEAD = ("method", "hyper-parameters", "gold, 0 if ungrammatical", "gold", "grammatical", "KL", "chosen")


def best_runs(comparison: MethodsComparison) -> dict[str, Result]:
    """Of each method, by name, the run that is best by the criterion; the first of those that tie."""
    best: dict[str, Result] = {}
    for result in comparison.results.values():
        name = result.run.method.name
        if name not in best or result.last(CRITERION).mean > best[name].last(CRITERION).mean:
            best[name] = result
    return best


def tuning_rows(comparison: MethodsComparison) -> list[list[str]]:
    """A row for each run; the last column marks the best of each method."""
    best = best_runs(comparison)
    table = []
    for result in comparison.results.values():
        method, config = result.run.method, result.run.config
        words = ", ".join(f"{name} {config[name]:g}" for name in method.grid)
        figures = [f"{result.last(name).mean:.3f}" for name in (CRITERION, "gold", "grammatical", "kl")]
        table.append([method.name, words, *figures, "best" if best[method.name] is result else ""])
    return table


def print_tuning(comparison: MethodsComparison, console: Console) -> None:
    """All runs on the terminal."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for number, heading in enumerate(HEAD):
        table.add_column(heading, justify="right" if 1 < number < 6 else "left")
    for row in tuning_rows(comparison):
        table.add_row(*row)
    console.print(table)


def write_tuning(out: Path, comparison: MethodsComparison) -> Path:
    """Write tuning.csv; returns its path."""
    path = out / "tuning.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(HEAD)
        writer.writerows(tuning_rows(comparison))
    return path
