"""Stable-Baselines3's PPO and DQN on text environments, as the peers that our agents are measured against."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor

from agents.networks import CausalTransformer, TransformerConfig
from textenvs import TextVectorEnv, as_sb3_vec_env
from textenvs.spec import TextSpec


class TransformerExtractor(BaseFeaturesExtractor):
    """The state of our causal transformer, as Stable-Baselines3's features extractor.

    Stable-Baselines3 gives it the observation one-hot encoded, one prefix at a time; it turns that back into
    token ids and reads the state before the next token, the same vector that our own agents put their heads
    on.

    Args:
        observation_space: of a text environment.
        text_spec: its shapes.
        config: sizes of the transformer.
        seed: of its initial weights.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        text_spec: TextSpec,
        config: TransformerConfig | None = None,
        seed: int = 0,
    ) -> None:
        config = config or TransformerConfig()
        super().__init__(observation_space, features_dim=config.width)
        self.prompt_length, self.pad_id, self.row_length = (
            text_spec.prompt_length,
            text_spec.pad_id,
            text_spec.row_length,
        )
        weights = torch.Generator().manual_seed(seed)
        self.transformer = CausalTransformer(text_spec.pad_id, text_spec.row_length, config, weights)

    def forward(self, observations: Tensor) -> Tensor:
        """Features [B, width] of one-hot observations [B, L · (V + 1)]."""
        rows = observations.view(-1, self.row_length, self.pad_id + 1).argmax(-1)
        written = (rows[:, self.prompt_length :] != self.pad_id).sum(1)
        # A finished text has no next token; its state is asked for, and dropped, by the bootstrap of a
        # terminal step.
        column = (self.prompt_length + written).clamp(max=self.row_length - 1)
        hidden = self.transformer(rows)
        return hidden[torch.arange(len(rows), device=rows.device), column]


def transformer_policy(text_spec: TextSpec, seed: int = 0) -> dict[str, Any]:
    """``policy_kwargs`` for one shared transformer with linear heads, as our agents have it."""
    return {
        "features_extractor_class": TransformerExtractor,
        "features_extractor_kwargs": {"text_spec": text_spec, "seed": seed},
        "net_arch": [],
    }


def transformer_ppo(envs: TextVectorEnv, *, num_steps: int, epochs: int, num_minibatches: int, **arguments: Any) -> PPO:
    """Stable-Baselines3's PPO with our transformer, on the native vector environment.

    Args:
        envs: the environment.
        num_steps: steps of a rollout.
        epochs: passes over it.
        num_minibatches: parts that it is cut into.
        arguments: further arguments of Stable-Baselines3's constructor.
    """
    return PPO(
        "MlpPolicy",
        as_sb3_vec_env(envs),
        n_steps=num_steps,
        batch_size=num_steps * envs.num_envs // num_minibatches,
        n_epochs=epochs,
        policy_kwargs=transformer_policy(envs.text_spec),
        device="cpu",
        **arguments,
    )


def transformer_dqn(
    envs: TextVectorEnv,
    *,
    num_steps: int,
    updates: int,
    batch_size: int,
    learning_starts: int,
    **arguments: Any,
) -> DQN:
    """Stable-Baselines3's DQN with our transformer, on the native vector environment.

    Args:
        envs: the environment.
        num_steps: steps between two phases of learning.
        updates: gradient steps in each.
        batch_size: transitions of a minibatch.
        learning_starts: timesteps before the first gradient step.
        arguments: further arguments of Stable-Baselines3's constructor.
    """
    return DQN(
        "MlpPolicy",
        as_sb3_vec_env(envs),
        train_freq=num_steps,
        gradient_steps=updates,
        batch_size=batch_size,
        learning_starts=learning_starts,
        buffer_size=100_000,
        policy_kwargs=transformer_policy(envs.text_spec),
        device="cpu",
        **arguments,
    )
