"""Who takes part: an agent of this project by its name, or somebody else's by "module:Class".

Somebody else's class is either one of Stable-Baselines3's algorithms (``"stable_baselines3:PPO"``), or has ``act`` and
``observe`` (:class:`OutsideAgent`); docs/benchmark.md shows one in thirty lines.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

import agents
from agents.base import SEED_STRIDE, Agent, make_config
from agents.benchmark.accounting import Accounting
from agents.benchmark.suites import AgentSetting, BenchmarkError
from agents.demonstrations import oracle_episodes
from textenvs.errors import unknown_name
from textenvs.spec import TextSpec

DEMONSTRATION_OFFSET = 75_000
"""Where in a run's seeds its demonstrations are; training and evaluation have others."""
OUTSIDE_NUM_ENVS = 16

Callback = Callable[[Any], bool]


class Entrant(Protocol):
    """What the benchmark needs of an agent: the part of :class:`agents.Agent` that it uses."""

    @property
    def gradient_samples(self) -> int: ...

    @property
    def text_spec(self) -> TextSpec: ...

    def learn(self, total_timesteps: int, callback: Callback) -> Any:
        """Learn; ``callback`` is called after every batch and its update, and False ends it."""

    def predict(self, obs: np.ndarray, *, deterministic: bool, action_mask: np.ndarray | None) -> tuple[Any, None]:
        """Actions [N] without any effect on learning."""

    def seed_prediction(self, seed: int) -> None:
        """Restart the random stream of predictions."""


class OutsideAgent(Protocol):
    """An agent of one's own, made as ``Class(text_spec, num_envs, seed, **config)``.

    ``gradient_samples`` (tokens that entered a gradient step, counted each time) is read where it exists.
    """

    def act(self, obs: np.ndarray, action_mask: np.ndarray | None, explore: bool) -> np.ndarray:
        """Actions, integers [N], for observations [N, L] and legal actions [N, V] (None: all are).

        ``explore``: as the agent plays while it learns; else greedily, on any number of rows, without any effect on
        learning.
        """
        ...

    def observe(
        self, obs: np.ndarray, actions: np.ndarray, rewards: np.ndarray, next_obs: np.ndarray, done: np.ndarray
    ) -> None:
        """Learn from a step of all sub-environments; where ``done`` [N], ``next_obs`` is the finished text."""
        ...


def find_agent(name: str) -> Any:
    """An agent class of ``agents`` by its name, or one of :mod:`agents.benchmark.sb3_agents` as "SB3PPO" or "SB3DQN";
    looked up when a run begins, so that a suite is data."""
    if name.startswith("SB3"):
        from agents.benchmark.sb3_agents import SB3_AGENTS  # needs stable-baselines3

        if name in SB3_AGENTS:
            return SB3_AGENTS[name]
    known = {
        key: value
        for key, value in vars(agents).items()
        if isinstance(value, type) and issubclass(value, Agent) and value is not Agent
    }
    if name not in known:
        raise BenchmarkError(
            unknown_name("agent", name, known) + ' An agent of your own goes by "module:Class" (docs/benchmark.md).'
        )
    return known[name]


