"""The experiments on the trade-off: who takes part, what a run leaves behind, and what is made of it."""

import json

import numpy as np
import pytest

from agents.benchmark.analyse import Estimate
from agents.benchmark.suites import BenchmarkError, EnvironmentSetting, RunSetting
from agents.benchmark.tradeoff import (
    PRESETS,
    dqn,
    get_environments,
    get_preset,
    play,
    ppo,
    read_run,
    run_file,
    run_settings,
)
from agents.benchmark.tradeoff_report import Line, draw_reuse, draw_steps, markdown, measure, value_text

ENVIRONMENT = EnvironmentSetting("Reverse 2 of 4", "textenvs/Reverse-v0", 160, {"length": 2, "num_symbols": 4})
LOCK = EnvironmentSetting("PrefixLock 3 of 3", "textenvs/PrefixLock-v0", 64, {"length": 3, "num_symbols": 3})


def setting(agent, environment=ENVIRONMENT, seed=0):
    return RunSetting(environment, agent, seed, None, 0.0, 16)


def without_seconds(path):
    return {name: value for name, value in json.loads(path.read_text()).items() if name != "seconds"}


# -- who takes part ----------------------------------------------------------------------------------------------------


def test_equal_configs_are_one_agent():
    assert ppo().name == ppo(age=0, importance_ratio=True).name == ppo(epochs=4).name == "PPO"
    assert ppo(age=2, importance_ratio=False).name == "PPO age=2 importance_ratio=0"
    assert ppo(epochs=16).config == {"num_envs": 32, "target_kl": None, "epochs": 16}
    preset = PRESETS["full"]
    assert len(preset.points) == 2 * 5 + 5 + 8 + 2 * 8
    settings = run_settings(preset, preset.environments, seeds=2)
    # The usual PPO is on all three figures, and is played once.
    assert len(settings) == len({(s.environment.name, s.agent.name, s.seed) for s in settings}) == 2 * 2 * 37
    assert [s.seed for s in settings] == [0] * 74 + [1] * 74


@pytest.mark.parametrize(
    ("ratio", "window", "steps"), [(0.25, 128, 1), (0.5, 64, 1), (1, 32, 1), (2, 16, 1), (4, 16, 2), (32, 16, 16)]
)
def test_replay_ratios(ratio, window, steps):
    """Texts of a minibatch x gradient steps, for each text of a window."""
    config = dqn(ratio).config
    assert config == {"num_envs": window, "updates_per_window": steps, "batch_size": 32}
    assert 32 * steps / window == ratio


@pytest.mark.parametrize("ratio", [3, 1.5, 0.3])
def test_replay_ratios_that_no_whole_number_of_steps_gives(ratio):
    with pytest.raises(ValueError, match=f"2 divided by an integer; got {ratio}"):
        dqn(ratio)


# -- a run -------------------------------------------------------------------------------------------------------------


def test_a_run_goes_on_until_so_many_texts_are_learnt_from(tmp_path):
    stale = setting(ppo(age=2))
    play(stale, tmp_path)
    result = read_run(tmp_path, stale)
    assert [look["texts"] for look in result["evaluations"]] == [0, 32, 64, 96, 128, 160]
    assert [look["written"] for look in result["evaluations"]] == [0, 96, 128, 160, 192, 224]
    assert {name: len(values) for name, values in result["updates"].items()} == dict.fromkeys(result["updates"], 5)
    assert result["gradient_samples"] == 160 * 2 * 4
    assert result["timesteps"] == 224 * 2
    again = tmp_path / "again"
    play(stale, again)
    assert without_seconds(run_file(again, stale)) == without_seconds(run_file(tmp_path, stale))


def test_dqn_uses_every_token_as_often_as_it_is_told(tmp_path):
    run = setting(dqn(4))
    play(run, tmp_path)
    result = read_run(tmp_path, run)
    # Nothing is learnt before there are 64 texts: 7 of the 10 windows, of two steps with 32 texts of two tokens each.
    assert result["gradient_samples"] == 7 * 2 * 32 * 2
    assert result["timesteps"] == 160 * 2
    assert result["updates"] == {"approx_kl": [], "clipfrac": [], "kl": [], "moved": []}


def test_a_task_without_prompts_hides_another_thing_from_every_seed(tmp_path):
    for seed in (0, 1):
        play(setting(ppo(), LOCK, seed), tmp_path)
    first, second = (read_run(tmp_path, setting(ppo(), LOCK, seed)) for seed in (0, 1))
    assert [look["texts"] for look in first["evaluations"]] == [0, 32, 64]
    assert first["evaluations"] != second["evaluations"]


def test_a_damaged_run_is_named_with_the_way_out(tmp_path):
    run = setting(ppo(epochs=1), LOCK)
    play(run, tmp_path)
    path = run_file(tmp_path, run)
    text = path.read_text()
    path.write_text(text[:100])
    with pytest.raises(BenchmarkError, match=r"PPO-epochs-1__0\.json cannot be read.*Delete .* and start"):
        read_run(tmp_path, run)
    path.write_text(text.replace('"epochs": 1', '"epochs": 2'))
    with pytest.raises(BenchmarkError, match="holds another run than PPO epochs=1 on PrefixLock 3 of 3, seed 0"):
        read_run(tmp_path, run)


