"""The grammar of TinyReviews: how its words make sentences.

A review has one or two sentences. Its beginning, up to the noun that says what it is about, is the prompt. Every clause
has a polarity; which ones a review prefers is its sentiment. "But" joins clauses that contradict each other, "and"
rather those that do not.

Lengths are in tokens: all that follows the prompt, EOS included, fits into 24 of them (first sentence 11, second
sentence 12), and every sentence has 6 to 24 words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from textenvs.tiny_reviews import words as w
from textenvs.tiny_reviews.expressions import Expression, any_of, any_word, choice, sequence
from textenvs.tiny_reviews.words import Adjectives, Kind

SENTIMENTS = ("positive", "neutral", "negative")
"""Of a review; and of a clause, by number, under the name of polarity."""
_POLARITIES = POSITIVE, NEUTRAL, NEGATIVE = range(3)

_PREFERENCE = np.array([[0.78, 0.06, 0.04], [0.18, 0.88, 0.18], [0.04, 0.06, 0.78]])
"""Row p: how likely a clause of polarity p is in a positive, in a neutral and in a negative review."""
_AND = np.array([[1.0, 1.0, 0.2], [1.0, 1.0, 1.0], [0.2, 1.0, 1.0]])
_BUT = np.array([[0.01, 0.4, 1.0], [1.0, 0.1, 1.0], [1.0, 0.4, 0.01]])
"""How readily the word joins clauses of two polarities."""

_Polar = Callable[[int], Expression]
"""An expression for each polarity."""


def review(kind: Kind) -> Expression:
    """Every review of a kind, without EOS."""
    write = _Writer(kind)
    first = choice((0.4, write.about_the_thing()), (0.2, write.about_a_part()), (0.4, write.what_we_did()))
    return sequence(first, ".", _maybe(0.6, sequence(write.second_sentence(), ".")))


@dataclass(frozen=True)
class _Nouns:
    """Nouns of one number and one class of adjectives."""

    nouns: str
    plural: bool
    own: Adjectives


class _Writer:
    """The sentences about one kind of thing. Each method shows an example; the prompt ends at the bar."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.things = any_word(kind.things)
        self.thing = _Nouns(kind.things, False, kind.own)
        self.singular = tuple(_Nouns(f"{part.singular} {part.mass}", False, part.own) for part in kind.parts)
        self.plural = tuple(_Nouns(part.plural, True, part.own) for part in kind.parts)
        self.parts = self.singular + self.plural

    # -------------------------------------------------------------------------------------------- first sentences

    def about_the_thing(self) -> Expression:
        """the old film | was very long but the actors were good"""
        whom = choice((0.7, any_word("me us")), (0.3, sequence("my", any_word(w.FAMILY))))
        best = any_of(("of the year", "i know", "we know"))
        return sequence(
            any_word("the this"),
            _maybe(0.4, any_word(self.kind.before)),
            self.things,
            choice(
                (2.0, _each(lambda p: _was_much(self.thing, p))),
                (2.0, sequence(_each(lambda p: _was(self.thing, p)), any_of(w.TAILS))),
                (1.0, _each(lambda p: _was_compared(self.thing, p))),
                (5.0, _joined(lambda p: _was(self.thing, p), lambda p: _the(self.parts, _was, p))),
                (2.0, sequence("had", _pair(_AND, lambda p, q: sequence(self.a_part(p), "and", self.some_parts(q))))),
                (1.0, sequence("made", whom, "feel", _each(_feeling))),
                (1.0, sequence(_be(False), "one of the", _each(lambda p: any_word(w.SUPERLATIVES.of(p))), best)),
            ),
        )

    def about_a_part(self) -> Expression:
        """the actors in this film | were good and funny"""
        opening = [part.opening for part in self.kind.parts] * 2
        return any_of(
            sequence(
                "the", any_word(nouns.nouns), self.kind.where, any_word("the this"), self.things, self.was_so(nouns)
            )
            for nouns, may_open in zip(self.parts, opening, strict=True)
            if may_open
        )

    def was_so(self, part: _Nouns) -> Expression:
        others = self.singular if part.plural else self.plural
        return choice(
            (2.0, _each(lambda p: _was(part, p))),
            (1.0, _each(lambda p: _was_much(part, p))),
            (1.0, sequence(_each(lambda p: _was(part, p)), any_of(w.TAILS))),
            (1.0, _each(lambda p: _was_compared(part, p))),
            (5.0, _joined(lambda p: _was(part, p), lambda p: _the(others, _was, p))),
        )

    def what_we_did(self) -> Expression:
        """last week we watched this film | and found it very long"""
        who = choice((0.3, "i"), (0.3, "we"), (0.4, sequence("my", any_word(w.FAMILY))))
        the_thing = sequence(any_word("the this"), self.things)
        a_thing = choice((0.4, _a(self.kind.things)), (0.6, _a(self.kind.before, self.things)))
        where_or_when = choice((0.4, ""), (0.4, any_of(w.TIMES)), (0.2, any_of(self.kind.places)))
        result = sequence(
            "and",
            choice(
                (3.0, sequence("found it", _each(lambda p: _so(self.thing, p)))),
                (3.0, sequence("it", _each(lambda p: _was(self.thing, p)))),
                (0.5, sequence("it", _each(lambda p: _was_much(self.thing, p)))),
                (2.0, _each(lambda p: _the(self.parts, _was, p))),
                (2.0, _each(lambda p: sequence(_loved(p), "the", _any_noun(self.parts)))),
                (1.0, "told everyone about it"),
            ),
        )
        done = any_of(self.kind.done)
        return choice(
            (0.3, sequence(any_of(w.TIMES), who, done, the_thing, result)),
            (0.7, sequence(who, done, choice((0.6, the_thing), (0.4, a_thing)), where_or_when, result)),
        )

    # -------------------------------------------------------------------------------------------- second sentences

    def second_sentence(self) -> Expression:
        when = any_of(("for days", "afterwards"))
        return choice(
            (6.0, self.about_parts(self.singular, self.plural)),
            (6.0, self.about_parts(self.plural, self.singular)),
            (2.0, sequence(any_of(w.INTRODUCTIONS), "it was", _each(self.what_it_was))),
            (1.0, sequence("it", _each(lambda p: _was_much(self.thing, p)))),
            (2.0, sequence("it", _each(lambda p: _was_compared(self.thing, p)))),
            (1.5, sequence("it made", any_word("me us"), "feel", _each(_feeling), when)),
            (1.5, sequence("it made my", any_word(w.FAMILY), "feel", _each(_feeling), _maybe(0.5, when))),
            (3.0, sequence(any_word("i we"), _each(self.loved_it_all))),
            (4.0, _each(self.what_comes_next)),
        )

    def about_parts(self, some: tuple[_Nouns, ...], others: tuple[_Nouns, ...]) -> Expression:
        """the plot was very good and funny; the plot was good but the actors were very dull"""
        return choice(
            (2.0, _each(lambda p: _the(some, _was_much, p))),
            (1.0, _each(lambda p: _the(some, _was_compared, p))),
            (3.0, _joined(lambda p: _the(some, _was, p), lambda p: _the(others, _was, p))),
        )

    def loved_it_all(self, polarity: int) -> Expression:
        """really loved the plot and the actors"""
        one, many = sequence("the", _any_noun(self.singular)), sequence("the", _any_noun(self.plural))
        return sequence(_loved(polarity), any_of((sequence(one, "and", many), sequence(many, "and", one))))

    def what_comes_next(self, polarity: int) -> Expression:
        """i would recommend it to everyone; we may watch it again next year; it cost about ten pounds"""
        we, to_do = any_word("i we"), any_of(self.kind.to_do)
        to_whom = any_of(("everyone", "anyone", sequence("my", any_word(w.MORE_OTHERS))))
        if polarity == POSITIVE:
            return choice(
                (1.0, sequence(we, "would recommend it to", to_whom)),
                (1.0, sequence(we, "would", any_word("love like"), "to", to_do, "again")),
            )
        if polarity == NEGATIVE:
            return choice(
                (1.0, sequence(we, "would not recommend it to", to_whom)),
                (1.0, sequence(we, "would hate to", to_do, "again")),
            )
        one, more = any_word(w.OTHERS), any_word(w.MORE_OTHERS)
        return choice(
            (1.0, sequence("it cost about", any_word(w.NUMBERS), "pounds altogether")),
            (1.0, sequence(we, "paid about", any_word(w.NUMBERS), "pounds for it")),
            (1.0, sequence(we, "may", to_do, "again", any_of(w.SOON))),
            (1.0, sequence(we, "told my", any_of((one, more)), "all about it")),
            (0.5, sequence("my", one, "has not heard about it yet")),
            (0.5, sequence("my", more, "have not heard about it yet")),
            (0.5, sequence("my", one, "plans to", to_do, any_of(w.SOON))),
            (0.5, sequence("my", more, "plan to", to_do, any_of(w.SOON))),
        )

    # -------------------------------------------------------------------------------------------- phrases

    def what_it_was(self, polarity: int) -> Expression:
        """a great story; a really great story"""
        adjectives, noun = w.GENERAL.of(polarity), any_word(self.kind.called)
        return choice((0.7, _a(adjectives, noun)), (0.3, sequence("a really", any_word(adjectives), noun)))

    def a_part(self, polarity: int) -> Expression:
        """a great plot"""
        return _a(w.GENERAL.of(polarity), any_word(" ".join(part.singular for part in self.kind.parts)))

    def some_parts(self, polarity: int) -> Expression:
        """great actors"""
        return sequence(any_word(w.GENERAL.of(polarity)), _any_noun(self.plural))


