#!/usr/bin/env bash
# Makes .venv in the checkout, installs the locked packages and this project into it, and does nothing when that is done.
# Usage: bash scripts/setup_venv.sh agents|test        (test is a superset of agents; both share the one .venv)
# PYTHON=/path/to/python chooses the interpreter of a new .venv; delete .venv to begin afresh.
set -euo pipefail

extra=${1:-}
case $extra in
    agents | test) ;;
    *) echo "usage: bash scripts/setup_venv.sh agents|test" >&2; exit 2 ;;
esac
CDPATH='' cd -- "$(dirname -- "$0")/.."
root=$(pwd -P)
unset PYTHONHOME

say() { printf '[setup] %s\n' "$*"; }
fail() { printf '[setup] %s\n' "$@" >&2; exit 1; }

# What an up-to-date stamp says. The folder is part of it, since an environment does not work once it is moved.
stamp() { printf '%s\n' "$root"; cat pyproject.toml requirements/agents.lock requirements/test.lock; }
up_to_date() { [ -x .venv/bin/python ] && [ -f ".venv/.installed-$extra" ] && stamp | cmp -s - ".venv/.installed-$extra"; }

# Prints the version of an interpreter that will do; otherwise fails and prints why it will not.
probe='
import sys
if sys.version_info < (3, 11):
    sys.exit("it is Python %d.%d, and 3.11 or newer is needed" % sys.version_info[:2])
try:
    import ensurepip, venv
except ImportError:
    sys.exit("it lacks the venv module (Debian and Ubuntu: apt install python3-venv)")
print("%d.%d.%d" % sys.version_info[:3])
'
find_python() {  # sets python and version
    local candidate candidates=(python3 python3.14 python3.13 python3.12 python3.11) reasons=()
    if [ -n "${PYTHON:-}" ]; then candidates=("$PYTHON"); fi
    for candidate in "${candidates[@]}"; do
        command -v -- "$candidate" >/dev/null || { reasons+=("  $candidate: not found"); continue; }
        # Each one is run: a launcher on the PATH does not mean that the version behind it is there.
        if version=$("$candidate" -c "$probe" 2>&1); then python=$candidate; return; fi
        reasons+=("  $candidate: ${version%%$'\n'*}")
    done
    fail "No suitable Python found. Python 3.11 or newer with venv is needed; PYTHON=/path/to/python names one." "${reasons[@]}"
}

# Why the present .venv cannot be used; nothing if it can.
broken() {
    if [ -e .venv/.installing ]; then echo "its set-up was cut short"
    elif [ -f .venv/.installed-agents ] && [ "$(head -n 1 .venv/.installed-agents)" != "$root" ]; then echo "it was made in another folder"
    elif ! .venv/bin/python -c "$probe" >/dev/null 2>&1; then echo "its Python is missing or too old"
    elif ! .venv/bin/python -m pip --version >/dev/null 2>&1; then echo "it has no pip"
    fi
}

install() {
    .venv/bin/python -m pip install --quiet --disable-pip-version-check "$@" >>.venv/install.log 2>&1 && return
    rm .venv/.installing  # pip gave up in good order: a retry can build on what is there
    tail -n 25 .venv/install.log >&2
    fail "The installation failed; above is the end of .venv/install.log. Run the same command again to retry."
}

if up_to_date; then
    say "using .venv (up to date)"
    exit 0
fi

# Two runs at the same time wait for each other, where the system has flock; the lock goes with this process.
exec 9<requirements/test.lock
if command -v flock >/dev/null; then flock 9; fi
if up_to_date; then exit 0; fi

if [ -e .venv ] || [ -L .venv ]; then
    reason=$(broken)
    if [ -n "$reason" ]; then
        say "making .venv anew: $reason"
        rm -rf .venv
    fi
fi
if [ ! -e .venv ]; then
    find_python
    say "making .venv with Python $version ($python)"
    mkdir .venv
    touch .venv/.installing
    "$python" -m venv .venv || fail "'$python -m venv .venv' failed."
fi
rm -f .venv/.installed-agents .venv/.installed-test .venv/install.log
touch .venv/.installing

say "installing the packages of requirements/$extra.lock (about a minute; longer where torch is downloaded)"
install -r "requirements/$extra.lock"
say "installing this project"
install --no-deps --no-build-isolation --editable .

stamp >.venv/.installed-agents
if [ "$extra" = test ]; then stamp >.venv/.installed-test; fi
rm .venv/.installing
say "ready after $SECONDS s"
