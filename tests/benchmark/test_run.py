"""One run: when it evaluates, when it stops, what it counts, and that its seed decides everything."""

import contextlib
from dataclasses import replace
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from agents import PPO, evaluate_agent
from agents.benchmark.accounting import Accounting
from agents.benchmark.results import is_finished, run_folder
from agents.benchmark.rows import TIMES, Row, read_run
from agents.benchmark.run import Recorder, check, next_evaluation, play
from agents.benchmark.suites import run_settings, select


def played(setting, out):
    play(setting, out)
    return read_run(run_folder(out, setting))


def without_times(rows: tuple[Row, ...]) -> list[Row]:
    cleared = [replace(row, **dict.fromkeys(TIMES, 0.0)) for row in rows]
    return [replace(cleared[0], sampled_score=0.0, normalised_sampled=0.0), *cleared[1:]]  # NaN is not NaN


def test_evaluations_come_every_five_percent():
    given = (0, 1, 16, 20, 21, 100, 101, 1_000)
    assert [next_evaluation(n, 0.05) for n in given] == [1, 2, 17, 21, 23, 105, 107, 1_050]


class Script:
    """An environment and an agent that do nothing but count, with evaluations that are written down
    beforehand.
    """

    def __init__(self, setting, scores):
        self.scores, self.episodes, self.timesteps, self.gradient_samples = iter(scores), 0, 0, 0
        self.reward_calls, self.distinct_texts, self.seconds = 0, 0, 0.0
        self.unwrapped = SimpleNamespace(task=SimpleNamespace(random_score=0.0, optimum=2.0))
        self.recorder = Recorder(setting, self, self, self.evaluate, lambda _: None)

    def evaluate(self):
        return SimpleNamespace(mean_score=next(self.scores))

    def take_mean_score(self):
        return 0.5

    def start(self):
        pass

    @contextlib.contextmanager
    def paused(self):
        yield

    def learn(self, episodes_of_a_batch):
        going_on = True
        while going_on:
            self.episodes += episodes_of_a_batch
            self.timesteps += 3 * episodes_of_a_batch
            going_on = self.recorder(self)
        return self.recorder.rows


def test_a_run_stops_once_the_score_is_confirmed(tiny):
    setting = run_settings(tiny)[0]  # budget 300, stops at 0.9
    script = Script(setting, [0.0, 1.8, 0.4, 1.79, 1.8, 1.8, 9.9])
    rows = script.learn(20)
    assert [row.episodes for row in rows] == [0, 20, 40, 60, 80, 100]
    assert [row.timesteps for row in rows] == [0, 60, 120, 180, 240, 300]
    assert [row.normalised_greedy for row in rows] == [0.0, 0.9, 0.2, 0.895, 0.9, 0.9]
    assert script.recorder.solved


def test_a_run_stops_at_its_budget_with_a_last_evaluation(tiny):
    script = Script(run_settings(tiny)[0], [0.0] * 100)
    rows = script.learn(7)
    assert rows[-1].episodes == 301
    assert not script.recorder.solved
    steps = np.diff([row.episodes for row in rows[:-1]])
    assert all(steps >= 7), "at most one evaluation a batch"
    assert all(steps < 7 + 0.05 * 301)


def test_without_a_score_to_stop_at_it_goes_on(tiny):
    script = Script(replace(run_settings(tiny)[0], stop_at=None), [2.0] * 100)
    assert script.learn(20)[-1].episodes == 300


def test_floor_and_ceiling(tiny, tmp_path):
    """Random play comes out at 0, the oracle at 1: what lies between is worth measuring."""
    for setting in run_settings(select(tiny, agents=["random", "oracle"], seeds=[0])):
        run = played(replace(setting, evaluation_episodes=256), tmp_path)
        if setting.agent.name == "oracle":
            assert [row.greedy_score for row in run.rows] == [run.settings["task"]["optimum"]] * 2
            assert run.rows[-1].normalised_sampled == 1.0
            assert run.solved
        else:
            assert not run.solved
            sampled = [row.normalised_sampled for row in run.rows[1:]]
            assert abs(np.mean(sampled)) < 0.1
            assert run.rows[-1].episodes >= 300


