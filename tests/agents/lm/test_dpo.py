"""DPO and IPO: losses by hand and against TRL, one pass over K answers against pairs one by one, exact resume."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import textenvs
from agents.checkpoint import CheckpointError
from agents.lm import LMActorCritic, Ranking
from agents.lm.dpo import DPOConfig, all_logprobs, answer_logprobs, batch_loss, encode_rankings, train_dpo
from agents.lm.preferences import pairs
from agents.losses import dpo_loss, ipo_loss

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

V = 11
VOCAB = textenvs.Vocab.symbols(V - 1, eos=True)
ARCHITECTURES = ["gpt2", "llama", "qwen2"]


def make_tokenizer(**special: str) -> Any:
    """One token for each character, with the ids of the vocabulary."""
    level = tokenizers.models.WordLevel({token: i for i, token in enumerate(VOCAB.tokens)}, unk_token=None)
    backend = tokenizers.Tokenizer(level)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex("<eos>|."), "isolated")
    backend.decoder = tokenizers.decoders.Fuse()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", **special)


@pytest.fixture
def make_lm_policy(make_model: Any) -> Any:
    """``make_lm_policy(kind)``: a policy with its tokenizer, the same each time."""

    def make(kind: str = "gpt2", **options: Any) -> LMActorCritic:
        return LMActorCritic(make_model(kind, vocab_size=V, **options), make_tokenizer())

    return make


def make_rankings(count: int, k: int = 4, seed: int = 0) -> list[Ranking]:
    """Answers of digits; the more ones, the better, ties included."""
    rng = np.random.default_rng(seed)
    rankings = []
    for _ in range(count):
        prompt = "".join(map(str, rng.integers(0, 10, rng.integers(1, 4))))
        answers = tuple("".join(map(str, rng.integers(0, 4, rng.integers(1, 8)))) for _ in range(k))
        gold = [text.count("1") for text in answers]
        ranks = tuple(1 + sum(other > own for other in gold) for own in gold)
        rankings.append(Ranking(prompt, answers, ranks, finished=tuple(len(text) < 7 for text in answers)))
    return rankings


# -- the losses --------------------------------------------------------------------------------------------------------


def test_losses_by_hand() -> None:
    ratios, weights = torch.tensor([math.log(3) / 0.5, -math.log(3) / 0.5]), torch.tensor([0.75, 0.25])
    right, wrong = math.log(4 / 3), math.log(4)
    assert dpo_loss(ratios, weights, 0.5).item() == pytest.approx(0.75 * right + 0.25 * wrong, rel=1e-6)
    smooth = dpo_loss(ratios, weights, 0.5, label_smoothing=0.2).item()
    expected = 0.75 * (0.8 * right + 0.2 * wrong) + 0.25 * (0.8 * wrong + 0.2 * right)
    assert smooth == pytest.approx(expected, rel=1e-6)
    assert dpo_loss(torch.zeros(2), weights, 0.1).item() == pytest.approx(math.log(2))
    assert ipo_loss(torch.tensor([5.0, 2.0]), weights, 0.1).item() == pytest.approx(0.25 * 9.0)
    assert ipo_loss(torch.zeros(2), weights, 0.25).item() == pytest.approx(4.0)


# -- log-probabilities -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*ARCHITECTURES, "neox"])
def test_logprobs_of_answers_against_one_text_at_a_time(kind: str, make_model: Any) -> None:
    model = make_model(kind, vocab_size=V).eval()
    rows, prompts = [[1, 2, 3, 4, 0], [5, 6], [7, 8, 9, 1, 2, 3, 0], [4, 0]], np.array([2, 1, 6, 0])
    sums, counts = answer_logprobs(model, rows, prompts)
    assert counts.tolist() == [3, 1, 1, 1]  # the first token of a text without a prompt is read only
    for i, (row, prompt) in enumerate(zip(rows, prompts.tolist(), strict=True)):
        logprobs = model(torch.tensor([row])).logits[0].log_softmax(-1)
        one = sum(logprobs[t - 1, row[t]] for t in range(max(prompt, 1), len(row)))
        torch.testing.assert_close(sums[i], one, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("config", [DPOConfig(), DPOConfig(label_smoothing=0.1), DPOConfig(loss="ipo", beta=0.4)])
def test_one_pass_over_k_answers_equals_pairs_one_by_one(config: DPOConfig, make_lm_policy: Any) -> None:
    """Loss and gradients, with a reference that differs, against plain transformers."""
    policy, reference = make_lm_policy(), make_lm_policy(seed=5)
    rankings = make_rankings(3)
    texts = encode_rankings(policy.tokenizer, rankings, 32)
    loss, metrics = batch_loss(policy.model, texts, all_logprobs(reference.model, texts), [2, 0, 1], config)
    loss.backward()
    together = [parameter.grad.clone() for parameter in policy.model.parameters() if parameter.grad is not None]
    policy.model.zero_grad()

    def logprob(model: Any, ranking: Ranking, number: int) -> tuple[torch.Tensor, int]:
        assert ranking.finished is not None
        prompt = [VOCAB.tokens.index(c) for c in ranking.prompt]
        row = [*prompt, *(VOCAB.tokens.index(c) for c in ranking.answers[number])]
        row += VOCAB.eos_ids[:1] if ranking.finished[number] else ()
        logprobs = model(torch.tensor([row])).logits[0, :-1].log_softmax(-1)
        own = logprobs.gather(1, torch.tensor(row[1:])[:, None])[len(prompt) - 1 :, 0]
        return own.sum(), len(own)

    total, right, count = torch.zeros(()), 0, 0
    for ranking in rankings:
        decided = pairs(ranking.ranks).tolist()
        for better, worse in decided:
            h = torch.zeros(())
            for number, sign in ((better, 1), (worse, -1)):
                ours, length = logprob(policy.model, ranking, number)
                theirs, _ = logprob(reference.model, ranking, number)
                h = h + sign * (ours - theirs.detach()) / (length if config.loss == "ipo" else 1)
            if config.loss == "ipo":
                one = (h - 1 / (2 * config.beta)) ** 2
            else:
                epsilon = config.label_smoothing
                one = -(1 - epsilon) * F.logsigmoid(config.beta * h) - epsilon * F.logsigmoid(-config.beta * h)
            total = total + one / len(decided) / len(rankings)
            right, count = right + int(h > 0), count + 1
    total.backward()
    torch.testing.assert_close(loss, total, atol=1e-5, rtol=1e-4)
    apart = [parameter.grad for parameter in policy.model.parameters() if parameter.grad is not None]
    torch.testing.assert_close(together, apart, atol=1e-4, rtol=1e-3)
    assert metrics["rewards/accuracies"] == pytest.approx(right / count)


@pytest.mark.filterwarnings("ignore")  # TRL's and transformers' own
@pytest.mark.parametrize("loss", ["dpo", "ipo"])
def test_loss_and_gradients_equal_trls(loss: str, make_lm_policy: Any, tmp_path: Path) -> None:
    """TRL's DPOTrainer on the same model, reference and batch."""
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    policy, reference = make_lm_policy(), make_lm_policy(seed=5)
    rankings = [Ranking(each.prompt, each.answers, each.ranks) for each in make_rankings(40, k=2)]
    rankings = [each for each in rankings if len(set(each.ranks)) == 2][:6]
    rows = []
    for each in rankings:
        better, worse = pairs(each.ranks)[0]
        rows.append({"prompt": each.prompt, "chosen": each.answers[better], "rejected": each.answers[worse]})
    arguments = trl.DPOConfig(
        output_dir=str(tmp_path), beta=0.3, loss_type="sigmoid" if loss == "dpo" else "ipo", use_cpu=True,
        per_device_train_batch_size=6, report_to="none", bf16=False, disable_dropout=True,
    )  # fmt: skip
    tokenizer = make_tokenizer(pad_token="<eos>")
    model = copy.deepcopy(policy.model)
    trainer = trl.DPOTrainer(
        model, reference.model, arguments, train_dataset=datasets.Dataset.from_list(rows), processing_class=tokenizer
    )
    columns = [trainer.train_dataset[i] for i in range(6)]
    inputs = trainer.data_collator(columns)
    theirs = trainer.compute_loss(model.train(), inputs)
    theirs.backward()
    texts = encode_rankings(policy.tokenizer, rankings, 32)
    longest = max(map(len, texts.rows))
    assert inputs["input_ids"].shape == (12, longest)  # the same tokens, EOS included
    assert sorted(map(tuple, texts.rows)) == sorted(
        tuple(row[mask.bool()].tolist())
        for row, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
    )
    config = DPOConfig(beta=0.3, loss=loss)  # type: ignore[arg-type]
    ours, _ = batch_loss(policy.model, texts, all_logprobs(reference.model, texts), range(6), config)
    ours.backward()
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    for one, other in zip(policy.model.parameters(), model.parameters(), strict=True):
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=1e-4)


