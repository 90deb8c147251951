"""What is installed: the wheel, the lock files, the set-up script, and the price of `import textenvs`."""

from __future__ import annotations

import email
import os
import shutil
import statistics
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("textenvs", "agents")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def read_lock(extra: str) -> dict[str, str]:
    """Canonical name -> version; fails on a line that is anything but an exact pin."""
    pins = {}
    for line in (ROOT / "requirements" / f"{extra}.lock").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        requirement = Requirement(line)
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", line
        assert "*" not in specifier.version, line
        assert "+" not in specifier.version, f"{line}: a local label exists on some machines only"
        assert requirement.url is None, line
        pins[canonicalize_name(requirement.name)] = specifier.version
    return pins


def declared(extra: str) -> Iterator[Requirement]:
    """The requirements of the project with an extra, other extras of the project followed."""
    for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"][extra]:
        requirement = Requirement(text)
        if requirement.name == PROJECT["name"]:
            for inner in requirement.extras:
                yield from declared(inner)
        else:
            yield requirement


def run_command(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    folder = tmp_path_factory.mktemp("wheel")
    offline = ["--no-index", "--no-deps", "--no-build-isolation"]
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", *offline, "--wheel-dir", str(folder), str(ROOT)]
    built = run_command(command)
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_wheel_holds_both_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    expected = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"textenvs/__init__.py", "textenvs/py.typed", "agents/__init__.py", "agents/py.typed"} <= expected
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == expected


def test_every_folder_of_python_files_is_a_package() -> None:
    folders = {path.parent for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_wheel_needs_only_numpy_and_gymnasium(wheel: zipfile.ZipFile) -> None:
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    fields = email.message_from_bytes(wheel.read(metadata))
    requirements = [Requirement(text) for text in fields.get_all("Requires-Dist", [])]
    core = {each.name for each in requirements if each.marker is None or each.marker.evaluate({"extra": ""})}
    assert core == {"numpy", "gymnasium"}
    assert {"agents", "test"} <= set(fields.get_all("Provides-Extra", []))
    assert fields["Requires-Python"] == ">=3.11"
    assert fields["License-Expression"] == "MIT"
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel.namelist())


@pytest.mark.parametrize("extra", ["agents", "test"])
def test_lock_satisfies_the_declared_ranges(extra: str) -> None:
    pins = read_lock(extra)
    for requirement in declared(extra):
        version = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} is locked at {version}"


def test_test_lock_is_the_agents_lock_and_more() -> None:
    agents, test = read_lock("agents"), read_lock("test")
    assert agents == {name: test.get(name) for name in agents}
    assert len(test) > len(agents)


def test_import_is_quick_and_leaves_torch_alone(tmp_path: Path) -> None:
    """Under 0.5 s of processor time, which other tests running beside this one hardly change.

    The median of five fresh processes, after one that writes the bytecode.
    """
    program = """
import sys, time
start = time.process_time()
import textenvs
print(time.process_time() - start)
heavy = {"torch", "agents", "transformers", "matplotlib", "stable_baselines3"} & set(sys.modules)
assert not heavy, f"`import textenvs` imports {sorted(heavy)}"
"""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environ["PYTHONPYCACHEPREFIX"] = str(tmp_path)
    seconds = []
    for _ in range(6):
        run = run_command([sys.executable, "-c", program], cwd=ROOT, env=environ)
        assert run.returncode == 0, run.stderr
        seconds.append(float(run.stdout))
    assert statistics.median(seconds[1:]) < 0.5, seconds


@pytest.fixture
def bare_checkout(tmp_path: Path) -> Path:
    """A folder with a space in its name that has what set-up reads, and no .venv."""
    checkout = tmp_path / "new user"
    shutil.copytree(ROOT / "requirements", checkout / "requirements")
    (checkout / "scripts").mkdir()
    for name in ("pyproject.toml", "scripts/setup_venv.sh", "scripts/test.sh", "scripts/quickstart.sh"):
        shutil.copy(ROOT / name, checkout / name)
    return checkout


