"""Replay learners that train a policy they are given, a language model above all, against a reference.

The buffer holds texts, scores and what the reference says of each token; it knows nothing of KL. A text is read by the
reference once, since neither of them changes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor, nn

from agents.base import Metrics
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
from agents.losses import kl_k1, kl_k3
from agents.networks import flatten_parameters
from agents.off_policy import Batch, OffPolicyAgent
from agents.policies import Reference, SequencePolicy
from agents.replay import EpisodeReplay, ReplayBatch


class PolicyReplayAgent(OffPolicyAgent):
    """An off-policy agent with a network of its own, or with a policy and a reference.

    Args:
        policy: what is trained, in place: ``LMActorCritic`` for instance. It brings its own device and, in
            ``replay_defaults``, its own defaults of the config. None: a small transformer with fresh weights.
        reference: what the policy is pulled towards, e.g. ``policy.frozen_copy()``; it is never changed. A policy
            needs one.
        env, **others: as for :class:`agents.base.Agent`.

    Raises:
        ValueError: a policy that does not fit the environment, a reference that does not fit the policy, or one of the
            two without the other.
    """

    def __init__(
        self,
        env: str | VectorEnv,
        *,
        policy: SequencePolicy | None = None,
        reference: Reference | None = None,
        **others: Any,
    ) -> None:
        if (policy is None) != (reference is None):
            given, missing = ("policy", "reference") if reference is None else ("reference", "policy")
            raise ValueError(
                f"{given}= was given without {missing}=: what is learnt is π ∝ π_ref · exp(Q / τ), for a policy and a "
                f"frozen copy of it, policy.frozen_copy()."
            )
        self.policy: Any = policy
        self.reference: Any = reference
        self._frozen: int | None = None
        if policy is not None:
            others = {**getattr(policy, "replay_defaults", {}), **others, "device": str(policy.device)}
        super().__init__(env, **others)

    def _build(self) -> None:
        if self.policy is None:
            super()._build()
            return
        config, spec = self.config, self.text_spec
        self.policy.bind(spec, self.seed)
        self.policy.check_reference(self.reference)
        self.reference.bind(spec)
        self.parameters, self.gradient = flatten_parameters(self.policy)
        self._make_optimizer()
        self.replay = EpisodeReplay(
            config.capacity,
            spec,
            keep_logprobs=True,
            keep_ref_logprobs=True,
            deduplicate=config.deduplicate,
            priority_cap=config.priority_cap,
            score_temperature=config.score_temperature,
        )

    # -- learning ------------------------------------------------------------------------------------------------------

    def _iterate(self) -> Metrics:
        if self.policy is None:
            return super()._iterate()
        before = self.replay.num_added
        metrics = super()._iterate()
        self._ask_reference()
        return metrics | self._objective(self.replay.take(self.replay.places(self.replay.num_added - before)))

    def _sample_batch(self) -> Batch:
        if self.policy is not None:
            self._ask_reference()
        return super()._sample_batch()

    def _ask_reference(self) -> None:
        """Let the reference read what it has not read yet: the texts of the last window, or demonstrations."""
        places = self.replay.without_ref_logprobs()
        if len(places):
            new = self.replay.take(places)
            parts = (new.rows, new.lengths, new.action_masks)
            rows, lengths, masks = (None if x is None else torch.from_numpy(x).to(self.device) for x in parts)
            self.replay.set_ref_logprobs(places, self.reference.logprobs(rows, lengths, masks).cpu().numpy())

    def _objective(self, played: ReplayBatch) -> Metrics:
        """What is logged about the texts of a window: sums over their tokens, averaged over texts, as ``PPO`` logs
        them. Log-probabilities are those that the tokens were sampled with."""
        if not len(played.rows):
            return dict.fromkeys(_OBJECTIVE, float("nan"))
        assert played.logprobs is not None
        assert played.ref_logprobs is not None
        logprobs, ref_logprobs = torch.from_numpy(played.logprobs), torch.from_numpy(played.ref_logprobs)
        sums = (kl_k3(logprobs, ref_logprobs), kl_k1(logprobs, ref_logprobs), -logprobs)
        kl_3, kl, entropy = (x.sum(1).mean().item() for x in sums)
        score, tau = float(played.scores.mean()), self.config.tau
        figures = (kl_3, kl, entropy, score, score - tau * kl, -tau * kl, tau)
        return dict(zip(_OBJECTIVE, figures, strict=True))

    # -- acting --------------------------------------------------------------------------------------------------------

    def _act(self, obs: np.ndarray, action_mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        if self.policy is None:
            return super()._act(obs, action_mask)
        actions, logprobs = self.policy.act(obs, action_mask)
        return actions, logprobs

    def _predict(self, obs: np.ndarray, action_mask: np.ndarray | None, deterministic: bool) -> np.ndarray:
        if self.policy is None:
            return super()._predict(obs, action_mask, deterministic)
        actions: np.ndarray = self.policy.predict(obs, action_mask, deterministic)
        return actions

    def _invalidate_caches(self) -> None:
        if self.policy is None:
            super()._invalidate_caches()
        else:
            self.policy.invalidate_cache()

    def seed_prediction(self, seed: int) -> None:
        """Restart the random stream of sampled predictions."""
        if self.policy is None:
            super().seed_prediction(seed)
        else:
            self.policy.predict_generator.manual_seed(seed)

    # -- saving --------------------------------------------------------------------------------------------------------

    def _get_state(self) -> Tree:
        if self.policy is None:
            return super()._get_state()
        return {
            "policy": {"kind": type(self.policy).__name__, "frozen": self._frozen_checksum()},
            "network": trainable_state(self.policy),
            "optimizer": optimizer_state(self.optimizer),
            "replay": self.replay.get_state(),
            "counters": {"num_gradient_steps": self.num_gradient_steps},
            "generators": {
                "rollout": self.policy.generator.get_state(),
                "predict": self.policy.predict_generator.get_state(),
            },
        }

    def _set_state(self, state: Tree) -> None:
        saved = state.get("policy", {"kind": None})
        own = None if self.policy is None else type(self.policy).__name__
        name = type(self).__name__
        if saved["kind"] != own:
            needed = (
                "no policy of its own: load it without policy= and reference="
                if saved["kind"] is None
                else f"a {saved['kind']}: give {name}.load(…, policy=, reference=) one that is made as the saved one "
                f"was (its weights come from the checkpoint)"
            )
            raise CheckpointError(f"This is a checkpoint of {name} with {needed}.")
        if self.policy is None:
            super()._set_state(state)
            return
        if saved["frozen"] != self._frozen_checksum():
            raise CheckpointError(
                f"The reference, or a frozen part of the policy, is not the one that was trained with: give "
                f"{name}.load(…, policy=, reference=) the same ones."
            )
        load_trainable_state(self.policy, state["network"])
        load_optimizer_state(self.optimizer, state.get("optimizer", {}))
        self.replay.set_state(state["replay"])
        self.num_gradient_steps = state["counters"]["num_gradient_steps"]
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

    def behaviour_logprobs(self, batch: Batch) -> Tensor:
        """[B, T] of a minibatch, as its tokens were drawn. Of texts of others nobody knows them: there the reference's
        stand in."""
        assert batch.replayed.logprobs is not None
        own = torch.from_numpy(batch.replayed.logprobs).to(self.device)
        return torch.where(own.isnan(), self.ref_logprobs(batch), own)

    def ref_logprobs(self, batch: Batch) -> Tensor:
        """[B, T] of a minibatch, on the agent's device; 0 behind the ends."""
        assert batch.replayed.ref_logprobs is not None
        return torch.from_numpy(batch.replayed.ref_logprobs).to(self.device)


_OBJECTIVE = (
    "objective/kl",
    "objective/kl_k1",
    "objective/entropy",
    "objective/scores",
    "objective/rlhf_reward",
    "objective/non_score_reward",
    "objective/kl_coef",
)
