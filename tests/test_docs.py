"""What the documentation shows runs, and what it names exists."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sb3_contrib import MaskablePPO
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from agents.base import Agent
from textenvs.rewards import registry

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]


def code_blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def cut_short(learn: Callable[..., Any]) -> Callable[..., Any]:
    """A method ``learn`` that stops after 300 timesteps at most."""
    return lambda agent, total_timesteps, callback=None, **kwargs: learn(agent, min(total_timesteps, 300), callback)


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run(page: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In order, in one namespace, as a reader would type them; only the learning is cut short."""
    for agent_class in (Agent, OnPolicyAlgorithm, MaskablePPO):
        monkeypatch.setattr(agent_class, "learn", cut_short(agent_class.learn))
    monkeypatch.chdir(tmp_path)
    before = dict(registry._REGISTRY)
    module = types.ModuleType("readme")  # a real one, so that classes defined in it can be pickled
    monkeypatch.setitem(sys.modules, "readme", module)
    try:
        for block in code_blocks(page, "python"):
            exec(compile(block, page, "exec"), module.__dict__)
    finally:
        registry._REGISTRY.clear()
        registry._REGISTRY.update(before)


def test_a_whole_task_takes_less_than_forty_lines() -> None:
    """The block above runs: it registers its id and passes check_text_env."""
    block = code_blocks("docs/writing_a_task.md", "python")[0]
    assert "gym.register(" in block
    assert "check_text_env(" in block
    assert len(block.splitlines()) < 40


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "//" not in link]
    scripts = re.findall(r"(?:python|bash) (scripts/[\w./]+)", text)
    missing = [link for link in links if not ((ROOT / page).parent / link).exists()]
    missing += [script for script in scripts if not (ROOT / script).exists()]
    assert not missing


def test_tables_are_up_to_date() -> None:
    command = [sys.executable, "scripts/docs_tables.py", "--check"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr + done.stdout
