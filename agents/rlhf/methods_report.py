"""The report of a comparison of methods: a table on the terminal, an HTML page without network, PNG, CSV."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from agents.benchmark.html_page import html_page
from agents.benchmark.results import PARTIAL
from agents.rlhf.comparison_report import markdown
from agents.rlhf.course import ROW
from agents.rlhf.methods_plots import methods_figure
from agents.rlhf.methods_results import MethodsComparison, Result, read_comparison
from agents.rlhf.plots import to_png
from agents.rlhf.report import figure_tags, table_tags

HEAD = (
    "method",
    "gold",
    "gain over SFT",
    "beats SFT",
    "gold, 0 if ungrammatical",
    "grammatical",
    "tokens",
    "judge's score",
    "KL",
    "comparisons",
    "reward calls",
    "seconds",
)

STYLE = """
main { max-width: 1120px; }
.plots { display: block; }
.plots img { width: 100%; max-width: none; }
.figures { font-size: 0.93em; }
.samples { width: 100%; table-layout: fixed; margin-bottom: 1.2rem; }
.samples th:first-child { width: 14rem; }
"""
TERMINAL = ("method", "gold", "gain over SFT", "grammatical", "KL", "reward calls", "seconds")
"""Those for which a terminal has room; the page has all of them."""


def note(comparison: MethodsComparison) -> str:
    """How the figures are made."""
    texts, seeds = comparison.preset.evaluation_texts, comparison.seeds
    common = ", ".join(f"{name} {seconds:.0f}" for name, seconds in comparison.common_seconds.items())
    interval = (
        f"In brackets Student's 95 % interval of the mean over {len(seeds)} seeds, each with its own SFT model, "
        f"preferences, reward model, training and {texts} prompts, so that it holds the choice of prompts, too; one "
        f"pretrained model for all"
        if len(seeds) > 1
        else "One seed makes no interval"
    )
    return (
        f"{texts} texts at temperature 1 on held-out prompts, the same for all methods of a seed. {interval}. Gain: "
        f"mean paired difference in gold score. Beats SFT: share of the prompts on which its text has the higher gold "
        f"score, equal ones half. KL: from the SFT model, in nats per text; for best-of-n its upper bound log n − "
        f"(n − 1) / n. Comparisons: pairs that the annotator has judged, where a reward model is used those that it "
        f"learnt from. Reward calls: texts that the reward model has judged; best-of-n asks again for every new text. "
        f"Seconds: of one processor, without measurements and without the stages that all share ({common})."
    )


def cells(result: Result, base: Result | None) -> list[str]:
    """A row of the table."""
    gain = "" if base is None or result is base else result.gain(base).text("+.2f")
    wins = "" if base is None or result is base else _percent(result.wins(base))
    return [
        result.run.method.label,
        result.last("gold").text(),
        gain,
        wins,
        result.last("gold_grammatical").text(),
        _percent(result.last("grammatical")),
        f"{result.last('length').mean:.1f}",
        f"{result.last('reward').mean:.2f}".replace("-", "−"),
        result.last("kl").text(".1f"),
        f"{result.last('comparisons').mean:,.0f}",
        f"{result.last('reward_calls').mean:,.0f}",
        f"{result.last('seconds').mean:.0f}",
    ]


def _percent(value: Any) -> str:
    middle = f"{100 * value.mean:.0f} %"
    low, high = 100 * max(value.low, 0.0), 100 * min(value.high, 1.0)
    return middle if value.low != value.low else f"{middle} ({low:.0f}–{high:.0f})"


def rows(comparison: MethodsComparison) -> list[list[str]]:
    """All rows of the table: SFT first, then the others by their gold score."""
    base = comparison.base
    return [cells(result, base) for result in ([base] if base else []) + comparison.others]


def conclusions(comparison: MethodsComparison) -> list[str]:
    """What the figures say, and no more."""
    base = comparison.base
    if base is None:
        return ["SFT was not among the methods, so there is nothing to compare with."]
    if len(comparison.seeds) < 2:
        return ["One seed makes no interval: run more with --seeds."]
    gains = [(result.run.method.label, result.gain(base)) for result in comparison.others]
    better = [f"{label} {gain.text('+.2f')}" for label, gain in gains if gain.low > 0]
    worse = [f"{label} {gain.text('+.2f')}" for label, gain in gains if gain.high < 0]
    rest = [f"{label} {gain.text('+.2f')}" for label, gain in gains if not gain.excludes_zero]
    found = []
    if better:
        found.append(f"Better than SFT on held-out prompts, in gold score: {'; '.join(better)}.")
    if rest:
        found.append(f"Not shown to differ from SFT, since the interval holds 0: {'; '.join(rest)}.")
    if worse:
        found.append(f"Worse than SFT: {'; '.join(worse)}.")
    if comparison.others:
        best = max(comparison.others, key=lambda result: result.last("gold_grammatical").mean)
        found.append(
            f"With ungrammatical texts worth 0, {best.run.method.label} is highest: "
            f"{best.last('gold_grammatical').text()}, SFT {base.last('gold_grammatical').text()}."
        )
    return found


# -- terminal ----------------------------------------------------------------------------------------------------------


def print_comparison(comparison: MethodsComparison, console: Console) -> None:
    """The table and the words."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for heading in TERMINAL:
        table.add_column(heading.replace(" ", "\n", 1), justify="left" if heading == HEAD[0] else "right")
    for row in rows(comparison):
        shown = (cell for heading, cell in zip(HEAD, row, strict=True) if heading in TERMINAL)
        table.add_row(*(cell.replace(" (", "\n(") for cell in shown))
    console.print()
    console.print(title(comparison), style="bold", highlight=False, markup=False)
    console.print(table)
    console.print(note(comparison) + "\n", style="dim", highlight=False, markup=False)
    for paragraph in conclusions(comparison):
        console.print(paragraph + "\n", highlight=False, markup=False)


