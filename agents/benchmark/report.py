"""The report of a results folder: a table on the terminal, one HTML page that needs no network, and PNG
files.
"""

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agents.benchmark.plots import curves_png, panel_svg
from agents.benchmark.results import PARTIAL, read_results
from agents.benchmark.rows import Run
from agents.benchmark.suites import BenchmarkError
from agents.benchmark.summary import AXES, AXIS_NAMES, Cell, Summary, summarise
from agents.benchmark.words import conclusions, count, enumerate_words, factor, median_text, ratio_text, score_text

NOTE = (
    "Medians over runs with 95 % bootstrap intervals; “>” means beyond the budget, “≥” from there to beyond it. "
    "Data use: gradient samples per token written."
)

FIRST = '<tr class="first">'


@dataclass(frozen=True)
class Report:
    """Everything that is shown: the figures, and where they come from."""

    settings: dict[str, Any]
    runs: tuple[Run, ...]
    summary: Summary

    @property
    def title(self) -> str:
        summary, seeds = self.summary, len({run.seed for run in self.runs})
        size = f"{count(len(summary.environments), 'environment')}, {count(seeds, 'seed')}"
        return f"Benchmark “{self.settings['suite']['name']}”: {enumerate_words(summary.agents)} on {size}"


def read_report(out: Path) -> Report:
    """The report of a results folder, from its rows.

    Raises:
        BenchmarkError: not a results folder, a damaged run, or no finished run.
    """
    settings, runs = read_results(out)
    if not runs:
        raise BenchmarkError(f"{out} has no finished run yet: start the benchmark again to play them.")
    suite = settings["suite"]
    summary = summarise(runs, list(suite["environments"]), list(suite["agents"]), suite["thresholds"])
    return Report(settings, tuple(runs), summary)


def write_report(out: Path, report: Report) -> Path:
    """Write report.html and plots/*.png into the results folder; returns the path of the page."""
    plots = out / "plots"
    plots.mkdir(exist_ok=True)
    for axis in AXES:
        curves_png(report.summary, axis, plots / f"learning-curves-{AXIS_NAMES[axis]}.png")
    page = out / "report.html"
    temporary = page.with_name(page.name + PARTIAL)
    temporary.write_text(html(report), encoding="utf-8")
    temporary.replace(page)
    return page


# -- figures of a cell ---------------------------------------------------------------------------------------


def _figures(cell: Cell, thresholds: Sequence[float]) -> dict[str, tuple[str, str]]:
    """Column → (value, interval)."""
    top = max(thresholds)
    columns = [("episodes", threshold) for threshold in thresholds] + [("timesteps", top), ("seconds", top)]
    return {
        **{f"{AXIS_NAMES[axis]} to {level:g}": median_text(cell, axis, level) for axis, level in columns},
        f"runs at {top:g}": (f"{cell.reached(top)}/{len(cell.runs)}", ""),
        "data use": (factor(cell.data_utilisation), ""),
        "final score": score_text(cell.final_score),
    }


def _overall(summary: Summary, agent: str) -> dict[str, tuple[str, str]]:
    """The same columns over all environments, as far as a single figure makes sense."""
    top = max(summary.thresholds)
    cells = [cell for cell in summary.cells.values() if cell.agent == agent]
    reached, runs = sum(cell.reached(top) for cell in cells), sum(len(cell.runs) for cell in cells)
    return {
        **dict.fromkeys(_figures(cells[0], summary.thresholds), ("", "")),
        f"runs at {top:g}": (f"{reached}/{runs}", ""),
        "data use": (factor(summary.data_utilisation(agent)), ""),
        "final score": score_text(summary.scores[agent]),
    }


def _blocks(summary: Summary) -> list[tuple[str, dict[str, dict[str, tuple[str, str]]]]]:
    """The table: (environment, agent → column → (value, interval))."""
    blocks = [
        (name, {cell.agent: _figures(cell, summary.thresholds) for cell in summary.row(name)})
        for name in summary.environments
    ]
    if len(blocks) > 1:
        blocks.append(("all environments", {agent: _overall(summary, agent) for agent in summary.agents}))
    return blocks


# -- terminal ------------------------------------------------------------------------------------------------


def print_report(report: Report, console: Console) -> None:
    """The table and the words, on the terminal."""
    summary = report.summary
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False, show_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    blocks = _blocks(summary)
    columns = [
        column
        for column in next(iter(blocks[0][1].values()))
        if not column.startswith("tokens")  # for which 80 characters are not enough
    ]
    for column in columns:
        table.add_column("\n".join(column.split(" ", 1)), justify="right")
    for environment, rows in blocks:
        table.add_row(Text(environment, style="bold"))
        for agent, figures in rows.items():
            texts = ["\n".join(part for part in figures[column] if part) for column in columns]
            table.add_row(Text(f"  {agent}"), *texts)
    console.print(report.title, style="bold", highlight=False, markup=False)
    console.print(table)
    console.print(NOTE + "\n", style="dim", highlight=False)
    for paragraph in conclusions(summary):
        console.print(paragraph + "\n", highlight=False, markup=False)


# -- page ----------------------------------------------------------------------------------------------------


def html(report: Report) -> str:
    """The page as text: styles and plots are inside."""
    summary = report.summary
    style = resources.files("agents.benchmark").joinpath("report.css").read_text(encoding="utf-8")
    words = "".join(f"<p>{_unbroken(paragraph, summary.environments)}</p>\n" for paragraph in conclusions(summary))
    missing = ""
    if summary.missing:
        items = "".join(f"<li>{escape(name)}</li>" for name in summary.missing)
        missing = f'<div class="warning"><p>Runs that are missing:</p><ul>{items}</ul></div>'
    curves = "\n".join(_curves(summary, axis) for axis in AXES)
    levels = " or ".join(f"{threshold:g}" for threshold in summary.thresholds)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(report.title)}</title>
