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

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor, nn

from agents import distributed
from agents.base import Agent, AgentConfig, Metrics, episode_metrics
from agents.checkpoint import (
    CheckpointError,
    Tree,
    checksum,
    load_optimizer_state,
    load_trainable_state,
    optimizer_state,
    to_tensors,
    trainable_state,
)
from agents.collect import Rollout
from agents.losses import (
    adapt_kl_coef,
    explained_variance,
    kl_k1,
    kl_k3,
    masked_mean,
    ppo_policy_loss,
    ppo_value_loss,
)
from agents.networks import TransformerConfig, clip_gradient, flatten_parameters
from agents.policies import Reference, SequencePolicy, TransformerPolicy
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
    ent_coef: float = 0.02
    """Weight of the entropy bonus."""
    max_grad_norm: float = 1.0
    target_kl: float | None = 0.1
    """Stop an update once a minibatch's approx_kl exceeds this; None: never."""
    whiten_advantages: bool = True
    """Scale advantages to mean 0 and variance 1 over the tokens of the batch."""
    whiten_rewards: bool = False
    """Divide rewards, KL penalty included, by their standard deviation over the tokens of the batch."""
    micro_batch_size: int | None = None
    """Episodes in one forward and backward pass (of each process); the gradients of a minibatch add up. None: all of
    them."""
    kl_coef: float = 0.0
    """With a reference: β of the term −β (logprob − ref_logprob) in the reward of every token."""
    kl_target: float | None = None
    """KL of an episode, summed over its tokens, towards which kl_coef is adapted; None: it stays."""
    kl_horizon: int = 10_000
    """Episodes over which the adaptation takes place: kl_coef changes by a fifth in that many, at most."""
    num_layers: int = 2
    width: int = 64
    num_heads: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("epochs", "num_minibatches", "kl_horizon"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}.")
        for name in ("num_steps", "anneal_timesteps", "micro_batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be None or at least 1; got {value}.")
        for name in ("learning_rate", "clip_coef", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive; got {getattr(self, name)}.")
        for name in ("value_clip", "target_kl", "kl_target"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be None or positive; got {value}.")
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1; got {getattr(self, name)}.")
        if not self.kl_coef >= 0:
            raise ValueError(f"kl_coef must not be negative; got {self.kl_coef}.")
        if self.kl_target is not None and not self.kl_coef > 0:
            raise ValueError("kl_target adapts kl_coef by factors: it must begin above 0.")
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
    """PPO over a causal transformer with a policy head and a value head, or over a policy of one's own.

    Args:
        policy: what is trained, in place: ``LMActorCritic`` for instance. It brings its own device and, in
            ``ppo_defaults``, its own defaults of the config. None: a small transformer with fresh weights.
        reference: what the policy should stay close to, e.g. ``policy.frozen_copy()``; it is never changed. With
            ``kl_coef=0`` the KL is measured only.
        env, **others: as for :class:`agents.base.Agent`.

    Attributes:
        kl_coef: the present coefficient of the KL penalty.

    Raises:
        ValueError: a policy that does not fit the environment, or a reference that does not fit the policy.
    """

    Config = PPOConfig

    def __init__(
        self,
        env: str | VectorEnv,
        *,
        policy: SequencePolicy | None = None,
        reference: Reference | None = None,
        **others: Any,
    ) -> None:
        self._given_policy, self.reference = policy, reference
        self._frozen: int | None = None
        if policy is not None:
            others = {**getattr(policy, "ppo_defaults", {}), **others, "device": str(policy.device)}
        super().__init__(env, **others)

    def _build(self) -> None:
        config, spec = self.config, self.text_spec
        self.policy: Any = self._given_policy
        if self.policy is None:
            self.policy = TransformerPolicy(
                spec.pad_id,
                spec.prompt_length,
                spec.max_new_tokens,
                TransformerConfig(config.num_layers, config.width, config.num_heads),
                seed=self.seed,
                device=self.device,
            )
        self.policy.bind(spec, self.seed)
        self.kl_coef: float = config.kl_coef
        if self.reference is not None:
            self.policy.check_reference(self.reference)
            self.reference.bind(spec)
        elif config.kl_coef:
            raise ValueError("kl_coef is the weight of a penalty for leaving a reference: give reference=.")
        self.parameters, self.gradient = flatten_parameters(self.policy)
        self.optimizer = torch.optim.Adam([self.parameters], config.learning_rate, eps=1e-5, fused=True)

    def _iterate(self) -> Metrics:
        config = self.config
        if config.anneal_timesteps is not None:
            remaining = max(0.0, 1 - self.num_timesteps / config.anneal_timesteps)
            self.optimizer.param_groups[0]["lr"] = config.learning_rate * remaining
        rollout = self._collect(config.num_steps or self.text_spec.max_new_tokens)
        if len(rollout):
            return episode_metrics(rollout) | self._update(rollout)
        keys = _LOSSES if self.reference is None else _LOSSES + _OBJECTIVE
        return episode_metrics(rollout) | dict.fromkeys(keys, float("nan"))

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
            distributed.sum_in_place(self.gradient, figures)
            clip_gradient(self.gradient, config.max_grad_norm)
            self.optimizer.step()

            logged.append(figures)
            if config.target_kl is not None and figures[3].item() > config.target_kl:
                break
        self.num_updates += 1
        means = [*torch.stack(logged).mean(0).tolist(), explained.item()]
        return dict(zip(_LOSSES, means, strict=True)) | objective

    @torch.no_grad()
    def _batch(self, rollout: Rollout) -> tuple[_Batch, Metrics]:
        """What an update needs of a rollout: values of the states, advantages and returns; and what is logged about the
        reward."""
        config = self.config
        rows, lengths, logprobs, terminated, rewards = (
            torch.from_numpy(x).to(self.device)
            for x in (rollout.rows, rollout.lengths, rollout.logprobs, rollout.terminated, rollout.rewards)
        )
        action_masks = None
        if rollout.action_masks is not None:
            action_masks = torch.from_numpy(rollout.action_masks).to(self.device)
        mask = step_mask(lengths, self.text_spec.max_new_tokens)
        objective: Metrics = {}
        if self.reference is not None:
            (ref_logprobs,) = distributed.divide(self._ref_logprobs, rows, lengths, action_masks)
            rewards, objective = self._penalise(rewards, logprobs, ref_logprobs, mask)
        if config.whiten_rewards:
            rewards = whiten(rewards, mask, shift_mean=False)
        if rollout.values is None or rollout.truncated.any():
            values, next_values = distributed.divide(self.policy.values, rows, lengths)
        else:  # seen while playing; what comes after the last token is not asked for
            values, next_values = torch.from_numpy(rollout.values).to(self.device), torch.zeros_like(rewards[:, 0])
        # A text that was cut off would have gone on from its last state; after one that ended nothing comes.
        bootstrap = torch.where(terminated, 0.0, next_values)
        advantages = gae(rewards, values, lengths, bootstrap, config.gamma, config.gae_lambda)
        returns = torch.where(mask, advantages + values, 0.0)
        if config.whiten_advantages:
            advantages = whiten(advantages, mask)
        return _Batch(rows, lengths, mask, logprobs, values, advantages, returns, action_masks), objective

    def _ref_logprobs(self, rows: Tensor, lengths: Tensor, action_masks: Tensor | None) -> tuple[Tensor]:
        assert self.reference is not None
        return (self.reference.logprobs(rows, lengths, action_masks),)

    def _penalise(
        self, rewards: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor
    ) -> tuple[Tensor, Metrics]:
        """Rewards [B, T] less the KL penalty of every token, and what is logged about them; adapts the coefficient.

        Log-probabilities are those that the tokens were sampled with. Figures are sums over an episode's tokens,
        averaged over episodes; ``objective/kl`` is the estimator k3, ``objective/entropy`` −logprob.
        """
        zero = rewards.new_zeros(())
        k1 = torch.where(mask, kl_k1(logprobs, ref_logprobs), zero)
        k3 = torch.where(mask, kl_k3(logprobs, ref_logprobs), zero)
        penalties = -self.kl_coef * k1
        sums = (rewards, penalties, k1, k3, torch.where(mask, -logprobs, zero))
        score, non_score, kl, kl_3, entropy = torch.stack([x.sum(1).mean() for x in sums]).tolist()
        figures = (kl_3, kl, entropy, score, score + non_score, non_score, self.kl_coef)
        if self.config.kl_target is not None:
            horizon = self.config.kl_horizon
            self.kl_coef = adapt_kl_coef(self.kl_coef, kl, self.config.kl_target, len(rewards), horizon)
        return rewards + penalties, dict(zip(_OBJECTIVE, figures, strict=True))

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

    def _micro_batches(self, minibatch: _Batch) -> Iterator[tuple[_Batch, Tensor | float]]:
        """Parts of a minibatch and their shares of its tokens, so that means over parts add up to that of the whole; of
        several processes each takes other parts."""
        step = self.config.micro_batch_size
        if distributed.world_size() == 1 and (step is None or step >= len(minibatch.rows)):
            yield minibatch, 1.0  # the whole, without cutting and counting
            return
        tokens = minibatch.lengths.sum()
        if distributed.world_size() > 1:
            minibatch = minibatch[distributed.rank() :: distributed.world_size()]
        size = len(minibatch.rows)
        step = step or max(size, 1)
        for start in range(0, size, step):
            part = minibatch[start : start + step]
            yield part, part.lengths.sum() / tokens

    def _act(self, obs: np.ndarray, action_mask: np.ndarray | None) -> tuple[np.ndarray, ...]:
        if getattr(self.policy, "has_values_at_hand", False):
            return self.policy.act_with_values(obs, action_mask)
        return self.policy.act(obs, action_mask)

    def _predict(self, obs: np.ndarray, action_mask: np.ndarray | None, deterministic: bool) -> np.ndarray:
        return self.policy.predict(obs, action_mask, deterministic)

    def seed_prediction(self, seed: int) -> None:
        """Restart the random stream of sampled predictions."""
        self.policy.predict_generator.manual_seed(seed)

    def _fingerprint(self) -> dict[str, Any]:
        return {
            "trainable weights of checksum": checksum([self.parameters]),
            "frozen weights of checksum": self._frozen_checksum(),
            "random streams of checksum": checksum([self.policy.generator.get_state()]),
        }

    def _get_state(self) -> Tree:
        return {
            "policy": {
                "kind": type(self.policy).__name__,
                "frozen": self._frozen_checksum(),
                "kl_coef": self.kl_coef,
            },
            "network": trainable_state(self.policy),
            "optimizer": optimizer_state(self.optimizer),
            "generators": {
                "rollout": self.policy.generator.get_state(),
                "predict": self.policy.predict_generator.get_state(),
            },
        }

    def _set_state(self, state: Tree) -> None:
        saved = state["policy"]
        if saved["kind"] != type(self.policy).__name__:
            raise CheckpointError(
                f"This is a checkpoint of a {saved['kind']}: give PPO.load(…, policy=) one that is made as the saved "
                f"one was (its weights come from the checkpoint)."
            )
        if saved["frozen"] != self._frozen_checksum():
            raise CheckpointError(
                "The reference, or a frozen part of the policy, is not the one that was trained with: give "
                "PPO.load(…, policy=, reference=) the same ones."
            )
        self.kl_coef = saved["kl_coef"]
        load_trainable_state(self.policy, state["network"])
        load_optimizer_state(self.optimizer, state.get("optimizer", {}))
        generators = to_tensors(state["generators"])
        self.policy.generator.set_state(generators["rollout"])
        self.policy.predict_generator.set_state(generators["predict"])
        self.policy.invalidate_cache()

    def _frozen_checksum(self) -> int:
        """Of all weights that training depends on and does not change; computed once, since they do not change."""
        if self._frozen is None:
            modules = (self.policy, self.reference)
            parameters = [p for each in modules if isinstance(each, nn.Module) for p in each.parameters()]
            self._frozen = checksum(p for p in parameters if not p.requires_grad)
        return self._frozen


_LOSSES = (
    "losses/policy_loss",
    "losses/value_loss",
    "losses/entropy",
    "losses/approx_kl",
    "losses/clipfrac",
    "losses/explained_variance",
)
_OBJECTIVE = (
    "objective/kl",
    "objective/kl_k1",
    "objective/entropy",
    "objective/scores",
    "objective/rlhf_reward",
    "objective/non_score_reward",
    "objective/kl_coef",
)
