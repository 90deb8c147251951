"""Cache: a deterministic reward model asks once for each text."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from textenvs.episodes import Episodes
from textenvs.rewards.base import Judge, Scores
from textenvs.rewards.combinators import Combined, make_judge
from textenvs.rewards.registry import register_reward


@register_reward("cache")
class Cache(Combined):
    """The reward, remembered: every different text (with its prompt and columns) is scored once.

    Args:
        reward: the reward inside; it must declare itself deterministic.
        size: how many scores are kept in memory; the longest unused one is dropped first.
        folder: keep all scores on disk too, in ``scores.sqlite`` of this folder, for later runs. Scores of another
            version of the reward are not used.

    Raises:
        ValueError: the reward is not deterministic: a remembered score would not be the one that it gives now.
    """

    def __init__(self, reward: Any, *, size: int = 100_000, folder: str | Path | None = None) -> None:
        judge = make_judge(reward)
        if not judge.deterministic:
            raise ValueError(
                f"cache: reward {judge.name!r} is not declared deterministic, so its scores cannot be remembered "
                f"(if it is, declare it: register_reward(…, deterministic=True), or the attribute)."
            )
        if size < 1:
            raise ValueError(f"cache: size must be at least 1, got {size}.")
        self._set_up([judge])
        self.low, self.high, self.size = judge.low, judge.high, size
        self.hits, self.misses = 0, 0
        self._memory: OrderedDict[bytes, str] = OrderedDict()
        self._path = None if folder is None else Path(folder) / "scores.sqlite"
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._connect() as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS scores (key BLOB PRIMARY KEY, answer TEXT NOT NULL)")

    def score_parts(self, episodes: Episodes) -> Scores:
        keys = _text_keys(episodes, self.judges[0])
        answers = self._look_up(keys)
        # The first place of each unknown text: a batch may hold one text many times.
        unknown = {key: i for i, key in reversed(list(enumerate(keys))) if key not in answers}
        self.misses += len(unknown)
        self.hits += len(keys) - len(unknown)
        if unknown:
            places = sorted(unknown.values())
            fresh = self.judges[0](episodes.take(np.array(places)))
            new = {keys[place]: _pack(fresh, i) for i, place in enumerate(places)}
            answers.update(new)
            self._remember(new)
        return _unpack([answers[key] for key in keys])

    def _look_up(self, keys: list[bytes]) -> dict[bytes, str]:
        found: dict[bytes, str] = {}
        for key in set(keys):
            if key in self._memory:
                self._memory.move_to_end(key)
                found[key] = self._memory[key]
        if self._path is not None:
            with self._connect() as connection:
                for key in set(keys) - found.keys():
                    row = connection.execute("SELECT answer FROM scores WHERE key = ?", (key,)).fetchone()
                    if row is not None:
                        found[key] = self._memory[key] = row[0]
        return found

    def _remember(self, new: dict[bytes, str]) -> None:
        self._memory.update(new)
        while len(self._memory) > self.size:
            self._memory.popitem(last=False)
        if self._path is not None:
            with self._connect() as connection:
                connection.executemany("INSERT OR REPLACE INTO scores VALUES (?, ?)", new.items())

    def _connect(self) -> _Connection:
        assert self._path is not None
        return _Connection(self._path)


class _Connection:
    """A database connection for one transaction: none is kept open, so that the reward model can be pickled."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, timeout=30)

    def __enter__(self) -> sqlite3.Connection:
        return self._connection.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._connection.__exit__(*error)
        self._connection.close()


def _text_keys(episodes: Episodes, judge: Judge) -> list[bytes]:
    """A digest for each text of all that its score may depend on, the reward's version included."""
    kind = f"{type(judge.model).__module__}.{type(judge.model).__qualname__}"
    vocab = (episodes.vocab.tokens, episodes.vocab.eos, episodes.vocab.separator, episodes.separator)
    common = repr((kind, judge.identity, vocab)).encode()
    start = hashlib.sha256(common)
    columns = sorted(episodes.columns)
    keys = []
    for i in range(len(episodes)):
        digest = start.copy()
        prompt = episodes.prompt_ids[i]
        digest.update(prompt[prompt != episodes.pad_id].tobytes())
        digest.update(b"|")
        digest.update(episodes.completion_ids[i, : episodes.lengths[i]].tobytes())
        digest.update(str(episodes.finish_reason[i]).encode())
        for name in columns:
            value = episodes.columns[name][i]
            digest.update(f"|{name}=".encode())
            digest.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
        keys.append(digest.digest())
    return keys


def _pack(scores: Scores, i: int) -> str:
    parts = {name: float(part[i]) for name, part in scores.components.items()}
    gold = None if scores.gold is None else float(scores.gold[i])
    return json.dumps([float(scores.total[i]), parts, gold])


def _unpack(answers: list[str]) -> Scores:
    rows = [json.loads(answer) for answer in answers]
    components = {name: np.array([row[1][name] for row in rows], dtype=np.float32) for name in rows[0][1]}
    gold = None if rows[0][2] is None else np.array([row[2] for row in rows], dtype=np.float32)
    return Scores(np.array([row[0] for row in rows], dtype=np.float32), components, gold)
