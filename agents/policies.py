"""Sequence policies: act once per environment step by incremental decoding, evaluate whole episodes in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agents.distributed import draw_uniforms
from agents.networks import Cache, CausalTransformer, TransformerConfig, make_linear
from textenvs.spec import TextSpec

ILLEGAL_LOGIT = -1e9  # finite, so that probability 0 times log-probability is 0 and not NaN


@dataclass(frozen=True)
class Evaluation:
    """What a policy says about whole episodes. Everything outside the generated tokens is exactly 0."""

    logprobs: Tensor  # [B, T] of the tokens written
    entropies: Tensor  # [B, T] of the distributions they were drawn from
    values: Tensor  # [B, T] of the states before them


class SequencePolicy(Protocol):
    """What on-policy agents need of a policy; a small transformer and a language model fulfil it alike.

    It is a ``torch.nn.Module``; its random streams are ``generator`` (rollouts) and ``predict_generator``.
    """

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    def act(
        self, obs: np.ndarray, action_mask: np.ndarray | None = None, deterministic: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """The next token of every row and its log-probability; called once per environment step. In several processes
        the rows are a part of all (see :func:`agents.distributed.draw_uniforms`).

        Args:
            obs: [N, L] int64 observations.
            action_mask: [N, V], non-zero where an action is legal.
            deterministic: take the most probable token.

        Returns:
            actions [N] int64 and logprobs [N] float32.
        """
        ...

    def predict(self, obs: np.ndarray, action_mask: np.ndarray | None = None, deterministic: bool = True) -> np.ndarray:
        """As ``act``, with a cache and a random stream of its own: rollouts do not notice it. Returns actions [N]."""
        ...

    def invalidate_cache(self) -> None:
        """To be called after every change of the weights."""
        ...

    def evaluate(self, rows: Tensor, lengths: Tensor, action_masks: Tensor | None = None) -> Evaluation:
        """Log-probabilities, entropies and values of whole episodes, with gradients.

        Args:
            rows: [B, L] int64 final observations.
            lengths: [B] int64 generated tokens, EOS included.
            action_masks: [B, T, V] bool, True where an action was legal.
        """
        ...

    def evaluate_beside(
        self, reference: Any, rows: Tensor, lengths: Tensor, action_masks: Tensor | None = None
    ) -> tuple[Evaluation, Tensor]:
        """As ``evaluate``, and KL(π ‖ π_ref) [B, T] of every step, exact: over all tokens. Gradients go into the policy
        alone. The reference has passed ``check_reference``."""
        ...

    def values(self, rows: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Values [B, T] as in ``evaluate``, and [B] of the states after the last token (0 once the budget is spent)."""
        ...

    def bind(self, spec: TextSpec, seed: int | None = None) -> None:
        """Make ready for an environment, and restart the random streams from a seed if one is given.

        Raises:
            ValueError: the policy is for another kind of environment.
        """
        ...

    def check_reference(self, reference: Any) -> None:
        """Check that a reference is one for this policy.

        Raises:
            ValueError: it is of another kind, or an update of the policy would change it.
        """
        ...


class Reference(Protocol):
    """A policy that stays as it is, from which another one should not go too far."""

    def bind(self, spec: TextSpec, seed: int | None = None) -> None:
        """See :class:`SequencePolicy`."""
        ...

    def logprobs(self, rows: Tensor, lengths: Tensor, action_masks: Tensor | None = None) -> Tensor:
        """Log-probabilities [B, T] of whole episodes, as ``SequencePolicy.evaluate`` gives them, without gradients."""
        ...


def mask_logits(logits: Tensor, action_mask: Tensor | None) -> Tensor:
    """Logits [..., V] with illegal actions (False in ``action_mask`` [..., V]) at probability 0."""
    return logits if action_mask is None else logits.masked_fill(~action_mask, ILLEGAL_LOGIT)


def sample(probabilities: Tensor, uniforms: Tensor) -> Tensor:
    """Draw by inverse CDF: the smallest index whose cumulative probability exceeds u. Several times faster than
    ``torch.multinomial``; a token of probability 0 is never drawn.

    Args:
        probabilities: [N, V], need not be normalised.
        uniforms: [N, 1] in [0, 1].

    Returns:
        [N] int64.
    """
    cumulative = probabilities.cumsum(-1)
    total = cumulative[:, -1:]
    # Rounding can lift u · total to the total itself, which nothing exceeds: stay below it.
    threshold = torch.minimum(uniforms * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, threshold, right=True)[:, 0]


