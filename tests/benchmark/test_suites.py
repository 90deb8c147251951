"""What is run: presets, selections, and errors that help."""

import json
from dataclasses import replace

import gymnasium as gym
import pytest

import agents
from agents.benchmark.entrants import find_agent, is_outside
from agents.benchmark.results import run_name
from agents.benchmark.run import check
from agents.benchmark.suites import (
    STANDARD_AGENTS,
    STANDARD_DEFAULTS,
    SUITES,
    TUNED,
    AgentSetting,
    BenchmarkError,
    EnvironmentSetting,
    get_suite,
    run_settings,
    select,
    suite_settings,
)
from agents.benchmark.tuning import draw


@pytest.mark.parametrize("name", SUITES)
def test_presets_are_sound(name):
    suite = get_suite(name)
    assert suite.name == name
    settings = run_settings(suite)
    assert len({run_name(setting) for setting in settings}) == len(settings), "names of folders are distinct"
    assert json.loads(json.dumps(suite_settings(suite))) == suite_settings(suite), "pure data"
    environments = {setting.environment.name: setting for setting in settings}
    known = [setting for setting in suite.agents if is_outside(setting) or hasattr(agents, setting.agent)]
    assert {"PPO", "DQN"} <= {setting.name for setting in known}
    for setting in environments.values():
        check(replace(setting, agent=known[0]))
    for agent in known:
        check(replace(settings[0], agent=agent))


def test_standard_is_large_enough_and_has_nothing_that_anybody_tuned_on():
    standard, full = get_suite("standard"), get_suite("full")
    assert len(standard.environments) >= 10
    assert len(standard.agents) >= 8
    assert (len(standard.seeds), len(full.seeds)) == (5, 10)
    assert any(setting.agent == "stable_baselines3:PPO" for setting in standard.agents)
    assert {setting.name for setting in standard.agents} < {setting.name for setting in full.agents}
    tuned_on = {setting.env_id for setting in get_suite("quick").environments}
    assert not tuned_on & {setting.env_id for setting in full.environments}
    for suite in (standard, full):
        assert {setting.kind for setting in suite.agents} >= {"on-policy", "replay"}
        assert suite.stop_at == max(suite.thresholds) == 0.9
    for setting in standard.environments:
        task = gym.make(setting.env_id, **setting.kwargs).unwrapped.task
        assert not task.has_masks, "Stable-Baselines3's PPO has none"


def test_standard_plays_with_what_tuning_chose_alike_for_all():
    assert [setting.name for setting in STANDARD_AGENTS] == [setting.name for setting in STANDARD_DEFAULTS]
    assert set(TUNED) == {setting.name for setting in STANDARD_DEFAULTS}
    for setting, default in zip(STANDARD_AGENTS, STANDARD_DEFAULTS, strict=True):
        entry = TUNED[setting.name]
        assert setting == replace(default, config=entry["config"])
        assert entry["score"] >= entry["default_score"]
        drawn = draw(setting.name, entry["trial"], entry["seed"])
        assert setting.config == default.config | drawn, "scripts/tune.py draws it again"
    for name in ("seed", "trials", "run_seeds", "episodes", "code"):
        assert len({str(entry[name]) for entry in TUNED.values()}) == 1, f"all agents have the same {name}"
    assert get_suite("quick").agents == (STANDARD_DEFAULTS[0], STANDARD_DEFAULTS[4]), "quick plays with defaults"


def test_quick_is_what_the_quickstart_promises():
    suite = get_suite("quick")
    assert [setting.name for setting in suite.agents] == ["PPO", "DQN"]
    assert (len(suite.environments), len(suite.seeds)) == (3, 3)
    assert (suite.thresholds, suite.growth, suite.evaluation_episodes) == ((0.5, 0.9), 0.05, 256)


def test_unknown_names_are_answered_with_the_known_and_the_nearest(tiny):
    with pytest.raises(BenchmarkError, match=r"preset 'quik'.*'quick'.*smoke"):
        get_suite("quik")
    with pytest.raises(BenchmarkError, match=r"agent 'PP0'.*'PPO'.*random"):
        select(tiny, agents=["PP0"])
    with pytest.raises(BenchmarkError, match=r"environment 'Copi'.*'Copy'.*HiddenTarget"):
        select(tiny, environments=["Copi"])
    with pytest.raises(BenchmarkError, match=r"agent 'PPOO'.*'PPO'.*RandomAgent"):
        find_agent("PPOO")


def test_what_cannot_be_run_is_said_before_anything_is_run(tiny):
    setting = run_settings(tiny)[0]
    bad_agent = replace(setting, agent=AgentSetting("PPO", "PPO", {"learning_rat": 1.0}))
    with pytest.raises(BenchmarkError, match=r"PPO on HiddenTarget, seed 0 cannot be run.*learning_rate"):
        check(bad_agent)
    for environment, message in (
        (EnvironmentSetting("x", "textenvs/Copi-v0", 10), "Copi"),
        (EnvironmentSetting("x", "textenvs/Copy-v0", 10, {"length": 0}), "length"),
        (EnvironmentSetting("x", "textenvs/Copy-v0", 10, {"length": 1, "num_symbols": 2}), "test split"),
    ):
        with pytest.raises(BenchmarkError, match=message):
            check(replace(setting, environment=environment))


def test_select(tiny):
    part = select(tiny, ["Copy"], ["PPO", "PPO"], [7, 7, 3])
    assert [s.name for s in part.environments] == ["Copy"]
    assert [s.name for s in part.agents] == ["PPO"]
    assert part.seeds == (7, 3)
    assert select(get_suite("quick"), ["Reverse"]) == select(get_suite("quick"), ["textenvs/Reverse-v0"])
    assert select(tiny) == tiny
    with pytest.raises(BenchmarkError, match="negative"):
        select(tiny, seeds=[-1])
    with pytest.raises(BenchmarkError, match="no seeds"):
        select(tiny, seeds=[])


def test_every_agent_is_compared_before_the_next_seed(tiny):
    assert [setting.seed for setting in run_settings(tiny)] == [0] * 6 + [1] * 6
