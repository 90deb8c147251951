"""Figures as text: numbers with their bounds, and sentences that say what the figures show, whoever wins."""

from collections.abc import Sequence

import numpy as np

from agents.benchmark.analyse import Estimate, Ratio
from agents.benchmark.statistics import rank_correlation
from agents.benchmark.summary import AXIS_NAMES, HEADLINE_AXES, ON_POLICY, REPLAY, Cell, Comparison, Headline, Summary

MANY_AGENTS = 4
"""From so many agents on, pairs are not told one by one."""


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
    """(median, its interval), with "> …" for what lies beyond the budget and "≥ …" for an interval reaching there; the
    interval is empty for one run."""
    estimate = cell.medians[axis, threshold]
    beyond = f"> {number(cell.observed_up_to(axis), axis)}"

    def text(value: float) -> str:
        return number(value, axis) if np.isfinite(value) else beyond

    if np.isnan(estimate.low):
        return text(estimate.value), ""
    if np.isinf(estimate.low):
        return text(estimate.value), beyond
    if np.isinf(estimate.high):
        return text(estimate.value), f"≥ {text(estimate.low)}"
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
    paragraphs = [_headline(summary), _reached(summary, threshold)]
    if len(summary.agents) >= MANY_AGENTS:
        paragraphs += [_order(summary, axis, threshold) for axis in HEADLINE_AXES]
    elif summary.leader("episodes", threshold) is not None:
        paragraphs.append(_ranking(summary, "episodes", threshold))
        paragraphs.append(_ranking(summary, "seconds", threshold) + _trade_off(summary, threshold))
    paragraphs.append(_utilisation(summary, threshold))
    paragraphs.append(_caveat(summary))
    return [paragraph for paragraph in paragraphs if paragraph]


