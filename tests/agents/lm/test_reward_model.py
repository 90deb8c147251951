"""Reward models: the loss by hand, what a batch element is, the score's scale, and the folder that everybody reads."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import textenvs
from agents.lm import LMActorCritic, Ranking, RewardModel, RewardModelConfig, reward_model, train_reward_model
from agents.lm.preferences import pairs, rank_margins, to_pairs
from agents.lm.reward_model import _Element, _loss, pair_accuracy
from agents.lm.reward_quality import measure_reward_model
from agents.losses import preference_loss
from textenvs.rewards import Judge, make_reward
from textenvs.rewards.learned import Normalisation

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")
transformers.utils.logging.disable_progress_bar()

V = 11
VOCAB = textenvs.Vocab.symbols(V - 1, eos=True)
ARCHITECTURES = ["gpt2", "llama", "qwen2"]


def make_tokenizer(tokens: tuple[str, ...] = VOCAB.tokens, **special: str) -> Any:
    """One token for each character, with the ids of the vocabulary."""
    level = tokenizers.models.WordLevel(
        {token: i for i, token in enumerate(tokens)}, unk_token=special.get("unk_token")
    )
    backend = tokenizers.Tokenizer(level)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex("."), "isolated")
    backend.decoder = tokenizers.decoders.Fuse()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", **special)


@pytest.fixture
def make_reward_model(make_model: Any) -> Any:
    """``make_reward_model(kind, **options)``: an untrained one."""

    def make(kind: str = "gpt2", seed: int = 0, **options: Any) -> RewardModel:
        return RewardModel.from_causal_lm(make_model(kind, **options), make_tokenizer(), seed=seed)

    return make


def make_rankings(count: int, k: int = 4, seed: int = 0) -> list[Ranking]:
    """Answers of digits; the more ones, the better, ties included."""
    rng = np.random.default_rng(seed)
    rankings = []
    for _ in range(count):
        prompt = "".join(map(str, rng.integers(0, 10, rng.integers(1, 4))))
        answers = tuple("".join(map(str, rng.integers(0, 4, rng.integers(1, 8)))) for _ in range(k))
        gold = tuple(float(text.count("1")) for text in answers)
        ranks = tuple(1 + sum(other > own for other in gold) for own in gold)
        rankings.append(Ranking(prompt, answers, ranks, gold, finished=tuple(len(text) < 7 for text in answers)))
    return rankings


# -- the loss ----------------------------------------------------------------------------------------------------------


def test_loss_by_hand() -> None:
    margins, weights = torch.tensor([0.0, math.log(3), -math.log(3)]), torch.tensor([0.5, 0.25, 0.25])
    expected = 0.5 * math.log(2) + 0.25 * math.log(4 / 3) + 0.25 * math.log(4)
    assert preference_loss(margins, weights).item() == pytest.approx(expected, rel=1e-6)
    assert preference_loss(torch.tensor([1e4, -1e4]), torch.tensor([0.5, 0.5])).item() == pytest.approx(5_000)


def test_the_pairs_of_a_prompt_weigh_as_one(make_reward_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores by hand: 0, log 3 and 2 log 3 in one prompt, and a pair that is got wrong in another."""
    model, log3 = make_reward_model(), math.log(3)
    scores = torch.tensor([0.0, log3, 2 * log3, log3, 0.0])
    monkeypatch.setattr(RewardModel, "__call__", lambda self, rows: scores)
    elements = [_Element([[0]] * 3, pairs([3, 2, 1])), _Element([[0]] * 2, pairs([2, 1]))]
    loss, metrics = _loss(model, elements)
    first = (2 * math.log(4 / 3) + math.log(10 / 9)) / 3
    assert loss.item() == pytest.approx((first + math.log(4)) / 2, rel=1e-6)
    assert metrics["rewards/accuracies"] == pytest.approx(3 / 4)
    assert metrics["rewards/margins"] == pytest.approx((log3 + log3 + 2 * log3 - log3) / 4)
    assert metrics["rewards/chosen"] == pytest.approx((log3 + 2 * log3 + 2 * log3 + 0) / 4)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_one_pass_over_k_answers_equals_pairs_one_by_one(kind: str, make_reward_model: Any) -> None:
    """Loss and gradients, against every pair with two forward passes of plain transformers, one text at a time."""
    model, rankings = make_reward_model(kind), make_rankings(3)
    elements = [_Element(model.encode(ranking), pairs(ranking.ranks)) for ranking in rankings]
    assert len({len(element.pairs) for element in elements}) > 1  # ties: prompts differ in their number of pairs
    loss, _ = _loss(model, elements)
    loss.backward()
    together = [parameter.grad.clone() for parameter in model.model.parameters()]
    model.model.zero_grad()
    total = torch.zeros(())
    for element in elements:
        for better, worse in element.pairs.tolist():
            chosen, rejected = (
                model.model(torch.tensor([element.rows[i]])).logits[0, 0] for i in (better, worse)
            )  # of one text the last token is the last one, whatever the padding token is
            total = total - F.logsigmoid(chosen - rejected) / len(element.pairs) / len(elements)
    total.backward()
    torch.testing.assert_close(loss, total, atol=1e-5, rtol=1e-4)
    apart = [parameter.grad for parameter in model.model.parameters()]
    torch.testing.assert_close(together, apart, atol=1e-4, rtol=1e-3)


