"""Logs: a CSV file with fixed columns and TensorBoard events."""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from agents import PPO
from agents.collect import Rollout
from agents.episode_metrics import correlation
from agents.logger import Logger

TINY = {"num_envs": 4, "width": 16, "num_heads": 2, "num_layers": 1, "epochs": 1}
KEYS = {
    "charts/episodic_return",
    "charts/episodic_length",
    "charts/SPS",
    "losses/policy_loss",
    "losses/value_loss",
    "losses/entropy",
    "losses/approx_kl",
    "losses/clipfrac",
    "losses/explained_variance",
    "rewards/match/mean",
    "rewards/match/std",
}


def read(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_ppo_logs_its_keys_every_batch(tmp_path: Path) -> None:
    agent = PPO("textenvs/Copy-v0", log_dir=tmp_path / "run", **TINY)
    agent.learn(48)
    rows = read(tmp_path / "run")
    assert [row["timesteps"] for row in rows] == ["16", "32", "48"]
    assert set(rows[0]) == KEYS | {"timesteps"}
    assert all(float(row["losses/entropy"]) > 0 for row in rows)
    assert set(agent.metrics) == KEYS

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == KEYS
    logged = events.Scalars("charts/episodic_return")
    assert [event.step for event in logged] == [16, 32, 48]
    assert [event.value for event in logged] == pytest.approx([float(r["charts/episodic_return"]) for r in rows])


def test_a_log_is_continued(tmp_path: Path) -> None:
    for step in (1, 2):
        logger = Logger(tmp_path)
        logger.log(step, {"a": 0.5, "b": float("nan")})
        logger.close()
    assert read(tmp_path) == [{"timesteps": "1", "a": "0.5", "b": ""}, {"timesteps": "2", "a": "0.5", "b": ""}]


def test_parts_of_a_reward_are_logged_and_come_and_go_with_the_judge(tmp_path: Path) -> None:
    def at_first(completions: list[str]) -> list[float | None]:
        return [float(text[0]) if text[0] > "0" else None for text in completions]

    kwargs = {"length": 2, "num_symbols": 3, "reward": [(1.0, "match"), (0.0, at_first)]}
    agent = PPO("textenvs/Copy-v0", env_kwargs=kwargs, log_dir=tmp_path, **TINY)
    seen: list[Rollout] = []
    collect = agent.collector.collect
    agent.collector.collect = lambda steps: seen.append(collect(steps)) or seen[-1]  # type: ignore[method-assign]
    agent.learn(8)
    agent.envs.unwrapped.set_reward("prefix")
    agent.learn(8)
    agent._logger.log(24, agent.metrics | {"rewards/prefix/mean": 0.25})  # type: ignore[union-attr]

    first, second, third = read(tmp_path)
    assert float(first["rewards/match/mean"]) == pytest.approx(seen[0].scores.mean())
    written = seen[0].rows[:, 2]
    assert float(first["rewards/at_first/mean"]) == pytest.approx(written[written > 0].mean())
    assert float(first["rewards/at_first/std"]) == pytest.approx(written[written > 0].std())
    assert float(second["rewards/prefix/mean"]) == pytest.approx(seen[1].scores.mean())
    assert (first["rewards/prefix/mean"], second["rewards/match/mean"], second["rewards/at_first/std"]) == ("", "", "")
    assert (third["timesteps"], third["rewards/prefix/mean"]) == ("24", "0.25")
    assert first["charts/episodic_return"] != ""


def test_a_window_without_an_end_has_no_parts_and_the_next_one_has(tmp_path: Path) -> None:
    agent = PPO("textenvs/Copy-v0", env_kwargs={"length": 2}, log_dir=tmp_path, num_steps=1, **TINY)
    agent.learn(8)
    first, second = read(tmp_path)
    assert first["rewards/match/mean"] == first["charts/episodic_return"] == ""
    assert second["rewards/match/mean"] == second["charts/episodic_return"] != ""


def test_other_columns_are_refused(tmp_path: Path) -> None:
    logger = Logger(tmp_path)
    logger.log(1, {"a": 0.5})
    with pytest.raises(ValueError, match=r"missing now \['a'\], new \['b'\]"):
        logger.log(2, {"b": 0.5})
    logger.close()
    assert len(read(tmp_path)) == 1
    (tmp_path / "metrics.csv").write_text("name,age\n")
    with pytest.raises(ValueError, match="not a log of an agent"):
        Logger(tmp_path)


def test_what_a_run_lost_is_taken_back(tmp_path: Path) -> None:
    logger = Logger(tmp_path)
    logger.rewind(5)  # nothing there yet
    for step in (1, 2, 3):
        logger.log(step, {"a": step / 4})
    logger.close()
    time.sleep(1.1)  # TensorBoard reads files in the order of their names, which tell whole seconds
    again = Logger(tmp_path)
    again.rewind(3)
    assert len(read(tmp_path)) == 3
    again.rewind(1)
    again.log(2, {"a": 7.0})
    again.close()
    assert read(tmp_path) == [{"timesteps": "1", "a": "0.25"}, {"timesteps": "2", "a": "7.0"}]

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert {event.step: event.value for event in events.Scalars("a")} == {1: 0.25, 2: 7.0}


def test_a_missing_tensorboard_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r"textenvs\[agents\]"):
        Logger(tmp_path)
    PPO("textenvs/Copy-v0", **TINY).learn(1)  # without log_dir nothing is needed


def test_parts_are_correlated_with_the_score_where_there_are_several(tmp_path: Path) -> None:
    kwargs = {"length": 3, "num_symbols": 3, "reward": [(1.0, "match"), (0.0, "prefix")]}
    agent = PPO("textenvs/Copy-v0", env_kwargs=kwargs, log_dir=tmp_path, num_envs=32, num_layers=1, width=8)
    seen: list[Rollout] = []
    collect = agent.collector.collect
    agent.collector.collect = lambda steps: seen.append(collect(steps)) or seen[-1]  # type: ignore[method-assign]
    agent.learn(96)
    (row,) = read(tmp_path)
    expected = np.corrcoef(seen[0].scores, seen[0].components["prefix"])[0, 1]
    assert float(row["rewards/prefix/correlation"]) == pytest.approx(expected, abs=1e-5)
    assert float(row["rewards/match/correlation"]) == pytest.approx(1, abs=1e-6)
    agent.envs.unwrapped.set_reward("prefix")
    agent.learn(96)
    assert "rewards/prefix/correlation" not in agent.metrics  # alone, it is the score


def test_correlation_of_what_does_not_vary() -> None:
    assert correlation(np.array([1.0, 2.0, 4.0]), np.array([3.0, 2.0, 0.0])) == pytest.approx(-1)
    assert np.isnan(correlation(np.ones(3), np.arange(3.0)))
    assert np.isnan(correlation(np.zeros(0), np.zeros(0)))
