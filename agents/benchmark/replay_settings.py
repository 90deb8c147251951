"""ReturnDecomposition against PPO: what is run, as pure data.

PPO is tuned on every environment by itself, over a grid of batch sizes, epochs, minibatches, learning rates, entropy
bonuses and λ, on seeds of its own. ReturnDecomposition has one setting everywhere, its defaults, which were chosen on
Reverse and PrefixLock with still other seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from agents.benchmark.sb3_settings import TUNING_SEED, grid
from agents.benchmark.suites import HIDDEN_TARGET, PREFIX_LOCK, REVERSE, AgentSetting, EnvironmentSetting, Suite
from textenvs.errors import unknown_name

THRESHOLD = 0.9
OURS = AgentSetting("ReturnDecomposition", "ReturnDecomposition")
TUNED = "PPO, tuned"
OTHERS = (AgentSetting("DQN", "DQN"), AgentSetting("SoftQ", "SoftQ"), AgentSetting("DiscreteSAC", "DiscreteSAC"))


@dataclass(frozen=True)
class Section:
    """A comparison on some environments.

    Args:
        grid: configurations of PPO that are tried on each environment.
        finalists: how many of them go on to more seeds after the first.
        tuning_seeds: seeds of the finalists in all.
        seeds: seeds of the comparison, 0 and on.
        others: agents with their defaults that play beside the two.
    """

    name: str
    title: str
    environments: tuple[EnvironmentSetting, ...]
    grid: tuple[dict[str, Any], ...]
    finalists: int
    tuning_seeds: int
    seeds: int
    others: tuple[AgentSetting, ...] = ()
    evaluation_episodes: int = 256
    ours: AgentSetting = field(default=OURS)

    def suite(self, environment: EnvironmentSetting, agents: Sequence[AgentSetting], seeds: Sequence[int]) -> Suite:
        """Runs of these agents on one environment."""
        return Suite(
            name=f"{self.name}, {environment.name}",
            environments=(environment,),
            agents=tuple(agents),
            seeds=tuple(seeds),
            thresholds=(THRESHOLD,),
            stop_at=THRESHOLD,
            evaluation_episodes=self.evaluation_episodes,
        )

    def first_round(self) -> tuple[int, ...]:
        """Seeds on which the whole grid is tried."""
        return (TUNING_SEED,)

    def second_round(self) -> tuple[int, ...]:
        """Further seeds, for the finalists."""
        return tuple(range(TUNING_SEED + 1, TUNING_SEED + self.tuning_seeds))


_COMMON: dict[str, Any] = {"num_minibatches": 4, "gae_lambda": 0.95, "ent_coef": 0.01}


def _cell(num_envs: int, epochs: int, learning_rate: float, **others: Any) -> dict[str, Any]:
    return {"num_envs": num_envs, "epochs": epochs, "learning_rate": learning_rate} | _COMMON | others


PPO_GRID: tuple[dict[str, Any], ...] = (
    *(_COMMON | cell for cell in grid(num_envs=(16, 32, 64), epochs=(4, 10), learning_rate=(1e-3, 2e-3))),
    _cell(16, 4, 1e-3, ent_coef=0.0),
    _cell(32, 10, 1e-3, ent_coef=0.0),
    _cell(64, 4, 2e-3, ent_coef=0.0),
    _cell(64, 4, 1e-3, ent_coef=0.02),
    _cell(32, 4, 3e-4),
    _cell(256, 4, 1e-3, ent_coef=0.0),
    _cell(256, 10, 1e-3, ent_coef=0.0),
    _cell(16, 4, 2e-3, gae_lambda=1.0),
    _cell(32, 10, 1e-3, gae_lambda=1.0),
    _cell(16, 10, 2e-3, num_minibatches=1),
    _cell(32, 4, 2e-3, num_minibatches=1),
    _cell(32, 10, 1e-3, target_kl=None),
)
"""After the grid from which PPO was tuned in the first prototypes: what mattered crossed, the rest one by one."""

NARROW_GRID: tuple[dict[str, Any], ...] = (
    _cell(16, 4, 1e-3),
    _cell(32, 10, 1e-3),
    _cell(32, 4, 2e-3),
    _cell(64, 4, 1e-3),
    _cell(64, 10, 1e-3),
    _cell(64, 4, 1e-3, ent_coef=0.0),
    _cell(256, 4, 1e-3, ent_coef=0.0),
    _cell(256, 10, 1e-3, ent_coef=0.02),
)


def _environment(name: str, env: str, episodes: int, **kwargs: Any) -> EnvironmentSetting:
    return EnvironmentSetting(name, f"textenvs/{env}-v0", episodes, kwargs)


ADDITIVE = (
    EnvironmentSetting("Reverse 4 of 8", REVERSE.env_id, 6_000, REVERSE.kwargs),
    _environment("Reverse 6 of 10", "Reverse", 15_000, length=6, num_symbols=10),
    _environment("Sort 4 of 8", "Sort", 20_000, length=4, num_symbols=8),
    EnvironmentSetting("PrefixLock 8 of 8", PREFIX_LOCK.env_id, 6_000, PREFIX_LOCK.kwargs),
    EnvironmentSetting("HiddenTarget 8 of 16", HIDDEN_TARGET.env_id, 4_000, HIDDEN_TARGET.kwargs),
    _environment("Keywords 4 of 64", "Keywords", 4_000, num_keywords=4, num_symbols=64, length=12),
)
LIMITS = (
    _environment("Copy 3 of 6, all or nothing", "Copy", 8_000, length=3, num_symbols=6, reward="exact_match"),
    _environment("ModSum", "ModSum", 8_000),
    _environment(
        "Sacrifice", "HiddenTarget", 4_000, length=6, num_symbols=4, reward="agents.benchmark.hard_rewards:sacrifice"
    ),
    _environment("Deceptive", "Deceptive", 3_000),
    _environment("NoisyReverse", "NoisyReverse", 4_000),
    _environment("Reverse 2 to 5 of 8, EOS", "Reverse", 8_000, length=5, min_length=2, num_symbols=8),
    _environment("DyckMasked", "DyckMasked", 4_000),
)
TINY = (_environment("HiddenTarget 3 of 4", "HiddenTarget", 160, length=3, num_symbols=4),)

TITLES = {
    "additive": "Scores that are sums over tokens, or nearly: episodes to 0.9",
    "limits": "Where a sum does not explain the score: episodes to 0.9",
    "choice": "Replay agents on the environments that the choice was made on: episodes to 0.9",
}


def _presets() -> dict[str, tuple[Section, ...]]:
    full = (
        Section("additive", TITLES["additive"], ADDITIVE, PPO_GRID, finalists=4, tuning_seeds=3, seeds=10),
        Section("limits", TITLES["limits"], LIMITS, NARROW_GRID, finalists=2, tuning_seeds=3, seeds=5),
        Section(
            "choice", TITLES["choice"], (ADDITIVE[0], ADDITIVE[3]), PPO_GRID[:2], finalists=1, tuning_seeds=1, seeds=5,
            others=OTHERS,
        ),
    )  # fmt: skip
    smoke = tuple(
        Section(each.name, each.title, TINY, each.grid[:2], 1, 2, 2, each.others[:1], evaluation_episodes=16)
        for each in full
    )
    return {"full": full, "smoke": smoke}


PRESETS = _presets()


def get_sections(preset: str, names: Sequence[str] | None = None) -> tuple[Section, ...]:
    """The sections of a preset, or some of them.

    Raises:
        ValueError: an unknown preset or section.
    """
    if preset not in PRESETS:
        raise ValueError(unknown_name("preset", preset, PRESETS))
    known = {section.name: section for section in PRESETS[preset]}
    for name in names or ():
        if name not in known:
            raise ValueError(unknown_name("section", name, known))
    return tuple(known[name] for name in dict.fromkeys(names or known))
