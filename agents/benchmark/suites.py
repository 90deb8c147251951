"""What is run: pure data. A suite names environments with their sizes and budgets, agents with their configs,
and seeds.

The seed of a run decides everything in it: the agent's initial weights, the environment's prompts
(environment seeds lie 100,000 apart, so that streams of two runs do not overlap), and, where a task has no
prompts, which hidden task is learnt (`task_seed`).
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
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
    on-policy agent of the suite with its replay agents. `demonstrations`: texts of the task's oracle that a replay
    agent is given at the beginning; they count as if it had written them.
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


def environment_setting(label: str, task: str, episodes: int, **kwargs: Any) -> EnvironmentSetting:
    """``task`` at certain sizes, which ``label`` says in short."""
    return EnvironmentSetting(f"{task} {label}", f"textenvs/{task}-v0", episodes, kwargs)


QUICK_ENVIRONMENTS = (
    environment_setting("4 of 8", "Reverse", 5_000, length=4, num_symbols=8),
    environment_setting("8 of 8", "PrefixLock", 5_000, length=8, num_symbols=8),
    environment_setting("8 of 16", "HiddenTarget", 4_000, length=8, num_symbols=16),
)
"""The families that agents' defaults were tuned on; the larger presets have none of them."""
REVERSE, PREFIX_LOCK, HIDDEN_TARGET = QUICK_ENVIRONMENTS

STANDARD_ENVIRONMENTS = (
    environment_setting("3 of 6", "Copy", 1_500, length=3, num_symbols=6),
    environment_setting("3 of 5", "Sort", 1_500, length=3, num_symbols=5),
    environment_setting("8 of 24", "Keywords", 1_000, length=8, num_symbols=24),
    environment_setting("12 of 64", "Keywords", 1_500, length=12, num_symbols=64),
    environment_setting("12", "BitModes", 1_000, length=12),
    environment_setting("5", "Deceptive", 1_500, length=5),
    environment_setting("3 of 5", "Palindrome", 1_500, length=3, num_symbols=5),
    environment_setting("3 of 8", "Anagram", 1_500, length=3, num_symbols=8),
    environment_setting("3", "Dyck", 1_500, length=3),
    environment_setting("1", "Addition", 1_500, digits=1),
)
"""Without masks, which Stable-Baselines3's PPO has not got."""

MASKED_ENVIRONMENTS = (
    environment_setting("3", "DyckMasked", 1_500, length=3),
    environment_setting("3 of 6", "PalindromeMasked", 1_500, length=3, num_symbols=6),
    environment_setting("21", "RandomWalkMasked", 1_500, num_nodes=21),
)

PPO = AgentSetting("PPO", "PPO", kind="on-policy")
DQN = AgentSetting("DQN", "DQN", kind="replay")
SB3_CONFIG = {"num_envs": 16, "n_steps": 16, "learning_rate": 1e-3, "gamma": 1.0}
"""Otherwise its defaults: minibatches of 64, 10 epochs, an MLP. Rollouts of 2,048 steps would be two or three in all of
these budgets; γ and the learning rate are those of our PPO."""
SB3_PPO = AgentSetting("SB3 PPO", "stable_baselines3:PPO", SB3_CONFIG, kind="on-policy")

STANDARD_DEFAULTS = (
    PPO,
    AgentSetting("RLOO", "RLOO", kind="on-policy"),
    AgentSetting("A2C", "A2C", kind="on-policy"),
    SB3_PPO,
    DQN,
    AgentSetting("DiscreteSAC", "DiscreteSAC", kind="replay"),
    AgentSetting("SoftQ", "SoftQ", kind="replay"),
    AgentSetting("ReturnDecomposition", "ReturnDecomposition", kind="replay"),
)
"""What tuning begins with."""

TUNED: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("tuned.json").read_text(encoding="utf-8"))
"""Agent → what scripts/tune.py chose for it, and from what: seeds, trials, environments with their episodes, scores."""


def tuned(setting: AgentSetting) -> AgentSetting:
    """An agent with the config that tuning chose; as it is where it has not been tuned."""
    return replace(setting, config=TUNED[setting.name]["config"]) if setting.name in TUNED else setting


STANDARD_AGENTS = tuple(tuned(setting) for setting in STANDARD_DEFAULTS)

FULL_AGENTS = (
    *STANDARD_AGENTS,
    AgentSetting("GRPO", "GRPO", kind="on-policy"),
    AgentSetting("REINFORCE", "REINFORCE", kind="on-policy"),
    replace(tuned(SB3_PPO), name="SB3 MaskablePPO", agent="sb3_contrib:MaskablePPO"),
    AgentSetting("random", "RandomAgent"),
)

SUITES = {
    suite.name: suite
    for suite in (
        Suite(
            name="smoke",
            environments=(
                environment_setting("3 of 4", "HiddenTarget", 600, length=3, num_symbols=4),
                environment_setting("2 of 6", "Copy", 800, length=2, num_symbols=6),
            ),
            agents=(PPO, DQN),
            seeds=(0, 1),
            evaluation_episodes=64,
        ),
        Suite(name="quick", environments=QUICK_ENVIRONMENTS, agents=(PPO, DQN), seeds=(0, 1, 2)),
        Suite(
            name="standard",
            environments=STANDARD_ENVIRONMENTS,
            agents=STANDARD_AGENTS,
            seeds=tuple(range(5)),
            growth=0.1,
            evaluation_episodes=128,
        ),
        Suite(
            name="full",
            environments=STANDARD_ENVIRONMENTS + MASKED_ENVIRONMENTS,
            agents=FULL_AGENTS,
            seeds=tuple(range(10)),
            growth=0.1,
            evaluation_episodes=128,
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
