"""Hugging Face tokenizers as vocabularies: padding beyond the tokens, EOS a set, text without special tokens."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import textenvs
from textenvs.tokenizers import TokenizerVocab, make_vocab

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

WORDS = ["<unk>", "<s>", "</s>", "the", "film", "was", "good", "bad", "\n"]


def word_tokenizer(**special: str) -> Any:
    """Word level, BOS in front of every text by its template; ids as in WORDS."""
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>")
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Split(" ", "removed")
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", **special)


def byte_tokenizer(**special: Any) -> Any:
    """Byte level as GPT-2's, one special token that is BOS, EOS and padding."""
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(["the film was good, the film was bad"] * 4, trainer)
    end = {"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **{**end, **special})


def test_padding_is_the_id_behind_the_last_token_even_where_the_tokenizer_pads_with_eos() -> None:
    tokenizer = byte_tokenizer()
    vocab = TokenizerVocab(tokenizer)
    assert len(vocab) == len(tokenizer)
    assert vocab.eos_ids == (tokenizer.eos_token_id,) == (tokenizer.pad_token_id,)
    env = textenvs.from_prompts(["the film"], tokenizer, reward=lambda completions: [0.0], max_new_tokens=3)
    assert env.text_spec.pad_id == len(tokenizer) == env.action_space.n
    assert env.text_spec.eos_ids == vocab.eos_ids


def test_text_survives_encoding_and_decoding() -> None:
    vocab = TokenizerVocab(byte_tokenizer())
    for text in ("the film was good", " Ünïcode, newlines\n and  spaces ", "", "日本"):
        assert vocab.decode(vocab.encode(text)) == text
    words = TokenizerVocab(word_tokenizer(bos_token="<s>", eos_token="</s>"))
    assert words.encode("the film was good") == [3, 4, 5, 6]
    assert words.decode([3, 4, 5, 6]) == "the film was good"
    assert words.encode("the book") == [3, 0]


BYTE_LEVEL = TokenizerVocab(byte_tokenizer())


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(lambda text: "<|" not in text))
def test_every_text_comes_back_from_a_byte_level_tokenizer(text: str) -> None:
    ids = BYTE_LEVEL.encode(text)
    assert BYTE_LEVEL.decode([*ids, *BYTE_LEVEL.eos_ids, len(BYTE_LEVEL)]) == text
    assert BYTE_LEVEL.encode(BYTE_LEVEL.decode(ids)) == ids
    assert BYTE_LEVEL.decode_rows(np.array([[len(BYTE_LEVEL), *ids]])) == [text]


def test_prompts_begin_as_the_model_expects_and_never_end() -> None:
    vocab = TokenizerVocab(word_tokenizer(bos_token="<s>", eos_token="</s>"))
    assert vocab.encode_prompt("the film") == [1, 3, 4]  # the template's </s> is taken away
    assert vocab.encode("the film") == [3, 4]
    assert TokenizerVocab(byte_tokenizer()).encode_prompt("<|endoftext|>") == [0]  # as GPT-2 begins from nothing


def test_special_tokens_and_padding_have_no_text() -> None:
    vocab = TokenizerVocab(word_tokenizer(bos_token="<s>", eos_token="</s>"))
    pad = len(vocab)
    assert vocab.decode([pad, 1, 3, 4, 2, pad, -1]) == "the film"
    rows = np.array([[pad, pad, 1, 3], [4, 5, 6, 2], [pad] * 4])
    assert vocab.decode_rows(rows) == ["the", "film was good", ""]
    assert vocab.decode_rows(rows) == [vocab.decode(row) for row in rows.tolist()]
    assert vocab.decode_rows(np.zeros((2, 0), dtype=np.int64)) == ["", ""]


