"""How fast our agents learn beside Stable-Baselines3's, with the same transformer, environment and amount of learning.

Seconds are those of the processor, one thread each: on a machine of one's own those of the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym

from agents import DQN, PPO
from agents.base import Agent
from agents.benchmark.sb3_peers import transformer_dqn, transformer_ppo
from agents.benchmark.speed import Comparison, Measure, compare, geometric_mean, measured


@dataclass(frozen=True)
class AgentPreset:
    """How much is measured."""

    rounds: int
    """Turns of our agents and the peer's."""
    ppo_timesteps: int
    """Timesteps that PPO learns from per round."""
    dqn_timesteps: int
    """Timesteps that DQN learns from per round."""
    lengths: tuple[int, ...] = (4, 8, 16)
    """Sizes of ``Reverse`` that the agents are timed on: the default, twice and four times that."""


FULL = AgentPreset(rounds=3, ppo_timesteps=2_048, dqn_timesteps=256)
SMOKE = AgentPreset(rounds=1, ppo_timesteps=256, dqn_timesteps=64, lengths=(4,))

PPO_BAR, DQN_BAR, ENV_SHARE_BAR = 5.0, 10.0, 0.03
DEFAULT_BATCH = 32
"""Transitions of a minibatch of Stable-Baselines3's DQN, unless told otherwise."""


def reverse_envs(num_envs: int, length: int) -> Any:
    """Our vector environment of ``Reverse``."""
    return gym.make_vec(
        "textenvs/Reverse-v0", num_envs=num_envs, vectorization_mode="vector_entry_point", length=length
    )


def ppo(preset: AgentPreset) -> list[Comparison]:
    """Our PPO against Stable-Baselines3's with the same transformer as features extractor: equal rollouts, minibatches,
    epochs, and the same native vector environment. Its transformer reads each prefix by itself, ours a row at once.

    Each size with our own defaults (64 episodes cut into 4 minibatches), and the smallest with minibatches of 256
    timesteps too: the smaller the minibatch, the more of both times is the fixed cost of an operation.
    """
    comparisons = []
    settings = [(length, length) for length in preset.lengths]
    settings.insert(1, (preset.lengths[0], 4 * preset.lengths[0]))
    for length, num_steps in settings:
        sizes: dict[str, Any] = {"num_steps": num_steps, "epochs": 4, "num_minibatches": 4, "seed": 0}
        # No early end of an update (target_kl): the peer has none.
        ours = PPO(reverse_envs(64, length), target_kl=None, **sizes)
        peers = transformer_ppo(reverse_envs(64, length), **sizes)
        what = f"PPO on Reverse, {length} symbols, minibatches of {16 * num_steps} timesteps"
        comparisons.append(_compare_learning("PPO", what, ours, peers, preset.ppo_timesteps, preset.rounds, PPO_BAR))
    return [*comparisons, geometric_mean("PPO on Reverse, geometric mean", comparisons, PPO_BAR)]


def dqn(preset: AgentPreset) -> list[Comparison]:
    """Our DQN against Stable-Baselines3's with the same transformer: equal gradient samples per environment step.

    A gradient sample is a token (a transition) that enters a gradient step, counted each time. One of our rows of T
    tokens holds T of them, so 16 minibatches of 32 rows for every 16 texts are 32 gradient samples per step whatever T
    is. The peer gets as many in two ways: minibatches as large as ours, 32 T transitions, as many of them; and its own
    default, minibatches of 32 transitions, T times as many.
    """
    comparisons = []
    for transitions in (None, DEFAULT_BATCH):
        part = []
        for length in preset.lengths:
            batch_size = transitions or 32 * length
            ours = DQN(reverse_envs(16, length), seed=0, num_steps=length, updates_per_window=16, batch_size=32)
            peers = transformer_dqn(
                reverse_envs(16, length),
                num_steps=length,
                updates=16 * 32 * length // batch_size,
                batch_size=batch_size,
                learning_starts=64 * length,
                seed=0,
            )
            for agent in (ours, peers):  # both begin to learn after 64 episodes
                agent.learn(65 * length)
            whose = "as large as ours" if transitions is None else "of its default size"
            what = f"DQN on Reverse, {length} symbols, the peer's minibatches {whose}, {batch_size} transitions"
            part.append(_compare_learning("DQN", what, ours, peers, preset.dqn_timesteps, preset.rounds, DQN_BAR))
        mean = f"DQN on Reverse, the peer's minibatches {whose}, geometric mean"
        comparisons += [*part, geometric_mean(mean, part, DQN_BAR)]
    return comparisons


def _compare_learning(
    name: str, what: str, ours: Agent, peers: Any, timesteps: int, rounds: int, bar: float
) -> Comparison:
    """Timesteps per second of ``learn``, rollouts and updates together."""

    def rate(agent: Any, **more: Any) -> Measure:
        def work() -> float:
            before = agent.num_timesteps
            agent.learn(timesteps, **more)
            return float(agent.num_timesteps - before)

        return measured(work)

    peer = f"Stable-Baselines3's {name}, same transformer"
    theirs = rate(peers, reset_num_timesteps=False)
    return compare(name, what, peer, "timesteps/s", rate(ours), theirs, rounds, bar)


def shares(preset: AgentPreset) -> list[Comparison]:
    """Where the time of our agents' training goes: environment and reward, the rest of the rollout (the policy), and
    the update (as a rate: milliseconds of a part in those of the whole)."""
    comparisons = []
    for name, make, num_envs, timesteps in (
        ("PPO", PPO, 64, 4 * preset.ppo_timesteps),
        ("DQN", DQN, 16, preset.dqn_timesteps),
    ):
        for length in preset.lengths:
            envs = TimedEnvs(reverse_envs(num_envs, length))
            agent: Agent = make(envs, seed=0)
            agent.learn(num_envs * length * 5)  # warm-up; DQN learns from the fifth batch on
            collect = Timed(agent.collector.collect)
            agent.collector.collect = collect  # type: ignore[method-assign, assignment]
            envs.seconds, start = 0.0, time.process_time()
            agent.learn(timesteps)
            whole = time.process_time() - start
            parts = {
                "environment and reward": (envs.seconds, ENV_SHARE_BAR if name == "PPO" else None),
                "the rest of the rollout": (collect.seconds - envs.seconds, None),
                "update": (whole - collect.seconds, None),
            }
            for part, (seconds, bar) in parts.items():
                share = seconds / whole
                comparisons.append(
                    Comparison(
                        "where the time of training goes",
                        f"{name} on Reverse, {length} symbols: {part}",
                        "whole of learn()",
                        "ms",
                        1e3 * seconds,
                        1e3 * whole,
                        share,
                        share,
                        share,
                        bar,
                        lower_is_better=True,
                    )
                )
    return comparisons


class Timed:
    """A function that adds up the seconds spent in it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.seconds = function, 0.0

    def __call__(self, *args: Any) -> Any:
        start = time.process_time()
        result = self.function(*args)
        self.seconds += time.process_time() - start
        return result


class TimedEnvs(gym.vector.VectorWrapper):
    """Adds up the seconds spent in the environment."""

    seconds = 0.0

    def step(self, actions: Any) -> Any:
        start = time.process_time()
        result = super().step(actions)
        self.seconds += time.process_time() - start
        return result
