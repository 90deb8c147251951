"""Our agents against Stable-Baselines3's: the grid, the choice, what the tables say of runs with known crossings."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest

from agents.benchmark.entrants import find_agent
from agents.benchmark.sb3_comparison import Outcome, describe, markdown, penalty, table, verdicts, write
from agents.benchmark.sb3_settings import PRESETS, Contestant, Section, get_sections, grid
from agents.benchmark.suites import AgentSetting, EnvironmentSetting
from agents.benchmark.summary import summarise


def test_a_grid_is_all_combinations_and_some_values_go_together():
    cells = grid(learning_rate=(1e-3, 2e-3), num_envs__epochs=((64, 4), (32, 8)))
    assert cells == (
        {"learning_rate": 1e-3, "num_envs": 64, "epochs": 4},
        {"learning_rate": 1e-3, "num_envs": 32, "epochs": 8},
        {"learning_rate": 2e-3, "num_envs": 64, "epochs": 4},
        {"learning_rate": 2e-3, "num_envs": 32, "epochs": 8},
    )
    assert describe(cells[0]) == "learning_rate=0.001, num_envs=64, epochs=4"


@pytest.mark.parametrize("preset", PRESETS)
def test_every_configuration_is_one_that_both_libraries_take_and_no_seed_is_tuned_on(preset):
    for section in get_sections(preset):
        for contestant in section.contestants:
            for cell in section.grid:
                find_agent(contestant.agent).Config(**contestant.config, **cell)
        tuning, reported = (section.suite([], tuning=tuned).seeds for tuned in (True, False))
        assert not set(tuning) & set(reported)
        assert section.contestants[0].name.startswith("our ")


def test_unknown_names():
    with pytest.raises(ValueError, match="smoke"):
        get_sections("smok")
    with pytest.raises(ValueError, match="seconds"):
        get_sections("quick", ["second"])


def test_a_configuration_is_bad_by_failures_then_by_need_then_by_score(synthetic_run):
    fast, slow, never = (
        [synthetic_run(speed=speed, budget=2_000, seed=seed) for seed in (0, 1)] for speed in (200, 700, 9_000)
    )
    worse = [synthetic_run(speed=20_000, budget=2_000, seed=seed) for seed in (0, 1)]
    order = sorted([worse, never, slow, fast], key=lambda runs: penalty(runs, "episodes"))
    assert order == [fast, slow, never, worse]
    assert penalty(fast, "episodes")[0] == 0
    assert penalty([*fast, never[0]], "episodes")[0] == 1


def outcome(runs, seeds=2):
    """A section with one environment, whose budget is 2,000 episodes."""
    ours, peer = Contestant("ours", "PPO", {}), Contestant("peer", "SB3PPO", {"network": "mlp"})
    where = EnvironmentSetting("Reverse 4 of 8", "textenvs/Reverse-v0", 2_000)
    section = Section("ppo", "A title", "episodes", (ours, peer), (), (where,), (where,), 1, seeds)
    chosen = {
        "ours": AgentSetting("ours", "PPO", {"epochs": 4}),
        "peer": AgentSetting("peer", "SB3PPO", {"network": "mlp", "epochs": 10}),
    }
    summary = summarise(runs, [where.name], ["ours", "peer"], (0.9,))
    return Outcome(section, chosen, summary, {where.name: summary})


def test_the_table_of_runs_with_known_crossings(synthetic_run, tmp_path):
    # The score is 1 − exp(−episodes / speed): 0.9 is passed at 2.303 × speed; evaluations come every 64 episodes.
    speeds = {"ours": 100.0, "peer": 400.0}
    runs = [synthetic_run(agent=agent, seed=s, speed=v, budget=2_000) for agent, v in speeds.items() for s in (0, 1)]
    played = outcome(runs)
    lines = table(played)
    assert [(line.contestant, line.needed, line.reached, line.config) for line in lines[:2]] == [
        ("ours", "256", "2/2", "epochs=4"),
        ("peer", "960", "2/2", "epochs=10"),
    ]
    assert [line.ratio for line in lines] == ["", "3.8", "3.8"]
    assert verdicts(played) == ["ours needs no more episodes than peer: met, ratio 3.8 (3.8–3.8)"]
    page = markdown([played])
    assert "| Reverse 4 of 8 | peer | 960 (960–960) | 2/2 |" in page
    paths = write([played], tmp_path)
    with paths[0].open() as file:
        assert [row["needed"] for row in csv.DictReader(file)] == ["256", "960", ""]
    assert paths[2].read_bytes().startswith(b"\x89PNG")


def test_a_run_out_of_budget_is_a_bound_and_a_miss_is_said(synthetic_run):
    slow = [synthetic_run(agent="ours", seed=s, speed=400.0, budget=2_000) for s in (0, 1)]
    never = [synthetic_run(agent="peer", seed=s, speed=9_000.0, budget=2_000) for s in (0, 1)]
    lines = table(outcome(slow + never))
    assert (lines[1].needed, lines[1].reached, lines[1].ratio) == ("> 1,984", "0/2", "≥ 2.1")
    assert lines[1].score.startswith("0.20")
    quick = [replace_agent(run, "peer") for run in (synthetic_run(seed=s, speed=100.0, budget=2_000) for s in (0, 1))]
    assert verdicts(outcome(slow + quick)) == [
        "ours needs no more episodes than peer: MISSED, ratio 0.27 (0.27–0.27); the median is higher on Reverse 4 of 8"
    ]
    neither = never + [replace_agent(run, "ours") for run in never]
    assert verdicts(outcome(neither)) == [
        "ours needs no more episodes than peer: undecided: neither ever got there, ratio unknown"
    ]


def replace_agent(run, name):
    return replace(run, rows=tuple(replace(row, agent=name) for row in run.rows))
