"""ReST: what is kept, what is learnt, and exact resume, in the middle of a round too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import textenvs
from agents.checkpoint import CheckpointError
from agents.lm import LMActorCritic, rest, sample_answers
from agents.lm.rest import Grown, ReSTConfig, Step, rejection_sampling, select, train_rest
from agents.lm.sft import SFTConfig, corpus_loss

VOCAB = textenvs.Vocab.symbols(10, eos=True)
SFT = SFTConfig(learning_rate=3e-3, batch_size=16)


def ones(completions: list[str]) -> list[float]:
    return [float(text.count("1")) for text in completions]


def make_envs(k: int = 4) -> Any:
    return textenvs.from_prompts(["1", "23", "456"], VOCAB, reward=ones, max_new_tokens=7, num_envs=8 * k, group_size=k)


@pytest.fixture
def make_lm(make_model: Any) -> Any:
    return lambda seed=0: LMActorCritic(make_model("gpt2", seed=seed))


def test_selection_by_hand() -> None:
    scores = np.array([[0.0, 3.0, 1.0], [2.0, 2.0, 5.0]])
    assert select(scores, 0.0).all()
    np.testing.assert_array_equal(select(scores, 0.6), scores >= 2.0)  # the quantile of six is the fourth
    np.testing.assert_array_equal(select(scores, 0.99), scores == 5.0)
    np.testing.assert_array_equal(select(scores, 0.0, "best"), [[False, True, False], [False, False, True]])
    np.testing.assert_array_equal(select(scores, 0.9, "best"), scores == 5.0)
    np.testing.assert_array_equal(select(np.ones((2, 2)), 0.0, "best"), [[True, False], [True, False]])
    assert select(np.ones((2, 2)), 0.9).all()  # nothing is better than anything: all are kept


def test_answers_as_texts_to_learn_from(make_lm: Any) -> None:
    policy = make_lm()
    answers = sample_answers(policy, make_envs(), 5, k=4, seed=1)
    grown, episodes = Grown.of(answers), answers.episodes
    chosen = np.arange(20).reshape(5, 4) % 3 == 0
    corpus = grown.corpus(chosen)
    assert len(corpus) == chosen.sum()
    for row, number in enumerate(np.flatnonzero(chosen.reshape(-1))):
        prompt = [VOCAB.tokens.index(c) for c in episodes.prompts[number]]
        own = episodes.completion_ids[number, : episodes.lengths[number]].tolist()
        assert corpus.ids[row, : corpus.lengths[row]].tolist() == prompt + own
        assert corpus.prompt_lengths[row] == len(prompt)
    assert np.isfinite(corpus_loss(policy.model, corpus, np.arange(len(corpus))).item())
    with pytest.raises(ValueError, match="There are no texts to learn from"):
        grown.corpus(np.zeros_like(chosen))


@pytest.mark.parametrize("method", ["rest", "rejection sampling"])
def test_it_learns(method: str, make_lm: Any) -> None:
    policy = make_lm()
    before = sample_answers(policy, make_envs(), 100, k=4, seed=9).scores.mean()
    config = ReSTConfig(prompts=100, sft=SFT) if method == "rest" else rejection_sampling(200, 4, SFT)
    told: list[tuple[int, int, Step]] = []
    result = train_rest(policy, make_envs(), config, callback=lambda *figures: told.append(figures))
    after = sample_answers(policy, make_envs(), 100, k=4, seed=9).scores.mean()
    assert after > before + (0.5 if method == "rest" else 0.2)
    assert [step for _, _, step in told] == list(result.steps)
    assert result.reward_calls == 800
    if method == "rest":
        assert [(step.grow, step.improve) for step in result.steps] == [(g, i) for g in (1, 2) for i in (1, 2, 3)]
        first = result.steps[:3]
        assert first[0].threshold <= first[1].threshold <= first[2].threshold
        assert first[0].kept >= first[1].kept >= first[2].kept >= 40
        assert result.steps[3].mean_score > result.steps[0].mean_score
    else:
        (step,) = result.steps
        assert step.kept == 200


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_run_that_was_stopped_goes_on_to_the_bit(stop: int, make_lm: Any, tmp_path: Path) -> None:
    """After one of two improve steps, after a whole round, and in the second round."""
    config = ReSTConfig(grows=2, thresholds=(0.3, 0.6), prompts=12, sft=SFT)
    whole, again, folder = make_lm(), make_lm(), tmp_path / "checkpoint"
    expected = train_rest(whole, make_envs(), config)
    part = train_rest(make_lm(), make_envs(), config, checkpoint=folder, callback=lambda number, *_: number < stop)
    assert part.steps == expected.steps[:stop]
    assert part.reward_calls == (48 if stop < 3 else 96)
    assert train_rest(again, make_envs(), config, checkpoint=folder) == expected
    for one, other in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_round_that_goes_on_does_not_grow_again(
    make_lm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ReSTConfig(grows=1, thresholds=(0.3, 0.6), prompts=12, sft=SFT)
    train_rest(make_lm(), make_envs(), config, checkpoint=tmp_path / "c", callback=lambda number, *_: number < 1)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the answers are there already")

    monkeypatch.setattr(rest, "sample_answers", refuse)
    assert len(train_rest(make_lm(), make_envs(), config, checkpoint=tmp_path / "c").steps) == 2


def test_a_checkpoint_of_another_training(make_lm: Any, tmp_path: Path) -> None:
    config = ReSTConfig(grows=1, thresholds=(0.5,), prompts=8, sft=SFT)
    train_rest(make_lm(), make_envs(), config, checkpoint=tmp_path / "c")
    with pytest.raises(CheckpointError, match="is of other hyper-parameters"):
        train_rest(make_lm(), make_envs(), ReSTConfig(grows=2, thresholds=(0.5,), prompts=8), checkpoint=tmp_path / "c")
    with pytest.raises(CheckpointError, match="is of a policy that began with other weights"):
        train_rest(make_lm(1), make_envs(), config, checkpoint=tmp_path / "c")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grows": 0}, "grows must be at least 1; got 0"),
        ({"thresholds": ()}, "thresholds must rise, at least one"),
        ({"thresholds": (0.9, 0.5)}, "thresholds must rise"),
        ({"thresholds": (0.5, 1.0)}, r"quantiles in \[0, 1\)"),
        ({"keep": "all"}, "keep must be 'quantile' or 'best'; got 'all'"),
        ({"keep": "best", "k": 1}, "k must be at least 2"),
        ({"decay": 0.0}, r"decay must lie in \(0, 1\]"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReSTConfig(**options)


def test_a_policy_that_is_frozen(make_lm: Any) -> None:
    with pytest.raises(ValueError, match="no weights that could be trained"):
        train_rest(make_lm().frozen_copy(), make_envs(), ReSTConfig(prompts=8))


def test_an_environment_without_groups(make_lm: Any) -> None:
    with pytest.raises(ValueError, match="make it with group_size=2"):
        train_rest(make_lm(), make_envs(4), ReSTConfig(k=2))
