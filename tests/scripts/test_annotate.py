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
