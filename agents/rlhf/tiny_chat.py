"""A small judge and a small critic for TinyReviews: chat models that know nothing but its reviews and a constitution.

A large model knows from its reading what an insult is; a small one learns it here, from reviews with faults beside the
same without (:mod:`textenvs.tiny_reviews.faults`). The critic learns conversations of a bad answer, its critique and
its revision; the judge is the critic, trained further to say which of two answers has less of a fault.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from agents.lm.ai_judge import OPTIONS, AIJudge
from agents.lm.chat import ChatModel
from agents.lm.constitution import Constitution
from agents.lm.critique import conversation
from agents.lm.models import new_gpt2
from agents.lm.sft import Corpus, SFTConfig, train_on_texts
from textenvs.tiny_reviews import KINDS, load_grammar
from textenvs.tiny_reviews.faults import Review, count_faults, find_faults, kind_of, make_reviews, put_fault

FAULT_OF = {"polite": "rude", "true": "false", "brief": "rambling"}
"""The fault that each principle of the constitution is against."""
CRITIQUES = {"rude": "insults .", "false": "cannot be part of a", "rambling": "comes again ."}
NOTHING = "nothing ."
TEMPLATE = (
    "{% for message in messages %}{{ '<' + message['role'] + '> ' + message['content'] + ' <end> ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant> ' }}{% endif %}"
)
POSITIONS = 160
"""Tokens that a chat has at most."""

OnProgress = Callable[[int, int, float], Any]


def chat_tokenizer(constitution: Constitution) -> Any:
    """A tokenizer of the words of TinyReviews, of a constitution and of critiques, with a chat template."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from agents.lm.ai_judge import QUESTION

    special = ["<end>", "<user>", "<assistant>"]
    texts = [constitution.task.replace("{prompt}", " "), NOTHING, *CRITIQUES.values()]
    texts.append(QUESTION.replace("{request}", "").replace("{first}", "").replace("{second}", ""))
    texts += [text for principle in constitution.principles for text in vars(principle).values()]
    split = pre_tokenizers.Split(Regex(r"<\w+>|[\w-]+|[^\w\s]"), "removed", invert=True)
    found = {word for text in texts for word, _ in split.pre_tokenize_str(text)}
    known = [*load_grammar().vocab.tokens[:-1]]
    words = [*special, *known, *sorted(found - set(known) - set(special))]
    level = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}))
    level.pre_tokenizer = split
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=level, eos_token="<end>", additional_special_tokens=["<user>", "<assistant>"]
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def write_critique(fault: str, prompt: str, completion: str) -> str:
    """What a critic who knows would say about one fault: ``"stupid and lazy insults ."``"""
    found = list(dict.fromkeys(find_faults(prompt, completion)[fault]))[:3]
    if not found:
        return NOTHING
    thing = f" {kind_of_thing(prompt)} ." if fault == "false" else ""
    return f"{' and '.join(found)} {CRITIQUES[fault]}{thing}"


def kind_of_thing(prompt: str) -> str:
    """The word of a prompt that says what it is about."""
    return next(word for word in reversed(prompt.split()) if kind_of(word) is not None)


# -- what they learn from ----------------------------------------------------------------------------------------------


def critic_corpus(chat_tokenizer: Any, constitution: Constitution, reviews: Sequence[Review], seed: int) -> Corpus:
    """Conversations of an answer, its critique and its revision, under a principle drawn for each.

    Mostly the answer has the fault that the principle is against. The revision mends that and nothing else.
    """
    rng, chats, prompts = np.random.default_rng(seed), [], []
    names = [principle.name for principle in constitution.principles]
    for review in reviews:
        name = names[int(rng.integers(len(names)))]
        fault = FAULT_OF[name]
        others = [each for each in review.given if each != fault]
        # The same random numbers put the other faults into both, so that the revision keeps them.
        mended = _spoil(review, others, np.random.default_rng(rng.integers(2**32)))
        answer = mended
        if rng.random() < 0.85 and len(mended.split()) <= 18:
            answer = put_fault(fault, review.prompt, mended, rng)
        said = (answer, write_critique(fault, review.prompt, answer), mended)
        chats.append(conversation(constitution, review.prompt, name, *said))
        prompts.append(1)
    return _encode(chat_tokenizer, chats, [[chat[0]] for chat in chats])


