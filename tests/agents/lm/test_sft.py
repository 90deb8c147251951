"""Supervised training: what is predicted, the loss, the order of texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from agents.lm.sft import (
    Corpus,
    SFTConfig,
    batches_of_equal_length,
    corpus_loss,
    cross_entropy,
    encode_rows,
    learning_rate_factor,
    train_on_texts,
)
from textenvs import Vocab

VOCAB = Vocab.symbols(9, eos=True)
ROWS = [{"prompt": "12", "completion": "34"}, {"prompt": "5", "completion": "6781"}, {"prompt": "", "completion": "22"}]


def test_rows_are_encoded_with_eos_behind_the_completion() -> None:
    corpus = encode_rows(ROWS, VOCAB)
    eos = VOCAB.eos_ids[0]
    assert corpus.ids.tolist() == [[1, 2, 3, 4, eos, 0], [5, 6, 7, 8, 1, eos], [2, 2, eos, 0, 0, 0]]
    assert corpus.lengths.tolist() == [5, 6, 3]
    assert corpus.prompt_lengths.tolist() == [2, 1, 0]
    assert corpus.num_targets == 3 + 5 + 2  # the first token of a text without a prompt is not predicted


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_loss_is_the_mean_over_completion_tokens(name: str, make_model: Any) -> None:
    """Against −log p of each token, from the unpadded text."""
    model, corpus = make_model(name), encode_rows(ROWS, VOCAB)
    expected = []
    for ids, length, prompt in zip(corpus.ids, corpus.lengths, corpus.prompt_lengths, strict=True):
        row = torch.from_numpy(ids[:length])
        logprobs = model(input_ids=row[None]).logits[0].log_softmax(-1)
        expected += [-logprobs[i - 1, row[i]].item() for i in range(max(prompt, 1), length)]
    assert corpus_loss(model, corpus, np.arange(3)).item() == pytest.approx(np.mean(expected), rel=1e-5)
    assert cross_entropy(model, corpus, batch_size=2) == pytest.approx(np.mean(expected), rel=1e-5)


def test_what_stands_in_the_padding_does_not_matter(make_model: Any) -> None:
    model, corpus = make_model("gpt2"), encode_rows(ROWS, VOCAB)
    ids = corpus.ids.copy()
    ids[np.arange(6) >= corpus.lengths[:, None]] = 9
    other = Corpus(ids, corpus.lengths, corpus.prompt_lengths)
    everything = np.arange(3)
    assert torch.equal(corpus_loss(model, corpus, everything), corpus_loss(model, other, everything))


def test_every_text_is_in_one_batch_with_texts_of_about_its_length() -> None:
    lengths = np.random.default_rng(0).integers(3, 30, 1_000)
    batches = list(batches_of_equal_length(lengths, 32, np.random.default_rng(1)))
    assert sorted(np.concatenate(batches).tolist()) == list(range(1_000))
    assert sorted(map(len, batches))[0] == 1_000 % 32
    spans = [int(np.ptp(lengths[batch])) for batch in batches]
    assert np.mean(spans) < 2  # at random it would be about 26
    firsts = [int(lengths[batch[0]]) for batch in batches]
    assert firsts != sorted(firsts)  # short texts do not come first
    again = list(batches_of_equal_length(lengths, 32, np.random.default_rng(1)))
    assert all(np.array_equal(one, two) for one, two in zip(batches, again, strict=True))


def test_it_learns_and_one_seed_repeats(make_model: Any) -> None:
    corpus = encode_rows(ROWS * 16, VOCAB)

    def learn(seed: int) -> tuple[Any, list[float]]:
        model = make_model("gpt2", dropout=0.3)  # which is switched off
        return model, train_on_texts(model, corpus, SFTConfig(learning_rate=0.01, epochs=30, batch_size=16), seed=seed)

    model, losses = learn(0)
    assert len(losses) == 30 * 3
    assert losses[-1] < 0.2 < 1.0 < losses[0]
    assert cross_entropy(model, encode_rows(ROWS, VOCAB)) < 0.2
    assert learn(0)[1] == losses
    assert learn(1)[1] != losses


def test_the_learning_rate_rises_and_falls(make_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    step = torch.optim.AdamW.step

    def spy(self: Any, *others: Any) -> Any:
        seen.append(self.param_groups[0]["lr"])
        return step(self, *others)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    corpus = encode_rows(ROWS * 10, VOCAB)
    train_on_texts(make_model("gpt2"), corpus, SFTConfig(learning_rate=1.0, batch_size=3, warmup_share=0.2))
    assert seen == pytest.approx([0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])


def test_a_single_step_has_the_full_rate() -> None:
    assert learning_rate_factor(0, 0, 1) == 1.0
    assert [learning_rate_factor(step, 1, 3) for step in range(3)] == [1.0, 1.0, 0.5]


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="Row 1 has no text in the column 'completion'; it has \\['prompt'\\]"):
        encode_rows([ROWS[0], {"prompt": "1"}], VOCAB)
    with pytest.raises(ValueError, match="Row 1 has 6 tokens, and the model reads at most 5"):
        encode_rows(ROWS, VOCAB, max_length=5)
    with pytest.raises(ValueError, match="There are no texts to learn from"):
        encode_rows([], VOCAB)
    with pytest.raises(ValueError, match="Text 1 has no token behind its prompt"):
        Corpus(np.zeros((2, 3), dtype=np.int64), np.array([3, 2]), np.array([1, 2]))
    with pytest.raises(ValueError, match="learning_rate must be positive"):
        SFTConfig(learning_rate=0)
    with pytest.raises(ValueError, match="warmup_share must be at least 0 and below 1"):
        SFTConfig(warmup_share=1.0)
