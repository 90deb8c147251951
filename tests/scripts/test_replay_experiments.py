"""scripts/demonstrations.py and scripts/reward_swap.py: what they write, that they go on, what they compare."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from agents import DQN, PPO, OracleAgent
from agents.experiments import crossing, episodes_text, learn_until, median_of

ROOT = Path(__file__).resolve().parents[2]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{name}_script", ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def demonstrations() -> ModuleType:
    return load("demonstrations")


@pytest.fixture(scope="module")
def reward_swap() -> ModuleType:
    return load("reward_swap")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# -- what both share ---------------------------------------------------------------------------------------------------


def test_episodes_to_a_score_are_those_of_the_first_of_two_evaluations_in_a_row() -> None:
    scores = iter([0.0, 0.95, 0.5, 0.9, 0.92, 1.0])
    agent = OracleAgent("textenvs/Copy-v0", env_kwargs={"length": 2}, num_envs=4)
    agent.learn(8)  # episodes from before do not count
    curve, seconds = learn_until(agent, lambda: next(scores), 0.9, 1_000)
    assert curve == [(0, 0.0), (4, 0.95), (8, 0.5), (12, 0.9), (16, 0.92)]
    assert crossing(curve, 0.9) == (12, True)
    assert seconds > 0
    curve, _ = learn_until(agent, lambda: 0.5, 0.9, 40, growth=0.5)
    assert [episodes for episodes, _ in curve] == [0, 4, 8, 12, 20, 32, 40]  # half as many again, and the last
    assert crossing(curve, 0.9) == (40, False)
    assert learn_until(agent, lambda: 1.0, 0.9, 1_000)[0] == [(0, 1.0), (4, 1.0)]


def test_medians_of_runs_that_may_not_arrive() -> None:
    assert median_of([(100, True), (300, True), (200, True)]).value == 200
    assert episodes_text(median_of([(100, True)]), 500) == "100"
    assert episodes_text(median_of([(500, False), (500, False)]), 500) == "> 500"
    assert episodes_text(median_of([(100, True), (200, True), (500, False)]), 500) == "200 (100–> 500)"


# -- demonstrations ----------------------------------------------------------------------------------------------------


def test_demonstrations_are_written_and_kept(
    demonstrations: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = demonstrations.Args(preset="smoke", out=tmp_path / "out")
    demonstrations.main(args)
    said = capsys.readouterr()
    assert "4 runs, 0 finished before" in said.err
    rows = rows_of(tmp_path / "out" / "demonstrations.csv")
    conditions = {"0", "40 oracle", "40 half-trained"}
    assert {(row["agent"], row["demonstrations"]) for row in rows} == {("PPO", "0"), *product(["DQN"], conditions)}
    by_condition = {row["demonstrations"]: row for row in rows if row["agent"] == "DQN"}
    assert float(by_condition["40 oracle"]["demonstration_score"]) == 1.0
    assert 0.3 < float(by_condition["40 half-trained"]["demonstration_score"]) < 1.0
    assert by_condition["0"]["offline_score"] == ""
    for row in rows:
        assert f"| {row['task']} | {row['agent']} | {row['demonstrations']} |" in said.out
    assert (tmp_path / "out" / "demonstrations.png").stat().st_size > 10_000

    broken = next((tmp_path / "out" / "runs").glob("*dqn--40-oracle*"))
    kept = json.loads(broken.read_text())
    broken.unlink()
    demonstrations.main(args)
    assert "4 runs, 3 finished before" in capsys.readouterr().err
    again = json.loads(broken.read_text())
    assert again["curve"] == kept["curve"]
    assert again["offline_score"] == kept["offline_score"]
    assert again["gradient_steps"] == kept["gradient_steps"] > demonstrations.PRESETS["smoke"].offline_updates
    with pytest.raises(SystemExit, match="results of other settings"):
        demonstrations.main(demonstrations.Args(preset="quick", out=tmp_path / "out"))
    with pytest.raises(SystemExit, match="--seeds must be at least 1"):
        demonstrations.main(demonstrations.Args(seeds=0))


def test_only_replay_agents_are_given_demonstrations(demonstrations: ModuleType) -> None:
    for preset in demonstrations.PRESETS.values():
        for entrant in demonstrations.ENTRANTS:
            several = len(demonstrations.conditions_of(entrant, preset)) > 1
            assert several == (entrant.kind is not PPO)


# -- the judge changes -------------------------------------------------------------------------------------------------


def test_swaps_are_written_and_kept(
    reward_swap: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = reward_swap.Args(preset="smoke", out=tmp_path / "out")
    reward_swap.main(args)
    said = capsys.readouterr()
    assert "2 runs, 0 finished before" in said.err
    rows = rows_of(tmp_path / "out" / "reward_swap.csv")
    assert [(row["agent"], row["how"]) for row in rows] == [
        ("PPO", "before"),
        ("PPO", "goes on"),
        ("PPO", "from scratch"),
        ("DQN", "before"),
        ("DQN", "judges anew"),
        ("DQN", "keeps old scores"),
        ("DQN", "from scratch"),
    ]
    assert {row["goal"] for row in rows} == {"0.9"}
    assert "| copy, then backwards | DQN | judges anew |" in said.out
    assert (tmp_path / "out" / "reward_swap.png").stat().st_size > 10_000
    reward_swap.main(args)
    assert "2 runs, 2 finished before" in capsys.readouterr().err
    assert rows_of(tmp_path / "out" / "reward_swap.csv") == rows


def test_the_best_possible_score_is_found(reward_swap: ModuleType) -> None:
    preset = reward_swap.Preset((), (), 2, 1, 1, 1)
    swaps = {swap.name: swap for swap in reward_swap.SWAPS}

    def best(name: str, reward: Any, seed: int = 3) -> float:
        swap = swaps[name]
        kwargs = reward_swap.env_kwargs_of(swap, preset, seed)
        return reward_swap.Examination(swap.env_id, kwargs, reward, seed=7).best()

    assert best("copy, then backwards", reward_swap.copied) == 1.0
    assert best("another hidden text", reward_swap.one_further) == 1.0
    weights = swaps["other weights of a sum"]
    # 1 for a palindrome, else 0.75: what is right for one part is wrong for the other, in both places.
    value = best("other weights of a sum", weights.after)
    assert value == best("other weights of a sum", weights.before)
    assert 0.75 <= value < 1
    assert ((value - 0.75) * 4 * 64) % 1 == pytest.approx(0, abs=1e-4)


def test_judges_of_the_swaps(reward_swap: ModuleType) -> None:
    assert reward_swap.copied(["012", "345"], ["012", "315"]) == [1.0, pytest.approx(2 / 3)]
    assert reward_swap.one_further(["123", "050"], ["012", "543"]) == [1.0, pytest.approx(2 / 3)]


def test_a_replay_agent_judges_anew_or_not_and_goes_on_from_the_same_weights(
    reward_swap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, np.ndarray, bytes]] = []
    set_reward = DQN.set_reward

    def spy(self: DQN, reward: Any, *, rescore: bool = True) -> None:
        weights = self.parameters.detach().numpy().tobytes()
        before = self.replay.scores
        set_reward(self, reward, rescore=rescore)
        seen.append((rescore, self.replay.scores - before, weights))

    monkeypatch.setattr(DQN, "set_reward", spy)
    swap = reward_swap.SWAPS[0]
    entrant = next(entrant for entrant in reward_swap.ENTRANTS if entrant.name == "DQN")
    result = reward_swap.play(swap, entrant, 0, reward_swap.Preset((swap.name,), ("DQN",), 2, 80, 1, 2))
    (first, changed, weights), (second, same, weights_again) = seen
    assert (first, second) == (True, False)
    assert changed.any()
    assert not same.any()
    assert weights == weights_again
    assert set(result["curves"]) == {"before", "judges anew", "keeps old scores", "from scratch"}
    assert result["goals"] == {"before": 0.9, "after": 0.9}
