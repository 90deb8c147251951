"""The hand-written peers of the speed benchmark play the same tasks as ours."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from agents.benchmark.handwritten import HandwrittenAddition, HandwrittenDyckMasked, HandwrittenReverse
from textenvs import TextEnv


@pytest.mark.parametrize(
    ("name", "peer", "sizes"),
    [
        ("Reverse", HandwrittenReverse, {"length": 4}),
        ("Reverse", HandwrittenReverse, {"length": 4, "min_length": 2}),
        ("Reverse", HandwrittenReverse, {"length": 3, "num_symbols": 2, "min_length": 1}),
        ("DyckMasked", HandwrittenDyckMasked, {"length": 4}),
        ("DyckMasked", HandwrittenDyckMasked, {"length": 2, "num_kinds": 2}),
        ("Addition", HandwrittenAddition, {"digits": 1}),
        ("Addition", HandwrittenAddition, {"digits": 3}),
    ],
)
@pytest.mark.parametrize("copy", [False, True])
def test_same_observations_masks_and_rewards(name, peer, sizes, copy):
    ours, theirs = TextEnv(name, **sizes), peer(**sizes, copy=copy)
    assert ours.action_space == theirs.action_space
    assert ours.observation_space == theirs.observation_space
    rng = np.random.default_rng(0)
    scores = []
    theirs.reset(seed=0)
    for episode in range(300):
        obs, their_info = theirs.reset()
        prompt = obs[: ours.text_spec.prompt_length].copy()
        _, info = ours.reset(seed=0, options={"prompt": prompt})
        oracle = ours.task.oracle(prompt[None])[0]
        terminated = False
        for t in range(ours.text_spec.max_new_tokens):
            assert info.keys() == their_info.keys()
            for mask, their_mask in zip(info.values(), their_info.values(), strict=True):
                assert mask.tolist() == their_mask.tolist()
            right = episode % 2 and oracle[t] < ours.text_spec.pad_id and rng.random() < 0.8
            legal = np.flatnonzero(ours.action_masks()) if rng.random() < 0.7 else np.arange(ours.text_spec.num_tokens)
            action = oracle[t] if right else rng.choice(legal)
            obs, reward, terminated, truncated, info = ours.step(action)
            their_obs, *outcome, their_info = theirs.step(action)
            assert obs.tolist() == their_obs.tolist()
            assert outcome == [pytest.approx(reward), terminated, truncated]
            if terminated:
                scores.append(reward)
                break
        assert terminated
    assert {0.0, 1.0} < set(scores)


def test_they_are_sound_environments():
    for peer in (HandwrittenReverse, HandwrittenDyckMasked, HandwrittenAddition):
        with pytest.warns(UserWarning, match="not having a spec"):  # it is not registered
            check_env(peer(copy=True))


def test_without_copies_under_a_vector_environment_final_observations_stay():
    envs = SyncVectorEnv([lambda: HandwrittenReverse(length=2)] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    envs.reset(seed=0)
    envs.step(np.array([3, 3]))
    final = np.stack(envs.step(np.array([4, 4]))[4]["final_obs"])
    kept = final.copy()
    envs.step(np.array([5, 5]))
    assert final[:, 2:].tolist() == [[3, 4], [3, 4]]
    assert np.array_equal(final, kept)
