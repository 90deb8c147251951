#!/usr/bin/env bash
# From a bare clone to a report: sets up .venv, trains PPO and DQN on three environments and compares them.
# Usage: bash scripts/quickstart.sh [ARGUMENTS OF scripts/benchmark.py]      (paths are relative to the checkout)
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "$0")/.."
bash scripts/setup_venv.sh agents
exec .venv/bin/python scripts/benchmark.py --preset quick "$@"
