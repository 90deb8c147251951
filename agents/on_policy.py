"""What on-policy agents share: a policy and its reference, what the KL costs, and the parts that a batch is cut into.

One algorithm a file: ``ppo.py``, ``a2c.py``, ``reinforce.py``, and over groups of texts (``groups.py``) ``rloo.py``
and ``grpo.py``. Each has its own batch, advantages and loss, from top to bottom.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor, nn

from agents import distributed
from agents.base import Agent, AgentConfig, Metrics
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
from agents.episode_metrics import episode_metrics
from agents.losses import kl_k1, kl_k3
from agents.networks import TransformerConfig, clip_gradient, flatten_parameters
from agents.policies import Reference, SequencePolicy, TransformerPolicy
from agents.returns import step_mask


@dataclass(frozen=True)
class OnPolicyConfig(AgentConfig):
    """Hyper-parameters that the agents of this family share."""

    num_steps: int | None = None
    """Steps of a rollout; None: the length budget of the task, so a batch is about ``num_envs`` episodes."""
    learning_rate: float = 1e-3
    anneal_timesteps: int | None = None
    """Timesteps over which the learning rate falls linearly to 0; None: it stays."""
    ent_coef: float = 0.0
    """Weight of the entropy bonus."""
    max_grad_norm: float = 1.0
    micro_batch_size: int | None = None
    """Episodes in one forward and backward pass (of each process); the gradients of a minibatch add up. None: all of
    them."""
    kl_coef: float = 0.0
    """With a reference: β, what leaving it costs; in the reward of every token, β (logprob − ref_logprob)."""
    num_layers: int = 2
    width: int = 64
    num_heads: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_counts("num_steps", "anneal_timesteps", "micro_batch_size", optional=True)
        self._check_positive("learning_rate", "max_grad_norm")
        if not self.kl_coef >= 0:
            raise ValueError(f"kl_coef must not be negative; got {self.kl_coef}.")
        TransformerConfig(self.num_layers, self.width, self.num_heads)

    def _check_counts(self, *names: str, optional: bool = False) -> None:
        for name in names:
            value = getattr(self, name)
            if value is None and optional:
                continue
            if value < 1:
                raise ValueError(f"{name} must be {'None or ' if optional else ''}at least 1; got {value}.")

    def _check_positive(self, *names: str, optional: bool = False) -> None:
        for name in names:
            value = getattr(self, name)
            if value is None and optional:
                continue
            if not value > 0:
                raise ValueError(f"{name} must be {'None or ' if optional else ''}positive; got {value}.")

    def _check_shares(self, *names: str) -> None:
        for name in names:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1; got {getattr(self, name)}.")


@dataclass(frozen=True)
class Texts:
    """Episodes of a batch as tensors; algorithms add their columns. Indexing takes some of them."""

    rows: Tensor  # [B, L]
    lengths: Tensor  # [B]
    mask: Tensor  # [B, T] True at generated tokens
    logprobs: Tensor  # [B, T] as sampled
    action_masks: Tensor | None  # [B, T, V]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self: Batch, which: Tensor | slice) -> Batch:
        parts: dict[str, Any] = {name: None if x is None else x[which] for name, x in vars(self).items()}
        return type(self)(**parts)


Batch = TypeVar("Batch", bound=Texts)


class OnPolicyAgent(Agent):
    """An agent that learns from each batch once, over a causal transformer with a policy head and a value head, or over
    a policy of one's own.

    Args:
        policy: what is trained, in place: ``LMActorCritic`` for instance. It brings its own device and, in
            ``ppo_defaults``, its own defaults of those fields that the config has. None: a small transformer with
            fresh weights.
        reference: what the policy should stay close to, e.g. ``policy.frozen_copy()``; it is never changed. With
            ``kl_coef=0`` the KL is measured only.
        env, **others: as for :class:`agents.base.Agent`.

    Attributes:
        kl_coef: the present coefficient of the KL penalty.

    Raises:
        ValueError: a policy that does not fit the environment, or a reference that does not fit the policy.
    """

    loss_names: ClassVar[tuple[str, ...]]
    """What an update logs, besides what is logged with a reference."""

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
            known = {field.name for field in fields(self.Config)}
            own = {name: x for name, x in getattr(policy, "ppo_defaults", {}).items() if name in known}
            others = {**own, **others, "device": str(policy.device)}
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

    # -- playing -------------------------------------------------------------------------------------------------------

    def _play(self) -> tuple[Rollout, Metrics]:
        """A batch, and what is logged of it: nothing has been learnt yet, so losses are NaN."""
        config = self.config
        if config.anneal_timesteps is not None:
            remaining = max(0.0, 1 - self.num_timesteps / config.anneal_timesteps)
            self.optimizer.param_groups[0]["lr"] = config.learning_rate * remaining
        rollout = self._collect(config.num_steps or self.text_spec.max_new_tokens)
        keys = self.loss_names if self.reference is None else self.loss_names + _OBJECTIVE
        return rollout, episode_metrics(rollout) | dict.fromkeys(keys, float("nan"))

    def _act(self, obs: np.ndarray, action_mask: np.ndarray | None) -> tuple[np.ndarray, ...]:
        if getattr(self.policy, "has_values_at_hand", False):
            return self.policy.act_with_values(obs, action_mask)
        return self.policy.act(obs, action_mask)

    def _predict(self, obs: np.ndarray, action_mask: np.ndarray | None, deterministic: bool) -> np.ndarray:
        return self.policy.predict(obs, action_mask, deterministic)

    def seed_prediction(self, seed: int) -> None:
        """Restart the random stream of sampled predictions."""
        self.policy.predict_generator.manual_seed(seed)

    # -- what a batch is made of ---------------------------------------------------------------------------------------

    def _texts(self, rollout: Rollout) -> Texts:
        rows, lengths, logprobs = (
            torch.from_numpy(x).to(self.device) for x in (rollout.rows, rollout.lengths, rollout.logprobs)
        )
        action_masks = None
        if rollout.action_masks is not None:
            action_masks = torch.from_numpy(rollout.action_masks).to(self.device)
        return Texts(rows, lengths, step_mask(lengths, self.text_spec.max_new_tokens), logprobs, action_masks)

    def _penalised_rewards(self, rollout: Rollout, texts: Texts) -> tuple[Tensor, Metrics]:
        """Rewards [B, T], with a reference less the KL penalty of every token, and what is logged about them."""
        rewards = torch.from_numpy(rollout.rewards).to(self.device)
        if self.reference is None:
            return rewards, {}
        return self._penalise(rewards, texts.logprobs, self._ref_logprobs(texts), texts.mask)

    def _ref_logprobs(self, texts: Texts) -> Tensor:
        """Log-probabilities [B, T] under the reference."""

        def logprobs(*part: Tensor) -> tuple[Tensor]:
            assert self.reference is not None
            return (self.reference.logprobs(*part),)

        return distributed.divide(logprobs, texts.rows, texts.lengths, texts.action_masks)[0]

    def _penalise(
        self, rewards: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor
    ) -> tuple[Tensor, Metrics]:
        """Rewards [B, T] less the KL penalty of every token, and what is logged about them."""
        penalties = -self.kl_coef * torch.where(mask, kl_k1(logprobs, ref_logprobs), 0.0)
        return rewards + penalties, self._objective(rewards, penalties, logprobs, ref_logprobs, mask)

    def _objective(
        self, rewards: Tensor, penalties: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor
    ) -> Metrics:
        """What is logged with a reference: sums over an episode's tokens, averaged over episodes.

        Log-probabilities are those that the tokens were sampled with. ``objective/kl`` is the estimator k3,
        ``objective/entropy`` −logprob.
        """
        zero = rewards.new_zeros(())
        k1 = torch.where(mask, kl_k1(logprobs, ref_logprobs), zero)
        k3 = torch.where(mask, kl_k3(logprobs, ref_logprobs), zero)
        sums = (rewards, penalties, k1, k3, torch.where(mask, -logprobs, zero))
        score, non_score, kl, kl_3, entropy = torch.stack([x.sum(1).mean() for x in sums]).tolist()
        figures = (kl_3, kl, entropy, score, score + non_score, non_score, self.kl_coef)
        return dict(zip(_OBJECTIVE, figures, strict=True))

    def _values(self, rollout: Rollout, texts: Texts) -> tuple[Tensor, Tensor]:
        """Values [B, T] of the states, and [B] of the states after the last tokens: a text that was cut off would have
        gone on from there; after one that ended nothing comes, and it is 0."""
        if rollout.values is None or rollout.truncated.any():
            values, after = distributed.divide(self.policy.values, texts.rows, texts.lengths)
        else:  # seen while playing; what comes after the last token is not asked for
            values, after = torch.from_numpy(rollout.values).to(self.device), texts.logprobs.new_zeros(len(texts))
        return values, torch.where(torch.from_numpy(rollout.terminated).to(self.device), 0.0, after)

    # -- gradient steps ------------------------------------------------------------------------------------------------

    def _minibatches(self, batch: Batch, lengths: np.ndarray) -> Iterator[Batch]:
        """Whole episodes, in a new order every epoch."""
        config, size = self.config, len(lengths)
        bounds = np.linspace(0, size, min(config.num_minibatches, size) + 1).astype(int).tolist()
        for _ in range(config.epochs):
            order = self.rng.permutation(size)
            shuffled = batch[torch.from_numpy(order).to(self.device)]  # once; slices of it cost nothing
            for start, stop in pairwise(bounds):
                self.gradient_samples += int(lengths[order[start:stop]].sum())
                yield shuffled[start:stop]

    def _micro_batches(
        self, minibatch: Batch, by: Literal["tokens", "texts"] = "tokens"
    ) -> Iterator[tuple[Batch, Tensor | float]]:
        """Parts of a minibatch and their shares of its tokens (or texts), so that means over parts add up to that of
        the whole; of several processes each takes other parts."""
        step = self.config.micro_batch_size
        if distributed.world_size() == 1 and (step is None or step >= len(minibatch)):
            yield minibatch, 1.0  # the whole, without cutting and counting
            return
        tokens, texts = minibatch.lengths.sum(), len(minibatch)
        if distributed.world_size() > 1:
            minibatch = minibatch[distributed.rank() :: distributed.world_size()]
        size = len(minibatch)
        step = step or max(size, 1)
        for start in range(0, size, step):
            part = minibatch[start : start + step]
            yield part, part.lengths.sum() / tokens if by == "tokens" else len(part) / texts

    def _step(self, figures: Tensor) -> None:
        """One gradient step along what has been added up in ``self.gradient``; gradient and ``figures`` become those of
        all processes."""
        distributed.sum_in_place(self.gradient, figures)
        clip_gradient(self.gradient, self.config.max_grad_norm)
        self.optimizer.step()

    # -- processes and checkpoints -------------------------------------------------------------------------------------

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
        saved, name = state["policy"], type(self).__name__
        if saved["kind"] != type(self.policy).__name__:
            raise CheckpointError(
                f"This is a checkpoint of a {saved['kind']}: give {name}.load(…, policy=) one that is made as the "
                f"saved one was (its weights come from the checkpoint)."
            )
        if saved["frozen"] != self._frozen_checksum():
            raise CheckpointError(
                f"The reference, or a frozen part of the policy, is not the one that was trained with: give "
                f"{name}.load(…, policy=, reference=) the same ones."
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


_OBJECTIVE = (
    "objective/kl",
    "objective/kl_k1",
    "objective/entropy",
    "objective/scores",
    "objective/rlhf_reward",
    "objective/non_score_reward",
    "objective/kl_coef",
)
