"""The grammar of TinyReviews: how its words make sentences.

A review has one or two sentences. Its beginning, up to the noun that says what it is about, is the prompt. Every clause
has a polarity; which ones a review prefers is its sentiment. "And" joins clauses that do not contradict each other,
"but" those that do.

Lengths are in tokens: all that follows the prompt, EOS included, fits into 24 of them (first sentence 12, second
sentence 11), and every sentence has 6 to 24 words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from textenvs.tiny_reviews import words as w
from textenvs.tiny_reviews.expressions import Expression, any_of, any_word, choice, sequence
from textenvs.tiny_reviews.words import Adjectives, Kind, Parts

SENTIMENTS = ("positive", "neutral", "negative")
"""Of a review; and of a clause, by number, under the name of polarity."""
POSITIVE, NEUTRAL, NEGATIVE = range(3)

_PREFERENCE = np.array([[0.78, 0.06, 0.04], [0.18, 0.88, 0.18], [0.04, 0.06, 0.78]])
"""Row p: how likely a clause of polarity p is in a positive, in a neutral and in a negative review."""
_AND = ((0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (2, 2))
_BUT = ((0, 1), (0, 2), (1, 0), (1, 2), (2, 0))
"""Polarities of two clauses, or of two things, that the word can join."""

_VERBS = {  # tense and number of the subject: forms of be, seem, have
    ("past", "singular"): ("was", "seemed", "had"),
    ("past", "plural"): ("were", "seemed", "had"),
    ("present", "singular"): ("is", "seems", "has"),
    ("present", "plural"): ("are", "seem", "have"),
}


def review(kind: Kind) -> Expression:
    """Every review of a kind, without EOS."""
    write = _Writer(kind)
    first = choice((0.4, write.about_the_thing()), (0.2, write.about_a_part()), (0.4, write.what_we_did()))
    return sequence(first, ".", _maybe(0.6, sequence(write.second_sentence(), ".")))


@dataclass(frozen=True)
class _Nouns:
    """Nouns that share their number and their adjectives."""

    nouns: str
    number: str
    general: Adjectives
    own: Adjectives
    people: bool = False
    opening: bool = True

    def adjectives(self, polarity: int) -> str:
        return f"{self.general.of(polarity)} {self.own.of(polarity)}"


def _nouns(part: Parts, nouns: str, number: str) -> _Nouns:
    general = w.PEOPLE if part.people else w.THINGS
    return _Nouns(nouns, number, general, part.own, part.people, part.opening)


class _Writer:
    """The sentences about one kind of thing. Each method shows an example; the prompt ends at the bar."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.things = any_word(kind.things)
        self.thing = _Nouns(kind.things, "singular", w.THINGS, kind.own)
        self.parts = {
            "singular": tuple(_nouns(part, f"{part.singular} {part.mass}", "singular") for part in kind.parts),
            "plural": tuple(_nouns(part, part.plural, "plural") for part in kind.parts),
        }
        self.any_part = self.parts["singular"] + self.parts["plural"]
        self.tail = any_of(w.SHORT_TAILS + (w.LONG_TAILS if kind.lasting else ()))

    # -------------------------------------------------------------------------------------------- first sentences

    def about_the_thing(self) -> Expression:
        """the old film | was very long, but the actors were good"""
        prompt = sequence(any_word("the this"), _maybe(0.4, any_word(self.kind.before)), self.things)
        return sequence(prompt, self.in_each_tense(self.said_of_the_thing))

    def said_of_the_thing(self, tense: str) -> Expression:
        be, _, have = _VERBS[tense, "singular"]
        short = [
            (2.0, _each(lambda p: _is(self.thing, tense, p, 3, 4))),
            (2.0, _each(lambda p: sequence(_is(self.thing, tense, p, 1, 2), self.tail))),
            (0.5, sequence(be, _each(_not_as_expected))),
            (0.5, sequence(be, _each(self.comparative), "than", any_word("i we"), "expected")),
        ]
        if tense == "past":
            short.append((1.0, sequence("made", any_word("me us"), "feel", _each(_feeling))))
        return choice(
            *short,
            (2.0, sequence(any_of(self.kind.places), choice(*short))),
            *self.with_another_clause(self.thing, tense, self.any_part),
            (2.0, sequence(have, _pair(_AND, lambda p, q: sequence(self.a_part(p), "and", self.some_parts(q))))),
            (1.0, sequence(be, "one of the", _each(self.superlative), any_of(("of the year", "i know")))),
        )

    def about_a_part(self) -> Expression:
        """the actors in this film | were good and funny"""

        def about(part: _Nouns) -> Expression:
            prompt = sequence("the", any_word(part.nouns), self.kind.where, any_word("the this"), self.things)
            return sequence(prompt, self.in_each_tense(lambda tense: self.said_of_a_part(part, tense)))

        return any_of(about(part) for part in self.any_part if part.opening)

    def said_of_a_part(self, part: _Nouns, tense: str) -> Expression:
        others = self.parts["plural" if part.number == "singular" else "singular"]
        return choice(
            (2.0, _each(lambda p: _is(part, tense, p, 1, 4))),
            (1.0, _each(lambda p: sequence(_is(part, tense, p, 1, 2), self.tail))),
            *self.with_another_clause(part, tense, others),
        )

    def with_another_clause(
        self, first: _Nouns, tense: str, others: tuple[_Nouns, ...]
    ) -> list[tuple[float, Expression]]:
        """… was very long and the actors were good; … was very long, but the actors were good"""

        def joined_by(word: str) -> Callable[[int, int], Expression]:
            return lambda p, q: sequence(_is(first, tense, p, 1, 2), word, _the(others, tense, q, 1, 2))

        return [(3.0, _pair(_AND, joined_by("and"))), (2.0, _pair(_BUT, joined_by(", but")))]

    def what_we_did(self) -> Expression:
        """last week we watched this film | and found it very long"""
        who = choice((0.3, "i"), (0.3, "we"), (0.4, sequence("my", any_word(w.FAMILY))))
        the_thing = sequence(any_word("the this"), self.things)
        a_thing = choice((0.4, _a(self.kind.things)), (0.6, _a(self.kind.before, self.things)))
        done = any_of(self.kind.done)
        return choice(
            (0.3, sequence(any_of(w.TIMES), who, done, the_thing, self.what_came_of_it())),
            (0.7, sequence(who, done, choice((0.6, the_thing), (0.4, a_thing)), self.where_or_when())),
        )

    def where_or_when(self) -> Expression:
        """… near the station and found it very loud; … last week and told everyone about it"""
        return choice(
            (0.4, self.what_came_of_it()),
            (0.4, sequence(any_of(w.TIMES), self.what_came_of_it())),
            (0.2, sequence(any_of(self.kind.places), any_of((self.found_it(), self.and_it_was())))),
        )

    def what_came_of_it(self) -> Expression:
        return choice(
            (3.0, self.found_it()),
            (3.0, sequence(self.and_it_was(), _maybe(0.4, self.tail))),
            (2.0, sequence("and", _each(lambda p: sequence(_loved(p), "the", _any_noun(self.any_part))))),
            (1.0, "and told everyone about it"),
            (1.0, sequence(", but", _each(lambda p: _the(self.any_part, "past", p, 1, 2), (NEUTRAL, NEGATIVE)))),
        )

    def found_it(self) -> Expression:
        return sequence("and found it", _each(lambda p: _adjectives(self.thing, p, 1, 4)))

    def and_it_was(self) -> Expression:
        return sequence("and it", _each(lambda p: _is(self.thing, "past", p, 1, 2)))

    # -------------------------------------------------------------------------------------------- second sentences

    def second_sentence(self) -> Expression:
        singular, plural = self.parts["singular"], self.parts["plural"]
        return choice(
            (6.0, self.in_each_tense(lambda tense: self.about_parts(tense, singular, plural))),
            (6.0, self.in_each_tense(lambda tense: self.about_parts(tense, plural, singular))),
            (2.0, sequence(any_of(w.INTRODUCTIONS), "it was", _each(self.what_it_was))),
            (2.0, sequence("it was", _maybe(0.5, any_word("much far")), _each(self.comparative), "than the last one")),
            (1.5, sequence("it made us feel", _each(_feeling), any_of(("for days", "afterwards")))),
            (1.5, sequence("it made my", any_word(w.FAMILY), "feel", _each(_feeling))),
            (3.0, sequence(any_word("i we"), _each(self.loved_it_all))),
            (4.0, _each(self.what_comes_next)),
        )

    def about_parts(self, tense: str, some: tuple[_Nouns, ...], others: tuple[_Nouns, ...]) -> Expression:
        """the plot was very good and funny; the plot was good and the actors were very funny"""

        def joined_by(word: str, longest: int) -> Callable[[int, int], Expression]:
            return lambda p, q: sequence(_the(some, tense, p, 1, 1), word, _the(others, tense, q, 1, longest))

        return choice(
            (3.0, _each(lambda p: _the(some, tense, p, 3, 4))),
            (2.0, _pair(_AND, joined_by("and", 2))),
            (1.0, _pair(_BUT, joined_by(", but", 1))),
        )

    def loved_it_all(self, polarity: int) -> Expression:
        """really loved the plot and the actors"""
        one, many = (sequence("the", _any_noun(self.parts[number])) for number in ("singular", "plural"))
        return sequence(_loved(polarity), any_of((sequence(one, "and", many), sequence(many, "and", one))))

    def what_comes_next(self, polarity: int) -> Expression:
        """i would recommend it to everyone; we may watch it again next year; it lasted for about two hours"""
        to_do = any_of(self.kind.to_do)
        to_whom = any_of(("everyone", "anyone", sequence("my", any_word(w.MORE_OTHERS))))
        if polarity == POSITIVE:
            return choice(
                (1.0, sequence(any_word("i we"), "would recommend it to", to_whom)),
                (1.0, sequence(any_word("i we"), "would", any_word("love like"), "to", to_do, "again")),
            )
        if polarity == NEGATIVE:
            return choice(
                (1.0, sequence(any_word("i we"), "would not recommend it to", to_whom)),
                (1.0, sequence(any_word("i we"), "would hate to", to_do, "again")),
            )
        one, more = any_word(w.OTHERS), any_word(w.MORE_OTHERS)
        return choice(
            (2.0, any_of(_fact(text) for text in self.kind.facts)),
            (1.0, sequence(any_word("i we"), "may", to_do, "again", any_of(w.SOON))),
            (1.0, sequence(any_word("i we"), "told my", any_of((one, more)), "all about it the next day")),
            (0.5, sequence("my", one, "has not", self.kind.perfect, "yet")),
            (0.5, sequence("my", more, "have not", self.kind.perfect, "yet")),
            (0.5, sequence("my", one, "plans to", to_do, any_of(w.SOON))),
            (0.5, sequence("my", more, "plan to", to_do, any_of(w.SOON))),
        )

    # -------------------------------------------------------------------------------------------- phrases

    def in_each_tense(self, say: Callable[[str], Expression]) -> Expression:
        return choice((0.7, say("past")), (0.3, say("present"))) if self.kind.present else say("past")

    def what_it_was(self, polarity: int) -> Expression:
        """a great story; a really great story"""
        adjectives, noun = self.thing.adjectives(polarity), any_word(self.kind.called)
        really = sequence("a really", any_word(adjectives), noun)
        return choice((0.7, _a(adjectives, noun)), (0.3, really))

    def a_part(self, polarity: int) -> Expression:
        """a great plot; great music"""
        options = []
        for part in self.kind.parts:
            adjectives = (w.PEOPLE if part.people else w.THINGS).of(polarity) + " " + part.own.of(polarity)
            options.append((1.0, _a(adjectives, any_word(part.singular))))
            if part.mass:
                options.append((0.5, sequence(any_word(adjectives), any_word(part.mass))))
        return choice(*options)

    def some_parts(self, polarity: int) -> Expression:
        """great actors"""
        return any_of(
            sequence(any_word(part.adjectives(polarity)), any_word(part.nouns)) for part in self.parts["plural"]
        )

    def comparative(self, polarity: int) -> Expression:
        return any_word(("better", self.kind.comparatives, "worse")[polarity])

    def superlative(self, polarity: int) -> Expression:
        return any_word(("best", self.kind.superlatives, "worst")[polarity])


