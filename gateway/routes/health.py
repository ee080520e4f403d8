"""Routes for whoever watches the gateway: liveness, readiness, metrics."""

import asyncio
import time
from dataclasses import dataclass
from typing import Literal

import orjson
from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field
from starlette.types import Receive, Scope, Send

from contracts.amqp.publisher import Standing
from contracts.commands import KINDS
from contracts.topology import ROUTING_KEYS
from gateway.container import Parts
from gateway.dependencies import PartsOf
from gateway.http.middleware import ROUTE
from gateway.http.request import headers_of
from gateway.services.database import DatabaseAway

router = APIRouter(tags=["operation"])

HEALTH = "/health"
_HEALTHY = b'{"status":"ok"}'
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(_HEALTHY)).encode())]
_LOOPBACK = frozenset({"127.0.0.1", "::1"})
_CHECK_SECONDS = 0.5
_KEEP_SECONDS = 0.5
_MAX_NAMED = 20

# fails when the tables are not there, or may not be read
_PROBE = "select 1 from api_keys limit 1"


class Liveness(BaseModel):
    """The process answers."""

    status: str


class Readiness(BaseModel):
    """Whether commands can be accepted, and what each service says."""

    status: Literal["ready", "degraded", "unready"] = Field(
        description="`degraded`: commands are accepted, but not all of them, or not everything works."
    )
    broker: Standing | Literal["refusing"] = Field(
        description="`blocked`: it has a memory or disk alarm; `silent`: it confirms nothing in time; `refusing`: it "
        "takes no kind of command; `away`."
    )
    refusing: list[str] = Field(
        description="Routing keys whose commands it refuses (their queue is full) or does not confirm."
    )
    replies: Literal["ok", "away"] = Field(description="`away`: results that are waited for are found a little later.")
    postgres: Literal["ok", "away"]
    redis: Literal["ok", "away", "none"]


class Health:
    """GET /health: constant, and asks nobody."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        del receive
        scope[ROUTE] = HEALTH
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        await send({"type": "http.response.body", "body": _HEALTHY})


@dataclass(slots=True)
class ReadyCheck:
    """Asks the services at most twice a second, however often it is asked itself."""

    parts: Parts
    _lock: asyncio.Lock
    _answer: Readiness | None = None
    _at: float = 0.0

    @classmethod
    def of(cls, parts: Parts) -> "ReadyCheck":
        """Build it.

        Args:
            parts: What the gateway consists of.
        """
        return cls(parts, asyncio.Lock())

    async def answer(self) -> Readiness:
        """What the services say."""
        async with self._lock:
            if self._answer is None or time.monotonic() - self._at > _KEEP_SECONDS:
                self._answer = await self._ask()
                self._at = time.monotonic()
            return self._answer

    async def _ask(self) -> Readiness:
        redis = await self.parts.cache.answers()
        try:
            await self.parts.database.fetch(_PROBE, timeout_seconds=_CHECK_SECONDS)
            postgres = True
        except DatabaseAway:
            postgres = False
        broker: Standing | Literal["refusing"] = await self.parts.publisher.check()
        refusing = self.parts.publisher.refusing()
        if broker is Standing.OK and {ROUTING_KEYS[kind.queue] for kind in KINDS.values()} <= set(refusing):
            broker = "refusing"
        replies = self.parts.replies.address is not None
        complete = postgres and redis is not False and replies and not refusing
        return Readiness(
            status=("ready" if complete else "degraded") if broker is Standing.OK else "unready",
            broker=broker,
            refusing=refusing[:_MAX_NAMED],
            replies="ok" if replies else "away",
            postgres="ok" if postgres else "away",
            redis="none" if redis is None else "ok" if redis else "away",
        )


@router.get(
    "/ready",
    responses={
        200: {"model": Readiness},
        503: {"model": Readiness, "description": "The broker takes no commands now."},
    },
)
async def ready(request: Request) -> Response:
    """Whether commands can be accepted now; public."""
    check: ReadyCheck = request.app.state.ready
    answer = await check.answer()
    unready = answer.status == "unready"
    return Response(
        orjson.dumps(answer.model_dump()),
        status_code=503 if unready else 200,
        headers={"Retry-After": "1"} if unready else None,
        media_type="application/json",
    )


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request, parts: PartsOf) -> Response:
    """Prometheus metrics; to this machine, or with a key."""
    headers = headers_of(request.scope)
    # behind a proxy on this machine everyone seems to come from here
    proxied = b"x-forwarded-for" in headers or b"forwarded" in headers
    if proxied or request.client is None or request.client.host not in _LOOPBACK:
        await parts.keys.owner_of(headers)
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
