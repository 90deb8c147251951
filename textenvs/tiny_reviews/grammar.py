"""Grammar: the language TinyReviews, to be sampled, parsed and measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from textenvs.errors import unknown_name
from textenvs.rng import episode_keys, stream_base, subkeys
from textenvs.tiny_reviews import words
from textenvs.tiny_reviews.automaton import DEAD, Automaton, build
from textenvs.tiny_reviews.expressions import Choice, Expression, Words, sequence
from textenvs.tiny_reviews.sentences import SENTIMENTS, review
from textenvs.vocab import Vocab

TRAIN_KINDS = tuple(kind.name for kind in words.TRAIN_KINDS)
TEST_KINDS = tuple(kind.name for kind in words.TEST_KINDS)
KINDS = TRAIN_KINDS + TEST_KINDS
"""What reviews are about. The test kinds are part of the language, but not of the train split's prompts."""

EOS = "<eos>"
REVIEW_STREAM = 4
"""Beside the streams of :mod:`textenvs.rng`: reviews of seed s share no random numbers with episodes of seed s."""


@dataclass(frozen=True, eq=False)
class Reviews:
    """B reviews.

    Attributes:
        ids: int64 [B, L], with EOS, right-padded.
        lengths: int64 [B], tokens, EOS included.
        prompt_lengths: int64 [B], tokens up to the noun that says what the review is about.
        kinds, sentiments: object [B], names.
        vocab: ids to text.
    """

    ids: np.ndarray
    lengths: np.ndarray
    prompt_lengths: np.ndarray
    kinds: np.ndarray
    sentiments: np.ndarray
    vocab: Vocab

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def texts(self) -> list[str]:
        """The reviews, without EOS."""
        return self.vocab.decode_rows(self.ids)

    def demonstrations(self) -> list[dict[str, str]]:
        """Rows ``{prompt, completion, kind, sentiment}``. A completion has no EOS: whoever tokenizes it adds it."""
        rows = []
        for text, length, kind, sentiment in zip(
            self.texts, self.prompt_lengths.tolist(), self.kinds, self.sentiments, strict=True
        ):
            tokens = text.split()
            prompt, completion = " ".join(tokens[:length]), " ".join(tokens[length:])
            rows.append({"prompt": prompt, "completion": completion, "kind": kind, "sentiment": sentiment})
        return rows


@dataclass(frozen=True, eq=False)
class Prompts:
    """All beginnings of reviews of some kinds, up to the noun that says what they are about.

    Attributes:
        ids: int64 [N, P], left-padded.
        probability: float64 [N], of each among the reviews of these kinds; their sum is 1.
    """

    ids: np.ndarray
    probability: np.ndarray


