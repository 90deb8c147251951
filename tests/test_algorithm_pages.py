"""docs/algorithms/NAME.md, of every exported agent whose module has such a page, says all that the agent can be told
and all that it logs, and names nothing that does not exist."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import agents
from agents.base import Agent
from agents.on_policy import OnPolicyAgent

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "algorithms"
WIDE = {"num_envs": 8, "width": 16, "num_heads": 2, "num_layers": 1}
ENV, ENV_KWARGS = "textenvs/Copy-v0", {"length": 2, "num_symbols": 3}


def page_of(agent_class: type[Agent]) -> Path:
    return FOLDER / f"{agent_class.__module__.rpartition('.')[2]}.md"


EXPORTED = [getattr(agents, name) for name in agents.__all__]
AGENTS = [each for each in EXPORTED if inspect.isclass(each) and issubclass(each, Agent) and page_of(each).exists()]


def make(agent_class: type[Agent], **more: Any) -> Any:
    fields = {field.name for field in dataclasses.fields(agent_class.Config)}
    small = {name: size for name, size in WIDE.items() if name in fields}
    return agent_class(ENV, env_kwargs=ENV_KWARGS, **small, **more)


def logged(agent_class: type[Agent]) -> set[str]:
    """Keys of a batch, with a reference too where the agent takes one; parts of a reward have any name."""
    agent = make(agent_class).learn(16)
    keys = set(agent.metrics)
    if issubclass(agent_class, OnPolicyAgent):
        keys |= set(make(agent_class, policy=agent.policy, reference=agent.policy.frozen_copy()).learn(16).metrics)
    return {re.sub(r"^rewards/.+/(mean|std)$", r"rewards/NAME/\1", key) for key in keys}


def test_every_on_policy_agent_has_a_page() -> None:
    names = {each.__name__ for each in AGENTS}
    assert {"PPO", "RLOO", "GRPO", "A2C", "REINFORCE"} <= names


def test_every_page_is_of_an_agent() -> None:
    assert {page.name for page in FOLDER.glob("*.md")} == {page_of(each).name for each in AGENTS}


@pytest.mark.parametrize("agent_class", AGENTS)
def test_every_field_is_explained(agent_class: type[Agent]) -> None:
    words = set(re.findall(r"`(\w+)`", page_of(agent_class).read_text(encoding="utf-8")))
    missing = [field.name for field in dataclasses.fields(agent_class.Config) if field.name not in words]
    assert not missing


@pytest.mark.parametrize("agent_class", AGENTS)
def test_every_logged_key_is_explained_and_no_other(agent_class: type[Agent]) -> None:
    page = page_of(agent_class).read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:charts|losses|objective|rewards)/[\w/]+)`", page))
    keys = logged(agent_class)
    assert keys - named == set()
    assert named - keys == set()


@pytest.mark.parametrize("agent_class", AGENTS)
def test_code_that_a_page_points_to_exists(agent_class: type[Agent]) -> None:
    """`agents/file.py`, `name`: the file has a function, class, method or attribute of that name."""
    page = page_of(agent_class).read_text(encoding="utf-8")
    for file, name in re.findall(r"`((?:agents|textenvs)/[\w/]+\.py)`(?:, `([\w.]+)`)?", page):
        assert (ROOT / file).exists(), file
        if name:
            thing: Any = importlib.import_module(file.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
            for part in name.split("."):
                assert hasattr(thing, part), f"{file}: {name}"
                thing = getattr(thing, part)
