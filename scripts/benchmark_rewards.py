"""What the guard and a weighted sum cost on top of the bare rules.

    python scripts/benchmark_rewards.py

Scores 100,000 finished texts of 16 tokens with two array rules: once as two bare calls whose results are added, once as
``reward=[(1.0, "match"), (0.5, "prefix")]`` through the guard (shape, finiteness, range) with components reported. The
two take turns; the ratio of the medians is printed.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import numpy as np
import tyro

from textenvs import Episodes, make_reward
from textenvs.rewards import Judge
from textenvs.tasks import make_task


@dataclass(frozen=True)
class Args:
    """Options."""

    texts: int = 100_000
    tokens: int = 16
    rounds: int = 21


def random_texts(count: int, length: int) -> Episodes:
    """Texts of ``Reverse`` with random symbols."""
    task = make_task("Reverse", length=length, num_symbols=8)
    keys = np.arange(count, dtype=np.uint64)
    prompt_ids, index = task.draw(keys)
    return Episodes(
        prompt_ids=prompt_ids,
        completion_ids=np.random.default_rng(0).integers(0, 8, size=(count, length)),
        lengths=np.full(count, length),
        finish_reason=np.full(count, "length", dtype=object),
        key=keys,
        vocab=task.vocab,
        columns=task.columns(prompt_ids, index),
    )


def main(args: Args) -> None:
    """Measure and print."""
    texts = random_texts(args.texts, args.tokens)
    match, prefix = make_reward("match"), make_reward("prefix")
    judge = Judge(make_reward([(1.0, "match"), (0.5, "prefix")]))

    def bare() -> np.ndarray:
        return np.asarray(match.score(texts) + np.float32(0.5) * prefix.score(texts))

    def guarded() -> np.ndarray:
        return judge(texts).total

    np.testing.assert_allclose(bare(), guarded(), rtol=1e-6)
    seconds: dict[str, list[float]] = {"bare": [], "guarded": []}
    for _ in range(args.rounds):
        for name, function in (("bare", bare), ("guarded", guarded)):
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    print(f"{args.texts:,} texts of {args.tokens} tokens, medians of {args.rounds} rounds")
    print(f"two bare rules, added            {1e3 * medians['bare']:8.2f} ms")
    print(f"guarded weighted sum with parts  {1e3 * medians['guarded']:8.2f} ms")
    print(f"ratio                            {medians['guarded'] / medians['bare']:8.3f}")


if __name__ == "__main__":
    main(tyro.cli(Args))
