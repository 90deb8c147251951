"""Agents that write text, and the floor and ceiling they are measured between."""

try:
    import safetensors  # noqa: F401
    import torch  # noqa: F401
except ImportError as error:
    raise ImportError(f"The agents need their extra: pip install 'textenvs[agents]'. ({error})") from error

from agents.a2c import A2C
from agents.base import Agent
from agents.baselines import OracleAgent, RandomAgent
from agents.checkpoint import CheckpointError
from agents.dqn import DQN
from agents.evaluate_callback import EvaluateCallback
from agents.evaluation import Evaluation, evaluate_agent
from agents.grpo import GRPO
from agents.lm import LMActorCritic
from agents.ppo import PPO
from agents.reinforce import REINFORCE
from agents.return_decomposition import ReturnDecomposition
from agents.rloo import RLOO
from agents.sac import DiscreteSAC
from agents.soft_q import SoftQ

__all__ = [
    "A2C",
    "DQN",
    "GRPO",
    "PPO",
    "REINFORCE",
    "RLOO",
    "Agent",
    "CheckpointError",
    "DiscreteSAC",
    "EvaluateCallback",
    "Evaluation",
    "LMActorCritic",
    "OracleAgent",
    "RandomAgent",
    "ReturnDecomposition",
    "SoftQ",
    "evaluate_agent",
]