def p_text(value: float) -> str:
    """ "p < 0.001", "p = 0.02"."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}"


def _headline(summary: Summary) -> str:
    """The comparison that the benchmark is about, in words; empty where the suite has no such two kinds of agents."""
    best = summary.best_replay
    if best is None:
        return ""
    found = {h.comparison.axis: h for h in summary.headlines if h.comparison.b == best}
    count_all = len(summary.headlines)
    text = " ".join(_headline_sentence(found[axis], axis, best) for axis in HEADLINE_AXES if axis in found)
    correction = (
        f"p-values are Holm's, for {count_all} comparisons" if count_all > 1 else "p-values of a permutation test"
    )
    chosen = (
        ""
        if len({h.comparison.b for h in summary.headlines}) == 1
        else (f"; {best} was chosen as the best replay agent by these same figures, which flatters it a little")
    )
    return f"{text} ({correction}{chosen}.)"


def _headline_sentence(headline: Headline, axis: str, best: str) -> str:
    comparison, p_value = headline.comparison, p_text(headline.adjusted)
    ratio, top = comparison.ratio, f"{comparison.threshold:g}"
    things = AXIS_NAMES[axis]
    if ratio.both_censored == ratio.num_pairs:
        return f"Neither {comparison.a} nor {best} reached {top}."
    value, interval = ratio_text(ratio)
    sign = {"≥": "at least ", "≤": "at most ", "≈": "roughly "}.get(ratio_sign(ratio), "")
    bounds = f"95 % interval {interval}, " if interval else ""
    verdict = ""
    if headline.adjusted >= 0.05 or np.isnan(ratio.low) or ratio.low <= 1.0 <= ratio.high:
        verdict = " That is no clear difference."
    elif not comparison.clear:
        verdict = " Some runs did not get there, so the true ratio may lie on the other side of 1."
    return (
        f"To reach {top}, {comparison.a} needed {sign}{value.split()[-1]} times the {things} of {best} "
        f"({bounds}{count(ratio.num_pairs, 'pair')} of runs, {p_value}).{verdict}"
    )


def _order(summary: Summary, axis: str, threshold: float) -> str:
    """All agents by what they need, as multiples of whoever needs least."""
    best = summary.leader(axis, threshold)
    if best is None:
        return ""
    others = [c for c in (summary.comparisons.get((x, best, axis, threshold)) for x in summary.agents) if c is not None]
    others = [c for c in others if c.ratio.both_censored < c.ratio.num_pairs]
    parts = []
    for comparison in sorted(others, key=lambda c: c.ratio.value):
        value, interval = ratio_text(comparison.ratio)
        parts.append(f"{comparison.a} {value}" + (f" ({interval})" if interval else ""))
    return (
        f"{best} needed the fewest {AXIS_NAMES[axis]} to {threshold:g} on the geometric mean; the others, as multiples "
        f"of that: {enumerate_words(parts)}."
    )


def kind_winner(summary: Summary, environment: str, axis: str, threshold: float) -> tuple[Cell, Cell] | None:
    """(best on-policy cell, best replay cell) of an environment by their medians, the area under the curve where both
    are beyond the budget; None without either kind."""
    best = []
    for kind in (ON_POLICY, REPLAY):
        cells = [cell for cell in summary.row(environment) if summary.kinds[cell.agent] == kind]
        if not cells:
            return None
        best.append(min(cells, key=lambda cell: (cell.medians[axis, threshold].value, -cell.area.value)))
    return best[0], best[1]


def _reached(summary: Summary, threshold: float) -> str:
    parts, all_reached = [], True
    for agent in summary.agents:
        cells = [cell for cell in summary.cells.values() if cell.agent == agent]
        reached, runs = sum(cell.reached(threshold) for cell in cells), sum(len(cell.runs) for cell in cells)
        won = sum(np.isfinite(cell.medians["episodes", threshold].value) for cell in cells)
        part = f"{agent} in {reached} of {count(runs, 'run')}"
        if reached < runs:
            all_reached = False
        if reached < runs and len(summary.agents) < MANY_AGENTS:
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
    needed = f"{a} needed {bound}{factor(ratio.value)} times the {things} of {b}"
    environments = sum((name, a) in summary.cells and (name, b) in summary.cells for name in summary.environments)
    details = f"geometric mean over {count(environments, 'environment')}, {count(ratio.num_pairs, 'pair')} of runs"
    if not np.isnan(ratio.low):
        interval = "95 % interval of this bound" if bound else "95 % interval"
        details = f"{interval} {factor(ratio.low)} to {factor(ratio.high)}; {details}"
    undecided = ""
    if ratio.both_censored:
        undecided = f" In {count(ratio.both_censored, 'pair')} neither got there, which counts as equal."

    if contested(summary, comparison):
        return (
            f"Who needs fewer {things} to reach {top} depends on the environment: {_winners(summary, comparison)}. "
            f"Overall, {needed} ({details}).{undecided}"
        )
    if comparison.clear:
        return f"To reach {top}, {needed} ({details}).{undecided}"
    if np.isnan(ratio.low):
        reason = "with a single pair of runs on an environment there is no interval, so it may be chance"
    elif ratio.low <= 1.0 <= ratio.high:
        reason = "the interval includes 1"
    else:
        loser, pairs = (b, ratio.only_b_censored) if ratio.low > 1.0 else (a, ratio.only_a_censored)
        reason = f"{loser} alone did not get there in {count(pairs, 'pair')}, so the truth may lie beyond 1"
    return (
        f"There is no clear difference between {a} and {b} in the {things} to {top}: {needed} ({details}), "
        f"but {reason}.{undecided}"
    )


def contested(summary: Summary, comparison: Comparison) -> bool:
    """Whether each of the two agents has the lower median on some environment."""
    return len({cell.agent for cell, _ in _lower_medians(summary, comparison)}) > 1


def _lower_medians(summary: Summary, comparison: Comparison) -> list[tuple[Cell, Cell]]:
    """(the cell with the lower median, the other) for the environments where the two medians differ."""
    key, ordered = (comparison.axis, comparison.threshold), []
    for name in summary.environments:
        first, second = summary.cells.get((name, comparison.a)), summary.cells.get((name, comparison.b))
        if first is not None and second is not None and first.medians[key].value != second.medians[key].value:
            swap = second.medians[key].value < first.medians[key].value
            ordered.append((second, first) if swap else (first, second))
    return ordered


def _winners(summary: Summary, comparison: Comparison) -> str:
    """ "A on X (median 100 against 200) and Y (…), B on Z (…)"."""
    places: dict[str, list[str]] = {}
    for winner, loser in _lower_medians(summary, comparison):
        medians = [median_text(cell, comparison.axis, comparison.threshold)[0] for cell in (winner, loser)]
        places.setdefault(winner.agent, []).append(f"{winner.environment} ({medians[0]} against {medians[1]})")
    return ", ".join(f"{agent} on {enumerate_words(where)}" for agent, where in places.items())


def _beats_all(summary: Summary, agent: str, axis: str, threshold: float) -> bool:
    """Whether every other agent clearly needs more, and on no environment less."""
    comparisons = [
        summary.comparisons.get((other, agent, axis, threshold)) for other in summary.agents if other != agent
    ]
    return all(c is not None and c.clear and not contested(summary, c) for c in comparisons)


def _trade_off(summary: Summary, threshold: float) -> str:
    """Says so where one agent needs less data than all others and another less time."""
    data, time = summary.leader("episodes", threshold), summary.leader("seconds", threshold)
    if data is None or time is None or data == time:
        return ""
    decided = _beats_all(summary, data, "episodes", threshold) and _beats_all(summary, time, "seconds", threshold)
    return f" So {data} needs less data, {time} less time." if decided else ""


def _utilisation(summary: Summary, threshold: float) -> str:
    used = {agent: summary.data_utilisation(agent) for agent in summary.agents}
    parts = [f"{factor(value)} times with {agent}" for agent, value in used.items()]
    text = f"Every token that was written entered gradient steps {enumerate_words(parts)} (median)."
    if len(set(used.values())) > 1:
        text += " That is how much was done with the data, not how well it was used"
        best = summary.leader("episodes", threshold)
        if len(summary.agents) >= MANY_AGENTS:
            learners = [agent for agent, value in used.items() if value > 0]
            rho = rank_correlation([used[agent] for agent in learners], [summary.areas[a].value for a in learners])
            text += (
                ""
                if np.isnan(rho)
                else (
                    f": over the {len(learners)} agents that state it, its rank correlation with the area under the "
                    f"learning curve is {rho:.2f}"
                )
            )
        elif best is not None and _beats_all(summary, best, "episodes", threshold):
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