def _spoil(review: Review, faults: Iterable[str], rng: np.random.Generator) -> str:
    text = review.clean
    for fault in faults:
        if len(text.split()) <= 18:
            text = put_fault(fault, review.prompt, text, rng)
    return text


@dataclass(frozen=True)
class Pair:
    """Two answers to a prompt, and a principle."""

    prompt: str
    x: str
    y: str
    principle: str
    difference: int
    """How much better x is under it."""


def fault_pair(prompt: str, x: str, y: str, principle: str) -> Pair:
    """A pair of which the better one is that with less of the fault that the principle is against."""
    fault = FAULT_OF[principle]
    return Pair(prompt, x, y, principle, count_faults(prompt, y).of(fault) - count_faults(prompt, x).of(fault))


def make_pairs(constitution: Constitution, count: int, seed: int, kinds: Sequence[str] = KINDS) -> list[Pair]:
    """Pairs of answers to a prompt by different writers, or a bad one and its better form, by turns."""
    rng = np.random.default_rng((seed, 1))
    names = [principle.name for principle in constitution.principles]
    by_kind: dict[str, list[Review]] = {}
    for review in make_reviews(2 * count, seed=seed, share=0.4, kinds=kinds):
        by_kind.setdefault(str(kind_of(review.prompt)), []).append(review)
    reviews = [review for several in by_kind.values() for review in several]
    pairs = []
    for number in rng.permutation(len(reviews))[:count].tolist():
        review = reviews[number]
        if number % 2:
            several = by_kind[str(kind_of(review.prompt))]
            other = several[int(rng.integers(len(several)))].spoilt
        else:
            other = review.clean
        both = [review.spoilt, other]
        if rng.random() < 0.5:
            both.reverse()
        pairs.append(fault_pair(review.prompt, both[0], both[1], names[int(rng.integers(len(names)))]))
    return pairs


def make_glad_pairs(constitution: Constitution, count: int, seed: int) -> list[Pair]:
    """Pairs of reviews without fault, of which the better one is that which its writer meant to be the gladder: what
    the grammar says of a review's sentiment, and no score of a lexicon. One principle, the first."""
    worth = {"positive": 1, "neutral": 0, "negative": -1}
    name = constitution.principles[0].name
    pairs: list[Pair] = []
    waiting: dict[str, dict[str, str]] = {}
    for row in load_grammar().sample(2 * count + len(KINDS), seed=seed).demonstrations():
        first = waiting.pop(row["kind"], None)
        if first is None:
            waiting[row["kind"]] = row
        elif len(pairs) < count:
            difference = worth[first["sentiment"]] - worth[row["sentiment"]]
            pairs.append(Pair(first["prompt"], first["completion"], row["completion"], name, difference))
    return pairs


def judge_corpus(
    judge: AIJudge, pairs: Sequence[Pair], seed: int, first_when_equal: float, whole: bool = False
) -> Corpus:
    """Questions and the right answers; where both answers are equally good, "A" with a given probability.

    Args:
        whole: learn the questions, too, as texts; otherwise the answer alone.
    """
    rng, chats = np.random.default_rng(seed), []
    for pair in pairs:
        principle, difference = judge.constitution[pair.principle], pair.difference
        prefers_x = difference > 0 if difference else rng.random() < first_when_equal
        chat = judge.question(pair.prompt, pair.x, pair.y, principle)
        chats.append([*chat, {"role": "assistant", "content": OPTIONS[0 if prefers_x else 1]}])
    corpus = _encode(judge.chat.tokenizer, chats, [chat[:1] for chat in chats])
    return replace(corpus, prompt_lengths=np.zeros_like(corpus.prompt_lengths)) if whole else corpus


