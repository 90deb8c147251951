"""What the report says is what the figures say."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from agents.rlhf.report import html, print_report, summarise, write_report
from agents.rlhf.results import Results, Spread, read_results, spread
from agents.rlhf.settings import get_settings
from agents.rlhf.words import conclusions, percent
from tests.rlhf.conftest import Pipeline


def test_spreads_by_hand() -> None:
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0, 3)
    assert spread([1.0, None]) is None
    assert spread([]) is None
    assert Spread(0.5, 0.25, 1.0, 3).text(".2f") == "0.50 (0.25–1.00)"
    assert Spread(0.5, 0.5, 0.5, 1).text(".1f") == "0.5"
    assert Spread(-0.5, -0.5, -0.5, 1).text() == "−0.50"
    assert percent(Spread(0.956, 0.93, 0.97, 5)) == "96 % (93–97)"
    assert Spread(0.7, 0.6, 0.8, 3).over(0.5) == Spread(1.4, 1.2, 1.6, 3)


def _figures(gold: float, reward: float, kl: float, grammatical: float | None, length: float = 14.0) -> dict[str, Any]:
    figures = {"texts": 64, "reward": reward, "gold": gold, "gold_error": 0.01, "grammatical": grammatical, "kl": kl}
    figures |= {"entropy": 20.0, "perplexity": 4.0, "length": length, "distinct": 1.0}
    sample = {"prompt": "the <b>film", "completion": "was & good .", "gold": gold, "grammatical": True}
    model = {"architecture": "GPT2LMHeadModel", "layers": 2, "width": 128, "parameters": 1000, "critic_parameters": 990}
    return {"figures": figures, "samples": [sample], "model": model}


@pytest.fixture
def results() -> Results:
    """Three seeds whose figures are known."""
    settings = get_settings("quick")
    stages, histories = {}, {}
    for seed, shift in enumerate((0.0, 0.02, -0.02)):
        models = {
            "pretrained": _figures(0.0, 0.0, 3.0, 0.95),
            "sft": _figures(0.33 + shift, 0.0, 0.0, 0.97),
            "ppo-0.15": _figures(0.83 + shift, 2.0, 2.5 + shift, 0.94 + shift, 16.0),
            "ppo-0": _figures(0.98, 2.4, 35.0, 0.1, 23.0),
        }
        evaluation = {"models": models, "base": "sft", "best_texts": 0.93, "optimum": 0.97, "seconds": 5.0}
        judge = {"comparisons": 4098, "held_out_accuracy": 0.77, "seconds": 20.0}
        stages[seed] = {
            "rankings": {"test": {"best_possible_accuracy": 0.84}, "seconds": 3.0},
            "reward-model": judge,
            "reward-model-small": judge | {"comparisons": 516, "held_out_accuracy": 0.61},
            "evaluation": evaluation,
        }
        names = ("objective/scores", "gold", "objective/kl_k1", "objective/entropy", "charts/episodic_length")
        columns = {"episodes": np.array([100.0, 200.0]), **{name: np.array([0.1, 0.2 + shift]) for name in names}}
        histories[seed] = {"ppo-0.15": columns, "ppo-0": columns}
    return Results(settings, (0, 1, 2), stages, histories, {"torch": "1"})


def test_words_follow_from_the_figures(results: Results) -> None:
    words = conclusions(results)
    assert words[0] == (
        "On held-out prompts PPO with kl_coef 0.15 raises the gold score from 0.33 (0.31–0.35) to 0.83 (0.81–0.85), at "
        "a KL divergence of 2.5 (2.5–2.5) nats per text from the model it began with. That is 83 % (81–86) of the way "
        "to 0.93, which one in a hundred of the grammar's own texts reaches. 94 % (92–96) of its texts are "
        "grammatical; before, 97 % (97–97) were."
    )
    assert "gets higher, 2.40 (2.40–2.40) against 2.00" in words[1]
    assert "10 % (10–10) of the texts are grammatical, at a gold score of 0.98 (0.98–0.98): word salad" in words[1]
    assert words[2].startswith(
        "The reward model learnt from 4,098 comparisons and agrees with 77 % (77–77) of held-out"
    )
    assert words[2].endswith("One that learnt from 516 agrees with 61 % (61–61).")
    assert words[3] == "Texts have become longer: 14.0 (14.0–14.0) tokens before, 16.0 (16.0–16.0) after."


def test_words_do_not_flatter(results: Results) -> None:
    """A run that failed is said to have failed."""
    for stages in results.stages.values():
        models = stages["evaluation"]["models"]
        models["ppo-0.15"]["figures"] |= {"gold": 0.2, "length": 14.2}
        models["ppo-0"]["figures"] |= {"gold": 0.5, "reward": 1.0}
    words = conclusions(results)
    assert "lowers the gold score from 0.33" in words[0]
    assert "gets no higher, 1.00" in words[1]
    assert "word salad" not in words[1]
    assert words[3].startswith("Texts have stayed as long as they were")


def test_the_share_of_the_way_is_a_ratio_of_each_seeds_own_figures(results: Results) -> None:
    assert results.lift is not None
    expected = [0.5 / (0.93 - before) for before in (0.33, 0.35, 0.31)]
    assert results.lift.median == pytest.approx(np.median(expected))
    assert results.lift.low == pytest.approx(min(expected))
    assert summarise(results)["lift"]["high"] == pytest.approx(max(expected))


class _Checker(HTMLParser):
    """Tags open and close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_needs_no_network_and_escapes_texts(results: Results) -> None:
    page = html(results)
    checker = _Checker()
    checker.feed(page)
    assert checker.open == []
    assert len(checker.links) == 7
    assert all(link.startswith("data:image/svg+xml;base64,") for link in checker.links)
    assert "the &lt;b&gt;film …" in page
    assert "was &amp; good ." in page
    assert "<b>film" not in page
    for role in ("actor", "critic", "reference", "reward model"):
        assert re.search(rf'<th>{role}</th><td data-label="parameters">[\d,]+</td>', page)
    assert "4,098 comparisons" in page
    assert html(results) == page


def test_a_world_without_grammar_or_gold_has_fewer_columns(results: Results) -> None:
    for stages in results.stages.values():
        for model in stages["evaluation"]["models"].values():
            model["figures"] |= {"grammatical": None, "gold": None}
            model["samples"][0] |= {"grammatical": None, "gold": None}
        del stages["evaluation"]["best_texts"]
    page = html(replace(results))
    assert "grammatical" not in page.split("</style>")[1].split("<h2>PPO over time")[0]
    assert "judge&#x27;s score from 0.00" in page
    assert results.lift is None


def test_a_pipelines_own_report(pipeline: Pipeline) -> None:
    results = read_results(pipeline.out, pipeline.settings, [0])
    page = write_report(pipeline.out, results)
    assert page.stat().st_size < 1_000_000
    for name in ("training", "gold-against-kl", "grammatical-against-kl"):
        picture = (pipeline.out / "plots" / f"{name}.png").read_bytes()
        assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    terminal = Console(file=io.StringIO(), width=100)
    print_report(results, terminal)
    shown = terminal.file.getvalue()  # type: ignore[attr-defined]
    assert "PPO, kl_coef 0.15" in shown
    assert max(map(len, shown.splitlines())) <= 100
    assert "One or two seeds make no interval" in shown
