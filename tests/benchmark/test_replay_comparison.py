"""ReturnDecomposition against tuned PPO: the grid, the rounds of tuning, what the tables say of known crossings."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest

from agents.benchmark import replay_comparison
from agents.benchmark.entrants import find_agent
from agents.benchmark.replay_comparison import Outcome, choose, markdown, table, verdict, write
from agents.benchmark.replay_settings import ADDITIVE, LIMITS, OURS, PRESETS, TUNED, Section, get_sections
from agents.benchmark.run import check
from agents.benchmark.suites import AgentSetting, EnvironmentSetting, RunSetting
from agents.benchmark.summary import summarise

WHERE = EnvironmentSetting("Reverse 4 of 8", "textenvs/Reverse-v0", 2_000)


def test_ppo_is_tuned_over_a_real_grid_on_seeds_of_its_own():
    additive, *_ = get_sections("full", ["additive"])
    cells = [find_agent("PPO").Config(**cell) for cell in additive.grid]
    assert len(set(map(repr, cells))) == len(additive.grid) >= 12
    for section in get_sections("full"):
        assert not {*section.first_round(), *section.second_round()} & set(range(section.seeds))
        assert section.ours.config == {}  # one setting, the defaults
        assert section.seeds >= 5


@pytest.mark.parametrize("environment", [*ADDITIVE, *LIMITS], ids=lambda each: each.name)
def test_every_environment_can_be_played(environment):
    check(RunSetting(environment, OURS, 0, 0.9, 0.05, 8))


def test_unknown_names():
    with pytest.raises(ValueError, match="smoke"):
        get_sections("smok")
    with pytest.raises(ValueError, match="limits"):
        get_sections("full", ["limit"])
    assert [section.name for section in get_sections("smoke")] == list(name.name for name in PRESETS["full"])


def test_finalists_go_on_and_the_best_over_all_seeds_is_chosen(monkeypatch, tmp_path, synthetic_run):
    """The fastest on the first seed fails later; the second fastest is chosen; the slowest plays one seed only."""
    played = []

    def play(suite, folder, tell):
        runs = []
        for agent in suite.agents:
            for seed in suite.seeds:
                played.append((agent.config["epochs"], seed))
                speed = {1: 100.0 if seed == 1_000 else 9_000.0, 2: 200.0, 3: 700.0}[agent.config["epochs"]]
                runs.append(synthetic_run(agent=agent.name, seed=seed, speed=speed, budget=2_000))
        return runs

    monkeypatch.setattr(replay_comparison, "play_suite", play)
    grid = ({"epochs": 1}, {"epochs": 2}, {"epochs": 3})
    section = Section("additive", "A title", (WHERE,), grid, finalists=2, tuning_seeds=3, seeds=5)
    assert choose(section, WHERE, tmp_path, print).config == {"epochs": 2}
    assert played == [(1, 1000), (2, 1000), (3, 1000), (1, 1001), (1, 1002), (2, 1001), (2, 1002)]
    assert choose(replace(section, tuning_seeds=1), WHERE, tmp_path, print).config == {"epochs": 1}


def outcome(synthetic_run, ours, ppo):
    """Two seeds on one environment; the score is 1 − exp(−episodes / speed)."""
    runs = [
        synthetic_run(agent=agent, seed=seed, speed=speed, budget=2_000)
        for agent, speed in ((OURS.name, ours), (TUNED, ppo))
        for seed in (0, 1)
    ]
    section = Section("additive", "A title", (WHERE,), ({"epochs": 4},), 1, 1, 2)
    summary = summarise(runs, [WHERE.name], [OURS.name, TUNED], (0.9,))
    chosen = {WHERE.name: AgentSetting("epochs=4", "PPO", {"epochs": 4})}
    return Outcome(section, chosen, summary, {WHERE.name: summary})


def test_the_table_of_runs_with_known_crossings(synthetic_run, tmp_path):
    # 0.9 is passed at 2.303 × speed; evaluations come every 64 episodes.
    played = outcome(synthetic_run, 100.0, 400.0)
    lines = table(played)
    assert [(line.environment, line.agent, line.needed, line.reached, line.config) for line in lines] == [
        ("Reverse 4 of 8", "ReturnDecomposition", "256", "2/2", "defaults"),
        ("Reverse 4 of 8", "PPO, tuned", "960", "2/2", "epochs=4"),
        ("all", "PPO, tuned", "", "", ""),
    ]
    assert [line.episodes_ratio for line in lines] == ["", "3.8", "3.8"]
    assert "needs 3.8 (3.8–3.8) times the episodes" in verdict(played)
    assert verdict(played).endswith("; PPO needs fewer on none of them.")
    assert "| Reverse 4 of 8 | PPO, tuned | 960 (960–960) | 2/2 |" in markdown([played])
    paths = write([played], tmp_path)
    with paths[0].open() as file:
        assert [row["needed"] for row in csv.DictReader(file)] == ["256", "960", ""]
    assert paths[2].name == "curves-additive.png"
    assert paths[2].read_bytes().startswith(b"\x89PNG")


def test_where_ppo_needs_fewer_it_is_said(synthetic_run):
    played = outcome(synthetic_run, 400.0, 100.0)
    assert "needs 0.27 (0.27–0.27) times the episodes" in verdict(played)
    assert verdict(played).endswith("; PPO needs fewer on Reverse 4 of 8.")
    assert table(outcome(synthetic_run, 400.0, 9_000.0))[1].episodes_ratio.startswith("≥")
