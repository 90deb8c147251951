"""Text generation as reinforcement learning: token-level Gymnasium environments with swappable reward models."""

from textenvs.checking import TextEnvError, check_reward, check_text_env
from textenvs.engine import episodes_from_rows
from textenvs.env import TextEnv
from textenvs.episodes import Episodes
from textenvs.prompts import from_prompts
from textenvs.registration import list_envs, register_envs
from textenvs.reward_swap import set_reward
from textenvs.rewards import RewardError, RewardModel, list_rewards, make_reward, register_reward
from textenvs.spec import TextSpec
from textenvs.tasks import Task
from textenvs.vector import TextVectorEnv
from textenvs.vocab import Vocab
from textenvs.wrappers import BestTexts, EpisodeLog, TextObservation, as_sb3_vec_env

__version__ = "0.1.0"

__all__ = [
    "BestTexts",
    "EpisodeLog",
    "Episodes",
    "RewardError",
    "RewardModel",
    "Task",
    "TextEnv",
    "TextEnvError",
    "TextObservation",
    "TextSpec",
    "TextVectorEnv",
    "Vocab",
    "as_sb3_vec_env",
    "check_reward",
    "check_text_env",
    "episodes_from_rows",
    "from_prompts",
    "list_envs",
    "list_rewards",
    "make_reward",
    "register_reward",
    "set_reward",
]

register_envs()
