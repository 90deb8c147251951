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

import textenvs.errors
from agents.benchmark import agent_speed, lm_speed, overhead, trl_peer
from agents.benchmark.agent_speed import AgentPreset
from agents.benchmark.handwritten import HandwrittenAddition, HandwrittenDyckMasked, HandwrittenReverse
from agents.benchmark.lm_speed import LMPreset
from agents.benchmark.overhead import OverheadPreset
from agents.benchmark.speed import Comparison, compare


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
    agents: AgentPreset
    """Of our agents and Stable-Baselines3's."""
    lm: LMPreset
    """Of language models."""
    overhead: OverheadPreset
    """Of the benchmark of agents."""


PRESETS = {
    "full": Preset(
        rounds=11,
        num_envs=1_024,
        native_steps=1_000,
        sync_steps=40,
        scalar_steps=5_000,
        agents=agent_speed.FULL,
        lm=lm_speed.FULL,
        overhead=overhead.FULL,
    ),
    "smoke": Preset(
        rounds=2,
        num_envs=64,
        native_steps=20,
        sync_steps=5,
        scalar_steps=100,
        agents=agent_speed.SMOKE,
        lm=lm_speed.SMOKE,
        overhead=overhead.SMOKE,
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


# ------------------------------------------------------------------------------------------------- all of it

SECTIONS: dict[str, Callable[[Preset], list[Comparison]]] = {
    "environments": environments,
    "ppo": lambda preset: agent_speed.ppo(preset.agents),
    "dqn": lambda preset: agent_speed.dqn(preset.agents),
    "shares": lambda preset: agent_speed.shares(preset.agents),
    "lm_rollouts": lambda preset: lm_speed.lm_rollouts(preset.lm),
    "small_rollouts": lambda preset: lm_speed.small_rollouts(preset.lm),
    "lm_continuous": lambda preset: lm_speed.lm_continuous(preset.lm),
    "lm_update": lambda preset: trl_peer.lm_update(preset.lm),
    "accounting": lambda preset: overhead.accounting(preset.overhead),
    "analysis": lambda preset: overhead.analysis(preset.overhead),
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
