"""Our agents against Stable-Baselines3's: tune alike, play the best of each, and say who needed how much.

Runs are those of the benchmark (:mod:`agents.benchmark.run`) and kept as it keeps them; they are played in turn in this
process, seed by seed with all contestants beside each other, and their seconds are those of the processor: on a machine
that is shared, the clock would measure what others do.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from agents.benchmark.analyse import crossing_time
from agents.benchmark.plots import STYLE, draw_panel, legend_handles
from agents.benchmark.results import is_finished, open_results, run_folder
from agents.benchmark.rows import Run, read_run
from agents.benchmark.run import check, play
from agents.benchmark.sb3_settings import THRESHOLD, Contestant, Section
from agents.benchmark.suites import AgentSetting, RunSetting, Suite, run_settings
from agents.benchmark.summary import Cell, Summary, summarise
from agents.benchmark.words import median_text, ratio_text, score_text

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """A section that has been played."""

    section: Section
    chosen: dict[str, AgentSetting]
    """Contestant → the configuration it was compared with."""
    summary: Summary
    """Of all environments."""
    by_environment: dict[str, Summary]


@dataclass(frozen=True)
class Line:
    """A line of the table: a contestant on an environment, or its ratio to ours over all of them."""

    section: str
    environment: str
    contestant: str
    config: str
    needed: str
    """Median to 0.9; "> …" beyond the budget."""
    interval: str
    reached: str
    """Runs at 0.9 of all."""
    score: str
    """Mean normalised score at the end of the runs."""
    ratio: str
    """Geometric mean of the pairs: this contestant's need over ours; "≥" where its runs ran out of budget."""
    ratio_interval: str


def play_section(section: Section, out: Path, tell: Tell) -> Outcome:
    """Tune, compare, and analyse one section; whatever is finished in ``out`` is kept and not run again."""
    chosen = {each.name: choose(section, each, out, tell) for each in section.contestants}
    suite = section.suite(list(chosen.values()), tuning=False)
    runs = play_suite(suite, out / section.name, tell)
    names = [environment.name for environment in suite.environments]
    agents = [each.name for each in section.contestants]
    summary = summarise(runs, names, agents, (THRESHOLD,))
    by_environment = {name: summarise(runs, [name], agents, (THRESHOLD,)) for name in names}
    return Outcome(section, chosen, summary, by_environment)


def choose(section: Section, contestant: Contestant, out: Path, tell: Tell) -> AgentSetting:
    """The configuration that a contestant is compared with: the best of the grid on the seeds of tuning."""
    if not contestant.tuned:
        return AgentSetting(contestant.name, contestant.agent, dict(contestant.config))
    candidates = [
        AgentSetting(describe(cell), contestant.agent, {**contestant.config, **cell}) for cell in section.grid
    ]
    suite = section.suite(candidates, tuning=True)
    runs = play_suite(suite, out / f"{section.name}-tuning" / contestant.agent.lower(), tell)
    best = min(candidates, key=lambda each: penalty([run for run in runs if run.agent == each.name], section.axis))
    tell(f"{section.name}: {contestant.name} is best with {best.name}")
    return AgentSetting(contestant.name, best.agent, best.config)


def penalty(runs: Sequence[Run], axis: str) -> tuple[int, float, float]:
    """How bad a configuration is: by runs that did not reach 0.9, then by the geometric mean of what the runs needed
    (their whole budget where they did not), then by the mean score at their ends."""
    crossings = [crossing_time(run.column(axis), run.column("normalised_greedy"), THRESHOLD) for run in runs]
    missed = sum(not observed for _, observed in crossings)
    needed = float(np.mean([np.log(max(value, 1e-9)) for value, _ in crossings]))
    return missed, needed, -float(np.mean([run.rows[-1].normalised_greedy for run in runs]))


def play_suite(suite: Suite, out: Path, tell: Tell) -> list[Run]:
    """All runs of a suite, those that are not finished being played one after the other."""
    settings = run_settings(suite)
    for setting in settings:
        if setting.seed == settings[0].seed:
            check(setting)
    open_results(out, suite)
    for number, setting in enumerate(settings, start=1):
        if not is_finished(out, setting):
            play(setting, out, clock=time.process_time)
            tell(f"  {number}/{len(settings)} {suite.name}: {_told(setting, read_run(run_folder(out, setting)))}")
    return [read_run(run_folder(out, setting)) for setting in settings]


def _told(setting: RunSetting, run: Run) -> str:
    last = run.rows[-1]
    how = f"reached {THRESHOLD}" if run.solved else f"ended at {last.normalised_greedy:.2f}"
    return f"{setting.label}: {how} after {last.episodes:,} episodes, {last.seconds:.1f} s"


def describe(config: dict[str, object]) -> str:
    """A configuration in short: "learning_rate=0.001, epochs=4"."""
    return ", ".join(
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in config.items()
    )


