"""EpisodeLog and BestTexts: rows at log-spaced episodes and the best texts, alike for every kind of environment."""

from __future__ import annotations

import copy
import csv
import functools
import math
import pickle
from itertools import islice
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

import textenvs
from textenvs import BestTexts, EpisodeLog, TextEnv, TextVectorEnv
from textenvs.wrappers import BestText, vector
from textenvs.wrappers.records import COLUMNS, FinishedEpisodes, LogTable, TopTexts, log_points

SIZES: dict[str, Any] = {"length": 3, "num_symbols": 3, "min_length": 1}


def test_log_points_by_hand() -> None:
    expected = [1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 32, 40, 50, 63, 79, 100, 126, 158, 200, 251, 316, 398, 501]
    assert list(islice(log_points(), 25)) == expected
    assert list(islice(log_points(), 40))[-2:] == [12589, 15849]


def finished(*returns: float, reason: str = "stop") -> FinishedEpisodes:
    array = np.array(returns)
    reasons = np.full(len(array), reason, dtype=object)
    return FinishedEpisodes(array, np.full(len(array), 2), array, np.full(len(array), np.nan), reasons)


def test_rows_average_the_episodes_since_the_row_before_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "log" / "run.csv"
    table = LogTable(path)
    table.add(finished(1.0, 2.0), steps=4)
    table.add(finished(3.0), steps=6)
    table.add(finished(0.0, 0.0, 0.0, 6.0, 7.0, reason="length"), steps=16)  # episodes 4 to 8: row 8 is of 7 and 8
    table.add(finished(5.0), steps=18)
    table.flush(steps=19)
    table.flush(steps=19)  # nothing new
    rows = [(row.episode, row.steps, row.mean_return, row.best_score, row.stopped) for row in table.rows]
    assert rows == [
        (1, 4, 1.0, 1.0, 1.0),
        (2, 4, 2.0, 2.0, 1.0),
        (3, 6, 3.0, 3.0, 1.0),
        (4, 16, 0.0, 3.0, 0.0),
        (5, 16, 0.0, 3.0, 0.0),
        (6, 16, 0.0, 3.0, 0.0),
        (8, 16, 6.5, 7.0, 0.0),
        (9, 19, 5.0, 7.0, 1.0),
    ]
    assert all(row.mean_length == 2 and math.isnan(row.mean_gold_score) for row in table.rows)
    with path.open(encoding="utf-8") as file:
        lines = list(csv.reader(file))
    assert tuple(lines[0]) == COLUMNS
    assert [tuple(map(float, line)) for line in lines[1:]] == [
        tuple(pytest.approx(getattr(row, name), nan_ok=True) for name in COLUMNS) for row in table.rows
    ]
    with pytest.raises(FileExistsError, match="a run is logged to a file of its own"):
        LogTable(path)


def test_one_large_batch_gives_the_rows_of_many_small_ones() -> None:
    returns = np.random.default_rng(0).normal(size=500)
    one, many = LogTable(), LogTable()
    one.add(finished(*returns), steps=0)
    for value in returns:
        many.add(finished(value), steps=0)
    assert len(one.rows) == 24
    for left, right in zip(one.rows, many.rows, strict=True):
        for name in COLUMNS:
            assert getattr(left, name) == pytest.approx(getattr(right, name), nan_ok=True)


def play_scalar(env: Any, num_steps: int, seed: int = 3) -> None:
    rng = np.random.default_rng(1)
    env.reset(seed=seed)
    for _ in range(num_steps):
        *_, terminated, truncated, _ = env.step(rng.integers(env.action_space.n))
        if terminated or truncated:
            env.reset()


def play_vector(envs: Any, num_steps: int, seed: int = 3) -> list[np.ndarray]:
    """Random actions; finished sub-environments are reset where that is for the user to do. All final texts."""
    rng, texts = np.random.default_rng(1), []
    envs.reset(seed=seed)
    over = np.zeros(envs.num_envs, dtype=bool)
    disabled = envs.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    for _ in range(num_steps):
        if disabled and over.any():
            envs.reset(options={"reset_mask": over})
        obs, _, terminations, truncations, infos = envs.step(
            rng.integers(envs.single_action_space.n, size=envs.num_envs)
        )
        over = terminations | truncations
        texts.extend(infos.get("final_obs", obs)[i] for i in np.flatnonzero(over))
    return texts


