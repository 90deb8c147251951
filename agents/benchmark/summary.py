"""From runs to figures: every number that the report shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from agents.benchmark.statistics import area_under_curve, holm, paired_p_value, probability_of_improvement

AXES = ("episodes", "reward_calls", "timesteps", "seconds")
AXIS_NAMES = {"episodes": "episodes", "reward_calls": "reward calls", "timesteps": "tokens", "seconds": "seconds"}
HEADLINE_AXES = ("episodes", "seconds")
ON_POLICY, REPLAY = "on-policy", "replay"


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
    areas: tuple[float, ...]
    """Normalised area under the learning curve, from no episodes to the budget, of each run."""
    area: Estimate
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
class Headline:
    """One of the comparisons that the benchmark is about: the on-policy agent over a replay agent."""

    comparison: Comparison
    p_value: float
    adjusted: float
    """By Holm's correction over all headline comparisons."""


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
    areas: dict[str, Estimate]
    """agent → interquartile mean of the normalised area under the learning curve over everything."""
    improvements: dict[tuple[str, str], Estimate]
    """(a, b) → probability that a run of a has the larger area under its curve than one of b."""
    kinds: dict[str, str]
    """agent → "on-policy", "replay" or ""."""
    headlines: tuple[Headline, ...]
    """The first on-policy agent over each replay agent, in episodes and in seconds to the top threshold."""
    missing: tuple[str, ...]
    """Runs that should be there for a full comparison and are not."""

    @property
    def reference(self) -> str:
        """Whom ratios are shown against: the first on-policy agent, or the first agent of all."""
        return next((agent for agent in self.agents if self.kinds.get(agent) == ON_POLICY), self.agents[0])

    @property
    def best_replay(self) -> str | None:
        """The replay agent that needs the fewest episodes to the top threshold; None without headline comparisons."""
        ratios = {h.comparison.b: h.comparison.ratio for h in self.headlines if h.comparison.axis == HEADLINE_AXES[0]}
        known = {agent: ratio.value for agent, ratio in ratios.items() if ratio.both_censored < ratio.num_pairs}
        return max(known, key=lambda agent: known[agent]) if known else None

    def environment_ratio(
        self, environment: str, a: str, b: str, axis: str, threshold: float, seed: int = 0
    ) -> Ratio | None:
        """a over b on one environment; None where they share no seed."""
        pairs = _pairs(self.cells, (environment,), a, b, (axis, threshold))
        return geometric_mean_ratio(pairs, np.random.default_rng(seed)) if pairs else None

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
    kinds: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Summary:
    """Compute everything; `seed` is that of the bootstrap, so the same rows give the same figures.

    Args:
        runs: finished runs.
        environments, agents: names in the order of the suite; those without runs are left out.
        thresholds: normalised scores.
        kinds: agent → "on-policy", "replay" or "", for the headline.
        seed: of the bootstrap.
    """
    rng = np.random.default_rng(seed)
    grouped: dict[tuple[str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.seed):
        grouped.setdefault((run.environment, run.agent), []).append(run)
    environments = tuple(name for name in environments if any((name, agent) in grouped for agent in agents))
    agents = tuple(name for name in agents if any((environment, name) in grouped for environment in environments))
    kinds = {agent: (kinds or {}).get(agent, "") for agent in agents}
    cells = {
        (environment, agent): _cell(environment, agent, grouped[environment, agent], thresholds, rng)
        for environment in environments
        for agent in agents
        if (environment, agent) in grouped
    }
    comparisons = _compare_all(cells, environments, agents, thresholds, rng)
    seeds = sorted({run.seed for run in runs})
    missing = tuple(
        f"{agent} on {environment}, seed {seed}"
        for environment in environments
        for agent in agents
        for seed in seeds
        if (environment, agent) not in cells or seed not in cells[environment, agent].seeds
    )
    per_agent = {
        agent: [cells[environment, agent] for environment in environments if (environment, agent) in cells]
        for agent in agents
    }
    return Summary(
        environments,
        agents,
        tuple(thresholds),
        cells,
        comparisons,
        {
            agent: stratified_iqm([[run.rows[-1].normalised_greedy for run in cell.runs] for cell in those], rng)
            for agent, those in per_agent.items()
        },
        {agent: stratified_iqm([cell.areas for cell in those], rng) for agent, those in per_agent.items()},
        _improvements(cells, environments, agents, rng),
        kinds,
        _headlines(cells, environments, kinds, comparisons, max(thresholds), rng),
        missing,
    )


def _compare_all(
    cells: dict[tuple[str, str], Cell],
    environments: Sequence[str],
    agents: Sequence[str],
    thresholds: Sequence[float],
    rng: np.random.Generator,
) -> dict[tuple[str, str, str, float], Comparison]:
    comparisons = {}
    for number, b in enumerate(agents):
        for a in agents[:number]:
            for axis in AXES:
                for threshold in thresholds:
                    pairs = _pairs(cells, environments, a, b, (axis, threshold))
                    if pairs:
                        ratio = geometric_mean_ratio(pairs, rng)
                        comparisons[a, b, axis, threshold] = Comparison(a, b, axis, threshold, ratio)
                        comparisons[b, a, axis, threshold] = Comparison(b, a, axis, threshold, ratio.inverse)
    return comparisons


def _improvements(
    cells: dict[tuple[str, str], Cell], environments: Sequence[str], agents: Sequence[str], rng: np.random.Generator
) -> dict[tuple[str, str], Estimate]:
    improvements = {}
    for number, b in enumerate(agents):
        for a in agents[:number]:
            both = [(cells.get((name, a)), cells.get((name, b))) for name in environments]
            pairs = [(x.areas, y.areas) for x, y in both if x is not None and y is not None]
            if pairs:
                estimate = probability_of_improvement(pairs, rng)
                improvements[a, b] = estimate
                improvements[b, a] = Estimate(
                    1 - estimate.value, 1 - estimate.high, 1 - estimate.low, sum(len(y) for _, y in pairs)
                )
    return improvements


def _headlines(
    cells: dict[tuple[str, str], Cell],
    environments: Sequence[str],
    kinds: Mapping[str, str],
    comparisons: Mapping[tuple[str, str, str, float], Comparison],
    threshold: float,
    rng: np.random.Generator,
) -> tuple[Headline, ...]:
    reference = next((agent for agent, kind in kinds.items() if kind == ON_POLICY), None)
    others = [agent for agent, kind in kinds.items() if kind == REPLAY]
    keys = [(str(reference), agent, axis, threshold) for axis in HEADLINE_AXES for agent in others]
    keys = [key for key in keys if key in comparisons]
    p_values = [paired_p_value(_pairs(cells, environments, a, b, (axis, top)), rng) for a, b, axis, top in keys]
    return tuple(
        Headline(comparisons[key], p_value, float(adjusted))
        for key, p_value, adjusted in zip(keys, p_values, holm(p_values), strict=True)
    )


def _cell(
    environment: str, agent: str, runs: Sequence[Run], thresholds: Sequence[float], rng: np.random.Generator
) -> Cell:
    scores = [np.array(run.column("normalised_greedy")) for run in runs]
    columns = {axis: [np.array(run.column(axis), dtype=np.float64) for run in runs] for axis in AXES}
    times = {}
    for threshold in thresholds:
        for axis in AXES:
            crossings = [crossing_time(x, y, threshold) for x, y in zip(columns[axis], scores, strict=True)]
            times[axis, threshold] = Times(
                np.array([time for time, _ in crossings]), np.array([observed for _, observed in crossings])
            )
    areas = [area_under_curve(x, y, budget(run)) for run, x, y in zip(runs, columns["episodes"], scores, strict=True)]
    last = [run.rows[-1] for run in runs]
    return Cell(
        environment,
        agent,
        tuple(runs),
        times,
        {key: median_time(value, rng) for key, value in times.items()},
        mean_estimate([row.normalised_greedy for row in last], rng),
        tuple(areas),
        mean_estimate(areas, rng),
        float(np.median(data_utilisation([row.gradient_samples for row in last], [row.timesteps for row in last]))),
    )


def budget(run: Run) -> float:
    """The episodes that the run was allowed to play."""
    return float(run.settings["environment"].get("episodes", run.rows[-1].episodes))


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
    first = [getattr(cell.runs[position].rows[1], key[0]) for position in index]
    return Times(np.maximum(cell.times[key].values[index], first), cell.times[key].observed[index])
