"""Rankings: the simulated annotator follows its model, rankings give the right pairs, files are read strictly."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.lm.preferences import (
    Ranking,
    best_accuracy,
    load_rankings,
    pairs,
    preference_probabilities,
    rank_answers,
    save_rankings,
    to_pairs,
)

# -- the annotator -----------------------------------------------------------------------------------------------------


def test_probabilities_by_hand() -> None:
    p = preference_probabilities(np.array([[0.0, math.log(3) / 2]]), scale=2.0)
    np.testing.assert_allclose(p, [[[0.5, 0.25], [0.75, 0.5]]], rtol=1e-12)
    extreme = preference_probabilities(np.array([[0.0, 1.0]]), scale=1e6)
    np.testing.assert_array_equal(extreme, [[[0.5, 0.0], [1.0, 0.5]]])


def test_pairs_of_a_ranking_follow_bradley_terry() -> None:
    """Each pair's frequency within four standard errors of its probability, in rankings of four answers."""
    gold, scale, count = np.array([0.1, 0.4, -0.3, 0.15]), 3.0, 40_000
    ranks = rank_answers(np.tile(gold, (count, 1)), scale, seed=0)
    assert ranks.dtype == np.int64
    np.testing.assert_array_equal(np.sort(ranks, axis=1), np.tile([1, 2, 3, 4], (count, 1)))
    wins = (ranks[:, :, None] < ranks[:, None, :]).mean(axis=0)
    expected = preference_probabilities(gold[None], scale)[0]
    for i in range(4):
        for j in range(4):
            if i != j:
                error = math.sqrt(expected[i, j] * (1 - expected[i, j]) / count)
                assert abs(wins[i, j] - expected[i, j]) < 4 * error, (i, j)


def test_orders_follow_plackett_luce() -> None:
    """The probability of a whole order is a product of choices of the best among those that are left."""
    worth = np.array([1.0, 2.0, 5.0])
    ranks = rank_answers(np.tile(np.log(worth), (40_000, 1)), 1.0, seed=3)
    share = (ranks == [2, 3, 1]).all(axis=1).mean()  # third, then first, then second
    expected = (5 / 8) * (1 / 3)
    assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / 40_000)


