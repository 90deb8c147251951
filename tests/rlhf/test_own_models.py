"""The pipeline on other people's models, prompts and judges, from folders that were built here: no network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from agents.rlhf.running import make_tasks, open_pipeline, play, read_figures
from agents.rlhf.settings import RLHFError, Settings, Sources, get_settings, with_sources
from agents.rlhf.worlds import PromptWorld, make_world, reward_spec
from tests.rlhf.conftest import Checkpoints

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sources(checkpoints: Checkpoints) -> dict[str, Any]:
    return {
        "model": str(checkpoints.model),
        "prompts": str(checkpoints.prompts),
        "reward": str(checkpoints.classifier),
        "max_new_tokens": 6,
    }


def run(settings: Settings, out: Path) -> dict[str, Any]:
    open_pipeline(out, settings)
    for task in make_tasks(settings, [0]):
        play(out, settings, task, lambda *_: None)
    evaluation = read_figures(out, 0, "evaluation")
    assert evaluation is not None
    return evaluation


def test_the_command_from_end_to_end(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """As a user types it: SFT, PPO against a classifier with its own tokenizer, a second judge, the report."""
    command = [
        *(sys.executable, "scripts/rlhf.py", "--preset", "smoke", "--out", str(tmp_path / "out"), "--jobs", "1"),
        *("--model", str(checkpoints.model), "--prompts", str(checkpoints.prompts)),
        *("--reward", str(checkpoints.classifier), "--gold", '{"name": "keyword_presence", "words": ["good"]}'),
        *("--demonstrations", str(checkpoints.demonstrations), "--max-new-tokens", "6", "--kl-coefs", "0.05", "0"),
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "PPO, kl_coef 0.05" in done.stdout
    assert "grammatical" not in done.stdout  # nobody knows here
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "LlamaForCausalLM" in page
    for stage in ("sft", "ppo-0.05"):
        folder = tmp_path / "out" / "seed-0" / stage / "model"
        model = transformers.AutoModelForCausalLM.from_pretrained(folder)
        assert len(transformers.AutoTokenizer.from_pretrained(folder)) == model.config.vocab_size
    figures = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))["models"]
    assert set(figures) == {"pretrained", "sft", "ppo-0.05", "ppo-0"}
    assert figures["sft"]["gold"]["median"] >= 0
    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
    assert "4 stages (4 finished before)" in again.stdout


def test_the_policy_is_the_given_model_and_every_column_reaches_the_judge(
    sources: dict[str, Any], tmp_path: Path
) -> None:
    seen: set[str] = set()

    def judge(completions: list[str], source: list[str], **columns: Any) -> list[float]:
        seen.update(source)
        return [float(len(text)) for text in completions]

    settings = with_sources(get_settings("smoke"), Sources(**sources | {"reward": judge}))
    for task in make_tasks(settings, [0])[:1]:
        (tmp_path / "seed-0").mkdir()
        play(tmp_path, settings, task, lambda *_: None)
    assert seen <= {"", "and", "very"}
    assert len(seen) > 1
    before, after = (
        dict(transformers.AutoModelForCausalLM.from_pretrained(folder).named_parameters())
        for folder in (sources["model"], tmp_path / "seed-0" / "ppo-0.05" / "model")
    )
    assert before.keys() == after.keys()
    assert not any(torch.equal(before[name], after[name]) for name in before if before[name].ndim == 2)
    assert all((before[name] - after[name]).abs().max() < 1e-3 for name in before)  # a learning rate of 1e-5


def test_prompts_may_be_a_data_set(sources: dict[str, Any], checkpoints: Checkpoints, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [json.loads(line) for line in checkpoints.prompts.read_text(encoding="utf-8").splitlines()]
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "data")
    world = make_world(Sources(**sources | {"prompts": str(tmp_path / "data")}))
    envs: Any = world.envs("train", 4)
    texts = [envs.unwrapped.task.vocab.decode(row) for row in envs.reset(seed=0)[0]]
    assert all(text in {row["prompt"] for row in rows} for text in texts)
    held_out = world.envs("test", 4).reset(seed=0)[0]
    assert not {tuple(row) for row in held_out.tolist()} & {tuple(row) for row in envs.reset(seed=0)[0].tolist()}


def test_a_judge_may_be_named_in_every_way(checkpoints: Checkpoints, tmp_path: Path) -> None:
    folder = str(checkpoints.classifier)
    assert reward_spec(folder) == {"name": "hf_classifier", "model": folder, "of": "text"}
    assert reward_spec("length") == "length"
    assert reward_spec("module:function") == "module:function"
    assert reward_spec([[1.0, "length"]]) == [[1.0, "length"]]
    (tmp_path / "reward_model.json").write_text("{}")
    assert reward_spec(str(tmp_path)) == f"learned:{tmp_path}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "no/such-model"}, "Cannot load the tokenizer 'no/such-model'.*hub has none or cannot be reached"),
        ({"prompts": "missing.jsonl"}, "Cannot read the prompts 'missing.jsonl'"),
        ({"reward": "no/such-judge"}, "no/such-judge"),
        ({"reward": {"name": "lenght"}}, "lenght.*length"),
        ({"max_new_tokens": 64}, "reads at most 32 tokens"),
    ],
)
def test_what_cannot_be_had_is_named_before_anything_is_trained(
    sources: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(RLHFError, match=message):
        make_world(Sources(**sources | change))


def test_a_tokenizer_without_eos_is_named(sources: dict[str, Any], tmp_path: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(sources["model"])
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(RLHFError, match="has no EOS token"):
        PromptWorld(Sources(**sources | {"model": str(tmp_path)}))


def test_demonstrations_need_completions(sources: dict[str, Any], checkpoints: Checkpoints) -> None:
    world = make_world(Sources(**sources | {"demonstrations": str(checkpoints.prompts)}))
    with pytest.raises(RLHFError, match="has no column 'completion' to learn from"):
        world.demonstrations(10, 0)
