"""scripts/train.py: a run that was stopped goes on, and ends where an unbroken one ends."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import tyro
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[2]

FLAKY = """
from pathlib import Path
CALLS = Path(__file__).with_name("calls")

def flaky(completions, target):
    calls = int(CALLS.read_text()) + 1 if CALLS.exists() else 1
    CALLS.write_text(str(calls))
    if calls == 3:
        raise ConnectionError("the scorer is gone")
    return [float(sum(a == b for a, b in zip(text, goal))) for text, goal in zip(completions, target)]
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


def test_a_reward_that_dies_mid_run_leaves_a_checkpoint_and_resuming_continues(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "flaky_rewards.py").write_text(FLAKY)
    monkeypatch.syspath_prepend(tmp_path)
    broken, unbroken = tmp_path / "broken", tmp_path / "unbroken"
    arguments = [*SMALL, "--reward", "flaky_rewards:flaky"]

    with pytest.raises(SystemExit) as stopped:
        train(script, broken, *arguments, "--timesteps", "80")
    message = str(stopped.value)
    assert "Reward 'flaky' raised ConnectionError: the scorer is gone" in message
    assert "Stopped after 2 updates" in message
    assert "--resume" in message
    train(script, broken, "--resume", "--timesteps", "48")
    assert "80 tokens, 40 episodes" in capsys.readouterr().out

    (tmp_path / "calls").write_text("100")  # past the fault
    train(script, unbroken, *arguments, "--timesteps", "80")
    assert network(broken) == network(unbroken)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--agent", "PPQ"], "Unknown agent 'PPQ'. Did you mean 'PPO'?"),
        (["--resume"], "no checkpoint"),
        (["--config", "lerning_rate", "0.1"], "Did you mean 'learning_rate'?"),
        (["--reward", "macht"], "Did you mean 'match'?"),
    ],
)
def test_mistakes_are_named(script: ModuleType, tmp_path: Path, arguments: list[str], message: str) -> None:
    with pytest.raises((SystemExit, TypeError, ValueError)) as stopped:
        train(script, tmp_path, *arguments)
    assert message in str(stopped.value)


def test_a_run_is_not_overwritten(script: ModuleType, tmp_path: Path) -> None:
    train(script, tmp_path, *SMALL, "--timesteps", "16")
    before = network(tmp_path)
    with pytest.raises(SystemExit, match="holds a run already"):
        train(script, tmp_path, *SMALL, "--timesteps", "16")
    assert network(tmp_path) == before
