"""The language: what is in it, that it reads like English, and that sampling and parsing agree."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from textenvs.tiny_reviews import KINDS, SENTIMENTS, TEST_KINDS, TRAIN_KINDS, Grammar, words
from textenvs.tiny_reviews.grammar import EOS
from textenvs.tiny_reviews.sentences import review

ALL_KINDS = words.TRAIN_KINDS + words.TEST_KINDS


@pytest.fixture(scope="module")
def reviews(grammar):
    return grammar.sample(20_000, seed=1)


# ------------------------------------------------------------------------------------------------- size and shape


def test_size(grammar):
    assert len(grammar.vocab) >= 400
    assert len(KINDS) >= 6
    assert len(TEST_KINDS) >= 2
    assert not set(TRAIN_KINDS) & set(TEST_KINDS)
    assert grammar.vocab.eos == EOS
    assert grammar.vocab.separator == " "
    assert (grammar.max_prompt_length, grammar.min_completion_length, grammar.max_completion_length) == (8, 6, 24)


def test_every_sentence_has_6_to_24_words(grammar):
    """Of every text there is: bit n of a state says that n words of a sentence may have been written there."""
    automaton = grammar.automaton
    counted = ~np.isin(automaton.word, grammar.vocab.encode(". ,"))
    ends = automaton.word == grammar.vocab.encode(".")[0]
    sizes = np.zeros(len(automaton.next_state), dtype=np.uint64)
    sizes[automaton.start] = 1
    at_the_end = np.uint64(0)
    for _ in range(grammar.max_prompt_length + grammar.max_completion_length):
        here = sizes[automaton.source]
        at_the_end |= np.bitwise_or.reduce(here[ends])
        here = np.where(counted, here << np.uint64(1), here)
        here[ends & (here > 0)] = 1
        sizes = np.zeros_like(sizes)
        np.bitwise_or.at(sizes, automaton.target, here)
    possible = [n for n in range(64) if int(at_the_end) >> n & 1]
    assert min(possible) == 6
    assert max(possible) <= 24


def test_samples_have_one_or_two_sentences(grammar, reviews):
    stops = (reviews.ids == grammar.vocab.encode(".")[0]).sum(axis=1)
    assert set(stops.tolist()) == {1, 2}
    assert (stops == 2).mean() == pytest.approx(0.6, abs=0.02)
    last = reviews.ids[np.arange(len(reviews)), reviews.lengths - 1]
    assert (last == grammar.vocab.eos_ids[0]).all()
    assert (reviews.lengths <= grammar.max_prompt_length + grammar.max_completion_length).all()


# ------------------------------------------------------------------------------------------------- English


def test_articles(reviews):
    following = {pair for text in reviews.texts for pair in re.findall(r"\b(an?) (\w+)", text)}
    assert len(following) > 80
    for article, word in following:
        by_sound = "an" if word[0] in "aeiou" and word not in ("useful", "useless") else "a"
        assert article == ("an" if word == "honest" else by_sound), (article, word)


def test_agreement(reviews):
    singular = {noun for kind in ALL_KINDS for part in kind.parts for noun in f"{part.singular} {part.mass}".split()}
    singular |= {noun for kind in ALL_KINDS for noun in kind.things.split()}
    plural = {noun for kind in ALL_KINDS for part in kind.parts for noun in part.plural.split()}
    assert not singular & plural
    verbs = {"was": singular, "were": plural}
    seen = dict.fromkeys(verbs, 0)
    for text in reviews.texts:
        # A subject begins a clause, and may have "in this film" behind it.
        for noun, verb in re.findall(r"(?:^|\. |and |but )the (\w+)(?: (?:in|on|at) (?:the|this) \w+)? (\w+)", text):
            if verb in verbs and noun in singular | plural:
                assert noun in verbs[verb], text
                seen[verb] += 1
        for subject, verb in re.findall(r"my (\w+) (has|have|plans|plan)\b", text):
            others = words.OTHERS if verb in ("has", "plans") else words.MORE_OTHERS
            assert subject in others.split(), text
            seen[verb] = seen.get(verb, 0) + 1
    assert len(seen) == 6
    assert min(seen.values()) > 30


def test_nothing_is_called_very_terrible(reviews):
    strong = set(words.STRONG.split())
    for text in reviews.texts:
        assert not {word for word in re.findall(r"(?:very|extremely|fairly|quite|rather|so) (\w+)", text)} & strong, (
            text
        )


def test_tenses(grammar):
    """What happened is told in the past; only what is still to come, or has not come yet, is not."""
    assert not {"is", "are", "seem", "seems", "loves", "makes"} & set(grammar.vocab.tokens)
    assert grammar.is_grammatical("the film was long but the actors were good .")
    assert grammar.is_grammatical("we watched this film and found it very long . we may watch it again next year .")
    assert not grammar.is_grammatical("we watch this film and found it very long .")
    assert not grammar.is_grammatical(
        "we watched this film and found it very long . we may watched it again next year ."
    )


# ------------------------------------------------------------------------------------------------- parsing


def test_every_sample_parses(grammar, reviews):
    assert grammar.grammatical(reviews.ids).all()
    assert all(map(grammar.is_grammatical, reviews.texts[:500]))
    left_padded = np.roll(reviews.ids, 1, axis=1)[reviews.lengths < reviews.ids.shape[1]]
    assert grammar.grammatical(left_padded).all()


def test_without_its_end_a_text_is_not_grammatical(grammar, reviews):
    ids = reviews.ids.copy()
    ids[np.arange(len(ids)), reviews.lengths - 1] = grammar.vocab.encode(".")[0]
    assert not grammar.grammatical(ids).any()
    assert not grammar.is_grammatical("")
    assert not grammar.is_grammatical("the film was good and funny")
    assert not grammar.is_grammatical("the film was good and funny . <eos>")
    assert not grammar.is_grammatical("the aardvark was good and funny .")


def test_prompt_and_completion(grammar):
    assert grammar.is_grammatical("was both good and funny .", prompt="the film")
    assert not grammar.is_grammatical("was both good and funny .", prompt="the films")
    assert not grammar.is_grammatical("was both good and delicious .", prompt="the film")
    assert not grammar.is_grammatical("the film was both good and funny .", prompt="the film")


@pytest.mark.parametrize("name", KINDS)
def test_what_belongs_to_other_kinds_is_ungrammatical(grammar, name):
    kind = next(kind for kind in ALL_KINDS if kind.name == name)
    thing = kind.things.split()[0]
    for other in ALL_KINDS:
        for noun in other.parts[-1].plural.split():
            here = any(noun in part.plural.split() for part in kind.parts)
            text = f"the {thing} was ordinary and the {noun} were old ."
            assert grammar.is_grammatical(text) == here, text
    others = {noun for other in ALL_KINDS if other is not kind for noun in other.things.split()}
    assert not others & set(" ".join(grammar.sample(2_000, seed=2, kinds=[name]).texts).split())


def test_one_word_replaced(grammar, reviews):
    """Almost always ungrammatical: 1.3 % are not, words having been replaced by words of the same sort."""
    rng = np.random.default_rng(0)
    ids, rows = reviews.ids.copy(), np.arange(len(reviews))
    where = (rng.random(len(ids)) * (reviews.lengths - 1)).astype(np.int64)
    by = rng.integers(0, len(grammar.vocab) - 1, size=len(ids))
    changed = ids[rows, where] != by
    ids[rows, where] = by
    assert 0.002 < grammar.grammatical(ids)[changed].mean() < 0.02


@pytest.fixture(scope="module")
def expressions():
    return [review(kind) for kind in ALL_KINDS]


def test_parser_and_probabilities_against_a_slow_reader(grammar, expressions, read_slowly):
    """Both for reviews and for almost-reviews: one word replaced by one that is near in meaning, or left out."""
    rng = np.random.default_rng(3)
    sample = grammar.sample(20, seed=5)
    texts = [text.split() for text in sample.texts]
    pool = [word for text in texts for word in text]
    spoilt = []
    for text in texts:
        where = int(rng.integers(len(text)))
        spoilt.append([*text[:where], pool[int(rng.integers(len(pool)))], *text[where + 1 :]])
        spoilt.append([*text[:where], *text[where + 1 :]])
    # One word for another that can stand beside it somewhere: these often remain reviews.
    legal = grammar.legal_tokens(sample.ids[:, :5])
    for text, tokens in zip(texts, legal, strict=True):
        spoilt.append([*text[:5], grammar.vocab.tokens[int(rng.choice(np.flatnonzero(tokens)))], *text[6:]])
    verdicts = []
    for text in texts + spoilt:
        by_kind = np.array([read_slowly(expression, text) for expression in expressions])
        expected = by_kind.mean()  # kinds and sentiments are equally likely
        ids = np.array(
            [[*grammar.vocab.encode(" ".join(word for word in text if word != EOS)), *grammar.vocab.eos_ids]]
        )
        assert grammar.grammatical(ids)[0] == (expected > 0), text
        if expected > 0:
            assert grammar.log_probability(ids)[0] == pytest.approx(np.log(expected), abs=1e-7), text
        else:
            assert np.isneginf(grammar.log_probability(ids)[0])
        verdicts.append(expected > 0)
    assert all(verdicts[:20])
    assert 3 <= sum(verdicts[20:]) < 40


def test_legal_tokens(grammar, reviews):
    ids = reviews.ids[:300]
    for t in range(ids.shape[1]):
        legal = grammar.legal_tokens(ids[:, :t])
        assert legal.shape == (300, len(grammar.vocab))
        going = np.flatnonzero(ids[:, t] != len(grammar.vocab))
        assert legal[going, ids[going, t]].all()
        assert not legal[np.setdiff1d(np.arange(300), going)].any()
    nonsense = np.array([grammar.vocab.encode("film film")])
    assert not grammar.legal_tokens(nonsense).any()
    after = grammar.legal_tokens(np.array([grammar.vocab.encode("this film was very")]))[0]
    allowed = {grammar.vocab.tokens[i] for i in np.flatnonzero(after)}
    assert {"good", "long", "bad"} <= allowed
    assert not {"delicious", "superb", "film", "and", "."} & allowed


# ------------------------------------------------------------------------------------------------- sampling


def test_same_seed_same_reviews(grammar):
    whole = grammar.sample(300, seed=7)
    assert whole.texts == grammar.sample(300, seed=7).texts
    assert whole.texts != grammar.sample(300, seed=8).texts
    pieces = grammar.sample(120, seed=7).texts + grammar.sample(180, seed=7, first=120).texts
    assert pieces == whole.texts
    other = Grammar()  # built again: the same language, the same numbers
    assert other.sample(300, seed=7).texts == whole.texts
    assert len(set(grammar.sample(3_000, seed=7).texts)) > 2_990


def test_kinds_and_sentiments(grammar, reviews):
    for kind in KINDS:
        assert (reviews.kinds == kind).mean() == pytest.approx(1 / len(KINDS), abs=0.015)
    for sentiment in SENTIMENTS:
        assert (reviews.sentiments == sentiment).mean() == pytest.approx(1 / 3, abs=0.02)
    chosen = grammar.sample(500, kinds=("film", "book"), sentiments="negative")
    assert set(chosen.kinds) == {"film", "book"}
    assert set(chosen.sentiments) == {"negative"}
    things = set(" ".join(kind.things for kind in ALL_KINDS if kind.name in ("film", "book")).split())
    for text, length in zip(chosen.texts, chosen.prompt_lengths.tolist(), strict=True):
        prompt = text.split()[:length]
        assert prompt[-1] in things
        assert not things & set(prompt[:-1])


def test_unknown_names(grammar):
    with pytest.raises(ValueError, match=r"Unknown kind 'films'\. Did you mean 'film'"):
        grammar.sample(1, kinds=["films"])
    with pytest.raises(ValueError, match=r"Unknown sentiment 'postive'\. Did you mean 'positive'"):
        grammar.sample(1, sentiments=["postive"])
    with pytest.raises(ValueError, match="At least one kind is needed"):
        grammar.prompts([])


def test_log_probability_is_that_of_the_samples(grammar, reviews):
    """Cross-entropy is least at the right probabilities: another corpus gives the same, a wrong source more."""
    logs = grammar.log_probability(reviews.ids)
    other = grammar.log_probability(grammar.sample(20_000, seed=2).ids)
    assert logs.mean() == pytest.approx(other.mean(), abs=5 * logs.std() * (2 / 20_000) ** 0.5)
    per_token = -logs.sum() / reviews.lengths.sum()
    assert 1.35 < per_token < 1.5  # nats


def test_demonstrations(grammar):
    rows = grammar.demonstrations(400, seed=2)
    assert len(rows) == 400
    assert {row["kind"] for row in rows} == set(TRAIN_KINDS)
    assert {row["sentiment"] for row in rows} == {"positive", "neutral"}
    prompts = set(grammar.vocab.decode_rows(grammar.prompts(TRAIN_KINDS).ids))
    for row in rows:
        assert grammar.is_grammatical(row["completion"], prompt=row["prompt"])
        assert row["prompt"] in prompts
        assert len(row["completion"].split()) < grammar.max_completion_length  # EOS fits
    assert rows == grammar.demonstrations(400, seed=2)
    assert {row["kind"] for row in grammar.demonstrations(100, kinds=TEST_KINDS)} == set(TEST_KINDS)


def test_prompts(grammar, reviews):
    prompts = grammar.prompts()
    assert prompts.ids.shape == (len(prompts.probability), grammar.max_prompt_length)
    assert len(np.unique(prompts.ids, axis=0)) == len(prompts.ids) > 10_000
    assert prompts.probability.sum() == pytest.approx(1.0)
    # Exactly the beginnings of reviews, as often as reviews begin like that.
    texts = grammar.vocab.decode_rows(prompts.ids)
    share = dict(zip(texts, prompts.probability.tolist(), strict=True))
    begun = [
        " ".join(text.split()[:length])
        for text, length in zip(reviews.texts, reviews.prompt_lengths.tolist(), strict=True)
    ]
    seen, counts = np.unique(begun, return_counts=True)
    expected = len(reviews) * np.array([share[text] for text in seen.tolist()])
    frequent = expected > 20
    assert frequent.sum() > 50
    assert (np.abs(counts - expected)[frequent] < 5 * np.sqrt(expected[frequent])).all()


@pytest.fixture(scope="module")
def page():
    return (Path(__file__).parents[3] / "docs" / "tiny_reviews.md").read_text(encoding="utf-8")


def test_examples_of_the_docs(grammar, page):
    lines = re.findall(r"^    (\S.*?)  +(\S.*)$", page, flags=re.MULTILINE)[1:]
    assert len(lines) == 5
    for prompt, completion in lines:
        assert grammar.is_grammatical(completion, prompt=prompt), (prompt, completion)
        assert grammar.legal_tokens(np.array([grammar.vocab.encode(prompt)])).any()


def test_figures_of_the_docs(grammar, page):
    automaton = grammar.automaton
    train, held_out = (len(grammar.prompts(kinds).ids) for kinds in (TRAIN_KINDS, TEST_KINDS))
    valences = f"{len(words.POSITIVE)} that VADER finds positive, {len(words.NEGATIVE)} negative"
    assert f"| words | {len(grammar.vocab) - 1}, and EOS: {valences}" in page
    assert f"| {train:,} to train on, {held_out:,} of held-out kinds" in page
    assert f"({len(automaton.next_state):,} states, {len(automaton.word):,} transitions)" in page
    assert f"at most {grammar.max_prompt_length} tokens" in page
    assert f"fits into the {grammar.max_completion_length} tokens" in page


def test_entropy_of_the_docs(grammar, page):
    """Of 100,000 reviews; the page's last digits stand for more."""
    found = re.search(r"Entropy: ([\d.]+) nats a review, ([\d.]+) a token.*?at least ([\d.]+)\.\n", page, re.DOTALL)
    assert found
    a_review, a_token, perplexity = map(float, found.groups())
    sample = grammar.sample(100_000, seed=11)
    nats = -grammar.log_probability(sample.ids)
    assert nats.mean() == pytest.approx(a_review, abs=0.05 + 4 * nats.std() / len(nats) ** 0.5)
    assert nats.sum() / sample.lengths.sum() == pytest.approx(a_token, abs=0.003)
    assert perplexity == pytest.approx(np.exp(a_token), abs=0.01)


def test_shuffled_words(grammar, reviews):
    """The completion's words in another order are no review: none of these."""
    rng = np.random.default_rng(0)
    ids = reviews.ids.copy()
    for row, begin, end in zip(ids, reviews.prompt_lengths.tolist(), (reviews.lengths - 1).tolist(), strict=True):
        row[begin:end] = rng.permutation(row[begin:end])
    changed = (ids != reviews.ids).any(axis=1)
    assert changed.sum() > 10_000
    assert not grammar.grammatical(ids[changed]).any()
