"""Texts that somebody else wrote, made ready for a replay buffer: an oracle's, people's, other agents'.

    episodes = oracle_episodes(envs.unwrapped.task, 100, seed=0)
    agent.replay.add_episodes(episodes, task=envs.unwrapped.task)

What is known of a text besides its tokens (why it ended, which actions were legal) is computed from them.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from agents.collect import Rollout
from textenvs import Episodes, Task, episodes_from_rows, make_reward
from textenvs.rewards import Judge
from textenvs.rng import PROMPT_STREAM, episode_keys, stream_base
from textenvs.spec import TextSpec


def oracle_episodes(task: Task, count: int, seed: int) -> Episodes:
    """``count`` texts of a task's oracle, to prompts of its split; the same seed gives the same ones."""
    if count < 1:
        raise ValueError(f"count must be at least 1; got {count}.")
    keys = episode_keys(stream_base(np.array([seed], dtype=np.uint64), PROMPT_STREAM), np.arange(count))
    prompt_ids, index = task.draw(keys)
    rows = np.concatenate([prompt_ids, task.oracle(prompt_ids)], axis=1)
    lengths = (rows[:, task.prompt_length :] != task.pad_id).sum(1)
    last = rows[np.arange(count), task.prompt_length + lengths - 1]
    reasons = np.where(np.isin(last, task.vocab.eos_ids), "stop", "length").astype(object)
    return episodes_from_rows(task, rows, lengths=lengths, finish_reason=reasons, key=keys, prompt_index=index)


def read_demonstrations(path: str | Path, task: Task) -> tuple[Episodes, np.ndarray]:
    """Texts from a JSONL file: one object a line, with ``completion``, ``prompt`` where the task has prompts, and
    ``score`` where it is known.

    A text is ended by EOS where the task has one and there is room; where it has none, it must fill the budget.

    Returns:
        The texts, and their scores float32 [B], NaN where a line has none (``add_episodes`` lets them be judged).

    Raises:
        ValueError: a line that is not such an object, or a text that this task's environment does not write; the
            message names the line.
    """
    path = Path(path)
    rows, scores = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            rows.append(_read_row(json.loads(line), task))
            scores.append(_read_score(json.loads(line).get("score")))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    if not rows:
        raise ValueError(f"{path} holds no texts.")
    stacked = np.stack(rows)
    lengths = (stacked[:, task.prompt_length :] != task.pad_id).sum(1)
    last = stacked[np.arange(len(rows)), task.prompt_length + lengths - 1]
    episodes = episodes_from_rows(
        task,
        stacked,
        lengths=lengths,
        finish_reason=np.where(np.isin(last, task.vocab.eos_ids), "stop", "length").astype(object),
        key=episode_keys(stream_base(np.zeros(1, dtype=np.uint64), PROMPT_STREAM), np.arange(len(rows))),
        prompt_index=np.full(len(rows), -1),
    )
    return episodes, np.array(scores, dtype=np.float32)


def _read_row(item: Any, task: Task) -> np.ndarray:
    if not isinstance(item, dict) or not isinstance(item.get("completion"), str):
        raise ValueError('a line is an object with a "completion", and a "prompt" and a "score" where there is one.')
    prompt = np.zeros(0, dtype=np.int64)
    if task.has_prompts:
        if not isinstance(item.get("prompt"), str):
            raise ValueError(f'{task.name} has prompts: the line needs a "prompt".')
        prompt = task.encode_prompt(item["prompt"])
    ids = list(task.vocab.encode(item["completion"]))
    budget, eos_ids = task.max_new_tokens, task.vocab.eos_ids
    if len(ids) > budget or (len(ids) < budget and not eos_ids):
        needed = f"at most {budget}" if eos_ids else f"exactly {budget}, as nothing ends a text of {task.name} earlier"
        raise ValueError(f"the completion has {len(ids)} tokens; {needed} are possible.")
    if len(ids) < budget:
        ids.append(eos_ids[0])
    return np.concatenate([prompt, ids, np.full(budget - len(ids), task.pad_id)]).astype(np.int64)


def _read_score(score: Any) -> float:
    if score is None:
        return math.nan
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        raise ValueError(f'"score" must be a finite number; got {score!r}.')
    return float(score)


