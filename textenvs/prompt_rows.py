"""Prompts in the forms that people have them in: texts, rows, chats, data sets, JSONL files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

OnBad = Literal["error", "skip"]

COMPLETION = "completion"
"""The column of known answers."""
MESSAGES = "prompt_messages"
"""The column that holds the messages of a chat, which its prompt as a text no longer tells apart."""


@dataclass
class PromptTable:
    """Prompts, the other columns of their rows, and where each stood.

    Attributes:
        prompts: each a text, or a chat: a list of messages ``{"role": …, "content": text}``.
        columns: name to one entry for each prompt; the completions are texts here (or None), whatever they were.
        places: where each prompt stood, for error messages.
        skipped: what was wrong with the rows that were left out.
    """

    prompts: list[Any] = field(default_factory=list)
    columns: dict[str, list[Any]] = field(default_factory=dict)
    places: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def is_chat(prompt: Any) -> bool:
    """Whether a prompt is a list of chat messages."""
    return isinstance(prompt, list | tuple) and bool(prompt) and all(isinstance(each, Mapping) for each in prompt)


def read_prompts(prompts: Any, *, on_bad: OnBad = "error") -> PromptTable:
    """Prompts in any of the forms that :func:`textenvs.from_prompts` takes.

    Args:
        prompts: texts; chats; rows with ``prompt`` (a text or a chat) and, where an answer is known, ``completion`` (a
            text, or a chat of one message of the assistant's), or with ``messages`` (a chat whose last message is the
            completion if it is the assistant's); a Hugging Face data set with such columns; or the path of a JSONL
            file of any of these.
        on_bad: ``"skip"`` leaves out rows that cannot be read.

    Raises:
        ValueError: a row that cannot be read, naming it, or an empty set.
        TypeError: none of the forms.
    """
    if isinstance(prompts, PromptTable):
        return prompts
    if isinstance(prompts, str | Path):
        return _from_rows(_read_jsonl(Path(prompts)), str(prompts), on_bad, json.loads)
    if isinstance(prompts, Mapping):  # a DatasetDict, above all
        raise TypeError(
            f"prompts is a mapping with the keys {', '.join(map(str, prompts))}: give one of its entries, "
            f"e.g. dataset['train']."
        )
    if hasattr(prompts, "column_names"):
        if not hasattr(prompts, "to_dict") or not hasattr(prompts, "__len__"):
            raise TypeError(
                f"{type(prompts).__name__} is read as a stream, and prompts are drawn at random: load the data set "
                f"whole (streaming=False), or pass a list of its first rows, list(dataset.take(10_000))."
            )
        return _from_rows(_read_columns(prompts.to_dict()), "the data set", on_bad)
    if isinstance(prompts, Iterable):
        return _from_rows([(f"prompt {i}", row) for i, row in enumerate(prompts)], "prompts", on_bad)
    raise TypeError(
        f"prompts must be texts, chats, rows {{'prompt': text, …}}, a Hugging Face data set or the path of a JSONL "
        f"file; got {type(prompts).__name__}."
    )


def _read_jsonl(path: Path) -> list[tuple[str, str]]:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ValueError(
            f"prompts={str(path)!r} is read as the path of a JSONL file, which {what}. A single prompt is given as a "
            f"list: ['…']. A data set of the hub is loaded first: datasets.load_dataset(…)."
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a UTF-8 text file: {error}.") from None
    return [(f"{path}, line {number}", line) for number, line in enumerate(lines, start=1) if line.strip()]


def _read_columns(columns: dict[str, list[Any]]) -> list[tuple[str, Any]]:
    if "prompt" not in columns and "messages" not in columns:
        raise ValueError(
            f"The data set has no column 'prompt' (or 'messages'); its columns: {', '.join(columns)}. Rename one: "
            f"dataset.rename_column('text', 'prompt')."
        )
    rows = zip(*columns.values(), strict=True)
    return [(f"row {i}", dict(zip(columns, row, strict=True))) for i, row in enumerate(rows)]


def _from_rows(
    rows: Sequence[tuple[str, Any]], source: str, on_bad: OnBad, parse: Callable[[str], Any] | None = None
) -> PromptTable:
    table, first = PromptTable(), ""
    for place, given in rows:
        try:
            row = _read_row(given if parse is None else _parsed(given, parse))
            if not first:
                first, table.columns = place, {name: [] for name in row if name != "prompt"}
            expected = {"prompt", *table.columns}
            if row.keys() != expected:
                raise ValueError(
                    f"it has the columns {sorted(row)}, {first} has {sorted(expected)}: all rows need the same ones "
                    f"(None stands for a missing value)."
                )
        except ValueError as error:
            if on_bad == "error":
                raise ValueError(f"{place}: {error}") from None
            table.skipped.append(f"{place}: {error}")
            continue
        table.prompts.append(row.pop("prompt"))
        table.places.append(place)
        for name, value in row.items():
            table.columns[name].append(value)
    if not table.prompts:
        if table.skipped:
            raise ValueError(f"{source}: not one of {len(rows)} rows can be read; the first: {table.skipped[0]}")
        raise ValueError(f"{source}: the prompt set is empty.")
    return table


def _parsed(line: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(line)
    except ValueError as error:
        raise ValueError(f"it is not JSON ({error}): {line!r:.100}.") from None


def _read_row(given: Any) -> dict[str, Any]:
    """A row with ``prompt`` and, of a chat, its messages; completions are texts.

    Raises:
        ValueError: it cannot be read.
    """
    if isinstance(given, str) or is_chat(given):
        given = {"prompt": given}
    if not isinstance(given, Mapping):
        raise ValueError(
            f"a prompt is a text, a chat [{{'role': 'user', 'content': text}}] or a row {{'prompt': text, …}}; "
            f"got {given!r:.100}."
        )
    row = {str(name): value for name, value in given.items()}
    if "prompt" not in row and is_chat(row.get("messages")):
        row |= _split_chat(row.pop("messages"))
    if "prompt" not in row:
        raise ValueError(f"there is no 'prompt'; the row has {', '.join(row) or 'no columns'}.")
    prompt = row["prompt"]
    if is_chat(prompt):
        row["prompt"] = row[MESSAGES] = _check_chat(prompt)
    elif not isinstance(prompt, str):
        raise ValueError(f"'prompt' must be a text or a chat [{{'role': …, 'content': text}}]; got {prompt!r:.100}.")
    if COMPLETION in row:
        row[COMPLETION] = _read_completion(row[COMPLETION])
    return row


def _split_chat(messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """``messages`` as prompt and completion; the completion is None where the last message is not the assistant's."""
    if messages[-1].get("role") == "assistant" and len(messages) > 1:
        return {"prompt": messages[:-1], COMPLETION: messages[-1:]}
    return {"prompt": messages, COMPLETION: None}


def _check_chat(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    for message in messages:
        if not isinstance(message.get("role"), str) or not isinstance(message.get("content"), str):
            raise ValueError(f"a chat message is {{'role': 'user', 'content': text}}; got {message!r:.100}.")
    return [dict(message) for message in messages]


def _read_completion(completion: Any) -> str | None:
    if is_chat(completion):
        (*others, answer) = _check_chat(completion)
        if others or answer["role"] != "assistant":
            raise ValueError(f"'completion' must be one message of the assistant's; got {completion!r:.100}.")
        return str(answer["content"])
    if completion is None or isinstance(completion, str):
        return completion
    raise ValueError(f"'completion' must be a text, a message of the assistant's or None; got {completion!r:.100}.")
