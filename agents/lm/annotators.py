"""Simulated annotators with faults that are known: noise, a liking for long answers, a liking for what stands first.

annotator = Annotator(scale=8.0, length_bias=0.05)
ranks, shown = annotator.rank(gold, lengths, seed=0)      # gold, lengths [N, K]
annotator.best_accuracy(gold, lengths)                    # what a reward model can reach at most
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agents.lm.preferences import checked_gold, rank_order


@dataclass(frozen=True)
class Annotator:
    """Prefers answer i to answer j with P = σ(u_i − u_j), where
    u = scale · gold + length_bias · length − position_bias · place.

    Bradley and Terry 1952, "Rank Analysis of Incomplete Block Designs". Rankings of K answers are draws from
    Plackett-Luce with the worths exp(u). The place of an answer on the page is 1 (first) … K, shuffled for each prompt.
    """

    scale: float
    """How sure it is of the gold score; 0 guesses."""
    length_bias: float = 0.0
    """Per word (or per token, whatever the lengths count); positive likes long answers."""
    position_bias: float = 0.0
    """Per place; positive likes what stands first."""

    def __post_init__(self) -> None:
        for name in ("length_bias", "position_bias"):
            if not np.isfinite(getattr(self, name)):
                raise ValueError(f"{name} must be finite; got {getattr(self, name)}.")

    def rank(self, gold: np.ndarray, lengths: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Look at the answers in shuffled order and rank them.

        Args:
            gold: [N, K] worth of the K answers to each of N prompts.
            lengths: [N, K] of the same answers.
            seed: of places and noise.

        Returns:
            Ranks int64 [N, K], 1 (best) … K, all different; places on the page int64 [N, K].

        Raises:
            ValueError: other shapes, or numbers that are not finite.
        """
        utilities = self._utilities(gold, lengths)
        rng = np.random.default_rng(seed)
        shown = rng.permuted(np.tile(np.arange(1, utilities.shape[1] + 1), (len(utilities), 1)), axis=1)
        noisy = utilities - self.position_bias * shown + rng.gumbel(size=utilities.shape)
        return rank_order(noisy), shown

    def pair_probabilities(self, gold: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """How probably answer i stands before answer j in a ranking, places averaged: float64 [N, K, K].

        Two of K shuffled places are d apart, d = ±1 … ±(K − 1), with probability (K − |d|) / (K (K − 1)).
        """
        utilities = self._utilities(gold, lengths)
        k = utilities.shape[1]
        differences = utilities[:, :, None] - utilities[:, None, :]
        total = np.zeros_like(differences)
        for distance in (d for d in range(1 - k, k) if d):
            share = (k - abs(distance)) / (k * (k - 1))
            total += share * np.exp(-np.logaddexp(0.0, -(differences + self.position_bias * distance)))
        return total

    def best_accuracy(self, gold: np.ndarray, lengths: np.ndarray) -> float:
        """The accuracy of the best possible predictor of its pairs that sees the texts and not the page: the mean of
        max(p, 1 − p). With a length bias, that predictor shares it."""
        probabilities = self.pair_probabilities(gold, lengths)
        first, second = np.triu_indices(probabilities.shape[1], k=1)
        pairs = probabilities[:, first, second]
        return float(np.maximum(pairs, 1.0 - pairs).mean())

    def _utilities(self, gold: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        gold, lengths = checked_gold(gold, self.scale), np.asarray(lengths, dtype=np.float64)
        if lengths.shape != gold.shape:
            raise ValueError(f"lengths must have the shape of gold, {gold.shape}; got {lengths.shape}.")
        return self.scale * gold + self.length_bias * lengths
