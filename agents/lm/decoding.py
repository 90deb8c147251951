"""Incremental decoding of Hugging Face language models in the rhythm of ``env.step``.

Keys and values of all rows stand in one slab per layer, [2, N, heads, head width, columns]: columns last, because the
one new query of a row is then multiplied with a channel of all of them at a time. The columns are a ring. Whatever
their lengths, all rows write the same column, and each attends to the columns back to its own start. A row that is new
is read into the columns just before the current one, so that old and new rows go on together.
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
    """Attention of one layer: query [n, heads, S, d], key and value [n, key heads, S, d] -> [n, heads, S, d]."""

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor: ...


Forward = Callable[[Tensor, Tensor, Attend], Tensor]
"""(ids [n, S], positions [n, S], attend) -> hidden [n, S, width]: a model that leaves attention to somebody else."""


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

    def read(self, rows: np.ndarray, mask: Tensor | None) -> Attend:
        """Attention within new contexts of ``rows``, which are kept in the columns before ``next``.

        Args:
            rows: [n] int64.
            mask: bool [n, 1, S, S], True where a token may look; None: at itself and all earlier ones.
        """
        everything = len(rows) == self.num_rows
        places = torch.from_numpy(rows).to(self.device)

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
            begin, length = (self.next - key.shape[2]) % self.context, key.shape[2]
            if begin + length > self.context:
                self._reserve(self.context)
            for slab, new in zip(self._layer(layer, key), (key, value), strict=True):
                if begin + length > self.context:  # round the end
                    columns = torch.arange(begin, begin + length, device=self.device) % self.context
                    slab[places[:, None], ..., columns] = new.transpose(1, 2)
                elif everything:
                    slab[..., begin : begin + length] = new.transpose(2, 3)
                else:
                    slab[places, ..., begin : begin + length] = new.transpose(2, 3)
            groups = query.shape[1] // key.shape[1]
            if groups > 1:
                key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
            return F.scaled_dot_product_attention(query, key, value, mask, is_causal=mask is None, scale=scaling)

        return attend

    def step(self) -> Attend:
        """Attention of one new token of every row, kept in the column of ``next``, to the row's context and itself."""
        ages, column = self.next - self.starts, self.next % self.context
        oldest = int(ages.max())
        first, end = (column - oldest, column + 1) if oldest <= column else (0, self.context)
        self._reserve(end)
        hidden = (column - np.arange(first, end)) % self.context > ages[:, None]
        ragged = bool(hidden.any())
        additive = np.where(hidden, np.float32(-np.inf), np.float32(0)) if ragged else np.zeros((1, 1), np.float32)
        mask = torch.from_numpy(additive).to(self.device)[:, None]
        masks: dict[int, Tensor] = {}  # by the number of heads; one for all layers, as a rule

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
            slab = self._layer(layer, key)
            slab[0, ..., column], slab[1, ..., column] = key[:, :, 0], value[:, :, 0]
            num_heads, head_width = key.shape[1], key.shape[3]
            if num_heads not in masks:
                masks[num_heads] = mask.repeat_interleave(num_heads, 0) if ragged else mask
            keys, values = slab.view(2, -1, head_width, slab.shape[-1])[..., first:end].unbind(0)
            query_rows = query.reshape(len(keys), -1, head_width)  # heads that share keys are the rows of one matrix
            weights = torch.baddbmm(masks[num_heads], query_rows, keys, beta=int(ragged), alpha=scaling)
            return torch.bmm(weights.softmax(-1).to(values.dtype), values.transpose(1, 2)).view(query.shape)

        return attend

    def _layer(self, layer: int, key: Tensor) -> Tensor:
        if layer not in self._layers:
            # Zeros, not empty: columns outside a row's context have weight 0, and 0 times NaN is NaN.
            self._layers[layer] = key.new_zeros(2, self.num_rows, key.shape[1], key.shape[3], self._reserved)
        return self._layers[layer]


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
        new = self._new_rows(obs, columns)
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
        rows = np.flatnonzero(new)
        # Marked as valid only at the end: an exception in between leaves nothing wrong behind.
        self._obs, self._columns = None, columns
        if len(rows) == num_rows:
            # As if the longest prompt stood in the first columns: texts that begin together do not go round the end.
            slab.begin(max(int((columns - first).max()), self.context - self.row_length + self.prompt_length))
            hidden = self._read(slab, obs, rows, first, columns)[:, -1]
        else:
            if len(rows):
                self._read(slab, obs, rows, first[rows], columns[rows] - 1)
            hidden = self._decode(slab, obs, first, columns)
        self.prefilled_rows += len(rows)
        self._obs = obs
        return hidden

    def _new_rows(self, obs: np.ndarray, columns: np.ndarray) -> np.ndarray:
        if self._obs is None or self._obs.shape != obs.shape:
            return np.ones(len(obs), dtype=np.bool_)
        # One column more and nothing else changed: texts have no gaps, so it is the next one that was written.
        new: np.ndarray = ((obs != self._obs).sum(1) != 1) | (columns != self._columns + 1)
        return new

    def _read(
        self, slab: KeyValueSlab, obs: np.ndarray, rows: np.ndarray, first: np.ndarray, end: np.ndarray
    ) -> Tensor:
        """Read the columns first … end − 1 of the rows [n]; hidden states [n, S, width], aligned on the right."""
        lengths = end - first
        length = int(lengths.max())
        slab.starts[rows] = slab.next - lengths
        if length == 0:
            return torch.zeros(0, device=self.device)
        places = end[:, None] + np.arange(-length, 0)
        inside = places >= first[:, None]
        ids = np.where(inside, obs[rows[:, None], np.maximum(places, 0)], 0)
        if self.bos_id is not None:
            ids[places == first[:, None]] = self.bos_id
        positions = np.maximum(places - first[:, None], 0)
        mask = None
        if not inside.all():
            # Padding looks at itself, so that it has a finite state; nobody looks at it.
            mask = np.tri(length, dtype=np.bool_) & inside[:, None, None, :] | np.eye(length, dtype=np.bool_)
        return self._forward(ids, positions, slab.read(rows, None if mask is None else self._tensor(mask)))

    def _decode(self, slab: KeyValueSlab, obs: np.ndarray, first: np.ndarray, columns: np.ndarray) -> Tensor:
        """Read the last token of every row; hidden states [N, width]."""
        tokens = obs[np.arange(len(obs)), columns - 1]
        if self.bos_id is not None:
            tokens = np.where(columns - 1 == first, self.bos_id, tokens)
        hidden = self._forward(tokens[:, None], (columns - 1 - first)[:, None], slab.step())
        slab.next += 1
        return hidden[:, 0]

    def _forward(self, ids: np.ndarray, positions: np.ndarray, attend: Attend) -> Tensor:
        # Only a row that is full asks for one position too many, and its action will be ignored.
        positions = np.minimum(positions, self.max_positions - 1)
        return self.forward(self._tensor(ids), self._tensor(positions), attend)

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

    def forward(ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        usual = config._attn_implementation
        config._attn_implementation = ATTENTION
        try:
            hidden: Tensor = trunk(
                input_ids=ids, position_ids=positions, use_cache=False, textenvs_attend=attend
            ).last_hidden_state
        finally:
            config._attn_implementation = usual
        return hidden

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
    return textenvs_attend(layer, query, key, value, scale).transpose(1, 2), None
