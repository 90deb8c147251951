"""Classifiers and fluency: tiny models with chosen or random weights, saved to a folder and loaded again."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from textenvs import Episodes, RewardError
from textenvs.checking import check_reward
from textenvs.rewards import Judge, make_reward

transformers_logging.disable_progress_bar()

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "good", "bad", "film", "plot", "was", "the", *"0123456789"]
SIZE = len(WORDS)
TEXTS = Episodes.from_texts(
    ["the film", "", "the plot was", "a"],
    ["was good", "bad", "a bad good bad film", ""],
    separator=" ",
)


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def tokenizer(*, special: bool, **tokens: Any) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits(True)])
    if special:
        core.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
        )
        tokens["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]", **tokens)


def save(folder: Path, model: Any, *, special: bool = True, **tokens: str) -> str:
    model.save_pretrained(folder)
    tokenizer(special=special, **tokens).save_pretrained(folder)
    return str(folder)


def bert(folder: Path, *, bias: list[float] | None = None, **config: Any) -> str:
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    settings = {"vocab_size": SIZE, "max_position_embeddings": 12, "initializer_range": 0.5, **sizes, **config}
    model = BertForSequenceClassification(BertConfig(**settings))
    if bias is not None:
        torch.nn.init.zeros_(model.classifier.weight)
        model.classifier.bias.data = torch.tensor(bias)
    return save(folder, model, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]")


def gpt2(folder: Path, kind: Any = GPT2LMHeadModel, *, uniform: bool = False, **config: Any) -> Any:
    torch.manual_seed(0)
    settings = {"vocab_size": SIZE, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 12, "initializer_range": 0.5}
    model = kind(GPT2Config(**{**settings, "bos_token_id": 3, "eos_token_id": 3, **config})).eval()
    if uniform:
        for parameter in model.parameters():
            torch.nn.init.zeros_(parameter)
    save(folder, model, special=False, eos_token="[SEP]")
    return model


LABELS = {"id2label": {0: "bad", 1: "fair", 2: "good"}, "label2id": {"bad": 0, "fair": 1, "good": 2}}
EIGHTHS = [math.log(1.0), math.log(2.0), math.log(5.0)]


def make(name: str, model: str, **arguments: Any) -> Any:
    return make_reward({"name": name, "model": model, "device": "cpu", **arguments})


# ------------------------------------------------------------------------------------------------- classifier


@pytest.mark.parametrize(
    ("arguments", "expected", "low", "high"),
    [
        ({"label": "good"}, 5 / 8, 0, 1),
        ({"label": 0}, 1 / 8, 0, 1),
        ({"label": "fair", "output": "logit"}, math.log(2), -math.inf, math.inf),
    ],
)
def test_literal_scores(tmp_path: Path, arguments: Mapping[str, Any], expected: float, low: float, high: float) -> None:
    reward = make("hf_classifier", bert(tmp_path, bias=EIGHTHS, **LABELS), **arguments)
    scores = reward.score(TEXTS)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, [expected] * 4, rtol=1e-6)
    assert (reward.low, reward.high) == (low, high)


def test_labels_that_do_not_exclude_each_other(tmp_path: Path) -> None:
    folder = bert(tmp_path, bias=[0.0, math.log(3.0), 0.0], problem_type="multi_label_classification", **LABELS)
    np.testing.assert_allclose(make("hf_classifier", folder, label="fair").score(TEXTS), [3 / 4] * 4, rtol=1e-6)


def test_a_single_output(tmp_path: Path) -> None:
    folder = bert(tmp_path, bias=[-1.5], num_labels=1)
    np.testing.assert_allclose(make_reward(f"hf_classifier:{folder}").score(TEXTS), [-1.5] * 4)
    squashed = make("hf_classifier", folder, output="probability")
    np.testing.assert_allclose(squashed.score(TEXTS), [1 / (1 + math.exp(1.5))] * 4, rtol=1e-6)
    assert (squashed.low, squashed.high) == (0, 1)


@pytest.mark.parametrize("batch_size", [1, 2, 32])
@pytest.mark.parametrize(
    ("of", "read"),
    [
        ("completion", ["was good", "bad", "a bad good bad film", ""]),
        ("text", ["the film was good", "bad", "the plot was a bad good bad film", "a"]),
        ("pair", [("the film", "was good"), ("", "bad"), ("the plot was", "a bad good bad film"), ("a", "")]),
    ],
)
def test_batches_equal_single_texts(tmp_path: Path, of: str, read: list[Any], batch_size: int) -> None:
    folder = bert(tmp_path, **LABELS)
    model = BertForSequenceClassification.from_pretrained(folder)
    words = tokenizer(special=True)
    expected = []
    for text in read:
        parts = text if of == "pair" else (text,)
        inputs = words(*([part] for part in parts), return_tensors="pt")
        expected.append(float(model(**inputs).logits.softmax(-1)[0, 2].detach()))
    scores = make("hf_classifier", folder, label="good", of=of, batch_size=batch_size).score(TEXTS)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert len(set(expected)) == 4


def test_a_decoder_without_padding_token(tmp_path: Path) -> None:
    """A decoder reads its score at a text's last token: padding must not move it."""
    model = gpt2(tmp_path, GPT2ForSequenceClassification, num_labels=1)
    reward = make("hf_classifier", str(tmp_path))
    words = tokenizer(special=False)
    texts = ["was good", "bad", "a bad good bad film"]
    expected = [float(model(**words(text, return_tensors="pt")).logits[0, 0].detach()) for text in texts]
    scores = reward.score(TEXTS)
    np.testing.assert_allclose(scores[:3], expected, rtol=1e-5)
    assert np.isfinite(scores[3])  # the empty text