def table(outcome: Outcome) -> list[Line]:
    """Every contestant on every environment, then the ratios over all environments."""
    section, lines = outcome.section, []
    for name, summary in outcome.by_environment.items():
        for contestant in section.contestants:
            cell: Cell = summary.cells[name, contestant.name]
            needed, interval = median_text(cell, section.axis, THRESHOLD)
            score = " ".join(_in_brackets(score_text(cell.final_score)))
            reached = f"{cell.reached(THRESHOLD)}/{len(cell.runs)}"
            lines.append(_line(outcome, name, contestant, needed, interval, reached, score, summary))
    for contestant in section.contestants[1:]:
        lines.append(_line(outcome, "all", contestant, "", "", "", "", outcome.summary))
    return lines


def _line(
    outcome: Outcome, environment: str, contestant: Contestant, needed: str, interval: str, reached: str, score: str,
    summary: Summary,
) -> Line:  # fmt: skip
    section, ratio = outcome.section, ("", "")
    ours = section.contestants[0].name
    if contestant.name != ours:
        ratio = ratio_text(summary.comparisons[contestant.name, ours, section.axis, THRESHOLD].ratio)
    config = {k: v for k, v in outcome.chosen[contestant.name].config.items() if k not in contestant.config}
    return Line(
        section.name, environment, contestant.name, describe(config) or "defaults", needed, interval, reached, score,
        *ratio,
    )  # fmt: skip


def verdicts(outcome: Outcome) -> list[str]:
    """For every other contestant that was tuned, whether ours needed no more: on the geometric mean, and where not."""
    section = outcome.section
    ours, key = section.contestants[0].name, (section.axis, THRESHOLD)
    sentences = []
    for other in (each for each in section.contestants[1:] if each.tuned):
        ratio = outcome.summary.comparisons[other.name, ours, *key].ratio
        verdict = "undecided: neither ever got there"
        if ratio.both_censored < ratio.num_pairs:
            verdict = "met" if ratio.value >= 1 else "MISSED"
        behind = [
            name
            for name, summary in outcome.by_environment.items()
            if summary.cells[name, ours].medians[key].value > summary.cells[name, other.name].medians[key].value
        ]
        text, interval = ratio_text(ratio)
        within = f" ({interval})" if interval else ""
        where = f"; the median is higher on {', '.join(behind)}" if behind else ""
        sentences.append(
            f"{ours} needs no more {section.axis} than {other.name}: {verdict}, ratio {text}{within}{where}"
        )
    return sentences


def markdown(outcomes: Sequence[Outcome]) -> str:
    """The tables of all sections, for a page."""
    blocks = []
    for outcome in outcomes:
        what = f"{outcome.section.axis} to {THRESHOLD:g}"
        rows = [
            f"## {outcome.section.title}\n",
            f"| environment | agent | {what} | at {THRESHOLD:g} | score at the end | ratio to ours | configuration |",
            "|---|---|---|---|---|---|---|",
        ]
        for line in table(outcome):
            needed, ratio = _in_brackets((line.needed, line.interval)), _in_brackets((line.ratio, line.ratio_interval))
            cells = (line.environment, line.contestant, " ".join(needed), line.reached, line.score, " ".join(ratio))
            rows.append("| " + " | ".join((*cells, line.config)) + " |")
        rows += ["", *(f"{sentence}." for sentence in verdicts(outcome)), ""]
        blocks.append("\n".join(rows))
    return "\n".join(blocks)


def _in_brackets(pair: tuple[str, str]) -> tuple[str, ...]:
    return (pair[0], f"({pair[1]})") if pair[1] else (pair[0],)


def write(outcomes: Sequence[Outcome], out: Path) -> list[Path]:
    """table.csv, table.md and curves.png in ``out``; returns their paths."""
    paths = [out / name for name in ("table.csv", "table.md", "curves.png")]
    lines = [line for outcome in outcomes for line in table(outcome)]
    with paths[0].open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(vars(lines[0])), lineterminator="\n")
        writer.writeheader()
        writer.writerows(vars(line) for line in lines)
    paths[1].write_text(markdown(outcomes), encoding="utf-8")
    draw(outcomes, paths[2])
    return paths


def draw(outcomes: Sequence[Outcome], path: Path) -> None:
    """Learning curves: a row of panels for each section, on the axis that it is measured on."""
    columns = max(len(outcome.summary.environments) for outcome in outcomes)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.9 * columns, 3.0 * len(outcomes)), layout="constrained")
        rows = figure.subplots(len(outcomes), columns, squeeze=False, sharey=True)
        for panels, outcome in zip(rows, outcomes, strict=True):
            for panel, environment in zip(panels, outcome.summary.environments, strict=False):
                draw_panel(panel, outcome.summary, environment, outcome.section.axis)
            for panel in panels[len(outcome.summary.environments) :]:
                panel.set_visible(False)
            panels[0].set_ylabel("normalised greedy score")
            panels[0].legend(handles=legend_handles(outcome.summary), frameon=False, fontsize=7, handlelength=3)
        figure.savefig(path, dpi=130)
