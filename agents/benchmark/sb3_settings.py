"""Our agents against Stable-Baselines3's: what is run, as pure data.

Each section compares contestants on the same environments. All are tuned over one grid of configurations, on seeds of
their own, and each goes into the comparison with the one that did best over the tuning environments together.
Everything that the grid does not name is the library's own default, but for the discount (1 for both) and the rollout
(whole texts for both).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from agents.benchmark.suites import HIDDEN_TARGET, REVERSE, AgentSetting, EnvironmentSetting, Suite
from textenvs.errors import unknown_name

THRESHOLD = 0.9
TUNING_SEED = 1_000
"""The first seed of tuning; those of the comparison begin at 0."""

Axis = Literal["episodes", "seconds"]


@dataclass(frozen=True)
class Contestant:
    """A label in the tables, the class that plays (see ``agents.benchmark.run.find_agent``), and what is fixed of its
    config. ``tuned``: whether the grid is gone through for it; else it plays with its defaults."""

    name: str
    agent: str
    config: dict[str, Any]
    tuned: bool = True


@dataclass(frozen=True)
class Section:
    """A comparison: ``contestants[0]`` is ours and must need no more than each of the others, measured on ``axis``."""

    name: str
    title: str
    axis: Axis
    contestants: tuple[Contestant, ...]
    grid: tuple[dict[str, Any], ...]
    environments: tuple[EnvironmentSetting, ...]
    tuning_environments: tuple[EnvironmentSetting, ...]
    tuning_seeds: int
    seeds: int
    evaluation_episodes: int = 256

    def suite(self, agents: Sequence[AgentSetting], *, tuning: bool) -> Suite:
        """Runs of these agents: those of tuning, or of the comparison."""
        first, count = (TUNING_SEED, self.tuning_seeds) if tuning else (0, self.seeds)
        return Suite(
            name=f"{self.name}-tuning" if tuning else self.name,
            environments=self.tuning_environments if tuning else self.environments,
            agents=tuple(agents),
            seeds=tuple(range(first, first + count)),
            thresholds=(THRESHOLD,),
            stop_at=THRESHOLD,
            evaluation_episodes=self.evaluation_episodes,
        )


def grid(**values: Sequence[Any]) -> tuple[dict[str, Any], ...]:
    """All combinations of values. A name that joins several by "__" takes tuples: their values go together."""
    cells = []
    for chosen in product(*values.values()):
        cell: dict[str, Any] = {}
        for names, value in zip(values, chosen, strict=True):
            parts = names.split("__")
            cell |= dict(zip(parts, value if len(parts) > 1 else (value,), strict=True))
        cells.append(cell)
    return tuple(cells)


# Batch (episodes) and epochs go together: smaller batches with fewer passes, larger ones with more.
PPO_GRID = grid(learning_rate=(1e-3, 2e-3), ent_coef=(0.0, 0.02), num_envs__epochs=((64, 4), (32, 8)))
PPO_WIDE_GRID = grid(
    learning_rate=(3e-4, 1e-3, 2e-3), ent_coef=(0.0, 0.01, 0.02), num_envs__epochs=((64, 4), (64, 10), (32, 4), (32, 8))
)
# An ε that exploration falls to, and a target network that follows softly or is copied every 96 gradient steps. What
# Stable-Baselines3's interval of 10,000 timesteps would be is longer than most of these runs.
SOFT, COPIED = (0.1, 1), (1.0, 96)
DQN_GRID = grid(learning_rate=(5e-4, 2e-3), epsilon=(0.02,), target_tau__target_interval=(SOFT, COPIED))
DQN_WIDE_GRID = grid(learning_rate=(5e-4, 1e-3, 2e-3), epsilon=(0.02, 0.1), target_tau__target_interval=(SOFT, COPIED))
SECONDS_GRID = grid(learning_rate=(1e-3, 3e-3), ent_coef=(0.01,), num_envs__epochs=((64, 4), (64, 10)))
SECONDS_WIDE_GRID = grid(
    learning_rate=(3e-4, 1e-3, 3e-3), ent_coef=(0.0, 0.01), num_envs__epochs=((64, 4), (64, 10), (16, 4), (16, 10))
)

OUR_PPO, OUR_DQN = Contestant("our PPO", "PPO", {}), Contestant("our DQN", "DQN", {})
SB3_PPO = Contestant("SB3's PPO, our transformer", "SB3PPO", {"network": "transformer"})
SB3_DQN = Contestant("SB3's DQN, our transformer", "SB3DQN", {"network": "transformer"})
SB3_MLP = Contestant("SB3's PPO, MlpPolicy", "SB3PPO", {"network": "mlp"})
OUR_DEFAULTS = Contestant("our PPO, defaults", "PPO", {}, tuned=False)


def environment(name: str, episodes: int, label: str, **sizes: int) -> EnvironmentSetting:
    """``Name`` at certain sizes, which ``label`` says in short."""
    return EnvironmentSetting(f"{name} {label}", f"textenvs/{name}-v0", episodes, sizes)


SORT = environment("Sort", 8_000, "3 of 8", length=3, num_symbols=8)
SMALL_REVERSE = environment("Reverse", 1_200, "3 of 6", length=3, num_symbols=6)
SMALL_HIDDEN_TARGET = environment("HiddenTarget", 600, "6 of 8", length=6, num_symbols=8)
LONG_REVERSE = EnvironmentSetting(REVERSE.name, REVERSE.env_id, 20_000, REVERSE.kwargs)

TITLES = {
    "ppo": "PPO, the same transformer: episodes to 0.9",
    "dqn": "DQN, the same transformer: episodes to 0.9",
    "seconds": "PPO against MlpPolicy: seconds of training to 0.9",
}


def _presets() -> dict[str, tuple[Section, ...]]:
    quick_ppo, quick_dqn = (REVERSE, HIDDEN_TARGET), (SMALL_REVERSE, SMALL_HIDDEN_TARGET)
    seconds = (OUR_PPO, SB3_MLP, OUR_DEFAULTS)
    quick = (
        Section("ppo", TITLES["ppo"], "episodes", (OUR_PPO, SB3_PPO), PPO_GRID, quick_ppo, quick_ppo, 1, 5),
        Section(
            "seconds", TITLES["seconds"], "seconds", seconds, SECONDS_GRID, quick_ppo, quick_ppo, 1, 5
        ),
        Section("dqn", TITLES["dqn"], "episodes", (OUR_DQN, SB3_DQN), DQN_GRID, quick_dqn, quick_dqn[:1], 1, 5),
    )  # fmt: skip
    full_ppo, full_dqn = (REVERSE, HIDDEN_TARGET, SORT), (*quick_dqn, REVERSE, HIDDEN_TARGET)
    full = (
        Section("ppo", TITLES["ppo"], "episodes", (OUR_PPO, SB3_PPO), PPO_WIDE_GRID, full_ppo, full_ppo, 2, 5),
        Section(
            "seconds", TITLES["seconds"], "seconds", seconds, SECONDS_WIDE_GRID, (LONG_REVERSE, HIDDEN_TARGET),
            (LONG_REVERSE, HIDDEN_TARGET), 2, 5,
        ),
        Section("dqn", TITLES["dqn"], "episodes", (OUR_DQN, SB3_DQN), DQN_WIDE_GRID, full_dqn, quick_dqn, 2, 5),
    )  # fmt: skip
    tiny = (environment("HiddenTarget", 128, "3 of 4", length=3, num_symbols=4),)
    smoke = tuple(
        Section(each.name, each.title, each.axis, each.contestants, each.grid[:2], tiny, tiny, 1, 2, 16)
        for each in quick
    )
    return {"smoke": smoke, "quick": quick, "full": full}


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
