"""The registered ids, through Gymnasium's and Stable-Baselines3's doors. Every test runs over every id."""

from __future__ import annotations

import copy
import functools
import importlib.util
import json
import multiprocessing
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

import textenvs
from textenvs import TextEnv, TextVectorEnv
from textenvs.tasks import TASKS

ROOT = Path(__file__).resolve().parents[2]
NEEDS = {"textenvs/ReasoningGym-v0": "reasoning_gym"}  # registered always, made where the extra is installed
IDS = [name for name in textenvs.list_envs() if name not in NEEDS or importlib.util.find_spec(NEEDS[name])]
EOS_IDS = ["textenvs/Copy-v0", "textenvs/Reverse-v0", "textenvs/Sort-v0"]
SETTINGS: list[tuple[str, dict[str, Any]]] = [
    *((env_id, {}) for env_id in IDS),
    *((env_id, {"render_mode": "ansi", "info_text": True}) for env_id in IDS),
    *((env_id, {"min_length": 2, "split": "test"}) for env_id in EOS_IDS),
]


def test_the_ids():
    assert sorted(IDS) == IDS
    assert len(textenvs.list_envs()) >= 30
    assert textenvs.list_envs() == sorted(f"textenvs/{name}-v0" for name in TASKS)
    for env_id in IDS:
        env = gym.make(env_id)
        assert isinstance(env.unwrapped, TextEnv)
        assert f"textenvs/{env.unwrapped.task.name}-v0" == env_id


@pytest.mark.parametrize(("env_id", "kwargs"), SETTINGS)
def test_gymnasiums_checker(env_id, kwargs):
    """Any warning is an error here."""
    check_env(gym.make(env_id, **kwargs).unwrapped)


