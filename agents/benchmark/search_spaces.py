"""What agents are tuned over: pure data. As many dimensions, about as wide, for on-policy agents as for replay.

Learning rate, how much is learnt from each batch and how large it is, how far a step is trusted, how much is explored.
What is not named stays at its default, and the default is the first trial of every agent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from agents.benchmark.suites import (
    STANDARD_DEFAULTS,
    AgentSetting,
    BenchmarkError,
    EnvironmentSetting,
    Suite,
    environment_setting,
)
from textenvs.errors import unknown_name


@dataclass(frozen=True)
class LogUniform:
    """A positive number whose logarithm is uniform between those of ``low`` and ``high``."""

    low: float
    high: float


Dimension = LogUniform | tuple[Any, ...]
"""A range, or the values that are drawn with equal probability."""

PPO_SPACE: dict[str, Dimension] = {
    "learning_rate": LogUniform(3e-4, 5e-3),
    "num_envs": (16, 32, 64),  # episodes of a batch
    "epochs": (2, 4, 8, 16),
    "num_minibatches": (1, 2, 4, 8),
    "ent_coef": (0.0, 0.005, 0.02, 0.05),
    "clip_coef": (0.1, 0.2, 0.3),
    "gae_lambda": (0.9, 0.95, 1.0),
}
RLOO_SPACE: dict[str, Dimension] = {
    "learning_rate": LogUniform(3e-4, 5e-3),
    "num_envs": (16, 32, 64),
    "group_size": (2, 4, 8),
    "epochs": (1, 2, 4, 8),
    "num_minibatches": (1, 2, 4, 8),
    "ent_coef": (0.0, 0.005, 0.02, 0.05),
    "clip_coef": (0.1, 0.2, 0.3),
}
A2C_SPACE: dict[str, Dimension] = {
    "learning_rate": LogUniform(3e-4, 5e-3),
    "num_envs": (4, 8, 16, 32),
    "n_step": (1, 3, 5, None),
    "ent_coef": (0.0, 0.005, 0.02, 0.05),
    "vf_coef": (0.1, 0.25, 0.5, 1.0),
    "max_grad_norm": (0.3, 1.0, 3.0),
}
SB3_PPO_SPACE: dict[str, Dimension] = {
    "learning_rate": LogUniform(3e-4, 5e-3),
    "num_envs": (16, 32, 64),
    "n_steps": (8, 16, 32),
    "batch_size": (32, 64, 128),  # transitions; every rollout above is a multiple
    "n_epochs": (4, 10, 20),
    "ent_coef": (0.0, 0.005, 0.02, 0.05),
    "gae_lambda": (0.9, 0.95, 1.0),
}
DQN_SPACE: dict[str, Dimension] = {
    "learning_rate": LogUniform(5e-4, 5e-3),
    "updates_per_window": (4, 8, 16, 32),  # of 16 episodes
    "batch_size": (16, 32, 64),
    "recent_share": (0.0, 0.25, 0.5),
    "lambda_": (0.5, 0.9, 1.0),
    "target_tau": (0.03, 0.1, 0.3),
    "temperature": LogUniform(0.005, 0.08),
}
SAC_SPACE: dict[str, Dimension] = {
    "learning_rate": LogUniform(5e-4, 5e-3),
    "updates_per_window": (4, 8, 16, 32),
    "batch_size": (16, 32, 64),
    "recent_share": (0.0, 0.25, 0.5),
    "entropy_share": (0.02, 0.05, 0.1, 0.2),
    "initial_alpha": LogUniform(0.005, 0.08),
    "target_tau": (0.03, 0.1, 0.3),
}
SOFT_Q_SPACE: dict[str, Dimension] = {
    "learning_rate": LogUniform(5e-4, 5e-3),
    "updates_per_window": (4, 8, 16, 32),
    "batch_size": (16, 32, 64),
    "recent_share": (0.0, 0.25, 0.5),
    "path_coef": (0.3, 1.0, 3.0),
    "tau": LogUniform(0.005, 0.08),
    "target_tau": (0.03, 0.1, 0.3),
}
RETURN_DECOMPOSITION_SPACE: dict[str, Dimension] = {
    "learning_rate": LogUniform(5e-4, 5e-3),
    "updates_per_window": (4, 8, 16, 32),  # of 8 episodes
    "batch_size": (16, 32, 64),
    "recent_share": (0.0, 0.25, 0.5),
    "continuation_coef": (0.0, 0.1, 0.3),
    "temperature": LogUniform(0.005, 0.08),
    "epsilon": (0.0, 0.02, 0.05),
}

SPACES: dict[str, dict[str, Dimension]] = {
    "PPO": PPO_SPACE,
    "RLOO": RLOO_SPACE,
    "A2C": A2C_SPACE,
    "SB3 PPO": SB3_PPO_SPACE,
    "DQN": DQN_SPACE,
    "DiscreteSAC": SAC_SPACE,
    "SoftQ": SOFT_Q_SPACE,
    "ReturnDecomposition": RETURN_DECOMPOSITION_SPACE,
}
"""By the agent's name in the ``standard`` suite."""

