"""Language models in the place of the small networks. Needs the extra ``lm`` (transformers)."""

from agents.lm.actor_critic import LMActorCritic
from agents.lm.annotators import Annotator
from agents.lm.best_of_n import sample_best_of_n
from agents.lm.dpo import DPOConfig, train_dpo
from agents.lm.preferences import (
    Ranking,
    best_accuracy,
    load_rankings,
    make_rankings,
    rank_answers,
    save_rankings,
    to_pairs,
)
from agents.lm.rest import ReSTConfig, rejection_sampling, train_rest
from agents.lm.reward_model import RewardModel, RewardModelConfig, train_reward_model
from agents.lm.sampling import Answers, sample_answers

__all__ = [
    "Annotator",
    "Answers",
    "DPOConfig",
    "LMActorCritic",
    "Ranking",
    "ReSTConfig",
    "RewardModel",
    "RewardModelConfig",
    "best_accuracy",
    "load_rankings",
    "make_rankings",
    "rank_answers",
    "rejection_sampling",
    "sample_answers",
    "sample_best_of_n",
    "save_rankings",
    "to_pairs",
    "train_dpo",
    "train_rest",
    "train_reward_model",
]
