"""Episodes made of texts."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from textenvs import Episodes, Vocab


def test_characters_are_the_tokens_without_a_vocab() -> None:
    episodes = Episodes.from_texts(["ba", ""], ["a", "cab"], {"n": [1, 2]}, separator=" ")
    assert episodes.vocab.tokens == ("a", "b", "c")
    assert episodes.prompt_ids.tolist() == [[1, 0], [3, 3]]
    assert episodes.completion_ids.tolist() == [[0, 3, 3], [2, 0, 1]]
    assert episodes.lengths.tolist() == [1, 3]
    assert episodes.finish_reason.tolist() == ["stop", "stop"]
    assert episodes.texts == ["ba a", "cab"]  # nothing to separate from an empty prompt
    assert (episodes.prompt_ids.dtype, episodes.key.dtype) == (np.int64, np.uint64)


@pytest.mark.parametrize("text", ["", "naïve 🙂\n\ttabs", "nul\0 inside", "\ud800 lone surrogate", "  spaces  "])
def test_every_text_survives(text: str) -> None:
    episodes = Episodes.from_texts([text, "x"], ["y", text])
    assert (episodes.prompts, episodes.completions) == ([text, "x"], ["y", text])
    assert episodes.vocab.decode_rows(episodes.prompt_ids) == [text, "x"]
    assert episodes.vocab.decode_rows(episodes.completion_ids) == ["y", text]
    assert episodes.texts == [text + "y", "x" + text]


def test_a_given_vocab() -> None:
    words = Vocab(["how", "was", "it", "good", "."], separator=" ")
    episodes = Episodes.from_texts(["how was it", ""], ["good", ". ."], {"a_ids": np.zeros((2, 1))}, vocab=words)
    assert episodes.prompt_ids.tolist() == [[0, 1, 2], [5, 5, 5]]
    assert episodes.completion_ids.tolist() == [[3, 5], [4, 4]]
    assert episodes.texts == ["how was it good", ". ."]
    with pytest.raises(ValueError, match="'bad'"):
        Episodes.from_texts([""], ["bad"], vocab=words)


def test_parts_keep_what_was_given() -> None:
    episodes = Episodes.from_texts(["a", "b", "c"], ["x", "y", "z"], {"n": [1, 2, 3]}, separator="/")
    for part in (episodes.take(np.array([2, 0])), pickle.loads(pickle.dumps(episodes)).take(np.array([2, 0]))):
        assert part.texts == ["c/z", "a/x"]
        assert part.column("n") == [3, 1]


def test_texts_of_ids_are_decoded_together() -> None:
    words = Vocab(["a", "b", "<eos>"], eos="<eos>", separator=" ")
    ids = np.array([[3, 0], [3, 3]]), np.array([[1, 2], [2, 3]])
    keys = np.zeros(2, np.uint64)
    episodes = Episodes(*ids, np.array([2, 1]), np.array(["stop"] * 2, object), keys, words)
    assert episodes.texts == ["a b", ""]


def test_keys_depend_on_the_text_alone() -> None:
    episodes = Episodes.from_texts(["a", "b", "a", "ax"], ["x", "x", "x", ""])
    again = Episodes.from_texts(["b", "a"], ["x", "x"])
    assert len(set(episodes.key.tolist())) == 3
    assert again.key.tolist() == episodes.key[[1, 0]].tolist()


def test_no_texts() -> None:
    episodes = Episodes.from_texts([], [])
    assert (len(episodes), episodes.prompts, episodes.texts) == (0, [], [])


def test_unfit_arguments() -> None:
    with pytest.raises(ValueError, match="2 prompts but 1 entries in 'completions'"):
        Episodes.from_texts(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="1 prompts but 2 entries in 'n'"):
        Episodes.from_texts(["a"], ["a"], {"n": [1, 2]})
    with pytest.raises(ValueError, match="'a_ids' holds token ids, which mean nothing without their vocab"):
        Episodes.from_texts(["a"], ["a"], {"a_ids": [[1]]})
    with pytest.raises(TypeError, match=r"completions\[1\] is not a string but None"):
        Episodes.from_texts(["a", "b"], ["a", None])  # type: ignore[list-item]
