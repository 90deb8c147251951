"""Group Relative Policy Optimization for text: PPO's surrogate, with a prompt's completions in the place of a critic.

    from agents import GRPO
    GRPO("textenvs/Reverse-v0", seed=0).learn(200_000, progress_bar=True)

Shao et al. 2024, "DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models". With a language
model and a reference, the KL is part of the loss:

    policy = LMActorCritic.from_pretrained("runs/sft")
    envs = textenvs.from_prompts("prompts.jsonl", tokenizer=policy.tokenizer, …, num_envs=64, group_size=8)
    GRPO(envs, policy=policy, reference=policy.frozen_copy(), kl_coef=0.04).learn(500_000)

Liu et al. 2025, "Understanding R1-Zero-Like Training: A Critical Perspective" ("Dr. GRPO"), found two biases in it; it
is ``GRPO(…, normalise_std=False, length_normalisation="budget")``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from agents.base import Metrics
from agents.collect import Rollout
from agents.groups import GroupAgent, GroupConfig
from agents.losses import LengthNormalisation, kl_k3, mean_of_texts, ppo_policy_loss
from agents.on_policy import Texts
from agents.returns import group_normalised_advantages


@dataclass(frozen=True)
class GRPOConfig(GroupConfig):
    """Hyper-parameters of GRPO."""

    epochs: int = 4
    """Passes over a batch (the paper's μ, there 1)."""
    normalise_std: bool = True
    """Divide advantages by the standard deviation of the group's scores; False: as in Dr. GRPO."""
    length_normalisation: LengthNormalisation = "texts"
    """How the loss averages over tokens: "texts", every text counts alike (GRPO); "tokens", every token (DAPO);
    "budget", sums over tokens divided by the length budget (Dr. GRPO)."""
    kl_coef: float = 0.0
    """With a reference: β, the weight of the KL in the loss."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length_normalisation not in ("tokens", "texts", "budget"):
            raise ValueError(
                f"length_normalisation must be 'tokens', 'texts' or 'budget'; got {self.length_normalisation!r}."
            )


@dataclass(frozen=True)
class _Batch(Texts):
    advantages: Tensor  # [B, T], the same at every token of a text
    ref_logprobs: Tensor | None  # [B, T]


class GRPO(GroupAgent):
    """Group Relative Policy Optimization.

    Equation 3 of the paper: the loss is −mean min(ρ A, clip(ρ, 1 − ε, 1 + ε) A) + β mean KL, with the ratio ρ of each
    token, A_i = (r_i − mean r) / std r over the completions of the prompt, the same at every token of the text, and the
    KL to the reference by the estimator k3 of its equation 4, through which the gradient passes.

    Args:
        env, policy, reference, **others: as for :class:`agents.groups.GroupAgent`.
    """

    Config = GRPOConfig
    loss_names = ("losses/policy_loss", "losses/entropy", "losses/approx_kl", "losses/clipfrac")

    def _update(self, rollout: Rollout, groups: np.ndarray) -> Metrics:
        config, by = self.config, self.config.length_normalisation
        weighed: Literal["tokens", "texts"] = "tokens" if by == "tokens" else "texts"
        batch, objective = self._batch(rollout, groups)
        self.policy.invalidate_cache()
        logged: list[Tensor] = []
        for minibatch in self._minibatches(batch, rollout.lengths):
            figures = torch.zeros(4, device=self.device)
            self.gradient.zero_()
            for mb, share in self._micro_batches(minibatch, weighed):
                new = self.policy.evaluate(mb.rows, mb.lengths, mb.action_masks)
                policy = ppo_policy_loss(new.logprobs, mb.logprobs, mb.advantages, mb.mask, config.clip_coef, by)
                loss = policy.loss
                if self.kl_coef and mb.ref_logprobs is not None:
                    loss = loss + self.kl_coef * mean_of_texts(kl_k3(new.logprobs, mb.ref_logprobs), mb.mask, by)
                entropy = mean_of_texts(new.entropies, mb.mask, weighed)
                if config.ent_coef:
                    loss = loss - config.ent_coef * entropy
                (share * loss).backward()
                figures += share * torch.stack([policy.loss, entropy, policy.approx_kl, policy.clipfrac]).detach()
            self._step(figures)
            logged.append(figures)
        self.num_updates += 1
        return dict(zip(self.loss_names, torch.stack(logged).mean(0).tolist(), strict=True)) | objective

    @torch.no_grad()
    def _batch(self, rollout: Rollout, groups: np.ndarray) -> tuple[_Batch, Metrics]:
        """The texts, their advantages and what the reference says of them; and what is logged about the reward."""
        texts, objective, ref_logprobs = self._texts(rollout), Metrics(), None
        if self.reference is not None:
            ref_logprobs = self._ref_logprobs(texts)
            penalties = -self.kl_coef * torch.where(texts.mask, kl_k3(texts.logprobs, ref_logprobs), 0.0)
            rewards = torch.from_numpy(rollout.rewards).to(self.device)
            objective = self._objective(rewards, penalties, texts.logprobs, ref_logprobs, texts.mask)
        scores, of_group = torch.from_numpy(rollout.scores), torch.from_numpy(groups)
        advantages = group_normalised_advantages(scores, of_group, self.config.normalise_std).to(self.device)
        spread = torch.where(texts.mask, advantages[:, None], 0.0)
        return _Batch(**vars(texts), advantages=spread, ref_logprobs=ref_logprobs), objective
