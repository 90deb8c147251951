"""Chat models: replies and probabilities of answers equal what plain transformers computes, one chat at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import transformers

from agents.lm.chat import ChatModel

WORDS = ["<eos>", "<unk>", "<user>", "<assistant>", "A", "B", "the", "film", "was", "good", "bad", "which", "?"]
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    "<{{ m['role'] }}> {{ m['content'] }} <eos> {% endfor %}{% if add_generation_prompt %}<assistant> {% endif %}"
)


def make_tokenizer(words: list[str] = WORDS, template: str | None = TEMPLATE) -> Any:
    level = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    level.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=level, eos_token="<eos>", unk_token="<unk>")
    tokenizer.chat_template = template
    return tokenizer


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


CHATS = [ask("which ?"), ask("the film was good which ?"), ask("the film"), ask("the bad film was the good film ?")]


@pytest.fixture(params=["gpt2", "llama", "neox"])
def chat(request: pytest.FixtureRequest, make_model: Callable[..., Any]) -> ChatModel:
    return ChatModel(make_model(request.param, vocab_size=len(WORDS) + 3), make_tokenizer())


def test_probabilities_of_answers_are_those_of_each_chat_by_itself(chat: ChatModel) -> None:
    found = chat.choices(CHATS, ("A", "B"))
    assert found.probabilities.shape == (4, 2)
    for row, messages in enumerate(CHATS):
        ids = chat.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        with torch.no_grad():
            logits = chat.model(torch.tensor([ids])).logits[
                0, -1, : len(WORDS)
            ]  # embeddings without a word are left out
        expected = logits.double().softmax(0)
        np.testing.assert_allclose(found.probabilities[row], expected[[4, 5]], atol=1e-6)
        assert found.likeliest[row] == WORDS[int(expected.argmax())]


def test_an_answer_with_a_space_before_it_counts_too(make_model: Callable[..., Any]) -> None:
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({"<eos>": 0, "A": 1, " A": 2, "B": 3, " ": 4, "x": 5}, "x")
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(" ?[A-Z]"), "isolated")
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", unk_token="x")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    chat = ChatModel(make_model("gpt2", vocab_size=6), tokenizer)
    assert chat.option_ids("A") == [1, 2]
    assert chat.option_ids("B") == [3]
    with torch.no_grad():
        expected = chat.model(torch.tensor([[1, 3]])).logits[0, -1].double().softmax(0)
    found = chat.choices([ask("AB")], ("A", "B")).probabilities[0]
    np.testing.assert_allclose(found, [expected[1] + expected[2], expected[3]], atol=1e-6)


def test_greedy_replies_are_those_of_each_chat_by_itself(chat: ChatModel) -> None:
    texts = chat.replies(CHATS, max_new_tokens=5, temperature=0.0)
    for text, messages in zip(texts, CHATS, strict=True):
        ids = chat.encode(messages)
        written: list[int] = []
        while len(written) < 5:
            with torch.no_grad():
                token = int(chat.model(torch.tensor([ids + written])).logits[0, -1].argmax())
            if token == 0:
                break
            written.append(token)
        expected = chat.tokenizer.decode([i for i in written if i not in chat.tokenizer.all_special_ids])
        assert text == expected.strip()


def test_sampled_replies_depend_on_the_seed_and_leave_the_random_stream_alone(chat: ChatModel) -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = chat.replies(CHATS, max_new_tokens=6, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert chat.replies(CHATS, max_new_tokens=6, seed=3) == first
    assert chat.replies(CHATS, max_new_tokens=6, seed=4) != first


def test_a_folder_is_read(chat: ChatModel, tmp_path: Path) -> None:
    chat.model.save_pretrained(tmp_path)
    chat.tokenizer.save_pretrained(tmp_path)
    again = ChatModel.from_pretrained(tmp_path)
    same = again.choices(CHATS, ("A",)).probabilities
    np.testing.assert_allclose(same, chat.choices(CHATS, ("A",)).probabilities, atol=1e-6)


def test_progress_is_told(chat: ChatModel) -> None:
    told: list[tuple[int, int]] = []
    chat.choices(CHATS, ("A", "B"), lambda done, of: told.append((done, of)))
    chat.replies(CHATS, max_new_tokens=2, on_progress=lambda done, of: told.append((done, of)))
    assert told == [(4, 4), (4, 4)]


def test_what_cannot_be_asked(make_model: Callable[..., Any]) -> None:
    model = make_model("gpt2", vocab_size=len(WORDS))
    with pytest.raises(ValueError, match="has no chat template"):
        ChatModel(model, make_tokenizer(template=None))
    with pytest.raises(ValueError, match="do not belong together"):
        ChatModel(make_model("gpt2", vocab_size=5), make_tokenizer())
    with pytest.raises(TypeError, match="must be a causal language model"):
        ChatModel(torch.nn.Linear(2, 2), make_tokenizer())
    chat = ChatModel(model, make_tokenizer())
    with pytest.raises(ValueError, match="no single token for the answer 'maybe'"):
        chat.choices(CHATS, ("maybe",))
    with pytest.raises(ValueError, match=r"refuses .*no system here"):
        chat.replies([[{"role": "system", "content": "the film"}]], max_new_tokens=2)
    with pytest.raises(ValueError, match="max_new_tokens must be at least 1"):
        chat.replies(CHATS, max_new_tokens=0)
    long = ask(" ".join(["film"] * 28))  # 31 tokens of 32
    assert chat.choices([long], ("A",)).probabilities.shape == (1, 1)
    with pytest.raises(ValueError, match="Chat 1 has 31 tokens and the answer up to 2; the model reads at most 32"):
        chat.replies([CHATS[0], long], max_new_tokens=2)
