"""Whether the oracle reaches the stated optimum, and chance the stated random score."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from textenvs.tasks import Task

TOLERANCE = 0.02
"""Stated scores may be simulated: they are right to within this, beside four standard errors."""
MAX_ENVS = 256


def oracle_faults(task: Task, make_vector: Callable[[int], Any], num_episodes: int) -> Iterator[str]:
    """The oracle's texts, and their mean score against the optimum."""
    envs = make_vector(min(num_episodes, MAX_ENVS))
    spec = envs.unwrapped.text_spec
    obs, _ = envs.reset(seed=1)
    prompts = obs[:, : spec.prompt_length].copy()
    given = prompts.copy()
    try:
        texts = task.oracle(given)
    except Exception as error:
        if not math.isnan(task.optimum):
            yield f"it states an optimum of {task.optimum:g}, but its oracle raised {type(error).__name__}: {error}"
        return
    if not np.array_equal(given, prompts):
        yield "oracle() changes the prompts that it was given"
    shape = (len(prompts), spec.max_new_tokens)
    if not isinstance(texts, np.ndarray) or texts.shape != shape or texts.dtype != np.int64:
        got = f"{texts.dtype} {texts.shape}" if isinstance(texts, np.ndarray) else type(texts).__name__
        yield f"oracle() must give int64 {shape}, got {got}"
        return
    if texts.min() < 0 or texts.max() > spec.pad_id:
        yield f"oracle() gives ids outside 0 … {spec.pad_id}"
        return
    padding = texts == spec.pad_id
    is_end = np.isin(texts, spec.eos_ids)
    after_end = np.cumsum(is_end, axis=1) - is_end > 0
    wrong = (padding != after_end).any(axis=1)
    if wrong.any():
        yield (
            f"wrong padding: an oracle's text is padded on the right, with {spec.pad_id}, after EOS and nowhere else; "
            f"it gives {texts[int(np.argmax(wrong))].tolist()}"
        )
        return
    if math.isnan(task.optimum):
        return
    scores = []
    for i in range(max(1, num_episodes // envs.num_envs)):
        if i:
            obs, _ = envs.reset()
            texts = task.oracle(obs[:, : spec.prompt_length].copy())
        plan = np.where(texts == spec.pad_id, 0, texts)  # the text is over by then: any action will do
        scores.append(_first_scores(envs, lambda masks, t, plan=plan: plan[:, t]))
    episodes = np.concatenate(scores)
    invalid = np.isnan(episodes)
    if invalid.any():
        yield f"the oracle's text has no score for {invalid.sum()} of {invalid.size} prompts: it breaks the rules"
        return
    mean, margin = _mean(episodes)
    if mean < task.optimum - margin:
        yield f"the oracle scores {mean:.4g} on average, below the stated optimum of {task.optimum:.4g}"
    if mean > task.optimum + margin:
        yield f"the oracle scores {mean:.4g} on average, above the stated optimum of {task.optimum:.4g}"


def random_faults(task: Task, make_vector: Callable[[int], Any], num_episodes: int) -> Iterator[str]:
    """The mean score of uniform legal actions against the stated random score."""
    if math.isnan(task.random_score):
        return
    envs = make_vector(min(num_episodes, MAX_ENVS))
    rng = np.random.default_rng(0)

    def act(masks: np.ndarray, step: int) -> np.ndarray:
        return np.where(masks, rng.random(masks.shape), -1.0).argmax(axis=1)

    scores = []
    for i in range(max(1, num_episodes // envs.num_envs)):
        envs.reset(seed=2 if not i else None)
        scores.append(_first_scores(envs, act))
    episodes = np.concatenate(scores)
    mean, margin = _mean(episodes[~np.isnan(episodes)])
    if abs(mean - task.random_score) > margin:
        yield (
            f"uniform legal actions score {mean:.4g} on average (± {margin:.2g}), but the stated random score is "
            f"{task.random_score:.4g}"
        )


def _first_scores(envs: Any, act: Callable[..., np.ndarray]) -> np.ndarray:
    """Scores of the first episode that ends in each sub-environment: later ones would favour short texts."""
    scores, over = np.full(envs.num_envs, np.nan), np.zeros(envs.num_envs, dtype=np.bool_)
    for step in range(envs.unwrapped.text_spec.max_new_tokens):
        *_, infos = envs.step(act(envs.unwrapped.action_masks(), step))
        if "final_info" in infos:
            final = infos["final_info"]
            first = infos["_final_info"] & ~over
            scored = first & final.get("_score", np.zeros_like(first))
            scores[scored] = final["score"][scored] if "score" in final else np.nan
            over |= first
        if over.all():
            break
    return scores


def _mean(scores: np.ndarray) -> tuple[float, float]:
    """The mean, and how far from it the stated figure may lie."""
    return float(scores.mean()), TOLERANCE + 4 * float(scores.std()) / math.sqrt(len(scores))
