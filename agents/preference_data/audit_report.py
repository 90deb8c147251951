"""The audit on the terminal, and as one HTML page that needs no network."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table

from agents.benchmark.html_page import html_page
from agents.benchmark.plots import STYLE
from agents.preference_data.audit import Audit, Verdict
from agents.preference_data.statistics import Share
from agents.rlhf.plots import to_svg

SIGNS = {Verdict.GOOD: "✓", Verdict.UNKNOWN: "–", Verdict.DOUBTFUL: "?", Verdict.NOT_ENOUGH: "✗"}
COLOURS = {Verdict.GOOD: "green", Verdict.UNKNOWN: "dim", Verdict.DOUBTFUL: "yellow", Verdict.NOT_ENOUGH: "red"}


def print_audit(audit: Audit, name: str, console: Console) -> None:
    """The table on the terminal."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for heading in ("criterion", "verdict", "figure"):
        table.add_column(heading, no_wrap=heading != "figure")
    for each in audit.criteria:
        colour = COLOURS[each.verdict]
        table.add_row(each.name, f"[{colour}]{SIGNS[each.verdict]} {each.verdict}[/]", each.figure)
    console.print(f"{name}: {audit.verdict}", style="bold", highlight=False, markup=False)
    console.print(table)
    for note in audit.notes:
        console.print(note, style="dim", highlight=False, markup=False)


def write_audit(audit: Audit, name: str, path: Path) -> None:
    """Write the page; it is there as a whole or not at all."""
    temporary = path.with_name(f"{path.name}.partial-{os.getpid()}")
    temporary.write_text(html(audit, name), encoding="utf-8")
    temporary.replace(path)


def html(audit: Audit, name: str) -> str:
    """The page as text: styles and plots are inside."""
    rows = ""
    for each in audit.criteria:
        advice = "" if each.verdict is Verdict.GOOD else f"<small>{escape(each.advice)}</small>"
        cells = (
            ("verdict", f"<b>{SIGNS[each.verdict]} {escape(each.verdict)}</b>"),
            ("figure", escape(each.figure) + advice),
            ("threshold", f"{escape(each.threshold)}<small>{escape(each.source)}</small>"),
        )
        rows += f"<tr><th>{escape(each.name)}</th>"
        rows += "".join(f'<td data-label="{label}">{text}</td>' for label, text in cells) + "</tr>\n"
    title = f"Preferences in {name}: {audit.verdict}"
    body = f"""<table class="samples">
<thead><tr><th>criterion</th><th>verdict</th><th>figure</th><th>threshold and source</th></tr></thead>
<tbody>
{rows}</tbody></table>
{_plots(audit)}"""
    return html_page(title, [escape(note) for note in audit.notes], body, ("agents.rlhf",))


def _plots(audit: Audit) -> str:
    figures: list[tuple[str, Figure]] = []
    places = [(str(place), share) for place, share in enumerate(audit.by_place, start=1) if share is not None]
    if places:
        figures.append(("How often each place on the page won", shares_figure(places, "place on the page")))
    if audit.by_length:
        label = "words that the longer answer has more"
        figures.append(("How often the longer answer won", shares_figure(audit.by_length, label)))
    images = ""
    for title, figure in figures:
        data = base64.b64encode(to_svg(figure).encode()).decode()
        images += f'<figure><figcaption>{title}</figcaption><img alt="{title}" '
        images += f'src="data:image/svg+xml;base64,{data}"></figure>\n'
    return f'<h2>Biases</h2>\n<div class="plots">\n{images}</div>' if images else ""


def shares_figure(shares: Sequence[tuple[str, Share]], label: str) -> Figure:
    """Shares with their 95 % intervals, about a line at one half."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.4, 2.8), layout="constrained")
        axes = figure.subplots()
        values = [100 * share.value for _, share in shares]
        below = [100 * (share.value - share.low) for _, share in shares]
        above = [100 * (share.high - share.value) for _, share in shares]
        axes.axhline(50, color="#999999", linewidth=0.8)
        axes.errorbar(range(len(shares)), values, yerr=[below, above], fmt="o", color="#0072B2", capsize=3)
        axes.set_xticks(range(len(shares)), [name for name, _ in shares])
        axes.set_xlim(-0.5, len(shares) - 0.5)
        ends = [100 * end for _, share in shares for end in (share.low, share.high)]
        axes.set_ylim(min(30, *ends) - 5, max(70, *ends) + 5)
        axes.set_xlabel(label)
        axes.set_ylabel("% of its pairs")
    return figure
