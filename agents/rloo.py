"""REINFORCE Leave-One-Out for text: a prompt's completions are each other's baseline, and a whole text is one action.

    from agents import RLOO
    RLOO("textenvs/Reverse-v0", seed=0).learn(200_000, progress_bar=True)

Ahmadian et al. 2024, "Back to Basics: Revisiting REINFORCE-Style Optimization for Learning from Human Feedback in
LLMs", after Kool et al. 2019, "Buy 4 REINFORCE Samples, Get a Baseline for Free!". There is no critic. With a language
model and a reference, the KL is part of the score of a text:

    policy = LMActorCritic.from_pretrained("runs/sft")
    envs = textenvs.from_prompts("prompts.jsonl", tokenizer=policy.tokenizer, …, num_envs=64, group_size=4)
    RLOO(envs, policy=policy, reference=policy.frozen_copy(), kl_coef=0.05).learn(500_000)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from agents.base import Metrics
from agents.collect import Rollout
from agents.groups import GroupAgent, GroupConfig
from agents.losses import mean_of_texts, ppo_policy_loss
from agents.on_policy import Texts
from agents.returns import leave_one_out_advantages


@dataclass(frozen=True)
class RLOOConfig(GroupConfig):
    """Hyper-parameters of RLOO."""


@dataclass(frozen=True)
class _Batch(Texts):
    advantages: Tensor  # [B]


class RLOO(GroupAgent):
    """REINFORCE Leave-One-Out.

    The gradient is that of −(1/B) Σ_i A_i log π(y_i|x_i), with log π(y|x) the sum over the tokens of y and
    A_i = R_i − (1/(k − 1)) Σ_{j ≠ i} R_j over the other completions of the prompt (equation 8 of the paper), where
    R = score − β Σ_t log(π/π_ref) (its equation 3). A batch serves several steps, and some texts were begun under older
    weights, so log π is replaced by the clipped ratio of the whole text, which has the same gradient at ratio 1.

    Args:
        env, policy, reference, **others: as for :class:`agents.groups.GroupAgent`.
    """

    Config = RLOOConfig
    loss_names = ("losses/policy_loss", "losses/entropy", "losses/approx_kl", "losses/clipfrac")

    def _update(self, rollout: Rollout, groups: np.ndarray) -> Metrics:
        config = self.config
        batch, objective = self._batch(rollout, groups)
        self.policy.invalidate_cache()
        logged: list[Tensor] = []
        for minibatch in self._minibatches(batch, rollout.lengths):
            figures = torch.zeros(4, device=self.device)
            self.gradient.zero_()
            for mb, share in self._micro_batches(minibatch, by="texts"):
                new = self.policy.evaluate(mb.rows, mb.lengths, mb.action_masks)
                # A text is one action: [B, 1] instead of [B, T]. (Everything in the padding is 0.)
                logprobs, old_logprobs = new.logprobs.sum(1, keepdim=True), mb.logprobs.sum(1, keepdim=True)
                every = torch.ones_like(logprobs, dtype=torch.bool)
                policy = ppo_policy_loss(logprobs, old_logprobs, mb.advantages[:, None], every, config.clip_coef)
                entropy = mean_of_texts(new.entropies, mb.mask, "texts")
                loss = policy.loss - config.ent_coef * entropy if config.ent_coef else policy.loss
                (share * loss).backward()
                figures += share * torch.stack([policy.loss, entropy, policy.approx_kl, policy.clipfrac]).detach()
            self._step(figures)
            logged.append(figures)
        self.num_updates += 1
        return dict(zip(self.loss_names, torch.stack(logged).mean(0).tolist(), strict=True)) | objective

    @torch.no_grad()
    def _batch(self, rollout: Rollout, groups: np.ndarray) -> tuple[_Batch, Metrics]:
        """The texts and their advantages, and what is logged about the reward."""
        texts = self._texts(rollout)
        rewards, objective = self._penalised_rewards(rollout, texts)
        # On the CPU, where sums have one order.
        advantages = leave_one_out_advantages(rewards.sum(1).cpu(), torch.from_numpy(groups)).to(self.device)
        return _Batch(**vars(texts), advantages=advantages), objective