def test_the_environment_counts_what_the_agent_counts(tmp_path):
    envs = Accounting(gym.make_vec("textenvs/Reverse-v0", num_envs=8, vectorization_mode="vector_entry_point"))
    agent = PPO(envs, width=16, num_layers=1)
    scores = []
    agent.learn(200, callback=lambda agent: scores.append(envs.take_mean_score()))
    assert (envs.timesteps, envs.episodes) == (agent.num_timesteps, agent.num_episodes)
    assert np.isfinite(scores).all()
    assert np.isnan(envs.take_mean_score()), "nothing since"
    assert scores[-1] == pytest.approx(agent.metrics["charts/episodic_return"], abs=1e-6)


def test_accounting_refuses_modes_in_which_steps_write_nothing():
    envs = gym.make_vec(
        "textenvs/Copy-v0",
        num_envs=2,
        vectorization_mode="vector_entry_point",
        autoreset_mode=AutoresetMode.NEXT_STEP,
    )
    with pytest.raises(ValueError, match="SAME_STEP"):
        Accounting(envs)


def test_a_run_is_decided_by_its_settings(tiny, tmp_path):
    part = select(tiny, agents=["PPO"])
    for setting in run_settings(select(part, seeds=[0])):
        run, again = played(setting, tmp_path / "a"), played(setting, tmp_path / "b")
        other = played(replace(setting, seed=1), tmp_path / "a")
        assert without_times(run.rows) == without_times(again.rows)
        assert [row.greedy_score for row in run.rows] != [row.greedy_score for row in other.rows]


def test_what_a_run_is_evaluated_on(tiny, tmp_path, monkeypatch):
    """Held-out prompts, the same for every agent of a seed; where there are none, one episode of the run's
    own task.
    """
    asked = []

    def evaluate(agent, env_id, **options):
        asked.append((env_id, options))
        return evaluate_agent(agent, env_id, **options)

    monkeypatch.setattr("agents.benchmark.run.evaluate_agent", evaluate)
    for setting in run_settings(select(tiny, agents=["oracle"])):
        asked.clear()
        run = played(setting, tmp_path)
        assert len(asked) == len(run.rows) == 2
        options = {"split": "train", "num_episodes": 1, "seed": 100_000 * setting.seed + 50_000}
        kwargs = dict(setting.environment.kwargs)
        if setting.environment.name == "Copy":
            options |= {"split": "test", "num_episodes": 16}
        else:
            kwargs["task_seed"] = setting.seed
        assert asked == [(setting.environment.env_id, {**options, "env_kwargs": kwargs})] * 2
        assert run.settings["env_kwargs"] == kwargs


def test_settings_say_where_rows_come_from_and_nothing_private(tiny, tmp_path):
    setting = run_settings(select(tiny, agents=["PPO"]))[0]
    settings = played(setting, tmp_path).settings
    assert settings["config"]["num_envs"] == 16
    assert settings["config"]["learning_rate"] > 0, "defaults are written out"
    assert set(settings["machine"]) == {"cores", "processor", "system"}
    assert {"python", "torch", "numpy", "gymnasium", "textenvs"} <= set(settings["versions"])
    text = (run_folder(tmp_path, setting) / "settings.json").read_text()
    assert str(tmp_path) not in text


def test_a_run_that_breaks_leaves_nothing_behind(tiny, tmp_path):
    setting = run_settings(tiny)[0]
    check(setting)

    def fail(_):
        raise RuntimeError("stopped half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        play(setting, tmp_path, fail)
    assert not is_finished(tmp_path, setting)
    assert list(tmp_path.rglob("*")) == []


def test_evaluations_do_not_count_as_time(tiny, monkeypatch):
    import agents.benchmark.accounting as module

    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock.now)
    envs = Accounting(
        gym.make_vec("textenvs/Copy-v0", num_envs=2, vectorization_mode="vector_entry_point"), lambda: clock.now
    )

    def slow_evaluation():
        clock.now += 1_000.0
        return SimpleNamespace(mean_score=0.125)

    agent = SimpleNamespace(gradient_samples=0)
    recorder = Recorder(run_settings(tiny)[0], agent, envs, slow_evaluation, lambda _: None)
    for _ in range(3):
        clock.now += 2.0
        envs.episodes += 20
        recorder(agent)
    assert [row.seconds for row in recorder.rows] == [0.0, 2.0, 4.0, 6.0]
    assert recorder.evaluation_seconds == 4_000.0
