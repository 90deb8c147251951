"""Methods under one budget: what each may use, what is measured, and what is made of it."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from agents.benchmark.suites import BenchmarkError
from agents.lm.best_of_n import best_of_n_kl
from agents.lm.sampling import sample_answers
from agents.rlhf.course import ROW, Course
from agents.rlhf.evaluation import write_texts
from agents.rlhf.methods import METHODS, Method, first_answers, get_methods
from agents.rlhf.methods_report import cells, conclusions, html, summarise, write_comparison
from agents.rlhf.methods_results import (
    Interval,
    MethodsComparison,
    Result,
    mean_interval,
    read_comparison,
)
from agents.rlhf.methods_run import (
    TUNING_SEED,
    MethodsPreset,
    Run,
    get_methods_preset,
    make_methods_tasks,
    make_runs,
    open_methods,
    share_pretraining,
)
from agents.rlhf.methods_tuning import best_runs, tuning_rows, write_tuning
from agents.rlhf.running import Task, play, read_figures
from agents.rlhf.settings import RLHFError
from agents.rlhf.stages import EVALUATION, Job
from tests.rlhf.conftest import Pipeline

ALL = ("sft", "best_of_n", "rejection_sft", "rest", "dpo", "ipo", "rloo", "grpo", "ppo", "replay")
COUNT, BUDGET = 16, 96


@pytest.fixture(scope="session")
def small(pipeline: Pipeline) -> MethodsPreset:
    """The smoke preset on the models of the tiny pipeline."""
    return replace(get_methods_preset("smoke"), rlhf=pipeline.settings, evaluation_texts=COUNT)


@pytest.fixture(scope="session")
def compared(pipeline: Pipeline, small: MethodsPreset) -> MethodsComparison:
    """Every method, once."""
    runs = make_runs(small, get_methods(ALL))
    for task in make_methods_tasks(small, runs, [0]):
        if task.stage.name.startswith("method-"):
            play(pipeline.out, small.rlhf, task, lambda share, words: None)
    return read_comparison(pipeline.out, small, runs, [0])


def a_job(pipeline: Pipeline, tmp_path: Path) -> Job:
    return Job(pipeline.settings, 0, pipeline.out / "seed-0", tmp_path, tmp_path, lambda share, words: None)


# -- runs --------------------------------------------------------------------------------------------------------------


def test_every_method_keeps_to_the_budget_and_says_what_it_has_used(compared: MethodsComparison) -> None:
    assert tuple(compared.results) == ALL
    for name, result in compared.results.items():
        rows = result.rows[0]
        assert tuple(rows) == ROW
        calls = rows["reward_calls"]
        assert (np.diff(calls) >= 0).all(), name
        assert (np.diff(rows["seconds"]) >= 0).all(), name
        assert rows["seconds"][-1] > 0, name
        if name in ("sft", "dpo", "ipo"):  # they never ask
            assert (calls == 0).all()
        else:  # at most the batch in which it is used up is finished: 16 texts at once, each of one token or more
            assert BUDGET <= calls[-1] < BUDGET + 16 * 24, name
        assert rows["comparisons"][-1] == (0 if name == "sft" else 96), name
        assert len(result.gold[0]) == COUNT
        assert rows["gold"][-1] == pytest.approx(result.gold[0].mean(), rel=1e-5, abs=1e-6)
        assert ((rows["grammatical"] >= 0) & (rows["grammatical"] <= 1)).all()
    dpo = compared.results["dpo"].rows[0]["comparisons"]
    assert dpo.tolist() == [96, 96]  # four epochs: after half of the steps every pair has been seen
    assert abs(compared.results["sft"].last("kl").mean) < 1e-4
    for name in ("rejection_sft", "rest", "dpo", "ipo", "rloo", "grpo", "ppo", "replay"):
        assert abs(compared.results[name].last("kl").mean) > 1e-4, name  # something was learnt


def test_best_of_n_spends_the_budget_on_the_texts_that_are_measured(compared: MethodsComparison) -> None:
    rows = compared.results["best_of_n"].rows[0]
    assert rows["reward_calls"].tolist() == [16, 32, 64, 96]  # n = 1, 2, 4, 6
    assert rows["kl"].tolist() == pytest.approx([best_of_n_kl(n) for n in (1, 2, 4, 6)])
    # the best of more answers, the others among them, never scores lower
    assert (np.diff(rows["reward"]) >= 0).all()
    assert rows["reward"][-1] > rows["reward"][0]


def test_all_methods_answer_the_same_prompts(compared: MethodsComparison, pipeline: Pipeline, tmp_path: Path) -> None:
    prompts = {
        name: [sample["prompt"] for sample in result.figures[0]["samples"]] for name, result in compared.results.items()
    }
    assert len(prompts["sft"]) == 3
    assert all(shown == prompts["sft"] for shown in prompts.values())
    job = a_job(pipeline, tmp_path)
    policy, seed = job.policy(job.base_model), job.stream(EVALUATION)
    written = write_texts(policy, job.world, COUNT, seed).episodes.prompts
    envs = job.world.envs("test", COUNT * 3, group_size=3)
    several = sample_answers(policy, envs, COUNT, k=3, seed=seed)
    assert first_answers(several, 1).episodes.prompts == written
    assert len(set(written)) > 1
    two = first_answers(several, 2)
    assert two.scores.tolist() == several.scores[:, :2].tolist()
    assert two.episodes.completions[2:4] == several.episodes.completions[3:5]


def test_a_method_runs_again_to_the_bit_and_not_twice_where_finished(
    compared: MethodsComparison, pipeline: Pipeline, small: MethodsPreset
) -> None:
    [task] = [
        task for task in make_methods_tasks(small, make_runs(small, get_methods(["rloo"])), [0])
        if task.stage.name == "method-rloo"
    ]  # fmt: skip
    again = Task(0, replace(task.stage, name="method-rloo-again"))
    play(pipeline.out, small.rlhf, again, lambda share, words: None)
    found = np.load(pipeline.out / "seed-0" / "method-rloo-again" / "gold.npy")
    np.testing.assert_array_equal(found, compared.results["rloo"].gold[0])


def test_measuring_does_not_count_as_time_nor_touch_the_policy(pipeline: Pipeline, tmp_path: Path) -> None:
    told: list[float] = []
    job = replace(a_job(pipeline, tmp_path), report=lambda share, words: told.append(share))
    course = Course(job, BUDGET, COUNT, (0.25, 0.5, 1.0))
    policy = course.start()
    before = [parameter.clone() for parameter in policy.model.parameters()]
    course.measure(policy, reward_calls=1)
    first = course.rows[-1]
    for _ in range(3):
        course.measure(policy, reward_calls=1)
    assert course.rows[-1]["seconds"] - first["seconds"] < 0.05
    assert course.rows[-1]["gold"] == first["gold"]
    assert all((old == new).all() for old, new in zip(before, policy.model.parameters(), strict=True))
    due = [course.is_due(share) for share in (0.1, 0.25, 0.3, 0.8, 0.9, 1.2, 1.3)]
    assert due == [False, True, False, True, False, True, False]
    assert told == [0.1, 0.25, 0.3, 0.8, 0.9, 1.0, 1.0]


# -- settings ----------------------------------------------------------------------------------------------------------


def test_every_method_that_learns_was_tuned_alike() -> None:
    preset = get_methods_preset("quick")
    for name, method in METHODS.items():
        runs = make_runs(preset, [method], tune=True)
        assert len({run.slug for run in runs}) == len(runs) == (9 if method.grid else 1), name
        assert bool(method.grid) == (name not in ("sft", "best_of_n")), name
        for knob, values in method.grid.items():
            assert method.config[knob] in values, (name, knob)
        [run] = make_runs(preset, [method])
        assert run.config == dict(method.config)
    assert TUNING_SEED not in range(100)


def test_methods_are_known_by_their_names() -> None:
    assert [method.label for method in get_methods(["ppo", "sft"])] == ["PPO", "SFT"]
    with pytest.raises(RLHFError, match=r"'poo'.*Did you mean 'ppo'\?"):
        get_methods(["poo"])
    with pytest.raises(RLHFError, match="must be different names, at least one; got ppo,ppo"):
        get_methods(["ppo", "ppo"])
    with pytest.raises(RLHFError, match="at least one; got none"):
        get_methods([])
    with pytest.raises(RLHFError, match=r"quik.*quick"):
        get_methods_preset("quik")


def test_a_folder_of_other_settings_is_refused(small: MethodsPreset, tmp_path: Path) -> None:
    runs = make_runs(small, get_methods(["sft", "ppo"]))
    open_methods(tmp_path / "out", small, runs, [0])
    open_methods(tmp_path / "out", small, runs[:1], [0, 1])  # other methods and seeds belong to the same comparison
    with pytest.raises(BenchmarkError, match=f"methods › budget: {BUDGET} there, 97 now"):
        open_methods(tmp_path / "out", replace(small, budget=97), runs, [0])
    stage = tmp_path / "out" / "seed-0" / "method-ppo"
    stage.mkdir(parents=True)
    config = {**runs[1].config, "kl_coef": 0.7}
    (stage / "figures.json").write_text(json.dumps({"config": config}), encoding="utf-8")
    with pytest.raises(RLHFError, match=r"method-ppo was run with .*0\.7"):
        open_methods(tmp_path / "out", small, runs, [0])
    with pytest.raises(RLHFError, match="has no finished run 'method-sft'"):
        read_comparison(tmp_path / "out", small, runs, [0])


def test_stages_of_a_method_come_before_it_and_pretraining_is_shared(
    small: MethodsPreset, pipeline: Pipeline, tmp_path: Path
) -> None:
    ppo = METHODS["ppo"]
    extra = make_methods_tasks(small, [], [0])[-1].stage
    method = Method("other", "other", ppo.train, ppo.config, stages=(replace(extra, name="another-judge"),))
    tasks = make_methods_tasks(small, make_runs(small, [method]), [1, 2])
    names = [task.stage.name for task in tasks if task.seed == 2]
    assert names == ["pretraining", "sft", "rankings", "reward-model", "another-judge", "method-other"]
    assert tasks[-1].stage.needs == ("reward-model", "another-judge")
    shutil.copytree(pipeline.out / "seed-0" / "pretraining", tmp_path / "seed-0" / "pretraining")
    share_pretraining(tmp_path, [0, 1])
    share_pretraining(tmp_path, [0, 1])
    same = [(tmp_path / f"seed-{seed}/pretraining/model/model.safetensors").read_bytes() for seed in (0, 1)]
    assert same[0] == same[1]


# -- figures on literal results ----------------------------------------------------------------------------------------


def test_intervals_literal() -> None:
    found = mean_interval([1.0, 2.0, 3.0])  # s = 1, t = 4.303 with two degrees of freedom
    assert (found.mean, found.high - found.mean) == pytest.approx((2.0, 4.303 / math.sqrt(3)))
    assert found.text() == "2.00 (−0.48 to 4.48)"
    assert not found.excludes_zero
    assert Interval(0.5, 0.4, 0.6).text("+.2f") == "+0.50 (+0.40–+0.60)"
    assert Interval(-0.5, -0.6, -0.4).excludes_zero
    alone = mean_interval([1.5])
    assert (alone.mean, alone.text()) == (1.5, "1.50")
    many = mean_interval(np.arange(20.0))
    assert many.high - many.mean == pytest.approx(2.228 * np.arange(20.0).std(ddof=1) / math.sqrt(20))


def test_the_interval_holds_the_mean_in_95_of_100_cases() -> None:
    rng = np.random.default_rng(0)
    draws = rng.normal(0.3, 2.0, size=(4_000, 5))
    intervals = [mean_interval(draw) for draw in draws]
    assert np.mean([each.low <= 0.3 <= each.high for each in intervals]) == pytest.approx(0.95, abs=0.012)


def a_result(name: str, gold: list[list[float]], grammatical: float = 1.0, **config: float) -> Result:
    """Two measurements; the last has the mean of these gold scores."""
    method = replace(METHODS.get(name, METHODS["ppo"]), name=name, label=name.upper(), grid={key: () for key in config})
    slug = "-".join([name, *(f"{key}-{value:g}" for key, value in config.items())])
    rows = []
    for scores in gold:
        columns = {column: np.array([0.0, 1.0]) for column in ROW}
        columns["gold"] = np.array([0.0, np.mean(scores)])
        columns["gold_grammatical"] = grammatical * columns["gold"]
        columns["grammatical"] = np.array([1.0, grammatical])
        rows.append(columns)
    sample = {"prompt": "the <b>", "completion": f"{name} & more", "gold": 0.25, "grammatical": grammatical > 0.5}
    figures = tuple({"samples": [sample]} for _ in gold)
    return Result(Run(method, slug, dict(config)), tuple(rows), np.array(gold), figures)


def a_comparison(*results: Result) -> MethodsComparison:
    named = {result.run.slug: result for result in results}
    seeds = tuple(range(len(results[0].gold)))
    return MethodsComparison(get_methods_preset("smoke"), seeds, named, {"sft": 3.0}, {"python": "3"})


def test_gains_are_paired_prompt_by_prompt() -> None:
    base = a_result("sft", [[0.0, 0.2, 0.4], [0.1, 0.3, 0.5]])
    better = a_result("ppo", [[0.5, 0.2, 0.3], [0.6, 0.7, 0.5]])
    gain = better.gain(base)
    first, second = (0.5 + 0.0 - 0.1) / 3, (0.5 + 0.4 + 0.0) / 3
    assert gain.mean == pytest.approx((first + second) / 2)
    assert gain.high - gain.mean == pytest.approx(12.706 * (second - first) / math.sqrt(2) / math.sqrt(2))
    assert better.wins(base).mean == pytest.approx((1.5 / 3 + 2.5 / 3) / 2)
    assert better.path("reward_calls", "gold")[:, 1].tolist() == pytest.approx([1.0, np.mean(better.gold)])


def test_what_is_said_follows_from_the_intervals() -> None:
    base = a_result("sft", [[0.0, 0.2], [0.0, 0.2]])
    up, down, even = (
        a_result(name, [[x, x + 0.2 + 1e-6], [y, y + 0.2]])
        for name, x, y in (("ppo", 0.5, 0.5), ("dpo", -0.3, -0.3), ("rest", -0.1, 0.2))
    )
    salad = a_result("rloo", [[0.9, 0.9], [0.9, 0.9]], grammatical=0.1)
    comparison = a_comparison(base, up, down, even, salad)
    better, not_shown, worse, best = conclusions(comparison)
    assert better.startswith("Better than SFT on held-out prompts, in gold score: RLOO +0.80")
    assert "PPO +0.50" in better
    assert not_shown.startswith("Not shown to differ from SFT")
    assert "REST +0.05" in not_shown
    assert worse.startswith("Worse than SFT: DPO −0.30")
    assert "PPO is highest" in best  # not the one whose texts are no texts
    assert cells(base, base)[2:4] == ["", ""]
    assert cells(up, base)[2].startswith("+0.50")
    assert cells(up, base)[3].startswith("100 %")
    assert conclusions(a_comparison(up)) == ["SFT was not among the methods, so there is nothing to compare with."]
    alone = a_comparison(a_result("sft", [[0.0]]), a_result("ppo", [[1.0]]))
    assert conclusions(alone) == ["One seed makes no interval: run more with --seeds."]
    summary = json.loads(json.dumps(summarise(alone), allow_nan=False))
    assert summary["methods"]["ppo"]["gain"] == {"mean": 1.0, "low": None, "high": None}


def test_tuning_chooses_by_the_gold_score_of_grammatical_texts() -> None:
    salad = a_result("ppo", [[0.9]], grammatical=0.5, kl_coef=0.0)
    good = a_result("ppo", [[0.8]], grammatical=0.9, kl_coef=0.1)
    other = a_result("dpo", [[0.1]], beta=0.3)
    comparison = a_comparison(salad, good, other)
    assert {name: result.run.slug for name, result in best_runs(comparison).items()} == {
        "ppo": "ppo-kl_coef-0.1",
        "dpo": "dpo-beta-0.3",
    }
    assert [(row[1], row[2], row[-1]) for row in tuning_rows(comparison)] == [
        ("kl_coef 0", "0.450", ""),
        ("kl_coef 0.1", "0.720", "best"),
        ("beta 0.3", "0.100", "best"),
    ]


# -- report and script -------------------------------------------------------------------------------------------------


def test_the_report_holds_every_measurement_and_escapes_texts(compared: MethodsComparison, tmp_path: Path) -> None:
    page = write_comparison(tmp_path, compared)
    text = page.read_text(encoding="utf-8")
    for result in compared.results.values():
        assert result.run.method.label in text
        assert result.figures[0]["samples"][0]["completion"] in text
    assert "data:image/svg+xml;base64," in text
    assert "http" not in text.replace("http://www.w3.org", "")  # nothing is fetched
    assert (tmp_path / "methods.png").stat().st_size > 20_000
    with (tmp_path / "methods.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(result.rows[0]["gold"]) for result in compared.results.values())
    assert {row["method"] for row in rows} == set(ALL)
    assert (tmp_path / "methods.md").read_text(encoding="utf-8").count("\n| ") == len(ALL)
    literal = html(a_comparison(a_result("sft", [[0.0], [0.1]]), a_result("ppo", [[0.5], [0.7]], grammatical=0.2)))
    assert "the &lt;b&gt; …" in literal
    assert "ppo &amp; more<small>+0.25, not grammatical</small>" in literal
    assert (write_tuning(tmp_path, compared)).read_text(encoding="utf-8").count("best") >= len(ALL)


def load_script() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "scripts" / "rlhf.py"
    spec = importlib.util.spec_from_file_location("rlhf_script", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["rlhf_script"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_the_script_keeps_what_is_finished_and_reports(
    compared: MethodsComparison, pipeline: Pipeline, small: MethodsPreset, tmp_path: Path, monkeypatch: Any
) -> None:
    script, out = load_script(), tmp_path / "out"
    monkeypatch.setattr(script, "get_methods_preset", lambda name: small)
    names = ",".join(ALL[:5])
    open_methods(out, small, make_runs(small, get_methods(ALL)), [0])
    shutil.copytree(pipeline.out / "seed-0", out / "seed-0")
    shutil.rmtree(out / "seed-0" / "method-best_of_n")  # as if it had been stopped
    console = Console(record=True, width=120)
    options = script.Options("smoke", seeds=(0,), methods=names, out=out, jobs=1)
    assert script.main(options, console) == 0
    printed = console.export_text()
    assert "Methods smoke: 10 stages (9 finished before)" in printed
    assert "method-best_of_n" in printed
    assert "rejection-sampling" in printed
    assert "One seed makes no interval" in printed
    assert read_figures(out, 0, "method-best_of_n") is not None
    assert (out / "report.html").is_file()
    found = np.load(out / "seed-0" / "method-best_of_n" / "gold.npy")
    np.testing.assert_array_equal(found, compared.results["best_of_n"].gold[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": "sft,pppo"}, "'pppo'"),
        ({"methods": ","}, "at least one; got none"),
        ({"methods": "sft", "seeds": (1, 1)}, "--seeds must be different numbers"),
        ({"methods": "sft", "jobs": 0}, "--jobs must be at least 1"),
        ({"methods": "sft", "model": "gpt2"}, "takes no model"),
        ({"methods": "sft", "updates": 3}, "no options of PPO"),
        ({"methods": "sft", "preset": "frontier"}, "frontier"),
        ({"tune": True}, "--tune goes with --methods"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    script = load_script()
    with pytest.raises(RLHFError, match=message):
        script.main(script.Options(out=tmp_path / "out", **options), Console())
    assert not (tmp_path / "out").exists()


def test_seeds_and_folders_by_default() -> None:
    script = load_script()
    assert script.Options().seed_numbers == (0,)
    assert script.Options(methods="sft").seed_numbers == (0, 1, 2)
    assert script.Options(methods="sft", tune=True).seed_numbers == (TUNING_SEED,)
    folders = [script.Options(methods=m, tune=t).folder.name for m, t in ((None, False), ("sft", False), ("sft", True))]
    assert folders == ["rlhf-quick", "methods-quick", "methods-tuning-quick"]