def find_outside(name: str) -> type[Any]:
    """A class by "module:Class".

    Raises:
        BenchmarkError: no such module or class, or one that is no agent.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise BenchmarkError(f'agent {name!r} cannot be imported ({error}): write it as "module:Class".') from error
    if not is_sb3(found) and not all(callable(getattr(found, method, None)) for method in ("act", "observe")):
        raise BenchmarkError(
            f"agent {name!r} must be a class with methods act and observe, or an algorithm of Stable-Baselines3."
        )
    return cast("type[Any]", found)


def is_sb3(found: Any) -> bool:
    """Whether this is an algorithm class of Stable-Baselines3, which need not be installed."""
    return isinstance(found, type) and any(base.__module__.startswith("stable_baselines3.") for base in found.__mro__)


def is_outside(setting: AgentSetting) -> bool:
    return ":" in setting.agent


def describe_outside(setting: AgentSetting) -> dict[str, str | None] | None:
    """Which code somebody else's agent is: its package's version and a hash of its file; None for our own."""
    if not is_outside(setting):
        return None
    found = find_outside(setting.agent)
    package = importlib.import_module(found.__module__.partition(".")[0])
    source = Path(inspect.getfile(found)).read_bytes()
    return {"version": getattr(package, "__version__", None), "source": hashlib.sha256(source).hexdigest()[:16]}


def num_envs_of(setting: AgentSetting) -> int:
    """How many sub-environments the agent plays."""
    if is_outside(setting):
        number = setting.config.get("num_envs", OUTSIDE_NUM_ENVS)
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise BenchmarkError(f"{setting.name}: num_envs must be an integer from 1 on; got {number!r}.")
        return number
    num_envs: int = make_config(find_agent(setting.agent).Config, setting.config).num_envs
    return num_envs


def group_size_of(setting: AgentSetting) -> int:
    """How many sub-environments answer the same prompts: what an agent that compares them with each other asks for."""
    if is_outside(setting):
        return 1
    config = make_config(find_agent(setting.agent).Config, setting.config)
    return getattr(config, "group_size", None) or 1


def make_entrant(setting: AgentSetting, envs: Accounting, seed: int) -> Entrant:
    """The agent at the beginning of a run; its demonstrations are counted.

    Raises:
        BenchmarkError: no such agent, or demonstrations for one without a replay buffer.
        TypeError, ValueError: a config that does not fit it.
    """
    if not is_outside(setting):
        agent = find_agent(setting.agent)(envs, seed=seed, **setting.config)
        if setting.demonstrations:
            _demonstrate(agent, envs, setting, seed)
        return cast("Entrant", agent)
    if setting.demonstrations:
        raise BenchmarkError(f"{setting.name}: demonstrations are for the replay agents of this project.")
    found, config = find_outside(setting.agent), {k: v for k, v in setting.config.items() if k != "num_envs"}
    return Sb3Entrant(found, envs, seed, config) if is_sb3(found) else OutsideEntrant(found, envs, seed, config)


def _demonstrate(agent: Agent, envs: Accounting, setting: AgentSetting, seed: int) -> None:
    replay = getattr(agent, "replay", None)
    if replay is None:
        raise BenchmarkError(f"{setting.name}: {setting.agent} has no replay buffer to put demonstrations into.")
    task = envs.unwrapped.task  # type: ignore[attr-defined]
    episodes = oracle_episodes(task, setting.demonstrations, seed * SEED_STRIDE + DEMONSTRATION_OFFSET)
    replay.add_episodes(episodes, task=task)
    envs.count_demonstrations(np.concatenate([episodes.prompt_ids, episodes.completion_ids], 1), episodes.lengths)


class OutsideEntrant:
    """Runs an :class:`OutsideAgent`; a batch is one budget of steps of all sub-environments."""

    def __init__(self, make: Callable[..., OutsideAgent], envs: Accounting, seed: int, config: dict[str, Any]) -> None:
        self.envs, self.text_spec, self.seed = envs, envs.text_spec, seed
        self.agent = make(self.text_spec, envs.num_envs, seed, **config)

    @property
    def gradient_samples(self) -> int:
        return int(getattr(self.agent, "gradient_samples", 0))

    def learn(self, total_timesteps: int, callback: Callback) -> None:
        """See :class:`Entrant`."""
        obs, info = self.envs.reset(seed=self.seed * SEED_STRIDE)
        steps = 0
        while self.envs.timesteps < total_timesteps:
            actions = self._act(obs, info.get("action_mask"), explore=True)
            next_obs, rewards, terminations, truncations, info = self.envs.step(actions)
            done = terminations | truncations
            after = (
                next_obs if not done.any() else np.where(done[:, None], _stacked(info["final_obs"], next_obs), next_obs)
            )
            self.agent.observe(obs, actions, rewards, after, done)
            obs = next_obs
            steps += 1
            if steps % self.text_spec.max_new_tokens == 0 and callback(self) is False:
                return

    def predict(self, obs: np.ndarray, *, deterministic: bool, action_mask: np.ndarray | None) -> tuple[Any, None]:
        """See :class:`Entrant`."""
        return self._act(obs, action_mask, explore=not deterministic), None

    def _act(self, obs: np.ndarray, action_mask: np.ndarray | None, explore: bool) -> np.ndarray:
        actions = np.asarray(self.agent.act(obs, action_mask, explore))
        if actions.shape != (len(obs),) or actions.dtype.kind not in "iu":
            raise BenchmarkError(
                f"{type(self.agent).__name__}.act must return integers of shape ({len(obs)},); "
                f"got {actions.dtype} {actions.shape}."
            )
        if not ((actions >= 0) & (actions < self.text_spec.num_tokens)).all():
            bad = actions[(actions < 0) | (actions >= self.text_spec.num_tokens)][0]
            raise BenchmarkError(
                f"{type(self.agent).__name__}.act returned {bad}; actions lie in 0 … {self.text_spec.num_tokens - 1}."
            )
        return actions

    def seed_prediction(self, seed: int) -> None:
        """Greedy actions need no random numbers."""


class Sb3Entrant:
    """Runs an algorithm of Stable-Baselines3 or sb3-contrib on the native vector environment."""

    def __init__(self, algorithm: type[Any], envs: Accounting, seed: int, config: dict[str, Any]) -> None:
        from textenvs.sb3 import TextVecEnv

        self.text_spec = envs.text_spec
        vec_env = TextVecEnv(cast("Any", envs))
        config = {"policy": "MlpPolicy", "device": "cpu"} | config
        self.model = algorithm(env=vec_env, seed=seed, **config)
        self._takes_masks = "action_masks" in inspect.signature(self.model.predict).parameters
        vec_env.seed(seed * SEED_STRIDE)  # the algorithm has just seeded it with its own seed

    @property
    def gradient_samples(self) -> int:
        from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

        model = self.model
        # On-policy algorithms count passes over a rollout, the others gradient steps.
        size = model.n_steps * model.n_envs if isinstance(model, OnPolicyAlgorithm) else model.batch_size
        return int(model._n_updates) * int(size)

    def learn(self, total_timesteps: int, callback: Callback) -> None:
        """See :class:`Entrant`."""
        from stable_baselines3.common.callbacks import BaseCallback

        entrant = self

        class Batches(BaseCallback):
            going_on = True

            def _on_rollout_start(self) -> None:  # the update of the batch before is done
                self.going_on = self.going_on and callback(entrant) is not False

            def _on_step(self) -> bool:
                return self.going_on

            def _on_training_end(self) -> None:
                if self.going_on:
                    callback(entrant)

        self.model.learn(total_timesteps, callback=Batches())

    def predict(self, obs: np.ndarray, *, deterministic: bool, action_mask: np.ndarray | None) -> tuple[Any, None]:
        """See :class:`Entrant`."""
        masks = {"action_masks": action_mask} if self._takes_masks and action_mask is not None else {}
        return self.model.predict(obs, deterministic=deterministic, **masks)[0], None

    def seed_prediction(self, seed: int) -> None:
        """Greedy actions need no random numbers."""


def _stacked(final_obs: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Final observations [N, L], whatever stands in rows that have none."""
    if final_obs.dtype != object:
        return final_obs
    return np.stack([row if new is None else new for row, new in zip(like, final_obs, strict=True)])
