"""On- and off-policy RLHF side by side: runs that go on where they stopped, and what is made of them."""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import agents.rlhf.comparison as comparison_module
from agents.benchmark.suites import BenchmarkError
from agents.rlhf.comparison import (
    MODELS,
    Comparison,
    Method,
    get_comparison,
    make_comparison_stages,
    open_comparison,
    read_rows,
    run_name,
)
from agents.rlhf.comparison_report import (
    Run,
    first_reached,
    markdown,
    objective_table,
    reached,
    read_runs,
    target_table,
    write_comparison,
)
from agents.rlhf.running import Task, play, read_figures
from agents.rlhf.settings import RLHFError
from tests.rlhf.conftest import Pipeline


@pytest.fixture(scope="session")
def small() -> Comparison:
    """The smoke preset, smaller still."""
    return replace(get_comparison("smoke"), episodes=48, marks=(16, 48), evaluation_texts=24)


@pytest.fixture(scope="session")
def played(pipeline: Pipeline, small: Comparison) -> Path:
    """Every run of seed 3, beside the models of the tiny pipeline."""
    for stage in make_comparison_stages(small, [3]):
        if stage.name not in MODELS:
            play(pipeline.out, small.rlhf, Task(0, stage), lambda share, words: None)
    return pipeline.out