def write_program(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


def run_script(path: Path, *arguments: str, python: Path | str) -> subprocess.CompletedProcess[str]:
    """Runs a script from another folder."""
    return run_command(["bash", str(path), *arguments], cwd=path.anchor, env=os.environ | {"PYTHON": str(python)})


@pytest.mark.parametrize("script", ["test.sh", "quickstart.sh"])
@pytest.mark.parametrize(
    ("program", "message"),
    [
        (None, "not found"),
        ("echo 'launcher: version not installed' >&2; exit 127", "launcher: version not installed"),
        ("echo 'it is Python 3.9, and 3.11 or newer is needed' >&2; exit 1", "3.11 or newer is needed"),
    ],
)
def test_setup_says_why_no_python_will_do(
    bare_checkout: Path, tmp_path: Path, script: str, program: str | None, message: str
) -> None:
    python = tmp_path / "some python"
    if program is not None:
        write_program(python, f"#!/bin/sh\n{program}\n")
    result = run_script(bare_checkout / "scripts" / script, python=python)
    assert result.returncode == 1
    assert "No suitable Python found" in result.stderr
    assert f"{python}: " in result.stderr
    assert message in result.stderr
    assert not (bare_checkout / ".venv").exists()


# Stands for an interpreter: makes an "environment" whose Python is itself, and notes what pip is to install.
FAKE_PYTHON = """#!/bin/sh
case "$1 $2" in
    "-c "*) echo 3.11.0 ;;
    "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip")
        [ "$3" = install ] || exit 0
        echo "$@" >>"$PIP_NOTES"
        [ ! -e "$PIP_NOTES.fail" ] || { echo "no such release"; exit 1; } ;;
    *) echo "ran: $*" ;;
esac
"""


def test_setup_installs_once_upgrades_and_repairs(
    bare_checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = tmp_path / "notes"
    monkeypatch.setenv("PIP_NOTES", str(notes))
    python = write_program(tmp_path / "python", FAKE_PYTHON)
    scripts = bare_checkout / "scripts"

    def locks_installed() -> list[str]:
        """The lock files that pip was given since the last call."""
        text = notes.read_text(encoding="utf-8") if notes.exists() else ""
        notes.unlink(missing_ok=True)
        return [word for word in text.split() if word.endswith(".lock")]

    # An installation that fails shows the end of pip's output, and the next run goes on from there.
    failing = tmp_path / "notes.fail"
    failing.touch()
    result = run_script(scripts / "quickstart.sh", python=python)
    assert result.returncode == 1
    assert "no such release" in result.stderr
    assert "Run the same command again" in result.stderr
    assert locks_installed() == ["requirements/agents.lock"]
    failing.unlink()
    result = run_script(scripts / "quickstart.sh", "--seeds", "2", python=python)
    assert result.returncode == 0
    assert "making .venv" not in result.stdout
    assert result.stdout.endswith("ran: scripts/benchmark.py --preset quick --seeds 2\n")
    assert locks_installed() == ["requirements/agents.lock"]

    # A second run installs nothing; test.sh adds its lock, after which neither script installs anything.
    result = run_script(scripts / "quickstart.sh", python=python)
    assert "ran: scripts/benchmark.py --preset quick\n" in result.stdout
    assert result.stdout.endswith("ran: scripts/rlhf.py --preset short\n")
    assert locks_installed() == []
    result = run_script(scripts / "test.sh", "tests/x.py", "-k", "a b", python=python)
    assert result.stdout.endswith("ran: -m pytest -n 2 tests/x.py -k a b\n")
    assert locks_installed() == ["requirements/test.lock"]
    for script in ("quickstart.sh", "test.sh"):
        assert run_script(scripts / script, python=python).returncode == 0
    assert locks_installed() == []

    # A changed lock is installed into the environment that is there.
    with (bare_checkout / "requirements" / "test.lock").open("a", encoding="utf-8") as lock:
        lock.write("# changed\n")
    result = run_script(scripts / "test.sh", python=python)
    assert "making .venv" not in result.stdout
    assert locks_installed() == ["requirements/test.lock"]

    # One whose set-up was killed is made anew, and so is one that was moved.
    (bare_checkout / ".venv" / ".installing").touch()
    (bare_checkout / ".venv" / ".installed-test").unlink()
    result = run_script(scripts / "test.sh", python=python)
    assert "its set-up was cut short" in result.stdout
    assert locks_installed() == ["requirements/test.lock"]
    moved = bare_checkout.rename(tmp_path / "moved")
    result = run_script(moved / "scripts" / "test.sh", python=python)
    assert "it was made in another folder" in result.stdout
    assert locks_installed() == ["requirements/test.lock"]
