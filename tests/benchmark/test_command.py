"""scripts/benchmark.py as it is used: it goes on where it ended, whatever ended it."""

import importlib.util
import io
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from agents.benchmark.pool import Advanced, Failed, Finished, Paused
from agents.benchmark.results import run_folder
from agents.benchmark.run import RunPaused, play
from agents.benchmark.suites import (
    SUITES,
    AgentSetting,
    BenchmarkError,
    EnvironmentSetting,
    Suite,
    run_settings,
)
from textenvs import RewardError

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "benchmark.py"


@pytest.fixture(scope="module")
def command() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_command", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    return module


def play_here(settings, out, jobs, on_event, limits):
    """`play_all` without processes, to save their start."""
    failed = []
    for setting in settings:
        try:
            play(setting, out, lambda progress, setting=setting: on_event(Advanced(setting, progress)), limits)
        except RunPaused:
            on_event(Paused(setting))
        except RewardError:
            failed.append(Failed(setting, traceback.format_exc()))
            on_event(failed[-1])
        else:
            on_event(Finished(setting))
    return failed


@pytest.fixture
def run(command, tiny, monkeypatch, tmp_path):
    """Calls the command on the tiny suite: (exit code, what it printed)."""
    monkeypatch.setitem(SUITES, "tiny", tiny)
    monkeypatch.setattr(command, "play_all", play_here)

    def call(**options):
        console = Console(file=io.StringIO(), width=120)
        chosen = command.Options(**{"preset": "tiny", "out": tmp_path / "out", "jobs": 1, **options})
        return command.main(chosen, console), console.file.getvalue()

    return call


def test_what_is_finished_is_not_run_again(run, tmp_path, tiny, monkeypatch):
    code, text = run(agents=("random",), seeds=(0,))
    assert code == 0
    assert "2 runs, 1 at a time" in text
    assert "random on Copy, seed 0: ended at" in text
    page = tmp_path / "out" / "report.html"
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "runs").rglob("*")}
    page.unlink()

    code, text = run(agents=("random", "oracle"), seeds=(0,))
    assert code == 0
    assert "4 runs (2 finished before)" in text
    assert "oracle on Copy, seed 0: reached 0.9 after" in text
    assert page.exists()
    assert written.items() <= {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "runs").rglob("*")}.items()

    monkeypatch.setitem(SUITES, "tiny", replace(tiny, growth=0.5))
    with pytest.raises(BenchmarkError, match="growth"):
        run()
    code, text = run(agents=("oracle",), seeds=(0,), restart=True)
    assert code == 0
    assert "out.old-1" in text
    assert len(list((tmp_path / "out.old-1" / "runs").iterdir())) == 4
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 2


def test_a_failure_is_shown_and_repeated_and_stops_nothing(run, tmp_path, tiny, monkeypatch, capsys):
    judge = tmp_path / "a_judge.py"
    judge.write_text("def judge(prompts, completions):\n    raise RuntimeError('no opinion')\n")
    monkeypatch.syspath_prepend(tmp_path)
    good, other = tiny.environments
    bad = replace(other, kwargs={**other.kwargs, "reward": "a_judge:judge"})
    monkeypatch.setitem(SUITES, "tiny", replace(tiny, environments=(bad, good), seeds=(0,)))

    code, text = run(agents=("oracle",))
    errors = capsys.readouterr().err
    assert code == 1
    assert "oracle on HiddenTarget, seed 0: reached 0.9" in text
    assert "oracle on Copy, seed 0: FAILED" in text
    assert "no opinion" in errors
    assert "Traceback" in errors
    assert "1 of 2 runs failed" in errors
    assert (tmp_path / "out" / "report.html").exists()
    assert "no opinion" in (tmp_path / "out" / "failed" / "Copy__oracle__0.txt").read_text()

    judge.write_text("def judge(prompts, completions):\n    return [1.0] * len(completions)\n")
    del sys.modules["a_judge"]
    code, text = run(agents=("oracle",))
    assert code == 0
    assert "(1 finished before)" in text
    assert not (tmp_path / "out" / "failed" / "Copy__oracle__0.txt").exists()


def test_bad_options_leave_no_folder(run, tmp_path):
    for options, message in (
        ({"preset": "tinny"}, "Did you mean 'tiny'"),
        ({"agents": ("PPOO",)}, "Did you mean 'PPO'"),
        ({"envs": ("Copie",)}, "Did you mean 'Copy'"),
        ({"seeds": (-1,)}, "negative"),
        ({"jobs": 0}, "--jobs must be at least 1"),
        ({"max_hours": 0.0}, "--max-hours must be positive"),
        ({"checkpoint_seconds": -1.0}, "--checkpoint-seconds"),
        ({"ray_address": "auto"}, "--launcher ray"),
        ({"add": ("mine",)}, "NAME=module:Class"),
        ({"add": ("mine=no_such_module:Agent",)}, "no_such_module"),
        ({"agents": ()}, "no agents were selected"),
    ):
        with pytest.raises(BenchmarkError, match=message):
            run(**options)
    assert list(tmp_path.iterdir()) == []


