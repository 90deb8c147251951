"""RewardModel: a language model with a scalar head that learns which answer people prefer.

model = RewardModel.from_causal_lm("runs/sft", seed=0)    # or an LMActorCritic, or a causal LM and its tokenizer
train_reward_model(model, rankings, held_out=others)
model.save_pretrained("runs/reward_model")                # then: reward="learned:runs/reward_model"

Ouyang et al. 2022, "Training language models to follow instructions with human feedback", section 3.5, on the trunk of
the supervised model, with the head of Stiennon et al. 2020, "Learning to summarize from human feedback", and the
normalisation of Ziegler et al. 2019, "Fine-Tuning Language Models from Human Preferences".
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from agents.lm.loading import import_transformers, load_model
from agents.lm.models import find_causal_lm, max_positions, use_fast_gelu
from agents.lm.preferences import Ranking, label_doubts, pairs, rank_margins
from agents.lm.saving import replacing
from agents.losses import preference_loss
from textenvs import Episodes
from textenvs.rewards.learned import Normalisation, outputs, read_header, token_rows, write_header
from textenvs.tokenizers import TokenizerVocab, load_tokenizer

Rows = list[list[int]]
"""Texts as token ids: prompt, answer, EOS where it was written."""

TOKENS_AT_ONCE = 2**14
"""Tokens in one forward pass without gradients."""


class RewardModel:
    """A sequence classifier with one output on a causal language model; its score is the normalised output.

    The output is read at the last token of prompt and answer, EOS included. Dropout is always off.

    Args:
        model: a sequence classifier of transformers with one label, whose head is ``model.score``. It is used as it is.
        tokenizer: its fast tokenizer.
        normalisation: statistics of the output on reference texts; see :meth:`normalise`.

    Raises:
        TypeError: not such a model, or not a fast tokenizer.
        ValueError: a tokenizer without EOS, or with more tokens than the model has embeddings.
    """

    def __init__(self, model: Any, tokenizer: Any, normalisation: Normalisation | None = None) -> None:
        head = getattr(model, "score", None)
        if not isinstance(model, import_transformers().PreTrainedModel) or getattr(head, "out_features", 0) != 1:
            raise TypeError(
                f"model must be a sequence classifier of transformers with one label, on a causal language model "
                f"(RewardModel.from_causal_lm makes one); got {type(model).__name__}."
            )
        self.model, self.tokenizer = model, tokenizer
        self.vocab = TokenizerVocab(tokenizer)
        embeddings = model.get_input_embeddings().weight.shape[0]
        if len(self.vocab) > embeddings:
            raise ValueError(
                f"The tokenizer has {len(self.vocab)} tokens, the model embeddings for {embeddings}: they do not "
                f"belong together."
            )
        self.normalisation = normalisation or Normalisation()
        use_fast_gelu(model.base_model)
        model.eval()

    @classmethod
    def from_causal_lm(cls, model: Any, tokenizer: Any = None, *, seed: int = 0) -> Self:
        """A reward model to be trained: the trunk of a causal LM, copied, and a head with weights of standard
        deviation 1 / √(d + 1), where d is the model's width.

        Args:
            model: an ``LMActorCritic``, a causal LM of transformers, or the hub name or folder of one.
            tokenizer: its fast tokenizer; default that of the policy or beside the model.
            seed: of the head.

        Raises:
            TypeError: not a causal LM, or no tokenizer.
            ValueError: a model that cannot be loaded, an adapter, or an architecture without a sequence classifier.
        """
        if isinstance(model, str | Path):
            tokenizer = load_tokenizer(model) if tokenizer is None else tokenizer
            model = load_model(model)
        elif hasattr(model, "value_head"):
            tokenizer = model.tokenizer if tokenizer is None else tokenizer
            model = model.model
        if tokenizer is None:
            raise TypeError("A reward model is saved with its tokenizer: give tokenizer=.")
        if hasattr(model, "active_peft_config"):
            raise ValueError("The trunk of a reward model has no adapter: give model.merge_and_unload().")
        causal_lm = find_causal_lm(model)
        return cls(_make_classifier(causal_lm, TokenizerVocab(tokenizer), seed), tokenizer)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """What ``save_pretrained`` wrote.

        Raises:
            FileNotFoundError: the folder, or ``reward_model.json`` in it, is missing.
            ValueError: it is damaged, pickled, or of another version.
        """
        normalisation = read_header(folder)
        model = load_model(folder, "AutoModelForSequenceClassification")
        return cls(model, load_tokenizer(folder), normalisation)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write model and tokenizer as transformers reads them, and ``reward_model.json`` beside them. A model that is
        already there is replaced; the folder is there as a whole or not at all.

        Raises:
            ValueError: there is something else at ``folder``.
        """
        with replacing(folder) as temporary:
            self.model.save_pretrained(temporary)
            self.tokenizer.save_pretrained(temporary)
            write_header(temporary, self.normalisation)

    # -- texts ---------------------------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        device: torch.device = self.model.score.weight.device
        return device

    def encode(self, ranking: Ranking) -> Rows:
        """The K texts of a ranking as it reads them.

        Raises:
            ValueError: a text that is longer than the model's context, or has words that the tokenizer does not know.
        """
        prompt = self.vocab.encode_prompt(ranking.prompt)
        rows = []
        for i, answer in enumerate(ranking.answers):
            finished = ranking.finished is None or ranking.finished[i]
            row = [*prompt, *self.vocab.encode(answer)]
            if self.tokenizer.unk_token_id in row:
                raise ValueError(
                    f"The tokenizer has no tokens for something in {f'{ranking.prompt} | {answer}'!r:.200}: the reward "
                    f"model would not read what was ranked."
                )
            row += self.vocab.eos_ids[:1] if finished else ()
            rows.append(row or [self.vocab.eos_ids[0]])
        longest, limit = max(map(len, rows)), max_positions(self.model.config)
        if longest > limit:
            raise ValueError(
                f"The prompt {ranking.prompt!r:.100} and one of its answers have {longest} tokens; the model reads at "
                f"most {limit}."
            )
        return rows

    def rows_of(self, episodes: Episodes) -> Rows:
        """Finished texts as it reads them.

        Raises:
            ValueError: they were written with another tokenizer.
        """
        theirs = episodes.vocab.tokens
        if theirs != self.vocab.tokens[: len(theirs)]:
            raise ValueError("These texts were written with another tokenizer than the reward model's.")
        return [row or [self.vocab.eos_ids[0]] for row in token_rows(episodes)]

    # -- scores --------------------------------------------------------------------------------------------------------

    def __call__(self, rows: Rows) -> Tensor:
        """Scores float32 [B] of texts, with gradients."""
        return (outputs(self.model, rows) - self.normalisation.mean) / self.normalisation.std

    @torch.no_grad()
    def scores(self, rows: Rows) -> np.ndarray:
        """Scores float32 [B] of any number of texts, those of similar length together."""
        scores = np.zeros(len(rows), dtype=np.float32)
        order = np.argsort([len(row) for row in rows], kind="stable")
        size = max(1, TOKENS_AT_ONCE // max(map(len, rows), default=1))
        for start in range(0, len(rows), size):
            part = order[start : start + size]
            scores[part] = self([rows[i] for i in part]).cpu().numpy()
        return scores

    def normalise(self, rows: Rows) -> None:
        """Shift and scale the score to mean 0 and variance 1 on reference texts.

        A KL coefficient means nothing until the reward has a known scale (Ziegler et al. 2019, section 2.1).

        Args:
            rows: at least two texts, samples of the supervised model above all.

        Raises:
            ValueError: fewer than two, or all of them score the same.
        """
        if len(rows) < 2:
            raise ValueError(f"Normalisation needs at least two reference texts, got {len(rows)}.")
        self.normalisation = Normalisation()
        raw = self.scores(rows).astype(np.float64)
        if not raw.std() > 0:
            raise ValueError("All reference texts score the same, so there is no scale to normalise with.")
        self.normalisation = Normalisation(float(raw.mean()), float(raw.std()))


def _make_classifier(causal_lm: Any, vocab: TokenizerVocab, seed: int) -> Any:
    transformers = import_transformers()
    config = copy.deepcopy(causal_lm.config)
    config.num_labels, config.id2label, config.label2id = 1, {0: "reward"}, {"reward": 0}
    # transformers reads the last token that is not padding: where padding is also an EOS, it would skip the end.
    pad = vocab.tokenizer.pad_token_id
    config.pad_token_id = None if pad in vocab.eos_ids else pad
    try:
        with torch.random.fork_rng(devices=[]):
            model = transformers.AutoModelForSequenceClassification.from_config(config, dtype=torch.float32)
    except ValueError as error:
        raise ValueError(f"There is no sequence classifier on a {type(causal_lm).__name__}: {error}") from error
    if not isinstance(getattr(model, "score", None), nn.Linear):
        raise ValueError(f"A {type(model).__name__} has no linear head 'score', which is not supported here.")
    model.base_model.load_state_dict(causal_lm.base_model.state_dict())
    head = model.score
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        head.weight.normal_(0.0, (head.in_features + 1) ** -0.5, generator=generator)
        if head.bias is not None:
            head.bias.zero_()
    return model.to(causal_lm.get_input_embeddings().weight.device)


# -- training ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RewardModelConfig:
    """Hyper-parameters."""

    learning_rate: float = 1e-3
    """Its peak, for a small model; a pretrained one of 100 M parameters wants 1e-5."""
    epochs: int = 2
    batch_size: int = 8
    """Prompts in one step."""
    warmup: float = 0.1
    """Share of the steps in which the learning rate rises from 0; it then falls to 0, both linearly."""
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    label_smoothing: float = 0.0
    """Share of labels that are taken to be wrong, in [0, ½): it keeps scores from drifting apart on noisy labels."""
    margin: float = 0.0
    """How much better (in units of the score) the best of a ranking is to be than its worst before the loss takes it
    for more than a toss-up; pairs in between in proportion, see ``rank_margins``."""
    seed: int = 0
    """Of the order of the prompts."""
    bf16: bool = False
    """Compute in bfloat16 where that is safe (autocast); meant for GPUs."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive; got {getattr(self, name)}.")
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}.")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is a share of the steps, in [0, 1); got {self.warmup}.")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(f"label_smoothing is a share below one half; got {self.label_smoothing}.")
        if not self.margin >= 0:
            raise ValueError(f"margin must be at least 0; got {self.margin}.")


Callback = Callable[[int, int, dict[str, float]], None]
"""Called after each step with its number (from 1), the number of steps, and the figures of the batch."""


@dataclass(frozen=True)
class RewardModelResult:
    """What came out of the training."""

    accuracy: float
    """Share of the held-out pairs in which the preferred answer scores higher; NaN without any."""
    train_accuracy: float
    """The same of the training pairs, while they were learnt: mean of the last tenth of the steps."""
    num_comparisons: int
    """Pairs learnt from, each counted once."""
    log_odds_scale: float
    """What a difference of two (normalised) scores is multiplied with to be the log-odds that the model has learnt: the
    score was normalised anew after training, the loss knew it as it was before."""
    history: list[dict[str, float]] = field(repr=False)
    """Figures of every step."""


def train_reward_model(
    model: RewardModel,
    rankings: Sequence[Ranking],
    config: RewardModelConfig | None = None,
    *,
    held_out: Sequence[Ranking] = (),
    reference: Rows | None = None,
    callback: Callback | None = None,
) -> RewardModelResult:
    """Train on rankings: −log σ(r_chosen − r_rejected), averaged over the pairs of a prompt, then over prompts.

    All answers to a prompt go through the model once, and its pairs are one batch element. The score is normalised
    on the reference texts before and after.

    Args:
        model: changed in place.
        rankings: those that tie all answers are left out.
        config: hyper-parameters.
        held_out: other rankings, for ``accuracy``.
        reference: texts to normalise with (``model.rows_of(episodes)``); default the answers in ``rankings``.
        callback: see ``Callback``; a progress bar for example.

    Raises:
        ValueError: no ranking decides anything, a text is too long, or the reference texts all score the same.
    """
    config = config or RewardModelConfig()
    elements = [_element(model, ranking) for ranking in rankings]
    reference = [row for element in elements for row in element.rows] if reference is None else reference
    elements = [element for element in elements if len(element.pairs)]
    if not elements:
        raise ValueError("None of the rankings prefers an answer to another: there is nothing to learn from.")
    model.normalise(reference)
    learnt_std = model.normalisation.std
    parameters = list(model.model.parameters())
    optimizer = torch.optim.AdamW(
        parameters, lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=config.weight_decay, fused=True
    )
    steps = config.epochs * -(-len(elements) // config.batch_size)
    rising = max(round(config.warmup * steps), 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / rising, (steps - step) / max(steps - rising + 1, 1))
    )
    history = []
    for step, batch in enumerate(_batches(elements, config), start=1):
        with _precision(model.device, config.bf16):
            loss, metrics = _loss(model, batch, config)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
        optimizer.step()
        schedule.step()
        history.append({"losses/reward_model": float(loss.detach()), **metrics})
        if callback is not None:
            callback(step, steps, history[-1])
    optimizer.zero_grad()
    model.normalise(reference)
    last = history[-max(len(history) // 10, 1) :]
    return RewardModelResult(
        accuracy=pair_accuracy(model, held_out),
        train_accuracy=float(np.mean([metrics["rewards/accuracies"] for metrics in last])),
        num_comparisons=sum(len(element.pairs) for element in elements),
        log_odds_scale=model.normalisation.std / learnt_std,
        history=history,
    )


def pair_accuracy(model: RewardModel, rankings: Sequence[Ranking]) -> float:
    """Share of the decided pairs in which the preferred answer scores higher (half of those that score alike); NaN
    where there are none."""
    margins = score_margins(model, rankings)
    return float(((margins > 0) + 0.5 * (margins == 0)).mean()) if len(margins) else float("nan")


def score_margins(model: RewardModel, rankings: Sequence[Ranking]) -> np.ndarray:
    """r_chosen − r_rejected of all decided pairs, float32 [M], ranking by ranking in the order of ``pairs``."""
    elements = [_element(model, ranking) for ranking in rankings]
    scores = model.scores([row for element in elements for row in element.rows])
    chosen, rejected = scores[_flat_pairs(elements)].T
    return chosen - rejected


@dataclass(frozen=True)
class _Element:
    """A prompt: the texts of its K answers, pairs (preferred, other) of their numbers, int64 [M, 2], and how far apart
    the ranking puts each pair, and how probably its label is wrong, float64 [M]."""

    rows: Rows
    pairs: np.ndarray
    apart: np.ndarray | None = None
    doubts: np.ndarray | None = None


def _element(model: RewardModel, ranking: Ranking) -> _Element:
    return _Element(model.encode(ranking), pairs(ranking.ranks), rank_margins(ranking), label_doubts(ranking))


def _batches(elements: list[_Element], config: RewardModelConfig) -> Iterator[list[_Element]]:
    rng = np.random.default_rng(config.seed)
    for _ in range(config.epochs):
        order = rng.permutation(len(elements)).tolist()
        for start in range(0, len(order), config.batch_size):
            yield [elements[i] for i in order[start : start + config.batch_size]]


def _flat_pairs(elements: Sequence[_Element]) -> np.ndarray:
    """Pairs of numbers among the texts of all elements, int64 [M, 2]."""
    first = np.cumsum([0, *(len(element.rows) for element in elements)])
    shifted = [element.pairs + begin for element, begin in zip(elements, first.tolist(), strict=False)]
    return np.concatenate([np.zeros((0, 2), dtype=np.int64), *shifted])


def _loss(
    model: RewardModel, elements: list[_Element], config: RewardModelConfig | None = None
) -> tuple[Tensor, dict[str, float]]:
    """Loss of a batch of prompts, and its figures."""
    scores = model([row for element in elements for row in element.rows])
    flat = torch.from_numpy(_flat_pairs(elements)).to(scores.device)
    chosen, rejected = scores[flat[:, 0]], scores[flat[:, 1]]
    counts = [len(element.pairs) for element in elements]
    weights = torch.tensor([1 / (count * len(counts)) for count in counts for _ in range(count)], device=scores.device)
    margins = chosen - rejected
    with torch.no_grad():
        figures = torch.stack([chosen.mean(), rejected.mean(), margins.mean(), (margins > 0).float().mean()]).tolist()
    names = ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies")
    config = config or RewardModelConfig()
    offsets = None
    if config.margin:
        apart = np.concatenate([element.apart for element in elements if element.apart is not None])
        offsets = torch.from_numpy(config.margin * apart).to(margins)
    smoothing: float | Tensor = config.label_smoothing
    doubts = np.concatenate([np.zeros(0), *(each.doubts for each in elements if each.doubts is not None)])
    if doubts.any():  # soft labels
        smoothing = torch.from_numpy(np.maximum(doubts, config.label_smoothing)).to(margins)
    loss = preference_loss(margins, weights, label_smoothing=smoothing, offsets=offsets)
    return loss, dict(zip(names, figures, strict=True))


def _precision(device: torch.device, bf16: bool) -> contextlib.AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16) if bf16 else contextlib.nullcontext()
