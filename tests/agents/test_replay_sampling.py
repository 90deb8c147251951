"""Which episodes are drawn: probabilities against literal numbers, the cap, and what the buffer makes of them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from agents.collect import Rollout
from agents.replay import EpisodeReplay
from agents.replay_sampling import cap_probabilities, draw, rarity_probabilities, score_probabilities
from textenvs import TextSpec, Vocab

SPEC = TextSpec(1, 2, 4, (), Vocab.symbols(4), False, 1)


def rollout(prompts: list[int], scores: list[float], texts: list[tuple[int, int]] | None = None) -> Rollout:
    count = len(prompts)
    texts = texts or [(i % 4, i // 4 % 4) for i in range(count)]
    rewards = np.zeros((count, 2), dtype=np.float32)
    rewards[:, 1] = scores
    fields: dict[str, Any] = {
        "rows": np.array([[p, *t] for p, t in zip(prompts, texts, strict=True)]),
        "lengths": np.full(count, 2),
        "rewards": rewards,
        "logprobs": np.zeros((count, 2), dtype=np.float32),
        "terminated": np.ones(count, dtype=bool),
        "truncated": np.zeros(count, dtype=bool),
        "action_masks": None,
        "sub_envs": np.arange(count),
        "keys": np.arange(count, dtype=np.uint64),
        "prompt_index": np.arange(count),
        "timesteps": 2 * count,
    }
    return Rollout(**fields)


def test_better_texts_of_a_prompt_are_drawn_more_often_and_prompts_keep_their_share() -> None:
    # At this temperature a score that is higher by 1 is odds of 3 : 1.
    probabilities = score_probabilities(np.array([0.0, 1.0, 5.0, 7.0]), np.array([9, 9, 2, 2]), 1 / math.log(3))
    np.testing.assert_allclose(probabilities, [0.5 / 4, 0.5 * 3 / 4, 0.5 / 10, 0.5 * 9 / 10])
    uneven = score_probabilities(np.array([3.0, 3.0, 3.0, -1.0]), np.array([0, 0, 0, 1]), 0.01)
    np.testing.assert_allclose(uneven, [0.25] * 4)


def test_the_best_text_survives_a_tiny_temperature() -> None:
    probabilities = score_probabilities(np.array([0.0, 1e6]), np.array([0, 0]), 1e-6)
    np.testing.assert_array_equal(probabilities, [0, 1])


def test_every_score_is_drawn_equally_often() -> None:
    np.testing.assert_allclose(rarity_probabilities(np.array([0.0, 0, 0, 1])), [1 / 6, 1 / 6, 1 / 6, 1 / 2])
    np.testing.assert_allclose(rarity_probabilities(np.array([0.1, 0.2, 0.3])), [1 / 3] * 3)


def test_cap_literal() -> None:
    p = np.array([0.7, 0.2, 0.05, 0.05])
    assert cap_probabilities(p, 4.0) is p  # nothing is above 1
    # At most 1/2: the 0.2 that are cut off go to the others in proportion 4 : 1 : 1.
    np.testing.assert_allclose(cap_probabilities(p, 2.0), [0.5, 1 / 3, 1 / 12, 1 / 12])
    # At most 0.3: then 0.7 · 0.2 / 0.3 is above it too, and the last two share what is left.
    np.testing.assert_allclose(cap_probabilities(p, 1.2), [0.3, 0.3, 0.2, 0.2])
    np.testing.assert_allclose(cap_probabilities(p, 1.0), [0.25] * 4)
    np.testing.assert_allclose(cap_probabilities(np.array([0.0, 1.0, 0.0, 0.0]), 2.0), [1 / 6, 1 / 2, 1 / 6, 1 / 6])
    with pytest.raises(ValueError, match=r"cap must be at least 1, which is uniform; got 0\.5"):
        cap_probabilities(p, 0.5)


@pytest.mark.parametrize("cap", [1.0, 1.5, 3.0, 20.0])
def test_the_cap_keeps_order_and_entropy(cap: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        p = rng.dirichlet(np.full(30, 0.1))
        capped = cap_probabilities(p, cap)
        assert capped.sum() == pytest.approx(1)
        assert capped.max() <= cap / 30 * (1 + 1e-9)
        assert (np.diff(capped[np.argsort(p)]) >= -1e-12).all()
        positive = capped[capped > 0]
        assert -(positive * np.log(positive)).sum() >= math.log(30 / cap) - 1e-9


def test_draws_follow_their_probabilities() -> None:
    drawn = draw(np.array([1.0, 0.0, 3.0]), 4_000, np.random.default_rng(0))
    np.testing.assert_allclose(np.bincount(drawn, minlength=3) / 4_000, [0.25, 0, 0.75], atol=0.03)


def test_shares_of_a_batch() -> None:
    """Two prompts; of the last one hundred draws of each kind, what the probabilities say."""
    replay = EpisodeReplay(8, SPEC, score_temperature=0.1)
    replay.add(rollout([0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 5, 5, 5, 5]))
    generator = np.random.default_rng(0)

    def shares(**kinds: float) -> np.ndarray:
        drawn = np.concatenate([replay.sample(8, generator, recent=2, **kinds).index for _ in range(1_000)])
        return np.bincount(drawn, minlength=8) / len(drawn)

    np.testing.assert_allclose(shares(score_share=1.0), [0, 0, 0, 0.5, *[1 / 8] * 4], atol=0.02)
    np.testing.assert_allclose(shares(rare_share=1.0), [*[1 / 9] * 3, 1 / 3, *[1 / 12] * 4], atol=0.02)
    half = shares(score_share=0.5, recent_share=0.25)
    expected = 0.5 * np.array([0, 0, 0, 0.5, *[1 / 8] * 4]) + 0.25 * np.array([0] * 6 + [0.5, 0.5]) + 0.25 / 8
    np.testing.assert_allclose(half, expected, atol=0.02)


def test_new_episodes_change_what_is_drawn_by_score() -> None:
    replay = EpisodeReplay(4, SPEC, score_temperature=1e-3)
    generator = np.random.default_rng(0)
    replay.add(rollout([0, 0], [0, 1]))
    assert set(replay.sample(2, generator, score_share=1.0).scores) == {1}
    replay.add(rollout([0], [2]))
    assert set(replay.sample(3, generator, score_share=1.0).scores) == {2}


def test_the_buffer_caps_every_priority() -> None:
    replay = EpisodeReplay(4, SPEC, score_temperature=1e-3, priority_alpha=1.0, priority_cap=2.0)
    replay.add(rollout([0] * 4, [0, 0, 0, 1]))
    replay.update_priorities(np.arange(4), np.array([0, 0, 0, 1e6]))
    generator = np.random.default_rng(0)
    for kinds in ({"score_share": 1.0}, {}):
        drawn = np.concatenate([replay.sample(4, generator, **kinds).index for _ in range(2_000)])
        np.testing.assert_allclose(np.bincount(drawn) / len(drawn), [1 / 6] * 3 + [1 / 2], atol=0.02)


def test_importance_weights_know_every_share() -> None:
    replay = EpisodeReplay(4, SPEC, score_temperature=1 / math.log(3), priority_alpha=1.0)
    replay.add(rollout([0] * 4, [0, 0, 0, 1]))
    replay.update_priorities(np.arange(4), np.array([1.0, 2.0, 3.0, 4.0]), epsilon=0.0)
    batch = replay.sample(4, np.random.default_rng(1), score_share=0.25, rare_share=0.25, recent=2, recent_share=0.25)
    by_error = np.array([0.1, 0.2, 0.3, 0.4])
    by_score, by_rarity = np.array([1, 1, 1, 3]) / 6, np.array([1, 1, 1, 3]) / 6
    mixture = (by_error + by_score + by_rarity + np.array([0, 0, 0.5, 0.5])) / 4
    expected = 1 / mixture[batch.index]
    np.testing.assert_allclose(batch.weights, expected / expected.max(), rtol=1e-6)


def test_shares_out_of_range() -> None:
    replay = EpisodeReplay(4, SPEC)
    replay.add(rollout([0] * 4, [0, 0, 0, 1]))
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"score_share must be from 0 to 1; got -0\.1"):
        replay.sample(4, generator, score_share=-0.1)
    with pytest.raises(ValueError, match="shares of a batch add up to more than 1"):
        replay.sample(4, generator, score_share=0.75, rare_share=0.5)
    with pytest.raises(ValueError, match="priority_cap must be None or at least 1; got 0"):
        EpisodeReplay(4, SPEC, priority_cap=0)
    with pytest.raises(ValueError, match="score_temperature must be positive; got 0"):
        EpisodeReplay(4, SPEC, score_temperature=0.0)


# -- equal texts -------------------------------------------------------------------------------------------------------

A, B, C, D = (0, 0), (0, 1), (1, 0), (1, 1)


def test_equal_texts_share_a_place_and_their_mean_score() -> None:
    replay = EpisodeReplay(4, SPEC, deduplicate=True)
    replay.add(rollout([0, 0, 1, 0], [1, 5, 7, 2], [A, B, A, A]))
    assert (len(replay), replay.num_added) == (3, 4)  # text A to prompt 1 is another episode
    np.testing.assert_allclose(replay.scores, [1.5, 5, 7])
    replay.add(rollout([0], [6], [A]))
    np.testing.assert_allclose(replay.scores, [3, 5, 7])
    np.testing.assert_array_equal(replay.ages, [0, 3, 2])
    np.testing.assert_array_equal(replay.get_state()["counts"], [3, 1, 1])


def test_scores_of_another_judge_begin_a_new_mean() -> None:
    replay = EpisodeReplay(4, SPEC, deduplicate=True)
    for judge, score in (("match 1", 1.0), ("match 1", 2.0), ("prefix 1", 7.0), ("prefix 1", 9.0)):
        replay.add(dataclasses.replace(rollout([0], [score], [A]), judge=judge))
    assert replay.scores.tolist() == [8.0]
    assert replay.judged_by == ["prefix 1"]


def test_what_has_not_been_written_for_longest_is_forgotten() -> None:
    replay = EpisodeReplay(2, SPEC, deduplicate=True)
    replay.add(rollout([0, 0, 0, 0], [1, 2, 3, 4], [A, B, A, C]))
    np.testing.assert_array_equal(replay.scores, [2, 4])  # B is gone; A: (1 + 3) / 2
    replay.add(rollout([0], [8], [B]))  # B again, as if for the first time, in the place of A
    np.testing.assert_array_equal(replay.scores, [8, 4])
    np.testing.assert_array_equal(replay.get_state()["counts"], [1, 1])


def test_recent_draws_count_episodes_and_not_texts() -> None:
    replay = EpisodeReplay(4, SPEC, deduplicate=True)
    replay.add(rollout([0] * 6, [1, 2, 1, 1, 3, 1], [A, B, A, A, C, A]))
    assert len(replay) == 3
    generator = np.random.default_rng(0)
    batches = [replay.sample(3, generator, recent=4, recent_share=1.0).scores for _ in range(1_000)]
    values, counts = np.unique(np.concatenate(batches), return_counts=True)
    assert values.tolist() == [1, 3]
    np.testing.assert_allclose(counts / counts.sum(), [0.75, 0.25], atol=0.03)


def test_resuming_a_deduplicated_buffer_is_exact() -> None:
    def make() -> EpisodeReplay:
        return EpisodeReplay(3, SPEC, deduplicate=True)

    original, resumed = make(), make()
    original.add(rollout([0] * 4, [1, 2, 3, 4], [A, B, C, A]))
    resumed.add(rollout([0] * 4, [9, 9, 9, 9], [D, B, C, A]))
    resumed.set_state(original.get_state())
    for replay in (original, resumed):
        replay.add(rollout([0] * 3, [5, 6, 7], [B, D, A]))
    first, second = original.get_state(), resumed.get_state()
    assert first.keys() == second.keys()
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])
    draws = [r.sample(3, np.random.default_rng(1), recent=2, recent_share=0.5) for r in (original, resumed)]
    np.testing.assert_array_equal(draws[0].index, draws[1].index)
    with pytest.raises(ValueError, match="history"):
        EpisodeReplay(3, SPEC).set_state(first)


def test_without_equal_texts_a_deduplicated_buffer_draws_like_any_other() -> None:
    plain, merging = EpisodeReplay(5, SPEC), EpisodeReplay(5, SPEC, deduplicate=True)
    for replay in (plain, merging):
        replay.add(rollout([0] * 8, list(range(8))))
    np.testing.assert_array_equal(np.sort(plain.scores), np.sort(merging.scores))
    draws = [r.sample(5, np.random.default_rng(1), recent=3, recent_share=1.0).scores for r in (plain, merging)]
    np.testing.assert_array_equal(*draws)
