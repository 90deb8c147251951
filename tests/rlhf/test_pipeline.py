"""The stages in order, on the small language: what they write, how they go on, what they say."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from operator import methodcaller
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import textenvs
from agents import PPO
from agents.benchmark.suites import BenchmarkError
from agents.lm import LMActorCritic
from agents.lm.preferences import load_rankings
from agents.rlhf.results import read_history, read_results
from agents.rlhf.running import (
    Failed,
    Finished,
    Task,
    is_finished,
    make_tasks,
    open_pipeline,
    play,
    read_figures,
    run_in_processes,
)
from agents.rlhf.settings import RLHFError, Settings, Sources, get_settings, with_sources
from agents.rlhf.stages import Stage, lowest_possible_loss, make_stages, thinned
from agents.rlhf.worlds import TinyReviewsWorld
from tests.rlhf.conftest import Pipeline

NAMES = ["pretraining", "sft", "rankings", "reward-model", "reward-model-small", "ppo-0.15", "ppo-0", "evaluation"]


def test_stages_stand_after_those_that_they_need(tiny_settings: Settings) -> None:
    stages = make_stages(tiny_settings)
    assert [stage.name for stage in stages] == NAMES
    seen: set[str] = set()
    for stage in stages:
        assert set(stage.needs) <= seen
        seen.add(stage.name)
    sources = Sources(model="gpt2", prompts="prompts.jsonl", reward="length")
    own = with_sources(get_settings("quick"), sources)
    assert [stage.name for stage in make_stages(own)] == ["ppo-0.05", "evaluation"]
    tuned = replace(own, sources=replace(sources, demonstrations="rows.jsonl"))
    assert [stage.name for stage in make_stages(tuned)] == ["sft", "ppo-0.05", "evaluation"]


def test_every_stage_tells_how_far_it_is_and_how_long_it_took(pipeline: Pipeline) -> None:
    for name in NAMES:
        shares = [share for stage, share, _ in pipeline.told if stage == name]
        assert shares == sorted(shares)
        assert shares[-1] == pytest.approx(1.0)
        figures = read_figures(pipeline.out, 0, name)
        assert figures is not None
        assert figures["seconds"] > 0
    assert not list((pipeline.out / "seed-0" / "work").iterdir())


def test_models_load_in_plain_transformers(pipeline: Pipeline) -> None:
    folder = pipeline.out / "seed-0"
    for stage in ("pretraining", "sft", "ppo-0.15"):
        model = transformers.AutoModelForCausalLM.from_pretrained(folder / stage / "model")
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder / stage / "model")
        ids = tokenizer("the film was long", return_tensors="pt").input_ids
        assert tokenizer.decode(ids[0]) == "the film was long"
        assert model(input_ids=ids).logits.shape == (1, 4, len(TinyReviewsWorld().grammar.vocab))
    judge = transformers.AutoModelForSequenceClassification.from_pretrained(folder / "reward-model" / "model")
    assert judge.config.num_labels == 1


def test_no_model_is_better_than_the_grammar_itself(pipeline: Pipeline) -> None:
    """−log p of the tokens behind the first, by the grammar's own probabilities."""
    world = TinyReviewsWorld()
    corpus = world.corpus(300, 4)
    lowest = lowest_possible_loss(world, corpus)
    figures = read_figures(pipeline.out, 0, "pretraining")
    assert figures is not None
    assert 1.2 < lowest < figures["held_out_loss"]
    firsts = {int(row[0]) for row in corpus.ids}
    every = world.corpus(50_000, 0).ids[:, 0]
    probability = {first: float((every == first).mean()) for first in firsts}
    by_hand = sum(
        np.log(probability[int(row[0])]) - float(world.grammar.log_probability(row[None])[0]) for row in corpus.ids
    )
    assert lowest == pytest.approx(by_hand / (corpus.lengths - 1).sum(), rel=1e-6)


def test_the_ranked_answers_are_the_models_and_held_out_kinds_stay_apart(pipeline: Pipeline) -> None:
    grammar = TinyReviewsWorld().grammar
    folder = pipeline.out / "seed-0" / "rankings"
    things: dict[str, set[int]] = {}
    for split in ("train", "test"):
        rankings = load_rankings(folder / f"{split}.jsonl")
        assert len(rankings) == 16
        assert all(len(ranking.answers) == 4 for ranking in rankings)
        rows = [grammar.vocab.encode(ranking.prompt) for ranking in rankings]
        things[split] = {int(grammar.kind_of_token[row].max()) for row in rows}
    assert not things["train"] & things["test"]
    figures = read_figures(pipeline.out, 0, "rankings")
    assert figures is not None
    assert 0.5 < figures["test"]["best_possible_accuracy"] < 1
    few, many = (read_figures(pipeline.out, 0, name) for name in ("reward-model-small", "reward-model"))
    assert few is not None
    assert many is not None
    assert (few["comparisons"], many["comparisons"]) == (48, 96)