def test_a_vector_of_one_gives_the_rows_and_texts_of_a_scalar_environment() -> None:
    """In SAME_STEP mode a vector environment plays as a scalar one that is reset at once."""
    scalar = EpisodeLog(BestTexts(TextEnv("Sort", **SIZES), k=5))
    one = vector.EpisodeLog(vector.BestTexts(TextVectorEnv("Sort", 1, **SIZES), k=5))
    play_scalar(scalar, 300)
    rng = np.random.default_rng(1)
    one.reset(seed=3)
    for _ in range(300):
        one.step(np.array([rng.integers(4)]))
    scalar.close()
    one.close()
    assert len(scalar.rows) > 15
    assert repr(scalar.rows) == repr(one.rows)  # NaN equals NaN here
    assert scalar.env.best == one.env.best  # type: ignore[attr-defined]
    assert sum(row.mean_score > 0 for row in scalar.rows) > 3


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_every_autoreset_mode_and_every_kind_of_vector_environment_counts_alike(mode: AutoresetMode) -> None:
    native = TextVectorEnv("Sort", 3, autoreset_mode=mode, **SIZES)
    others = SyncVectorEnv([functools.partial(TextEnv, "Sort", **SIZES)] * 3, autoreset_mode=mode)
    logs = []
    for envs in (native, others):
        log = vector.EpisodeLog(vector.BestTexts(envs, k=4))
        texts = play_vector(log, 200)
        log.close()
        logs.append(log)
    assert repr(logs[0].rows) == repr(logs[1].rows)
    assert logs[0].env.best == logs[1].env.best
    last = logs[0].rows[-1]
    assert last.episode == len(texts)
    written = sum(int((text[3:] != 4).sum()) for text in texts)
    # Up to three texts were in flight; in NEXT_STEP mode a step that resets writes nothing.
    assert 0 <= last.steps - written <= 3 * 4


def test_environments_in_processes_of_their_own_count_alike() -> None:
    logs = []
    for kind, arguments in (
        (SyncVectorEnv, {}),
        (AsyncVectorEnv, {"context": "forkserver"}),
    ):  # threads do not fork well
        envs = kind(
            [functools.partial(TextEnv, "Sort", **SIZES)] * 2, autoreset_mode=AutoresetMode.SAME_STEP, **arguments
        )
        log = vector.EpisodeLog(vector.BestTexts(envs, k=4))
        play_vector(log, 60)
        log.close()
        logs.append(log)
    assert repr(logs[0].rows) == repr(logs[1].rows)
    assert logs[0].env.best == logs[1].env.best != []  # type: ignore[attr-defined]


def test_returns_are_those_of_the_environment_below_and_scores_the_judges() -> None:
    env = EpisodeLog(gym.wrappers.TransformReward(TextEnv("Copy", length=2), lambda reward: 10 * reward))
    obs, _ = env.reset(seed=0)
    for action in obs[:2]:
        env.step(action)
    (row,) = env.rows
    assert (row.mean_return, row.mean_score, row.mean_length, row.steps) == (10.0, 1.0, 2.0, 2)


def test_texts_without_a_score_are_counted_and_not_averaged(masked_task: Any) -> None:
    env = EpisodeLog(BestTexts(TextEnv(masked_task(), invalid_reward=-1.0)))
    for actions in ([0, 0], [0, 1, 3]):
        env.reset(seed=0, options={"index": 0})
        for action in actions:
            env.step(action)
    assert [(row.mean_return, row.invalid, row.stopped) for row in env.rows] == [(-1.0, 1.0, 0.0), (1.0, 0.0, 1.0)]
    assert [row.mean_score for row in env.rows] == [pytest.approx(math.nan, nan_ok=True), 1.0]
    assert [row.best_score for row in env.rows] == [-math.inf, 1.0]
    assert env.env.best == [BestText(1.0, "0", "01", 2)]  # type: ignore[attr-defined]
    cut = EpisodeLog(BestTexts(gym.wrappers.TimeLimit(TextEnv("Copy"), 1)))
    cut.reset(seed=0)
    assert cut.step(0)[3]  # truncated
    assert (cut.rows[0].mean_length, math.isnan(cut.rows[0].mean_score)) == (1.0, True)
    assert cut.env.best == []  # type: ignore[attr-defined]


