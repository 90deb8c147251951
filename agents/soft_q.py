"""Soft Q-learning for text: the logits of the policy are Q / τ, learnt by soft Bellman backups and by path consistency.

    from agents import SoftQ
    SoftQ("textenvs/Reverse-v0", seed=0).learn(200_000, progress_bar=True)

Guo et al. 2021, "Efficient (Soft) Q-Learning for Text Generation with Limited Good Data". One network is both: its
outputs over the temperature are the logits, so V(s) = τ log Σ_a exp(Q(s, a) / τ) and log π(a|s) = (Q(s, a) − V(s)) / τ.
Two losses, each a switch: the one-step soft Bellman error, which carries the score back by one token for every update
of the target network, and path consistency over every suffix of an episode, which carries it to all tokens at once.

With a language model and a frozen copy of it this is RLHF from a replay buffer: the model's logits are the policy,
pulled towards π_ref · exp(Q / τ), where τ is what kl_coef is to PPO.

    SoftQ(envs, policy=policy, reference=policy.frozen_copy(), tau=0.15, learning_rate=5e-4).learn(500_000)
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from agents.checkpoint import Tree, module_state, to_tensors
from agents.losses import masked_mean
from agents.networks import flatten_parameters
from agents.off_policy import Batch, OffPolicyConfig, one_hot_best
from agents.off_policy_losses import (
    consistency_errors,
    consistency_losses,
    log_policy,
    path_consistency_loss,
    policy_entropy,
    soft_values,
    truncated_weights,
)
from agents.policies import Evaluation
from agents.policy_replay import PolicyReplayAgent
from agents.targets import monte_carlo_returns, n_step_targets, take, td_loss


@dataclass(frozen=True)
class SoftQConfig(OffPolicyConfig):
    """Hyper-parameters of SoftQ."""

    tau: float = 0.02
    """Temperature τ of the policy and of the soft maximum, in units of the reward."""
    bellman: bool = True
    """Learn from the one-step soft Bellman error."""
    path_consistency: bool = True
    """Learn from path consistency over every suffix."""
    path_coef: float = 1.0
    """Weight of path consistency where both are on."""
    target_tau: float = 0.1
    """How far the target network moves towards the online one after each gradient step."""
    path_lambda: float = 0.95
    """With a policy of one's own: λ of the paths, whose consistency is asked. 0: single steps; 1: from every token to
    the end of the text."""
    importance_weights: bool = True
    """With a policy of one's own: a token counts for as much of the text up to it as the policy would still write, 1 at
    most."""
    exact_kl: bool = False
    """With a policy of one's own: the KL of every replayed state over all tokens, for which the reference reads each
    minibatch. False: by the tokens that were written, which it reads once. On for language models."""
    vf_coef: float = 1.0
    """With a policy of one's own: weight of the value loss."""
    lower_bound: bool = True
    """No Bellman target below the return observed after the same prefix, which can be had again. Switch it off where
    scores are noisy. (False in the paper.)"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_positive("tau", "path_coef", "vf_coef")
        self._check_shares("path_lambda")
        if not 0 < self.target_tau <= 1:
            raise ValueError(f"target_tau must be above 0 and at most 1; got {self.target_tau}.")
        if not (self.bellman or self.path_consistency):
            raise ValueError("There is nothing to learn from: bellman and path_consistency are both False.")


class SoftQ(PolicyReplayAgent):
    """Soft Q-learning; ``predict`` takes the token of the largest Q, or samples from softmax(Q / τ) as in training."""

    Config = SoftQConfig
    loss_names = ("losses/td_loss", "losses/path_loss", "losses/q_values", "losses/entropy")

    def _heads(self) -> dict[str, int]:
        return {"q": self.text_spec.num_tokens}

    def _build(self) -> None:
        super()._build()
        self.tau = self.config.tau * self.config.reward_scale  # in the units in which the network learns
        if self.policy is not None:
            return
        self.target_network = copy.deepcopy(self.network)
        self.target_parameters, _ = flatten_parameters(self.target_network)
        self.target_network.requires_grad_(False)

    def _loss(self, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        if self.policy is not None:
            return self._policy_loss(batch)
        config, zero = self.config, torch.zeros((), device=self.device)
        q_values = self.network.heads["q"](self.network(batch.rows))
        with torch.no_grad():
            target_q = self.target_network.heads["q"](self.target_network(batch.rows))
            target_values = soft_values(target_q, self.tau, batch.action_masks)
        taken = take(q_values, batch.actions)
        bellman = path = zero
        if config.bellman:
            bellman = td_loss(taken, self._targets(batch, target_values), batch.mask, "mse")
        if config.path_consistency:
            # Twice: the policy is fitted to the target network's values, and the values to its policy.
            values = soft_values(q_values, self.tau, batch.action_masks)
            logprobs = (taken - values) / self.tau
            target_logprobs = (take(target_q, batch.actions) - target_values) / self.tau
            path = path_consistency_loss(logprobs, target_values, batch.scores, batch.lengths, self.tau)
            path = path + path_consistency_loss(target_logprobs, values, batch.scores, batch.lengths, self.tau)
        with torch.no_grad():
            entropies = policy_entropy(log_policy(q_values / self.tau, batch.action_masks))
        logged = [
            bellman,
            path,
            masked_mean(taken, batch.mask) / config.reward_scale,
            masked_mean(entropies, batch.mask),
        ]
        return bellman + config.path_coef * path, logged

    def _policy_loss(self, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """Of a policy with a reference: Q(s, a) = V(s) + τ log (π / π_ref)(a|s), where V is its value head."""
        config, tau = self.config, self.tau
        new, kls = self._evaluate(batch)
        log_ratios = new.logprobs - self.ref_logprobs(batch)
        texts = (batch.scores, batch.lengths, tau)
        errors = consistency_errors(log_ratios.detach(), new.values.detach(), *texts, config.path_lambda)
        weights = None
        if config.importance_weights:
            weights = truncated_weights(new.logprobs.detach(), self.behaviour_logprobs(batch), batch.mask)
        policy, value = consistency_losses(log_ratios, new.values, errors, batch.mask, weights, kls, tau)
        with torch.no_grad():
            logged = [
                0.5 * masked_mean(errors.square(), batch.mask),
                path_consistency_loss(log_ratios, new.values, *texts),
                masked_mean(new.values + tau * log_ratios, batch.mask) / config.reward_scale,
                masked_mean(new.entropies, batch.mask),
            ]
        return policy + config.vf_coef * value, logged

    def _evaluate(self, batch: Batch) -> tuple[Evaluation, Tensor | None]:
        parts = (batch.rows, batch.lengths, batch.action_masks)
        if not self.config.exact_kl:
            return self.policy.evaluate(*parts), None
        evaluated: tuple[Evaluation, Tensor] = self.policy.evaluate_beside(self.reference, *parts)
        return evaluated

    def _targets(self, batch: Batch, values: Tensor) -> Tensor:
        """What Q(s_t, a_t) is to become, [B, T]: the score after the last token, else the next state's soft value."""
        last = torch.arange(batch.mask.shape[1], device=self.device) == batch.lengths[:, None] - 1
        rewards = torch.where(last, batch.scores[:, None], 0.0)
        targets = n_step_targets(rewards, values, batch.lengths, 1)
        if self.config.lower_bound:
            targets = torch.maximum(targets, monte_carlo_returns(rewards, batch.lengths))
        return targets

    def _after_step(self) -> None:
        if self.policy is not None:
            return
        self.target_parameters.lerp_(self.parameters, self.config.target_tau)

    def _policy(self, hidden: Tensor, action_masks: Tensor | None, deterministic: bool) -> Tensor:
        q_values = self.network.heads["q"](hidden)
        if deterministic:
            return one_hot_best(q_values, action_masks)
        return log_policy(q_values / self.tau, action_masks).exp()

    def _get_state(self) -> Tree:
        own = {} if self.policy is not None else {"target_network": module_state(self.target_network)}
        return super()._get_state() | own

    def _set_state(self, state: Tree) -> None:
        super()._set_state(state)
        if self.policy is None:
            self.target_network.load_state_dict(to_tensors(state["target_network"]))
