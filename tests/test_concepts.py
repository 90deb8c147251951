"""docs/concepts.md: every file, function and command that it names exists, and its figures are the script's."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")
SECTIONS = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")[1:]}
COMMANDS = sorted(set(re.findall(r"`(python scripts/[^`]+)`", PAGE)))


@pytest.fixture(scope="module")
def ppo_update() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ppo_update", ROOT / "scripts" / "ppo_update.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ppo_update"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("question", SECTIONS)
def test_every_question_names_a_file_and_what_it_names_exists(question: str) -> None:
    text = SECTIONS[question]
    files = re.findall(r"`((?:textenvs|agents|scripts|docs)/[\w./]+)`", text)
    assert files
    assert not [name for name in files if not (ROOT / name).is_file()]
    # `file.py` (`one`, `two`): they are defined or registered there.
    for name, inside in re.findall(r"`([\w/]+\.py)` \(((?:`\w+`(?:, )?)+)\)", text):
        code = (ROOT / name).read_text(encoding="utf-8")
        for word in re.findall(r"`(\w+)`", inside):
            assert re.search(rf'def {word}\b|class {word}\b|register_reward\("{word}"\)', code), (name, word)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_exist_with_their_options(command: str) -> None:
    """The script's own help knows each option, and each preset."""
    script, *options = shlex.split(command)[1:]
    done = subprocess.run([sys.executable, ROOT / script, "--help"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    for option in options:
        if option.startswith("--"):
            assert option in done.stdout, f"{script} has no {option}"
        else:
            assert option in done.stdout + (ROOT / script).read_text(), f"{script} does not know {option}"


def test_commands_are_found() -> None:
    """The pattern above finds those that the page is known to have."""
    assert {"python scripts/ppo_update.py", "python scripts/rlhf.py --preset quick"} <= set(COMMANDS)
    assert len(SECTIONS) >= 14


def test_the_update_in_the_table_is_the_scripts(ppo_update: ModuleType) -> None:
    torch.set_num_threads(1)
    agent = ppo_update.make_agent(0, 3_840)
    batch = ppo_update.prepare(agent, agent.collector.collect(ppo_update.LENGTH))
    ppo_update.gradient_step(agent, batch, agent.config.clip_coef)
    with torch.no_grad():
        ratios = (agent.policy.evaluate(batch.rows, batch.lengths).logprobs - batch.logprobs).exp()
    names = (
        "logprobs",
        "ref_logprobs",
        "penalties",
        "scores",
        "rewards",
        "values",
        "advantages",
        "returns",
        "whitened",
    )
    lines = PAGE.partition("<!-- ppo_update")[2].split("\n")[3:9]
    assert len(lines) == 6
    for line, (i, t) in zip(lines, ((i, t) for i in range(2) for t in range(3)), strict=True):
        cells = [cell.strip().replace("−", "-") for cell in line.strip("|").split("|")]
        assert cells[1] == agent.text_spec.vocab.decode([int(batch.rows[i, ppo_update.LENGTH + t])])
        numbers = [getattr(batch, name)[i, t].item() for name in names] + [ratios[i, t].item()]
        # Another processor rounds otherwise, and learning carries that along.
        assert [float(cell) for cell in cells[2:]] == pytest.approx(numbers, abs=0.02)


def test_the_update_taken_apart_is_the_one_that_ppo_makes(ppo_update: ModuleType) -> None:
    """The same weights after it, to rounding."""
    one, other = (ppo_update.make_agent(1, 480) for _ in range(2))
    rollout = one.collector.collect(ppo_update.LENGTH)
    ppo_update.gradient_step(one, ppo_update.prepare(one, rollout), one.config.clip_coef)
    before = other.parameters.clone()
    metrics = other._update(other.collector.collect(ppo_update.LENGTH))
    assert not torch.allclose(before, other.parameters, atol=1e-4)
    assert torch.allclose(one.parameters, other.parameters, atol=1e-6)
    assert metrics["losses/clipfrac"] == 0


def test_clipping_holds_the_policy_back(ppo_update: ModuleType) -> None:
    torch.set_num_threads(1)
    held, free = (ppo_update.many_steps(0, 960, clip, 25, 32)[0] for clip in (0.2, ppo_update.NO_CLIPPING))
    assert held[0] == free[0] == 0
    assert 0 < held[-1] < free[-1] / 2


def test_the_script_writes_its_figure(ppo_update: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    ppo_update.main(ppo_update.Args(preset="smoke", out=tmp_path))
    printed = capsys.readouterr().out
    assert (tmp_path / "ppo_update.png").read_bytes().startswith(b"\x89PNG")
    assert "every ratio is 1" in printed
    assert re.search(r"3 steps on one batch, not clipped: KL \d+\.\d\d nats, expected score", printed)
