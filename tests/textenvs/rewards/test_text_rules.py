"""Rules on decoded text: literal scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from textenvs import Episodes, RewardError
from textenvs.checking import check_reward
from textenvs.rewards import Judge, make_reward
from textenvs.rewards.text_rules import last_number, normalised


def score(spec: str | Mapping[str, Any], completions: list[str], **columns: Any) -> list[float]:
    """Scores through the guard."""
    episodes = Episodes.from_texts([""] * len(completions), completions, columns)
    return Judge(make_reward(spec))(episodes).total.tolist()


def test_keyword_presence() -> None:
    texts = ["A good, GOOD film", "goods", "fine and good", "", "good-ish"]
    assert score("keyword_presence:good,fine", texts) == [0.5, 0, 1, 0, 0.5]
    spec = {"name": "keyword_presence", "words": ["good", "fine"], "whole_words": False}
    assert score(spec, texts) == [0.5, 0.5, 1, 0, 0.5]
    spec = {"name": "keyword_presence", "words": ["GOOD"], "ignore_case": False}
    assert score(spec, texts) == [1, 0, 0, 0, 0]
    # Phrases, signs and words that fold to the same one
    assert score("keyword_presence:c++,not bad", ["C++ is not bad", "c+", "bad"]) == [1, 0, 0]
    assert score("keyword_presence:Straße,STRASSE", ["strasse"]) == [1]


def test_regex() -> None:
    texts = ["ab", "xaby", "AB", ""]
    assert score("regex:ab", texts) == [1, 1, 0, 0]
    assert score("regex:^a:?b$", texts) == [1, 0, 0, 0]  # everything after the first colon is the pattern
    assert score({"name": "regex", "pattern": "ab", "mode": "full"}, texts) == [1, 0, 0, 0]
    assert score({"name": "regex", "pattern": "ab", "mode": "full", "ignore_case": True}, texts) == [1, 0, 1, 0]


def test_json_valid() -> None:
    texts = ['{"a": 1, "b": [null]}', ' {"a": NaN} ', "[1, 2", "3", "", '{"a": 1}', '["a", "b"]', "[" * 100_000]
    assert score("json_valid", texts) == [1, 0, 0, 1, 0, 1, 1, 0]
    assert score({"name": "json_valid", "required": ["a", "b"]}, texts) == [1, 0, 0, 0, 0, 0, 0, 0]
    assert score("json_valid:a", texts) == [1, 0, 0, 0, 0, 1, 0, 0]


def test_exact_match() -> None:
    texts, target = ["Paris", " paris. ", "Paris?!", "", "ﬁn"], ["Paris", "Paris", "London", "", "fin"]
    assert score("exact_match", texts, target=target) == [1, 0, 0, 1, 0]
    assert score({"name": "exact_match", "normalise": True}, texts, target=target) == [1, 1, 0, 1, 1]
    assert score("exact_match:city", ["a", "b"], city=np.array(["a", "a"])) == [1, 0]
    assert normalised("  The “Cat”,\n sat… ") == "the cat sat"


def test_exact_match_reads_ids_as_text() -> None:
    check_reward("exact_match")  # Reverse has the column target_ids


def test_fuzzy_match() -> None:
    texts, target = ["kitten", "", "abc", "abc", "ABC!"], ["sitting", "", "", "abc", "abc"]
    # kitten → sitting takes 3 edits of 7 characters
    np.testing.assert_allclose(score("fuzzy_match", texts, target=target), [4 / 7, 1, 0, 1, 0], rtol=1e-6)
    spec = {"name": "fuzzy_match", "normalise": True}
    np.testing.assert_allclose(score(spec, texts, target=target), [4 / 7, 1, 0, 1, 1], rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("the answer is 42", 42),
        ("the answer is 42.", 42),
        ("so x = -3.5!", -3.5),
        ("−7", -7),
        ("+7", 7),
        ("7-5", 5),
        ("7 - 5", 5),
        ("7 -5", -5),
        ("(2)-3", 3),
        ("1,234,567.89 dollars", 1_234_567.89),
        ("$-1,000", -1000),
        ("1,23", 23),
        ("12,3456", 3456),
        (".5", 0.5),
        ("0.5.", 0.5),
        ("2e-3", 0.002),
        ("2E+3", 2000),
        ("5em", 5),
        ("50%", 50),
        ("a 1 b 2 c", 2),
        ("item-9", 9),
        ("٣", None),  # digits are 0 to 9
        ("one", None),
        ("", None),
        ("-", None),
        ("1.", 1),
    ],
)
def test_last_number(text: str, number: float | None) -> None:
    assert last_number(text) == number


def test_numeric_answer() -> None:
    texts = ["I say 42", "42.0", "41.99999", "", "1,000", "4" * 400, "0.0000001"]
    assert score("numeric_answer", texts, target=[42, 42, 42, 42, 1000, 42, 0]) == [1, 1, 1, 0, 1, 0, 1]
    strict = {"name": "numeric_answer", "tolerance": 0}
    assert score(strict, texts, target=[42, 42, 42, 42, 1000, 42, 0]) == [1, 1, 0, 0, 1, 0, 0]
    # Relative beyond ±1, absolute within
    loose = {"name": "numeric_answer", "column": "answer", "tolerance": 0.1}
    wanted = np.array([100, 100, 0, 0, -100])
    assert score(loose, ["109", "111", "0.09", "0.11", "-109"], answer=wanted) == [1, 0, 1, 0, 1]
    assert score("numeric_answer", ["3", "3"], target=[np.int64(3), np.float32(3)]) == [1, 1]
    # The number of a text is its last one
    assert score("numeric_answer:answer", ["1.5", "2"], answer=["3 + 4 #### 1.5", "2,000"]) == [1, 0]


@pytest.mark.parametrize(
    ("spec", "columns", "says"),
    [
        ("exact_match", {"answer": ["a"]}, "'target', which this task does not have. Its columns: answer"),
        ("fuzzy_match", {}, r"Its columns: \(none\)"),
        ("exact_match", {"target": [3]}, "needs texts in the column 'target'; row 0 holds 3"),
        ("numeric_answer", {}, "'numeric_answer' compares with the column 'target'"),
        ("numeric_answer", {"target": ["none"]}, "row 0 of the column 'target' is no number: 'none'"),
        ("numeric_answer", {"target": [float("nan")]}, "is no number: nan"),
        ("numeric_answer", {"target": [True]}, "is no number: True"),
    ],
)
def test_unfit_columns_stop_the_run(spec: str, columns: dict[str, Any], says: str) -> None:
    with pytest.raises(RewardError, match=says) as caught:
        score(spec, ["a"], **columns)
    assert "completion 'a'" in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "error", "says"),
    [
        ("keyword_presence:", ValueError, "holds an empty string"),
        ({"name": "keyword_presence", "words": []}, ValueError, "must name at least one"),
        ({"name": "keyword_presence", "words": [1]}, TypeError, "must be strings, got 1"),
        ("regex:(", ValueError, "is not a regular expression"),
        ({"name": "regex", "pattern": 3}, TypeError, "must be a string"),
        ({"name": "regex", "pattern": "a", "mode": "ful"}, ValueError, "Did you mean 'full'"),
        ({"name": "json_valid", "required": [1]}, TypeError, "must be strings"),
        ({"name": "numeric_answer", "tolerance": -1}, ValueError, "tolerance must be finite and not negative"),
        ({"name": "fuzzy_match", "colum": "x"}, TypeError, "column"),
    ],
)
def test_bad_arguments(spec: str | Mapping[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        make_reward(spec)


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rapidfuzz.process", None)
    with pytest.raises(ImportError, match=r"'fuzzy_match' needs 'rapidfuzz': pip install 'textenvs\[rewards\]'"):
        make_reward("fuzzy_match")


@pytest.mark.parametrize("spec", ["keyword_presence:1,2", "regex:1", "json_valid", "fuzzy_match", "numeric_answer"])
def test_fulfils_the_contract(spec: str) -> None:
    check_reward(spec)
