"""Rules on token ids: literal numbers, and a plain count of n-grams as the reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from texts import make_episodes

from textenvs import Episodes, Vocab
from textenvs.checking import check_reward
from textenvs.rewards import make_reward
from textenvs.rewards.array_rules import count_ngrams

# Tokens written, EOS included: 4, 1, 7, 6 (the last one ran into the budget).
TEXTS = make_episodes(["abc", "", "ababab", "aaaaaa"], reasons=["stop", "stop", "stop", "length"])


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("length", [4, 1, 7, 6]),
        ("length:5", [0.8, 0.2, 1, 1]),
        ({"name": "length", "maximum": 8}, [0.5, 0.125, 0.875, 0.75]),
        ("target_length:4", [1, 0.25, 0.25, 0.5]),
        ({"name": "target_length", "target": 2}, [0, 0.5, 0, 0]),
        # 2-grams: ab bc | none | ab ba ab ba ab | aa × 5
        ({"name": "repetition", "n": 2}, [0, 0, -3 / 5, -4 / 5]),
        ({"name": "repetition", "n": 1}, [0, 0, -4 / 6, -5 / 6]),
        ("repetition", [0, 0, -1 / 3, -2 / 3]),  # abab baba abab | aaaa × 3
        ("distinct_n", [1, 0, 2 / 5, 1 / 5]),
        ("distinct_n:3", [1, 0, 2 / 4, 1 / 4]),
        ("distinct_n:7", [0, 0, 0, 0]),
        ("distinct_n:99", [0, 0, 0, 0]),
    ],
)
def test_literal_scores(spec: str | Mapping[str, Any], expected: list[float]) -> None:
    reward = make_reward(spec)
    scores = reward.score(TEXTS)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    assert reward.low <= scores.min() <= scores.max() <= reward.high


def _random_texts(size: int, vocab_size: int, rng: np.random.Generator) -> Episodes:
    vocab = Vocab([f"t{i}" for i in range(vocab_size - 1)] + ["<eos>"], eos="<eos>")
    lengths = rng.integers(0, size + 1, 40)
    # Few different tokens, the largest ids among them: repetitions, and numbers of n-grams that come near the limit.
    tokens = rng.choice(np.r_[:3, vocab_size - 4 : vocab_size - 1], (40, size))
    ids = np.where(np.arange(size) < lengths[:, None], tokens, vocab_size)
    ends = (lengths < size) & (rng.random(40) < 0.7)
    ids[ends, lengths[ends]] = vocab_size - 1
    reasons = np.where(ends, "stop", "length").astype(object)
    key = np.zeros(40, dtype=np.uint64)
    return Episodes(np.zeros((40, 0), np.int64), ids, lengths + ends, reasons, key, vocab)


@pytest.mark.parametrize("vocab_size", [8, 3_000])
@pytest.mark.parametrize("n", [1, 2, 5, 13, 25])  # 3,001 to the power of 13 is beyond 64 bits
def test_ngrams_equal_a_plain_count(n: int, vocab_size: int) -> None:
    episodes = _random_texts(30, vocab_size, np.random.default_rng(n))
    total, distinct = count_ngrams(episodes, n)
    for i, row in enumerate(episodes.completion_ids.tolist()):
        tokens = [token for token in row if token < vocab_size - 1]
        grams = [tuple(tokens[k : k + n]) for k in range(len(tokens) - n + 1)]
        assert (total[i], distinct[i]) == (len(grams), len(set(grams)))


@pytest.mark.parametrize("spec", ["length", "length:3", "target_length:3", "repetition:2", "distinct_n"])
def test_fulfils_the_contract(spec: str) -> None:
    check_reward(spec)


@pytest.mark.parametrize(
    ("spec", "error", "says"),
    [
        ("length:0", ValueError, "maximum must be at least 1, got 0"),
        ("length:many", TypeError, "maximum must be a whole number, got 'many'"),
        ("target_length", TypeError, "target"),
        ({"name": "target_length", "target": 2.5}, TypeError, "target must be a whole number, got 2.5"),
        ({"name": "distinct_n", "n": True}, TypeError, "n must be a whole number, got True"),
        ({"name": "repetition", "n": -1}, ValueError, "n must be at least 1"),
        ({"name": "length", "max": 3}, TypeError, "maximum"),
    ],
)
def test_bad_arguments(spec: str | Mapping[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        make_reward(spec)
