"""Speed against named peers, as ratios measured in one run.

    python scripts/benchmark_speed.py                          # the real figures
    python scripts/benchmark_speed.py --preset smoke           # all of it once, tiny: shows that it runs, no more
    python scripts/benchmark_speed.py --sections environments --out speed.json

Absolute times drift with the machine and with what else it does, so ours and the peer's are measured in turn, round by
round, and compared by their medians. The bars are those that the project sets itself.
"""

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from rich.console import Console
from stable_baselines3 import PPO as StableBaselinesPPO

import textenvs.errors
from agents import DQN, PPO
from agents.base import Agent
from agents.benchmark import lm_speed, trl_peer
from agents.benchmark.handwritten import HandwrittenAddition, HandwrittenDyckMasked, HandwrittenReverse
from agents.benchmark.lm_speed import LMPreset
from agents.benchmark.sb3_peers import transformer_dqn, transformer_ppo
from agents.benchmark.speed import Comparison, compare
from textenvs import as_sb3_vec_env


@dataclass(frozen=True)
class Preset:
    """How much is measured."""

    rounds: int
    """Turns of ours and the peer's; medians are taken over them."""
    num_envs: int
    """Sub-environments of the vector environments."""
    native_steps: int
    """Steps of the native vector environment per round."""
    sync_steps: int
    """Steps of Gymnasium's vector environment per round."""
    scalar_steps: int
    """Steps of one environment per round."""
    agent_rounds: int
    """Turns of our agents and the peer's."""
    ppo_timesteps: int
    """Timesteps that PPO learns from per round."""
    dqn_timesteps: int
    """Timesteps that DQN learns from per round."""
    seconds_budget: float
    """How long an agent may take to reach 0.9."""
    seconds_seeds: int
    """Seeds of the runs to 0.9."""
    lm: LMPreset
    """Of language models."""


PRESETS = {
    "full": Preset(
        rounds=11,
        num_envs=1_024,
        native_steps=1_000,
        sync_steps=40,
        scalar_steps=5_000,
        agent_rounds=5,
        ppo_timesteps=2_048,
        dqn_timesteps=256,
        seconds_budget=90.0,
        seconds_seeds=3,
        lm=lm_speed.FULL,
    ),
    "smoke": Preset(
        rounds=2,
        num_envs=64,
        native_steps=20,
        sync_steps=5,
        scalar_steps=100,
        agent_rounds=1,
        ppo_timesteps=1_024,
        dqn_timesteps=256,
        seconds_budget=1.0,
        seconds_seeds=1,
        lm=lm_speed.SMOKE,
    ),
}


# ------------------------------------------------------------------------------------------------- environments


@dataclass(frozen=True)
class VectorSetting:
    """A task at certain sizes, and the hand-written environment of the same task."""

    what: str
    name: str
    peer: type[gym.Env]
    sizes: dict[str, Any]
    bar: float | None


VECTOR_SETTINGS = (
    VectorSetting("Reverse, all texts end at once", "Reverse", HandwrittenReverse, {"length": 4}, 40.0),
    VectorSetting(
        "Reverse, texts end at different times", "Reverse", HandwrittenReverse, {"length": 4, "min_length": 2}, 15.0
    ),
    VectorSetting("Reverse, longer, all end at once", "Reverse", HandwrittenReverse, {"length": 16}, None),
    VectorSetting(
        "Reverse, longer, end at different times", "Reverse", HandwrittenReverse, {"length": 16, "min_length": 8}, None
    ),
    VectorSetting("DyckMasked, legal actions under a mask", "DyckMasked", HandwrittenDyckMasked, {"length": 4}, 20.0),
    VectorSetting(
        "Addition, prompts and texts of unequal length", "Addition", HandwrittenAddition, {"digits": 2}, 20.0
    ),
)

