"""scripts/train.py: a run that was stopped goes on, and ends where an unbroken one ends."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import tyro
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[2]

FLAKY = """
import os, signal
from pathlib import Path
CALLS = Path(__file__).with_name("calls")

def third_call():
    calls = int(CALLS.read_text()) + 1 if CALLS.exists() else 1
    CALLS.write_text(str(calls))
    return calls == 3

def right(completions, target):
    return [float(sum(a == b for a, b in zip(text, goal))) for text, goal in zip(completions, target)]

def flaky(completions, target):
    if third_call():
        raise ConnectionError("the scorer is gone")
    return right(completions, target)

def interrupts(completions, target):
    if third_call():
        os.kill(os.getpid(), signal.SIGINT)
    return right(completions, target)

def interrupts_twice(completions, target):
    if third_call():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    return right(completions, target)

def kills(completions, target):
    if third_call():
        os.kill(os.getpid(), signal.SIGKILL)
    return right(completions, target)
"""

SMALL = ["--env-args", "length", "2", "num_symbols", "4", "--config", "num_envs", "8", "width", "16"]
# 8 environments of 2 tokens: 16 timesteps an update.


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_script", ROOT / "scripts" / "train.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def train(script: ModuleType, folder: Path, *arguments: str) -> None:
    script.main(tyro.cli(script.Args, args=["--out", str(folder / "run"), *arguments]))


def network(folder: Path) -> dict[str, bytes]:
    files = sorted((folder / "run" / "checkpoint").glob("*.safetensors"))
    return {name: array.tobytes() for file in files for name, array in load_file(file).items()}


def counters(folder: Path) -> dict[str, int]:
    return json.loads((folder / "run" / "checkpoint" / "config.json").read_text())["counters"]


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file in which the rewards above count their calls."""
    (tmp_path / "flaky_rewards.py").write_text(FLAKY)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "calls"
    sys.modules.pop("flaky_rewards", None)


@pytest.mark.parametrize(
    ("reward", "updates", "says"),
    [
        ("flaky", 2, "Reward 'flaky' raised ConnectionError: the scorer is gone"),
        ("interrupts", 3, ""),  # after the update at hand
        ("interrupts_twice", 2, ""),  # at once: the update at hand is lost
    ],
)
def test_a_run_that_was_stopped_goes_on_and_ends_where_an_unbroken_one_ends(
    script: ModuleType,
    tmp_path: Path,
    calls: Path,
    capsys: pytest.CaptureFixture[str],
    reward: str,
    updates: int,
    says: str,
) -> None:
    broken, unbroken = tmp_path / "broken", tmp_path / "unbroken"
    arguments = [*SMALL, "--reward", f"flaky_rewards:{reward}"]

    with pytest.raises(SystemExit) as stopped:
        train(script, broken, *arguments, "--timesteps", "80")
    message = str(stopped.value)
    assert says in message
    assert f"Stopped at {16 * updates} timesteps" in message
    assert "--resume" in message
    assert counters(broken)["num_updates"] == updates
    train(script, broken, *arguments, "--resume", "--timesteps", str(80 - 16 * updates))
    assert "80 tokens, 40 episodes" in capsys.readouterr().out

    calls.write_text("100")  # past the fault
    train(script, unbroken, *arguments, "--timesteps", "80")
    assert network(broken) == network(unbroken)


