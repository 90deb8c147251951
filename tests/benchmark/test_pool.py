"""Many runs in parallel: the same rows as one by one, and a failure stays where it happened."""

import errno
import time
from dataclasses import replace

import pytest

from agents.benchmark.pool import Advanced, DiskFull, Failed, Finished, Paused, is_disk_full, play_all
from agents.benchmark.results import checkpoint_folder, is_finished, run_folder
from agents.benchmark.run import Limits, RunPaused, play
from agents.benchmark.suites import EnvironmentSetting, RunSetting, run_settings, select

JUDGES = """
import os, signal

def kills(prompts, completions):
    os.kill(os.getpid(), signal.SIGKILL)

def fails(prompts, completions):
    raise RuntimeError("this judge fails")

def fills(prompts, completions):
    raise OSError(28, "No space left on device")
"""


@pytest.fixture
def judged(tmp_path, monkeypatch, tiny):
    """Makes the setting of a run whose texts are judged by one of `JUDGES`."""
    (tmp_path / "judges_of_the_pool.py").write_text(JUDGES)
    monkeypatch.syspath_prepend(tmp_path)
    first = run_settings(tiny)[0]

    def make(judge: str) -> RunSetting:
        kwargs = {**first.environment.kwargs, "reward": f"judges_of_the_pool:{judge}"}
        environment = EnvironmentSetting(judge, first.environment.env_id, 50, kwargs)
        return RunSetting(environment, first.agent, 0, 0.9, 0.05, 16)

    return make


def rows_without_seconds(out, setting):
    lines = (run_folder(out, setting) / "rows.csv").read_text().splitlines()
    seconds = lines[0].split(",").index("seconds")
    return [[field for index, field in enumerate(line.split(",")) if index != seconds] for line in lines]


def test_parallel_runs_are_those_of_one_process_whatever_else_happens(tiny, tmp_path, judged):
    good = run_settings(select(tiny, seeds=[0]))
    events = []
    failed = play_all([judged("kills"), good[0], judged("fails"), *good[1:]], tmp_path / "pool", 2, events.append)

    assert [failure.setting.environment.name for failure in sorted(failed, key=lambda f: f.setting.label)] == [
        "fails",
        "kills",
    ]
    traces = {failure.setting.environment.name: failure.trace for failure in failed}
    assert "this judge fails" in traces["fails"]
    assert "Traceback" in traces["fails"]
    assert "SIGKILL" in traces["kills"]
    ended = [event for event in events if isinstance(event, Finished | Failed)]
    assert sorted(event.setting.label for event in ended) == sorted(
        setting.label for setting in [*good, judged("kills"), judged("fails")]
    )
    last = [event for event in events if isinstance(event, Advanced) and event.setting == good[0]][-1]
    assert last.progress.episodes >= last.progress.budget == 300
    for setting in good:
        play(setting, tmp_path / "alone")
        assert rows_without_seconds(tmp_path / "pool", setting) == rows_without_seconds(tmp_path / "alone", setting)
    assert not is_finished(tmp_path / "pool", judged("kills"))


def test_an_exception_ends_the_workers(tiny, tmp_path):
    import multiprocessing

    def interrupt(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play_all(run_settings(tiny), tmp_path, 2, interrupt)
    assert multiprocessing.active_children() == []


def test_the_deadline_pauses_runs_which_go_on_with_the_same_rows(tiny, tmp_path):
    setting = replace(run_settings(select(tiny, ["HiddenTarget"], ["PPO"]))[0], stop_at=None)
    waiting = run_settings(select(tiny, ["Copy"], ["PPO"]))[0]
    events = []
    failed = play_all([setting, waiting], tmp_path / "pool", 1, events.append, Limits(deadline=time.time() + 0.01))
    assert failed == []
    assert [event for event in events if not isinstance(event, Advanced)] in ([Paused(setting)], [])
    assert not is_finished(tmp_path / "pool", setting)
    assert not checkpoint_folder(tmp_path / "pool", waiting).exists()

    with pytest.raises(RunPaused, match=setting.label):
        play(setting, tmp_path / "pool", limits=Limits(deadline=0.0))
    assert checkpoint_folder(tmp_path / "pool", setting).is_dir()
    events.clear()
    assert play_all([setting], tmp_path / "pool", 1, events.append) == []
    assert events[-1] == Finished(setting)
    assert not checkpoint_folder(tmp_path / "pool", setting).exists()
    play(setting, tmp_path / "alone")
    assert rows_without_seconds(tmp_path / "pool", setting) == rows_without_seconds(tmp_path / "alone", setting)


def test_a_full_disk_stops_everything(tiny, tmp_path, judged):
    good = run_settings(select(tiny, ["HiddenTarget"], ["random"]))[0]
    with pytest.raises(DiskFull, match=r"no space left on the disk of .*pool.*same command"):
        play_all([good, judged("fills"), *run_settings(tiny)], tmp_path / "pool", 1, lambda _: None)
    assert is_finished(tmp_path / "pool", good)
    assert len(list((tmp_path / "pool" / "runs").iterdir())) == 1


def test_which_errors_mean_a_full_disk():
    assert is_disk_full(OSError(errno.ENOSPC, "full"))
    wrapped = RuntimeError("while saving")
    wrapped.__cause__ = OSError(errno.EDQUOT, "quota")
    assert is_disk_full(wrapped)
    assert is_disk_full(RuntimeError('IoError(Os { code: 28, message: "No space left on device" })'))
    assert not is_disk_full(OSError(errno.EACCES, "forbidden"))
