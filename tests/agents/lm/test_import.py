"""Language models are an extra: whoever does without them imports nothing of theirs."""

from __future__ import annotations

import subprocess
import sys


def test_agents_import_without_transformers() -> None:
    program = """
import sys
sys.modules["transformers"] = sys.modules["peft"] = sys.modules["tokenizers"] = None  # as if not installed
import agents
try:
    agents.LMActorCritic.from_pretrained("gpt2")
except ImportError as error:
    assert "pip install 'textenvs[lm]'" in str(error), error
else:
    raise AssertionError("it worked")
try:
    agents.LMActorCritic(object())
except ImportError as error:
    assert "pip install 'textenvs[lm]'" in str(error), error
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
