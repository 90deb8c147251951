"""The small causal transformer: one pass over whole episodes, or one token at a time over a cache."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of the trunk."""

    num_layers: int = 2
    width: int = 64
    num_heads: int = 4

    def __post_init__(self) -> None:
        for name in ("num_layers", "width", "num_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}.")
        if self.width % self.num_heads:
            raise ValueError(
                f"width must be a multiple of num_heads; got width={self.width}, num_heads={self.num_heads}."
            )


class Linear(nn.Module):
    """x W + b with W [inputs, outputs]: the other way round than PyTorch's, because the few rows of a rollout are then
    multiplied quicker."""

    def __init__(self, num_inputs: int, num_outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.in_features, self.out_features = num_inputs, num_outputs
        self.weight = nn.Parameter(torch.zeros(num_inputs, num_outputs))
        self.bias = nn.Parameter(torch.zeros(num_outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """[…, inputs] -> […, outputs]."""
        return F.linear(x, self.weight.t(), self.bias)


def make_linear(
    num_inputs: int,
    num_outputs: int,
    generator: torch.Generator,
    *,
    gain: float | None = None,
    std: float | None = None,
    bias: bool = True,
) -> Linear:
    """A linear layer whose weights come from ``generator`` alone (no global random state); its bias is zero.

    Args:
        gain: orthogonal initialisation with this gain.
        std: normal initialisation with this standard deviation (0: zeros). Exactly one of the two is given.
    """
    weight = torch.empty(num_outputs, num_inputs)
    if gain is not None and std is None:
        nn.init.orthogonal_(weight, gain, generator=generator)
    elif std is not None and gain is None:
        nn.init.normal_(weight, 0.0, std, generator=generator)
    else:
        raise ValueError("Give exactly one of gain (orthogonal) and std (normal).")
    layer = Linear(num_inputs, num_outputs, bias)
    layer.weight.data.copy_(weight.t())
    return layer


def flatten_parameters(module: nn.Module) -> tuple[nn.Parameter, Tensor]:
    """Put all trainable parameters of a module, and their gradients, into one vector each, of which they become views.

    An optimiser of one vector needs one operation where it would need one for every parameter, and so does the norm of
    the gradient: for small networks this is a sixth of an update.

    Returns:
        The vector of parameters, to be given to the optimiser, and that of the gradients, to be set to zero before
        every backward pass. The module must not be moved to another device afterwards.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    vector = nn.Parameter(torch.cat([parameter.detach().reshape(-1) for parameter in parameters]))
    gradient = vector.grad = torch.zeros_like(vector)
    start = 0
    for parameter in parameters:
        end = start + parameter.numel()
        parameter.data = vector.data[start:end].view_as(parameter)
        parameter.grad = gradient[start:end].view_as(parameter)
        start = end
    return vector, gradient


def clip_gradient(gradient: Tensor, max_norm: float) -> None:
    """Scale a gradient, one vector, to a norm of at most ``max_norm``: ``clip_grad_norm_`` in a fraction of its
    time."""
    norm = torch.linalg.vector_norm(gradient)
    gradient.mul_((max_norm / (norm + 1e-6)).clamp(max=1.0))


CACHE_STEP = 32
"""Positions by which a cache grows: reading is quicker where little of what is reserved is unused."""


class Cache:
    """Keys and values of every row, position and layer: for each layer [2, batch, width, positions].

    Positions stand last: the one new query of a row is then multiplied with a channel of all of them at a time, which
    is the fastest order there is for it.

    Args:
        batch: rows.
        length: positions in all; they are reserved as they are needed.
    """

    def __init__(self, num_layers: int, batch: int, length: int, width: int, device: torch.device) -> None:
        self.batch, self.length = batch, length
        self._empty = torch.zeros(2, batch, width, 0, device=device)
        self.layers = [self._empty] * num_layers

    def clear(self) -> None:
        """Forget everything."""
        self.layers = [self._empty] * len(self.layers)

    def reserve(self, length: int) -> None:
        """Make room for the first ``length`` positions; what is kept stays."""
        present = self.layers[0].shape[-1]
        if length > present:
            wanted = min(-(-length // CACHE_STEP) * CACHE_STEP, self.length)
            more = self._empty.new_zeros(*self._empty.shape[:-1], wanted - present)
            self.layers = [torch.cat((layer, more), -1) for layer in self.layers]


class Block(nn.Module):
    """Pre-LN transformer layer with fused query-key-value projection."""

    def __init__(self, config: TransformerConfig, generator: torch.Generator) -> None:
        super().__init__()
        width = config.width
        self.width, self.num_heads, self.head_width = width, config.num_heads, width // config.num_heads
        residual_gain = 1 / math.sqrt(2 * config.num_layers)  # GPT-2: the residual stream keeps its scale with depth
        self.norm_1 = nn.LayerNorm(width, bias=False)
        self.query_key_value = make_linear(width, 3 * width, generator, gain=1.0, bias=False)
        self.project = make_linear(width, width, generator, gain=residual_gain, bias=False)
        self.norm_2 = nn.LayerNorm(width, bias=False)
        self.up = make_linear(width, 4 * width, generator, gain=math.sqrt(2), bias=False)
        self.down = make_linear(4 * width, width, generator, gain=residual_gain, bias=False)
        self._weights = tuple(
            layer.weight for layer in (self.norm_1, self.query_key_value, self.project, self.norm_2, self.up, self.down)
        )

    def forward(
        self,
        x: Tensor,
        mask: Tensor,
        first: int = 0,
        cached: Tensor | None = None,
        cache_rows: Tensor | None = None,
    ) -> Tensor:
        """Whole rows: [B, S, width] -> [B, S - first, width].

        Args:
            mask: additive, broadcastable to [B, 1, S - first, S].
            first: position from which outputs are wanted; earlier ones serve as keys and values only.
            cached: this layer's [2, batch, width, positions] keys and values; those of the rows are written to it.
            cache_rows: [B] the rows' places in the cache.
        """
        batch, length, width = x.shape
        # Linear layers see a matrix: for one more dimension PyTorch would fold and unfold it at each of them.
        projected = self._project_in(x.view(-1, width))
        if cached is not None:
            cached[:, cache_rows, :, :length] = projected.view(batch, length, 3, width)[:, :, 1:].permute(2, 0, 3, 1)
        query, key, value = projected.view(batch, length, 3, self.num_heads, self.head_width).unbind(2)
        if first:
            query, x = query[:, first:], x[:, first:]
        attended = F.scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), mask
        )
        attended = attended.transpose(1, 2).reshape(-1, width)
        return self._rest(x.reshape(-1, width), attended).view(batch, length - first, width)

    def decode(
        self, x: Tensor, mask: Tensor, masked: bool, cached: Tensor, columns: Tensor | int, length: int
    ) -> Tensor:
        """One position of every row: [B, width] -> [B, width].

        Args:
            mask: additive [B · heads, 1, length], read only where ``masked``.
            cached: this layer's [2, B, width, positions] keys and values; the new ones are written to it.
            columns: [B] the position of each row, or the one of all rows.
            length: number of leading positions that can be attended to.
        """
        batch, width = x.shape
        projected = self._project_in(x)
        new = projected.view(batch, 3, width)[:, 1:].transpose(0, 1)
        if isinstance(columns, int):
            cached[..., columns] = new
        else:
            cached.scatter_(3, columns[:, None, None].expand(2, batch, width, 1), new[..., None])
        heads = batch * self.num_heads
        keys, values = cached.view(2, heads, self.head_width, -1)[..., :length].unbind(0)
        weights = torch.baddbmm(
            mask,
            projected[:, :width].reshape(heads, 1, self.head_width),
            keys,
            beta=int(masked),
            alpha=self.head_width**-0.5,
        )
        return self._rest(x, torch.bmm(weights.softmax(-1), values.transpose(1, 2)).view(batch, width))

    # Functions instead of calls of modules, and sums within products: in small networks an operation costs more to
    # begin than to do.

    def _project_in(self, x: Tensor) -> Tensor:
        norm, weight = self._weights[:2]
        return torch.mm(F.layer_norm(x, (self.width,), norm), weight)

    def _rest(self, x: Tensor, attended: Tensor) -> Tensor:
        project, norm, up, down = self._weights[2:]
        x = torch.addmm(x, attended, project)
        inner = torch.mm(F.layer_norm(x, (self.width,), norm), up)
        return torch.addmm(x, inner.relu_(), down)


class CausalTransformer(nn.Module):
    """Hidden states of observation rows.

    A row is P + T token ids, with the id ``num_tokens`` (= V) as padding on the left of the prompt and after the
    text. A BOS position is put in front, so that ``hidden[:, c]`` is the state before column c is written: it has
    seen the columns < c. Positions are columns. Padding is never attended to, BOS always is.

    Args:
        num_tokens: V, the number of writable tokens.
        row_length: L = P + T.
        generator: the source of the initial weights.
    """

    def __init__(self, num_tokens: int, row_length: int, config: TransformerConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.pad_id, self.bos_id = num_tokens, num_tokens + 1
        self.row_length, self.config = row_length, config
        self.token_embedding = nn.Parameter(torch.empty(num_tokens + 2, config.width))
        self.position_embedding = nn.Parameter(torch.empty(row_length, config.width))
        nn.init.normal_(self.token_embedding, 0.0, 0.5, generator=generator)
        nn.init.normal_(self.position_embedding, 0.0, 0.5, generator=generator)
        self.blocks = nn.ModuleList(Block(config, generator) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.width, bias=False)
        causal = torch.full((row_length, row_length), -torch.inf).triu(1)  # added to attention: 0 where visible
        self.register_buffer("causal", causal, persistent=False)

    causal: Tensor

    def new_cache(self, batch: int) -> Cache:
        """An empty cache for ``batch`` rows."""
        return Cache(self.config.num_layers, batch, self.row_length, self.config.width, self.token_embedding.device)

    def forward(
        self, rows: Tensor, first: int = 0, cache: Cache | None = None, cache_rows: Tensor | None = None
    ) -> Tensor:
        """States before the columns ``first``, ``first`` + 1, … of whole rows, in one pass.

        Args:
            rows: [B, S] int64 with S <= L (a shorter row asks for the first S states only).
            first: the first column whose state is wanted (P: the states of the actions).
            cache: if given, keys and values of all S positions are written to it, for ``decode`` to go on from.
            cache_rows: [B] int64, the rows' places in the cache.

        Returns:
            [B, S - first, width]; ``hidden[:, t]`` has seen the columns < first + t.
        """
        length = rows.shape[1]
        ids = self._behind_bos(rows)
        mask = self.causal[:length, :length].masked_fill((ids == self.pad_id)[:, None, None, :], -torch.inf)
        if cache is not None:
            cache.reserve(length)
        x = F.embedding(ids, self.token_embedding) + self.position_embedding[:length]
        for i, block in enumerate(self.blocks):
            # Until the last layer the early positions are needed too: later ones read their keys and values.
            skip = first if i == len(self.blocks) - 1 else 0
            visible = mask[:, :, skip:] if skip else mask
            x = block(x, visible, skip, None if cache is None else cache.layers[i], cache_rows)
        return self.norm(x)

    def decode(self, rows: np.ndarray, columns: np.ndarray, cache: Cache) -> Tensor:
        """The state before one column of every row, the earlier ones being in the cache.

        Args:
            rows: [B, L] int64; every entry from the row's column on is padding.
            columns: [B] int64, the column of each row whose state is wanted; they may differ.
            cache: holds the positions < column of each row; the new one is written to it.

        Returns:
            [B, width].
        """
        length, device = int(columns.max()) + 1, self.token_embedding.device
        cache.reserve(length)
        # As _behind_bos, for one position of each row, and on arrays: in small networks that is quicker.
        tokens = np.where(columns == 0, self.bos_id, rows[np.arange(len(rows)), columns - 1])
        hidden = rows[:, : length - 1] == self.pad_id
        mask, masked = self.causal[:1, :1], bool(hidden.any())
        if masked:
            additive = np.where(hidden, np.float32(-np.inf), np.float32(0)).repeat(self.config.num_heads, 0)
            mask = torch.from_numpy(np.pad(additive, ((0, 0), (1, 0)))).to(device)[:, None]
        places: Tensor | int = length - 1
        if (columns != length - 1).any():
            places = torch.from_numpy(columns).to(device)
        x = F.embedding(torch.from_numpy(tokens).to(device), self.token_embedding)
        x = x + self.position_embedding[places]
        for block, layer in zip(self.blocks, cache.layers, strict=True):
            x = cast(Block, block).decode(x, mask, masked, layer, places, length)
        return self.norm(x)

    def _behind_bos(self, rows: Tensor) -> Tensor:
        """[BOS, row without its last column]: what has been read when a column is about to be written."""
        return F.pad(rows[:, :-1], (1, 0), value=self.bos_id)