def test_long_texts_are_cut(tmp_path: Path) -> None:
    folder = bert(tmp_path, **LABELS)
    long = Episodes.from_texts(["bad " * 20], ["good " * 20], separator=" ")
    short = Episodes.from_texts(["bad"], ["good " * 10], separator=" ")
    for of in ("completion", "text", "pair"):
        assert np.isfinite(make("hf_classifier", folder, label=0, of=of).score(long)).all()
    # The completion keeps its first ten words, prompt and completion their last ten
    cut = make("hf_classifier", folder, label=0).score(long)
    np.testing.assert_allclose(cut, make("hf_classifier", folder, label=0).score(short), rtol=1e-6)
    cut = make("hf_classifier", folder, label=0, of="text").score(long)
    np.testing.assert_allclose(cut, make("hf_classifier", folder, label=0).score(short), rtol=1e-6)
    assert make("hf_classifier", folder, label=0, max_length=4).max_length == 4
    with pytest.raises(ValueError, match="max_length=13, but the model takes 12 tokens at most"):
        make("hf_classifier", folder, label=0, max_length=13)


def test_in_an_environment(tmp_path: Path) -> None:
    folder = bert(tmp_path, **LABELS)
    envs = gym.make_vec(
        "textenvs/Reverse-v0",
        num_envs=3,
        vectorization_mode="vector_entry_point",
        reward={"name": "hf_classifier", "model": folder, "label": "good", "device": "cpu"},
    )
    envs.reset(seed=0)
    for _ in range(4):
        _, rewards, *_ = envs.step(np.array([1, 2, 3]))
    assert len(set(rewards.tolist())) == 3
    check_reward({"name": "hf_classifier", "model": folder, "label": "good", "device": "cpu"})


def test_versions_tell_models_and_settings_apart(tmp_path: Path) -> None:
    folder = bert(tmp_path, **LABELS)
    settings: list[dict[str, Any]] = [
        {"label": 0},
        {"label": 1},
        {"label": 0, "output": "logit"},
        {"label": 0, "of": "text"},
        {"label": 0, "max_length": 4},
        {"label": 0, "dtype": "bfloat16"},
    ]
    versions = {make("hf_classifier", folder, **each).version for each in settings}
    assert len(versions) == len(settings)
    assert make("hf_classifier", folder, label="bad", batch_size=2).version in versions
    bert(tmp_path, bias=EIGHTHS, **LABELS)  # another model in the same place
    assert make("hf_classifier", folder, label=0).version not in versions


