"""Proximal Policy Optimization for text: episodes are rows of tokens, a minibatch is one forward pass.

    from agents import PPO
    PPO("textenvs/Reverse-v0", seed=0).learn(200_000, progress_bar=True)

Schulman et al. 2017, "Proximal Policy Optimization Algorithms", with the implementation details that matter for
discrete actions (Huang et al. 2022, "The 37 Implementation Details of Proximal Policy Optimization").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.base import Agent, AgentConfig, Metrics, episode_metrics
from agents.checkpoint import Tree, load_optimizer_state, module_state, optimizer_state, to_tensors
from agents.collect import Rollout
from agents.losses import explained_variance, masked_mean, ppo_policy_loss, ppo_value_loss
from agents.networks import TransformerConfig, clip_gradient, flatten_parameters
from agents.policies import TransformerPolicy
from agents.returns import gae, step_mask, whiten


@dataclass(frozen=True)
class PPOConfig(AgentConfig):
    """Hyper-parameters of PPO."""

    num_steps: int | None = None
    """Steps of a rollout; None: the length budget of the task, so a batch is about ``num_envs`` episodes."""
    epochs: int = 4
    """Passes over a batch."""
    num_minibatches: int = 4
    """Parts, of whole episodes, that a batch is cut into; one gradient step each."""
    learning_rate: float = 1e-3
    anneal_timesteps: int | None = None
    """Timesteps over which the learning rate falls linearly to 0; None: it stays."""
    gamma: float = 1.0
    """Discount."""
    gae_lambda: float = 0.95
    clip_coef: float = 0.2
    """ε of the clipped surrogate."""
    value_clip: float | None = 0.2
    """How far values may move in an update, in units of the reward; None: no limit."""
    vf_coef: float = 0.5
    """Weight of the value loss."""
    ent_coef: float = 0.01
    """Weight of the entropy bonus."""
    max_grad_norm: float = 0.5
    target_kl: float | None = None
    """Stop an update once a minibatch's approx_kl exceeds this; None: never."""
    whiten_advantages: bool = True
    """Scale advantages to mean 0 and variance 1 over the tokens of the batch."""
    num_layers: int = 2
    width: int = 64
    num_heads: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("epochs", "num_minibatches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}.")
        for name in ("num_steps", "anneal_timesteps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be None or at least 1; got {value}.")
        for name in ("learning_rate", "clip_coef", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive; got {getattr(self, name)}.")
        for name in ("value_clip", "target_kl"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be None or positive; got {value}.")
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1; got {getattr(self, name)}.")
        TransformerConfig(self.num_layers, self.width, self.num_heads)


@dataclass(frozen=True)
class _Batch:
    """Episodes as tensors; indexing takes some of them."""

    rows: Tensor  # [B, L]
    lengths: Tensor  # [B]
    mask: Tensor  # [B, T] True at generated tokens; so are the following
    logprobs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    action_masks: Tensor | None  # [B, T, V]

    def __getitem__(self, which: Tensor | slice) -> _Batch:
        parts: dict[str, Any] = {name: None if x is None else x[which] for name, x in vars(self).items()}
        return _Batch(**parts)


class PPO(Agent):
    """PPO over a causal transformer with a policy head and a value head."""

    Config = PPOConfig

    def _build(self) -> None:
        config, spec = self.config, self.text_spec
        self.policy = TransformerPolicy(
            spec.pad_id,
            spec.prompt_length,
            spec.max_new_tokens,
            TransformerConfig(config.num_layers, config.width, config.num_heads),
            seed=self.seed,
            device=self.device,
        )
        self.parameters, self.gradient = flatten_parameters(self.policy)
        self.optimizer = torch.optim.Adam([self.parameters], config.learning_rate, eps=1e-5, fused=True)

    def _iterate(self) -> Metrics:
        config = self.config
        if config.anneal_timesteps is not None:
            remaining = max(0.0, 1 - self.num_timesteps / config.anneal_timesteps)
            self.optimizer.param_groups[0]["lr"] = config.learning_rate * remaining
        rollout = self._collect(config.num_steps or self.text_spec.max_new_tokens)
        losses = self._update(rollout) if len(rollout) else dict.fromkeys(_LOSSES, float("nan"))
        return episode_metrics(rollout) | losses

    def _update(self, rollout: Rollout) -> Metrics:
        config = self.config
        batch = self._batch(rollout)
        explained = explained_variance(batch.values, batch.returns, batch.mask)
        # Optimisers tell nobody that they change weights. Nothing is decoded until the update is over: forget now.
        self.policy.invalidate_cache()
        logged: list[Tensor] = []
        for mb in self._minibatches(batch, rollout.lengths):
            new = self.policy.evaluate(mb.rows, mb.lengths, mb.action_masks)
            policy = ppo_policy_loss(new.logprobs, mb.logprobs, mb.advantages, mb.mask, config.clip_coef)
            value_loss = ppo_value_loss(new.values, mb.values, mb.returns, mb.mask, config.value_clip)
            entropy = masked_mean(new.entropies, mb.mask)
            loss = policy.loss + config.vf_coef * value_loss - config.ent_coef * entropy

            self.gradient.zero_()
            loss.backward()
            clip_gradient(self.gradient, config.max_grad_norm)
            self.optimizer.step()

            logged.append(torch.stack([policy.loss, value_loss, entropy, policy.approx_kl, policy.clipfrac]).detach())
            if config.target_kl is not None and policy.approx_kl.item() > config.target_kl:
                break
        self.num_updates += 1
        means = [*torch.stack(logged).mean(0).tolist(), explained.item()]
        return dict(zip(_LOSSES, means, strict=True))

    @torch.no_grad()
    def _batch(self, rollout: Rollout) -> _Batch:
        """What an update needs of a rollout: values under the current weights, advantages and returns."""
        config = self.config
        rows, lengths, logprobs, terminated, rewards = (
            torch.from_numpy(x).to(self.device)
            for x in (rollout.rows, rollout.lengths, rollout.logprobs, rollout.terminated, rollout.rewards)
        )
        action_masks = None
        if rollout.action_masks is not None:
            action_masks = torch.from_numpy(rollout.action_masks).to(self.device)
        mask = step_mask(lengths, self.text_spec.max_new_tokens)
        values, next_values = self.policy.values(rows, lengths)
        # A text that was cut off would have gone on from its last state; after one that ended nothing comes.
        bootstrap = torch.where(terminated, 0.0, next_values)
        advantages = gae(rewards, values, lengths, bootstrap, config.gamma, config.gae_lambda)
        returns = torch.where(mask, advantages + values, 0.0)
        if config.whiten_advantages:
            advantages = whiten(advantages, mask)
        return _Batch(rows, lengths, mask, logprobs, values, advantages, returns, action_masks)

    def _minibatches(self, batch: _Batch, lengths: np.ndarray) -> Iterator[_Batch]:
        """Whole episodes, in a new order every epoch."""
        size = len(lengths)
        bounds = np.linspace(0, size, min(self.config.num_minibatches, size) + 1).astype(int).tolist()
        for _ in range(self.config.epochs):
            order = self.rng.permutation(size)
            shuffled = batch[torch.from_numpy(order).to(self.device)]  # once; slices of it cost nothing
            for start, stop in pairwise(bounds):
                self.gradient_samples += int(lengths[order[start:stop]].sum())
                yield shuffled[start:stop]

    def _act(self, obs: np.ndarray, action_mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        return self.policy.act(obs, action_mask)

    def _predict(self, obs: np.ndarray, action_mask: np.ndarray | None, deterministic: bool) -> np.ndarray:
        return self.policy.predict(obs, action_mask, deterministic)

    def seed_prediction(self, seed: int) -> None:
        """Restart the random stream of sampled predictions."""
        self.policy.predict_generator.manual_seed(seed)

    def _get_state(self) -> Tree:
        return {
            "network": module_state(self.policy),
            "optimizer": optimizer_state(self.optimizer),
            "generators": {
                "rollout": self.policy.generator.get_state(),
                "predict": self.policy.predict_generator.get_state(),
            },
        }

    def _set_state(self, state: Tree) -> None:
        self.policy.load_state_dict(to_tensors(state["network"]))
        load_optimizer_state(self.optimizer, state.get("optimizer", {}))
        generators = to_tensors(state["generators"])
        self.policy.generator.set_state(generators["rollout"])
        self.policy.predict_generator.set_state(generators["predict"])
        self.policy.invalidate_cache()


_LOSSES = (
    "losses/policy_loss",
    "losses/value_loss",
    "losses/entropy",
    "losses/approx_kl",
    "losses/clipfrac",
    "losses/explained_variance",
)
