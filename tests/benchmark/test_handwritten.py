"""The hand-written peer of the speed benchmark plays the same task as ours."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from agents.benchmark.handwritten import HandwrittenReverse
from textenvs import TextEnv


@pytest.mark.parametrize(
    "sizes", [{"length": 4}, {"length": 4, "min_length": 2}, {"length": 3, "num_symbols": 2, "min_length": 1}]
)
@pytest.mark.parametrize("copy", [False, True])
def test_same_observations_and_rewards(sizes, copy):
    ours, theirs = TextEnv("Reverse", **sizes), HandwrittenReverse(**sizes, copy=copy)
    assert ours.action_space == theirs.action_space
    assert ours.observation_space == theirs.observation_space
    rng = np.random.default_rng(0)
    scores = []
    theirs.reset(seed=0)
    for episode in range(300):
        prompt = theirs.reset()[0][: ours.text_spec.prompt_length].copy()
        ours.reset(seed=0, options={"prompt": prompt})
        oracle = ours.task.oracle(prompt[None])[0]
        terminated = False
        for t in range(ours.text_spec.max_new_tokens):
            right = episode % 2 and oracle[t] < ours.text_spec.pad_id and rng.random() < 0.8
            action = oracle[t] if right else rng.integers(ours.text_spec.num_tokens)
            obs, reward, terminated, truncated, _ = ours.step(action)
            their_obs, *outcome, _ = theirs.step(action)
            assert obs.tolist() == their_obs.tolist()
            assert outcome == [pytest.approx(reward), terminated, truncated]
            if terminated:
                scores.append(reward)
                break
        assert terminated
    assert {0.0, 1.0} < set(scores)


def test_it_is_a_sound_environment():
    with pytest.warns(UserWarning, match="not having a spec"):  # it is not registered
        check_env(HandwrittenReverse(copy=True))


def test_without_copies_under_a_vector_environment_final_observations_stay():
    envs = SyncVectorEnv([lambda: HandwrittenReverse(length=2)] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    envs.reset(seed=0)
    envs.step(np.array([3, 3]))
    final = np.stack(envs.step(np.array([4, 4]))[4]["final_obs"])
    kept = final.copy()
    envs.step(np.array([5, 5]))
    assert final[:, 2:].tolist() == [[3, 4], [3, 4]]
    assert np.array_equal(final, kept)
