#!/usr/bin/env bash
# Sets up .venv with the test extras and runs the tests.
# Usage: bash scripts/test.sh [ARGUMENTS OF pytest]                          (paths are relative to the checkout)
#   bash scripts/test.sh tests/test_packaging.py -k wheel     some of them
#   bash scripts/test.sh -m learning                          the ones that train until something is learnt
#   bash scripts/test.sh -n 0 --pdb                           in one process, with the debugger
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "$0")/.."
bash scripts/setup_venv.sh test
# Two worker processes with one thread each: more threads only wait for each other on networks this small.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} MKL_NUM_THREADS=${MKL_NUM_THREADS:-1}
echo "[test] running pytest"
exec .venv/bin/python -m pytest -n 2 "$@"
