"""ReturnDecomposition against PPO tuned on each environment: played, counted, and put into words.

Runs are those of the benchmark (:mod:`agents.benchmark.run`), played one after the other in this process; seconds are
those of the processor.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from agents.benchmark.analyse import Ratio
from agents.benchmark.plots import STYLE, draw_panel, legend_handles
from agents.benchmark.replay_settings import THRESHOLD, TUNED, Section
from agents.benchmark.sb3_comparison import Tell, describe, penalty, play_suite
from agents.benchmark.suites import AgentSetting, EnvironmentSetting
from agents.benchmark.summary import Summary, summarise
from agents.benchmark.words import median_text, ratio_text, score_text


@dataclass(frozen=True)
class Outcome:
    """A section that has been played."""

    section: Section
    chosen: dict[str, AgentSetting]
    """Environment → the configuration with which PPO plays it."""
    summary: Summary
    """Of all environments."""
    by_environment: dict[str, Summary]


@dataclass(frozen=True)
class Line:
    """A line of the table: an agent on an environment, or its ratio to ours over all of them."""

    section: str
    environment: str
    agent: str
    needed: str
    """Median number of episodes to 0.9; "> …" beyond the budget."""
    interval: str
    reached: str
    """Runs at 0.9 of all."""
    score: str
    """Mean normalised score at the end of the runs."""
    episodes_ratio: str
    """Geometric mean over pairs of equal seeds: episodes of this agent over ours; "≥" where its runs ran out."""
    episodes_interval: str
    seconds_ratio: str
    """… of processor time."""
    seconds_interval: str
    config: str


def play_section(section: Section, out: Path, tell: Tell) -> Outcome:
    """Tune PPO on each environment, play the comparison, analyse; what is finished in ``out`` is not run again."""
    chosen, runs = {}, []
    others = [section.ours, *section.others]
    for environment in section.environments:
        folder = out / section.name / _slug(environment.name)
        best = choose(section, environment, folder, tell)
        chosen[environment.name] = best
        tell(f"{environment.name}: PPO is best with {best.name}")
        suite = section.suite(environment, [replace(best, name=TUNED), *others], range(section.seeds))
        runs += play_suite(suite, folder / "runs", tell)
    names = [environment.name for environment in section.environments]
    agents = [section.ours.name, TUNED, *(each.name for each in section.others)]
    summary = summarise(runs, names, agents, (THRESHOLD,))
    return Outcome(section, chosen, summary, {name: summarise(runs, [name], agents, (THRESHOLD,)) for name in names})


def choose(section: Section, environment: EnvironmentSetting, folder: Path, tell: Tell) -> AgentSetting:
    """PPO's best configuration on an environment: the whole grid on one seed, then the finalists on more."""
    candidates = [AgentSetting(describe(cell), "PPO", dict(cell)) for cell in section.grid]
    first = play_suite(section.suite(environment, candidates, section.first_round()), folder / "tuning-1", tell)

    def rank(each: AgentSetting, runs: Sequence) -> tuple[int, float, float]:
        return penalty([run for run in runs if run.agent == each.name], "episodes")

    finalists = sorted(candidates, key=lambda each: rank(each, first))[: section.finalists]
    if not section.second_round():
        return finalists[0]
    suite = section.suite(environment, finalists, section.second_round())
    second = play_suite(suite, folder / "tuning-2", tell)
    return min(finalists, key=lambda each: rank(each, [*first, *second]))


def _slug(text: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())


def table(outcome: Outcome) -> list[Line]:
    """Every agent on every environment, then the ratios over all environments."""
    lines = []
    for name, summary in outcome.by_environment.items():
        for agent in summary.agents:
            cell = summary.cells[name, agent]
            needed, interval = median_text(cell, "episodes", THRESHOLD)
            lines.append(
                Line(
                    outcome.section.name,
                    name,
                    agent,
                    needed,
                    interval,
                    f"{cell.reached(THRESHOLD)}/{len(cell.runs)}",
                    _bracketed(*score_text(cell.final_score)),
                    *_ratios(summary, outcome, agent),
                    outcome.chosen[name].name if agent == TUNED else "defaults",
                )
            )
    for agent in outcome.summary.agents[1:]:
        lines.append(
            Line(outcome.section.name, "all", agent, "", "", "", "", *_ratios(outcome.summary, outcome, agent), "")
        )
    return lines


