"""Critique and revision: a model is led to a bad answer, criticises it under a principle, and revises it.

    revisions = criticise_and_revise(chat, load_constitution(), prompts, max_new_tokens=24, seed=0)
    save_revisions("revisions.jsonl", revisions)
    train_on_texts(model, encode_rows(revision_rows(revisions), tokenizer))

Bai et al. 2022, "Constitutional AI: Harmlessness from AI Feedback", section 3: the supervised stage.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from agents.lm.chat import ChatModel
from agents.lm.constitution import Constitution

OnProgress = Callable[[float, str], Any]
"""Told the share that is done, and of what."""


@dataclass(frozen=True)
class Revision:
    """A conversation: what was answered at first, what is wrong with it, what was answered then."""

    prompt: str
    principle: str
    """Name of the principle."""
    answer: str
    critique: str
    revision: str


def conversation(constitution: Constitution, prompt: str, principle: str, *said: str) -> list[dict[str, str]]:
    """The chat up to the next answer of the model.

    Args:
        said: what it has answered so far: nothing, its answer, or its answer and critique, or all three.
    """
    chosen = constitution[principle]
    asked = (constitution.request(prompt, chosen), chosen.critique, chosen.revision)
    chat = []
    for number, request in enumerate(asked[: len(said) + 1]):
        chat.append({"role": "user", "content": request})
        if number < len(said):
            chat.append({"role": "assistant", "content": said[number]})
    return chat


def criticise_and_revise(
    chat: ChatModel,
    constitution: Constitution,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    critique_tokens: int | None = None,
    temperature: float = 1.0,
    rounds: int = 1,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> list[Revision]:
    """Answers to prompts, criticised and revised under a principle that is drawn for each.

    Args:
        max_new_tokens: of an answer and of a revision.
        critique_tokens: of a critique; default as many.
        temperature: of the first answer; critiques and revisions are the likeliest ones.
        rounds: how often a revision is criticised and revised again, under another principle drawn each time.
        seed: of principles and answers.

    Returns:
        One for each prompt and round, the rounds one after the other; the last one of a prompt is the best.

    Raises:
        ValueError: no prompts, or a number below 1.
    """
    if not len(prompts) or rounds < 1:
        raise ValueError(f"There must be prompts, and at least one round; got {len(prompts)} and {rounds}.")
    rng = np.random.default_rng(seed)
    names = [principle.name for principle in constitution.principles]
    steps, done = 1 + 2 * rounds, 0

    def ask(drawn: Sequence[str], *said: Sequence[str], tokens: int, heat: float, what: str) -> list[str]:
        nonlocal done
        chats = [
            conversation(constitution, prompt, name, *texts)
            for prompt, name, *texts in zip(prompts, drawn, *said, strict=True)
        ]

        def tell(of: int, all_of: int) -> None:
            if on_progress is not None:
                on_progress((done + of / all_of) / steps, what)

        texts = chat.replies(chats, max_new_tokens=tokens, temperature=heat, seed=seed + done, on_progress=tell)
        done += 1
        return texts

    found: list[Revision] = []
    answers: list[str] = []
    for _ in range(rounds):
        drawn = [names[i] for i in rng.integers(len(names), size=len(prompts))]
        if not answers:
            answers = ask(drawn, tokens=max_new_tokens, heat=temperature, what="answers")
        critiques = ask(drawn, answers, tokens=critique_tokens or max_new_tokens, heat=0.0, what="critiques")
        revised = ask(drawn, answers, critiques, tokens=max_new_tokens, heat=0.0, what="revisions")
        found += [Revision(*row) for row in zip(prompts, drawn, answers, critiques, revised, strict=True)]
        answers = revised
    return found


def revision_rows(revisions: Iterable[Revision]) -> list[dict[str, str]]:
    """Rows ``{prompt, completion}`` for supervised fine-tuning: the revised answers that are not empty."""
    return [{"prompt": each.prompt, "completion": each.revision} for each in revisions if each.revision.strip()]


COLUMNS = tuple(field.name for field in fields(Revision))


def save_revisions(path: str | Path, revisions: Iterable[Revision]) -> None:
    """Write them as JSONL."""
    lines = [json.dumps(asdict(each), ensure_ascii=False) + "\n" for each in revisions]
    Path(path).write_text("".join(lines), encoding="utf-8")


def load_revisions(path: str | Path) -> list[Revision]:
    """Revisions from JSONL, as :func:`save_revisions` writes it.

    Raises:
        ValueError: no such file, no rows, or a row that is none, with its line number.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"There is no file {str(path)!r} with revisions.")
    revisions = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error} ({line!r:.100})") from None
        wrong = [name for name in COLUMNS if not isinstance(row, dict) or not isinstance(row.get(name), str)]
        if wrong:
            raise ValueError(f"{path}, line {number}: there is no text {wrong[0]!r} ({line!r:.100})")
        revisions.append(Revision(**{name: row[name] for name in COLUMNS}))
    if not revisions:
        raise ValueError(f"{path} holds no revisions.")
    return revisions
