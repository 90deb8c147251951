"""Faults that a review can have, counted by rule: rude, false or rambling; and reviews into which they are put.

    faults = count_faults("the film", "was stupid and the soup was very very hot .")
    faults.rude, faults.false, faults.rambling            # 1, 1, 1: stupid; a film has no soup; very very
    make_review(grammar, seed=0, number=7)                # a review without fault, and the same with some

Whoever asks for answers that are polite, true and brief can be measured against :func:`count_faults`, which knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from textenvs.tiny_reviews import words
from textenvs.tiny_reviews.grammar import KINDS, load_grammar

FAULTS = ("rude", "false", "rambling")
MOST = 2
"""A fault counts so many times at most, or a text that repeats itself to the end would outweigh all else."""
REPEATED = 4
"""Words in a row that are a repetition when they come again."""

POLITE = {
    "arrogant": "moody", "hopeless": "dreadful", "incompetent": "careless", "lazy": "impatient", "lousy": "poor",
    "nasty": "bad", "pathetic": "disappointing", "ridiculous": "meaningless", "rotten": "bitter",
    "selfish": "unfriendly", "stupid": "confusing", "worthless": "terrible",
}  # fmt: skip
"""Rude words, and how the same is said without insulting: of the same sentiment, and allowed in the same places."""
_KINDS = words.TRAIN_KINDS + words.TEST_KINDS
RUDE = {polite: rude for rude, polite in POLITE.items()}


@dataclass(frozen=True)
class Faults:
    """How often a review has each fault, up to ``MOST``."""

    rude: int
    """Words that insult."""
    false: int
    """Words for what a thing of this kind does not have: the soup of a film."""
    rambling: int
    """Words said twice running, and runs of ``REPEATED`` words that come again."""

    @property
    def total(self) -> int:
        return self.rude + self.false + self.rambling

    def of(self, fault: str) -> int:
        """The count of one of ``FAULTS``."""
        count: int = getattr(self, fault)
        return count


@cache
def own_words() -> dict[str, frozenset[str]]:
    """Words that belong to the things of each kind: their names, parts, people and places."""
    return {kind.name: _nouns(kind.name) | frozenset(" ".join(kind.places).split()) for kind in _KINDS}


@cache
def foreign_words() -> dict[str, frozenset[str]]:
    """Nouns that belong to things of other kinds only."""
    return {kind: frozenset().union(*(_nouns(other) for other in KINDS)) - own for kind, own in own_words().items()}


@cache
def _nouns(kind: str) -> frozenset[str]:
    """Parts and people of a kind, and what else it is called."""
    (found,) = (each for each in _KINDS if each.name == kind)
    parts = " ".join(f"{part.singular} {part.mass} {part.plural}" for part in found.parts)
    return frozenset(f"{found.things} {found.called} {parts}".split())


@cache
def _kind_of() -> dict[str, str]:
    return {thing: kind.name for kind in _KINDS for thing in kind.things.split()}


def kind_of(prompt: str) -> str | None:
    """What a review is about, by the last word of its prompt that says so; None if no word does."""
    return next((_kind_of()[word] for word in reversed(prompt.split()) if word in _kind_of()), None)


def find_faults(prompt: str, completion: str) -> dict[str, list[str]]:
    """The words of a completion that make each fault, in their order, every one of them."""
    said = completion.split()
    kind = kind_of(prompt)
    foreign = foreign_words()[kind] if kind is not None else frozenset()
    repeated, seen = [], set()
    for i, word in enumerate(said):
        run = tuple(said[max(i + 1 - REPEATED, 0) : i + 1])
        if (i and said[i - 1] == word) or run in seen:
            repeated.append(word)
        if len(run) == REPEATED:
            seen.add(run)
    return {
        "rude": [word for word in said if word in POLITE],
        "false": [word for word in said if word in foreign],
        "rambling": repeated,
    }


def count_faults(prompt: str, completion: str) -> Faults:
    """The faults of a review.

    Args:
        prompt: its beginning, which says what it is about.
        completion: the rest.
    """
    found = find_faults(prompt, completion)
    return Faults(**{fault: min(len(found[fault]), MOST) for fault in FAULTS})


def fault_scores(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    """Minus the number of faults of each review, −6 … 0; a reward function."""
    return [-float(count_faults(*texts).total) for texts in zip(prompts, completions, strict=True)]


# -- reviews with faults -----------------------------------------------------------------------------------------------


def make_polite(completion: str) -> str:
    """The same with every rude word put politely."""
    return " ".join(POLITE.get(word, word) for word in completion.split())


LONGEST = 23
"""Words that fit into 24 tokens with EOS."""
ROOM = 5
"""Words that a fault adds at most, repetitions aside, which take what is left."""


def put_fault(fault: str, prompt: str, completion: str, rng: np.random.Generator) -> str:
    """A completion with a fault more; it must have ``LONGEST - ROOM`` words at most.

    Args:
        fault: one of ``FAULTS``.

    Raises:
        ValueError: no such fault.
    """
    if fault not in FAULTS:
        raise ValueError(f"fault must be one of {', '.join(FAULTS)}; got {fault!r}.")
    said = completion.split()
    change = {"rude": _insult, "false": _lie, "rambling": _ramble}[fault]
    return " ".join(change(prompt, said, rng))


def _insult(prompt: str, said: list[str], rng: np.random.Generator) -> list[str]:
    """What is said politely becomes rude; or somebody is called names: the stupid actors."""
    plain = [i for i, word in enumerate(said) if word in RUDE]
    if plain and rng.random() < 0.7:
        chosen = set(rng.permutation(plain)[: rng.integers(1, MOST + 1)].tolist())
        return [RUDE[word] if i in chosen else word for i, word in enumerate(said)]
    insult = str(rng.choice(list(POLITE)))
    nouns = [i + 1 for i, word in enumerate(said[:-1]) if word == "the" and said[i + 1] not in ("last", "end", "whole")]
    if nouns:
        place = int(rng.choice(nouns))
        return [*said[:place], insult, *said[place:]]
    return [*said[:-1], "and", insult, *said[-1:]]


def _lie(prompt: str, said: list[str], rng: np.random.Generator) -> list[str]:
    """A part of the thing becomes one that things of another kind have; or one is added."""
    kind = kind_of(prompt)
    assert kind is not None
    other = str(rng.choice([name for name in KINDS if name != kind]))
    foreign = sorted(foreign_words()[kind] & _nouns(other))
    parts = [i for i, word in enumerate(said) if word in _nouns(kind)]
    if parts and rng.random() < 0.7:
        place = int(rng.choice(parts))
        same = [word for word in foreign if _is_plural(word) == _is_plural(said[place])]
        return [*said[:place], str(rng.choice(same)), *said[place + 1 :]]
    noun = str(rng.choice(foreign))
    be, how = "were" if _is_plural(noun) else "was", str(rng.choice(words.GENERAL.of(int(rng.integers(3))).split()))
    how = POLITE.get(how, how)
    return [*said[:-1], "and", "the", noun, be, how, *said[-1:]]


def _ramble(prompt: str, said: list[str], rng: np.random.Generator) -> list[str]:
    """A word is said two or three times, or the end is said again."""
    longest = min(len(said) - 1, LONGEST - len(said) - 1, 8)
    if rng.random() < 0.5 or longest < REPEATED:
        place = int(rng.integers(max(len(said) - 1, 1)))
        return [*said[:place], *[said[place]] * int(rng.integers(1, MOST + 1)), *said[place:]]
    again = said[-1 - int(rng.integers(REPEATED, longest + 1)) :]
    return [*said[:-1], "and" if rng.random() < 0.5 else ".", *again]


@cache
def _is_plural(noun: str) -> bool:
    parts = [part for kind in _KINDS for part in kind.parts]
    return any(noun in part.plural.split() for part in parts)


@dataclass(frozen=True)
class Review:
    """A review without fault and the same with those that it was given; often none."""

    prompt: str
    clean: str
    spoilt: str
    given: tuple[str, ...]
    """Faults that were put in, of ``FAULTS``."""


def make_reviews(
    count: int, *, seed: int = 0, first: int = 0, share: float = 0.3, kinds: Sequence[str] = KINDS
) -> list[Review]:
    """Reviews number ``first`` to ``first + count − 1`` of a seed's endless corpus, with faults and without.

    Args:
        count: how many.
        seed: of the corpus.
        share: of the reviews that get each of the faults, independently of the others.
        kinds: what they are about.
    """
    reviews = []
    rows = load_grammar().sample(count, seed=seed, first=first, kinds=kinds).demonstrations()
    for number, row in enumerate(rows, start=first):
        rng = np.random.default_rng((seed, number))
        given = tuple(fault for fault in FAULTS if rng.random() < share)
        prompt, clean = row["prompt"], make_polite(row["completion"])
        too_long = len(clean.split()) + ROOM * len(given) > LONGEST
        if (given and too_long) or count_faults(prompt, clean).total:
            clean = clean[: clean.index(".") + 1]  # its first sentence
        spoilt = clean
        for fault in given:
            spoilt = put_fault(fault, prompt, spoilt, rng)
        reviews.append(Review(prompt, clean, spoilt, given))
    return reviews
