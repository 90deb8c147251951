"""Figures as text: numbers with their bounds, and sentences that say what the figures show, whoever wins."""

from collections.abc import Sequence

import numpy as np

from agents.benchmark.analyse import Estimate, Ratio
from agents.benchmark.summary import AXIS_NAMES, Cell, Comparison, Summary


def number(value: float, axis: str = "episodes") -> str:
    """1234.0 → "1,234"; seconds below ten keep a digit."""
    return f"{value:.1f}" if axis == "seconds" and value < 9.95 else f"{value:,.0f}"


def factor(value: float) -> str:
    """A ratio with about two significant digits: "0.45", "3.1", "12"."""
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 0.995 else f"{value:.2f}"


def count(value: int, noun: str) -> str:
    """ "1 run", "3 runs"."""
    return f"{value} {noun}" + ("" if value == 1 else "s")


def enumerate_words(parts: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def median_text(cell: Cell, axis: str, threshold: float) -> tuple[str, str]:
    """(median, its interval), with "> …" for what lies beyond the budget; the interval is empty for one run."""
    estimate = cell.medians[axis, threshold]
    beyond = f"> {number(cell.observed_up_to(axis), axis)}"

    def text(value: float) -> str:
        return number(value, axis) if np.isfinite(value) else beyond

    if np.isnan(estimate.low):
        return text(estimate.value), ""
    if np.isinf(estimate.low):
        return text(estimate.value), beyond
    return text(estimate.value), f"{text(estimate.low)}–{text(estimate.high)}"


def score_text(estimate: Estimate) -> tuple[str, str]:
    """(value, interval) of a normalised score; the interval is empty for one run."""
    interval = "" if np.isnan(estimate.low) else f"{estimate.low:.2f}–{estimate.high:.2f}"
    return f"{estimate.value:.2f}", interval


def ratio_sign(ratio: Ratio) -> str:
    """What a ratio of censored times is: "" exact, "≥" or "≤" a bound, "≈" neither."""
    if not (ratio.only_a_censored or ratio.only_b_censored or ratio.both_censored):
        return ""
    if ratio.both_censored or (ratio.only_a_censored and ratio.only_b_censored):
        return "≈"
    return "≥" if ratio.only_a_censored else "≤"


def ratio_text(ratio: Ratio) -> tuple[str, str]:
    """(value with its sign, interval); the interval is empty for one run."""
    if ratio.both_censored == ratio.num_pairs:
        return "unknown", ""
    interval = "" if np.isnan(ratio.low) else f"{factor(ratio.low)}–{factor(ratio.high)}"
    return f"{ratio_sign(ratio)} {factor(ratio.value)}".strip(), interval


def conclusions(summary: Summary) -> list[str]:
    """What the figures say, a paragraph each, and no more than the intervals allow."""
    threshold = max(summary.thresholds)
    paragraphs = [_reached(summary, threshold)]
    if summary.leader("episodes", threshold) is not None:
        paragraphs.append(_ranking(summary, "episodes", threshold) + _exceptions(summary, threshold))
        paragraphs.append(_ranking(summary, "seconds", threshold) + _trade_off(summary, threshold))
    paragraphs.append(_utilisation(summary, threshold))
    paragraphs.append(_caveat(summary))
    return [paragraph for paragraph in paragraphs if paragraph]


def _reached(summary: Summary, threshold: float) -> str:
    parts, all_reached = [], True
    for agent in summary.agents:
        cells = [cell for cell in summary.cells.values() if cell.agent == agent]
        reached, runs = sum(cell.reached(threshold) for cell in cells), sum(len(cell.runs) for cell in cells)
        won = sum(np.isfinite(cell.medians["episodes", threshold].value) for cell in cells)
        part = f"{agent} in {reached} of {count(runs, 'run')}"
        if reached < runs:
            all_reached = False
            part += f" (in most of its runs on {won} of {count(len(cells), 'environment')})"
        parts.append(part)
    text = f"A normalised score of {threshold:g} was reached by {enumerate_words(parts)}."
    if not all_reached:
        text += " A run that did not get there counts as needing more than its budget; none is left out."
    if summary.missing:
        text += f" Of a full comparison, {count(len(summary.missing), 'run')} failed or were not played."
    return text


def _ranking(summary: Summary, axis: str, threshold: float) -> str:
    best = summary.leader(axis, threshold)
    comparisons = [summary.comparisons.get((other, str(best), axis, threshold)) for other in summary.agents]
    return " ".join(_compare(summary, comparison) for comparison in comparisons if comparison is not None)


def _compare(summary: Summary, comparison: Comparison) -> str:
    ratio, a, b = comparison.ratio, comparison.a, comparison.b
    top, things = f"{comparison.threshold:g}", AXIS_NAMES[comparison.axis]
    if ratio.both_censored == ratio.num_pairs:
        return f"Neither {a} nor {b} reached {top} in any pair of runs."
    bound = {"≥": "at least ", "≤": "at most ", "≈": "roughly ", "": ""}[ratio_sign(ratio)]
    environments = sum((name, a) in summary.cells and (name, b) in summary.cells for name in summary.environments)
    scope = f"geometric mean over {count(environments, 'environment')}, {count(ratio.num_pairs, 'pair')} of runs"
    undecided = ""
    if ratio.both_censored:
        undecided = f" In {count(ratio.both_censored, 'pair')} neither got there, which counts as equal."
    needed = f"{a} needed {bound}{factor(ratio.value)} times"
    if np.isnan(ratio.low):
        return (
            f"To reach {top}, {needed} the {things} of {b} ({scope}); with one run each there is no interval, "
            f"so it may be chance.{undecided}"
        )
    of_bound = " of this bound" if bound else ""
    interval = f"95 % interval{of_bound} {factor(ratio.low)} to {factor(ratio.high)}"
    if comparison.clear:
        return f"To reach {top}, {needed} the {things} of {b} ({interval}; {scope}).{undecided}"
    if ratio.low <= 1.0 <= ratio.high:
        reason = "which includes 1"
    else:
        loser, pairs = (b, ratio.only_b_censored) if ratio.low > 1.0 else (a, ratio.only_a_censored)
        reason = f"but {loser} alone did not get there in {count(pairs, 'pair')}, so the truth may lie beyond 1"
    return (
        f"There is no clear difference between {a} and {b} in the {things} to {top}: {needed} those of {b} "
        f"({interval}, {reason}; {scope}).{undecided}"
    )


def _exceptions(summary: Summary, threshold: float) -> str:
    """Environments where the agent that is best overall is beaten."""
    best = summary.leader("episodes", threshold)
    sentences = ""
    for environment in summary.environments:
        cells = {cell.agent: cell for cell in summary.row(environment)}
        quickest = min(cells.values(), key=lambda cell: cell.medians["episodes", threshold].value)
        own = cells.get(str(best))
        if own is None or quickest.medians["episodes", threshold].value >= own.medians["episodes", threshold].value:
            continue
        medians = [f"{cell.agent} {median_text(cell, 'episodes', threshold)[0]}" for cell in (quickest, own)]
        sentences += (
            f" On {environment}, {quickest.agent} needed fewer than {best} (medians: {enumerate_words(medians)})."
        )
    return sentences


def _trade_off(summary: Summary, threshold: float) -> str:
    """Says so where one agent clearly needs less data and another clearly less time."""
    data, time = summary.leader("episodes", threshold), summary.leader("seconds", threshold)
    if data is None or time is None or data == time:
        return ""
    orders = [
        summary.comparisons[time, data, "episodes", threshold],
        summary.comparisons[data, time, "seconds", threshold],
    ]
    return f" So {data} needs less data, {time} less time." if all(order.clear for order in orders) else ""


def _utilisation(summary: Summary, threshold: float) -> str:
    used = {
        agent: float(np.median([cell.data_utilisation for cell in summary.cells.values() if cell.agent == agent]))
        for agent in summary.agents
    }
    parts = [f"{factor(value)} times with {agent}" for agent, value in used.items()]
    text = f"Every token that was written entered gradient steps {enumerate_words(parts)} (median)."
    if len(set(used.values())) > 1:
        text += " That is how much was done with the data, not how well it was used"
        best = summary.leader("episodes", threshold)
        others = [summary.comparisons.get((agent, str(best), "episodes", threshold)) for agent in used if agent != best]
        if best is not None and all(other is not None and other.clear for other in others):
            verb = "is" if used[best] == max(used.values()) else "is not"
            text += f": the agent that needed the fewest episodes ({best}) {verb} the one that used each token most"
        text += "."
    return text


def _caveat(summary: Summary) -> str:
    runs = min(len(cell.runs) for cell in summary.cells.values())
    if runs >= 10:
        return ""
    return (
        f"With {count(runs, 'run')} of an agent on an environment, intervals are rough, and too narrow rather than "
        "too wide: settle close calls with more seeds."
    )
