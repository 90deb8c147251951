"""The report's tables as data: terminal, page, Markdown and CSV show the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agents.benchmark.analyse import Estimate, Ratio
from agents.benchmark.summary import AXES, AXIS_NAMES, HEADLINE_AXES, Cell, Summary
from agents.benchmark.words import MANY_AGENTS, factor, kind_winner, median_text, p_text, ratio_text, score_text

Figure = tuple[str, str]
"""(value, its interval or "")."""


@dataclass(frozen=True)
class Row:
    names: tuple[str, ...]
    figures: dict[str, Figure]


@dataclass(frozen=True)
class Table:
    """Rows in blocks that belong together; `names` and `columns` are the heads."""

    title: str
    names: tuple[str, ...]
    columns: tuple[str, ...]
    blocks: tuple[tuple[Row, ...], ...]
    note: str = ""


def cell_figures(cell: Cell, thresholds: Sequence[float]) -> dict[str, Figure]:
    """The columns of an agent on an environment."""
    top = max(thresholds)
    columns = [("episodes", threshold) for threshold in thresholds] + [("timesteps", top), ("seconds", top)]
    return {
        **{f"{AXIS_NAMES[axis]} to {level:g}": median_text(cell, axis, level) for axis, level in columns},
        f"runs at {top:g}": (f"{cell.reached(top)}/{len(cell.runs)}", ""),
        "data use": (factor(cell.data_utilisation), ""),
        "area": score_text(cell.area),
        "final score": score_text(cell.final_score),
    }


def overall_figures(summary: Summary, agent: str) -> dict[str, Figure]:
    """The same columns over all environments, as far as a single figure makes sense."""
    top = max(summary.thresholds)
    cells = [cell for cell in summary.cells.values() if cell.agent == agent]
    reached, runs = sum(cell.reached(top) for cell in cells), sum(len(cell.runs) for cell in cells)
    return {
        **dict.fromkeys(cell_figures(cells[0], summary.thresholds), ("", "")),
        f"runs at {top:g}": (f"{reached}/{runs}", ""),
        "data use": (factor(summary.data_utilisation(agent)), ""),
        "area": score_text(summary.areas[agent]),
        "final score": score_text(summary.scores[agent]),
    }


def figures_table(summary: Summary) -> Table:
    """How much until it is learnt: every agent on every environment, and over all of them."""
    blocks = [
        tuple(Row((name, cell.agent), cell_figures(cell, summary.thresholds)) for cell in summary.row(name))
        for name in summary.environments
    ]
    if len(blocks) > 1:
        blocks.append(
            tuple(Row(("all environments", agent), overall_figures(summary, agent)) for agent in summary.agents)
        )
    return Table(
        "How much until it is learnt",
        ("environment", "agent"),
        tuple(blocks[0][0].figures),
        tuple(blocks),
        "Scores are normalised: 0 is random play, 1 the best possible. A threshold is crossed at the first of two "
        "consecutive evaluations at or above it. Area: under the learning curve from no episodes to the budget, so the "
        "mean score over it. Final score: mean over runs at their end, which is where they stopped because they had "
        "succeeded, or the end of the budget. Over all environments, area and final score are interquartile means.",
    )


def ratios_table(summary: Summary) -> Table | None:
    """How many times as much: every pair of agents once, or all agents over one where they are many."""
    threshold, first = max(summary.thresholds), summary.reference
    if len(summary.agents) >= MANY_AGENTS:
        pairs = [(first, agent) for agent in summary.agents if agent != first]
    else:
        pairs = [(a, b) for number, b in enumerate(summary.agents) for a in summary.agents[:number]]
    adjusted = {(h.comparison.a, h.comparison.b, h.comparison.axis): h.adjusted for h in summary.headlines}
    rows = []
    for a, b in pairs:
        if (a, b, AXES[0], threshold) not in summary.comparisons:
            continue
        figures: dict[str, Figure] = {
            AXIS_NAMES[axis]: ratio_text(summary.comparisons[a, b, axis, threshold].ratio) for axis in AXES
        }
        for axis in HEADLINE_AXES if adjusted else ():
            p_value = adjusted.get((a, b, axis))
            figures[f"p, {AXIS_NAMES[axis]}"] = (
                "" if p_value is None else p_text(p_value).removeprefix("p = ")[-8:],
                "",
            )
        rows.append(Row((f"{a} / {b}",), figures))
    if not rows:
        return None
    p_note = (
        " p: of a permutation test of the paired ratios, by Holm's correction over all of these p-values."
        if adjusted
        else ""
    )
    return Table(
        f"How many times as much, to {threshold:g}",
        ("ratio",),
        tuple(rows[0].figures),
        tuple((row,) for row in rows),
        "Geometric mean over environments and paired runs (same seed, same task): above 1, the first agent needs more. "
        "≥ and ≤: some runs of one agent did not get there, so the ratio is a bound; ≈: runs of both did not. A pair "
        f"of which neither got there counts as equal.{p_note}",
    )


def winners_table(summary: Summary) -> Table | None:
    """The best on-policy agent beside the best replay agent on every environment: where on-policy wins."""
    threshold = max(summary.thresholds)
    rows = []
    for name in summary.environments:
        figures: dict[str, Figure] = {}
        for axis in HEADLINE_AXES:
            best = kind_winner(summary, name, axis, threshold)
            if best is None:
                return None
            medians = [cell.medians[axis, threshold].value for cell in best]
            for kind, cell in zip(("on-policy", "replay"), best, strict=True):
                figures[f"{kind}, {AXIS_NAMES[axis]}"] = (median_text(cell, axis, threshold)[0], cell.agent)
            ahead = "neither" if medians[0] == medians[1] else "on-policy" if medians[0] < medians[1] else "replay"
            figures[f"ahead in {AXIS_NAMES[axis]}"] = (ahead, "")
        rows.append(Row((name,), figures))
    return Table(
        "Where on-policy wins",
        ("environment",),
        tuple(rows[0].figures),
        tuple((row,) for row in rows),
        f"Medians to {threshold:g} of the best agent of each kind on each environment, chosen by these medians.",
    )


def failures_table(summary: Summary) -> Table | None:
    """Cells in which some run did not reach the top threshold."""
    threshold = max(summary.thresholds)
    rows = []
    for name in summary.environments:
        for cell in summary.row(name):
            if cell.reached(threshold) < len(cell.runs):
                best = max(max(run.column("normalised_greedy")) for run in cell.runs)
                invalid = sum(run.settings["result"].get("invalid_texts", 0) for run in cell.runs)
                figures = {
                    f"runs at {threshold:g}": (f"{cell.reached(threshold)}/{len(cell.runs)}", ""),
                    "final score": score_text(cell.final_score),
                    "best score seen": (f"{best:.2f}", ""),
                    "illegal texts": (f"{invalid:,}", ""),
                }
                rows.append(Row((name, cell.agent), figures))
    if not rows:
        return None
    blocks = tuple(tuple(row for row in rows if row.names[0] == name) for name in summary.environments)
    return Table(
        f"What did not reach {threshold:g}",
        ("environment", "agent"),
        tuple(rows[0].figures),
        tuple(block for block in blocks if block),
        "Illegal texts: ended by an action that the task forbids.",
    )


def all_tables(summary: Summary) -> list[Table]:
    """Every table that there is something for, in the order of the report."""
    tables = (ratios_table, winners_table, failures_table, figures_table)
    return [table for table in (make(summary) for make in tables) if table is not None]


def csv_lines(summary: Summary) -> list[tuple[str, ...]]:
    """Every figure as (environment, agent, other agent, quantity, value, low, high, runs), head first."""
    lines: list[tuple[str, ...]] = [("environment", "agent", "other", "quantity", "value", "low", "high", "runs")]

    def add(
        environment: str, agent: str, other: str, quantity: str, figure: Estimate | Ratio | float, runs: int
    ) -> None:
        if isinstance(figure, Estimate | Ratio):
            values = (figure.value, figure.low, figure.high)
        else:
            values = (figure, float("nan"), float("nan"))
        texts = ("" if np.isnan(value) else f"{value:.6g}" for value in values)
        lines.append((environment, agent, other, quantity, *texts, str(runs)))

    for (environment, agent), cell in summary.cells.items():
        runs = len(cell.runs)
        for (axis, threshold), median in cell.medians.items():
            add(environment, agent, "", f"{axis} to {threshold:g}", median, runs)
        add(environment, agent, "", f"runs at {max(summary.thresholds):g}", cell.reached(max(summary.thresholds)), runs)
        add(environment, agent, "", "final score", cell.final_score, runs)
        add(environment, agent, "", "area", cell.area, runs)
        add(environment, agent, "", "data use", cell.data_utilisation, runs)
    for agent in summary.agents:
        add("", agent, "", "final score", summary.scores[agent], summary.scores[agent].num_runs)
        add("", agent, "", "area", summary.areas[agent], summary.areas[agent].num_runs)
    for (a, b, axis, threshold), comparison in summary.comparisons.items():
        ratio = comparison.ratio
        add("", a, b, f"ratio of {axis} to {threshold:g}", ratio, ratio.num_pairs)
    for (a, b), estimate in summary.improvements.items():
        add("", a, b, "probability of improvement", estimate, estimate.num_runs)
    for headline in summary.headlines:
        c = headline.comparison
        add("", c.a, c.b, f"p-value of {c.axis} to {c.threshold:g}, Holm", headline.adjusted, c.ratio.num_pairs)
    return lines
