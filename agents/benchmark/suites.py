"""What is run: pure data. A suite names environments with their sizes and budgets, agents with their configs,
and seeds.

The seed of a run decides everything in it: the agent's initial weights, the environment's prompts
(environment seeds lie 100,000 apart, so that streams of two runs do not overlap), and, where a task has no
prompts, which hidden task is learnt (`task_seed`).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from textenvs.errors import unknown_name


class BenchmarkError(ValueError):
    """The benchmark was asked for something impossible; the message says what to do instead."""


@dataclass(frozen=True)
class EnvironmentSetting:
    """An environment: its label in the report, its id and arguments, and the episodes an agent may play."""

    name: str
    env_id: str
    episodes: int
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AgentSetting:
    """An agent: its label in the report, its class in `agents` (or "module:Class" of somebody else's), and what
    differs from its default config.

    `kind`: "on-policy", "replay" or "" (neither: a floor, a ceiling, one of your own). The headline compares the first
    on-policy agent of the suite with its replay agents. `demonstrations`: texts of the task's oracle that a replay agent
    is given at the beginning; they count as if it had written them.
    """

    name: str
    agent: str
    config: dict[str, Any] = field(default_factory=dict)
    kind: str = ""
    demonstrations: int = 0


@dataclass(frozen=True)
class Suite:
    """A benchmark: every agent on every environment with every seed.

    `growth`: an evaluation comes every so much more episodes (0.05 is 5 %). `stop_at`: a run ends once this
    normalised greedy score is confirmed by two consecutive evaluations (None: every run goes on to its
    budget).
    """

    name: str
    environments: tuple[EnvironmentSetting, ...]
    agents: tuple[AgentSetting, ...]
    seeds: tuple[int, ...]
    thresholds: tuple[float, ...] = (0.5, 0.9)
    stop_at: float | None = 0.9
    growth: float = 0.05
    evaluation_episodes: int = 256


@dataclass(frozen=True)
class RunSetting:
    """One run: everything that decides its rows."""

    environment: EnvironmentSetting
    agent: AgentSetting
    seed: int
    stop_at: float | None
    growth: float
    evaluation_episodes: int

    @property
    def label(self) -> str:
        return f"{self.agent.name} on {self.environment.name}, seed {self.seed}"


REVERSE = EnvironmentSetting("Reverse 4 of 8", "textenvs/Reverse-v0", 5_000, {"length": 4, "num_symbols": 8})
PREFIX_LOCK = EnvironmentSetting("PrefixLock 8 of 8", "textenvs/PrefixLock-v0", 5_000, {"length": 8, "num_symbols": 8})
HIDDEN_TARGET = EnvironmentSetting(
    "HiddenTarget 8 of 16", "textenvs/HiddenTarget-v0", 4_000, {"length": 8, "num_symbols": 16}
)

SUITES = {
    suite.name: suite
    for suite in (
        Suite(
            name="smoke",
            environments=(
                EnvironmentSetting(
                    "HiddenTarget 3 of 4", "textenvs/HiddenTarget-v0", 600, {"length": 3, "num_symbols": 4}
                ),
                EnvironmentSetting("Copy 2 of 6", "textenvs/Copy-v0", 800, {"length": 2, "num_symbols": 6}),
            ),
            agents=(AgentSetting("PPO", "PPO"), AgentSetting("DQN", "DQN")),
            seeds=(0, 1),
            evaluation_episodes=64,
        ),
        Suite(
            name="quick",
            environments=(REVERSE, PREFIX_LOCK, HIDDEN_TARGET),
            agents=(AgentSetting("PPO", "PPO"), AgentSetting("DQN", "DQN")),
            seeds=(0, 1, 2),
        ),
    )
}


def get_suite(name: str) -> Suite:
    """The preset of this name."""
    if name not in SUITES:
        raise BenchmarkError(unknown_name("preset", name, SUITES))
    return SUITES[name]


def select(
    suite: Suite,
    environments: Sequence[str] | None = None,
    agents: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> Suite:
    """A part of a suite. Environments go by label, by id or by the id's name alone; seeds may go beyond the
    suite's.
    """
    if environments is not None:
        chosen = []
        for name in environments:
            found = [setting for setting in suite.environments if name in _names(setting)]
            if not found:
                raise BenchmarkError(
                    unknown_name("environment", name, [setting.name for setting in suite.environments])
                )
            chosen += [setting for setting in found if setting not in chosen]
        suite = replace(suite, environments=tuple(chosen))
    if agents is not None:
        by_name = {setting.name: setting for setting in suite.agents}
        for name in agents:
            if name not in by_name:
                raise BenchmarkError(unknown_name("agent", name, by_name))
        suite = replace(suite, agents=tuple(by_name[name] for name in dict.fromkeys(agents)))
    if seeds is not None:
        for seed in seeds:
            if seed < 0:
                raise BenchmarkError(f"a seed cannot be negative, got {seed}.")
        suite = replace(suite, seeds=tuple(dict.fromkeys(seeds)))
    for kind, values in (
        ("environments", suite.environments),
        ("agents", suite.agents),
        ("seeds", suite.seeds),
    ):
        if not values:
            raise BenchmarkError(f"nothing to run: no {kind} were selected.")
    return suite


def add_agents(suite: Suite, texts: Sequence[str]) -> Suite:
    """A suite with further agents, each given as "NAME=module:Class"."""
    agents = list(suite.agents)
    for text in texts:
        name, equals, found = text.partition("=")
        if not (name and equals and ":" in found):
            raise BenchmarkError(f"an agent is added as NAME=module:Class, got {text!r}.")
        if any(setting.name == name for setting in agents):
            raise BenchmarkError(f"the suite has an agent {name!r} already: give yours another name.")
        agents.append(AgentSetting(name, found))
    return replace(suite, agents=tuple(agents))


def _names(setting: EnvironmentSetting) -> tuple[str, ...]:
    return setting.name, setting.env_id, setting.env_id.removeprefix("textenvs/").rsplit("-v", 1)[0]


def run_settings(suite: Suite) -> list[RunSetting]:
    """All runs of a suite; seeds outermost, so that a benchmark cut short has compared every agent
    everywhere.
    """
    return [
        RunSetting(environment, agent, seed, suite.stop_at, suite.growth, suite.evaluation_episodes)
        for seed in suite.seeds
        for environment in suite.environments
        for agent in suite.agents
    ]


def suite_settings(suite: Suite) -> dict[str, Any]:
    """The suite as plain JSON data, without the seeds: runs of further seeds belong to the same results."""
    return {
        "name": suite.name,
        "environments": {setting.name: asdict(setting) for setting in suite.environments},
        "agents": {setting.name: asdict(setting) for setting in suite.agents},
        "thresholds": list(suite.thresholds),
        "stop_at": suite.stop_at,
        "growth": suite.growth,
        "evaluation_episodes": suite.evaluation_episodes,
    }
