"""Serve a reward model over HTTP, for the reward "http" of environments elsewhere.

Usage:
  python scripts/serve_reward.py lexicon_sentiment --port 8000
  python scripts/serve_reward.py '{"name": "regex", "pattern": "^[ab]+$"}'
  curl -s localhost:8000/score -H 'content-type: application/json' \
      -d '{"version": 1, "prompts": ["How was it?"], "completions": ["Great!"]}'

Then, in the program that trains: reward="http://127.0.0.1:8000/score". There is no authorisation: keep to loopback, or
put a proxy that has one in front.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reward", help="a registered name, name:argument, module:attribute, or JSON of a spec")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine alone)")
    parser.add_argument("--port", type=int, default=8000, help="0 for any free one (default: %(default)s)")
    parser.add_argument("--max-body-mib", type=float, default=64, help="refuse larger requests (default: %(default)s)")
    arguments = parser.parse_args()
    if not 0 <= arguments.port <= 65_535:
        sys.exit(f"--port must lie in 0 … 65535, got {arguments.port}.")
    if arguments.max_body_mib <= 0:
        sys.exit(f"--max-body-mib must be positive, got {arguments.max_body_mib:g}.")
    sys.path.insert(0, os.getcwd())  # rewards of one's own: module:attribute
    try:
        import uvicorn

        from textenvs.rewards.serving import create_app
    except ImportError as error:
        sys.exit(f"Serving needs FastAPI and uvicorn: pip install 'textenvs[serve]' ({error})")
    try:
        spec: Any = json.loads(arguments.reward) if arguments.reward.startswith(("{", "[")) else arguments.reward
        app = create_app(spec, max_body_bytes=int(arguments.max_body_mib * 2**20))
    except (ImportError, OSError, TypeError, ValueError) as error:
        sys.exit(f"Cannot build the reward {arguments.reward!r}: {error}")
    family = socket.AF_INET6 if ":" in arguments.host else socket.AF_INET
    try:
        listener = socket.create_server((arguments.host, arguments.port), family=family)
    except OSError as error:
        sys.exit(f"Cannot listen on {arguments.host}, port {arguments.port}: {error}")
    host = f"[{arguments.host}]" if family == socket.AF_INET6 else arguments.host
    print(f"serving {app.title} on http://{host}:{listener.getsockname()[1]}/score", flush=True)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