class Grammar:
    """The language. Building it takes about a second: :func:`load_grammar` does it once.

    Attributes:
        vocab: its words in alphabetical order, then EOS.
        automaton: its transition table, over the ids of ``vocab``.
        max_prompt_length: tokens.
        min_completion_length, max_completion_length: tokens, EOS included: the fewest that every prompt can be
            completed with, the most that any completion has.
    """

    def __init__(self) -> None:
        kinds = words.TRAIN_KINDS + words.TEST_KINDS
        expressions = [review(kind) for kind in kinds]
        self.vocab = Vocab([*sorted(_words_of(expressions)), EOS], eos=EOS)
        ids = {token: number for number, token in enumerate(self.vocab.tokens)}
        self.automaton: Automaton = build([sequence(expression, EOS) for expression in expressions], ids)
        self.kind_of_token = np.full(len(ids) + 1, -1)
        """int64 [V + 1]: the number in KINDS that a noun reveals, −1 for all other tokens and for padding."""
        for number, kind in enumerate(kinds):
            self.kind_of_token[self.vocab.encode(kind.things)] = number
        self.max_prompt_length = self.prompts().ids.shape[1]
        self.min_completion_length, self.max_completion_length = self._completion_lengths()

    # -------------------------------------------------------------------------------------------- writing

    def sample(
        self,
        count: int,
        *,
        seed: int = 0,
        first: int = 0,
        kinds: Iterable[str] = KINDS,
        sentiments: Iterable[str] = SENTIMENTS,
    ) -> Reviews:
        """Reviews number ``first`` to ``first + count − 1`` of a seed's endless corpus.

        Review i depends on the seed, i, ``kinds`` and ``sentiments`` alone, so a corpus may be drawn in pieces.

        Args:
            count: B.
            seed: of the corpus.
            first: where in the corpus to begin.
            kinds: what the reviews are about, each equally often.
            sentiments: which clauses they prefer, each equally often.

        Raises:
            ValueError: an unknown kind or sentiment.
        """
        kind_numbers, sentiment_numbers = _numbers("kind", kinds, KINDS), _numbers("sentiment", sentiments, SENTIMENTS)
        base = stream_base(np.array([seed % 2**64], dtype=np.uint64), REVIEW_STREAM)
        length = self.max_prompt_length + self.max_completion_length
        random = subkeys(episode_keys(base, np.arange(first, first + count)), 2 + length)
        kind = kind_numbers[(random[:, 0] % np.uint64(len(kind_numbers))).astype(np.int64)]
        sentiment = sentiment_numbers[(random[:, 1] % np.uint64(len(sentiment_numbers))).astype(np.int64)]
        uniform = (random[:, 2:] >> np.uint64(11)) * 2.0**-53
        ids = self.automaton.sample(self.automaton.starts[kind], sentiment, uniform)
        return Reviews(
            ids=ids,
            lengths=(ids != self.automaton.padding).sum(axis=1),
            prompt_lengths=(self.kind_of_token[ids] >= 0).argmax(axis=1) + 1,
            kinds=np.array(KINDS, dtype=object)[kind],
            sentiments=np.array(SENTIMENTS, dtype=object)[sentiment],
            vocab=self.vocab,
        )

    def demonstrations(self, count: int, *, seed: int = 0, kinds: Iterable[str] = TRAIN_KINDS) -> list[dict[str, str]]:
        """Rows ``{prompt, completion, kind, sentiment}`` of positive and neutral reviews, to fine-tune on."""
        return self.sample(count, seed=seed, kinds=kinds, sentiments=("positive", "neutral")).demonstrations()

    def prompts(self, kinds: Iterable[str] = KINDS) -> Prompts:
        """All beginnings of reviews of these kinds.

        Raises:
            ValueError: an unknown kind.
        """
        automaton, first = self.automaton, self.automaton.first
        states = automaton.starts[_numbers("kind", kinds, KINDS)]
        # Sentences of every sentiment begin alike, so any condition gives the probabilities.
        likely = np.full(len(states), 1.0 / len(states))
        written = np.zeros((len(states), 0), dtype=np.int64)
        finished: list[tuple[np.ndarray, np.ndarray]] = []
        while len(states):
            ways = first[states + 1] - first[states]
            row = np.repeat(np.arange(len(states)), ways)
            transition = np.arange(len(row)) + np.repeat(first[states] - np.cumsum(ways) + ways, ways)
            written = np.column_stack([written[row], automaton.word[transition]])
            likely = likely[row] * automaton.probability[0, transition]
            states = automaton.target[transition]
            done = self.kind_of_token[written[:, -1]] >= 0
            finished.append((written[done], likely[done]))
            written, likely, states = written[~done], likely[~done], states[~done]
        width = max(ids.shape[1] for ids, probability in finished if len(probability))
        padded = [
            np.pad(ids, ((0, 0), (width - ids.shape[1], 0)), constant_values=automaton.padding) for ids, _ in finished
        ]
        return Prompts(np.concatenate(padded), np.concatenate([probability for _, probability in finished]))

    # -------------------------------------------------------------------------------------------- reading

    def grammatical(self, rows: np.ndarray) -> np.ndarray:
        """Whether rows of ids [B, L], padded on either side, are whole reviews that end with EOS: bool [B]."""
        return self.automaton.run(rows, self.automaton.start) == self.automaton.accept

    def is_grammatical(self, text: str, prompt: str | None = None) -> bool:
        """Whether a text, EOS not written out, is a whole review; with a prompt, whether both together are."""
        whole = text if prompt is None else f"{prompt} {text}"
        try:
            ids = self.vocab.encode(whole)
        except ValueError:  # not its words
            return False
        return bool(self.grammatical(np.array([[*ids, *self.vocab.eos_ids]]))[0])

    def legal_tokens(self, rows: np.ndarray) -> np.ndarray:
        """What can follow the left-padded beginnings [B, L]: bool [B, V], nothing after what begins no review."""
        return self.automaton.next_state[self.automaton.run(rows, self.automaton.start), :-1] != DEAD

    def log_probability(self, rows: np.ndarray) -> np.ndarray:
        """Natural logarithms of the probabilities, float64 [B], of reviews [B, L] with EOS, padded on either side.

        All kinds and sentiments are equally likely. −inf for what is no review. No model of the language can have a
        higher mean log-probability on its texts.
        """
        return np.logaddexp.reduce(self.automaton.log_probability(rows), axis=0) - np.log(len(SENTIMENTS))

    def _completion_lengths(self) -> tuple[int, int]:
        """How many tokens every prompt can be completed with, and the most that any completion has."""
        automaton = self.automaton
        after_prompts = np.unique(automaton.target[self.kind_of_token[automaton.word] >= 0])
        shortest, can_end = 0, np.array([automaton.accept])
        while not np.isin(after_prompts, can_end).all():
            can_end = np.union1d(can_end, automaton.source[np.isin(automaton.target, can_end)])
            shortest += 1
        longest, states = 0, after_prompts
        while (states != automaton.accept).any():
            states = np.unique(automaton.target[np.isin(automaton.source, states)])
            longest += 1
        return shortest, longest


@cache
def load_grammar() -> Grammar:
    """The grammar, built on first use."""
    return Grammar()


def _words_of(expressions: Iterable[Expression]) -> set[str]:
    words_found: set[str] = set()
    waiting, seen = list(expressions), set()
    while waiting:
        expression = waiting.pop()
        if id(expression) in seen:  # it is part of several others
            continue
        seen.add(id(expression))
        if isinstance(expression, Words):
            words_found.update(expression.words)
        else:
            waiting += expression.options if isinstance(expression, Choice) else expression.parts
    return words_found


def _numbers(what: str, names: Iterable[str], known: tuple[str, ...]) -> np.ndarray:
    """The numbers of the names among the known ones, int64 [n].

    Raises:
        ValueError: an unknown name, or none at all.
    """
    names = [names] if isinstance(names, str) else list(names)
    for name in names:
        if name not in known:
            raise ValueError(unknown_name(what, name, known))
    if not names:
        raise ValueError(f"At least one {what} is needed. Known: {', '.join(known)}.")
    return np.array([known.index(name) for name in names])
