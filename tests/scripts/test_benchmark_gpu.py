"""scripts/benchmark_gpu.py on a machine without a GPU."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from rich.console import Console

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("benchmark_gpu", ROOT / "scripts" / "benchmark_gpu.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["benchmark_gpu"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["benchmark_gpu"]


@pytest.mark.parametrize("preset", ["full", "smoke"])
def test_without_a_gpu_it_says_so_and_runs_the_same_code_in_small(script, preset, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    options = script.Options(preset=preset, out=tmp_path / "table.md")
    assert script.main(options, Console(width=300)) == 0
    shown = capsys.readouterr().out
    assert "There is no GPU that PyTorch can use" in shown
    assert "its figures mean nothing" in shown
    table = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()
    assert table[0].startswith("no accelerator")
    assert "2 layers, 32 wide, 300 words" in table[0]
    assert "float32" in table[0]
    assert [line.split(" | ")[0] for line in table[4:]] == [
        "| rollout, with log-probabilities and values",
        "| `generate` of transformers",
        "| PPO: rollout, reference, one epoch",
    ]
    assert table[5].split(" | ")[2] == "1.00"


def test_an_unknown_preset(script, capsys):
    assert script.main(script.Options(preset="quick"), Console(width=200)) == 2
    assert "Unknown preset" in capsys.readouterr().out
