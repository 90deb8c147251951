#!/usr/bin/env bash
# From a bare clone to two reports: sets up .venv, trains PPO and DQN on three environments and compares them, then a
# small language model by RLHF. With arguments, which are those of scripts/benchmark.py, the first half alone.
# Usage: bash scripts/quickstart.sh [ARGUMENTS OF scripts/benchmark.py]      (paths are relative to the checkout)
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "$0")/.."
bash scripts/setup_venv.sh agents
.venv/bin/python scripts/benchmark.py --preset quick "$@"
[ $# -eq 0 ] || exit 0
echo
echo "And now a language model: pretraining, SFT, a reward model from rankings, PPO."
exec .venv/bin/python scripts/rlhf.py --preset short
