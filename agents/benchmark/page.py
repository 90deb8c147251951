"""The report as one HTML page that needs no network, and as Markdown."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

import matplotlib

from agents.benchmark.figures import Drawing
from agents.benchmark.html_page import html_page
from agents.benchmark.plots import CURVE_AXES, LEGEND_INSIDE, STYLE, legend_svg, panel_svg, svg
from agents.benchmark.summary import AXIS_NAMES, Summary
from agents.benchmark.tables import Figure, Table

CURVES_NOTE = (
    "Mean normalised score of greedy play over runs, with a 95 % bootstrap band. Each marker is one run crossing "
    "{levels}. A thin line carries a curve on after the last of its runs has succeeded and stopped; a curve ends where "
    "a run has used up its budget. Seconds are those of training alone, on one thread."
)
FIRST = '<tr class="first">'


def html(
    title: str,
    summary: Summary,
    words: Sequence[str],
    warnings: Sequence[tuple[str, Sequence[str]]],
    tables: Sequence[Table],
    drawings: Sequence[Drawing],
    note: str,
    provenance: Sequence[tuple[str, str]],
) -> str:
    """The page as text: styles and plots are inside.

    Args:
        title: of the page.
        summary: for the learning curves.
        words: paragraphs of the summary.
        warnings: (what, which) of what is missing, failed or damaged.
        tables, drawings: in their order.
        note: about all tables.
        provenance: (name, text) rows of what was run.
    """
    names = summary.environments
    boxes = "".join(_box(what, items) for what, items in warnings)
    figures = "".join(_drawing(drawing) for drawing in drawings)
    curves = "\n".join(_curves(summary, axis) for axis in CURVE_AXES)
    levels = " or ".join(f"{threshold:g}" for threshold in summary.thresholds)
    settings = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>\n" for name, text in provenance)
    body = f"""{boxes}
{"".join(_table(table, names) for table in tables)}
<p class="note">{unbroken(note)}</p>
<h2>In figures</h2>
<div class="plots">
{figures}</div>
<h2>Learning curves</h2>
<p class="note">{unbroken(CURVES_NOTE.format(levels=levels))}</p>
{curves}
<h2>What was run</h2>
<table class="settings"><tbody>
{settings}</tbody></table>"""
    return html_page(title, [unbroken(paragraph, names) for paragraph in words], body)


def markdown(
    title: str,
    words: Sequence[str],
    warnings: Sequence[tuple[str, Sequence[str]]],
    tables: Sequence[Table],
    drawings: Sequence[Drawing],
    note: str,
    provenance: Sequence[tuple[str, str]],
) -> str:
    """The same in Markdown, beside the folder ``plots``."""
    parts = [f"# {title}", *words]
    parts += [f"**{what}**\n\n" + "\n".join(f"- {item}" for item in items) for what, items in warnings]
    for table in tables:
        parts += [f"## {table.title}", markdown_table(table), table.note]
    parts.append(note)
    for drawing in drawings:
        parts += [f"## {drawing.title}", f"![{drawing.title}](plots/{drawing.name}.png)", drawing.caption]
    parts.append("## Learning curves")
    parts += [f"![Learning curves against {AXIS_NAMES[axis]}](plots/{curves_name(axis)}.png)" for axis in CURVE_AXES]
    parts.append("## What was run")
    lines = (text.replace("\n", "; ").replace("|", "\\|") for _, text in provenance)
    rows = "\n".join(f"| {name} | {line} |" for (name, _), line in zip(provenance, lines, strict=True))
    parts.append("| | |\n|---|---|\n" + rows)
    return "\n\n".join(part for part in parts if part) + "\n"


def curves_name(axis: str) -> str:
    return f"learning-curves-{AXIS_NAMES[axis].replace(' ', '-')}"


def markdown_table(table: Table) -> str:
    """A table for a page of text."""

    def cell(figure: Figure) -> str:
        value, interval = figure
        return (f"{value} ({interval})" if interval else value).replace("|", "\\|")

    lines = [
        "| " + " | ".join((*table.names, *table.columns)) + " |",
        "|---" * (len(table.names) + len(table.columns)) + "|",
    ]
    for block in table.blocks:
        for row in block:
            lines.append("| " + " | ".join((*row.names, *(cell(row.figures[c]) for c in table.columns))) + " |")
    return "\n".join(lines)


def unbroken(text: str, names: Iterable[str] = ()) -> str:
    """Text for the page, with signs kept on the line of their number, and names with numbers in them in one piece."""
    text = escape(text).replace("95 %", "95&nbsp;%").replace("&gt; ", "&gt;&nbsp;").replace("≥ ", "≥&nbsp;")
    for name in map(escape, names):
        text = text.replace(name, name.replace(" ", "&nbsp;"))
    return text


def _box(what: str, items: Sequence[str]) -> str:
    lines = "".join(f"<li>{escape(item)}</li>" for item in items)
    return f'<div class="warning"><p>{escape(what)}</p><ul>{lines}</ul></div>\n'


def _image(text: str, about: str) -> str:
    data = base64.b64encode(text.encode()).decode()
    return f'<img src="data:image/svg+xml;base64,{data}" alt="{escape(about)}">\n'


def _drawing(drawing: Drawing) -> str:
    with matplotlib.rc_context(STYLE):
        image = _image(svg(drawing.figure), drawing.title)
    caption = f"<figcaption>{unbroken(drawing.caption)}</figcaption>"
    return f"<figure><h3>{escape(drawing.title)}</h3>\n{image}{caption}</figure>\n"


def _curves(summary: Summary, axis: str) -> str:
    legend = ""
    if len(summary.agents) > LEGEND_INSIDE:
        legend = f'<div class="legend">{_image(legend_svg(summary), "Which line is which agent")}</div>'
    images = ""
    for environment in summary.environments:
        about = f"Learning curves of {', '.join(summary.agents)} on {environment} against {AXIS_NAMES[axis]}"
        images += _image(panel_svg(summary, environment, axis), about)
    return f'<h3>Against {AXIS_NAMES[axis]}</h3>\n{legend}<div class="plots">\n{images}</div>'


def _table(table: Table, names: Sequence[str]) -> str:
    """Blocks stay on one page when it is printed; on a narrow screen every row is a list."""
    head = "".join(f'<th class="name">{escape(text)}</th>' for text in table.names)
    head += "".join(f"<th>{escape(text)}</th>" for text in table.columns)
    bodies = ""
    for block in table.blocks:
        body = ""
        for number, row in enumerate(block):
            cells = "".join(_name_cell(label, text) for label, text in zip(table.names, row.names, strict=True))
            cells += "".join(_data_cell(column, *row.figures[column]) for column in table.columns)
            body += f"{'<tr>' if number else FIRST}{cells}</tr>\n"
        bodies += f"<tbody>\n{body}</tbody>"
    note = f'<p class="note">{unbroken(table.note, names)}</p>\n' if table.note else ""
    return (
        f'<h2>{escape(table.title)}</h2>\n<div class="wide"><table class="figures"><thead><tr>{head}</tr></thead>'
        f"{bodies}</table></div>\n{note}"
    )


def _data_cell(label: str, value: str, interval: str) -> str:
    if not value:
        return '<td class="empty"></td>'
    small = f"<small>{escape(interval)}</small>" if interval else ""
    return f'<td data-label="{escape(label)}"><b>{escape(value)}</b>{small}</td>'


def _name_cell(label: str, text: str) -> str:
    return f'<td class="name" data-label="{escape(label)}">{escape(text)}</td>'
