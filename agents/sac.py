"""Soft actor-critic for discrete actions, over whole episodes from a replay buffer.

    from agents import DiscreteSAC
    DiscreteSAC("textenvs/Reverse-v0", seed=0).learn(200_000, progress_bar=True)

Christodoulou 2019, "Soft Actor-Critic for Discrete Action Settings": a policy, two critics, and a temperature that
keeps the policy's entropy near a target. All are heads of one causal transformer on rows, so one forward pass gives
the policy and both critics at every step of an episode. The target entropy is a share of log(number of legal actions)
of each state by itself.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from agents.checkpoint import Tree, load_optimizer_state, module_state, optimizer_state, to_tensors
from agents.losses import masked_mean
from agents.networks import flatten_parameters
from agents.off_policy import Batch, OffPolicyAgent, OffPolicyConfig, one_hot_best
from agents.off_policy_losses import (
    log_policy,
    policy_entropy,
    sac_policy_loss,
    sac_temperature_loss,
    sac_values,
    target_entropies,
)
from agents.targets import monte_carlo_returns, n_step_targets, take, td_loss


@dataclass(frozen=True)
class DiscreteSACConfig(OffPolicyConfig):
    """Hyper-parameters of DiscreteSAC."""

    entropy_share: float = 0.05
    """Target entropy of a state as a share of log(number of legal actions). The paper's 0.98 is near uniform; text has
    one right token in most places."""
    initial_alpha: float = 0.02
    """Temperature at the beginning, in units of the reward."""
    alpha_learning_rate: float = 2e-3
    """… and how fast its logarithm is adapted; 0: it stays."""
    target_tau: float = 0.1
    """How far the target critics move towards the critics after each gradient step."""
    policy_coef: float = 1.0
    """Weight of the policy's loss beside the critics'."""
    lower_bound: bool = True
    """No target below the return observed after the same prefix, which can be had again: the soft value of the best
    policy is not below it. Switch it off where scores are noisy. (False in the paper.)"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_positive("initial_alpha", "policy_coef")
        self._check_shares("entropy_share")
        if not self.alpha_learning_rate >= 0:
            raise ValueError(f"alpha_learning_rate must not be negative; got {self.alpha_learning_rate}.")
        if not 0 < self.target_tau <= 1:
            raise ValueError(f"target_tau must be above 0 and at most 1; got {self.target_tau}.")


class DiscreteSAC(OffPolicyAgent):
    """Soft actor-critic; ``predict`` takes the most probable token, or samples as in training.

    Attributes:
        log_alpha: logarithm of the temperature, in scaled units.
    """

    Config = DiscreteSACConfig
    loss_names = (
        "losses/td_loss",
        "losses/policy_loss",
        "losses/q_values",
        "losses/entropy",
        "losses/target_entropy",
        "losses/alpha",
    )

    def _heads(self) -> dict[str, int]:
        return dict.fromkeys(("policy", "q_1", "q_2"), self.text_spec.num_tokens)

    def _build(self) -> None:
        super()._build()
        config = self.config
        self.target_network = copy.deepcopy(self.network)
        self.target_parameters, _ = flatten_parameters(self.target_network)
        self.target_network.requires_grad_(False)
        initial = torch.tensor(config.initial_alpha * config.reward_scale, device=self.device)
        self.log_alpha = nn.Parameter(initial.log())
        self.alpha_optimizer = torch.optim.Adam([self.log_alpha], config.alpha_learning_rate, eps=1e-5)

    def _loss(self, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        config = self.config
        heads = self.network.heads
        hidden = self.network(batch.rows)
        logprobs = log_policy(heads["policy"](hidden), batch.action_masks)
        q_1, q_2 = heads["q_1"](hidden), heads["q_2"](hidden)
        alpha = self.log_alpha.exp().detach()
        targets = self._targets(batch, logprobs.detach(), alpha)
        taken_1, taken_2 = take(q_1, batch.actions), take(q_2, batch.actions)
        critic_loss = td_loss(taken_1, targets, batch.mask, "mse") + td_loss(taken_2, targets, batch.mask, "mse")
        policy_loss = sac_policy_loss(logprobs, q_1, q_2, alpha, batch.mask)

        entropies = policy_entropy(logprobs.detach())
        wanted = target_entropies(config.entropy_share, q_1, batch.action_masks)
        temperature_loss = sac_temperature_loss(self.log_alpha, entropies, wanted, batch.mask)
        smaller = torch.minimum(taken_1, taken_2)
        logged = [
            critic_loss,
            policy_loss,
            masked_mean(smaller, batch.mask) / config.reward_scale,
            masked_mean(entropies, batch.mask),
            masked_mean(wanted, batch.mask),
            alpha / config.reward_scale,
        ]
        # They share no gradient but in the trunk: log α gets the last one's alone, each head its own.
        return critic_loss + config.policy_coef * policy_loss + temperature_loss, logged

    @torch.no_grad()
    def _targets(self, batch: Batch, logprobs: Tensor, alpha: Tensor) -> Tensor:
        """What Q(s_t, a_t) is to become, [B, T]: the score after the last token, else the next state's soft value."""
        hidden = self.target_network(batch.rows)
        heads = self.target_network.heads
        values = sac_values(logprobs, heads["q_1"](hidden), heads["q_2"](hidden), alpha)
        last = torch.arange(batch.mask.shape[1], device=self.device) == batch.lengths[:, None] - 1
        rewards = torch.where(last, batch.scores[:, None], 0.0)
        targets = n_step_targets(rewards, values, batch.lengths, 1)
        if self.config.lower_bound:
            targets = torch.maximum(targets, monte_carlo_returns(rewards, batch.lengths))
        return targets

    def _after_step(self) -> None:
        self.alpha_optimizer.step()
        self.alpha_optimizer.zero_grad()
        self.target_parameters.lerp_(self.parameters, self.config.target_tau)

    def _policy(self, hidden: Tensor, action_masks: Tensor | None, deterministic: bool) -> Tensor:
        logits = self.network.heads["policy"](hidden)
        return one_hot_best(logits, action_masks) if deterministic else log_policy(logits, action_masks).exp()

    def _get_state(self) -> Tree:
        return super()._get_state() | {
            "target_network": module_state(self.target_network),
            "temperature": {"log_alpha": self.log_alpha},
            "alpha_optimizer": optimizer_state(self.alpha_optimizer),
        }

    def _set_state(self, state: Tree) -> None:
        super()._set_state(state)
        self.target_network.load_state_dict(to_tensors(state["target_network"]))
        with torch.no_grad():
            self.log_alpha.copy_(torch.from_numpy(state["temperature"]["log_alpha"]))
        load_optimizer_state(self.alpha_optimizer, state.get("alpha_optimizer", {}))