def test_a_run_that_was_killed_goes_on_and_ends_where_an_unbroken_one_ends(
    script: ModuleType, tmp_path: Path, calls: Path
) -> None:
    """As typed by a user, with a reward from the present folder."""
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *SMALL, "--reward", "flaky_rewards:kills"]
    run = [*command, "--timesteps", "80", "--out", "run"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(run, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert counters(tmp_path)["num_updates"] == 2
    train(script, tmp_path, "--resume", "--timesteps", "48")
    train(script, tmp_path / "unbroken", *SMALL, "--reward", "flaky_rewards:kills", "--timesteps", "80")
    assert network(tmp_path) == network(tmp_path / "unbroken")


@pytest.mark.parametrize("calls_before", [0, 2])
def test_what_was_not_saved_yet_is_saved_when_a_reward_fails(
    script: ModuleType, tmp_path: Path, calls: Path, calls_before: int
) -> None:
    """Between two checkpoints, and before the first one."""
    calls.write_text(str(calls_before))
    updates = 2 - calls_before
    arguments = [*SMALL, "--reward", "flaky_rewards:flaky", "--save-every", "10"]
    with pytest.raises(SystemExit, match=f"Stopped at {16 * updates} timesteps"):
        train(script, tmp_path, *arguments, "--timesteps", "80")
    assert counters(tmp_path)["num_updates"] == updates
    train(script, tmp_path, "--resume", "--timesteps", "48", "--save-every", "10")
    assert counters(tmp_path)["num_updates"] == updates + 3


def test_control_c_twice_in_the_first_update_has_nothing_to_save(
    script: ModuleType, tmp_path: Path, calls: Path
) -> None:
    calls.write_text("2")
    with pytest.raises(SystemExit, match="Stopped in the first update: nothing has been saved yet"):
        train(script, tmp_path, *SMALL, "--reward", "flaky_rewards:interrupts_twice")
    assert not (tmp_path / "run" / "checkpoint").exists()


def serve(port: int) -> subprocess.Popen[str]:
    """A server of scores, once it answers."""
    command = [sys.executable, str(ROOT / "scripts" / "serve_reward.py"), "exact_match", "--port", str(port)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ)
    assert server.stdout is not None
    assert f":{port}/score" in server.stdout.readline()
    return server


def end(server: subprocess.Popen[str]) -> None:
    server.kill()
    server.wait()
    assert server.stdout is not None
    server.stdout.close()


@pytest.mark.parametrize("agent", ["PPO", "DQN"])
def test_a_server_that_dies_mid_run(script: ModuleType, tmp_path: Path, agent: str) -> None:
    """The run stops with a checkpoint of its last update; with the server back it ends where an unbroken one ends."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    url = f"http://127.0.0.1:{port}/score"
    spec = {"name": "http", "url": url, "columns": ["target"], "retries": 1, "backoff": 0.01}
    arguments = ["--agent", agent, *SMALL, "--reward", json.dumps(spec)]

    server = serve(port)
    config = tmp_path / "run" / "checkpoint" / "config.json"

    def kill_after_some_updates() -> None:
        while not (config.exists() and counters(tmp_path)["num_updates"] >= 2):
            time.sleep(0.01)
        end(server)

    killer = threading.Thread(target=kill_after_some_updates, daemon=True)
    killer.start()
    try:
        with pytest.raises(SystemExit) as stopped:
            train(script, tmp_path, *arguments, "--timesteps", "1000000")
        killer.join()
    finally:
        end(server)
    message = str(stopped.value)
    assert f"'http' got no scores from {url}" in message
    assert "prompt" in message
    done = counters(tmp_path)
    assert f"Stopped at {done['num_timesteps']:,} timesteps" in message
    assert done["num_updates"] >= 2

    server = serve(port)
    try:
        train(script, tmp_path, "--resume", "--timesteps", "48")
        total = counters(tmp_path)["num_timesteps"]
        assert total == done["num_timesteps"] + 48
        train(script, tmp_path / "unbroken", *arguments, "--timesteps", str(total))
    finally:
        end(server)
    assert network(tmp_path) == network(tmp_path / "unbroken")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--agent", "PPQ"], "Unknown agent 'PPQ'. Did you mean 'PPO'?"),
        (["--resume"], "no checkpoint"),
        (["--config", "lerning_rate", "0.1"], "Did you mean 'learning_rate'?"),
        (["--reward", "macht"], "Did you mean 'match'?"),
        (["--reward", '[[1, "match"'], "Unknown reward"),
        (["--env", "textenvs/Revers-v0"], "Did you mean 'textenvs/Reverse-v0'?"),
        (["--env", "CartPole-v1"], "not token sequences"),
        (["--env-args", "lenght", "3"], "Did you mean 'length'?"),
        (["--config", "learning_rate", "fast"], "learning_rate must be a number; got 'fast'"),
        (["--seed", "-1"], "A seed is a non-negative integer"),
        (["--timesteps", "0"], "--timesteps must be at least 1"),
        (["--save-every", "0"], "--save-every must be at least 1"),
        (["--threads", "0"], "--threads must be at least 1"),
    ],
)
def test_mistakes_are_named(script: ModuleType, tmp_path: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        train(script, tmp_path, *arguments)
    assert message in str(stopped.value)
    assert not (tmp_path / "run" / "checkpoint").exists()


def test_a_file_in_place_of_the_folder_is_named(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(SystemExit, match="run"):
        train(script, tmp_path, *SMALL)


def test_resuming_with_other_options_is_refused(script: ModuleType, tmp_path: Path) -> None:
    train(script, tmp_path, *SMALL, "--timesteps", "16")
    before = network(tmp_path)
    for arguments, message in (
        (["--agent", "DQN"], "--agent is 'PPO' there, 'DQN' here"),
        (["--env", "textenvs/Copy-v0"], "--env is 'textenvs/Reverse-v0' there, 'textenvs/Copy-v0' here"),
        (["--reward", "prefix"], "--reward is None there, 'prefix' here"),
        (["--env-args", "length", "3"], "--env-args length is 2 there, 3 here"),
        (["--config", "width", "32"], "--config width is 16 there, 32 here"),
        (["--seed", "1"], "--seed is 0 there, 1 here"),
    ):
        with pytest.raises(SystemExit, match=f"holds a run of other options .*{message}"):
            train(script, tmp_path, "--resume", *arguments)
    assert network(tmp_path) == before


def test_a_run_is_not_overwritten(script: ModuleType, tmp_path: Path) -> None:
    train(script, tmp_path, *SMALL, "--timesteps", "16")
    before = network(tmp_path)
    with pytest.raises(SystemExit, match="holds a run already"):
        train(script, tmp_path, *SMALL, "--timesteps", "16")
    assert network(tmp_path) == before


# -- options of learning -----------------------------------------------------------------------------------------------

COPY = [
    "--env-args",
    "length",
    "3",
    "num_symbols",
    "3",
    "--config",
    "num_envs",
    "8",
    "width",
    "16",
]  # 24 tokens a batch


def evaluations(folder: Path) -> list[dict[str, str]]:
    with (folder / "run" / "evaluations.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_evaluations_and_the_best_checkpoint(
    script: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train(script, tmp_path, *COPY, "--timesteps", "96", "--eval-every", "48", "--keep-best", "--log-every", "0")
    rows = evaluations(tmp_path)
    assert [row["timesteps"] for row in rows] == ["0", "48", "96"]
    assert {"eval/train/greedy_score", "eval/test/sampled_score"} <= rows[0].keys()
    best = max(float(row["eval/test/greedy_score"]) for row in rows)
    kept = json.loads((tmp_path / "run" / "best" / "config.json").read_text())["counters"]["num_timesteps"]
    assert [float(row["eval/test/greedy_score"]) for row in rows if int(row["timesteps"]) == kept] == [best]
    lines = re.findall(r"(\d+) timesteps, \d+ episodes, [\d,]+/s: return 0\.\d+", capfd.readouterr().err)
    assert lines == ["24", "48", "72", "96"]
    with pytest.raises(SystemExit, match="holds a run already"):
        train(script, tmp_path, *COPY)


def test_a_resumed_run_evaluates_as_an_unbroken_one(script: ModuleType, tmp_path: Path) -> None:
    options = ["--eval-every", "40", "--keep-best"]
    train(script, tmp_path / "straight", *COPY, *options, "--timesteps", "144")
    train(script, tmp_path / "broken", *COPY, *options, "--timesteps", "72")
    train(script, tmp_path / "broken", *options, "--resume", "--timesteps", "72")
    assert network(tmp_path / "broken") == network(tmp_path / "straight")
    assert evaluations(tmp_path / "broken") == evaluations(tmp_path / "straight")


def test_it_stops_at_a_score(script: ModuleType, tmp_path: Path) -> None:
    train(script, tmp_path, *COPY, "--eval-every", "48", "--stop-at", "0", "--timesteps", "9600")
    assert counters(tmp_path)["num_timesteps"] == 48  # the second evaluation


def test_demonstrations_and_learning_offline(script: ModuleType, tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text(
        '{"prompt": "012", "completion": "210"}\n{"prompt": "011", "completion": "110", "score": 0.5}\n' * 4
    )
    dqn = ["--agent", "DQN", *COPY, "batch_size", "4", "learning_starts", "100", "--demonstrations", str(texts)]
    train(script, tmp_path, *dqn, "--offline-updates", "3", "--timesteps", "24")
    state = json.loads((tmp_path / "run" / "checkpoint" / "state.json").read_text())
    assert state["counters/num_gradient_steps"] == 3
    replay = load_file(tmp_path / "run" / "checkpoint" / "replay.safetensors")
    assert replay["scores"][:8].tolist() == [1.0, 0.5] * 4
    assert len(replay["scores"]) == 16
    train(script, tmp_path, "--resume", "--timesteps", "24")
    assert len(load_file(tmp_path / "run" / "checkpoint" / "replay.safetensors")["scores"]) == 24  # not added again


def test_presets(script: ModuleType, tmp_path: Path) -> None:
    train(script, tmp_path, "--agent", "DQN", "--preset", "rainbow", *COPY, "n_step", "2", "--timesteps", "24")
    config = json.loads((tmp_path / "run" / "checkpoint" / "config.json").read_text())["config"]
    assert (config["dueling"], config["n_step"], config["width"]) == (True, 2, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stop-at", "0.5"], "say how often with --eval-every"),
        (["--keep-best"], "say how often with --eval-every"),
        (["--eval-every", "0"], "--eval-every must be at least 1; got 0"),
        (["--offline-updates", "-1"], "--offline-updates must be at least 0; got -1"),
        (["--preset", "rainbow"], "PPO has no preset 'rainbow'; it has no presets"),
        (["--agent", "DQN", "--preset", "rain"], "DQN has no preset 'rain'; its presets are textbook, rainbow"),
        (["--demonstrations", "texts.jsonl"], "PPO learns from its own texts alone"),
        (["--agent", "DQN", "--demonstrations", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--agent", "DQN", "--offline-updates", "3"], "holds 0 episodes; a batch needs 32"),
        (["--device", "cuda:97"], "device='cuda:97' is not to be had here"),
        (["--config", "schedules", '{"lr": [[0, 1]]}'], "Unknown field for schedules 'lr'"),
    ],
)
def test_mistakes_about_learning_are_named(
    script: ModuleType, tmp_path: Path, arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        train(script, tmp_path, *arguments)
    assert message in str(stopped.value)
    assert not (tmp_path / "run" / "checkpoint").exists()
