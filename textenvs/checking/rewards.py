"""check_reward: what the author of a reward model runs."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from textenvs.engine import TextEngine, episodes_from_rows
from textenvs.episodes import FINISH_REASONS, Episodes
from textenvs.rewards.base import Judge, RewardError, Scores
from textenvs.rewards.registry import make_reward
from textenvs.tasks import make_task

TOLERANCE = 1e-4
"""Models may round differently in batches of other sizes; anything beyond this is a dependence, not rounding."""


def check_reward(reward: Any, episodes: Episodes | None = None) -> None:
    """Check a reward model against the contract; returns nothing if it holds.

    Checked are: the declared attributes; a float32 array with one finite score in the declared range for each text;
    that scores (and the components and the gold score that are reported beside them) do not depend on the order of a
    batch, on the other texts in it, or on the amount of padding; texts of one token, of none, and batches of one; that
    the episodes are left unchanged; and, where the model declares itself deterministic, that it repeats its answers.

    Args:
        reward: any form of reward spec.
        episodes: finished texts to try it on. Default: 64 random texts of ``Reverse`` with prompts and texts of one to
            four digits, among them the right answers. Give your own where the reward needs other columns or words.

    Raises:
        RewardError: with every fault that was found.
        ValueError, TypeError: the spec is not a reward at all.
    """
    model = make_reward(reward)
    judge = Judge(model)
    texts = sample_episodes() if episodes is None else episodes
    faults = list(_attribute_faults(model))
    try:
        raw = model.score(copy.deepcopy(texts))
    except Exception as error:
        raise RewardError(_report(judge, [*faults, f"it raised {type(error).__name__}: {error}"])) from error
    if not isinstance(raw, np.ndarray) or raw.dtype != np.float32:
        kind = f"an array of {raw.dtype}" if isinstance(raw, np.ndarray) else f"a {type(raw).__name__}"
        faults.append(f"score() must return a float32 array, not {kind}")
    try:
        probe = copy.deepcopy(texts)
        scores = judge(probe)
    except RewardError as error:
        raise RewardError(_report(judge, [*faults, str(error)])) from error
    if _unchanged(texts, probe):
        faults.extend(_batch_faults(judge, texts, scores))
    else:
        faults.append("score() changed the episodes that it was given: it must leave them alone")
    if faults:
        raise RewardError(_report(judge, faults))


def _report(judge: Judge, faults: list[str]) -> str:
    lines = "".join(f"\n  {i}. {fault}" for i, fault in enumerate(faults, start=1))
    return f"Reward {judge.name!r} breaks the contract in {len(faults)} point(s):{lines}"


def _attribute_faults(model: Any) -> Iterator[str]:
    if not isinstance(getattr(model, "name", ""), str):
        yield f"name must be a string, got {model.name!r}"
    if not isinstance(getattr(model, "version", ""), str):
        yield f"version must be a string, got {model.version!r}"
    if not isinstance(getattr(model, "deterministic", True), bool):
        yield f"deterministic must be True or False, got {model.deterministic!r}"


def _batch_faults(judge: Judge, texts: Episodes, scores: Scores) -> Iterator[str]:
    """Faults that show when the same texts are scored in other batches."""
    count = len(texts)
    everything = np.arange(count)
    order = np.random.default_rng(0).permutation(count)
    expected = _figures(scores)

    def differs(name: str, variant: Episodes, index: np.ndarray) -> str | None:
        """What changed in ``variant``, which holds the texts at ``index``."""
        try:
            answer = _figures(judge(variant))
        except RewardError as error:
            return f"{name}: {error}"
        if answer.keys() != expected.keys():
            return f"{name}: it reported {', '.join(expected)}, now {', '.join(answer)}"
        for figure, values in answer.items():
            before = expected[figure][index]
            wrong = np.flatnonzero(~np.isclose(values, before, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True))
            if wrong.size:
                i = int(wrong[0])
                return f"{name}: {figure} of {_shown(variant, i)} changed from {before[i]:.6g} to {values[i]:.6g}"
        return None

    # A model with hidden state or hidden randomness changes its answer to the same question; the other comparisons
    # would then only repeat that.
    again = differs("asked again", copy.deepcopy(texts), everything)
    if again is not None:
        if judge.deterministic:
            yield f"it declares itself deterministic, but {again}"
        return
    single = (differs("alone in its batch", texts.take(one), one) for one in everything[: min(count, 16), None])
    yield from filter(
        None,
        (
            differs("in another order", texts.take(order), order),
            differs("in half the batch", texts.take(everything[: count // 2]), everything[: count // 2]),
            differs("with more padding", _padded(texts, 3), everything),
            next(filter(None, single), None),
            _empty_fault(judge, texts),
        ),
    )


def _figures(scores: Scores) -> dict[str, np.ndarray]:
    """All that a judge says about a batch, by name."""
    figures = {"the score": scores.total}
    figures |= {f"the component {name!r}": part for name, part in scores.components.items()}
    return figures if scores.gold is None else figures | {"the gold score": scores.gold}


def _empty_fault(judge: Judge, texts: Episodes) -> str | None:
    """A text may be empty: nothing was written before EOS, or EOS itself has no text."""
    empty = texts.take(np.zeros(1, dtype=np.int64))
    empty = replace(
        empty, completion_ids=np.full_like(empty.completion_ids, texts.pad_id), lengths=np.zeros(1, dtype=np.int64)
    )
    try:
        judge(empty)
    except RewardError as error:
        return f"an empty text: {error}"
    return None


def _padded(texts: Episodes, columns: int) -> Episodes:
    block = np.full((len(texts), columns), texts.pad_id, dtype=np.int64)
    return replace(
        texts,
        prompt_ids=np.concatenate([block, texts.prompt_ids], axis=1),
        completion_ids=np.concatenate([texts.completion_ids, block], axis=1),
    )


def _unchanged(before: Episodes, after: Episodes) -> bool:
    arrays = ("prompt_ids", "completion_ids", "lengths", "finish_reason", "key")
    same = all(np.array_equal(getattr(before, name), getattr(after, name)) for name in arrays)
    columns = before.columns.keys() == after.columns.keys() and all(
        np.array_equal(np.asarray(before.columns[name]), np.asarray(after.columns[name])) for name in before.columns
    )
    return same and columns and before.prompts == after.prompts and before.completions == after.completions


def _shown(texts: Episodes, i: int) -> str:
    return repr(texts.completions[i])[:200]


def sample_episodes(count: int = 64, seed: int = 0) -> Episodes:
    """Finished texts of ``Reverse`` with prompts of 1 to 4 digits: random ones and, every fourth, the right answer.

    Args:
        count: how many.
        seed: of prompts and texts.
    """
    task = make_task("Reverse", length=4, num_symbols=8, min_length=1)
    engine = TextEngine(task, None, num_envs=count)
    engine.seed(range(seed, seed + count))
    engine.begin()
    rng = np.random.default_rng(seed)
    completions = rng.integers(0, task.pad_id, size=(count, task.max_new_tokens))
    prompts = engine.rows[:, : task.prompt_length]
    completions[::4] = task.oracle(prompts)[::4]
    is_eos = completions == task.vocab.eos_ids[0]
    ended = is_eos.any(axis=1)
    lengths = np.where(ended, is_eos.argmax(axis=1) + 1, task.max_new_tokens)
    completions[np.arange(task.max_new_tokens) >= lengths[:, None]] = task.pad_id
    reasons = np.array(FINISH_REASONS, dtype=object)[np.where(ended, 0, 1)]
    return episodes_from_rows(
        task,
        np.concatenate([prompts, completions], axis=1),
        lengths=lengths,
        finish_reason=reasons,
        key=rng.integers(0, 2**63, size=count).astype(np.uint64),
        prompt_index=engine.prompt_index,
    )
