"""The ranking page's application: order, repeats, undo, and who is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra annotate: pip install 'textenvs[annotate]'")

from fastapi.testclient import TestClient

from agents.preference_data import Item, PreferenceStore
from agents.preference_data.serving import create_app, make_order, make_queue, refusal

ITEMS = [Item(f"prompt {i}", tuple(f"answer {i}{letter}" for letter in "abcd")) for i in range(3)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PreferenceStore]:
    with PreferenceStore(tmp_path / "store.sqlite") as store:
        store.add_items(ITEMS)
        yield store


@pytest.fixture
def client(store: PreferenceStore) -> Iterator[TestClient]:
    with TestClient(create_app(store, repeats=0.0), base_url="http://127.0.0.1:8010") as client:
        yield client


def ask(client: TestClient, what: str, name: str = "ada", **body: Any) -> dict[str, Any]:
    answer = client.post(f"/api/{what}", json={"annotator": name, **body})
    assert answer.status_code == 200, answer.text
    state: dict[str, Any] = answer.json()
    return state


def judge(client: TestClient, state: dict[str, Any], ranks: list[int] | None, name: str = "ada") -> dict[str, Any]:
    item = state["item"]
    return ask(client, "judge", name, item=item["item"], round=item["round"], ranks=ranks, seconds=1.5)


def test_ranks_are_kept_by_answer_and_not_by_place(client: TestClient, store: PreferenceStore) -> None:
    state = ask(client, "next")
    shown = state["item"]["answers"]
    assert sorted(shown) == sorted(ITEMS[0].answers)
    after = judge(client, state, [2, 1, 2, 4])
    assert (after["ranked"], after["skipped"], after["left"], after["can_undo"]) == (1, 0, 2, True)
    (ranking,) = store.rankings()
    assert [ranking.ranks[ranking.answers.index(text)] for text in shown] == [2, 1, 2, 4]
    assert ranking.shown is not None
    assert [ranking.shown[ranking.answers.index(text)] for text in shown] == [1, 2, 3, 4]
    assert (ranking.annotator, ranking.round, ranking.seconds) == ("ada", 1, 1.5)


def test_orders_differ_and_stay(client: TestClient) -> None:
    assert ask(client, "next") == ask(client, "next")
    orders = {tuple(make_order(name, item, 1, 4)) for name in ("ada", "bob") for item in range(30)}
    assert len(orders) > 15
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    firsts = [make_order("ada", item, 1, 4)[0] for item in range(4_000)]
    assert all(900 < firsts.count(number) < 1_100 for number in range(4))


def test_annotators_do_not_meet(client: TestClient) -> None:
    before = ask(client, "next", "bob")
    judge(client, ask(client, "next"), [1, 2, 3, 4])
    assert ask(client, "next", "bob") == before
    assert ask(client, "next", " ada ")["ranked"] == 1  # spaces do not make another person


def test_skip_undo_and_the_end(client: TestClient, store: PreferenceStore) -> None:
    first = ask(client, "next")
    second = judge(client, first, None)
    third = judge(client, second, [1, 1, 1, 1])
    assert (third["ranked"], third["skipped"]) == (1, 1)
    back = ask(client, "undo")
    assert back["item"] == second["item"] | {"ranks": [1, 1, 1, 1]}
    assert ask(client, "next")["item"] == second["item"]
    assert ask(client, "undo")["item"] == first["item"]
    assert ask(client, "undo")["can_undo"] is False
    state = first
    while state["item"] is not None:
        state = judge(client, state, [4, 3, 2, 1])
    assert (state["ranked"], state["left"]) == (3, 0)
    assert len(store.rankings()) == 3


def test_the_queue_repeats_a_share_later() -> None:
    assert make_queue([4, 5], "ada", 0.0) == [(4, 1), (5, 1)]
    assert make_queue([4, 5], "ada", 1.0) == [(4, 1), (5, 1), (4, 2), (5, 2)]
    queue = make_queue(list(range(1_000)), "ada", 0.2)
    again = [item for item, round in queue if round == 2]
    assert 150 < len(again) < 250
    assert [item for item, round in queue if round == 1] == list(range(1_000))
    gaps = [queue.index((item, 2)) - queue.index((item, 1)) for item in again if item < 980]
    assert min(gaps) >= 10
    assert max(gaps) < 40
    assert again != [item for item, round in make_queue(list(range(1_000)), "bob", 0.2) if round == 2]


def test_what_was_skipped_is_not_repeated(store: PreferenceStore) -> None:
    with TestClient(create_app(store, repeats=1.0), base_url="http://localhost") as client:
        state = judge(client, ask(client, "next"), None)
        assert state["left"] == 4  # two items, twice each
        rounds = []
        while state["item"] is not None:
            rounds.append(state["item"]["round"])
            state = judge(client, state, [1, 2, 3, 4])
        assert rounds == [1, 1, 2, 2]
        assert state["left"] == 0


@pytest.mark.parametrize(
    ("method", "headers", "reason"),
    [
        ("GET", {"host": "127.0.0.1:8010"}, None),
        ("GET", {"host": "localhost"}, None),
        ("GET", {"host": "[::1]:9"}, None),
        ("GET", {"host": "evil.example:8010"}, "this machine alone"),
        ("GET", {"host": "127.0.0.1.evil.example"}, "this machine alone"),
        ("GET", {"host": "[::1"}, "this machine alone"),
        ("GET", {}, "this machine alone"),
        ("POST", {"host": "localhost:1", "content-type": "application/json; charset=utf-8"}, None),
        ("POST", {"host": "localhost:1", "origin": "http://localhost:1", "content-type": "application/json"}, None),
        ("POST", {"host": "localhost:1", "origin": "http://localhost:2", "content-type": "application/json"}, "other"),
        ("POST", {"host": "localhost:1", "origin": "null", "content-type": "application/json"}, "from other sites"),
        ("POST", {"host": "localhost:1", "sec-fetch-site": "cross-site", "content-type": "application/json"}, "other"),
        ("GET", {"host": "localhost:1", "sec-fetch-site": "same-site"}, "from other sites"),
        ("POST", {"host": "localhost:1", "content-type": "text/plain"}, "must be JSON"),
        ("POST", {"host": "localhost:1"}, "must be JSON"),
    ],
)  # fmt: skip
def test_who_is_refused(method: str, headers: dict[str, str], reason: str | None) -> None:
    told = refusal(method, headers)
    assert told is None if reason is None else told is not None and reason in told


def test_a_refused_request_changes_nothing(client: TestClient, store: PreferenceStore) -> None:
    body = {"annotator": "ada", "item": 1, "round": 1, "ranks": [1, 2, 3, 4], "seconds": 1}
    for headers in ({"origin": "https://evil.example"}, {"host": "evil.example"}):
        answer = client.post("/api/judge", json=body, headers=headers)
        assert answer.status_code == 403
    assert store.annotators() == {}
    page = client.get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "access-control-allow-origin" not in page.headers


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"ranks": [1, 2]}, 422, "There are 4 answers but 2 ranks"),
        ({"ranks": [1, 2, 3, 5]}, 422, "ranks must be 4 whole numbers of 1 … 4"),
        ({"ranks": [1, 2, 3, "4"]}, 422, "body.ranks.3"),
        ({"item": 77}, 422, "Item 77, round 1 is not among those of 'ada'"),
        ({"round": 2}, 422, "Item 1, round 2 is not among"),
        ({"annotator": " "}, 422, "A name has 1 … 40 printable characters"),
        ({"seconds": -1}, 422, "body.seconds"),
        ({"more": 1}, 422, "body.more"),
        ({"annotator": "a" * 70_000}, 413, "larger than 65,536 bytes"),
    ],
)
def test_bad_requests(
    client: TestClient, store: PreferenceStore, change: dict[str, Any], status: int, message: str
) -> None:
    body = {"annotator": "ada", "item": 1, "round": 1, "ranks": [1, 2, 3, 4], "seconds": 1} | change
    answer = client.post("/api/judge", json=body)
    assert answer.status_code == status
    assert message in answer.json()["detail"]
    assert store.rankings() == []


def test_stores_that_cannot_be_served(tmp_path: Path) -> None:
    with PreferenceStore(tmp_path / "empty.sqlite") as empty:
        with pytest.raises(ValueError, match=r"empty\.sqlite holds no answers to rank"):
            create_app(empty)
        empty.add_items(ITEMS)
        with pytest.raises(ValueError, match=r"repeats is a share of the items, in \[0, 1\]; got 2"):
            create_app(empty, repeats=2)
