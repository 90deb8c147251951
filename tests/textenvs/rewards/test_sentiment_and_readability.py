"""Rewards from kept libraries: VADER and textstat."""

from __future__ import annotations

import socket

import numpy as np
import pytest

from textenvs import Episodes
from textenvs.checking import check_reward
from textenvs.rewards import make_reward

TEXTS = Episodes.from_texts(
    ["How was it?", "Not", "Terrible!", ""],
    ["It was great!", "good", "", "A table."],
    separator=" ",
)


def test_sentiment_of_the_completion() -> None:
    np.testing.assert_allclose(make_reward("lexicon_sentiment").score(TEXTS), [0.6588, 0.4404, 0, 0], atol=5e-5)


def test_sentiment_of_prompt_and_completion() -> None:
    scores = make_reward("lexicon_sentiment:text").score(TEXTS)
    np.testing.assert_allclose(scores, [0.6588, -0.3412, -0.5255, 0], atol=5e-5)


def test_readability_is_flesch_reading_ease_scaled_and_clipped() -> None:
    texts = [
        "The cat sat on the mat.",  # 6 words, 6 syllables: 116, clipped
        "The happy cat sat on the mat under the table.",  # 10 words, 13 syllables
        "Considerable difficulties characterise institutional responsibilities.",
        "",
        "...",
    ]
    scores = make_reward("readability").score(Episodes.from_texts([""] * 5, texts))
    np.testing.assert_allclose(scores, [1, (206.835 - 10.15 - 84.6 * 1.3) / 100, 0, 0, 0], atol=1e-4)


def test_readability_never_asks_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    reward = make_reward("readability")
    assert reward.score(Episodes.from_texts([""], ["An entirely unread sentence."]))[0] > 0


def test_unknown_source_of_text() -> None:
    with pytest.raises(ValueError, match=r"Unknown of= 'texts'\. Did you mean 'text'"):
        make_reward("lexicon_sentiment:texts")


@pytest.mark.parametrize("spec", ["lexicon_sentiment", "lexicon_sentiment:text", "readability", "readability:text"])
def test_fulfils_the_contract(spec: str) -> None:
    check_reward(spec)
    check_reward(spec, TEXTS)
