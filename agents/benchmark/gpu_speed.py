"""A language model on an accelerator: tokens per second of rollouts, of ``generate`` and of whole PPO updates, and the
memory that they need."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata

import torch

from agents import PPO, LMActorCritic
from agents.benchmark.lm_speed import Shape, count, fixed_length_envs, generation, make_model, rollouts


@dataclass(frozen=True)
class GPUPreset:
    """What is measured."""

    shape: Shape
    texts: int
    """In a rollout, a call of ``generate`` and an update."""
    prompt_length: int
    new_tokens: int
    micro_batch_size: int
    """Texts in one forward and backward pass of the update."""
    rounds: int
    seconds: float
    """After which no further round begins."""
    bf16: bool = True


FULL = GPUPreset(
    shape=Shape(12, 768, 50_257, head_width=64),  # GPT-2 small
    texts=512,
    prompt_length=64,
    new_tokens=64,
    micro_batch_size=64,
    rounds=5,
    seconds=300.0,
)
SMOKE = GPUPreset(
    shape=Shape(2, 32, 300), texts=8, prompt_length=4, new_tokens=6, micro_batch_size=4, rounds=2, seconds=20.0
)
PRESETS = {"full": FULL, "smoke": SMOKE}
ON_A_PROCESSOR = replace(SMOKE, bf16=False)  # which is no faster in bfloat16


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    tokens_per_second: float
    """New tokens; median of the rounds."""
    slowest: float
    fastest: float
    peak_bytes: int | None
    """Most memory in use by tensors at any one time; None where there is no accelerator to ask."""


def measure(preset: GPUPreset, device: str) -> list[Row]:
    """Rollouts, ``generate`` and updates in turn, after one round that does not count.

    The policy's weights are float32 and it computes in bfloat16 (autocast), as in training; ``generate`` is given the
    same model in bfloat16 altogether, which is how one would use it. An update is a rollout, a pass of the reference
    and one epoch in four gradient steps.
    """
    context = preset.prompt_length + preset.new_tokens
    peer = make_model(preset.shape, context).to(device, torch.bfloat16 if preset.bf16 else torch.float32)
    generate = generation(peer, preset.texts, preset.prompt_length, preset.new_tokens)
    policy = LMActorCritic(make_model(preset.shape, context).to(device), bf16=preset.bf16)
    envs = fixed_length_envs(preset.shape, preset.texts, preset.prompt_length, preset.new_tokens)
    roll_out = rollouts(policy, envs, preset.new_tokens)
    options = {"kl_coef": 0.05, "epochs": 1, "num_minibatches": 4, "micro_batch_size": preset.micro_batch_size}
    agent = PPO(envs, policy=policy, reference=policy.frozen_copy(), target_kl=None, **options)

    def update() -> float:
        before = agent.num_timesteps
        agent.learn(preset.texts * preset.new_tokens)
        return float(agent.num_timesteps - before)

    work: dict[str, Callable[[], float]] = {
        "rollout, with log-probabilities and values": roll_out,
        "`generate` of transformers": partial(count, generate),
        "PPO: rollout, reference, one epoch": update,
    }
    rates: dict[str, list[float]] = {name: [] for name in work}
    peaks = dict.fromkeys(work, 0)
    start = time.perf_counter()
    for round_ in range(preset.rounds + 1):
        if round_ > 1 and time.perf_counter() - start > preset.seconds:
            break
        for name, function in work.items():
            _begin(device)
            begun = time.perf_counter()
            tokens = function()
            peaks[name] = max(peaks[name], _end(device))
            if round_:
                rates[name].append(tokens / (time.perf_counter() - begun))
    return [
        Row(name, statistics.median(each), min(each), max(each), peaks[name] or None) for name, each in rates.items()
    ]


def _begin(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()


def _end(device: str) -> int:
    """Waits until all is done; the peak since the beginning in bytes."""
    if device != "cuda":
        return 0
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def machine(device: str) -> str:
    """The accelerator, or the processor's architecture."""
    return torch.cuda.get_device_name() if device == "cuda" else f"no accelerator ({platform.machine()})"


def table(preset: GPUPreset, device: str, rows: list[Row]) -> Iterator[str]:
    """The results as Markdown."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "transformers"))
    sizes = f"{preset.texts} prompts of {preset.prompt_length} tokens, {preset.new_tokens} new tokens each"
    precision = "bfloat16" if preset.bf16 else "float32"
    yield f"{machine(device)}; {versions}. {preset.shape}, random weights, {precision}; {sizes}."
    yield ""
    yield "| what | new tokens per second | against `generate` | peak memory |"
    yield "|---|---|---|---|"
    (peer,) = (row.tokens_per_second for row in rows if row.what.startswith("`generate`"))
    for row in rows:
        rate = f"{row.tokens_per_second:,.0f} ({row.slowest:,.0f}–{row.fastest:,.0f})"
        peak = "not measured" if row.peak_bytes is None else f"{row.peak_bytes / 2**30:.1f} GiB"
        yield f"| {row.what} | {rate} | {row.tokens_per_second / peer:.2f} | {peak} |"


def find_device() -> str:
    """``"cuda"`` where there is an accelerator that PyTorch can use, else ``"cpu"``."""
    return "cuda" if torch.cuda.is_available() else "cpu"
