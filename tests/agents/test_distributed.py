"""Two processes, started by accelerate, train as one with as many sub-environments; they run two_processes.py."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

pytest.importorskip("accelerate")
pytest.importorskip("transformers")

from agents import PPO, distributed
from agents.lm import LMActorCritic

pytestmark = pytest.mark.timeout(900)  # on a busy machine two processes that wait for each other are slow
PROGRAM = Path(__file__).with_name("two_processes.py")
ROOT = PROGRAM.parent.parent.parent
LAUNCH = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--main_process_port", "0"]
PLAIN = ["--mixed_precision", "no", "--dynamo_backend", "no"]


def load_program() -> Any:
    spec = importlib.util.spec_from_file_location("two_processes", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


program = load_program()


class Both(NamedTuple):
    """What the two processes left behind."""

    results: list[dict[str, Any]]
    folder: Path
    output: str


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    folder = tmp_path_factory.mktemp("processes")
    command = [sys.executable, "-m", "accelerate.commands.launch", *LAUNCH, *PLAIN, str(PROGRAM), str(folder)]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": path})
    assert run.returncode == 0, run.stderr[-5_000:]
    return Both([json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)], folder, run.stdout)


def without_speed(metrics: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: x for name, x in row.items() if name != "charts/SPS"} for row in metrics]


def assert_close(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> None:
    assert len(ours) == len(theirs) > 2
    for row, other in zip(without_speed(ours), without_speed(theirs), strict=True):
        assert row == pytest.approx(other, rel=1e-3, abs=1e-4, nan_ok=True)


@pytest.mark.parametrize("name", program.SCENARIOS)
def test_two_processes_make_the_updates_of_one(both: Both, name: str) -> None:
    make, num_envs, timesteps = program.SCENARIOS[name]
    first, second = (results[name] for results in both.results)
    assert json.dumps(without_speed(first["metrics"])) == json.dumps(without_speed(second["metrics"]))  # to the bit
    for what in ("parameters", "kl_coef", "counters", "batches"):
        assert first[what] == second[what], what

    one = program.play(make(2 * num_envs), timesteps)
    assert first["counters"] == list(one["counters"])
    assert first["batches"] == one["batches"]  # the same episodes in the same order
    assert first["kl_coef"] == pytest.approx(one["kl_coef"], rel=1e-5)
    assert_close(first["metrics"], one["metrics"])
    moved = np.abs(np.array(one["parameters"]) - np.array(one["parameters_before"]))
    error = np.abs(np.array(first["parameters"]) - np.array(one["parameters"]))
    assert error.max() < 2e-5 < 1e-3 < moved.max()


def test_windows_in_which_a_process_finishes_nothing(both: Both) -> None:
    """They are among the scenarios: a batch of one process only, unequal ones, and none at all."""

    def shares_of(name: str) -> list[list[int]]:
        num_envs = program.SCENARIOS[name][1]
        return [
            [sum(i // num_envs == rank for i in batch) for rank in (0, 1)] for batch in both.results[0][name]["batches"]
        ]

    shares = shares_of("few texts")
    assert [0, 0] in shares
    assert any(a == 0 < b for a, b in shares)
    assert any(b == 0 < a for a, b in shares)
    lengths = [row["charts/episodic_length"] for row in both.results[0]["few texts"]["metrics"]]
    assert [math.isnan(length) for length in lengths] == [share == [0, 0] for share in shares]
    shares = shares_of("small")
    assert all(a > 0 < b for a, b in shares)
    assert any(a != b for a, b in shares)


def test_every_switch_was_thrown(both: Both) -> None:
    """Else the comparison of the coefficient and of the early stop would say nothing."""
    result, whole = both.results[0]["gpt2, every switch"], both.results[0]["gpt2"]
    assert result["kl_coef"] != 0.1 == whole["kl_coef"]
    samples = [each["counters"][3] / sum(map(len, each["batches"])) for each in (result, whole)]
    assert samples[0] < 0.9 * samples[1]  # gradient samples of an episode: some updates were cut short


def test_logs_are_written_and_progress_is_shown_once(both: Both, tmp_path: Path) -> None:
    def rows(folder: Path) -> list[dict[str, float]]:
        with (folder / "metrics.csv").open(newline="") as file:
            return [{name: float(x) for name, x in row.items()} for row in csv.DictReader(file)]

    program.small(8, log_dir=tmp_path).learn(200)
    ours, one = rows(both.folder / "log"), rows(tmp_path)
    assert [row["timesteps"] for row in ours] == [40, 80, 120, 160, 200]
    for row, other in zip(ours, one, strict=True):
        assert row.pop("charts/SPS") > 0 < other.pop("charts/SPS")
        assert row == pytest.approx(other, rel=1e-3, abs=1e-4)
    assert len(list((both.folder / "log").glob("events*"))) == 1
    assert both.output.count("200/200 timesteps") == 1


def test_processes_that_cannot_train_together_say_why(both: Both) -> None:
    expected = {
        "weights": r"ValueError: .* must be alike; process 1 has trainable weights of checksum \d+, process 0 has \d+",
        "reference": "frozen weights of checksum",
        "random stream": "random streams of checksum",
        "seed": r"process 1 has seed 1, process 0 has 0\. Make the agent in the same way",
        "num_envs": "process 1 has num_envs 3, process 0 has 2",
        "learning_rate": r"process 1 has learning_rate 1\.1, process 0 has 0\.1",
        "NEXT_STEP": r"make the environment with AutoresetMode\.SAME_STEP or DISABLED",
        "DQN": "RuntimeError: DQN trains in one process, and there are 2",
        "RandomAgent": "RandomAgent trains in one process",
        "save": "CheckpointError: .*taken exists and is not a checkpoint",
    }
    first, second = (results["errors"] for results in both.results)
    assert first.keys() == second.keys() == expected.keys()
    for name, pattern in expected.items():
        assert re.search(pattern, first[name]), first[name]
        assert first[name] in second[name]  # that saving failed in the first, the second is told


def test_what_stops_one_process_stops_both_after_the_same_update(both: Both) -> None:
    assert [results["stops"] for results in both.results] == [{"callback": 3, "signal": 2}] * 2


def test_learn_save_load_learn_equals_learning_through(both: Both) -> None:
    first, second = (results["resume"] for results in both.results)
    assert any(first["in_flight"])
    assert any(second["in_flight"])
    assert first["in_flight"] != second["in_flight"]
    for result in (first, second):
        resumed, straight = result["resumed"], result["straight"]
        for what in ("parameters", "counters", "kl_coef", "batches"):
            assert resumed[what] == straight[what], what
        assert without_speed(resumed["metrics"]) == without_speed(straight["metrics"])
    assert first["straight"]["parameters"] == second["straight"]["parameters"] != first["saved"]


def test_one_process_goes_on_from_a_checkpoint_of_two(both: Both) -> None:
    fresh = program.small_with_reference(6)
    agent = PPO.load(both.folder / "checkpoint", program.prompt_envs(6), policy=fresh.policy, reference=fresh.reference)
    assert agent.parameters.tolist() == both.results[0]["resume"]["saved"]
    before = agent.num_timesteps
    assert before >= 100
    agent.learn(30)
    assert agent.num_timesteps == before + 30  # the episodes started anew: 6 sub-environments, 5 steps
    # Not even with as many sub-environments as each of the two had: these were half of the episodes.
    fresh = program.small_with_reference(3)
    agent = PPO.load(both.folder / "checkpoint", program.prompt_envs(3), policy=fresh.policy, reference=fresh.reference)
    assert not agent.collector.started


def test_models_are_written_by_the_first(both: Both) -> None:
    policy = LMActorCritic.from_pretrained(both.folder / "policy")
    expected = program.gpt2(2).policy.state_dict()
    assert all(torch.equal(x, expected[name]) for name, x in policy.state_dict().items())


def test_parts_of_the_processes(both: Both) -> None:
    first, second = both.results
    every = torch.rand(6, 1, generator=torch.Generator().manual_seed(0)).tolist()
    assert first["uniforms"] + second["uniforms"] == every
    for results in both.results:
        assert results["divided"] == [[0, 2, 4, 6, 8], [0, 1, 0, 1, 0]]
        assert results["divided, one row"] == [1]


def test_alone_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert distributed.join().type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert not torch.distributed.is_initialized()
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    value, tensor = object(), torch.ones(3)
    assert distributed.gather(value) == [value]
    distributed.sum_in_place(tensor)
    assert tensor.tolist() == [1, 1, 1]
    assert distributed.divide(lambda x: (x,), tensor)[0] is tensor


def test_a_process_that_was_launched_and_has_not_joined_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match=r"started 2 processes.*call agents\.distributed\.join\(\)"):
        program.small(2).learn(1)