def test_a_constant_added_to_all_scores_changes_no_loss(make_reward_model: Any) -> None:
    model = make_reward_model()
    elements = [_Element(model.encode(ranking), pairs(ranking.ranks)) for ranking in make_rankings(4)]
    plain, _ = _loss(model, elements)
    model.normalisation = Normalisation(mean=-50.0)
    shifted, metrics = _loss(model, elements)
    assert metrics["rewards/chosen"] > 40
    assert shifted.item() == pytest.approx(plain.item(), rel=1e-4)


# -- the model ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*ARCHITECTURES, "neox"])
def test_a_causal_lm_gives_trunk_and_nothing_else(kind: str, make_model: Any) -> None:
    lm = make_model(kind, dropout=0.5 if kind != "neox" else 0.0)
    model = RewardModel.from_causal_lm(lm, make_tokenizer(), seed=3)
    assert type(model.model).__name__.endswith("ForSequenceClassification")
    for (name, ours), theirs in zip(model.model.base_model.named_parameters(), lm.base_model.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
        assert ours.data_ptr() != theirs.data_ptr(), name
    assert not any(module.training for module in model.model.modules())
    other, same = (RewardModel.from_causal_lm(lm, make_tokenizer(), seed=seed).model.score.weight for seed in (4, 3))
    assert torch.equal(same, model.model.score.weight)
    assert not torch.equal(other, model.model.score.weight)


def test_the_head_has_its_scale(make_model: Any) -> None:
    model = RewardModel.from_causal_lm(make_model("gpt2", n_embd=512, n_layer=1), make_tokenizer())
    weights = model.model.score.weight
    assert weights.std().item() == pytest.approx(513**-0.5, rel=4 / math.sqrt(2 * 512))
    assert abs(weights.mean().item()) < 4 * 513**-0.5 / math.sqrt(512)


def test_building_draws_from_no_global_stream(make_model: Any) -> None:
    lm = make_model("gpt2")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    RewardModel.from_causal_lm(lm, make_tokenizer(), seed=0)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("kind", [*ARCHITECTURES, "neox"])
def test_padding_and_company_change_nothing(kind: str, make_reward_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_reward_model(kind)
    rows = [row for ranking in make_rankings(8) for row in model.encode(ranking)]
    assert len({len(row) for row in rows}) > 5
    together = model.scores(rows)
    alone = np.array([model.scores([row])[0] for row in rows])
    np.testing.assert_allclose(together, alone, atol=1e-4)
    monkeypatch.setattr(reward_model, "TOKENS_AT_ONCE", 40)
    np.testing.assert_allclose(model.scores(rows), alone, atol=1e-4)
    assert together.std() > 0.1
    assert model.scores([]).shape == (0,)


def test_what_it_reads(make_reward_model: Any) -> None:
    model = make_reward_model()
    ranking = Ranking("12", ("34", "", "5"), (1, 2, 3), finished=(True, True, False))
    assert model.encode(ranking) == [[1, 2, 3, 4, 10], [1, 2, 10], [1, 2, 5]]
    assert model.encode(Ranking("", ("", "1"), (1, 2), finished=(False, True))) == [[10], [1, 10]]
    episodes = textenvs.Episodes.from_texts(["1", "234"], ["567", ""], vocab=VOCAB)
    assert model.rows_of(episodes) == [[1, 5, 6, 7], [2, 3, 4]]
    with pytest.raises(ValueError, match="written with another tokenizer"):
        model.rows_of(textenvs.Episodes.from_texts(["1"], ["2"]))
    with pytest.raises(ValueError, match=r"'123' and one of its answers have 44 tokens; the model reads at most 32"):
        model.encode(Ranking("123", ("4" * 40, "5"), (1, 2)))


def test_words_that_the_tokenizer_does_not_know(make_model: Any) -> None:
    ranking = Ranking("12", ("3", "4a"), (1, 2))
    strict, unknown = make_tokenizer(), make_tokenizer((*VOCAB.tokens, "<unk>"), unk_token="<unk>")
    with pytest.raises(ValueError, match="cannot encode '4a'"):
        RewardModel.from_causal_lm(make_model("gpt2"), strict).encode(ranking)
    with pytest.raises(ValueError, match=r"no tokens for something in '12 \| 4a'"):
        RewardModel.from_causal_lm(make_model("gpt2"), unknown).encode(ranking)


# -- training ----------------------------------------------------------------------------------------------------------


def test_it_learns_what_is_preferred_and_knows_it_from_few_less(make_model: Any) -> None:
    held_out = make_rankings(60, seed=9)

    def train(count: int) -> float:
        model = RewardModel.from_causal_lm(make_model("gpt2"), make_tokenizer())
        config = RewardModelConfig(learning_rate=1e-2, epochs=3)
        return train_reward_model(model, make_rankings(count), config, held_out=held_out).accuracy

    few, many = train(8), train(200)
    assert many > 0.9
    assert few < many - 0.05


def test_the_score_has_mean_0_and_variance_1_before_and_after(make_reward_model: Any) -> None:
    model, rankings = make_reward_model("llama"), make_rankings(24)
    reference = [row for ranking in make_rankings(30, seed=1) for row in model.encode(ranking)]
    seen = []

    def look(step: int, steps: int, metrics: dict[str, float]) -> None:
        seen.append((step, steps, metrics["rewards/margins"]))

    before = model.model.score.weight.detach().clone()
    config = RewardModelConfig(learning_rate=1e-2, batch_size=10, epochs=2)
    result = train_reward_model(model, rankings, config, reference=reference, callback=look)
    assert [step for step, _, _ in seen] == [1, 2, 3, 4, 5, 6]
    assert {steps for _, steps, _ in seen} == {6}
    assert len(result.history) == 6
    assert result.num_comparisons == sum(len(pairs(ranking.ranks)) for ranking in rankings)
    assert not torch.equal(before, model.model.score.weight)
    scores = model.scores(reference)
    assert abs(scores.mean()) < 1e-5
    assert scores.std() == pytest.approx(1, abs=1e-5)
    # Before training too: the first margins are those of normalised scores.
    fresh = make_reward_model("llama")
    fresh.normalise(reference)
    assert fresh.scores(reference).std() == pytest.approx(1, abs=1e-5)
    order = np.random.default_rng(0).permutation(24)[:10]
    elements = [_Element(fresh.encode(rankings[i]), pairs(rankings[i].ranks)) for i in order]
    assert _loss(fresh, elements)[1]["rewards/margins"] == pytest.approx(seen[0][2], abs=1e-4)


def test_reference_texts_are_the_answers_by_default(make_reward_model: Any) -> None:
    model, rankings = make_reward_model(), make_rankings(10)
    train_reward_model(model, rankings)
    scores = model.scores([row for ranking in rankings for row in model.encode(ranking)])
    assert abs(scores.mean()) < 1e-5
    assert scores.std() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_parameter_learns_without_dropout_and_one_seed_repeats(kind: str, make_reward_model: Any) -> None:
    def train(dropout: float, seed: int = 0) -> list[torch.Tensor]:
        model = make_reward_model(kind, dropout=dropout)
        train_reward_model(model, make_rankings(40), RewardModelConfig(batch_size=4, seed=seed))
        return [parameter.detach() for parameter in model.model.parameters()]

    fresh = list(make_reward_model(kind).model.parameters())
    one, with_dropout, other = train(0.0), train(0.5), train(0.0, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(one, with_dropout, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(fresh, one, strict=True))


def test_bf16_keeps_its_weights_in_float32(make_reward_model: Any) -> None:
    rankings, config = make_rankings(60), RewardModelConfig(learning_rate=1e-2, epochs=2, bf16=True)
    model = make_reward_model()
    result = train_reward_model(model, rankings, config, held_out=make_rankings(30, seed=1))
    assert {parameter.dtype for parameter in model.model.parameters()} == {torch.float32}
    assert result.accuracy > 0.7


def test_the_learning_rate_rises_and_falls(make_reward_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = []
    step = torch.optim.AdamW.step
    monkeypatch.setattr(
        torch.optim.AdamW, "step", lambda self, *a: (rates.append(self.param_groups[0]["lr"]), step(self, *a))[1]
    )
    config = RewardModelConfig(learning_rate=0.1, epochs=1, batch_size=1, warmup=0.5)
    rankings = [ranking for ranking in make_rankings(20) if len(pairs(ranking.ranks))][:8]
    train_reward_model(make_reward_model(), rankings, config)
    np.testing.assert_allclose(rates, [0.025, 0.05, 0.075, 0.1, 0.08, 0.06, 0.04, 0.02])


def test_pair_accuracy_by_hand(make_reward_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_reward_model()
    monkeypatch.setattr(RewardModel, "scores", lambda self, rows: np.array([len(row) for row in rows], np.float32))
    right, wrong = Ranking("", ("123", "1"), (1, 2)), Ranking("", ("1", "123"), (1, 2))
    alike, tie = Ranking("", ("12", "34"), (2, 1)), Ranking("", ("12", "3"), (1, 1))
    assert pair_accuracy(model, [right, wrong, right, alike, tie]) == pytest.approx((1 + 0 + 1 + 0.5) / 4)
    assert math.isnan(pair_accuracy(model, [tie]))


def test_rankings_that_teach_nothing(make_reward_model: Any) -> None:
    ties = [Ranking("1", ("2", "3"), (1, 1))]
    with pytest.raises(ValueError, match="None of the rankings prefers an answer to another"):
        train_reward_model(make_reward_model(), ties)
    with pytest.raises(ValueError, match="All reference texts score the same"):
        train_reward_model(make_reward_model(), make_rankings(3), reference=[[1, 2], [1, 2]])
    with pytest.raises(ValueError, match="at least two reference texts, got 1"):
        make_reward_model().normalise([[1, 2]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be positive; got 0.0"),
        ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
        ({"warmup": 1.0}, r"warmup is a share of the steps, in \[0, 1\); got 1.0"),
    ],
)
def test_hyper_parameters_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RewardModelConfig(**options)


# -- the folder --------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(make_reward_model: Any, tmp_path: Path) -> tuple[RewardModel, Path]:
    """A trained model and its folder."""
    model = make_reward_model()
    train_reward_model(model, make_rankings(12), RewardModelConfig(learning_rate=1e-2))
    model.save_pretrained(tmp_path / "reward")
    return model, tmp_path / "reward"


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_everybody_reads_the_folder(kind: str, make_reward_model: Any, tmp_path: Path) -> None:
    model, rankings = make_reward_model(kind), make_rankings(12)
    train_reward_model(model, rankings, RewardModelConfig(learning_rate=1e-2))
    model.save_pretrained(tmp_path / "reward")
    rows = [row for ranking in rankings for row in model.encode(ranking)]
    expected = model.scores(rows)

    again = RewardModel.from_pretrained(tmp_path / "reward")
    np.testing.assert_array_equal(again.scores(rows), expected)
    assert again.normalisation == model.normalisation
    assert again.vocab == model.vocab

    plain = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward")
    assert plain.config.num_labels == 1
    with torch.no_grad():
        raw = np.array([plain(torch.tensor([row])).logits.item() for row in rows])
    header = json.loads((tmp_path / "reward" / "reward_model.json").read_text())
    np.testing.assert_allclose((raw - header["mean"]) / header["std"], expected, atol=1e-4)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "reward")
    assert tokenizer.eos_token == "<eos>"

    prompts = [ranking.prompt for ranking in rankings for _ in ranking.answers]
    answers = [answer for ranking in rankings for answer in ranking.answers]
    texts = textenvs.Episodes.from_texts(prompts, answers, vocab=VOCAB)  # no EOS: compare those without
    learned = make_reward({"name": "learned", "model": tmp_path / "reward", "device": "cpu"})
    without_eos = model.scores([row[:-1] if row[-1] == V - 1 else row for row in rows])
    np.testing.assert_allclose(Judge(learned)(texts).total, without_eos, atol=1e-4)


def test_batches_of_plain_transformers_where_there_is_a_padding_token(make_model: Any, tmp_path: Path) -> None:
    """Padding that is not EOS is written into the config, so that plain batches find the last token."""
    tokenizer = make_tokenizer((*VOCAB.tokens, "<pad>"), pad_token="<pad>")
    model = RewardModel.from_causal_lm(make_model("qwen2"), tokenizer)
    assert model.model.config.pad_token_id == V
    rows = [[1, 2, V - 1, V], [3, 4, 5, V - 1]]
    with torch.no_grad():
        batched = model.model(torch.tensor(rows), attention_mask=torch.tensor([[1, 1, 1, 0], [1] * 4])).logits[:, 0]
    np.testing.assert_allclose(batched.numpy(), model.scores([rows[0][:3], rows[1]]), atol=1e-4)
    same = make_tokenizer(pad_token="<eos>")
    assert RewardModel.from_causal_lm(make_model("qwen2"), same).model.config.pad_token_id is None


def test_the_reward_of_an_environment_is_the_trained_models_score(saved: tuple[RewardModel, Path]) -> None:
    """Texts as they are played: with EOS and without, prompts of several lengths."""
    model, folder = saved
    envs = textenvs.from_prompts(
        ["1", "234"], VOCAB, reward=f"learned:{folder}", max_new_tokens=4, num_envs=6, autoreset_mode="Disabled"
    )
    obs, _ = envs.reset(seed=0)
    texts = [[1, 2, 3, 4], [5, 10], [10], [3, 3, 3, 10], [2, 2, 2, 2], [0, 10]]
    for row, text in enumerate(texts):
        prompt = [token for token in obs[row, :3].tolist() if token != V]
        episodes = textenvs.Episodes(
            obs[row : row + 1, :3],
            np.array([[*text, *[V] * (4 - len(text))]]),
            np.array([len(text)]),
            np.array(["stop"], dtype=object),
            np.zeros(1, dtype=np.uint64),
            VOCAB,
        )
        assert envs.judge(episodes).total[0] == pytest.approx(model.scores([[*prompt, *text]])[0], abs=1e-5)


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("form", ["object", "folder"])
def test_a_critic_begins_with_normalised_scores(
    kind: str, form: str, make_reward_model: Any, make_model: Any, make_spec: Any, random_rows: Any, tmp_path: Path
) -> None:
    """The value after a text's last token is the score that the environment will pay for it."""
    model = make_reward_model(kind)
    train_reward_model(model, make_rankings(12), RewardModelConfig(learning_rate=1e-2))
    assert abs(model.normalisation.mean) > 1e-3
    assert model.normalisation.std != 1
    model.save_pretrained(tmp_path / "reward")
    critic: Any = model if form == "object" else str(tmp_path / "reward")
    policy = LMActorCritic(make_model(kind), critic=critic)
    spec = make_spec()
    policy.bind(spec)
    rows, lengths = random_rows(spec, 16)
    _, after = policy.values(rows, lengths)
    inside = (lengths < spec.max_new_tokens).numpy()  # once the budget is spent the value is 0
    texts = [[token for token in row.tolist() if token != V] for row in rows]
    np.testing.assert_allclose(after.numpy()[inside], model.scores(texts)[inside], atol=2e-4)
    assert inside.sum() > 8
    assert all(parameter.requires_grad for parameter in policy.critic.parameters())
    ours = {parameter.data_ptr() for parameter in model.model.parameters()}
    assert not ours & {parameter.data_ptr() for parameter in policy.parameters()}


def test_policies_and_folders_give_trunks(make_model: Any, tmp_path: Path) -> None:
    policy = LMActorCritic(make_model("llama"), make_tokenizer())
    policy.save_pretrained(tmp_path / "sft")
    from_policy, from_folder = (RewardModel.from_causal_lm(source) for source in (policy, tmp_path / "sft"))
    rows = [[1, 2, 3], [4, 5]]
    np.testing.assert_array_equal(from_policy.scores(rows), from_folder.scores(rows))


def test_saving_replaces_a_model_and_nothing_else(saved: tuple[RewardModel, Path], tmp_path: Path) -> None:
    model, folder = saved
    before = make_reward(f"learned:{folder}").version
    model.normalisation = Normalisation(1.0, 2.0)
    model.save_pretrained(folder)
    assert RewardModel.from_pretrained(folder).normalisation == Normalisation(1.0, 2.0)
    assert make_reward(f"learned:{folder}").version != before
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").write_text("…")
    with pytest.raises(ValueError, match="exists and is no model"):
        model.save_pretrained(tmp_path / "notes")


def test_what_cannot_be_a_reward_model(make_model: Any, tmp_path: Path) -> None:
    lm = make_model("gpt2")
    with pytest.raises(TypeError, match=r"must be a sequence classifier of transformers with one label.*GPT2LMHead"):
        RewardModel(lm, make_tokenizer())
    three = transformers.GPT2Config(vocab_size=V, n_embd=8, n_layer=1, n_head=1, num_labels=3)
    with pytest.raises(TypeError, match="with one label"):
        RewardModel(transformers.GPT2ForSequenceClassification(three), make_tokenizer())
    with pytest.raises(TypeError, match="is saved with its tokenizer: give tokenizer="):
        RewardModel.from_causal_lm(lm)
    larger = make_tokenizer((*map(str, range(10)), *"abcdefghi", "<eos>"))
    with pytest.raises(ValueError, match="tokenizer has 20 tokens, the model embeddings for 13"):
        RewardModel.from_causal_lm(lm, larger)
    with pytest.raises(TypeError, match="must be a causal language model"):
        RewardModel.from_causal_lm(torch.nn.Linear(2, 2), make_tokenizer())
    endless = make_tokenizer()
    endless.eos_token = None
    with pytest.raises(ValueError, match="has no EOS token"):
        RewardModel.from_causal_lm(lm, endless)
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        RewardModel.from_pretrained(tmp_path / "nowhere")


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_an_adapter_is_merged_first(make_model: Any) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(make_model("llama"), config)
    with pytest.raises(ValueError, match=r"has no adapter: give model\.merge_and_unload\(\)"):
        RewardModel.from_causal_lm(adapted, make_tokenizer())
    RewardModel.from_causal_lm(adapted.merge_and_unload(), make_tokenizer())


@pytest.mark.parametrize(
    ("file", "error"), [("model.safetensors", "damaged or cut short"), ("reward_model.json", "damaged")]
)
def test_files_cut_short(file: str, error: str, saved: tuple[RewardModel, Path]) -> None:
    _, folder = saved
    path = folder / file
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=error):
        RewardModel.from_pretrained(folder)


def test_ranked_answers_of_any_number(make_reward_model: Any) -> None:
    """Prompts with two, three and five answers in one batch."""
    rankings = list(itertools.chain.from_iterable(make_rankings(4, k, seed=k) for k in (2, 3, 5)))
    result = train_reward_model(make_reward_model(), rankings, RewardModelConfig(batch_size=20))
    assert result.num_comparisons == sum(len(pairs(ranking.ranks)) for ranking in rankings)


# -- options of the loss, and quality ----------------------------------------------------------------------------------


def test_label_smoothing_and_margin_by_hand() -> None:
    margins, weights = torch.tensor([math.log(3), -math.log(3)]), torch.tensor([0.5, 0.5])
    right, wrong = math.log(4 / 3), math.log(4)
    smooth = preference_loss(margins, weights, label_smoothing=0.1)
    assert smooth.item() == pytest.approx(0.5 * (right + wrong), rel=1e-6)  # one of each: ε changes nothing
    smooth = preference_loss(margins[:1], torch.ones(1), label_smoothing=0.1)
    assert smooth.item() == pytest.approx(0.9 * right + 0.1 * wrong, rel=1e-6)
    apart = preference_loss(margins[:1], torch.ones(1), offsets=torch.tensor([2 * math.log(3)]))
    assert apart.item() == pytest.approx(wrong, rel=1e-6)


def test_the_margin_follows_the_ranking(make_reward_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores 0 for all: each pair's loss is that of −margin · steps apart."""
    model = make_reward_model()
    monkeypatch.setattr(RewardModel, "__call__", lambda self, rows: torch.zeros(len(rows)))
    element = reward_model._element(model, Ranking("1", ("1", "2", "3"), (1, 2, 3)))
    loss, _ = _loss(model, [element], RewardModelConfig(margin=math.log(9)))
    near, far = math.log(1 + 3), math.log(1 + 9)  # half of log 9 is log 3
    assert loss.item() == pytest.approx((2 * near + far) / 3, rel=1e-6)


@pytest.mark.parametrize(("name", "value"), [("label_smoothing", 0.5), ("label_smoothing", -0.1), ("margin", -1.0)])
def test_options_of_the_loss_are_checked(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        RewardModelConfig(**{name: value})


def test_label_smoothing_keeps_scores_closer(make_reward_model: Any) -> None:
    spreads = []
    for smoothing in (0.0, 0.3):
        model = make_reward_model()
        config = RewardModelConfig(label_smoothing=smoothing, epochs=6)
        result = train_reward_model(model, make_rankings(60), config)
        spreads.append(result.log_odds_scale)
    assert spreads[1] < 0.8 * spreads[0]


def test_log_odds_are_those_that_the_loss_knew(make_reward_model: Any) -> None:
    """The last loss on a batch, from normalised scores and the scale that is reported."""
    model, rankings = make_reward_model(), make_rankings(16)
    result = train_reward_model(model, rankings, RewardModelConfig(learning_rate=1e-9, epochs=1, batch_size=16))
    margins = result.log_odds_scale * reward_model.score_margins(model, rankings)
    counts = [len(pairs(ranking.ranks)) for ranking in rankings]
    weights = torch.tensor([1 / (count * sum(map(bool, counts))) for count in counts for _ in range(count)])
    assert preference_loss(torch.from_numpy(margins), weights).item() == pytest.approx(
        result.history[-1]["losses/reward_model"], rel=1e-4
    )
    trained = make_reward_model()
    result = train_reward_model(trained, rankings, RewardModelConfig(epochs=30, batch_size=16))
    margins = result.log_odds_scale * reward_model.score_margins(trained, rankings)
    assert preference_loss(torch.from_numpy(margins), weights).item() == pytest.approx(
        result.history[-1]["losses/reward_model"], abs=0.02
    )


def test_quality_of_a_trained_model(make_reward_model: Any) -> None:
    model = make_reward_model()
    result = train_reward_model(model, make_rankings(200), RewardModelConfig(epochs=4))
    quality = measure_reward_model(model, make_rankings(100, seed=1), result.log_odds_scale, best=1.0)
    assert quality.accuracy == pair_accuracy(model, make_rankings(100, seed=1))
    assert quality.share_of_best == quality.accuracy > 0.7
    assert quality.by_margin[-1].accuracy > quality.by_margin[0].accuracy
    assert sum(each.count for each in quality.calibration.bins) == sum(each.count for each in quality.by_margin)
    assert quality.calibration.error < 0.2
    with pytest.raises(ValueError, match="nothing to measure on"):
        measure_reward_model(model, [Ranking("1", ("2", "3"), (1, 1))], 1.0)


@pytest.mark.filterwarnings("ignore")  # TRL's and transformers' own
@pytest.mark.parametrize("with_margins", [False, True])
def test_loss_and_gradients_equal_trls(with_margins: bool, make_model: Any, tmp_path: Path) -> None:
    """TRL's RewardTrainer on the same model and batch: its tokens, its loss, its gradients."""
    trl, datasets = pytest.importorskip("trl"), pytest.importorskip("datasets")
    model = RewardModel.from_causal_lm(make_model("gpt2"), make_tokenizer(pad_token="<pad>"), seed=0)
    twin = RewardModel.from_causal_lm(make_model("gpt2"), make_tokenizer(pad_token="<pad>"), seed=0).model
    rankings = []
    for each in make_rankings(40, k=2, seed=3):
        if len(set(each.ranks)) == 2 and len(rankings) < 6:
            margin = 0.25 * len(rankings) if with_margins else None
            rankings.append(Ranking(each.prompt, each.answers, each.ranks, margin=margin))
    rows = to_pairs(rankings, margins=with_margins)
    arguments = trl.RewardConfig(
        output_dir=str(tmp_path), use_cpu=True, per_device_train_batch_size=6, report_to="none", bf16=False,
        disable_dropout=True, max_length=None,
    )  # fmt: skip
    trainer = trl.RewardTrainer(
        twin, arguments, train_dataset=datasets.Dataset.from_list(rows), processing_class=model.tokenizer
    )
    inputs = trainer.data_collator([trainer.train_dataset[i] for i in range(6)])
    assert ("margin" in inputs) == with_margins
    read = [row[mask.bool()].tolist() for row, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)]
    elements = [_Element(model.encode(each), pairs(each.ranks), rank_margins(each)) for each in rankings]
    chosen, rejected = ([each.rows[each.pairs[0, side]] for each in elements] for side in (0, 1))
    assert read == chosen + rejected  # the same tokens, EOS included
    theirs = trainer.compute_loss(twin.train(), inputs)
    theirs.backward()
    ours, _ = _loss(model, elements, RewardModelConfig(margin=1.0 if with_margins else 0.0))
    ours.backward()
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    gradients = {name: parameter.grad for name, parameter in twin.named_parameters()}
    assert sum(gradient is not None and bool(gradient.abs().max() > 1e-3) for gradient in gradients.values()) > 10
    for name, parameter in model.model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-5, rtol=1e-4)
