"""Constitutions: what comes with the package, and errors that name file, line, principle and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.lm.constitution import Constitution, ConstitutionError, Principle, load_constitution

GOOD = """\
task: "Answer: {prompt}"
principles:
  - name: kind
    critique: What is unkind?
    revision: Be kind.
    comparison: Which is kinder?
    temptation: Be unkind.
"""
SECOND = "  - name: {}\n    critique: a\n    revision: b\n    comparison: c\n"


def test_the_one_of_the_package() -> None:
    constitution = load_constitution()
    assert [principle.name for principle in constitution.principles] == ["polite", "true", "brief"]
    for principle in constitution.principles:
        assert all(vars(principle).values())
    assert constitution.request("the film") == "Finish the review : the film"
    polite = constitution["polite"]
    assert constitution.request("the film", polite) == f"Finish the review : the film\n{polite.temptation}"


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "principles.yaml"
    path.write_text(GOOD)
    kind = Principle("kind", "What is unkind?", "Be kind.", "Which is kinder?", "Be unkind.")
    assert load_constitution(path) == Constitution((kind,), "Answer: {prompt}")


def test_task_and_temptation_may_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "principles.yaml"
    path.write_text("principles:\n" + SECOND.format("short"))
    constitution = load_constitution(path)
    assert constitution.request("Hello {x}", constitution["short"]) == "Hello {x}"
    with pytest.raises(KeyError, match=r"Unknown principle 'shirt'\. Did you mean 'short'"):
        constitution["shirt"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty: it needs a list 'principles'"),
        ("principles: [", "line 1: this is no YAML"),
        ("a: b: c", "line 1: this is no YAML: mapping values are not allowed here"),
        ("- name: x", "line 1: this must be a mapping with the keys task, principles"),
        ("task: '{prompt}'", "line 1: there is no list 'principles'"),
        ("principles: []", "line 1: 'principles' must be a list of principles, at least one"),
        ("principles: polite", "line 1: 'principles' must be a list"),
        ("task: Answer\n" + GOOD.split("\n", 1)[1], "line 1: 'task' must say where the prompt goes"),
        ("principle:\n" + SECOND.format("a"), "line 1: Unknown key 'principle'. Did you mean 'principles'"),
        (GOOD + SECOND.format("kind"), "line 8, principle 'kind': there is another principle of this name"),
        (
            GOOD.replace("revision", "revisoin"),
            "line 5, principle 'kind': Unknown key 'revisoin'. Did you mean 'revision'",
        ),
        (GOOD.replace("    revision: Be kind.\n", ""), "line 3, principle 'kind': there is no 'revision'"),
        (GOOD.replace("  - name: kind\n    critique", "  - critique"), "line 3, principle 1: there is no 'name'"),
        (GOOD.replace("Be kind.", ""), "line 5, principle 'kind': 'revision' must be a text that is not empty"),
        (GOOD.replace("Be kind.", "[a, b]"), "line 5, principle 'kind': 'revision' must be a text"),
        (GOOD.replace("name: kind", "name: true"), "line 3, principle 'true': 'name' must be a text .*quotation marks"),
        (GOOD + "    revision: again\n", "line 8, principle 'kind': the key 'revision' comes twice"),
        (GOOD + "  - just a text\n", "line 8, principle 2: this must be a mapping with the keys name"),
    ],
)
def test_errors_name_the_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConstitutionError, match=message) as error:
        load_constitution(path)
    assert str(path) in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConstitutionError, match=r"There is no file .*nowhere\.yaml"):
        load_constitution(tmp_path / "nowhere.yaml")
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConstitutionError, match="is not a UTF-8 text file"):
        load_constitution(path)