MEMORY_LIMIT = 200.0  # MB
MEMORY_PROGRAM = """
import pathlib, resource, sys
import gymnasium as gym, numpy as np, textenvs
num_envs, num_symbols, length = map(int, sys.argv[1:])
envs = gym.make_vec("textenvs/BigVocab-v0", num_envs=num_envs, vectorization_mode="vector_entry_point",
                    num_symbols=num_symbols, length=length)
envs.reset(seed=0)
rng = np.random.default_rng(0)
for _ in range(2 * length + 1):
    envs.step(rng.integers(num_symbols, size=num_envs))
status = pathlib.Path("/proc/self/status")
if status.exists():  # Linux, where getrusage counts what the parent process had
    kilobytes = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    print(kilobytes * 1024 / 1e6)
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
"""


def environments(preset: Preset) -> list[Comparison]:
    """The environments alone, under random actions that are not timed (legal ones where there is a mask).

    The peer is a minimal environment of the same task written by hand, under Gymnasium's ``SyncVectorEnv`` and by
    itself. Both vector environments begin the next episode in the same step.
    """
    comparisons = []
    for setting in VECTOR_SETTINGS:
        ours = partial(vector_rate, native_envs(preset.num_envs, setting.sizes, setting.name), preset.native_steps)
        peers = partial(vector_rate, handwritten_envs(preset.num_envs, setting.sizes, setting.peer), preset.sync_steps)
        comparisons.append(
            compare(
                "environments",
                f"{preset.num_envs:,} sub-environments, {setting.what}",
                "SyncVectorEnv of a hand-written env",
                "steps/s",
                ours,
                peers,
                preset.rounds,
                setting.bar,
            )
        )
    lengths: list[tuple[str, dict[str, Any]]] = [("short texts", {"length": 4}), ("long texts", {"length": 64})]
    for what, sizes in lengths:
        ours = partial(scalar_rate, gym.make("textenvs/Reverse-v0", **sizes).unwrapped, preset.scalar_steps)
        peers = partial(scalar_rate, HandwrittenReverse(**sizes, copy=True), preset.scalar_steps)
        comparisons.append(
            compare(
                "environments",
                f"one environment, Reverse, {what}",
                "the hand-written env",
                "steps/s",
                ours,
                peers,
                preset.rounds,
                0.25,
            )
        )
    return [*comparisons, memory(4 * preset.num_envs)]


def memory(num_envs: int, num_symbols: int = 50_257, length: int = 128) -> Comparison:
    """Peak memory of a process, interpreter included, that plays ``BigVocab``, two episodes in each sub-environment."""
    command = [sys.executable, "-c", MEMORY_PROGRAM, *map(str, (num_envs, num_symbols, length))]
    peak = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    share = peak / MEMORY_LIMIT
    return Comparison(
        "environments",
        f"{num_envs:,} sub-environments, BigVocab of {num_symbols:,} tokens, {length} a text: peak of the process",
        "what we allow",
        "MB",
        peak,
        MEMORY_LIMIT,
        share,
        share,
        share,
        bar=1.0,
        lower_is_better=True,
    )


def native_envs(num_envs: int, sizes: dict[str, Any], name: str = "Reverse") -> gym.vector.VectorEnv:
    """Our vector environment."""
    return gym.make_vec(f"textenvs/{name}-v0", num_envs=num_envs, vectorization_mode="vector_entry_point", **sizes)


def handwritten_envs(
    num_envs: int, sizes: dict[str, Any], peer: type[gym.Env] = HandwrittenReverse
) -> gym.vector.VectorEnv:
    """Gymnasium's vector environment of hand-written ones."""
    return SyncVectorEnv([partial(peer, **sizes)] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)


def vector_rate(envs: gym.vector.VectorEnv, steps: int) -> float:
    """Steps of sub-environments per second. Where there are masks the actions are legal; choosing them is not timed."""
    rng, num_actions = np.random.default_rng(0), envs.single_action_space.n  # type: ignore[attr-defined]
    batches = list(rng.integers(num_actions, size=(steps, envs.num_envs)))
    preferences = list(rng.random((8, envs.num_envs, num_actions)))
    _, info = envs.reset(seed=0)
    has_masks, spent = "action_mask" in info, 0.0
    for i, actions in enumerate(batches):
        if has_masks:
            actions = np.where(info["action_mask"], preferences[i % 8], -1.0).argmax(axis=1)
        start = time.perf_counter()
        *_, info = envs.step(actions)
        spent += time.perf_counter() - start
    return steps * envs.num_envs / spent


