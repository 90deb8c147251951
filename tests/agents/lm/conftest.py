"""Tiny language models, built here, with weights large enough that a mistake shows; and a game that they play."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers")

from agents.lm import LMActorCritic  # noqa: E402
from textenvs import Vocab  # noqa: E402
from textenvs.spec import TextSpec  # noqa: E402

V, P, T = 11, 4, 7
NO_SPECIAL = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
LLAMA = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
}


def _make_model(kind: str, vocab_size: int = V + 2, dropout: float = 0.0, seed: int = 0, **options: Any) -> Any:
    """A causal LM of two layers; two embeddings more than the environment has tokens."""
    torch.manual_seed(seed)
    sizes = {"vocab_size": vocab_size, **NO_SPECIAL, **options}
    if kind == "gpt2":
        rates = {"attn_pdrop": dropout, "embd_pdrop": dropout, "resid_pdrop": dropout}
        config = transformers.GPT2Config(
            **{"n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2, **rates, **sizes}
        )
        model = transformers.GPT2LMHeadModel(config)
    elif kind == "neox":  # an architecture without a forward pass of our own
        names = (
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "max_position_embeddings",
        )
        config = transformers.GPTNeoXConfig(**{name: LLAMA[name] for name in names}, rotary_pct=0.5, **sizes)
        model = transformers.GPTNeoXForCausalLM(config)
    else:
        name = {"llama": "Llama", "qwen2": "Qwen2"}[kind]
        config = getattr(transformers, f"{name}Config")(attention_dropout=dropout, **{**LLAMA, **sizes})
        model = getattr(transformers, f"{name}ForCausalLM")(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            around = 1.0 if parameter.ndim == 1 and name.endswith("weight") else 0.0
            parameter.normal_(around, 0.4 if parameter.ndim > 1 else 0.2, generator=generator)
    return model


@pytest.fixture
def make_model() -> Callable[..., Any]:
    """Makes a tiny causal LM: ``make_model("gpt2" | "llama" | "qwen2" | "neox", vocab_size=, dropout=, seed=)``."""
    return _make_model


def _text_spec(prompt_length: int = P, max_new_tokens: int = T, num_tokens: int = V, **others: Any) -> TextSpec:
    vocab = Vocab.symbols(num_tokens - 1, eos=True)
    return TextSpec(prompt_length, max_new_tokens, num_tokens, vocab.eos_ids, vocab, **{"has_masks": False, **others})


@pytest.fixture
def make_spec() -> Callable[..., TextSpec]:
    """Makes the shapes of an environment: ``make_spec(prompt_length=4, max_new_tokens=7, num_tokens=11)``."""
    return _text_spec


@pytest.fixture
def make_policy() -> Callable[..., LMActorCritic]:
    """Makes a policy that is bound to an environment: ``make_policy("gpt2", spec=None, **options)``."""

    def make(model: Any = "gpt2", spec: TextSpec | None = None, **options: Any) -> LMActorCritic:
        policy = LMActorCritic(_make_model(model) if isinstance(model, str) else model, **options)
        with torch.no_grad():
            policy.value_head.weight.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
            policy.value_head.bias.fill_(0.1)
        policy.bind(spec or _text_spec(), seed=0)
        return policy

    return make


class Game:
    """Rows that are written, end after random lengths and begin anew with prompts of random lengths."""

    def __init__(self, num_rows: int, spec: TextSpec, seed: int = 0, shortest_prompt: int = 1) -> None:
        self.rng = np.random.default_rng(seed)
        self.spec, self.shortest = spec, min(shortest_prompt, spec.prompt_length)
        self.obs = np.full((num_rows, spec.row_length), spec.pad_id)
        self.ends = np.zeros(num_rows, dtype=int)
        self.written = np.zeros(num_rows, dtype=int)
        for row in range(num_rows):
            self.begin(row)

    def begin(self, row: int) -> None:
        spec = self.spec
        self.obs[row] = spec.pad_id
        length = self.rng.integers(self.shortest, spec.prompt_length + 1)
        self.obs[row, spec.prompt_length - length : spec.prompt_length] = self.rng.integers(0, spec.pad_id, length)
        self.written[row] = 0
        self.ends[row] = self.rng.integers(1, spec.max_new_tokens + 1)

    def step(self, actions: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """Write; returns (row, final observation) of those that ended, which have begun anew."""
        self.obs = self.obs.copy()
        rows = np.arange(len(self.obs))
        self.obs[rows, self.spec.prompt_length + self.written] = actions
        self.written += 1
        finished = []
        for row in np.flatnonzero(self.written == self.ends):
            finished.append((int(row), self.obs[row].copy()))
            self.begin(int(row))
        return finished


@pytest.fixture
def make_game() -> Callable[..., Game]:
    """Makes a game: ``make_game(num_rows, spec, seed=0, shortest_prompt=1)``."""
    return Game


def _random_rows(spec: TextSpec, count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, spec.pad_id, (count, spec.row_length))
    lengths = rng.integers(1, spec.max_new_tokens + 1, count)
    prompts = rng.integers(1, spec.prompt_length + 1, count)
    columns = np.arange(spec.row_length)
    outside = columns >= (spec.prompt_length + lengths)[:, None]
    rows[outside | (columns < (spec.prompt_length - prompts)[:, None])] = spec.pad_id
    return torch.from_numpy(rows), torch.from_numpy(lengths)


@pytest.fixture
def random_rows() -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """Final observations and lengths: ``random_rows(spec, count, seed=0)``."""
    return _random_rows
