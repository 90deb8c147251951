"""The store: what was recorded is there, after a kill too; exports and imports are inverses; nonsense is refused."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.lm import Ranking, load_rankings, save_rankings
from agents.preference_data import Item, PreferenceStore, load_items, load_pairs, save_pairs
from agents.preference_data.store import Judgement, Progress, StoreError

ITEMS = [
    Item("the film", ("was good .", "was <b>bad</b>", "")),
    Item("the ‘plot’", ("a", "b"), gold=(0.5, -1.0), finished=(True, False)),
]


@pytest.fixture
def store(tmp_path: Path) -> PreferenceStore:
    store = PreferenceStore(tmp_path / "store.sqlite")
    assert store.add_items(ITEMS) == 2
    return store


def test_items_come_back_and_are_kept_once(store: PreferenceStore) -> None:
    assert store.item_ids() == [1, 2]
    assert [store.item(number) for number in (1, 2)] == ITEMS
    assert store.add_items([ITEMS[1], Item("the film", ("was good .", "other"))]) == 1
    assert store.item_ids() == [1, 2, 3]
    with pytest.raises(StoreError, match="There is no item 9"):
        store.item(9)


def test_rankings_are_the_annotators_own(store: PreferenceStore) -> None:
    store.record(" ada ", 1, 1, [2, 1, 2], shown=[3, 1, 2], seconds=2.5, time="2026-01-02T03:04:05+00:00")
    store.record("bob", 1, 1, [1, 2, 3])
    store.record("bob", 2, 1, None)
    assert store.judged("ada") == {(1, 1): False}
    assert store.judged("bob") == {(1, 1): False, (2, 1): True}
    assert store.judged("eve") == {}
    assert store.annotators() == {"ada": Progress(1, 0), "bob": Progress(1, 1)}
    first, second = store.rankings()
    assert first == Ranking(
        "the film", ITEMS[0].answers, (2, 1, 2), shown=(3, 1, 2), annotator="ada", round=1,
        time="2026-01-02T03:04:05+00:00", seconds=2.5,
    )  # fmt: skip
    assert (second.annotator, second.ranks, second.shown) == ("bob", (1, 2, 3), None)
    assert second.time is not None
    assert second.time.startswith("20")


def test_a_ranking_sent_twice_counts_once_and_the_last_one_holds(store: PreferenceStore) -> None:
    for ranks in ([1, 2], [1, 2], [2, 1]):
        store.record("ada", 2, 1, ranks)
    store.record("ada", 2, 2, [1, 1])
    assert [(each.round, each.ranks) for each in store.rankings()] == [(1, (2, 1)), (2, (1, 1))]


def test_undo_takes_back_the_last_of_the_same_annotator(store: PreferenceStore) -> None:
    store.record("ada", 1, 1, [1, 2, 3])
    store.record("ada", 2, 1, None)
    store.record("bob", 1, 1, [3, 2, 1])
    assert store.undo("ada") == Judgement(2, 1, None)
    assert store.undo("ada") == Judgement(1, 1, (1, 2, 3))
    assert store.undo("ada") is None
    assert store.undo("nobody") is None
    assert [each.annotator for each in store.rankings()] == ["bob"]


def test_export_and_import_are_inverses(store: PreferenceStore, tmp_path: Path) -> None:
    store.record("ada", 1, 1, [2, 1, 2], shown=[3, 1, 2], seconds=2.5)
    store.record("ada", 2, 1, [1, 2])
    store.record("ada", 2, 2, [2, 1])
    save_rankings(tmp_path / "rankings.jsonl", store.rankings())
    with PreferenceStore(tmp_path / "other.sqlite") as other:
        rankings = load_rankings(tmp_path / "rankings.jsonl")
        assert other.add_rankings(rankings) == 3
        assert other.add_rankings(rankings) == 3  # again: nothing is doubled
        assert other.rankings() == store.rankings()


def test_an_import_is_all_or_nothing(store: PreferenceStore) -> None:
    good, bad = Ranking("new", ("a", "b"), (10, 20), annotator="ada"), Ranking("new", ("a", "b"), (1, 2))
    with pytest.raises(StoreError, match=r"Ranking 1: it does not say who ranked \(annotator\)"):
        store.add_rankings([good, bad])
    assert store.item_ids() == [1, 2]
    assert store.rankings() == []
    store.add_rankings([good])
    assert store.rankings()[0].ranks == (1, 2)  # whatever numbers stood for the order


def test_an_import_that_contradicts_itself_loses_nothing_in_silence(store: PreferenceStore) -> None:
    one = Ranking("p", ("a", "b"), (1, 2), annotator="ada")
    other = Ranking("p", ("a", "b"), (2, 1), annotator=" ada")
    with pytest.raises(
        StoreError, match=r"Ranking 2: it and ranking 0 are both by 'ada', .* \('p'\) in round 1, and d"
    ):
        store.add_rankings([one, replace(one, annotator="bob"), other])
    assert store.rankings() == []
    assert store.add_rankings([one, one, replace(other, round=2)]) == 2  # a copy is no contradiction
    assert [(each.round, each.ranks) for each in store.rankings()] == [(1, (1, 2)), (2, (2, 1))]


def test_margins_of_pairs_from_elsewhere_are_kept(store: PreferenceStore, tmp_path: Path) -> None:
    row = {"prompt": "p", "chosen": "a", "rejected": "b", "margin": 0.25}
    (tmp_path / "in.jsonl").write_text(json.dumps(row))
    store.add_rankings([replace(each, annotator="ada") for each in load_pairs(tmp_path / "in.jsonl")])
    assert store.rankings()[0].margin == 0.25
    assert save_pairs(tmp_path / "out.jsonl", store.rankings()) == 1
    assert json.loads((tmp_path / "out.jsonl").read_text()) == row


KILLED = """
import os, sys
from agents.preference_data import PreferenceStore
store = PreferenceStore(sys.argv[1])
for round in range(1, 1000):
    store.record("ada", 1, round, [1, 2, 3])
    print(round, flush=True)
    if round == 7:
        store._db.execute("BEGIN IMMEDIATE")  # in the middle of the next one
        store._db.execute("DELETE FROM rankings")
        os.kill(os.getpid(), 9)
