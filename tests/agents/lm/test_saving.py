"""Policies on disk: they come back whole, plain transformers reads them, and damage is named at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from agents.lm import LMActorCritic
from agents.networks import flatten_parameters

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")


def make_tokenizer(words: tuple[str, ...]) -> Any:
    level = tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0])
    backend = tokenizers.Tokenizer(level)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token=words[0], eos_token=words[-1])


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen2"])
@pytest.mark.parametrize("critic", ["shared", "copy"])
def test_a_policy_comes_back_whole(
    kind: str, critic: str, make_policy: Any, make_spec: Any, random_rows: Any, tmp_path: Path
) -> None:
    policy = make_policy(kind, tokenizer=make_tokenizer(make_spec().vocab.tokens), critic=critic, temperature=0.8)
    with torch.no_grad():
        for parameter in policy.parameters():  # critic and actor must not be confused
            parameter.add_(0.01 * torch.randn_like(parameter))
    policy.save_pretrained(tmp_path / "policy")
    again = LMActorCritic.from_pretrained(tmp_path / "policy")
    again.bind(policy.spec)
    assert (again.temperature, again.critic is None) == (0.8, critic == "shared")
    assert again.tokenizer.get_vocab() == policy.tokenizer.get_vocab()
    rows, lengths = random_rows(policy.spec, 6)
    one, two = policy.evaluate(rows, lengths), again.evaluate(rows, lengths)
    assert torch.equal(one.logprobs, two.logprobs)
    assert torch.equal(one.values, two.values)
    changed = LMActorCritic.from_pretrained(tmp_path / "policy", temperature=0.5, critic="shared")
    assert (changed.temperature, changed.critic) == (0.5, None)
    assert not changed.value_head.weight.any()


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_plain_transformers_reads_model_and_tokenizer(
    kind: str, make_policy: Any, make_spec: Any, tmp_path: Path
) -> None:
    """Also while an agent keeps all weights in one vector, of which they are views; tied ones stay tied."""
    policy = make_policy(kind, tokenizer=make_tokenizer(make_spec().vocab.tokens))
    vector, _ = flatten_parameters(policy)
    with torch.no_grad():
        vector.mul_(1.01)
    policy.save_pretrained(tmp_path / "policy")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    ids = torch.arange(10)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, policy.model(ids).logits)
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert tied == (kind == "gpt2")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "policy")
    assert tokenizer.eos_token == make_spec().vocab.tokens[-1]
    size = (tmp_path / "policy" / "model.safetensors").stat().st_size
    assert size < 1.2 * 4 * sum(p.numel() for p in policy.model.parameters()) + 5_000


def test_a_model_without_a_policy_beside_it_is_a_fresh_policy(make_model: Any, make_spec: Any, tmp_path: Path) -> None:
    make_model("gpt2").save_pretrained(tmp_path / "model")
    policy = LMActorCritic.from_pretrained(tmp_path / "model", temperature=0.9)
    assert policy.tokenizer is None
    assert (policy.temperature, policy.critic) == (0.9, None)
    policy.bind(make_spec())


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_an_adapter_is_saved_alone_and_found_with_its_model(
    make_model: Any, make_policy: Any, random_rows: Any, tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    make_model("llama").save_pretrained(tmp_path / "base")
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    policy = make_policy(peft.get_peft_model(base, config))
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    policy.save_pretrained(tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    again = LMActorCritic.from_pretrained(tmp_path / "adapter")
    again.bind(policy.spec)
    rows, lengths = random_rows(policy.spec, 4)
    assert torch.equal(again.logprobs(rows, lengths), policy.logprobs(rows, lengths))
    assert sum(p.requires_grad for p in again.parameters()) == sum(p.requires_grad for p in policy.parameters())


def test_saving_replaces_a_model_and_nothing_else(make_policy: Any, tmp_path: Path) -> None:
    policy = make_policy()
    policy.save_pretrained(tmp_path / "deep" / "policy")
    policy.temperature = 0.6
    policy.save_pretrained(tmp_path / "deep" / "policy")
    assert LMActorCritic.from_pretrained(tmp_path / "deep" / "policy").temperature == 0.6
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["policy"]
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").write_text("…")
    for other in (tmp_path / "notes", tmp_path / "notes" / "diary.txt"):
        with pytest.raises(ValueError, match="exists and is no model"):
            policy.save_pretrained(other)
    (tmp_path / "empty").mkdir()
    policy.save_pretrained(tmp_path / "empty")


def test_a_save_that_fails_leaves_the_old_one(
    make_policy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = make_policy()
    policy.save_pretrained(tmp_path / "policy")
    monkeypatch.setattr(type(policy.model), "save_pretrained", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        policy.save_pretrained(tmp_path / "policy")
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]
    LMActorCritic.from_pretrained(tmp_path / "policy")


# -- what cannot be read -----------------------------------------------------------------------------------------------


@pytest.fixture
def saved(make_policy: Any, tmp_path: Path) -> Path:
    """The folder of a policy with a critic of its own."""
    make_policy(critic="copy").save_pretrained(tmp_path / "policy")
    return tmp_path / "policy"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize("file", ["model.safetensors", "critic/model.safetensors", "value_head.safetensors"])
def test_files_cut_short(file: str, saved: Path) -> None:
    cut(saved / file) if "model" in file else (saved / file).write_bytes(b"12345")
    with pytest.raises(ValueError, match="damaged"):
        LMActorCritic.from_pretrained(saved)


def test_missing_files(saved: Path) -> None:
    (saved / "value_head.safetensors").unlink()
    with pytest.raises(ValueError, match=r"value_head\.safetensors is missing or damaged"):
        LMActorCritic.from_pretrained(saved)
    (saved / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"the folder has no weights \(\*\.safetensors\)"):
        LMActorCritic.from_pretrained(saved)
    (saved / "config.json").unlink()
    with pytest.raises(ValueError, match=r"the folder has no config\.json"):
        LMActorCritic.from_pretrained(saved)


def test_missing_weights(saved: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(saved / "model.safetensors")
    del weights["transformer.h.1.mlp.c_fc.weight"]
    save_file(weights, saved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ValueError, match=r"no CausalLM checkpoint.*missing weights, transformer\.h\.1\.mlp\.c_fc\.weight"
    ):
        LMActorCritic.from_pretrained(saved)


def test_settings_of_another_version_or_none_at_all(saved: Path) -> None:
    path = saved / "policy.json"
    settings = json.loads(path.read_text())
    for text, message in (
        (json.dumps({**settings, "version": 99}), "is of version 99; this code reads version 1"),
        (json.dumps({"a": 1}), "is not the settings of a policy"),
        ("{", "is damaged"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            LMActorCritic.from_pretrained(saved)


def test_pickles_are_not_read(make_model: Any, tmp_path: Path) -> None:
    model = make_model("gpt2")
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(
        ValueError, match="its weights are a pickle, which can run code when read: save them as safetens"
    ):
        LMActorCritic.from_pretrained(tmp_path)


def test_names_that_lead_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        ValueError, match=r"'nobody/nothing': it is no local folder, and the hub has none or cannot be re"
    ):
        LMActorCritic.from_pretrained("nobody/nothing")


def test_a_classifier_is_no_language_model(tmp_path: Path) -> None:
    config = transformers.BertConfig(
        vocab_size=13, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"no CausalLM checkpoint of a BertLMHeadModel: missing weights"):
        LMActorCritic.from_pretrained(tmp_path)