def test_unknown_names():
    with pytest.raises(BenchmarkError, match=r"Unknown preset 'ful'\. Did you mean 'full'"):
        get_preset("ful")
    with pytest.raises(BenchmarkError, match=r"Unknown environment 'Reverse 3'\. Did you mean 'Reverse 3 of 6'"):
        get_environments(PRESETS["full"], ["Reverse 3"])
    with pytest.raises(BenchmarkError, match="no environments were selected"):
        get_environments(PRESETS["full"], [])
    assert [each.name for each in get_environments(PRESETS["full"], ["PrefixLock 6 of 6"])] == ["PrefixLock 6 of 6"]


# -- what is made of runs ----------------------------------------------------------------------------------------------


def test_measures_of_a_run():
    result = {
        "texts": 100,
        "evaluations": [
            {"texts": 0, "written": 0, "sampled": 0.0, "greedy": 0.1},
            {"texts": 50, "written": 75, "sampled": 0.4, "greedy": 0.7},
            {"texts": 100, "written": 125, "sampled": 0.8, "greedy": 1.0},
        ],
        "updates": {"kl": [0.1, 0.3], "moved": [0.5, 0.7], "approx_kl": [], "clipfrac": [0.2]},
        "gradient_samples": 600,
        "timesteps": 250,
        "seconds": 1.5,
    }
    measured = measure(result)
    assert np.isnan(measured.pop("approx_kl"))
    assert measured == pytest.approx(
        {
            "area": 0.5 * 0.0 + 0.5 * 0.4,
            "greedy_area": 0.5 * 0.1 + 0.5 * 0.7,
            "written_area": 0.75 * 0.0 + 0.25 * 0.4,
            "final": 0.8,
            "kl": 0.2,
            "moved": 0.6,
            "clipfrac": 0.2,
            "data_use": 2.4,
            "seconds": 1.5,
        }
    )


def test_values_in_words():
    assert value_text(Estimate(0.8123, 0.78, 0.839, 5)) == "0.81 (0.78–0.84)"
    assert value_text(Estimate(0.8123, np.nan, np.nan, 1)) == "0.81"
    assert value_text(Estimate(0.00123, 0.001, 0.002, 5), 3) == "0.001 (0.001–0.002)"
    assert value_text(Estimate(np.nan, np.nan, np.nan, 5)) == "–"


def lines():
    """Two points on each curve of the smoke preset, whose area is x / 100 and whose other measures are 0.5."""
    half = dict.fromkeys(
        ("final", "greedy_area", "written_area", "kl", "moved", "approx_kl", "clipfrac", "data_use", "seconds"),
        Estimate(0.5, 0.4, 0.6, 2),
    )
    return [
        Line(point.experiment, "Reverse 2 of 4", point.series, point.x, half | {"area": Estimate(x, x, x, 2)})
        for point in PRESETS["smoke"].points
        for x in [point.x / 100]
    ]


def test_tables():
    text = markdown(lines())
    assert text.count("\n## ") + text.startswith("## ") == 3
    assert "| Reverse 2 of 4 | PPO, epochs | 4 | 0.04 (0.04–0.04) | 0.50 (0.40–0.60) |" in text
    assert "| Reverse 2 of 4 | without | 1 | 0.01 (0.01–0.01) |" in text
    assert sum(line.startswith("| Reverse") for line in text.splitlines()) == len(PRESETS["smoke"].points) == 12


def curves(axes):
    return {
        line.get_label(): list(map(tuple, line.get_xydata())) for line in axes.get_lines() if len(line.get_xdata()) == 2
    }


def test_figures_show_every_curve_where_it_belongs():
    ages, ends, reuse = draw_reuse(lines()).axes
    assert curves(ages)["without"] == [(0, 0.0), (1, 0.01)]
    assert curves(ends)["without"] == [(0, 0.5), (1, 0.5)]
    assert ends.get_legend() is None
    assert curves(reuse)["PPO, epochs"] == [(1, 0.01), (4, 0.04)]
    assert curves(reuse)["DQN, replay ratio"] == [(1, 0.01), (4, 0.04)]
    assert [text.get_text() for text in reuse.get_legend().get_texts()] == ["PPO, epochs", "DQN, replay ratio"]
    assert ages.get_title(loc="left") == "Reverse 2 of 4"
    panels = draw_steps(lines()).axes
    assert [axes.get_xscale() for axes in panels] == ["log"] * 4
    assert [axes.get_yscale() for axes in panels] == ["linear", "linear", "log", "linear"]
    assert curves(panels[2])["not clipped"] == [(1e-3, 0.5), (1e-2, 0.5)]
