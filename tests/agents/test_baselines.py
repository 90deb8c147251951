"""The floor and the ceiling."""

from __future__ import annotations

import numpy as np
import pytest

from agents import OracleAgent, RandomAgent, evaluate_agent
from textenvs import Task, TextVectorEnv, list_envs

NOTHING_TO_LEARN = {f"textenvs/Probe{name}-v0" for name in ("Constant", "Discount", "Observation")}


@pytest.mark.parametrize("env_id", list_envs())
def test_oracle_reaches_the_optimum_and_random_its_stated_score(env_id: str) -> None:
    oracle, random = OracleAgent(env_id, num_envs=64), RandomAgent(env_id, num_envs=64)
    task = oracle.envs.unwrapped.task
    best = evaluate_agent(oracle, env_id, split="train", num_episodes=256, seed=1)
    spread = float(best.scores.std())
    # Where the best score differs from prompt to prompt, the optimum is its mean.
    assert best.mean_score == pytest.approx(task.optimum, abs=5 * spread / 16 + 1e-6)
    played = oracle.learn(1).metrics["charts/episodic_return"]
    assert played == pytest.approx(task.optimum, abs=5 * spread / 8 + 1e-6)
    scores = evaluate_agent(random, env_id, split="train", num_episodes=4_000, seed=1).scores
    margin = 5 * scores.std() / len(scores) ** 0.5
    assert abs(scores.mean() - task.random_score) <= margin
    if env_id in NOTHING_TO_LEARN:  # the value alone
        assert task.optimum == task.random_score
    else:
        assert task.optimum - task.random_score > margin  # so the two could be told apart


def test_random_is_uniform_over_legal_actions(masked_task: Task) -> None:
    agent = RandomAgent(TextVectorEnv(masked_task, 300, invalid_reward=-1.0))
    obs = np.full((30_000, 4), 3)
    mask = np.tile(np.array([1, 0, 1], dtype=np.int8), (30_000, 1))
    actions, _ = agent.predict(obs, action_mask=mask)
    counts = np.bincount(actions, minlength=3)
    assert counts[1] == 0
    assert abs(counts[0] - 15_000) < 5 * (30_000 / 4) ** 0.5
    rollout = agent.collector
    agent.learn(1)
    assert rollout.started
    _, logprobs = agent._act(obs[:2], mask[:2])
    np.testing.assert_allclose(logprobs, -np.log(2), rtol=1e-6)


def test_same_seed_same_texts() -> None:
    def play(seed: int) -> float:
        return RandomAgent("textenvs/Copy-v0", seed=seed).learn(2_000).metrics["charts/episodic_return"]

    assert play(0) == play(0)
    assert play(0) != play(1)


def test_oracle_survives_rows_that_went_another_way() -> None:
    agent = OracleAgent("textenvs/Copy-v0", env_kwargs={"length": 3, "num_symbols": 2, "min_length": 1})
    obs = np.array([[3, 3, 1, 0, 0, 0, 3]])  # the best text would have ended with EOS long before
    action, _ = agent.predict(obs)
    assert 0 <= action[0] < 3
