"""From runs to figures and sentences: every number that the report shows, and what it says about them in
words.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agents.benchmark.analyse import (
    Estimate,
    Ratio,
    Times,
    crossing_time,
    data_utilisation,
    geometric_mean_ratio,
    mean_estimate,
    median_time,
    stratified_iqm,
)
from agents.benchmark.rows import Run

AXES = ("episodes", "timesteps", "seconds")
AXIS_NAMES = {"episodes": "episodes", "timesteps": "tokens", "seconds": "seconds"}


@dataclass(frozen=True)
class Cell:
    """One agent on one environment."""

    environment: str
    agent: str
    runs: tuple[Run, ...]
    times: dict[tuple[str, float], Times]
    """(axis, threshold) → one time for each run, in the order of `runs`."""
    medians: dict[tuple[str, float], Estimate]
    final_score: Estimate
    data_utilisation: float

    @property
    def seeds(self) -> list[int]:
        return [run.seed for run in self.runs]

    def reached(self, threshold: float) -> int:
        """How many runs crossed the threshold."""
        return int(self.times["episodes", threshold].observed.sum())

    def observed_up_to(self, axis: str) -> float:
        """The smallest end of a run that used up its budget: a median beyond it was not seen."""
        ends = [run.column(axis)[-1] for run in self.runs if not run.solved]
        return min(ends) if ends else max(run.column(axis)[-1] for run in self.runs)


@dataclass(frozen=True)
class Comparison:
    """How many times more of something agent `a` needs than agent `b` to reach a threshold."""

    a: str
    b: str
    axis: str
    threshold: float
    ratio: Ratio

    @property
    def clear(self) -> bool:
        """Whether the figures say which of the two needs more.

        The interval must leave out 1, and no pair may be a bound that points the other way: where only b did
        not get there, a ratio above 1 may be below 1 in truth. False without an interval.
        """
        if self.ratio.low > 1.0:
            return not self.ratio.only_b_censored
        return bool(self.ratio.high < 1.0) and not self.ratio.only_a_censored


@dataclass(frozen=True)
class Summary:
    """Everything the report shows. Agents and environments are in the order of the suite."""

    environments: tuple[str, ...]
    agents: tuple[str, ...]
    thresholds: tuple[float, ...]
    cells: dict[tuple[str, str], Cell]
    """(environment, agent) → cell, for those with at least one finished run."""
    comparisons: dict[tuple[str, str, str, float], Comparison]
    """(a, b, axis, threshold), over the environments and seeds that both have."""
    scores: dict[str, Estimate]
    """agent → interquartile mean of the final normalised score over everything."""
    missing: tuple[str, ...]
    """Runs that should be there for a full comparison and are not."""

    def row(self, environment: str) -> list[Cell]:
        """The cells of an environment."""
        return [self.cells[environment, agent] for agent in self.agents if (environment, agent) in self.cells]

    def data_utilisation(self, agent: str) -> float:
        """Median over environments."""
        return float(np.median([cell.data_utilisation for cell in self.cells.values() if cell.agent == agent]))

    def leader(self, axis: str, threshold: float) -> str | None:
        """The agent that needs least on the geometric mean; None where no two share runs or none ever gets
        there.
        """
        compared = [c for c in self.comparisons.values() if (c.axis, c.threshold) == (axis, threshold)]
        if all(c.ratio.both_censored == c.ratio.num_pairs for c in compared):
            return None

        def mean_log_ratio(agent: str) -> float:
            return float(np.mean([np.log(c.ratio.value) for c in compared if c.a == agent] or [np.inf]))

        return min(self.agents, key=mean_log_ratio)


def summarise(
    runs: Sequence[Run],
    environments: Sequence[str],
    agents: Sequence[str],
    thresholds: Sequence[float],
    seed: int = 0,
) -> Summary:
    """Compute everything; `seed` is that of the bootstrap, so the same rows give the same figures."""
    rng = np.random.default_rng(seed)
    grouped: dict[tuple[str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        grouped.setdefault((run.environment, run.agent), []).append(run)
    environments = tuple(name for name in environments if any((name, agent) in grouped for agent in agents))
    agents = tuple(name for name in agents if any((environment, name) in grouped for environment in environments))
    cells = {
        (environment, agent): _cell(environment, agent, grouped[environment, agent], thresholds, rng)
        for environment in environments
        for agent in agents
        if (environment, agent) in grouped
    }
    comparisons = {}
    for a in agents:
        for b in agents:
            for axis in AXES:
                for threshold in thresholds:
                    pairs = _pairs(cells, environments, a, b, (axis, threshold)) if a != b else []
                    if pairs:
                        ratio = geometric_mean_ratio(pairs, rng)
                        comparisons[a, b, axis, threshold] = Comparison(a, b, axis, threshold, ratio)
    scores = {
        agent: stratified_iqm(
            [
                [run.rows[-1].normalised_greedy for run in cells[environment, agent].runs]
                for environment in environments
                if (environment, agent) in cells
            ],
            rng,
        )
        for agent in agents
    }
    seeds = sorted({run.seed for run in runs})
    missing = tuple(
        f"{agent} on {environment}, seed {seed}"
        for environment in environments
        for agent in agents
        for seed in seeds
        if (environment, agent) not in cells or seed not in cells[environment, agent].seeds
    )
    return Summary(environments, agents, tuple(thresholds), cells, comparisons, scores, missing)


def _cell(
    environment: str, agent: str, runs: Sequence[Run], thresholds: Sequence[float], rng: np.random.Generator
) -> Cell:
    times = {}
    for axis in AXES:
        for threshold in thresholds:
            crossings = [crossing_time(run.column(axis), run.column("normalised_greedy"), threshold) for run in runs]
            times[axis, threshold] = Times(
                np.array([time for time, _ in crossings]), np.array([observed for _, observed in crossings])
            )
    last = [run.rows[-1] for run in runs]
    return Cell(
        environment,
        agent,
        tuple(runs),
        times,
        {key: median_time(value, rng) for key, value in times.items()},
        mean_estimate([row.normalised_greedy for row in last], rng),
        float(np.median(data_utilisation([row.gradient_samples for row in last], [row.timesteps for row in last]))),
    )


def _pairs(
    cells: dict[tuple[str, str], Cell], environments: Sequence[str], a: str, b: str, key: tuple[str, float]
) -> list[tuple[Times, Times]]:
    """Times of two agents, aligned by seed, for every environment where both have runs of the same seed."""
    pairs = []
    for environment in environments:
        first, second = cells.get((environment, a)), cells.get((environment, b))
        if first is None or second is None:
            continue
        seeds = sorted(set(first.seeds) & set(second.seeds))
        if seeds:
            pairs.append((_select(first, seeds, key), _select(second, seeds, key)))
    return pairs


def _select(cell: Cell, seeds: Sequence[int], key: tuple[str, float]) -> Times:
    """Times of these seeds. A run that is there from the start counts as there at its first evaluation after
    it: ratios need times above 0."""
    index = [cell.seeds.index(seed) for seed in seeds]
    first = [cell.runs[position].column(key[0])[1] for position in index]
    return Times(np.maximum(cell.times[key].values[index], first), cell.times[key].observed[index])
