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
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from rich.console import Console

import textenvs.errors
from agents.benchmark.handwritten import HandwrittenReverse

Measure = Callable[[], float]
"""Does some work and returns its rate, in units of work per second."""


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


PRESETS = {
    "full": Preset(rounds=11, num_envs=1_024, native_steps=1_000, sync_steps=40, scalar_steps=5_000),
    "smoke": Preset(rounds=2, num_envs=64, native_steps=20, sync_steps=5, scalar_steps=100),
}


@dataclass(frozen=True)
class Comparison:
    """Ours against a peer, measured in turn."""

    section: str
    what: str
    peer: str
    unit: str
    our_rate: float
    peer_rate: float
    ratio: float
    """Of the medians."""
    lowest: float
    highest: float
    """Of the rounds' own ratios."""
    bar: float | None
    """The ratio that we ask of ourselves; None: reported without one."""


def compare(
    section: str, what: str, peer: str, unit: str, ours: Measure, peers: Measure, rounds: int, bar: float | None = None
) -> Comparison:
    """Measure ours and the peer's in turn, after one round of each that does not count."""
    ours(), peers()
    pairs = [(ours(), peers()) for _ in range(rounds)]
    our_rate, peer_rate = (statistics.median(rates) for rates in zip(*pairs, strict=True))
    ratios = [one / two for one, two in pairs]
    return Comparison(
        section, what, peer, unit, our_rate, peer_rate, our_rate / peer_rate, min(ratios), max(ratios), bar
    )


# ------------------------------------------------------------------------------------------------- environments


def environments(preset: Preset) -> list[Comparison]:
    """The environments alone, under random actions drawn beforehand.

    The peer is a minimal environment of the same task written by hand, under Gymnasium's ``SyncVectorEnv`` and by
    itself. Both vector environments begin the next episode in the same step.
    """
    comparisons = []
    vector = f"{preset.num_envs:,} sub-environments"
    tasks: list[tuple[str, dict[str, Any], float | None]] = [
        ("all texts end at once", {"length": 4}, 30.0),
        ("texts end at different times", {"length": 4, "min_length": 2}, 15.0),
        ("longer, all end at once", {"length": 16}, None),
        ("longer, end at different times", {"length": 16, "min_length": 8}, None),
    ]
    for what, sizes, bar in tasks:
        ours = partial(vector_rate, native_envs(preset.num_envs, sizes), preset.native_steps)
        peers = partial(vector_rate, handwritten_envs(preset.num_envs, sizes), preset.sync_steps)
        comparisons.append(
            compare(
                "environments",
                f"{vector}, {what}",
                "SyncVectorEnv of a hand-written env",
                "steps/s",
                ours,
                peers,
                preset.rounds,
                bar,
            )
        )
    for what, sizes in (("short texts", {"length": 4}), ("long texts", {"length": 64})):
        ours = partial(scalar_rate, gym.make("textenvs/Reverse-v0", **sizes).unwrapped, preset.scalar_steps)
        peers = partial(scalar_rate, HandwrittenReverse(**sizes, copy=True), preset.scalar_steps)
        comparisons.append(
            compare(
                "environments",
                f"one environment, {what}",
                "the hand-written env",
                "steps/s",
                ours,
                peers,
                preset.rounds,
            )
        )
    return comparisons


def native_envs(num_envs: int, sizes: dict[str, Any]) -> gym.vector.VectorEnv:
    """Our vector environment."""
    return gym.make_vec("textenvs/Reverse-v0", num_envs=num_envs, vectorization_mode="vector_entry_point", **sizes)


def handwritten_envs(num_envs: int, sizes: dict[str, Any]) -> gym.vector.VectorEnv:
    """Gymnasium's vector environment of hand-written ones."""
    return SyncVectorEnv([partial(HandwrittenReverse, **sizes)] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)


def vector_rate(envs: gym.vector.VectorEnv, steps: int) -> float:
    """Steps of sub-environments per second."""
    rng = np.random.default_rng(0)
    batches = list(rng.integers(envs.single_action_space.n, size=(steps, envs.num_envs)))  # type: ignore[attr-defined]
    envs.reset(seed=0)
    start = time.perf_counter()
    for actions in batches:
        envs.step(actions)
    return steps * envs.num_envs / (time.perf_counter() - start)


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
    preset = PRESETS[options.preset]
    comparisons: list[Comparison] = []
    for name in options.sections:
        with console.status(f"measuring: {name}"):
            comparisons += SECTIONS[name](preset)
    is_smoke = options.preset == "smoke"
    for line in show(comparisons, with_bars=not is_smoke):
        console.print(line, highlight=False)
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
        yield f"    {each.our_rate:,.0f} {each.unit}; {each.peer}: {each.peer_rate:,.0f}"
        verdict = (
            f", bar {each.bar:g}: {'met' if each.ratio >= each.bar else 'MISSED'}" if with_bars and each.bar else ""
        )
        yield f"    ratio {each.ratio:.2f} ({each.lowest:.2f} to {each.highest:.2f}){verdict}"


def report(preset: str, comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """The comparisons, and what they were measured with."""
    packages = ("textenvs", "gymnasium", "numpy", "torch", "stable-baselines3")
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