def test_every_run_is_measured_along_its_way(played: Path, small: Comparison) -> None:
    runs = read_runs(played, small, [3])
    assert set(runs) == {(name, 0.15) for name in ("PPO", "SoftQ", "SoftQ, head start")}
    for (name, _), [run] in runs.items():
        rows = run.rows
        head_start = 2 if name == "SoftQ, head start" else 0
        assert (rows["episodes"][: 1 + head_start] == 0).all()
        assert len(rows["episodes"]) == 3 + head_start
        assert (np.diff(rows["episodes"][head_start:]) > 0).all()
        assert (rows["episodes"][-2:] >= [16, 48]).all()
        assert (np.diff(rows["seconds"]) > 0).all()
        assert (np.diff(rows["gradient_samples"]) > 0).all()
        judged = rows["reward_calls"] - rows["episodes"]
        assert (judged == (96 * 4 // 6 if head_start else 0)).all()
        assert ((rows["grammatical"] >= 0) & (rows["grammatical"] <= 1)).all()
        assert abs(rows["kl"][0]) < 1e-4  # before anything is learnt the policy is its reference
        assert rows["kl"][-1] > 1e-4
        assert run.figures["update_to_data"] > 0
    # the same models and the same texts before anything is learnt
    for column in ("reward", "gold", "length"):
        assert runs["PPO", 0.15][0].rows[column][0] == runs["SoftQ", 0.15][0].rows[column][0]


def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    played: Path, small: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped at its last measurement: the checkpoint of the one before is taken up."""
    usual = comparison_module._measure
    for stage in make_comparison_stages(small, [3]):
        if stage.name in MODELS:
            continue
        other = replace(stage, name=f"{stage.name}-again")

        def stop(*args: Any) -> None:
            if args[2].num_episodes >= 48:
                raise KeyboardInterrupt
            usual(*args)

        monkeypatch.setattr(comparison_module, "_measure", stop)
        with pytest.raises(KeyboardInterrupt):
            play(played, small.rlhf, Task(0, other), lambda share, words: None)
        assert (played / "seed-0" / "work" / other.name / "checkpoint").is_dir()
        monkeypatch.setattr(comparison_module, "_measure", usual)
        play(played, small.rlhf, Task(0, other), lambda share, words: None)
        straight, resumed = (read_rows(played / "seed-0" / name / "rows.csv") for name in (stage.name, other.name))
        for column in straight:
            if column != "seconds":
                np.testing.assert_array_equal(straight[column], resumed[column], err_msg=column)
        figures = [read_figures(played, 0, name) for name in (stage.name, other.name)]
        for name in ("timesteps", "gradient_steps", "update_to_data"):
            assert figures[0] is not None
            assert figures[1] is not None
            assert figures[0][name] == figures[1][name]


def test_the_report_holds_every_measurement(played: Path, small: Comparison) -> None:
    paths = write_comparison(played, small, [3])
    assert [path.name for path in paths] == ["comparison.csv", "comparison.md", "comparison.png"]
    with paths[0].open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 3 + 2
    assert {row["method"] for row in rows} == {"PPO", "SoftQ", "SoftQ, head start"}
    text = paths[1].read_text(encoding="utf-8")
    assert "Medians of 1 seed(s)" in text
    assert "| kl_coef | method | 0 | 16 | 48 |" in text
    assert paths[2].stat().st_size > 10_000


def test_missing_and_damaged_runs_are_named(played: Path, small: Comparison, tmp_path: Path) -> None:
    with pytest.raises(RLHFError, match=r"has no finished run 'ppo-0\.15-seed-4'"):
        read_runs(played, small, [4])
    (tmp_path / "rows.csv").write_text("episodes,reward\n1,many\n", encoding="utf-8")
    with pytest.raises(RLHFError, match=r"rows\.csv cannot be read"):
        read_rows(tmp_path / "rows.csv")


def load_script() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "scripts" / "replay_rlhf.py"
    spec = importlib.util.spec_from_file_location("replay_rlhf", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["replay_rlhf"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_the_script_keeps_what_is_finished_and_reports(
    played: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script, out = load_script(), tmp_path / "out"
    open_comparison(out, get_comparison("smoke"))
    shutil.copytree(played / "seed-0", out / "seed-0")
    assert script.main(script.Options("smoke", seeds=(3,), out=out, jobs=1), Console(width=200)) == 0
    printed = capsys.readouterr().out
    assert "7 stages (7 finished before)" in printed
    assert "| kl_coef | method | 0 | 32 | 64 |" in printed
    assert (out / "comparison.png").is_file()
    part = script.Options("smoke", seeds=(3,), out=out, jobs=1, methods=("PPO",))
    assert script.main(part, Console(width=200)) == 0
    assert "SoftQ" not in (out / "comparison.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": (1, 1)}, "--seeds must be different numbers"),
        ({"seeds": (-1,)}, "--seeds must be different numbers from 0 on"),
        ({"jobs": 0}, "--jobs must be at least 1"),
        ({"preset": "fast"}, "fast"),
        ({"methods": ("DQN",)}, "DQN"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    script = load_script()
    with pytest.raises(RLHFError, match=message):
        script.main(script.Options(out=tmp_path / "out", **options), Console())
    assert not (tmp_path / "out").exists()


# -- settings ----------------------------------------------------------------------------------------------------------


def test_stages_and_settings(small: Comparison, tmp_path: Path) -> None:
    names = [stage.name for stage in make_comparison_stages(small, [0, 1])]
    assert names[:4] == list(MODELS)
    assert names[4:] == [f"{name}-0.15-seed-{seed}" for seed in (0, 1) for name in ("ppo", "softq", "softq-head-start")]
    open_comparison(tmp_path / "out", small)
    open_comparison(tmp_path / "out", small)
    with pytest.raises(BenchmarkError, match="comparison › episodes: 48 there, 50 now"):
        open_comparison(tmp_path / "out", replace(small, episodes=50))
    part = small.select(["SoftQ"], [0.15])
    assert [method.name for method in part.methods] == ["SoftQ"]
    assert small.select() == small
    with pytest.raises(RLHFError, match=r"'Softq'.*Did you mean 'SoftQ'\?"):
        small.select(["Softq"])
    with pytest.raises(RLHFError, match=r"kl_coef 0\.5 is none of 0\.15"):
        small.select(None, [0.5])
    with pytest.raises(RLHFError, match=r"quik.*quick"):
        get_comparison("quik")


# -- figures on literal runs -------------------------------------------------------------------------------------------


def rows(**columns: list[float]) -> dict[str, np.ndarray]:
    return {name: np.array(values) for name, values in columns.items()}


def test_first_reached_literal() -> None:
    run = rows(episodes=[0, 100, 200, 400], reward=[0.0, 1.0, 2.0, 1.0], kl=[0.0, 1.0, 3.0, 0.0])
    assert first_reached(run, "episodes", 0.5, 1.0) == 50
    assert first_reached(run, "episodes", 1.5, 2.5) == 150
    # The reward is high enough from 150 on, but the KL is 2 there and falls to 1 at 333; by then the reward is 1.33.
    assert first_reached(run, "episodes", 1.5, 1.0) == float("inf")
    assert first_reached(run, "episodes", 1.2, 1.0) == pytest.approx(200 + 200 * 2 / 3)
    assert first_reached(run, "episodes", 0.0, 0.0) == 0
    assert first_reached(run, "episodes", 3.0, 9.0) == float("inf")


def two_methods() -> tuple[Comparison, dict[tuple[str, float], list[Run]]]:
    methods = (Method("PPO", "PPO", 8, {}), Method("SoftQ", "SoftQ", 8, {}))
    comparison = replace(get_comparison("smoke"), methods=methods, kl_coefs=(0.1, 0.2), marks=(100, 200))

    def run(seed: int, ends: float) -> Run:
        grid = [0.0, 100.0, 200.0]
        columns = {name: grid for name in ("episodes", "reward_calls", "seconds")}
        return Run(seed, rows(**columns, reward=[0.0, ends, ends], kl=[0, 1, 1], kl_k1=[0, 1, 1]), {})

    runs = {
        ("PPO", 0.1): [run(seed, end) for seed, end in enumerate((1.0, 1.25, 2.0))],
        ("PPO", 0.2): [run(seed, 0.5) for seed in range(3)],
        ("SoftQ", 0.1): [run(seed, 0.5) for seed in range(3)],
        ("SoftQ", 0.2): [run(seed, 2.0) for seed in range(3)],
    }
    return comparison, runs


def test_tables_literal() -> None:
    comparison, runs = two_methods()
    kl_coef, spread = reached(runs, "PPO", "episodes", 1.0, 1.5)
    assert (kl_coef, spread.median, spread.low, spread.high) == (0.1, 80, 50, 100)
    table = target_table(comparison, runs)
    assert table[1] == ["1", "1.5", "PPO", "0.1", "80 (50–100)", "80 (50–100)", "80 (50–100)"]
    assert table[2] == ["1", "1.5", "SoftQ", "0.2", "50 (50–50)", "50 (50–50)", "50 (50–50)"]
    assert table[5] == ["1.4", "2.5", "PPO", "", "not reached", "", ""]
    objective = objective_table(comparison, runs)
    assert objective[0] == ["kl_coef", "method", "0", "100", "200"]
    assert objective[1] == ["0.1", "PPO", "0.00 (0.00–0.00)", "1.15 (0.90–1.90)", "1.15 (0.90–1.90)"]
    assert objective[4][3] == "1.80 (1.80–1.80)"
    assert markdown([["a", "b"], ["1", "2"]]) == "| a | b |\n|---|---|\n| 1 | 2 |\n"


def test_at_0_episodes_a_head_start_counts() -> None:
    comparison, runs = two_methods()
    grid = [0.0, 0.0, 100.0, 200.0]
    columns = {name: grid for name in ("episodes", "reward_calls", "seconds")}
    ahead = Run(0, rows(**columns, reward=[0.0, 1.2, 1.2, 1.2], kl=[0, 1, 1, 1], kl_k1=[0, 1, 1, 1]), {})
    runs["SoftQ", 0.1] = [ahead]
    assert objective_table(comparison, runs)[2] == ["0.1", "SoftQ", "1.10", "1.10", "1.10"]
    assert first_reached(ahead.rows, "episodes", 1.0, 1.5) == 0


def test_names_of_runs() -> None:
    assert run_name(Method("SoftQ, head start", "SoftQ", 8, {}), 0.05, 2) == "softq-head-start-0.05-seed-2"
    assert json.dumps(get_comparison("quick").kl_coefs) == "[0.15, 0.3, 0.05]"
