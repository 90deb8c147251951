"""Counter-based random numbers: what an episode draws depends only on its seed and its number.

A generator object would have to be stepped, copied and saved for every sub-environment; a hash of (seed, episode
number) needs none of that, is computed for any set of sub-environments at once, and is the same number in a scalar and
in a vector environment. The hash is SplitMix64 (Steele, Lea and Flood, 2014, "Fast splittable pseudorandom number
generators"), whose output passes BigCrush for consecutive counters.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from functools import lru_cache

import numpy as np

# Arrays without dimensions: NumPy takes them as operands faster than its scalars.
GOLDEN = np.array(0x9E3779B97F4A7C15, dtype=np.uint64)
_MIX_1 = np.array(0xBF58476D1CE4E5B9, dtype=np.uint64)
_MIX_2 = np.array(0x94D049BB133111EB, dtype=np.uint64)
_SHIFT_30, _SHIFT_27, _SHIFT_31 = (np.array(bits, dtype=np.uint64) for bits in (30, 27, 31))

# Streams: independent uses of one (seed, episode) pair.
PROMPT_STREAM = 1
JUDGE_STREAM = 2
TASK_STREAM = 3


def splitmix64(x: np.ndarray) -> np.ndarray:
    """Hash uint64 values, element by element: the finaliser of SplitMix64, after one step of its counter.

    Args:
        x: uint64 array of any shape with at least one dimension (NumPy warns when a scalar overflows).
    """
    x = x + GOLDEN
    x ^= x >> _SHIFT_30
    x *= _MIX_1
    x ^= x >> _SHIFT_27
    x *= _MIX_2
    x ^= x >> _SHIFT_31
    return x


def stream_base(seeds: np.ndarray, stream: int) -> np.ndarray:
    """Start of a stream of episode keys, uint64 [N], for seeds [N] (uint64). See :func:`episode_keys`."""
    return splitmix64(splitmix64(np.atleast_1d(seeds)) ^ np.uint64(stream))


def episode_keys(base: np.ndarray, episodes: np.ndarray) -> np.ndarray:
    """Keys of episodes, uint64 [..., N]: element ``episodes[i]`` (numbers from 0) of the streams ``base[..., i]``."""
    return splitmix64(base + episodes.astype(np.uint64) * GOLDEN)


def subkeys(keys: np.ndarray, count: int) -> np.ndarray:
    """Independent uint64 numbers [N, count] from each key [N]."""
    return splitmix64(keys[:, None] ^ _subkey_offsets(count))


@lru_cache(maxsize=256)
def _subkey_offsets(count: int) -> np.ndarray:
    offsets = splitmix64(np.arange(count, dtype=np.uint64) * GOLDEN)[None, :]
    offsets.flags.writeable = False
    return offsets


@contextlib.contextmanager
def global_randomness_kept() -> Iterator[None]:
    """Around other people's code: afterwards Python's and NumPy's global generators are as they were before."""
    state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)  # noqa: NPY002