@cache
def _is(nouns: _Nouns, tense: str, polarity: int, shortest: int, longest: int) -> Expression:
    """was very good and funny; seemed long; was not bad. The lengths are without the verb."""
    be, seem, _ = _VERBS[tense, nouns.number]
    positive = sequence(choice((0.85, be), (0.15, seem)), _adjectives(nouns, polarity, shortest, longest))
    if polarity == NEUTRAL or longest == 1:
        return positive
    if polarity == POSITIVE:
        denied = any_word(w.NOT_RUDE if nouns.people else w.NOT_BAD)
        negated = sequence(be, "not", denied, "at all") if shortest > 2 else sequence(be, "not", denied)
    else:
        denied = any_word(w.NOT_NICE if nouns.people else w.NOT_GOOD)
        negated = (
            sequence(be, "not", any_word("very really so"), denied) if shortest > 2 else sequence(be, "not", denied)
        )
    return choice((0.92, positive), (0.08, negated))


@cache
def _adjectives(nouns: _Nouns, polarity: int, shortest: int, longest: int) -> Expression:
    """good; very good; good and funny; very good and funny: those within the lengths."""
    any_adjective, general = nouns.adjectives(polarity), nouns.general.of(polarity)
    and_own = sequence("and", any_word(nouns.own.of(polarity)))
    phrases = (
        (1, 0.4, any_word(any_adjective)),
        (2, 0.3, _to_a_degree(any_adjective)),
        (3, 0.2, sequence(any_word(general), and_own)),
        (4, 0.1, sequence(_to_a_degree(general), and_own)),
    )
    return choice(*((weight, phrase) for length, weight, phrase in phrases if shortest <= length <= longest))


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
def _the(parts: tuple[_Nouns, ...], tense: str, polarity: int, shortest: int, longest: int) -> Expression:
    """the plot was very good"""
    return any_of(
        sequence("the", any_word(part.nouns), _is(part, tense, polarity, shortest, longest)) for part in parts
    )


