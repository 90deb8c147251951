"""Rebuilds the report of results from their rows: a table on the terminal, report.html, report.md, report.csv and
plots/*.png.

    python scripts/report.py runs/benchmark-quick
    python scripts/report.py results/mine results/theirs --out runs/comparison     # joined, or kept apart and why
    python scripts/report.py docs/results/standard.tar.xz --out runs/standard      # from packed rows
    python scripts/report.py runs/benchmark-standard --pack mine.tar.xz            # packs them, some kilobytes
"""

import sys
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from agents.benchmark.report import print_report, read_report, write_report
from agents.benchmark.results import pack_results
from agents.benchmark.suites import BenchmarkError


def main(
    results: Annotated[tuple[Path, ...], tyro.conf.Positional], out: Path | None = None, pack: Path | None = None
) -> int:
    """Rebuild the report of one results folder, or compare several.

    Args:
        results: Folders that scripts/benchmark.py wrote, or files that --pack made of them.
        out: Where to write the report; the results folder itself, runs/report for a packed one, runs/comparison for
            several.
        pack: Also pack what a report needs of the one results folder into this .tar.xz file.
    """
    console = Console()
    if len(results) != 1:
        folder = out or Path("runs/comparison")
    else:
        folder = out or (Path("runs/report") if results[0].is_file() else results[0])
    try:
        if pack is not None:
            if len(results) != 1 or not results[0].is_dir():
                raise BenchmarkError("--pack goes with one folder of results.")
            pack_results(results[0], pack)
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
