"""Proximal Policy Optimization for text: episodes are rows of tokens, a minibatch is one forward pass.

    from agents import PPO
    PPO("textenvs/Reverse-v0", seed=0).learn(200_000, progress_bar=True)

Schulman et al. 2017, "Proximal Policy Optimization Algorithms", with the implementation details that matter for
discrete actions (Huang et al. 2022, "The 37 Implementation Details of Proximal Policy Optimization").

With a language model as the policy and a frozen copy of it as the reference this is RLHF, with the details of Ziegler
et al. 2019, "Fine-Tuning Language Models from Human Preferences" (Huang et al. 2023, "The N Implementation Details of
RLHF with PPO"):

    policy = LMActorCritic.from_pretrained("runs/sft")
    PPO(envs, policy=policy, reference=policy.frozen_copy(), kl_coef=0.05).learn(500_000)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from agents.base import Metrics
from agents.collect import Rollout
from agents.losses import adapt_kl_coef, explained_variance, masked_mean, ppo_policy_loss, ppo_value_loss
from agents.on_policy import OnPolicyAgent, OnPolicyConfig, Texts
from agents.returns import gae, whiten


@dataclass(frozen=True)
class PPOConfig(OnPolicyConfig):
    """Hyper-parameters of PPO."""

    epochs: int = 4
    """Passes over a batch."""
    num_minibatches: int = 4
    """Parts, of whole episodes, that a batch is cut into; one gradient step each."""
    gamma: float = 1.0
    """Discount."""
    gae_lambda: float = 0.95
    clip_coef: float = 0.2
    """ε of the clipped surrogate."""
    value_clip: float | None = 0.2
    """How far values may move in an update, in units of the reward; None: no limit."""
    vf_coef: float = 0.5
    """Weight of the value loss."""
    ent_coef: float = 0.02
    """Weight of the entropy bonus."""
    target_kl: float | None = 0.1
    """Stop an update once a minibatch's approx_kl exceeds this; None: never."""
    whiten_advantages: bool = True
    """Scale advantages to mean 0 and variance 1 over the tokens of the batch."""
    whiten_rewards: bool = False
    """Divide rewards, KL penalty included, by their standard deviation over the tokens of the batch."""
    kl_target: float | None = None
    """KL of an episode, summed over its tokens, towards which kl_coef is adapted; None: it stays."""
    kl_horizon: int = 10_000
    """Episodes over which the adaptation takes place: kl_coef changes by a fifth in that many, at most."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_counts("epochs", "num_minibatches", "kl_horizon")
        self._check_positive("clip_coef")
        self._check_positive("value_clip", "target_kl", "kl_target", optional=True)
        self._check_shares("gamma", "gae_lambda")
        if self.kl_target is not None and not self.kl_coef > 0:
            raise ValueError("kl_target adapts kl_coef by factors: it must begin above 0.")


@dataclass(frozen=True)
class _Batch(Texts):
    values: Tensor  # [B, T] at the time of the rollout; so are the following
    advantages: Tensor
    returns: Tensor


class PPO(OnPolicyAgent):
    """PPO over a causal transformer, or over a policy of one's own.

    Args:
        env, policy, reference, **others: as for :class:`agents.on_policy.OnPolicyAgent`.
    """

    Config = PPOConfig
    loss_names = (
        "losses/policy_loss",
        "losses/value_loss",
        "losses/entropy",
        "losses/approx_kl",
        "losses/clipfrac",
        "losses/explained_variance",
    )

    def _iterate(self) -> Metrics:
        rollout, metrics = self._play()
        return metrics | self._update(rollout) if len(rollout) else metrics

    def _update(self, rollout: Rollout) -> Metrics:
        config = self.config
        batch, objective = self._batch(rollout)
        explained = explained_variance(batch.values, batch.returns, batch.mask)
        # Optimisers tell nobody that they change weights. Nothing is decoded until the update is over: forget now.
        self.policy.invalidate_cache()
        logged: list[Tensor] = []
        for minibatch in self._minibatches(batch, rollout.lengths):
            figures = torch.zeros(5, device=self.device)
            self.gradient.zero_()
            for mb, share in self._micro_batches(minibatch):
                new = self.policy.evaluate(mb.rows, mb.lengths, mb.action_masks)
                policy = ppo_policy_loss(new.logprobs, mb.logprobs, mb.advantages, mb.mask, config.clip_coef)
                value_loss = ppo_value_loss(new.values, mb.values, mb.returns, mb.mask, config.value_clip)
                entropy = masked_mean(new.entropies, mb.mask)
                loss = policy.loss + config.vf_coef * value_loss
                if config.ent_coef:  # over a large vocabulary its gradient is not cheap
                    loss = loss - config.ent_coef * entropy
                (share * loss).backward()
                parts = torch.stack([policy.loss, value_loss, entropy, policy.approx_kl, policy.clipfrac])
                figures += share * parts.detach()
            self._step(figures)
            logged.append(figures)
            if config.target_kl is not None and figures[3].item() > config.target_kl:
                break
        self.num_updates += 1
        means = [*torch.stack(logged).mean(0).tolist(), explained.item()]
        return dict(zip(self.loss_names, means, strict=True)) | objective

    @torch.no_grad()
    def _batch(self, rollout: Rollout) -> tuple[_Batch, Metrics]:
        """What an update needs of a rollout: values of the states, advantages and returns; and what is logged about the
        reward. Adapts the KL coefficient."""
        config, texts = self.config, self._texts(rollout)
        rewards, objective = self._penalised_rewards(rollout, texts)
        if self.reference is not None and config.kl_target is not None:
            kl = objective["objective/kl_k1"]
            self.kl_coef = adapt_kl_coef(self.kl_coef, kl, config.kl_target, len(texts), config.kl_horizon)
        if config.whiten_rewards:
            rewards = whiten(rewards, texts.mask, shift_mean=False)
        values, bootstrap = self._values(rollout, texts)
        advantages = gae(rewards, values, texts.lengths, bootstrap, config.gamma, config.gae_lambda)
        returns = torch.where(texts.mask, advantages + values, 0.0)
        if config.whiten_advantages:
            advantages = whiten(advantages, texts.mask)
        return _Batch(**vars(texts), values=values, advantages=advantages, returns=returns), objective
