"""from_prompts: an environment from a list of prompts, a data set or a JSONL file."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, overload

from textenvs.env import TextEnv
from textenvs.errors import unknown_name
from textenvs.prompt_rows import OnBad
from textenvs.tasks.any_prompts import Prompts
from textenvs.tasks.dataset import OnLong
from textenvs.vector import TextVectorEnv


@overload
def from_prompts(prompts: Any, tokenizer: Any, *, num_envs: None = None, **others: Any) -> TextEnv: ...


@overload
def from_prompts(prompts: Any, tokenizer: Any, *, num_envs: int, **others: Any) -> TextVectorEnv: ...


def from_prompts(
    prompts: Any,
    tokenizer: Any,
    *,
    reward: Any = None,
    max_new_tokens: int | None = None,
    num_envs: int | None = None,
    prompt_length: int | None = None,
    split: str | None = None,
    test_fraction: float = 0.1,
    on_long: OnLong = "error",
    on_bad: OnBad = "error",
    eos_ids: Sequence[int] = (),
    name: str = "prompts",
    **env_arguments: Any,
) -> TextEnv | TextVectorEnv:
    """An environment in which every episode continues one of the given prompts.

        envs = textenvs.from_prompts("prompts.jsonl", tokenizer="gpt2", reward="hf_classifier:NAME",
                                     max_new_tokens=48, num_envs=64)

    ``gym.make("textenvs/Prompts-v0", prompts=…, tokenizer=…, …)`` makes the same environment by its id.

    Args:
        prompts: texts; chats ``[{"role": "user", "content": text}]``; rows ``{"prompt": text or chat, …}``, with a
            known answer as ``completion``, whose other columns reach the reward model; a Hugging Face data set of such
            columns; or the path of a JSONL file of any of these.
        tokenizer: a Hugging Face fast tokenizer, its hub name or folder; ``"bytes"``, ``"characters"`` or ``"words"``
            (those that occur in prompts and completions); or a :class:`textenvs.Vocab`.
        reward: the judge, in any form that :func:`textenvs.make_reward` takes. Default: ``"match"`` with the
            completions, where there are any.
        max_new_tokens: length budget T in tokens, EOS included; default that of the longest completion.
        num_envs: None for a scalar ``TextEnv``, else that many sub-environments of a ``TextVectorEnv``.
        prompt_length: P in tokens; default that of the longest prompt.
        split: None for all prompts, or ``"train"`` or ``"test"``: a hash of the text decides, so that copies of a
            prompt never stand on both sides.
        test_fraction: share of different prompts that belongs to the test split.
        on_long: ``"error"``, ``"truncate"`` (keep the last tokens) or ``"skip"`` for prompts longer than
            ``prompt_length``; how many there were is logged, and kept in ``task.num_long``.
        on_bad: ``"error"`` or ``"skip"`` for rows that cannot be read, written or tokenised; how many there were is
            logged, and kept in ``task.num_bad``.
        eos_ids: ids that end a text beside the tokenizer's own EOS.
        name: of the task, in messages.
        **env_arguments: as for ``TextEnv`` or ``TextVectorEnv``: ``render_mode``, ``info_text``, ``group_size``,
            ``autoreset_mode``.

    Raises:
        ValueError: prompts that cannot be read (with the line number), an empty set, a prompt that is too long, a
            tokenizer without EOS or (for chats) without a chat template, or a reward that does not exist.
        TypeError: prompts or a tokenizer of another kind, or an unknown argument.
    """
    env_class = TextEnv if num_envs is None else TextVectorEnv
    known = inspect.signature(env_class).parameters.keys() - {"task", "num_envs", "reward", "task_arguments"}
    for argument in env_arguments:
        if argument not in known:
            own = inspect.signature(from_prompts).parameters.keys() - {"env_arguments"}
            raise TypeError(unknown_name("argument", argument, known | own))
    task = Prompts(
        prompts=prompts,
        tokenizer=tokenizer,
        max_new_tokens=max_new_tokens,
        prompt_length=prompt_length,
        split=split,
        test_fraction=test_fraction,
        on_long=on_long,
        on_bad=on_bad,
        eos_ids=eos_ids,
        name=name,
    )
    if num_envs is None:
        return TextEnv(task, reward=reward, **env_arguments)
    return TextVectorEnv(task, num_envs, reward=reward, **env_arguments)
