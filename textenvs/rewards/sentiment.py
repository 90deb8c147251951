"""Sentiment by lexicon and rules: VADER."""

from __future__ import annotations

import warnings

import numpy as np

from textenvs.episodes import Episodes
from textenvs.rewards.inputs import READABLE, choice, load_library, readable_texts, version_of
from textenvs.rewards.registry import register_reward


@register_reward("lexicon_sentiment")
class LexiconSentiment:
    """How positive an English text is: VADER's compound score.

    Score: the valences of the words found in the lexicon, adjusted by rules for negation, degree and emphasis, summed
    (s) and squashed to s / √(s² + 15). Range: [−1, 1]; a text without such words scores 0. Words that look neutral have
    valences too (friend, novel, charged), and the sum grows with the length. Hutto and Gilbert 2014, vaderSentiment.

    Args:
        of: ``"completion"``, or ``"text"`` for prompt and completion read as one text.
    """

    low, high = -1.0, 1.0
    deterministic, version, cost = True, "1", "text"

    def __init__(self, of: str = "completion") -> None:
        self.of = choice("lexicon_sentiment", "of", of, READABLE)
        self.version = version_of(of=self.of)
        vader = load_library("vaderSentiment.vaderSentiment", reward="lexicon_sentiment", extra="sentiment")
        with warnings.catch_warnings():
            # vaderSentiment reads its lexicon with codecs.open, which Python 3.14 deprecates.
            warnings.filterwarnings("ignore", message=r"codecs\.open", category=DeprecationWarning)
            self._analyser = vader.SentimentIntensityAnalyzer()

    def score(self, episodes: Episodes) -> np.ndarray:
        texts = readable_texts(episodes, self.of)
        return np.array([self._analyser.polarity_scores(text)["compound"] for text in texts], dtype=np.float32)
