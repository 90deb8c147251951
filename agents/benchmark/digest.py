"""What README and docs say of the committed results and of the tuned configs, made from their rows.

scripts/docs_tables.py writes it between markers, and a test fails where it is out of date.
"""

from __future__ import annotations

import json
import textwrap

from agents.benchmark.page import markdown_table
from agents.benchmark.report import Report
from agents.benchmark.suites import STANDARD_DEFAULTS, TUNED
from agents.benchmark.summary import HEADLINE_AXES, Summary
from agents.benchmark.tables import Figure, Row, Table, ratios_table, winners_table
from agents.benchmark.words import conclusions, median_text, ratio_text, score_text


def agents_table(summary: Summary) -> Table:
    """A line for each agent over all environments."""
    threshold, first = max(summary.thresholds), summary.reference
    rows = []
    for agent in summary.agents:
        cells = [cell for cell in summary.cells.values() if cell.agent == agent]
        reached, runs = sum(cell.reached(threshold) for cell in cells), sum(len(cell.runs) for cell in cells)
        figures: dict[str, Figure] = {"kind": (summary.kinds[agent] or "–", "")}
        for axis in HEADLINE_AXES:
            compared = summary.comparisons.get((agent, first, axis, threshold))
            figures[f"{axis} to {threshold:g}, × {first}'s"] = (
                ("1", "") if compared is None else ratio_text(compared.ratio)
            )
        figures[f"runs at {threshold:g}"] = (f"{reached}/{runs}", "")
        figures["area"] = score_text(summary.areas[agent])
        rows.append(Row((agent,), figures))
    return Table("Agents", ("agent",), tuple(rows[0].figures), (tuple(rows),))


def summary_text(report: Report) -> str:
    """README: the headline in words, the agents beside each other."""
    words = conclusions(report.summary)
    return "\n\n".join([_wrapped(words[0]), markdown_table(agents_table(report.summary))])


def results_text(report: Report) -> str:
    """docs/results.md: all of the words, and who needs how much where."""
    summary = report.summary
    tables = [winners_table(summary), ratios_table(summary), medians_table(summary)]
    blocks = [_wrapped(paragraph) for paragraph in conclusions(summary)]
    for table in tables:
        if table is not None:
            blocks += [f"**{table.title}**", markdown_table(table)]
    return "\n\n".join(blocks)


def medians_table(summary: Summary) -> Table:
    """Median episodes to the top threshold of every agent on every environment, and how many runs got there."""
    threshold = max(summary.thresholds)
    rows = []
    for environment in summary.environments:
        cells = {cell.agent: cell for cell in summary.row(environment)}
        figures = {
            agent: (median_text(cell, "episodes", threshold)[0], f"{cell.reached(threshold)}/{len(cell.runs)}")
            for agent, cell in cells.items()
        }
        rows.append(Row((environment,), figures))
    return Table(f"Median episodes to {threshold:g}", ("environment",), summary.agents, tuple((row,) for row in rows))


def tuned_table() -> str:
    """docs/benchmark.md: what tuning chose for every agent, and what the defaults had."""
    lines = ["| agent | area: defaults | chosen | trial | config of the suite |", "|---|---|---|---|---|"]
    for setting in STANDARD_DEFAULTS:
        if (entry := TUNED.get(setting.name)) is not None:
            config = ", ".join(f"`{name}={json.dumps(value)}`" for name, value in entry["config"].items())
            scores = f"{entry['default_score']:.3f} | {entry['score']:.3f}"
            lines.append(f"| {setting.name} | {scores} | {entry['trial']} | {config or 'its defaults'} |")
    entry = next(iter(TUNED.values()))
    environments = ", ".join(f"{name} ({episodes:,} episodes)" for name, episodes in entry["episodes"].items())
    seeds = ", ".join(map(str, entry["run_seeds"]))
    return "\n".join(lines) + (
        f"\n\n{entry['trials']} trials for each agent; {environments}; run seeds {seeds}; search seed {entry['seed']}."
    )


def _wrapped(text: str, width: int = 130) -> str:
    """Lines of at most ``width`` characters, broken between words."""
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)
