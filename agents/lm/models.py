"""What a policy needs of a Hugging Face model: its parts, a critic, and details that decide speed and memory."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from agents.lm.loading import import_transformers, load_critic
from textenvs.rewards.learned import HEADER, Normalisation, read_header


def find_causal_lm(model: Any) -> Any:
    """The transformers model itself, with adapters in its layers if there are any.

    Raises:
        TypeError: it is no causal language model.
        ValueError: an adapter that is not part of the layers.
    """
    transformers = import_transformers()
    inner = model
    if hasattr(model, "get_base_model") and hasattr(model, "active_peft_config"):
        if model.active_peft_config.is_prompt_learning:
            raise ValueError(
                f"{type(model.active_peft_config).__name__} puts learnt tokens before the prompt, which is not "
                f"supported: use an adapter inside the layers, LoraConfig for example."
            )
        inner = model.get_base_model()
    if not isinstance(inner, transformers.PreTrainedModel) or inner.get_output_embeddings() is None:
        raise TypeError(
            f"model must be a causal language model of transformers (AutoModelForCausalLM); got {type(model).__name__}."
        )
    return inner


def new_gpt2(tokenizer: Any, *, width: int, num_layers: int, num_heads: int, positions: int, seed: int) -> Any:
    """A small GPT-2 with random weights for a tokenizer's tokens, without dropout.

    Args:
        positions: tokens that it can read at once.
        seed: of the weights. PyTorch's own random stream is left as it was.
    """
    transformers = import_transformers()
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=positions,
        n_embd=width,
        n_layer=num_layers,
        n_head=num_heads,
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
    )
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return transformers.GPT2LMHeadModel(config)


def make_critic(critic: Any, trunk: Any) -> tuple[Any, nn.Linear]:
    """A critic's trunk, None if it is the actor's, and its value head.

    Args:
        critic: ``"shared"``, ``"copy"``, a transformers model or the folder of one, or a ``RewardModel``.
        trunk: the actor's.

    Raises:
        TypeError: none of these.
        ValueError: a folder that cannot be read.
    """
    own, score, scale = None, None, Normalisation()
    if critic == "copy":
        own = copy.deepcopy(trunk)
    elif critic != "shared":
        if isinstance(critic, str | Path):
            model = load_critic(critic)
            if (Path(critic) / HEADER).is_file():
                scale = read_header(critic)
        elif isinstance(getattr(critic, "normalisation", None), Normalisation):  # a RewardModel
            model, scale = critic.model, critic.normalisation
        else:
            model = critic
        if not isinstance(model, import_transformers().PreTrainedModel):
            raise TypeError(
                f"critic must be 'shared', 'copy', a transformers model or the folder of one; "
                f"got {type(critic).__name__}."
            )
        own = copy.deepcopy(model.base_model)
        score = getattr(model, "score", None)
    if own is not None:
        own.requires_grad_(True)
    width = (trunk if own is None else own).config.get_text_config().hidden_size
    head = nn.utils.skip_init(nn.Linear, width, 1)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
        if isinstance(score, nn.Linear) and score.out_features == 1:
            # What it predicts is the reward that is paid: the normalised score.
            head.weight.copy_(score.weight / scale.std)
            head.bias.copy_(((0.0 if score.bias is None else score.bias) - scale.mean) / scale.std)
    return own, head


def use_fast_gelu(trunk: nn.Module) -> None:
    """Replace ``gelu_new``, five operations in Python, by the same function in one (they differ by 2e-6)."""
    from transformers.activations import ACT2FN, NewGELUActivation

    for module in list(trunk.modules()):
        for name, child in module.named_children():
            if type(child) is NewGELUActivation:
                setattr(module, name, ACT2FN["gelu_pytorch_tanh"])


def enable_checkpointing(trunk: nn.Module) -> None:
    """Prepare the layers for :func:`checkpointing`.

    Raises:
        ValueError: the architecture does not support it.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers: list[Any] = [module for module in trunk.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise ValueError(f"{type(trunk).__name__} does not support gradient checkpointing.")
    for layer in layers:
        layer.gradient_checkpointing = True
        layer._gradient_checkpointing_func = functools.partial(checkpoint, use_reentrant=False)


@contextlib.contextmanager
def checkpointing(trunk: nn.Module) -> Iterator[None]:
    """Checkpoint the prepared layers of a forward pass. transformers does so in training mode only: they are put in it
    by themselves, without what is inside them, so that dropout stays off."""
    layers = [module for module in trunk.modules() if getattr(module, "gradient_checkpointing", False)]
    if not torch.is_grad_enabled():
        layers = []
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False


def max_positions(config: Any) -> int:
    """How many tokens a model can tell apart and attend to at once."""
    config = config.get_text_config()
    names = ("max_position_embeddings", "sliding_window", "attention_chunk_size")
    limits = [getattr(config, name, None) for name in names]
    return min((int(limit) for limit in limits if limit), default=2**31)
