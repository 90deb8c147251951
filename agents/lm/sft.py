"""Supervised training of a language model on texts: pretraining on whole texts, fine-tuning (SFT) on completions.

    corpus = encode_rows([{"prompt": "the film", "completion": "was long ."}], tokenizer)
    train_on_texts(model, corpus, SFTConfig(learning_rate=1e-3, epochs=1))

The loss is the mean cross-entropy, in nats per token, of the tokens behind each prompt given all tokens before them
(Ouyang et al. 2022, "Training language models to follow instructions with human feedback", section 3.5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -100
"""Label of a token that is not to be predicted, as PyTorch's cross-entropy has it."""

OnProgress = Callable[[int, int, float], Any]
"""Told (steps done, steps in all, mean loss of the last steps)."""


@dataclass(frozen=True)
class Corpus:
    """B texts as token ids.

    Attributes:
        ids: int64 [B, L], right-padded with any id; EOS, where a text has it, is part of it.
        lengths: int64 [B], tokens, EOS included.
        prompt_lengths: int64 [B], tokens at the beginning that are read and not predicted. The first token never is.
    """

    ids: np.ndarray
    lengths: np.ndarray
    prompt_lengths: np.ndarray

    def __post_init__(self) -> None:
        if len(self.lengths) == 0:
            raise ValueError("There are no texts to learn from.")
        behind = self.lengths - np.maximum(self.prompt_lengths, 1)
        if behind.min() < 1:
            row = int(np.argmax(behind < 1))
            raise ValueError(f"Text {row} has no token behind its prompt that could be learnt.")

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def num_targets(self) -> int:
        """Tokens that are predicted."""
        return int((self.lengths - np.maximum(self.prompt_lengths, 1)).sum())


def encode_rows(rows: Sequence[dict[str, Any]], tokenizer: Any, *, max_length: int | None = None) -> Corpus:
    """Rows ``{prompt, completion}`` as ids, with the tokenizer's EOS behind each completion.

    Args:
        tokenizer: a :class:`textenvs.Vocab` or anything that :func:`textenvs.tokenizers.make_vocab` takes.
        max_length: the most tokens that a text may have.

    Raises:
        ValueError: no rows, a row without these columns, or a text that is too long; says which.
    """
    from textenvs.tokenizers import make_vocab

    vocab = make_vocab(tokenizer)
    texts, prompt_lengths = [], []
    for number, row in enumerate(rows):
        for column in ("prompt", "completion"):
            if not isinstance(row.get(column), str):
                raise ValueError(f"Row {number} has no text in the column {column!r}; it has {sorted(row)}.")
        encode_prompt = getattr(vocab, "encode_prompt", vocab.encode)
        prompt = encode_prompt(row["prompt"]) if row["prompt"] else []
        text = [*prompt, *vocab.encode(row["completion"]), *vocab.eos_ids[:1]]
        if max_length is not None and len(text) > max_length:
            raise ValueError(f"Row {number} has {len(text)} tokens, and the model reads at most {max_length}.")
        texts.append(text)
        prompt_lengths.append(len(prompt))
    ids = np.zeros((len(texts), max(map(len, texts), default=0)), dtype=np.int64)
    for number, text in enumerate(texts):
        ids[number, : len(text)] = text
    return Corpus(ids, np.array([len(text) for text in texts]), np.array(prompt_lengths))


@dataclass(frozen=True)
class SFTConfig:
    """Hyper-parameters of supervised training."""

    learning_rate: float = 1e-3
    """Peak; it falls linearly to 0."""
    batch_size: int = 32
    """Texts in a gradient step, of about equal length."""
    epochs: int = 1
    warmup_share: float = 0.03
    """Share of all steps over which the learning rate rises linearly."""
    weight_decay: float = 0.01
    """Of matrices (AdamW)."""
    beta2: float = 0.98
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        for name in ("batch_size", "epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}.")
        for name in ("learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive; got {getattr(self, name)}.")
        if not 0 <= self.warmup_share < 1:
            raise ValueError(f"warmup_share must be at least 0 and below 1; got {self.warmup_share}.")


