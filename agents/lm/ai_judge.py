"""An AI judge: a chat model that compares two answers under a principle, so that its preferences are labels.

    judge = AIJudge(ChatModel.from_pretrained("runs/judge"), load_constitution())
    verdicts = judge.compare(["the film"], ["was long ."], ["was stupid ."])
    rankings = judge.label(prompts, answers, seed=0)      # soft labels, for train_reward_model and train_dpo

The label is the probability of "A" against "B" as the next token. Both orders are asked and averaged, so that a liking
for what stands first cancels. Lee et al. 2023, "RLAIF: Scaling Reinforcement Learning from Human Feedback with AI
Feedback", sections 2.1 and 2.2; Bai et al. 2022, "Constitutional AI", section 4.1, draws a principle for each pair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from agents.lm.chat import ChatModel
from agents.lm.constitution import Constitution, Principle
from agents.lm.preferences import Ranking

OPTIONS = ("A", "B")
QUESTION = "{request}\nA : {first}\nB : {second}\n{comparison} Answer A or B ."

OnProgress = Callable[[int, int], Any]


class JudgeError(ValueError):
    """The judge answered neither A nor B; says of which row."""


def average_orders(first: np.ndarray, swapped: np.ndarray) -> np.ndarray:
    """Probability that x is better than y, of both orders: p = (p_xy + 1 − p_yx) / 2.

    Whatever is added to the probability of what stands first cancels exactly, and swapping x and y gives 1 − p.

    Args:
        first: float [N], probability of "A" where x is A and y is B.
        swapped: float [N], probability of "A" where y is A and x is B.
    """
    averaged: np.ndarray = (first + 1.0 - swapped) / 2.0
    return averaged


def position_bias(first: np.ndarray, swapped: np.ndarray) -> float:
    """How much more probably what stands first is preferred than by right: the mean of (p_xy + p_yx) / 2, less ½.

    Args: as for :func:`average_orders`.
    """
    return float((np.asarray(first) + np.asarray(swapped)).mean() / 2.0 - 0.5)


@dataclass(frozen=True)
class Verdicts:
    """N comparisons of x with y.

    Attributes:
        probability: float64 [N], that x is better, both orders averaged.
        first, swapped: float64 [N], probability of "A" against "B" where x is A, and where y is A.
        mass: float64 [N, 2], of "A" and "B" together among all tokens, in both orders.
        likeliest: of each: the likeliest next token in both orders.
        answered: bool [N], whether both orders were answered with A or B; the others have probability NaN.
    """

    probability: np.ndarray
    first: np.ndarray
    swapped: np.ndarray
    mass: np.ndarray
    likeliest: list[tuple[str, str]]
    answered: np.ndarray


class AIJudge:
    """Compares answers by the principles of a constitution.

    Args:
        chat: who answers.
        constitution: the principles, and how the answers were asked for.
        min_mass: the least probability of "A" and "B" together that counts as an answer.
        on_neither: ``"error"``, or ``"skip"``: what it does not answer is left out and flagged.
        name: as annotator of its rankings.
    """

    def __init__(
        self,
        chat: ChatModel,
        constitution: Constitution,
        *,
        min_mass: float = 0.5,
        on_neither: Literal["error", "skip"] = "error",
        name: str = "AI judge",
    ) -> None:
        if not 0 <= min_mass <= 1:
            raise ValueError(f"min_mass is a probability; got {min_mass}.")
        if on_neither not in ("error", "skip"):
            raise ValueError(f"on_neither must be 'error' or 'skip'; got {on_neither!r}.")
        self.chat, self.constitution = chat, constitution
        self.min_mass, self.on_neither, self.name = min_mass, on_neither, name

    def question(self, prompt: str, first: str, second: str, principle: Principle) -> list[dict[str, str]]:
        """The chat that asks which of two answers is better."""
        text = fill(
            QUESTION,
            request=self.constitution.request(prompt),
            first=first,
            second=second,
            comparison=principle.comparison,
        )
        return [{"role": "user", "content": text}]

    def compare(
        self,
        prompts: Sequence[str],
        xs: Sequence[str],
        ys: Sequence[str],
        principles: Sequence[Principle] | None = None,
        on_progress: OnProgress | None = None,
    ) -> Verdicts:
        """Which of two answers to each prompt is better.

        Args:
            prompts, xs, ys: N each.
            principles: of each comparison; default the first one for all.

        Raises:
            JudgeError: it answers neither A nor B, and ``on_neither`` is ``"error"``; names the row.
        """
        principles = [self.constitution.principles[0]] * len(prompts) if principles is None else principles
        rows = list(zip(prompts, xs, ys, principles, strict=True))
        chats = [self.question(prompt, x, y, principle) for prompt, x, y, principle in rows]
        chats += [self.question(prompt, y, x, principle) for prompt, x, y, principle in rows]
        found = self.chat.choices(chats, OPTIONS, on_progress)
        mass = found.probabilities.sum(1).reshape(2, len(rows)).T
        answered = ((mass >= self.min_mass) & (mass > 0)).all(1)
        likeliest = [(found.likeliest[i], found.likeliest[len(rows) + i]) for i in range(len(rows))]
        if not answered.all() and self.on_neither == "error":
            row = int(np.argmin(answered))
            order = int(np.argmin(mass[row]))
            raise JudgeError(
                f"Row {row} (principle {rows[row][3].name!r}, {rows[row][0]!r:.60}), "
                f"{('first', 'swapped')[order]} order: the judge answers neither A nor B: their probability together "
                f"is {mass[row, order]:.2g}, below min_mass={self.min_mass:g}, and its likeliest answer is "
                f"{likeliest[row][order]!r}. Ask more plainly, take another judge, or leave such rows out with "
                f"on_neither='skip'."
            )
        with np.errstate(invalid="ignore", divide="ignore"):
            of_a = (found.probabilities[:, 0] / found.probabilities.sum(1)).reshape(2, len(rows))
        probability = np.where(answered, average_orders(of_a[0], of_a[1]), np.nan)
        return Verdicts(probability, of_a[0], of_a[1], mass, likeliest, answered)

    def label(
        self,
        prompts: Sequence[str],
        answers: Sequence[tuple[str, str]],
        *,
        finished: Sequence[tuple[bool, bool]] | None = None,
        principles: Literal["drawn", "all"] = "drawn",
        seed: int = 0,
        on_progress: OnProgress | None = None,
    ) -> tuple[list[Ranking], list[int]]:
        """Soft labels for pairs of answers.

        Args:
            prompts: N.
            answers: N pairs.
            finished: whether each answer ended by itself; default all.
            principles: ``"drawn"``: one for each pair, at random; ``"all"``: the mean over all of them.
            seed: of the principles.

        Returns:
            Rankings of two with ``probability``, those that were answered, in their order; and the numbers of the rows
            that were left out.

        Raises:
            JudgeError: as for :meth:`compare`.
        """
        known = self.constitution.principles
        if principles == "all":
            asked = [principle for principle in known for _ in prompts]
        else:
            asked = [known[i] for i in np.random.default_rng(seed).integers(len(known), size=len(prompts))]
        times = len(asked) // max(len(prompts), 1)
        xs, ys = [pair[0] for pair in answers] * times, [pair[1] for pair in answers] * times
        verdicts = self.compare(list(prompts) * times, xs, ys, asked, on_progress)
        probability = verdicts.probability.reshape(times, len(prompts)).mean(0) if len(prompts) else np.zeros(0)
        rankings, left_out = [], []
        for row, (prompt, pair, p) in enumerate(zip(prompts, answers, probability.tolist(), strict=True)):
            if np.isnan(p):
                left_out.append(row)
                continue
            ends = None if finished is None or all(finished[row]) else tuple(finished[row])
            rankings.append(soft_ranking(prompt, pair, p, finished=ends, annotator=self.name))
        return rankings, left_out


def soft_ranking(prompt: str, answers: tuple[str, str], probability: float, **others: Any) -> Ranking:
    """A ranking of two answers from the probability that the first is better; exactly ½ is a tie."""
    ranks = (1, 1) if probability == 0.5 else (1, 2) if probability > 0.5 else (2, 1)
    return Ranking(prompt, answers, ranks, probability=max(probability, 1.0 - probability), **others)


def fill(template: str, **parts: str) -> str:
    """A template with its parts in their places; braces in the parts are left alone."""
    pieces = template
    for name in parts:
        pieces = pieces.replace("{" + name + "}", f"\0{name}\0")
    for name, text in parts.items():
        pieces = pieces.replace(f"\0{name}\0", text)
    return pieces