"""


def test_a_kill_loses_nothing_that_was_confirmed(store: PreferenceStore, tmp_path: Path) -> None:
    store.close()
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(store.path)], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == -9, done.stderr
    assert done.stdout.split() == [str(round) for round in range(1, 8)]
    with PreferenceStore(store.path) as again:
        assert [each.round for each in again.rankings()] == list(range(1, 8))


def test_several_threads_at_once(store: PreferenceStore) -> None:
    def work(name: str) -> None:
        for round in range(1, 21):
            store.record(name, 1, round, [1, 2, 3])

    threads = [threading.Thread(target=work, args=(f"annotator {i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.rankings()) == 80
    assert all(len(each.ranks) == 3 for each in store.rankings())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ada", 1, 1, [1, 2]), r"ranks must be 3 whole numbers of 1 … 3; got \[1, 2\]"),
        (("ada", 1, 1, [0, 1, 2]), "ranks must be 3 whole numbers of 1 … 3"),
        (("ada", 1, 1, [1, 2, True]), "ranks must be 3 whole numbers"),
        (("ada", 5, 1, [1, 2, 3]), "There is no item 5"),
        (("ada", 1, 0, [1, 2, 3]), "round must be a whole number from 1; got 0"),
        (("  ", 1, 1, [1, 2, 3]), "A name has 1 … 40 printable characters; got ''"),
        (("a" * 41, 1, 1, [1, 2, 3]), "A name has 1 … 40"),
        (("a\nb", 1, 1, [1, 2, 3]), "printable"),
    ],
)
def test_what_is_refused_leaves_nothing_behind(store: PreferenceStore, arguments: Any, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        store.record(*arguments)
    with pytest.raises(StoreError, match="shown must be places that differ"):
        store.record("ada", 1, 1, [1, 2, 3], shown=[1, 1, 2])
    assert store.rankings() == []
    assert store.annotators() == {}


def test_files_that_are_no_store(tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_text("not a database, " * 100)
    with pytest.raises(StoreError, match=r"text\.sqlite cannot be opened as a store of preferences"):
        PreferenceStore(tmp_path / "text.sqlite")
    with sqlite3.connect(tmp_path / "other.sqlite") as other:
        other.execute("CREATE TABLE x (y)")
    other.close()
    with pytest.raises(StoreError, match="is a database of another program"):
        PreferenceStore(tmp_path / "other.sqlite")
    PreferenceStore(tmp_path / "new.sqlite").close()
    newer = sqlite3.connect(tmp_path / "new.sqlite")
    newer.execute("PRAGMA user_version = 7")
    newer.close()
    with pytest.raises(StoreError, match="is of version 7; this code reads version 3"):
        PreferenceStore(tmp_path / "new.sqlite")
    with pytest.raises(StoreError, match="There is no folder"):
        PreferenceStore(tmp_path / "nowhere" / "x.sqlite")


def test_answers_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    rows = [{"prompt": "p", "answers": ["a", "b"], "kind": "x"}, {"prompt": "q", "answers": ["c", "d"], "gold": [1, 0]}]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n", encoding="utf-8")
    assert load_items(path) == [Item("p", ("a", "b")), Item("q", ("c", "d"), gold=(1, 0))]
    for line, message in [
        ("[]", "line 3: A row must be an object"),
        ('{"prompt": "p", "answers": ["a"]}', "line 3: A ranking needs at least two answers; got 1"),
        ('{"prompt": "p", "answers": "ab"}', "line 3: 'answers' must be a list of texts"),
        ('{"prompt": 1, "answers": ["a", "b"]}', "line 3: 'prompt' must be a text"),
        ("{", "line 3: Expecting"),
    ]:
        path.write_text("\n".join([*map(json.dumps, rows), line]), encoding="utf-8")
        with pytest.raises(StoreError, match=message):
            load_items(path)
    path.write_text("\n")
    with pytest.raises(StoreError, match="holds no answers"):
        load_items(path)
    with pytest.raises(StoreError, match="There is no file"):
        load_items(tmp_path / "none.jsonl")
