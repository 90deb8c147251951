"""LMActorCritic: a Hugging Face causal language model as actor and critic, in the place of the small transformer.

policy = LMActorCritic.from_pretrained("gpt2")
envs = textenvs.from_prompts("prompts.jsonl", policy.tokenizer, reward="…", max_new_tokens=48, num_envs=64)
PPO(envs, policy=policy, reference=policy.frozen_copy(), kl_coef=0.05).learn(500_000)
policy.save_pretrained("runs/rlhf")
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from agents import distributed
from agents.lm.decoding import Forward, LMDecoder, attend_within, causal_mask, hooked_forward
from agents.lm.lean import lean_forward
from agents.lm.loading import load_model
from agents.lm.models import (
    checkpointing,
    enable_checkpointing,
    find_causal_lm,
    make_critic,
    max_positions,
    use_fast_gelu,
)
from agents.lm.saving import find_tokenizer, load_critic_trunk, load_settings, load_value_head, save_policy
from agents.lm.statistics import logprob_and_entropy, logprob_entropy_and_kl
from agents.policies import Evaluation, mask_logits, sample
from textenvs.spec import TextSpec

LOGITS_AT_ONCE = 2**24
"""Logits that exist at once, 64 MiB in float32. More are computed in pieces, and again in the backward pass."""

TOKENS_AT_ONCE = 2**14
"""Tokens in one forward pass without gradients."""


class LMActorCritic(nn.Module):
    """A causal language model that acts token by token, with a value head. Fulfils ``agents.policies.SequencePolicy``.

    The model is used as it is, not copied. It always runs without dropout, so that log-probabilities while playing and
    while learning are of the same network, and with PyTorch's tanh GELU in the place of transformers' slower
    ``gelu_new`` (the same function to 2e-6). Its weights must be float32.

    Args:
        model: any causal LM of transformers, or a peft model around one (an adapter; the rest is frozen).
        tokenizer: its tokenizer, if it has one: saved with the model, and compared with the environment's.
        critic: ``"shared"``, a value head on the actor's trunk; ``"copy"``, a trunk of its own that starts as the
            actor's; or a model or its folder, whose trunk is copied. The head of a reward model (a sequence classifier
            with one label) becomes the value head; every other value head starts at 0.
        temperature: divides the logits, in rollouts, updates and references alike.
        bos_token_id: a token in front of every prompt; None: prompts are read as they are. Tasks without prompts
            need one, and take the tokenizer's or the model's.
        gradient_checkpointing: compute each layer again in the backward pass instead of keeping what it needs.
        bf16: compute in bfloat16 where that is safe (autocast); meant for GPUs.
        seed: of the random streams, until an agent sets its own.

    Raises:
        TypeError, ValueError: not a causal LM, an architecture whose attention or logits work in another way, or
            weights that are not float32.
    """

    ppo_defaults = {"learning_rate": 1e-5, "vf_coef": 0.1, "ent_coef": 0.0, "max_grad_norm": 1.0}
    """What PPO takes instead of its own defaults: those serve small networks that learn from nothing."""
    replay_defaults = {
        "tau": 0.05,
        "learning_rate": 1e-5,
        "weight_decay": 0.0,
        "reward_scale": 1.0,
        "exact_kl": True,
        "batch_size": 16,
        "learning_starts": 16,
        "recent_episodes": 32,
        "updates_per_window": 8,
    }
    """What replay agents take instead of theirs, likewise."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        critic: Literal["shared", "copy"] | str | Path | Any = "shared",
        temperature: float = 1.0,
        bos_token_id: int | None = None,
        gradient_checkpointing: bool = False,
        bf16: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be positive; got {temperature}.")
        self.model, self.tokenizer = model, tokenizer
        self.temperature, self.bos_token_id, self.bf16 = float(temperature), bos_token_id, bf16
        causal_lm = find_causal_lm(model)
        # Not registered as submodules: they are parts of self.model.
        self._parts: dict[str, Any] = {"lm": causal_lm, "trunk": causal_lm.base_model}
        self.critic, self.value_head = make_critic(critic, self._trunk)
        self.gradient_checkpointing = gradient_checkpointing
        for trunk in filter(None, (self._trunk, self.critic)):
            use_fast_gelu(trunk)
            if gradient_checkpointing:
                enable_checkpointing(trunk)
        for name, parameter in self.named_parameters():
            if parameter.requires_grad and parameter.dtype != torch.float32:
                raise ValueError(
                    f"{name} is {parameter.dtype}; small steps would be lost in it. Load the model with "
                    f"dtype=torch.float32, and compute in bfloat16 with bf16=True."
                )
        self.to(self.device)
        self.train(False)
        self._seed(seed)
        self._spec: TextSpec | None = None
        trunks = (self._trunk, self.critic)
        self._lean: dict[Any, Forward | None] = {trunk: lean_forward(trunk) for trunk in trunks if trunk is not None}
        self._forward: Forward = self._lean[self._trunk] or hooked_forward(self._trunk)
        self._check_architecture()

    # -- what it is made of --------------------------------------------------------------------------------------------

    @property
    def _lm(self) -> Any:
        return self._parts["lm"]

    @property
    def _trunk(self) -> Any:
        return self._parts["trunk"]

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        device: torch.device = self._lm.get_input_embeddings().weight.device
        return device

    def train(self, mode: bool = True) -> Self:
        """Nothing to switch: there is no dropout in playing or in learning."""
        return super().train(False)

    def _seed(self, seed: int) -> None:
        seeds = np.random.SeedSequence(seed).generate_state(3).tolist()  # as TransformerPolicy
        self.generator = torch.Generator(self.device).manual_seed(seeds[1])
        self.predict_generator = torch.Generator(self.device).manual_seed(seeds[2])

    @torch.no_grad()
    def _check_architecture(self) -> None:
        """Compare the model's own logits with what this class makes of it, on a few tokens."""
        size = self._lm.get_input_embeddings().weight.shape[0]
        ids = (torch.arange(8, device=self.device).view(2, 4) * 7 + 1) % size
        name = type(self._lm).__name__
        try:
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
            expected = self._lm(**inputs).logits
            hidden = self._trunk(**inputs).last_hidden_state
            logits = self._lm.get_output_embeddings()(hidden)
            decoder = self._new_decoder(prompt_length=2, row_length=4, pad_id=size, bos_id=None)
            rows = ids.cpu().numpy()
            decoded = [decoder(np.where(np.arange(4) < n, rows, size)) for n in (2, 3)]
        except Exception as error:
            raise ValueError(f"{name} cannot be used as a policy: {type(error).__name__}: {error}") from error
        if not torch.allclose(logits, expected, atol=1e-3, rtol=1e-3):
            raise ValueError(
                f"{name} does something to its logits after the output layer, which is not supported here "
                f"(they differ by {(logits - expected).abs().max():.2g})."
            )
        if not torch.allclose(torch.stack(decoded, 1), hidden[:, 1:3], atol=1e-3, rtol=1e-3):
            raise ValueError(
                f"{name} attends in a way that cannot be decoded token by token here; it needs causal attention in all "
                f"layers and positions given by position_ids."
            )

    # -- the environment -----------------------------------------------------------------------------------------------

    @property
    def spec(self) -> TextSpec:
        """The shapes of the environment.

        Raises:
            RuntimeError: ``bind`` has not been called.
        """
        if self._spec is None:
            raise RuntimeError("This policy belongs to no environment yet: call policy.bind(envs.unwrapped.text_spec).")
        return self._spec

    def bind(self, spec: TextSpec, seed: int | None = None) -> None:
        """Make ready for an environment, and check that the model fits it. Agents call it.

        Args:
            spec: ``text_spec`` of the environment.
            seed: of the random streams; None: they go on.

        Raises:
            ValueError: another tokenizer, fewer embeddings than tokens, a context that is too short, or no token to
                begin a text with.
        """
        name = getattr(self._lm.config, "name_or_path", "") or type(self._lm).__name__
        if self.tokenizer is not None:
            own = tuple(self.tokenizer.convert_ids_to_tokens(list(range(min(spec.num_tokens, len(self.tokenizer))))))
            if own != spec.vocab.tokens:
                raise ValueError(
                    f"The environment was made with another tokenizer than {name}'s: it has {spec.num_tokens} tokens, "
                    f"this one {len(self.tokenizer)}. Make it with tokenizer=policy.tokenizer."
                )
        if self.bos_token_id is None and spec.prompt_length == 0:
            candidates = (getattr(self.tokenizer, "bos_token_id", None), self._lm.config.bos_token_id)
            self.bos_token_id = next((i for i in candidates if i is not None), None)
            if self.bos_token_id is None:
                raise ValueError(
                    f"The environment has no prompts, and {name} no BOS token to begin a text with: give bos_token_id=."
                )
        for trunk, what in ((self._trunk, name), (self.critic, "The critic")):
            if trunk is not None:
                self._check_sizes(trunk, what, spec)
        if self._lm.get_output_embeddings().weight.shape[0] < spec.num_tokens:
            raise ValueError(f"{name} can write fewer tokens than the {spec.num_tokens} of the environment.")
        if seed is not None:
            self._seed(seed)
        self._spec = spec
        sizes = (spec.prompt_length, spec.row_length, spec.pad_id, self.bos_token_id)
        self.rollout_decoder = self._new_decoder(*sizes)
        self.predict_decoder = self._new_decoder(*sizes)

    def _check_sizes(self, trunk: Any, name: str, spec: TextSpec) -> None:
        embeddings = trunk.get_input_embeddings().weight.shape[0]
        if embeddings < spec.num_tokens:
            raise ValueError(
                f"{name} has embeddings for {embeddings} tokens, the environment {spec.num_tokens}: model and "
                f"tokenizer do not belong together (or call model.resize_token_embeddings(len(tokenizer)))."
            )
        needed = spec.row_length - 1 + (self.bos_token_id is not None)
        allowed = max_positions(trunk.config)
        if needed > allowed:
            raise ValueError(
                f"{name} reads at most {allowed} tokens; prompts of {spec.prompt_length} and texts of "
                f"{spec.max_new_tokens} tokens need {needed}. Make prompt_length or max_new_tokens smaller."
            )

    def _new_decoder(self, prompt_length: int, row_length: int, pad_id: int, bos_id: int | None) -> LMDecoder:
        return LMDecoder(
            self._forward,
            prompt_length=prompt_length,
            row_length=row_length,
            pad_id=pad_id,
            bos_id=bos_id,
            max_positions=max_positions(self._trunk.config),
            device=self.device,
        )

    def check_reference(self, reference: Any) -> None:
        """Check that a reference is one for this policy.

        Raises:
            ValueError: the policy itself, another architecture or vocabulary, another temperature, or weights that an
                update would change.
        """
        if not isinstance(reference, LMActorCritic | WithoutAdapter):
            raise ValueError(
                f"The reference of a language model is one too: policy.frozen_copy(), policy.without_adapter() or "
                f"LMActorCritic(model, tokenizer).frozen_copy(); got {type(reference).__name__}."
            )
        other = reference.policy if isinstance(reference, WithoutAdapter) else reference
        ours, theirs = (
            (type(each._lm).__name__, each._lm.get_output_embeddings().weight.shape[0]) for each in (self, other)
        )
        if ours != theirs:
            raise ValueError(
                f"The reference is a {theirs[0]} with {theirs[1]} tokens, the policy a {ours[0]} with {ours[1]}: their "
                f"log-probabilities cannot be compared."
            )
        names = ["temperature", "bos_token_id"]
        if other.bos_token_id is None and self.spec.prompt_length == 0:
            names.remove("bos_token_id")  # it will find the one that this policy has found
        for name in names:
            if getattr(self, name) != getattr(other, name):
                raise ValueError(
                    f"The reference has {name}={getattr(other, name)}, the policy {getattr(self, name)}: both need the "
                    f"same."
                )
        if isinstance(reference, WithoutAdapter):
            return
        trained = {p.data_ptr() for p in self.parameters() if p.requires_grad}
        if any(p.requires_grad or p.data_ptr() in trained for p in reference.parameters()):
            raise ValueError("The reference would change with the policy: give a frozen copy, policy.frozen_copy().")

    # -- acting --------------------------------------------------------------------------------------------------------

    def act(
        self, obs: np.ndarray, action_mask: np.ndarray | None = None, deterministic: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`agents.policies.SequencePolicy`."""
        assert self.spec
        uniforms = None if deterministic else distributed.draw_uniforms(len(obs), self.generator)
        return self._act(self.rollout_decoder, obs, action_mask, uniforms)[:2]

    @property
    def has_values_at_hand(self) -> bool:
        """Whether values cost next to nothing while playing: a critic of its own would have to read along."""
        return self.critic is None

    def act_with_values(
        self, obs: np.ndarray, action_mask: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As ``act``, and the values float32 [N] of the states."""
        assert self.spec
        uniforms = distributed.draw_uniforms(len(obs), self.generator)
        actions, logprobs, hidden = self._act(self.rollout_decoder, obs, action_mask, uniforms)
        with torch.inference_mode():
            return actions, logprobs, self.value_head(hidden.float())[:, 0].cpu().numpy().copy()

    def predict(self, obs: np.ndarray, action_mask: np.ndarray | None = None, deterministic: bool = True) -> np.ndarray:
        """See :class:`agents.policies.SequencePolicy`."""
        assert self.spec
        uniforms = None
        if not deterministic:
            uniforms = torch.rand(len(obs), 1, generator=self.predict_generator, device=self.device)
        return self._act(self.predict_decoder, obs, action_mask, uniforms)[0]

    def invalidate_cache(self) -> None:
        """See :class:`agents.policies.SequencePolicy`."""
        if self._spec is not None:
            self.rollout_decoder.invalidate()
            self.predict_decoder.invalidate()

    @torch.inference_mode()
    def _act(
        self,
        decoder: LMDecoder,
        obs: np.ndarray,
        action_mask: np.ndarray | None,
        uniforms: Tensor | None,
    ) -> tuple[np.ndarray, np.ndarray, Tensor]:
        """Actions drawn with uniforms [N, 1], or the most probable ones; their log-probabilities; the states."""
        with self._precision():
            hidden = decoder(obs)
            logits = self._logits(hidden)
        if action_mask is not None:
            logits = mask_logits(logits, torch.from_numpy(action_mask != 0).to(logits.device))
        probabilities = logits.softmax(-1)
        actions = logits.argmax(-1) if uniforms is None else sample(probabilities, uniforms)
        chosen = probabilities.gather(-1, actions[:, None])[:, 0].log()
        # Copies: tensors of inference mode could not take part in an update.
        return actions.cpu().numpy().copy(), chosen.cpu().numpy().copy(), hidden

    # -- whole episodes ------------------------------------------------------------------------------------------------

    def evaluate(self, rows: Tensor, lengths: Tensor, action_masks: Tensor | None = None) -> Evaluation:
        """See :class:`agents.policies.SequencePolicy`."""
        hidden, generated = self._states(self._trunk, rows, lengths)
        logprobs, entropies = self._token_statistics(hidden[generated], rows, generated, action_masks)
        if self.critic is not None:
            hidden, _ = self._states(self.critic, rows, lengths)
        values = self.value_head(hidden.float())[..., 0][generated]
        return Evaluation(*(self._scatter(x, generated) for x in (logprobs, entropies, values)))

    def evaluate_beside(
        self, reference: Any, rows: Tensor, lengths: Tensor, action_masks: Tensor | None = None
    ) -> tuple[Evaluation, Tensor]:
        """See :class:`agents.policies.SequencePolicy`."""
        hidden, generated = self._states(self._trunk, rows, lengths)
        tokens, masks = self._generated_tokens(rows, generated, action_masks)

        def part(hidden: Tensor, ref_hidden: Tensor, tokens: Tensor, masks: Tensor | None) -> tuple[Tensor, ...]:
            with torch.no_grad():
                ref_logprobs = mask_logits(reference.logits(ref_hidden), masks).log_softmax(-1)
            return logprob_entropy_and_kl(mask_logits(self.logits(hidden), masks), ref_logprobs, tokens)

        figures = self._in_pieces(part, hidden[generated], reference.read(rows, lengths), tokens, masks)
        if self.critic is not None:
            hidden, _ = self._states(self.critic, rows, lengths)
        values = self.value_head(hidden.float())[..., 0][generated]
        logprobs, entropies, kls, values = (self._scatter(x, generated) for x in (*figures, values))
        return Evaluation(logprobs, entropies, values), kls

    @torch.no_grad()
    def read(self, rows: Tensor, lengths: Tensor) -> Tensor:
        """States [M, width] before the generated tokens of whole episodes, one text after the other, without
        gradients."""
        hidden, generated = self._states(self._trunk, rows, lengths)
        return hidden[generated]

    @torch.no_grad()
    def logprobs(self, rows: Tensor, lengths: Tensor, action_masks: Tensor | None = None) -> Tensor:
        """Log-probabilities [B, T] as in ``evaluate``, without gradients."""

        def part(rows: Tensor, lengths: Tensor, masks: Tensor | None) -> tuple[Tensor]:
            hidden, generated = self._states(self._trunk, rows, lengths)
            chosen, _ = self._token_statistics(hidden[generated], rows, generated, masks, entropies=False)
            return (self._scatter(chosen, generated),)

        return self._in_parts(part, rows, lengths, action_masks)[0]

    @torch.no_grad()
    def next_logprobs(self, rows: Tensor, written: int, action_masks: Tensor | None = None) -> Tensor:
        """Log-probabilities [B, V] of the next token after ``written`` tokens of rows [B, L], under masks [B, V]."""

        def part(rows: Tensor, lengths: Tensor, masks: Tensor | None) -> tuple[Tensor]:
            hidden, _ = self._states(self._trunk, rows, lengths)
            with self._precision():
                logits = self._logits(hidden[:, -1])
            return (F.log_softmax(mask_logits(logits, masks), -1),)

        lengths = torch.full((len(rows),), written + 1, device=rows.device)
        return self._in_parts(part, rows, lengths, action_masks)[0]

    @torch.no_grad()
    def values(self, rows: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """See :class:`agents.policies.SequencePolicy`."""

        def part(rows: Tensor, lengths: Tensor, _: Tensor | None) -> tuple[Tensor, Tensor]:
            trunk = self._trunk if self.critic is None else self.critic
            hidden, generated = self._states(trunk, rows, lengths, after=True)
            every = self.value_head(hidden.float())[..., 0]
            after = F.pad(every, (0, 1)).gather(1, lengths[:, None])[:, 0]
            return self._scatter(every[generated], generated), after

        values, after = self._in_parts(part, rows, lengths, None)
        return values, after

    def _in_parts(
        self,
        function: Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, ...]],
        rows: Tensor,
        lengths: Tensor,
        action_masks: Tensor | None,
    ) -> tuple[Tensor, ...]:
        """``function`` on pieces of a batch, texts of similar length together, so that little padding is computed."""
        size = max(1, TOKENS_AT_ONCE // rows.shape[1])
        order = torch.argsort(lengths, stable=True)
        results = [
            function(rows[part], lengths[part], None if action_masks is None else action_masks[part])
            for part in order.split(size)
        ]
        back = torch.argsort(order)
        return tuple(torch.cat(each)[back] for each in zip(*results, strict=True))

    def _states(self, trunk: Any, rows: Tensor, lengths: Tensor, after: bool = False) -> tuple[Tensor, Tensor]:
        """States before the generated tokens, [B, S, width], and [B, S] bool, True where there is one.

        S is the longest text of the batch; with ``after``, one more, so that the state behind a text that ends before
        its budget is in it too. Columns that are padding in every row are not computed.
        """
        spec = self.spec
        prompt_length, longest = spec.prompt_length, int(lengths.max())
        if after:
            longest = min(longest + 1, spec.max_new_tokens)
        # A token of which nobody asks what follows it need not be read.
        ids = rows[:, : prompt_length + longest - 1]
        inside = ids != spec.pad_id
        prompts = inside[:, :prompt_length].sum(1)
        skipped = prompt_length - (int(prompts.max()) if prompt_length else 0)
        ids, inside = ids[:, skipped:], inside[:, skipped:]
        if self.bos_token_id is not None:
            ids, inside = F.pad(ids, (1, 0)), F.pad(inside, (1, 0))
            begin = (prompt_length - skipped - prompts)[:, None]
            ids, inside = ids.scatter(1, begin, self.bos_token_id), inside.scatter(1, begin, True)
        elif not int(prompts.min()):
            raise ValueError(
                "There is an empty prompt, and a language model must begin with something: give bos_token_id=."
            )
        ids = torch.where(inside, ids, self._padding_id)
        # Padding on the right needs no mask, since nothing looks ahead; without any on the left there is a faster path.
        begun = inside.cumsum(1) > 0
        positions = (begun.cumsum(1) - 1).clamp(min=0)
        with self._precision(), checkpointing(trunk):
            lean = None if self.gradient_checkpointing else self._lean[trunk]
            if lean is not None:
                hidden = self._lean_states(lean, ids, positions, begun, longest)
            else:
                hidden = trunk(
                    input_ids=ids, attention_mask=begun.long(), position_ids=positions, use_cache=False
                ).last_hidden_state[:, ids.shape[1] - longest :]
        generated = torch.arange(longest, device=rows.device) < lengths[:, None]
        return hidden, generated

    @staticmethod
    def _lean_states(forward: Forward, ids: Tensor, positions: Tensor, begun: Tensor, longest: int) -> Tensor:
        """States [B, longest, width] of the last tokens of whole texts [B, S], without transformers' own code."""
        num_rows, length = ids.shape
        mask = None if bool(begun.all()) else causal_mask(begun)

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
            query, key, value = (x.unflatten(0, (num_rows, -1)).transpose(1, 2) for x in (query, key, value))
            return attend_within(query, key, value, mask, scaling).transpose(1, 2).flatten(0, 1)

        def wanted(x: Tensor) -> Tensor:
            return x.unflatten(0, (num_rows, length))[:, -longest:].flatten(0, 1)

        hidden = forward(ids.flatten(), positions.flatten(), attend, wanted)
        return hidden.unflatten(0, (num_rows, longest))

    def _generated_tokens(
        self, rows: Tensor, generated: Tensor, action_masks: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Tokens [M] and masks [M, V] where ``generated`` [B, S] is True."""
        tokens = rows[:, self.spec.prompt_length :][:, : generated.shape[1]][generated]
        return tokens, None if action_masks is None else action_masks[:, : generated.shape[1]][generated]

    _padding_id = 0  # any embedding will do for padding: nobody looks at it

    def _token_statistics(
        self, hidden: Tensor, rows: Tensor, generated: Tensor, action_masks: Tensor | None, entropies: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies [M] of the generated tokens, from the states [M, width] before them; without
        ``entropies`` the second is the first again."""
        tokens, masks = self._generated_tokens(rows, generated, action_masks)

        def part(hidden: Tensor, tokens: Tensor, masks: Tensor | None) -> tuple[Tensor, ...]:
            logits = mask_logits(self.logits(hidden), masks)
            if not entropies:
                chosen = logits.gather(-1, tokens[:, None])[:, 0] - logits.logsumexp(-1)
                return chosen, chosen
            return logprob_and_entropy(logits, tokens)

        chosen, entropy = self._in_pieces(part, hidden, tokens, masks)
        return chosen, entropy

    def _in_pieces(self, function: Callable[..., tuple[Tensor, ...]], *tensors: Tensor | None) -> tuple[Tensor, ...]:
        """``function`` of tensors [M, …] of generated tokens, so many at a time that the logits fit; with gradients
        it is computed again in the backward pass if that takes more than one piece."""
        assert tensors[0] is not None
        count, size = len(tensors[0]), max(1, LOGITS_AT_ONCE // self.spec.num_tokens)
        if count <= size:
            return function(*tensors)
        keep_little = functools.partial(checkpoint, function, use_reentrant=False)
        results = [
            (keep_little if torch.is_grad_enabled() else function)(
                *(None if x is None else x[i : i + size] for x in tensors)
            )
            for i in range(0, count, size)
        ]
        return tuple(torch.cat(each) for each in zip(*results, strict=True))

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [M, V] of states [M, width], in the precision of the policy."""
        with self._precision():
            return self._logits(hidden)

    def _logits(self, hidden: Tensor) -> Tensor:
        """Logits [..., V] in float32, divided by the temperature; what the model has beyond the V tokens is dropped."""
        head, size = self._lm.get_output_embeddings(), self.spec.num_tokens
        if type(head) is nn.Linear:
            logits = F.linear(hidden, head.weight[:size], None if head.bias is None else head.bias[:size])
        else:
            logits = head(hidden)[..., :size]
        logits = logits.float()
        return logits if self.temperature == 1 else logits / self.temperature

    def _scatter(self, values: Tensor, generated: Tensor) -> Tensor:
        """[M] of the generated tokens to [B, T], 0 elsewhere."""
        grid = values.new_zeros(generated.shape).masked_scatter(generated, values)
        return F.pad(grid, (0, self.spec.max_new_tokens - generated.shape[1]))

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else contextlib.nullcontext()

    # -- references ----------------------------------------------------------------------------------------------------

    def frozen_copy(self) -> LMActorCritic:
        """A copy that is never trained: the reference of a KL penalty."""
        twin = LMActorCritic(
            copy.deepcopy(self.model).requires_grad_(False),
            self.tokenizer,
            temperature=self.temperature,
            bos_token_id=self.bos_token_id,
            bf16=self.bf16,
        )
        twin.requires_grad_(False)
        if self._spec is not None:
            twin.bind(self._spec)
        return twin

    def without_adapter(self) -> WithoutAdapter:
        """The model with its adapter switched off, as a reference that needs no memory of its own.

        Raises:
            ValueError: the model has no adapter.
        """
        if not hasattr(self.model, "disable_adapter"):
            raise ValueError("This model has no adapter (it is no peft model): use policy.frozen_copy().")
        return WithoutAdapter(self)

    # -- saving --------------------------------------------------------------------------------------------------------

    def save_pretrained(self, folder: str | Path) -> None:
        """Write model and tokenizer as transformers reads them, and beside them the value head, a critic of its own and
        the settings. A model that is already there is replaced; the folder is there as a whole or not at all. Of
        several processes the first writes, whether or not the others call this.

        Raises:
            ValueError: there is something else at ``folder``.
        """
        if distributed.rank() > 0:
            return
        settings = {
            "temperature": self.temperature,
            "bos_token_id": self.bos_token_id,
            "critic": "shared" if self.critic is None else "separate",
        }
        save_policy(folder, self.model, self.tokenizer, self.critic, self.value_head, settings)

    @classmethod
    def from_pretrained(cls, name: str | Path, tokenizer: Any = None, **options: Any) -> LMActorCritic:
        """From a hub name or a local folder. What ``save_pretrained`` wrote comes back whole, value head included.

        Args:
            name: of the model.
            tokenizer: default: the one beside the model, if there is one.
            **options: as for the constructor; they take the place of saved ones.

        Raises:
            ImportError, ValueError: the model cannot be loaded; see :func:`agents.lm.loading.load_model`.
        """
        folder = Path(name)
        settings = load_settings(folder)
        model = load_model(name)
        tokenizer = find_tokenizer(name) if tokenizer is None else tokenizer
        if settings is None:
            return cls(model, tokenizer, **options)
        saved: dict[str, Any] = {name: settings[name] for name in ("temperature", "bos_token_id")}
        if "critic" not in options and settings["critic"] == "separate":
            saved["critic"] = load_critic_trunk(folder)
        policy = cls(model, tokenizer, **(saved | options))
        if "critic" not in options:
            load_value_head(folder, policy.value_head)
        return policy


class WithoutAdapter:
    """A policy with an adapter, read with the adapter switched off. Made by ``LMActorCritic.without_adapter``."""

    def __init__(self, policy: LMActorCritic) -> None:
        self.policy = policy

    def bind(self, spec: TextSpec, seed: int | None = None) -> None:
        """Nothing to do: it is the policy's own environment."""

    def logprobs(self, rows: Tensor, lengths: Tensor, action_masks: Tensor | None = None) -> Tensor:
        """See :meth:`LMActorCritic.logprobs`."""
        with self.policy.model.disable_adapter():
            return self.policy.logprobs(rows, lengths, action_masks)

    def read(self, rows: Tensor, lengths: Tensor) -> Tensor:
        """See :meth:`LMActorCritic.read`."""
        with self.policy.model.disable_adapter():
            return self.policy.read(rows, lengths)

    def logits(self, hidden: Tensor) -> Tensor:
        """See :meth:`LMActorCritic.logits`."""
        with self.policy.model.disable_adapter():
            return self.policy.logits(hidden)
