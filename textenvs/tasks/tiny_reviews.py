"""TinyReviews: finish a review in a small English whose grammar is known."""

from __future__ import annotations

from functools import cache, cached_property
from typing import Any

import numpy as np

from textenvs.rng import subkeys
from textenvs.tasks.base import Task, check_size, check_split
from textenvs.tiny_reviews.automaton import DEAD
from textenvs.tiny_reviews.grammar import KINDS, TEST_KINDS, TRAIN_KINDS, Prompts, load_grammar
from textenvs.tiny_reviews.oracle import best_completions, compound

_KIND_NAMES = np.array([*KINDS, ""], dtype=object)  # number −1: no kind

_RANDOM_SCORES = {6: -0.003, 12: 0.001, 24: -0.001, 48: 0.010, 96: 0.016}
"""Mean scores of 30,000 random texts by length budget: right to within 0.015."""


class TinyReviews(Task):
    """Finish a review as positively as possible; the score is VADER's compound of prompt and completion.

    The prompt is the beginning of a review, up to the noun that says what it is about. Whether a finished review is
    grammatical does not enter the score: ask ``textenvs.tiny_reviews.load_grammar().grammatical(rows)``.

    The optimum is that of grammatical reviews, to within 0.02, and the oracle writes them; any heap of positive words
    scores more. The random score is simulated, to within 0.015.

    Args:
        max_new_tokens: length budget, EOS included. Every review fits into 24.
        split: ``"train"``, or ``"test"``: reviews of other kinds of things.
    """

    name = "TinyReviews"
    default_reward = {"name": "lexicon_sentiment", "of": "text"}

    def __init__(self, *, max_new_tokens: int = 24, split: str = "train") -> None:
        self.split = check_split(self.name, split, has_prompts=True)
        grammar = load_grammar()
        self.max_new_tokens = check_size(self.name, "max_new_tokens", max_new_tokens, grammar.min_completion_length)
        self.vocab = grammar.vocab
        self.prompt_length = grammar.max_prompt_length
        self.random_score = float(np.interp(max_new_tokens, list(_RANDOM_SCORES), list(_RANDOM_SCORES.values())))

    @cached_property
    def optimum(self) -> float:  # type: ignore[override]  # computed when asked for: it takes a moment
        """Mean score of the oracle over the split's prompts."""
        prompts, _ = _prompts(self.split)
        _, worth = best_completions(prompts.ids, self.max_new_tokens)
        return float(np.dot(prompts.probability, compound(worth)))

    def draw(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        prompts, cumulative = _prompts(self.split)
        uniform = (subkeys(keys, 1)[:, 0] >> np.uint64(11)) * 2.0**-53
        index = np.minimum(np.searchsorted(cumulative, uniform, side="right"), len(cumulative) - 1)
        return prompts.ids[index], index.astype(np.int64)

    def prompts_at(self, index: np.ndarray) -> np.ndarray:
        prompts, _ = _prompts(self.split)
        if index.size and (index.min() < 0 or index.max() >= len(prompts.ids)):
            raise ValueError(f"index must lie in 0 … {len(prompts.ids) - 1}, got {index.tolist()[:8]}.")
        return prompts.ids[index]

    def columns(self, prompt_ids: np.ndarray, index: np.ndarray) -> dict[str, Any]:
        return {"kind": _KIND_NAMES[load_grammar().kind_of_token[prompt_ids].max(axis=1)]}

    def oracle(self, prompt_ids: np.ndarray) -> np.ndarray:
        return best_completions(prompt_ids, self.max_new_tokens)[0]

    def encode_prompt(self, prompt: Any) -> np.ndarray:
        row = super().encode_prompt(prompt)
        grammar, shown = load_grammar(), repr(self.vocab.decode(row.tolist()))
        state = grammar.automaton.run(row[None], grammar.automaton.start)[0]
        if state in (DEAD, grammar.automaton.accept):
            raise ValueError(f"{self.name}: no review begins with {shown}.")
        if grammar.kind_of_token[row].max() < 0:
            nouns = [token for token, kind in zip(self.vocab.tokens, grammar.kind_of_token, strict=False) if kind >= 0]
            raise ValueError(f"{self.name}: {shown} does not say what is reviewed, one of {', '.join(nouns)}.")
        if np.isinf(best_completions(row[None], self.max_new_tokens)[1][0]):
            raise ValueError(
                f"{self.name}: no review that begins with {shown} ends within max_new_tokens={self.max_new_tokens}."
            )
        return row


@cache
def _prompts(split: str) -> tuple[Prompts, np.ndarray]:
    """The prompts of a split, and their cumulative probabilities."""
    prompts = load_grammar().prompts(TEST_KINDS if split == "test" else TRAIN_KINDS)
    return prompts, np.cumsum(prompts.probability)
