"""Runs on Ray: the same rows as local ones. Ray itself need not be installed: a stand-in plays the tasks here."""

import socket
import sys
from types import SimpleNamespace

import pytest

from agents.benchmark import ray_launcher
from agents.benchmark.pool import Failed, Finished
from agents.benchmark.ray_launcher import play_all_on_ray
from agents.benchmark.results import is_finished, open_results, run_folder
from agents.benchmark.run import play
from agents.benchmark.suites import BenchmarkError, run_settings, select


class FakeRay:
    """Plays tasks when they are waited for; a task whose worker is `killed` dies once and is played again."""

    def __init__(self, reachable=True, killed=0):
        self.reachable, self.killed, self.options, self.tasks, self.stopped = reachable, killed, {}, {}, False

    def init(self, **options):
        self.options = options
        if not self.reachable:
            raise ConnectionError("nobody there")

    def remote(self, **options):
        self.task_options = options

        def wrap(function):
            def submit(*arguments):
                reference = f"task {len(self.tasks)}"
                self.tasks[reference] = (function, arguments)
                return reference

            return SimpleNamespace(remote=submit)

        return wrap

    def wait(self, references, num_returns, timeout):
        return references[-1:], references[:-1]  # in no particular order

    def get(self, reference):
        function, arguments = self.tasks[reference]
        if self.killed > self.task_options["max_retries"]:
            raise RuntimeError("WorkerCrashedError")
        return function(*arguments)

    def cancel(self, reference, force):
        raise AssertionError("nothing is cancelled before the deadline")

    def shutdown(self):
        self.stopped = True


def rows(out, setting):
    lines = [line.split(",") for line in (run_folder(out, setting) / "rows.csv").read_text().splitlines()]
    seconds = lines[0].index("seconds")
    return [line[:seconds] + line[seconds + 1 :] for line in lines]


@pytest.fixture
def fake(monkeypatch):
    def make(**options):
        ray = FakeRay(**options)
        monkeypatch.setitem(sys.modules, "ray", ray)
        return ray

    return make


def test_the_rows_are_those_of_local_runs(tiny, tmp_path, fake):
    ray = fake()
    settings = run_settings(select(tiny, seeds=[0]))
    open_results(tmp_path / "ray", tiny)
    events = []
    assert play_all_on_ray(settings, tmp_path / "ray", events.append, address="auto") == []
    assert sorted(event.setting.label for event in events if isinstance(event, Finished)) == sorted(
        setting.label for setting in settings
    )
    assert ray.options["address"] == "auto"
    assert ray.task_options == {"num_cpus": 1, "max_retries": 3}
    assert ray.stopped
    for setting in settings:
        play(setting, tmp_path / "local")
        assert rows(tmp_path / "ray", setting) == rows(tmp_path / "local", setting)
    assert list((tmp_path / "ray" / "running").iterdir()) == []


def test_a_worker_that_dies_every_time_is_a_failed_run(tiny, tmp_path, fake):
    fake(killed=4)
    setting = run_settings(tiny)[0]
    (failed,) = play_all_on_ray([setting], tmp_path, lambda _: None)
    assert "WorkerCrashedError" in failed.trace
    assert not is_finished(tmp_path, setting)


def test_workers_with_other_sources_are_refused(tiny, tmp_path, fake, monkeypatch):
    fake()
    digests = iter(("mine", "theirs"))
    monkeypatch.setattr(ray_launcher, "code_digest", lambda: next(digests))
    (failed,) = play_all_on_ray([run_settings(tiny)[0]], tmp_path, lambda _: None)
    assert isinstance(failed, Failed)
    assert "other sources" in failed.trace


def test_no_cluster_and_no_ray_are_said(tiny, tmp_path, fake, monkeypatch):
    fake(reachable=False)
    with pytest.raises(BenchmarkError, match=r"No Ray cluster answers at 'auto'.*nobody there.*ray start --head"):
        play_all_on_ray(run_settings(tiny), tmp_path, lambda _: None, address="auto")
    fake()
    with socket.socket() as taken:  # bound and not listening: a connection is refused at once
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(BenchmarkError, match=rf"No Ray cluster answers at '{address}'.*refused"):
            play_all_on_ray(run_settings(tiny), tmp_path, lambda _: None, address=address)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BenchmarkError, match=r"pip install 'textenvs\[ray\]'"):
        play_all_on_ray(run_settings(tiny), tmp_path, lambda _: None)


def test_on_ray_itself(tiny, tmp_path):
    ray = pytest.importorskip("ray")
    settings = run_settings(select(tiny, agents=["random", "PPO"], seeds=[0]))
    open_results(tmp_path / "ray", tiny)
    assert play_all_on_ray(settings, tmp_path / "ray", lambda _: None, jobs=1) == []
    assert not ray.is_initialized()
    for setting in settings:
        play(setting, tmp_path / "local")
        assert rows(tmp_path / "ray", setting) == rows(tmp_path / "local", setting)
