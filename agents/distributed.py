"""Several processes that train as one, over a torch.distributed group; with no group, or one process, nothing happens.

    device = distributed.join()               # in a script that `accelerate launch` started, else the only process
    PPO(envs, policy=policy, ...).learn(500_000)

Process r of W plays the sub-environments r·N … r·N + N − 1 of W·N. A batch is known to all processes; what is costly
about it, forward and backward passes, is divided among them; and all of them take the same step.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

WAIT = datetime.timedelta(hours=2)
"""How long processes wait for one that is busy alone, preparing or evaluating."""


def join() -> torch.device:
    """Form a group with the processes that ``accelerate launch`` (or ``torchrun``) has started beside this one.

    Returns:
        The device of this process: a GPU of its own, or the CPU. Outside of a launcher: the first GPU, or the CPU.

    Raises:
        ImportError: accelerate is not installed.
    """
    has_gpu = torch.cuda.is_available()
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return torch.device("cuda" if has_gpu else "cpu")
    try:
        from accelerate import PartialState  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError(
            "Several processes need the accelerate package: install the extra, e.g. pip install 'textenvs[accelerate]'."
        ) from error
    on_cpu = not has_gpu or os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    device: torch.device = PartialState(cpu=on_cpu, timeout=WAIT).device
    return device


def check_joined() -> None:
    """Check that a process which a launcher has started beside others has joined them.

    Raises:
        RuntimeError: it has not, and would train for itself.
    """
    launched = int(os.environ.get("WORLD_SIZE", 1))
    if launched > 1 and world_size() == 1:
        raise RuntimeError(
            f"A launcher has started {launched} processes, which know nothing of each other: call "
            f"agents.distributed.join() (or accelerate.PartialState()) first."
        )


def world_size() -> int:
    """W, the number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0; process 0 writes logs and checkpoints."""
    return dist.get_rank() if world_size() > 1 else 0


def gather(value: Any) -> list[Any]:
    """The values of all processes, in the order of their numbers; to be called in all of them, as what follows."""
    if world_size() == 1:
        return [value]
    values = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def anyone(flag: bool) -> bool:
    """Whether the flag is set in any process."""
    return any(gather(flag))


def sum_in_place(*tensors: Tensor) -> None:
    """Replace tensors by their sums over the processes, the same bits in all of them."""
    if world_size() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)


def divide(function: Callable[..., tuple[Tensor, ...]], *arguments: Tensor | None) -> tuple[Tensor, ...]:
    """``function(*arguments)`` where every process computes a part of the rows and all get the whole.

    Args:
        function: of tensors [B, …] (or None), row by row; returns tensors [B, …], no gradients.
        arguments: the same in all processes, B at least 1.
    """
    if world_size() == 1:
        return function(*arguments)
    size = next(len(x) for x in arguments if x is not None)
    # Process r takes the rows r, r + W, …; the last ones begin again at the first row, so that all parts are equal.
    own = torch.arange(rank(), -(-size // world_size()) * world_size(), world_size()) % size
    results = []
    for part in function(*(None if x is None else x[own.to(x.device)] for x in arguments)):
        parts = [torch.empty_like(part) for _ in range(world_size())]
        dist.all_gather(parts, part.contiguous())
        results.append(torch.stack(parts, 1).flatten(0, 1)[:size])
    return tuple(results)


def draw_uniforms(num_rows: int, generator: torch.Generator) -> Tensor:
    """[num_rows, 1] in [0, 1) for the rows of this process: its part of what one process with all rows would draw."""
    uniforms = torch.rand(world_size() * num_rows, 1, generator=generator, device=generator.device)
    return uniforms if world_size() == 1 else uniforms[rank() * num_rows :][:num_rows]


def in_first(function: Callable[[], None]) -> None:
    """Call ``function`` in process 0 while the others wait.

    Raises:
        RuntimeError: in the others, if it failed; what it raised is raised in process 0.
    """
    raised: Exception | None = None
    if rank() == 0:
        try:
            function()
        except Exception as error:
            raised = error
    message = gather(None if raised is None else f"{type(raised).__name__}: {raised}")[0]
    if raised is not None:
        raise raised
    if message is not None:
        raise RuntimeError(f"Process 0 failed. {message}")


def check_alike(values: dict[str, Any]) -> None:
    """Check that all processes have the same values.

    Raises:
        ValueError: they do not; the message names the first that differs.
    """
    everyone = gather(values)
    for number, others in enumerate(everyone):
        for name, value in everyone[0].items():
            if others[name] != value:
                raise ValueError(
                    f"Processes that train together must be alike; process {number} has {name} {others[name]}, process "
                    f"0 has {value}. Make the agent in the same way in all of them."
                )