# -- training ----------------------------------------------------------------------------------------------------------


def test_it_begins_at_log_2_and_learns(make_lm_policy: Any) -> None:
    policy = make_lm_policy()
    before = policy.frozen_copy()
    steps: list[tuple[int, int]] = []
    result = train_dpo(
        policy,
        make_rankings(150),
        DPOConfig(learning_rate=3e-3),
        held_out=make_rankings(60, seed=1),
        callback=lambda step, of, metrics: steps.append((step, of)),
    )
    assert result.history[0]["losses/dpo"] == pytest.approx(math.log(2), abs=1e-6)
    assert result.history[0]["rewards/margins"] == pytest.approx(0, abs=1e-6)
    assert np.mean([step["losses/dpo"] for step in result.history[-3:]]) < 0.6
    assert result.accuracy > 0.75
    assert steps == [(i + 1, 18) for i in range(18)]  # nine batches in each of two epochs
    assert result.num_comparisons > 600
    texts = encode_rankings(policy.tokenizer, [Ranking("12", ("111", "222"), (1, 2))], 32)
    change = all_logprobs(policy.model, texts) - all_logprobs(before.model, texts)
    assert change[0] > change[1] + 1


def test_ipo_learns_and_stops_at_its_margin(make_lm_policy: Any) -> None:
    policy, same = make_lm_policy(), [Ranking("12", ("111", "222"), (1, 2))] * 8
    config = DPOConfig(loss="ipo", beta=2.0, learning_rate=1e-2, epochs=150)
    result = train_dpo(policy, same, config)
    # h comes to 1 / (2 β) = 0.25 and stays: the margin that is logged is β h.
    assert result.history[0]["losses/ipo"] == pytest.approx(0.25**2, rel=1e-4)
    assert result.history[-1]["rewards/margins"] == pytest.approx(0.5, abs=0.02)
    assert math.isnan(result.accuracy)


