"""The page on which people rank answers, as a web application. Needs the extra ``annotate``.

Only programs on this machine are served: requests whose Host is not loopback are refused, which is what a site does
that has its name resolve to 127.0.0.1 (DNS rebinding), and so are requests that another site's page sends (Origin,
Sec-Fetch-Site). Annotators sign with a name; nothing tells them what others think.
"""

import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import ASGIApp, Receive, Scope, Send

from agents.preference_data.store import Judgement, PreferenceStore, StoreError, checked_name
from textenvs.rewards.serving import LimitBody

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MAX_BODY_BYTES = 2**16
REPEAT_GAP = 10
"""Items between one and its repetition, so that it is judged and not remembered."""
SECURITY = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
FILES = {
    "/": ("page.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}


class Signed(BaseModel):
    """A request by an annotator."""

    model_config = ConfigDict(extra="forbid", strict=True)

    annotator: str


class Ranked(Signed):
    """Ranks of the answers in the order in which the page shows them; None skips."""

    item: int
    round: int
    ranks: list[int] | None
    seconds: float = Field(ge=0, le=1e6)


def make_queue(items: list[int], annotator: str, repeats: float) -> list[tuple[int, int]]:
    """(item, round) in the order in which an annotator meets them: every item, and a share of them once more, later.

    Args:
        items: their numbers.
        annotator: decides which items come again.
        repeats: the share, in [0, 1].
    """
    queue: list[tuple[int, int]] = []
    waiting: list[int] = []
    for place, item in enumerate(items):
        queue.append((item, 1))
        if _random(annotator, item, 0).random() < repeats:
            waiting.append(place)
        if waiting and waiting[0] + REPEAT_GAP <= place:
            queue.append((items[waiting.pop(0)], 2))
    return queue + [(items[place], 2) for place in waiting]


def make_order(annotator: str, item: int, round: int, count: int) -> list[int]:
    """The numbers of an item's answers in the order in which they are shown: shuffled, the same after a reload."""
    return _random(annotator, item, round).permutation(count).tolist()


def _random(annotator: str, item: int, round: int) -> np.random.Generator:
    digest = hashlib.sha256(json.dumps([annotator, item, round]).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


@dataclass(frozen=True)
class Guard:
    """ASGI middleware: refuses whoever is not on this machine or comes from another site, and forbids the page to load
    anything from elsewhere."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        reason = refusal(request.method, {name.lower(): value for name, value in request.headers.items()})
        if reason is not None:
            await JSONResponse({"detail": reason}, status_code=403, headers=SECURITY)(scope, receive, send)
            return

        async def secured(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [(name.encode(), value.encode()) for name, value in SECURITY.items()]
            await send(message)

        await self.app(scope, receive, secured)


def refusal(method: str, headers: dict[str, str]) -> str | None:
    """Why a request is refused; None if it is not.

    Args:
        method: of HTTP.
        headers: names in small letters.
    """
    host = headers.get("host", "")
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        name = None
    if name not in LOOPBACK:
        return f"This page is served to this machine alone; the request is for the host {host!r:.100}."
    origin = headers.get("origin")
    if origin is not None and origin != f"http://{host}":
        return f"Requests from other sites are refused; this one is from {origin!r:.100}."
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return "Requests from other sites are refused."
    content = headers.get("content-type", "").partition(";")[0].strip()
    if method != "GET" and content != "application/json":  # a form of another site cannot send JSON
        return "Requests that change something must be JSON."
    return None


def create_app(store: PreferenceStore, *, repeats: float = 0.1) -> FastAPI:
    """The application.

    ``POST /api/next {annotator}`` answers with the next item for that annotator; ``/api/judge {annotator, item, round,
    ranks, seconds}`` keeps a ranking, or a skip where ``ranks`` is null, and answers like ``next`` once it is on disk;
    ``/api/undo {annotator}`` takes the last judgement back and answers with its item and what was said of it.

    Args:
        store: holds the items.
        repeats: share of the items that an annotator is shown a second time, from which label noise is estimated.

    Raises:
        ValueError: ``repeats`` is no share, or the store has no items.
    """
    if not 0 <= repeats <= 1:
        raise ValueError(f"repeats is a share of the items, in [0, 1]; got {repeats}.")
    items = store.item_ids()
    if not items:
        raise ValueError(f"{store.path} holds no answers to rank: add some (--answers FILE).")
    app = FastAPI(title="ranking answers", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(LimitBody, max_bytes=MAX_BODY_BYTES)
    app.add_middleware(Guard)

    @app.exception_handler(RequestValidationError)
    async def not_as_agreed(_: Request, error: RequestValidationError) -> JSONResponse:
        faults = [f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in error.errors()[:5]]
        return JSONResponse({"detail": "; ".join(faults)}, status_code=422)

    @app.exception_handler(StoreError)
    async def cannot_be_stored(_: Request, error: StoreError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=422)

    for path, (name, kind) in FILES.items():
        content = resources.files("agents.preference_data").joinpath(name).read_bytes()
        app.add_api_route(path, _file(content, kind), methods=["GET"])

    @app.post("/api/next")
    def following(signed: Signed) -> dict[str, Any]:
        return _state(store, items, checked_name(signed.annotator), repeats)

    @app.post("/api/judge")
    def judge(ranked: Ranked) -> dict[str, Any]:
        name = checked_name(ranked.annotator)
        if (ranked.item, ranked.round) not in make_queue(items, name, repeats):
            raise HTTPException(422, f"Item {ranked.item}, round {ranked.round} is not among those of {name!r}.")
        order = make_order(name, ranked.item, ranked.round, len(store.item(ranked.item).answers))
        ranks = ranked.ranks
        if ranks is not None:
            if len(ranks) != len(order):
                raise HTTPException(422, f"There are {len(order)} answers but {len(ranks)} ranks.")
            ranks = [ranks[order.index(number)] for number in range(len(order))]
        shown = [order.index(number) + 1 for number in range(len(order))]
        store.record(name, ranked.item, ranked.round, ranks, shown=shown, seconds=ranked.seconds)
        return _state(store, items, name, repeats)

    @app.post("/api/undo")
    def undo(signed: Signed) -> dict[str, Any]:
        name = checked_name(signed.annotator)
        return _state(store, items, name, repeats, again=store.undo(name))

    return app


def _file(content: bytes, kind: str) -> Any:
    def get() -> Response:
        return Response(content, media_type=kind)

    return get


def _state(
    store: PreferenceStore, items: list[int], name: str, repeats: float, again: Judgement | None = None
) -> dict[str, Any]:
    """What the page shows: the next item, or one that is to be judged again, and how far the annotator is."""
    queue, judged = make_queue(items, name, repeats), store.judged(name)
    skipped = sum(judged.values())
    left = [  # what was skipped does not come again
        (item, round)
        for item, round in queue
        if (item, round) not in judged and not (round > 1 and judged.get((item, 1)))
    ]
    place = (again.item, again.round) if again is not None else next(iter(left), None)
    state: dict[str, Any] = {
        "ranked": len(judged) - skipped,
        "skipped": skipped,
        "left": len(left),
        "can_undo": bool(judged),
        "item": None,
    }
    if place is not None:
        item = store.item(place[0])
        order = make_order(name, *place, len(item.answers))
        before = None if again is None or again.ranks is None else [again.ranks[number] for number in order]
        state["item"] = {
            "item": place[0],
            "round": place[1],
            "prompt": item.prompt,
            "answers": [item.answers[number] for number in order],
            "ranks": before,
        }
    return state