@pytest.mark.parametrize(("env_id", "kwargs"), SETTINGS)
def test_gymnasiums_checker_through_its_own_wrappers(env_id, kwargs):
    """The only warning is the checker's own, about being given a wrapped environment."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(gym.make(env_id, **kwargs))
    assert len(caught) == 1
    assert "is different from the unwrapped version" in str(caught[0].message)


@pytest.mark.parametrize(("env_id", "kwargs"), SETTINGS)
def test_stable_baselines3s_checker(env_id, kwargs):
    from stable_baselines3.common.env_checker import check_env as check_for_sb3

    check_for_sb3(gym.make(env_id, **kwargs))
    check_for_sb3(gym.make(env_id, **kwargs).unwrapped)


@pytest.mark.parametrize("env_id", IDS)
def test_a_whole_episode_under_the_passive_checker(env_id):
    env = gym.make(env_id, render_mode="ansi")
    env.action_space.seed(0)
    obs, _ = env.reset(seed=0)
    over = False
    while not over:
        assert obs in env.observation_space
        obs, _, over, truncated, _ = env.step(env.action_space.sample())
        assert isinstance(env.render(), str)
        assert not truncated
    assert obs in env.observation_space


@pytest.mark.parametrize("env_id", IDS)
def test_make_vec(env_id):
    for kwargs in ({}, {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_mode": "ansi"}):
        envs = gym.make_vec(env_id, num_envs=3, vectorization_mode="vector_entry_point", **kwargs)
        assert isinstance(envs.unwrapped, TextVectorEnv)
        assert envs.metadata["autoreset_mode"] is kwargs.get("autoreset_mode", AutoresetMode.SAME_STEP)
        assert envs.num_envs == 3
        obs, _ = envs.reset(seed=0)
        assert obs in envs.observation_space
        actions = envs.action_space.sample()
        assert actions.shape == (3,)
        obs, *_ = envs.step(actions)
        assert obs in envs.observation_space
        assert repr(envs) == f"TextVectorEnv({env_id}, num_envs=3)"
        envs.close()
    assert isinstance(gym.make_vec(env_id, num_envs=2), TextVectorEnv)  # the default of make_vec


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("kind", [SyncVectorEnv, AsyncVectorEnv])
def test_gymnasiums_vector_environments(env_id, kind, assert_same):
    """Both of them play the episodes of the native one."""
    kwargs: dict[str, Any] = {}
    if kind is AsyncVectorEnv:  # forking a process that has threads, as this one may, can hang
        multiprocessing.get_context("forkserver").set_forkserver_preload(["textenvs"])
        kwargs["context"] = "forkserver"
    make = functools.partial(gym.make, f"textenvs:{env_id}")
    envs = kind([make] * 2, autoreset_mode=AutoresetMode.SAME_STEP, **kwargs)
    native = gym.make_vec(env_id, num_envs=2, vectorization_mode="vector_entry_point")
    try:
        native.action_space.seed(0)
        assert_same(envs.reset(seed=5), native.reset(seed=5))
        for _ in range(30):
            actions = native.action_space.sample()
            one, two = envs.step(actions), native.step(actions)
            assert_same(one[:4], two[:4])
            assert_same(one[4].get("final_info"), two[4].get("final_info"))
    finally:
        envs.close()


@pytest.mark.parametrize("env_id", IDS)
def test_make_vec_in_the_other_modes(env_id):
    envs = gym.make_vec(env_id, num_envs=2, vectorization_mode="sync", vector_kwargs={"autoreset_mode": "SameStep"})
    native = gym.make_vec(env_id, num_envs=2)
    assert np.array_equal(envs.reset(seed=1)[0], native.reset(seed=1)[0])


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_go_on_alike_and_apart(variant, duplicate, assert_same):
    """In the middle of an episode; each has its own memory."""
    for env in (TextEnv(**variant), TextVectorEnv(num_envs=3, **variant)):
        env.reset(seed=0)
        space = env.action_space
        space.seed(1)

        def play(env: Any, actions: list[Any]) -> list[Any]:
            seen = []
            for action in actions:
                seen.append(env.step(action))
                if seen[-1][2] is True:
                    seen.append(env.reset())
            return seen

        play(env, [space.sample() for _ in range(7)])
        other, third = duplicate(env), duplicate(env)
        actions = [space.sample() for _ in range(60)]
        expected = play(env, actions)
        for one, two in zip(expected, play(other, actions), strict=True):
            assert_same(one, two)
        assert_same(play(third, actions)[-1], expected[-1])  # untouched by what the others did


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_of_every_id(env_id, duplicate, assert_same):
    """Scalar and native, as ``gym.make`` and ``gym.make_vec`` give them, between two tokens of a text."""
    env, envs = gym.make(env_id), gym.make_vec(env_id, num_envs=3, vectorization_mode="vector_entry_point")
    env.reset(seed=2)
    envs.reset(seed=2)
    scalar_over = env.step(0)[2]
    envs.step(np.zeros(3, dtype=np.int64))
    twin, twins = duplicate(env), duplicate(envs)
    if scalar_over:
        assert_same(env.reset(), twin.reset())
    else:
        assert_same(env.step(1), twin.step(1))
    rng = np.random.default_rng(0)
    for _ in range(20):
        actions = rng.integers(envs.single_action_space.n, size=3)
        assert_same(envs.step(actions), twins.step(actions))
    state = twins.get_state()
    envs.step(actions)  # alone: the copy does not notice
    assert_same(twins.get_state(), state)


@pytest.mark.parametrize("env_id", IDS)
def test_the_same_seed_gives_the_same_episodes_on_both_classes(env_id, assert_same, of_sub_env):
    envs = gym.make_vec(env_id, num_envs=2, vectorization_mode="vector_entry_point", autoreset_mode="Disabled")
    singles = [gym.make(env_id) for _ in range(2)]
    rng = np.random.default_rng(1)
    for episode in range(2):
        seed = 11 if episode == 0 else None
        obs, _ = envs.reset(seed=seed)
        for i, env in enumerate(singles):
            assert np.array_equal(env.reset(seed=None if seed is None else seed + i)[0], obs[i])
        actions = rng.integers(envs.single_action_space.n, size=(envs.text_spec.max_new_tokens, 2))
        for t in range(envs.text_spec.max_new_tokens):
            obs, rewards, over, _, infos = envs.step(actions[t])
            for i, env in enumerate(singles):
                row, reward, terminated, _, info = env.step(actions[t, i])
                assert np.array_equal(row, obs[i])
                assert (reward, terminated) == (rewards[i], over[i])
                theirs = of_sub_env(infos, i)
                assert {name: info[name] for name in ("score", "finish_reason", "length") if name in info} == {
                    name: theirs[name] for name in ("score", "finish_reason", "length") if name in theirs
                }
            if over.any():
                break


def test_environments_made_from_their_spec_again():
    env = gym.make("textenvs/Sort-v0", length=3, reward={"name": "match"})
    again = gym.make(env.spec)
    assert again.unwrapped.text_spec == env.unwrapped.text_spec
    from_json = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert np.array_equal(from_json.reset(seed=3)[0], env.reset(seed=3)[0])


def test_unknown_ids_and_arguments_show_the_nearest():
    with pytest.raises(gym.error.NameNotFound, match="Did you mean: `Copy`"):
        gym.make("textenvs/Copi-v0")
    with pytest.raises(TypeError, match="Did you mean 'num_symbols'"):
        gym.make("textenvs/Copy-v0", num_symbol=3)
    with pytest.raises(TypeError, match=r"'groupsize'\. Did you mean 'group_size'"):
        gym.make_vec("textenvs/Copy-v0", num_envs=2, groupsize=2)
    with pytest.raises(ValueError, match="no test split"):
        gym.make("textenvs/HiddenTarget-v0", split="test")


def run(code: str, folder: Path) -> str:
    """Run code in a fresh interpreter that finds the packages, and nothing else of this process."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_id_with_its_module_needs_no_import(tmp_path):
    code = """
import gymnasium as gym
print(gym.make("textenvs:textenvs/Copy-v0", length=2).reset(seed=0, options={"prompt": "12"})[0].tolist())
envs = gym.make_vec("textenvs:textenvs/Copy-v0", num_envs=2, vectorization_mode="vector_entry_point")
print(type(envs).__name__)
"""
    assert run(code, tmp_path).splitlines() == ["[1, 2, 8, 8]", "TextVectorEnv"]


