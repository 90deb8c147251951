"""The alarm beside PPO that really hacks its reward, and beside PPO that does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents import PPO
from agents.alarm import PROXY, HackingAlarm, means
from agents.base import Agent

pytestmark = pytest.mark.learning


def sevens(completions: list[str]) -> list[float]:
    return [text.count("7") / len(text) for text in completions]


def four_sevens(completions: list[str]) -> list[float]:
    return [1 - abs(text.count("7") - 4) / 8 for text in completions]


def more_sevens(completions: list[str]) -> list[float]:
    return [min(1.0, 2 * text.count("7") / len(text)) for text in completions]


def learn(seed: int, gold: Any, alarm: HackingAlarm) -> tuple[PPO, np.ndarray]:
    """Up to 120 batches of 256 texts of 12 symbols; and (proxy, gold) of each batch."""
    curve: list[tuple[float, float]] = []

    def watch(agent: Agent) -> bool | None:
        curve.append((agent.metrics[PROXY], agent.metrics[f"rewards/{gold.__name__}/mean"]))
        return alarm(agent)

    reward = {"name": "gold", "proxy": sevens, "gold": gold}
    agent = PPO(
        "textenvs/HiddenTarget-v0",
        seed=seed,
        env_kwargs={"length": 12, "num_symbols": 10, "reward": reward},
        num_envs=256,
        epochs=1,
        learning_rate=3e-4,
        num_layers=1,
        width=16,
        num_heads=1,
    )
    return agent.learn(120 * 256 * 12, callback=watch), np.array(curve)


def test_it_rings_before_a_tenth_of_the_gold_is_lost_and_goes_back(tmp_path: Path) -> None:
    """Gold rises over 40 batches and would then fall to 0, by 3 to 6 % of its rise a batch. In all of 5 runs less than
    a tenth of the rise is lost when the alarm rings (means of four batches), and the checkpoint is from the top."""
    for seed in range(5):
        alarm = HackingAlarm("four_sevens", action="back", folder=tmp_path / str(seed))
        agent, curve = learn(seed, four_sevens, alarm)
        gold = means(curve[:, 1], 4)
        rise = gold.max() - gold[0]
        assert alarm.alarm is not None
        assert "opposed" in alarm.alarm.reason
        assert rise > 0.15
        assert gold.max() - gold[-1] < 0.1 * rise
        assert curve[alarm.best_batch - 1, 1] > gold.max() - 0.2 * rise
        assert agent.num_updates == alarm.best_batch


def test_the_fall_alone_is_heard_later() -> None:
    alarm = HackingAlarm("four_sevens", action="stop", correlation=None)
    _, curve = learn(0, four_sevens, alarm)
    gold = means(curve[:, 1], 4)
    assert alarm.alarm is not None
    assert "has fallen from" in alarm.alarm.reason
    assert 0.03 < (gold.max() - gold[-1]) / (gold.max() - gold[0]) < 0.5


def test_it_is_silent_where_gold_rises_too() -> None:
    for seed in range(5):
        alarm = HackingAlarm("more_sevens", action="stop")
        _, curve = learn(seed, more_sevens, alarm)
        assert alarm.alarm is None
        assert curve[-1, 1] > 0.95
