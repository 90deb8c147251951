"""Combinators: reward models made of others.

Each takes its inner reward models as specs, in any form that ``make_reward`` takes, and sends every one of them through
the guard, so that an error names the part and not the whole. Each reports its parts as ``reward_components``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from textenvs.episodes import Episodes
from textenvs.rewards.base import Judge, RewardError, Scores, describe
from textenvs.rewards.inputs import version_of
from textenvs.rewards.registry import make_reward, register_reward
from textenvs.rng import splitmix64
from textenvs.spec import TextSpec


class Combined:
    """What all combinators share: ``score`` is the total of ``score_parts``; ``version`` names the parts."""

    cost = "its parts"
    name: str

    def _set_up(self, judges: Sequence[Judge], *, deterministic: bool = True, **arguments: Any) -> None:
        """Take over the parts, and the arguments that scores depend on."""
        self.judges = tuple(judges)
        self.deterministic = deterministic and all(judge.deterministic for judge in judges)
        self.version = version_of(parts=[judge.identity for judge in judges], **arguments)

    def check_spec(self, spec: TextSpec) -> None:
        """Ask every part whether it can judge the texts of an environment."""
        for judge in self.judges:
            judge.check_spec(spec)

    def score_parts(self, episodes: Episodes) -> Scores:
        """Total, components and gold score of a batch."""
        raise NotImplementedError  # each combinator below

    def score(self, episodes: Episodes) -> np.ndarray:
        """Scores float32 [B]."""
        return self.score_parts(episodes).total


def make_judge(spec: Any) -> Judge:
    """A guarded reward model from a spec."""
    return Judge(make_reward(spec))


def _merge(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """One mapping of components; a name that stands in several parts is numbered from its second occurrence on."""
    merged: dict[str, np.ndarray] = {}
    for components in parts:
        for name, values in components.items():
            number, unique = 1, name
            while unique in merged:
                number += 1
                unique = f"{name}#{number}"
            merged[unique] = values
    return merged


def _first_gold(parts: Sequence[Scores]) -> np.ndarray | None:
    return next((part.gold for part in parts if part.gold is not None), None)


def _number(name: str, argument: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name}: {argument} must be a number, got {value!r}.")
    if not math.isfinite(value):
        raise ValueError(f"{name}: {argument} must be finite, got {value!r}.")
    return float(value)


@register_reward("weighted_sum")
class WeightedSum(Combined):
    """Weighted sum of several rewards, Σ wᵢ · scoreᵢ; each part is reported, and one of weight 0 is only a metric.

    A part that does not apply to a text (``None`` from a function) adds nothing; at least one part of non-zero weight
    must apply to every text. The same is written as a plain list: ``reward=[(1.0, "match"), (0.1, "length")]``.

    Args:
        parts: pairs (weight, reward spec).

    Raises:
        TypeError: an entry is not such a pair.
        ValueError: there are no parts, or none with a weight other than 0.
    """

    def __init__(self, parts: Sequence[tuple[float, Any]]) -> None:
        for part in parts:
            if not isinstance(part, tuple | list) or len(part) != 2:
                raise TypeError(f"A weighted sum is a list of pairs (weight, reward); got the entry {part!r:.200}.")
        self.weights = [_number("weighted_sum", "a weight", weight) for weight, _ in parts]
        if not any(self.weights):
            raise ValueError("A weighted sum needs at least one part whose weight is not 0 (0 makes a metric).")
        judges = [make_judge(spec) for _, spec in parts]
        self._set_up(judges, weights=self.weights)
        partial = any(hasattr(judge.model, "score_where_it_applies") for judge in judges)
        bounds = []
        for weight, judge in zip(self.weights, judges, strict=True):
            if weight:
                low, high = sorted((weight * judge.low, weight * judge.high))
                # A part that may not apply may also contribute nothing.
                bounds.append((min(low, 0.0), max(high, 0.0)) if partial else (low, high))
        self.low, self.high = sum(low for low, _ in bounds), sum(high for _, high in bounds)

    def score_parts(self, episodes: Episodes) -> Scores:
        total = np.zeros(len(episodes), dtype=np.float32)
        judged = np.zeros(len(episodes), dtype=np.bool_)
        parts = []
        for weight, judge in zip(self.weights, self.judges, strict=True):
            scores, applies = judge.where_it_applies(episodes)
            parts.append(scores)
            if weight:
                total += np.float32(weight) * scores.total
                judged |= applies
        if not judged.all():
            bad = int(np.flatnonzero(~judged)[0])
            names = ", ".join(judge.name for weight, judge in zip(self.weights, self.judges, strict=True) if weight)
            raise RewardError(f"None of the rewards {names} applies to {describe(episodes, bad)}: it has no score.")
        return Scores(total, _merge([part.components for part in parts]), _first_gold(parts))


@register_reward("product")
class Product(Combined):
    """Product of several rewards; a part that is 0 or 1 is a gate that the others must pass through.

    Args:
        parts: reward specs.

    Raises:
        ValueError: there are no parts.
    """

    def __init__(self, parts: Sequence[Any]) -> None:
        if not parts:
            raise ValueError("A product needs at least one part.")
        judges = [make_judge(spec) for spec in parts]
        self._set_up(judges)
        self.low, self.high = 1.0, 1.0
        for judge in judges:
            corners = [_times(a, b) for a in (self.low, self.high) for b in (judge.low, judge.high)]
            self.low, self.high = min(corners), max(corners)

    def score_parts(self, episodes: Episodes) -> Scores:
        parts = [judge(episodes) for judge in self.judges]
        total = np.prod([part.total for part in parts], axis=0, dtype=np.float32)
        return Scores(total, _merge([part.components for part in parts]), _first_gold(parts))


def _times(a: float, b: float) -> float:
    return 0.0 if a == 0 or b == 0 else a * b  # 0 · ∞ as the bound of a product of finite scores


class _Wrapped(Combined):
    """A combinator around one reward."""

    def _set_up_inner(self, reward: Any, low: float, high: float, **others: Any) -> None:
        self.low, self.high = low, high
        self._set_up([make_judge(reward)] if not isinstance(reward, Judge) else [reward], **others)

    @property
    def inner(self) -> Judge:
        """The reward inside, guarded."""
        return self.judges[0]

    def _changed(self, scores: Scores, total: np.ndarray, extra: dict[str, np.ndarray] | None = None) -> Scores:
        return Scores(total.astype(np.float32), _merge([scores.components, extra or {}]), scores.gold)


@register_reward("length_penalty")
class LengthPenalty(_Wrapped):
    """The reward minus a penalty for every token past a target: score − slope · max(0, length − target).

    ``mode="soft_overlong"`` is DAPO's ramp instead (arXiv 2503.14476, eq. 13): nothing up to ``target``, then linearly
    down to −``slope`` at ``max_length``, and −``slope`` from there on.

    Args:
        reward: the reward inside.
        target: length in tokens (EOS included) up to which nothing is taken off.
        slope: penalty per token; in mode ``"soft_overlong"`` the whole of it.
        mode: ``"linear"`` or ``"soft_overlong"``.
        max_length: where the soft penalty is complete; only in that mode.
    """

    def __init__(
        self,
        reward: Any,
        *,
        target: int,
        slope: float = 0.01,
        mode: str = "linear",
        max_length: int | None = None,
    ) -> None:
        self.target = _number("length_penalty", "target", target)
        self.slope = _number("length_penalty", "slope", slope)
        if self.slope < 0:
            raise ValueError(f"length_penalty: slope is taken off, so it cannot be negative; got {slope}.")
        if mode not in ("linear", "soft_overlong"):
            raise ValueError(f"length_penalty: mode must be 'linear' or 'soft_overlong', got {mode!r}.")
        if (mode == "soft_overlong") != (max_length is not None):
            raise ValueError("length_penalty: max_length belongs to mode='soft_overlong', and is needed there.")
        self.ramp = None if max_length is None else _number("length_penalty", "max_length", max_length) - self.target
        if self.ramp is not None and self.ramp <= 0:
            raise ValueError(f"length_penalty: max_length ({max_length}) must be greater than target ({target}).")
        judge = make_judge(reward)
        low = judge.low - self.slope if self.ramp is not None else (judge.low if self.slope == 0 else -np.inf)
        self._set_up_inner(judge, low, judge.high, target=self.target, slope=self.slope, ramp=self.ramp)

    def score_parts(self, episodes: Episodes) -> Scores:
        scores = self.inner(episodes)
        excess = np.maximum(episodes.lengths - self.target, 0.0)
        if self.ramp is not None:
            excess = np.minimum(excess / self.ramp, 1.0)
        penalty = -(self.slope * excess)
        return self._changed(scores, scores.total + penalty, {"length_penalty": penalty.astype(np.float32)})


@register_reward("missing_eos_penalty")
class MissingEosPenalty(_Wrapped):
    """The reward, or less by ``penalty`` for a text that ran into the length budget instead of ending with EOS.

    As a reward model, rather than a trick of one trainer, it gives on-policy and replay agents the same objective.

    Args:
        reward: the reward inside.
        penalty: what is taken off.
    """

    def __init__(self, reward: Any, *, penalty: float = 1.0) -> None:
        self.penalty = _number("missing_eos_penalty", "penalty", penalty)
        if self.penalty < 0:
            raise ValueError(f"missing_eos_penalty: penalty is taken off, so it cannot be negative; got {penalty}.")
        judge = make_judge(reward)
        self._set_up_inner(judge, judge.low - self.penalty, judge.high, penalty=self.penalty)

    def score_parts(self, episodes: Episodes) -> Scores:
        scores = self.inner(episodes)
        penalty = np.where(episodes.finish_reason == "stop", 0.0, -self.penalty).astype(np.float32)
        return self._changed(scores, scores.total + penalty, {"missing_eos": penalty})


@register_reward("clip")
class Clip(_Wrapped):
    """The reward, clipped to [minimum, maximum].

    Args:
        reward: the reward inside.
        minimum, maximum: the bounds.
    """

    def __init__(self, reward: Any, *, minimum: float, maximum: float) -> None:
        low, high = _number("clip", "minimum", minimum), _number("clip", "maximum", maximum)
        if low >= high:
            raise ValueError(f"clip: minimum ({minimum}) must be below maximum ({maximum}).")
        self._set_up_inner(reward, low, high, minimum=low, maximum=high)

    def score_parts(self, episodes: Episodes) -> Scores:
        scores = self.inner(episodes)
        return self._changed(scores, np.clip(scores.total, self.low, self.high))


@register_reward("affine")
class Affine(_Wrapped):
    """The reward times ``scale`` plus ``shift``.

    Args:
        reward: the reward inside.
        scale: factor, not 0.
        shift: what is added.
    """

    def __init__(self, reward: Any, *, scale: float = 1.0, shift: float = 0.0) -> None:
        self.scale, self.shift = _number("affine", "scale", scale), _number("affine", "shift", shift)
        if self.scale == 0:
            raise ValueError("affine: scale 0 would give every text the same score.")
        judge = make_judge(reward)
        low, high = sorted((self.scale * judge.low + self.shift, self.scale * judge.high + self.shift))
        self._set_up_inner(judge, low, high, scale=self.scale, shift=self.shift)

    def score_parts(self, episodes: Episodes) -> Scores:
        scores = self.inner(episodes)
        return self._changed(scores, self.scale * scores.total + self.shift)


@register_reward("normalise")
class Normalise(Affine):
    """The reward shifted and scaled by fixed statistics of reference texts, (score − mean) / std.

    A KL coefficient means nothing until the reward has a known scale (Ziegler et al., 2019, arXiv 1909.08593, section
    2.1: mean 0 and variance 1 on samples of the reference policy). See :func:`fit_normalisation`.

    Args:
        reward: the reward inside.
        mean, std: of its scores on the reference texts.
    """

    def __init__(self, reward: Any, *, mean: float, std: float) -> None:
        mean, std = _number("normalise", "mean", mean), _number("normalise", "std", std)
        if std <= 0:
            raise ValueError(f"normalise: std must be positive, got {std} (do all reference texts score the same?).")
        super().__init__(reward, scale=1.0 / std, shift=-mean / std)


def fit_normalisation(reward: Any, episodes: Episodes) -> Normalise:
    """The reward normalised to mean 0 and variance 1 on the given reference texts.

    Args:
        reward: spec of the reward to normalise.
        episodes: reference texts, at least two.

    Raises:
        ValueError: fewer than two texts, or all of them score the same.
    """
    if len(episodes) < 2:
        raise ValueError(f"Normalisation needs at least two reference texts, got {len(episodes)}.")
    model = make_reward(reward)
    scores = Judge(model)(episodes).total.astype(np.float64)
    return Normalise(model, mean=float(scores.mean()), std=float(scores.std()))


@register_reward("ensemble")
class Ensemble(Combined):
    """Several rewards of one kind as one: their mean, their minimum, or the mean less k standard deviations.

    The last two pay less where the members disagree, which is where a policy exploits a learned reward (Coste et al.,
    2023, arXiv 2310.02743). The spread is reported as the component ``ensemble_std``.

    Args:
        parts: reward specs, at least two.
        how: ``"mean"``, ``"worst"`` or ``"pessimistic"`` (mean − k · std).
        k: only for ``"pessimistic"``.
    """

    def __init__(self, parts: Sequence[Any], *, how: str = "mean", k: float = 1.0) -> None:
        if len(parts) < 2:
            raise ValueError(f"An ensemble needs at least two members, got {len(parts)}.")
        if how not in ("mean", "worst", "pessimistic"):
            raise ValueError(f"ensemble: how must be 'mean', 'worst' or 'pessimistic', got {how!r}.")
        self.how, self.k = how, _number("ensemble", "k", k)
        if self.k < 0:
            raise ValueError(f"ensemble: k must not be negative, got {k}.")
        judges = [make_judge(spec) for spec in parts]
        self._set_up(judges, how=how, k=self.k)
        count = len(judges)
        if how == "worst":
            self.low, self.high = min(judge.low for judge in judges), min(judge.high for judge in judges)
        else:
            self.low, self.high = sum(j.low for j in judges) / count, sum(j.high for j in judges) / count
        if how == "pessimistic" and self.k > 0:
            # The population deviation of numbers in [a, b] is at most (b − a) / 2 (Popoviciu).
            self.low -= self.k * (max(j.high for j in judges) - min(j.low for j in judges)) / 2

    def score_parts(self, episodes: Episodes) -> Scores:
        parts = [judge(episodes) for judge in self.judges]
        members = np.stack([part.total for part in parts])
        spread = members.std(axis=0, dtype=np.float64)
        if self.how == "worst":
            total = members.min(axis=0)
        else:
            total = members.mean(axis=0, dtype=np.float64) - (self.k * spread if self.how == "pessimistic" else 0.0)
        components = _merge([*(part.components for part in parts), {"ensemble_std": spread.astype(np.float32)}])
        return Scores(total.astype(np.float32), components, _first_gold(parts))


@register_reward("noise")
class Noise(_Wrapped):
    """The reward, flipped within its range (low + high − score) for a known share of the texts.

    Which texts are hit depends on ``Episodes.key`` alone, so scalar and vector environments agree, and an episode in a
    replay buffer keeps its noise. The clean score is reported as gold score.

    Args:
        reward: the reward inside; its range must be finite.
        probability: share of texts that are hit, in [0, 1].
        salt: other numbers hit other texts.
    """

    def __init__(self, reward: Any, *, probability: float, salt: int = 0) -> None:
        self.probability = _number("noise", "probability", probability)
        if not 0 <= self.probability <= 1:
            raise ValueError(f"noise: probability must lie in [0, 1], got {probability}.")
        self.salt = int(salt)
        judge = make_judge(reward)
        if not (np.isfinite(judge.low) and np.isfinite(judge.high)):
            raise ValueError(f"noise: {judge.name!r} has no finite range to flip in: [{judge.low}, {judge.high}].")
        # Deterministic as a function of text and key, but not of the text alone.
        self._set_up_inner(
            judge,
            judge.low,
            judge.high,
            deterministic=self.probability == 0,
            probability=self.probability,
            salt=self.salt,
        )

    def score_parts(self, episodes: Episodes) -> Scores:
        scores = self.inner(episodes)
        salted = splitmix64(episodes.key ^ splitmix64(np.array([self.salt % 2**64], dtype=np.uint64)))
        uniform = (salted >> np.uint64(11)).astype(np.float64) * 2.0**-53
        total = np.where(uniform < self.probability, self.low + self.high - scores.total, scores.total)
        changed = self._changed(scores, total)
        return Scores(changed.total, changed.components, scores.total if scores.gold is None else scores.gold)


@register_reward("gold")
class Gold(Combined):
    """Pays a proxy and reports the gold reward beside it, as ``gold_score``, in every finished episode.

    Args:
        proxy: the reward that is paid.
        gold: the reward that is meant.
    """

    def __init__(self, proxy: Any, gold: Any) -> None:
        judges = [make_judge(proxy), make_judge(gold)]
        self._set_up(judges)
        self.low, self.high = judges[0].low, judges[0].high

    def score_parts(self, episodes: Episodes) -> Scores:
        proxy, gold = (judge(episodes) for judge in self.judges)
        return Scores(proxy.total, _merge([proxy.components, gold.components]), gold.total)
