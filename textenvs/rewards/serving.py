"""A server for any reward model, in the schema that the reward ``"http"`` speaks. Needs the extra ``serve``.

The request holds texts, not ids. Without the writer's vocabulary every character counts as a token, so rewards of token
ids count characters, and those that compare with columns of ids cannot be served.
"""

import math
import threading
from typing import Any, Literal

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from textenvs.episodes import Episodes
from textenvs.rewards.base import Judge, RewardError
from textenvs.rewards.http import SCHEMA_VERSION
from textenvs.rewards.registry import make_reward

MAX_BODY_BYTES = 64 * 2**20


class ScoreRequest(BaseModel):
    """A batch of texts to be scored; see :class:`textenvs.rewards.http.HttpReward`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    version: Literal[1]
    prompts: list[str]
    completions: list[str]
    separator: str = ""
    columns: dict[str, list[Any]] | None = None


class LimitBody:
    """ASGI middleware that refuses requests with a larger body, before all of it has arrived."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise HTTPException(413, f"The request is larger than {self.max_bytes:,} bytes: send smaller batches.")
            return message

        await self.app(scope, limited, send)


def create_app(reward: Any, *, max_body_bytes: int = MAX_BODY_BYTES) -> FastAPI:
    """The application: ``POST /score`` and ``GET /health``.

    ``/score`` answers 200 with ``{"scores": [...]}``, 413 where the request is larger than ``max_body_bytes``, 422
    where it is not as agreed, 500 where the reward model fails; failures come as ``{"detail": "..."}``. Batches are
    scored one after the other: reward models need not be thread-safe.

    Args:
        reward: any form of reward spec.
        max_body_bytes: a larger request is refused.
    """
    judge = Judge(make_reward(reward))
    turn = threading.Lock()
    app = FastAPI(title=f"reward {judge.name}", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(LimitBody, max_bytes=max_body_bytes)

    @app.exception_handler(RequestValidationError)
    async def not_as_agreed(_: Request, error: RequestValidationError) -> JSONResponse:
        faults = [f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in error.errors()[:5]]
        return JSONResponse({"detail": "; ".join(faults)}, status_code=422)

    @app.exception_handler(RewardError)
    async def reward_failed(_: Request, error: RewardError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=500)

    @app.post("/score")
    def score(request: ScoreRequest) -> dict[str, list[float]]:
        try:
            episodes = Episodes.from_texts(
                request.prompts, request.completions, request.columns, separator=request.separator
            )
        except ValueError as error:
            raise HTTPException(422, str(error)) from None
        if not len(episodes):
            return {"scores": []}
        with turn:
            return {"scores": judge(episodes).total.tolist()}

    @app.get("/health")
    def health() -> dict[str, Any]:
        return {
            "status": "ok",
            "schema_version": SCHEMA_VERSION,
            "reward": judge.name,
            "reward_version": judge.version,
            "low": judge.low if math.isfinite(judge.low) else None,
            "high": judge.high if math.isfinite(judge.high) else None,
            "deterministic": judge.deterministic,
        }

    return app
