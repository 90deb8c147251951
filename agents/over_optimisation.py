"""Over-optimisation of a learnt reward where everything can be computed: proxy and gold along the KL, exactly.

A gold score is known for every text of a small environment; a proxy is a reward model trained on noisy comparisons of
texts that the reference wrote. What best-of-n, the best KL-regularised policies and PPO make of the proxy, and of gold,
is then computed without any sampling. After Gao, Schulman and Hilton 2022, "Scaling Laws for Reward Model
Overoptimization", whose gold was itself a learnt model and whose figures were sampled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np

from agents.exact import next_logprobs
from agents.exam import pretrain, skewed_policy
from agents.exam_methods import regularised_ppo
from agents.lm.models import new_gpt2
from agents.lm.preferences import Ranking, best_accuracy, rank_answers
from agents.lm.reward_model import RewardModel, RewardModelConfig, pair_accuracy, train_reward_model
from agents.networks import TransformerConfig
from agents.policies import TransformerPolicy
from textenvs import Episodes, Vocab
from textenvs.exact import ExactProblem, Point, uniform_policy
from textenvs.tokenizers import word_tokenizer

ENV_ID = "textenvs/HiddenTarget-v0"
"""Texts of one length without prompts or masks; its own reward is replaced."""
ORDERS = (0.6, 1.0, 0.3)
"""Weights of what one token, two and three neighbours contribute to gold."""
CERTAINTY = 1.0
"""Of the annotators: the log-odds of a preference for each standard deviation of gold."""
BATCH = 32
"""Comparisons in a step of a reward model."""
Curve = list[tuple[float, float, float]]
"""(KL in nats, expected proxy, expected gold), the last two in standard deviations under the reference."""


# -- gold --------------------------------------------------------------------------------------------------------------


def landscape(rows: np.ndarray, num_tokens: int, orders: Sequence[float], seed: int) -> np.ndarray:
    """Random scores in which neighbouring tokens (of a ring) matter together: Σ_k w_k Σ_i table_ki(x_i … x_{i+k}).

    Kauffman's NK landscapes (1993, "The Origins of Order"), of several orders at once.

    Args:
        rows: int64 [N, T] tokens.
        num_tokens: V.
        orders: w_k, of 1, 2, … neighbours.
        seed: of the tables, standard normal.

    Returns:
        float64 [N].
    """
    rng, length = np.random.default_rng(seed), rows.shape[1]
    scores = np.zeros(len(rows))
    for neighbours, weight in enumerate(orders, start=1):
        tables = rng.normal(size=(length,) + (num_tokens,) * neighbours)
        for i in range(length):
            scores += weight * tables[i][tuple(rows[:, (i + k) % length] for k in range(neighbours))]
    return scores


def standardise(scores: np.ndarray, logprobs: np.ndarray) -> np.ndarray:
    """Scores float64 [N] with mean 0 and variance 1 under the reference.

    Raises:
        ValueError: all scores are the same.
    """
    chances = np.exp(logprobs)
    centred = scores - chances @ scores
    deviation = float(np.sqrt(chances @ centred**2))
    if not deviation > 0:
        raise ValueError("All texts of the reference score the same: there is no scale to measure with.")
    return np.asarray(centred / deviation)


class ScoreTable:
    """A reward model that looks scores up.

    Args:
        scores: [N], of all texts of T tokens out of V, in the order of their digits.
        num_tokens: V.
        name: in reports.
    """

    deterministic, version, cost = True, "1", "array"

    def __init__(self, scores: np.ndarray, num_tokens: int, name: str) -> None:
        self.scores, self.num_tokens, self.name = scores.astype(np.float32), num_tokens, name
        self.low, self.high = float(self.scores.min()), float(self.scores.max())

    def score(self, episodes: Episodes) -> np.ndarray:
        """Scores float32 [B]."""
        places = self.num_tokens ** np.arange(episodes.completion_ids.shape[1])[::-1]
        return self.scores[episodes.completion_ids @ places]


# -- where it happens --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SceneSettings:
    """An environment, the habits of its reference, and how the reference is pretrained."""

    length: int = 6
    num_tokens: int = 6
    strength: float = 2.0
    """Of the habits; see ``agents.exam.skewed_policy``."""
    texts: int = 8_192
    steps: int = 600
    seed: int = 5
    """Of gold."""


class Scene:
    """All texts with their gold scores, and a pretrained reference.

    Attributes:
        reference: frozen policy π_ref.
        ref_logprobs: float64 [N], of all texts.
        rows: int64 [N, T], the texts.
        gold: float64 [N], standardised under the reference.
    """

    def __init__(self, settings: SceneSettings) -> None:
        self.settings = settings
        size = settings.num_tokens
        spec = self.envs(1, None).unwrapped.text_spec
        self.policy = TransformerPolicy(size, spec.prompt_length, settings.length, TransformerConfig(2, 32, 2), seed=0)
        source = skewed_policy(size, seed=1, strength=settings.strength)
        trees = ExactProblem(self.envs(1, None), uniform_policy(size)).trees
        pretrain(self.policy, trees, source, texts=settings.texts, steps=settings.steps, seed=2)
        self.reference = self.policy.frozen_copy()
        self.ref_logprobs = trees[0].logprobs(next_logprobs(self.reference, spec))
        self.rows = trees[0].rows()[:, : settings.length]
        self.gold = standardise(landscape(self.rows, size, ORDERS, settings.seed), self.ref_logprobs)
        symbols = spec.vocab.tokens
        self.texts = [" ".join(symbols[token] for token in row) for row in self.rows.tolist()]
        self.tokenizer = word_tokenizer(Vocab([*symbols, "<eos>"], eos="<eos>", separator=" "))

    def envs(self, num_envs: int, proxy: np.ndarray | None) -> Any:
        """A vector environment that pays a proxy, float64 [N], and reports gold; None: its own reward."""
        size = self.settings.num_tokens
        reward: Any = None
        if proxy is not None:
            tables = {"proxy": ScoreTable(proxy, size, "proxy"), "gold": ScoreTable(self.gold, size, "gold")}
            reward = {"name": "gold", **tables}
        sizes: dict[str, Any] = {"length": self.settings.length, "num_symbols": size}
        return gym.make_vec(ENV_ID, num_envs, vectorization_mode="vector_entry_point", reward=reward, **sizes)

    def fresh_policy(self) -> TransformerPolicy:
        """A policy that begins as the reference and can be trained."""
        size, length = self.settings.num_tokens, self.settings.length
        twin = TransformerPolicy(size, 0, length, self.policy.trunk.config)
        twin.load_state_dict(self.policy.state_dict())
        return twin

    def problem(self, proxy: np.ndarray) -> ExactProblem:
        """The exact problem that a proxy poses, with gold reported."""
        envs = self.envs(1, proxy)
        return ExactProblem(envs, next_logprobs(self.reference, envs.unwrapped.text_spec))

    def comparisons(self, count: int, seed: int) -> tuple[np.ndarray, list[Ranking]]:
        """Pairs of texts of the reference: their numbers int64 [M, 2], and how an annotator ranked them."""
        texts, noise = (
            np.random.SeedSequence(seed).generate_state(2).tolist()
        )  # two streams that do not know each other
        chances = np.exp(self.ref_logprobs)
        index = np.random.default_rng(texts).choice(len(self.rows), size=(count, 2), p=chances / chances.sum())
        ranks = rank_answers(self.gold[index], CERTAINTY, noise)
        rankings = [
            Ranking("", (self.texts[a], self.texts[b]), (first, second), finished=(False, False))
            for (a, b), (first, second) in zip(index.tolist(), ranks.tolist(), strict=True)
        ]
        return index, rankings


# -- proxies -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Proxy:
    """A reward model's scores of all texts, and how good it is on comparisons that it has not seen."""

    scores: np.ndarray
    """float64 [N], standardised under the reference."""
    accuracy: float
    """On 2,000 held-out comparisons."""
    best_accuracy: float
    """What the gold score itself would reach on average."""
    correlation: float
    """With gold under the reference."""