def test_global_randomness_is_left_alone_and_nothing_trains(tmp_path: Path) -> None:
    folder = bert(tmp_path, num_labels=1)
    before = torch.random.get_rng_state()
    reward = make("hf_classifier", folder)
    first = reward.score(TEXTS)
    assert torch.equal(before, torch.random.get_rng_state())
    assert not reward.model.training
    np.testing.assert_array_equal(first, reward.score(TEXTS))


def test_half_precision(tmp_path: Path) -> None:
    folder = bert(tmp_path, **LABELS)
    exact = make("hf_classifier", folder, label=1).score(TEXTS)
    rough = make("hf_classifier", folder, label=1, dtype="bfloat16").score(TEXTS)
    assert 0 < np.abs(exact - rough).max() < 0.05


# ------------------------------------------------------------------------------------------------- fluency


def test_a_uniform_model_scores_minus_log_v(tmp_path: Path) -> None:
    gpt2(tmp_path, uniform=True)
    reward = make("hf_perplexity", str(tmp_path))
    np.testing.assert_allclose(reward.score(TEXTS), [-math.log(SIZE)] * 4, rtol=1e-6)  # the empty one as well
    assert (reward.low, reward.high) == (-math.inf, 0)


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_fluency_equals_the_mean_log_probability(tmp_path: Path, batch_size: int) -> None:
    model = gpt2(tmp_path)
    scores = make("hf_perplexity", str(tmp_path), batch_size=batch_size).score(TEXTS)
    expected = []
    for prompt, completion in zip(TEXTS.prompts, TEXTS.completions, strict=True):
        context = [3, *(WORDS.index(word) for word in prompt.split())]  # begins with the model's begin token
        logprobs = []
        for word in completion.split():
            with torch.no_grad():
                distribution = model(torch.tensor([context])).logits[0, -1].log_softmax(-1)
            context.append(WORDS.index(word))
            logprobs.append(float(distribution[context[-1]]))
        expected.append(np.mean(logprobs) if logprobs else -math.log(SIZE))
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert scores.dtype == np.float32


def test_fluency_of_texts_that_are_too_long(tmp_path: Path) -> None:
    model = gpt2(tmp_path)
    reward = make("hf_perplexity", str(tmp_path))
    ids = [5, 6] * 6  # "good bad", as many as the model takes; the first is context
    with torch.no_grad():
        logprobs = model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    tokens = logprobs[torch.arange(11), torch.tensor(ids[1:])]
    episodes = Episodes.from_texts(["a " * 20 + "good bad " * 5 + "good ", ""], ["bad", "good bad " * 12])
    np.testing.assert_allclose(reward.score(episodes), [float(tokens[-1]), float(tokens.mean())], rtol=1e-5)


def test_fluency_fulfils_the_contract(tmp_path: Path) -> None:
    gpt2(tmp_path)
    check_reward({"name": "hf_perplexity", "model": str(tmp_path), "device": "cpu"})


def test_an_encoder_is_no_judge_of_fluency(tmp_path: Path) -> None:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = BertForMaskedLM(BertConfig(vocab_size=SIZE, initializer_range=0.5, **sizes))
    save(tmp_path, model, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]")
    with pytest.raises(ValueError, match="no causal language model: it looks at the next token"):
        make("hf_perplexity", str(tmp_path))


