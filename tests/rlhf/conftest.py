"""A pipeline small enough for tests, run once; and models of other people, built here."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
transformers = pytest.importorskip("transformers")

import torch  # noqa: E402

from agents.rlhf.running import Task, make_tasks, open_pipeline, play  # noqa: E402
from agents.rlhf.settings import Optimisation, Settings, get_settings  # noqa: E402


def _tiny_settings(**ppo: Any) -> Settings:
    smoke = get_settings("smoke")
    optimisation: Optimisation = replace(smoke.ppo, **ppo)
    return replace(
        smoke,
        pretraining=replace(smoke.pretraining, texts=640),
        sft=replace(smoke.sft, demonstrations=160),
        preferences=replace(smoke.preferences, comparisons=96, small=48, held_out=96),
        ppo=optimisation,
        evaluation_texts=48,
    )


@pytest.fixture(scope="session")
def tiny_settings() -> Settings:
    """The smoke preset, smaller still."""
    return _tiny_settings()


@dataclass(frozen=True)
class Pipeline:
    """A pipeline that has been run."""

    out: Path
    settings: Settings
    told: list[tuple[str, float, str]]
    """(stage, share, words) as reported."""


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory, tiny_settings: Settings) -> Pipeline:
    """All stages of seed 0."""
    out = tmp_path_factory.mktemp("rlhf") / "out"
    open_pipeline(out, tiny_settings)
    told: list[tuple[str, float, str]] = []
    for task in make_tasks(tiny_settings, [0]):
        run_stage(out, tiny_settings, task, told)
    return Pipeline(out, tiny_settings, told)


def run_stage(out: Path, settings: Settings, task: Task, told: list[tuple[str, float, str]]) -> None:
    play(out, settings, task, lambda share, words: told.append((task.stage.name, share, words)))


WORDS = ["<eos>", "<unk>", "the", "film", "meal", "was", "good", "bad", "and", "long", "short", "very"]


@dataclass(frozen=True)
class Checkpoints:
    """Folders and files as other people have them."""

    model: Path
    classifier: Path
    prompts: Path
    demonstrations: Path


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """A Llama with random weights, a BERT-like classifier with another tokenizer, prompts and demonstrations."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("checkpoints")

    def tokenizer(words: list[str], **special: str) -> Any:
        level = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
        level.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        return transformers.PreTrainedTokenizerFast(tokenizer_object=level, unk_token="<unk>", **special)

    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 32}
    llama = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=len(WORDS),
            hidden_size=16,
            intermediate_size=24,
            num_key_value_heads=2,
            bos_token_id=None,
            eos_token_id=0,
            **sizes,
        )
    )
    llama.save_pretrained(folder / "model")
    tokenizer(WORDS, eos_token="<eos>").save_pretrained(folder / "model")
    reversed_words = ["<pad>", *WORDS[:0:-1]]
    bert = transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=len(reversed_words), hidden_size=16, intermediate_size=24, num_labels=1, **sizes
        )
    )
    bert.save_pretrained(folder / "classifier")
    tokenizer(reversed_words, pad_token="<pad>").save_pretrained(folder / "classifier")
    begins = [f"the {noun} was {how}" for noun in ("film", "meal") for how in ("good", "bad", "long", "short", "very")]
    prompts = [
        {"prompt": f"{begin} {word}".strip(), "source": word} for begin in begins for word in ("", "and", "very")
    ]
    rows = [{"prompt": "the film", "completion": "was good and long"}, {"prompt": "the meal", "completion": "was bad"}]
    for name, lines in (("prompts", prompts), ("demonstrations", rows * 8)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return Checkpoints(
        folder / "model", folder / "classifier", folder / "prompts.jsonl", folder / "demonstrations.jsonl"
    )
