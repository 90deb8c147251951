"""The forward pass of two families of architectures without what playing and learning do not need.

transformers' own code spends more time around a small model than in it: argument handling, mask creation, a cache that
grows by copying. These functions read the weights of the very same modules and leave attention to the caller. They are
used where every module is exactly the one they were written for; anything else (adapters, other architectures) runs by
its own code.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agents.lm.decoding import Attend, Forward, Pick


def lean_forward(trunk: Any) -> Forward | None:
    """The lean forward pass of a model, or None if there is none for it. Its last layer computes wanted states only.

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


def _gpt2(trunk: Any) -> Forward:
    num_heads = trunk.config.num_attention_heads

    def forward(ids: Tensor, positions: Tensor, attend: Attend, wanted: Pick) -> Tensor:
        x = F.embedding(ids, trunk.wte.weight) + F.embedding(positions, trunk.wpe.weight)
        for i, block in enumerate(trunk.h):
            attention, mlp = block.attn, block.mlp
            projected = torch.addmm(attention.c_attn.bias, block.ln_1(x), attention.c_attn.weight)
            query, key, value = projected.view(len(x), 3, num_heads, -1).unbind(1)
            if i == len(trunk.h) - 1:
                query, x = wanted(query), wanted(x)
            attended = attend(i, query, key, value, attention.scaling).reshape(x.shape)
            x = x + torch.addmm(attention.c_proj.bias, attended, attention.c_proj.weight)
            inner = mlp.act(torch.addmm(mlp.c_fc.bias, block.ln_2(x), mlp.c_fc.weight))
            x = x + torch.addmm(mlp.c_proj.bias, inner, mlp.c_proj.weight)
        return trunk.ln_f(x)

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


def _llama(trunk: Any) -> Forward:
    def forward(ids: Tensor, positions: Tensor, attend: Attend, wanted: Pick) -> Tensor:
        x = F.embedding(ids, trunk.embed_tokens.weight)
        cos, sin = (angles[0, :, None] for angles in trunk.rotary_emb(x, positions[None]))
        half = cos.shape[-1] // 2

        def rotate(heads: Tensor) -> Tensor:
            turned = torch.cat((-heads[..., half:], heads[..., :half]), -1)
            return heads * cos + turned * sin

        for i, layer in enumerate(trunk.layers):
            attention = layer.self_attn
            y = _rms_norm(x, layer.input_layernorm)
            query, key, value = (
                linear(y).view(len(x), -1, attention.head_dim)
                for linear in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            query, key = rotate(query), rotate(key)
            if i == len(trunk.layers) - 1:
                query, x = wanted(query), wanted(x)
            attended = attend(i, query, key, value, attention.scaling)
            x = x + attention.o_proj(attended.reshape(len(x), -1))
            y = _rms_norm(x, layer.post_attention_layernorm)
            x = x + layer.mlp.down_proj(layer.mlp.act_fn(layer.mlp.gate_proj(y)) * layer.mlp.up_proj(y))
        return _rms_norm(x, trunk.norm)

    return forward


def _rms_norm(x: Tensor, norm: Any) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), norm.weight, norm.variance_epsilon)
