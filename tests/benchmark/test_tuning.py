"""Random search: alike for every agent, the same whatever interrupts it, and its choice is what the runs say."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace

import optuna
import pytest

from agents.base import make_config
from agents.benchmark.entrants import find_agent, is_outside
from agents.benchmark.results import failure_file, open_results, place_run, run_folder
from agents.benchmark.rows import rows_text
from agents.benchmark.search_spaces import PRESETS, SPACES, LogUniform, get_preset
from agents.benchmark.suites import STANDARD_DEFAULTS, SUITES, BenchmarkError
from agents.benchmark.tuning import area, candidates, draw, search, write

FULL = get_preset("full")


def test_agents_are_searched_alike_and_not_on_what_the_suites_measure():
    assert set(SPACES) == {setting.name for setting in STANDARD_DEFAULTS} == {setting.name for setting in FULL.agents}
    assert all(6 <= len(space) <= 7 for space in SPACES.values())
    assert all("learning_rate" in space for space in SPACES.values())
    tuned_on = {setting.env_id for setting in FULL.environments}
    assert not tuned_on & {one.env_id for name in ("standard", "full") for one in SUITES[name].environments}
    played = {seed for suite in SUITES.values() for seed in suite.seeds}
    for preset in PRESETS.values():
        assert not set(preset.seeds(0)) & set(preset.seeds(1))
        assert not (set(preset.seeds(0)) | set(preset.seeds(1))) & played


@pytest.mark.parametrize("base", FULL.agents, ids=lambda base: base.name)
def test_draws(base):
    space = SPACES[base.name]
    assert draw(base.name, 0, seed=0) == {}, "the first trial is the defaults"
    drawn = [draw(base.name, number, seed=0) for number in range(1, 30)]
    for config in drawn:
        assert list(config) == list(space)
        for name, value in config.items():
            one = space[name]
            assert one.low <= value <= one.high if isinstance(one, LogUniform) else value in one
        if not is_outside(base):
            make_config(find_agent(base.agent).Config, base.config | config)
    assert len({json.dumps(config) for config in drawn}) == len(drawn)
    for name, one in space.items():  # every value of a dimension comes up
        values = {config[name] for config in drawn}
        assert len(values) > 20 if isinstance(one, LogUniform) else values == set(one)
    assert draw(base.name, 5, seed=0) == drawn[4], "whatever was drawn before"
    assert draw(base.name, 5, seed=1) != drawn[4]


def test_what_is_fixed_of_an_agent_stays():
    preset = get_preset("full", ["SB3 PPO"], trials=2)
    default, other = candidates(preset, seed=0)["SB3 PPO"]
    assert default.setting.config == {"num_envs": 16, "n_steps": 16, "learning_rate": 1e-3, "gamma": 1.0}
    assert other.setting.config["gamma"] == 1.0
    assert other.setting.config["n_epochs"] == other.drawn["n_epochs"]
    assert (default.setting.name, other.setting.name) == ("SB3 PPO trial 00", "SB3 PPO trial 01")


@pytest.fixture
def preset():
    """Four trials of two agents on two environments, whose runs never happen."""
    return replace(get_preset("full", ["PPO", "DQN"], trials=4), environments=FULL.environments[:2], finalists=1)


SPEEDS = {
    "PPO trial 00": {2000: 800.0, 2001: 300.0, 2002: 300.0},  # slow on the first seed, quick on the others
    "PPO trial 01": {2000: 500.0, 2001: 500.0, 2002: 500.0},
    "PPO trial 02": {2000: 900.0},
    "PPO trial 03": {2000: 900.0},
    "DQN trial 00": {2000: 400.0, 2001: 400.0, 2002: 400.0},
    "DQN trial 02": {2000: 200.0, 2001: 200.0, 2002: 200.0},
    "DQN trial 03": {2000: 900.0},
}  # "DQN trial 01" fails; the others of a trial are not played


@pytest.fixture
def play(synthetic_run, tmp_path):
    """Places runs of known speeds, some of them only where it is told to stop; what was asked is in ``play.asked``."""

    def call(settings):
        for setting in settings[: call.most]:
            call.asked.append((setting.agent.name, setting.seed))
            if setting.agent.name == "DQN trial 01":
                failure_file(tmp_path, setting).write_text("Traceback\nValueError: too many\n")
                continue
            speed, name = SPEEDS[setting.agent.name][setting.seed], setting.environment.name
            run = synthetic_run(name, setting.agent.name, setting.seed, speed, setting.environment.episodes)
            files = {"rows.csv": rows_text(run.rows), "settings.json": json.dumps(run.settings)}
            place_run(run_folder(tmp_path, setting), files)

    call.asked, call.most = [], 1_000
    return call


def all_settings(preset):
    return [each.setting for those in candidates(preset, 0).values() for each in those]


def test_the_best_over_all_seeds_is_chosen_and_failures_are_the_worst(preset, play, tmp_path):
    open_results(tmp_path, preset.suite(all_settings(preset), 0))
    result = search(preset, 0, tmp_path, play)
    assert result is not None
    ppo, dqn = result.trials["PPO"], result.trials["DQN"]
    assert [trial.final_score is not None for trial in ppo] == [True, True, False, False], "the best, and the defaults"
    assert ppo[1].score > ppo[0].score
    assert ppo[0].final_score > ppo[1].final_score
    assert result.chosen("PPO") is ppo[0], "the defaults did better over all seeds"
    assert result.chosen("DQN") is dqn[2]
    assert (dqn[1].score, dqn[1].failure) == (-float("inf"), "ValueError: too many")
    assert play.asked[:4] == [("PPO trial 00", 2000)] * 2 + [("DQN trial 00", 2000)] * 2, "trial by trial, all agents"
    assert {seed for name, seed in play.asked if name == "PPO trial 02"} == {2000}

    chosen_path, csv_path, tables_path, study_path = write(result, tmp_path)
    chosen = json.loads(chosen_path.read_text())
    assert chosen["PPO"] | {"score": 0, "default_score": 0, "code": 0, "commit": 0} == {
        "config": {}, "trial": 0, "score": 0, "default_score": 0, "seed": 0, "trials": 4,
        "run_seeds": [2000, 2001, 2002], "episodes": {"Reverse 3 of 6": 1_000, "PrefixLock 6 of 6": 1_000},
        "code": 0, "commit": 0,
    }  # fmt: skip
    assert chosen["PPO"]["score"] == chosen["PPO"]["default_score"] == round(ppo[0].final_score, 4)
    assert chosen["DQN"]["config"] == dqn[2].candidate.drawn
    assert chosen["DQN"]["score"] > chosen["DQN"]["default_score"]
    with csv_path.open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["agent"], row["trial"]) for row in rows if row["chosen"] == "1"] == [("PPO", "0"), ("DQN", "2")]
    assert rows[5]["failure"] == "ValueError: too many"
    assert len(rows) == 8
    text = tables_path.read_text()
    assert f"| DQN | {dqn[0].final_score:.3f} | {dqn[2].final_score:.3f} | 2 |" in text
    assert "Failed, which counts as the worst score: trial 1 (ValueError: too many)." in text
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(study_path)))
    study = optuna.load_study(study_name="DQN", storage=storage)
    assert study.best_trial.number == 2
    assert study.best_trial.params == dqn[2].candidate.drawn
    assert study.trials[1].state == optuna.trial.TrialState.FAIL


def test_it_goes_on_where_it_was_ended_and_with_more_trials(preset, play, tmp_path):
    open_results(tmp_path, preset.suite(all_settings(preset), 0))
    fewer, play.most = replace(preset, trials=3), 5
    assert search(fewer, 0, tmp_path, play) is None, "the time was over"
    play.most = 1_000
    assert search(fewer, 0, tmp_path, play) is not None
    result = search(preset, 0, tmp_path, play)
    played = [asked for asked in play.asked if asked[0] != "DQN trial 01"]
    assert len(played) == 2 * len(set(played)), "every run once, on two environments"
    assert result.chosen("DQN").candidate.number == 2
    play.asked.clear()
    assert search(preset, 0, tmp_path, play) == result
    assert set(play.asked) == {("DQN trial 01", 2000)}, "what failed is tried again, nothing else"


def test_agents_that_only_fail_are_not_written(preset, play, tmp_path):
    alone = replace(preset, agents=preset.agents[1:], trials=1)
    open_results(tmp_path, alone.suite(all_settings(alone), 0))

    def fail(settings):
        for setting in settings:
            failure_file(tmp_path, setting).write_text("MemoryError\n")

    result = search(alone, 0, tmp_path, fail)
    assert result is not None
    with pytest.raises(BenchmarkError, match=r"every finalist of DQN failed, its defaults too: MemoryError"):
        write(result, tmp_path)


def test_area_is_that_of_the_report(synthetic_run):
    run = synthetic_run(speed=500.0, budget=1_000, stop_at=2.0, batch=1)
    assert area(run) == pytest.approx(1 - 0.5 * (1 - 2.718281828**-2), abs=0.03), "∫ 1 − exp(−x / 500), x to 1,000"


def test_bad_selections_are_named():
    with pytest.raises(BenchmarkError, match=r"preset 'ful'.*Did you mean 'full'"):
        get_preset("ful")
    with pytest.raises(BenchmarkError, match=r"agent 'PP0'.*Did you mean 'PPO'"):
        get_preset("full", ["PP0"])
    with pytest.raises(BenchmarkError, match="no agents"):
        get_preset("full", [])
    with pytest.raises(BenchmarkError, match="--trials must be at least 1, got 0"):
        get_preset("full", trials=0)


def test_without_optuna_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(BenchmarkError, match=r"pip install 'textenvs\[tune\]'"):
        draw("PPO", 1, seed=0)