TUNING_ENVIRONMENTS = (
    environment_setting("3 of 6", "Reverse", 1_000, length=3, num_symbols=6),
    environment_setting("6 of 6", "PrefixLock", 1_000, length=6, num_symbols=6),
    environment_setting("6 of 8", "HiddenTarget", 600, length=6, num_symbols=8),
)
"""None of the ``standard`` suite's families."""
FIRST_SEED = 2_000
"""The first run seed of tuning; suites begin at 0."""


@dataclass(frozen=True)
class TuningPreset:
    """How much is searched, alike for every agent.

    All trials are played with the first of ``num_seeds`` run seeds; the best ``finalists``, and the defaults, with the
    others too.
    """

    name: str
    agents: tuple[AgentSetting, ...]
    environments: tuple[EnvironmentSetting, ...]
    trials: int
    finalists: int = 3
    num_seeds: int = 3
    stop_at: float = 0.9
    growth: float = 0.1
    evaluation_episodes: int = 128

    def seeds(self, seed: int) -> tuple[int, ...]:
        """Run seeds of the search with this seed; two searches share none."""
        first = FIRST_SEED + self.num_seeds * seed
        return tuple(range(first, first + self.num_seeds))

    def suite(self, agents: Sequence[AgentSetting], seed: int) -> Suite:
        """Runs of these candidates, with the seeds of all."""
        return Suite(
            name=f"tuning-{self.name}",
            environments=self.environments,
            agents=tuple(agents),
            seeds=self.seeds(seed),
            thresholds=(self.stop_at,),
            stop_at=self.stop_at,
            growth=self.growth,
            evaluation_episodes=self.evaluation_episodes,
        )


PRESETS = {
    preset.name: preset
    for preset in (
        TuningPreset(
            name="smoke",
            agents=tuple(setting for setting in STANDARD_DEFAULTS if setting.name in ("PPO", "DQN")),
            environments=(environment_setting("3 of 4", "HiddenTarget", 96, length=3, num_symbols=4),),
            trials=2,
            finalists=1,
            num_seeds=2,
            evaluation_episodes=16,
        ),
        TuningPreset(name="full", agents=STANDARD_DEFAULTS, environments=TUNING_ENVIRONMENTS, trials=12),
    )
}


def get_preset(name: str, agents: Sequence[str] | None = None, trials: int | None = None) -> TuningPreset:
    """A preset, or a part of it.

    Raises:
        BenchmarkError: an unknown preset or agent, or fewer than one trial.
    """
    if name not in PRESETS:
        raise BenchmarkError(unknown_name("preset", name, PRESETS))
    preset = PRESETS[name]
    if agents is not None:
        known = {setting.name: setting for setting in STANDARD_DEFAULTS}
        for agent in agents:
            if agent not in known:
                raise BenchmarkError(unknown_name("agent", agent, known))
        if not agents:
            raise BenchmarkError("nothing to tune: no agents were selected.")
        preset = replace(preset, agents=tuple(known[agent] for agent in dict.fromkeys(agents)))
    if trials is not None:
        if trials < 1:
            raise BenchmarkError(f"--trials must be at least 1, got {trials}.")
        preset = replace(preset, trials=trials)
    return preset