def _ratios(summary: Summary, outcome: Outcome, agent: str) -> tuple[str, str, str, str]:
    if agent == outcome.section.ours.name:
        return "", "", "", ""
    episodes, seconds = (ratio_text(ratio_to_ours(summary, outcome, agent, axis)) for axis in ("episodes", "seconds"))
    return *episodes, *seconds


def ratio_to_ours(summary: Summary, outcome: Outcome, agent: str, axis: str) -> Ratio:
    """How many times more of something the agent needs than ours."""
    return summary.comparisons[agent, outcome.section.ours.name, axis, THRESHOLD].ratio


def verdict(outcome: Outcome) -> str:
    """What the section says about PPO, in a sentence."""
    ours = outcome.section.ours.name
    episodes = ratio_to_ours(outcome.summary, outcome, TUNED, "episodes")
    seconds = ratio_to_ours(outcome.summary, outcome, TUNED, "seconds")
    behind = [
        name
        for name, summary in outcome.by_environment.items()
        if ratio_to_ours(summary, outcome, TUNED, "episodes").value < 1
    ]
    where = f"; PPO needs fewer on {', '.join(behind)}" if behind else "; PPO needs fewer on none of them"
    return (
        f"PPO, tuned on each environment, needs {_bracketed(*ratio_text(episodes))} times the episodes and "
        f"{_bracketed(*ratio_text(seconds))} times the processor time of {ours} with one setting{where}."
    )


def markdown(outcomes: Sequence[Outcome]) -> str:
    """The tables of all sections, for a page."""
    blocks = []
    for outcome in outcomes:
        rows = [
            f"## {outcome.section.title}\n",
            f"| environment | agent | episodes to {THRESHOLD:g} | at {THRESHOLD:g} | score at the end "
            "| episodes, times ours | seconds, times ours | configuration |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for line in table(outcome):
            cells = (
                line.environment,
                line.agent,
                _bracketed(line.needed, line.interval),
                line.reached,
                line.score,
                _bracketed(line.episodes_ratio, line.episodes_interval),
                _bracketed(line.seconds_ratio, line.seconds_interval),
                line.config,
            )
            rows.append("| " + " | ".join(cells) + " |")
        blocks.append("\n".join([*rows, "", verdict(outcome), ""]))
    return "\n".join(blocks)


def _bracketed(value: str, interval: str) -> str:
    return f"{value} ({interval})" if interval else value


def write(outcomes: Sequence[Outcome], out: Path) -> list[Path]:
    """table.csv, table.md and curves-SECTION.png in ``out``; returns their paths."""
    paths = [out / "table.csv", out / "table.md"]
    lines = [line for outcome in outcomes for line in table(outcome)]
    with paths[0].open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(vars(lines[0])), lineterminator="\n")
        writer.writeheader()
        writer.writerows(vars(line) for line in lines)
    paths[1].write_text(markdown(outcomes), encoding="utf-8")
    for outcome in outcomes:
        paths.append(out / f"curves-{outcome.section.name}.png")
        draw(outcome, paths[-1])
    return paths


def draw(outcome: Outcome, path: Path, columns: int = 3) -> None:
    """Learning curves over episodes, a panel for each environment."""
    names = outcome.summary.environments
    columns = min(columns, len(names))
    rows = -(-len(names) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.9 * columns, 3.0 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for panel, name in zip(panels.flat, names, strict=False):
            draw_panel(panel, outcome.summary, name, "episodes")
        for panel in panels.flat[len(names) :]:
            panel.set_visible(False)
        for row in panels:
            row[0].set_ylabel("normalised greedy score")
        panels[0, 0].legend(handles=legend_handles(outcome.summary), frameon=False, fontsize=7, handlelength=3)
        figure.savefig(path, dpi=130)
