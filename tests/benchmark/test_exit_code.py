"""How long programs end."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from agents.benchmark.command import exit_code
from agents.benchmark.suites import BenchmarkError


def raising(error: BaseException):
    def main() -> int:
        raise error

    return main


def test_what_the_program_returns():
    assert [exit_code(lambda code=code: code, Path("out")) for code in (0, 1)] == [0, 1]


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (BenchmarkError("no such preset"), 2, "no such preset\n"),
        (KeyError("theirs"), 2, "'theirs'\n"),
        (OSError(errno.ENOSPC, "no space left"), 2, "no space left on the disk of out"),
        (
            KeyboardInterrupt(),
            130,
            "is kept in out.\nThe same command goes on from there:\n  python ",
        ),
    ],
)
def test_ends_with_a_message(error, code, says, capsys):
    assert exit_code(raising(error), Path("out"), KeyError) == code
    assert says in capsys.readouterr().err


def test_restart_is_not_repeated(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["scripts/x.py", "--restart", "--out", "a b"])
    exit_code(raising(KeyboardInterrupt()), Path("a b"))
    assert "  python scripts/x.py --out 'a b'\n" in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyError("x"), OSError(errno.EACCES, "not allowed")])
def test_what_nobody_expected_is_raised(error):
    with pytest.raises(type(error)):
        exit_code(raising(error), Path("out"))
