"""Rank answers on a page in the browser; rankings go into an SQLite file.

Usage:
  python scripts/annotate.py preferences.sqlite --answers answers.jsonl         rows {"prompt": …, "answers": […, …]}
  python scripts/annotate.py preferences.sqlite                                 go on
  python scripts/annotate.py preferences.sqlite --export rankings.jsonl --export-pairs pairs.jsonl
  python scripts/annotate.py --preset demo                                      reviews that a grammar wrote, to try it

The page is served to this machine alone. For annotators elsewhere, forward a port (ssh -L 8010:127.0.0.1:8010).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import sys
import tempfile
import threading
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

PRESETS = ("demo", "smoke")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", nargs="?", type=Path, help="the SQLite file; made if it is not there")
    parser.add_argument("--answers", type=Path, action="append", default=[], help="add answers from a JSONL file")
    parser.add_argument("--import", dest="imported", type=Path, help="add rankings or pairs from a JSONL file")
    parser.add_argument("--annotator", help="who ranked, of imported rows that do not say")
    parser.add_argument("--ignore", nargs="+", default=[], metavar="COLUMN", help="columns that are not to be imported")
    parser.add_argument("--export", type=Path, help="write the rankings as JSONL, and serve nothing")
    parser.add_argument("--export-pairs", type=Path, help="write rows {prompt, chosen, rejected, margin} as JSONL")
    parser.add_argument("--repeats", type=float, default=0.1, help="share of items shown twice (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8010, help="0 for any free one (default: %(default)s)")
    parser.add_argument("--preset", choices=PRESETS, help="demo: answers from a grammar; smoke: try all that there is")
    options = parser.parse_args()
    if not 0 <= options.port <= 65_535:
        return fail(f"--port must lie in 0 … 65535, got {options.port}.")
    if options.preset == "smoke":
        with tempfile.TemporaryDirectory() as folder:
            return smoke(Path(folder))
    if options.store is None and options.preset is None:
        return fail("Name the SQLite file that the rankings go into, or try --preset demo.")
    overwritten = clash(options)
    if overwritten is not None:
        return fail(f"{overwritten} would be overwritten: export to a file of its own.")
    return run(options)


def clash(options: argparse.Namespace) -> Path | None:
    """A file that is to be written, and is also the store, read from, or to be written once more."""
    written = [path.resolve() for path in (options.export, options.export_pairs) if path is not None]
    others = {path.resolve() for path in (options.store, options.imported, *options.answers) if path is not None}
    return next((path for path in written if path in others or written.count(path) > 1), None)


def fail(message: str) -> int:
    print(message, file=sys.stderr)
    return 2


def run(options: argparse.Namespace) -> int:
    """Add, export, or serve; returns the exit code."""
    from agents.lm.preferences import save_rankings
    from agents.preference_data import PreferenceStore, load_items, load_preferences, save_pairs

    try:
        with PreferenceStore(options.store or Path("annotate-demo.sqlite")) as store:
            for path in options.answers:
                items = load_items(path)
                print(f"{path}: {store.add_items(items)} of {len(items)} items are new")
            if options.imported is not None:
                found = load_preferences(options.imported, ignore=options.ignore)
                named = [replace(each, annotator=each.annotator or options.annotator) for each in found]
                print(f"{options.imported}: {store.add_rankings(named)} of {len(named)} rankings taken in")
            if options.preset == "demo" and not store.item_ids():
                store.add_items(demo_items(40))
            if options.export is not None or options.export_pairs is not None:
                rankings = store.rankings()
                if options.export is not None:
                    save_rankings(options.export, rankings)
                    print(f"{options.export}: {len(rankings)} rankings")
                if options.export_pairs is not None:
                    print(f"{options.export_pairs}: {save_pairs(options.export_pairs, rankings)} pairs")
                return 0
            return serve(store, options.repeats, options.port)
    except (ValueError, OSError) as error:
        return fail(str(error))


def demo_items(count: int, answers: int = 4) -> list[Any]:
    """Prompts of TinyReviews that the grammar goes on with in several ways."""
    from agents.preference_data import Item
    from textenvs.tiny_reviews import load_grammar

    beginnings: dict[str, list[str]] = {}
    for row in load_grammar().demonstrations(20_000, seed=0):
        texts = beginnings.setdefault(row["prompt"], [])
        if row["completion"] not in texts:
            texts.append(row["completion"])
    chosen = [(prompt, texts) for prompt, texts in beginnings.items() if len(texts) >= answers][:count]
    return [Item(prompt, tuple(texts[:answers])) for prompt, texts in chosen]


def make_server(store: Any, repeats: float, port: int) -> tuple[Any, socket.socket]:
    """A server and the socket that it listens on."""
    import uvicorn

    from agents.preference_data.serving import create_app

    app = create_app(store, repeats=repeats)
    try:
        listener = socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise OSError(f"Cannot listen on port {port} of this machine: {error}. Give another one (--port).") from None
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)
    return uvicorn.Server(config), listener


def serve(store: Any, repeats: float, port: int) -> int:
    """Serve the page until Ctrl-C."""
    try:
        server, listener = make_server(store, repeats, port)
    except ImportError as error:
        return fail(f"The page needs FastAPI and uvicorn: pip install 'textenvs[annotate]' ({error})")
    address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    print(f"{len(store.item_ids())} items in {store.path}; the page is at {address} (Ctrl-C ends it)", flush=True)
    for name, progress in store.annotators().items():
        print(f"  {name}: {progress.ranked} ranked, {progress.skipped} skipped", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    print(f"Export with: python scripts/annotate.py {store.path} --export rankings.jsonl", flush=True)
    return 0


def smoke(folder: Path) -> int:
    """Serve a few items, rank one over HTTP, and print what was exported."""
    from agents.preference_data import PreferenceStore

    with PreferenceStore(folder / "store.sqlite") as store:
        store.add_items(demo_items(3))
        server, listener = make_server(store, repeats=0.0, port=0)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            address = f"http://127.0.0.1:{listener.getsockname()[1]}"
            item = ask(address, "next", {})["item"]
            told = {"item": item["item"], "round": item["round"], "ranks": [1, 2, 3, 4], "seconds": 1.0}
            after = ask(address, "judge", told)
        finally:
            server.should_exit = True
            thread.join()
        (ranking,) = store.rankings()
        print(f"ranked {after['ranked']} of {after['ranked'] + after['left']}")
        print(f"best answer to {ranking.prompt!r}: {ranking.answers[ranking.ranks.index(1)]!r}")
    return 0


def ask(address: str, what: str, body: dict[str, Any]) -> dict[str, Any]:
    """A request as the page makes it."""
    content = json.dumps({"annotator": "smoke", **body}).encode()
    request = urllib.request.Request(
        f"{address}/api/{what}", data=content, headers={"content-type": "application/json"}, method="POST"
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=30) as answer:
        state: dict[str, Any] = json.load(answer)
    return state


if __name__ == "__main__":
    sys.exit(main())
