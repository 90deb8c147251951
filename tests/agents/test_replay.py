"""EpisodeReplay: what it keeps, the ring, sampling, priorities, resuming."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from agents.collect import Rollout
from agents.replay import EpisodeReplay
from textenvs import TextSpec, Vocab


def spec(num_tokens: int = 5, has_masks: bool = False) -> TextSpec:
    return TextSpec(
        prompt_length=2,
        max_new_tokens=3,
        pad_id=num_tokens,
        eos_ids=(),
        vocab=Vocab.symbols(num_tokens),
        has_masks=has_masks,
        group_size=1,
    )


def episodes(first: int, count: int, *, num_tokens: int = 5, masks: bool = False, **changes: Any) -> Rollout:
    """Episodes ``first`` …: number i has length 1 + i % 3, score i, log-probs −i, key 10 i, prompt number 100 + i."""
    numbers = np.arange(first, first + count)
    lengths = 1 + numbers % 3
    rows = np.random.default_rng(first).integers(num_tokens, size=(count, 5))
    rows[:, 2:][np.arange(3) >= lengths[:, None]] = num_tokens
    rewards = np.zeros((count, 3), dtype=np.float32)
    rewards[np.arange(count), lengths - 1] = numbers
    fields: dict[str, Any] = {
        "rows": rows,
        "lengths": lengths,
        "rewards": rewards,
        "logprobs": -np.tile(numbers[:, None], 3).astype(np.float32),
        "terminated": np.ones(count, dtype=bool),
        "truncated": np.zeros(count, dtype=bool),
        "action_masks": np.random.default_rng(first).random((count, 3, num_tokens)) < 0.5 if masks else None,
        "sub_envs": numbers,
        "keys": (10 * numbers).astype(np.uint64),
        "prompt_index": 100 + numbers,
        "timesteps": int(lengths.sum()),
    }
    return Rollout(**(fields | changes))


def test_a_batch_is_what_was_added() -> None:
    replay = EpisodeReplay(10, spec(), keep_logprobs=True)
    rollout = episodes(0, 7)
    assert replay.add(rollout) == 7
    batch = replay.sample(7, np.random.default_rng(0))
    assert len(set(batch.index.tolist())) < 7  # with replacement
    np.testing.assert_array_equal(batch.rows, rollout.rows[batch.index])
    np.testing.assert_array_equal(batch.lengths, rollout.lengths[batch.index])
    np.testing.assert_array_equal(batch.scores, batch.index)
    np.testing.assert_array_equal(batch.logprobs, rollout.logprobs[batch.index])
    np.testing.assert_array_equal(batch.weights, np.ones(7))
    assert (batch.rows.dtype, batch.lengths.dtype, batch.scores.dtype) == (np.int64, np.int64, np.float32)
    assert batch.action_masks is None
    assert EpisodeReplay(10, spec()).add(rollout) == 7
    state = replay.get_state()
    np.testing.assert_array_equal(state["keys"], rollout.keys)
    np.testing.assert_array_equal(state["prompt_index"], rollout.prompt_index)


@pytest.mark.parametrize(("num_tokens", "dtype"), [(255, np.uint8), (256, np.uint16), (65_536, np.uint32)])
def test_tokens_take_the_smallest_type_that_holds_padding(num_tokens: int, dtype: type) -> None:
    vocab = Vocab.symbols(5)
    shapes = TextSpec(2, 3, num_tokens, (), vocab, False, 1)
    replay = EpisodeReplay(4, shapes)
    rollout = episodes(0, 3, num_tokens=num_tokens)
    rollout.rows[0] = num_tokens
    replay.add(rollout)
    assert replay.get_state()["tokens"].dtype == dtype
    batch = replay.sample(3, np.random.default_rng(0))
    np.testing.assert_array_equal(batch.rows, rollout.rows[batch.index])


@pytest.mark.parametrize("num_tokens", [5, 8, 9])
def test_masks_come_back_unpacked(num_tokens: int) -> None:
    replay = EpisodeReplay(4, spec(num_tokens, has_masks=True))
    rollout = episodes(0, 4, num_tokens=num_tokens, masks=True)
    replay.add(rollout)
    batch = replay.sample(4, np.random.default_rng(0))
    assert batch.action_masks is not None
    assert rollout.action_masks is not None
    assert batch.action_masks.dtype == bool
    np.testing.assert_array_equal(batch.action_masks, rollout.action_masks[batch.index])
    assert replay.get_state()["masks"].shape == (4, 3, -(-num_tokens // 8))


def test_the_ring_forgets_the_oldest_first() -> None:
    replay = EpisodeReplay(5, spec())
    replay.add(episodes(0, 3))
    assert len(replay) == 3
    np.testing.assert_array_equal(replay.ages, [2, 1, 0])
    replay.add(episodes(3, 4))
    assert (len(replay), replay.num_added) == (5, 7)
    np.testing.assert_array_equal(replay.scores, [5, 6, 2, 3, 4])
    np.testing.assert_array_equal(replay.ages, [1, 0, 4, 3, 2])
    assert replay.add(episodes(7, 12)) == 12  # more than fit: the last ones stay, in the same places as one by one
    one_by_one = EpisodeReplay(5, spec())
    for i in range(19):
        one_by_one.add(episodes(i, 1))
    np.testing.assert_array_equal(replay.scores, one_by_one.scores)
    np.testing.assert_array_equal(replay.ages, one_by_one.ages)
    assert sorted(replay.scores) == [14, 15, 16, 17, 18]
    assert replay.num_added == 19


def test_truncated_episodes_are_skipped() -> None:
    replay = EpisodeReplay(10, spec())
    ended = np.array([True, False, True, False])
    assert replay.add(episodes(0, 4, terminated=ended, truncated=~ended)) == 2
    np.testing.assert_array_equal(replay.scores, [0, 2])
    assert replay.add(episodes(0, 0)) == 0


def test_rewards_before_the_end_are_refused() -> None:
    replay = EpisodeReplay(10, spec())
    rollout = episodes(0, 3)
    rollout.rewards[2, 1] = 0.25
    with pytest.raises(ValueError, match=r"reward of the last step; this environment gave 0.25 at step 2 of 3"):
        replay.add(rollout)
    assert len(replay) == 0


def test_rows_of_another_environment_are_refused() -> None:
    with pytest.raises(ValueError, match="Rows of 4 tokens do not belong into a replay buffer of rows of 5"):
        EpisodeReplay(10, spec()).add(episodes(0, 3, rows=np.zeros((3, 4), dtype=np.int64)))


def test_uniform_sampling_is_uniform() -> None:
    replay = EpisodeReplay(20, spec())
    replay.add(episodes(0, 20))
    generator = np.random.default_rng(0)
    drawn = np.concatenate([replay.sample(20, generator).index for _ in range(500)])
    counts = np.bincount(drawn, minlength=20)
    assert abs(counts - 500).max() < 5 * np.sqrt(500)


def test_the_recent_share_is_exact_and_recent() -> None:
    replay = EpisodeReplay(40, spec())
    replay.add(episodes(0, 65))  # the ring has turned: the last 8 are 57 … 64, in places 17 … 24
    generator = np.random.default_rng(0)
    batch = replay.sample(40, generator, recent=8, recent_share=0.5)
    assert set(batch.scores[:20]) <= set(range(57, 65))
    assert set(range(57, 65)) == set(replay.sample(40, generator, recent=8, recent_share=1.0).scores)
    assert batch.scores[20:].min() < 50
    few = EpisodeReplay(40, spec())
    few.add(episodes(0, 3))
    assert set(few.sample(3, generator, recent=8, recent_share=1.0).scores) <= {0, 1, 2}


def test_priorities_are_proportional_and_weights_correct_for_them() -> None:
    replay = EpisodeReplay(4, spec(), priority_alpha=0.5)
    replay.add(episodes(0, 4))
    replay.update_priorities(np.arange(4), np.array([1.0, -4.0, 9.0, 16.0]), epsilon=0.0)
    generator = np.random.default_rng(0)
    batches = [replay.sample(4, generator, beta=1.0) for _ in range(2_000)]
    index = np.concatenate([batch.index for batch in batches])
    shares = np.bincount(index, minlength=4) / len(index)
    np.testing.assert_allclose(shares, [0.1, 0.2, 0.3, 0.4], atol=0.02)
    literal = next(batch for batch in batches if set(batch.index) == {0, 1, 2, 3})
    np.testing.assert_allclose(literal.weights[np.argsort(literal.index)], [1, 1 / 2, 1 / 3, 1 / 4], rtol=1e-6)
    half = replay.sample(4, generator, beta=0.5)
    expected = np.array([1.0, 2, 3, 4])[half.index] ** -0.5
    np.testing.assert_allclose(half.weights, expected / expected.max(), rtol=1e-6)


def test_weights_know_the_recent_share() -> None:
    replay = EpisodeReplay(4, spec(), priority_alpha=1.0)
    replay.add(episodes(0, 4))
    replay.update_priorities(np.arange(4), np.array([1.0, 2.0, 3.0, 4.0]), epsilon=0.0)
    batch = replay.sample(4, np.random.default_rng(1), recent=2, recent_share=0.5, beta=1.0)
    probabilities = 0.5 * np.array([0.1, 0.2, 0.3, 0.4]) + 0.5 * np.array([0, 0, 0.5, 0.5])
    expected = 1 / probabilities[batch.index]
    np.testing.assert_allclose(batch.weights, expected / expected.max(), rtol=1e-6)


def test_new_episodes_have_the_highest_priority_so_far() -> None:
    replay = EpisodeReplay(4, spec(), priority_alpha=1.0)
    replay.add(episodes(0, 1))
    replay.update_priorities(np.array([0]), np.array([7.0]), epsilon=0.0)
    replay.update_priorities(np.array([0]), np.array([0.5]), epsilon=0.0)
    replay.add(episodes(1, 1))
    np.testing.assert_array_equal(replay.get_state()["priorities"], [0.5, 7.0])


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="capacity must be at least 1 episode; got 0"):
        EpisodeReplay(0, spec())
    with pytest.raises(ValueError, match="priority_alpha must not be negative; got -1"):
        EpisodeReplay(1, spec(), priority_alpha=-1)
    replay, generator = EpisodeReplay(8, spec()), np.random.default_rng(0)
    with pytest.raises(ValueError, match="A batch of 9 episodes is larger than the replay buffer's capacity of 8"):
        replay.sample(9, generator)
    replay.add(episodes(0, 4))
    with pytest.raises(ValueError, match="from 1 to 4, the episodes in the buffer; got 5"):
        replay.sample(5, generator)
    with pytest.raises(ValueError, match=r"recent_share must be from 0 to 1; got 1\.5"):
        replay.sample(2, generator, recent=2, recent_share=1.5)
    with pytest.raises(ValueError, match="recent_share needs recent="):
        replay.sample(2, generator, recent_share=0.5)
    with pytest.raises(ValueError, match="recent must be at least 1 episode; got 0"):
        replay.sample(2, generator, recent=0, recent_share=0.5)
    with pytest.raises(ValueError, match="no priorities"):
        replay.update_priorities(np.array([0]), np.array([1.0]))
    prioritised = EpisodeReplay(8, spec(), priority_alpha=1.0)
    prioritised.add(episodes(0, 1))
    with pytest.raises(ValueError, match="must be finite"):
        prioritised.update_priorities(np.array([0]), np.array([np.nan]))


@pytest.mark.parametrize("added", [0, 3, 13])
def test_resuming_is_exact(added: int) -> None:
    def make() -> EpisodeReplay:
        return EpisodeReplay(8, spec(has_masks=True), keep_logprobs=True, priority_alpha=0.7)

    original = make()
    original.add(episodes(0, added, masks=True))
    if added:
        original.update_priorities(np.array([1, 2]), np.array([0.3, 5.0]))
    resumed = make()
    resumed.add(episodes(50, 20, masks=True))  # to be forgotten
    resumed.set_state(original.get_state())
    for replay in (original, resumed):
        replay.add(episodes(added, 4, masks=True))
    first, second = original.get_state(), resumed.get_state()
    assert first.keys() == second.keys()
    for name, values in first.items():
        assert values.dtype == second[name].dtype
        np.testing.assert_array_equal(values, second[name])
    batches = [replay.sample(3, np.random.default_rng(5), recent=2, recent_share=0.4) for replay in (original, resumed)]
    for name in ("index", "rows", "lengths", "scores", "logprobs", "action_masks", "weights"):
        np.testing.assert_array_equal(getattr(batches[0], name), getattr(batches[1], name))


def test_states_of_other_buffers_are_refused() -> None:
    replay = EpisodeReplay(8, spec())
    replay.add(episodes(0, 8))
    state = replay.get_state()
    with pytest.raises(ValueError, match=r"has .*num_added.*; got .*priorities"):
        replay.set_state(EpisodeReplay(8, spec(), priority_alpha=1.0).get_state())
    smaller = EpisodeReplay(4, spec())
    with pytest.raises(ValueError, match=r"'tokens' should be uint8 \(4, 5\) after 8 episodes with a capacity of 4"):
        smaller.set_state(state)
    assert len(smaller) == 0


# -- what a reference says ---------------------------------------------------------------------------------------------


def test_the_reference_is_asked_once_for_each_text() -> None:
    replay = EpisodeReplay(4, spec(), keep_ref_logprobs=True)
    replay.add(episodes(0, 3))
    np.testing.assert_array_equal(replay.without_ref_logprobs(), [0, 1, 2])
    said = np.array([[-1.0, 0.0, 0.0], [-2.0, -3.0, 0.0]], dtype=np.float32)
    replay.set_ref_logprobs(np.array([2, 0]), said)
    np.testing.assert_array_equal(replay.without_ref_logprobs(), [1])
    batch = replay.take(np.array([0, 1, 2]))
    assert batch.ref_logprobs is not None
    np.testing.assert_array_equal(batch.ref_logprobs[[2, 0]], said)
    assert np.isnan(batch.ref_logprobs[1]).all()
    np.testing.assert_array_equal(batch.weights, np.ones(3))
    replay.add(episodes(3, 2))  # the fifth takes the place of the first
    np.testing.assert_array_equal(replay.without_ref_logprobs(), [0, 1, 3])
    assert EpisodeReplay(4, spec()).take(np.zeros(0, dtype=np.int64)).ref_logprobs is None
    with pytest.raises(ValueError, match="reference gives NaN"):
        replay.set_ref_logprobs(np.array([0]), np.full((1, 3), np.nan))


def test_what_the_reference_said_is_saved() -> None:
    replay, other = (EpisodeReplay(4, spec(), keep_ref_logprobs=True) for _ in range(2))
    replay.add(episodes(0, 3))
    replay.set_ref_logprobs(np.array([1]), -np.ones((1, 3), dtype=np.float32))
    other.set_state(replay.get_state())
    np.testing.assert_array_equal(other.without_ref_logprobs(), [0, 2])
    np.testing.assert_array_equal(other.take(np.array([1])).ref_logprobs, [[-1.0, -1.0, -1.0]])
    with pytest.raises(ValueError, match="ref_logprobs"):
        EpisodeReplay(4, spec()).set_state(replay.get_state())


def test_places_of_the_newest() -> None:
    replay = EpisodeReplay(4, spec())
    assert len(replay.places(3)) == 0
    replay.add(episodes(0, 6))
    np.testing.assert_array_equal(replay.take(replay.places(3)).scores, [3, 4, 5])
    assert len(replay.places(9)) == 4  # the others are forgotten
    together = EpisodeReplay(4, spec(), deduplicate=True)
    for _ in range(2):
        together.add(episodes(0, 2))
    np.testing.assert_array_equal(together.places(3), [1, 0, 1])
