"""The audit: faults that were put in are found, sound data passes, and every verdict has its threshold."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from agents.lm import Annotator, Ranking, save_rankings
from agents.preference_data import PreferenceStore, save_pairs
from agents.preference_data.audit import Audit, Criterion, Verdict, audit, even, graded
from agents.preference_data.audit_report import html, print_audit
from agents.preference_data.statistics import Share

ROOT = Path(__file__).parents[3]


def simulate(annotator: Annotator, prompts: int = 700, k: int = 4, repeats: int = 100, seed: int = 0) -> list[Ranking]:
    """Two annotators rank random texts, and the first of them again."""
    rng = np.random.default_rng(seed)
    words = [f"w{i}" for i in range(300)]
    answers = [tuple(" ".join(rng.choice(words, rng.integers(3, 16))) for _ in range(k)) for _ in range(prompts)]
    lengths = np.array([[len(text.split()) for text in texts] for texts in answers])
    gold, rankings = rng.normal(size=(prompts, k)), []
    repeats = min(repeats, prompts)
    for number, (name, round, count) in enumerate([("ada", 1, prompts), ("bob", 1, prompts), ("ada", 2, repeats)]):
        ranks, shown = annotator.rank(gold[:count], lengths[:count], seed=100 * seed + number)
        for i in range(count):
            of_i, place = tuple(ranks[i].tolist()), tuple(shown[i].tolist())
            rankings.append(Ranking(f"p{i}", answers[i], of_i, shown=place, annotator=name, round=round))
    return rankings


def criterion(found: Audit, name: str) -> Criterion:
    (one,) = (each for each in found.criteria if each.name == name)
    return one


def test_sound_data_passes() -> None:
    found = audit(simulate(Annotator(6.0)))
    verdicts = {each.name: each.verdict for each in found.criteria}
    assert set(verdicts.values()) == {Verdict.GOOD}, verdicts
    assert criterion(found, "comparisons").value == (700 + 700 + 100) * 6
    assert criterion(found, "distinct prompts").value == 700
    assert found.notes == ()


@pytest.mark.parametrize(
    ("annotator", "name", "others"),
    [
        (Annotator(3.0, length_bias=0.4), "length bias", "position bias"),
        (Annotator(3.0, length_bias=-0.4), "length bias", "position bias"),
        (Annotator(3.0, position_bias=1.0), "position bias", "length bias"),
    ],
)
def test_a_bias_that_was_put_in_is_found(annotator: Annotator, name: str, others: str) -> None:
    found = audit(simulate(annotator))
    assert criterion(found, name).verdict is Verdict.NOT_ENOUGH
    assert criterion(found, others).verdict is Verdict.GOOD
    assert found.verdict is Verdict.NOT_ENOUGH


def test_label_noise_is_estimated() -> None:
    """A pair is decided one way with p; two labels of it disagree with 2 p (1 − p)."""
    annotator = Annotator(0.8)
    found = audit(simulate(annotator, prompts=1_500, repeats=1_500))
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 200_000))
    p = 1 / (1 + np.exp(-0.8 * (first - second)))
    expected = (1 - np.sqrt(1 - 2 * (2 * p * (1 - p)).mean())) / 2
    noise = criterion(found, "label noise")
    assert noise.value == pytest.approx(expected, abs=0.03)
    assert noise.verdict is Verdict.NOT_ENOUGH
    assert criterion(found, "agreement of annotators").verdict is Verdict.NOT_ENOUGH


def test_pairs_without_names_and_places() -> None:
    rankings = [Ranking(f"p{i}", (f"a {i} x", f"b {i}"), (1, 2)) for i in range(20)]
    rankings += [Ranking("p0", ("same old text", "same old text"), (1, 2)), rankings[3], rankings[4]]
    found = audit([*rankings, Ranking("p9", ("c", ""), (1, 1))])
    for name in ("agreement of annotators", "label noise", "position bias", "intransitive cycles"):
        assert criterion(found, name).verdict is Verdict.UNKNOWN
        assert criterion(found, name).value is None
    assert criterion(found, "comparisons").value == 20
    assert criterion(found, "comparisons").verdict is Verdict.NOT_ENOUGH
    assert criterion(found, "length bias").value == 1.0
    assert criterion(found, "near-duplicates").value == pytest.approx(1 / 22)
    assert found.notes == (
        "2 rows are copies of earlier ones and were left out: row 22, 23.",
        "1 rows prefer an answer to another of the same text, pairs that were left out: row 21.",
        "1 rows have an empty answer: row 24.",
        "1 of 22 rankings tie all answers and decide nothing.",
        "No row says who ranked (annotator): agreement and label noise cannot be measured.",
    )
    assert found.by_place == ()


def test_what_the_plots_show() -> None:
    shown = [Ranking(f"p{i}", ("one two three", "one"), (1, 2), shown=(2, 1)) for i in range(5)]
    found = audit(shown)
    first, second = found.by_place
    assert first is not None
    assert second is not None
    assert (first.value, second.value) == (0.0, 1.0)
    assert [(label, share.value, share.count) for label, share in found.by_length] == [("1–2", 1.0, 5)]


def test_thresholds() -> None:
    assert [graded(x, 10, 5) for x in (10, 9.9, 5, 4.9)] == [
        *[Verdict.GOOD],
        *[Verdict.DOUBTFUL] * 2,
        Verdict.NOT_ENOUGH,
    ]
    assert [graded(x, 0.1, 0.2) for x in (0.1, 0.15, 0.21)] == [Verdict.GOOD, Verdict.DOUBTFUL, Verdict.NOT_ENOUGH]
    assert even(Share(0.5, 0.46, 0.54, 9), 0.05) is Verdict.GOOD
    assert even(Share(0.5, 0.44, 0.54, 9), 0.05) is Verdict.DOUBTFUL
    assert even(Share(0.6, 0.56, 0.64, 9), 0.05) is Verdict.NOT_ENOUGH
    assert even(Share(0.4, 0.36, 0.44, 9), 0.05) is Verdict.NOT_ENOUGH


def test_data_that_decides_nothing() -> None:
    with pytest.raises(ValueError, match="There are no preferences to audit"):
        audit([])
    with pytest.raises(ValueError, match="None of the rankings prefers an answer to another"):
        audit([Ranking("p", ("a", "b"), (1, 1))])


def test_the_page_escapes_and_says_what_to_do() -> None:
    found = audit([*simulate(Annotator(3.0, 0.4), prompts=30), Ranking("p", ("a", "b"), (1, 1))])
    page = html(found, "<b>file</b>")
    assert "&lt;b&gt;file&lt;/b&gt;: not enough" in page
    assert page.count("data:image/svg+xml;base64,") == 2
    for each in found.criteria:
        assert each.name in page
        assert (each.advice.replace("'", "&#x27;") in page) == (each.verdict is not Verdict.GOOD), each.name
    console = Console(width=200, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    print_audit(found, "[b]file", console)
    text = console.export_text()
    assert "[b]file: not enough" in text
    assert "✗ not enough" in text
    console.file.close()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/audit_preferences.py", *arguments]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)


def test_the_command(tmp_path: Path) -> None:
    rankings = simulate(Annotator(6.0))
    save_rankings(tmp_path / "good.jsonl", rankings)
    done = run(str(tmp_path / "good.jsonl"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "good.jsonl: good" in done.stdout
    assert "<!doctype html>" in (tmp_path / "good.audit.html").read_text(encoding="utf-8")
    with PreferenceStore(tmp_path / "store.sqlite") as store:
        store.add_rankings(rankings[:50])
    done = run(str(tmp_path / "store.sqlite"), "--html", str(tmp_path / "page.html"))
    assert done.returncode == 1
    assert re.search(r"comparisons +✗ not enough +300 ", done.stdout)
    assert (tmp_path / "page.html").is_file()
    save_pairs(tmp_path / "pairs.jsonl", rankings[:2])
    with (tmp_path / "pairs.jsonl").open("a") as file:
        file.write('{"prompt": "p", "chosen": "x", "rejected": "x"}\n')
    done = run(str(tmp_path / "pairs.jsonl"))
    assert done.returncode == 2
    assert "pairs.jsonl, line 13: 'chosen' and 'rejected' are the same: 'x'" in done.stderr
    assert not (tmp_path / "pairs.audit.html").exists()
