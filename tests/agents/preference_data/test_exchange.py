"""Pairs: out and in again, as files and as data sets of Hugging Face; what is no pair is named by its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agents.lm import Ranking, save_rankings
from agents.lm.preferences import rank_margins
from agents.preference_data import from_dataset, load_pairs, load_preferences, save_pairs, to_dataset

RANKINGS = [Ranking("the film", ("good", "bad", "long"), (1, 4, 2)), Ranking("plot", ("a", "b"), (1, 1))]
PAIRS = [
    {"prompt": "the film", "chosen": "good", "rejected": "bad", "margin": 1.0},
    {"prompt": "the film", "chosen": "good", "rejected": "long", "margin": 0.5},
    {"prompt": "the film", "chosen": "long", "rejected": "bad", "margin": 0.5},
]
CHAT = [{"role": "user", "content": "hi"}]


def answer(text: str) -> list[dict[str, str]]:
    return [*CHAT, {"role": "assistant", "content": text}]


def test_margins_count_steps_between_different_ranks() -> None:
    assert rank_margins(Ranking("", ("a", "b", "c", "d"), (7, 1, 3, 3))).tolist() == [1.0, 0.5, 0.5, 0.5, 0.5]
    assert rank_margins(Ranking("", ("a", "b"), (1, 1))).tolist() == []
    assert rank_margins(Ranking("", ("a", "b"), (2, 1), margin=0.25)).tolist() == [0.25]
    with pytest.raises(ValueError, match=r"'margin' is at least 0, and of two answers; got 0\.5 of 3"):
        Ranking("", ("a", "b", "c"), (1, 2, 3), margin=0.5)


def test_files_of_pairs(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    assert save_pairs(path, RANKINGS) == 3
    assert [json.loads(line) for line in path.read_text().splitlines()] == PAIRS
    back = load_pairs(path)
    assert back[1] == Ranking("the film", ("good", "long"), (1, 2), margin=0.5)
    assert save_pairs(path, back) == 3
    assert [json.loads(line) for line in path.read_text().splitlines()] == PAIRS


def test_a_text_is_not_paired_with_itself(tmp_path: Path) -> None:
    ranking = Ranking("p", ("a", "b", "a"), (1, 2, 3))
    assert save_pairs(tmp_path / "pairs.jsonl", [ranking]) == 2
    assert [each.answers for each in load_pairs(tmp_path / "pairs.jsonl")] == [("a", "b"), ("b", "a")]


def test_an_export_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    save_pairs(path, RANKINGS)
    with pytest.raises(UnicodeEncodeError):
        save_pairs(path, [*RANKINGS, Ranking("p", ("\ud800", "b"), (1, 2))])
    assert len(load_pairs(path)) == 3


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    for name, row in (("pairs", PAIRS[0]), ("rankings", {"prompt": "p", "answers": ["a", "b"], "ranks": [1, 2]})):
        path = tmp_path / f"{name}.jsonl"
        path.write_text(json.dumps(row), encoding="utf-8-sig")
        assert len(load_preferences(path)) == 1


def test_both_forms_are_told_apart(tmp_path: Path) -> None:
    save_pairs(tmp_path / "pairs.jsonl", RANKINGS)
    save_rankings(tmp_path / "rankings.jsonl", RANKINGS)
    assert len(load_preferences(tmp_path / "pairs.jsonl")) == 3
    assert load_preferences(tmp_path / "rankings.jsonl") == RANKINGS
    row = {"prompt": "p", "answers": ["a", "b"], "ranks": [1, 2], "liked": 3}
    (tmp_path / "rankings.jsonl").write_text(json.dumps(row))
    with pytest.raises(ValueError, match=r"line 1: unknown column 'liked'. Known are prompt, answers, ranks"):
        load_preferences(tmp_path / "rankings.jsonl")
    assert len(load_preferences(tmp_path / "rankings.jsonl", ignore=["liked"])) == 1


def test_data_sets_of_hugging_face() -> None:
    datasets = pytest.importorskip("datasets")
    dataset = to_dataset(RANKINGS)
    assert isinstance(dataset, datasets.Dataset)
    assert dataset.to_list() == PAIRS
    assert to_dataset(RANKINGS, margins=False).column_names == ["prompt", "chosen", "rejected"]
    assert [each.margin for each in from_dataset(dataset)] == [1.0, 0.5, 0.5]
    with pytest.raises(ValueError, match="None of the rankings prefers"):
        to_dataset(RANKINGS[1:])


def test_chats() -> None:
    (ranking,) = from_dataset([{"chosen": answer("x"), "rejected": answer("y")}])
    assert ranking == Ranking("hi", ("x", "y"), (1, 2))
    (ranking,) = from_dataset([{"prompt": CHAT, "chosen": answer("x")[1:], "rejected": answer("y")[1:]}])
    assert ranking == Ranking("hi", ("x", "y"), (1, 2))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "p", "chosen": "a"}, "There is no 'rejected': a pair has both sides. The row has prompt, chosen"),
        ({"prompt": "p", "chosen": None, "rejected": "a"}, "There is no 'chosen'"),
        ({"chosen": "b", "rejected": "a"}, "There is no 'prompt'; the row has chosen, rejected"),
        ({"prompt": "p", "chosen": "a", "rejected": "a"}, "'chosen' and 'rejected' are the same: 'a'"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "score": 1}, "unknown column 'score'"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "x": 1, "y": 1}, "unknown columns 'x', 'y'"),
        ({"prompt": "p", "chosen": "a", "rejected": 5}, "'answers' must be texts; got 5"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "margin": -1}, "'margin' is at least 0"),
        ({"chosen": answer("a"), "rejected": [{"role": "user", "content": "ho"}, *answer("b")]}, "prompts .* differ"),
        ({"chosen": answer("a"), "rejected": []}, "A chat without messages has no answer"),
        ({"chosen": answer("a"), "rejected": ["b"]}, "A chat must be a list of messages"),
    ],
)  # fmt: skip
def test_rows_that_are_no_pair(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    good = {"prompt": "p", "chosen": "a", "rejected": "b"}
    with pytest.raises(ValueError, match=f"Row 1: .*{message}"):
        from_dataset([good, row])
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, (good, {}, row))).replace("{}", ""))
    with pytest.raises(ValueError, match=f"pairs.jsonl, line 3: .*{message}"):
        load_pairs(path)


def test_files_that_hold_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="There is no file"):
        load_preferences(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(ValueError, match="holds no preferences"):
        load_preferences(tmp_path / "empty.jsonl")
    (tmp_path / "list.jsonl").write_text("[1]\n")
    with pytest.raises(ValueError, match="line 1: a row must be an object"):
        load_preferences(tmp_path / "list.jsonl")
    with pytest.raises(ValueError, match="The data set has no rows"):
        from_dataset([])
