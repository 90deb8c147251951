"""Callbacks of learn: several of them, ones with a state, lines about learning; time that is not learning's."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agents import DQN, Agent, RandomAgent
from agents.callbacks import LogLines, StatefulCallback, log_line


class Counter(StatefulCallback):
    """Counts batches, and stops after some."""

    def __init__(self, stop_after: int = 1_000, name: str = "counter") -> None:
        self.stop_after, self.name, self.count = stop_after, name, 0

    def start(self, agent: Agent) -> bool:
        return self.count < self.stop_after

    def __call__(self, agent: Agent) -> bool:
        self.count += 1
        return self.count < self.stop_after

    def get_state(self) -> dict[str, Any]:
        return {"count": self.count}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.count = state["count"]


def make() -> RandomAgent:
    return RandomAgent("textenvs/Copy-v0", env_kwargs={"length": 2}, num_envs=4)  # 8 tokens a batch


def test_all_are_called_in_their_order_even_if_one_stops() -> None:
    agent, seen = make(), []

    def first(agent: Agent) -> bool:
        seen.append("first")
        return len(seen) < 4

    agent.learn(1_000, callback=[first, lambda agent: seen.append("second")])
    assert seen == ["first", "second"] * 3
    assert agent.num_timesteps == 24


def test_states_go_with_checkpoints_by_name(tmp_path: Path) -> None:
    agent = make()
    agent.learn(40, callback=[Counter(), Counter(name="other", stop_after=3)])
    assert agent.num_timesteps == 24
    agent.save(tmp_path / "agent")
    loaded = RandomAgent.load(tmp_path / "agent")
    loaded.learn(8)  # without them: they are kept
    loaded.save(tmp_path / "agent")
    loaded = RandomAgent.load(tmp_path / "agent")
    counter, third, other = Counter(), Counter(name="third"), Counter(name="other", stop_after=3)
    loaded.learn(16, callback=[counter, third])
    assert (counter.count, third.count) == (5, 2)
    loaded.learn(16, callback=other)  # has had its three
    assert other.count == 3
    assert loaded.num_timesteps == 24 + 8 + 16
    again = Counter()
    loaded.learn(16, callback=again)  # a state is given once
    assert again.count == 2


def test_the_clock_stands_while_callbacks_work() -> None:
    agent = make()
    agent.learn(16)
    agent.learn(16, callback=lambda agent: time.sleep(0.5))
    assert agent.metrics["charts/SPS"] > 33  # 16 tokens in 0.5 s would be 32


def test_log_lines_say_speed_and_score() -> None:
    file = io.StringIO()
    DQN("textenvs/Copy-v0", env_kwargs={"length": 2}).learn(96, callback=LogLines(0, file))
    lines = file.getvalue().splitlines()
    assert len(lines) == 3
    pattern = r"64 timesteps, 32 episodes, [\d,]+/s: return 0\.\d+, length 2, epsilon 0\.02, replay 32"
    assert re.fullmatch(pattern, lines[1])
    agent = make()
    assert log_line(agent) == "0 timesteps, 0 episodes, nan/s: "
    rare = io.StringIO()
    agent.learn(80, callback=LogLines(60, rare))
    assert rare.getvalue() == ""
    with pytest.raises(ValueError, match="seconds must not be negative"):
        LogLines(-1)