def _joined(first: _Polar, second: _Polar) -> Expression:
    """… was very long and the actors were good; … was very long but the actors were good"""
    return choice(
        (3.0, _pair(_AND, lambda p, q: sequence(first(p), "and", second(q)))),
        (2.0, _pair(_BUT, lambda p, q: sequence(first(p), "but", second(q)))),
    )


@cache
def _be(plural: bool) -> Expression:
    return choice((0.85, "were" if plural else "was"), (0.15, "seemed"))


@cache
def _was(nouns: _Nouns, polarity: int) -> Expression:
    """was very good; seemed long; were not bad"""
    return sequence(_be(nouns.plural), _so(nouns, polarity))


@cache
def _was_much(nouns: _Nouns, polarity: int) -> Expression:
    """was both good and funny; was not bad at all. Four words, which make a sentence of a subject of two."""
    own = choice(*((1.0 if p == polarity else 0.05, any_word(nouns.own.of(p))) for p in _POLARITIES))
    said: Expression = sequence("both", any_word(w.GENERAL.of(polarity)), "and", own)
    if polarity != NEUTRAL:
        said = choice((0.85, said), (0.15, sequence(_not(polarity), "at all")))
    return sequence(_be(nouns.plural), said)


@cache
def _so(nouns: _Nouns, polarity: int) -> Expression:
    """good; very good; not bad"""
    adjectives = f"{w.GENERAL.of(polarity)} {nouns.own.of(polarity)}"
    said = choice((0.6, any_word(adjectives)), (0.4, _to_a_degree(adjectives)))
    return said if polarity == NEUTRAL else choice((0.92, said), (0.08, _not(polarity)))