@pytest.mark.parametrize("stop", [1, 3, 7])
def test_a_run_that_was_stopped_goes_on_to_the_bit(stop: int, make_lm_policy: Any, tmp_path: Path) -> None:
    rankings, held_out = make_rankings(30), make_rankings(10, seed=1)
    config = DPOConfig(batch_size=8, learning_rate=3e-3)
    whole = make_lm_policy()
    expected = train_dpo(whole, rankings, config, held_out=held_out)
    folder = tmp_path / "checkpoint"
    part = train_dpo(
        make_lm_policy(), rankings, config, held_out=held_out, checkpoint=folder, checkpoint_every=100,
        callback=lambda step, of, metrics: step < stop,
    )  # fmt: skip
    assert len(part.history) == stop
    again = make_lm_policy()
    result = train_dpo(again, rankings, config, held_out=held_out, checkpoint=folder)
    assert result == expected
    for one, other in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)
    finished = train_dpo(make_lm_policy(), rankings, config, held_out=held_out, checkpoint=folder)
    assert finished == expected  # nothing is left to be done, and the result is the same


def test_the_reference_is_computed_once(make_lm_policy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from agents.lm import dpo

    calls: list[int] = []

    def counted(model: Any, texts: Any) -> np.ndarray:
        calls.append(len(texts.rows))
        return all_logprobs(model, texts)

    monkeypatch.setattr(dpo, "all_logprobs", counted)
    rankings, folder = make_rankings(10), tmp_path / "checkpoint"
    config = DPOConfig(batch_size=4, epochs=3)
    train_dpo(make_lm_policy(), rankings, config, checkpoint=folder, callback=lambda step, *_: step < 2)
    assert len(calls) == 2  # of the rankings, and of no held-out ones
    train_dpo(make_lm_policy(), rankings, config, checkpoint=folder)
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": DPOConfig(beta=0.2)}, "is of other hyper-parameters: give another folder, or delete it"),
        ({"rankings": make_rankings(9)}, "is of other rankings"),
        ({"seed": 3}, "is of a policy that began with other weights"),
    ],
)
def test_a_checkpoint_of_another_training(
    change: dict[str, Any], message: str, make_lm_policy: Any, tmp_path: Path
) -> None:
    folder, rankings = tmp_path / "checkpoint", make_rankings(10)
    train_dpo(make_lm_policy(), rankings, DPOConfig(), checkpoint=folder)
    with pytest.raises(CheckpointError, match=message):
        train_dpo(
            make_lm_policy(seed=change.get("seed", 0)),
            change.get("rankings", rankings),
            change.get("config", DPOConfig()),
            checkpoint=folder,
        )


@pytest.mark.parametrize(
    ("rankings", "message"),
    [
        ([Ranking("1", ("2", "3"), (1, 1))], "None of the rankings prefers an answer to another"),
        ([Ranking("1", ("2" * 40, "3"), (1, 2))], "Ranking 0, answer 0 has 42 tokens with its prompt; .* at most 32"),
        (
            [Ranking("1", ("2", "3"), (1, 2)), Ranking("1", ("2", ""), (1, 2), finished=(True, False))],
            "Ranking 1, answer 1 has no token whose probability",
        ),
    ],
)
def test_rankings_that_cannot_be_learnt(rankings: list[Ranking], message: str, make_lm_policy: Any) -> None:
    with pytest.raises(ValueError, match=message):
        train_dpo(make_lm_policy(), rankings)


def test_a_policy_that_is_frozen(make_lm_policy: Any) -> None:
    with pytest.raises(ValueError, match="no weights that could be trained"):
        train_dpo(make_lm_policy().frozen_copy(), make_rankings(4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 0.0}, "beta must be positive; got 0.0"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"loss": "kto"}, "loss must be 'dpo' or 'ipo'; got 'kto'"),
        ({"label_smoothing": 0.5}, "label_smoothing is a share below one half"),
        ({"label_smoothing": 0.1, "loss": "ipo"}, "label_smoothing belongs to loss='dpo'"),
        ({"warmup": 1.0}, "warmup is a share of the steps"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DPOConfig(**options)
