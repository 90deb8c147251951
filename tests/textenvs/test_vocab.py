"""Ids to text and back."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from textenvs import Vocab
from textenvs.vocab import ByteVocab


def test_characters():
    vocab = Vocab("abc")
    assert len(vocab) == 3
    assert vocab.separator == ""
    assert vocab.eos_ids == ()
    assert vocab.encode("cab") == [2, 0, 1]
    assert vocab.decode([2, 0, 1]) == "cab"
    assert vocab.encode("") == []


def test_words():
    vocab = Vocab(["the", "cat", "<eos>"], eos="<eos>")
    assert vocab.separator == " "
    assert vocab.eos_ids == (2,)
    assert vocab.encode("cat the cat") == [1, 0, 1]
    assert vocab.encode("") == []
    assert vocab.decode([1, 0, 2]) == "cat the"


def test_a_separator_of_ones_own():
    vocab = Vocab(["a", "b"], separator="-")
    assert vocab.encode("a-b-b") == [0, 1, 1]
    assert vocab.decode([0, 1]) == "a-b"


def test_eos_beside_characters_needs_no_separator():
    vocab = Vocab.symbols(3, eos=True)
    assert vocab.tokens == ("0", "1", "2", "<eos>")
    assert vocab.separator == ""
    assert vocab.decode_rows(np.array([[0, 1, 3, 4], [3, 4, 4, 4], [2, 2, 2, 2]])) == ["01", "", "2222"]


def test_symbols():
    assert "".join(Vocab.symbols(12).tokens) == "0123456789ab"
    assert Vocab.symbols(62).tokens[-1] == "Z"
    assert Vocab.symbols(63).tokens[:2] == ("w0", "w1")
    assert len(Vocab.symbols(63, eos=True)) == 64


def test_padding_and_eos_have_no_text():
    for vocab in (Vocab("ab"), Vocab(["aa", "b"])):
        assert vocab.decode([2, -1, 0, 7]) == vocab.tokens[0]
        assert vocab.decode_rows(np.array([[2, -1, 0, 7], [-2, -3, 2, 2]])) == [vocab.tokens[0], ""]


def test_decoding_no_columns_and_no_rows():
    for vocab in (Vocab("ab"), Vocab(["aa", "b"])):
        assert vocab.decode_rows(np.zeros((2, 0), dtype=np.int64)) == ["", ""]
        assert vocab.decode_rows(np.zeros((0, 3), dtype=np.int64)) == []


def test_the_null_character_is_a_token_like_others():
    vocab = Vocab("a\0")
    assert vocab.decode_rows(np.array([[1, 0, 1, 2]])) == ["\0a\0"]


@given(
    tokens=st.lists(
        st.text(min_size=1, max_size=3).filter(lambda t: " " not in t), min_size=1, max_size=9, unique=True
    ),
    with_eos=st.booleans(),
    data=st.data(),
)
def test_decoding_many_rows_equals_decoding_each_and_encodes_back(tokens, with_eos, data):
    vocab = Vocab(tokens, eos=tokens[-1] if with_eos else None)
    ids = st.integers(0, len(vocab))  # padding included
    rows = data.draw(st.lists(st.lists(ids, min_size=4, max_size=4), min_size=1, max_size=5))
    texts = vocab.decode_rows(np.array(rows))
    assert texts == [vocab.decode(row) for row in rows]
    for row, text in zip(rows, texts, strict=True):
        assert vocab.encode(text) == [i for i in row if i < len(vocab) and i not in vocab.eos_ids]


@pytest.mark.parametrize("text", ["0x1", "<eos>"])
def test_unknown_pieces(text):
    with pytest.raises(ValueError, match="is not a token"):
        Vocab.symbols(3, eos=True).encode(text)
    with pytest.raises(ValueError, match="is not a token"):
        Vocab(["ab", "<eos>"], eos="<eos>").encode(text)


def test_a_double_separator_is_an_unknown_piece():
    with pytest.raises(ValueError, match=r"'' \(piece 1"):
        Vocab(["ab", "c"]).encode("ab  c")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokens": []}, "at least one token"),
        ({"tokens": ["a", "b", "a"]}, r"distinct; repeated: \['a'\]"),
        ({"tokens": ["a", ""]}, "Token 1 is the empty string"),
        ({"tokens": ["a"], "eos": "b"}, "eos='b' is not one of the tokens"),
        ({"tokens": ["a b", "c"]}, "contain the separator"),
        ({"tokens": ["ab", "c"], "separator": ""}, "longer than one character"),
    ],
)
def test_bad_vocabularies(arguments, message):
    with pytest.raises(ValueError, match=message):
        Vocab(**arguments)


@pytest.mark.parametrize(
    ("tokens", "place"), [([1, 2], "token 0 is 1, a int"), (["a", b"b"], "token 1 is b'b', a bytes")]
)
def test_tokens_that_are_no_strings(tokens, place):
    with pytest.raises(TypeError, match=f"Tokens are strings; {place}"):
        Vocab(tokens)


@pytest.mark.timeout(20)
def test_a_repeated_token_among_very_many_is_found_at_once():
    with pytest.raises(ValueError, match=r"distinct; repeated: \['w0', 'w1', 'w10', 'w100', 'w1000'\]"):
        Vocab([f"w{i}" for i in range(50_257)] * 2)


def test_equality_and_copies():
    vocab = Vocab("ab")
    assert vocab == Vocab(["a", "b"])
    assert hash(vocab) == hash(Vocab(["a", "b"]))
    assert vocab != Vocab("ba")
    assert vocab != Vocab("ab", eos="b")
    assert vocab != "ab"
    for same in (copy.deepcopy(vocab), pickle.loads(pickle.dumps(vocab))):
        assert same == vocab
        assert same.decode_rows(np.array([[0, 1]])) == ["ab"]
    assert repr(Vocab.symbols(9)) == "Vocab(9 tokens: '0', '1', '2', '3', …; eos=None)"


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
WORDS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters=" "), min_size=1).filter(
        lambda word: word != "<eos>"
    ),
    max_size=6,
)


@given(texts=st.lists(TEXTS, min_size=1, max_size=4))
def test_every_text_comes_back_from_its_characters_and_bytes(texts):
    vocabs = [ByteVocab()]
    if any(texts):
        vocabs.append(Vocab.characters(texts))
    for vocab in vocabs:
        for text in texts:
            ids = vocab.encode(text)
            assert all(0 <= i < len(vocab) - 1 for i in ids)  # EOS is last
            assert vocab.decode(ids) == text
            assert vocab.encode(vocab.decode([len(vocab), *ids, *vocab.eos_ids])) == ids
            assert vocab.decode_rows(np.array([[*ids, len(vocab)]])) == [text]


@given(texts=st.lists(WORDS.map(" ".join), min_size=1, max_size=4).filter(any))
def test_every_text_comes_back_from_its_words(texts):
    vocab = Vocab.words(texts)
    assert vocab.eos_ids == (len(vocab) - 1,)
    for text in texts:
        assert vocab.decode(vocab.encode(text)) == text
    rows = np.arange(2 * len(vocab)).reshape(2, -1) % len(vocab)
    for text, row in zip(vocab.decode_rows(rows), rows.tolist(), strict=True):
        assert vocab.encode(text) == [i for i in row if i not in vocab.eos_ids]


@given(ids=st.lists(st.integers(-1, 258), max_size=8))
def test_any_bytes_decode_to_some_text(ids):
    vocab = ByteVocab()
    text = vocab.decode(ids)
    assert vocab.decode_rows(np.array([ids], dtype=np.int64)) == [text]
    assert vocab.decode(vocab.encode(text)) == text
    if "\ufffd" not in text:
        assert vocab.encode(text) == [i for i in ids if 0 <= i < 256]


def test_bytes():
    vocab = ByteVocab()
    assert (len(vocab), vocab.eos_ids, vocab.tokens[10], vocab.tokens[65]) == (257, (256,), "<0x0A>", "A")
    assert vocab.encode("né") == [110, 195, 169]
    assert vocab.decode([110, 195, 256]) == "n\ufffd"  # half a character
    assert vocab == ByteVocab()
    assert vocab != Vocab.symbols(257)
    assert pickle.loads(pickle.dumps(vocab)).decode([72, 105]) == "Hi"
    with pytest.raises(ValueError, match="surrogates not allowed"):
        vocab.encode("\ud800")


def test_characters_and_words_of_texts():
    assert Vocab.characters(["ba", "cab", ""]).tokens == ("a", "b", "c", "<eos>")
    assert Vocab.characters(["ba"], eos=None).tokens == ("a", "b")
    words = Vocab.words(["b a", "a", ""])
    assert (words.tokens, words.separator) == (("a", "b", "<eos>"), " ")
    for text in ("a  b", " a", "a "):
        with pytest.raises(ValueError, match="begins or ends with a space, or has two in a row"):
            Vocab.words([text])
    with pytest.raises(ValueError, match="'<eos>' occurs in the texts"):
        Vocab.words(["a <eos>"])
    with pytest.raises(ValueError, match="'a' occurs in the texts"):
        Vocab.characters(["a"], eos="a")
    for empty in ([], [""]):
        with pytest.raises(ValueError, match="at least one token"):
            Vocab.words(empty, eos=None)
