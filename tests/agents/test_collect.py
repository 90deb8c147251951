"""Collecting episodes: windows, autoreset modes, what is kept across windows."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import TimeLimit

from agents.base import find_text_spec
from agents.collect import Collector, Rollout
from textenvs import Task, TextEnv, TextVectorEnv

VARYING = {"length": 4, "num_symbols": 3, "min_length": 1}  # V = 4 with EOS (id 3), T = 5
MODES = list(AutoresetMode)


def by_content(obs: np.ndarray, action_mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """A policy that depends on the row alone, so that every way of playing gives the same episodes."""
    weights = np.arange(1, obs.shape[1] + 1) ** 2
    mixed = (obs * weights).sum(1) * 2654435761 % 1_000_003
    return mixed % 4, -(mixed % 97).astype(np.float32) / 10 - 0.1


def native(num_envs: int, mode: AutoresetMode) -> VectorEnv:
    return TextVectorEnv("Copy", num_envs, autoreset_mode=mode, **VARYING)


def sync(num_envs: int, mode: AutoresetMode) -> VectorEnv:
    return SyncVectorEnv([lambda: TextEnv("Copy", **VARYING)] * num_envs, autoreset_mode=mode)


def collector_of(envs: VectorEnv, act: Any = by_content, seed: int = 0) -> Collector:
    collector = Collector(envs, find_text_spec(envs), act)
    collector.reset(seed)
    return collector


def episodes_of(rollouts: list[Rollout]) -> dict[int, list[tuple]]:
    """Per sub-environment, everything about its episodes, in order."""
    episodes = defaultdict(list)
    for r in rollouts:
        assert r.keys is not None
        assert r.prompt_index is not None
        for i in range(len(r)):
            episodes[int(r.sub_envs[i])].append(
                (
                    r.rows[i].tolist(),
                    int(r.lengths[i]),
                    r.rewards[i].tolist(),
                    r.logprobs[i].tolist(),
                    bool(r.terminated[i]),
                    bool(r.truncated[i]),
                    int(r.keys[i]),
                    int(r.prompt_index[i]),
                )
            )
    return episodes


def test_episodes_are_complete_and_consistent() -> None:
    collector = collector_of(native(8, AutoresetMode.SAME_STEP))
    rollout = collector.collect(40)
    assert len(rollout) > 60
    assert rollout.timesteps == 8 * 40
    spec = collector.text_spec
    for i in range(len(rollout)):
        row, length = rollout.rows[i], rollout.lengths[i]
        assert (row[4 : 4 + length] != 4).all()
        assert (row[4 + length :] == 4).all()
        assert (row[3 + length] == 3) or length == 5  # ends with EOS or the budget
        assert rollout.terminated[i]
        assert not rollout.truncated[i]
        assert not rollout.rewards[i, : length - 1].any()  # the score comes at the end
        assert not rollout.rewards[i, length:].any()
        assert not rollout.logprobs[i, length:].any()
        for t in range(length):  # what the policy said about the prefix
            prefix = np.where(np.arange(9) < 4 + t, row, 4)[None]
            actions, logprobs = by_content(prefix, None)
            assert actions[0] == row[4 + t]
            assert logprobs[0] == rollout.logprobs[i, t]
    np.testing.assert_array_equal(rollout.scores, rollout.rewards[np.arange(len(rollout)), rollout.lengths - 1])
    assert rollout.scores.any()
    assert (rollout.rows.dtype, rollout.lengths.dtype, rollout.sub_envs.dtype) == (np.int64,) * 3
    assert (rollout.rewards.dtype, rollout.logprobs.dtype) == (np.float32,) * 2
    assert rollout.action_masks is None
    assert spec.row_length == rollout.rows.shape[1]


@pytest.mark.parametrize("make", [native, sync])
@pytest.mark.parametrize("mode", MODES)
def test_every_way_of_playing_gives_the_same_episodes(make: Any, mode: AutoresetMode) -> None:
    expected = episodes_of([collector_of(native(4, AutoresetMode.SAME_STEP)).collect(60)])
    collector = collector_of(make(4, mode))
    played = episodes_of([collector.collect(7) for _ in range(9)])
    for sub_env in range(4):
        count = min(len(expected[sub_env]), len(played[sub_env]))
        assert count >= 8
        assert played[sub_env][:count] == expected[sub_env][:count]


def test_asynchronous_environments_too() -> None:
    envs = AsyncVectorEnv([lambda: TextEnv("Copy", **VARYING)] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    try:
        played = episodes_of([collector_of(envs).collect(12)])
    finally:
        envs.close()
    assert played == episodes_of([collector_of(native(2, AutoresetMode.SAME_STEP)).collect(12)])


@pytest.mark.parametrize("mode", MODES)
def test_windows_do_not_change_what_is_played(mode: AutoresetMode) -> None:
    whole = collector_of(native(4, mode)).collect(30)
    collector = collector_of(native(4, mode))
    parts = [collector.collect(steps) for steps in (1, 2, 3, 4, 5, 15)]
    assert sum(part.timesteps for part in parts) == whole.timesteps
    assert episodes_of(parts) == episodes_of([whole])


def literal_windows(mode: AutoresetMode) -> list[tuple[int, int]]:
    """(episodes, timesteps) of windows of 2 steps for two sub-environments whose texts have 1 and 3 tokens."""
    envs = TextVectorEnv("Copy", 2, autoreset_mode=mode, length=2, num_symbols=2, min_length=1)  # EOS is 2, T = 3

    def act(obs: np.ndarray, action_mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        return np.array([2, 0]), np.zeros(2, dtype=np.float32)

    collector = collector_of(envs, act)
    return [(len(rollout), rollout.timesteps) for rollout in (collector.collect(2) for _ in range(4))]


def test_windows_literal() -> None:
    # Sub-environment 0 ends at every token, 1 at every third. Same step: ends in steps 1 | 2 | 3 … and 3 | 6.
    assert literal_windows(AutoresetMode.SAME_STEP) == [(2, 4), (3, 4), (3, 4), (2, 4)]
    # With a reset between windows' steps, nothing is lost either.
    assert literal_windows(AutoresetMode.DISABLED) == [(2, 4), (3, 4), (3, 4), (2, 4)]
    # Next step: 0 writes in steps 1, 3, 5, 7 and resets between; 1 writes in 1 2 3 and 5 6 7, resets in 4 and 8.
    # Step 4 and step 8 write nothing at all and do not count: the windows are 1 2 | 3 5 | 6 7 | 9 10.
    assert literal_windows(AutoresetMode.NEXT_STEP) == [(1, 3), (3, 4), (2, 3), (1, 3)]


def test_a_step_that_only_resets_needs_no_action() -> None:
    calls = []

    def act(obs: np.ndarray, action_mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        calls.append(obs.copy())
        return np.zeros(3, dtype=np.int64), np.zeros(3, dtype=np.float32)

    envs = TextVectorEnv("Copy", 3, autoreset_mode=AutoresetMode.NEXT_STEP, length=2, num_symbols=2)
    rollout = collector_of(envs, act).collect(6)
    assert len(calls) == 6
    assert len(rollout) == 9
    assert all((obs[:, -1] == 2).all() for obs in calls)  # never asked about a finished row


def test_lock_step_batches_agree_between_same_and_next_step() -> None:
    def play(mode: AutoresetMode) -> list[Rollout]:
        envs = TextVectorEnv("Reverse", 5, autoreset_mode=mode)
        collector = collector_of(envs)
        return [collector.collect(4) for _ in range(3)]

    for same, following in zip(play(AutoresetMode.SAME_STEP), play(AutoresetMode.NEXT_STEP), strict=True):
        assert len(same) == len(following) == 5
        assert same.timesteps == following.timesteps == 20
        np.testing.assert_array_equal(same.rows, following.rows)
        np.testing.assert_array_equal(same.logprobs, following.logprobs)


def test_a_window_without_an_end_is_an_empty_batch() -> None:
    rollout = collector_of(TextVectorEnv("Reverse", 3)).collect(2)
    assert len(rollout) == 0
    assert rollout.timesteps == 6
    assert rollout.rows.shape == (0, 8)
    assert rollout.rewards.shape == (0, 4)
    assert rollout.scores.shape == (0,)


def test_masks_are_kept_as_they_were(masked_task: Task) -> None:
    def act(obs: np.ndarray, action_mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        assert action_mask is not None
        scores = np.where(action_mask != 0, (obs.sum(1)[:, None] + np.arange(3)) % 3, -1)
        return scores.argmax(1), np.zeros(len(obs), dtype=np.float32)

    for mode in MODES:
        envs = TextVectorEnv(masked_task, 3, invalid_reward=-1.0, autoreset_mode=mode)
        rollout = collector_of(envs, act).collect(12)
        assert rollout.action_masks is not None
        assert rollout.action_masks.shape == (9, 4, 3)
        assert rollout.action_masks[:, 0].all()
        for i in range(9):
            for t in range(1, 4):
                assert rollout.action_masks[i, t].tolist() == [a != rollout.rows[i, t - 1] for a in range(3)]


@pytest.mark.parametrize("mode", MODES)
def test_masks_of_texts_that_end_at_different_times(mode: AutoresetMode, masked_task: Task) -> None:
    def act(obs: np.ndarray, action_mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        assert action_mask is not None
        assert (action_mask != 0).any(1).all()
        actions = action_mask.argmax(1)
        actions[0] = 2  # again and again: the second time it is illegal and ends the text
        return actions, np.zeros(len(obs), dtype=np.float32)

    envs = TextVectorEnv(masked_task, 3, invalid_reward=-1.0, autoreset_mode=mode)
    rollout = collector_of(envs, act).collect(20)
    assert set(rollout.lengths.tolist()) == {2, 4}
    assert rollout.action_masks is not None
    for i in range(len(rollout)):
        for t in range(rollout.lengths[i]):
            expected = [t == 0 or a != rollout.rows[i, t - 1] for a in range(3)]
            assert rollout.action_masks[i, t].tolist() == expected
        assert not rollout.action_masks[i, rollout.lengths[i] :].any()


@pytest.mark.parametrize("mode", MODES)
def test_truncated_texts(mode: AutoresetMode) -> None:
    envs = SyncVectorEnv([lambda: TimeLimit(TextEnv("Reverse"), 3)] * 2, autoreset_mode=mode)
    rollout = collector_of(envs).collect(9)
    assert len(rollout) == 6
    assert rollout.truncated.all()
    assert not rollout.terminated.any()
    assert rollout.lengths.tolist() == [3] * 6
    assert not rollout.rewards.any()
    assert (rollout.rows[:, 7] == 8).all()
    assert (rollout.rows[:, 6] != 8).all()
    assert rollout.keys is None  # an unfinished text has no judge


@pytest.mark.parametrize("mode", MODES)
def test_state_goes_on_exactly(mode: AutoresetMode) -> None:
    envs = TextVectorEnv("Copy", 4, autoreset_mode=mode, **VARYING)
    collector = collector_of(envs)
    collector.collect(7)
    states = envs.get_state(), collector.get_state()
    expected = [collector.collect(5) for _ in range(3)]

    again = TextVectorEnv("Copy", 4, autoreset_mode=mode, **VARYING)
    again.set_state(states[0])
    resumed = Collector(again, again.text_spec, by_content)
    resumed.set_state(states[1])
    played = [resumed.collect(5) for _ in range(3)]
    for a, b in zip(expected, played, strict=True):
        assert episodes_of([a]) == episodes_of([b])
        assert a.timesteps == b.timesteps


def test_misuse_is_named() -> None:
    envs = TextVectorEnv("Reverse", 2)
    collector = Collector(envs, envs.text_spec, by_content)
    with pytest.raises(RuntimeError, match="must be reset"):
        collector.collect(1)
    collector.reset(0)
    with pytest.raises(ValueError, match="at least 1"):
        collector.collect(0)
    state = collector.get_state()
    other = TextVectorEnv("Reverse", 3)
    with pytest.raises(ValueError, match="observations"):
        Collector(other, other.text_spec, by_content).set_state(state)
    nameless = gym.vector.VectorWrapper(envs)
    nameless.metadata = {}
    with pytest.raises(ValueError, match="autoreset mode"):
        Collector(nameless, envs.text_spec, by_content)


def test_texts_that_were_cut_off_stand_beside_others() -> None:
    """They carry no key and no number of a prompt, in whatever order they and the others end."""
    seen = set()
    for seed in range(40):
        envs = SyncVectorEnv(
            [lambda: TimeLimit(TextEnv("Copy", **VARYING), max_episode_steps=2)] * 3,
            autoreset_mode=AutoresetMode.SAME_STEP,
        )
        rollout = collector_of(envs, seed=seed).collect(6)
        cut = rollout.truncated & ~rollout.terminated  # both where EOS came in the last step allowed
        assert rollout.keys is not None
        assert rollout.prompt_index is not None
        assert not rollout.keys[cut].any()
        assert rollout.keys[~cut].all()
        assert (rollout.prompt_index[cut] == -1).all()
        assert (rollout.prompt_index[~cut] >= 0).all()
        seen.add(bool(cut[0]))
    assert seen == {True, False}


def test_values_are_kept_with_the_steps_they_belong_to() -> None:
    """Also of episodes in flight, over windows, resets and saved states."""

    def act(obs: np.ndarray, action_mask: np.ndarray | None) -> tuple[np.ndarray, ...]:
        actions, logprobs = by_content(obs, action_mask)
        return actions, logprobs, logprobs * 2 + 1

    for mode in MODES:
        collector, twin = (collector_of(native(6, mode), act) for _ in range(2))
        rollouts = [collector.collect(3), collector.collect(4)]
        assert len(rollouts[0])
        for rollout in rollouts:
            assert rollout.values is not None
            inside = np.arange(5) < rollout.lengths[:, None]
            np.testing.assert_allclose(rollout.values, np.where(inside, rollout.logprobs * 2 + 1, 0))
        twin.collect(3)
        state = twin.get_state()
        resumed = collector_of(twin.envs, act)
        resumed.envs.unwrapped.set_state(twin.envs.unwrapped.get_state())
        resumed.set_state(state)
        assert resumed.get_state()["values"].any()
    assert collector_of(native(6, mode)).collect(4).values is None
