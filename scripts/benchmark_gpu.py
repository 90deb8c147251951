"""A language model of GPT-2's size on a GPU: rollouts, transformers' `generate`, whole PPO updates, peak memory.

    python scripts/benchmark_gpu.py                            # a few minutes on one GPU; prints a Markdown table
    python scripts/benchmark_gpu.py --preset smoke             # the same code in small

Without a GPU it says so, runs the smoke preset on the processor, and ends well: that shows that it runs, no more.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

import textenvs.errors
from agents.benchmark import gpu_speed


@dataclass(frozen=True)
class Options:
    preset: str = "full"
    """What is measured: full or smoke."""
    out: Path | None = None
    """File for the table."""


def main(options: Options, console: Console) -> int:
    """Measure and print a table; returns the exit code."""
    if options.preset not in gpu_speed.PRESETS:
        console.print(f"[red]{textenvs.errors.unknown_name('preset', options.preset, gpu_speed.PRESETS)}[/red]")
        return 2
    device = gpu_speed.find_device()
    preset = gpu_speed.PRESETS[options.preset]
    is_smoke = options.preset == "smoke" or device != "cuda"
    if device != "cuda":
        preset = gpu_speed.ON_A_PROCESSOR
        console.print("There is no GPU that PyTorch can use: the smoke preset runs on the processor instead.")
    with console.status("measuring"):
        rows = gpu_speed.measure(preset, device)
    lines = list(gpu_speed.table(preset, device, rows))
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if is_smoke:
        console.print("\nThe smoke preset only shows that everything runs: its figures mean nothing.")
    if options.out is not None:
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
        console.print(f"written: {options.out}")
    return 0


if __name__ == "__main__":
    import tyro

    sys.exit(main(tyro.cli(Options, description=__doc__), Console()))
