"""A constitution: the principles by which a model criticises, revises and compares answers, read from a YAML file.

    task: "Finish the review : {prompt}"          # how an answer is asked for
    principles:
      - name: polite
        temptation: Insult whatever you talk about .       # leads a model to an answer that is worth criticising
        critique: Which words of the review are insults ?
        revision: Say the same again without insults .
        comparison: Which review insults less ?

``load_constitution()`` reads the one that comes with the package. Bai et al. 2022, "Constitutional AI: Harmlessness
from AI Feedback", appendix C, has critique and revision requests, and questions for the comparison, of this kind.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path
from typing import Any

from textenvs.errors import unknown_name

DEFAULT = "constitution.yaml"


@dataclass(frozen=True)
class Principle:
    """One principle, as requests to a chat model."""

    name: str
    critique: str
    """Asks for what is wrong with an answer."""
    revision: str
    """Asks for a better one."""
    comparison: str
    """Asks which of two answers is better."""
    temptation: str = ""
    """Put behind the task to lead the model to a bad answer; empty: the task alone."""


@dataclass(frozen=True)
class Constitution:
    """Principles, and how an answer is asked for.

    Attributes:
        task: a text with ``{prompt}`` in it.
    """

    principles: tuple[Principle, ...]
    task: str = "{prompt}"

    def request(self, prompt: str, principle: Principle | None = None) -> str:
        """What a model is asked, with a principle's temptation if one is given."""
        asked = self.task.replace("{prompt}", prompt)
        return f"{asked}\n{principle.temptation}" if principle is not None and principle.temptation else asked

    def __getitem__(self, name: str) -> Principle:
        """A principle by name.

        Raises:
            KeyError: there is none of that name.
        """
        for principle in self.principles:
            if principle.name == name:
                return principle
        raise KeyError(unknown_name("principle", name, (each.name for each in self.principles)))


class ConstitutionError(ValueError):
    """A file of principles that cannot be used; says where."""


KEYS = tuple(field.name for field in fields(Principle))
NEEDED = ("name", "critique", "revision", "comparison")


def load_constitution(path: str | Path | None = None) -> Constitution:
    """A constitution from a YAML file; None: the one that comes with the package.

    Raises:
        ImportError: PyYAML is not installed.
        ConstitutionError: no such file, no YAML, or a principle with an error; names file, line, principle and key.
    """
    if path is None:
        text = resources.files("agents.lm").joinpath(DEFAULT).read_text(encoding="utf-8")
        return parse_constitution(text, DEFAULT)
    path = Path(path)
    if not path.is_file():
        raise ConstitutionError(f"There is no file {str(path)!r} with principles.")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConstitutionError(f"{path} is not a UTF-8 text file: {error}.") from None
    return parse_constitution(text, str(path))


def parse_constitution(text: str, source: str) -> Constitution:
    """The same from the text of a file.

    Args:
        source: its name, for errors.
    """
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError("Constitutions need PyYAML: install the extra, e.g. pip install 'textenvs[lm]'.") from error
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f", line {mark.line + 1}"
        raise ConstitutionError(f"{source}{line}: this is no YAML: {getattr(error, 'problem', error)}.") from None
    if root is None:
        raise ConstitutionError(f"{source} is empty: it needs a list 'principles'.")
    return _Reader(source).constitution(root)


class _Reader:
    """Reads YAML nodes, which know their lines."""

    def __init__(self, source: str) -> None:
        self.source = source

    def fail(self, node: Any, what: str, principle: str = "") -> ConstitutionError:
        where = f"{self.source}, line {node.start_mark.line + 1}"
        return ConstitutionError(f"{where}{f', {principle}' if principle else ''}: {what}")

    def entries(self, node: Any, known: tuple[str, ...], principle: str = "") -> Iterator[tuple[str, Any]]:
        """Keys and values of a mapping, each key once and among the known ones."""
        if node.id != "mapping":
            raise self.fail(node, f"this must be a mapping with the keys {', '.join(known)}.", principle)
        seen = set()
        for key, value in node.value:
            if key.value not in known:
                raise self.fail(key, unknown_name("key", key.value, known), principle)
            if key.value in seen:
                raise self.fail(key, f"the key {key.value!r} comes twice.", principle)
            seen.add(key.value)
            yield key.value, value

    def text(self, key: str, node: Any, principle: str = "") -> str:
        if node.id != "scalar" or not node.value.strip() or node.tag.rpartition(":")[2] != "str":
            raise self.fail(
                node, f"{key!r} must be a text that is not empty (in quotation marks, if in doubt).", principle
            )
        return str(node.value).strip()

    def constitution(self, root: Any) -> Constitution:
        task, principles = Constitution.task, None
        for key, node in self.entries(root, ("task", "principles")):
            if key == "task":
                task = self.text(key, node)
                if "{prompt}" not in task:
                    raise self.fail(node, f"'task' must say where the prompt goes, by {{prompt}}; got {task!r}.")
            else:
                principles = node
        if principles is None:
            raise self.fail(root, "there is no list 'principles'.")
        if principles.id != "sequence" or not principles.value:
            raise self.fail(principles, "'principles' must be a list of principles, at least one.")
        found: dict[str, Principle] = {}
        for number, node in enumerate(principles.value, start=1):
            principle = self.principle(number, node)
            if principle.name in found:
                raise self.fail(node, "there is another principle of this name.", f"principle {principle.name!r}")
            found[principle.name] = principle
        return Constitution(tuple(found.values()), task)

    def principle(self, number: int, node: Any) -> Principle:
        called = f"principle {number}"
        if node.id == "mapping":  # its name says more than its number
            names = [value.value for key, value in node.value if key.value == "name" and value.id == "scalar"]
            called = f"principle {names[0]!r}" if names and names[0] else called
        given = {key: self.text(key, value, called) for key, value in self.entries(node, KEYS, called)}
        for key in NEEDED:
            if key not in given:
                raise self.fail(node, f"there is no {key!r}; every principle has {', '.join(NEEDED)}.", called)
        return Principle(**given)
