"""Swapping the judge at run time, through any stack of wrappers."""

from __future__ import annotations

import logging
from typing import Any

from textenvs.rewards import Judge, make_reward

LOGGER = logging.getLogger("textenvs")


def set_reward(env: Any, reward: Any) -> None:
    """Judge with another reward model from the next finished text on; episodes in progress go on.

    Args:
        env: a text environment under any wrappers: scalar, native vector, ``SyncVectorEnv`` or ``AsyncVectorEnv`` of
            text environments, or one of Stable-Baselines3's vector environments.
        reward: the new judge, in any form that ``make_reward`` takes (a model object is shared by sub-environments
            that live in this process, and must be picklable for those that do not).

    Raises:
        TypeError: there is no text environment inside.
        ValueError, TypeError: the spec is not a reward, or not one for these texts; all sub-environments keep the old
            one.
    """
    # Built once before anything changes: a spec that is wrong is refused as a whole.
    judge = Judge(make_reward(reward))
    base = getattr(env, "unwrapped", env)
    if hasattr(base, "set_reward"):  # TextEnv, TextVectorEnv
        base.set_reward(judge.model)
    elif hasattr(base, "env_method"):  # Stable-Baselines3
        judge.check_spec(base.get_attr("text_spec")[0])  # here, since an error would end sub-processes
        base.env_method("set_reward", reward)
    elif hasattr(base, "envs"):  # SyncVectorEnv
        for sub_env in base.envs:
            set_reward(sub_env, judge.model)
        return
    elif hasattr(base, "call"):  # AsyncVectorEnv
        judge.check_spec(base.get_attr("text_spec")[0])
        base.call("set_reward", reward)
    else:
        raise TypeError(f"There is no text environment inside {env!r}, so there is no reward to set.")
    LOGGER.info("reward set to %s (version %s)", judge.name, judge.version)
