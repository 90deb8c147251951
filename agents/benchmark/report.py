"""The report of results: on the terminal, as one HTML page that needs no network, as Markdown, CSV and PNG files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as TerminalTable
from rich.text import Text

from agents.benchmark import page
from agents.benchmark.compare_sets import Warnings, flatten, read_sets
from agents.benchmark.figures import drawings
from agents.benchmark.plots import CURVE_AXES, curves_png
from agents.benchmark.results import PARTIAL
from agents.benchmark.rows import Run
from agents.benchmark.summary import Summary, summarise
from agents.benchmark.tables import Table, all_tables, csv_lines, figures_table
from agents.benchmark.words import conclusions, count, enumerate_words

NOTE = (
    "Medians over runs with 95 % bootstrap intervals; “>” means beyond the budget, “≥” from there to beyond it. "
    "Data use: gradient samples per token written."
)


@dataclass(frozen=True)
class Report:
    """Everything that is shown: the figures, and where they come from."""

    settings: dict[str, Any]
    runs: tuple[Run, ...]
    summary: Summary
    warnings: Warnings = field(default_factory=list)

    @property
    def title(self) -> str:
        summary, seeds = self.summary, len({run.seed for run in self.runs})
        size = f"{count(len(summary.environments), 'environment')}, {count(seeds, 'seed')}"
        return f"Benchmark “{self.settings['suite']['name']}”: {enumerate_words(summary.agents)} on {size}"

    @property
    def all_warnings(self) -> Warnings:
        """What is missing, failed, damaged or kept apart."""
        missing = list(self.summary.missing)
        return [*self.warnings, *([("Runs that are missing:", missing)] if missing else [])]


def read_report(folders: Sequence[Path]) -> Report:
    """The report of one or several results folders, from their rows.

    Raises:
        BenchmarkError: not a results folder, or no finished run.
    """
    sets, warnings = read_sets(folders)
    settings, runs = flatten(sets)
    suite = settings["suite"]
    kinds = {name: agent.get("kind", "") for name, agent in suite["agents"].items()}
    if len(sets) > 1:  # agents of different sets share no runs to pair, so there is no headline
        kinds = dict.fromkeys(kinds, "")
        warnings = [one for one in warnings if not one[0].startswith("Runs that are missing")]
    summary = summarise(runs, list(suite["environments"]), list(suite["agents"]), suite["thresholds"], kinds)
    return Report(settings, tuple(runs), summary, warnings)


def write_report(out: Path, report: Report) -> Path:
    """Write report.html, report.md, report.csv and plots/*.png into a folder; returns the path of the page."""
    plots = out / "plots"
    plots.mkdir(parents=True, exist_ok=True)
    for axis in CURVE_AXES:
        curves_png(report.summary, axis, plots / f"{page.curves_name(axis)}.png")
    figures = drawings(report.summary)
    for drawing in figures:
        drawing.figure.savefig(plots / f"{drawing.name}.png", dpi=160)
    shown = (conclusions(report.summary), report.all_warnings, all_tables(report.summary), figures, NOTE)
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows(csv_lines(report.summary))
    _write(out / "report.csv", lines.getvalue())
    _write(out / "report.md", page.markdown(report.title, *shown, provenance(report)))
    return _write(out / "report.html", html(report, shown))


def html(report: Report, shown: tuple[Any, ...] | None = None) -> str:
    """The page as text."""
    if shown is None:
        summary = report.summary
        shown = (conclusions(summary), report.all_warnings, all_tables(summary), drawings(summary), NOTE)
    words, warnings, tables, figures, note = shown
    return page.html(report.title, report.summary, words, warnings, tables, figures, note, provenance(report))


def _write(path: Path, text: str) -> Path:
    """Write a file under a temporary name, then rename it."""
    temporary = path.with_name(path.name + PARTIAL)
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
    return path


# -- terminal ------------------------------------------------------------------------------------------------


def print_report(report: Report, console: Console) -> None:
    """The table and the words, on the terminal."""
    table = figures_table(report.summary)
    console.print(report.title, style="bold", highlight=False, markup=False)
    for what, which in report.warnings:
        console.print(what, style="bold", highlight=False, markup=False)
        for item in which:
            console.print(f"  {item}", highlight=False, markup=False)
    console.print(_terminal_table(table))
    console.print(NOTE + "\n", style="dim", highlight=False)
    for paragraph in conclusions(report.summary):
        console.print(paragraph + "\n", highlight=False, markup=False)


def _terminal_table(table: Table) -> TerminalTable:
    shown = TerminalTable(
        box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False, show_edge=False, header_style="bold"
    )
    shown.add_column("", no_wrap=True)
    columns = [name for name in table.columns if not name.startswith(("tokens", "area"))]  # 80 characters are few
    for column in columns:
        shown.add_column("\n".join(column.split(" ", 1)), justify="right")
    for block in table.blocks:
        shown.add_row(Text(block[0].names[0], style="bold"))
        for row in block:
            texts = ["\n".join(part for part in row.figures[column] if part) for column in columns]
            shown.add_row(Text(f"  {row.names[1]}"), *texts)
    return shown


# -- what was run --------------------------------------------------------------------------------------------


def provenance(report: Report) -> list[tuple[str, str]]:
    """(name, text) rows: from what all of it can be done again."""
    suite, runs = report.settings["suite"], report.runs
    stop_at = suite["stop_at"]
    solved = "" if stop_at is None else f"two evaluations in a row at {stop_at:g} or above, or "
    rows = [
        ("commands", f"python scripts/benchmark.py --preset {suite['name']}\npython scripts/report.py RESULTS"),
        ("runs", f"{len(runs)} finished; seeds {', '.join(map(str, sorted({run.seed for run in runs})))}"),
        (
            "evaluation",
            f"every {suite['growth']:.0%} more episodes, greedy, on {suite['evaluation_episodes']} held-out prompts "
            "(one episode where there is no prompt); not counted in episodes, reward calls, tokens or seconds",
        ),
        ("end of a run", f"{solved}the budget"),
    ]
    for name, setting in suite["environments"].items():
        arguments = _arguments(setting["kwargs"])
        rows.append((name, f"{setting['env_id']}: {arguments}; budget {setting['episodes']:,} episodes"))
    configs = {run.agent: run.settings for run in reversed(runs)}
    for name in report.summary.agents:
        rows.append((name, f"{configs[name]['agent']['agent']}: {_arguments(configs[name]['config'])}"))
    machines = ("{processor}, {cores} cores, {system}".format(**run.settings["machine"]) for run in runs)
    versions = (f"{name} {version}" for name, version in report.settings["versions"].items())
    commits = _distinct(run.settings["commit"] or "unknown" for run in runs)
    hours = sum(run.rows[-1].seconds + run.settings["result"].get("evaluation_seconds", 0.0) for run in runs) / 3600
    rows += [
        ("versions", ", ".join(versions)),
        ("code", f"commit {commits}; digest {report.settings['code']}"),
        ("machine", f"{_distinct(machines)}; one thread for each run; {hours:.2f} hours of runs, evaluation included"),
    ]
    return rows


def _arguments(values: dict[str, Any]) -> str:
    return ", ".join(f"{key}={json.dumps(value)}" for key, value in values.items())


def _distinct(values: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(values))