def scalar_rate(env: gym.Env, steps: int) -> float:
    """Steps per second of one environment, resets included."""
    actions = np.random.default_rng(0).integers(env.action_space.n, size=steps).tolist()  # type: ignore[attr-defined]
    env.reset(seed=0)
    start = time.perf_counter()
    for action in actions:
        if env.step(action)[2]:
            env.reset()
    return steps / (time.perf_counter() - start)


# ------------------------------------------------------------------------------------------------- agents

AGENT_LENGTHS = (4, 8, 16)
"""Sizes of ``Reverse`` that the agents are timed on: the default, twice and four times that."""


def ppo(preset: Preset) -> list[Comparison]:
    """Our PPO against Stable-Baselines3's with the same transformer as features extractor: equal rollouts, minibatches,
    epochs, and the same native vector environment. Its transformer reads each prefix by itself, ours a row at once.

    Each size with our own defaults (64 episodes cut into 4 minibatches), and the smallest with minibatches of 256
    timesteps too: the smaller the minibatch, the more of both times is the fixed cost of an operation.
    """
    comparisons = []
    for length, num_steps, num_minibatches in [(4, 4, 4), (4, 16, 4), (8, 8, 4), (16, 16, 4)]:
        sizes: dict[str, Any] = {"num_steps": num_steps, "epochs": 4, "num_minibatches": num_minibatches, "seed": 0}
        # No early end of an update (target_kl): the peer has none.
        ours = PPO(reverse_envs(64, length), target_kl=None, **sizes)
        peers = transformer_ppo(reverse_envs(64, length), **sizes)
        what = f"PPO on Reverse, {length} symbols, minibatches of {64 * num_steps // num_minibatches} timesteps"
        comparisons.append(
            compare_learning("PPO", what, ours, peers, preset.ppo_timesteps, preset.agent_rounds, bar=3.0)
        )
    return comparisons


def dqn(preset: Preset) -> list[Comparison]:
    """Our DQN against Stable-Baselines3's with the same transformer: equal gradient samples per environment step."""
    comparisons = []
    for length in AGENT_LENGTHS:
        ours = DQN(reverse_envs(16, length), seed=0, num_steps=length, updates_per_window=16, batch_size=32)
        peers = transformer_dqn(
            reverse_envs(16, length),
            num_steps=length,
            updates=16,
            batch_size=32 * length,  # transitions: as many as 32 episodes have
            learning_starts=64 * length,
            seed=0,
        )
        # Both begin to learn after 64 episodes.
        for agent in (ours, peers):
            agent.learn(65 * length)
        what = f"DQN on Reverse, {length} symbols, minibatches of {32 * length} timesteps"
        comparisons.append(
            compare_learning("DQN", what, ours, peers, preset.dqn_timesteps, preset.agent_rounds, bar=5.0)
        )
    return comparisons


def compare_learning(
    name: str, what: str, ours: Agent, peers: Any, timesteps: int, rounds: int, bar: float
) -> Comparison:
    """Timesteps per second of ``learn``, rollouts and updates together."""

    def our_rate() -> float:
        start, before = time.perf_counter(), ours.num_timesteps
        ours.learn(timesteps)
        return (ours.num_timesteps - before) / (time.perf_counter() - start)

    def peer_rate() -> float:
        start, before = time.perf_counter(), peers.num_timesteps
        peers.learn(timesteps, reset_num_timesteps=False)
        return (peers.num_timesteps - before) / (time.perf_counter() - start)

    peer = f"Stable-Baselines3's {name}, same transformer"
    return compare(name, what, peer, "timesteps/s", our_rate, peer_rate, rounds, bar)


