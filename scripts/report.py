"""Rebuilds the report of results from their rows: a table on the terminal, report.html, report.md, report.csv and
plots/*.png.

    python scripts/report.py runs/benchmark-quick
    python scripts/report.py results/mine results/theirs --out runs/comparison     # joined, or kept apart and why
"""

import sys
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from agents.benchmark.report import print_report, read_report, write_report
from agents.benchmark.suites import BenchmarkError


def main(results: Annotated[tuple[Path, ...], tyro.conf.Positional], out: Path | None = None) -> int:
    """Rebuild the report of one results folder, or compare several.

    Args:
        results: Folders that scripts/benchmark.py wrote.
        out: Where to write the report; the results folder itself, or runs/comparison for several.
    """
    console = Console()
    folder = out or (results[0] if len(results) == 1 else Path("runs/comparison"))
    try:
        report = read_report(results)
        page = write_report(folder, report)
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 2
    print_report(report, console)
    console.print(f"Report: {page}", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
