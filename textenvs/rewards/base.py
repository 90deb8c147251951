"""The contract of a reward model, and the guard that every score passes through."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from textenvs.episodes import Episodes
from textenvs.spec import TextSpec

RANGE_TOLERANCE = 1e-6
"""Scores are float32: a declared bound may be missed by this much (relative to its size) through rounding."""


class RewardError(RuntimeError):
    """A reward model failed, or broke its contract. The run stops: a wrong score would be learned from silently."""


@runtime_checkable
class RewardModel(Protocol):
    """Anything that scores finished texts.

    Only ``score`` is required. The other attributes have defaults when they are missing: ``name`` is the class name,
    ``low``/``high`` are −inf/inf, ``version`` is ``"1"``, ``deterministic`` is False (nothing is assumed). Name and
    version together stand for everything that a score depends on beside the text, arguments included: caches and replay
    buffers tell scores apart by them.

    A model made of others has ``score_parts(episodes) -> Scores`` beside ``score``: its components and its gold
    score are then reported with every finished episode. A model that cannot judge every text has
    ``score_where_it_applies(episodes) -> (scores, applies)`` and is then welcome inside a weighted sum. A model that
    cannot judge the texts of every environment has ``check_spec(text_spec)``: it is called when the model becomes the
    judge of an environment (when that is made, and by ``set_reward``), before any text is written, and raises
    ``ValueError`` where the two do not fit. It must change nothing: one model may judge several environments.
    """

    def score(self, episodes: Episodes) -> np.ndarray:
        """Scores float32 [B], one for each finished text, independent of the others in the batch."""
        ...


@dataclass(frozen=True)
class Scores:
    """What the guard hands to the environment.

    Attributes:
        total: float32 [B], the score that is paid.
        components: name to float32 [B], the parts of the score as their own models gave them; NaN for texts that a part
            does not apply to.
        gold: float32 [B] where a gold reward is reported beside the paid one, else None.
    """

    total: np.ndarray
    components: dict[str, np.ndarray]
    gold: np.ndarray | None = None


class Judge:
    """A reward model behind the guard: checks shape, finiteness and declared range, counts calls and seconds.

    Args:
        model: the reward model.

    Raises:
        TypeError: ``model`` has no ``score`` method, or declares bounds that are no numbers.
        ValueError: its declared range is empty.
    """

    def __init__(self, model: Any) -> None:
        if not callable(getattr(model, "score", None)):
            raise TypeError(f"A reward model needs a method score(episodes); {type(model).__name__} has none.")
        self.model = model
        self.name: str = str(getattr(model, "name", type(model).__name__))
        self.low, self.high = self._bound("low", -np.inf), self._bound("high", np.inf)
        if not self.low <= self.high:
            raise ValueError(
                f"Reward {self.name!r} declares the range [{self.low}, {self.high}], which holds no number."
            )
        self.version = str(getattr(model, "version", "1"))
        self.deterministic = bool(getattr(model, "deterministic", False))
        self.identity = f"{self.name} {self.version}"
        """What tells its scores from those of another reward model, or of another version of it."""
        self.calls = 0
        self.episodes = 0
        self.seconds = 0.0

    def check_spec(self, spec: TextSpec) -> None:
        """Ask the model whether it can judge the texts of an environment, if it has something to say about that.

        Raises:
            ValueError: it cannot.
        """
        check = getattr(self.model, "check_spec", None)
        if check is not None:
            check(spec)

    def __call__(self, episodes: Episodes) -> Scores:
        """Score a batch.

        Raises:
            RewardError: the reward model raised, or its answer has the wrong shape, is not finite, or lies outside the
                declared range.
        """
        parts = getattr(self.model, "score_parts", None)
        if parts is None:
            total = checked_scores(self._call(self.model.score, episodes), episodes, self.name, self.low, self.high)
            return Scores(total=total, components={self.name: total})
        return self._checked_parts(self._call(parts, episodes), episodes)

    def where_it_applies(self, episodes: Episodes) -> tuple[Scores, np.ndarray]:
        """Score a batch of texts that the model need not apply to: scores, and bool [B] where there is one.

        Where it does not apply the score is 0 and the component NaN.

        Raises:
            RewardError: as above.
        """
        partial = getattr(self.model, "score_where_it_applies", None)
        if partial is None:
            return self(episodes), np.ones(len(episodes), dtype=np.bool_)
        answer = self._call(partial, episodes)
        pair = answer if isinstance(answer, tuple) and len(answer) == 2 else (None, None)
        given, applies = (np.asarray(array) for array in pair)
        if not given.shape == applies.shape == (len(episodes),) or applies.dtype != np.bool_:
            raise RewardError(
                f"Reward {self.name!r} must return two arrays from score_where_it_applies, scores and bool, both "
                f"[{len(episodes)}]; got {answer!r:.200} (the first text: {describe(episodes, 0)})."
            )
        checked = checked_scores(given[applies], episodes.take(applies), self.name, self.low, self.high)
        total, component = np.zeros(len(episodes), np.float32), np.full(len(episodes), np.nan, np.float32)
        total[applies] = component[applies] = checked
        return Scores(total=total, components={self.name: component}), applies

    def _checked_parts(self, answer: Any, episodes: Episodes) -> Scores:
        """What ``score_parts`` gave, total, components and gold score checked."""
        if not isinstance(answer, Scores) or not isinstance(answer.components, dict):
            raise RewardError(
                f"Reward {self.name!r} must return Scores from score_parts, got {answer!r:.200} "
                f"(the first text: {describe(episodes, 0)})."
            )
        total = checked_scores(answer.total, episodes, self.name, self.low, self.high)
        components = {}
        for name, values in answer.components.items():
            part = np.asarray(values)
            # NaN is allowed: the part does not apply to that text.
            if part.shape != total.shape or part.dtype.kind != "f" or np.isinf(part).any():
                raise RewardError(
                    f"Reward {self.name!r} must report each component as floats of shape {total.shape}, finite or NaN "
                    f"(does not apply); {name!r} is {values!r:.200} (the first text: {describe(episodes, 0)})."
                )
            components[str(name)] = part.astype(np.float32, copy=False)
        gold = answer.gold
        if gold is not None:
            gold = checked_scores(gold, episodes, f"{self.name} (its gold score)", -np.inf, np.inf)
        return Scores(total, components, gold)

    def _bound(self, attribute: str, default: float) -> float:
        value = getattr(self.model, attribute, default)
        if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
            raise TypeError(f"Reward {self.name!r} declares {attribute}={value!r}, which is no number.")
        return float(value)

    def _call(self, method: Callable[[Episodes], Any], episodes: Episodes) -> Any:
        start = time.perf_counter()
        try:
            return method(episodes)
        except RewardError:
            raise
        except Exception as error:
            raise RewardError(
                f"Reward {self.name!r} raised {type(error).__name__}: {error} "
                f"(while scoring {len(episodes)} texts, the first: {describe(episodes, 0)})."
            ) from error
        finally:
            self.seconds += time.perf_counter() - start
            self.calls += 1
            self.episodes += len(episodes)


def checked_scores(answer: Any, episodes: Episodes, name: str, low: float, high: float) -> np.ndarray:
    """``answer`` as float32 [B].

    Raises:
        RewardError: naming the plug-in, what is wrong, and the text.
    """
    if isinstance(answer, np.ndarray) and answer.dtype == np.float32:
        scores = answer
    else:
        try:
            with np.errstate(over="ignore"):  # too large for float32 becomes infinity, which is refused below
                scores = np.asarray(answer, dtype=np.float32)
        except Exception as error:  # whatever the array-like object of a plug-in raises
            raise RewardError(
                f"Reward {name!r} did not return numbers but {answer!r:.200}: {error} "
                f"(for {len(episodes)} texts, the first: {describe(episodes, 0)})."
            ) from error
    if scores.shape != (len(episodes),):
        raise RewardError(
            f"Reward {name!r} must return one score for each text, shape ({len(episodes)},); got shape {scores.shape} "
            f"for {len(episodes)} texts, the first: {describe(episodes, 0)}."
        )
    if not len(episodes):
        return scores
    # Both are NaN if any score is, so the usual case costs two passes (argmin is several times faster than min).
    lowest, highest = float(scores[scores.argmin()]), float(scores[scores.argmax()])
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        bad = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise RewardError(f"Reward {name!r} returned {scores[bad]} for {describe(episodes, bad)}.")
    too_low = lowest < low - RANGE_TOLERANCE * max(1.0, abs(low))
    if too_low or highest > high + RANGE_TOLERANCE * max(1.0, abs(high)):
        bad = int(np.argmin(scores)) if too_low else int(np.argmax(scores))
        raise RewardError(
            f"Reward {name!r} returned {scores[bad]}, outside its declared range [{low}, {high}], "
            f"for {describe(episodes, bad)}."
        )
    return scores


def describe(episodes: Episodes, i: int) -> str:
    """Prompt and completion of one episode, for an error message."""
    if not len(episodes):
        return "no text"
    prompt = episodes.vocab.decode(episodes.prompt_ids[i].tolist())
    completion = episodes.vocab.decode(episodes.completion_ids[i].tolist())
    return f"prompt {prompt!r:.500}, completion {completion!r:.500}"