def test_the_log_of_ppo_has_the_gold_score_beside_the_judges(pipeline: Pipeline) -> None:
    history = read_history(pipeline.out / "seed-0" / "ppo-0.15" / "history.csv")
    assert history["updates"].tolist() == [1, 2]
    assert history["objective/kl_coef"].tolist() == [0.15, 0.15]
    assert abs(history["objective/kl"][0]) < 1e-4  # the reference is where it began
    assert np.isfinite(history["gold"]).all()
    assert (np.abs(history["gold"]) <= 1).all()
    assert not np.allclose(history["gold"], history["objective/scores"])
    free = read_history(pipeline.out / "seed-0" / "ppo-0" / "history.csv")
    assert (free["objective/non_score_reward"] == 0).all()


def test_the_evaluation_measures_every_model_on_the_same_prompts(pipeline: Pipeline) -> None:
    figures = read_figures(pipeline.out, 0, "evaluation")
    assert figures is not None
    models = figures["models"]
    assert list(models) == ["pretrained", "sft", "ppo-0.15", "ppo-0"]
    assert models["sft"]["figures"]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert all(model["figures"]["texts"] == 48 for model in models.values())
    prompts = [[sample["prompt"] for sample in model["samples"]] for model in models.values()]
    assert len(prompts[0]) == 3
    assert all(each == prompts[0] for each in prompts)
    assert 0.85 < figures["best_texts"] < figures["optimum"] < 1
    assert models["ppo-0.15"]["model"]["critic_parameters"] > 0  # a trunk of its own, from the reward model


def test_one_seed_repeats_and_two_differ(pipeline: Pipeline, tmp_path: Path) -> None:
    """The first stages again: the same bits."""
    (tmp_path / "out").mkdir()
    weights = []
    for seed in (0, 1):
        for task in make_tasks(pipeline.settings, [seed])[:2]:
            play(tmp_path / "out", pipeline.settings, task, lambda *_: None)
        weights.append(_weights(tmp_path / "out" / f"seed-{seed}" / "sft" / "model"))
    before = _weights(pipeline.out / "seed-0" / "sft" / "model")
    assert all(torch.equal(before[name], weights[0][name]) for name in before)
    assert not any(torch.equal(before[name], weights[1][name]) for name in before if before[name].ndim == 2)


def _weights(folder: Path) -> dict[str, Any]:
    return dict(transformers.AutoModelForCausalLM.from_pretrained(folder).named_parameters())