def test_further_eos_ids_end_texts_and_leave_them_when_last() -> None:
    vocab = TokenizerVocab(word_tokenizer(bos_token="<s>", eos_token="</s>"), eos_ids=[8])
    assert vocab.eos_ids == (2, 8)
    assert vocab.decode([3, 8, 4, 8]) == "the \n film"
    env = textenvs.from_prompts(
        ["the"], word_tokenizer(eos_token="</s>"), eos_ids=[8], reward=lambda completions: [1.0], max_new_tokens=5
    )
    env.reset(seed=0)
    assert env.step(4)[2] is False
    _, _, terminated, _, info = env.step(8)
    assert terminated
    assert info["finish_reason"] == "stop"
    assert TokenizerVocab(word_tokenizer(), eos_ids=[8]).eos_ids == (8,)


def test_equal_if_the_same_ids_mean_the_same_and_picklable() -> None:
    vocab = TokenizerVocab(word_tokenizer(eos_token="</s>"))
    assert vocab == TokenizerVocab(word_tokenizer(eos_token="</s>"))
    assert vocab == pickle.loads(pickle.dumps(vocab))
    assert hash(vocab) == hash(pickle.loads(pickle.dumps(vocab)))
    assert vocab != TokenizerVocab(word_tokenizer(eos_token="</s>"), eos_ids=[8])
    assert vocab != TokenizerVocab(byte_tokenizer())
    assert vocab != textenvs.Vocab.symbols(len(vocab))
    assert textenvs.Vocab.symbols(len(vocab)) != vocab


def test_tokenizers_that_do_not_serve_say_why() -> None:
    with pytest.raises(ValueError, match=r"no EOS token.*tokenizer\.eos_token = .*eos_ids="):
        TokenizerVocab(word_tokenizer())
    with pytest.raises(ValueError, match=r"eos_ids: 9 is not a token id.*0 … 8"):
        TokenizerVocab(word_tokenizer(), eos_ids=[9])
    with pytest.raises(TypeError, match="Hugging Face tokenizer or a Vocab; got list"):
        TokenizerVocab(["a", "b"])

    class Slow:
        is_fast = False

        def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
            return []

    with pytest.raises(TypeError, match=r"Slow is a slow tokenizer.*AutoTokenizer"):
        TokenizerVocab(Slow())

    gaps = word_tokenizer(eos_token="</s>")
    gaps.get_vocab = lambda: {"the": 0, "film": 12}
    with pytest.raises(ValueError, match="9 tokens but ids up to 12"):
        TokenizerVocab(gaps)


def test_a_tokenizer_of_ones_own_comes_back_as_it_was_saved_whatever_model_stands_beside_it(tmp_path: Path) -> None:
    tokenizer = word_tokenizer(eos_token="</s>")
    tokenizer.save_pretrained(tmp_path)
    transformers.Qwen2Config().save_pretrained(tmp_path)
    assert make_vocab(tmp_path) == TokenizerVocab(tokenizer)


def test_vocabularies_by_object_and_by_folder(tmp_path: Path) -> None:
    symbols = textenvs.Vocab.symbols(4, eos=True)
    assert make_vocab(symbols) is symbols
    for plain in (symbols, "bytes"):
        with pytest.raises(ValueError, match="eos_ids belong to a Hugging Face tokenizer"):
            make_vocab(plain, eos_ids=[1])
    assert make_vocab("bytes") == textenvs.vocab.ByteVocab()
    assert make_vocab("characters", texts=["ba"]) == textenvs.Vocab(["a", "b", "<eos>"], eos="<eos>")
    with pytest.raises(ValueError, match="'words' takes its tokens from texts"):
        make_vocab("words")
    tokenizer = word_tokenizer(eos_token="</s>")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    assert make_vocab(tmp_path / "tokenizer") == TokenizerVocab(tokenizer)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"Cannot load the tokenizer .*empty.*the folder holds none"):
        make_vocab(str(tmp_path / "empty"))


def test_a_hub_name_without_a_network_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"nobody/nothing.*no local folder, and the hub has none or cannot be reached"):
        make_vocab("nobody/nothing")