def test_import_brings_neither_torch_nor_the_agents(tmp_path):
    code = """
import json, sys
import textenvs, gymnasium as gym
env = gym.make_vec("textenvs/Reverse-v0", num_envs=2, min_length=2)
env.reset(seed=0)
for _ in range(5):
    env.step([0, 0])
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
    loaded = set(json.loads(run(code, tmp_path)))
    assert {"textenvs", "gymnasium", "numpy"} <= loaded
    assert not loaded & {"torch", "agents", "scripts", "tests", "matplotlib", "tensorboard", "pandas", "scipy"}


def test_maskable_agents_of_sb3_contrib_find_the_masks(masked_task):
    from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
    from stable_baselines3.common.vec_env import DummyVecEnv

    envs = DummyVecEnv([lambda: TextEnv(masked_task())] * 2)
    envs.seed(0)
    envs.reset()
    assert is_masking_supported(envs)
    assert get_action_masks(envs).tolist() == [[True, True, True, False]] * 2
    envs.step(np.array([0, 1]))
    assert get_action_masks(envs).tolist() == [[False, True, True, True], [True, False, True, True]]


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_statistics_of_gymnasiums_vector_wrapper(mode):
    """Each finished episode is counted once, with its whole return and length."""
    envs = gym.make_vec("textenvs/Copy-v0", num_envs=2, length=2, autoreset_mode=mode)
    wrapped = gym.wrappers.vector.RecordEpisodeStatistics(envs)
    obs, _ = wrapped.reset(seed=0)
    right = obs[:, :2].copy()
    wrapped.step(np.array([right[0, 0], 8 - 1 - right[1, 0]]))
    *_, infos = wrapped.step(right[:, 1])
    statistics = infos["episode"]
    assert statistics["r"].tolist() == [1.0, 0.5]
    assert statistics["l"].tolist() == [2, 2]
