"""Episodes: a batch of finished texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from textenvs import Episodes, TextEnv, TextVectorEnv, Vocab


class CountingVocab(Vocab):
    """Counts the rows that it decodes."""

    decoded = 0

    def decode_rows(self, ids: np.ndarray) -> list[str]:
        self.decoded += len(ids)
        return super().decode_rows(ids)


def make(columns: dict[str, Any] | None = None) -> Episodes:
    """Symbols 0, 1, 2; EOS is 3, padding 4."""
    return Episodes(
        prompt_ids=np.array([[4, 0], [1, 2], [4, 4]]),
        completion_ids=np.array([[0, 3, 4], [2, 1, 0], [3, 4, 4]]),
        lengths=np.array([2, 3, 1]),
        finish_reason=np.array(["stop", "length", "stop"], dtype=object),
        key=np.array([7, 8, 9], dtype=np.uint64),
        vocab=CountingVocab(["0", "1", "2", "<eos>"], eos="<eos>"),
        columns=columns or {},
    )


def test_texts_leave_out_eos_and_padding():
    episodes = make()
    assert len(episodes) == 3
    assert episodes.pad_id == 4
    assert episodes.prompts == ["0", "12", ""]
    assert episodes.completions == ["0", "210", ""]


def test_each_text_is_decoded_once_and_only_if_asked_for():
    episodes = make({"target_ids": np.array([[0, 4], [1, 2], [2, 4]])})
    assert episodes.vocab.decoded == 0
    for _ in range(3):
        assert episodes.prompts is episodes.prompts
        assert episodes.completions is episodes.completions
        assert episodes.column("target") == ["0", "12", "2"]
    assert episodes.vocab.decoded == 9


def test_columns():
    episodes = make({"target_ids": np.array([[0, 4], [1, 2], [2, 4]]), "answer": ["a", "b", "c"]})
    assert episodes.column_names() == ["answer", "target", "target_ids"]
    assert episodes.column("answer") == ["a", "b", "c"]
    assert episodes.column("target_ids").tolist() == [[0, 4], [1, 2], [2, 4]]
    with pytest.raises(KeyError, match="No column 'answers'; columns: answer, target, target_ids"):
        episodes.column("answers")
    with pytest.raises(KeyError, match=r"columns: \(none\)"):
        make().column("target")


def test_a_column_of_text_wins_over_decoded_ids():
    episodes = make({"target_ids": np.array([[0], [1], [2]]), "target": ["zero", "one", "two"]})
    assert episodes.column("target") == ["zero", "one", "two"]
    assert episodes.column_names() == ["target", "target_ids"]


@pytest.mark.parametrize("index", [np.array([2, 0]), np.array([True, False, True])])
def test_take(index):
    episodes = make({"target_ids": np.array([[0], [1], [2]]), "answer": ["a", "b", "c"]})
    taken = episodes.take(index)
    order = [2, 0] if index.dtype != np.bool_ else [0, 2]
    assert taken.prompt_ids.tolist() == episodes.prompt_ids[order].tolist()
    assert taken.completion_ids.tolist() == episodes.completion_ids[order].tolist()
    assert taken.lengths.tolist() == episodes.lengths[order].tolist()
    assert taken.finish_reason.tolist() == ["stop", "stop"]
    assert taken.key.tolist() == episodes.key[order].tolist()
    assert taken.columns["target_ids"].tolist() == [[i] for i in order]
    assert taken.columns["answer"] == ["abc"[i] for i in order]
    assert taken.completions == ["" if i == 2 else "0" for i in order]


class Keeper:
    """A reward model that keeps all that it is given, and writes into it as well."""

    def __init__(self) -> None:
        self.kept: list[Episodes] = []
        self.copies: list[list[Any]] = []

    @staticmethod
    def fields(episodes: Episodes) -> list[Any]:
        arrays = (episodes.prompt_ids, episodes.completion_ids, episodes.lengths, episodes.key)
        return [array.tolist() for array in (*arrays, episodes.columns["target_ids"])]

    def score(self, episodes: Episodes) -> np.ndarray:
        self.kept.append(episodes)
        self.copies.append(self.fields(episodes))
        return np.zeros(len(episodes), dtype=np.float32)


@pytest.mark.parametrize("sizes", [{}, {"min_length": 1}])
def test_kept_episodes_do_not_change_when_the_next_ones_are_written(sizes):
    keeper = Keeper()
    for env in (TextEnv("Copy", reward=keeper, **sizes), TextVectorEnv("Copy", num_envs=3, reward=keeper, **sizes)):
        env.reset(seed=0)
        env.action_space.seed(0)
        for _ in range(50):
            if env.step(env.action_space.sample())[2] is True:
                env.reset()
    assert len(keeper.kept) > 20
    for episodes, copy in zip(keeper.kept, keeper.copies, strict=True):
        assert keeper.fields(episodes) == copy
        assert episodes.completions == [episodes.vocab.decode(row) for row in copy[1]]  # decoded late, not too late


def test_a_reward_model_that_writes_into_its_episodes_does_not_change_the_environment():
    class Vandal:
        def score(self, episodes: Episodes) -> np.ndarray:
            episodes.prompt_ids[:] = episodes.completion_ids[:] = episodes.lengths[:] = 0
            return np.zeros(len(episodes), dtype=np.float32)

    for kind in (TextEnv, TextVectorEnv):
        harmed, sound = kind("Copy", length=2, reward=Vandal()), kind("Copy", length=2)
        harmed.reset(seed=0), sound.reset(seed=0)
        for action in (5, 6) if kind is TextEnv else ([5], [6]):
            one, two = harmed.step(action), sound.step(action)
        assert np.array_equal(one[0], two[0])
        if kind is TextVectorEnv:
            assert one[4]["final_obs"].tolist() == two[4]["final_obs"].tolist()
