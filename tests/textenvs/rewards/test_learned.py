"""learned: reads the folder that a reward model was saved to, and refuses early what it cannot judge."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

import textenvs
from textenvs.checking import check_reward, sample_episodes
from textenvs.rewards import Judge, RewardError, make_reward
from textenvs.rewards.learned import Normalisation, read_header, token_rows, write_header

transformers_logging.disable_progress_bar()

TEXTS = sample_episodes()  # of Reverse: eight digits and EOS
TOKENS = TEXTS.vocab.tokens
SIZES: dict[str, Any] = {"length": 4, "num_symbols": 8, "min_length": 1}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def tokenizer(tokens: tuple[str, ...] = TOKENS) -> Any:
    core = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token=tokens[0]))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token=tokens[-1])


def make_folder(folder: Path, tokens: tuple[str, ...] = TOKENS, seed: int = 0, kind: Any = None, **config: Any) -> Any:
    torch.manual_seed(seed)
    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 12, "initializer_range": 0.5, "num_labels": 1}
    special = {"bos_token_id": None, "eos_token_id": None, "vocab_size": len(tokens)}
    model = (kind or GPT2ForSequenceClassification)(GPT2Config(**{**sizes, **special, **config})).eval()
    model.save_pretrained(folder)
    tokenizer(tokens).save_pretrained(folder)
    write_header(folder, Normalisation(mean=0.5, std=2.0))
    return model


def learned(folder: Path, **arguments: Any) -> Any:
    return make_reward({"name": "learned", "model": str(folder), "device": "cpu", **arguments})


# -- scores ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_scores_are_normalised_outputs_at_the_last_token(tmp_path: Path, batch_size: int) -> None:
    model = make_folder(tmp_path)
    rows = token_rows(TEXTS)
    assert len({len(row) for row in rows}) > 4
    with torch.no_grad():
        expected = [(model(torch.tensor([row])).logits.item() - 0.5) / 2 for row in rows]
    scores = learned(tmp_path, batch_size=batch_size).score(TEXTS)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert scores.std() > 0.1


def test_rows_by_hand() -> None:
    texts = textenvs.Episodes(
        prompt_ids=np.array([[9, 1, 2], [9, 9, 9], [3, 4, 5]]),
        completion_ids=np.array([[6, 8, 9], [7, 7, 7], [9, 9, 9]]),
        lengths=np.array([2, 3, 0]),
        finish_reason=np.array(["stop", "length", "stop"], dtype=object),
        key=np.zeros(3, dtype=np.uint64),
        vocab=TEXTS.vocab,
    )
    assert token_rows(texts) == [[1, 2, 6, 8], [7, 7, 7], [3, 4, 5]]


def test_it_keeps_the_contract(tmp_path: Path) -> None:
    make_folder(tmp_path)
    check_reward(learned(tmp_path), TEXTS)
    assert learned(tmp_path).score(TEXTS.take(np.zeros(0, dtype=np.int64))).shape == (0,)


def test_scoring_changes_no_weight_and_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path)
    reward = learned(tmp_path)
    before = [parameter.clone() for parameter in reward.model.parameters()]
    monkeypatch.setattr(textenvs.Vocab, "decode_rows", lambda *_: pytest.fail("a text was decoded"))
    env = gym.make("textenvs/Reverse-v0", **SIZES, reward=reward)
    env.reset(seed=0)
    assert env.step(8)[1] != 0
    assert all(torch.equal(a, b) for a, b in zip(before, reward.model.parameters(), strict=True))


def test_versions_differ_by_weights_and_statistics(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        make_folder(tmp_path / name, seed=seed)
    one, same, other = (learned(tmp_path / name).version for name in ("one", "same", "other"))
    assert one == same != other
    write_header(tmp_path / "same", Normalisation(0.5, 2.1))
    assert learned(tmp_path / "same").version != one
    assert (
        Judge(make_reward({"name": "cache", "reward": learned(tmp_path / "one")})).version
        == f"1(parts=['learned {one}'])"
    )


def test_more_tokens_in_the_tokenizer_do_no_harm(tmp_path: Path) -> None:
    make_folder(tmp_path, (*TOKENS, "<pad>"))
    assert np.isfinite(learned(tmp_path).score(TEXTS)).all()


def test_it_can_be_pickled(tmp_path: Path) -> None:
    make_folder(tmp_path)
    reward = learned(tmp_path)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(reward)).score(TEXTS), reward.score(TEXTS))


# -- what is refused before anything is written ------------------------------------------------------------------------

OTHER = (*"abcdefgh", "<eos>")
MISMATCH = r"was trained with another tokenizer.*: 9 tokens there, 9 here, and 0 means '0' there but 'a' here"


def test_another_tokenizer_is_refused_when_the_environment_is_made(tmp_path: Path) -> None:
    make_folder(tmp_path, OTHER)
    spec = f"learned:{tmp_path}"
    for reward in (spec, [(1.0, "match"), (0.5, spec)], {"name": "gold", "proxy": "match", "gold": spec}):
        with pytest.raises(ValueError, match=MISMATCH):
            gym.make("textenvs/Reverse-v0", **SIZES, reward=reward)
    with pytest.raises(ValueError, match=MISMATCH):
        gym.make_vec("textenvs/Reverse-v0", num_envs=2, vectorization_mode="vector_entry_point", **SIZES, reward=spec)
    with pytest.raises(ValueError, match="another tokenizer"):
        textenvs.from_prompts(["1"], TEXTS.vocab, reward=spec, max_new_tokens=3)
    textenvs.from_prompts(["a"], tokenizer(OTHER), reward=spec, max_new_tokens=3)


def test_fewer_tokens_are_another_tokenizer(tmp_path: Path) -> None:
    make_folder(tmp_path, TOKENS[:3])
    with pytest.raises(ValueError, match=r"9 tokens there, 3 here\. Make the environment"):
        gym.make("textenvs/Reverse-v0", **SIZES, reward=f"learned:{tmp_path}")


@pytest.mark.parametrize("kind", ["scalar", "native", "sync", "async"])
def test_swapping_in_another_tokenizer_keeps_the_old_judge(tmp_path: Path, kind: str) -> None:
    make_folder(tmp_path, OTHER)

    def make() -> Any:
        return gym.make("textenvs/Reverse-v0", **SIZES, reward="match")

    if kind == "scalar":
        env: Any = make()
    elif kind == "native":
        env = gym.make_vec("textenvs/Reverse-v0", 2, "vector_entry_point", **SIZES, reward="match")
    else:
        cls = SyncVectorEnv if kind == "sync" else AsyncVectorEnv
        env = cls([make, make], autoreset_mode=AutoresetMode.SAME_STEP)
    try:
        env.reset(seed=0)
        with pytest.raises(ValueError, match=MISMATCH):
            textenvs.set_reward(env, {"name": "clip", "reward": f"learned:{tmp_path}", "minimum": -1, "maximum": 1})
        actions = np.full(getattr(env, "num_envs", 1), 8)
        rewards = env.step(actions if kind != "scalar" else 8)[1]
        np.testing.assert_array_equal(rewards, np.zeros_like(rewards))  # nothing right: match's answer
    finally:
        env.close()


def test_texts_longer_than_its_context(tmp_path: Path) -> None:
    make_folder(tmp_path, n_positions=8)
    with pytest.raises(ValueError, match="at most 8 tokens; prompts of 4 and texts of 5 tokens can have 9"):
        gym.make("textenvs/Reverse-v0", **SIZES, reward=f"learned:{tmp_path}")
    gym.make("textenvs/Reverse-v0", **{**SIZES, "length": 3}, reward=f"learned:{tmp_path}")
    texts = textenvs.Episodes.from_texts(["1234"], ["56701"], vocab=TEXTS.vocab)
    with pytest.raises(RewardError, match="a text has 9 tokens; the reward model reads at most 8"):
        Judge(learned(tmp_path))(texts)


def test_texts_of_another_vocabulary_that_come_from_elsewhere(tmp_path: Path) -> None:
    make_folder(tmp_path)
    with pytest.raises(RewardError, match="was trained with another tokenizer"):
        Judge(learned(tmp_path))(textenvs.Episodes.from_texts(["x"], ["y"]))


# -- folders -----------------------------------------------------------------------------------------------------------


def test_missing_folders_and_files(tmp_path: Path) -> None:
    for missing in (tmp_path / "nowhere", Path("a-name-on-the-hub")):
        with pytest.raises(FileNotFoundError, match=f"There is no folder '{missing}' with a reward model"):
            learned(missing)
    make_folder(tmp_path)
    for name, message in (
        ("tokenizer.json", "holds no tokenizer"),
        ("model.safetensors", "holds no weights"),
        ("config.json", "holds no model: no config.json"),
        ("reward_model.json", "is no reward model that RewardModel.save_pretrained wrote.*'hf_classifier:"),
    ):
        (tmp_path / name).unlink()
        with pytest.raises(FileNotFoundError, match=message):
            learned(tmp_path)


def test_damaged_and_pickled_weights(tmp_path: Path) -> None:
    model = make_folder(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match="'learned' cannot load"):
        learned(tmp_path)
    path.unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"are pickled \(pytorch_model\.bin\), and loading a pickle runs code"):
        learned(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, r"reward_model\.json is of version 2; this code reads version 1"),
        ({"format": "other"}, "is damaged or no header of a reward model: it has no format"),
        ({"std": 0.0}, "std positive, got mean=0.5 and std=0.0"),
        ({"mean": float("nan")}, "mean must be finite"),
        ({"std": None}, "damaged"),
        ({"mean": "much"}, "damaged"),
    ],
)
def test_headers_that_cannot_be_read(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    make_folder(tmp_path)
    path = tmp_path / "reward_model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=message):
        learned(tmp_path)


def test_headers_cut_short(tmp_path: Path) -> None:
    make_folder(tmp_path)
    path = tmp_path / "reward_model.json"
    for text, message in ((path.read_text()[:-9], "damaged"), ("[1]", "damaged"), ('{"format": 1}', "no format")):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_header(tmp_path)
    path.write_text('{"format": "textenvs-reward-model", "version": 1, "std": 1.0}')
    with pytest.raises(ValueError, match="there is no 'mean'"):
        read_header(tmp_path)


def test_models_of_another_kind(tmp_path: Path) -> None:
    make_folder(tmp_path / "three", num_labels=3)
    with pytest.raises(ValueError, match="with 3 outputs; a reward model has a head 'score' with one"):
        learned(tmp_path / "three")
    make_folder(tmp_path / "lm", kind=GPT2LMHeadModel)
    with pytest.raises(ValueError, match=r"lack score\.weight, so it was not trained for this"):
        learned(tmp_path / "lm")