def env_share(preset: Preset) -> list[Comparison]:
    """Share of the environment and its reward in the wall time of PPO's training (as a rate: share per run)."""
    comparisons = []
    for length in AGENT_LENGTHS:
        envs = TimedEnvs(reverse_envs(64, length))
        agent = PPO(envs, seed=0)
        agent.learn(64 * length)  # warm-up
        envs.seconds, start = 0.0, time.perf_counter()
        agent.learn(preset.ppo_timesteps * 4)
        whole = time.perf_counter() - start
        comparisons.append(
            Comparison(
                "environment's share of PPO's wall time",
                f"Reverse, {length} symbols: share of env and reward together",
                "whole of learn()",
                "ms",
                1e3 * envs.seconds,
                1e3 * whole,
                envs.seconds / whole,
                envs.seconds / whole,
                envs.seconds / whole,
                bar=0.03,
                lower_is_better=True,
            )
        )
    return comparisons


class TimedEnvs(gym.vector.VectorWrapper):
    """Adds up the seconds spent in the environment."""

    seconds = 0.0

    def step(self, actions: Any) -> Any:
        start = time.perf_counter()
        result = super().step(actions)
        self.seconds += time.perf_counter() - start
        return result


def seconds_to_solve(preset: Preset) -> list[Comparison]:
    """Seconds of learning to 0.9 of the normalised score (the first of two evaluations in a row), beside
    Stable-Baselines3's PPO with its default ``MlpPolicy`` and hyper-parameters, 64 environments and its default
    rollout of 2,048 steps, on the same native environment. Medians of a few seeds; evaluation does not count."""
    comparisons = []
    tasks: list[tuple[str, dict[str, Any]]] = [("Reverse", {"length": 4}), ("HiddenTarget", {"length": 8})]
    for name, sizes in tasks:
        seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
        for seed in range(preset.seconds_seeds):
            for who in seconds:
                seconds[who].append(run_to_solve(who, name, sizes, seed, preset.seconds_budget))
        ours, theirs = (statistics.median(values) for values in seconds.values())
        pairs = [b / a for a, b in zip(seconds["ours"], seconds["theirs"], strict=True)]
        comparisons.append(
            Comparison(
                "PPO to 0.9 of the normalised score",
                f"{name} {sizes}: seconds (at most {preset.seconds_budget:g}; ratio: theirs over ours)",
                "Stable-Baselines3's PPO, MlpPolicy, defaults",
                "s",
                ours,
                theirs,
                theirs / ours,
                min(pairs),
                max(pairs),
                bar=None,
            )
        )
    return comparisons


def run_to_solve(who: str, name: str, sizes: dict[str, Any], seed: int, budget: float) -> float:
    """Seconds of learning until two evaluations in a row are at 0.9, or the budget."""
    env_id = f"textenvs/{name}-v0"
    sizes = {**sizes, "task_seed": seed} if name == "HiddenTarget" else sizes
    envs = gym.make_vec(env_id, num_envs=64, vectorization_mode="vector_entry_point", **sizes)
    task = envs.unwrapped.task  # type: ignore[attr-defined]
    agent: Any
    if who == "ours":
        agent = PPO(envs, seed=seed)
        more: dict[str, Any] = {}
    else:
        agent = StableBaselinesPPO("MlpPolicy", as_sb3_vec_env(envs), n_steps=32, seed=seed, device="cpu")
        more = {"reset_num_timesteps": False}
    split, episodes = ("test", 256) if task.has_prompts else ("train", 1)
    seconds, in_a_row, first = 0.0, 0, 0.0
    while seconds < budget:
        start = time.perf_counter()
        agent.learn(64 * 32, **more)
        seconds += time.perf_counter() - start
        score = greedy_score(agent, env_id, {**sizes, "split": split}, episodes)
        if (score - task.random_score) / (task.optimum - task.random_score) < 0.9:
            in_a_row = 0
            continue
        in_a_row += 1
        first = seconds if in_a_row == 1 else first
        if in_a_row == 2:
            return first
    return budget


