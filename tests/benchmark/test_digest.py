"""What README and docs say of results: the figures of the report, and nothing that the rows do not say."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

from agents.benchmark.digest import agents_table, medians_table, results_text, summary_text, tuned_table
from agents.benchmark.report import Report, read_report
from agents.benchmark.results import place_run
from agents.benchmark.rows import rows_text
from agents.benchmark.suites import STANDARD_DEFAULTS, TUNED
from agents.benchmark.summary import summarise

ENVIRONMENTS = ["Reverse", "Copy"]
KINDS = {"PPO": "on-policy", "DQN": "replay", "SoftQ": "replay"}
SPEEDS = {"PPO": 800.0, "DQN": 200.0, "SoftQ": 9_000.0}


@pytest.fixture
def runs(synthetic_run):
    return [
        synthetic_run(name, agent, seed, speed * (1 + 0.1 * seed), 4_000, batch=16)
        for agent, speed in SPEEDS.items()
        for name in ENVIRONMENTS
        for seed in range(3)
    ]


@pytest.fixture
def report(runs, synthetic_settings):
    summary = summarise(runs, ENVIRONMENTS, list(SPEEDS), (0.5, 0.9), KINDS)
    return Report(synthetic_settings(runs), tuple(runs), summary)


def test_figures_are_those_of_the_report(report):
    summary = report.summary
    ppo, dqn, soft_q = agents_table(summary).blocks[0]
    assert ppo.figures["episodes to 0.9, × PPO's"] == ("1", "")
    value, interval = dqn.figures["episodes to 0.9, × PPO's"]
    assert value in ("0.24", "0.25")  # evaluations come every 5 %
    assert re.fullmatch(r"0\.2\d–0\.2\d", interval)
    assert dqn.figures["runs at 0.9"] == ("6/6", "")
    assert (soft_q.figures["runs at 0.9"], soft_q.figures["kind"]) == (("0/6", ""), ("replay", ""))
    assert soft_q.figures["episodes to 0.9, × PPO's"][0].startswith("≥ ")
    assert float(dqn.figures["area"][0]) > float(ppo.figures["area"][0]) > float(soft_q.figures["area"][0])
    reverse = medians_table(summary).blocks[0][0]
    assert reverse.names == ("Reverse",)
    assert reverse.figures["SoftQ"] == ("> 4,000", "0/3")
    median = summary.cells["Reverse", "DQN"].medians["episodes", 0.9].value
    assert reverse.figures["DQN"] == (f"{median:,.0f}", "3/3")


def test_texts(report):
    short, long = summary_text(report), results_text(report)
    assert short.startswith("To reach 0.9, PPO needed 4.1 times the episodes of DQN (95 % interval ")
    assert "| DQN | replay | 0.2" in short
    assert max(map(len, short.split("\n\n")[0].splitlines())) <= 130
    assert short.split("\n\n")[0] in long
    assert "**Where on-policy wins**" in long
    assert "(3/3) | > 4,000 (0/3) |" in long


def test_what_the_suite_plays_with_is_shown():
    text = tuned_table()
    for setting in STANDARD_DEFAULTS:
        entry = TUNED[setting.name]
        assert f"| {setting.name} | {entry['default_score']:.3f} | {entry['score']:.3f} | {entry['trial']} |" in text
    assert "12 trials for each agent; Reverse 3 of 6 (1,000 episodes)" in text


def test_a_packed_folder_gives_the_same_report(runs, synthetic_settings, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("report_command", Path(__file__).parents[2] / "scripts" / "report.py")
    assert spec is not None
    assert spec.loader is not None
    command = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = command
    spec.loader.exec_module(command)
    few = [run for run in runs if run.agent != "SoftQ" and run.environment == "Copy" and run.seed < 2]
    folder, packed = tmp_path / "results", tmp_path / "results.tar.xz"
    folder.mkdir()
    (folder / "settings.json").write_text(json.dumps(synthetic_settings(few)))
    for run in few:
        files = {"rows.csv": rows_text(run.rows), "settings.json": json.dumps(run.settings)}
        place_run(folder / "runs" / f"{run.environment}__{run.agent}__{run.seed}", files)
    assert command.main((folder,), pack=packed) == 0
    assert command.main((packed,), out=tmp_path / "again") == 0
    for name in ("report.html", "report.md", "report.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
    assert read_report([packed]).runs == read_report([folder]).runs
    capsys.readouterr()
    assert command.main((folder, folder), out=tmp_path / "both", pack=packed) == 2
    assert "--pack goes with one folder of results" in capsys.readouterr().err
