"""A results folder: one folder for each finished run, and the settings that all of them share.

OUT/settings.json               what was run, by which code and versions; other settings are refused
OUT/runs/ENV__AGENT__SEED/      settings.json and rows.csv of one run; there only once it is finished
OUT/running/ENV__AGENT__SEED/   the checkpoint of a run that has not finished
OUT/failed/ENV__AGENT__SEED.txt the trace of a run that failed, until it succeeds
OUT/report.*, OUT/plots/        rebuilt from the rows
"""

import ast
import contextlib
import hashlib
import json
import lzma
import os
import platform
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

import agents
import textenvs
from agents.benchmark.rows import Run, read_run
from agents.benchmark.suites import BenchmarkError, RunSetting, Suite, suite_settings

PARTIAL = ".partial"
ROW_MODULES = tuple(
    f"agents/benchmark/{name}.py"
    for name in ("accounting", "entrants", "rows", "run", "run_checkpoint", "sb3_agents", "sb3_peers")
)
"""The part of the benchmark that decides rows: the rest comes after them, or its data is compared itself."""


def run_name(setting: RunSetting) -> str:
    """A file name for a run: "Reverse-4-of-8__PPO__0"."""
    return "__".join(_slug(part) for part in (setting.environment.name, setting.agent.name, str(setting.seed)))


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.+]+", "-", text).strip("-")


def run_folder(out: Path, setting: RunSetting) -> Path:
    return out / "runs" / run_name(setting)


def checkpoint_folder(out: Path, setting: RunSetting) -> Path:
    return out / "running" / run_name(setting)