class IncrementalDecoder:
    """States of the newest observations, at the cost of one token wherever a row continues.

    A row continues if and only if it equals its predecessor but for the next column; this is decided by content, so it
    holds under every autoreset mode, for resets at any time and for callers who skip steps. Other rows are read as a
    whole.

    Args:
        network: the transformer whose weights are used.
        prompt_length: P.

    Attributes:
        prefilled_rows: how many rows have been read as a whole so far.
    """

    def __init__(self, network: CausalTransformer, prompt_length: int) -> None:
        self.network = network
        self.prompt_length = prompt_length
        self.prefilled_rows = 0
        self._cache: Cache | None = None
        self._obs: np.ndarray | None = None  # what the cache holds; None: nothing valid
        self._columns = np.zeros(0, dtype=np.int64)

    def invalidate(self) -> None:
        """Forget everything: the weights have changed."""
        self._obs = None

    @torch.inference_mode()
    def __call__(self, obs: np.ndarray) -> Tensor:
        """Hidden states [N, width] before the next column of the observations [N, L]."""
        obs = obs.copy()  # the caller may go on writing to its own
        num_rows, row_length = obs.shape
        device = self.network.token_embedding.device
        columns = self.prompt_length + (obs[:, self.prompt_length :] != self.network.pad_id).sum(1)
        if self._cache is None or self._cache.batch != num_rows:
            self._cache, self._obs = self.network.new_cache(num_rows), None
        if self._obs is None:
            new = np.ones(num_rows, dtype=bool)
        else:
            # One column more and nothing else changed: texts have no gaps, so it is the next one that was written.
            new = ((obs != self._obs).sum(1) != 1) | (columns != self._columns + 1)
        # Marked as valid only at the end: an exception in between leaves nothing wrong behind.
        self._obs, self._columns = None, columns
        # A finished row has no next column; it may be asked for (its action will be ignored), so give it the last one.
        target = np.minimum(columns, row_length - 1)
        num_new = int(new.sum())
        if num_new == num_rows:
            first = int(target.min())
            every = torch.arange(num_rows, device=device)
            self._cache.clear()
            rows = torch.from_numpy(obs[:, : int(target.max()) + 1]).to(device)
            states = self.network(rows, first, self._cache, every)
            hidden = states[every, torch.from_numpy(target - first).to(device)]
        else:
            if num_new:
                where = np.flatnonzero(new)
                prefix = int(target[where].max()) + 1
                places = torch.from_numpy(where).to(device)
                self.network(torch.from_numpy(obs[where, :prefix]).to(device), prefix, self._cache, places)
            hidden = self.network.decode(obs, target, self._cache)
        self.prefilled_rows += num_new
        self._obs = obs
        return hidden


