"""Counter-based random numbers."""

from __future__ import annotations

import numpy as np

from textenvs.rng import JUDGE_STREAM, PROMPT_STREAM, TASK_STREAM, episode_keys, splitmix64, stream_base, subkeys


def test_splitmix64_reproduces_its_published_sequence():
    # The first outputs of the reference implementation (Vigna, splitmix64.c) for the seed 1234567.
    golden = 0x9E3779B97F4A7C15
    states = np.array([(1234567 + i * golden) % 2**64 for i in range(5)], dtype=np.uint64)
    assert splitmix64(states).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert states[0] == 1234567  # the argument is left alone


def seeds(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.uint64)


def test_keys_of_all_seeds_episodes_and_streams_differ():
    keys = [
        episode_keys(stream_base(seeds(200), stream)[:, None], np.arange(200)[None, :])
        for stream in (PROMPT_STREAM, JUDGE_STREAM, TASK_STREAM)
    ]
    assert len(np.unique(np.stack(keys))) == 3 * 200 * 200


def test_a_key_depends_on_its_own_seed_and_episode_alone():
    base = stream_base(seeds(5), PROMPT_STREAM)
    keys = episode_keys(base, np.array([3, 1, 4, 1, 5]))
    assert keys[2] == episode_keys(stream_base(np.array([2], dtype=np.uint64), PROMPT_STREAM), np.array([4]))[0]


def uniform_within(counts: np.ndarray, total: int) -> bool:
    """Whether counts of equally probable outcomes are within 5 standard deviations of their expectation."""
    p = 1 / len(counts)
    return bool((np.abs(counts - total * p) < 5 * np.sqrt(total * p * (1 - p))).all())


def test_keys_are_uniform_along_seeds_and_along_episodes():
    by_seed = episode_keys(stream_base(seeds(40_000), PROMPT_STREAM), np.zeros(40_000, dtype=np.int64))
    by_episode = episode_keys(stream_base(seeds(1), PROMPT_STREAM), np.arange(40_000))
    for keys in (by_seed, by_episode, subkeys(by_seed, 3)[:, 1], subkeys(by_seed[:10_000], 4).ravel()):
        for modulus in (2, 7, 64):
            assert uniform_within(np.bincount((keys % np.uint64(modulus)).astype(int), minlength=modulus), len(keys))
        high = (keys >> np.uint64(58)).astype(int)
        assert uniform_within(np.bincount(high, minlength=64), len(keys))


def test_neighbours_are_uncorrelated():
    keys = episode_keys(stream_base(seeds(300), PROMPT_STREAM)[:, None], np.arange(300)[None, :])
    uniform = keys / 2.0**64 - 0.5
    bound = 5 / 12 / np.sqrt(keys.size)  # 5 standard errors of the mean product of two uniform numbers
    for one, two in (
        (uniform[:-1], uniform[1:]),
        (uniform[:, :-1], uniform[:, 1:]),
        (uniform[1:, :-1], uniform[:-1, 1:]),  # seed + 1 with episode − 1: a counter without mixing repeats here
    ):
        assert abs((one * two).mean()) < bound
    pair = subkeys(keys.ravel(), 2) / 2.0**64 - 0.5
    assert abs((pair[:, 0] * pair[:, 1]).mean()) < bound


def test_subkeys_are_a_prefix_of_more_subkeys():
    keys = splitmix64(seeds(10))
    assert np.array_equal(subkeys(keys, 5)[:, :2], subkeys(keys, 2))
    assert subkeys(keys, 0).shape == (10, 0)
