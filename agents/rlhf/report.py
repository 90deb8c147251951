"""The report of a pipeline: a table on the terminal, and one HTML page that needs no network."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table

from agents.benchmark.html_page import html_page
from agents.benchmark.results import PARTIAL
from agents.rlhf.plots import (
    PANELS,
    frontier_figures,
    known_panels,
    panel_figure,
    reliability_figure,
    run_label,
    to_png,
    to_svg,
    training_figure,
)
from agents.rlhf.results import FIGURE_NAMES, Results, Spread, read_results
from agents.rlhf.words import conclusions, percent

COLUMNS = {
    "gold": ("gold score", ".2f"),
    "reward": ("judge's score", ".2f"),
    "grammatical": ("grammatical", "%"),
    "kl": ("KL", ".1f"),
    "entropy": ("entropy", ".1f"),
    "perplexity": ("perplexity", ".1f"),
    "length": ("tokens", ".1f"),
    "distinct": ("different", "%"),
}
"""Figure to its heading and format."""
assert set(COLUMNS) <= set(FIGURE_NAMES)

NOTE = (
    "Texts sampled at temperature 1 on held-out prompts, the same for every model. Judge: what PPO is paid by, the "
    "reward model. Gold: what is meant. KL: from the model that PPO began with, and entropy: both in nats per text. "
    "Perplexity: of the completions, under the pretrained model."
)


def write_report(out: Path, results: Results) -> Path:
    """Write report.html, plots/*.png and summary.json into the pipeline's folder; returns the path of the page."""
    plots = out / "plots"
    plots.mkdir(exist_ok=True)
    to_png(training_figure(results), plots / "training.png")
    for name, figure in frontier_figures(results).items():
        to_png(figure, plots / f"{name}-against-kl.png")
    summary = json.dumps(summarise(results), indent=1, ensure_ascii=False)
    for path, text in ((out / "summary.json", summary), (out / "report.html", html(results))):
        temporary = path.with_name(f"{path.name}{PARTIAL}-{os.getpid()}")
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(path)
    return out / "report.html"


def summarise(results: Results) -> dict[str, Any]:
    """All figures over seeds, as JSON values."""

    def values(spread: Spread | None) -> dict[str, float] | None:
        return None if spread is None else asdict(spread)

    models = {model: {name: values(results.figure(model, name)) for name in FIGURE_NAMES} for model in results.models}
    judges = {
        stage: values(results.stage(stage, "held_out_accuracy")) for stage in ("reward-model", "reward-model-small")
    }
    return {
        "seeds": list(results.seeds),
        "models": models,
        "lift": values(results.lift),
        "held_out_accuracy": judges,
        "best_possible_accuracy": values(results.stage("rankings", "test", "best_possible_accuracy")),
        "seconds": {stage: values(results.stage(stage, "seconds")) for stage in results.stages[results.seeds[0]]},
        "words": conclusions(results),
    }


def model_label(results: Results, model: str) -> str:
    """A model's name as people say it."""
    names = {"pretrained": "pretrained", "sft": "SFT"}
    return names.get(model) or run_label(results, model)


def _cell(value: Spread | None, style: str) -> str:
    if value is None:
        return "–"
    return percent(value) if style == "%" else value.text(style)


def _known_columns(results: Results) -> dict[str, tuple[str, str]]:
    return {name: column for name, column in COLUMNS.items() if results.figure(results.main, name) is not None}


# -- terminal ----------------------------------------------------------------------------------------------------------


def print_report(results: Results, console: Console) -> None:
    """The table and the words, on the terminal."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    columns = _known_columns(results)
    for heading, _ in columns.values():
        table.add_column("\n".join(heading.split(" ", 1)), justify="right")
    for model in results.models:
        cells = (_cell(results.figure(model, name), style) for name, (_, style) in columns.items())
        table.add_row(model_label(results, model), *(cell.replace(" (", "\n(") for cell in cells))
    console.print()
    console.print(title(results), style="bold", highlight=False, markup=False)
    console.print(table)
    console.print(NOTE + "\n", style="dim", highlight=False)
    for paragraph in conclusions(results):
        console.print(paragraph + "\n", highlight=False, markup=False)


def title(results: Results) -> str:
    """The heading."""
    sources = results.settings.sources
    what = "a small language of our own" if sources.is_tiny else str(sources.model)
    count = len(results.seeds)
    return f"RLHF “{results.settings.preset}”: {what}, {count} seed{'' if count == 1 else 's'}"


# -- page --------------------------------------------------------------------------------------------------------------


def html(results: Results) -> str:
    """The page as text: styles and plots are inside."""
    body = f"""<h2>What each model writes</h2>
{_models_table(results)}
<p class="note">{_text(NOTE)}</p>
<h2>PPO over time</h2>
<p class="note">As sampled in training, on prompts of the kinds that it trains on. Gold is measured, never paid.</p>
{figure_tags({PANELS[name]: panel_figure(results, name) for name in known_panels(results)}, "over training")}
<h2>Reward against KL</h2>
{figure_tags(frontier_figures(results), "against KL")}
<h2>Before and after</h2>
{_samples(results)}
<h2>The four models</h2>
{_four_models(results)}
{_judges(results)}
<h2>What was run</h2>
{_provenance(results)}"""
    return html_page(title(results), [_text(paragraph) for paragraph in conclusions(results)], body, ("agents.rlhf",))


def _text(text: str) -> str:
    """Text for the page, with signs kept on the line of their number."""
    return escape(text).replace(" %", "&nbsp;%")


def figure_tags(figures: dict[str, Figure], about: str) -> str:
    """Figures inside the page, as many beside each other as there is room for."""
    images = ""
    for name, figure in figures.items():
        data = base64.b64encode(to_svg(figure).encode()).decode()
        images += f'<img src="data:image/svg+xml;base64,{data}" alt="{escape(name)} {about}">\n'
    return f'<div class="plots">\n{images}</div>'


def table_tags(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts; the first column is the rows' names. " (…)" behind a figure is set small."""
    cells = f'<th class="name">{escape(head[0])}</th>' + "".join(f"<th>{escape(text)}</th>" for text in head[1:])
    body = ""
    for row in rows:
        body += f'<tr class="first"><td class="name" data-label="{escape(head[0])}">{escape(row[0])}</td>'
        for label, text in zip(head[1:], row[1:], strict=True):
            value, _, interval = text.partition(" (")
            small = f"<small>{_text(interval.removesuffix(')'))}</small>" if interval else ""
            body += f'<td data-label="{escape(label)}"><b>{_text(value)}</b>{small}</td>'
        body += "</tr>\n"
    return f'<table class="figures"><thead><tr>{cells}</tr></thead><tbody>\n{body}</tbody></table>'


def _models_table(results: Results) -> str:
    columns = _known_columns(results)
    rows = [
        [
            model_label(results, model),
            *(_cell(results.figure(model, name), style) for name, (_, style) in columns.items()),
        ]
        for model in results.models
    ]
    return table_tags(["model", *(heading for heading, _ in columns.values())], rows)


def _samples(results: Results) -> str:
    """The same held-out prompts, continued before and after; of the first seed."""
    evaluation = results.stages[results.seeds[0]]["evaluation"]["models"]
    models = [results.base, results.main, *([results.free] if results.free else [])]
    head = "".join(f"<th>{escape(model_label(results, model))}</th>" for model in models)
    body = ""
    for shown in zip(*(evaluation[model]["samples"] for model in models), strict=True):
        cells = ""
        for model, sample in zip(models, shown, strict=True):
            marks = [] if sample["gold"] is None else [f"{sample['gold']:+.2f}".replace("-", "−")]
            if sample["grammatical"] is False:
                marks.append("not grammatical")
            text = escape(sample["completion"]) + (f"<small>{', '.join(marks)}</small>" if marks else "")
            cells += f'<td data-label="{escape(model_label(results, model))}">{text}</td>'
        prompt = escape(shown[0]["prompt"])
        body += f"<tr><th>{prompt} …</th>{cells}</tr>\n"
    return (
        f'<table class="samples"><thead><tr><th>prompt</th>{head}</tr></thead><tbody>\n{body}</tbody></table>\n'
        f'<p class="note">First samples of seed {results.seeds[0]}, not chosen; the number is the gold score.</p>'
    )


def _four_models(results: Results) -> str:
    seed = results.seeds[0]
    described = results.stages[seed]["evaluation"]["models"]
    base, actor = described[results.base]["model"], described[results.main]["model"]
    tiny, critic = results.settings.sources.is_tiny, results.settings.ppo.critic
    shape = f"{base['architecture']}, {base['layers']} layers, {base['width']} wide"
    if actor["critic_parameters"]:
        started = "the reward model" if tiny and critic == "reward" else "the actor"
        critic_row = [f"{actor['critic_parameters']:,}", "yes", f"a trunk of its own, started from {started}"]
    else:
        critic_row = [f"{base['width'] + 1:,}", "yes", "a value head on the actor's trunk"]
    judge = "a trunk of the SFT model, a scalar head" if tiny else json.dumps(results.settings.sources.reward)
    parameters = f"{base['parameters']:,}"
    rows = [
        ["actor", parameters, "yes", f"{shape}; writes the texts"],
        ["critic", *critic_row],
        ["reference", parameters, "never", "the actor as it began; KL is measured from it"],
        ["reward model", parameters if tiny else "its own", "before PPO, then never" if tiny else "never", judge],
    ]
    labels, body = ["parameters", "trained", "what it is"], ""
    for name, *texts in rows:
        cells = (f'<td data-label="{label}">{escape(text)}</td>' for label, text in zip(labels, texts, strict=True))
        body += f"<tr><th>{escape(name)}</th>{''.join(cells)}</tr>\n"
    head = "".join(f"<th>{text}</th>" for text in ("model", *labels))
    return f'<table class="samples"><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>'


def _judges(results: Results) -> str:
    rows = []
    best = results.stage("rankings", "test", "best_possible_accuracy")
    for stage in ("reward-model", "reward-model-small"):
        accuracy, count = results.stage(stage, "held_out_accuracy"), results.stage(stage, "comparisons")
        error, length = results.stage(stage, "calibration_error"), results.stage(stage, "length_only_accuracy")
        if accuracy is not None and count is not None and best is not None:
            share = accuracy.over(best.median)
            cells = [percent(accuracy), percent(best), percent(share), _cell(error, ".3f"), percent(length)]
            rows.append([f"{count.median:,.0f} comparisons", *cells])
    if not rows:
        return ""
    head = ["reward model from", "agrees with held-out comparisons", "best possible", "share of it"]
    head += ["calibration error", "by length alone"]
    bins = results.stages[results.seeds[0]]["reward-model"].get("calibration")
    plot = figure_tags({"reliability": reliability_figure(bins)}, "of the reward model's predictions") if bins else ""
    note = (
        "The annotator is simulated: it prefers the better of two answers with a probability that grows with the "
        "difference of their gold scores (Bradley and Terry), so nobody can agree with it always. Held-out comparisons "
        "are about kinds of things that the reward model has seen no answers about. Calibration error: how far its "
        "confidence is from its accuracy, in ten bins. By length alone: a control that likes long answers, or short."
    )
    return f"<h2>The reward model</h2>\n{table_tags(head, rows)}\n<p class='note'>{_text(note)}</p>\n{plot}"


def _provenance(results: Results) -> str:
    settings = results.settings
    seeds = " ".join(map(str, results.seeds))
    command = f"python scripts/rlhf.py --preset {settings.preset} --seeds {seeds}"
    rows = [("command", command)] if settings.sources.is_tiny else [("sources", _listed(asdict(settings.sources)))]
    groups: dict[str, Any] = {
        "pretraining": settings.pretraining,
        "SFT": settings.sft,
        "preferences": settings.preferences,
        "PPO": settings.ppo,
    }
    for name, group in groups.items():
        if settings.sources.is_tiny or name == "PPO":
            rows.append((name, _listed(asdict(group))))
    seconds = {stage: results.stage(stage, "seconds") for stage in results.stages[results.seeds[0]]}
    rows.append(
        ("seconds", ", ".join(f"{stage} {value.median:.0f}" for stage, value in seconds.items() if value is not None))
    )
    rows.append(("versions", _listed(results.provenance)))
    body = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>\n" for name, text in rows)
    return f'<table class="settings"><tbody>\n{body}</tbody></table>'


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in values.items())


__all__ = ["print_report", "read_results", "write_report"]