def test_gold_scores_are_averaged_where_there_are_any() -> None:
    env = EpisodeLog(TextEnv("Copy", length=1, reward={"name": "gold", "proxy": "length", "gold": "match"}))
    obs, _ = env.reset(seed=0)
    env.step(obs[0])
    assert (env.rows[0].mean_score, env.rows[0].mean_gold_score) == (1.0, 1.0)


def test_an_unfinished_episode_is_not_counted() -> None:
    env = EpisodeLog(TextEnv("Copy", length=2))
    env.reset(seed=0)
    env.step(0)
    env.reset()
    env.step(0)
    env.step(0)
    assert (env.rows[0].episode, env.rows[0].steps, env.rows[0].mean_length) == (1, 3, 2.0)


def test_the_best_texts_are_the_best_of_all_and_each_once() -> None:
    """Against all the texts of the run, judged again."""
    envs = vector.BestTexts(TextVectorEnv("Sort", 16, **SIZES), k=7)
    texts = play_vector(envs, 150)
    assert len(texts) > 500
    first: dict[tuple[str, str], tuple[float, int]] = {}
    decode = envs.env.task.vocab.decode  # type: ignore[attr-defined]
    for number, row in enumerate(texts, start=1):
        prompt, completion = decode(row[:3].tolist()), decode(row[3:].tolist())
        right = sum(a == b for a, b in zip(completion, "".join(sorted(prompt)), strict=False))
        target_length, length = len(prompt) + 1, int((row[3:] != 4).sum())
        stopped = length > len(completion)
        right += stopped and length == target_length
        first.setdefault((prompt, completion), (right / max(length, target_length), number))
    ranked = sorted(first.items(), key=lambda item: (-item[1][0], item[1][1]))
    scores = [text.score for text in envs.best]
    assert scores == pytest.approx([score for _, (score, _) in ranked[:7]])
    assert len({(text.prompt, text.completion) for text in envs.best}) == 7
    for text in envs.best:
        assert text.score == pytest.approx(first[text.prompt, text.completion][0])


def test_one_text_with_several_scores_is_kept_with_its_highest() -> None:
    top = TopTexts(TextEnv("Copy", length=1, num_symbols=4).text_spec, 2)
    rows = np.array([[1, 0], [1, 0], [2, 3], [1, 0], [3, 3]])
    top.add(rows[:2], np.array([0.5, 0.7]))
    assert top.best == [BestText(0.7, "1", "0", 2)]
    top.add(rows[2:], np.array([0.6, 0.1, np.nan]))
    assert top.best == [BestText(0.7, "1", "0", 2), BestText(0.6, "2", "3", 3)]
    top.add(rows[4:], np.array([0.6]))  # no better than the worst: the earlier stays
    assert [text.episode for text in top.best] == [2, 3]


def test_wrappers_and_agents_above_and_copies() -> None:
    env = EpisodeLog(BestTexts(gym.make("textenvs/Copy-v0", length=2)), None)
    play_scalar(env, 20)
    for twin in (copy.deepcopy(env), pickle.loads(pickle.dumps(env))):
        assert repr(twin.rows) == repr(env.rows)
        play_scalar(twin, 20)
        assert len(twin.rows) > len(env.rows)
    assert gym.make(env.spec).env.best == []  # type: ignore[attr-defined, arg-type]
    textenvs.set_reward(env, "prefix")
    assert env.unwrapped.judge.name == "prefix"  # type: ignore[attr-defined]


def test_what_they_cannot_wrap() -> None:
    flat = gym.wrappers.FlattenObservation(TextEnv("Copy"))
    with pytest.raises(TypeError, match=r"BestTexts reads the text from the observations.*put BestTexts on first"):
        BestTexts(flat)
    with pytest.raises(TypeError, match="BestTexts is for text environments"):
        BestTexts(gym.make("CartPole-v1"))
    for k in (0, True, 1.5):
        with pytest.raises(ValueError, match="k is the number of texts to keep, at least 1"):
            BestTexts(TextEnv("Copy"), k=k)  # type: ignore[arg-type]
    cartpole = EpisodeLog(gym.make("CartPole-v1"))
    play_scalar(cartpole, 100)
    assert cartpole.rows[0].mean_return == cartpole.rows[0].mean_length > 5
    unknown = TextVectorEnv("Copy", 2)
    unknown.metadata = {}
    with pytest.raises(ValueError, match="does not say how it resets"):
        vector.EpisodeLog(unknown)