def train_proxy(scene: Scene, width: int, comparisons: int, seed: int) -> Proxy:
    """A reward model of two layers of this width, from nothing, on so many noisy comparisons.

    Between two and eight epochs, so that few comparisons are not left with a handful of steps.
    """
    causal_lm = new_gpt2(
        scene.tokenizer, width=width, num_layers=2, num_heads=2, positions=scene.settings.length + 1, seed=seed
    )
    model = RewardModel.from_causal_lm(causal_lm, scene.tokenizer, seed=seed)
    _, rankings = scene.comparisons(comparisons, seed=2 * seed)
    index, held_out = scene.comparisons(2_000, seed=2 * seed + 1)
    epochs = int(np.clip(8_192 // comparisons, 2, 8))
    train_reward_model(
        model, rankings, RewardModelConfig(learning_rate=3e-3, epochs=epochs, batch_size=BATCH, seed=seed)
    )
    scores = standardise(model.scores(scene.rows.tolist()).astype(np.float64), scene.ref_logprobs)
    return Proxy(
        scores,
        pair_accuracy(model, held_out),
        best_accuracy(scene.gold[index], CERTAINTY),
        float(np.exp(scene.ref_logprobs) @ (scores * scene.gold)),
    )


# -- optimising them ---------------------------------------------------------------------------------------------------


def best_of_n_curve(problem: ExactProblem, ns: Sequence[int]) -> Curve:
    """Best-of-n by the proxy, exactly."""
    return [_triple(problem.best_of_n(n)) for n in ns]


def tilted_curve(problem: ExactProblem, betas: Sequence[float]) -> Curve:
    """π_ref · exp(proxy / β): what perfect RL with ``kl_coef`` β would come to, exactly."""
    return [_triple(problem.tilted(beta)) for beta in betas]


def ppo_point(
    scene: Scene, problem: ExactProblem, proxy: np.ndarray, kl_coef: float, seed: int, timesteps: int
) -> tuple[float, float, float]:
    """Where PPO on the proxy ends at this ``kl_coef``, exactly."""
    agent = regularised_ppo(scene.envs(128, proxy), scene.fresh_policy(), scene.reference, kl_coef, seed, timesteps)
    point = problem.evaluate(next_logprobs(agent))
    agent.envs.close()
    return _triple(point)


def _triple(point: Point) -> tuple[float, float, float]:
    assert point.gold is not None
    return point.kl, point.reward, point.gold


# -- fits --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Law:
    """gold = d (α − β f(d)) with d = √KL; Gao, Schulman and Hilton, section 3.1."""

    formula: str
    shape: Callable[[np.ndarray], np.ndarray]
    """f."""

    def fit(self, d: np.ndarray, gold: np.ndarray) -> tuple[float, float]:
        """(α, β) with the least squares, which are linear in both.

        Args:
            d: [M], above 0.
            gold: [M], less what it is at d = 0.

        Raises:
            ValueError: points at fewer than three distances.
        """
        if len(np.unique(d.round(6))) < 3:
            raise ValueError(f"A law of two coefficients needs points at three distances or more, got √KL = {d}.")
        columns = np.stack([d, -d * self.shape(d)], axis=1)
        alpha, beta = np.linalg.lstsq(columns, gold, rcond=None)[0]
        return float(alpha), float(beta)

    def predict(self, d: np.ndarray, alpha: float, beta: float) -> np.ndarray:
        """gold [M] at d [M]."""
        return np.asarray(d * (alpha - beta * self.shape(d)))


BEST_OF_N = Law("d (α − β d)", lambda d: d)
RL = Law("d (α − β log d)", np.log)
LAWS = {"best of n": BEST_OF_N, "RL": RL}


def r_squared(gold: np.ndarray, predicted: np.ndarray) -> float:
    """1 − Σ (gold − predicted)² / Σ (gold − mean)²; negative where the mean would have been the better guess; NaN where
    gold does not vary."""
    spread = float(((gold - gold.mean()) ** 2).sum())
    return 1.0 - float(((gold - predicted) ** 2).sum()) / spread if spread > 0 else float("nan")


def held_out_r_squared(law: Law, curves: Sequence[Sequence[Sequence[float]]]) -> list[float]:
    """Of each seed's curve, R² of the law that was fitted to the curves of all other seeds."""
    found = []
    for left_out in range(len(curves)):
        d, gold = _points([curve for seed, curve in enumerate(curves) if seed != left_out])
        own_d, own_gold = _points([curves[left_out]])
        found.append(r_squared(own_gold, law.predict(own_d, *law.fit(d, gold))))
    return found


def extrapolated_r_squared(law: Law, curves: Sequence[Sequence[Sequence[float]]], limit: float) -> float:
    """R² beyond d = ``limit`` of the law that was fitted to what lies below it, all seeds together; NaN where there are
    too few points on one of the sides."""
    d, gold = _points(curves)
    below = d <= limit
    if len(np.unique(d[below].round(6))) < 3 or (~below).sum() < 2:
        return float("nan")
    return r_squared(gold[~below], law.predict(d[~below], *law.fit(d[below], gold[below])))


def fit_all(law: Law, curves: Sequence[Sequence[Sequence[float]]]) -> tuple[float, float]:
    """(α, β) of all seeds' curves together."""
    return law.fit(*_points(curves))


def _points(curves: Sequence[Sequence[Sequence[float]]]) -> tuple[np.ndarray, np.ndarray]:
    """(√KL, gold) of all points that lie away from the reference."""
    points = np.array([point for curve in curves for point in curve], dtype=np.float64)
    points = points[points[:, 0] > 1e-9]
    return np.sqrt(points[:, 0]), points[:, 2]


def falls(curves: Sequence[Sequence[Sequence[float]]]) -> list[float]:
    """How far gold lies below its peak at the far end of each seed's curve, in standard deviations.

    Where the peak is, the other seeds say: a peak that was looked for in the same curve would be partly luck. One seed
    alone is its own judge. The curves have their points in common (the same n or β) and go away from the reference.
    """
    gold = np.array([[point[2] for point in curve] for curve in curves])
    found = []
    for seed in range(len(gold)):
        others = np.delete(gold, seed, axis=0) if len(gold) > 1 else gold
        found.append(float(gold[seed, others.mean(axis=0).argmax()] - gold[seed, -1]))
    return found
