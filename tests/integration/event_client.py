"""Reads server-sent events as a client would: event by event, with a deadline for each."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from tests.integration.gateway_process import DEADLINE_SECONDS


@dataclass(frozen=True, slots=True)
class Event:
    name: str
    data: Any
    id: str | None


class Events:
    """One open answer."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.comments = 0
        self._lines = answer.aiter_lines()

    async def next(self) -> Event | None:
        """The next event; None at the end."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(DEADLINE_SECONDS):
            async for line in self._lines:
                name, _, value = line.partition(": ")
                if line.startswith(":"):
                    self.comments += 1
                elif line:
                    fields[name] = value
                elif "data" in fields:
                    return Event(fields.get("event", "message"), json.loads(fields["data"]), fields.get("id"))
                else:
                    fields = {}
        return None

    async def until(self, *names: str) -> list[Event]:
        """Events up to and with the first of one of these names."""
        events: list[Event] = []
        while True:
            one = await self.next()
            assert one is not None, f"it ended after {events}, and not with {names}"
            events.append(one)
            if one.name in names:
                return events

    async def rest(self) -> list[Event]:
        """Events up to the end."""
        events: list[Event] = []
        while (one := await self.next()) is not None:
            events.append(one)
        return events


@asynccontextmanager
async def follow(
    client: httpx.AsyncClient, command_id: str, *, after: str | None = None, status: int = 200
) -> AsyncIterator[Events]:
    headers = {} if after is None else {"Last-Event-ID": after}
    async with client.stream("GET", f"/api/commands/{command_id}/events", headers=headers) as answer:
        assert answer.status_code == status
        yield Events(answer)


def text_of(events: list[Event]) -> str:
    """What a client holds that adds up tokens, and starts over when told so."""
    text = ""
    for one in events:
        if one.name == "restart":
            text = ""
        elif one.name == "token":
            text += one.data["text"]
    return text
