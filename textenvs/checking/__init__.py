"""Checks that authors run on their own work. A fault is reported in words, all of them at once."""

from textenvs.checking.envs import TextEnvError, check_text_env
from textenvs.checking.rewards import check_reward, sample_episodes

__all__ = ["TextEnvError", "check_reward", "check_text_env", "sample_episodes"]
