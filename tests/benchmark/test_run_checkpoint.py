"""Runs that are ended half-way, wherever that is, go on as if nothing had happened."""

from dataclasses import replace

import numpy as np
import pytest

from agents.benchmark.results import checkpoint_folder, open_results, run_folder
from agents.benchmark.run import Limits, play
from agents.benchmark.run_checkpoint import RunCheckpoint
from agents.benchmark.suites import AgentSetting, run_settings, select

EVERY_BATCH = Limits(checkpoint_seconds=0.0)
SMALL = {"width": 16, "num_layers": 1}
LEARNERS = [
    AgentSetting("PPO", "PPO", {"num_envs": 16, **SMALL}),
    AgentSetting("DQN", "DQN", {"updates_per_window": 2, **SMALL}, demonstrations=32),
    AgentSetting("SoftQ", "SoftQ", {"updates_per_window": 2, **SMALL}),
]


class Killed(Exception):
    pass


def rows(out, setting):
    lines = [line.split(",") for line in (run_folder(out, setting) / "rows.csv").read_text().splitlines()]
    seconds = lines[0].index("seconds")
    return [line[:seconds] + line[seconds + 1 :] for line in lines]


def killing(after: int):
    """A listener that ends the run at so many evaluations."""
    count = 0

    def on_progress(_):
        nonlocal count
        count += 1
        if count == after:
            raise Killed

    return on_progress


@pytest.mark.parametrize("agent", LEARNERS, ids=lambda agent: agent.name)
@pytest.mark.parametrize("environment", ["HiddenTarget", "Copy"])
def test_killed_again_and_again_it_gives_the_rows_of_one_left_alone(tiny, tmp_path, agent, environment):
    setting = replace(run_settings(select(tiny, [environment]))[0], agent=agent, stop_at=None)
    play(setting, tmp_path / "alone")
    out = tmp_path / "killed"
    moments = np.random.default_rng(0).integers(2, 5, size=3)
    for after in moments:
        with pytest.raises(Killed):
            play(setting, out, killing(int(after)), EVERY_BATCH)
        assert len(list(checkpoint_folder(out, setting).iterdir())) == 1, "only the newest is kept"
    play(setting, out, limits=EVERY_BATCH)
    assert rows(out, setting) == rows(tmp_path / "alone", setting)
    assert not checkpoint_folder(out, setting).exists()


def test_a_damaged_checkpoint_costs_time_and_nothing_else(tiny, tmp_path):
    setting = replace(run_settings(select(tiny, ["Copy"]))[0], agent=LEARNERS[0])
    play(setting, tmp_path / "alone")
    out = tmp_path / "killed"
    for damage in ("run.json", "texts.npy", "agent/state.json"):
        with pytest.raises(Killed):
            play(setting, out, killing(4), EVERY_BATCH)
        (newest,) = checkpoint_folder(out, setting).iterdir()
        (newest / damage).write_bytes(b"{")
    play(setting, out, limits=EVERY_BATCH)
    assert rows(out, setting) == rows(tmp_path / "alone", setting)


def test_half_a_checkpoint_is_none(tiny, tmp_path):
    """The process was killed while it wrote: the one before is there."""
    setting = replace(run_settings(select(tiny, ["Copy"]))[0], agent=LEARNERS[0])
    with pytest.raises(Killed):
        play(setting, tmp_path, killing(4), EVERY_BATCH)
    folder = checkpoint_folder(tmp_path, setting)
    (folder / "partial-1").mkdir()
    assert RunCheckpoint(folder)._numbers() == [int(path.name) for path in folder.iterdir() if path.name.isdigit()]
    play(setting, tmp_path)
    play(setting, tmp_path / "alone")
    assert rows(tmp_path, setting) == rows(tmp_path / "alone", setting)


def test_checkpoints_of_finished_runs_are_cleared(tiny, tmp_path):
    setting = run_settings(select(tiny, ["Copy"]))[0]
    open_results(tmp_path, tiny)
    play(setting, tmp_path)
    checkpoint_folder(tmp_path, setting).mkdir()
    other = checkpoint_folder(tmp_path, replace(setting, seed=9))
    other.mkdir()
    open_results(tmp_path, tiny)
    assert not checkpoint_folder(tmp_path, setting).exists()
    assert other.exists()
