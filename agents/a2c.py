"""Advantage Actor-Critic for text: one gradient step for each batch, along the policy gradient with n-step advantages.

    from agents import A2C
    A2C("textenvs/Reverse-v0", seed=0).learn(200_000, progress_bar=True)

Mnih et al. 2016, "Asynchronous Methods for Deep Reinforcement Learning", in its synchronous form: sub-environments in
the place of asynchronous workers. It is the baseline with a critic; PPO is what became of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from agents.base import Metrics
from agents.collect import Rollout
from agents.losses import explained_variance, masked_mean, policy_gradient_loss, ppo_value_loss
from agents.on_policy import OnPolicyAgent, OnPolicyConfig, Texts
from agents.returns import n_step_advantages


@dataclass(frozen=True)
class A2CConfig(OnPolicyConfig):
    """Hyper-parameters of A2C."""

    num_envs: int = 16
    """Sub-environments, where the environment is given as an id: few, since every batch serves one step."""
    n_step: int | None = 5
    """Rewards that an advantage looks at before it trusts the critic (the paper's t_max); None: all to the end."""
    gamma: float = 1.0
    """Discount."""
    vf_coef: float = 0.5
    """Weight of the value loss."""
    ent_coef: float = 0.01
    """Weight of the entropy bonus."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_counts("n_step", optional=True)
        self._check_shares("gamma")


@dataclass(frozen=True)
class _Batch(Texts):
    values: Tensor  # [B, T] before the step; so are the following
    advantages: Tensor
    returns: Tensor


class A2C(OnPolicyAgent):
    """Advantage Actor-Critic.

    The loss is −mean log π(a|s) A + c_v ½ mean (V(s) − G)² − c_e mean H(π(·|s)) over tokens, with the n-step return
    G_t = Σ_{i < n} γ^i r_{t+i} + γ^n V(s_{t+n}) and A = G − V(s) (section 4 and algorithm S3 of the paper).

    Args:
        env, policy, reference, **others: as for :class:`agents.on_policy.OnPolicyAgent`.
    """

    Config = A2CConfig
    loss_names = ("losses/policy_loss", "losses/value_loss", "losses/entropy", "losses/explained_variance")

    def _iterate(self) -> Metrics:
        rollout, metrics = self._play()
        return metrics | self._update(rollout) if len(rollout) else metrics

    def _update(self, rollout: Rollout) -> Metrics:
        config = self.config
        batch, objective = self._batch(rollout)
        self.policy.invalidate_cache()
        figures = torch.zeros(3, device=self.device)
        self.gradient.zero_()
        for mb, share in self._micro_batches(batch):
            new = self.policy.evaluate(mb.rows, mb.lengths, mb.action_masks)
            policy_loss = policy_gradient_loss(new.logprobs, mb.advantages, mb.mask)
            value_loss = ppo_value_loss(new.values, mb.values, mb.returns, mb.mask, value_clip=None)
            entropy = masked_mean(new.entropies, mb.mask)
            loss = policy_loss + config.vf_coef * value_loss
            if config.ent_coef:
                loss = loss - config.ent_coef * entropy
            (share * loss).backward()
            figures += share * torch.stack([policy_loss, value_loss, entropy]).detach()
        self._step(figures)
        self.gradient_samples += int(rollout.lengths.sum())
        self.num_updates += 1
        explained = explained_variance(batch.values, batch.returns, batch.mask)
        return dict(zip(self.loss_names, [*figures.tolist(), explained.item()], strict=True)) | objective

    @torch.no_grad()
    def _batch(self, rollout: Rollout) -> tuple[_Batch, Metrics]:
        """The texts, values of their states, advantages and returns; and what is logged about the reward."""
        config, texts = self.config, self._texts(rollout)
        rewards, objective = self._penalised_rewards(rollout, texts)
        values, bootstrap = self._values(rollout, texts)
        n = min(config.n_step or rewards.shape[1], rewards.shape[1])
        advantages = n_step_advantages(rewards, values, texts.lengths, bootstrap, n, config.gamma)
        returns = torch.where(texts.mask, advantages + values, 0.0)
        return _Batch(**vars(texts), values=values, advantages=advantages, returns=returns), objective
