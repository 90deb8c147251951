"""DPO and IPO: a policy learns from preferences without a reward model and without sampling.

result = train_dpo(policy, rankings, DPOConfig(beta=0.1), checkpoint="runs/dpo/checkpoint")
policy.save_pretrained("runs/dpo/model")

The reference is the policy as it begins. Its log-probabilities of all answers are computed once, before the first
step, and kept; after that it is not needed any more.

Rafailov et al. 2023, "Direct Preference Optimization: Your Language Model is Secretly a Reward Model"; Azar et al.
2023, "A General Theoretical Paradigm to Understand Learning from Human Preferences".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from agents.checkpoint import (
    CheckpointError,
    checksum,
    load_config,
    load_optimizer_state,
    load_state,
    load_trainable_state,
    optimizer_state,
    recover,
    save_checkpoint,
    trainable_state,
)
from agents.lm.models import max_positions
from agents.lm.preferences import Ranking, label_doubts, pairs
from agents.lm.sft import learning_rate_factor
from agents.losses import dpo_loss, ipo_loss
from textenvs.tokenizers import TokenizerVocab

TOKENS_AT_ONCE = 2**14
"""Tokens in one forward pass without gradients."""


@dataclass(frozen=True)
class DPOConfig:
    """Hyper-parameters."""

    beta: float = 0.1
    """How dear it is to leave the reference; the smaller, the further the policy goes."""
    loss: Literal["dpo", "ipo"] = "dpo"
    label_smoothing: float = 0.0
    """Of DPO: share of labels that are taken to be wrong, in [0, ½)."""
    learning_rate: float = 3e-4
    """Its peak, for a small model; a pretrained one of 100 M parameters wants 1e-6."""
    epochs: int = 2
    batch_size: int = 16
    """Prompts in one step, with all pairs of each."""
    warmup: float = 0.1
    """Share of the steps in which the learning rate rises from 0; it then falls to 0, both linearly."""
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    seed: int = 0
    """Of the order of the prompts."""

    def __post_init__(self) -> None:
        for name in ("beta", "learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive; got {getattr(self, name)}.")
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}.")
        if self.loss not in ("dpo", "ipo"):
            raise ValueError(f"loss must be 'dpo' or 'ipo'; got {self.loss!r}.")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(f"label_smoothing is a share below one half; got {self.label_smoothing}.")
        if self.label_smoothing and self.loss == "ipo":
            raise ValueError("label_smoothing belongs to loss='dpo'; IPO's own regularisation is beta.")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is a share of the steps, in [0, 1); got {self.warmup}.")


Callback = Callable[[int, int, dict[str, float]], Any]
"""Called after each step with its number (from 1), the number of steps, and the figures of the batch. Training stops
after a step for which it returns False."""


@dataclass(frozen=True)
class DPOResult:
    """What came out of the training."""

    accuracy: float
    """Share of the held-out pairs of which the chosen one has the higher implicit reward β log π/π_ref; NaN without."""
    num_comparisons: int
    """Pairs learnt from, each counted once."""
    history: list[dict[str, float]] = field(repr=False)
    """Figures of every step."""


@dataclass(frozen=True)
class _Texts:
    """All answers of some rankings as tokens, and which pairs they make."""

    rows: list[list[int]]
    prompt_lengths: np.ndarray
    first: np.ndarray
    """Of each ranking: the number of its first answer; one entry more than there are rankings."""
    pairs: list[np.ndarray]
    """Of each ranking: (preferred, other), numbers among its own answers."""
    doubts: list[np.ndarray]
    """Of each ranking: how probably the label of each pair is wrong."""

    @property
    def num_pairs(self) -> int:
        return sum(len(each) for each in self.pairs)


def encode_rankings(tokenizer: Any, rankings: Sequence[Ranking], max_length: int) -> _Texts:
    """Prompts and answers as ids, with EOS behind those that are finished. Rankings that tie all answers are left out.

    Raises:
        ValueError: a text that is too long, has nothing behind its first token, or words that the tokenizer lacks.
    """
    vocab = TokenizerVocab(tokenizer)
    rows: list[list[int]] = []
    prompt_lengths, first, of_pairs, doubts = [], [0], [], []
    for number, ranking in enumerate(rankings):
        decided = pairs(ranking.ranks)
        if not len(decided):
            continue
        prompt = vocab.encode_prompt(ranking.prompt)
        for i, answer in enumerate(ranking.answers):
            finished = ranking.finished is None or ranking.finished[i]
            row = [*prompt, *vocab.encode(answer), *(vocab.eos_ids[:1] if finished else ())]
            what = f"Ranking {number}, answer {i}"
            if tokenizer.unk_token_id in row:
                raise ValueError(f"{what}: the tokenizer has no tokens for something in {answer!r:.100}.")
            if len(row) > max_length:
                raise ValueError(f"{what} has {len(row)} tokens with its prompt; the model reads at most {max_length}.")
            if len(row) <= max(len(prompt), 1):
                raise ValueError(f"{what} has no token whose probability the model could change.")
            rows.append(row)
            prompt_lengths.append(len(prompt))
        first.append(len(rows))
        of_pairs.append(decided)
        doubts.append(label_doubts(ranking))
    return _Texts(rows, np.array(prompt_lengths, dtype=np.int64), np.array(first), of_pairs, doubts)


def answer_logprobs(model: Any, rows: Sequence[Sequence[int]], prompt_lengths: np.ndarray) -> tuple[Tensor, Tensor]:
    """Log-probabilities of answers given their prompts.

    Args:
        model: a causal LM of transformers.
        rows: B texts as ids: prompt, answer, EOS where it was written.
        prompt_lengths: int64 [B], tokens at the beginning that are read and not counted; the first token never is.

    Returns:
        Sums float32 [B] over the tokens of each answer, in nats, with gradients; numbers of these tokens int64 [B].
    """
    device = model.get_input_embeddings().weight.device
    lengths = np.array([len(row) for row in rows])
    ids = np.zeros((len(rows), lengths.max()), dtype=np.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
    columns = np.arange(1, ids.shape[1])
    counted = torch.from_numpy((columns >= prompt_lengths[:, None]) & (columns < lengths[:, None])).to(device)
    tokens = torch.from_numpy(ids).to(device)
    # Padding on the right needs no mask: nothing looks ahead.
    logits = model(input_ids=tokens[:, :-1], use_cache=False).logits
    losses = F.cross_entropy(logits[counted].float(), tokens[:, 1:][counted], reduction="none")
    where = counted.nonzero()[:, 0]
    sums = torch.zeros(len(rows), device=device).index_add(0, where, -losses)
    return sums, counted.sum(1)


@torch.no_grad()
def all_logprobs(model: Any, texts: _Texts) -> np.ndarray:
    """Sums float32 [B] of :func:`answer_logprobs` for any number of texts, those of similar length together."""
    sums = np.zeros(len(texts.rows), dtype=np.float32)
    order = np.argsort([len(row) for row in texts.rows], kind="stable")
    size = max(1, TOKENS_AT_ONCE // max(map(len, texts.rows), default=1))
    for start in range(0, len(order), size):
        part = order[start : start + size]
        found, _ = answer_logprobs(model, [texts.rows[i] for i in part], texts.prompt_lengths[part])
        sums[part] = found.cpu().numpy()
    return sums


def train_dpo(
    policy: Any,
    rankings: Sequence[Ranking],
    config: DPOConfig | None = None,
    *,
    held_out: Sequence[Ranking] = (),
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 50,
    callback: Callback | None = None,
) -> DPOResult:
    """Train on rankings. All answers to a prompt go through the model once; its pairs weigh together as one prompt.

    With ``checkpoint=`` the same call goes on where it was stopped, to the bit; the policy must then be the one that it
    was given at first.

    Args:
        policy: an ``LMActorCritic``, changed in place; its temperature and its value head play no part.
        rankings: those that tie all answers are left out.
        config: hyper-parameters.
        held_out: other rankings, for ``accuracy``.
        checkpoint: a folder that training can be resumed from.
        checkpoint_every: steps between two checkpoints.
        callback: see ``Callback``; a progress bar for example.

    Raises:
        ValueError: no ranking decides anything, a text cannot be read, or the policy is frozen.
        CheckpointError: the checkpoint is of another training.
    """
    config = config or DPOConfig()
    if not any(parameter.requires_grad for parameter in policy.model.parameters()):
        raise ValueError("The policy has no weights that could be trained: is it a frozen copy?")
    model, limit = policy.model, max_positions(policy.model.config)
    texts = encode_rankings(policy.tokenizer, rankings, limit)
    if not texts.pairs:
        raise ValueError("None of the rankings prefers an answer to another: there is nothing to learn from.")
    others = encode_rankings(policy.tokenizer, held_out, limit)
    model.eval()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=config.weight_decay, fused=True
    )
    identity = {
        "kind": "dpo",
        "hyperparameters": asdict(config),
        "data": _digest(texts, others),
        "model": checksum(model.parameters()),
    }
    history: list[dict[str, float]] = []
    folder = None if checkpoint is None else Path(checkpoint)
    if folder is not None:
        recover(folder)
    if folder is not None and folder.is_dir():
        reference, reference_others, history = _resume(folder, identity, model, optimizer)
    else:
        reference, reference_others = all_logprobs(model, texts), all_logprobs(model, others)

    def save() -> None:
        if folder is None:
            return
        figures = {
            name.replace("/", "."): np.array([step[name] for step in history])
            for name in (history[0] if history else ())
        }
        state = {
            "model": trainable_state(model),
            "optimizer": optimizer_state(optimizer),
            "reference": {"train": reference, "held_out": reference_others},
            "history": figures,
            "progress": {"steps": len(history)},
        }
        save_checkpoint(folder, identity, state)

    batches = _batches(len(texts.pairs), config)
    rising = round(config.warmup * len(batches))
    for step in range(len(history), len(batches)):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * learning_rate_factor(step, rising, len(batches))
        loss, metrics = batch_loss(model, texts, reference, batches[step], config)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
        optimizer.step()
        history.append({f"losses/{config.loss}": float(loss.detach()), **metrics})
        stopped = callback is not None and callback(step + 1, len(batches), history[-1]) is False
        if stopped or (step + 1) % checkpoint_every == 0 or step + 1 == len(batches):
            save()
        if stopped:
            break
    optimizer.zero_grad()
    return DPOResult(_accuracy(model, others, reference_others), texts.num_pairs, history)


def batch_loss(
    model: Any, texts: _Texts, reference: np.ndarray, batch: Sequence[int], config: DPOConfig
) -> tuple[Tensor, dict[str, float]]:
    """Loss of a batch of rankings, and its figures; rewards are implicit: β log π/π_ref, of means for IPO.

    Args:
        texts: of all rankings.
        reference: float32 [B], log-probabilities of all texts under the reference.
        batch: numbers of rankings.
    """
    numbers = np.concatenate([np.arange(texts.first[i], texts.first[i + 1]) for i in batch])
    sums, counts = answer_logprobs(model, [texts.rows[i] for i in numbers], texts.prompt_lengths[numbers])
    ratios = sums - torch.from_numpy(reference[numbers]).to(sums)
    if config.loss == "ipo":
        ratios = ratios / counts
    begins = np.cumsum([0, *(texts.first[i + 1] - texts.first[i] for i in batch)])
    flat = np.concatenate([texts.pairs[i] + begin for i, begin in zip(batch, begins[:-1], strict=True)])
    sizes = [len(texts.pairs[i]) for i in batch]
    weights = torch.tensor([1 / (size * len(sizes)) for size in sizes for _ in range(size)], device=sums.device)
    chosen, rejected = ratios[torch.from_numpy(flat[:, 0])], ratios[torch.from_numpy(flat[:, 1])]
    smoothing: float | Tensor = config.label_smoothing
    doubts = np.concatenate([texts.doubts[i] for i in batch])
    if doubts.any():  # soft labels
        smoothing = torch.from_numpy(np.maximum(doubts, config.label_smoothing)).to(sums)
    loss_of = ipo_loss if config.loss == "ipo" else dpo_loss
    loss = loss_of(chosen - rejected, weights, config.beta, label_smoothing=smoothing)
    with torch.no_grad():
        rewards = [config.beta * each.mean() for each in (chosen, rejected, chosen - rejected)]
        figures = torch.stack([*rewards, (chosen > rejected).float().mean()]).tolist()
    names = ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies")
    return loss, dict(zip(names, figures, strict=True))


def _batches(count: int, config: DPOConfig) -> list[list[int]]:
    """Numbers of rankings for every step: in each epoch all of them, in another order."""
    rng, batches = np.random.default_rng(config.seed), []
    for _ in range(config.epochs):
        order = rng.permutation(count).tolist()
        batches += [order[start : start + config.batch_size] for start in range(0, count, config.batch_size)]
    return batches


def _accuracy(model: Any, texts: _Texts, reference: np.ndarray) -> float:
    if not texts.pairs:
        return float("nan")
    ratios = all_logprobs(model, texts) - reference
    margins = np.concatenate(
        [
            ratios[each[:, 0] + begin] - ratios[each[:, 1] + begin]
            for each, begin in zip(texts.pairs, texts.first, strict=False)
        ]
    )
    return float(((margins > 0) + 0.5 * (margins == 0)).mean())


def _digest(*parts: _Texts) -> str:
    """Changes with any token, and with any preference."""
    content: list[Any] = [
        [part.rows, part.prompt_lengths.tolist(), [each.tolist() for each in part.pairs]] for part in parts
    ]
    if any(each.any() for part in parts for each in part.doubts):
        content.append([[each.tolist() for each in part.doubts] for part in parts])
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _resume(
    folder: Path, identity: dict[str, Any], model: Any, optimizer: torch.optim.Optimizer
) -> tuple[np.ndarray, np.ndarray, list[dict[str, float]]]:
    """Put back model and optimiser; returns the reference's log-probabilities and the figures of the steps so far."""
    saved = load_config(folder)
    for name, what in (
        ("kind", "of another method"),
        ("hyperparameters", "of other hyper-parameters"),
        ("data", "of other rankings"),
        ("model", "of a policy that began with other weights"),
    ):
        if saved.get(name) != json.loads(json.dumps(identity[name])):
            raise CheckpointError(
                f"The checkpoint {folder} is {what}: give another folder, or delete it to begin anew."
            )
    state = load_state(folder)
    load_trainable_state(model, state["model"])
    load_optimizer_state(optimizer, state["optimizer"])
    steps, figures = int(state["progress"]["steps"]), state.get("history", {})
    history = [
        {name.replace(".", "/"): float(values[step]) for name, values in figures.items()} for step in range(steps)
    ]
    return state["reference"]["train"], state["reference"]["held_out"], history
