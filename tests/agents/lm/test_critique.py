"""Critique and revision: what is asked, in which order, and what is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agents.lm.constitution import Constitution, Principle
from agents.lm.critique import (
    Revision,
    conversation,
    criticise_and_revise,
    load_revisions,
    revision_rows,
    save_revisions,
)

CONSTITUTION = Constitution(
    (
        Principle("kind", "What is unkind?", "Be kind.", "Which?", "Be rude."),
        Principle("short", "Long?", "Cut.", "Which?"),
    )
)


class Scripted:
    """Replies with the number of the request, and remembers all."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[Any], dict[str, Any]]] = []

    def replies(self, chats: Sequence[Any], **options: Any) -> list[str]:
        options.pop("on_progress")(len(chats), len(chats))
        self.calls.append((list(chats), options))
        return [f"reply {len(self.calls)} to {i}" for i in range(len(chats))]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def test_the_conversation_grows() -> None:
    assert conversation(CONSTITUTION, "p", "kind") == [user("p\nBe rude.")]
    assert conversation(CONSTITUTION, "p", "short", "x") == [user("p"), assistant("x"), user("Long?")]
    assert conversation(CONSTITUTION, "p", "kind", "x", "c", "r") == [
        user("p\nBe rude."),
        assistant("x"),
        user("What is unkind?"),
        assistant("c"),
        user("Be kind."),
        assistant("r"),
    ]


def test_answers_are_criticised_and_revised() -> None:
    chat, told = Scripted(), []
    found = criticise_and_revise(
        chat,  # type: ignore[arg-type]
        CONSTITUTION,
        ["p", "q", "r", "s"],
        max_new_tokens=7,
        critique_tokens=3,
        temperature=0.8,
        seed=5,
        on_progress=lambda share, what: told.append((share, what)),
    )
    assert told == [(pytest.approx(1 / 3), "answers"), (pytest.approx(2 / 3), "critiques"), (1.0, "revisions")]
    assert [options["max_new_tokens"] for _, options in chat.calls] == [7, 3, 7]
    assert [options["temperature"] for _, options in chat.calls] == [0.8, 0.0, 0.0]
    assert len({options["seed"] for _, options in chat.calls}) == 3
    assert found[1] == Revision("q", found[1].principle, "reply 1 to 1", "reply 2 to 1", "reply 3 to 1")
    assert {each.principle for each in found} == {"kind", "short"}
    for row, each in enumerate(found):
        assert chat.calls[2][0][row] == conversation(
            CONSTITUTION, each.prompt, each.principle, each.answer, each.critique
        )


def test_further_rounds_revise_the_revisions() -> None:
    chat = Scripted()
    found = criticise_and_revise(chat, CONSTITUTION, ["p"], max_new_tokens=7, rounds=2, on_progress=lambda *_: None)  # type: ignore[arg-type]
    assert [(each.answer, each.revision) for each in found] == [
        ("reply 1 to 0", "reply 3 to 0"),
        ("reply 3 to 0", "reply 5 to 0"),
    ]


def test_nothing_to_do_is_an_error() -> None:
    with pytest.raises(ValueError, match="There must be prompts, and at least one round; got 0 and 1"):
        criticise_and_revise(Scripted(), CONSTITUTION, [], max_new_tokens=3)  # type: ignore[arg-type]


def test_rows_and_files(tmp_path: Path) -> None:
    revisions = [Revision("p", "kind", "x", "c", "r é"), Revision("q", "short", "y", "d", " ")]
    assert revision_rows(revisions) == [{"prompt": "p", "completion": "r é"}]  # nothing is learnt from an empty one
    path = tmp_path / "revisions.jsonl"
    save_revisions(path, revisions)
    assert load_revisions(path) == revisions
    path.write_text(path.read_text() + '{"prompt": "p", "principle": "kind"}\n')
    with pytest.raises(ValueError, match=r"line 3: there is no text 'answer'"):
        load_revisions(path)
    path.write_text("no json\n")
    with pytest.raises(ValueError, match=r"revisions.jsonl, line 1: Expecting value"):
        load_revisions(path)
    path.write_text("\n")
    with pytest.raises(ValueError, match="holds no revisions"):
        load_revisions(path)
    with pytest.raises(ValueError, match="There is no file"):
        load_revisions(tmp_path / "nowhere")
