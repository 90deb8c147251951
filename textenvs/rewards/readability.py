"""How easy a text is to read: textstat."""

from __future__ import annotations

import numpy as np

from textenvs.episodes import Episodes
from textenvs.rewards.inputs import READABLE, choice, load_library, readable_texts, version_of
from textenvs.rewards.registry import register_reward


@register_reward("readability")
class Readability:
    """Flesch reading ease of an English text, scaled to [0, 1].

    Score: (206.835 − 1.015 · words per sentence − 84.6 · syllables per word) / 100, clipped to [0, 1] (Flesch 1948,
    textstat). Range: [0, 1], higher is easier; a text without words scores 0. Syllables come from hyphenation patterns
    (pyphen), which need no download and miss some (``very`` counts one).

    Args:
        of: ``"completion"``, or ``"text"`` for prompt and completion read as one text.
    """

    low, high = 0.0, 1.0
    deterministic, version, cost = True, "1", "text"

    def __init__(self, of: str = "completion") -> None:
        self.of = choice("readability", "of", of, READABLE)
        self.version = version_of(of=self.of)
        textstat = load_library("textstat.textstat", reward="readability", extra="rewards")
        self._statistics = textstat.textstatistics()
        # For "en_US", textstat downloads a pronouncing dictionary at the first score, and the score depends on whether
        # that worked. Under this spelling it takes pyphen's American English alone.
        self._statistics.set_lang("en-US")

    def score(self, episodes: Episodes) -> np.ndarray:
        texts = readable_texts(episodes, self.of)
        ease = np.array([self._statistics.flesch_reading_ease(text) for text in texts], dtype=np.float32)
        return np.clip(ease / np.float32(100.0), 0.0, 1.0)
