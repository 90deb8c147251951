"""Incremental decoding of Hugging Face language models in the rhythm of ``env.step``.

Keys and values of all rows stand in one slab per layer, [2, N, heads, head width, columns]: columns last, because the
one new query of a row is then multiplied with a channel of all of them at a time. The columns are a ring. Whatever
their lengths, all rows write the same column, and each attends to the columns back to its own start. A row that is new
is read into the columns just before the current one, in the same pass through the model in which all rows go on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agents.networks import CACHE_STEP

ATTENTION = "textenvs_slab"


class Attend(Protocol):
    """Attention of one layer among M tokens: query [M, heads, d], key and value [M, key heads, d] -> [M, heads, d]. The
    query may be that of the wanted tokens alone, in the last layer."""

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor: ...


Pick = Callable[[Tensor], Tensor]
"""[M, …] of all tokens -> [W, …] of those whose states are wanted."""


class Forward(Protocol):
    """(ids [M], positions [M], attend, wanted) -> hidden [W, width]: a model that leaves attention to somebody else.
    Which token belongs to which text is for attention to know."""

    def __call__(self, ids: Tensor, positions: Tensor, attend: Attend, wanted: Pick) -> Tensor: ...


class KeyValueSlab:
    """Keys and values of all rows and layers, and attention over them.

    Args:
        num_rows: N.
        context: the longest context in tokens, and the number of columns in all; they are reserved as they are needed.

    Attributes:
        next: when the next token is written, counted in tokens; its column is this modulo the number of columns.
        starts: int64 [N], when each row's context began.
    """

    def __init__(self, num_rows: int, context: int, device: torch.device) -> None:
        self.num_rows, self.context, self.device = num_rows, context, device
        self.next = 0
        self.starts = np.zeros(num_rows, dtype=np.int64)
        self._layers: dict[int, Tensor] = {}
        self._reserved = 0

    def begin(self, length: int) -> None:
        """Forget everything; the next token is written after ``length`` others."""
        self.next = length
        self._layers, self._reserved = {}, 0
        self._reserve(length)

    def _reserve(self, columns: int) -> None:
        if columns > self._reserved:
            before, self._reserved = self._reserved, min(-(-columns // CACHE_STEP) * CACHE_STEP, self.context)
            for layer, slab in self._layers.items():
                more = slab.new_zeros(*slab.shape[:-1], self._reserved - before)
                self._layers[layer] = torch.cat((slab, more), -1)

    def attention(self, rows: np.ndarray, lengths: np.ndarray, mask: Tensor | None) -> Attend:
        """Attention among n · S + N tokens: the new contexts of n rows without their last tokens, S tokens each and
        aligned on the right; and one token of every row, which is kept in the column of ``next``.

        Args:
            rows: [n] int64, the rows that are new.
            lengths: [n] int64, tokens of their contexts without the last; S is the largest.
            mask: bool [n, 1, S, S], where a token of a new context may look; None: at itself and all earlier ones.
        """
        self.starts[rows] = self.next - lengths
        length = int(lengths.max(initial=0))
        num_read = len(rows) * length
        keep, decode = self._keep(rows, length), self._decode()

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
            slab = self._layer(layer, key)
            parts: list[Tensor] = []
            if num_read:
                keys, values = (x[:num_read].unflatten(0, (-1, length)).transpose(1, 2) for x in (key, value))
                keep(slab, keys, values)
                if len(query) > self.num_rows:
                    queries = query[:num_read].unflatten(0, (-1, length)).transpose(1, 2)
                    within = attend_within(queries, keys, values, mask, scaling)
                    parts.append(within.transpose(1, 2).flatten(0, 1))
            parts.append(decode(slab, query[-self.num_rows :], key[num_read:], value[num_read:], scaling))
            return parts[0] if len(parts) == 1 else torch.cat(parts)

        return attend

    def _keep(self, rows: np.ndarray, length: int) -> Callable[[Tensor, Tensor, Tensor], None]:
        """Keeps keys and values [n, heads, S, d] of ``rows`` [n] in the columns before ``next``."""
        begin = (self.next - length) % self.context
        places: Any = slice(None) if len(rows) == self.num_rows else torch.from_numpy(rows).to(self.device)
        columns = None
        if begin + length > self.context:  # round the end
            self._reserve(self.context)
            columns = torch.arange(begin, begin + length, device=self.device) % self.context
            places = torch.from_numpy(rows).to(self.device)[:, None]

        def keep(slab: Tensor, key: Tensor, value: Tensor) -> None:
            for part, new in zip(slab, (key, value), strict=True):
                if columns is None:
                    part[places, ..., begin : begin + length] = new.transpose(2, 3)
                else:
                    part[places, ..., columns] = new.transpose(1, 2)

        return keep

    def _decode(self) -> Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]:
        """Attention of one token of every row, [N, heads, d], to the row's context and itself."""
        ages, column = self.next - self.starts, self.next % self.context
        oldest = int(ages.max())
        first, end = (column - oldest, column + 1) if oldest <= column else (0, self.context)
        self._reserve(end)
        hidden = (column - np.arange(first, end)) % self.context > ages[:, None]
        ragged = bool(hidden.any())
        additive = np.where(hidden, np.float32(-np.inf), np.float32(0)) if ragged else np.zeros((1, 1), np.float32)
        mask = torch.from_numpy(additive).to(self.device)[:, None]
        masks: dict[int, Tensor] = {}  # by the number of heads; one for all layers, as a rule

        def decode(slab: Tensor, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
            slab[0, ..., column], slab[1, ..., column] = key, value
            num_heads, head_width = key.shape[1:]
            if num_heads not in masks:
                masks[num_heads] = mask.repeat_interleave(num_heads, 0) if ragged else mask
            keys, values = slab.view(2, -1, head_width, slab.shape[-1])[..., first:end].unbind(0)
            query_rows = query.reshape(len(keys), -1, head_width)  # heads that share keys are the rows of one matrix
            weights = torch.baddbmm(masks[num_heads], query_rows, keys, beta=int(ragged), alpha=scaling)
            return torch.bmm(weights.softmax(-1).to(values.dtype), values.transpose(1, 2)).view(query.shape)

        return decode

    def _layer(self, layer: int, key: Tensor) -> Tensor:
        if layer not in self._layers:
            # Zeros, not empty: columns outside a row's context have weight 0, and 0 times NaN is NaN.
            self._layers[layer] = key.new_zeros(2, self.num_rows, *key.shape[1:], self._reserved)
        return self._layers[layer]


def attend_within(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
    """Attention of texts to themselves.

    Args:
        query: [n, heads, R, d], of the last R tokens.
        key, value: [n, key heads, S, d].
        mask: bool [n, 1, S, S], True where a token may look; None: at itself and all earlier ones.

    Returns:
        [n, heads, R, d].
    """
    groups, wanted, length = query.shape[1] // key.shape[1], query.shape[2], key.shape[2]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    if wanted < length:
        if mask is None:
            mask = torch.ones(wanted, length, dtype=torch.bool, device=key.device).tril(length - wanted)
        else:
            mask = mask[:, :, -wanted:]
    return F.scaled_dot_product_attention(query, key, value, mask, is_causal=mask is None, scale=scaling)


def causal_mask(inside: Tensor) -> Tensor:
    """Which token may look where, bool [n, 1, S, S]: at itself and at earlier ones ``inside`` its text, bool [n, S].
    Padding looks at itself, so that it has a finite state; nobody looks at it."""
    itself = torch.eye(inside.shape[1], dtype=torch.bool, device=inside.device)
    return (inside[:, None] & torch.ones_like(itself).tril() | itself)[:, None]


class LMDecoder:
    """States of the newest observations, at the cost of one token wherever a row continues.

    A row continues if and only if it equals its predecessor but for the next column; this is decided by content, so it
    holds under every autoreset mode, for resets at any time and for callers who skip steps. The contexts of other rows
    are read as a whole.

    Args:
        forward: the model.
        prompt_length: P.
        row_length: L = P + T.
        pad_id: V.
        bos_id: a token in front of every context, or None.
        max_positions: positions that the model knows.
        device: where it is.

    Attributes:
        prefilled_rows: how many contexts have been read as a whole so far.
    """

    def __init__(
        self,
        forward: Forward,
        *,
        prompt_length: int,
        row_length: int,
        pad_id: int,
        bos_id: int | None,
        max_positions: int,
        device: torch.device,
    ) -> None:
        self.forward = forward
        self.prompt_length, self.row_length, self.pad_id, self.bos_id = prompt_length, row_length, pad_id, bos_id
        self.max_positions, self.device = max_positions, device
        self.context = row_length + (bos_id is not None)
        self.prefilled_rows = 0
        self._slab: KeyValueSlab | None = None
        self._obs: np.ndarray | None = None  # what the slab holds; None: nothing valid
        self._columns = np.zeros(0, dtype=np.int64)

    def invalidate(self) -> None:
        """Forget everything: the weights have changed."""
        self._obs = None
        if self.device.type != "cpu":  # an accelerator needs the memory for the update
            self._slab = None

    @torch.inference_mode()
    def __call__(self, obs: np.ndarray) -> Tensor:
        """Hidden states [N, width] before the next column of the observations [N, L].

        Raises:
            ValueError: a row has nothing to begin with: no prompt and no BOS.
        """
        obs = obs.copy()  # the caller may go on writing to its own
        num_rows = len(obs)
        columns = self.prompt_length + (obs[:, self.prompt_length :] != self.pad_id).sum(1)
        rows = np.flatnonzero(self._new_rows(obs, columns))
        # The first column of each context, counted as if BOS stood in a column of its own before it.
        first = self.prompt_length - (obs[:, : self.prompt_length] != self.pad_id).sum(1)
        if self.bos_id is not None:
            first = first - 1
        elif (columns == first).any():
            row = int(np.argmax(columns == first))
            raise ValueError(
                f"Row {row} has an empty prompt, and a language model must begin with something: give bos_token_id=."
            )
        if self._slab is None or self._slab.num_rows != num_rows:
            self._slab = KeyValueSlab(num_rows, self.context, self.device)
        slab = self._slab
        last = columns - 1
        if len(rows) == num_rows:
            # As if the longest prompt stood in the first columns: texts that begin together do not go round the end.
            slab.begin(max(int((last - first).max()), self.context - self.row_length + self.prompt_length - 1))
        # Marked as valid only at the end: an exception in between leaves nothing wrong behind.
        self._obs, self._columns = None, columns

        # The contexts of new rows without their last tokens, and then the last token of every row.
        lengths = (last - first)[rows]
        places = last[rows, None] + np.arange(-lengths.max(initial=0), 0)
        inside = places >= first[rows, None]
        ids = np.concatenate([obs[rows[:, None], np.maximum(places, 0)].ravel(), obs[np.arange(num_rows), last]])
        positions = np.concatenate([(places - first[rows, None]).ravel(), last - first])
        if self.bos_id is not None:
            ids = np.where(positions == 0, self.bos_id, ids)
        # Padding is any token. Only a row that is full asks for one position too many, and its action will be ignored.
        ids = np.where(positions >= 0, ids, 0)
        positions = positions.clip(0, self.max_positions - 1)
        mask = None if inside.all() else causal_mask(self._tensor(inside))
        attend = slab.attention(rows, lengths, mask)
        hidden = self.forward(self._tensor(ids), self._tensor(positions), attend, lambda x: x[-num_rows:])

        slab.next += 1
        self.prefilled_rows += len(rows)
        self._obs = obs
        return hidden

    def _new_rows(self, obs: np.ndarray, columns: np.ndarray) -> np.ndarray:
        if self._obs is None or self._obs.shape != obs.shape:
            return np.ones(len(obs), dtype=np.bool_)
        # One column more and nothing else changed: texts have no gaps, so it is the next one that was written.
        new: np.ndarray = ((obs != self._obs).sum(1) != 1) | (columns != self._columns + 1)
        return new

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)


def hooked_forward(trunk: Any) -> Forward:
    """Any transformers model whose attention can be replaced, run by its own code.

    Args:
        trunk: the model without its head, a ``PreTrainedModel``.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, _attention)
    config = trunk.config

    def forward(ids: Tensor, positions: Tensor, attend: Attend, wanted: Pick) -> Tensor:
        usual = config._attn_implementation
        config._attn_implementation = ATTENTION
        try:
            hidden: Tensor = trunk(
                input_ids=ids[None], position_ids=positions[None], use_cache=False, textenvs_attend=attend
            ).last_hidden_state
        finally:
            config._attn_implementation = usual
        return wanted(hidden[0])

    return forward


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    textenvs_attend: Attend | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """An attention function as transformers calls it, which hands the work to ``textenvs_attend``."""
    if textenvs_attend is None:
        raise ValueError(f"{type(module).__name__} is not told what its model was told, which decoding relies on.")
    for name in ("softcap", "s_aux", "position_bias"):
        if others.get(name) is not None:
            raise ValueError(f"{type(module).__name__} asks attention for {name}, which is not supported here.")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    layer: Any = module.layer_idx
    query, key, value = (x[0].transpose(0, 1) for x in (query, key, value))  # the model sees one text of M tokens
    return textenvs_attend(layer, query, key, value, scale)[None], None
