"""PreferenceStore: answers, annotators and their rankings in one SQLite file.

store = PreferenceStore("preferences.sqlite")
store.add_items(load_items("answers.jsonl"))              # rows {prompt, answers}
store.record("ada", item=1, round=1, ranks=[2, 1, 1], shown=[3, 1, 2])
save_rankings("rankings.jsonl", store.rankings())

What ``record`` has returned from is on disk, whatever then happens to the process or the machine.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from agents.lm.preferences import Ranking, read_lines

APPLICATION = 0x74786570
"""What tells our files from other SQLite files."""
VERSION = 3
"""1 had no soft labels, 2 no margins; a file of them is brought up to date when it is opened."""
MAX_NAME = 40
"""Characters in an annotator's name."""

SCHEMA = """
CREATE TABLE items (id INTEGER PRIMARY KEY, prompt TEXT NOT NULL, digest TEXT NOT NULL UNIQUE);
CREATE TABLE answers (
    item INTEGER NOT NULL REFERENCES items, number INTEGER NOT NULL, text TEXT NOT NULL, finished INTEGER NOT NULL,
    gold REAL, PRIMARY KEY (item, number)
) WITHOUT ROWID;
CREATE TABLE annotators (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, since TEXT NOT NULL);
CREATE TABLE rankings (
    id INTEGER PRIMARY KEY AUTOINCREMENT, annotator INTEGER NOT NULL REFERENCES annotators,
    item INTEGER NOT NULL REFERENCES items, round INTEGER NOT NULL, skipped INTEGER NOT NULL, time TEXT NOT NULL,
    seconds REAL, probability REAL, margin REAL, UNIQUE (annotator, item, round)
);
CREATE TABLE ranks (
    ranking INTEGER NOT NULL REFERENCES rankings ON DELETE CASCADE, number INTEGER NOT NULL, rank INTEGER NOT NULL,
    shown INTEGER, PRIMARY KEY (ranking, number)
) WITHOUT ROWID;
"""


class StoreError(ValueError):
    """What cannot be stored, or a file that is no store."""


@dataclass(frozen=True)
class Item:
    """A prompt and the answers that are to be ranked."""

    prompt: str
    answers: tuple[str, ...]
    gold: tuple[float, ...] | None = None
    finished: tuple[bool, ...] | None = None

    @property
    def digest(self) -> str:
        """The same for the same prompt and answers in the same order."""
        return hashlib.sha256(json.dumps([self.prompt, self.answers]).encode()).hexdigest()


@dataclass(frozen=True)
class Judgement:
    """What an annotator said of an item in a round; ``ranks`` is None where it was skipped."""

    item: int
    round: int
    ranks: tuple[int, ...] | None


@dataclass(frozen=True)
class Progress:
    """Of one annotator: judgements made, those of them that were skipped."""

    ranked: int
    skipped: int


def load_items(path: str | Path) -> list[Item]:
    """Items from JSONL rows ``{prompt, answers}``, with ``gold`` and ``finished`` where known; a file of rankings will
    do, its ranks are left aside.

    Raises:
        StoreError: no such file, no row, or a row that is no item, with its line number.
    """
    path = Path(path)
    items = []
    try:
        lines = read_lines(path, "answers")
    except ValueError as error:
        raise StoreError(str(error)) from None
    for number, line in lines:
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or "prompt" not in row or "answers" not in row:
                raise ValueError("A row must be an object {prompt, answers}.")
            # A ranking checks the types of everything that an item has in common with it: hence the ignore.
            ranks = list(range(1, 1 + len(row["answers"]))) if isinstance(row["answers"], list) else []
            checked = Ranking(row["prompt"], row["answers"], ranks, row.get("gold"), row.get("finished"))  # type: ignore[arg-type]
            items.append(Item(checked.prompt, checked.answers, checked.gold, checked.finished))
        except (TypeError, ValueError) as error:
            raise StoreError(f"{path}, line {number}: {error} ({line!r:.100})") from None
    return items


