"""The load of a soak: a bounded mixture of everything that clients and outside publishers do, right and wrong.

Each thing has its own pace; nothing waits for anything else, and what is under way at once is bounded. Every conversation,
caller and key that could be remembered by a process is a new one each time.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import aio_pika
import httpx

from tests.benchmarks.commands import PUBLISHER, REPLIES

_AT_ONCE = 100
_TICK_SECONDS = 0.05
_TIMEOUT_SECONDS = 60.0


@dataclass(slots=True)
class Load:
    """What is sent, and what came of it."""

    client: httpx.AsyncClient
    amqp_url: str
    phones: list[str]
    seconds: float
    pace: float
    """1 is the usual; 2 sends everything twice as often."""
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    """Answers that must not be."""

    async def run(self) -> None:
        """Send for as long as was asked, and let what is under way end."""
        connection = await aio_pika.connect(self.amqp_url)
        async with connection:
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
            exchange = await channel.get_exchange("ish.commands", ensure=False)
            replies = await channel.get_queue(REPLIES, ensure=False)
            await replies.consume(self._take_reply)
            kinds: list[tuple[float, Callable[[], Awaitable[None]]]] = [
                (0.2, self._relay),
                (0.5, self._ask),
                (1.0, self._follow_a_stream),
                (0.5, self._drive_a_phone),
                (0.5, self._read),
                (2.0, self._cancel),
                (1.0, self._wrong_requests),
                (0.5, lambda: self._publish(exchange)),
                (2.0, lambda: self._publish_wrong(exchange)),
            ]
            await self._pace(kinds)

    async def _pace(self, kinds: list[tuple[float, Callable[[], Awaitable[None]]]]) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        due = [began + every / self.pace for every, _ in kinds]
        places = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            while loop.time() - began < self.seconds:
                for number, (every, send) in enumerate(kinds):
                    if loop.time() >= due[number]:
                        due[number] = max(due[number] + every / self.pace, loop.time())
                        group.create_task(self._within(places, send))
                await asyncio.sleep(_TICK_SECONDS)

    async def _within(self, places: asyncio.Semaphore, send: Callable[[], Awaitable[None]]) -> None:
        async with places:
            try:
                await send()
            except (httpx.HTTPError, aio_pika.exceptions.AMQPError, TimeoutError) as error:
                self.wrong[f"{getattr(send, '__name__', 'publish').strip('_')}: {type(error).__name__}"] += 1

    async def _post(self, path: str, body: Any, *, expect: int, **headers: str) -> httpx.Response:
        answer = await self.client.post(path, json=body, headers=headers)
        self._told(answer, expect)
        return answer

    def _told(self, answer: httpx.Response, *expected: int) -> None:
        path = answer.request.url.path
        route = "/".join(path.split("/")[:3]) if answer.status_code != httpx.codes.NOT_FOUND else "(nothing)"
        what = f"{answer.request.method} {route} {answer.status_code}"
        self.outcomes[what] += 1
        if answer.status_code not in expected:
            self.wrong[f"{what}: {answer.text[:200]}"] += 1

    async def _relay(self) -> None:
        body = {"sender": "user", "message": "hello", "timestamp": now(), "conversation_id": f"soak-{uuid4()}"}
        answer = await self._post("/api/relay?wait=30", body, expect=200)
        if answer.status_code == httpx.codes.OK and answer.json()["status"] != "succeeded":
            self.wrong["a relay that did not succeed"] += 1

    async def _ask(self) -> None:
        await self._post(
            "/api/send?wait=30", {"prompt": f"soak {uuid4()}", "cache": True, "temperature": 0}, expect=200
        )

    async def _follow_a_stream(self) -> None:
        body = {"prompt": f"soak {uuid4()}", "stream": True, "conversation_id": f"soak-{uuid4()}"}
        answer = await self._post("/api/send", body, expect=202)
        if answer.status_code != httpx.codes.ACCEPTED:
            return
        async with self.client.stream("GET", f"/api/commands/{answer.json()['id']}/events") as events:
            self.outcomes["streams followed"] += 1
            async for line in events.aiter_lines():
                if line == "event: result":
                    self.outcomes["streams ended by a result"] += 1

    async def _drive_a_phone(self) -> None:
        body: dict[str, Any] = {"action": "tap", "x": 10, "y": 10}
        if self.phones:
            body["device"] = self.phones[self.outcomes.total() % len(self.phones)]
        await self._post("/api/android/execute?wait=30", body, expect=200)
        await self._post("/api/android/execute?wait=30", {"command": "shell getprop ro.product.model"}, expect=200)

    async def _read(self) -> None:
        for path in ("/api/commands?limit=20", "/api/android/status", "/ready", "/health"):
            self._told(await self.client.get(path), 200)

    async def _cancel(self) -> None:
        answer = await self._post("/api/send", {"prompt": f"soak {uuid4()}"}, expect=202)
        if answer.status_code == httpx.codes.ACCEPTED:
            self._told(await self.client.delete(f"/api/commands/{answer.json()['id']}"), 200, 202, 204, 409)

    async def _wrong_requests(self) -> None:
        await self._post("/api/relay", {"sender": "nobody"}, expect=422)
        self._told(await self.client.get(f"/api/{uuid4()}"), 404)
        self._told(await self.client.get(f"/api/commands/{uuid4()}"), 404)
        self._told(await self.client.get("/api/commands", headers={"X-API-Key": f"ish_{uuid4().hex[:8]}_x"}), 401)
        same = str(uuid4())
        body = {"sender": "user", "message": "once", "timestamp": now()}
        await self._post("/api/relay", body, expect=202, **{"Idempotency-Key": same})
        await self._post("/api/relay", {**body, "message": "twice"}, expect=422, **{"Idempotency-Key": same})

    async def _publish(self, exchange: Any) -> None:
        body = {"sender": "user", "message": "published", "timestamp": now(), "conversation_id": f"soak-{uuid4()}"}
        await exchange.publish(message("relay.v1", body), routing_key="relay", mandatory=True, timeout=_TIMEOUT_SECONDS)
        self.outcomes["published"] += 1

    async def _publish_wrong(self, exchange: Any) -> None:
        for kind, body in (("relay.v1", {"sender": 7}), (f"kind{uuid4().hex[:6]}.v1", {})):
            await exchange.publish(message(kind, body), routing_key="relay", mandatory=True, timeout=_TIMEOUT_SECONDS)
        self.outcomes["published wrong"] += 1

    async def _take_reply(self, reply: Any) -> None:
        async with reply.process():
            self.outcomes[f"replies {json.loads(reply.body)['status']}"] += 1


def message(kind: str, body: Any) -> aio_pika.Message:
    """A command of the outside publisher.

    Args:
        kind: Its type.
        body: Its payload.
    """
    return aio_pika.Message(
        json.dumps(body).encode(),
        message_id=str(uuid4()),
        type=kind,
        user_id=PUBLISHER,
        reply_to=REPLIES,
        content_type="application/json",
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )


def now() -> str:
    """The time as payloads want it."""
    return datetime.now(UTC).isoformat()