class TransformerPolicy(nn.Module):
    """Actor and critic over one shared causal transformer.

    Args:
        num_tokens: V.
        prompt_length: P.
        max_new_tokens: T.
        config: sizes of the trunk.
        seed: of the initial weights and of the two random streams (rollouts, predictions).
        device: where to compute.
    """

    def __init__(
        self,
        num_tokens: int,
        prompt_length: int,
        max_new_tokens: int,
        config: TransformerConfig | None = None,
        *,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        super().__init__()
        config = config or TransformerConfig()
        self.prompt_length, self.max_new_tokens = prompt_length, max_new_tokens
        # Hashed apart, so that the streams of one seed are not those of the next.
        seeds = np.random.SeedSequence(seed).generate_state(3).tolist()
        weights = torch.Generator().manual_seed(seeds[0])
        self.trunk = CausalTransformer(num_tokens, prompt_length + max_new_tokens, config, weights)
        self.policy_head = make_linear(config.width, num_tokens, weights, std=0.01)
        self.value_head = make_linear(config.width, 1, weights, std=0.0)
        self.to(device)
        self.generator = torch.Generator(device).manual_seed(seeds[1])
        self.predict_generator = torch.Generator(device).manual_seed(seeds[2])
        self.rollout_decoder = IncrementalDecoder(self.trunk, prompt_length)
        self.predict_decoder = IncrementalDecoder(self.trunk, prompt_length)

    @property
    def device(self) -> torch.device:
        """See :class:`SequencePolicy`."""
        return self.policy_head.weight.device

    def act(
        self, obs: np.ndarray, action_mask: np.ndarray | None = None, deterministic: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`SequencePolicy`."""
        uniforms = None if deterministic else draw_uniforms(len(obs), self.generator)
        return self._act(self.rollout_decoder, obs, action_mask, uniforms)

    def predict(self, obs: np.ndarray, action_mask: np.ndarray | None = None, deterministic: bool = True) -> np.ndarray:
        """See :class:`SequencePolicy`."""
        uniforms = None
        if not deterministic:
            uniforms = torch.rand(len(obs), 1, generator=self.predict_generator, device=self.device)
        return self._act(self.predict_decoder, obs, action_mask, uniforms)[0]

    def invalidate_cache(self) -> None:
        """See :class:`SequencePolicy`."""
        self.rollout_decoder.invalidate()
        self.predict_decoder.invalidate()

    @torch.inference_mode()
    def _act(
        self,
        decoder: IncrementalDecoder,
        obs: np.ndarray,
        action_mask: np.ndarray | None,
        uniforms: Tensor | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Actions drawn with uniforms [N, 1], or the most probable ones; and their log-probabilities."""
        logits = self.policy_head(decoder(obs))
        if action_mask is not None:
            logits = mask_logits(logits, torch.from_numpy(action_mask != 0).to(logits.device))
        probabilities = logits.softmax(-1)
        actions = logits.argmax(-1) if uniforms is None else sample(probabilities, uniforms)
        chosen = probabilities.gather(-1, actions[:, None])[:, 0].log()
        return actions.cpu().numpy().copy(), chosen.cpu().numpy().copy()

    def evaluate(self, rows: Tensor, lengths: Tensor, action_masks: Tensor | None = None) -> Evaluation:
        """See :class:`SequencePolicy`."""
        hidden, logprobs = self._distributions(rows, action_masks)
        return self._evaluation(hidden, logprobs, rows, lengths)

    def evaluate_beside(
        self, reference: Any, rows: Tensor, lengths: Tensor, action_masks: Tensor | None = None
    ) -> tuple[Evaluation, Tensor]:
        """See :class:`SequencePolicy`."""
        hidden, logprobs = self._distributions(rows, action_masks)
        with torch.no_grad():
            _, ref_logprobs = reference._distributions(rows, action_masks)
        kls = (logprobs.exp() * (logprobs - ref_logprobs)).sum(-1)
        return self._evaluation(hidden, logprobs, rows, lengths), torch.where(self._generated(lengths), kls, 0.0)

    def _distributions(self, rows: Tensor, action_masks: Tensor | None) -> tuple[Tensor, Tensor]:
        """States [B, T, width] and log-probabilities [B, T, V] of every step."""
        hidden = self.trunk(rows, self.prompt_length)
        return hidden, F.log_softmax(mask_logits(self.policy_head(hidden), action_masks), -1)

    def _evaluation(self, hidden: Tensor, logprobs: Tensor, rows: Tensor, lengths: Tensor) -> Evaluation:
        generated = self._generated(lengths)
        # Padding has no logit of its own; what stands there is dropped below.
        tokens = rows[:, self.prompt_length :].clamp(max=logprobs.shape[-1] - 1)
        chosen = logprobs.gather(-1, tokens[..., None])[..., 0]
        entropies = -(logprobs.exp() * logprobs).sum(-1)
        values = self.value_head(hidden)[..., 0]
        return Evaluation(*(torch.where(generated, x, 0.0) for x in (chosen, entropies, values)))

    def values(self, rows: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`SequencePolicy`."""
        values = self.value_head(self.trunk(rows, self.prompt_length))[..., 0]
        after = F.pad(values, (0, 1)).gather(1, lengths[:, None])[:, 0]
        return torch.where(self._generated(lengths), values, 0.0), after

    @torch.no_grad()
    def logprobs(self, rows: Tensor, lengths: Tensor, action_masks: Tensor | None = None) -> Tensor:
        """See :class:`Reference`."""
        return self.evaluate(rows, lengths, action_masks).logprobs

    @torch.inference_mode()
    def next_logprobs(self, rows: Tensor, written: int, action_masks: Tensor | None = None) -> Tensor:
        """Log-probabilities [B, V] of the next token after ``written`` tokens of rows [B, L], under masks [B, V]."""
        column = self.prompt_length + written
        hidden = self.trunk(rows[:, : column + 1], column)[:, 0]
        return F.log_softmax(mask_logits(self.policy_head(hidden), action_masks), -1)

    def bind(self, spec: TextSpec, seed: int | None = None) -> None:
        """See :class:`SequencePolicy`."""
        own = (self.policy_head.out_features, self.prompt_length, self.max_new_tokens)
        wanted = (spec.num_tokens, spec.prompt_length, spec.max_new_tokens)
        if own != wanted:
            raise ValueError(
                f"The environment has (num_tokens, prompt_length, max_new_tokens) = {wanted}; "
                f"this policy was made for {own}."
            )
        if seed is not None:
            streams = np.random.SeedSequence(seed).generate_state(3).tolist()[1:]
            self.generator.manual_seed(streams[0])
            self.predict_generator.manual_seed(streams[1])

    def check_reference(self, reference: Any) -> None:
        """See :class:`SequencePolicy`."""
        if not isinstance(reference, TransformerPolicy):
            raise ValueError(
                f"The reference of a TransformerPolicy is one too, policy.frozen_copy(); "
                f"got {type(reference).__name__}."
            )
        if any(parameter.requires_grad for parameter in reference.parameters()):
            raise ValueError("The reference would change with the policy: give a frozen copy, policy.frozen_copy().")

    def frozen_copy(self) -> TransformerPolicy:
        """A copy that is never trained: the reference of a KL penalty."""
        sizes = (self.policy_head.out_features, self.prompt_length, self.max_new_tokens)
        twin = TransformerPolicy(*sizes, self.trunk.config, device=self.device)
        twin.load_state_dict(self.state_dict())
        return twin.requires_grad_(False)

    def _generated(self, lengths: Tensor) -> Tensor:
        return torch.arange(self.max_new_tokens, device=lengths.device) < lengths[:, None]