def place_run(folder: Path, files: dict[str, str]) -> None:
    """Write a finished run's folder from the texts of its files: whole, or not at all."""
    unfinished = folder.with_name(f"{folder.name}{PARTIAL}-{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
        for name, text in files.items():
            with (unfinished / name).open("w", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())  # on disk before it counts as finished, power cuts included
        if not folder.is_dir():
            unfinished.replace(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def failure_file(out: Path, setting: RunSetting) -> Path:
    return out / "failed" / f"{run_name(setting)}.txt"


def is_finished(out: Path, setting: RunSetting) -> bool:
    """A run's folder gets its name once everything in it is written, so existing means finished."""
    return run_folder(out, setting).is_dir()


def versions() -> dict[str, str]:
    """Versions of everything that could change a row."""
    packages = {name: metadata.version(name) for name in ("gymnasium", "numpy", "torch")}
    return {"python": platform.python_version(), "textenvs": textenvs.__version__, **packages}


def code_digest() -> str:
    """Hash of the sources that decide the rows, comments and docstrings aside.

    With it, results of edited code are not taken for those of the new.
    """
    digest = hashlib.sha256()
    for package in (textenvs, agents):
        root = Path(package.__path__[0])
        for path in sorted(root.rglob("*.py")):
            name = path.relative_to(root.parent).as_posix()
            if name.startswith(("agents/lm/", "agents/rlhf/", "agents/benchmark/")) and name not in ROW_MODULES:
                continue
            digest.update(f"{name}\0{code_alone(path.read_text(encoding='utf-8'))}\0".encode())
    return digest.hexdigest()[:16]


def code_alone(source: str) -> str:
    """Python source as a syntax tree in text, without comments, layout and docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [
                part for part in node.body if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
            ]
    return ast.dump(tree)


def git_commit() -> str | None:
    """The commit of the sources ("+ changes" where the checkout differs from it); None outside of a
    repository.
    """
    root = Path(agents.__path__[0]).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        # A package installed inside of somebody else's repository is not that repository's commit.
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root.resolve():
            return None
        commit = git("rev-parse", "HEAD")
        return commit + (" + changes" if git("status", "--porcelain", "--", "agents", "textenvs") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def machine() -> dict[str, Any]:
    """What the seconds were measured on."""
    processor = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(encoding="utf-8", errors="replace"), re.M)
        processor = found.group(1) if found else processor
    return {
        "cores": os.cpu_count(),
        "processor": processor or platform.machine(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def shared_settings(suite: Suite) -> dict[str, Any]:
    """What all results of one folder have in common."""
    return {"suite": suite_settings(suite), "versions": versions(), "code": code_digest()}


def open_results(out: Path, suite: Suite) -> None:
    """Make a results folder, or go on with one; agents and environments may join it.

    Raises:
        BenchmarkError: the folder holds something else, or results of other settings.
    """
    settings = json.loads(json.dumps(shared_settings(suite)))
    path = out / "settings.json"
    if path.exists():
        there = read_json(path)
        joined = joined_settings(there, settings)
        _refuse_differences(out, joined, joined_settings(settings, there))
        if joined != there:
            write_json(path, joined)
        settings = joined
    open_folder(out, settings)
    for name in ("runs", "failed", "running"):
        (out / name).mkdir(exist_ok=True)
    for leftover in (out / "runs").glob(f"*{PARTIAL}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    for checkpoint in (out / "running").iterdir():
        if (out / "runs" / checkpoint.name).is_dir():
            shutil.rmtree(checkpoint, ignore_errors=True)


def joined_settings(settings: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """Settings with the agents and environments that only the others have."""
    suite = dict(settings.get("suite", {}))
    for kind in ("agents", "environments"):
        suite[kind] = {**others.get("suite", {}).get(kind, {}), **suite.get(kind, {})}
    return settings | {"suite": suite}


def open_folder(out: Path, settings: dict[str, Any]) -> None:
    """Make a folder with its ``settings.json``, or go on with one of the same settings.

    Raises:
        BenchmarkError: the folder holds something else, or results of other settings.
    """
    path = out / "settings.json"
    settings = json.loads(json.dumps(settings))  # as they will be read back: lists, no tuples
    if path.exists():
        _refuse_differences(out, read_json(path), settings)
    elif out.exists() and any(out.iterdir()):
        raise BenchmarkError(
            f"{out} is not empty and holds no results of this program. Choose another folder with --out."
        )
    else:
        out.mkdir(parents=True, exist_ok=True)
        write_json(path, settings)


def _refuse_differences(out: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    found = differences(old, new)
    if found:
        shown = "\n".join(f"  {line}" for line in found[:12])
        more = f"\n  … and {len(found) - 12} more" if len(found) > 12 else ""
        raise BenchmarkError(
            f"{out} holds results of other settings, which must not be mixed with new ones:\n{shown}{more}\n"
            f"Choose another folder with --out, or give --restart to set the old results aside "
            f"(they are renamed, not deleted) and begin anew."
        )


@contextlib.contextmanager
def lock(out: Path) -> Iterator[None]:
    """Hold a results folder, so that two benchmarks do not work in it at once. Gone with the process, however
    it ends.

    Raises:
        BenchmarkError: another process holds it, or it can be no folder.
    """
    if out.exists() and not out.is_dir():
        raise BenchmarkError(f"{out} is a file: choose a folder with --out.")
    holder = FileLock(out.with_name(f".{out.name}.lock"))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        holder.acquire(timeout=0)
    except Timeout:
        raise BenchmarkError(
            f"Another benchmark is running in {out}. Wait for it, or choose another folder with --out."
        ) from None
    except OSError as error:
        raise BenchmarkError(f"There can be no folder {out} ({error}): choose another one with --out.") from error
    try:
        yield
    finally:
        holder.release()


def set_aside(out: Path) -> Path | None:
    """Rename a results folder to the first free "OUT.old-N"; None if there is none."""
    if not out.exists():
        return None
    number = 1
    while (target := out.with_name(f"{out.name}.old-{number}")).exists():
        number += 1
    out.rename(target)
    return target


@dataclass(frozen=True)
class Results:
    """What a results folder holds: its shared settings, its finished runs, and what could not be read, a sentence for
    each run."""

    settings: dict[str, Any]
    runs: list[Run]
    damaged: list[str]


def read_results(out: Path) -> Results:
    """A results folder, or one that was packed into a .tar.xz file. A damaged run is named with its file and line, and
    the others are used.

    Raises:
        BenchmarkError: neither of them.
    """
    if out.is_file():
        with tempfile.TemporaryDirectory() as unpacked:
            return read_results(_unpack(out, Path(unpacked)))
    if not (out / "settings.json").is_file():
        raise BenchmarkError(
            f"{out} is not a folder of results: it has no settings.json. scripts/benchmark.py makes one."
        )
    results = Results(read_json(out / "settings.json"), [], [])
    for folder in sorted(path for path in (out / "runs").glob("*") if path.is_dir() and PARTIAL not in path.name):
        try:
            results.runs.append(read_run(folder))
        except BenchmarkError as error:
            results.damaged.append(str(error))
    return results


def pack_results(out: Path, archive: Path) -> None:
    """Write what a report needs of a results folder, its settings and finished runs, into a .tar.xz file.

    The same results give the same bytes, whoever packs them.
    """

    def anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = entry.mtime = 0
        entry.uname = entry.gname = ""
        entry.mode = 0o755 if entry.isdir() else 0o644
        return entry

    read_results(out)  # complains about what is no folder of results
    runs = [run_file for run_file in (out / "runs").glob("*/*") if PARTIAL not in run_file.parent.name]
    archive.parent.mkdir(parents=True, exist_ok=True)
    temporary = archive.with_name(f"{archive.name}{PARTIAL}-{os.getpid()}")
    with tarfile.open(temporary, "w:xz") as file:
        for path in [out / "settings.json", *sorted(runs)]:
            file.add(path, path.relative_to(out).as_posix(), recursive=False, filter=anonymous)
    temporary.replace(archive)


def _unpack(archive: Path, folder: Path) -> Path:
    try:
        with tarfile.open(archive) as file:
            file.extractall(folder, filter="data")
    except (OSError, EOFError, tarfile.TarError, lzma.LZMAError) as error:
        raise BenchmarkError(
            f"{archive} cannot be read as a packed folder of results ({type(error).__name__}: {error})."
        ) from error
    return folder


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        BenchmarkError: it cannot be read, with the file and the place.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{path} cannot be read: {error}.") from error
    if not isinstance(value, dict):
        raise BenchmarkError(f"{path} does not hold a JSON object.")
    return value


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write JSON under a temporary name, then rename it."""
    temporary = path.with_name(f"{path.name}{PARTIAL}-{os.getpid()}")
    temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)


def differences(old: Any, new: Any) -> list[str]:
    """Lines "what: old there, new now" for every leaf that differs."""
    return list(_differences(old, new))


def _differences(old: Any, new: Any, name: str = "") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from _differences(old.get(key), new.get(key), f"{name} › {key}" if name else key)
    elif old != new:
        if name == "code":
            yield "code: the sources of textenvs or agents have changed since"
        else:
            there, now = (json.dumps(value, ensure_ascii=False) for value in (old, new))
            yield f"{name}: {there} there, {now} now"
