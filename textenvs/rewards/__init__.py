"""Reward models: who judges the text."""

from textenvs.rewards import (
    array_rules,
    cache,
    combinators,
    countdown,
    form_rules,
    http,
    huggingface,
    learned,
    readability,
    reasoning_gym,
    rules,
    sentiment,
    text_rules,
    time_limit,
    walks,
)
from textenvs.rewards.base import Judge, RewardError, RewardModel, Scores
from textenvs.rewards.combinators import fit_normalisation
from textenvs.rewards.functions import FunctionReward
from textenvs.rewards.registry import list_rewards, make_reward, register_reward

__all__ = [
    "FunctionReward",
    "Judge",
    "RewardError",
    "RewardModel",
    "Scores",
    "array_rules",
    "cache",
    "combinators",
    "countdown",
    "fit_normalisation",
    "form_rules",
    "http",
    "huggingface",
    "learned",
    "list_rewards",
    "make_reward",
    "readability",
    "reasoning_gym",
    "register_reward",
    "rules",
    "sentiment",
    "text_rules",
    "time_limit",
    "walks",
]
