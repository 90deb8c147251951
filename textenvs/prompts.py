"""from_prompts: an environment from a list of prompts, a data set or a JSONL file."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

from textenvs.env import TextEnv
from textenvs.errors import unknown_name
from textenvs.tasks.dataset import OnLong, PromptTask
from textenvs.tokenizers import make_vocab
from textenvs.vector import TextVectorEnv


@overload
def from_prompts(
    prompts: Any, tokenizer: Any, *, reward: Any, max_new_tokens: int, num_envs: None = None, **others: Any
) -> TextEnv: ...


@overload
def from_prompts(
    prompts: Any, tokenizer: Any, *, reward: Any, max_new_tokens: int, num_envs: int, **others: Any
) -> TextVectorEnv: ...


def from_prompts(
    prompts: Any,
    tokenizer: Any,
    *,
    reward: Any,
    max_new_tokens: int,
    num_envs: int | None = None,
    prompt_length: int | None = None,
    split: str | None = None,
    test_fraction: float = 0.1,
    on_long: OnLong = "error",
    eos_ids: Sequence[int] = (),
    name: str = "prompts",
    **env_arguments: Any,
) -> TextEnv | TextVectorEnv:
    """An environment in which every episode continues one of the given prompts.

        envs = textenvs.from_prompts("prompts.jsonl", tokenizer="gpt2", reward="hf_classifier:NAME",
                                     max_new_tokens=48, num_envs=64)

    Args:
        prompts: texts; rows ``{"prompt": text, …}``, whose other columns reach the reward model; a Hugging Face data
            set with a column ``prompt``; or the path of a JSONL file of such texts or rows.
        tokenizer: a Hugging Face fast tokenizer, its hub name or folder, or a :class:`textenvs.Vocab`.
        reward: the judge, in any form that :func:`textenvs.make_reward` takes.
        max_new_tokens: length budget T in tokens, EOS included.
        num_envs: None for a scalar ``TextEnv``, else that many sub-environments of a ``TextVectorEnv``.
        prompt_length: P in tokens; default that of the longest prompt.
        split: None for all prompts, or ``"train"`` or ``"test"``: a hash of the text decides, so that copies of a
            prompt never stand on both sides.
        test_fraction: share of different prompts that belongs to the test split.
        on_long: ``"error"``, ``"truncate"`` (keep the last tokens) or ``"skip"`` for prompts longer than
            ``prompt_length``; how many there were is logged.
        eos_ids: ids that end a text beside the tokenizer's own EOS.
        name: of the task, in messages.
        **env_arguments: as for ``TextEnv`` or ``TextVectorEnv``: ``render_mode``, ``info_text``, ``group_size``,
            ``autoreset_mode``.

    Raises:
        ValueError: prompts that cannot be read (with the line number), an empty set, a prompt that is too long, a
            tokenizer without EOS, or a reward that does not exist.
        TypeError: prompts or a tokenizer of another kind, or an unknown argument.
    """
    table = read_prompts(prompts)
    task = PromptTask(
        table.prompts,
        make_vocab(tokenizer, eos_ids=eos_ids),
        max_new_tokens,
        columns=table.columns,
        default_reward=reward,
        prompt_length=prompt_length,
        split=split,
        test_fraction=test_fraction,
        on_long=on_long,
        places=table.places,
        name=name,
    )
    env_class = TextEnv if num_envs is None else TextVectorEnv
    known = inspect.signature(env_class).parameters.keys() - {"task", "num_envs", "reward", "task_arguments"}
    for argument in env_arguments:
        if argument not in known:
            own = inspect.signature(from_prompts).parameters.keys() - {"env_arguments"}
            raise TypeError(unknown_name("argument", argument, known | own))
    if num_envs is None:
        return TextEnv(task, **env_arguments)
    return TextVectorEnv(task, num_envs, **env_arguments)


@dataclass
class PromptTable:
    """Prompts, the other columns of their rows, and where each stood."""

    prompts: list[str]
    columns: dict[str, list[Any]] = field(default_factory=dict)
    places: list[str] = field(default_factory=list)


def read_prompts(prompts: Any) -> PromptTable:
    """Prompts in any of the forms that :func:`from_prompts` takes.

    Raises:
        ValueError: a row that cannot be read, naming it, or an empty set.
        TypeError: none of the forms.
    """
    if isinstance(prompts, PromptTable):
        return prompts
    if isinstance(prompts, str | Path):
        return _from_rows(_read_jsonl(Path(prompts)), str(prompts))
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
        return _from_columns(prompts.to_dict())
    if isinstance(prompts, Iterable):
        return _from_rows([(f"prompt {i}", row) for i, row in enumerate(prompts)], "prompts")
    raise TypeError(
        f"prompts must be texts, rows {{'prompt': text, …}}, a Hugging Face data set or the path of a JSONL file; "
        f"got {type(prompts).__name__}."
    )


def _from_columns(columns: dict[str, list[Any]]) -> PromptTable:
    if "prompt" not in columns:
        raise ValueError(
            f"The data set has no column 'prompt'; its columns: {', '.join(columns)}. Rename one: "
            f"dataset.rename_column('text', 'prompt')."
        )
    texts = columns.pop("prompt")
    places = [f"row {i}" for i in range(len(texts))]
    for place, text in zip(places, texts, strict=True):
        _check_prompt(text, place)
    return PromptTable(texts, columns, places)


def _from_rows(rows: list[tuple[str, Any]], source: str) -> PromptTable:
    if not rows:
        raise ValueError(f"{source}: the prompt set is empty.")
    table = PromptTable([], {}, [place for place, _ in rows])
    first_place, first = rows[0]
    names = set(first) if isinstance(first, Mapping) else {"prompt"}
    table.columns = {str(name): [] for name in (first if isinstance(first, Mapping) else ()) if name != "prompt"}
    for place, row in rows:
        if isinstance(row, str):
            row = {"prompt": row}
        if not isinstance(row, Mapping):
            raise ValueError(f"{place}: a prompt is a text or a row {{'prompt': text, …}}; got {row!r:.100}.")
        if "prompt" not in row:
            raise ValueError(f"{place}: there is no 'prompt'; the row has {', '.join(map(str, row)) or 'no columns'}.")
        if set(row) != names:
            raise ValueError(
                f"{place} has the columns {sorted(map(str, row))}, {first_place} has {sorted(map(str, names))}: "
                f"all rows need the same ones (None stands for a missing value)."
            )
        _check_prompt(row["prompt"], place)
        table.prompts.append(row["prompt"])
        for name, column in table.columns.items():
            column.append(row[name])
    return table


def _check_prompt(text: Any, place: str) -> None:
    if isinstance(text, str):
        return
    hint = ""
    if isinstance(text, list) and text and isinstance(text[0], Mapping):
        hint = " Chat messages become a text by tokenizer.apply_chat_template(messages, tokenize=False)."
    raise ValueError(f"{place}: 'prompt' must be a text; got {text!r:.100}.{hint}")


def _read_jsonl(path: Path) -> list[tuple[str, Any]]:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ValueError(
            f"prompts={str(path)!r} is read as the path of a JSONL file, which {what}. A single prompt is given as a "
            f"list: ['…']. A data set of the hub is loaded first: datasets.load_dataset(…)."
        )
    rows: list[tuple[str, Any]] = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a UTF-8 text file: {error}.") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            rows.append((place, json.loads(line)))
        except ValueError as error:
            raise ValueError(f"{place} is not JSON ({error}): {line!r:.100}.") from None
    return rows
