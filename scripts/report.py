"""Rebuilds the report of a results folder from its rows: a table on the terminal, report.html and
plots/*.png.

    python scripts/report.py runs/benchmark-quick
"""

import sys
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from agents.benchmark.report import print_report, read_report, write_report
from agents.benchmark.suites import BenchmarkError


def main(results: Annotated[Path, tyro.conf.Positional]) -> int:
    """Rebuild the report of a results folder.

    Args:
        results: Folder that scripts/benchmark.py wrote.
    """
    console = Console()
    try:
        report = read_report(results)
        page = write_report(results, report)
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 2
    print_report(report, console)
    console.print(f"Report: {page}", highlight=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
