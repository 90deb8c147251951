"""The commands around preference data: what they print, and what they refuse."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    command = [sys.executable, f"scripts/{script}.py", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False, timeout=250)


def test_annotate_smoke() -> None:
    done = run("annotate", "--preset", "smoke")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"ranked 1 of 3\nbest answer to '.+': '.+ \.'\n", done.stdout)


def test_audit_smoke_flags_the_biased_annotators() -> None:
    done = run("audit_preferences", "--preset", "smoke")
    assert done.returncode == 0, done.stderr
    fair, biased = done.stdout.split("long and first: ")
    assert re.search(r"length bias +✓ good", fair)
    assert re.search(r"length bias +✗ not enough", biased)
    assert not re.search(r"position bias +✓ good", biased)


def test_what_is_collected_elsewhere_is_taken_in(tmp_path: Path) -> None:
    row = {"prompt": "p", "answers": ["a", "b"], "ranks": [2, 1], "annotator": "ada"}
    (tmp_path / "in.jsonl").write_text(json.dumps(row))
    store, out = tmp_path / "s.sqlite", tmp_path / "out.jsonl"
    done = run("annotate", str(store), "--import", str(tmp_path / "in.jsonl"), "--export", str(out))
    assert done.returncode == 0, done.stderr
    back = json.loads(out.read_text())
    assert {name: back[name] for name in row} == row
    assert back["round"] == 1


def test_pairs_of_others_are_taken_in_under_a_name(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "chosen": chosen, "rejected": "c", "margin": 0.5} for chosen in "ab"]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    store, out = str(tmp_path / "s.sqlite"), tmp_path / "out.jsonl"
    done = run("annotate", store, "--import", str(tmp_path / "in.jsonl"), "--export-pairs", str(out))
    assert done.returncode == 2
    assert "Ranking 0: it does not say who ranked (annotator), which --annotator says of all of a file" in done.stderr
    arguments = ("--import", str(tmp_path / "in.jsonl"), "--annotator", "ada", "--export-pairs", str(out))
    done = run("annotate", store, *arguments)
    assert done.returncode == 0, done.stderr
    assert "in.jsonl: 2 of 2 rankings taken in" in done.stdout
    assert [json.loads(line) for line in out.read_text().splitlines()] == rows


def test_nothing_that_was_collected_is_overwritten(tmp_path: Path) -> None:
    store, answers = tmp_path / "s.sqlite", tmp_path / "answers.jsonl"
    answers.write_text(json.dumps({"prompt": "p", "answers": ["a", "b"]}))
    assert run("annotate", str(store), "--answers", str(answers), "--export", str(tmp_path / "r.jsonl")).returncode == 0
    before = {path: path.read_bytes() for path in (store, answers)}
    for script, arguments in (
        ("annotate", (str(store), "--export", str(tmp_path / "." / "s.sqlite"))),
        ("annotate", (str(store), "--answers", str(answers), "--export-pairs", str(answers))),
        ("annotate", (str(store), "--export", str(tmp_path / "x"), "--export-pairs", str(tmp_path / "x"))),
        ("audit_preferences", (str(store), "--html", str(store))),
    ):
        done = run(script, *arguments)
        assert done.returncode == 2
        assert re.search("would (be overwritten: export to|overwrite the preferences: name)", done.stderr)
    assert {path: path.read_bytes() for path in before} == before
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Name the SQLite file that the rankings go into"),
        (["x.sqlite", "--port", "70000"], "--port must lie in 0 … 65535, got 70000"),
        (["{folder}/x.sqlite", "--answers", "{folder}/none.jsonl"], "There is no file .*none.jsonl' with answers"),
        (["{folder}/x.sqlite"], "holds no answers to rank: add some"),
        (["{folder}/nowhere/x.sqlite"], "There is no folder .*nowhere"),
    ],
)
def test_what_annotate_refuses(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = run("annotate", *(argument.replace("{folder}", str(tmp_path)) for argument in arguments))
    assert done.returncode == 2
    assert re.search(message, done.stderr)
    assert "Traceback" not in done.stderr
