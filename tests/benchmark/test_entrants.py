"""Agents of other people: by name, with the same counts as our own, and with errors that say what is wrong."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest

from agents.benchmark.accounting import Accounting, text_hashes
from agents.benchmark.entrants import describe_outside, make_entrant, num_envs_of
from agents.benchmark.results import run_folder
from agents.benchmark.rows import read_run
from agents.benchmark.run import check, play
from agents.benchmark.suites import AgentSetting, BenchmarkError, add_agents, run_settings, select
from agents.evaluation import evaluate_agent

AGENTS = '''
import numpy as np

class Counter:
    """Learns the hidden text position by position: keeps the symbols of the best text seen."""
    def __init__(self, text_spec, num_envs, seed, share=0.5):
        self.spec, self.rng, self.share = text_spec, np.random.default_rng(seed), share
        self.best, self.text, self.gradient_samples, self.steps = -1.0, np.zeros(text_spec.max_new_tokens, int), 0, []

    def act(self, obs, action_mask, explore):
        column = (obs != self.spec.pad_id).sum(1)
        actions = self.text[column]
        if explore:
            new = self.rng.random(len(obs)) < self.share
            actions = np.where(new, self.rng.integers(self.spec.num_tokens, size=len(obs)), actions)
        return actions

    def observe(self, obs, actions, rewards, next_obs, done):
        self.gradient_samples += len(obs)
        self.steps.append((obs, actions, rewards, next_obs, done))
        for i in np.flatnonzero(done):
            if rewards[i] > self.best:
                self.best, self.text = rewards[i], next_obs[i].copy()

class Illegal(Counter):
    def act(self, obs, action_mask, explore):
        return np.full(len(obs), self.spec.num_tokens)

class Floats(Counter):
    def act(self, obs, action_mask, explore):
        return np.zeros(len(obs))

class NoAgent:
    pass
'''


@pytest.fixture
def outside(tmp_path, monkeypatch, tiny):
    """Makes the setting of a run of one of `AGENTS` on the hidden target."""
    (tmp_path / "agents_of_others.py").write_text(AGENTS)
    monkeypatch.syspath_prepend(tmp_path)
    first = run_settings(select(tiny, ["HiddenTarget"]))[0]

    def make(name: str, **config):
        return replace(first, agent=AgentSetting(name, f"agents_of_others:{name}", config))

    return make


def vector(env_id="textenvs/HiddenTarget-v0", num_envs=4, **kwargs):
    return Accounting(gym.make_vec(env_id, num_envs=num_envs, vectorization_mode="vector_entry_point", **kwargs))


def test_an_agent_with_act_and_observe_takes_part(outside, tmp_path):
    setting = outside("Counter", num_envs=8, share=0.4)
    check(setting)
    play(setting, tmp_path)
    run = read_run(run_folder(tmp_path, setting))
    assert run.solved, "three positions of four symbols are found"
    assert run.rows[-1].timesteps == 3 * run.rows[-1].episodes
    assert [row.episodes for row in run.rows[:3]] == [0, 8, 16]
    assert run.rows[-1].gradient_samples == run.rows[-1].timesteps
    assert run.settings["config"] == {"num_envs": 8, "share": 0.4}
    assert len(run.settings["outside"]["source"]) == 16


def test_what_an_outside_agent_is_shown(outside):
    setting = outside("Counter").agent
    envs = vector(length=3, num_symbols=4)
    entrant = make_entrant(setting, envs, seed=3)
    entrant.learn(4 * 7, lambda _: True)
    steps = entrant.agent.steps
    fresh = vector(length=3, num_symbols=4)
    np.testing.assert_array_equal(steps[0][0], fresh.reset(seed=300_000)[0], "seeds lie 100,000 apart")
    for t, (obs, actions, rewards, next_obs, done) in enumerate(steps):
        assert done.all() == ((t + 1) % 3 == 0)
        np.testing.assert_array_equal(next_obs[:, t % 3], actions, "the text that has ended, not the next one's prompt")
        assert (rewards[~done] == 0).all()
        if t % 3:
            np.testing.assert_array_equal(obs, steps[t - 1][3])


def test_agents_that_do_not_fit_are_named(outside, tmp_path, tiny):
    for name, message in (
        ("Illegal", "Illegal.act returned 4; actions lie in 0 … 3"),
        ("Floats", "must return integers of shape .1,.; got float64"),
    ):
        with pytest.raises(BenchmarkError, match=message):
            play(outside(name, num_envs=8), tmp_path)
    for setting, message in (
        (outside("NoAgent"), "must be a class with methods act and observe"),
        (outside("Missing"), "cannot be imported.*module:Class"),
        (outside("Counter", sharing=1), "sharing"),
        (outside("Counter", num_envs=0), "num_envs must be an integer from 1 on"),
    ):
        with pytest.raises(BenchmarkError, match=message):
            check(setting)
    with pytest.raises(BenchmarkError, match="NAME=module:Class"):
        add_agents(tiny, ["mine"])
    with pytest.raises(BenchmarkError, match="'PPO' already"):
        add_agents(tiny, ["PPO=a:B"])
    assert add_agents(tiny, ["mine=a:B"]).agents[-1] == AgentSetting("mine", "a:B")


def test_stable_baselines3_takes_part(tiny, tmp_path):
    config = {"num_envs": 8, "n_steps": 16, "batch_size": 32, "n_epochs": 2, "policy_kwargs": {"net_arch": [8]}}
    setting = replace(
        run_settings(select(tiny, ["Copy"]))[0], agent=AgentSetting("SB3", "stable_baselines3:PPO", config)
    )
    check(setting)
    play(setting, tmp_path / "a")
    play(setting, tmp_path / "b")
    run, again = (read_run(run_folder(tmp_path / name, setting)) for name in "ab")
    assert [row.greedy_score for row in run.rows] == [row.greedy_score for row in again.rows]
    assert [row.episodes for row in run.rows] == [0, 64, 128, 192, 256, 320], "a rollout is 64 texts; the last one too"
    assert [row.gradient_samples for row in run.rows] == [2 * row.timesteps for row in run.rows]
    assert run.settings["outside"]["version"]
    with pytest.raises(BenchmarkError, match="n_stepz"):
        check(replace(setting, agent=replace(setting.agent, config={"n_stepz": 3})))


def test_off_policy_and_masks_of_stable_baselines3():
    envs = vector("textenvs/DyckMasked-v0", length=3)
    config = {"n_steps": 8, "batch_size": 16, "n_epochs": 1, "num_envs": 4}
    entrant = make_entrant(AgentSetting("masks", "sb3_contrib:MaskablePPO", config), envs, 0)
    evaluation = evaluate_agent(
        entrant, "textenvs/DyckMasked-v0", split="test", num_episodes=16, seed=1, env_kwargs={"length": 3}
    )
    entrant.learn(100, lambda _: True)
    assert envs.invalid_texts == 0
    assert evaluation.mean_score > 0.1, "no illegal text"
    envs = vector(length=3, num_symbols=4)
    dqn = make_entrant(
        AgentSetting("DQN", "stable_baselines3:DQN", {"learning_starts": 16, "train_freq": 4, "batch_size": 8}), envs, 0
    )
    dqn.learn(64, lambda _: True)
    assert dqn.gradient_samples == 8 * dqn.model._n_updates
    assert dqn.gradient_samples > 0
    assert envs.timesteps == 64


def test_demonstrations_count(tiny, tmp_path):
    setting = run_settings(select(tiny, ["Copy"]))[0]
    agent = AgentSetting("DQN", "DQN", {"width": 16, "num_layers": 1}, demonstrations=40)
    play(replace(setting, agent=agent), tmp_path)
    first = read_run(run_folder(tmp_path, replace(setting, agent=agent))).rows[0]
    assert (first.episodes, first.timesteps, first.reward_calls) == (40, 80, 40)
    assert 20 < first.distinct_texts <= 40
    for other, message in (("PPO", "no replay buffer"), ("stable_baselines3:PPO", "replay agents of this project")):
        with pytest.raises(BenchmarkError, match=message):
            check(replace(setting, agent=replace(agent, agent=other, config={})))


def test_counts_of_texts():
    """Every text of one token and four symbols is written; illegal ones are not judged."""
    envs = vector("textenvs/HiddenTarget-v0", length=1, num_symbols=4)
    envs.reset(seed=0)
    for action in (0, 0, 1):
        envs.step(np.full(4, action))
    assert (envs.episodes, envs.timesteps, envs.reward_calls, envs.distinct_texts) == (12, 12, 12, 2)
    envs.step(np.arange(4))
    assert envs.distinct_texts == 4
    masked = vector("textenvs/DyckMasked-v0", length=3)
    _, info = masked.reset(seed=0)
    illegal = (info["action_mask"] == 0).argmax(1)
    masked.step(illegal)
    assert (masked.episodes, masked.reward_calls, masked.invalid_texts) == (4, 0, 4)
    counts, texts = envs.get_counts()
    other = vector("textenvs/HiddenTarget-v0", length=1, num_symbols=4)
    other.set_counts(counts, texts)
    assert other.distinct_texts == 4
    assert other.get_counts()[0] == counts


def test_hashes_tell_texts_apart():
    rows = np.array([[x, y, z] for x in range(8) for y in range(8) for z in range(8)])
    assert len(set(text_hashes(rows).tolist())) == 512
    np.testing.assert_array_equal(text_hashes(rows[::-1]), text_hashes(rows)[::-1])


def test_own_agents_are_described_by_their_code_alone():
    assert describe_outside(AgentSetting("PPO", "PPO")) is None
    assert num_envs_of(AgentSetting("PPO", "PPO", {"num_envs": 3})) == 3
