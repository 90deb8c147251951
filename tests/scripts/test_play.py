"""scripts/play.py: a person at a scripted keyboard, and agents that are watched."""

from __future__ import annotations

import importlib.util
import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import tyro

from agents import DQN, PPO
from textenvs import TextEnv, TextVectorEnv, Vocab
from textenvs.tasks.copying import Copy

ROOT = Path(__file__).resolve().parents[2]
SIZES = ["--env-args", "length", "3", "num_symbols", "4"]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("play_script", ROOT / "scripts" / "play.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def play(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., list[str]]:
    """Runs the program on arguments and typed lines; the lines that it printed."""

    def run(*arguments: str, typed: str = "") -> list[str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        script.main(tyro.cli(script.Args, args=list(arguments)))
        return capsys.readouterr().out.splitlines()

    return run


class OnlyUpwards(Copy):
    """Copy, but a symbol must not be smaller than the one before it."""

    has_masks = True

    def action_masks(self, rows: np.ndarray, written: np.ndarray) -> np.ndarray:
        before = rows[np.arange(len(rows)), self.prompt_length + np.maximum(written - 1, 0)]
        least = np.where(written > 0, np.minimum(before, self.pad_id - 1), 0)
        return np.arange(self.pad_id) >= least[:, None]


@pytest.fixture
def upwards() -> Any:
    gym.register(id="play/Upwards-v0", entry_point=TextEnv, vector_entry_point=TextVectorEnv,
                 kwargs={"task": OnlyUpwards(length=3, num_symbols=4)})  # fmt: skip
    yield "play/Upwards-v0"
    del gym.registry["play/Upwards-v0"]


# -- a person ----------------------------------------------------------------------------------------------------------


def test_a_person_writes_token_by_token_and_many_at_once(play: Callable[..., list[str]]) -> None:
    obs, _ = gym.make("textenvs/Reverse-v0", length=3, num_symbols=4).reset(seed=5)
    prompt = "".join(map(str, obs[:3]))
    a, b, c = reversed(prompt)
    lines = play("textenvs/Reverse-v0", *SIZES, "--seed", "5", typed=f"{a}\n{b}{c}\n#0\n#0\n#0\n:q\n")
    assert lines[1:3] == [f"{prompt} → ", "4 tokens: '0', '1', '2', '3'"]
    assert lines[3] == f"3 tokens left > {prompt} → {a}"
    assert lines[4] == f"2 tokens left > {prompt} → {a}{b}{c}  [score 1.000]"
    assert lines[5] == f"    a best text: {a}{b}{c}"
    many = play("textenvs/Reverse-v0", *SIZES, "--seed", "5", "--episodes", "1", typed=f"#{a} #{b}#{c}\n")
    assert many[3] == f"3 tokens left > {prompt} → {a}{b}{c}  [score 1.000]"
    ends = [line for line in lines if "[score" in line]
    assert len(ends) == 2
    scores = [float(re.search(r"score (\S+)\]", line)[1]) for line in ends]  # type: ignore[index]
    mean = re.fullmatch(r"2 texts, mean score (\S+)", lines[-1])
    assert mean is not None
    assert float(mean[1]) == pytest.approx(np.mean(scores), abs=0.002)


def test_an_empty_line_is_eos_and_what_cannot_be_written_is_asked_for_again(play: Callable[..., list[str]]) -> None:
    lines = play("textenvs/Prompts-v0", "--episodes", "1", typed="a!\n#99\n#2 #99\n#4\nat\n\n")
    assert lines[2].startswith("28 tokens: ' ', ',', 'a', 'b', ")
    assert lines[2].endswith("; an empty line ends the text")
    assert "'!' (piece 1 of 'a!') is not a token" in lines[3]
    assert "Token ids are 0 … 28." in "".join(lines)
    assert re.search(r"^7 tokens left|^8 tokens left", lines[-3]) or "cat" in "".join(lines)
    assert re.search(r"one \w+, two  → cat  \[score 0\.\d{3}\]$", lines[-2])
    assert lines[-1].startswith("    a best text: ")


def test_a_task_without_eos_says_so_and_the_input_may_end(play: Callable[..., list[str]]) -> None:
    lines = play("textenvs/Copy-v0", typed="\n1\n")
    assert "This task has no EOS: the text is over when its budget is spent." in "".join(lines)
    assert lines[-1].startswith("3 tokens left > ")


def test_illegal_tokens_are_not_written(play: Callable[..., list[str]], upwards: str) -> None:
    lines = "\n".join(play(upwards, "--episodes", "1", typed="2\n1\n3\n3\n"))
    assert "'1' is not allowed here (legal: 2 3)." in lines
    assert re.search(r"\d{3} → 233  \[score", lines)
    assert "2 tokens left (legal: 2 3) > " in lines


def test_parts_and_gold_scores_are_shown(play: Callable[..., list[str]]) -> None:
    reward = '{"name": "gold", "proxy": [[1, "match"], [0, "length"]], "gold": "prefix"}'
    lines = play("textenvs/HiddenTarget-v0", "--env-args", "length", "1", "--reward", reward, typed="#1\n")
    assert re.search(r"match \d\.000, length 1\.000, .*gold \d\.000", "\n".join(lines))


# -- agents ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("play") / "checkpoint"
    agent = PPO("textenvs/Copy-v0", env_kwargs={"length": 3, "num_symbols": 4}, num_envs=16, width=16, num_layers=1)
    agent.learn(2_000).save(folder)
    return folder


def test_a_saved_agent_is_watched_with_its_probabilities(play: Callable[..., list[str]], checkpoint: Path) -> None:
    """On the environment that it was trained on, whose arguments need not be given again."""
    lines = play("textenvs/Copy-v0", "--checkpoint", str(checkpoint), "--top", "4", "--seed", "1")
    agent = PPO.load(checkpoint)
    obs, _ = gym.make("textenvs/Copy-v0", length=3, num_symbols=4).reset(seed=1)
    thoughts = [line for line in lines if "    wrote" in line]
    assert len(thoughts) == 3
    for step, line in enumerate(thoughts):
        wrote = re.match(r"    wrote '(\d)' of (.*)$", line)
        assert wrote is not None
        shown = {int(token): float(share) for token, share in re.findall(r"'(\d)' (\S+)%", wrote[2])}
        action = int(agent.predict(obs)[0])
        assert int(wrote[1]) == action == max(shown, key=shown.__getitem__)
        assert sum(shown.values()) == pytest.approx(100, abs=0.3)
        drawn = agent.predict(np.tile(obs, (4_000, 1)), deterministic=False)[0]
        for token, share in shown.items():
            assert share == pytest.approx(100 * np.mean(drawn == token), abs=4)
        obs[3 + step] = action
    assert lines[-3].startswith("".join(map(str, obs[:3])) + " → " + "".join(map(str, obs[3:])) + "  [score")


def test_the_folder_of_a_run_is_enough(play: Callable[..., list[str]], checkpoint: Path) -> None:
    """As train.py leaves it: the checkpoint in a folder of that name, which knows its environment."""
    expected = play("textenvs/Copy-v0", "--checkpoint", str(checkpoint), "--seed", "3")
    assert play("--checkpoint", str(checkpoint.parent), "--seed", "3") == expected
    other = play("--checkpoint", str(checkpoint.parent), "--env-args", "split", "test", "--reward", "prefix")
    assert sum("    wrote" in line for line in other) == 3


def test_a_checkpoint_that_does_not_know_its_environment(play: Callable[..., list[str]], tmp_path: Path) -> None:
    PPO(gym.make_vec("textenvs/Copy-v0", num_envs=4, length=2), width=16, num_layers=1).save(tmp_path / "own")
    with pytest.raises(SystemExit, match="does not say how its environment was made: give its id, and its arguments"):
        play("--checkpoint", str(tmp_path / "own"))
    lines = play("textenvs/Copy-v0", "--env-args", "length", "2", "--checkpoint", str(tmp_path / "own"))
    assert sum("    wrote" in line for line in lines) == 2


def test_watching_with_a_mask_and_an_agent_of_values(
    play: Callable[..., list[str]], script: ModuleType, upwards: str, tmp_path: Path
) -> None:
    for name, agent, exact in (
        ("ppo", PPO(upwards, num_envs=4, width=16, num_layers=1), True),
        ("dqn", DQN(upwards, num_envs=4, width=16, num_layers=1, epsilon=0.5), False),
    ):
        agent.save(tmp_path / name)
        lines = play(upwards, "--checkpoint", str(tmp_path / name), "--sample", "--episodes", "2")
        assert sum("    wrote" in line for line in lines) == 6
        assert lines[-1].startswith("2 texts, mean score ")
        assert all(("≈" in line) is not exact for line in lines if "    wrote" in line)
        row = np.array([1, 2, 3, 2, 4, 4])
        mask = np.array([0, 0, 1, 1], dtype=np.int8)
        probabilities, is_exact = script.token_probabilities(agent, row, mask)
        assert is_exact is exact
        assert probabilities[:2].tolist() == [0, 0]
        assert probabilities.sum() == pytest.approx(1, abs=1e-5)


def test_agents_that_need_no_training(play: Callable[..., list[str]]) -> None:
    lines = play("textenvs/Sort-v0", *SIZES, "--agent", "OracleAgent", "--episodes", "3")
    assert lines[-1] == "3 texts, mean score 1.000"
    assert all(line.count("%") == 1 and "100.0%" in line for line in lines if "    wrote" in line)
    lines = play("textenvs/Sort-v0", *SIZES, "--agent", "RandomAgent", "--top", "9")
    assert all(line.count("%") == 4 for line in lines if "    wrote" in line)


def test_mistakes_are_named(play: Callable[..., list[str]], checkpoint: Path) -> None:
    for arguments, message in (
        (["textenvs/Copy-v0", "--agent", "OracelAgent"], "Did you mean 'OracleAgent'"),
        (
            ["textenvs/Copy-v0", "--agent", "RandomAgent", "--checkpoint", str(checkpoint)],
            "Give either --checkpoint or",
        ),
        (["CartPole-v1"], "CartPole-v1 is no text environment"),
        ([], r"Give the id of an environment, one of textenvs/Addition-v0, .*; or --checkpoint"),
        (["textenvs/Copi-v0"], r"Did you mean: `Copy`.* There are textenvs/Addition-v0, "),
        (["textenvs/Copy-v0", "--env-args", "lenght", "3"], "Unknown argument of Copy 'lenght'. Did you mean 'length'"),
        (["textenvs/Copy-v0", "--env-args", "length", "0"], "Copy: length must be at least 1, got 0"),
        (["textenvs/Copy-v0", "--reward", "mach"], "Unknown reward 'mach'. Did you mean 'match'"),
    ):
        with pytest.raises(SystemExit, match=message):
            play(*arguments)
    for arguments, message in (
        (["--checkpoint", str(checkpoint), "--env-args", "length", "5"], "prompt_length=3; this one has 5"),
        (["--checkpoint", str(checkpoint.parent / "none")], "none"),
    ):
        with pytest.raises(SystemExit, match=message):
            play("textenvs/Copy-v0", *arguments)


def test_only_some_of_a_large_vocabulary_is_listed(script: ModuleType) -> None:
    text = script.describe(TextEnv("Copy", num_symbols=100).text_spec)
    assert text.startswith("100 tokens: 'w0', 'w1', ")
    assert text.endswith("'w39', …")
    assert Vocab.symbols(100).tokens[39] == "w39"
