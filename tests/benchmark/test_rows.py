"""Rows on disk: exact when written and read, and damage is named with its line."""

import json
import math

import pytest

from agents.benchmark.rows import COLUMNS, read_run, rows_text
from agents.benchmark.suites import BenchmarkError


@pytest.fixture
def folder(tmp_path, synthetic_run):
    run = synthetic_run(budget=400, stop_at=2.0)
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "rows.csv").write_text(rows_text(run.rows))
    (folder / "settings.json").write_text(json.dumps(run.settings))
    return folder


def test_written_and_read_gives_the_same_bits(folder, synthetic_run):
    run, again = synthetic_run(budget=400, stop_at=2.0), read_run(folder)
    assert math.isnan(again.rows[0].sampled_score)
    assert math.isnan(again.rows[0].normalised_sampled)
    assert again.rows[1:] == run.rows[1:]
    assert (again.environment, again.agent, again.seed, again.solved) == ("Reverse 4 of 8", "PPO", 0, False)
    assert again.column("episodes") == [0, 64, 128, 192, 256, 320, 384]


def edit(folder, line, column, value):
    path = folder / "rows.csv"
    lines = [text.split(",") for text in path.read_text().splitlines()]
    lines[line - 1][COLUMNS.index(column)] = value
    path.write_text("\n".join(",".join(fields) for fields in lines) + "\n")


@pytest.mark.parametrize(
    ("line", "column", "value", "message"),
    [
        (1, "episodes", "episode", "header should be"),
        (3, "episodes", "many", "episodes is 'many'"),
        (3, "episodes", "64.5", "not a number"),
        (3, "greedy_score", "nan", "greedy_score is 'nan'"),
        (4, "sampled_score", "nan", "sampled_score is 'nan'"),
        (4, "greedy_score", "1.0", "when normalised"),
        (4, "normalised_sampled", "", "when normalised"),
        (5, "episodes", "64", "can only grow"),
        (5, "timesteps", "1", "can only grow"),
        (5, "seconds", "-1.0", "can only grow"),
        (2, "agent", "DQN", "DQN, seed 0"),
        (2, "seed", "1", "seed 1"),
    ],
)
def test_an_edited_line_is_named(folder, line, column, value, message):
    edit(folder, line, column, value)
    with pytest.raises(BenchmarkError, match=rf"rows\.csv, line {line}: .*{message}.*Delete the folder"):
        read_run(folder)


def test_a_truncated_file_is_named_wherever_it_was_cut(folder):
    path = folder / "rows.csv"
    text = path.read_text()
    for length in {*range(0, len(text), 7), *range(len(text) - 40, len(text))}:
        path.write_text(text[:length])
        line = text[:length].count("\n") + 1
        with pytest.raises(BenchmarkError, match=r"rows\.csv, line \d+: ") as caught:
            read_run(folder)
        named = int(str(caught.value).split("line ")[1].split(":")[0])
        assert named in (line, line - 1), "the line that was cut, or the last that is whole"


def test_an_added_line_is_noticed(folder):
    path = folder / "rows.csv"
    fields = path.read_text().splitlines()[-1].split(",")
    fields[COLUMNS.index("episodes")] = "9999"
    path.write_text(path.read_text() + ",".join(fields) + "\n")
    with pytest.raises(BenchmarkError, match="8 of 7 rows"):
        read_run(folder)


@pytest.mark.parametrize("damage", ["{", "[]", "{}"])
def test_unusable_settings_are_named(folder, damage):
    (folder / "settings.json").write_text(damage)
    with pytest.raises(BenchmarkError, match=r"settings\.json cannot be used.*Delete the folder"):
        read_run(folder)


def test_missing_rows_are_named(folder):
    (folder / "rows.csv").unlink()
    with pytest.raises(BenchmarkError, match=r"rows\.csv cannot be read"):
        read_run(folder)


def test_rows_from_before_reward_calls_were_counted_are_read(folder):
    path = folder / "rows.csv"
    lines = [line.split(",") for line in path.read_text().splitlines()]
    new = [COLUMNS.index("reward_calls"), COLUMNS.index("distinct_texts")]
    path.write_text("".join(",".join(x for i, x in enumerate(line) if i not in new) + "\n" for line in lines))
    run = read_run(folder)
    assert run.column("reward_calls") == run.column("episodes")
    assert set(run.column("distinct_texts")) == {0}
