"""Judge preference data: is it enough, do annotators agree, are there biases?

Usage:
  python scripts/audit_preferences.py rankings.jsonl                       rows {"prompt", "answers", "ranks", …}
  python scripts/audit_preferences.py pairs.jsonl --html audit.html        rows {"prompt", "chosen", "rejected", …}
  python scripts/audit_preferences.py preferences.sqlite                   what scripts/annotate.py has collected
  python scripts/audit_preferences.py --preset smoke                       simulated annotators with known faults

Ends with 0; with 1 where a criterion is "not enough"; with 2 where the file cannot be read.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from agents.lm import Annotator, Ranking
from agents.preference_data import PreferenceStore, load_preferences


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, help="JSONL of rankings or pairs, or a store (.sqlite)")
    parser.add_argument("--html", type=Path, help="where the report goes (default: beside the file)")
    parser.add_argument("--ignore", nargs="+", default=[], metavar="COLUMN", help="columns that are not to be read")
    parser.add_argument("--preset", choices=["smoke"], help="simulated data instead of a file")
    options = parser.parse_args()
    console = Console()
    if options.preset == "smoke":
        for name, annotator in (("no bias", Annotator(1.5)), ("long and first", Annotator(1.5, 0.15, 0.3))):
            report(simulated(annotator), name, options.html, console)
        return 0
    if options.file is None:
        print("Name the file to audit.", file=sys.stderr)
        return 2
    page = options.html or options.file.with_suffix(".audit.html")
    if page.resolve() == options.file.resolve():
        print(f"--html {page} would overwrite the preferences: name another file.", file=sys.stderr)
        return 2
    try:
        rankings = read(options.file, options.ignore)
        return 1 if report(rankings, options.file.name, page, console) == "not enough" else 0
    except (ValueError, OSError, ImportError) as error:
        print(error, file=sys.stderr)
        return 2


def read(path: Path, ignore: list[str]) -> list[Ranking]:
    """Rankings from a file of any of the three kinds."""
    if path.suffix in (".sqlite", ".db"):
        if not path.is_file():
            raise ValueError(f"There is no file {str(path)!r} with preferences.")
        with PreferenceStore(path) as store:
            return store.rankings()
    return load_preferences(path, ignore=ignore)


def report(rankings: list[Ranking], name: str, page: Path | None, console: Console) -> str:
    """Print the audit and write its page; returns the verdict."""
    from agents.preference_data.audit import audit
    from agents.preference_data.audit_report import print_audit, write_audit

    found = audit(rankings)
    print_audit(found, name, console)
    if page is not None:
        write_audit(found, name, page)
        console.print(f"Report: {page}", highlight=False, soft_wrap=True)
    console.print()
    return found.verdict


def simulated(annotator: Annotator, prompts: int = 300, k: int = 4) -> list[Ranking]:
    """Two annotators of the same kind rank the same answers, and a fifth of them twice."""
    import numpy as np

    rng = np.random.default_rng(0)
    words = [f"word{i}" for i in range(200)]
    answers = [tuple(" ".join(rng.choice(words, rng.integers(4, 16))) for _ in range(k)) for _ in range(prompts)]
    gold = rng.normal(size=(prompts, k))
    lengths = np.array([[len(text.split()) for text in texts] for texts in answers])
    rankings = []
    for round, count in ((1, prompts), (2, prompts // 5)):
        for number, name in enumerate(("ada", "bob")):
            ranks, shown = annotator.rank(gold[:count], lengths[:count], seed=10 * round + number)
            rankings += [
                Ranking(
                    f"prompt {i}", answers[i], tuple(ranks[i].tolist()), tuple(gold[i].tolist()),
                    shown=tuple(shown[i].tolist()), annotator=name, round=round,
                )
                for i in range(count)
            ]  # fmt: skip
    return rankings


if __name__ == "__main__":
    sys.exit(main())
