"""Preferences in the forms that others read and write: JSONL and data sets of rows {prompt, chosen, rejected}.

save_pairs("pairs.jsonl", rankings)                       # every decided pair, with its margin
to_dataset(rankings).push_to_hub(…)                       # the same as a Hugging Face data set; extra ``datasets``
rankings = from_dataset(load_dataset(…))                  # each pair a ranking of two
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from agents.lm.preferences import RANKING_COLUMNS, Ranking, load_rankings, read_lines, to_pairs, write_jsonl

PAIR_COLUMNS = ("prompt", "chosen", "rejected", "margin", "probability", "annotator", "round", "time", "seconds")
"""Columns of a row that is a pair; the first three are needed."""


def save_pairs(path: str | Path, rankings: Iterable[Ranking], *, margins: bool = True) -> int:
    """Write rows ``{prompt, chosen, rejected, margin}`` as JSONL; returns how many."""
    rows = to_pairs(rankings, margins=margins)
    write_jsonl(path, rows)
    return len(rows)


def load_pairs(path: str | Path, *, ignore: Sequence[str] = ()) -> list[Ranking]:
    """Rankings of two, from JSONL of rows ``{prompt, chosen, rejected}``; the preferred answer is the first.

    Args:
        ignore: columns that may be there and are not read.

    Raises:
        ValueError: no such file, no rows, or a row that is no pair, with its line number.
    """
    path = Path(path)
    rankings = []
    for number, row in _rows(path):
        try:
            rankings.append(_from_pair(row, ignore))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
    return rankings


def load_preferences(path: str | Path, *, ignore: Sequence[str] = ()) -> list[Ranking]:
    """Rankings from a JSONL file of either form, told by its first row: with ``answers``, or with ``chosen``.

    Raises:
        ValueError: as for :func:`load_pairs` and :func:`agents.lm.load_rankings`, and a column that is not known.
    """
    path = Path(path)
    rows = _rows(path)
    if "answers" not in rows[0][1]:
        return load_pairs(path, ignore=ignore)
    for number, row in rows:
        _check_columns(row, RANKING_COLUMNS, ignore, f"{path}, line {number}: ")
    return load_rankings(path)


def to_dataset(rankings: Iterable[Ranking], *, margins: bool = True) -> Any:
    """Every decided pair as a row of a Hugging Face data set ``{prompt, chosen, rejected, margin}``.

    Raises:
        ImportError: the extra ``datasets`` is missing.
        ValueError: no ranking decides anything.
    """
    rows = to_pairs(rankings, margins=margins)
    if not rows:
        raise ValueError("None of the rankings prefers an answer to another: there is nothing to export.")
    return _datasets().Dataset.from_list(rows)


def from_dataset(dataset: Any, *, ignore: Sequence[str] = ()) -> list[Ranking]:
    """Rankings of two, from a data set (or any list of rows) ``{prompt, chosen, rejected}``, texts or chats.

    Of chats the prompt is what stands before the last message, the same in both.

    Args:
        ignore: columns that may be there and are not read.

    Raises:
        ValueError: no rows, or a row that is no pair, with its number.
    """
    rankings = []
    for number, row in enumerate(dataset):
        try:
            rankings.append(_from_pair(row, ignore))
        except (TypeError, ValueError) as error:
            raise ValueError(f"Row {number}: {error}") from None
    if not rankings:
        raise ValueError("The data set has no rows.")
    return rankings


def _datasets() -> Any:
    try:
        import datasets  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError(f"Data sets need their extra: pip install 'textenvs[datasets]'. ({error})") from error
    return datasets


def _rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Line numbers and rows of a JSONL file."""
    rows = []
    for number, line in read_lines(path, "preferences"):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error} ({line!r:.100})") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: a row must be an object; got {line!r:.100}")
        rows.append((number, row))
    return rows


def _check_columns(row: dict[str, Any], known: Sequence[str], ignore: Sequence[str], where: str = "") -> None:
    unknown = [name for name in row if name not in known and name not in ignore]
    if unknown:
        raise ValueError(
            f"{where}unknown column{'s' if len(unknown) > 1 else ''} {', '.join(map(repr, unknown))}. Known are "
            f"{', '.join(known)}; columns that are not to be read are named with ignore (--ignore)."
        )


def _from_pair(row: dict[str, Any], ignore: Sequence[str]) -> Ranking:
    _check_columns(row, PAIR_COLUMNS, ignore)
    for name in ("chosen", "rejected"):
        if row.get(name) is None:
            raise ValueError(f"There is no {name!r}: a pair has both sides. The row has {', '.join(row) or 'nothing'}.")
    chosen, rejected = row["chosen"], row["rejected"]
    if isinstance(chosen, list) and isinstance(rejected, list):
        prompt, chosen, rejected = _from_chats(row.get("prompt"), chosen, rejected)
    elif row.get("prompt") is None:
        raise ValueError(f"There is no 'prompt'; the row has {', '.join(row)}.")
    else:
        prompt = row["prompt"]
    if chosen == rejected:
        raise ValueError(f"'chosen' and 'rejected' are the same: {chosen!r:.100}.")
    known = {name: row.get(name) for name in ("annotator", "round", "time", "seconds", "margin", "probability")}
    return Ranking(prompt, (chosen, rejected), (1, 2), **known)


def _from_chats(prompt: Any, chosen: list[Any], rejected: list[Any]) -> tuple[str, str, str]:
    """Prompt and two answers from two lists of messages {role, content} that differ in their last one."""
    for chat in (chosen, rejected):
        for message in chat:
            if not isinstance(message, dict) or not isinstance(message.get("content"), str):
                raise TypeError(f"A chat must be a list of messages {{role, content}}; got {message!r:.100}.")
    if not chosen or not rejected:
        raise ValueError("A chat without messages has no answer.")
    if chosen[:-1] != rejected[:-1]:
        raise ValueError(
            f"The prompts of 'chosen' and 'rejected' differ: {chosen[:-1]!r:.100} and {rejected[:-1]!r:.100}."
        )
    if not isinstance(prompt, str):
        prompt = "\n".join(message["content"] for message in [*(prompt or []), *chosen[:-1]])
    return prompt, chosen[-1]["content"], rejected[-1]["content"]
