"""Agent: what every algorithm shares. learn / predict / save / load, counting, logging, progress."""

from __future__ import annotations

import dataclasses
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv

import textenvs
from agents import distributed
from agents.callbacks import Callback, Callbacks
from agents.checkpoint import CheckpointError, Tree, load_config, load_state, save_checkpoint
from agents.collect import Collector, Rollout
from agents.config import check_fields
from agents.environments import describe_text_spec
from agents.environments import find_text_spec as find_text_spec
from agents.environments import make_envs as make_envs
from agents.logger import Logger
from agents.schedules import check_schedules, config_at
from agents.terminal import hold_interrupt, show_progress
from textenvs.actions import check_seed

SEED_STRIDE = 100_000  # sub-environment i of agent seed s is seeded with s x stride + i: streams of runs never overlap

Metrics = dict[str, float]


@dataclasses.dataclass(frozen=True)
class AgentConfig:
    """What every agent can be told. Algorithms add their fields."""

    num_envs: int = 64
    """Sub-environments (of each process), where the environment is given as an id."""
    schedules: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Fields that change as timesteps pass, by name: points [[timesteps, value], …], see :mod:`agents.schedules`."""

    def __post_init__(self) -> None:
        if self.num_envs < 1:
            raise ValueError(f"num_envs must be at least 1; got {self.num_envs}.")


class Agent(ABC):
    """Base of all agents. Several processes (see :mod:`agents.distributed`) call everything alike; counters and figures
    are of all of them, and the first alone writes and shows something.

    Args:
        env: an environment id, or a vector environment of token sequences.
        seed: of everything random in the agent; the environment is seeded with ``seed × 100_000``.
        env_kwargs: arguments of the environment, where ``env`` is an id.
        device: where the networks live, e.g. ``"cpu"`` or ``"cuda"``.
        log_dir: folder for a CSV file and TensorBoard; None: no logs.
        **config: fields of the algorithm's ``Config``.

    Attributes:
        given_config: the config as given.
        config: … with the present values of the fields that have a schedule.
        num_timesteps: tokens written so far in all sub-environments, those of unfinished episodes included.
        num_episodes: finished episodes.
        num_updates: batches learnt from.
        gradient_samples: tokens that entered a gradient step, counted each time.
        metrics: figures of the last batch, as logged.

    Raises:
        TypeError: an unknown config key, or a value of another type.
        ValueError: a config value out of range, a negative seed, a device that is not there, or an environment whose
            observations are not token sequences.
    """

    Config: ClassVar[type[AgentConfig]] = AgentConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Configs that have a name, to be given as ``**Agent.presets[name]``."""
    optimizer: torch.optim.Optimizer
    """Of agents whose config has a ``learning_rate``."""

    def __init__(
        self,
        env: str | VectorEnv,
        *,
        seed: int = 0,
        env_kwargs: dict[str, Any] | None = None,
        device: str = "cpu",
        log_dir: str | Path | None = None,
        **config: Any,
    ) -> None:
        self.given_config: Any = make_config(self.Config, config)
        self.config: Any = config_at(self.given_config, 0)
        self.seed, self.device = check_seed(seed), check_device(device)
        self.env_id = env if isinstance(env, str) else None
        self.env_kwargs = dict(env_kwargs or {})
        if isinstance(env, str):
            self.envs = self._make_envs(env)
        elif isinstance(env, VectorEnv):
            if env_kwargs:
                raise ValueError("env_kwargs belong to an environment id; this environment is already made.")
            if config.get("num_envs", env.num_envs) != env.num_envs:
                raise ValueError(f"num_envs={config['num_envs']}, but the environment given has {env.num_envs}.")
            self.envs = env
            self.given_config = dataclasses.replace(self.given_config, num_envs=env.num_envs)
            self.config = config_at(self.given_config, 0)
        else:
            raise TypeError(
                f"env must be an environment id or a gymnasium.vector.VectorEnv; got {type(env).__name__}. "
                "Use gym.make_vec to make a vector environment."
            )
        self.text_spec = find_text_spec(self.envs)
        self.num_timesteps = 0
        self.num_episodes = 0
        self.num_updates = 0
        self.gradient_samples = 0
        self.metrics: Metrics = {}
        self.rng = np.random.default_rng(seed)
        self._env_seed: int | None = seed * SEED_STRIDE  # of the next reset; None: the environment goes on by itself
        self._build()
        self.collector = Collector(self.envs, self.text_spec, self._act, pooled=True)
        self.log_dir = None if log_dir is None else Path(log_dir)
        self._logger = None if log_dir is None or distributed.rank() > 0 else Logger(log_dir)
        self._callbacks = Callbacks(None)  # of the latest learn
        self._callback_states: Tree = {}  # from a checkpoint, of callbacks that learn has not been given yet
        self._checked_processes = False

    # -- what an algorithm fills in ------------------------------------------------------------------------------------

    @abstractmethod
    def _build(self) -> None:
        """Make networks and optimisers from ``config``, ``text_spec``, ``seed`` and ``device``."""

    @abstractmethod
    def _act(self, obs: np.ndarray, action_mask: np.ndarray | None) -> tuple[np.ndarray, ...]:
        """Actions [N] for training, their log-probabilities [N], and values [N] of the states where they cost nothing;
        called once per environment step."""

    @abstractmethod
    def _predict(self, obs: np.ndarray, action_mask: np.ndarray | None, deterministic: bool) -> np.ndarray:
        """Actions [N], without any effect on training."""

    @abstractmethod
    def _iterate(self) -> Metrics:
        """Play one batch with ``self._collect`` and learn from it; the same keys every time, but for ``rewards/…``."""

    @abstractmethod
    def _get_state(self) -> Tree:
        """Everything that learning depends on beyond config and counters, as a tree for the checkpoint."""

    @abstractmethod
    def _set_state(self, state: Tree) -> None:
        """Go on from ``_get_state``."""

    @abstractmethod
    def seed_prediction(self, seed: int) -> None:
        """Restart the random stream of sampled predictions, which is apart from training's."""

    def _make_envs(self, env_id: str) -> VectorEnv:
        """The environment, where it is given as an id."""
        return make_envs(env_id, self.config.num_envs, self.env_kwargs)

    def _fingerprint(self) -> dict[str, Any] | None:
        """What must be the same in processes that train together, by name; None: this algorithm trains in one only."""
        return None

    # -- learning ------------------------------------------------------------------------------------------------------

    @property
    def data_utilisation(self) -> float:
        """Gradient samples per environment sample."""
        return self.gradient_samples / max(self.num_timesteps, 1)

    def learn(
        self,
        total_timesteps: int,
        callback: Callback | Sequence[Callback] | None = None,
        progress_bar: bool = False,
    ) -> Self:
        """Learn until that many more timesteps have been played, and finish the last batch.

        A timestep is one token in one sub-environment. A second call goes on where the first ended.

        Args:
            total_timesteps: at least 1.
            callback: called with the agent after every batch and its update; False stops. Of several all are called,
                in their order. :mod:`agents.callbacks` has more.
            progress_bar: show timesteps, speed and score.

        Raises:
            RuntimeError, ValueError: several processes that cannot train together.
            KeyboardInterrupt: on Ctrl-C, once the current batch has been learnt from (a second one: at once). The
                agent can be saved and go on.
        """
        if total_timesteps < 1:
            raise ValueError(f"total_timesteps must be at least 1; got {total_timesteps}.")
        self._check_processes()
        self._callbacks = callbacks = Callbacks(callback)
        callbacks.restore(self._callback_states)
        first, target = self.num_timesteps, self.num_timesteps + total_timesteps
        if not self.collector.started:
            self._begin_episodes()
        started = time.perf_counter()
        visible = progress_bar and distributed.rank() == 0
        with hold_interrupt() as interrupted, show_progress(visible, total_timesteps) as show:
            going = not distributed.anyone(not callbacks.start(self))
            while going and self.num_timesteps < target:
                self._apply_schedules()
                try:
                    metrics = self._iterate()
                except BaseException:
                    # Stopped somewhere between the environment and the books: the episodes in flight are lost.
                    self.collector.drop()
                    raise
                speed = (self.num_timesteps - first) / (time.perf_counter() - started - callbacks.seconds)
                self.metrics = metrics | {"charts/SPS": speed}
                if self._logger is not None:
                    self._logger.log(self.num_timesteps, self.metrics)
                show(self.num_timesteps - first, self.metrics)
                going = not distributed.anyone(not callbacks(self))
                if going and distributed.anyone(interrupted()):
                    raise KeyboardInterrupt
        if self._logger is not None:
            self._logger.flush()
        return self

    def _begin_episodes(self) -> None:
        """Begin an episode in every sub-environment: the first ones, or after something has broken off the last."""
        first_env = distributed.rank() * self.envs.num_envs
        self.collector.reset(None if self._env_seed is None else self._env_seed + first_env)
        self._env_seed = None

    def _another_env_seed(self) -> int:
        """A seed of other episodes than those of the beginning, the same whenever it is asked for at this point."""
        sequence = np.random.SeedSequence([self.seed, self.num_timesteps])
        return int(sequence.generate_state(1)[0])

    def _check_processes(self) -> None:
        """Once, and where there are several: that this algorithm can train in them, and that they are alike."""
        if self._checked_processes:
            return
        distributed.check_joined()
        if distributed.world_size() > 1:
            fingerprint = self._fingerprint()
            if fingerprint is None:
                raise RuntimeError(
                    f"{type(self).__name__} trains in one process, and there are {distributed.world_size()}: start it "
                    f"without a launcher."
                )
            if self.collector.mode is AutoresetMode.NEXT_STEP:
                raise ValueError(
                    "Under AutoresetMode.NEXT_STEP the processes would not count the same steps: make the environment "
                    "with AutoresetMode.SAME_STEP or DISABLED."
                )
            counters = {name: getattr(self, name) for name in _COUNTERS}
            shapes = {name: x for name, x in describe_text_spec(self.text_spec).items() if name != "tokens"}
            distributed.check_alike(
                {"seed": self.seed} | dataclasses.asdict(self.config) | shapes | counters | fingerprint
            )
        self._checked_processes = True

    def _collect(self, num_steps: int) -> Rollout:
        """A batch of episodes, counted."""
        rollout = self.collector.collect(num_steps)
        self.num_timesteps += rollout.timesteps
        self.num_episodes += len(rollout)
        return rollout

    def _apply_schedules(self) -> None:
        """Give scheduled fields their present values."""
        if self.given_config.schedules:
            self.config = config_at(self.given_config, self.num_timesteps)
        if "learning_rate" in self.given_config.schedules:
            for group in self.optimizer.param_groups:
                group["lr"] = self.config.learning_rate

    def set_reward(self, reward: Any) -> None:
        """Have the environment judge by another reward model from the next finished text on.

        Args:
            reward: any form of reward spec; see :func:`textenvs.set_reward`.

        Raises:
            TypeError, ValueError: it is none, or not one for these texts; the old one stays.
        """
        textenvs.set_reward(self.envs, reward)
        if self.env_id is not None:
            self.env_kwargs = self.env_kwargs | {"reward": reward}  # for checkpoints and evaluations

    # -- acting --------------------------------------------------------------------------------------------------------

    def predict(
        self,
        obs: np.ndarray,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
        action_mask: np.ndarray | None = None,
    ) -> tuple[Any, None]:
        """The next token, with the signature of Stable-Baselines3. Training does not notice it, random numbers
        included.

        Args:
            obs: [L] or [N, L] observations.
            state, episode_start: ignored (the observation says everything).
            deterministic: the best token instead of a sampled one.
            action_mask: [V] or [N, V], non-zero where an action is legal. Needed by tasks with masks.

        Returns:
            The action, or [N] actions; and None.
        """
        rows = np.asarray(obs)
        single = rows.ndim == 1
        rows = rows[None] if single else rows
        spec = self.text_spec
        if rows.ndim != 2 or rows.shape[1] != spec.row_length or rows.dtype.kind not in "iu":
            raise ValueError(
                f"obs must be integers of shape [{spec.row_length}] or [N, {spec.row_length}]; "
                f"got {rows.dtype} {np.shape(obs)}."
            )
        masks = None
        if action_mask is not None:
            masks = np.asarray(action_mask)
            masks = masks[None] if masks.ndim == 1 else masks
            if masks.shape != (len(rows), spec.pad_id):
                raise ValueError(f"action_mask must be {(len(rows), spec.pad_id)}; got {np.shape(action_mask)}.")
        elif spec.has_masks:
            raise ValueError("This task has illegal actions: pass action_mask=info['action_mask'].")
        actions = self._predict(rows.astype(np.int64, copy=False), masks, deterministic)
        return (actions[0] if single else actions), None

    # -- saving --------------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write a checkpoint from which ``load`` goes on bit for bit; to be called between two batches (in a
        callback, or after ``learn``). An earlier checkpoint at ``folder`` is replaced. Several processes must all call
        it, and the first writes.

        Raises:
            CheckpointError: there is something else at ``folder``.
        """
        config = {
            "agent": type(self).__name__,
            "seed": self.seed,
            "config": dataclasses.asdict(self.given_config),
            "env": self._describe_env(),
            "text_spec": describe_text_spec(self.text_spec),
            "counters": {name: getattr(self, name) for name in _COUNTERS},
            "num_processes": distributed.world_size(),
        }
        state = self._get_state() | {
            "rng": self.rng.bit_generator.state,
            "callbacks": self._callback_states | self._callbacks.get_states(),
        }
        episodes = {"collector": self.collector.get_state()}
        # Other people's vector environments cannot be saved: their episodes will start anew.
        if self.collector.started and hasattr(self.envs.unwrapped, "get_state"):
            episodes["env"] = self.envs.unwrapped.get_state()
        for process, part in enumerate(distributed.gather(episodes)):
            state |= {_of_process(name, process): tree for name, tree in part.items()}
        distributed.in_first(lambda: save_checkpoint(folder, config, state))

    @classmethod
    def load(
        cls,
        folder: str | Path,
        env: str | VectorEnv | None = None,
        *,
        device: str = "cpu",
        log_dir: str | Path | None = None,
        **parts: Any,
    ) -> Self:
        """The agent of a checkpoint, ready to ``learn`` on or to ``predict``.

        Args:
            folder: where ``save`` wrote it.
            env: the environment, needed if the agent was not made from an id (and arguments that JSON can hold).
                Episodes in flight go on if it can be put in the saved state (``TextVectorEnv`` with as many
                sub-environments, in as many processes), else they start anew.
            device, log_dir: as for the constructor.
            **parts: what else the agent was made of and cannot be described in a file, e.g. the policy of ``PPO``.

        Raises:
            CheckpointError: no checkpoint, or one of another agent, version or kind of environment.
        """
        saved = load_config(folder)
        if saved["agent"] != cls.__name__:
            raise CheckpointError(f"{folder} is a checkpoint of {saved['agent']}, not of {cls.__name__}.")
        config = saved["config"]
        if env is None:
            if saved["env"] is None:
                raise CheckpointError(f"{folder} does not say how its environment was made: pass env=.")
            agent = cls(
                saved["env"]["id"],
                seed=saved["seed"],
                env_kwargs=saved["env"]["kwargs"],
                device=device,
                log_dir=log_dir,
                **parts,
                **config,
            )
        else:
            if not isinstance(env, str):
                config = config | {"num_envs": env.num_envs}
            agent = cls(env, seed=saved["seed"], device=device, log_dir=log_dir, **parts, **config)
        here = describe_text_spec(agent.text_spec)
        for name, value in saved["text_spec"].items():
            if here[name] != value:
                raise CheckpointError(
                    f"{folder} was trained on an environment with {name}={value}; this one has {here[name]}."
                )
        state = load_state(folder)
        for name, value in saved["counters"].items():
            setattr(agent, name, value)
        agent._apply_schedules()
        if agent._logger is not None:
            agent._logger.rewind(agent.num_timesteps)
        try:
            agent.rng.bit_generator.state = state["rng"]
            agent._set_state(state)
            agent._callback_states = state.get("callbacks", {})
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"The checkpoint {folder} is damaged or incomplete: {error}") from error
        here_and_then = (
            (agent.config.num_envs, distributed.world_size()),
            (saved["config"]["num_envs"], saved.get("num_processes", 1)),
        )
        env_state, collector_state = (_of_process(name, distributed.rank()) for name in ("env", "collector"))
        same_size = here_and_then[0] == here_and_then[1]
        if env_state in state and same_size and hasattr(agent.envs.unwrapped, "set_state"):
            agent.envs.unwrapped.set_state(state[env_state])
            agent.collector.set_state(state.get(collector_state, {}))
            agent._env_seed = None
        elif agent.num_timesteps:
            agent._env_seed = agent._another_env_seed()
        return agent

    def _describe_env(self) -> Tree | None:
        if self.env_id is None:
            return None
        try:
            json.dumps(self.env_kwargs)
        except TypeError:
            return None  # e.g. a reward given as a function
        return {"id": self.env_id, "kwargs": self.env_kwargs}


_COUNTERS = ("num_timesteps", "num_episodes", "num_updates", "gradient_samples")


def _of_process(name: str, process: int) -> str:
    """Name of a part of a checkpoint that every process has of its own."""
    return f"{name}_{process}" if process else name


def make_config(config_class: type[AgentConfig], given: dict[str, Any]) -> AgentConfig:
    """A config from keyword arguments.

    Raises:
        TypeError: an unknown key; the message lists the known ones and the nearest. A value of another type.
        ValueError: a value out of range, or a schedule that is none.
    """
    config = config_class(**check_fields(config_class, given))
    check_schedules(config)
    return config


def check_device(device: str) -> str:
    """The device, if networks can live there.

    Raises:
        ValueError: no such device here.
    """
    try:
        torch.zeros(1, device=device)
    except (AssertionError, RuntimeError, NotImplementedError) as error:
        gpus = torch.cuda.device_count()
        raise ValueError(
            f"device={device!r} is not to be had here: use 'cpu', or "
            + (f"'cuda:0' to 'cuda:{gpus - 1}'" if gpus else "a PyTorch that sees a GPU")
            + f". ({str(error).splitlines()[0]})"
        ) from None
    return device
