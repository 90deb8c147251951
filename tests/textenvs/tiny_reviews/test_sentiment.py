"""What VADER says about the language: every word, how texts are spread, and the best text there is."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from textenvs.tiny_reviews import SENTIMENTS, words
from textenvs.tiny_reviews.oracle import best_completions, compound

vader = pytest.importorskip("vaderSentiment.vaderSentiment", reason="vaderSentiment is an extra")


@pytest.fixture(scope="module")
def analyser():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"codecs\.open", category=DeprecationWarning)
        return vader.SentimentIntensityAnalyzer()


@pytest.fixture(scope="module")
def score(analyser):
    return lambda texts: np.array([analyser.polarity_scores(text)["compound"] for text in texts])


def test_the_valence_of_every_word(grammar, analyser):
    stated = {**words.POSITIVE, **words.NEGATIVE}
    assert len(stated) == len(words.POSITIVE) + len(words.NEGATIVE)
    found = {token: analyser.lexicon[token] for token in grammar.vocab.tokens if token in analyser.lexicon}
    assert stated == found
    assert min(words.POSITIVE.values()) > 0 > max(words.NEGATIVE.values())


def test_adjectives_have_the_polarity_that_they_are_listed_under():
    kinds = words.TRAIN_KINDS + words.TEST_KINDS
    lists = [words.GENERAL, words.FEELINGS, words.COMPARATIVES, words.SUPERLATIVES, words.LOVED]
    lists += [kind.own for kind in kinds] + [part.own for kind in kinds for part in kind.parts]
    for adjectives in lists:
        assert set(adjectives.positive.split()) <= words.POSITIVE.keys()
        assert set(adjectives.negative.split()) <= words.NEGATIVE.keys()
        assert not set(adjectives.neutral.split()) & (words.POSITIVE.keys() | words.NEGATIVE.keys())


def test_modifiers(grammar):
    """The words that VADER's rules treat apart are exactly those that the oracle reckons with."""
    special = set(vader.BOOSTER_DICT) | set(vader.NEGATE)
    found = special & set(grammar.vocab.tokens)
    assert found == {"very", "really", "so", "quite", "extremely", "absolutely", "not"}


def test_how_sentiment_is_spread(grammar, score):
    reviews = grammar.sample(3_000, seed=4)
    scores = score(reviews.texts)
    means = [scores[reviews.sentiments == sentiment].mean() for sentiment in SENTIMENTS]
    np.testing.assert_allclose(means, [0.57, 0.01, -0.53], atol=0.05)
    assert scores.mean() == pytest.approx(0.02, abs=0.05)
    assert np.quantile(scores, 0.99) == pytest.approx(0.92, abs=0.02)
    demonstrations = grammar.demonstrations(2_000, seed=4)
    scores = score([f"{row['prompt']} {row['completion']}" for row in demonstrations])
    assert scores.mean() == pytest.approx(0.29, abs=0.05)
    assert (score([row["prompt"] for row in demonstrations]) == 0).all()


@pytest.mark.parametrize("steps", [6, 8, 12, 24, 30])
def test_worth_is_what_vader_says(grammar, score, steps):
    prompts = grammar.prompts()
    chosen = prompts.ids[:: len(prompts.ids) // 300]
    completions, worth = best_completions(chosen, steps)
    assert completions.shape == (len(chosen), steps)
    rows = np.concatenate([chosen, completions], axis=1)
    assert grammar.grammatical(rows).all()
    scores = score(grammar.vocab.decode_rows(rows))
    np.testing.assert_allclose(scores, compound(worth), atol=0.02)


def test_best_completion_against_all_of_them(grammar, score):
    """Of a short budget all completions can be listed: none scores more than 0.02 above the oracle's."""
    steps, prompt = 7, np.array([grammar.vocab.encode("my sister saw the film")])
    beginnings, texts = np.zeros((1, 0), dtype=np.int64), []
    for _ in range(steps):
        rows = np.concatenate([np.repeat(prompt, len(beginnings), axis=0), beginnings], axis=1)
        row, token = np.nonzero(grammar.legal_tokens(rows))
        beginnings = np.column_stack([beginnings[row], token])
        ended = token == grammar.vocab.eos_ids[0]
        texts += grammar.vocab.decode_rows(beginnings[ended])
        beginnings = beginnings[~ended]
    assert len(texts) > 300
    completions, _ = best_completions(prompt, steps)
    best = score(grammar.vocab.decode_rows(completions))[0]
    assert max(score(texts)) <= best + 0.02


def test_sampled_reviews_do_not_beat_the_oracle(grammar, score):
    reviews = grammar.sample(4_000, seed=9, sentiments="positive")
    prompts = np.full((len(reviews), grammar.max_prompt_length), len(grammar.vocab))
    for row, ids, length in zip(prompts, reviews.ids, reviews.prompt_lengths.tolist(), strict=True):
        row[len(row) - length :] = ids[:length]
    _, worth = best_completions(prompts, grammar.max_completion_length)
    assert (score(reviews.texts) <= compound(worth) + 0.02).all()


def test_a_budget_that_is_too_short():
    from textenvs.tiny_reviews import load_grammar

    prompt = np.array([load_grammar().vocab.encode("the film")])
    completions, worth = best_completions(prompt, 3)
    assert (completions == len(load_grammar().vocab)).all()
    assert np.isneginf(worth).all()