def _not(polarity: int) -> Expression:
    return sequence("not", any_word(w.NOT_BAD if polarity == POSITIVE else w.NOT_GOOD))


@cache
def _was_compared(nouns: _Nouns, polarity: int) -> Expression:
    """was much better than the last one; were not as good as i expected"""
    more = sequence(_maybe(0.4, any_word("much far")), any_word(w.COMPARATIVES.of(polarity)), "than")
    denied = any_word((w.NOT_BAD, w.GENERAL.neutral, w.NOT_GOOD)[polarity])
    expected = any_of(("i expected", "we expected"))
    than = any_of(("i expected", "we expected", "the last ones" if nouns.plural else "the last one"))
    return sequence(
        _be(nouns.plural), choice((0.6, sequence(more, than)), (0.4, sequence("not as", denied, "as", expected)))
    )


@cache
def _to_a_degree(adjectives: str) -> Expression:
    """very good; absolutely wonderful"""
    strong = [word for word in adjectives.split() if word in w.STRONG.split()]
    plain = [word for word in adjectives.split() if word not in strong]
    return choice(
        *(
            (float(len(chosen)), sequence(any_word(degrees), any_word(" ".join(chosen))))
            for degrees, chosen in ((w.DEGREES, plain), (w.STRONG_DEGREES, strong))
            if chosen
        )
    )


@cache
def _the(parts: tuple[_Nouns, ...], say: Callable[[_Nouns, int], Expression], polarity: int) -> Expression:
    """the plot was very good"""
    return any_of(sequence("the", any_word(part.nouns), say(part, polarity)) for part in parts)


@cache
def _any_noun(parts: tuple[_Nouns, ...]) -> Expression:
    return any_word(" ".join(part.nouns for part in parts))


@cache
def _feeling(polarity: int) -> Expression:
    """happy; very happy"""
    feelings = w.FEELINGS.of(polarity)
    return choice((0.5, any_word(feelings)), (0.5, _to_a_degree(feelings)))


@cache
def _loved(polarity: int) -> Expression:
    """loved; really loved"""
    verbs = any_word(w.LOVED.of(polarity))
    return verbs if polarity == NEUTRAL else sequence(_maybe(0.3, "really"), verbs)


def _a(words: str, noun: Expression | None = None) -> Expression:
    """The words with their article, before the noun if one is given: a good film, an awful film."""
    options: list[tuple[float, Expression]] = []
    for article in ("a", "an"):
        chosen = [word for word in words.split() if _article(word) == article]
        if chosen:
            phrase = sequence(article, any_word(" ".join(chosen)))
            options.append((float(len(chosen)), phrase if noun is None else sequence(phrase, noun)))
    return choice(*options)


def _article(word: str) -> str:
    """By sound: an honest man, a useful thing."""
    vowel = word[0] in "aeiou" and not word.startswith("use")
    return "an" if vowel or word.startswith("hon") else "a"


def _maybe(probability: float, expression: Expression | str) -> Expression:
    return choice((probability, expression), (1.0 - probability, ""))


def _each(say: _Polar) -> Expression:
    """Any polarity, as the review prefers."""
    return choice(*((_PREFERENCE[p], say(p)) for p in _POLARITIES))


def _pair(readily: np.ndarray, say: Callable[[int, int], Expression]) -> Expression:
    """Two polarities, as the review prefers and the word that joins them allows."""
    pairs = np.argwhere(readily).tolist()
    return choice(*((readily[p, q] * _PREFERENCE[p] * _PREFERENCE[q], say(p, q)) for p, q in pairs))