def greedy_score(agent: Any, env_id: str, kwargs: dict[str, Any], episodes: int) -> float:
    """Mean score of the first episode of ``episodes`` sub-environments; ``agent`` has ``predict``."""
    envs = gym.make_vec(
        env_id,
        num_envs=episodes,
        vectorization_mode="vector_entry_point",
        autoreset_mode=AutoresetMode.NEXT_STEP,
        **kwargs,
    )
    obs, _ = envs.reset(seed=12345)
    scores, open_ = np.zeros(episodes), np.ones(episodes, dtype=bool)
    while open_.any():
        obs, rewards, ended, _, _ = envs.step(agent.predict(obs, deterministic=True)[0])
        scores[open_] += rewards[open_]
        open_ &= ~ended
    return float(scores.mean())


def reverse_envs(num_envs: int, length: int) -> Any:
    """Our vector environment of ``Reverse``."""
    return native_envs(num_envs, {"length": length})


# ------------------------------------------------------------------------------------------------- all of it

SECTIONS: dict[str, Callable[[Preset], list[Comparison]]] = {
    "environments": environments,
    "ppo": ppo,
    "dqn": dqn,
    "env_share": env_share,
    "seconds": seconds_to_solve,
    "lm_rollouts": lambda preset: lm_speed.lm_rollouts(preset.lm),
    "small_rollouts": lambda preset: lm_speed.small_rollouts(preset.lm),
    "lm_continuous": lambda preset: lm_speed.lm_continuous(preset.lm),
    "lm_update": lambda preset: trl_peer.lm_update(preset.lm),
}


@dataclass(frozen=True)
class Options:
    preset: str = "full"
    """How much is measured: full or smoke."""
    sections: tuple[str, ...] = tuple(SECTIONS)
    """What is measured."""
    out: Path | None = None
    """File for the results as JSON."""


def main(options: Options, console: Console) -> int:
    """Measure the chosen sections and show them; returns the exit code."""
    for kind, names, known in (("preset", [options.preset], PRESETS), ("section", options.sections, SECTIONS)):
        for name in names:
            if name not in known:
                console.print(f"[red]{textenvs.errors.unknown_name(kind, name, known)}[/red]")
                return 2
    torch.set_num_threads(1)
    preset = PRESETS[options.preset]
    is_smoke = options.preset == "smoke"
    comparisons: list[Comparison] = []
    for name in options.sections:
        with console.status(f"measuring: {name}"):
            measured = SECTIONS[name](preset)
        for line in show(measured, with_bars=not is_smoke):
            console.print(line, highlight=False)
        comparisons += measured
    if is_smoke:
        console.print("\nThe smoke preset only shows that everything runs: its figures mean nothing.")
    if options.out is not None:
        options.out.write_text(json.dumps(report(options.preset, comparisons), indent=2) + "\n")
        console.print(f"written: {options.out}")
    return 0


def show(comparisons: Sequence[Comparison], *, with_bars: bool) -> Iterator[str]:
    """The comparisons as lines for a terminal."""
    section = None
    for each in comparisons:
        if each.section != section:
            section = each.section
            yield f"\n{section}: ratios of medians, lowest and highest round in brackets"
        yield f"  {each.what}"
        yield f"    {_rate(each.our_rate)} {each.unit}; {each.peer}: {_rate(each.peer_rate)}"
        verdict = f", bar {each.bar:g}: {'met' if each.met else 'MISSED'}" if with_bars and each.bar else ""
        yield f"    ratio {each.ratio:.3g} ({each.lowest:.3g} to {each.highest:.3g}){verdict}"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def report(preset: str, comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """The comparisons, and what they were measured with."""
    packages = ("textenvs", "gymnasium", "numpy", "torch", "stable-baselines3", "transformers", "trl")
    return {
        "preset": preset,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "versions": {name: _version(name) for name in packages},
        "comparisons": [asdict(each) for each in comparisons],
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    import tyro

    sys.exit(main(tyro.cli(Options, description=__doc__), Console()))
