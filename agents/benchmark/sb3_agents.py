"""Stable-Baselines3's PPO and DQN with the interface that the benchmark asks of an agent, so that a run of theirs is
played, evaluated, counted and kept exactly as one of ours.

Config fields are named as ours are, so that both can be tuned over one grid. Discount 1, as with us, since a score
comes at the end; whatever no field names is Stable-Baselines3's default.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import numpy as np
from gymnasium.vector import VectorEnv
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from agents.base import SEED_STRIDE, AgentConfig, find_text_spec, make_config
from agents.benchmark.sb3_peers import transformer_policy
from textenvs import as_sb3_vec_env


@dataclass(frozen=True)
class SB3Config(AgentConfig):
    """What both have in common."""

    network: Literal["transformer", "mlp"] = "transformer"
    """Our transformer as the features extractor, or the default ``MlpPolicy`` on one-hot observations."""
    learning_rate: float = 3e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.network not in ("transformer", "mlp"):
            raise ValueError(f"network must be 'transformer' or 'mlp'; got {self.network!r}.")


@dataclass(frozen=True)
class SB3PPOConfig(SB3Config):
    """Of PPO."""

    num_steps: int | None = None
    """Steps of a rollout; None: the length budget of the task."""
    epochs: int = 10
    num_minibatches: int = 4
    ent_coef: float = 0.0


@dataclass(frozen=True)
class SB3DQNConfig(SB3Config):
    """Of DQN. Learning begins, and goes on after each window of as many steps as a text may have, as with ours."""

    num_envs: int = 16
    updates_per_window: int = 16
    """Gradient steps after each window."""
    batch_size: int = 32
    """Of a minibatch, in episodes: that times the length budget are its transitions."""
    learning_starts: int = 64
    """Episodes before the first gradient step."""
    epsilon: float = 0.05
    """Where exploration falls to."""
    exploration_fraction: float = 0.1
    """Share of the budget over which it falls from 1."""
    target_tau: float = 1.0
    target_interval: int = 96
    """Gradient steps between updates of the target network. Stable-Baselines3 makes them while it plays: at most one a
    window, here with the τ of all that are due in it."""


class SB3Agent(ABC):
    """An algorithm of Stable-Baselines3, to be played by :mod:`agents.benchmark.run`.

    Args:
        env: a vector environment without masks, wrapped or not.
        seed: of everything random; episodes are those that our agents of this seed meet.
        config: fields of ``Config``.
    """

    Config: ClassVar[type[SB3Config]]
    model: Any
    """The algorithm."""

    def __init__(self, env: VectorEnv, *, seed: int = 0, **config: Any) -> None:
        self.config: Any = cast(Any, make_config(self.Config, {**config, "num_envs": env.num_envs}))
        self.text_spec = find_text_spec(env)
        if self.text_spec.has_masks:
            raise ValueError("Stable-Baselines3's agents know no masks: choose a task without.")
        self.seed = seed
        self.policy_kwargs = transformer_policy(self.text_spec, seed) if self.config.network == "transformer" else {}
        envs: Any = as_sb3_vec_env(env.unwrapped)
        envs.envs = env  # with its wrappers, which count
        self.model = self._build(envs)
        envs.seed(seed * SEED_STRIDE)

    @abstractmethod
    def _build(self, envs: Any) -> BaseAlgorithm:
        """Make the algorithm from ``config``."""

    @property
    @abstractmethod
    def gradient_samples(self) -> int:
        """Tokens that entered a gradient step, counted each time."""

    def learn(self, total_timesteps: int, callback: Callable[[Any], bool | None]) -> None:
        """As ``Agent.learn``: ``callback`` is called after every batch and its update; False stops."""
        between = _Between(self, callback)
        self.model.learn(total_timesteps, callback=between)
        if not between.stopped:
            callback(self)

    def predict(
        self,
        obs: np.ndarray,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
        action_mask: np.ndarray | None = None,
    ) -> tuple[Any, None]:
        """As ``Agent.predict``; greedy only, so that training does not notice it."""
        if not deterministic:
            raise ValueError("A sampled prediction would draw from the random stream of training: ask for greedy ones.")
        return self.model.predict(obs, deterministic=True)[0], None

    def seed_prediction(self, seed: int) -> None:  # noqa: B027
        """Greedy predictions draw nothing."""


class _Between(BaseCallback):
    """Calls back between an update and the next rollout."""

    def __init__(self, agent: SB3Agent, callback: Callable[[Any], bool | None]) -> None:
        super().__init__()
        self.agent, self.callback, self.stopped = agent, callback, False

    def _on_rollout_start(self) -> None:
        if self.model.num_timesteps:  # before the first there was nothing to learn from
            self.stopped = self.callback(self.agent) is False

    def _on_step(self) -> bool:
        return not self.stopped  # Stable-Baselines3 listens here only: one step is played for nothing


class SB3PPO(SB3Agent):
    """Stable-Baselines3's PPO."""

    Config = SB3PPOConfig

    def _build(self, envs: Any) -> PPO:
        config = self.config
        num_steps = config.num_steps or self.text_spec.max_new_tokens
        self.rollout_size = num_steps * config.num_envs
        return PPO(
            "MlpPolicy",
            envs,
            n_steps=num_steps,
            batch_size=max(1, self.rollout_size // config.num_minibatches),
            n_epochs=config.epochs,
            learning_rate=config.learning_rate,
            ent_coef=config.ent_coef,
            gamma=1.0,
            policy_kwargs=self.policy_kwargs,
            seed=self.seed,
            device="cpu",
        )

    @property
    def gradient_samples(self) -> int:
        """See :class:`SB3Agent`."""
        return self.model._n_updates * self.rollout_size  # counts epochs


class SB3DQN(SB3Agent):
    """Stable-Baselines3's DQN."""

    Config = SB3DQNConfig

    def _build(self, envs: Any) -> DQN:
        config, length = self.config, self.text_spec.max_new_tokens
        self.batch_size = config.batch_size * length
        windows = max(1, config.target_interval // config.updates_per_window)
        due = max(1, config.updates_per_window // config.target_interval)
        return DQN(
            "MlpPolicy",
            envs,
            train_freq=length,
            gradient_steps=config.updates_per_window,
            batch_size=self.batch_size,
            learning_starts=config.learning_starts * length,
            learning_rate=config.learning_rate,
            buffer_size=100_000,
            tau=1 - (1 - config.target_tau) ** due,
            target_update_interval=windows * length * config.num_envs,  # in timesteps
            exploration_final_eps=config.epsilon,
            exploration_fraction=config.exploration_fraction,
            gamma=1.0,
            policy_kwargs=self.policy_kwargs,
            seed=self.seed,
            device="cpu",
        )

    @property
    def gradient_samples(self) -> int:
        """See :class:`SB3Agent`."""
        return self.model._n_updates * self.batch_size


SB3_AGENTS = {"SB3PPO": SB3PPO, "SB3DQN": SB3DQN}
