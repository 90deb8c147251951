"""A grammar without recursion as a finite automaton: parsing, sampling and probabilities are table look-ups.

Expressions are compiled into a non-deterministic automaton and made deterministic by the subset construction, whose
subsets carry the probability of each of their members (weighted determinisation: Mohri 1997, "Finite-state transducers
in language and speech processing"). So a text has one path, and its transition probabilities multiply to the
probability of the text, summed over all ways to derive it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Several
from dataclasses import dataclass
from functools import cached_property
from itertools import count

import numpy as np

from textenvs.tiny_reviews.expressions import CONDITIONS, Expression, Sequence, Words

DEAD = 0
"""The state in which no text can be completed any more."""


@dataclass(frozen=True, eq=False)
class Automaton:
    """S states and A transitions over W words, under C conditions.

    Attributes:
        next_state: int16 [S, W + 1], the state after a word, :data:`DEAD` where it cannot follow. Padding, the id W,
            may stand before the first word of a text and after its last.
        start: the state before a text of any of K expressions, which are equally likely.
        starts: int64 [K], the state before a text of each expression alone.
        accept: the state after a whole text.
        source, word, target: int64 [A], the transitions, sorted by state and word.
        probability: float64 [C, A], of each transition given its state.
    """

    next_state: np.ndarray
    start: int
    starts: np.ndarray
    accept: int
    source: np.ndarray
    word: np.ndarray
    target: np.ndarray
    probability: np.ndarray

    @property
    def padding(self) -> int:
        """W, the id of padding."""
        return self.next_state.shape[1] - 1

    @cached_property
    def first(self) -> np.ndarray:
        """Where each state's transitions begin, int64 [S + 1]."""
        return np.searchsorted(self.source, np.arange(len(self.next_state) + 1))

    def run(self, rows: np.ndarray, state: int | np.ndarray) -> np.ndarray:
        """The states [B] after the rows of ids [B, L], begun in ``state``."""
        states = np.broadcast_to(state, len(rows))
        for column in rows.T:
            states = self.next_state[states, column]
        return states.astype(np.int64)

    def sample(self, states: np.ndarray, conditions: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Texts drawn from the expressions, right-padded, int64 [B, L].

        Args:
            states: int64 [B], from where.
            conditions: int64 [B].
            uniform: float64 [B, L], numbers in [0, 1), one for each word; L is the length of the longest text or more.
        """
        rows = np.full(uniform.shape, self.padding)
        for condition in range(CONDITIONS):
            chosen = np.flatnonzero(conditions == condition)
            state = states[chosen]
            # Every state's transitions are a stretch of one line: a point on it is found by binary search.
            line = np.concatenate([[0.0], np.cumsum(self.probability[condition])])
            for t in range(uniform.shape[1]):
                low, high = self.first[state], self.first[state + 1]
                point = line[low] + uniform[chosen, t] * (line[high] - line[low])
                transition = np.clip(np.searchsorted(line, point, side="right") - 1, low, high - 1)
                rows[chosen, t], state = self.word[transition], self.target[transition]
                going = state != self.accept
                chosen, state = chosen[going], state[going]
        return rows

    def log_probability(self, rows: np.ndarray) -> np.ndarray:
        """Natural logarithms of the probabilities of texts [B, L], padded on either side, under each condition [C, B].

        −inf for a row that is not a whole text.
        """
        number = np.full(self.next_state.shape, len(self.word))  # of each transition; the last one is impossible
        number[self.source, self.word] = np.arange(len(self.word))
        number[:, self.padding] = len(self.word) + 1
        with np.errstate(divide="ignore"):
            logs = np.log(np.concatenate([self.probability, np.tile([0.0, 1.0], (CONDITIONS, 1))], axis=1))
        total = np.zeros((CONDITIONS, len(rows)))
        states = np.full(len(rows), self.start)
        for column in rows.T:
            total += logs[:, number[states, column]]
            states = self.next_state[states, column].astype(np.int64)
        total[:, states != self.accept] = -np.inf
        return total


def build(expressions: Several[Expression], ids: Mapping[str, int]) -> Automaton:
    """The automaton of the texts of K expressions.

    Args:
        expressions: of words that all have ids.
        ids: each word's id, 0 … W − 1.
    """
    compiler = _Compiler()
    end = _Ways([compiler.slot((), _Ways([], np.zeros((0, CONDITIONS))))], np.ones((1, CONDITIONS)))
    compiled = [compiler.ways(expression, end) for expression in expressions]
    builder = _Builder(ids)
    start = builder.state(_joined(compiled, [np.ones(CONDITIONS)] * len(compiled)))
    return builder.automaton(start=start, starts=[builder.state(ways) for ways in compiled])


@dataclass(frozen=True, eq=False)
class _Slot:
    """A place where one of some words stands, and what may follow it. At the end of a text: no words."""

    number: int
    words: tuple[str, ...]
    after: _Ways


@dataclass(frozen=True, eq=False)
class _Ways:
    """Places that may come next, and how likely each is under each condition, [n, C]."""

    slots: list[_Slot]
    weights: np.ndarray


def _joined(several: Several[_Ways], weights: Several[np.ndarray]) -> _Ways:
    """One of several ways, each with a weight under each condition, [C]."""
    slots = [slot for ways in several for slot in ways.slots]
    return _Ways(slots, np.concatenate([weight * ways.weights for ways, weight in zip(several, weights, strict=True)]))


class _Compiler:
    """Compiles expressions from their end. What is written twice and goes on alike becomes one slot."""

    def __init__(self) -> None:
        self.slots = 0
        self.known: dict[tuple[int, int], tuple[Expression, _Ways, _Ways]] = {}

    def slot(self, words: tuple[str, ...], after: _Ways) -> _Slot:
        self.slots += 1
        return _Slot(self.slots, words, after)

    def ways(self, expression: Expression, after: _Ways) -> _Ways:
        """The ways into an expression that is followed by ``after``."""
        known = self.known.get((id(expression), id(after)))
        if known is not None:
            return known[2]
        ways = self._ways(expression, after)
        self.known[id(expression), id(after)] = expression, after, ways  # kept alive: their ids are the key
        return ways

    def _ways(self, expression: Expression, after: _Ways) -> _Ways:
        if isinstance(expression, Words):
            return _Ways([self.slot(expression.words, after)], np.ones((1, CONDITIONS)))
        if isinstance(expression, Sequence):
            for part in reversed(expression.parts):
                after = self.ways(part, after)
            return after
        return _joined([self.ways(option, after) for option in expression.options], list(expression.weights))


class _Builder:
    """The subset construction: a state is a set of slots with the probability of each, given the words before."""

    def __init__(self, ids: Mapping[str, int]) -> None:
        self.ids = ids
        self.numbers: dict[tuple[tuple[int, ...], bytes], int] = {}
        self.subsets = [_Ways([], np.zeros((0, CONDITIONS)))]  # number 0 is DEAD
        self.after: dict[int, int] = {}
        """The state after a slot alone, by the slot's number."""

    def state(self, ways: _Ways) -> int:
        """The number of the state of being at any of some slots."""
        found = {slot.number: slot for slot in ways.slots}
        numbers = sorted(found)
        place = {number: i for i, number in enumerate(numbers)}
        weights = np.zeros((len(numbers), CONDITIONS))
        np.add.at(weights, [place[slot.number] for slot in ways.slots], ways.weights)
        weights /= weights.sum(axis=0)
        # Equal up to rounding is equal: probabilities that were added up in another order.
        key = tuple(numbers), np.round(weights, 9).tobytes()
        if key not in self.numbers:
            self.numbers[key] = len(self.subsets)
            self.subsets.append(_Ways([found[number] for number in numbers], weights))
        return self.numbers[key]

    def transitions(self, state: int) -> Iterator[tuple[list[str], int, np.ndarray]]:
        """The ways out of a state: words, the next state, and the probability of each of the words."""
        subset = self.subsets[state]
        places: dict[str, int] = {}
        for place, slot in enumerate(subset.slots):
            for word in slot.words:
                places[word] = places.get(word, 0) | 1 << place
        # Words that stand in the same places lead to the same state with the same probability.
        words: dict[int, list[str]] = {}
        for word, where in places.items():
            words.setdefault(where, []).append(word)
        for where, alike in words.items():
            entered = [place for place in range(where.bit_length()) if where >> place & 1]
            yield alike, *self._outcome([(subset.slots[place], subset.weights[place]) for place in entered])

    def _outcome(self, entered: list[tuple[_Slot, np.ndarray]]) -> tuple[int, np.ndarray]:
        """Next state and probability of one of the words that stand in exactly these places."""
        likely = [weight / len(slot.words) for slot, weight in entered]
        if len(entered) > 1:
            return self.state(_joined([slot.after for slot, _ in entered], likely)), sum(likely[1:], likely[0])
        slot = entered[0][0]
        if slot.number not in self.after:
            self.after[slot.number] = self.state(slot.after)
        return self.after[slot.number], likely[0]

    def automaton(self, start: int, starts: list[int]) -> Automaton:
        """Everything that can be reached, as tables."""
        source: list[int] = []
        word: list[int] = []
        target: list[int] = []
        probability: list[np.ndarray] = []
        for state in count():
            if state == len(self.subsets):  # it has grown meanwhile
                break
            for words, after, likely in self.transitions(state):
                source += [state] * len(words)
                word += map(self.ids.__getitem__, words)
                target += [after] * len(words)
                probability += [likely] * len(words)
        padding = len(self.ids)
        accept = next(
            number for number, subset in enumerate(self.subsets) if subset.slots and not subset.slots[0].words
        )
        next_state = np.full((len(self.subsets), padding + 1), DEAD, dtype=np.int16)
        next_state[source, word] = target
        for resting in (start, *starts, accept):
            next_state[resting, padding] = resting
        order = np.lexsort((word, source))
        return Automaton(
            next_state=next_state,
            start=start,
            starts=np.array(starts),
            accept=accept,
            source=np.array(source)[order],
            word=np.array(word)[order],
            target=np.array(target)[order],
            probability=np.array(probability)[order].T.copy(),
        )