def test_one_seed_repeats_and_two_differ() -> None:
    gold = np.random.default_rng(0).normal(size=(50, 4))
    one, same, other = (rank_answers(gold, 1.0, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_a_sure_annotator_is_right_and_one_who_guesses_is_fair() -> None:
    gold = np.random.default_rng(0).normal(size=(4_000, 3))
    sure = rank_answers(gold, 1e9, seed=0)
    np.testing.assert_array_equal(sure, 1 + (gold[:, None, :] > gold[:, :, None]).sum(axis=2))
    first = (rank_answers(gold, 0.0, seed=0) == 1).mean(axis=0)
    np.testing.assert_allclose(first, 1 / 3, atol=4 * math.sqrt(2 / 9 / 4_000))


def test_best_accuracy_by_hand() -> None:
    third = math.log(2)  # σ(log 2) = 2/3, σ(log 4) = 4/5
    assert best_accuracy(np.array([[0.0, third]]), 1.0) == pytest.approx(2 / 3)
    assert best_accuracy(np.array([[0.0, third], [third, 0.0]]), 1.0) == pytest.approx(2 / 3)
    assert best_accuracy(np.array([[0.0, third, 2 * third]]), 1.0) == pytest.approx((2 / 3 + 4 / 5 + 2 / 3) / 3)
    assert best_accuracy(np.array([[1.0, 1.0]]), 5.0) == 0.5


def test_nobody_predicts_better_than_best_accuracy() -> None:
    gold = np.random.default_rng(0).normal(size=(3_000, 4))
    ranks = rank_answers(gold, 1.5, seed=1)
    better = ranks[:, :, None] < ranks[:, None, :]
    agree = (gold[:, :, None] > gold[:, None, :])[better].mean()
    assert abs(agree - best_accuracy(gold, 1.5)) < 4 * 0.5 / math.sqrt(better.sum() / 3)  # pairs of a prompt depend


@pytest.mark.parametrize(
    ("gold", "scale", "message"),
    [
        (np.zeros(4), 1.0, r"gold must be \[N, K\].*got shape \(4,\)"),
        (np.zeros((4, 1)), 1.0, "at least 2"),
        (np.array([[0.0, np.nan]]), 1.0, "gold scores must be finite"),
        (np.zeros((1, 2)), -1.0, "scale must be at least 0 and finite; got -1.0"),
        (np.zeros((1, 2)), np.inf, "scale must be at least 0 and finite"),
    ],
)
def test_gold_that_cannot_be_ranked(gold: np.ndarray, scale: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rank_answers(gold, scale, seed=0)


# -- rankings ----------------------------------------------------------------------------------------------------------


def test_pairs_by_hand() -> None:
    np.testing.assert_array_equal(pairs([2, 1, 3]), [[0, 2], [1, 0], [1, 2]])
    np.testing.assert_array_equal(pairs([1, 2, 1]), [[0, 1], [2, 1]])  # a tie decides nothing
    assert pairs([1, 1]).shape == (0, 2)
    for k in (2, 4, 9):
        assert len(pairs(np.random.default_rng(k).permutation(k))) == k * (k - 1) // 2


RANKINGS = [
    Ranking("the film", ("was good .", "was bad .", "is ‘long’"), (1, 3, 2), gold=(0.5, -0.5, 0.0)),
    Ranking("the plot", ("a", "b"), (1, 1), finished=(True, False)),
]


def test_rows_of_pairs() -> None:
    assert to_pairs(RANKINGS) == [
        {"prompt": "the film", "chosen": "was good .", "rejected": "was bad ."},
        {"prompt": "the film", "chosen": "was good .", "rejected": "is ‘long’"},
        {"prompt": "the film", "chosen": "is ‘long’", "rejected": "was bad ."},
    ]


def test_rankings_come_back_from_disk(tmp_path: Path) -> None:
    path = tmp_path / "rankings.jsonl"
    save_rankings(path, RANKINGS)
    assert load_rankings(path) == RANKINGS
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert list(rows[0]) == ["prompt", "answers", "ranks", "gold"]
    assert list(rows[1]) == ["prompt", "answers", "ranks", "finished"]
    path.write_text(
        path.read_text(encoding="utf-8") + '\n{"prompt": "", "answers": ["", "x"], "ranks": [2, 1], "by": 7}'
    )
    assert load_rankings(path)[2] == Ranking("", ("", "x"), (2, 1))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "Expecting property name"),
        ("[1, 2]", r"A row must be an object \{prompt, answers, ranks\}"),
        ({"prompt": "a", "answers": ["b", "c"]}, "There is no 'ranks'; the row has prompt, answers"),
        ({"prompt": 3, "answers": ["b", "c"], "ranks": [1, 2]}, "'prompt' must be a text; got 3"),
        ({"prompt": "a", "answers": "bc", "ranks": [1, 2]}, "'answers' must be a list of texts; got 'bc'"),
        ({"prompt": "a", "answers": ["b", None], "ranks": [1, 2]}, "'answers' must be texts; got None"),
        ({"prompt": "a", "answers": ["b"], "ranks": [1]}, "at least two answers; got 1"),
        ({"prompt": "a", "answers": ["b", "c"], "ranks": [1]}, "2 answers but 1 entries in 'ranks'"),
        ({"prompt": "a", "answers": ["b", "c"], "ranks": [1, 1.5]}, "'ranks' must be whole numbers; got 1.5"),
        ({"prompt": "a", "answers": ["b", "c"], "ranks": [1, True]}, "'ranks' must be whole numbers; got True"),
        ({"prompt": "a", "answers": ["b", "c"], "ranks": [1, 2], "gold": [0, "x"]}, "'gold' must be numbers; got 'x'"),
        ({"prompt": "a", "answers": ["b", "c"], "ranks": [1, 2], "finished": [1, 0]}, "'finished' must be true or f"),
    ],
)
def test_bad_rows_are_named_by_their_line(row: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rankings.jsonl"
    save_rankings(path, RANKINGS)
    line = row if isinstance(row, str) else json.dumps(row)
    path.write_text(path.read_text(encoding="utf-8") + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=f"rankings.jsonl, line 4: .*{message}"):
        load_rankings(path)


def test_files_that_hold_no_rankings(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"There is no file .*none\.jsonl' with rankings"):
        load_rankings(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ValueError, match=r"empty\.jsonl holds no rankings"):
        load_rankings(tmp_path / "empty.jsonl")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not a UTF-8 text file"):
        load_rankings(tmp_path / "binary.jsonl")
