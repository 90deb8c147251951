"""``accelerate launch scripts/rlhf.py``: several processes do what one does, and say it once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from agents.rlhf.results import read_history
from tests.rlhf.conftest import Checkpoints

pytest.importorskip("accelerate")

ROOT = Path(__file__).parents[2]


def test_two_processes_do_what_one_does_and_say_it_once(checkpoints: Checkpoints, tmp_path: Path) -> None:
    def run(out: Path, *launcher: str) -> subprocess.CompletedProcess[str]:
        command = [
            *(*launcher, "scripts/rlhf.py", "--preset", "smoke", "--out", str(out), "--jobs", "1"),
            *("--model", str(checkpoints.model), "--prompts", str(checkpoints.prompts)),
            *("--reward", '{"name": "keyword_presence", "words": ["good"]}', "--gold", "length"),
            *("--demonstrations", str(checkpoints.demonstrations), "--max-new-tokens", "6", "--kl-coefs", "0.05"),
            *("--updates", "3", "--num-envs", "8", "--learning-rate", "0.01"),
        ]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        return done

    run(tmp_path / "one", sys.executable)
    plain = ("--mixed_precision", "no", "--dynamo_backend", "no", "--num_machines", "1", "--main_process_port", "0")
    launcher = (sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", *plain)
    two = run(tmp_path / "two", *launcher)
    assert two.stdout.count("Report: ") == 1
    assert two.stdout.count("ppo-0.05: ") == 1
    histories = [read_history(tmp_path / name / "seed-0" / "ppo-0.05" / "history.csv") for name in ("one", "two")]
    assert histories[0]["updates"].tolist() == [1, 2, 3]
    assert histories[0]["objective/kl"][-1] > 0  # it has moved
    for name in histories[0].keys() - {"seconds", "charts/SPS"}:
        np.testing.assert_allclose(histories[1][name], histories[0][name], rtol=2e-3, atol=1e-4, err_msg=name)