<style>
{style}</style>
</head>
<body>
<main>
<h1>{escape(report.title)}</h1>
<section class="words">
{words}</section>
{missing}
<h2>How much until it is learnt</h2>
{_table(summary)}
<p class="note">{_unbroken(NOTE)} Scores are normalised: 0 is random play, 1 the best possible. A threshold is crossed
at the first of two consecutive evaluations at or above it. Final score: mean over runs at their end, which is where
they stopped because they had succeeded, or the end of the budget; over all environments, the interquartile mean.</p>
{_ratios(summary)}
<h2>Learning curves</h2>
<p class="note">Mean normalised score of greedy play over runs, with a 95 % bootstrap band. Each marker is one run
crossing {levels}. A thin line carries a curve on after the last of its runs has succeeded and stopped; a curve ends
where a run has used up its budget. Seconds are those of training alone, on one thread.</p>
{curves}
<h2>What was run</h2>
{_provenance(report)}
</main>
</body>
</html>
"""


def _unbroken(text: str, names: Iterable[str] = ()) -> str:
    """Text for the page, with signs kept on the line of their number, and names with numbers in them in one piece."""
    text = escape(text).replace("95 %", "95&nbsp;%").replace("&gt; ", "&gt;&nbsp;")
    for name in map(escape, names):
        text = text.replace(name, name.replace(" ", "&nbsp;"))
    return text


def _curves(summary: Summary, axis: str) -> str:
    images = ""
    for environment in summary.environments:
        data = base64.b64encode(panel_svg(summary, environment, axis).encode()).decode()
        about = f"Learning curves of {', '.join(summary.agents)} on {environment} against {AXIS_NAMES[axis]}"
        images += f'<img src="data:image/svg+xml;base64,{data}" alt="{escape(about)}">\n'
    return f'<h3>Against {AXIS_NAMES[axis]}</h3>\n<div class="plots">\n{images}</div>'


def _data_cell(label: str, value: str, interval: str) -> str:
    if not value:
        return '<td class="empty"></td>'
    small = f"<small>{escape(interval)}</small>" if interval else ""
    return f'<td data-label="{escape(label)}"><b>{escape(value)}</b>{small}</td>'


def _name_cell(label: str, text: str) -> str:
    return f'<td class="name" data-label="{escape(label)}">{escape(text)}</td>'


def _head(names: Iterable[str], columns: Iterable[str]) -> str:
    cells = "".join(f'<th class="name">{escape(text)}</th>' for text in names)
    cells += "".join(f"<th>{escape(text)}</th>" for text in columns)
    return f"<thead><tr>{cells}</tr></thead>"


def _table(summary: Summary) -> str:
    """A row for each agent on each environment; those of an environment stay on one page when it is printed."""
    bodies, blocks = "", _blocks(summary)
    columns = next(iter(blocks[0][1].values()))
    for environment, rows in blocks:
        body = ""
        for number, (agent, figures) in enumerate(rows.items()):
            cells = "".join(_data_cell(column, *figure) for column, figure in figures.items())
            names = _name_cell("environment", environment) + _name_cell("agent", agent)
            body += f"{'<tr>' if number else FIRST}{names}{cells}</tr>\n"
        bodies += f"<tbody>\n{body}</tbody>"
    return f'<table class="figures">{_head(("environment", "agent"), columns)}{bodies}</table>'


def _ratios(summary: Summary) -> str:
    """Every pair of agents once, over all environments."""
    threshold = max(summary.thresholds)
    body = ""
    for number, b in enumerate(summary.agents):
        for a in summary.agents[:number]:
            if (a, b, AXES[0], threshold) not in summary.comparisons:
                continue
            cells = "".join(
                _data_cell(AXIS_NAMES[axis], *ratio_text(summary.comparisons[a, b, axis, threshold].ratio))
                for axis in AXES
            )
            body += f"{FIRST}{_name_cell('ratio', f'{a} / {b}')}{cells}</tr>\n"
    if not body:
        return ""
    return f"""<h3>How many times as much, to {threshold:g}</h3>
<table class="figures">{_head(("ratio",), AXIS_NAMES.values())}<tbody>
{body}</tbody></table>
<p class="note">Geometric mean over environments and paired runs (same seed, same task): above 1, the first agent
needs more. ≥ and ≤: some runs of one agent did not get there, so the ratio is a bound; ≈: runs of both did not.</p>"""


def _provenance(report: Report) -> str:
    suite, runs = report.settings["suite"], report.runs
    stop_at = suite["stop_at"]
    solved = "" if stop_at is None else f"two evaluations in a row at {stop_at:g} or above, or "
    rows = [
        ("commands", f"python scripts/benchmark.py --preset {suite['name']}\npython scripts/report.py RESULTS"),
        ("runs", f"{len(runs)} finished; seeds {', '.join(map(str, sorted({run.seed for run in runs})))}"),
        (
            "evaluation",
            f"every {suite['growth']:.0%} more episodes, greedy, on {suite['evaluation_episodes']} held-out prompts "
            "(one episode where there is no prompt); not counted in episodes, tokens or seconds",
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
    rows += [
        ("versions", ", ".join(versions)),
        ("code", f"commit {commits}; digest {report.settings['code']}"),
        ("machine", f"{_distinct(machines)}; one thread for each run"),
    ]
    body = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>\n" for name, text in rows)
    return f'<table class="settings"><tbody>\n{body}</tbody></table>'


def _arguments(values: dict[str, Any]) -> str:
    return ", ".join(f"{key}={json.dumps(value)}" for key, value in values.items())


def _distinct(values: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(values))
