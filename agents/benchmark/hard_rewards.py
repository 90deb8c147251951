"""Judges that no sum over tokens explains, for environments of symbols: where return decomposition may break.

They are given as ``reward="agents.benchmark.hard_rewards:sacrifice"``.
"""

from __future__ import annotations


def sacrifice(completions: list[str]) -> list[float]:
    """After a 0 the share of ones among the other tokens, else 0.2 and a tenth of the share of twos: opening with 0
    pays only once the rest is right."""
    scores = []
    for text in completions:
        first, rest = text[:1], text[1:]
        share = rest.count("1" if first == "0" else "2") / max(len(rest), 1)
        scores.append(share if first == "0" else 0.2 + 0.1 * share)
    return scores