def _encode(tokenizer: Any, chats: list[list[dict[str, str]]], begins: list[list[dict[str, str]]]) -> Corpus:
    """Chats as ids; their beginnings, up to where the first answer begins, are read and not learnt."""
    rows, prompt_lengths = [], []
    for chat, begin in zip(chats, begins, strict=True):
        text = tokenizer.apply_chat_template(chat, tokenize=False)
        head = tokenizer.apply_chat_template(begin, tokenize=False, add_generation_prompt=True)
        rows.append(tokenizer(text, add_special_tokens=False)["input_ids"])
        prompt_lengths.append(len(tokenizer(head, add_special_tokens=False)["input_ids"]))
    ids = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
    return Corpus(ids, np.array([len(row) for row in rows]), np.array(prompt_lengths))


# -- training ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TinyChat:
    """Sizes and training of critic and judge."""

    num_layers: int = 2
    width: int = 96
    num_heads: int = 4
    reviews: int = 16_000
    """Conversations that the critic learns from."""
    pairs: int = 16_000
    """Comparisons that the judge learns from."""
    batch_size: int = 32
    learning_rate: float = 4e-3
    judge_learning_rate: float = 1e-3
    first_when_equal: float = 0.7
    """How often the judge was taught to say A where both answers are equally good: a liking for what stands first, as
    language models have it, which averaging over both orders has to cancel."""


def _new_model(setting: TinyChat, tokenizer: Any, seed: int) -> Any:
    return new_gpt2(
        tokenizer,
        width=setting.width,
        num_layers=setting.num_layers,
        num_heads=setting.num_heads,
        positions=POSITIONS,
        seed=seed,
    )


def train_critic(
    setting: TinyChat, constitution: Constitution, seed: int, on_progress: OnProgress | None = None
) -> tuple[ChatModel, list[float]]:
    """A critic from random weights, and the losses of its training."""
    tokenizer = chat_tokenizer(constitution)
    model = _new_model(setting, tokenizer, seed)
    corpus = critic_corpus(tokenizer, constitution, make_reviews(setting.reviews, seed=seed), seed)
    config = SFTConfig(learning_rate=setting.learning_rate, batch_size=setting.batch_size)
    losses = train_on_texts(model, corpus, config, seed=seed, on_progress=on_progress)
    return ChatModel(model, tokenizer), losses


def train_judge_on_pairs(
    setting: TinyChat, judge: AIJudge, pairs: Sequence[Pair], seed: int, on_progress: OnProgress | None = None
) -> list[float]:
    """Train the judge's chat model in place, a critic or one that has read such questions; losses of its training."""
    corpus = judge_corpus(judge, pairs, seed, setting.first_when_equal)
    config = SFTConfig(learning_rate=setting.judge_learning_rate, batch_size=setting.batch_size)
    return train_on_texts(judge.chat.model, corpus, config, seed=seed, on_progress=on_progress)


def train_glad_judge(
    setting: TinyChat, constitution: Constitution, seed: int, on_progress: OnProgress | None = None
) -> AIJudge:
    """A judge of gladness from random weights: it reads questions with their answers, then learns the answers alone."""
    tokenizer = chat_tokenizer(constitution)
    judge = AIJudge(ChatModel(_new_model(setting, tokenizer, seed), tokenizer), constitution)
    pairs = make_glad_pairs(constitution, setting.pairs, seed)
    corpus = judge_corpus(judge, pairs, seed, setting.first_when_equal, whole=True)
    config = SFTConfig(learning_rate=setting.learning_rate, batch_size=setting.batch_size)
    train_on_texts(judge.chat.model, corpus, config, seed=seed, on_progress=on_progress)
    train_judge_on_pairs(setting, judge, pairs, seed, on_progress)
    return judge