# ------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "say which label= is the score: bad, fair, good"),
        ({"label": "godo"}, r"Unknown label 'godo'\. Did you mean 'good'\? Known: bad, fair, good"),
        ({"label": 3}, r"label=3 is not in 0 … 2"),
        ({"label": 0, "output": "logits"}, r"Did you mean 'logit'"),
        ({"label": 0, "of": "prompt"}, "Known: completion, pair, text"),
        ({"label": 0, "device": "gpu"}, "device='gpu' is none"),
        ({"label": 0, "device": "cuda:99"}, "device='cuda:99', but PyTorch sees"),
        ({"label": 0, "dtype": "int8"}, "Unknown dtype= 'int8'"),
        ({"label": 0, "batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_bad_arguments(tmp_path: Path, arguments: dict[str, Any], says: str) -> None:
    folder = bert(tmp_path, **LABELS)
    with pytest.raises(ValueError, match=says):
        make_reward({"name": "hf_classifier", "model": folder, "device": "cpu", **arguments})


def test_a_regression_has_no_probability(tmp_path: Path) -> None:
    folder = bert(tmp_path, num_labels=1, problem_type="regression")
    with pytest.raises(ValueError, match="is a regression, it has no probabilities"):
        make("hf_classifier", folder, output="probability")


def test_folders_that_hold_no_model(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"'hf_classifier': there is no folder '.*/gone'"):
        make("hf_classifier", str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError, match=r"holds no model: no config\.json"):
        make("hf_classifier", str(tmp_path))
    whole = Path(bert(tmp_path / "whole", num_labels=1))
    weights = shutil.copytree(whole, tmp_path / "weights")
    (weights / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no weights: no \*\.safetensors"):
        make("hf_classifier", str(weights))
    torch.save({}, weights / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pickled \(pytorch_model\.bin\), and loading a pickle runs code"):
        make("hf_classifier", str(weights))
    (whole / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match="holds no tokenizer"):
        make("hf_classifier", str(whole))


def test_a_broken_file(tmp_path: Path) -> None:
    folder = Path(bert(tmp_path, num_labels=1))
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"'hf_classifier' cannot load .*: .*incomplete"):
        make("hf_classifier", str(folder))
    weights.write_bytes(whole)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "soup"}))
    with pytest.raises(ValueError, match=r"'hf_classifier' cannot load .*soup"):
        make("hf_classifier", str(folder))


def test_a_tokenizer_of_another_model(tmp_path: Path) -> None:
    folder = bert(tmp_path, num_labels=1, vocab_size=7)
    with pytest.raises(ValueError, match=rf"has {SIZE} tokens, its model 7: they do not belong together"):
        make("hf_classifier", folder)


def test_a_model_that_was_not_trained_for_it(tmp_path: Path) -> None:
    gpt2(tmp_path)
    before = torch.random.get_rng_state()
    with pytest.raises(ValueError, match=r"lack score\.weight, so it was not trained for this\. It is a GPT2LM"):
        make("hf_classifier", str(tmp_path), label=0)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("name", ["hf_classifier", "hf_perplexity"])
def test_no_network_for_a_hub_name(name: str) -> None:
    with pytest.raises(OSError, match=rf"'{name}' cannot load 'nobody/nothing' \(no folder here, .*couldn't connect"):
        make(name, "nobody/nothing")


def test_remote_code_is_never_run(tmp_path: Path) -> None:
    folder = Path(bert(tmp_path, num_labels=1))
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    config = json.loads((folder / "config.json").read_text())
    config.update(model_type="evil", auto_map={"AutoConfig": "evil.Config"})
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="'hf_classifier' cannot load"):
        make("hf_classifier", str(folder))


def test_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ImportError, match=r"'hf_perplexity' needs 'transformers': pip install 'textenvs\[lm\]'"):
        make("hf_perplexity", "nobody/nothing")


def test_a_failing_forward_pass_stops_the_run(tmp_path: Path) -> None:
    reward = make("hf_classifier", bert(tmp_path, bias=[math.nan], num_labels=1))
    with pytest.raises(RewardError, match="'hf_classifier' returned nan for prompt 'the film', completion 'was good'"):
        Judge(reward)(TEXTS)
