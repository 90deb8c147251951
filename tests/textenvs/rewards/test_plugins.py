"""Everyone else's functions, unchanged: installed packages, TRL's reward functions."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from texts import make_episodes

import textenvs
from textenvs.rewards import Judge, RewardError, make_reward

PLUGIN = '''
import numpy as np

class Vowels:
    """Share of vowels."""
    low, high, deterministic = 0.0, 1.0, True
    def __init__(self, letters="aeiou"):
        self.letters = letters
    def score(self, episodes):
        return np.array([sum(c in self.letters for c in t) / max(len(t), 1) for t in episodes.completions], np.float32)

def shout(completions):
    return [float(t.isupper()) for t in completions]
'''

PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "vowel-rewards"
version = "0.1"
[project.entry-points."textenvs.rewards"]
vowels = "vowel_rewards:Vowels"
shout = "vowel_rewards:shout"
gone = "vowel_rewards:missing"
match = "vowel_rewards:shout"
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A real little package, built to a wheel, installed into a folder of its own, and put on the path."""
    source = tmp_path_factory.mktemp("source")
    (source / "pyproject.toml").write_text(PYPROJECT)
    (source / "vowel_rewards.py").write_text(PLUGIN)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*build, "--no-build-isolation", "-w", str(source), str(source)], check=True)
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(next(source.glob("*.whl"))) as wheel:  # all that installing a pure wheel does
        wheel.extractall(site)
    sys.path.insert(0, str(site))
    yield site
    sys.path.remove(str(site))


@pytest.mark.usefixtures("installed")
def test_an_installed_package_is_found_by_name() -> None:
    assert {"vowels", "shout"} <= set(textenvs.list_rewards())
    scores = Judge(make_reward("vowels"))(make_episodes(["abe", "bcd"])).total
    np.testing.assert_allclose(scores, [2 / 3, 0.0], rtol=1e-6)
    assert make_reward("vowels:bc").letters == "bc"
    assert make_reward({"name": "vowels", "letters": "x"}).letters == "x"
    assert make_reward("shout").name == "shout"
    assert make_reward([(1.0, "vowels"), (0.5, "match")]).name == "weighted_sum"


@pytest.mark.usefixtures("installed")
def test_a_built_in_name_wins_over_an_announced_one() -> None:
    assert type(make_reward("match")).__name__ == "Match"


@pytest.mark.usefixtures("installed")
def test_a_package_that_cannot_be_loaded_is_named() -> None:
    with pytest.raises(ValueError, match=r"'gone' is announced by the installed package 'vowel-rewards'.*missing"):
        make_reward("gone")


def test_found_from_a_fresh_interpreter(installed: Path) -> None:
    code = "import gymnasium, textenvs; print(gymnasium.make('textenvs/Copy-v0', reward='vowels').unwrapped.task.name)"
    path = os.pathsep.join([str(installed), str(Path(textenvs.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "Copy"


def test_trl_reward_functions_run_unchanged() -> None:
    rewards = pytest.importorskip("trl.rewards", reason="TRL is a test dependency: pip install 'textenvs[test]'")
    texts = make_episodes(["abab", "abcd", "aaaaaaaa"])
    lengths = texts.lengths.tolist()
    assert lengths == [5, 5, 9]  # EOS counts

    repetition = rewards.get_repetition_penalty_reward(ngram_size=2, max_penalty=-1.0)
    expected = repetition([row[:n] for row, n in zip(texts.completion_ids.tolist(), lengths, strict=True)])
    np.testing.assert_allclose(Judge(make_reward(repetition))(texts).total, expected, rtol=1e-6)
    assert expected[0] < 0 == expected[1]

    overlong = rewards.get_soft_overlong_punishment(max_completion_len=8, soft_punish_cache=4)
    ours = {"name": "length_penalty", "mode": "soft_overlong", "target": 4, "max_length": 8, "slope": 1.0}
    flat = {**ours, "reward": lambda completions: [0.0] * len(completions)}
    np.testing.assert_allclose(Judge(make_reward(overlong))(texts).total, [-0.25, -0.25, -1.0])
    np.testing.assert_allclose(Judge(make_reward(flat))(texts).total, [-0.25, -0.25, -1.0])

    think = {"name": "trl.rewards:think_format_reward", "messages": True}
    np.testing.assert_array_equal(Judge(make_reward(think))(texts).total, [0.0, 0.0, 0.0])


def test_messages_are_given_to_functions_that_read_them() -> None:
    seen = []

    def reads_messages(prompts: list, completions: list) -> list[float]:
        seen.extend([prompts, completions])
        return [float(len(message[0]["content"])) for message in completions]

    model = textenvs.rewards.FunctionReward(reads_messages, messages=True)
    np.testing.assert_array_equal(Judge(model)(make_episodes(["ab", "c"], ["d", ""])).total, [2.0, 1.0])
    assert seen[0] == [[{"role": "user", "content": "d"}], [{"role": "user", "content": ""}]]
    assert seen[1][0] == [{"role": "assistant", "content": "ab"}]


def test_a_missing_column_is_named() -> None:
    def needs_solution(completions: list[str], solution: list[str]) -> list[float]:
        return [0.0] * len(completions)

    with pytest.raises(RewardError, match=r"needs 'solution'.*Columns: answer"):
        Judge(make_reward(needs_solution))(make_episodes(["a"], answer=["b"]))
