"""TinyReviews: a small English, written by a grammar, so that what is grammatical in it is known exactly."""

from textenvs.tiny_reviews.grammar import KINDS, TEST_KINDS, TRAIN_KINDS, Grammar, Prompts, Reviews, load_grammar
from textenvs.tiny_reviews.sentences import SENTIMENTS

__all__ = ["KINDS", "SENTIMENTS", "TEST_KINDS", "TRAIN_KINDS", "Grammar", "Prompts", "Reviews", "load_grammar"]
