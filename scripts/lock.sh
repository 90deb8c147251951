#!/usr/bin/env bash
# Writes requirements/test.lock and requirements/agents.lock anew from the ranges in pyproject.toml.
# Usage: bash scripts/lock.sh [REQUIREMENT ...]           for example: bash scripts/lock.sh 'torch==2.13.0' 'numpy<2.5'
# Every package moves to the newest release that the ranges and the given requirements allow. Only torch stays at its
# locked version unless it is among them: its builds are large. PYTHON=/path/to/python chooses the interpreter.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

printf '%s\n' "$@" >"$work/held"
grep -qi '^torch\b' "$work/held" || grep '^torch==' requirements/test.lock >>"$work/held"

lock() {  # lock NAME EXTRAS CONSTRAINTS
    echo "resolving requirements/$1.lock"
    "${PYTHON:-python3}" -m venv "$work/$1"
    local pip=("$work/$1/bin/python" -m pip --disable-pip-version-check)
    "${pip[@]}" install --quiet --constraint "$3" hatchling ".[$2]"
    {
        echo "# Exact versions for scripts/setup_venv.sh, written by scripts/lock.sh. Ranges stand in pyproject.toml."
        # Left out: pip, this project, and what only torch's CUDA builds bring. A build's local label (+cpu) is cut off.
        "${pip[@]}" freeze --all --exclude pip --exclude textenvs | grep -vE '^(nvidia-|cuda-|triton==)' | sed 's/+.*//'
    } >"$work/$1.lock"
}
lock test test "$work/held"
lock agents agents,lm,sentiment "$work/test.lock"
mv "$work/test.lock" "$work/agents.lock" requirements/
