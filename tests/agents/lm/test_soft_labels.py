"""Soft labels: probabilities instead of preferences, from the ranking to the loss, and into files and the store."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import transformers

from agents.checkpoint import CheckpointError
from agents.lm import LMActorCritic, Ranking, RewardModel, load_rankings, save_rankings, to_pairs, train_dpo
from agents.lm.dpo import DPOConfig, all_logprobs, batch_loss, encode_rankings
from agents.lm.preferences import label_doubts
from agents.lm.reward_model import RewardModelConfig, _element, _loss, train_reward_model
from agents.losses import dpo_loss, ipo_loss, preference_loss
from agents.preference_data import PreferenceStore, load_pairs, save_pairs

SOFT = Ranking("1", ("11", "22"), (2, 1), probability=0.8)
HARD = Ranking("1", ("11", "22"), (2, 1))


def make_tokenizer() -> Any:
    level = tokenizers.models.WordLevel({token: i for i, token in enumerate(["<eos>", *"0123456789"])})
    backend = tokenizers.Tokenizer(level)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex("."), "isolated")
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")


@pytest.fixture
def policy(make_model: Callable[..., Any]) -> LMActorCritic:
    return LMActorCritic(make_model("gpt2", vocab_size=11), make_tokenizer())


def test_doubts() -> None:
    assert label_doubts(SOFT).tolist() == pytest.approx([0.2])
    assert label_doubts(HARD).tolist() == [0.0]
    assert label_doubts(Ranking("p", ("a", "b", "c"), (1, 2, 2))).tolist() == [0.0, 0.0]
    assert label_doubts(Ranking("p", ("a", "b"), (1, 1), probability=0.5)).tolist() == []


@pytest.mark.parametrize(
    ("ranking", "message"),
    [
        ((("a", "b"), (1, 2), 0.4), r"'probability' lies in \[0.5, 1\], and is of two answers; got 0.4 of 2"),
        ((("a", "b"), (1, 2), 1.1), "got 1.1 of 2"),
        ((("a", "b", "c"), (1, 2, 3), 0.9), "got 0.9 of 3"),
        ((("a", "b"), (1, 2), "much"), "'probability' must be a number; got 'much'"),
    ],
)
def test_probabilities_that_are_none(ranking: tuple[Any, ...], message: str) -> None:
    answers, ranks, probability = ranking
    with pytest.raises((TypeError, ValueError), match=message):
        Ranking("p", answers, ranks, probability=probability)


def test_losses_by_hand() -> None:
    log3, weights = math.log(3), torch.tensor([0.5, 0.5])
    right, wrong = math.log(4 / 3), math.log(4)
    doubts = torch.tensor([0.2, 0.0])
    margins = torch.tensor([log3, -log3])
    expected = 0.5 * (0.8 * right + 0.2 * wrong) + 0.5 * wrong
    assert preference_loss(margins, weights, label_smoothing=doubts).item() == pytest.approx(expected, rel=1e-6)
    assert dpo_loss(margins / 0.1, weights, 0.1, label_smoothing=doubts).item() == pytest.approx(expected, rel=1e-6)
    # IPO: drawn to (p − ½) / β = 3 and 5 for β = 0.1.
    ratios = torch.tensor([3.0, 7.0])
    assert ipo_loss(ratios, weights, 0.1, label_smoothing=doubts).item() == pytest.approx(0.5 * 4.0, rel=1e-5)


def test_a_soft_label_is_least_where_the_model_is_as_sure() -> None:
    margins = torch.linspace(-3, 3, 601)
    losses = [preference_loss(m[None], torch.ones(1), label_smoothing=torch.tensor([0.2])).item() for m in margins]
    assert torch.sigmoid(margins[int(np.argmin(losses))]).item() == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("loss", ["dpo", "ipo"])
def test_dpo_takes_the_mean_over_both_labels(loss: str, policy: LMActorCritic) -> None:
    """Gradients: 0.8 of one label's and 0.2 of the other's."""
    config = DPOConfig(beta=0.3, loss=loss)  # type: ignore[arg-type]

    def gradients(ranking: Ranking) -> list[torch.Tensor]:
        texts = encode_rankings(policy.tokenizer, [ranking], 32)
        reference = all_logprobs(policy.model, texts) + np.array([0.7, -0.2], dtype=np.float32)
        policy.model.zero_grad()
        batch_loss(policy.model, texts, reference, [0], config)[0].backward()
        return [p.grad.clone() for p in policy.model.parameters() if p.grad is not None]

    soft = gradients(SOFT)
    one, other = gradients(HARD), gradients(replace(HARD, ranks=(1, 2)))
    expected = [0.8 * a + 0.2 * b for a, b in zip(one, other, strict=True)]
    torch.testing.assert_close(soft, expected, atol=1e-5, rtol=1e-4)


def test_the_reward_model_takes_it_too(make_model: Callable[..., Any]) -> None:
    model = RewardModel.from_causal_lm(make_model("gpt2", vocab_size=11), make_tokenizer(), seed=0)
    one, other = (_loss(model, [_element(model, replace(HARD, ranks=ranks))])[0] for ranks in ((2, 1), (1, 2)))
    soft, _ = _loss(model, [_element(model, SOFT)])
    assert soft.item() == pytest.approx(0.8 * one.item() + 0.2 * other.item(), rel=1e-5)
    with_hard, _ = _loss(model, [_element(model, SOFT), _element(model, HARD)], RewardModelConfig(label_smoothing=0.1))
    smooth = 0.9 * one.item() + 0.1 * other.item()
    assert with_hard.item() == pytest.approx((soft.item() + smooth) / 2, rel=1e-5)


def test_training_ends_as_sure_as_its_labels(make_model: Callable[..., Any]) -> None:
    model = RewardModel.from_causal_lm(make_model("gpt2", vocab_size=11), make_tokenizer(), seed=0)
    rankings = [SOFT, replace(SOFT, prompt="2"), Ranking("3", ("44", "55"), (1, 2), probability=0.6)] * 20
    result = train_reward_model(model, rankings, RewardModelConfig(learning_rate=3e-3, epochs=25, batch_size=4))
    scores = model.scores(model.encode(SOFT))
    sure = 1 / (1 + math.exp(-result.log_odds_scale * float(scores[1] - scores[0])))
    assert sure == pytest.approx(0.8, abs=0.05)


def test_checkpoints_tell_soft_labels_apart(policy: LMActorCritic, tmp_path: Path) -> None:
    rankings = [replace(SOFT, prompt=str(i)) for i in range(4)]
    other = [replace(ranking, probability=0.9) for ranking in rankings]
    first = LMActorCritic(policy.model, policy.tokenizer).frozen_copy()
    first.model.requires_grad_(True)
    train_dpo(first, rankings, DPOConfig(), checkpoint=tmp_path / "c")
    with pytest.raises(CheckpointError, match="is of other rankings"):
        train_dpo(policy, other, DPOConfig(), checkpoint=tmp_path / "c")


def test_files_keep_them(tmp_path: Path) -> None:
    save_rankings(tmp_path / "rankings.jsonl", [SOFT, HARD])
    assert load_rankings(tmp_path / "rankings.jsonl") == [SOFT, HARD]
    assert to_pairs([SOFT, HARD]) == [
        {"prompt": "1", "chosen": "22", "rejected": "11", "probability": 0.8},
        {"prompt": "1", "chosen": "22", "rejected": "11"},
    ]
    save_pairs(tmp_path / "pairs.jsonl", [SOFT], margins=False)
    assert load_pairs(tmp_path / "pairs.jsonl") == [Ranking("1", ("22", "11"), (1, 2), probability=0.8)]
    (tmp_path / "pairs.jsonl").write_text(
        json.dumps({"prompt": "p", "chosen": "a", "rejected": "b", "probability": 0.1})
    )
    with pytest.raises(ValueError, match=r"line 1: 'probability' lies in \[0.5, 1\]"):
        load_pairs(tmp_path / "pairs.jsonl")


def test_the_store_keeps_them_and_brings_old_files_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    with PreferenceStore(path) as store:
        store.add_rankings([replace(SOFT, annotator="AI judge"), replace(HARD, annotator="ada")])
        assert [ranking.probability for ranking in store.rankings()] == [0.8, None]
    db = sqlite3.connect(path)  # as version 1 had it
    for column in ("probability", "margin"):
        db.execute(f"ALTER TABLE rankings DROP COLUMN {column}")
    db.execute("PRAGMA user_version = 1")
    db.commit()
    db.close()
    with PreferenceStore(path) as store:
        assert [ranking.probability for ranking in store.rankings()] == [None, None]
        store.add_rankings([replace(SOFT, annotator="AI judge")])
        assert [ranking.probability for ranking in store.rankings()] == [None, 0.8]
    db = sqlite3.connect(path)  # as version 2 had it
    db.execute("ALTER TABLE rankings DROP COLUMN margin")
    db.execute("PRAGMA user_version = 2")
    db.commit()
    db.close()
    for _ in range(2):  # once is enough
        with PreferenceStore(path) as store:
            assert [(each.probability, each.margin) for each in store.rankings()] == [(None, None), (0.8, None)]
