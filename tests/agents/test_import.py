"""The agents are an extra: without it their import says what to install."""

from __future__ import annotations

import subprocess
import sys


def test_without_pytorch_the_extra_is_named() -> None:
    program = """
import sys
sys.modules["torch"] = None  # as if not installed
try:
    import agents
except ImportError as error:
    assert "pip install 'textenvs[agents]'" in str(error), error
else:
    raise AssertionError("it worked")
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