def title(comparison: MethodsComparison) -> str:
    """The heading."""
    count = len(comparison.seeds)
    return (
        f"Methods “{comparison.preset.preset}”: {comparison.preset.budget:,} reward calls each, {count} "
        f"seed{'' if count == 1 else 's'}"
    )


# -- files -------------------------------------------------------------------------------------------------------------


def write_comparison(out: Path, comparison: MethodsComparison) -> Path:
    """Write report.html, methods.png, methods.md (the table), methods.csv (every measurement) and summary.json; returns
    the page's path."""
    to_png(methods_figure(comparison), out / "methods.png")
    with (out / "methods.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["method", "seed", *ROW])
        for slug, result in comparison.results.items():
            for seed, columns in zip(comparison.seeds, result.rows, strict=True):
                for values in zip(*(columns[name] for name in ROW), strict=True):
                    writer.writerow([slug, seed, *(f"{value:.6g}" for value in values)])
    table = markdown([HEAD, *rows(comparison)])
    (out / "methods.md").write_text(f"{table}\n{note(comparison)}\n", encoding="utf-8")
    summary = json.dumps(summarise(comparison), indent=1, ensure_ascii=False)
    for path, text in ((out / "summary.json", summary), (out / "report.html", html(comparison))):
        temporary = path.with_name(f"{path.name}{PARTIAL}-{os.getpid()}")
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(path)
    return out / "report.html"


def summarise(comparison: MethodsComparison) -> dict[str, Any]:
    """All figures over seeds, as JSON values; limits that one seed does not have are null."""

    def values(interval: Any) -> dict[str, float | None]:
        return {name: None if value != value else value for name, value in asdict(interval).items()}

    base = comparison.base
    methods: dict[str, Any] = {}
    for slug, result in comparison.results.items():
        methods[slug] = {name: values(result.last(name)) for name in ROW} | {"config": result.run.config}
        if base is not None and result is not base:
            methods[slug] |= {"gain": values(result.gain(base)), "wins": values(result.wins(base))}
    return {"seeds": list(comparison.seeds), "methods": methods, "words": conclusions(comparison)}


def html(comparison: MethodsComparison) -> str:
    """The page as text: styles and plots are inside."""
    body = f"""{figure_tags({"methods": methods_figure(comparison)}, "beside each other")}
<h2>Every method at the end of its budget</h2>
{table_tags(HEAD, rows(comparison))}
<p class="note">{escape(note(comparison))}</p>
<h2>What they write</h2>
{_samples(comparison)}
<h2>What was run</h2>
{_settings(comparison)}"""
    return html_page(
        title(comparison),
        [escape(paragraph) for paragraph in conclusions(comparison)],
        body,
        ("agents.rlhf",),
        "\n" + STYLE,
    )


def _samples(comparison: MethodsComparison) -> str:
    """The same held-out prompts, continued by every method; of the first seed."""
    results = ([comparison.base] if comparison.base else []) + comparison.others
    parts = []
    for number, first in enumerate(results[0].figures[0]["samples"]):
        body = ""
        for result in results:
            sample = result.figures[0]["samples"][number]
            marks = f"{sample['gold']:+.2f}".replace("-", "−") + ("" if sample["grammatical"] else ", not grammatical")
            label = escape(result.run.method.label)
            body += f"<tr><th>{label}</th><td>{escape(sample['completion'])}<small>{marks}</small></td></tr>\n"
        head = f"<thead><tr><th>{escape(first['prompt'])} …</th><th></th></tr></thead>"
        parts.append(f'<table class="samples">{head}<tbody>\n{body}</tbody></table>')
    note = f"First samples of seed {comparison.seeds[0]}, not chosen; the number is the gold score."
    return "\n".join(parts) + f'\n<p class="note">{note}</p>'


def _settings(comparison: MethodsComparison) -> str:
    names = ",".join(comparison.results)
    seeds = " ".join(map(str, comparison.seeds))
    settings = comparison.preset.rlhf
    groups: Sequence[tuple[str, Any]] = [
        (result.run.method.label, result.run.config) for result in comparison.results.values() if result.run.config
    ]
    groups = [
        ("pretraining", asdict(settings.pretraining)),
        ("SFT", asdict(settings.sft)),
        ("preferences", asdict(settings.preferences)),
        *groups,
        ("versions", comparison.provenance),
    ]
    listed = [("command", f"python scripts/rlhf.py --methods {names} --preset {settings.preset} --seeds {seeds}")]
    for name, values in groups:
        listed.append((name, ", ".join(f"{key}={value}" for key, value in values.items())))
    body = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>\n" for name, text in listed)
    return f'<table class="settings"><tbody>\n{body}</tbody></table>'


__all__ = ["print_comparison", "read_comparison", "write_comparison"]
