"""Language models in the place of the small networks. Needs the extra ``lm`` (transformers)."""

from agents.lm.actor_critic import LMActorCritic
from agents.lm.annotators import Annotator
from agents.lm.preferences import (
    Ranking,
    best_accuracy,
    load_rankings,
    make_rankings,
    rank_answers,
    save_rankings,
    to_pairs,
)
from agents.lm.reward_model import RewardModel, RewardModelConfig, train_reward_model
from agents.lm.sampling import Answers, sample_answers

__all__ = [
    "Annotator",
    "Answers",
    "LMActorCritic",
    "Ranking",
    "RewardModel",
    "RewardModelConfig",
    "best_accuracy",
    "load_rankings",
    "make_rankings",
    "rank_answers",
    "sample_answers",
    "save_rankings",
    "to_pairs",
    "train_reward_model",
]
