"""check_reward finds each planted fault, says it in words, and passes every sound plug-in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from texts import make_episodes

import textenvs
from textenvs import Episodes, check_reward
from textenvs.rewards import RewardError, Scores


class Sound:
    """Fraction of even digits."""

    name, low, high, version, deterministic = "sound", 0.0, 1.0, "1", True

    def score(self, episodes: Episodes) -> np.ndarray:
        even = (episodes.completion_ids % 2 == 0) & (episodes.completion_ids != episodes.pad_id)
        return (even.sum(1) / np.maximum(episodes.lengths, 1)).astype(np.float32)


class WrongShape(Sound):
    def score(self, episodes: Episodes) -> np.ndarray:
        return super().score(episodes)[:, None]


class WrongLength(Sound):
    def score(self, episodes: Episodes) -> np.ndarray:
        return super().score(episodes)[1:]


class NotFinite(Sound):
    def score(self, episodes: Episodes) -> np.ndarray:
        return np.where(super().score(episodes) > 0.5, np.nan, 0.0).astype(np.float32)


class OutOfRange(Sound):
    def score(self, episodes: Episodes) -> np.ndarray:
        return 2 * super().score(episodes)


class WrongType(Sound):
    def score(self, episodes: Episodes) -> Any:
        return super().score(episodes).astype(np.float64)


class AList(Sound):
    def score(self, episodes: Episodes) -> Any:
        return super().score(episodes).tolist()


class Raises(Sound):
    def score(self, episodes: Episodes) -> np.ndarray:
        raise OSError("disk")


class ReadsPadding(Sound):
    def score(self, episodes: Episodes) -> np.ndarray:
        return (episodes.completion_ids % 2 == 0).mean(1).astype(np.float32)


class ReadsOrder(Sound):
    def score(self, episodes: Episodes) -> np.ndarray:
        return (np.arange(len(episodes)) % 2).astype(np.float32)


class ReadsOthers(Sound):
    def score(self, episodes: Episodes) -> np.ndarray:
        scores = super().score(episodes)
        return (scores >= scores.mean()).astype(np.float32)


class ChangesItsAnswer(Sound):
    calls = 0

    def score(self, episodes: Episodes) -> np.ndarray:
        self.calls += 1
        return np.full(len(episodes), 1 / self.calls, dtype=np.float32)


class ChangesTheTexts(Sound):
    def score(self, episodes: Episodes) -> np.ndarray:
        scores = super().score(episodes)
        episodes.completion_ids[:] = 0
        return scores


class FailsOnEmpty(Sound):
    def score(self, episodes: Episodes) -> np.ndarray:
        if (episodes.lengths == 0).any():
            raise ValueError("nothing to score")
        return super().score(episodes)


class FailsAlone(Sound):
    def score(self, episodes: Episodes) -> np.ndarray:
        if len(episodes) == 1:
            return np.float32(0.5)  # type: ignore[return-value]  # the planted fault: squeezed to a scalar
        return super().score(episodes)


class SoundParts(Sound):
    """Reports what it is asked to beside a sound score."""

    def __init__(self, component: Any = None, gold: Any = None) -> None:
        self.component, self.gold = component, gold

    def score_parts(self, episodes: Episodes) -> Any:
        total = self.score(episodes)
        components = {} if self.component is None else {"part": self.component(episodes)}
        return Scores(total, components, None if self.gold is None else self.gold(episodes))


class PartsAreATuple(Sound):
    def score_parts(self, episodes: Episodes) -> Any:
        return self.score(episodes), {}


def row_number(episodes: Episodes) -> np.ndarray:
    return np.arange(len(episodes), dtype=np.float32)


class NameIsANumber(Sound):
    name = 3  # type: ignore[assignment]  # the planted fault


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (WrongShape, r"shape \(64,\); got shape \(64, 1\)"),
        (WrongLength, r"shape \(64,\); got shape \(63,\)"),
        (NotFinite, "returned nan for prompt"),
        (OutOfRange, "outside its declared range"),
        (WrongType, "float32 array, not an array of float64"),
        (AList, "float32 array, not a list"),
        (Raises, "raised OSError: disk"),
        (ReadsPadding, "with more padding"),
        (ReadsOrder, "in another order"),
        (ReadsOthers, "in half the batch|alone in its batch"),
        (ChangesItsAnswer, "declares itself deterministic, but asked again"),
        (ChangesTheTexts, "changed the episodes"),
        (FailsOnEmpty, "an empty text: .*nothing to score"),
        (FailsAlone, "alone in its batch"),
        (NameIsANumber, "name must be a string"),
        (PartsAreATuple, r"must return Scores from score_parts, got \(array"),
        (lambda: SoundParts(lambda e: [1.0] * (len(e) - 1)), "each component as floats of shape .*'part' is"),
        (lambda: SoundParts(lambda e: ["a"] * len(e)), "each component as floats"),
        (lambda: SoundParts(lambda e: np.full(len(e), np.inf)), "each component as floats"),
        (lambda: SoundParts(row_number), "in another order: the component 'part' of"),
        (lambda: SoundParts(gold=lambda e: np.full(len(e), np.nan)), r"\(its gold score\)' returned nan"),
        (lambda: SoundParts(gold=row_number), "in another order: the gold score of"),
    ],
)
def test_planted_faults_are_found(broken: Callable[[], Any], message: str) -> None:
    with pytest.raises(RewardError, match=f"(?s)breaks the contract.*({message})"):
        check_reward(broken())


def test_sound_rewards_pass() -> None:
    check_reward(Sound())
    check_reward(lambda completions: [float(len(text)) for text in completions])
    check_reward({"name": "noise", "reward": "match", "probability": 0.3})
    check_reward(SoundParts(lambda episodes: np.full(len(episodes), np.nan), gold=Sound().score))
    check_reward("keywords", make_episodes(["ab", "c"], keywords_ids=np.array([[0], [2]])))


def test_a_judge_with_declared_randomness_may_change_its_answer() -> None:
    class Random(Sound):
        deterministic = False

        def __init__(self) -> None:
            self.rng = np.random.default_rng(0)

        def score(self, episodes: Episodes) -> np.ndarray:
            return self.rng.random(len(episodes), dtype=np.float32)

    check_reward(Random())


def test_every_rule_without_arguments_passes() -> None:
    for name in ("match", "prefix"):
        check_reward(name)
    assert "match" in textenvs.list_rewards()
