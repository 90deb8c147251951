"""The vector environment against what it must equal: scalar environments, and Gymnasium's SyncVectorEnv of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from textenvs import TextEnv, TextVectorEnv

NUM_ENVS = 8


def assert_same_info(vector: dict[str, Any], scalar: dict[str, Any]) -> None:
    """Same keys and values; numbers come as NumPy scalars of the matching type."""
    assert vector.keys() == scalar.keys()
    for key, value in scalar.items():
        if isinstance(value, dict):
            assert_same_info(vector[key], value)
        elif isinstance(value, np.ndarray):
            assert vector[key].dtype == value.dtype
            assert np.array_equal(vector[key], value), key
        else:
            assert vector[key] == value, key
            assert type(vector[key]) in (type(value), {int: np.int64, float: np.float64}.get(type(value))), key


def test_equals_scalar_environments(variant, of_sub_env):
    """10,000 random steps, episodes begun again on both sides as they end and, now and then, in between."""
    envs = TextVectorEnv(num_envs=NUM_ENVS, **variant)
    scalars = [TextEnv(**variant) for _ in range(NUM_ENVS)]
    rng = np.random.default_rng(0)
    reasons, components = set(), set()
    for step in range(10_000 // NUM_ENVS):
        if step % 250 == 0:
            seed = None if step % 500 else 1_000 * step
            obs, infos = envs.reset(seed=seed)
            for i, env in enumerate(scalars):
                scalar_obs, scalar_info = env.reset(seed=None if seed is None else seed + i)
                assert np.array_equal(obs[i], scalar_obs)
                assert_same_info(of_sub_env(infos, i), scalar_info)
        actions = rng.integers(envs.text_spec.num_tokens, size=NUM_ENVS)
        obs, rewards, terminations, truncations, infos = envs.step(actions)
        assert (obs.dtype, rewards.dtype) == (np.int64, np.float64)
        for i, env in enumerate(scalars):
            scalar_obs, *outcome, info = env.step(actions[i])
            assert [rewards[i], terminations[i], truncations[i]] == outcome
            vector_info = of_sub_env(infos, i)
            if terminations[i]:
                reasons.add(info["finish_reason"])
                components.add(tuple(info.get("reward_components", ())))
                assert np.array_equal(vector_info.pop("final_obs"), scalar_obs)
                assert_same_info(vector_info.pop("final_info"), info)
                scalar_obs, info = env.reset()
            assert scalar_obs.dtype == np.int64
            assert np.array_equal(obs[i], scalar_obs)
            assert_same_info(vector_info, info)
    spec = envs.text_spec
    assert reasons == {"length"} | ({"stop"} if spec.eos_ids else set()) | ({"invalid"} if spec.has_masks else set())
    if isinstance(variant.get("reward"), list):
        assert components == {("match", "prefix"), ("match", "odd_texts_only", "prefix")}


def without_final_obs(infos: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in infos.items() if key != "final_obs"}


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_equals_sync_vector_env(variant, mode, assert_same):
    """Observations, rewards, terminations and infos, with masks and dtypes; only final_obs may be a plain array."""
    envs = TextVectorEnv(num_envs=5, autoreset_mode=mode, **variant)
    sync = SyncVectorEnv([lambda: TextEnv(**variant)] * 5, autoreset_mode=mode)
    assert envs.metadata["autoreset_mode"] == sync.metadata["autoreset_mode"]
    for name in ("action_space", "single_action_space", "observation_space", "single_observation_space"):
        assert getattr(envs, name) == getattr(sync, name)
    rng = np.random.default_rng(1)
    assert_same(envs.reset(seed=3), sync.reset(seed=3))
    for _ in range(150):
        actions = rng.integers(envs.text_spec.num_tokens, size=5)
        ours, theirs = envs.step(actions), sync.step(actions)
        assert_same(ours[:4], theirs[:4])
        assert_same(without_final_obs(ours[4]), without_final_obs(theirs[4]))
        assert ("final_obs" in ours[4]) == ("final_obs" in theirs[4])
        ended = ours[2]
        if "final_obs" in ours[4]:
            assert_same(ours[4]["final_obs"][ended], np.stack(theirs[4]["final_obs"][ended]))
        if mode == AutoresetMode.DISABLED and ended.any():
            ours, theirs = (each.reset(options={"reset_mask": ended.copy()}) for each in (envs, sync))
            assert_same(ours, theirs)