@cache
def _any_noun(parts: tuple[_Nouns, ...]) -> Expression:
    return any_word(" ".join(part.nouns for part in parts))


@cache
def _not_as_expected(polarity: int) -> Expression:
    """not as good as we expected"""
    adjectives = (w.NOT_BAD, "simple ordinary modern unusual", w.NOT_GOOD)[polarity]
    return sequence("not as", any_word(adjectives), "as", any_word("i we"), "expected")


@cache
def _feeling(polarity: int) -> Expression:
    """happy; very happy"""
    feelings = w.FEELINGS.of(polarity)
    return choice((0.5, any_word(feelings)), (0.5, _to_a_degree(feelings)))


@cache
def _fact(text: str) -> Expression:
    """A sentence with its numbers: FEW and MANY stand for any of them."""
    numbers = {"FEW": any_word(w.FEW), "MANY": any_word(w.MANY)}
    return sequence(*(numbers.get(word, word) for word in text.split()))


@cache
def _loved(polarity: int) -> Expression:
    verbs = any_word(
        ("loved liked enjoyed admired", "noticed discussed mentioned", "hated disliked despised")[polarity]
    )
    return verbs if polarity == NEUTRAL else sequence(_maybe(0.3, any_word("really")), verbs)


def _a(words: str, noun: Expression | None = None) -> Expression:
    """The words with their article, before the noun if one is given: a good film, an awful film."""
    options = []
    for article in ("a", "an"):
        chosen = [word for word in words.split() if _article(word) == article]
        if chosen:
            parts = (
                (article, any_word(" ".join(chosen))) if noun is None else (article, any_word(" ".join(chosen)), noun)
            )
            options.append((float(len(chosen)), sequence(*parts)))
    return choice(*options)


def _article(word: str) -> str:
    """By sound: an honest man, a useful thing."""
    vowel = word[0] in "aeiou" and not word.startswith("use")
    return "an" if vowel or word.startswith("hon") else "a"


def _maybe(probability: float, expression: Expression) -> Expression:
    return choice((probability, expression), (1.0 - probability, ""))


def _each(say: Callable[[int], Expression], polarities: Sequence[int] = (0, 1, 2)) -> Expression:
    """Any polarity, as the review prefers."""
    return choice(*((_PREFERENCE[p], say(p)) for p in polarities))


def _pair(pairs: Sequence[tuple[int, int]], say: Callable[[int, int], Expression]) -> Expression:
    """Any of the pairs of polarities, as the review prefers."""
    return choice(*((_PREFERENCE[p] * _PREFERENCE[q], say(p, q)) for p, q in pairs))
