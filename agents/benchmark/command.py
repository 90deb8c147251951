"""How the long programs of ``scripts/`` end: with a message instead of a trace where the user can do something."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from agents.benchmark.pool import DiskFull, is_disk_full
from agents.benchmark.suites import BenchmarkError


def exit_code(main: Callable[[], int], folder: Path, *errors: type[Exception]) -> int:
    """Call a program and return its exit code: what it returns; 2 after a message for bad input or a full disk; 130
    after Ctrl-C, with the command that goes on.

    Args:
        main: the program.
        folder: of its results.
        errors: whose messages are meant for the user, beside ``BenchmarkError``.
    """
    expected: tuple[type[Exception], ...] = (BenchmarkError, *errors)
    try:
        return main()
    except expected as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        if not is_disk_full(error):
            raise
        print(DiskFull(folder), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        command = shlex.join(["python", *(word for word in sys.argv if word != "--restart")])
        print(f"\nStopped. What has finished is kept in {folder}.", file=sys.stderr)
        print(f"The same command goes on from there:\n  {command}", file=sys.stderr)
        return 130
