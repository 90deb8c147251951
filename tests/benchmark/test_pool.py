"""Many runs in parallel: the same rows as one by one, and a failure stays where it happened."""

import pytest

from agents.benchmark.pool import Advanced, Failed, Finished, play_all
from agents.benchmark.results import is_finished, run_folder
from agents.benchmark.run import play
from agents.benchmark.suites import EnvironmentSetting, RunSetting, run_settings, select

JUDGES = """
import os, signal

def kills(prompts, completions):
    os.kill(os.getpid(), signal.SIGKILL)

def fails(prompts, completions):
    raise RuntimeError("this judge fails")
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