def test_ppo_goes_on_from_its_checkpoint(pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the middle and started again: the same weights and the same log as never stopping."""
    settings = replace(pipeline.settings, ppo=replace(pipeline.settings.ppo, updates=4))
    monkeypatch.setattr("agents.rlhf.stages.CHECKPOINT_EVERY", 2)
    task = next(task for task in make_tasks(settings, [0]) if task.stage.name == "ppo-0.15")
    for name in ("straight", "stopped"):
        shutil.copytree(pipeline.out / "seed-0", tmp_path / name / "seed-0")
        shutil.rmtree(tmp_path / name / "seed-0" / "ppo-0.15")
    play(tmp_path / "straight", settings, task, lambda *_: None)

    def die(share: float, words: str) -> None:
        if share == 0.75:
            raise ConnectionResetError("power cut")

    with pytest.raises(ConnectionResetError):
        play(tmp_path / "stopped", settings, task, die)
    assert not is_finished(tmp_path / "stopped", task)
    loaded: list[Any] = []
    load = PPO.load.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(PPO, "load", classmethod(lambda cls, *a, **k: loaded.append(a) or load(cls, *a, **k)))
    play(tmp_path / "stopped", settings, task, lambda *_: None)
    assert len(loaded) == 1
    ends = [tmp_path / name / "seed-0" / "ppo-0.15" for name in ("straight", "stopped")]
    one, two = (_weights(end / "model") for end in ends)
    assert all(torch.equal(one[name], two[name]) for name in one)
    histories = [read_history(end / "history.csv") for end in ends]
    assert histories[0]["updates"].tolist() == [1, 2, 3, 4]
    for name in histories[0].keys() - {"seconds", "charts/SPS"}:
        np.testing.assert_array_equal(histories[0][name], histories[1][name])


def test_other_settings_are_refused(pipeline: Pipeline) -> None:
    open_pipeline(pipeline.out, pipeline.settings)  # the same: goes on
    other = replace(pipeline.settings, ppo=replace(pipeline.settings.ppo, learning_rate=1.0))
    with pytest.raises(BenchmarkError, match=r"rlhf › ppo › learning_rate: 0\.001 there, 1\.0 now"):
        open_pipeline(pipeline.out, other)


def test_processes_run_what_can_be_run_and_report_what_failed(tmp_path: Path) -> None:
    succeed: Any = methodcaller("write", {"worked": True})  # what another process can import
    fail: Any = methodcaller("break_down")
    stages = [
        Stage("first", (), succeed),
        Stage("broken", ("first",), fail),
        Stage("never", ("broken",), succeed),
        Stage("beside", ("first",), succeed),
    ]
    tasks = [Task(seed, stage) for stage in stages for seed in (0, 1)]
    settings, events = get_settings("smoke"), []
    failed = run_in_processes(tmp_path, settings, tasks, 2, events.append)
    assert sorted(each.task.label for each in failed) == ["seed 0: broken", "seed 1: broken"]
    assert all("has no attribute 'break_down'" in each.trace for each in failed)
    finished = sorted(event.task.label for event in events if isinstance(event, Finished))
    assert finished == ["seed 0: beside", "seed 0: first", "seed 1: beside", "seed 1: first"]
    assert not any(is_finished(tmp_path, task) for task in tasks if task.stage.name in ("broken", "never"))
    assert json.loads((tmp_path / "seed-1" / "beside" / "figures.json").read_text())["worked"]
    again = run_in_processes(tmp_path, settings, tasks, 2, events.append)
    assert len(again) == 2
    assert sum(isinstance(event, Finished) for event in events) == 4  # nothing that was finished ran again
    assert sum(isinstance(event, Failed) for event in events) == 4


def test_a_damaged_stage_is_named(pipeline: Pipeline, tmp_path: Path) -> None:
    shutil.copytree(pipeline.out, tmp_path / "out")
    figures = tmp_path / "out" / "seed-0" / "rankings" / "figures.json"
    figures.write_text('{"seconds": 1')
    with pytest.raises(RLHFError, match=r"rankings/figures\.json is damaged.*Delete the folder"):
        read_results(tmp_path / "out", pipeline.settings, [0])
    shutil.rmtree(figures.parent)
    with pytest.raises(RLHFError, match="has no finished stage 'rankings': run it again"):
        read_results(tmp_path / "out", pipeline.settings, [0])


def test_bad_settings_are_named() -> None:
    with pytest.raises(RLHFError, match=r"quik.*quick"):
        get_settings("quik")
    with pytest.raises(RLHFError, match="--prompts goes with --model"):
        with_sources(get_settings("quick"), Sources(prompts="prompts.jsonl"))
    with pytest.raises(RLHFError, match="A model of your own needs --reward too"):
        with_sources(get_settings("quick"), Sources(model="gpt2", prompts="prompts.jsonl"))
    with pytest.raises(RLHFError, match="kl_coef must not be negative; got -1"):
        replace(get_settings("quick").ppo, kl_coefs=(0.1, -1.0))


def test_curves_are_thinned_to_means() -> None:
    assert thinned([1.0, 2.0, 3.0, 4.0, 5.0], 2) == [[2, 1.5], [5, 4.0]]
    assert thinned([1.0], 200) == [[1, 1.0]]


def test_the_judge_of_the_report_is_the_one_that_was_paid(pipeline: Pipeline) -> None:
    """The table's judge column, computed again through the public reward."""
    figures = read_figures(pipeline.out, 0, "evaluation")
    assert figures is not None
    folder = pipeline.out / "seed-0"
    policy = LMActorCritic.from_pretrained(folder / "sft" / "model")
    from agents.rlhf.evaluation import write_texts

    answers = write_texts(policy, TinyReviewsWorld(), 48, 5)
    judge = textenvs.make_reward(f"learned:{folder / 'reward-model' / 'model'}")
    expected = float(judge.score(answers.episodes).mean())
    assert figures["models"]["sft"]["figures"]["reward"] == pytest.approx(expected, abs=1e-5)
