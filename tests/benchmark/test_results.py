"""The results folder: other settings are refused, and everything that is refused says what to do."""

import json
import os
from dataclasses import replace

import pytest

from agents.benchmark import results
from agents.benchmark.results import (
    code_alone,
    code_digest,
    is_finished,
    lock,
    open_results,
    pack_results,
    read_results,
    run_folder,
    run_name,
    set_aside,
)
from agents.benchmark.run import play
from agents.benchmark.suites import BenchmarkError, run_settings


def test_names_of_folders(tiny):
    setting = run_settings(tiny)[0]
    assert run_name(setting) == "HiddenTarget__random__0"
    named = replace(setting, environment=replace(setting.environment, name="Reverse 4 of 8/9"))
    assert run_name(named) == "Reverse-4-of-8-9__random__0"


def test_a_folder_is_made_and_found_again(tiny, tmp_path):
    out = tmp_path / "deep" / "results"
    setting = run_settings(tiny)[0]
    open_results(out, tiny)
    assert not is_finished(out, setting)
    play(setting, out)
    assert is_finished(out, setting)
    open_results(out, replace(tiny, seeds=(5, 6)))  # other seeds belong to the same results
    results = read_results(out)
    assert results.settings["suite"]["name"] == "tiny"
    assert [(run.environment, run.agent, run.seed) for run in results.runs] == [("HiddenTarget", "random", 0)]


def test_a_packed_folder_is_the_folder(tiny, tmp_path):
    out, first, second = tmp_path / "results", tmp_path / "packed" / "one.tar.xz", tmp_path / "two.tar.xz"
    open_results(out, tiny)
    for setting in run_settings(tiny)[:2]:
        play(setting, out)
    (out / "failed" / "x.txt").write_text("left out, as is all that a report can be made without")
    pack_results(out, first)
    assert read_results(first) == read_results(out)
    for path in out.rglob("*"):
        os.utime(path, (0, 0))
    pack_results(out, second)
    assert first.read_bytes() == second.read_bytes(), "the same results give the same file"
    assert not list(tmp_path.rglob("*.partial*"))
    (tmp_path / "cut.tar.xz").write_bytes(first.read_bytes()[:500])
    for name in ("cut.tar.xz", "text.tar.xz"):
        (tmp_path / "text.tar.xz").write_text("no archive")
        with pytest.raises(BenchmarkError, match=f"{name} cannot be read as a packed folder"):
            read_results(tmp_path / name)
    with pytest.raises(BenchmarkError, match=r"not a folder of results"):
        pack_results(tmp_path / "packed", second)


def test_other_settings_are_refused_and_named(tiny, tmp_path, monkeypatch):
    open_results(tmp_path, tiny)
    before = (tmp_path / "settings.json").read_text()
    hidden, copy = tiny.environments
    for other, message in (
        (replace(tiny, growth=0.1), "suite › growth: 0.05 there, 0.1 now"),
        (
            replace(tiny, environments=(replace(hidden, kwargs={"length": 3, "num_symbols": 5}), copy)),
            "suite › environments › HiddenTarget › kwargs › num_symbols: 4 there, 5 now",
        ),
        (
            replace(tiny, agents=(replace(tiny.agents[2], config={}), *tiny.agents[:2])),
            "suite › agents › PPO › config › num_envs: 16 there, null now(\n.*)*",
        ),
    ):
        with pytest.raises(BenchmarkError, match=f"other settings.*\n.*{message}\n.*--out.*--restart"):
            open_results(tmp_path, other)
    monkeypatch.setattr(results, "code_digest", lambda: "another")
    with pytest.raises(BenchmarkError, match="the sources of textenvs or agents have changed"):
        open_results(tmp_path, tiny)
    assert (tmp_path / "settings.json").read_text() == before


def test_agents_and_environments_may_join(tiny, tmp_path):
    open_results(tmp_path, replace(tiny, agents=tiny.agents[:1], environments=tiny.environments[:1]))
    open_results(tmp_path, replace(tiny, agents=tiny.agents[1:], environments=tiny.environments[1:]))
    open_results(tmp_path, replace(tiny, agents=tiny.agents[:1]))
    suite = read_results(tmp_path).settings["suite"]
    assert set(suite["agents"]) == {"random", "oracle", "PPO"}
    assert set(suite["environments"]) == {"HiddenTarget", "Copy"}


def test_a_folder_of_something_else_is_refused(tiny, tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(BenchmarkError, match=r"not empty.*--out"):
        open_results(tmp_path, tiny)
    with pytest.raises(BenchmarkError, match=r"no settings\.json"):
        read_results(tmp_path)
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(BenchmarkError, match=r"settings\.json cannot be read"):
        open_results(tmp_path, tiny)


def test_leftovers_of_killed_runs_are_no_runs(tiny, tmp_path):
    open_results(tmp_path, tiny)
    setting = run_settings(tiny)[0]
    folder = run_folder(tmp_path, setting)
    leftover = folder.with_name(folder.name + results.PARTIAL + "-123")
    leftover.mkdir()
    (leftover / "rows.csv").write_text("environment,ag")
    assert not is_finished(tmp_path, setting)
    assert read_results(tmp_path).runs == []
    open_results(tmp_path, tiny)
    assert not leftover.exists()


def test_the_digest_is_that_of_the_code_that_makes_rows():
    assert code_digest() == code_digest()
    assert len(code_digest()) == 16
    same = code_alone("def f(x):\n    return x + 1\n")
    assert code_alone('"""About."""\n\ndef f(x):\n    """Adds."""\n    return (x +  1)  # one\n') == same
    assert code_alone("def f(x):\n    return x + 2\n") != same


def test_setting_aside_deletes_nothing(tiny, tmp_path):
    out = tmp_path / "results"
    assert set_aside(out) is None
    for number in (1, 2):
        open_results(out, tiny)
        assert set_aside(out) == tmp_path / f"results.old-{number}"
    assert json.loads((tmp_path / "results.old-1" / "settings.json").read_text())["suite"]["name"] == "tiny"


def test_what_can_be_no_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BenchmarkError, match="file is a file: choose a folder with --out"), lock(tmp_path / "file"):
        pass
    with pytest.raises(BenchmarkError, match=r"There can be no folder .*inside"), lock(tmp_path / "file" / "inside"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_one_benchmark_at_a_time(tmp_path):
    out = tmp_path / "results"
    with lock(out), pytest.raises(BenchmarkError, match="Another benchmark is running"), lock(out):
        pass
    with lock(out):
        pass