def test_an_agent_of_ones_own_joins_results_that_are_there(run, tmp_path, monkeypatch):
    (tmp_path / "an_agent.py").write_text(
        "import numpy as np\n"
        "class Zeros:\n"
        "    def __init__(self, text_spec, num_envs, seed): pass\n"
        "    def act(self, obs, action_mask, explore): return np.zeros(len(obs), dtype=int)\n"
        "    def observe(self, obs, actions, rewards, next_obs, done): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert run(agents=("random",), seeds=(0,))[0] == 0
    code, text = run(agents=("random", "zeros"), seeds=(0,), add=("zeros=an_agent:Zeros",))
    assert code == 0
    assert "4 runs (2 finished before)" in text
    assert "zeros on Copy, seed 0: ended at" in text
    assert "zeros" in (tmp_path / "out" / "report.md").read_text()
    assert run(agents=("random",), seeds=(0,))[0] == 0, "and without it the results are still these"


def test_the_time_is_over(run, tmp_path):
    code, text = run(agents=("PPO",), seeds=(0,), max_hours=1e-9)
    assert code == 0
    assert "PPO on Copy, seed 0: paused" in text
    assert "The time is over and 2 runs are left: the same command goes on." in text
    code, text = run(agents=("PPO",), seeds=(0,))
    assert code == 0
    assert "are left" not in text
    assert list((tmp_path / "out" / "running").iterdir()) == []


def test_a_full_disk_in_the_parent_is_a_message(command, monkeypatch, capsys, tmp_path):
    def full(options, console):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(command, "main", full)
    assert command.run(command.Options(out=tmp_path / "out")) == 2
    assert "no space left on the disk of" in capsys.readouterr().err


LONGER = Suite(
    name="longer",
    environments=(
        EnvironmentSetting("HiddenTarget", "textenvs/HiddenTarget-v0", 800, {"length": 6, "num_symbols": 16}),
    ),
    agents=(AgentSetting("PPO", "PPO", {"num_envs": 8, "epochs": 1, "num_minibatches": 1, "learning_rate": 1e-5}),),
    seeds=(0, 1, 2),
)
DRIVER = """
import runpy, sys
from agents.benchmark.suites import *
SUITES["longer"] = {suite!r}
if __name__ == "__main__":
    sys.argv[0] = {script!r}
    runpy.run_path({script!r}, run_name="__main__")
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds child processes in /proc")
@pytest.mark.timeout(600)
def test_interrupted_and_killed_it_ends_with_the_rows_of_one_left_alone(tmp_path):
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER.format(suite=LONGER, script=str(SCRIPT)))
    out = tmp_path / "out"

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                *(sys.executable, str(driver), "--preset", "longer", "--out", str(out), "--jobs", "1"),
                *("--checkpoint-seconds", "0.05"),
            ],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def finished() -> int:
        return len([path for path in (out / "runs").glob("*") if "." not in path.name])

    def wait_for_runs(process: subprocess.Popen[str], count: int) -> list[int]:
        while finished() < count:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.02)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        return [int(child) for child in children.split()]

    def wait_for(process: subprocess.Popen[str], happened: Callable[[], bool]) -> None:
        while not happened() and process.poll() is None:
            time.sleep(0.01)

    # Ctrl-C goes to every process of the terminal.
    process = start()
    children = wait_for_runs(process, 1)
    os.killpg(process.pid, signal.SIGINT)
    text = process.communicate(timeout=20)[0]
    assert process.returncode == 130
    assert "Traceback" not in text
    assert "The same command goes on from there:\n  python" in text
    assert_gone(children)
    kept = finished()
    assert 1 <= kept < 3

    # SIGKILL comes without warning, and to the parent alone.
    process = start()
    children = wait_for_runs(process, kept + 1)
    process.kill()
    process.communicate(timeout=20)
    assert_gone(children)
    assert finished() < 3

    # Nor does it matter when: in the middle of a run, or while its checkpoint is written.
    waits = random.Random(0)
    for _ in range(9):  # with the one before: ten
        process = start()
        wait_for(process, lambda: any((out / "running").glob("*/0*")))
        time.sleep(waits.uniform(0.0, 0.3))
        process.kill()
        process.communicate(timeout=20)

    process = start()
    text = process.communicate(timeout=60)[0]
    assert process.returncode == 0, text
    for setting in run_settings(LONGER):
        play(setting, tmp_path / "alone")
        assert rows(out, setting) == rows(tmp_path / "alone", setting)


def assert_gone(processes: list[int]) -> None:
    def alive(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
        except (FileNotFoundError, ProcessLookupError):
            return False

    deadline = time.monotonic() + 20
    while any(alive(pid) for pid in processes):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.02)


def rows(out, setting):
    lines = (run_folder(out, setting) / "rows.csv").read_text().splitlines()
    seconds = lines[0].split(",").index("seconds")
    return [[field for index, field in enumerate(line.split(",")) if index != seconds] for line in lines]


def test_unknown_presets_end_with_code_2():
    result = subprocess.run(
        [sys.executable, str(SCRIPT), "--preset", "smok"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert "Did you mean 'smoke'?" in result.stderr
    assert "Traceback" not in result.stderr