def train_on_texts(
    model: Any, corpus: Corpus, config: SFTConfig | None = None, *, seed: int = 0, on_progress: OnProgress | None = None
) -> list[float]:
    """Train a causal language model in place; dropout is off.

    Args:
        model: any causal LM of transformers; weights in float32.
        corpus: the texts.
        seed: of their order.
        on_progress: called now and then.

    Returns:
        The loss of every step, in nats per token.
    """
    config = config or SFTConfig()
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, config.learning_rate, betas=(0.9, config.beta2), fused=True)
    rng = np.random.default_rng(seed)
    num_steps = config.epochs * -(-len(corpus) // config.batch_size)
    rising = round(config.warmup_share * num_steps)
    device = model.get_input_embeddings().weight.device
    losses: list[Tensor] = []
    model.eval()
    for _ in range(config.epochs):
        for batch in batches_of_equal_length(corpus.lengths, config.batch_size, rng):
            step = len(losses)
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * learning_rate_factor(step, rising, num_steps)
            loss = corpus_loss(model, corpus, batch, device)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
            optimizer.step()
            losses.append(loss.detach())
            if on_progress is not None and (len(losses) % 20 == 0 or len(losses) == num_steps):
                on_progress(len(losses), num_steps, float(torch.stack(losses[-20:]).mean()))
    return torch.stack(losses).tolist()


def learning_rate_factor(step: int, rising: int, num_steps: int) -> float:
    """What the learning rate is multiplied with in step 0 … num_steps − 1: it rises linearly for ``rising`` steps to 1
    and then falls linearly towards 0."""
    return min((step + 1) / max(rising, 1), (num_steps - step) / max(num_steps - rising, 1))


def corpus_loss(model: Any, corpus: Corpus, batch: np.ndarray, device: Any = None) -> Tensor:
    """Mean cross-entropy of the predicted tokens of some texts, in nats."""
    longest = int(corpus.lengths[batch].max())
    ids, columns = corpus.ids[batch, :longest], np.arange(longest)
    predicted = (columns >= corpus.prompt_lengths[batch, None]) & (columns < corpus.lengths[batch, None])
    labels = torch.from_numpy(np.where(predicted, ids, IGNORED)[:, 1:]).to(device)
    # Padding on the right needs no mask: nothing looks ahead.
    inputs = torch.from_numpy(np.where(columns < corpus.lengths[batch, None], ids, 0)[:, :-1]).to(device)
    logits = model(input_ids=inputs, use_cache=False).logits
    return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED)


@torch.no_grad()
def cross_entropy(model: Any, corpus: Corpus, batch_size: int = 256) -> float:
    """Mean cross-entropy over all predicted tokens of a corpus, in nats per token; exp of it is the perplexity."""
    model.eval()
    device = model.get_input_embeddings().weight.device
    order = np.argsort(corpus.lengths, kind="stable")
    total, count = 0.0, 0
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        targets = int((corpus.lengths[batch] - np.maximum(corpus.prompt_lengths[batch], 1)).sum())
        total += float(corpus_loss(model, corpus, batch, device)) * targets
        count += targets
    return total / count


def batches_of_equal_length(
    lengths: np.ndarray, batch_size: int, rng: np.random.Generator, pool: int = 64
) -> Iterator[np.ndarray]:
    """Every index once, in batches of texts of about equal length, so that little padding is computed.

    The texts are shuffled, sorted by length within pools of ``pool`` batches, and the batches shuffled again.

    Args:
        lengths: int64 [B].

    Yields:
        Indices int64 [batch_size], in one batch fewer.
    """
    order = rng.permutation(len(lengths))
    batches: list[np.ndarray] = []
    for start in range(0, len(order), pool * batch_size):
        part = order[start : start + pool * batch_size]
        part = part[np.argsort(lengths[part], kind="stable")]
        batches += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
    yield from (batches[i] for i in rng.permutation(len(batches)))