def rollout_from_episodes(
    episodes: Episodes,
    text_spec: TextSpec,
    scores: np.ndarray | None = None,
    task: Task | None = None,
    reward: Any = None,
) -> Rollout:
    """Finished texts in the form in which a collector hands out played ones. Their log-probabilities are NaN.

    Args:
        episodes: B texts.
        text_spec: shapes of the environment that they are for.
        scores: [B]; where they are NaN, and where there are none, the texts are judged.
        task: needed for judging, and for tasks with masks.
        reward: the judge, any form of reward spec; None: the task's own.

    Raises:
        ValueError: the environment could not have brought forth such a text (another vocabulary, illegal tokens, EOS in
            its middle or no end), or something is missing to judge it; the message names the text.
        RewardError: the reward model failed.
    """
    _check_episodes(episodes, text_spec)
    count, budget = len(episodes), text_spec.max_new_tokens
    lengths = episodes.lengths.astype(np.int64)
    inside = np.arange(budget) < lengths[:, None]
    completions = np.full((count, budget), text_spec.pad_id, dtype=np.int64)
    width = min(budget, episodes.completion_ids.shape[1])
    completions[:, :width] = episodes.completion_ids[:, :width]
    rows = np.concatenate([episodes.prompt_ids, np.where(inside, completions, text_spec.pad_id)], axis=1)
    action_masks = None
    if text_spec.has_masks:
        if task is None:
            raise ValueError("This environment has illegal actions: pass task=, which knows them.")
        action_masks = masks_of_rows(task, rows, lengths)
        taken = np.take_along_axis(action_masks, np.where(inside, completions, 0)[..., None], -1)[..., 0]
        if (~taken & inside).any():
            i, t = np.argwhere(~taken & inside)[0]
            raise ValueError(f"Token {t} of text {i}, {_token(text_spec, completions[i, t])}, is illegal there.")
    scores = np.full(count, np.nan) if scores is None else np.asarray(scores, dtype=np.float64)
    if scores.shape != (count,) or np.isinf(scores).any():
        raise ValueError(f"scores must be {count} finite numbers (NaN: to be judged); got {scores.shape}.")
    missing = np.isnan(scores)
    judged_by = None
    if missing.any():
        if task is None:
            raise ValueError(f"{missing.sum()} of {count} texts have no score: pass task=, by which they are judged.")
        judge = Judge(make_reward(task.default_reward if reward is None else reward))
        judge.check_spec(text_spec)
        scores[missing] = judge(episodes.take(missing)).total
        judged_by = judge.identity if missing.all() else None
    rewards = np.zeros((count, budget), dtype=np.float32)
    rewards[np.arange(count), lengths - 1] = scores
    return Rollout(
        rows=rows,
        lengths=lengths,
        rewards=rewards,
        logprobs=np.where(inside, np.nan, 0.0).astype(np.float32),
        terminated=np.ones(count, dtype=bool),
        truncated=np.zeros(count, dtype=bool),
        action_masks=action_masks,
        sub_envs=np.full(count, -1),
        keys=episodes.key.astype(np.uint64),
        prompt_index=np.full(count, -1),
        timesteps=int(lengths.sum()),
        judge=judged_by,
    )


def masks_of_rows(task: Task, rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """[B, T, V] bool, True where an action was legal, computed by the task; False behind the end of a text.

    Args:
        rows: [B, L] final observations.
        lengths: [B].
    """
    masks = np.zeros((len(rows), task.max_new_tokens, task.pad_id), dtype=bool)
    for t in range(int(lengths.max(initial=0))):
        there = np.flatnonzero(lengths > t)
        before = rows[there]
        before[:, task.prompt_length + t :] = task.pad_id
        masks[there, t] = task.action_masks(before, np.full(len(there), t))
    return masks


def finish_reasons(
    rows: np.ndarray, lengths: np.ndarray, text_spec: TextSpec, action_masks: np.ndarray | None
) -> np.ndarray:
    """How texts ended, an object array [B]: their last tokens say it, and the masks [B, T, V] where there are any."""
    each = np.arange(len(rows))
    last = rows[each, text_spec.prompt_length + lengths - 1]
    reasons = np.where(np.isin(last, text_spec.eos_ids), "stop", "length").astype(object)
    if action_masks is not None:
        reasons[~action_masks[each, lengths - 1, last]] = "invalid"
    return reasons


def _check_episodes(episodes: Episodes, spec: TextSpec) -> None:
    """Refuse texts that no episode of this environment could be."""
    if episodes.vocab.tokens != spec.vocab.tokens:
        raise ValueError(f"The texts are of another vocabulary, {episodes.vocab!r}; here it is {spec.vocab!r}.")
    if episodes.prompt_ids.shape[1] != spec.prompt_length:
        raise ValueError(
            f"The texts have prompts of {episodes.prompt_ids.shape[1]} tokens, this environment {spec.prompt_length}."
        )
    for i, (length, ids) in enumerate(zip(episodes.lengths.tolist(), episodes.completion_ids, strict=True)):
        if not 1 <= length <= min(spec.max_new_tokens, len(ids)):
            raise ValueError(f"Text {i} has {length} tokens; from 1 to {spec.max_new_tokens} are possible.")
        text = ids[:length]
        bad = (text < 0) | (text >= spec.num_tokens)
        if bad.any():
            t = int(bad.argmax())
            raise ValueError(f"Token {t} of text {i} is {text[t]}; tokens lie in 0 … {spec.num_tokens - 1}.")
        ends = np.isin(text, spec.eos_ids)
        if ends[:-1].any():
            raise ValueError(f"Text {i} goes on after {_token(spec, text[int(ends.argmax())])}, which ends a text.")
        if length < spec.max_new_tokens and not ends[-1]:
            raise ValueError(
                f"Text {i} does not end: it has {length} of {spec.max_new_tokens} tokens, and the last one is "
                f"{_token(spec, text[-1])}, not {' or '.join(_token(spec, e) for e in spec.eos_ids) or 'an EOS'}."
            )


def _token(spec: TextSpec, token_id: int) -> str:
    return repr(spec.vocab.tokens[int(token_id)])
