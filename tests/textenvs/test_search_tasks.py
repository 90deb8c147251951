"""What search tasks, hard ones and probes promise: what is counted, what changes, what lures."""

from __future__ import annotations

import numpy as np
import pytest

from textenvs import TextEnv, TextVectorEnv, make_reward
from textenvs.tasks import make_task


def test_modes_are_far_apart():
    for length, count in ((16, 16), (16, 4), (20, 16), (7, 4), (64, 8)):
        modes = make_task("BitModes", length=length, num_modes=count, task_seed=1).modes
        distances = (modes[:, None] != modes).sum(axis=2)[np.triu_indices(count, 1)]
        assert distances.min() >= length / 4
        if length in (16, 64):
            assert (distances == length // 2).all()


def test_found_modes_are_counted_for_each_sub_environment():
    task = make_task("BitModes", length=4, num_modes=3)
    envs = TextVectorEnv(task, num_envs=2)
    other = np.ones(4, dtype=np.int64) - task.modes[0]
    assert not (task.modes == other).all(axis=1).any()

    def write(first: np.ndarray, second: np.ndarray) -> list[int]:
        for actions in np.stack([first, second]).T:
            *_, infos = envs.step(actions)
        return infos["final_info"]["modes_found"].tolist()

    envs.reset(seed=0)
    assert write(task.modes[0], other) == [1, 0]
    assert write(task.modes[0], task.modes[2]) == [1, 1]  # the same again is nothing new
    state = envs.get_state()
    assert write(task.modes[1], task.modes[1]) == [2, 2]
    envs.reset()  # the count goes on
    assert write(task.modes[2], other) == [3, 2]
    envs.set_state(state)
    assert write(task.modes[2], other) == [2, 1]
    envs.reset(seed=[7, None])  # and begins anew under a new seed
    assert write(task.modes[0], task.modes[0]) == [1, 2]
    scalar = TextEnv(task)
    scalar.reset(seed=0)
    for token in task.modes[0]:
        *_, info = scalar.step(token)
    assert info["modes_found"] == 1
    assert type(info["modes_found"]) is int


def test_a_text_without_a_score_is_counted_neither(monkeypatch):
    task = make_task("BitModes", length=1, num_modes=1)
    env = TextEnv(task)
    env.reset(seed=0)
    monkeypatch.setattr(env.judge.model, "score", lambda episodes: np.array([np.nan], dtype=np.float32))
    with pytest.raises(RuntimeError, match="returned nan"):
        env.step(task.modes[0, 0])
    monkeypatch.undo()
    env.reset()
    assert env.step(1 - task.modes[0, 0])[4]["modes_found"] == 0


def test_the_wanted_text_changes_at_an_episode_of_each_sub_environment():
    task = make_task("RewardSwap", length=2, num_symbols=3, swap_at=2)
    assert (task.targets[0] != task.targets[1]).all()
    envs = TextVectorEnv(task, num_envs=2, autoreset_mode="Disabled")
    envs.reset(seed=0)

    def play(actions: np.ndarray, which: np.ndarray) -> tuple[list[float], list[int]]:
        """Write the same text in both, and begin again in those of ``which``."""
        for token in actions:
            *_, infos = envs.step(np.array([token, token]))
        envs.reset(options={"reset_mask": which})
        if not which.all():
            envs.reset(seed=[5 if not again else None for again in which], options={"reset_mask": ~which})
        return infos["score"].tolist(), infos["prompt_index"].tolist()

    both, first = np.array([True, True]), np.array([True, False])
    assert play(task.targets[0], both) == ([1.0, 1.0], [0, 0])
    assert play(task.targets[0], first) == ([1.0, 1.0], [0, 0])  # the second begins with a new seed, at number 0
    assert play(task.targets[0], both) == ([0.0, 1.0], [1, 0])
    assert play(task.targets[1], both) == ([1.0, 0.0], [1, 0])
    assert play(task.targets[1], both) == ([1.0, 1.0], [1, 1])


def test_a_text_of_either_time_can_be_judged_again():
    task = make_task("RewardSwap", length=2, num_symbols=3, swap_at=1)
    index = np.array([0, 1, 0])
    columns = task.columns(np.zeros((3, 0), dtype=np.int64), index)
    assert columns["target_ids"].tolist() == task.targets[[0, 1, 0]].tolist()
    after = make_task("RewardSwap", length=2, num_symbols=3, swap_at=0)
    assert after.oracle(np.zeros((1, 0))).tolist() == [task.targets[1].tolist()]


def test_noise_is_told_apart_from_the_clean_score():
    envs = TextVectorEnv("NoisyReverse", num_envs=2_000, noise=0.25)
    obs, _ = envs.reset(seed=0)
    for actions in envs.task.oracle(obs[:, :4]).T:
        _, rewards, *_, infos = envs.step(actions)
    assert infos["final_info"]["gold_score"].tolist() == [1.0] * 2_000
    assert set(rewards.tolist()) == {0.0, 1.0}
    assert abs(rewards.mean() - envs.task.optimum) < 4 * np.sqrt(0.25 * 0.75 / 2_000)
    assert envs.task.optimum == 0.75
    assert envs.task.random_score == pytest.approx(0.75 / 8 + 0.25 * 7 / 8)


def test_the_lure_is_a_local_optimum():
    """Each change of one token away from the lure scores less, and from the target too."""
    task = make_task("Deceptive", length=4, num_symbols=3)
    model = make_reward(task.default_reward)

    def score(texts: np.ndarray) -> np.ndarray:
        envs = TextVectorEnv(task, num_envs=len(texts))
        envs.reset(seed=0)
        for actions in texts.T:
            _, rewards, *_ = envs.step(actions)
        return rewards

    for text, worth in ((task.lure, 0.6), (task.target, 1.0)):
        changed = np.array([np.where(np.arange(4) == i, (text + by) % 3, text) for i in range(4) for by in (1, 2)])
        assert score(text[None]) == pytest.approx([worth])
        assert (score(changed) < worth).all()
    assert (model.low, model.high) == (0.0, 1.0)


def test_probes_by_hand():
    def scores(name: str, texts: list[list[int]], prompt: str | None = None) -> list[float]:
        env = TextEnv(name)
        played = []
        for text in texts:
            env.reset(seed=0, options=None if prompt is None else {"prompt": prompt})
            rewards = [env.step(token)[1] for token in text]
            assert not any(rewards[:-1])
            played.append(rewards[-1])
        return played

    assert scores("ProbeConstant", [[0], [1]]) == [1.0, 1.0]
    assert scores("ProbeDiscount", [[0, 0], [1, 0]]) == [1.0, 1.0]
    assert scores("ProbeAction", [[0], [1]]) == [0.0, 1.0]
    assert scores("ProbeMask", [[0, 2], [0, 1], [1, 2], [1, 0]]) == [1.0, 0.5, 0.5, 0.0]
    assert scores("ProbeMask", [[2], [0, 0], [1, 1]]) == [0.0, 0.0, 0.0]  # illegal
    for prompt, bit in (("00010", 0), ("10111", 1)):
        assert scores("ProbeObservation", [[0], [1]], prompt) == [bit, bit]
        assert scores("ProbeBoth", [[0], [1]], prompt) == [1 - bit, bit]
