"""The table of docs/wrappers.md: every wrapper of Gymnasium's own, whether it works here, and how. A row is a test."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import gymnasium.wrappers as scalar
import gymnasium.wrappers.vector as vector
import numpy as np
import pytest
from gymnasium.error import DependencyNotInstalled, ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from textenvs import TextEnv

PAGE = Path(__file__).resolve().parents[2] / "docs" / "wrappers.md"
ROW = re.compile(r"^\| `(vector\.)?(\w+)` \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
ROWS = [(prefix + name, works) for prefix, name, works, _ in ROW.findall(PAGE.read_text(encoding="utf-8"))]

YES, NO, NOT_SAME_STEP, ELSEWHERE = "yes", "no", "not in SAME_STEP mode", "untested"


def make(**arguments: Any) -> Any:
    return gym.make("textenvs/Copy-v0", length=2, **arguments)


def make_vec(mode: AutoresetMode = AutoresetMode.SAME_STEP) -> Any:
    return gym.make_vec("textenvs/Copy-v0", num_envs=2, length=2, autoreset_mode=mode)


def play(env: Any, actions: tuple[int, ...] = (1, 2)) -> list[tuple[Any, Any]]:
    """Observations and rewards of an episode whose prompt is "12"."""
    obs, _ = env.reset(seed=0, options={"prompt": "12"})
    seen: list[tuple[Any, Any]] = [(obs.tolist(), None)]
    for action in actions:
        obs, reward, terminated, truncated, _ = env.step(action)
        assert obs in env.observation_space
        seen.append((obs.tolist(), float(reward)))
        if terminated or truncated:
            break
    return seen


PLAIN = [([1, 2, 8, 8], None), ([1, 2, 1, 8], 0.0), ([1, 2, 1, 2], 1.0)]


def play_vec(envs: Any) -> tuple[list[Any], list[float], Any]:
    """Observations, rewards and infos of the step that ends the first episodes of two environments: prompts "12" and
    "12", the one copied, the other not."""
    envs.reset(seed=0, options={"prompt": ["12", "12"]})
    envs.step(np.array([1, 5]))
    obs, rewards, terminations, _, infos = envs.step(np.array([2, 5]))
    assert terminations.all()
    return np.asarray(obs).tolist(), rewards.tolist(), infos


CHECKS: dict[str, tuple[str, Callable[[], None]]] = {}


def check(name: str, works: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def register(function: Callable[[], None]) -> Callable[[], None]:
        CHECKS[name] = (works, function)
        return function

    return register


def refuses(name: str, build: Callable[[], Any], error: type[Exception], message: str) -> None:
    """A wrapper that says by itself that it does not fit."""

    def attempt() -> None:
        with pytest.raises(error, match=message):
            build()

    CHECKS[name] = (NO, attempt)


# -- scalar ------------------------------------------------------------------------------------------------------------

NEEDS_BOX = "requires a Box (observation|action) space"
refuses("GrayscaleObservation", lambda: scalar.GrayscaleObservation(make()), TypeError, NEEDS_BOX)
refuses("ResizeObservation", lambda: scalar.ResizeObservation(make(), (2, 2)), TypeError, NEEDS_BOX)
refuses("ReshapeObservation", lambda: scalar.ReshapeObservation(make(), (2, 2)), TypeError, NEEDS_BOX)
refuses("RescaleObservation", lambda: scalar.RescaleObservation(make(), 0, 1), TypeError, NEEDS_BOX)
refuses("ClipAction", lambda: scalar.ClipAction(make()), TypeError, NEEDS_BOX)
refuses("RescaleAction", lambda: scalar.RescaleAction(make(), -1, 1), TypeError, NEEDS_BOX)
refuses("DiscretizeAction", lambda: scalar.DiscretizeAction(make(), 3), TypeError, "only compatible with Box")
refuses("DiscretizeObservation", lambda: scalar.DiscretizeObservation(make(), 3), TypeError, "only compatible with Box")
refuses("FilterObservation", lambda: scalar.FilterObservation(make(), ["x"]), ValueError, "only usable with `Dict`")
refuses("DtypeObservation", lambda: scalar.DtypeObservation(make(), np.float32), ValueError, "must be an integer")
refuses("AddRenderObservation", lambda: scalar.AddRenderObservation(make(render_mode="ansi")), TypeError, "numpy array")
refuses("RecordVideo", lambda: scalar.RecordVideo(make(render_mode="ansi"), "x"), ValueError, "is ansi, .*incompatible")
refuses("HumanRendering", lambda: scalar.HumanRendering(make(render_mode="ansi")), ValueError, "got 'ansi'")


@check("AtariPreprocessing", NO)
def _() -> None:
    with pytest.raises((DependencyNotInstalled, AttributeError, AssertionError)):
        scalar.AtariPreprocessing(make())


@check("AddWhiteNoise", NO)
def _() -> None:
    env = scalar.AddWhiteNoise(make(render_mode="ansi"), 0.5)
    play(env)
    with pytest.raises((TypeError, AttributeError)):
        env.render()


@check("ObstructView", NO)
def _() -> None:
    env = scalar.ObstructView(make(render_mode="ansi"), 0.5, 1)
    play(env)
    with pytest.raises((TypeError, AttributeError)):
        env.render()


@check("MaxAndSkipObservation", NO)
def _() -> None:
    """The text is "11", but the padding of the frame before hides its last token."""
    env = scalar.MaxAndSkipObservation(make(), 2)
    assert play(env)[-1] == ([1, 2, 1, 8], 0.5)
    assert env.unwrapped._engine.rows[0].tolist() == [1, 2, 1, 1]


@check("PassiveEnvChecker", YES)
def _() -> None:
    assert play(scalar.PassiveEnvChecker(TextEnv("Copy", length=2))) == PLAIN


@check("OrderEnforcing", YES)
def _() -> None:
    env = scalar.OrderEnforcing(TextEnv("Copy", length=2))
    with pytest.raises(ResetNeeded):
        env.step(0)
    assert play(env) == PLAIN


@check("TimeLimit", YES)
def _() -> None:
    env = scalar.TimeLimit(make(), 1)
    env.reset(seed=0)
    *_, terminated, truncated, info = env.step(0)
    assert (terminated, truncated) == (False, True)
    assert "score" not in info


@check("TimeAwareObservation", YES)
def _() -> None:
    env = scalar.TimeAwareObservation(scalar.TimeLimit(make(), 5), flatten=False)
    obs, _ = env.reset(seed=0, options={"prompt": "12"})
    assert obs["obs"].tolist() == [1, 2, 8, 8]
    assert env.step(1)[0]["time"] == 1


@check("RecordEpisodeStatistics", YES)
def _() -> None:
    env = scalar.RecordEpisodeStatistics(make())
    env.reset(seed=0, options={"prompt": "12"})
    env.step(1)
    episode = env.step(2)[4]["episode"]
    assert (episode["r"], episode["l"]) == (1.0, 2)


@check("Autoreset", YES)
def _() -> None:
    env = scalar.Autoreset(make())
    assert play(env) == PLAIN
    obs, reward, terminated, _, info = env.step(0)  # the step after the end resets
    assert (obs[2:].tolist(), reward, terminated, "score" in info) == ([8, 8], 0, False, False)


@check("RenderCollection", YES)
def _() -> None:
    env = scalar.RenderCollection(make(render_mode="ansi"))
    play(env)
    assert env.render() == ["12 → ", "12 → 1", "12 → 12  [score 1.000]"]


@check("FlattenObservation", YES)
def _() -> None:
    env = scalar.FlattenObservation(make())
    obs, _ = env.reset(seed=0, options={"prompt": "12"})
    assert np.flatnonzero(obs).tolist() == [0 + 1, 9 + 2, 18 + 8, 27 + 8]  # one-hot, 9 for each column
    assert env.step(1)[0].sum() == 4


@check("FrameStackObservation", YES)
def _() -> None:
    seen = play(scalar.FrameStackObservation(make(), 2))
    assert seen[-1] == ([[1, 2, 1, 8], [1, 2, 1, 2]], 1.0)


@check("DelayObservation", YES)
def _() -> None:
    assert play(scalar.DelayObservation(make(), 1))[-1] == ([1, 2, 1, 8], 1.0)


@check("TransformObservation", YES)
def _() -> None:
    env = scalar.TransformObservation(make(), lambda obs: obs[2:], gym.spaces.MultiDiscrete([9, 9]))
    assert play(env) == [([8, 8], None), ([1, 8], 0.0), ([1, 2], 1.0)]


@check("NormalizeObservation", YES)
def _() -> None:
    env = scalar.NormalizeObservation(make())
    seen = play(env)
    assert seen[-1][1] == 1.0
    assert seen[1][0] != [1, 2, 1, 8]  # ids as quantities, of no use to anyone
    assert abs(np.array(seen[1][0])).max() < 2


@check("TransformAction", YES)
def _() -> None:
    env = scalar.TransformAction(make(), lambda action: 7 - action, gym.spaces.Discrete(8))
    assert play(env, (6, 5)) == PLAIN


@check("StickyAction", YES)
def _() -> None:
    assert play(scalar.StickyAction(make(), 1.0 - 1e-9))[-1] == ([1, 2, 1, 1], 0.5)


@check("RepeatAction", YES)
def _() -> None:
    assert play(scalar.RepeatAction(make(), 2)) == [([1, 2, 8, 8], None), ([1, 2, 1, 1], 0.5)]


@check("ClipReward", YES)
def _() -> None:
    assert play(scalar.ClipReward(make(), 0, 0.4))[-1] == ([1, 2, 1, 2], 0.4)


@check("TransformReward", YES)
def _() -> None:
    assert play(scalar.TransformReward(make(), lambda reward: 2 * reward - 1))[1:] == [
        ([1, 2, 1, 8], -1.0),
        ([1, 2, 1, 2], 1.0),
    ]


@check("NormalizeReward", YES)
def _() -> None:
    (_, _), (_, first), (_, last) = play(scalar.NormalizeReward(make()))
    assert first == 0.0
    assert last == pytest.approx(2.0, abs=0.01)  # over the standard deviation of the discounted return so far


def needs(name: str, module: str, build: Callable[[], Any]) -> None:
    """A wrapper whose library this project does not install."""

    def attempt() -> None:
        if importlib.util.find_spec(module) is not None:
            pytest.skip(f"{module} is installed")
        with pytest.raises((ImportError, DependencyNotInstalled)):
            build()

    CHECKS[name] = (ELSEWHERE, attempt)


needs("ArrayConversion", "array_api_compat", lambda: scalar.ArrayConversion(make(), np, np))
needs("NumpyToTorch", "array_api_compat", lambda: scalar.NumpyToTorch(make()))
needs("JaxToNumpy", "jax", lambda: scalar.JaxToNumpy(make()))
needs("JaxToTorch", "jax", lambda: scalar.JaxToTorch(make()))
needs("vector.ArrayConversion", "array_api_compat", lambda: vector.ArrayConversion(make_vec(), np, np))
needs("vector.NumpyToTorch", "array_api_compat", lambda: vector.NumpyToTorch(make_vec()))
needs("vector.JaxToNumpy", "jax", lambda: vector.JaxToNumpy(make_vec()))
needs("vector.JaxToTorch", "jax", lambda: vector.JaxToTorch(make_vec()))


# -- vector ------------------------------------------------------------------------------------------------------------

NEXT_STEP = AutoresetMode.NEXT_STEP
refuses("vector.ClipAction", lambda: vector.ClipAction(make_vec()), TypeError, NEEDS_BOX)
refuses("vector.RescaleAction", lambda: vector.RescaleAction(make_vec(), -1, 1), TypeError, NEEDS_BOX)
refuses("vector.GrayscaleObservation", lambda: vector.GrayscaleObservation(make_vec(NEXT_STEP)), TypeError, NEEDS_BOX)
refuses("vector.ResizeObservation", lambda: vector.ResizeObservation(make_vec(NEXT_STEP), (2, 2)), TypeError, NEEDS_BOX)
refuses(
    "vector.ReshapeObservation", lambda: vector.ReshapeObservation(make_vec(NEXT_STEP), (2, 2)), TypeError, NEEDS_BOX
)
refuses("vector.RescaleObservation", lambda: vector.RescaleObservation(make_vec(NEXT_STEP), 0, 1), TypeError, NEEDS_BOX)
refuses(
    "vector.DtypeObservation", lambda: vector.DtypeObservation(make_vec(NEXT_STEP), np.float32), ValueError, "integer"
)
refuses("vector.FilterObservation", lambda: vector.FilterObservation(make_vec(NEXT_STEP), ["x"]), ValueError, "`Dict`")


@check("vector.RecordVideo", NO)
def _() -> None:
    envs = gym.make_vec("textenvs/Copy-v0", num_envs=2, render_mode="ansi")
    with pytest.raises(ValueError, match="is ansi, which is incompatible"):
        vector.RecordVideo(envs, "x")


@check("vector.HumanRendering", NO)
def _() -> None:
    envs = gym.make_vec("textenvs/Copy-v0", num_envs=2, render_mode="ansi")
    with pytest.raises(ValueError, match="got 'ansi'"):
        vector.HumanRendering(envs)


def changes_observations(name: str, wrap: Callable[[Any], Any], expected: list[Any]) -> None:
    def attempt() -> None:
        with pytest.raises(ValueError, match="Expected autoreset_mode to be NEXT_STEP or DISABLED"):
            wrap(make_vec())
        for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED):
            obs, rewards, _ = play_vec(wrap(make_vec(mode)))
            assert rewards == [1.0, 0.0]
            assert obs == expected

    CHECKS[name] = (NOT_SAME_STEP, attempt)


WRITTEN = gym.spaces.MultiDiscrete([9, 9])
changes_observations(
    "vector.TransformObservation",
    lambda envs: vector.TransformObservation(envs, lambda obs: obs[:, 2:], single_observation_space=WRITTEN),
    [[1, 2], [5, 5]],
)
changes_observations(
    "vector.VectorizeTransformObservation",
    lambda envs: vector.VectorizeTransformObservation(
        envs, scalar.TransformObservation, func=lambda obs: obs[2:], observation_space=WRITTEN
    ),
    [[1, 2], [5, 5]],
)
changes_observations(
    "vector.FlattenObservation",
    vector.FlattenObservation,
    np.eye(9, dtype=np.int64)[[[1, 2, 1, 2], [1, 2, 5, 5]]].reshape(2, -1).tolist(),
)


@check("vector.NormalizeObservation", NOT_SAME_STEP)
def _() -> None:
    with pytest.raises(ValueError, match="Expected autoreset_mode to be NEXT_STEP or DISABLED"):
        vector.NormalizeObservation(make_vec())
    obs, rewards, _ = play_vec(vector.NormalizeObservation(make_vec(AutoresetMode.NEXT_STEP)))
    assert rewards == [1.0, 0.0]
    assert np.abs(obs).max() < 2


@check("vector.RecordEpisodeStatistics", YES)
def _() -> None:
    for mode in AutoresetMode:
        *_, infos = play_vec(vector.RecordEpisodeStatistics(make_vec(mode)))
        episode = infos["episode"]
        assert episode["r"].tolist() == [1.0, 0.0]
        assert episode["l"].tolist() == [2, 2]


@check("vector.DictInfoToList", YES)
def _() -> None:
    for mode in AutoresetMode:
        *_, infos = play_vec(vector.DictInfoToList(make_vec(mode)))
        assert [info.get("final_info", info)["score"] for info in infos] == [1.0, 0.0]


@check("vector.TransformAction", YES)
def _() -> None:
    envs = vector.TransformAction(make_vec(), lambda actions: 7 - actions)
    envs.reset(seed=0, options={"prompt": ["12", "12"]})
    envs.step(np.array([6, 6]))
    assert envs.step(np.array([5, 6]))[1].tolist() == [1.0, 0.5]


@check("vector.VectorizeTransformAction", YES)
def _() -> None:
    space = gym.spaces.Discrete(8)
    envs = vector.VectorizeTransformAction(make_vec(), scalar.TransformAction, func=lambda a: 7 - a, action_space=space)
    envs.reset(seed=0, options={"prompt": ["12", "12"]})
    envs.step(np.array([6, 6]))
    assert envs.step(np.array([5, 6]))[1].tolist() == [1.0, 0.5]


@check("vector.TransformReward", YES)
def _() -> None:
    for mode in AutoresetMode:
        assert play_vec(vector.TransformReward(make_vec(mode), lambda rewards: 2 * rewards))[1] == [2.0, 0.0]


@check("vector.VectorizeTransformReward", YES)
def _() -> None:
    for mode in AutoresetMode:
        envs = vector.VectorizeTransformReward(make_vec(mode), scalar.TransformReward, func=lambda reward: 2 * reward)
        assert play_vec(envs)[1] == [2.0, 0.0]


@check("vector.ClipReward", YES)
def _() -> None:
    for mode in AutoresetMode:
        assert play_vec(vector.ClipReward(make_vec(mode), 0, 0.4))[1] == [0.4, 0.0]


@check("vector.NormalizeReward", YES)
def _() -> None:
    for mode in AutoresetMode:
        good, bad = play_vec(vector.NormalizeReward(make_vec(mode)))[1]
        assert good > bad == 0.0


# -- the page ----------------------------------------------------------------------------------------------------------


def test_the_table_has_every_wrapper_once() -> None:
    names = [name for name in scalar.__all__ if name != "vector"] + [f"vector.{name}" for name in vector.__all__]
    assert sorted(name for name, _ in ROWS) == sorted(names)


@pytest.mark.parametrize(("name", "works"), ROWS)
def test_a_row_of_the_table(name: str, works: str) -> None:
    stated, attempt = CHECKS[name]
    assert works == stated
    attempt()


def test_scalar_wrappers_in_a_vector_environment() -> None:
    """make_vec takes no wrappers beside a vector entry point: they go into SyncVectorEnv, or on as vector wrappers."""
    with pytest.raises(gym.error.Error, match="wrappers"):
        gym.make_vec(
            "textenvs/Copy-v0", num_envs=2, vectorization_mode="vector_entry_point", wrappers=[scalar.TimeLimit]
        )
    envs = SyncVectorEnv([lambda: scalar.TimeLimit(make(), 1)] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    envs.reset(seed=0)
    assert envs.step(np.array([0, 0]))[3].tolist() == [True, True]
