"""The forward pass of two families of architectures without what playing and learning do not need.

transformers' own code spends more time around a small model than in it: argument handling, mask creation, a cache that
grows by copying. These functions read the weights of the very same modules and leave attention to the caller. They are
used where every module is exactly the one they were written for; anything else (adapters, other architectures) runs by
its own code.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agents.lm.decoding import Attend


class LeanForward(Protocol):
    """(ids [n, S], positions [n, S], attend) -> hidden [n, S, width], or of the ``last`` positions alone, for which the
    last layer then computes no more than it must."""

    def __call__(self, ids: Tensor, positions: Tensor, attend: Attend, last: int | None = None) -> Tensor: ...


def lean_forward(trunk: Any) -> LeanForward | None:
    """The lean forward pass of a model, or None if there is none for it.

    Args:
        trunk: the model without its head, a ``PreTrainedModel``.
    """
    if _is_plain_gpt2(trunk):
        return _gpt2(trunk)
    if _is_plain_llama(trunk):
        return _llama(trunk)
    return None


def _is_plain_gpt2(trunk: Any) -> bool:
    from transformers import GPT2Model
    from transformers.pytorch_utils import Conv1D

    if type(trunk) is not GPT2Model or trunk.config.add_cross_attention or trunk.config.reorder_and_upcast_attn:
        return False
    blocks: Any = trunk.h
    return all(
        type(layer) is Conv1D
        for block in blocks
        for layer in (block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj)
    )


def _gpt2(trunk: Any) -> LeanForward:
    num_heads = trunk.config.num_attention_heads

    def forward(ids: Tensor, positions: Tensor, attend: Attend, last: int | None = None) -> Tensor:
        num_rows, length = ids.shape
        x = F.embedding(ids, trunk.wte.weight) + F.embedding(positions, trunk.wpe.weight)
        width = x.shape[-1]
        x = x.view(num_rows * length, width)
        for i, block in enumerate(trunk.h):
            attention, mlp = block.attn, block.mlp
            projected = torch.addmm(attention.c_attn.bias, block.ln_1(x), attention.c_attn.weight)
            query, key, value = projected.view(num_rows, length, 3, num_heads, -1).transpose(1, 3).unbind(2)
            if last is not None and i == len(trunk.h) - 1:
                query, x, length = (
                    query[:, :, -last:],
                    x.view(num_rows, length, width)[:, -last:].reshape(-1, width),
                    last,
                )
            attended = attend(i, query, key, value, attention.scaling).transpose(1, 2).reshape(x.shape)
            x = x + torch.addmm(attention.c_proj.bias, attended, attention.c_proj.weight)
            inner = mlp.act(torch.addmm(mlp.c_fc.bias, block.ln_2(x), mlp.c_fc.weight))
            x = x + torch.addmm(mlp.c_proj.bias, inner, mlp.c_proj.weight)
        return trunk.ln_f(x).view(num_rows, length, width)

    return forward


def _is_plain_llama(trunk: Any) -> bool:
    from transformers import LlamaModel, Qwen2Model

    if type(trunk) not in (LlamaModel, Qwen2Model):
        return False
    kinds = getattr(trunk.config, "layer_types", None) or []
    return all(kind == "full_attention" for kind in kinds) and all(
        type(linear) is nn.Linear
        for layer in trunk.layers
        for linear in (
            layer.self_attn.q_proj,
            layer.self_attn.k_proj,
            layer.self_attn.v_proj,
            layer.self_attn.o_proj,
            layer.mlp.gate_proj,
            layer.mlp.up_proj,
            layer.mlp.down_proj,
        )
    )


def _llama(trunk: Any) -> LeanForward:
    def forward(ids: Tensor, positions: Tensor, attend: Attend, last: int | None = None) -> Tensor:
        x = F.embedding(ids, trunk.embed_tokens.weight)
        num_rows, length = ids.shape
        cos, sin = trunk.rotary_emb(x, positions)
        cos, sin = cos[:, None], sin[:, None]
        half = cos.shape[-1] // 2

        def rotate(heads: Tensor) -> Tensor:
            turned = torch.cat((-heads[..., half:], heads[..., :half]), -1)
            return heads * cos + turned * sin

        for i, layer in enumerate(trunk.layers):
            attention = layer.self_attn
            shape = (num_rows, length, -1, attention.head_dim)
            y = _rms_norm(x, layer.input_layernorm)
            query, key, value = (
                linear(y).view(shape).transpose(1, 2)
                for linear in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            query, key = rotate(query), rotate(key)
            if last is not None and i == len(trunk.layers) - 1:
                query, x, length = query[:, :, -last:], x[:, -last:], last
            attended = attend(i, query, key, value, attention.scaling)
            x = x + attention.o_proj(attended.transpose(1, 2).reshape(num_rows, length, -1))
            y = _rms_norm(x, layer.post_attention_layernorm)
            x = x + layer.mlp.down_proj(layer.mlp.act_fn(layer.mlp.gate_proj(y)) * layer.mlp.up_proj(y))
        return _rms_norm(x, trunk.norm)

    return forward


def _rms_norm(x: Tensor, norm: Any) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), norm.weight, norm.variance_epsilon)


def attend_within(mask: Tensor | None) -> Attend:
    """Attention of whole texts to themselves, differentiable.

    Args:
        mask: bool [n, 1, S, S], True where a token may look; None: at itself and all earlier ones.
    """

    def attend(layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        groups, wanted, length = query.shape[1] // key.shape[1], query.shape[2], key.shape[2]
        if groups > 1:
            key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        visible = mask
        if wanted < length:  # the states of the last positions alone
            if mask is None:
                visible = torch.ones(wanted, length, dtype=torch.bool, device=key.device).tril(length - wanted)
            else:
                visible = mask[:, :, -wanted:]
        return F.scaled_dot_product_attention(query, key, value, visible, is_causal=visible is None, scale=scaling)

    return attend