class PreferenceStore:
    """Opens a store, or makes one. May be used by several threads and processes at once.

    Raises:
        StoreError: the file is something else, or of another version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.parent.is_dir():
            raise StoreError(f"There is no folder {str(self.path.parent)!r} for the store.")
        self._turn = threading.RLock()
        self._db = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
        try:
            self._open()
        except (sqlite3.Error, StoreError) as error:
            self._db.close()
            if isinstance(error, StoreError):
                raise
            raise StoreError(f"{self.path} cannot be opened as a store of preferences: {error}.") from None

    def _open(self) -> None:
        self._db.execute("PRAGMA foreign_keys = ON")
        self._db.execute("PRAGMA synchronous = EXTRA")  # a commit is on disk when it returns
        with self._turn, _transaction(self._db):
            (application,) = self._db.execute("PRAGMA application_id").fetchone()
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if application == 0 and tables == 0:
                for statement in SCHEMA.split(";")[:-1]:
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA application_id = {APPLICATION}")
                self._db.execute(f"PRAGMA user_version = {VERSION}")
            elif application != APPLICATION:
                raise StoreError(f"{self.path} is a database of another program: give another file.")
            elif 1 <= version < VERSION:
                for column in ("probability", "margin")[version - 1 :]:
                    self._db.execute(f"ALTER TABLE rankings ADD COLUMN {column} REAL")
                self._db.execute(f"PRAGMA user_version = {VERSION}")
            elif version != VERSION:
                raise StoreError(f"{self.path} is of version {version}; this code reads version {VERSION}.")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- items ---------------------------------------------------------------------------------------------------------

    def add_items(self, items: Iterable[Item]) -> int:
        """Add what is not there yet; returns how many items are new."""
        new = 0
        with self._turn, _transaction(self._db):
            for item in items:
                new += self._add(item)[1]
        return new

    def _add(self, item: Item) -> tuple[int, bool]:
        """The item's number, and whether it is new."""
        found = self._db.execute("SELECT id FROM items WHERE digest = ?", (item.digest,)).fetchone()
        if found is not None:
            return int(found[0]), False
        cursor = self._db.execute("INSERT INTO items (prompt, digest) VALUES (?, ?)", (item.prompt, item.digest))
        for number, text in enumerate(item.answers):
            finished = item.finished is None or item.finished[number]
            gold = None if item.gold is None else item.gold[number]
            row = (cursor.lastrowid, number, text, finished, gold)
            self._db.execute("INSERT INTO answers VALUES (?, ?, ?, ?, ?)", row)
        assert cursor.lastrowid is not None
        return cursor.lastrowid, True

    def item_ids(self) -> list[int]:
        """Numbers of all items, in the order in which they were added."""
        return [row[0] for row in self._all("SELECT id FROM items ORDER BY id")]

    def item(self, number: int) -> Item:
        """An item by its number.

        Raises:
            StoreError: there is none.
        """
        found = self._all("SELECT prompt FROM items WHERE id = ?", number)
        if not found:
            raise StoreError(f"There is no item {number} in {self.path}.")
        rows = self._all("SELECT text, finished, gold FROM answers WHERE item = ? ORDER BY number", number)
        texts, finished, gold = zip(*rows, strict=True)
        return Item(
            found[0][0],
            texts,
            None if None in gold else gold,
            None if all(finished) else tuple(map(bool, finished)),
        )

    # -- judgements ----------------------------------------------------------------------------------------------------

    def record(
        self,
        annotator: str,
        item: int,
        round: int,
        ranks: Sequence[int] | None,
        *,
        shown: Sequence[int] | None = None,
        seconds: float | None = None,
        time: str | None = None,
        probability: float | None = None,
        margin: float | None = None,
    ) -> None:
        """Keep a ranking; an earlier one by the same annotator of the same item in the same round is replaced.

        Args:
            annotator: a name; new ones are welcome.
            item: its number.
            round: 1, or 2 … where the annotator is shown the item again.
            ranks: one for each answer, 1 for the best, equal where answers tie; None: skipped.
            shown: the place of each answer on the page, 1 … K.
            seconds: how long it took.
            time: when, in ISO 8601; default now.
            probability: of two answers: how sure the annotator is of the preferred one, in [½, 1].
            margin: of two answers: how much better one is.

        Raises:
            StoreError: no such item, a name that will not do, or ranks that do not fit.
        """
        name = checked_name(annotator)
        with self._turn, _transaction(self._db):
            count = len(self.item(item).answers)
            for what, given in (("ranks", ranks), ("shown", shown)):
                if given is not None and (
                    len(given) != count or not all(type(rank) is int and 1 <= rank <= count for rank in given)
                ):
                    raise StoreError(f"{what} must be {count} whole numbers of 1 … {count}; got {list(given)}.")
            if shown is not None and len(set(shown)) != count:
                raise StoreError(f"shown must be places that differ; got {list(shown)}.")
            if type(round) is not int or round < 1:
                raise StoreError(f"round must be a whole number from 1; got {round!r}.")
            who, now = self._annotator(name), datetime.now(UTC).isoformat(timespec="milliseconds")
            key = (who, item, round)
            self._db.execute("DELETE FROM rankings WHERE annotator = ? AND item = ? AND round = ?", key)
            cursor = self._db.execute(
                "INSERT INTO rankings (annotator, item, round, skipped, time, seconds, probability, margin) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*key, ranks is None, time or now, seconds, probability, margin),
            )
            for number, rank in enumerate(ranks or ()):
                place = None if shown is None else shown[number]
                self._db.execute("INSERT INTO ranks VALUES (?, ?, ?, ?)", (cursor.lastrowid, number, rank, place))

    def undo(self, annotator: str) -> Judgement | None:
        """Take back the annotator's last judgement and return it; None where there is none."""
        with self._turn, _transaction(self._db):
            rows = self._all(
                "SELECT rankings.id, item, round FROM rankings JOIN annotators ON annotators.id = annotator "
                "WHERE name = ? ORDER BY rankings.id DESC LIMIT 1",
                checked_name(annotator),
            )
            if not rows:
                return None
            last, item, round = rows[0]
            ranks = tuple(row[0] for row in self._all("SELECT rank FROM ranks WHERE ranking = ? ORDER BY number", last))
            self._db.execute("DELETE FROM rankings WHERE id = ?", (last,))
            return Judgement(item, round, ranks or None)

    def judged(self, annotator: str) -> dict[tuple[int, int], bool]:
        """(item, round) of all that the annotator has judged, to whether it was skipped."""
        rows = self._all(
            "SELECT item, round, skipped FROM rankings JOIN annotators ON annotators.id = annotator WHERE name = ?",
            checked_name(annotator),
        )
        return {(item, round): bool(skipped) for item, round, skipped in rows}

    def annotators(self) -> dict[str, Progress]:
        """Names and how far each has come."""
        rows = self._all(
            "SELECT name, total(1 - skipped), total(skipped) FROM annotators "
            "LEFT JOIN rankings ON annotators.id = annotator GROUP BY name ORDER BY name"
        )
        return {name: Progress(int(ranked), int(skipped)) for name, ranked, skipped in rows}

    def _annotator(self, name: str) -> int:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._db.execute("INSERT OR IGNORE INTO annotators (name, since) VALUES (?, ?)", (name, now))
        return int(self._db.execute("SELECT id FROM annotators WHERE name = ?", (name,)).fetchone()[0])

    # -- exchange ------------------------------------------------------------------------------------------------------

    def rankings(self) -> list[Ranking]:
        """All rankings of everybody, in the order in which they were made; skipped items are left out."""
        with self._turn:
            rows = self._all(
                "SELECT rankings.id, item, name, round, time, seconds, probability, margin FROM rankings "
                "JOIN annotators ON annotators.id = annotator WHERE NOT skipped ORDER BY rankings.id"
            )
            rankings = []
            for number, item_id, name, round, time, seconds, probability, margin in rows:
                item = self.item(item_id)
                ranks = self._all("SELECT rank, shown FROM ranks WHERE ranking = ? ORDER BY number", number)
                shown = tuple(place for _, place in ranks)
                rankings.append(
                    Ranking(
                        item.prompt,
                        item.answers,
                        tuple(rank for rank, _ in ranks),
                        item.gold,
                        item.finished,
                        shown=None if None in shown else shown,
                        annotator=name,
                        round=round,
                        time=time,
                        seconds=seconds,
                        margin=margin,
                        probability=probability,
                    )
                )
        return rankings

    def add_rankings(self, rankings: Iterable[Ranking]) -> int:
        """Take in rankings from elsewhere, all of them or none; returns how many that are different. One that is in the
        store already (by the same annotator, of the same answers, in the same round) is replaced.

        Raises:
            StoreError: a ranking without an annotator, one that does not fit, or two of the same annotator, answers and
                round that say different things; with their numbers from 0.
        """
        told: dict[tuple[str, int, int], tuple[int, list[int]]] = {}
        with self._turn, _transaction(self._db):
            for count, ranking in enumerate(rankings):
                try:
                    if ranking.annotator is None:
                        raise StoreError(
                            "it does not say who ranked (annotator), which --annotator says of all of a file"
                        )
                    item = Item(ranking.prompt, ranking.answers, ranking.gold, ranking.finished)
                    dense = sorted(set(ranking.ranks))
                    ranks = [dense.index(rank) + 1 for rank in ranking.ranks]
                    key = (checked_name(ranking.annotator), self._add(item)[0], ranking.round or 1)
                    earlier, said = told.setdefault(key, (count, ranks))
                    if said != ranks:
                        raise StoreError(
                            f"it and ranking {earlier} are both by {key[0]!r}, of the same answers "
                            f"({ranking.prompt!r:.60}) in round {key[2]}, and differ: give them rounds (1, 2 …) if "
                            f"both hold"
                        )
                    self.record(
                        *key,
                        ranks,
                        shown=ranking.shown,
                        seconds=ranking.seconds,
                        time=ranking.time,
                        probability=ranking.probability,
                        margin=ranking.margin,
                    )
                except StoreError as error:
                    raise StoreError(f"Ranking {count}: {error}") from None
        return len(told)

    def _all(self, statement: str, *values: Any) -> list[Any]:
        with self._turn:
            return self._db.execute(statement, values).fetchall()


def checked_name(name: str) -> str:
    """An annotator's name, spaces at its ends taken off.

    Raises:
        StoreError: it is empty, too long, or has characters that cannot be printed.
    """
    name = name.strip() if isinstance(name, str) else ""
    if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
        raise StoreError(f"A name has 1 … {MAX_NAME} printable characters; got {name!r:.60}.")
    return name


class _transaction:
    """All or nothing; one inside another is part of it."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._outer = not self._db.in_transaction
        if self._outer:
            self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *_: object) -> None:
        if not self._outer:
            return
        try:
            self._db.execute("COMMIT" if kind is None else "ROLLBACK")
        finally:
            if self._db.in_transaction:  # the disk is full, for example: what was not kept must not look as if it were
                self._db.execute("ROLLBACK")
