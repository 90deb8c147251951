"""What every agent shares: construction, counting, callbacks, interruption, prediction."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

from agents import DQN, PPO, Agent, OracleAgent, RandomAgent
from textenvs import RewardError, Task, TextEnv, TextVectorEnv

TINY = {"num_envs": 4, "width": 16, "num_heads": 2, "num_layers": 1, "epochs": 1, "num_minibatches": 2}
COPY = {"length": 2, "num_symbols": 3}


def tiny(**more: Any) -> PPO:
    return PPO("textenvs/Copy-v0", env_kwargs=COPY, **(TINY | more))


def parameters(agent: PPO) -> np.ndarray:
    return agent.parameters.detach().numpy().copy()


# -- construction ------------------------------------------------------------------------------------------------------


def test_unknown_config_keys_name_the_nearest_and_the_known() -> None:
    with pytest.raises(TypeError, match=r"learning_rat'.*Did you mean 'learning_rate'.*clip_coef.*num_envs"):
        PPO("textenvs/Copy-v0", learning_rat=1e-3)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_envs", 0),
        ("epochs", 0),
        ("num_minibatches", 0),
        ("num_steps", 0),
        ("learning_rate", -1.0),
        ("gamma", 1.5),
        ("gae_lambda", -0.1),
        ("clip_coef", 0.0),
        ("value_clip", 0.0),
        ("target_kl", -1.0),
        ("width", 30),
        ("anneal_timesteps", 0),
        ("max_grad_norm", float("nan")),
    ],
)
def test_values_out_of_range_are_named(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=key):
        PPO("textenvs/Copy-v0", **{key: value})


@pytest.mark.parametrize(
    ("agent", "key", "value", "message"),
    [
        (PPO, "learning_rate", "abc", "learning_rate must be a number; got 'abc'"),
        (PPO, "num_envs", 3.5, "num_envs must be an integer; got 3.5"),
        (PPO, "epochs", True, "epochs must be an integer; got True"),
        (PPO, "num_steps", "4", "num_steps must be an integer or None; got '4'"),
        (PPO, "whiten_rewards", 1, "whiten_rewards must be True or False; got 1"),
        (PPO, "clip_coef", None, "clip_coef must be a number; got None"),
        (DQN, "loss", 2, "loss must be 'huber' or 'mse'; got 2"),
    ],
)
def test_values_of_another_type_are_named(agent: type[Agent], key: str, value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        agent("textenvs/Copy-v0", **{key: value})


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    agent = tiny(learning_rate=np.float32(0.25), epochs=np.int64(2), value_clip=1)
    assert (agent.config.learning_rate, agent.config.epochs, agent.config.value_clip) == (0.25, 2, 1)
    agent.save(tmp_path / "saved")
    assert PPO.load(tmp_path / "saved").config == agent.config


def test_bad_seeds_are_named() -> None:
    for seed in (-1, 1.5, "0"):
        with pytest.raises(ValueError, match="A seed is a non-negative integer"):
            PPO("textenvs/Copy-v0", seed=seed)  # type: ignore[arg-type]


def test_unknown_environments_name_the_nearest_and_the_known() -> None:
    for name in ("textenvs/Revers-v0", "textenv/Reverse-v0", "Reverse-v0", "textenvs/Reverse-v7"):
        with pytest.raises(gym.error.UnregisteredEnv, match=r"Did you mean 'textenvs/Reverse-v0'\? Known: .*Sort-v0"):
            PPO(name)


def test_environments_without_tokens_are_refused_with_advice() -> None:
    with pytest.raises(ValueError, match=r"not token sequences.*Stable-Baselines3"):
        PPO("CartPole-v1", num_envs=2)
    with pytest.raises(ValueError, match=r"not token sequences.*Stable-Baselines3"):
        PPO(gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync"))
    with pytest.raises(TypeError, match=r"gymnasium\.vector\.VectorEnv"):
        PPO(TextEnv("Copy"))  # type: ignore[arg-type]
    with pytest.raises(gym.error.NameNotFound, match="Reverse"):
        PPO("textenvs/Revers-v0")


def test_arguments_that_contradict_a_made_environment() -> None:
    envs = TextVectorEnv("Copy", 3, **COPY)
    with pytest.raises(ValueError, match="env_kwargs belong"):
        PPO(envs, env_kwargs=COPY)
    with pytest.raises(ValueError, match=r"num_envs=5.*has 3"):
        PPO(envs, num_envs=5)
    assert PPO(envs, width=16).config.num_envs == 3


def test_other_peoples_vector_environments_and_wrappers() -> None:
    made = [
        SyncVectorEnv([lambda: TextEnv("Copy", **COPY)] * 3),
        gym.wrappers.vector.RecordEpisodeStatistics(TextVectorEnv("Copy", 3, **COPY)),
    ]
    for envs in made:
        agent = RandomAgent(envs).learn(30)
        assert agent.text_spec.max_new_tokens == 2
        assert agent.num_episodes >= 15


def test_ids_of_other_packages() -> None:
    gym.register("test_base/Words-v0", entry_point=TextEnv, kwargs={"task": "Copy"})
    try:
        agent = RandomAgent("test_base/Words-v0", num_envs=3, env_kwargs={"length": 2}).learn(6)
        assert isinstance(agent.envs, SyncVectorEnv)
        assert agent.num_episodes == 3
    finally:
        del gym.registry["test_base/Words-v0"]
    assert RandomAgent("textenvs:textenvs/Copy-v0", num_envs=2).learn(8).num_episodes == 2


# -- counting ----------------------------------------------------------------------------------------------------------


def test_counting() -> None:
    agent = tiny(epochs=3)
    assert agent.learn(9) is agent  # batches of 4 × 2 tokens: the second one is finished
    assert (agent.num_timesteps, agent.num_episodes, agent.num_updates) == (16, 8, 2)
    assert agent.gradient_samples == 3 * 16
    assert agent.data_utilisation == 3.0
    agent.learn(8)
    assert (agent.num_timesteps, agent.num_episodes, agent.num_updates) == (24, 12, 3)
    with pytest.raises(ValueError, match="total_timesteps"):
        agent.learn(0)


def test_unfinished_episodes_count_as_timesteps() -> None:
    agent = PPO("textenvs/Reverse-v0", num_steps=3, **TINY)
    agent.learn(1)
    assert (agent.num_timesteps, agent.num_episodes, agent.num_updates) == (12, 0, 0)
    assert np.isnan(agent.metrics["charts/episodic_return"])
    agent.learn(1)
    assert (agent.num_timesteps, agent.num_episodes, agent.num_updates) == (24, 4, 1)
    assert agent.gradient_samples == 16


def test_the_environment_is_seeded_with_a_stride() -> None:
    class Prompts(RandomAgent):
        def _act(self, obs: np.ndarray, action_mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
            seen.append(obs)
            return super()._act(obs, action_mask)

    seen: list[np.ndarray] = []
    Prompts("textenvs/Copy-v0", seed=3, num_envs=2).learn(1)
    expected, _ = TextVectorEnv("Copy", 2).reset(seed=300_000)
    np.testing.assert_array_equal(seen[0], expected)


# -- callbacks and interruptions ---------------------------------------------------------------------------------------


def test_callbacks_see_every_batch_and_can_stop() -> None:
    agent, seen = tiny(), []

    def callback(agent: Agent) -> bool | None:
        seen.append((agent.num_timesteps, agent.num_updates))
        return False if len(seen) == 3 else None

    agent.learn(1_000, callback=callback)
    assert seen == [(8, 1), (16, 2), (24, 3)]
    assert agent.num_timesteps == 24


def test_control_c_waits_for_the_batch_and_leaves_a_consistent_agent(capfd: pytest.CaptureFixture[str]) -> None:
    interrupted, straight = tiny(), tiny()
    played = interrupted.envs.step
    count = 0

    def step(actions: np.ndarray) -> Any:
        nonlocal count
        count += 1
        if count == 3:  # in the middle of the second batch
            os.kill(os.getpid(), signal.SIGINT)
        return played(actions)

    interrupted.envs.step = step
    with pytest.raises(KeyboardInterrupt):
        interrupted.learn(1_000)
    assert "Ctrl-C again stops at once" in capfd.readouterr().err
    assert interrupted.num_timesteps == 16
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    straight.learn(16)
    interrupted.learn(16)
    straight.learn(16)
    np.testing.assert_array_equal(parameters(interrupted), parameters(straight))


def test_a_second_control_c_does_not_wait() -> None:
    agent = tiny()
    played = agent.envs.step

    def step(actions: np.ndarray) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        return played(actions)

    agent.envs.step = step
    with pytest.raises(KeyboardInterrupt):
        agent.learn(1_000)
    assert agent.num_timesteps == 0
    agent.envs.step = played
    agent.learn(8)  # the episodes in flight are gone, the agent goes on
    assert (agent.num_timesteps, agent.num_episodes) == (8, 4)


def test_a_failing_judge_stops_the_run_and_the_agent_can_go_on() -> None:
    broken = True

    def moody(completions: list[str]) -> list[float]:
        return [float("nan") if broken else 1.0 for _ in completions]

    agent = PPO(TextVectorEnv("Copy", 4, reward=moody, **COPY), width=16, num_heads=2)
    with pytest.raises(RewardError):
        agent.learn(8)
    broken = False
    agent.learn(8)
    assert agent.metrics["charts/episodic_return"] == 1.0


# -- prediction --------------------------------------------------------------------------------------------------------


def test_predict_takes_one_row_or_many() -> None:
    agent = tiny()
    obs, _ = TextVectorEnv("Copy", 5, **COPY).reset(seed=1)
    many, state = agent.predict(obs)
    assert many.shape == (5,)
    assert state is None
    for i in range(5):
        one, _ = agent.predict(obs[i])
        assert np.ndim(one) == 0
        assert one == many[i]
    np.testing.assert_array_equal(agent.predict(obs.astype(np.int32))[0], many)
    obs.setflags(write=False)
    np.testing.assert_array_equal(agent.predict(obs)[0], many)


def test_predict_names_bad_observations(masked_task: Task) -> None:
    agent = tiny()
    for bad in (np.zeros((2, 3), dtype=int), np.zeros((1, 1, 4), dtype=int), np.zeros((2, 4))):
        with pytest.raises(ValueError, match=r"\[4\] or \[N, 4\]"):
            agent.predict(bad)
    with pytest.raises(ValueError, match="action_mask must be"):
        agent.predict(np.zeros((2, 4), dtype=int), action_mask=np.ones((2, 2)))
    masked = RandomAgent(TextVectorEnv(masked_task, 2, invalid_reward=-1.0))
    with pytest.raises(ValueError, match=r"info\['action_mask'\]"):
        masked.predict(np.full(4, 3))
    assert masked.predict(np.full(4, 3), action_mask=np.array([0, 1, 0]))[0] == 1


def test_predicting_does_not_disturb_training() -> None:
    disturbed, alone = tiny(), tiny()
    obs, _ = TextVectorEnv("Copy", 3, **COPY).reset(seed=1)

    def callback(agent: Agent) -> None:
        agent.predict(obs, deterministic=False)
        agent.predict(obs[0])

    disturbed.learn(80, callback=callback)
    alone.learn(80)
    np.testing.assert_array_equal(parameters(disturbed), parameters(alone))


def test_stable_baselines3_evaluates_our_agents() -> None:
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.evaluation import evaluate_policy

    envs = make_vec_env(lambda: TextEnv("Copy"), n_envs=3, seed=0)  # wrapped in Monitor and DummyVecEnv
    oracle, spread = evaluate_policy(OracleAgent("textenvs/Copy-v0", num_envs=1), envs, n_eval_episodes=12)
    assert (oracle, spread) == (1.0, 0.0)
    random, _ = evaluate_policy(RandomAgent("textenvs/Copy-v0", num_envs=1), envs, n_eval_episodes=200)
    assert random == pytest.approx(1 / 8, abs=0.05)
    untrained, _ = evaluate_policy(PPO("textenvs/Copy-v0", **TINY), envs, n_eval_episodes=50)
    assert 0 <= untrained < 0.5


def test_progress_bar_shows_and_clears(capsys: pytest.CaptureFixture[str]) -> None:
    tiny().learn(40, progress_bar=True)
    shown = capsys.readouterr().out
    assert "40/40 timesteps" in shown
    assert "score" in shown
